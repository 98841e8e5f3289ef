//! From values to places: a linear or logarithmic scale and its ticks.
//!
//! Linear ticks stand at 1, 2 or 5 times a power of ten. Logarithmic ones stand at decades, at 1, 2 and 5 where there are
//! fewer than three decades, and at linear steps where even these are too few.

use super::text_width;

/// Values from `low` to `high`, to be laid out from 0 to 1. `low < high`, both finite; both positive where `log`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    pub low: f64,
    pub high: f64,
    pub log: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ticks {
    /// Value and label, ascending.
    pub major: Vec<(f64, String)>,
    pub minor: Vec<f64>,
    /// Labels are values divided by ten to this power; the axis says so.
    pub exponent: i32,
}

impl Scale {
    /// The scale over these values; `None` if none of them has a place on it.
    pub fn over(values: impl Iterator<Item = f64>, log: bool) -> Option<Self> {
        let fits = |v: &f64| v.is_finite() && (!log || *v > 0.0);
        let (low, high) =
            values.filter(fits).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return None;
        }
        if low < high {
            return Some(Self { low, high, log });
        }
        // One value: a range around it, so that it stands in the middle.
        let (low, high) = match () {
            () if log => (low / 2.0, low * 2.0),
            () if low == 0.0 => (-1.0, 1.0),
            () => (low - low.abs() / 10.0, low + low.abs() / 10.0),
        };
        Some(Self { low, high, log })
    }

    /// Room beyond both ends, as a fraction of the length; zero stays an end where values start there.
    #[must_use]
    pub fn padded(self, share: f64) -> Self {
        if self.log {
            let room = ((self.high.ln() - self.low.ln()) * share).exp();
            let (low, high) = ((self.low / room).max(f64::MIN_POSITIVE), (self.high * room).min(f64::MAX));
            return Self { low, high, log: true };
        }
        let room = (self.high - self.low) * share;
        let low = if self.low >= 0.0 && self.low < room { self.low.min(0.0) } else { self.low - room };
        Self { low, high: self.high + room, log: false }
    }

    /// Whether `value` has a place on this kind of scale.
    pub fn holds(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }

    /// The place of `value`: 0 at `low`, 1 at `high`. Only for values that the scale holds.
    pub fn at(&self, value: f64) -> f64 {
        if self.log {
            (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// As many labeled ticks as fit beside each other in so many pixels.
    pub fn ticks_within(&self, room: f64) -> Ticks {
        let fits = |ticks: &Ticks| ticks.major.iter().map(|(_, label)| text_width(label) + 14.0).sum::<f64>() <= room;
        (3..=7).rev().map(|most| self.ticks(most)).find(fits).unwrap_or_else(|| self.ticks(2))
    }

    /// How many decimals tell a hundredth of the scale apart; `None` where a number by itself reads better.
    pub fn decimals(&self) -> Option<usize> {
        let decimals = 2.0 - (self.high - self.low).log10().floor();
        (!self.log && decimals <= 5.0).then_some(decimals.max(0.0) as usize)
    }

    /// At most about `most` labeled ticks.
    pub fn ticks(&self, most: usize) -> Ticks {
        let most = most.max(2);
        if !self.log {
            return self.linear_ticks(most);
        }
        let decades: Vec<i32> = (self.low.log10().floor() as i32..=self.high.log10().ceil() as i32).collect();
        let within = |v: &f64| (self.low..=self.high).contains(v);
        let powers: Vec<i32> = decades.iter().copied().filter(|&k| within(&power(k))).collect();
        let every = |factors: &[f64]| -> Vec<f64> {
            decades.iter().flat_map(|&k| factors.iter().map(move |f| f * power(k))).filter(within).collect()
        };
        let minor = if powers.len() <= 8 { every(&[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]) } else { Vec::new() };
        if powers.len() >= 3 {
            let stride = powers.len().div_ceil(most) as i32;
            let label = |&k: &i32| (power(k), log_label(power(k)));
            let major = powers.iter().filter(|k| k.rem_euclid(stride) == 0).map(label).collect();
            return Ticks { major, minor, exponent: 0 };
        }
        let fine = every(&[1.0, 2.0, 5.0]);
        if fine.len() >= 3 && fine.len() <= most + 2 {
            let major = fine.into_iter().map(|v| (v, log_label(v))).collect();
            return Ticks { major, minor, exponent: 0 };
        }
        self.linear_ticks(most)
    }

    fn linear_ticks(&self, most: usize) -> Ticks {
        let step = nice_step((self.high - self.low) / most as f64);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let values: Vec<f64> = (first..=last).map(|k| k as f64 * step).collect();
        let largest = self.low.abs().max(self.high.abs());
        let decimals = decimals_of(step);
        let exponent = match () {
            () if decimals > 4 || largest >= 1e7 => (largest.log10() / 3.0).floor() as i32 * 3,
            () => 0,
        };
        let decimals = (decimals + exponent).max(0) as usize;
        let label = |v: f64| (v, fixed(v / power(exponent), decimals));
        Ticks { major: values.into_iter().map(label).collect(), minor: Vec::new(), exponent }
    }
}

/// 1, 2 or 5 times a power of ten, and not less than `rough`.
fn nice_step(rough: f64) -> f64 {
    let base = power(rough.log10().floor() as i32);
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * base >= rough * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * base
}

/// How many decimals tell multiples of `step` apart; negative for steps of 10 and more.
fn decimals_of(step: f64) -> i32 {
    -((step * (1.0 + 1e-9)).log10().floor() as i32)
}

/// Ten to an integer, without the rounding of `powi` at negative exponents.
fn power(k: i32) -> f64 {
    if k < 0 { 1.0 / 10f64.powi(-k) } else { 10f64.powi(k) }
}

/// A number for people: a true minus, and narrow spaces between thousands from 10 000 on.
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    if value < 0.0 && text.bytes().any(|b| b.is_ascii_digit() && b != b'0') {
        out.push('−');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && whole.len() > 4 && (whole.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    if !rest.is_empty() {
        out.push('.');
        out.push_str(rest);
    }
    out
}

/// A number beside others of its scale.
pub fn alike(value: f64, decimals: Option<usize>) -> String {
    decimals.map_or_else(|| short(value), |decimals| fixed(value, decimals))
}

/// A number by itself: four significant digits, as a power of ten where zeros would crowd it.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e7).contains(&size) {
        let whole = if size < 1.0 { 0 } else { size.log10().floor() as i32 + 1 };
        let leading = if size < 1.0 && size > 0.0 { -(size.log10().floor() as i32) - 1 } else { 0 };
        let text = fixed(value, (4 - whole + leading).clamp(0, 7) as usize);
        return if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    }
    let exponent = size.log10().floor() as i32;
    let factor = fixed(value / power(exponent), 2);
    let factor = factor.trim_end_matches('0').trim_end_matches('.');
    if factor == "1" { ten_to(exponent) } else { format!("{factor}×{}", ten_to(exponent)) }
}

/// Without the rounding that makes 9.999…×10⁻⁵ of a decade.
fn log_label(value: f64) -> String {
    short(value * (1.0 + 1e-12))
}

/// `10⁻⁴`
pub fn ten_to(exponent: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let mut out = "10".to_owned();
    for c in exponent.to_string().chars() {
        out.push(c.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, log: bool, most: usize) -> (Vec<String>, i32) {
        let ticks = Scale { low, high, log }.ticks(most);
        (ticks.major.into_iter().map(|(_, label)| label).collect(), ticks.exponent)
    }

    #[test]
    fn linear_ticks_stand_at_one_two_or_five() {
        assert_eq!(labels(0.0, 1.0, false, 6).0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(0.61, 0.72, false, 6).0, ["0.62", "0.64", "0.66", "0.68", "0.70", "0.72"]);
        assert_eq!(labels(0.0, 390.0, false, 6).0, ["0", "100", "200", "300"]);
        assert_eq!(labels(-30.0, 10.0, false, 4).0, ["−30", "−20", "−10", "0", "10"]);
        assert_eq!(
            labels(0.0, 40_000.0, false, 4).0,
            ["0", "10\u{202f}000", "20\u{202f}000", "30\u{202f}000", "40\u{202f}000"]
        );
    }

    #[test]
    fn small_and_large_values_share_a_power_of_ten() {
        assert_eq!(labels(0.0, 0.00016, false, 4), (vec!["0".into(), "50".into(), "100".into(), "150".into()], -6));
        assert_eq!(labels(0.0, 3e9, false, 4), (vec!["0".into(), "1".into(), "2".into(), "3".into()], 9));
    }

    #[test]
    fn logarithmic_ticks_are_decades_then_one_two_five_then_linear() {
        assert_eq!(labels(1e-5, 1.0, true, 6).0, ["10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"]);
        assert_eq!(labels(1e-9, 1.0, true, 5).0, ["10⁻⁸", "10⁻⁶", "10⁻⁴", "0.01", "1"]);
        assert_eq!(labels(0.8, 24.0, true, 6).0, ["1", "2", "5", "10", "20"]);
        assert_eq!(labels(0.66, 0.82, true, 4).0, ["0.70", "0.75", "0.80"]);
    }

    #[test]
    fn every_tick_lies_on_its_scale() {
        for (low, high) in [(1e-12, 1e-11), (0.999, 1.001), (3.0, 3.0000001), (1e-300, 1e300), (2e5, 7e8)] {
            for log in [false, true] {
                let scale = Scale { low, high, log };
                let ticks = scale.ticks(6);
                assert!((1..=9).contains(&ticks.major.len()), "{low} to {high}: {ticks:?}");
                for (value, _) in &ticks.major {
                    assert!((-1e-6..=1.0 + 1e-6).contains(&scale.at(*value)), "{low} to {high}: {value}");
                }
            }
        }
    }

    #[test]
    fn scales_of_nothing_and_of_one_value() {
        assert_eq!(Scale::over([f64::NAN, f64::INFINITY].into_iter(), false), None);
        assert_eq!(Scale::over([0.0, -1.0].into_iter(), true), None);
        let one = Scale::over([3.0].into_iter(), false).unwrap();
        assert!((one.at(3.0) - 0.5).abs() < 1e-12);
        assert_eq!(Scale::over([0.5, 2.0].into_iter(), false).unwrap().padded(0.1).low, 0.35);
        assert_eq!(Scale::over([0.0, 2.0].into_iter(), false).unwrap().padded(0.1).low, 0.0);
    }

    #[test]
    fn numbers_for_people() {
        let cases = [(0.0, "0"), (0.66342, "0.6634"), (1234.5678, "1235"), (12345.0, "12\u{202f}345"), (-0.5, "−0.5")];
        for (value, text) in cases.into_iter().chain([(2.5e-6, "2.5×10⁻⁶"), (1e-4, "10⁻⁴"), (0.0061, "0.0061")])
        {
            assert_eq!(short(value), text);
        }
        assert_eq!(fixed(-0.001, 2), "0.00");
    }
}
