//! What decorrelation costs, counted before it is measured: multiply-adds and memory, layer by layer.
//!
//! A plain layer of N rows, d inputs and o outputs takes `3·N·o·d` multiply-adds per step, forward and backward. R adds, on
//! the fused path, `W R` and `dA Rᵀ` once per step, `2·o·d²`; on the two-step path two products with R for every row,
//! `2·N·d²`; on both the update from n rows, `min(3·n·d², 2·n·d² + d³, n·d² + 3·d³)`, at every `every`-th step. Blocks of
//! width b put b·d in the place of d², a low rank r puts 2·r·d.

use std::fmt;

use super::decorrelated::Decorrelation;
use super::factor::Factor;
use super::layer::Layer;

/// One layer, per optimizer step.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerCost {
    pub name: String,
    /// Input rows over all micro-batches.
    pub rows: i64,
    /// Rows that the update sees.
    pub sampled: i64,
    /// Of all groups.
    pub inputs: i64,
    pub outputs: i64,
    /// `full`, `4 blocks of 128`, `rank 32`, or `none`.
    pub form: String,
    /// Whether R is applied as `x (W R)ᵀ`.
    pub fused: bool,
    /// Multiply-adds without R.
    pub plain: f64,
    /// Multiply-adds that R adds.
    pub extra: f64,
    /// Bytes that R adds: R itself, `A = W R` and its gradient on the fused path, the sampled rows.
    pub memory: i64,
}

impl LayerCost {
    /// Of one layer with an R in place or in view; `rows` of one of the step's `micro_batches` passes.
    pub(super) fn of(layer: &Layer, own: Option<&Decorrelation>, rows: i64, micro_batches: u64, fused: bool) -> Self {
        let passes = micro_batches.max(1) as i64;
        let (inputs, outputs, groups) = (layer.inputs(), layer.outputs(), layer.groups());
        let all_rows = rows * passes;
        let mut cost = Self {
            name: layer.name().to_owned(),
            rows: all_rows,
            sampled: 0,
            inputs: inputs * groups,
            outputs,
            form: "none".to_owned(),
            fused,
            plain: 3.0 * all_rows as f64 * outputs as f64 * inputs as f64,
            extra: 0.0,
            memory: 0,
        };
        let Some(own) = own else { return cost };
        let factor = own.factor();
        cost.form = form(factor);
        let applied = if fused { outputs as f64 / groups as f64 } else { all_rows as f64 };
        cost.extra = 2.0 * applied * factor.row_cost() as f64;
        if !own.frozen() {
            cost.sampled = own.sampled(rows, micro_batches) * passes;
            cost.extra += factor.update_cost(cost.sampled) as f64 / own.options().every as f64;
        }
        let effective = if fused { 2 * outputs * inputs } else { 0 };
        cost.memory = 4 * (factor.numel() + effective + cost.sampled * cost.inputs);
        cost
    }
}

fn form(factor: &Factor) -> String {
    match factor {
        Factor::Blocks(blocks) if blocks.matrix().dim() == 2 => "full".to_owned(),
        Factor::Blocks(blocks) => format!("{} blocks of {}", blocks.matrix().size()[0], blocks.width()),
        Factor::LowRank(_) => format!("rank {}", factor.tensors()[0].1.size()[1]),
    }
}

/// What the decorrelation of a model costs per optimizer step.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The decorrelated layers.
    pub layers: Vec<LayerCost>,
    /// Multiply-adds of back-propagation alone: all layers, and the products inside attention.
    pub plain: f64,
}

impl Plan {
    /// Multiply-adds that all R add.
    pub fn extra(&self) -> f64 {
        self.layers.iter().map(|layer| layer.extra).sum()
    }

    /// The same as a fraction of back-propagation.
    pub fn share(&self) -> f64 {
        self.extra() / self.plain
    }

    /// Bytes that all R add.
    pub fn memory(&self) -> i64 {
        self.layers.iter().map(|layer| layer.memory).sum()
    }
}

/// A table, a line per layer, and their sum.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.layers.is_empty() {
            return write!(
                f,
                "no layer is decorrelated: plain back-propagation, {} multiply-adds per step",
                si(self.plain)
            );
        }
        let name = self.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(5).max(5);
        let form = self.layers.iter().map(|layer| layer.form.len()).max().unwrap_or(1).max(1);
        writeln!(
            f,
            "{:name$}  {:>8} {:>7} {:>6} {:>7}  {:form$}  {:8}  {:>9} {:>7}  {:>9}",
            "layer", "rows", "sampled", "inputs", "outputs", "R", "path", "extra", "of it", "memory"
        )?;
        for layer in &self.layers {
            writeln!(
                f,
                "{:name$}  {:>8} {:>7} {:>6} {:>7}  {:form$}  {:8}  {:>9} {:>6.1}%  {:>9}",
                layer.name,
                layer.rows,
                layer.sampled,
                layer.inputs,
                layer.outputs,
                layer.form,
                if layer.fused { "fused" } else { "two-step" },
                si(layer.extra),
                100.0 * layer.extra / layer.plain,
                bytes(layer.memory),
            )?;
        }
        write!(
            f,
            "in all {} multiply-adds per step on top of {}, {:.1} %; {} of memory",
            si(self.extra()),
            si(self.plain),
            100.0 * self.share(),
            bytes(self.memory()),
        )
    }
}

/// `12.3 G`
fn si(value: f64) -> String {
    let (scale, unit) = match value {
        v if v >= 1e12 => (1e12, "T"),
        v if v >= 1e9 => (1e9, "G"),
        v if v >= 1e6 => (1e6, "M"),
        _ => (1e3, "k"),
    };
    format!("{:.2} {unit}", value / scale)
}

/// `12.3 MiB`
fn bytes(value: i64) -> String {
    match value as f64 {
        v if v >= 1e9 => format!("{:.2} GiB", v / f64::from(1 << 30)),
        v if v >= 1e6 => format!("{:.1} MiB", v / f64::from(1 << 20)),
        v => format!("{:.1} KiB", v / 1024.0),
    }
}
