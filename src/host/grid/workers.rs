//! Several cells at once: a process for each, with its share of the processor's threads.
//!
//! A worker is this program with the same command line and one cell to run, on the sources that the grid's directory holds: it comes to it by the script itself,
//! reads what other cells came to off their directories, and ends behind it. So cells share nothing but files, and one that
//! runs out of memory takes no other with it. It ends
//! when this process does, however that happens: its standard input is a pipe that closes then.

use std::ffi::OsStr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rhai::{EvalAltResult, NativeCallContext};
use serde_json::Value;

use super::{Cell, Tally};
use crate::host::args::read_run_json;
use crate::host::errors::{EXIT_INTERRUPTED, Failure, Kind, Stop, script_error};
use crate::host::runs;
use crate::host::say::{say, set_bar};
use crate::host::session::{Options, Session};

/// How long two looks at the workers are apart.
pub const LOOK: Duration = Duration::from_millis(200);

/// Why the whole ended before its time.
pub enum Ended {
    Interrupted,
    Failed(Failure),
}

impl Ended {
    pub fn into_script_error(self, ctx: &NativeCallContext) -> Box<EvalAltResult> {
        match self {
            Self::Interrupted => Stop::Interrupted.error(),
            Self::Failed(err) => script_error(ctx, err),
        }
    }
}

impl From<Failure> for Ended {
    fn from(err: Failure) -> Self {
        Self::Failed(err)
    }
}

struct Worker {
    /// In the list of cells.
    at: usize,
    process: Child,
    begun: Instant,
}

/// Runs the cells `todo` of `cells`, at most `jobs` at once.
pub fn run(session: &Session, cells: &mut [Cell], todo: &[usize], jobs: usize, tally: &mut Tally) -> Result<(), Ended> {
    let threads = (tch::get_num_threads().max(1) as usize / jobs).max(1);
    let mut waiting = todo.iter().copied();
    let mut workers: Vec<Worker> = Vec::new();
    let bar = bar();
    let result = 'all: loop {
        if session.interrupted() {
            stop(&mut workers);
            say("interrupted: the cells that ran are saved; the same command goes on with them");
            break Err(Ended::Interrupted);
        }
        while workers.len() < jobs {
            let Some(at) = waiting.next() else { break };
            match start(session, &mut cells[at], threads) {
                Ok(process) => workers.push(Worker { at, process, begun: Instant::now() }),
                Err(err) => {
                    stop(&mut workers);
                    break 'all Err(err.into());
                }
            }
        }
        if workers.is_empty() {
            break Ok(());
        }
        let mut left = Vec::new();
        for mut worker in workers.drain(..) {
            match worker.process.try_wait() {
                Ok(None) => left.push(worker),
                Ok(Some(status)) => settle(&cells[worker.at], worker.begun, status, jobs, tally),
                Err(err) => {
                    say(&format!("{}: {err}", cells[worker.at].name));
                    tally.failed(&cells[worker.at], Kind::Machine);
                }
            }
        }
        workers = left;
        if let Some(bar) = &bar {
            bar.set_message(message(cells, &workers, tally));
        }
        std::thread::sleep(LOOK);
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    set_bar(None);
    result
}

fn bar() -> Option<ProgressBar> {
    use std::io::IsTerminal;
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar
    });
    set_bar(bar.clone());
    bar
}

/// `7/20 · bp seed=3 120/300 · dbp seed=3 80/300`.
fn message(cells: &[Cell], workers: &[Worker], tally: &Tally) -> String {
    let mut parts = vec![tally.count()];
    for worker in workers {
        let cell = &cells[worker.at];
        let record = cell.dir.as_deref().and_then(|dir| read_run_json(dir).ok()).unwrap_or_default();
        let step = match (record.get("step"), record.get("steps")) {
            (Some(step), Some(steps)) => format!(" {step}/{steps}"),
            _ => String::new(),
        };
        parts.push(format!("{}{step}", cell.name));
    }
    parts.join(" · ")
}

fn start(session: &Session, cell: &mut Cell, threads: usize) -> Result<Child, Failure> {
    let dir = match cell.dir.clone().filter(|dir| dir.is_dir()) {
        Some(dir) => dir,
        None => session.runs.new_cell(&cell.name, &cell.address)?,
    };
    cell.dir = Some(dir.clone());
    let failed = |what: &Path, err: std::io::Error| Failure::machine(format!("{}: {err}", what.display()));
    let output = runs::output(&dir).map_err(|err| failed(&dir, err))?;
    let errors = output.try_clone().map_err(|err| failed(&dir, err))?;
    let program = std::env::current_exe().map_err(|err| failed(Path::new("this program"), err))?;
    let Some(root) = session.runs.root() else { return Err(Failure::machine("the grid has no directory")) };
    let root = std::path::absolute(&root).map_err(|err| failed(&root, err))?;
    let Options { script, set, resume, runs, jobs, allow_read, allow_write, smoke, .. } = &session.options;
    let Options { device, tf32, energy, max_operations, max_tensor_bytes, .. } = &session.options;
    let mut command = Command::new(&program);
    match resume {
        Some(run) => command.arg("--resume").arg(run),
        None => command.arg(script).arg("--runs").arg(runs),
    };
    command.arg("--grid").arg(&root).args(["--cell", &cell.address, "--jobs", &jobs.to_string()]);
    command.args(set.iter().flat_map(|(name, value)| ["--set".to_owned(), format!("{name}={value}")]));
    command.args(allow_read.iter().flat_map(|folder| [OsStr::new("--allow-read"), folder.as_os_str()]));
    command.args(allow_write.iter().flat_map(|folder| [OsStr::new("--allow-write"), folder.as_os_str()]));
    command.args(["--device", &runs::device_name(*device), "--threads", &threads.to_string()]);
    if *tf32 {
        command.arg("--tf32");
    }
    if *smoke && resume.is_none() {
        command.arg("--smoke");
    }
    command.args(["--max-operations", &max_operations.to_string()]);
    command.args(["--max-tensor-bytes", &max_tensor_bytes.to_string()]);
    if energy.live {
        command.arg("--carbon-live");
    }
    command.args(energy.country.iter().flat_map(|country| ["--country", country]));
    command.args(energy.region.iter().flat_map(|region| ["--region", region]));
    for (flag, number) in [("--pue", energy.pue), ("--carbon-intensity", energy.intensity)] {
        command.args(number.iter().flat_map(|number| [flag.to_owned(), number.to_string()]));
    }
    command.stdin(Stdio::piped()).stdout(output).stderr(errors);
    // Ctrl-C at a terminal goes to a whole group of processes: this one passes it on, by the end of the pipe.
    command.process_group(0);
    command.spawn().map_err(|err| failed(&program, err))
}

/// Asks all workers to save and end, and waits until they have.
fn stop(workers: &mut Vec<Worker>) {
    for worker in workers.iter_mut() {
        drop(worker.process.stdin.take());
    }
    for mut worker in workers.drain(..) {
        // One that is gone has ended.
        let _ = worker.process.wait();
    }
}

/// Says what became of a cell whose worker has ended.
fn settle(cell: &Cell, begun: Instant, status: ExitStatus, jobs: usize, tally: &mut Tally) {
    if cell.standing().has_ended() {
        return tally.ended(cell, begun, jobs);
    }
    let output = cell.dir.as_deref().map(|dir| dir.join(runs::OUTPUT)).unwrap_or_default();
    let record = cell.dir.as_deref().and_then(|dir| read_run_json(dir).ok()).unwrap_or_default();
    let why = match (status.signal(), status.code(), record.get("error").and_then(Value::as_str)) {
        (Some(signal), ..) => format!("its process was ended by signal {signal}"),
        (None, Some(EXIT_INTERRUPTED), _) => "it was interrupted".to_owned(),
        (None, _, Some(error)) => error.to_owned(),
        (None, code, None) => format!("its process ended with {}", code.unwrap_or_default()),
    };
    say(&format!("{}: {why}\nwhat it said is in {}", cell.name, output.display()));
    let kind = match status.code() {
        Some(1 | 2) => Kind::Script,
        _ => Kind::Machine,
    };
    tally.failed(cell, kind);
}
