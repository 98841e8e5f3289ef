//! `dbp-host energy -- COMMAND …`: what any other program costs, by the sensors and models that runs are metered with.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Asked, EnergyOptions};
use crate::energy::emissions::{self, About, Rows};
use crate::energy::meter::Meter;
use crate::energy::nvml::{self, GpuChoice};
use crate::energy::summary::{self, Of};
use crate::host::errors::{EXIT_INTERRUPTED, Failure, Kind};
use crate::host::say::{print_line, say};
use crate::host::{Outcome, report};

/// The command line of `dbp-host energy`.
#[derive(Clone, Debug)]
pub struct CommandOptions {
    pub command: Vec<OsString>,
    pub energy: EnergyOptions,
    pub asked: Asked,
    /// NVML's indices or UUIDs; unset are those that `CUDA_VISIBLE_DEVICES` shows.
    pub gpus: Option<String>,
    /// A file of codecarbon's columns that a row is added to.
    pub out: Option<PathBuf>,
    /// Figures on stdout as JSON.
    pub json: bool,
}

/// Runs the command and tells what it cost. Returns its exit code; 128 + n where signal n ended it.
pub fn energy(options: CommandOptions) -> i32 {
    match meter(options) {
        Ok(code) => code,
        Err(err) => report(&Outcome::from(err)),
    }
}

fn meter(options: CommandOptions) -> Result<i32, Failure> {
    let CommandOptions { command, energy, asked, gpus: listed, out, json } = options;
    let gpus = gpus(listed.as_deref())?;
    let config = energy.or_env()?.config(asked, gpus).map_err(Failure::into_usage)?;
    let [program, arguments @ ..] = command.as_slice() else {
        return Err(Failure::usage("name the command to meter, behind --"));
    };
    let shown = program.to_string_lossy().into_owned();
    // What cannot be written later is said before the command has run for hours.
    let unwritable = |path: &Path, err: io::Error| format!("--out {}: {err}", path.display());
    let rows = match &out {
        Some(path) => Some((path, Rows::open(path).map_err(|err| Failure::usage(unwritable(path, err)))?)),
        None => None,
    };
    // Before any thread is made: threads take over what is blocked.
    let mut signals = Signals::take().map_err(|err| Failure::machine(format!("signals: {err}")))?;
    let meter = Meter::start(&config, None);
    let machine = meter.machine();
    if let (Some(listed), Some(why)) = (&listed, &machine.unread_gpus) {
        return Err(Failure::usage(format!("--gpus {listed}: {why}")).with_hint("`dbp-host doctor` lists them"));
    }
    let problems: Vec<String> = machine.problems.iter().cloned().chain(meter.carbon().problem()).collect();
    for problem in &problems {
        say(&format!("energy: {problem}"));
    }
    if !machine.problems.is_empty() {
        say("energy: `dbp-host doctor` says what would mend it");
    }
    if signals.next().is_some() {
        return Ok(EXIT_INTERRUPTED);
    }
    meter.resume();
    let status = match signals.let_through(|| Command::new(program).args(arguments).spawn()) {
        Ok(child) => signals.wait_for(child).map_err(|err| Failure::machine(format!("{shown}: {err}")))?,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::usage(format!("{shown}: no such program")));
        }
        Err(err) => return Err(Failure::machine(format!("{shown} cannot be started: {err}"))),
    };
    let (reading, code) = (meter.stop(), exit_code(status));
    if json {
        let mut record = reading.to_json();
        let words: Vec<String> = command.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        record.insert("command".to_owned(), json!(words));
        record.insert("exit_code".to_owned(), json!(code));
        if !problems.is_empty() {
            record.insert("problems".to_owned(), json!(problems));
        }
        print_line(&Value::Object(record).to_string());
    } else {
        super::say_cost(&summary::lines(&reading, Of::Command));
    }
    if let Some((path, rows)) = rows {
        let about = About { project: shown, run_id: emissions::run_id(), ..About::now(&config) };
        if let Err(err) = rows.append(&emissions::row(&about, &reading, &machine)) {
            say(&unwritable(path, err));
            return Ok(if code == 0 { Kind::Machine.exit_code() } else { code });
        }
    }
    Ok(code)
}

/// The GPUs that `--gpus` means.
///
/// Errors: an entry that is empty.
fn gpus(listed: Option<&str>) -> Result<GpuChoice, Failure> {
    let Some(listed) = listed else {
        return Ok(nvml::visible_from_env(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()));
    };
    let entries: Vec<String> = listed.split(',').map(|gpu| gpu.trim().to_owned()).collect();
    match listed.trim() {
        "none" => Ok(GpuChoice::None),
        "all" => Ok(GpuChoice::All),
        _ if entries.iter().any(String::is_empty) => Err(Failure::usage(format!(
            "--gpus: expected none, all, or indices and UUIDs with commas, got \"{listed}\""
        ))),
        _ => Ok(GpuChoice::Listed(entries)),
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| status.signal().map_or(EXIT_INTERRUPTED, |signal| 128 + signal))
}

/// SIGINT, SIGTERM and SIGHUP, kept from ending this process, whose command is to end first.
struct Signals {
    blocked: SigSet,
    queue: SignalFd,
}

impl Signals {
    fn take() -> nix::Result<Self> {
        let blocked = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        blocked.thread_block()?;
        let queue = SignalFd::with_flags(&blocked, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { blocked, queue })
    }

    /// Calls `start` with nothing blocked: a new process takes over what is blocked where it is made, and would then be deaf to
    /// Ctrl-C.
    fn let_through<T>(&self, start: impl FnOnce() -> T) -> T {
        // Both fail for an invalid mask only.
        let _ = self.blocked.thread_unblock();
        let started = start();
        let _ = self.blocked.thread_block();
        started
    }

    /// A signal that has come in, and whether a process has sent it: what the kernel sends for a terminal goes to the command
    /// as well.
    fn next(&mut self) -> Option<(Signal, bool)> {
        let info = self.queue.read_signal().ok().flatten()?;
        let signal = Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()?;
        Some((signal, info.ssi_code <= 0))
    }

    /// Waits for the command, and hands on to it what is meant for it.
    fn wait_for(mut self, mut child: Child) -> io::Result<ExitStatus> {
        let pid = i32::try_from(child.id()).map(Pid::from_raw);
        let ended = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&ended);
        std::thread::spawn(move || {
            while !watched.load(Ordering::Relaxed) {
                match (self.next(), pid) {
                    // It may have ended in the meantime.
                    (Some((signal, true)), Ok(pid)) => drop(kill(pid, signal)),
                    (Some(_), _) => {}
                    (None, _) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        let status = child.wait();
        ended.store(true, Ordering::Relaxed);
        status
    }
}
