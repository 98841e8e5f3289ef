//! How a layer is decorrelated: the options of `model.decorrelate`, checked, and the two presets.

use serde::{Deserialize, Serialize};

use super::{NnError, NnResult};
use crate::schedule::Schedule;

/// How η moves through a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecorSchedule {
    #[default]
    Constant,
    /// η is scaled by the weight learning rate over its peak, warm-up included.
    Follow,
    /// η itself by step; `lr` is not used.
    Own(Schedule),
}

/// When R is frozen; it is still applied afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopAt {
    Step(u64),
    Epoch(u64),
}

/// How many rows of a step the update of R sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sample {
    Rows(i64),
    /// Of all rows, in (0, 1].
    Fraction(f64),
}

/// The most rows of a step the update of R sees, whatever [`Sample`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MaxRows {
    #[default]
    None,
    Rows(i64),
    /// Times the width of R, or of its blocks.
    Widths(f64),
}

/// Whether R is one matrix or a chain of blocks on its diagonal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockWidth {
    #[default]
    Whole,
    /// Blocks of this width; it must divide the layer's inputs. A layer that is no wider gets one block.
    Width(i64),
    /// In layers with at least twice as many inputs as outputs (`fc2`): blocks no wider than the outputs.
    Wide,
}

/// The options of a decorrelated layer, as `model.decorrelate` takes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecorOptions {
    /// η of eq. 4. Stable below 2/λmax of C, which shrinks as the width grows; above it the layer's η is halved.
    pub lr: f64,
    /// Rows of a step that the update sees, over all its micro-batches.
    pub sample: Sample,
    pub max_rows: MaxRows,
    /// Share of the variance term: 0 is the paper's rule, 1 only normalizes each row's variance.
    pub kappa: f64,
    /// Update R at every `every`-th step.
    pub every: u64,
    pub schedule: DecorSchedule,
    pub stop_at: Option<StopAt>,
    /// Freeze R once its decorrelation loss has not fallen by 1 % for so many steps; 0 never does.
    pub patience: u64,
    /// R = I + UVᵀ with U and V of this many columns; 0 is a full R.
    pub rank: i64,
    pub block: BlockWidth,
    /// A row of R that would become longer than this stays as it is; 0 is no bound.
    pub max_norm: f64,
    /// Behind a LayerNorm: keep R as it is in the one direction that its outputs never vary in.
    pub project: bool,
}

impl Default for DecorOptions {
    fn default() -> Self {
        Self::paper()
    }
}

impl DecorOptions {
    /// The paper's tuned values for ViT-Base (arXiv:2510.14657, §4.1 and Appendices A and C), and the two bounds that keep
    /// R finite, which change nothing while it is.
    pub fn paper() -> Self {
        Self {
            lr: 5e-4,
            sample: Sample::Fraction(0.10),
            max_rows: MaxRows::None,
            kappa: 0.0,
            every: 1,
            schedule: DecorSchedule::Constant,
            stop_at: None,
            patience: 0,
            rank: 0,
            block: BlockWidth::Whole,
            max_norm: 4.0,
            project: true,
        }
    }

    /// The same at a fraction of its cost: at most four rows per column of R, and blocks in wide layers.
    pub fn lean() -> Self {
        Self { max_rows: MaxRows::Widths(4.0), block: BlockWidth::Wide, ..Self::paper() }
    }

    /// A preset by name.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "paper" => Some(Self::paper()),
            "lean" => Some(Self::lean()),
            _ => None,
        }
    }

    /// Errors: [`NnError::Config`] naming the first option outside its range.
    pub fn check(&self) -> NnResult<()> {
        let fail = |message: String| Err(NnError::Config(message));
        if !(self.lr.is_finite() && self.lr >= 0.0) {
            return fail(format!("lr: expected a decorrelation rate of 0 or more, got {}", self.lr));
        }
        match self.sample {
            Sample::Rows(rows) if rows < 1 => {
                return fail(format!("sample: expected 1 or more rows, or a fraction up to 1.0, got {rows}"));
            }
            Sample::Fraction(fraction) if !(fraction > 0.0 && fraction <= 1.0) => {
                return fail(format!(
                    "sample: expected a fraction above 0 up to 1.0, or a whole number of rows, got {fraction}"
                ));
            }
            _ => {}
        }
        match self.max_rows {
            MaxRows::Rows(rows) if rows < 1 => {
                return fail(format!("max_rows: expected 0 (no bound), a number of rows, or \"4d\", got {rows}"));
            }
            MaxRows::Widths(times) if !(times.is_finite() && times > 0.0) => {
                return fail(format!("max_rows: expected a multiple of the width above 0, as in \"4d\", got {times}"));
            }
            _ => {}
        }
        if !(0.0..=1.0).contains(&self.kappa) {
            return fail(format!("kappa: expected a number between 0 and 1, got {}", self.kappa));
        }
        if self.every == 0 {
            return fail("every: expected 1 or more steps, got 0".to_owned());
        }
        if let DecorSchedule::Own(schedule) = &self.schedule {
            schedule.check().map_err(|message| NnError::Config(format!("schedule: {message}")))?;
        }
        if self.rank < 0 {
            return fail(format!("rank: expected 0 (a full R) or a number of columns, got {}", self.rank));
        }
        if let BlockWidth::Width(width) = self.block
            && width < 1
        {
            return fail(format!("block: expected 0 (one matrix), a width, or \"wide\", got {width}"));
        }
        if self.rank > 0 && self.block != BlockWidth::Whole {
            return fail("rank: R is either of low rank or in blocks; leave out rank or block".to_owned());
        }
        if !(self.max_norm == 0.0 || (self.max_norm.is_finite() && self.max_norm >= 1.0)) {
            return fail(format!(
                "max_norm: expected 0 (no bound) or 1 or more, the length that rows of R start with, got {}",
                self.max_norm
            ));
        }
        Ok(())
    }

    /// The width of R's blocks in a layer of `inputs` and `outputs`, both per group of a convolution.
    ///
    /// Errors: [`NnError::Config`] if the width asked for does not divide the inputs.
    pub fn block_width(&self, name: &str, inputs: i64, outputs: i64) -> NnResult<i64> {
        match self.block {
            BlockWidth::Whole => Ok(inputs),
            BlockWidth::Width(width) if width >= inputs => Ok(inputs),
            BlockWidth::Width(width) if inputs % width == 0 => Ok(width),
            BlockWidth::Width(width) => {
                let nearest =
                    (1..=inputs).filter(|w| inputs % w == 0).min_by_key(|w| (w - width).abs()).unwrap_or(inputs);
                let message = format!(
                    "block: {width} does not divide the {inputs} inputs of {name}; the nearest that does is {nearest}"
                );
                Err(NnError::Config(message))
            }
            BlockWidth::Wide if inputs < 2 * outputs => Ok(inputs),
            // Inputs with no divisor near the outputs: blocks so narrow would leave nearly everything correlated.
            BlockWidth::Wide => {
                Ok((outputs / 4 + 1..=outputs).rev().find(|width| inputs % width == 0).unwrap_or(inputs))
            }
        }
    }

    /// How many of the `total` rows of one of `micro_batches` passes the update sees, where R or its blocks are `width`
    /// wide: at least one.
    pub fn rows(&self, total: i64, micro_batches: u64, width: i64) -> i64 {
        let passes = micro_batches.max(1) as i64;
        let per_pass = |rows: i64| rows / passes + i64::from(rows % passes != 0);
        let wanted = match self.sample {
            Sample::Rows(rows) => per_pass(rows),
            Sample::Fraction(fraction) => (total as f64 * fraction) as i64,
        };
        let bound = match self.max_rows {
            MaxRows::None => total,
            MaxRows::Rows(rows) => per_pass(rows).min(total),
            MaxRows::Widths(times) => per_pass((times * width as f64) as i64).min(total),
        };
        wanted.clamp(1, bound.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut DecorOptions)) -> DecorOptions {
        let mut options = DecorOptions::default();
        change(&mut options);
        options
    }

    #[test]
    fn rows_follow_sample_and_bound() {
        assert_eq!(DecorOptions::paper().rows(4352, 1, 128), 435);
        assert_eq!(DecorOptions::paper().rows(3, 1, 128), 1);
        assert_eq!(with(|o| o.sample = Sample::Rows(64)).rows(4352, 1, 128), 64);
        assert_eq!(with(|o| o.sample = Sample::Rows(64)).rows(32, 1, 128), 32);
        assert_eq!(with(|o| o.sample = Sample::Rows(1)).rows(4352, 1, 128), 1);
        assert_eq!(with(|o| o.sample = Sample::Fraction(1.0)).rows(4352, 1, 128), 4352);
        assert_eq!(with(|o| o.max_rows = MaxRows::Rows(100)).rows(4352, 1, 128), 100);
        assert_eq!(DecorOptions::lean().rows(12_800, 1, 128), 512);
    }

    #[test]
    fn a_number_of_rows_is_shared_by_the_micro_batches() {
        assert_eq!(with(|o| o.sample = Sample::Rows(64)).rows(4352, 16, 128), 4);
        assert_eq!(with(|o| o.sample = Sample::Rows(64)).rows(4352, 100, 128), 1);
        assert_eq!(DecorOptions::lean().rows(12_800, 16, 768), 192);
        assert_eq!(DecorOptions::paper().rows(12_800, 16, 768), 1280); // A fraction is one of every pass.
    }

    #[test]
    fn blocks_divide_the_inputs() {
        let width = |block, inputs, outputs| with(|o| o.block = block).block_width("fc2", inputs, outputs);
        assert_eq!(width(BlockWidth::Width(128), 512, 128).unwrap(), 128);
        assert_eq!(width(BlockWidth::Width(128), 96, 128).unwrap(), 96);
        assert_eq!(width(BlockWidth::Wide, 512, 128).unwrap(), 128);
        assert_eq!(width(BlockWidth::Wide, 128, 512).unwrap(), 128);
        assert_eq!(width(BlockWidth::Wide, 300, 128).unwrap(), 100);
        assert_eq!(width(BlockWidth::Wide, 307, 128).unwrap(), 307); // A prime.
        let err = width(BlockWidth::Width(100), 512, 128).unwrap_err().to_string();
        assert!(err.contains("inputs of fc2; the nearest that does is 128"), "{err}");
    }

    #[test]
    fn values_outside_their_range_are_named() {
        for (options, name) in [
            (with(|o| o.lr = -1.0), "lr"),
            (with(|o| o.sample = Sample::Rows(0)), "sample"),
            (with(|o| o.sample = Sample::Fraction(1.5)), "sample"),
            (with(|o| o.max_rows = MaxRows::Rows(-1)), "max_rows"),
            (with(|o| o.max_rows = MaxRows::Widths(0.0)), "max_rows"),
            (with(|o| o.kappa = 1.1), "kappa"),
            (with(|o| o.kappa = f64::NAN), "kappa"),
            (with(|o| o.every = 0), "every"),
            (with(|o| o.schedule = DecorSchedule::Own(Schedule::Constant(-1.0))), "schedule"),
            (with(|o| o.rank = -1), "rank"),
            (with(|o| (o.rank, o.block) = (8, BlockWidth::Width(8))), "rank"),
            (with(|o| o.block = BlockWidth::Width(0)), "block"),
            (with(|o| o.max_norm = 0.5), "max_norm"),
        ] {
            assert!(options.check().unwrap_err().to_string().starts_with(name), "{name}");
        }
    }
}
