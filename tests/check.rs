//! `dbp-host check`: what it finds, in which order, what it leaves alone, and its JSON.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::{Path, PathBuf};

use dbp_host::host::check::{Report, Severity, report};
use serde_json::{Value, json};
use tempfile::TempDir;

mod common;
use common::{Ended, end};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with a script and other files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn check(files: &[(&str, &str)]) -> Report {
    let folder = folder(files);
    report(&folder.path().join(files[0].0)).unwrap_or_else(|outcome| panic!("{outcome:?}"))
}

/// Severity, code, line and column of every finding in a script.
fn found(script: &str) -> Vec<(&'static str, &'static str, usize, usize)> {
    let place = |finding: &dbp_host::host::check::Finding| {
        finding.diagnosis.place.as_ref().map_or((0, 0), |place| (place.line, place.column))
    };
    let report = check(&[("a.rhai", script)]);
    report.findings.iter().map(|f| (f.severity.word(), f.code, place(f).0, place(f).1)).collect()
}

fn errors(report: &Report) -> Vec<String> {
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

fn rhai_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "rhai")).collect();
    files.sort();
    files
}

#[test]
fn what_comes_with_the_program_is_clean() {
    let files: Vec<PathBuf> = ["scripts", "examples", "stdlib"].into_iter().flat_map(rhai_files).collect();
    assert!(files.len() >= 15, "{files:?}");
    for file in files {
        let report = report(&file).unwrap();
        let all: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(all.is_empty(), "{}:\n{}", file.display(), all.join("\n\n"));
    }
}

/// Every case of `tests/scripts` that is to run to its end.
#[test]
fn scripts_that_run_have_no_errors() {
    let (mut count, mut wrong) = (0, Vec::new());
    for file in rhai_files("tests/scripts") {
        let text = fs::read_to_string(&file).unwrap();
        for case in text.split("//# ").skip(1) {
            if case.contains(" error: ") || case.contains("//> fails:") {
                continue;
            }
            let (name, body) = case.split_once('\n').unwrap();
            let mut parts = body.split("//> file ");
            let mut files = vec![("case.rhai", parts.next().unwrap())];
            files.extend(parts.map(|part| part.split_once('\n').unwrap()));
            count += 1;
            let report = check(&files);
            if !report.is_ok() {
                wrong.push(format!("{}: {name}\n{}", file.display(), errors(&report).join("\n")));
            }
        }
    }
    assert!(count > 60, "{count} cases");
    assert!(wrong.is_empty(), "{} of {count}:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn all_that_is_wrong_is_found_in_order() {
    let script = r#"let x = tensor::zeors([2]);
let n = tensor::eye("3");
let spare = x.matmull(n);
print(tensor::eye(2, 3));
print(unknown_thing);
fn on_steps(run) { print(run) }
private fn lonely() { }
"#;
    assert_eq!(
        found(script),
        [
            ("error", "unknown-function", 1, 17),
            ("error", "wrong-type", 2, 21),
            ("warning", "unused-variable", 3, 5),
            ("error", "unknown-method", 3, 15),
            ("error", "wrong-number-of-arguments", 4, 15),
            ("error", "unknown-variable", 5, 7),
            ("warning", "hook", 6, 4),
            ("warning", "unused-function", 7, 12),
        ]
    );
}

#[test]
fn an_error_of_syntax_is_the_only_one_of_its_file() {
    let files =
        [("a.rhai", "import \"b\" as b;\nprint(b::f(unknown_thing));"), ("b.rhai", "fn f(x) { x + }\nlet y = z;")];
    let report = check(&files);
    let places: Vec<_> = report.findings.iter().map(|f| (f.code, f.diagnosis.place.clone().unwrap().key)).collect();
    assert_eq!(places, [("unknown-variable", "a.rhai".to_owned()), ("syntax", "b.rhai".to_owned())]);
}

/// What is used in ways that are easy to miss.
#[test]
fn uses_count_wherever_they_are() {
    for script in [
        "let a = 1; let f = |x| x + a; print(f.call(1));",
        "let a = 1; print(`${a} ${`${a}`}`);",
        "let a = 1; let f = || { let g = || a; g.call() }; print(f.call());",
        "const A = 1; fn f() { global::A } print(f());",
        "let a = [1]; a[0] = 2;",
        "let a = #{ b: 1 }; a.b = 2;",
        "for i in 0..3 { print(1); }",
        "try { throw 1; } catch (err) { }",
        "let _spare = 1;",
        "fn f(unused) { 1 } print(f(2));",
        "private fn f() { 1 } let g = Fn(\"f\"); print(g.call());",
        "private fn f(x) { x } print([1].map(f));",
        "export let a = 1;",
        "let a = 1; export a;",
        "let a = 1; switch a { 1 => print(a), 2 if a > 2 => print(2), _ => () }",
        "let a = 1; print(#{ b: a }.b); let c = 2; print([c]);",
        "let a = 0; while a < 3 { a += 1; }",
        "let a = 1; let a = a + 1; print(a);",
        "let o = #{ act: |x| x }; print(o.act(1));",
        "let x = [[tensor::ones(2)]]; let i = [0]; print(x[0][i[0]].sum().item() + x[0].len());",
        "fn f() { this + 1 } print(3.f());",
        "let last = (); for i in 0..2 { if last != () { print(last); } last = i; }",
        "let x = loop { break 1; }; print(x);",
        "let a = 2; print(if a > 1 { a } else { 0 });",
        "let x = 3; let f = |n| { n * x }; print(f.call(2)); x = 4;",
        "import \"std/dbp\" as dbp; fn f() { dbp::all() } print(f());",
        "let x = tensor::ones(2); x = 3; print(x.to_float());",
        "fn f(a) { f(a, 1) } fn f(a, b) { a + b } print(f(1));",
    ] {
        assert_eq!(found(script), [], "{script}");
    }
}

#[test]
fn what_nothing_uses_is_said() {
    for (script, code) in [
        ("let a = 1;", "unused-variable"),
        ("let a = 1; a = 2;", "unused-variable"),
        ("const A = 1;", "unused-variable"),
        ("import \"std/dbp\" as dbp;", "unused-import"),
        ("fn f() { let a = 1; } print(f());", "unused-variable"),
        ("let f = |x| { let a = x; 1 }; print(f.call(1));", "unused-variable"),
        ("private fn f() { }", "unused-function"),
        ("let recipe = 1; fn recipe() { 2 } let f = || recipe; print(f.call() + recipe);", "function-for-variable"),
        ("fn on_epoch() { }", "hook"),
        ("fn on_validate(run) { }", "hook"),
    ] {
        let found = found(script);
        assert!(found.len() == 1 && found[0].0 == "warning" && found[0].1 == code, "{script}: {found:?}");
    }
}

#[test]
fn keys_are_held_against_what_there_is() {
    let script = r#"import "std/mae" as mae;
import "std/segment" as segment;
let changes = #{ decor_lr: 0.1, dbp: #{ rank: 4 }, batch: 3, energy: () };
print(mae::recipe("nano", changes));
print(mae::recipe("nano", #{ decor_lr: 0.1, batch: 3, steps: (), bacth: 3 }));
print(segment::recipe("tiny", #{ decor_lr: 0.1, aux_weight: 1 }));
print(segment::recipe("enormous"));
print(mae::recipe(arg("recipe", "nano"), #{ lr_bp: 1.0, lrbp: 1.0 }));
"#;
    let keys = [
        ("error", "unknown-setting", 5, 66),
        ("error", "unknown-setting", 6, 34),
        ("error", "unknown-recipe", 7, 23),
        ("error", "unknown-setting", 8, 57),
    ];
    assert_eq!(found(script), keys);
}

#[test]
fn the_command_ends_as_it_should() {
    let place =
        folder(&[("good.rhai", "print(arg(\"n\", 1));"), ("odd.rhai", "let a = 1;"), ("bad.rhai", "print(a);")]);
    let run = |args: &[&str]| -> Ended {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dbp-host"));
        command.current_dir(place.path()).arg("check").args(args);
        end(command)
    };
    let good = run(&["good.rhai"]).expect(0);
    let want = "parameters, for --set NAME=VALUE:\n    n = 1  int  good.rhai:1\n\ngood.rhai: nothing found\n";
    assert_eq!((good.stdout.as_str(), good.stderr.as_str()), (want, ""));
    let odd = run(&["odd.rhai"]).expect(0);
    assert!(odd.stdout.starts_with("warning: ") && odd.stdout.ends_with("odd.rhai: 1 warning\n"), "{}", odd.stdout);
    let bad = run(&["bad.rhai"]).expect(1);
    let want = "error: unknown variable: a\n --> bad.rhai:1:7\n  |\n1 | print(a);\n  |       ^\n\nbad.rhai: 1 error\n";
    assert_eq!(bad.stdout, want);
    let missing = run(&["missing.rhai"]).expect(2);
    assert!(missing.stderr.starts_with("error: cannot read the script missing.rhai"), "{}", missing.stderr);
    assert!(!place.path().join("runs").exists(), "nothing ran");
    let nothing_ran = folder(&[("a.rhai", "print(\"ran\"); import \"b\" as b;"), ("b.rhai", "print(\"ran too\");")]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(nothing_ran.path()).args(["check", "a.rhai"]);
    let ended = end(command).expect(0);
    assert!(!ended.stdout.lines().any(|line| line.starts_with("ran")), "{}", ended.stdout);
}

/// Only what Rhai would mix up is said: functions that both files look up by name alone, or that hide the host's.
#[test]
fn functions_of_one_name_are_errors_where_they_meet() {
    const A: &str = "import \"a\" as a; print(a::f());";
    for (what, script, module, wrong) in [
        ("both call theirs", "fn h() { 1 } print(h());", "fn h() { 2 } fn f() { h() }", true),
        ("one in a closure", "fn h(x) { x } print([1].map(|x| h(x)));", "fn h(x) { x } fn f() { h(1) }", true),
        ("one in a text", "fn h() { 1 } print(`${h()}`);", "private fn h() { 2 } fn f() { h() }", true),
        ("one as a method", "fn h() { this } print(1.h());", "fn h() { 2 } fn f() { h() }", true),
        ("one through Fn", "fn h() { 1 } let p = Fn(\"h\"); print(p.call());", "fn h() { 2 } fn f() { h() }", true),
        ("further down", "fn h() { 1 } print(h());", "fn h() { 2 } fn g() { h() } fn f() { [1].map(|_x| g()) }", true),
        ("a method of the host", "fn exp() { 1.0 }", "fn f() { tensor::ones(2).exp() }", true),
        ("a function of the host", "fn fixed(x, n) { x + n }", "fn f() { fixed(1.0, 2) }", true),
        ("the host's in the script", "print(fixed(1.0, 2));", "fn fixed(x, n) { x + n } fn f() { fixed(1, 2) }", true),
        ("only one calls its own", "fn h() { 1 }", "fn h() { 2 } fn f() { h() }", false),
        ("only through the module", "fn f() { 1 } print(f());", "fn f() { 2 }", false),
        ("other numbers of parameters", "fn h(x) { x } print(h(1));", "fn h() { 2 } fn f() { h() }", false),
        ("nobody calls the caller", "fn h() { 1 } print(h());", "fn h() { 2 } fn g() { h() } fn f() { 3 }", false),
        ("hooks", "fn on_step(run) { print(run.step) }", "fn on_step(run) { run } fn f() { on_step(1) }", false),
        (
            "a variable of the name",
            "fn h(x) { x } print(h(1));",
            "fn h(x) { x } fn f() { let h = 1; [h].len() }",
            false,
        ),
        ("a function in a map", "fn h(x) { x } print(h(1));", "fn f() { let o = #{ h: |x| x }; o.h(1) }", false),
        (
            "no function of the host's",
            "fn act() { 1 } print(act());",
            "fn f() { let o = parse_json(\"{}\"); o.act() }",
            false,
        ),
    ] {
        let script = format!("{A} {script}");
        let report = check(&[("case.rhai", &script), ("a.rhai", module)]);
        let found = report.findings.iter().filter(|finding| finding.code == "mixed-up").count();
        assert_eq!(found, usize::from(wrong), "{what}: {:?}", errors(&report));
    }
}

#[test]
fn json_says_the_same() {
    let report = check(&[
        (
            "a.rhai",
            "import \"lib/b\" as b;\nlet size = arg(\"size\", 32 * 2);\nprint(b::duoble(size) + arg(\"name\", ()));",
        ),
        ("lib/b.rhai", "fn double(x) { x * arg(\"factor\", 2.0) }"),
    ]);
    let mut said = report.json();
    let folder = said["script"].as_str().unwrap().strip_suffix("a.rhai").unwrap().to_owned();
    let plain = said.to_string().replace(&folder, "");
    said = serde_json::from_str::<Value>(&plain).unwrap();
    let want = json!({
        "script": "a.rhai",
        "ok": false,
        "findings": [{
            "severity": "error", "code": "unknown-function", "message": "unknown function: b::duoble",
            "hint": "did you mean `b::double(x)`?", "file": "a.rhai", "line": 3, "column": 10, "end_column": 16,
        }],
        "parameters": [
            { "name": "size", "default": 64, "type": "int", "file": "a.rhai", "line": 2 },
            { "name": "name", "default": null, "type": "any", "file": "a.rhai", "line": 3 },
            { "name": "factor", "default": 2.0, "type": "float", "file": "lib/b.rhai", "line": 1 },
        ],
        "imports": [{ "path": "lib/b", "file": "a.rhai", "line": 1, "resolved": "lib/b.rhai" }],
    });
    assert_eq!(said, want);
}
