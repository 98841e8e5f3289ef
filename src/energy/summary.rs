//! What is said at the end of a run: what it cost, and how well that is known.

use super::reading::Reading;

/// What was metered.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// Training on so many images.
    Training { images: u64 },
    /// Another program, or a part of a script.
    Command,
}

/// Lines for people; `intensity` is where the intensity comes from.
pub fn lines(reading: &Reading, intensity: &str, of: Of) -> Vec<String> {
    let Some(energy) = reading.energy() else {
        let why = reading.problem.as_deref().unwrap_or("no sensor and no model was allowed or found");
        return vec![format!("energy not known: {why}")];
    };
    let mut parts = Vec::new();
    for (name, account) in reading.components() {
        let Some(joules) = account.joules() else { continue };
        let kwh = significant((joules * reading.pue).kwh());
        let sources: Vec<&str> =
            account.parts.iter().filter(|part| part.joules.0 > 0.0).map(|part| part.source.as_str()).collect();
        let (measured, all) = (account.measured().0, joules.0);
        let how = match () {
            () if measured >= all => "measured",
            () if measured > 0.0 => "partly measured",
            () => "estimated",
        };
        parts.push(format!("{} {kwh} kWh ({how}: {})", name.to_uppercase(), sources.join("; then ")));
    }
    let overhead = if reading.pue > 1.0 { format!(", PUE {}", reading.pue) } else { String::new() };
    let (seconds, what) = (reading.totals.active_s, if matches!(of, Of::Command) { "" } else { " of training" });
    let mut lines = vec![format!("energy    {} kWh in {seconds:.0} s{what}{overhead}", significant(energy.kwh()))];
    lines.extend(parts.into_iter().map(|part| format!("          {part}")));
    if let (Some(kg), Some(grams)) = (reading.co2_kg(), reading.mean_intensity()) {
        lines.push(format!("emissions {} kg CO₂e at {} g/kWh: {intensity}", significant(kg), significant(grams)));
    }
    if let Some(share) = reading.measured_share() {
        let mut line = format!("          {:.0} % measured, {:.0} % estimated", share * 100.0, 100.0 - share * 100.0);
        if let Of::Training { images: images @ 1.. } = of {
            let per_thousand = energy.kwh() / images as f64 * 1e3;
            line.push_str(&format!("; {} kWh per thousand images", significant(per_thousand)));
        }
        lines.push(line);
    }
    for (name, account) in reading.components() {
        if account.gap_s > 0.0 || account.missed_reads > 0 {
            let problem = account.problem.as_deref().unwrap_or("unknown reason");
            let name = name.to_uppercase();
            lines.push(match account.gap_s {
                gap if gap > 0.0 => {
                    format!("          {name}: {gap:.1} s of {seconds:.0} s are missing ({problem})")
                }
                _ => format!("          {name}: {} reads failed, nothing is missing ({problem})", account.missed_reads),
            });
        }
    }
    lines
}

/// Three digits that count: `0.000123`, `1.23`, `1230`.
pub fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits);
    let rounded = (value * scale).round() / scale;
    if digits > 0 { format!("{rounded:.*}", digits as usize) } else { format!("{rounded:.0}") }
}

#[cfg(test)]
mod tests {
    use super::significant;

    #[test]
    fn three_digits_count() {
        let shown: Vec<String> = [0.0001234, 0.5, 1.2345, 267.6, 12_345.0, 0.0].into_iter().map(significant).collect();
        assert_eq!(shown, ["0.000123", "0.500", "1.23", "268", "12300", "0"]);
    }
}
