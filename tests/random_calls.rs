//! Calls everything that scripts can call, ours and Rhai's own, with random arguments of right and wrong types. Nothing may
//! panic, abort, hang or take the machine's memory; what fails, fails with a message for people; what succeeds can be shown.
//!
//! Calls run in rounds, each a function of its seed: a set-up script makes values of every type (`random_calls/world.rhai`),
//! then random calls use them and what earlier ones returned. A process of its own makes the calls, with bounded memory, in
//! an empty folder, and notes each before it is made, so that one that ends the process can be named.
//!
//! `DBP_RANDOM_CALLS=200000` makes more calls, `DBP_RANDOM_SEED=n` others; `DBP_RANDOM_ROUND=n` repeats the round that a
//! message names. Findings are also in `DBP_RANDOM_REPORT=FILE`, if it is set.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.
#![allow(clippy::print_stdout)] // Figures of long runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::json;

#[path = "random_calls/calls.rs"]
mod calls;
#[path = "random_calls/dice.rs"]
mod dice;
#[path = "random_calls/judge.rs"]
mod judge;
#[path = "random_calls/options.rs"]
mod options;
#[path = "random_calls/world.rs"]
mod world;

/// Calls of a plain `cargo test`, and of one round.
const CALLS: u64 = 5_000;
const CALLS_PER_ROUND: u64 = 1_000;
/// KiB of address space for the process that makes the calls: more than libtorch and what the limits allow, less than what an
/// unbounded request would take.
const ADDRESS_SPACE_KIB: u64 = 12 << 20;
/// The variable that tells the process which rounds to run.
const ROUNDS: &str = "DBP_RANDOM_CHILD_ROUNDS";
const TEST: &str = "random_calls_end_in_values_or_errors";

#[test]
fn random_calls_end_in_values_or_errors() {
    if let Ok(rounds) = std::env::var(ROUNDS) {
        let (first, last) = rounds.split_once('-').unwrap();
        return make_calls(first.parse().unwrap(), last.parse().unwrap());
    }
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().expect(name));
    let seed = number("DBP_RANDOM_SEED", 0);
    let (first, rounds) = match std::env::var("DBP_RANDOM_ROUND") {
        Ok(round) => (round.parse().unwrap(), 1),
        Err(_) => (seed * 1_000_000, number("DBP_RANDOM_CALLS", CALLS).div_ceil(CALLS_PER_ROUND)),
    };
    let folder = tempfile::tempdir().unwrap();
    let (mut next, end) = (first, first + rounds);
    let mut findings = Vec::new();
    let mut total = Total::default();
    while next < end {
        let died = run_process(folder.path(), next, end);
        let done = lines(&folder.path().join("tallies.txt"));
        done.iter().for_each(|line| total.add(line));
        let mut new = lines(&folder.path().join("findings.txt"));
        next += done.len() as u64;
        if let Some(how) = died {
            // A hang is among the findings already; the round goes no further.
            let last = std::fs::read_to_string(folder.path().join("last.txt")).unwrap_or_default();
            new.push(format!("{how} at {last}"));
            next += 1;
        }
        new.iter().for_each(|finding| note(finding));
        findings.append(&mut new);
    }
    println!("{}", total.text());
    note(&total.text());
    let never: Vec<&String> = total.called.difference(&total.succeeded).collect();
    note(&format!("never succeeded: {never:?}"));
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
    assert!(total.calls >= (rounds * CALLS_PER_ROUND) as usize, "calls were left out: {}", total.text());
    assert!(total.successes * 100 >= total.calls * 15, "too few calls succeed to tell anything: {}", total.text());
}

/// Adds to the report, if one is asked for.
fn note(text: &str) {
    if let Ok(report) = std::env::var("DBP_RANDOM_REPORT") {
        judge::append(Path::new(&report), text);
    }
}

/// Runs rounds `first` to `end` in a process with bounded memory; how it died, if it did.
fn run_process(folder: &Path, first: u64, end: u64) -> Option<String> {
    for name in ["tallies.txt", "findings.txt", "last.txt"] {
        let _ = std::fs::remove_file(folder.join(name));
    }
    let mut process = Command::new("sh");
    let bounded = format!("ulimit -v {ADDRESS_SPACE_KIB}; exec \"$0\" \"$@\"");
    process.args(["-c", &bounded]).arg(std::env::current_exe().unwrap()).args([TEST, "--exact", "--nocapture"]);
    process.env(ROUNDS, format!("{first}-{end}")).current_dir(folder);
    let output = process.output().unwrap();
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let said = text.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" ⏎ ");
    Some(format!("the process ended ({}), saying {said},", output.status))
}

/// What the process does; the current folder is the one that it shares with the test.
fn make_calls(first: u64, end: u64) {
    let folder = std::env::current_dir().unwrap();
    let panics = judge::note_panics();
    let mut log = judge::Log::new(&folder);
    tch::set_num_threads(1);
    for round in first..end {
        let place = tempfile::tempdir().unwrap();
        world::fill(place.path());
        std::env::set_current_dir(place.path()).unwrap();
        let tally = judge::round(place.path(), round, CALLS_PER_ROUND as usize, &mut log, &panics);
        let line = json!({
            "calls": tally.calls, "successes": tally.successes, "called": tally.called, "succeeded": tally.succeeded,
            "slowest_ms": tally.slowest.0 as u64, "slowest": tally.slowest.1,
        });
        judge::append(&folder.join("tallies.txt"), &line.to_string());
        std::env::set_current_dir(&folder).unwrap();
    }
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Figures of all rounds.
#[derive(Default)]
struct Total {
    rounds: usize,
    calls: usize,
    successes: usize,
    called: BTreeSet<String>,
    succeeded: BTreeSet<String>,
    slowest: (u64, String),
}

impl Total {
    fn add(&mut self, line: &str) {
        let round: serde_json::Value = serde_json::from_str(line).unwrap();
        let count = |key: &str| round[key].as_u64().unwrap();
        let names = |key: &str| round[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        self.rounds += 1;
        self.calls += count("calls") as usize;
        self.successes += count("successes") as usize;
        self.called.extend(names("called"));
        self.succeeded.extend(names("succeeded"));
        if count("slowest_ms") > self.slowest.0 {
            self.slowest = (count("slowest_ms"), round["slowest"].as_str().unwrap().to_owned());
        }
    }

    fn text(&self) -> String {
        let share = 100.0 * self.successes as f64 / self.calls.max(1) as f64;
        let (called, succeeded) = (self.called.len(), self.succeeded.len());
        let (slowest_ms, slowest) = (self.slowest.0, &self.slowest.1);
        format!(
            "{} calls in {} rounds; {share:.1} % succeed; of {called} functions called, {succeeded} succeeded at least once; \
             slowest: {slowest_ms} ms, {slowest}",
            self.calls, self.rounds
        )
    }
}
