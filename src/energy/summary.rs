//! What is said at the end of a run: what it cost, and how well that is known.

use super::account::Part;
use super::reading::Reading;

/// What was metered.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// Training on so many images.
    Training { images: u64 },
    /// Another program, or a part of a script.
    Command,
}

/// Lines for people.
pub fn lines(reading: &Reading, of: Of) -> Vec<String> {
    let Some(energy) = reading.energy() else {
        let why = reading.problem.as_deref().unwrap_or("no sensor and no model was allowed or found");
        return vec![format!("energy not known: {why}")];
    };
    let mut parts = Vec::new();
    for (name, account) in reading.components() {
        let (Some(joules), Some(with_overhead)) = (account.joules(), account.with_overhead()) else { continue };
        // What drew nothing in the end is named only if there is nothing else.
        let drew = |part: &&Part| part.joules.0 > 0.0 || joules.0 == 0.0;
        let parts_used: Vec<&Part> = account.parts.iter().filter(drew).collect();
        let how = match parts_used.iter().filter(|part| part.measured).count() {
            0 => "estimated",
            some if some == parts_used.len() => "measured",
            _ => "partly measured",
        };
        let sources: Vec<&str> = parts_used.iter().map(|part| part.source.as_str()).collect();
        let kwh = significant(with_overhead.kwh());
        parts.push(format!("{} {kwh} kWh ({how}: {})", name.to_uppercase(), sources.join("; then ")));
    }
    let pue = reading.mean_pue();
    let overhead = if pue > 1.0 { format!(", PUE {pue}") } else { String::new() };
    let (seconds, what) = (reading.totals.active_s, if matches!(of, Of::Command) { "" } else { " of training" });
    let mut lines =
        vec![format!("energy    {} kWh in {} s{what}{overhead}", significant(energy.kwh()), length(seconds))];
    lines.extend(parts.into_iter().map(|part| format!("          {part}")));
    if let (Some(kg), Some(grams)) = (reading.co2_kg(), reading.mean_intensity()) {
        lines.push(format!(
            "emissions {} kg CO₂e at {} g/kWh: {}",
            significant(kg),
            significant(grams),
            reading.intensity()
        ));
    }
    if let Some(share) = reading.measured_share() {
        let mut line = format!("          {:.0} % measured, {:.0} % estimated", share * 100.0, 100.0 - share * 100.0);
        if let Of::Training { images } = of
            && let Some(kwh) = per_thousand(reading, images)
        {
            line.push_str(&format!("; {} kWh per thousand images", significant(kwh)));
        }
        lines.push(line);
    }
    if reading.totals.unmetered_s > 0.0 {
        lines.push(format!("          {:.0} s of training before were not metered", reading.totals.unmetered_s));
    }
    for (name, account) in reading.components() {
        if account.gap_s > 0.0 || account.missed_reads > 0 {
            let problem = account.problem.as_deref().unwrap_or("unknown reason");
            let name = name.to_uppercase();
            lines.push(match account.gap_s {
                gap if gap > 0.0 => {
                    format!("          {name}: {} s of {} s are missing ({problem})", length(gap), length(seconds))
                }
                _ => format!("          {name}: {} reads failed, nothing is missing ({problem})", account.missed_reads),
            });
        }
    }
    lines
}

/// kWh per thousand images; `None` where a part of the training was not metered.
pub fn per_thousand(reading: &Reading, images: u64) -> Option<f64> {
    let whole = reading.totals.unmetered_s == 0.0 && images > 0;
    reading.energy().filter(|_| whole).map(|energy| energy.kwh() / images as f64 * 1e3)
}

/// Seconds: with a tenth below ten.
fn length(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1}") } else { format!("{seconds:.0}") }
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
