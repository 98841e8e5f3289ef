//! What the terminal shows of a run: a bar with loss, images per second and time left; plain lines elsewhere.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use tch::Device;

use super::preflight::size;
use super::say::{say, set_bar};
use crate::libtorch::memory::{self, Used};

/// Without a terminal, a line at most this often, validations aside.
const PLAIN_EVERY: Duration = Duration::from_secs(15);

pub struct Progress {
    /// `None` where stderr is not a terminal.
    bar: Option<ProgressBar>,
    name: String,
    total: u64,
    first: u64,
    device: Device,
    /// The figure that says how good the run is, beside the validation loss.
    figure: String,
    started: Instant,
    said: Cell<Option<Instant>>,
    shown: RefCell<Shown>,
}

/// The figures last seen.
#[derive(Default)]
struct Shown {
    train_loss: Option<f64>,
    val_loss: Option<f64>,
    figure: Option<f64>,
    images_per_s: Option<f64>,
    memory: Option<Used>,
}

impl Progress {
    /// For steps `first` to `total` of run `name`, whose checkpoint with the best `figure` is kept.
    pub fn new(name: &str, figure: &str, first: u64, total: u64, device: Device) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(first);
            let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        set_bar(bar.clone());
        Self {
            bar,
            name: name.to_owned(),
            total,
            first,
            device,
            figure: figure.to_owned(),
            started: Instant::now(),
            said: Cell::default(),
            shown: RefCell::default(),
        }
    }

    /// A step has ended; `line` is what it logged.
    pub fn step(&self, step: u64, line: Option<&Map<String, Value>>) {
        let mut shown = self.shown.borrow_mut();
        let mut validated = false;
        if let Some(line) = line {
            let get = |key: &str| line.get(key).and_then(Value::as_f64);
            shown.train_loss = get("train_loss").or(shown.train_loss);
            shown.images_per_s = get("images_per_s").or(shown.images_per_s);
            let figure = get(&self.figure).filter(|_| self.figure != "val_loss");
            validated = get("val_loss").or(figure).is_some();
            shown.val_loss = get("val_loss").or(shown.val_loss);
            shown.figure = figure.or(shown.figure);
            shown.memory = memory::used(self.device);
        }
        match &self.bar {
            Some(bar) => {
                bar.set_position(step);
                bar.set_message(self.message(&shown, step));
            }
            None => {
                let quiet = self.said.get().is_some_and(|said| said.elapsed() < PLAIN_EVERY);
                if line.is_some() && (validated || step == self.total || !quiet) {
                    self.said.set(Some(Instant::now()));
                    say(&format!("{} {step}/{} {}", self.name, self.total, self.message(&shown, step)));
                }
            }
        }
    }

    fn message(&self, shown: &Shown, step: u64) -> String {
        let mut parts = Vec::new();
        parts.extend(shown.train_loss.map(|loss| format!("loss {loss:.4}")));
        parts.extend(shown.val_loss.map(|loss| format!("val {loss:.4}")));
        parts.extend(shown.figure.map(|value| format!("{} {value:.4}", self.figure)));
        parts.extend(shown.images_per_s.map(|rate| format!("{rate:.0} images/s")));
        let done = step - self.first;
        if done > 0 && step < self.total {
            let left = self.started.elapsed().as_secs_f64() / done as f64 * (self.total - step) as f64;
            parts.push(format!("{} left", duration(left)));
        }
        parts.extend(shown.memory.map(|used| memory_text(self.device, used)));
        parts.join(" · ")
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
            set_bar(None);
            say(""); // The bar leaves the cursor behind itself.
        }
    }
}

/// What is in use, and the most there was: of the GPU in tensors, else resident.
fn memory_text(device: Device, Used { now, peak, .. }: Used) -> String {
    let whose = if matches!(device, Device::Cuda(_)) { "GPU" } else { "memory" };
    format!("{whose} {}, peak {}", size(now), size(peak))
}

/// `95 s`, `12 min`, `3.4 h`, `2.1 days`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_short() {
        let shown: Vec<String> = [9.6, 119.0, 720.0, 12_240.0, 181_440.0].into_iter().map(duration).collect();
        assert_eq!(shown, ["10 s", "119 s", "12 min", "3.4 h", "2.1 days"]);
    }
}
