//! Pairs of timings in turn, A B A B …, and the median of their ratios: a machine that slows down slows both sides of a pair.

use std::time::Instant;

use crate::Result;

/// B over A, and the medians of both: seconds, or what [`Pairs::of`] was given.
pub struct Pairs {
    count: usize,
    /// Lower quartile, median, upper quartile of the pairs' ratios.
    ratio: [f64; 3],
    a: f64,
    b: f64,
}

impl Pairs {
    /// Times `count` pairs, after one call of each that is not timed.
    pub fn time(count: usize, mut a: impl FnMut() -> Result<()>, mut b: impl FnMut() -> Result<()>) -> Result<Self> {
        a()?;
        b()?;
        let (mut a_secs, mut b_secs) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let start = Instant::now();
            a()?;
            let between = Instant::now();
            b()?;
            a_secs.push((between - start).as_secs_f64());
            b_secs.push(between.elapsed().as_secs_f64());
        }
        Ok(Self::of(&a_secs, &b_secs))
    }

    /// Pairs that were timed elsewhere, as many of A as of B.
    pub fn of(a: &[f64], b: &[f64]) -> Self {
        let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| b / a).collect();
        Self {
            count: ratios.len(),
            ratio: [0.25, 0.5, 0.75].map(|at| quantile(&ratios, at)),
            a: quantile(a, 0.5),
            b: quantile(b, 0.5),
        }
    }

    /// The line of one claim; `beside` is what else there is to say.
    pub fn print(&self, name: &str, counted: impl Into<Option<f64>>, bound: Option<f64>, beside: &str) {
        self.line(name, counted.into(), bound, duration, beside);
    }

    /// The same for values that `show` writes.
    pub fn line(&self, name: &str, counted: Option<f64>, bound: Option<f64>, show: fn(f64) -> String, beside: &str) {
        let [low, median, high] = self.ratio;
        let counted = counted.map_or(String::new(), |counted| format!("   counted {counted:.3}"));
        println!(
            "ratio {name} {median:.3}{counted}{}   quartiles {low:.3} {high:.3}   \
             median of {} pairs, {} and {}, {beside}",
            verdict(median, bound),
            self.count,
            show(self.b),
            show(self.a),
        );
    }
}

/// Linear between the two values next to it.
fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = at * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + place.fract() * (high - low)
}

/// A bound, and in words whether it is met; nothing without one.
pub fn verdict(value: f64, bound: Option<f64>) -> String {
    bound
        .map_or(String::new(), |bound| format!(" bound {bound:.3} {}", if value <= bound { "within" } else { "ABOVE" }))
}

fn duration(secs: f64) -> String {
    if secs >= 1.0 { format!("{secs:.1} s") } else { format!("{:.1} ms", 1e3 * secs) }
}
