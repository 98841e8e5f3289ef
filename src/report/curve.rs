//! A figure along a run, and what is read off it: its best, its end, when it first reached a level, where it stood at a time.
//!
//! A level counts as reached at the first logged point that is at or better than it; between points nothing is assumed. Only
//! [`Curve::at`] interpolates, because it compares runs whose points lie at different times.

use super::figure::Better;
use super::read::{Line, RunRecord};

/// What a figure can be read against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    Step,
    Epoch,
    /// Of training alone.
    Seconds,
    Kwh,
    Kg,
}

impl Against {
    pub const ALL: [Self; 5] = [Self::Step, Self::Epoch, Self::Seconds, Self::Kwh, Self::Kg];

    /// Where a line stands; `None` where its run was not metered, or has no epochs.
    pub fn of(self, line: &Line) -> Option<f64> {
        match self {
            Self::Step => Some(line.step as f64),
            Self::Epoch => line.get("epoch"),
            Self::Seconds => line.get("wall_s"),
            Self::Kwh => line.get("energy_kwh"),
            Self::Kg => line.get("co2_kg"),
        }
    }
}

/// A figure's logged points, in order.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    points: Vec<(&'a Line, f64)>,
    better: Better,
}

impl<'a> Curve<'a> {
    /// Lines that lack the figure are left out; there may be none.
    pub fn of(run: &'a RunRecord, figure: &str, better: Better) -> Self {
        let points = run.lines.iter().filter_map(|line| Some((line, line.get(figure)?))).collect();
        Self { points, better }
    }

    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The best point, the first of several.
    pub fn best(&self) -> Option<(&'a Line, f64)> {
        let better = |a: f64, b: f64| if self.better == Better::Higher { a > b } else { a < b };
        self.points.iter().copied().reduce(|best, point| if better(point.1, best.1) { point } else { best })
    }

    pub fn last(&self) -> Option<(&'a Line, f64)> {
        self.points.last().copied()
    }

    /// The first point at or better than `level`.
    pub fn first_at(&self, level: f64) -> Option<&'a Line> {
        let reached = |value: f64| if self.better == Better::Higher { value >= level } else { value <= level };
        self.points.iter().find(|(_, value)| reached(*value)).map(|(line, _)| *line)
    }

    /// Points (x, value) against an axis, those without a place on it left out.
    pub fn points(&self, against: Against) -> Vec<(f64, f64)> {
        self.points.iter().filter_map(|(line, value)| Some((against.of(line)?, *value))).collect()
    }

    /// The value at x, on the straight line between the two points around it; `None` outside of them.
    pub fn at(&self, against: Against, x: f64) -> Option<f64> {
        interpolate(&self.points(against), x)
    }
}

/// The value at x on straight lines between points of ascending x; `None` outside of them.
pub fn interpolate(points: &[(f64, f64)], x: f64) -> Option<f64> {
    if let Some((_, value)) = points.iter().find(|(at, _)| *at == x) {
        return Some(*value);
    }
    let after = points.iter().position(|(at, _)| *at > x)?;
    let (left, right) = (points.get(after.checked_sub(1)?)?, points[after]);
    let share = (x - left.0) / (right.0 - left.0);
    Some(left.1 + share * (right.1 - left.1))
}

#[cfg(test)]
mod tests {
    use super::super::made;
    use super::*;

    /// A point every 10 steps of 2 s each.
    fn run(values: &[f64]) -> RunRecord {
        made::run(None, 2.0, "val_loss", values)
    }

    fn check(values: &[f64], level: f64, best: Option<(u64, f64)>, reached: Option<u64>) {
        let made = run(values);
        let curve = Curve::of(&made, "val_loss", Better::Lower);
        assert_eq!(curve.best().map(|(line, value)| (line.step, value)), best, "{values:?}");
        assert_eq!(curve.first_at(level).map(|line| line.step), reached, "{values:?} at {level}");
        // The same upside down.
        let negative: Vec<f64> = values.iter().map(|value| -value).collect();
        let made = run(&negative);
        let curve = Curve::of(&made, "val_loss", Better::Higher);
        assert_eq!(curve.best().map(|(line, value)| (line.step, -value)), best, "{negative:?}");
        assert_eq!(curve.first_at(-level).map(|line| line.step), reached, "{negative:?} at {level}");
    }

    #[test]
    fn levels_are_reached_at_logged_points() {
        check(&[3.0, 2.0, 1.0], 1.5, Some((30, 1.0)), Some(30)); // Passed between 20 and 30.
        check(&[3.0, 2.0, 1.0], 2.0, Some((30, 1.0)), Some(20)); // A tie is reached.
        check(&[3.0, 1.0, 1.0, 1.0], 1.0, Some((20, 1.0)), Some(20)); // The plateau's first point.
        check(&[3.0, 1.0, 2.0, 0.5], 1.5, Some((40, 0.5)), Some(20)); // Noise: reached once is reached.
        check(&[3.0, 2.0], 1.0, Some((20, 2.0)), None);
        check(&[1.0, 2.0, 3.0], 1.0, Some((10, 1.0)), Some(10)); // The best is the first point.
        check(&[1.0], 1.0, Some((10, 1.0)), Some(10));
        check(&[], 1.0, None, None);
    }

    #[test]
    fn values_at_a_time_lie_between_their_neighbors() {
        let made = run(&[3.0, 2.0, 0.0]);
        let curve = Curve::of(&made, "val_loss", Better::Lower);
        let at = |seconds| curve.at(Against::Seconds, seconds);
        assert_eq!([at(20.0), at(30.0), at(55.0), at(60.0)], [Some(3.0), Some(2.5), Some(0.5), Some(0.0)]);
        assert_eq!([at(19.0), at(61.0), curve.at(Against::Kwh, 1.0)], [None, None, None]);
        assert!(Curve::of(&made, "miou", Better::Higher).is_empty());
    }
}
