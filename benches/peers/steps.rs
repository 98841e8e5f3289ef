//! A training step of the host over one of PyTorch, eager or compiled: same model, batch, threads and precision.

use std::thread::sleep;
use std::time::{Duration, Instant};

use dbp_host::nn::{DecorOptions, Path, Plan};

use crate::check::check;
use crate::child::Peer;
use crate::pairs::Pairs;
use crate::trainer::{SIZES, Size, Trainer};
use crate::{Result, Setting};

/// What a step of plain back-propagation may take of the peer's, at `nano` and `tiny`.
const BP_BOUND: f64 = 0.95;
/// What one with the `paper` preset may take of the usual two-step DBP's.
const DBP_BOUND: f64 = 0.75;

const BATCH: i64 = 256;
/// `small` takes 20 s and 12 GiB at 256.
const SMALL_BATCH: i64 = 64;
const QUICK_BATCH: i64 = 32;
const QUICK_PAIRS: usize = 3;

/// Both sides leave threads behind that spin for some milliseconds, in case more work comes.
const SETTLE: Duration = Duration::from_millis(20);

pub struct Steps {
    pub size: &'static Size,
    /// How the host decorrelates: `bp` does not, `dbp` is the preset `paper`, `lean` is `lean`. The peer knows one DBP.
    mode: &'static str,
    compiled: bool,
}

pub fn claims() -> Vec<Steps> {
    let mut claims = Vec::new();
    for compiled in [false, true] {
        for size in SIZES {
            claims.extend(["bp", "dbp", "lean"].map(|mode| Steps { size, mode, compiled }));
        }
    }
    claims
}

impl Steps {
    pub fn name(&self) -> String {
        let peer = if self.compiled { "compile" } else { "eager" };
        format!("step_host_over_pytorch_{peer}/{}/{}", self.size.name, self.mode)
    }

    fn bound(&self) -> Option<f64> {
        match self.mode {
            _ if self.compiled => None,
            "bp" => (self.size.name != "small").then_some(BP_BOUND),
            "dbp" => Some(DBP_BOUND),
            _ => None,
        }
    }

    fn options(&self) -> Option<DecorOptions> {
        match self.mode {
            "bp" => None,
            "lean" => Some(DecorOptions::lean()),
            _ => Some(DecorOptions::paper()),
        }
    }

    pub fn measure(&self, setting: &Setting) -> Result<()> {
        let usual = if self.size.name == "small" { SMALL_BATCH } else { BATCH };
        let (batch, count) = if setting.quick { (QUICK_BATCH, QUICK_PAIRS) } else { (usual, self.size.pairs) };
        let options = self.options();
        if self.mode != "lean" && !self.compiled {
            check(self.size, options.as_ref(), self.mode, setting)?;
        }
        let mut asked = vec!["--size".to_owned(), self.size.name.to_owned(), "--batch".to_owned(), batch.to_string()];
        asked.extend(options.iter().map(|_| "--decorrelate".to_owned()));
        asked.extend(self.compiled.then(|| "--compile".to_owned()));
        let mut peer = Peer::start(setting, &asked)?;
        let mut host = Trainer::new(self.size, &self.size.images(batch)?, options.as_ref(), Path::Cheaper)?;
        peer.steps(2)?; // The first compiles, or allocates.
        host.step()?;
        host.step()?;
        let (mut peer_secs, mut host_secs) = (Vec::new(), Vec::new());
        for _ in 0..count {
            sleep(SETTLE);
            peer_secs.push(peer.steps(1)?);
            sleep(SETTLE);
            let start = Instant::now();
            host.step()?;
            host_secs.push(start.elapsed().as_secs_f64());
        }
        let plan = host.plan()?;
        let counted = (plan.plain + plan.extra()) / (plan.plain + usual_extra(&plan));
        Pairs::of(&peer_secs, &host_secs).print(&self.name(), counted, self.bound(), &format!("batch {batch}"));
        Ok(())
    }
}

/// Multiply-adds that the usual DBP adds in the plan's layers: two products with R for every row, C, and C R.
fn usual_extra(plan: &Plan) -> f64 {
    let of = |layer: &dbp_host::nn::cost::LayerCost| {
        let (rows, inputs) = (layer.rows as f64, layer.inputs as f64);
        inputs * inputs * (2.0 * rows + 0.1 * rows + inputs)
    };
    plan.layers.iter().map(of).sum()
}
