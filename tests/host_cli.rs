//! The command line as people and other programs meet it: exit codes, and what goes to which stream.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn dbp_host(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(folder).args(["--device", "cpu"]);
    command
}

/// Without flags.
fn bare(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(folder);
    command
}

/// Runs `script` in a folder of its own.
fn run(script: &str, args: &[&str]) -> (Output, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("experiment.rhai"), script).unwrap();
    let output = dbp_host(folder.path()).arg("experiment.rhai").args(args).output().unwrap();
    (output, folder)
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_good_script_prints_to_stdout_and_ends_with_0() {
    let (output, _folder) = run("print(tensor::ones([2]) * arg(\"by\", 1));", &["--set", "by=3"]);
    assert_eq!((code(&output), stdout(&output).as_str(), stderr(&output).as_str()), (0, "tensor([3., 3.])\n", ""));
}

#[test]
fn a_wrong_script_ends_with_1_and_shows_where() {
    let script = "fn outer(w) {\n\tlet x = tensor::ones([2, 3]);\n\tx.matmul(w)\n}\nprint(\"before\");\nouter(tensor::ones([4, 5]));\n";
    let (output, _folder) = run(script, &[]);
    let want = "\
error: tensor shapes do not match: matmul of [2, 3] and [4, 5]
 --> experiment.rhai:3:4
  |
3 |     x.matmul(w)
  |       ^
hint: the last dimension of the first must be the second to last of the second
called from experiment.rhai:6
";
    assert_eq!((code(&output), stdout(&output).as_str(), stderr(&output).as_str()), (1, "before\n", want));
}

#[test]
fn a_script_in_another_folder_is_shown_as_it_was_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lib")).unwrap();
    std::fs::write(folder.path().join("lib/a.rhai"), "import \"b\" as b; b::f();").unwrap();
    std::fs::write(folder.path().join("lib/b.rhai"), "fn f() {\n  throw \"no\"\n}").unwrap();
    let output = dbp_host(folder.path()).arg("lib/a.rhai").output().unwrap();
    let text = stderr(&output);
    assert!(text.contains("--> lib/b.rhai:2:3") && text.contains("called from lib/a.rhai:1"), "{text}");
}

#[test]
fn a_bad_command_line_ends_with_2_before_anything_runs() {
    let script = "print(\"ran\"); let steps = arg(\"steps\", 10);";
    for args in [
        &["--set", "stpes=3"][..],
        &["--set", "steps=many"],
        &["--set", "steps"],
        &["--set", "=3"],
        &["--frobnicate"],
        &["--device", "tpu"],
        &["--threads", "0"],
        &["--allow-read", "no-such-folder"],
        &["--resume", "no-such-run"],
    ] {
        let (output, _folder) = run(script, args);
        assert_eq!((code(&output), stdout(&output).as_str()), (2, ""), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("error:"), "{args:?}: {}", stderr(&output));
    }
    let (output, _folder) = run(script, &["--set", "stpes=3"]);
    assert!(stderr(&output).contains("did you mean `steps`?"), "{}", stderr(&output));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(code(&dbp_host(folder.path()).output().unwrap()), 2, "no script");
    assert_eq!(code(&dbp_host(folder.path()).arg("missing.rhai").output().unwrap()), 2, "missing script");
    assert_eq!(code(&dbp_host(folder.path()).args(["--resume", "missing"]).output().unwrap()), 2, "missing run");
}

#[test]
fn a_misspelled_subcommand_is_told_with_and_without_more_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("study.rhai"), "print(\"ran\");").unwrap();
    for args in [&["chek"][..], &["chek", "study.rhai"], &["chek", "study.rhai", "--json"]] {
        let output = bare(folder.path()).args(args).output().unwrap();
        let want = "error: there is no script chek\nhint: did you mean the subcommand `check`?\n";
        assert_eq!((code(&output), stderr(&output).as_str()), (2, want), "{args:?}");
    }
    // A script of that name is one, and what is near to no subcommand is told as before.
    std::fs::write(folder.path().join("chek"), "print(\"ran\");").unwrap();
    let output = bare(folder.path()).arg("chek").output().unwrap();
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "ran\n"), "{}", stderr(&output));
    let output = bare(folder.path()).arg("frobnicate").output().unwrap();
    assert!(code(&output) == 2 && stderr(&output).contains("frobnicate: no such file"), "{}", stderr(&output));
}

#[test]
fn pages_that_are_to_be_checked_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = bare(folder.path()).args(["api", "--check"]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).starts_with("error: docs/reference: no such folder\n"), "{}", stderr(&output));
}

#[test]
fn help_and_version_end_with_0() {
    let folder = tempfile::tempdir().unwrap();
    for flag in ["--help", "--version", "-h", "-V"] {
        assert_eq!(code(&dbp_host(folder.path()).arg(flag).output().unwrap()), 0, "{flag}");
    }
}

#[test]
fn cuda_on_a_machine_without_it_ends_with_4() {
    if tch::Cuda::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.rhai"), "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dbp-host"))
        .current_dir(folder.path())
        .args(["a.rhai", "--device", "cuda:63"])
        .output()
        .unwrap();
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains("--device auto"), "{}", stderr(&output));
}

#[test]
fn an_interrupt_ends_with_130() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.rhai"), "print(\"ready\"); loop { }").unwrap();
    for signal in ["-INT", "-TERM"] {
        let mut child = dbp_host(folder.path())
            .args(["a.rhai", "--max-operations", "1000000000000"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        let began = Instant::now();
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{signal}");
        assert!(began.elapsed() < Duration::from_secs(5), "{signal}");
    }
}

#[test]
fn a_saved_run_brings_its_own_script_modules_and_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("runs/one");
    std::fs::create_dir_all(saved.join("modules/lib")).unwrap();
    std::fs::create_dir_all(saved.join("modules/std")).unwrap();
    std::fs::write(
        saved.join("script.rhai"),
        "import \"lib/a\" as a; import \"std/old\" as old; print(a::f() + old::f());",
    )
    .unwrap();
    std::fs::write(saved.join("modules/lib/a.rhai"), "fn f() { arg(\"a\", 1) * 100 + arg(\"b\", 1) * 10 }").unwrap();
    std::fs::write(saved.join("modules/std/old.rhai"), "fn f() { 3 }").unwrap();
    std::fs::write(saved.join("run.json"), r#"{"arguments": {"a": 4, "b": 5}}"#).unwrap();
    let output = dbp_host(folder.path()).args(["--resume", "runs/one", "--set", "b=6"]).output().unwrap();
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "463\n"), "{}", stderr(&output));
}

#[test]
fn output_to_a_reader_that_left_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.rhai"), "for i in 0..100000 { print(i); }").unwrap();
    let mut child =
        dbp_host(folder.path()).arg("a.rhai").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn a_text_that_doubles_ends_with_4_and_not_in_an_abort() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.rhai"), "let s = \"x\"; loop { s += s; }").unwrap();
    // The limit stands for a machine with little memory; libtorch itself maps about 1.5 GB.
    let command = format!("ulimit -v 4000000; exec {} a.rhai --device cpu", env!("CARGO_BIN_EXE_dbp-host"));
    let output = Command::new("sh").current_dir(folder.path()).args(["-c", &command]).output().unwrap();
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error: out of memory: "), "{}", stderr(&output));
}

#[test]
fn a_value_that_holds_itself_ends_with_1_and_not_in_an_abort() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.rhai"), "let x = 0; let f = || x; x = f; print(#{ a: f }.to_json());")
        .unwrap();
    let output = dbp_host(folder.path()).arg("a.rhai").output().unwrap();
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.starts_with("error: a value is nested too deeply, or holds itself\nhint: "), "{said}");
}

/// Nothing calls them, which would be noticed only when all is over.
#[test]
fn functions_that_look_like_hooks_are_warned_of_once() {
    let script =
        "fn on_steps(run) { }\nfn on_step() { }\nfn on_epoch(run) { }\nfn onepoch(x) { x }\nprint(onepoch(3));\n";
    let (output, _folder) = run(script, &[]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "3\n"));
    let want = "\
warning: nothing calls `on_steps`
 --> experiment.rhai:1:4
  |
1 | fn on_steps(run) { }
  |    ^
hint: a run calls `on_step(run)` by itself
warning: on_step: a run calls it with 1 argument, it takes 0
 --> experiment.rhai:2:4
  |
2 | fn on_step() { }
  |    ^
hint: write it as: fn on_step(run) { … }
";
    assert_eq!(stderr(&output), want);
    let (output, _folder) = run("fn on_step(run) { }\nfn onepoch(x) { x }\nprint(onepoch(3)); let unused = 1;", &[]);
    assert_eq!((code(&output), stdout(&output).as_str(), stderr(&output).as_str()), (0, "3\n", ""));
}

#[test]
fn figures_of_a_run_are_found_after_a_second_one_has_moved_it() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        let size = #{ image_size: 16, patch_size: 8, embed_dim: 8, depth: 1, num_heads: 2, channels: 2 };
        let model = models::mae(size + #{ decoder_embed_dim: 8, decoder_depth: 1, decoder_num_heads: 2 });
        let images = data::open(#{ name: "wirebond", size: 32, count: 8 });
        let loader = data::loader(images, #{ batch: 4, image_size: 16, workers: 1 });
        let parts = #{ model: model, opt: optim::adamw(model, #{}), loader: loader, log_every: 1, energy: false };
        let run = run::start(parts);
        for step in run.steps(2) { run.log(#{ figure: step }); }
        let moved = run::output(#{});
        print(run.history("figure").map(|point| point.value));
        print(run.history("nothing").len());
        for step in run.steps(3) { run.log(#{ figure: step }); }
        print(run.history("figure").len());
    "#;
    std::fs::write(folder.path().join("a.rhai"), script).unwrap();
    let output = dbp_host(folder.path()).args(["a.rhai", "--threads", "1"]).output().unwrap();
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "[0.0, 1.0]\n0\n3\n"), "{}", stderr(&output));
}
