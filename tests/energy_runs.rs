//! What runs say of their energy: in their files, at their end, after a kill; and the two subcommands. The sensors are files.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

mod common;
use common::{dbp_host, end, fill_with_pictures, json, json_lines, only_run};
#[path = "common/machine.rs"]
mod machine;
use machine::{Nvml, Powercap};

/// Six steps; every second is validated and with that logged.
const SCRIPT: &str = r#"
import "std/mae" as mae;
let recipe = mae::recipe("nano", #{ image_size: 32, batch: 16, steps: arg("steps", 6), every: 2 });
let images = data::open(arg("data", "pictures"));
let model = mae::build(recipe, images);
mae::pretrain(model, images, recipe);
"#;

fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fill_with_pictures(&folder.path().join("pictures"), 40, 0);
    fs::write(folder.path().join("train.rhai"), SCRIPT).unwrap();
    folder
}

/// Without what the machine under test may have or say.
fn host(folder: &Path) -> Command {
    let mut command = dbp_host(folder);
    plain(&mut command);
    command
}

fn subcommand(folder: &Path, name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(folder).arg(name).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    plain(&mut command);
    command
}

fn plain(command: &mut Command) {
    for name in ["COUNTRY", "REGION", "PUE", "CARBON_INTENSITY", "POWERCAP", "NVML"] {
        command.env_remove(format!("DBP_HOST_{name}"));
    }
    command.env("DBP_HOST_POWERCAP", "/nonexistent").env_remove("ELECTRICITY_MAPS_TOKEN");
}

fn emissions(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "one run is one row:\n{text}");
    let fields = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let (names, values) = (fields(lines[0]), fields(lines[1]));
    assert_eq!((names.len(), values.len()), (38, 38), "{text}");
    names.into_iter().zip(values).collect()
}

fn field<'a>(row: &'a [(String, String)], name: &str) -> &'a str {
    &row.iter().find(|(key, _)| key == name).unwrap().1
}

fn number(row: &[(String, String)], name: &str) -> f64 {
    field(row, name).parse().unwrap()
}

#[test]
fn a_run_says_what_it_cost_in_all_its_files() {
    let folder = workplace();
    let mut command = host(folder.path());
    command.args(["train.rhai", "--country", "Netherlands", "--pue", "1.25"]);
    let ended = end(command).expect(0);
    for part in
        ["energy    ", "CPU ", "RAM ", "emissions ", "Netherlands, ", "0 % measured, 100 % estimated", "PUE 1.25"]
    {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("kWh per thousand images"), "{}", ended.stderr);
    let run = only_run(&folder.path().join("runs"));
    let lines = json_lines(&run.join("metrics.jsonl"));
    let energy: Vec<f64> = lines.iter().map(|line| line["energy_kwh"].as_f64().unwrap()).collect();
    assert!(energy[0] > 0.0 && energy.is_sorted(), "{energy:?}");
    let record = json(&run.join("run.json"));
    let cost = &record["energy"];
    let total = cost["energy_kwh"].as_f64().unwrap();
    assert!((total - energy[energy.len() - 1]).abs() <= 1e-3 * total, "{total} {energy:?}");
    let parts: f64 = ["cpu", "ram"].iter().map(|part| cost["components"][part]["kwh"].as_f64().unwrap()).sum();
    assert!((parts - total).abs() < 1e-12 && cost["components"].get("gpu").is_none(), "{cost}");
    assert!((cost["seconds"].as_f64().unwrap() - record["wall_s"].as_f64().unwrap()).abs() < 0.05, "{record}");
    let row = emissions(&run.join("emissions.csv"));
    assert!((number(&row, "energy_consumed") - total).abs() <= 1e-3 * total);
    assert_eq!((field(&row, "country_iso_code"), number(&row, "pue")), ("NLD", 1.25));
    assert_eq!(field(&row, "run_id"), record["run_id"].as_str().unwrap());
    assert!((number(&row, "emissions") / number(&row, "energy_consumed") * 1000.0 - 268.0).abs() < 30.0, "{row:?}");
    assert_eq!((field(&row, "gpu_count"), number(&row, "gpu_energy")), ("0", 0.0));
}

#[test]
fn a_killed_run_keeps_what_it_logged_and_says_what_was_lost() {
    let folder = workplace();
    let runs = folder.path().join("runs");
    let mut command = host(folder.path());
    command.args(["train.rhai", "--set", "steps=400"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let logged = |at_least: usize| {
        let run = fs::read_dir(&runs).ok().and_then(|mut entries| Some(entries.next()?.ok()?.path()));
        let text = run.and_then(|run| fs::read_to_string(run.join("metrics.jsonl")).ok()).unwrap_or_default();
        text.lines().count() >= at_least
    };
    while !logged(5) {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let run = only_run(&runs);
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let last: Value = text.lines().filter_map(|line| serde_json::from_str(line).ok()).next_back().unwrap();
    let logged = last["energy_kwh"].as_f64().unwrap();
    // The row is written right behind the line: it is that line's, or the one's before.
    let row = emissions(&run.join("emissions.csv"));
    assert!(number(&row, "energy_consumed") <= logged * 1.000001 && number(&row, "energy_consumed") > 0.0);
    let killed = json(&run.join("run.json"));
    assert!(killed["energy"]["energy_kwh"].as_f64().unwrap() > 0.0, "as of the last checkpoint: {killed}");

    let mut command = host(folder.path());
    command.arg("--resume").arg(&run).args(["--set", "steps=10"]);
    end(command).expect(0);
    let record = json(&run.join("run.json"));
    assert_eq!(record["run_id"], killed["run_id"], "a run that is carried on is the same run");
    let energy: Vec<f64> =
        json_lines(&run.join("metrics.jsonl")).iter().map(|line| line["energy_kwh"].as_f64().unwrap()).collect();
    assert!(energy.is_sorted() && energy.len() >= 5, "{energy:?}");
    assert!(
        (number(&emissions(&run.join("emissions.csv")), "energy_consumed") / energy[energy.len() - 1] - 1.0).abs()
            < 1e-3
    );
}

/// Logs each step and saves every fifth; at the seventh it kills itself, as the machine might. Then a second loop.
const LOOPS: &str = r#"
import "std/mae" as mae;
let recipe = mae::recipe("nano", #{ image_size: 32, batch: 16 });
let parts = data::open(arg("data", "pictures")).split(0.2);
let model = mae::build(recipe, parts.train);
let loader = data::loader(parts.train, #{ batch: 16, image_size: 32 });
let opt = optim::adamw(model, #{ lr: 0.001 });
let run = run::start(#{ model: model, opt: opt, loader: loader, save_every: 5, log_every: 1, energy: arg("energy", ()) });
for total in [8, arg("last", 12)] {
    for step in run.steps(total) {
        for batch in loader.micro(step) { model.loss(batch).backward(); }
        opt.step(0.001);
        run.log(#{ train_loss: model.last_loss() });
    }
}
"#;

#[test]
fn what_a_kill_loses_is_counted_and_a_second_loop_is_metered() {
    let folder = workplace();
    fs::write(folder.path().join("loops.rhai"), LOOPS).unwrap();
    let mut command = host(folder.path());
    command.arg("loops.rhai");
    end(command).expect(0);
    let run = only_run(&folder.path().join("runs"));
    let energy = |run: &Path| -> Vec<f64> {
        json_lines(&run.join("metrics.jsonl")).iter().map(|line| line["energy_kwh"].as_f64().unwrap()).collect()
    };
    let whole = energy(&run);
    assert!(whole.len() == 12 && whole.windows(2).all(|pair| pair[0] < pair[1]), "the second loop counts: {whole:?}");
    let record = json(&run.join("run.json"));
    let (seconds, wall) = (record["energy"]["seconds"].as_f64().unwrap(), record["wall_s"].as_f64().unwrap());
    assert!((seconds - wall).abs() < 0.05, "{seconds} {wall}");

    // As a kill behind the twelfth line leaves it whose last checkpoint is that of step 10.
    let state = run.join("checkpoints/last/state.json");
    let mut saved = json(&state);
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    saved["metrics_bytes"] = lines.split_inclusive('\n').take(10).map(str::len).sum::<usize>().into();
    saved["step"] = 10.into();
    let joules = saved["energy"]["totals"]["ram"]["parts"][0]["joules"].as_f64().unwrap();
    saved["energy"]["totals"]["ram"]["parts"][0]["joules"] = (joules - 1.0).into();
    fs::write(&state, saved.to_string()).unwrap();
    let mut command = host(folder.path());
    command.arg("--resume").arg(&run).args(["--carbon-intensity", "41", "--pue", "2"]);
    let ended = end(command).expect(0);
    let record = json(&run.join("run.json"));
    let lost = record["lost_kwh"].as_f64().unwrap();
    assert!((lost * 3.6e6 - 1.0).abs() < 1e-2, "{lost}");
    let resumed = energy(&run);
    assert!(resumed.len() == 12 && resumed[..10] == whole[..10] && resumed.is_sorted(), "{resumed:?}");
    assert!(ended.stderr.contains("world average, 2018 (IEA); then given"), "{}", ended.stderr);

    // Without a meter nothing is said; with one from there on, the time before is said to be missing.
    let mut command = host(folder.path());
    command.args(["loops.rhai", "--runs", "plain", "--set", "energy=false"]);
    assert!(!end(command).expect(0).stderr.contains("kWh"));
    let plain = only_run(&folder.path().join("plain"));
    assert!(!plain.join("emissions.csv").exists() && json(&plain.join("run.json")).get("energy").is_none());
    let mut command = host(folder.path());
    command.arg("--resume").arg(&plain).args(["--set", "energy=true", "--set", "last=16"]);
    assert!(end(command).expect(0).stderr.contains("s of training before were not metered"));
    let cost = json(&plain.join("run.json"))["energy"].clone();
    assert!(cost["unmetered_s"].as_f64().unwrap() > 0.0 && cost["energy_kwh"].as_f64().unwrap() > 0.0, "{cost}");
    assert!(cost.get("kwh_per_1000_images").is_none());
}

#[test]
fn a_file_of_emissions_that_somebody_spoiled_ends_no_run() {
    let folder = workplace();
    let mut command = host(folder.path());
    command.args(["train.rhai"]);
    end(command).expect(0);
    let run = only_run(&folder.path().join("runs"));
    fs::write(run.join("emissions.csv"), b"\xef\xbb\xbftimestamp;saved by a spreadsheet\xff\n").unwrap();
    let mut command = host(folder.path());
    command.arg("--resume").arg(&run).args(["--set", "steps=8"]);
    end(command).expect(0);
    assert!(number(&emissions(&run.join("emissions.csv")), "energy_consumed") > 0.0);
    // A folder in its place cannot be written over: that is said, and the run is done all the same.
    fs::remove_file(run.join("emissions.csv")).unwrap();
    fs::create_dir_all(run.join("emissions.csv/x")).unwrap();
    let mut command = host(folder.path());
    command.arg("--resume").arg(&run).args(["--set", "steps=10"]);
    let ended = end(command).expect(0);
    assert!(ended.stderr.contains("emissions.csv: "), "{}", ended.stderr);
    let record = json(&run.join("run.json"));
    assert_eq!(record["status"], "done");
    assert!(record["energy"]["problems"][0].as_str().unwrap().contains("emissions.csv"), "{record}");
}

#[test]
fn the_grid_of_the_command_line_wins_and_a_resumed_run_remembers_it() {
    let folder = workplace();
    let script = r#"let meter = energy::meter(#{ country: "FRA", intensity: 100 }); meter.start(); print(meter.stop().intensity);"#;
    fs::write(folder.path().join("grid.rhai"), script).unwrap();
    for (flags, environment, expected) in [
        (&[][..], None, "given"),
        (&[][..], Some("DEU"), "Germany"),
        (&["--country", "NLD"], Some("DEU"), "Netherlands"),
        (&["--country", "USA", "--region", "california"], None, "California"),
    ] {
        let mut command = host(folder.path());
        command.arg("grid.rhai").args(flags);
        if let Some(country) = environment {
            command.env("DBP_HOST_COUNTRY", country);
        }
        let ended = end(command).expect(0);
        assert!(ended.stdout.starts_with(expected), "{flags:?} {environment:?}: {}", ended.stdout);
    }
    let mut command = host(folder.path());
    command.args(["train.rhai", "--country", "NLD", "--pue", "1.5"]);
    end(command).expect(0);
    let run = only_run(&folder.path().join("runs"));
    let mut command = host(folder.path());
    command.env("DBP_HOST_COUNTRY", "DEU").env("DBP_HOST_PUE", "1.1");
    command.arg("--resume").arg(&run).args(["--set", "steps=8"]);
    end(command).expect(0);
    let row = emissions(&run.join("emissions.csv"));
    assert_eq!((field(&row, "country_iso_code"), number(&row, "pue")), ("NLD", 1.5));
    let mut command = host(folder.path());
    command.arg("grid.rhai").env("DBP_HOST_PUE", "much");
    assert!(end(command).expect(2).stderr.contains("DBP_HOST_PUE: expected a number, got \"much\""));
}

#[test]
fn a_script_meters_what_it_likes() {
    let folder = workplace();
    let script = r#"
        let meter = energy::meter(#{ country: "FRA", intensity: 100, pue: 2, source: "estimated", cpu_power: 36, interval: 0.5 });
        meter.start();
        let x = tensor::rand([64, 64]);
        for i in 0..50 { x = x.matmul(x).softmax(1); }
        meter.pause();
        let first = meter.reading();
        for i in 0..200 { x = x.matmul(x).softmax(1); }
        let second = meter.reading();
        assert(first.energy_kwh == second.energy_kwh, "it was paused");
        meter.resume();
        let last = meter.stop();
        assert(last.seconds >= first.seconds);
        assert(last.components.cpu.sources[0].source.contains("36"), "given");
        assert(!last.components.cpu.sources[0].measured);
        assert(last.components.ram.joules > 0.0);
        assert(!("gpu" in last.components.keys()));
        assert((last.co2_kg / last.energy_kwh - 0.1).abs() < 1e-9);
        assert(last.pue == 2.0 && last.measured_share == 0.0);
        assert(meter.reading().energy_kwh == last.energy_kwh, "stopped");
        let failed = "";
        try { meter.pause(); } catch (err) { failed = err.to_string(); }
        assert(failed.contains("has been stopped"), failed);
        meter.start();
        assert(meter.stop().energy_kwh < last.energy_kwh, "from zero");
    "#;
    fs::write(folder.path().join("meter.rhai"), script).unwrap();
    let mut command = host(folder.path());
    command.arg("meter.rhai");
    end(command).expect(0);
}

#[test]
fn what_a_script_or_the_command_line_gets_wrong_is_said() {
    let folder = workplace();
    let cases = [
        (
            r#"energy::meter(#{ country: "Netherlans" });"#,
            "country: expected an ISO 3166 code or an English name, got `Netherlans`; did you mean Netherlands",
        ),
        (r#"energy::meter(#{ region: "Texas" });"#, "region: Texas is in which country?"),
        (r#"energy::meter(#{ pue: 0.5 });"#, "pue: expected 1 to 10, got 0.5"),
        (r#"energy::meter(#{ interval: 0 });"#, "interval: expected 0.1 to 60, got 0"),
        (r#"energy::meter(#{ source: "guess" });"#, "source: expected auto, measured or estimated, got guess"),
        (r#"energy::meter(#{ contry: "NL" });"#, "did you mean `country`?"),
        (r#"energy::meter().reading();"#, "this meter has not been started; call start() first"),
    ];
    for (script, message) in cases {
        fs::write(folder.path().join("wrong.rhai"), script).unwrap();
        let mut command = host(folder.path());
        command.arg("wrong.rhai");
        let ended = end(command).expect(1);
        assert!(ended.stderr.contains(message), "{script}: {}", ended.stderr);
    }
    fs::write(folder.path().join("fine.rhai"), "energy::meter();").unwrap();
    for (flags, message) in [
        (&["--carbon-live", "--country", "NL"][..], "--carbon-live: ELECTRICITY_MAPS_TOKEN is not set"),
        (&["--country", "Atlantis"], "got `Atlantis`"),
        (&["--pue", "0.5"], "pue: expected 1 to 10, got 0.5"),
        (&["--carbon-intensity", "-3"], "carbon intensity: expected 0 to 5000, got -3"),
        (&["--region", "Texas"], "region: Texas is in which country?"),
    ] {
        let mut command = host(folder.path());
        command.arg("fine.rhai").args(flags);
        let ended = end(command);
        assert!(ended.code == Some(2) && ended.stderr.contains(message), "{flags:?}: {ended:?}");
    }
}

#[test]
fn a_command_is_metered_and_ends_as_it_would() {
    let folder = tempfile::tempdir().unwrap();
    let (powercap, mut nvml) = (Powercap::new(), Nvml::new());
    powercap.zone("intel-rapl:0", "package-0", 1_000_000_000);
    nvml.set("0.energy_mj", 1_000_000);
    // The command draws 36 J of the processors and 72 J of the GPU.
    let draws = format!(
        "echo 1036000000 > {}; sed -i 's/^0.energy_mj .*/0.energy_mj 1072000/' {}; exit 7",
        powercap.counter("intel-rapl:0").display(),
        nvml.library().with_file_name("nvml.txt").display()
    );
    let mut command = subcommand(folder.path(), "energy");
    command.env("DBP_HOST_POWERCAP", powercap.path()).env("DBP_HOST_NVML", nvml.library());
    command.args(["--json", "--interval", "60", "--source", "measured", "--carbon-intensity", "1000", "--gpus", "all"]);
    command.args(["--out", "all.csv", "--", "sh", "-c", &draws]);
    let ended = end(command).expect(7);
    let cost: Value = serde_json::from_str(&ended.stdout).unwrap();
    let part = |name: &str| cost["components"][name]["joules"].as_f64().unwrap();
    // The command starts a moment after the first poll: its energy is shared by time.
    assert!((part("gpu") / part("cpu") - 2.0).abs() < 1e-9 && part("cpu") > 18.0 && part("cpu") <= 36.0, "{cost}");
    assert_eq!((cost["exit_code"].as_i64(), cost["measured_share"].as_f64()), (Some(7), Some(1.0)));
    assert!(cost["components"].get("ram").is_none());
    let row = emissions(&folder.path().join("all.csv"));
    assert_eq!((field(&row, "project_name"), field(&row, "gpu_model")), ("sh", "1 x NVIDIA A100-SXM4-40GB"));
    assert_eq!(field(&row, "ram_energy"), "", "not measured is not zero");

    let mut command = subcommand(folder.path(), "energy");
    command.args(["--", "sh", "-c", "kill -9 $$"]);
    let ended = end(command).expect(137);
    assert!(ended.stdout.is_empty() && ended.stderr.contains("% estimated"), "{ended:?}");
    fs::write(folder.path().join("other.csv"), "timestamp,something\n").unwrap();
    for (flags, message) in [
        (&["--", "no-such-program-here"][..], "no-such-program-here: no such program"),
        (&["--out", "other.csv", "--", "touch", "ran"], "--out other.csv: it has not the columns of codecarbon"),
        (&["--out", "no/such/folder.csv", "--", "touch", "ran"], "--out no/such/folder.csv: "),
        (&["--gpus", "9", "--", "touch", "ran"], "--gpus 9: "),
        (&["--gpus", "0,,1", "--", "touch", "ran"], "--gpus: expected none, all, or indices"),
        (&["--interval", "0", "--", "touch", "ran"], "interval: expected 0.1 to 60, got 0"),
    ] {
        let mut command = subcommand(folder.path(), "energy");
        command.env("DBP_HOST_NVML", nvml.library()).args(flags);
        let ended = end(command).expect(2);
        assert!(ended.stderr.contains(message), "{flags:?}: {}", ended.stderr);
    }
    assert!(!folder.path().join("ran").exists(), "what is wrong is said before the command runs");
}

/// SIGTERM alone: whoever starts the tests in the background or with nohup has the others ignored, and no shell can trap those.
#[test]
fn a_signal_reaches_the_command_and_its_cost_is_still_told() {
    let folder = tempfile::tempdir().unwrap();
    let terminate = |child: &Child| {
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    };
    let start = |words: &[&str]| {
        let mut child = subcommand(folder.path(), "energy").arg("--").args(words).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        child
    };
    let child = start(&["sh", "-c", "trap 'echo saved; exit 5' TERM; echo ready; while :; do sleep 0.05; done"]);
    terminate(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).trim()), (Some(5), "saved"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("kWh"));
    // A program that does nothing about signals is ended by them: it does not start with them blocked.
    fs::write(folder.path().join("words"), "ready\n").unwrap();
    let mut child = start(&["tail", "-f", "words"]);
    terminate(&child);
    let ended = (0..600).find_map(|_| {
        thread::sleep(Duration::from_millis(50));
        child.try_wait().unwrap()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(143), "none: it is deaf");
}

#[test]
fn the_doctor_says_what_is_missing_and_what_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let findings = |powercap: &Path, nvml: &Path| {
        let mut command = subcommand(folder.path(), "doctor");
        command.env("DBP_HOST_POWERCAP", powercap).env("DBP_HOST_NVML", nvml).args(["--json", "--country", "SWE"]);
        let ended = end(command).expect(0);
        let all: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap();
        move |what: &str| all.iter().find(|one| one["what"] == what).cloned().unwrap_or_default()
    };
    let (powercap, mut nvml) = (Powercap::new(), Nvml::new());
    powercap.zone("intel-rapl:0", "package-0", 1_000_000_000);
    nvml.set("0.energy", 4); // NVML_ERROR_NO_PERMISSION
    let found = findings(powercap.path(), &nvml.library());
    assert_eq!((found("RAPL")["state"].as_str(), found("CPU")["state"].as_str()), (Some("ok"), Some("ok")));
    assert!(found("GPU")["text"].as_str().unwrap().contains("measured by samples of its power"), "{}", found("GPU"));
    assert!(found("carbon")["text"].as_str().unwrap().contains("Sweden"));
    assert!(["libtorch", "disk", "RAM", "CUDA"].iter().all(|what| found(what)["text"].is_string()));
    fs::write(powercap.counter("intel-rapl:0"), "?").unwrap();
    let found = findings(powercap.path(), Path::new("/nonexistent/nvml.so"));
    assert_eq!((found("RAPL")["state"].as_str(), found("RAPL")["fix"].as_str()), (Some("broken"), None));
    assert!(found("RAPL")["text"].as_str().unwrap().contains("not a number"), "{}", found("RAPL"));
    assert_eq!(found("NVML")["state"], "absent");
    let mut command = subcommand(folder.path(), "doctor");
    command.args(["--runs", "elsewhere"]);
    let ended = end(command).expect(0);
    assert!(ended.stdout.contains("ok  libtorch") && ended.stdout.contains("elsewhere"), "{}", ended.stdout);
}

#[test]
fn the_live_intensity_is_asked_for_and_the_table_stands_in_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (good, token) = (
        r#"{"zone":"SE-SE3","carbonIntensity":33,"datetime":"2026-01-31T14:00:00.000Z","isEstimated":true}"#,
        "a-secret",
    );
    let server = thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in [
            format!("200 OK\r\nContent-Length: {}\r\n\r\n{good}", good.len()),
            "401 No\r\nContent-Length: 0\r\n\r\n".into(),
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut part) = (Vec::new(), [0; 1024]);
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let read = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..read]);
            }
            stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).unwrap();
            asked.push(String::from_utf8(request).unwrap());
        }
        asked
    });
    let ask = |cache: &str| {
        let mut command = subcommand(folder.path(), "energy");
        command.env("ELECTRICITY_MAPS_TOKEN", token).env("ELECTRICITY_MAPS_URL", &address);
        command.env("XDG_CACHE_HOME", folder.path().join(cache));
        command.args(["--carbon-live", "--country", "Sweden", "--region", "SE3", "--json", "--", "true"]);
        let ended = end(command).expect(0);
        assert!(!ended.stderr.contains(token) && !ended.stdout.contains(token));
        let cost: Value = serde_json::from_str(&ended.stdout).unwrap();
        (
            cost["intensity"].as_str().unwrap().to_owned(),
            cost["co2_kg"].as_f64().unwrap() / cost["energy_kwh"].as_f64().unwrap() * 1e3,
            ended.stderr,
        )
    };
    let live = ask("cache");
    assert!(live.0.contains("zone SE-SE3") && live.0.contains("estimated") && (live.1 - 33.0).abs() < 1e-6, "{live:?}");
    // Again: from the cache, without asking. With another one: refused, so the table.
    assert_eq!(ask("cache").0, live.0);
    let refused = ask("other");
    assert!(refused.0.contains("2025") && (refused.1 - 27.0).abs() < 3.0, "{refused:?}");
    assert!(
        refused.2.contains("the token was refused") && refused.2.contains("the table's figure stands"),
        "{}",
        refused.2
    );
    let asked = server.join().unwrap();
    assert!(
        asked[0].contains("zone=SE-SE3") && asked[0].to_lowercase().contains("auth-token: a-secret"),
        "{}",
        asked[0]
    );
    for (path, bytes) in common::files_of(folder.path()) {
        assert!(!String::from_utf8_lossy(&bytes).contains(token), "{}", path.display());
    }
}
