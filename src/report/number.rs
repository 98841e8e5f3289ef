//! Numbers for people: decimals, signs, units that fit their size.

/// The minus that is as wide as a plus, as printed numbers have it.
const MINUS: char = '−';

/// So many decimals; no minus before zeros.
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.chars().all(|c| c == '0' || c == '.');
    if value < 0.0 && !zero { format!("{MINUS}{text}") } else { text }
}

/// With its sign, zero aside.
pub fn signed(value: f64, decimals: usize) -> String {
    let text = fixed(value, decimals);
    let zero = text.chars().all(|c| c == '0' || c == '.');
    if value > 0.0 && !zero { format!("+{text}") } else { text }
}

/// Two digits that count, and no more than three decimals of nothing.
pub fn p_value(p: f64) -> String {
    match p {
        p if p < 0.001 => "<0.001".to_owned(),
        p if p < 0.1 => fixed(p, 3),
        p => fixed(p, 2),
    }
}

/// `p = 0.013`, `p < 0.001`.
pub fn p_equals(p: f64) -> String {
    let text = p_value(p);
    text.strip_prefix('<').map_or_else(|| format!("p = {text}"), |rest| format!("p < {rest}"))
}

/// As short as it can be without loss: `0.006`, `1e-5`, `800`.
pub fn plain(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e15).contains(&magnitude) { format!("{value:e}") } else { format!("{value}") }
}

/// How many decimals show the largest of the values with so many digits that count.
pub fn decimals(values: impl IntoIterator<Item = f64>, digits: i32) -> usize {
    let largest = values.into_iter().map(f64::abs).filter(|value| value.is_finite()).fold(0.0, f64::max);
    if largest == 0.0 {
        return 0;
    }
    // 9.96 at two digits is printed as 10: the exponent is that of the rounded number.
    let exponent = format!("{largest:.*e}", (digits - 1).max(0) as usize);
    let exponent: i32 = exponent.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    (digits - 1 - exponent).clamp(0, 12) as usize
}

/// A unit that fits the size of what it measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    pub name: &'static str,
    /// One of it in the base unit: seconds, kWh, kg.
    pub size: f64,
    /// From where on it is taken, in the base unit.
    from: f64,
}

const TIME: [Unit; 3] = [
    Unit { name: "h", size: 3600.0, from: 3600.0 },
    Unit { name: "min", size: 60.0, from: 60.0 },
    Unit { name: "s", size: 1.0, from: 0.0 },
];
const ENERGY: [Unit; 2] = [Unit { name: "kWh", size: 1.0, from: 0.1 }, Unit { name: "Wh", size: 1e-3, from: 0.0 }];
const MASS: [Unit; 3] = [
    Unit { name: "kg", size: 1.0, from: 0.1 },
    Unit { name: "g", size: 1e-3, from: 1e-4 },
    Unit { name: "mg", size: 1e-6, from: 0.0 },
];

/// For durations up to `seconds`.
pub fn time_unit(seconds: f64) -> Unit {
    fitting(&TIME, seconds)
}

/// For energies up to `kwh`.
pub fn energy_unit(kwh: f64) -> Unit {
    fitting(&ENERGY, kwh)
}

/// For masses up to `kg`.
pub fn mass_unit(kg: f64) -> Unit {
    fitting(&MASS, kg)
}

fn fitting(units: &[Unit], value: f64) -> Unit {
    units.iter().copied().find(|unit| value >= unit.from).unwrap_or(units[units.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_for_people() {
        assert_eq!(
            [fixed(-0.004, 2), fixed(-0.005001, 2), signed(0.2, 1), signed(0.01, 1)],
            ["0.00", "−0.01", "+0.2", "0.0"]
        );
        assert_eq!([p_value(0.0002), p_value(0.0123), p_value(0.5)], ["<0.001", "0.012", "0.50"]);
        assert_eq!([p_equals(0.0002), p_equals(0.0123)], ["p < 0.001", "p = 0.012"]);
        assert_eq!([plain(0.006), plain(1e-5), plain(800.0), plain(0.0)], ["0.006", "1e-5", "800", "0"]);
    }

    #[test]
    fn decimals_follow_the_largest_value() {
        assert_eq!(
            [decimals([0.7], 4), decimals([12.0, 0.1], 3), decimals([9.96], 2), decimals([1e9], 3)],
            [4, 1, 0, 0]
        );
        assert_eq!([decimals([0.00033], 3), decimals([], 3), decimals([0.0], 3)], [6, 0, 0]);
    }

    #[test]
    fn units_fit() {
        let names = [59.9, 60.0, 3599.0, 3600.0].map(|seconds| time_unit(seconds).name);
        assert_eq!(names, ["s", "min", "min", "h"]);
        assert_eq!([energy_unit(0.3).name, energy_unit(0.03).name], ["kWh", "Wh"]);
        assert_eq!([mass_unit(0.5).name, mass_unit(0.05).name, mass_unit(5e-5).name], ["kg", "g", "mg"]);
    }
}
