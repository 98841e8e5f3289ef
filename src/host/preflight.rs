//! Before the first step: what training will take of memory and disk, and a refusal where that cannot fit. After the first
//! steps: how long the rest will take.
//!
//! Counted is what is known beforehand: parameters, each R, gradients, the optimizer's moments, and the checkpoints. What the
//! forward pass keeps for the backward pass depends on batch and model, and comes on top; so what is refused here is hopeless.

use std::cell::Cell;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use tch::{Device, Tensor};

use super::errors::Failure;
use super::memory;
use super::progress::duration;
use super::session::Session;
use crate::energy::nvml;
use crate::libtorch;
use crate::nn::Precision;
use crate::train::run::Run;
use crate::train::{Optimizer, TrainError};

/// Checkpoints on disk while one is written: the last, the best, and the new one beside them.
const CHECKPOINTS: u64 = 3;

/// In bytes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Needs {
    parameters: u64,
    /// Every R.
    decorrelation: u64,
    gradients: u64,
    /// What the optimizer remembers of every parameter, and what of it is there already.
    moments: u64,
    moments_there: u64,
    /// One checkpoint: model with R, and moments.
    checkpoint: u64,
    /// What its larger file takes in memory while it is written: its values, and the file as a whole.
    writing: u64,
    /// What lies in the checkpoints' folder already.
    on_disk: u64,
}

/// Bytes that are free; `None` is not known.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    memory: Option<u64>,
    /// Of the GPU; on the CPU there is none.
    device: Option<u64>,
    disk: Option<u64>,
}

/// Says what the steps of `run` will take, and refuses what cannot fit.
///
/// # Errors
/// Of the machine's kind, with the numbers and what would help.
pub fn check(session: &Session, run: &Run, optimizer: Option<&Optimizer>, name: &str) -> Result<(), Failure> {
    if run.step() >= run.total() {
        return Ok(()); // Nothing is left to do.
    }
    let needs = Needs::of(run, optimizer)?;
    let device = match session.options.device {
        Device::Cuda(index) => {
            let by_nvml = libtorch::cuda_bus_id(index).and_then(|bus| nvml::free_memory(&bus));
            by_nvml.or_else(|| libtorch::memory::device_room(index).map(|(free, _)| free))
        }
        _ => None,
    };
    let disk = statvfs(run.dir()).ok().map(|room| room.blocks_available() * room.fragment_size());
    let room = Room { memory: memory::available(), device, disk };
    needs.fit(room, session.options.device, run.dir())?;
    if !session.options.smoke {
        session.tell(&format!("{name}: {}", needs.describe()));
        let device = session.options.device;
        if run.model().compute().precision() == Precision::Bf16 && !libtorch::has_bf16(device) {
            session.tell(&format!(
                "{name}: this processor has no instructions for bf16; products of rounded numbers in float32 stand in, and take \
                 no less time or memory"
            ));
        }
    }
    Ok(())
}

impl Needs {
    fn of(run: &Run, optimizer: Option<&Optimizer>) -> Result<Self, TrainError> {
        let model = run.model();
        let mut trained = 0;
        model.each_parameter(|parameter| -> Result<(), TrainError> {
            trained += bytes_of(&parameter.tensor);
            Ok(())
        })?;
        let state = model.state();
        let is_r = |name: &str| name.rsplit('.').next().is_some_and(|last| last.starts_with("decorrelation"));
        let sum = |of_r: bool| state.iter().filter(|(name, _)| is_r(name) == of_r).map(|(_, t)| bytes_of(t)).sum();
        let (parameters, decorrelation): (u64, u64) = (sum(false), sum(true));
        let moments = optimizer.map_or(Ok(0), Optimizer::state_bytes)?; // A script's own may keep none.
        Ok(Self {
            parameters,
            decorrelation,
            gradients: trained,
            moments,
            moments_there: optimizer.map_or(0, |own| own.state().iter().map(|(_, tensor)| bytes_of(tensor)).sum()),
            checkpoint: parameters + decorrelation + moments,
            writing: 2 * moments.max(parameters + decorrelation),
            on_disk: bytes_below(&run.dir().join("checkpoints")),
        })
    }

    /// Gradients and moments that are still to be made.
    fn to_come(&self) -> u64 {
        self.gradients + self.moments.saturating_sub(self.moments_there)
    }

    fn fit(&self, room: Room, device: Device, dir: &Path) -> Result<(), Failure> {
        let to_come = self.to_come();
        let parts = format!("gradients {}, optimizer {}", size(self.gradients), size(self.moments));
        let smaller = if self.decorrelation > self.parameters / 2 {
            "take a smaller model, or a smaller R: the options block and rank, or fewer modules"
        } else {
            "take a smaller model"
        };
        let on_cpu = !matches!(device, Device::Cuda(_));
        let host = self.writing + if on_cpu { to_come } else { self.writing / 2 };
        if let Some(free) = room.memory.filter(|free| *free < host) {
            let parts = if on_cpu { format!("{parts}, ") } else { String::new() };
            return Err(Failure::machine(format!(
                "training needs {} more memory and {} is free: {parts}writing a checkpoint {}; activations come on top",
                size(host),
                size(free),
                size(self.writing)
            ))
            .with_hint(smaller));
        }
        if let Some(free) = room.device.filter(|free| !on_cpu && *free < to_come) {
            return Err(Failure::machine(format!(
                "training needs {} more of the GPU's memory and {} is free: {parts}; activations come on top",
                size(to_come),
                size(free)
            ))
            .with_hint(format!("{smaller}, or another GPU: --device cuda:N")));
        }
        let disk = (CHECKPOINTS * self.checkpoint).saturating_sub(self.on_disk);
        if let Some(free) = room.disk.filter(|free| *free < disk) {
            return Err(Failure::machine(format!(
                "checkpoints need {} more disk and {} is free in {}: two of {} are kept, and a third while it is written",
                size(disk),
                size(free),
                dir.display(),
                size(self.checkpoint)
            ))
            .with_hint("take another disk with --runs DIR; `dbp-host runs --keep N` removes checkpoints of older runs"));
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let r = if self.decorrelation > 0 { format!(", {} of R", size(self.decorrelation)) } else { String::new() };
        format!(
            "{} of weights{r}, {} of gradients and moments, activations on top; checkpoints of {}",
            size(self.parameters),
            size(self.gradients + self.moments),
            size(self.checkpoint)
        )
    }
}

fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

/// Bytes of the files at any depth; what cannot be read counts as nothing.
pub fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// `940 kB`, `12 MB`, `2.1 GB`.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 999.5e3 => format!("{:.0} kB", (b / 1e3).max(1.0).min(b)),
        b if b < 999.5e6 => format!("{:.0} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}

/// Steps that are timed, after the first: that one has more to do.
const TIMED: u64 = 3;

/// Tells once how long the steps that are left will take.
#[derive(Default)]
pub struct Timing {
    /// Step and clock behind the first step.
    from: Cell<Option<(u64, f64)>>,
    said: Cell<bool>,
}

impl Timing {
    /// What is to be said after a step of `run` has ended: once, where more steps are left than were timed.
    pub fn after_step(&self, run: &Run) -> Option<String> {
        if self.said.get() {
            return None;
        }
        let (step, wall_s) = (run.step(), run.wall_s());
        let Some((first, began)) = self.from.get() else {
            self.from.set(Some((step, wall_s)));
            return None;
        };
        if step < first + TIMED {
            return None;
        }
        self.said.set(true);
        let left = run.total().saturating_sub(step);
        let validations = (step..run.total()).filter(|step| run.validation_due(*step)).count() as u64;
        (left > TIMED).then(|| time_left(left, (wall_s - began) / TIMED as f64, validations))
    }
}

fn time_left(steps: u64, step_s: f64, validations: u64) -> String {
    let each = match step_s {
        s if s < 0.0995 => format!("{:.0} ms", s * 1e3),
        s if s < 9.95 => format!("{s:.2} s"),
        s => format!("{s:.0} s"),
    };
    let plural = if validations == 1 { "" } else { "s" };
    let time = duration(steps as f64 * step_s);
    format!("about {time} left: {steps} steps of {each}, and {validations} validation{plural} on top")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ViT-B with a full R everywhere: 112 million weights.
    fn base() -> Needs {
        let (parameters, decorrelation) = (448_000_000, 540_000_000);
        Needs {
            parameters,
            decorrelation,
            gradients: parameters,
            moments: 2 * parameters,
            moments_there: 0,
            checkpoint: 3 * parameters + decorrelation,
            writing: 2 * (parameters + decorrelation),
            on_disk: 0,
        }
    }

    #[test]
    fn what_cannot_fit_is_refused_with_numbers() {
        let dir = Path::new("runs/x");
        let fit = |room: Room, device| base().fit(room, device, dir);
        let plenty = Some(1 << 40);
        assert!(fit(Room { memory: plenty, device: None, disk: plenty }, Device::Cpu).is_ok());
        assert!(fit(Room::default(), Device::Cpu).is_ok(), "what is not known refuses nothing");

        let err = fit(Room { memory: Some(2_000_000_000), ..Room::default() }, Device::Cpu).unwrap_err();
        assert_eq!(err.kind.exit_code(), 4);
        let want = "training needs 3.3 GB more memory and 2.0 GB is free: gradients 448 MB, optimizer 896 MB, writing a \
            checkpoint 2.0 GB; activations come on top";
        assert_eq!(err.message, want);
        assert!(err.hint.unwrap().contains("smaller R"));

        let err = fit(Room { disk: Some(5_000_000_000), ..Room::default() }, Device::Cpu).unwrap_err();
        assert!(err.message.contains("checkpoints need 5.7 GB more disk and 5.0 GB is free in runs/x"), "{err}");
        let resumed = Needs { on_disk: 3_768_000_000, ..base() };
        assert!(resumed.fit(Room { disk: Some(5_000_000_000), ..Room::default() }, Device::Cpu, dir).is_ok());

        let small = Room { memory: plenty, device: Some(1_000_000_000), disk: plenty };
        assert!(fit(small, Device::Cuda(0)).unwrap_err().message.contains("GPU's memory"));
        assert!(fit(small, Device::Cpu).is_ok());
    }

    #[test]
    fn sizes_and_times_are_short() {
        let shown: Vec<String> = [0, 940_000, 12_300_000, 2_110_000_000].into_iter().map(size).collect();
        assert_eq!(shown, ["0 kB", "940 kB", "12 MB", "2.1 GB"]);
        assert_eq!(time_left(400, 0.43, 8), "about 3 min left: 400 steps of 0.43 s, and 8 validations on top");
        assert_eq!(time_left(10, 0.02, 1), "about 0 s left: 10 steps of 20 ms, and 1 validation on top");
    }
}
