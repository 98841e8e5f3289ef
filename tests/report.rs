//! What `dbp-host report` says of made-up run directories, in text, tables and figures.
//!
//! `tests/report_runs/*.txt` hold whole reports, to be read as a person would; `UPDATE_EXPECT=1` writes them anew.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::{Path, PathBuf};

use dbp_host::report::figure::{Cell, Figure, HeatMap, LineChart, Stops};
use dbp_host::report::{Band, Block, Options, Report, Section};
use serde_json::json;

mod report_runs;

use report_runs::{Made, parent};

fn read(paths: &[PathBuf]) -> Report {
    Report::read(paths, &Options::default()).unwrap()
}

/// The report's text as it is at a terminal of 110 columns, the folder of the test taken out.
fn text(report: &Report, folder: &Path) -> String {
    report.text(Some(110)).replace(folder.to_str().unwrap(), "RUNS")
}

#[track_caller]
fn expect(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report_runs").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, got).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap();
    assert!(got == want, "{}:\n{got}", path.display());
}

fn figures(section: &Section) -> Vec<&Figure> {
    let own =
        section.blocks.iter().filter_map(|block| if let Block::Figure(figure) = block { Some(figure) } else { None });
    own.chain(section.sections.iter().flat_map(figures)).collect()
}

fn heat_maps(report: &Report) -> Vec<&HeatMap> {
    let figures = report.sections.iter().flat_map(figures);
    figures.filter_map(|figure| if let Figure::Heat(map) = figure { Some(map) } else { None }).collect()
}

fn line_charts(report: &Report) -> Vec<&LineChart> {
    let figures = report.sections.iter().flat_map(figures);
    figures.filter_map(|figure| if let Figure::Line(chart) = figure { Some(chart) } else { None }).collect()
}

/// Plain and decorrelated, three seeds each; a step of the latter takes a tenth longer. One seed of the second decorrelated
/// arm never gets as far as plain back-propagation.
fn comparison(dir: &Path) -> PathBuf {
    let layers = vec![("encoder.patch_embed.proj", 0.02), ("encoder.blocks.0.attn.qkv", 0.004)];
    let mut runs = Vec::new();
    for (seed, shift) in [(0, 0.0), (1, 0.01), (2, 0.03)] {
        let shifted = |losses: [f64; 4]| losses.map(|loss| loss + shift);
        runs.push(Made::cell("compare", json!({ "arm": "bp" }), seed, &shifted([0.9, 0.8, 0.7, 0.71])));
        let dbp = shifted([0.85, 0.7 - 0.125 * shift, 0.65 - 0.5 * shift, 0.66]);
        runs.push(Made {
            seconds_per_step: 0.55 + 0.01 * seed as f64,
            layers: layers.clone(),
            ..Made::cell("compare", json!({ "arm": "dbp", "decor_lr": 0.01 }), seed, &dbp)
        });
        let lean = if seed == 2 { [0.9, 0.85, 0.8, 0.75] } else { shifted([0.88, 0.78, 0.7, 0.69]) };
        runs.push(Made {
            seconds_per_step: 0.51,
            layers: layers.clone(),
            ..Made::cell("compare", json!({ "arm": "lean", "decor_lr": 0.01 }), seed, &lean)
        });
    }
    let grids = json!([{
        "name": "compare", "title": "BP against DBP", "text": "Does decorrelation train sooner?", "baseline": { "arm": "bp" },
        "settings": [{ "arm": "bp" }, { "arm": "dbp", "decor_lr": 0.01 }, { "arm": "lean", "decor_lr": 0.01 }],
        "seeds": [0, 1, 2],
    }]);
    parent(&dir.join("compare"), &runs, grids)
}

#[test]
fn a_comparison_reads_as_a_person_would_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = comparison(folder.path());
    let report = read(&[dir]);
    expect("compare.txt", &text(&report, folder.path()));
    let files = report.csv();
    let csv: Vec<String> = files.iter().map(|(name, text)| format!("{name}\n{}", text.replace("\r\n", "\n"))).collect();
    expect("compare.csv.txt", &csv.join("\n"));
    // The mean over seeds that share their steps is taken at these steps.
    let charts = line_charts(&report);
    assert_eq!(
        charts.iter().map(|chart| chart.title.as_str()).collect::<Vec<_>>(),
        ["Validation loss", "Training loss"]
    );
    let views: Vec<&str> = charts[0].views.iter().map(|view| view.x.label.as_str()).collect();
    assert_eq!(views, ["step", "epoch", "training time", "energy", "CO₂"]);
    let bp = &charts[0].views[0].series[0];
    assert_eq!(bp.points.iter().map(|point| point.x).collect::<Vec<_>>(), [50.0, 100.0, 150.0, 200.0]);
    assert!((bp.points[2].y - (0.7 + 0.04 / 3.0)).abs() < 1e-12 && bp.runs.len() == 3);
    let (low, high) = bp.points[2].band.unwrap();
    assert!(((high - low) / 2.0 - (0.000_7_f64 / 3.0).sqrt()).abs() < 1e-12, "{low} to {high}");
    // Layers: the mean over seeds, a map for each arm and measure.
    let maps = heat_maps(&report);
    assert_eq!(maps.len(), 4);
    assert_eq!(maps[0].cells[0][1].value, Some(0.01));
}

#[test]
fn the_order_of_what_is_named_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let dir = comparison(folder.path());
    let once = read(std::slice::from_ref(&dir));
    let mut children: Vec<PathBuf> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    children.sort();
    children.reverse();
    let reversed = read(&children);
    assert_eq!(reversed, once);
    // Named twice is counted once.
    let twice = read(&[folder.path().to_owned(), dir.clone(), children[0].clone()]);
    assert_eq!(twice, once);
    assert_eq!(twice.html(), once.html());
    assert_eq!(twice.csv(), once.csv());
}

#[test]
fn a_grid_that_ran_again_with_other_arguments_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, again) = (comparison(folder.path()), folder.path().join("again"));
    let rerun = |arguments: serde_json::Value| {
        let bp = Made::cell("compare", json!({ "arm": "bp" }), 2, &[0.5]).with(json!({ "arguments": arguments }));
        let index: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
        parent(&again, &[bp], index["grids"].clone())
    };
    // More seeds are the same experiment, of which a seed counts once.
    rerun(json!({ "data": "photos", "steps": 200, "seeds": [2] }));
    let report = read(&[dir.clone(), again.clone()]);
    assert_eq!(report.sections[0].arms, ["bp", "dbp", "lean"]);
    assert!(
        report.text(None).contains("A run of bp was left out: the same setting and seed ran again, and counts once.")
    );
    // Other images are another one.
    rerun(json!({ "data": "scans", "steps": 200, "seeds": [2] }));
    let report = read(&[dir, again]);
    assert_eq!(report.sections[0].arms, ["bp, photos", "bp, scans", "dbp, photos", "lean, photos"]);
    assert!(report.text(None).contains("compared with bp, photos."));
}

/// Learning rate × decorrelation rate, two seeds: one cell diverged, one half so, the best at the grid's edge.
fn search(dir: &Path) -> PathBuf {
    let mut runs = Vec::new();
    for seed in 0..2 {
        for lr in [0.003, 0.006] {
            let best = 0.7 - lr + 0.001 * seed as f64;
            runs.push(Made::cell("search", json!({ "arm": "bp", "lr": lr }), seed, &[0.9, best]));
            for eta in [0.001, 0.01, 0.1] {
                let best = 0.6 - eta + lr + 0.001 * seed as f64;
                let made = Made::cell("search", json!({ "arm": "dbp", "lr": lr, "decor_lr": eta }), seed, &[0.9, best]);
                let lost = eta == 0.1 && (lr == 0.006 || seed == 1);
                let error = json!({ "error": "training diverged: train_loss is not finite at step 60" });
                runs.push(if lost { Made { status: "diverged", ..made.with(error) } } else { made });
            }
        }
    }
    let failed = runs.iter_mut().find(|run| run.name.contains("bp") && run.seed == 1).unwrap();
    failed.status = "failed";
    failed.losses.clear();
    let settings: Vec<_> =
        runs.iter().filter(|run| run.seed == 0).map(|run| run.record["cell"]["setting"].clone()).collect();
    let grids = json!([{ "name": "search", "title": "Rates", "baseline": { "arm": "bp" }, "settings": settings, "seeds": [0, 1, 2] }]);
    parent(&dir.join("search"), &runs, grids)
}

#[test]
fn a_grid_names_its_best_cell_and_those_that_were_lost() {
    let folder = tempfile::tempdir().unwrap();
    let report = read(&[search(folder.path())]);
    expect("search.txt", &text(&report, folder.path()));
    let maps = heat_maps(&report);
    let [map] = maps.as_slice() else { panic!("{} maps", maps.len()) };
    assert_eq!(
        (&map.columns, &map.rows),
        (&Stops::Numbers(vec![0.003, 0.006]), &Stops::Numbers(vec![0.001, 0.01, 0.1]))
    );
    assert!(map.y.log && !map.x.log);
    // 0.1 is best by its one seed, but it lost the other: the cell before it counts.
    assert_eq!(map.best, Some((1, 0)));
    let note =
        |row: usize, column: usize| (map.cells[row][column].note.as_str(), map.cells[row][column].value.is_some());
    assert_eq!([note(1, 0), note(2, 0), note(2, 1)], [("", true), ("1 of 2 diverged", true), ("diverged", false)]);
    let Cell { value, .. } = map.cells[1][0];
    assert!((value.unwrap() - 0.5935).abs() < 1e-12);
    // Plain back-propagation varies in one number only.
    let charts = line_charts(&report);
    assert!(
        charts.iter().any(|chart| chart.title == "Best validation loss over lr" && chart.views[0].series.len() == 1)
    );
}

/// Runs of one script without a grid, among directories that are broken each in its own way.
fn wild(dir: &Path) -> PathBuf {
    let runs = dir.join("runs");
    let decorrelated = |made: Made| Made { layers: vec![("encoder.blocks.0.mlp.fc1", 0.01)], ..made };
    for seed in 0..2 {
        let losses = [0.9, 0.8 + 0.01 * seed as f64];
        Made::new(&format!("bp-{seed}"), seed, &losses).write(&runs.join(format!("a{seed}")));
        let dbp = decorrelated(Made::new(&format!("dbp-{seed}"), seed, &losses.map(|loss| loss - 0.05)));
        dbp.with(json!({ "recipe": { "lr": 0.003, "split_seed": seed } })).write(&runs.join(format!("b{seed}")));
    }
    // Still going, on another machine, its last line half written.
    let going = decorrelated(Made { status: "running", ..Made::new("dbp-2", 2, &[0.9]) });
    let going = going.with(json!({ "device": "cuda:0", "energy": null, "recipe": { "lr": 0.003, "split_seed": 2 } }));
    let going = going.write(&runs.join("c"));
    let metrics = fs::read_to_string(going.join("metrics.jsonl")).unwrap();
    fs::write(going.join("metrics.jsonl"), format!("{metrics}{{\"step\":75,\"wall")).unwrap();
    // Broken.
    let made = Made::new("bp-7", 7, &[0.9, 0.8]);
    fs::create_dir_all(runs.join("d-empty")).unwrap();
    fs::write(made.write(&runs.join("e-json")).join("run.json"), "{\"name\": \"bp").unwrap();
    fs::write(made.write(&runs.join("f-torn")).join("metrics.jsonl"), "{\"step\":1,\"val_loss\":1}\n{\"step\":2,")
        .unwrap();
    fs::write(made.write(&runs.join("g-line")).join("metrics.jsonl"), "{\"step\":1}\nnothing\n{\"step\":2}\n").unwrap();
    fs::write(made.write(&runs.join("h-back")).join("metrics.jsonl"), "{\"step\":9}\n{\"step\":5}\n").unwrap();
    fs::remove_file(made.write(&runs.join("i-none")).join("metrics.jsonl")).unwrap();
    Made::new("bp-7", 7, &[0.9]).with(json!({ "status": "sleeping" })).write(&runs.join("j-status"));
    Made::new("bp-7", 7, &[0.9]).with(json!({ "smoke": true })).write(&runs.join("k-smoke"));
    fs::write(parent(&runs.join("l-index"), &[], json!([])).join("index.json"), "[]").unwrap();
    fs::create_dir_all(runs.join("m-results")).unwrap();
    fs::write(runs.join("m-results/run.json"), json!({ "name": "predict", "status": "done" }).to_string()).unwrap();
    // Layers alone are broken: the run counts.
    fs::write(runs.join("b0/layers.jsonl"), "{\"step\":1}\n").unwrap();
    runs
}

#[test]
fn what_is_broken_is_named_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let runs = wild(folder.path());
    let report = read(std::slice::from_ref(&runs));
    expect("wild.txt", &text(&report, folder.path()));
    assert_eq!(report.problems.len(), 11, "{:#?}", report.problems);
    // Named itself, a smoke test counts.
    let smoke = read(&[runs.join("k-smoke")]);
    assert!(smoke.problems.is_empty() && !smoke.is_empty());
    let nothing = read(&[runs.join("d-empty"), folder.path().join("nowhere")]);
    assert!(nothing.is_empty());
    assert_eq!(nothing.problems.len(), 2, "{:?}", nothing.problems);
}

#[test]
fn arms_can_be_made_by_other_keys_and_compared_with_another_arm() {
    let folder = tempfile::tempdir().unwrap();
    let runs = [search(folder.path())];
    let arms = |options: &Options| Report::read(&runs, options).unwrap().sections[0].arms.clone();
    let by = |keys: &[&str]| Options { by: keys.iter().map(|key| (*key).to_owned()).collect(), ..Options::default() };
    assert_eq!(arms(&by(&["arm"])), ["bp", "dbp"]);
    assert_eq!(arms(&by(&["lr", "arm"])).len(), 4);
    let error = Report::read(&runs, &by(&["learning_rate"])).unwrap_err();
    assert!(
        error.starts_with("by: expected a key that runs differ in (") && error.ends_with("got learning_rate"),
        "{error}"
    );
    let baseline = |label: &str| Options { baseline: Some(label.to_owned()), ..by(&["arm"]) };
    assert_eq!(arms(&baseline("DBP")), ["dbp", "bp"]);
    let error = Report::read(&runs, &baseline("adam")).unwrap_err();
    assert_eq!(error, "baseline: expected one of bp; dbp, got adam");
}

#[test]
fn another_figure_and_another_band_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let dir = [comparison(folder.path())];
    let options = Options {
        figure: Some("train_loss".to_owned()),
        band: Band::Ci,
        title: Some("Loss".to_owned()),
        ..Options::default()
    };
    let report = Report::read(&dir, &options).unwrap();
    assert_eq!((report.title.as_str(), report.sections[0].sections[0].heading.as_str()), ("Loss", "Training loss"));
    let text = report.text(None);
    assert!(
        text.contains("half the 95 % confidence interval of the mean")
            && !text.contains("standard deviation over seeds")
    );
}

#[test]
fn what_was_edited_between_two_runs_is_another_arm() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, seed: u64, script: &str| {
        let dir = Made::new("probe", seed, &[0.9, 0.8]).write(&folder.path().join(name));
        fs::write(dir.join("script.rhai"), script).unwrap();
    };
    let arms = || read(&[folder.path().to_owned()]).sections[0].arms.clone();
    run("a", 0, "first");
    run("b", 1, "second");
    assert_eq!(arms(), ["probe"]); // An edit between two seeds may be one of a comment.
    run("c", 0, "second");
    assert_eq!(arms(), ["script 1", "script 2"]);
}

#[test]
fn segmentation_is_judged_by_its_own_figure() {
    let folder = tempfile::tempdir().unwrap();
    for (name, gain) in [("scratch", 0.0), ("pre-trained", 0.125)] {
        for seed in 0..2 {
            let scores = [0.25, 0.375 + gain + 0.0625 * seed as f64];
            let run = Made { figure: "miou", ..Made::new(&format!("{name}-{seed}"), seed, &scores) };
            let dir = folder.path().join(format!("{name}-{seed}"));
            let iou = json!({ "sky": 0.5 + gain, "pole": null, "road": 0.25 * (1 + seed) as f64 });
            run.with(json!({ "scores": { "iou": iou } })).write(&dir);
            fs::create_dir_all(dir.join("pictures")).unwrap();
            for picture in ["segmentation-000050.png", "segmentation-000100.png", "notes.txt"] {
                fs::write(dir.join("pictures").join(picture), "").unwrap();
            }
        }
    }
    let options = Options { baseline: Some("scratch".to_owned()), ..Options::default() };
    let report = Report::read(&[folder.path().to_owned()], &options).unwrap();
    let text = report.text(None);
    for part in [
        "Best mIoU: +30.8 %",
        "Higher is better",
        "To the highest mIoU of scratch",
        "Intersection over union per class",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let row =
        |class: &str| text.lines().find(|line| line.starts_with(class)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(row("sky"), ["sky", "0.500", "±", "0.000", "0.625", "±", "0.000"]);
    assert_eq!(row("road"), ["road", "0.375", "±", "0.177", "0.375", "±", "0.177"]);
    assert_eq!(row("pole"), ["pole", "–", "–"]);
    // The last picture of the first seed of each arm.
    let figures = report.sections.iter().flat_map(figures);
    let pictures =
        figures.filter_map(|figure| if let Figure::Picture(picture) = figure { Some(picture) } else { None });
    let captions: Vec<String> = pictures.map(|picture| format!("{}: {}", picture.title, picture.caption)).collect();
    assert_eq!(captions, ["Segmentation: scratch, seed 0, step 100", "Segmentation: pre-trained, seed 0, step 100"]);
}

/// Every file of a study with one of its values replaced, or cut off: a report names what is wrong and goes on.
#[test]
fn no_broken_file_is_fatal() {
    const WORDS: [&str; 10] = ["null", "1e308", "1e999", "-1", "[]", "{}", "\"x\"", "true", "1e-320", "\"\\u001b[2J\""];
    let folder = tempfile::tempdir().unwrap();
    let dir = comparison(folder.path());
    let mut files: Vec<PathBuf> = vec![dir.join("index.json")];
    for child in ["1-compare", "2-compare", "6-compare"] {
        files.extend(["run.json", "metrics.jsonl", "layers.jsonl"].map(|name| dir.join(child).join(name)));
    }
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        // The minimal standard generator of Park and Miller 1988.
        state = state * 48_271 % 0x7fff_ffff;
        state as usize % below
    };
    let (mut problems, mut whole) = (0, 0);
    for case in 0..120 {
        let file = &files[case % files.len()];
        let text = fs::read_to_string(file).unwrap();
        let colons: Vec<usize> = text.match_indices(':').map(|(at, _)| at).collect();
        let broken = match draw(5) {
            0 => text[..draw(text.len() + 1)].to_owned(),
            _ if colons.is_empty() => "\0".to_owned(),
            _ => {
                let (before, after) = text.split_at(colons[draw(colons.len())] + 1);
                let end = after.find([',', '}', '\n']).unwrap_or(after.len());
                format!("{before}{}{}", WORDS[draw(WORDS.len())], &after[end..])
            }
        };
        fs::write(file, &broken).unwrap();
        let report = read(std::slice::from_ref(&dir));
        let said = format!("{}{}", report.text(Some(80)), report.html());
        for wrong in ["NaN", "inf %", "\u{1b}"] {
            assert!(!said.contains(wrong), "case {case}, {}: {wrong}\n{broken}", file.display());
        }
        problems += usize::from(!report.problems.is_empty());
        whole += usize::from(!report.is_empty());
        fs::write(file, text).unwrap();
    }
    assert!(problems > 30 && whole > 90, "{problems} with problems, {whole} with something to report");
}
