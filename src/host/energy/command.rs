//! `dbp-host energy -- COMMAND …`: what any other program costs, by the sensors and models that runs are metered with.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Asked, EnergyOptions};
use crate::energy::emissions::{self, About};
use crate::energy::meter::Meter;
use crate::energy::nvml::{self, GpuChoice};
use crate::energy::summary::{self, Of};
use crate::host::errors::Failure;
use crate::host::say::{print_line, say};
use crate::host::{EXIT_INTERRUPTED, Outcome, report};

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
    let gpus = match options.gpus.as_deref() {
        None => nvml::visible_from_env(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()),
        Some("none") => GpuChoice::None,
        Some("all") => GpuChoice::All,
        Some(list) => GpuChoice::Listed(list.split(',').map(|gpu| gpu.trim().to_owned()).collect()),
    };
    let config =
        options.energy.config(options.asked, gpus).map_err(|err| Failure { kind: crate::host::Kind::Usage, ..err })?;
    let [program, arguments @ ..] = options.command.as_slice() else {
        return Err(Failure::usage("name the command to meter, behind --"));
    };
    // Before any thread is made: threads take over what is blocked.
    let signals = take_signals();
    let meter = Meter::start(&config, None);
    for problem in meter.machine().problems.iter().cloned().chain(meter.carbon().problem()) {
        say(&format!("energy: {problem}; `dbp-host doctor` says more"));
    }
    let shown = program.to_string_lossy().into_owned();
    meter.resume();
    let status = match Command::new(program).args(arguments).spawn() {
        Ok(mut child) => {
            hand_on(signals, &child);
            child.wait().map_err(|err| Failure::machine(format!("{shown}: {err}")))?
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::usage(format!("{shown}: no such program")));
        }
        Err(err) => return Err(Failure::machine(format!("{shown} cannot be started: {err}"))),
    };
    let reading = meter.stop();
    let mut record = reading.to_json();
    record.insert("intensity".to_owned(), json!(meter.carbon().describe()));
    record.insert(
        "command".to_owned(),
        json!(options.command.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>()),
    );
    record.insert("exit_code".to_owned(), json!(exit_code(status)));
    if let Some(out) = &options.out {
        let about = About { project: shown, run_id: emissions::run_id(), ..About::now(&config) };
        let row = emissions::row(&about, &reading, meter.machine());
        emissions::write(out, &row).map_err(|err| Failure::machine(format!("{}: {err}", out.display())))?;
    }
    if options.json {
        print_line(&Value::Object(record).to_string());
    } else {
        super::say_cost(&summary::lines(&reading, &meter.carbon().describe(), Of::Command));
    }
    Ok(exit_code(status))
}

/// Keeps SIGINT, SIGTERM and SIGHUP from ending this process, whose command is to end first. A new process starts with none
/// of them blocked.
fn take_signals() -> SigSet {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    // Fails for an invalid mask only.
    let _ = signals.thread_block();
    signals
}

/// Hands signals on to the command, but for an interrupt from the terminal, which reaches it by itself.
fn hand_on(signals: SigSet, child: &Child) {
    let Ok(pid) = i32::try_from(child.id()).map(Pid::from_raw) else { return };
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if signal != Signal::SIGINT || !io::stdin().is_terminal() {
                // It may have ended in the meantime.
                let _ = kill(pid, signal);
            }
        }
    });
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| status.signal().map_or(EXIT_INTERRUPTED, |signal| 128 + signal))
}
