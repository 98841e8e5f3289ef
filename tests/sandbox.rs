//! What a script may not do, tried: reading and writing outside of its places, and using the machine up.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Ended, Guarded, dbp_host, end, only_run};

const SECRET: &str = "the secret";

/// `project/` for scripts, and beside it `outside/` with a secret; links lead from one to the other.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        for name in ["project", "outside", "project/data"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        fs::write(place.path("outside/secret.txt"), SECRET).unwrap();
        fs::write(place.path("outside/module.rhai"), "fn f() { \"the secret\" }").unwrap();
        fs::write(place.path("project/own.txt"), "mine").unwrap();
        symlink("../outside/secret.txt", place.path("project/link.txt")).unwrap();
        symlink("../outside/module.rhai", place.path("project/module.rhai")).unwrap();
        symlink("../outside", place.path("project/folder")).unwrap();
        symlink("../../outside", place.path("project/data/folder")).unwrap();
        symlink("/proc/self/environ", place.path("project/environ")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn run(&self, script: &str, args: &[&str]) -> Ended {
        fs::write(self.path("project/a.rhai"), script).unwrap();
        let mut command = dbp_host(&self.path("project"));
        command.arg("a.rhai").args(args);
        end(command)
    }

    /// Everything that lies outside.
    fn outside(&self) -> Vec<(PathBuf, Vec<u8>)> {
        common::files_of(&self.path("outside"))
    }
}

/// A call that must fail, and what the message of that has in it.
type Attempt = (String, &'static str);

/// A script of several attempts; each must fail, and the script goes on to the next.
fn attempts(calls: &[Attempt]) -> String {
    let mut script = String::from("let out = run::output(#{ name: \"tried\" }); write_text(\"made/a.txt\", \"\");\n");
    for (call, _) in calls {
        script += &format!("{{ let got = (); try {{ got = {call}; }} catch (err) {{ print(`stopped: ${{err}}`); }}\n");
        script += &format!(
            "  if got != () {{ throw `not stopped: ${{got}} by {}`; }} }}\n",
            call.replace(['`', '$', '{'], "?")
        );
    }
    script + "print(\"tried all\");\n"
}

/// Panics unless every attempt failed for its own reason.
fn all_stopped(calls: &[Attempt], said: &str) {
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.len(), lines.last()), (calls.len() + 1, Some(&"tried all")), "{said}");
    for ((call, why), line) in calls.iter().zip(lines) {
        assert!(line.starts_with("stopped: ") && line.contains(why), "{call}: {line}, and not {why}");
    }
}

#[test]
fn nothing_outside_is_read() {
    let place = Place::new();
    let absolute = place.path("outside/secret.txt").display().to_string();
    let (refused, missing) = ("the script may not read ", "no such file or folder: ");
    let paths = [
        ("../outside/secret.txt", refused),
        ("data/../../outside/secret.txt", refused),
        ("data/folder/../outside/secret.txt", refused),
        ("link.txt", refused),
        ("folder/secret.txt", refused),
        ("data/folder/secret.txt", refused),
        (&absolute, refused),
        ("/etc/passwd", refused),
        ("/proc/self/environ", refused),
        ("/proc/self/root/etc/passwd", refused),
        ("/proc/self/cwd/../outside/secret.txt", refused),
        ("/dev/zero", refused),
        ("environ", refused),
        ("~/.ssh/id_rsa", missing), // Nobody's home.
        ("", "expected a path, got empty text"),
        ("own.txt\\u0000", missing),
        ("data", "cannot read data: it is not a file"),
    ];
    let mut calls: Vec<Attempt> = paths.map(|(path, why)| (format!("read_text(\"{path}\")"), why)).into();
    calls.extend(["folder", "../outside"].map(|path| (format!("data::open(\"{path}\").len()"), refused)));
    calls.push(("models::load(\"../outside/secret.txt\")".into(), refused));
    calls.push(("read_text(out.dir + \"/../../../outside/secret.txt\")".into(), refused));
    let ended = place.run(&attempts(&calls), &[]).expect(0);
    all_stopped(&calls, &ended.stdout);
    assert!(!ended.stdout.contains(SECRET), "{}", ended.stdout);

    // What is allowed is read, so that none of the above failed for another reason.
    let read = "print(read_text(\"own.txt\")); print(read_text(\"../outside/secret.txt\"));";
    assert_eq!(place.run(read, &["--allow-read", "../outside"]).expect(0).stdout, format!("mine\n{SECRET}\n"));
    let by_parameter = "print(read_text(arg(\"file\", \"\")));";
    let ended = place.run(by_parameter, &["--set", "file=../outside/secret.txt"]).expect(0);
    assert_eq!(ended.stdout, format!("{SECRET}\n"));
}

#[test]
fn nothing_outside_is_imported() {
    let place = Place::new();
    for (path, why) in [
        ("../outside/module", "`..` is not allowed"),
        ("/etc/passwd", "absolute paths are not allowed"),
        ("module", "imports do not follow symbolic links"),
        ("folder/module", "imports do not follow symbolic links"),
        ("data/folder/module", "imports do not follow symbolic links"),
        ("file:x", "backslashes and colons are not allowed"),
    ] {
        let ended = place.run(&format!("import \"{path}\" as m; print(m::f());"), &[]).expect(1);
        assert!(ended.stdout.is_empty() && ended.stderr.contains(why), "{path}: {}{}", ended.stdout, ended.stderr);
    }
    let module = "fn f() { \"in its place\" }";
    fs::write(place.path("project/data/module.rhai"), module).unwrap();
    let ended = place.run("import \"data/module\" as m; print(m::f());", &[]).expect(0);
    assert_eq!(ended.stdout, "in its place\n", "none of the above failed for another reason");
    for script in ["eval(\"1\")", "let f = Fn(\"eval\"); f.call(\"1\")"] {
        assert!(place.run(script, &[]).expect(1).stderr.contains("eval"), "{script}");
    }
}

/// A link that appears between two calls: each call looks anew.
#[test]
fn a_link_swapped_in_later_is_seen() {
    let place = Place::new();
    fs::create_dir(place.path("project/late")).unwrap();
    fs::write(place.path("project/late/secret.txt"), "harmless").unwrap();
    fs::write(
        place.path("project/a.rhai"),
        r#"
        let out = run::output(#{ name: "late" });
        write_text("notes/a.txt", "first");
        print(read_text("late/secret.txt"));
        while read_text("own.txt") == "mine" { sleep(0.01); }
        try { print(read_text("late/secret.txt")); } catch (err) { print(`stopped: ${err}`); }
        try { print(write_text("notes/secret.txt", "taken")); } catch (err) { print(`stopped: ${err}`); }
        let images = data::open(#{ name: "wirebond", size: 32, count: 2 });
        for batch in data::batches(images, #{}).batches() {
            try { print(out.masks(batch, batch.masks)); } catch (err) { print(`stopped: ${err}`); }
        }
    "#,
    )
    .unwrap();
    let outside = place.outside();
    let mut command = dbp_host(&place.path("project"));
    let mut child = Guarded::new(command.arg("a.rhai"));
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "harmless");
    let run = only_run(&place.path("project/runs"));
    fs::create_dir(run.join("masks")).unwrap();
    for folder in [place.path("project/late"), run.join("notes"), run.join("masks")] {
        fs::rename(&folder, folder.with_extension("gone")).unwrap();
        symlink(place.path("outside"), &folder).unwrap();
    }
    fs::write(place.path("project/own.new"), "go on").unwrap();
    fs::rename(place.path("project/own.new"), place.path("project/own.txt")).unwrap();
    for (begins, ends) in [
        ("stopped: the script may not read ", "outside/secret.txt"),
        ("stopped: the script may not write ", "notes/secret.txt"),
        ("stopped: ", ": a link that leads elsewhere is not written through"),
    ] {
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with(begins) && line.ends_with(ends), "{line}");
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(place.outside(), outside);
}

#[test]
fn nothing_outside_is_written() {
    let place = Place::new();
    fs::create_dir(place.path("shared")).unwrap();
    symlink("../outside", place.path("shared/folder")).unwrap();
    symlink("../outside/new.txt", place.path("shared/dangling.txt")).unwrap();
    fs::create_dir(place.path("shared/other-run")).unwrap();
    fs::write(place.path("shared/other-run/run.json"), "{}").unwrap();
    let shared = place.path("shared").display().to_string();
    let [absolute, script] = ["outside/new.txt", "project/a.rhai"].map(|name| place.path(name).display().to_string());
    let (refused, own, empty) = ("the script may not write ", " is the run's own", "expected a path, got empty text");
    let mut paths: Vec<(String, &str)> = [
        ("../new.txt", refused),
        ("../../../outside/new.txt", refused),
        ("a/../../new.txt", refused),
        ("/proc/self/comm", refused),
        ("/dev/full", refused),
        ("", empty),
        (".", refused),
        ("run.json", own),
        ("./run.json", own),
        ("sub/../run.json", refused), // There is no such folder.
        ("made/../run.json", own),
        ("index.json", own),
        ("deep/run.json", own),
        ("script.rhai", own),
        ("modules/std/mae.rhai", own),
        ("revisions/1.rhai", own),
        ("checkpoints/last/model.safetensors", own),
        (".lock", own),
        (&absolute, refused),
        (&script, refused),
    ]
    .map(|(path, why)| (path.to_owned(), why))
    .into();
    let below_shared = [
        ("", refused),
        ("folder/new.txt", refused),
        ("dangling.txt", refused),
        ("other-run/script.rhai", own),
        ("../outside/new.txt", refused),
    ];
    paths.extend(below_shared.map(|(name, why)| (format!("{shared}/{name}"), why)));
    let mut calls: Vec<Attempt> =
        paths.into_iter().map(|(path, why)| (format!("write_text(\"{path}\", \"x\")"), why)).collect();
    calls.push(("write_text(out.dir + \"/../escaped.txt\", \"x\")".into(), refused));
    let preview = "data::open(#{ name: \"wirebond\", size: 16, count: 2 }).preview(\"../escaped\")";
    calls.push((preview.into(), "path: expected one inside the run directory"));
    let before = place.outside();
    let text = fs::read_to_string(place.path("project/own.txt")).unwrap();
    let ended = place.run(&attempts(&calls), &["--allow-write", "../shared"]).expect(0);
    all_stopped(&calls, &ended.stdout);
    assert_eq!(place.outside(), before);
    assert_eq!(fs::read_to_string(place.path("project/own.txt")).unwrap(), text);
    assert_eq!(fs::read_to_string(place.path("shared/other-run/run.json")).unwrap(), "{}");
    assert!(!place.path("project/runs/escaped.txt").exists());
}

#[test]
fn what_may_be_written_is_and_is_whole() {
    let place = Place::new();
    fs::create_dir(place.path("results")).unwrap();
    let script = r#"
        try { write_text("early.txt", "x"); throw "it had nowhere to go"; } catch (err) { print(err); }
        let out = run::output(#{ name: "writes" });
        write_text("notes/a.txt", "one");
        write_text("notes/a.txt", "two");
        write_text(out.dir + "/b.txt", "three");
        print(read_text("notes/a.txt") + read_text("b.txt"));
        write_csv("t.csv", [#{ a: 1, b: "x, y" }, #{ a: 2.5, b: "\"q\"" }]);
        let rows = read_csv("t.csv");
        print(`${rows[0].a} ${rows[0].b} ${rows[1].a} ${rows[1].b}`);
        print(write_text("../results/c.txt", "four"));
    "#;
    let refused = place.run(script, &[]).expect(1);
    assert!(refused.stderr.contains("--allow-write DIR"), "{}", refused.stderr);
    assert!(refused.stdout.starts_with("early.txt: no run has been started to write into\n"), "{}", refused.stdout);
    fs::remove_dir_all(place.path("project/runs")).unwrap();

    let ended = place.run(script, &["--allow-write", "../results"]).expect(0);
    let said: Vec<&str> = ended.stdout.lines().skip(1).collect();
    let place_of_c = place.path("results/c.txt").display().to_string();
    assert_eq!(said, ["twothree", "1 x, y 2.5 \"q\"", &place_of_c], "early.txt fails for another reason");
    assert_eq!(fs::read_to_string(place.path("results/c.txt")).unwrap(), "four");
    let run = only_run(&place.path("project/runs"));
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&run.join("notes")), ["a.txt"], "nothing is left beside it");
    let record = common::json(&run.join("run.json"));
    assert_eq!(record["options"]["allow_write"][0], "../results");

    // A resumed run keeps what it was allowed.
    fs::remove_file(place.path("results/c.txt")).unwrap();
    let mut resumed = dbp_host(&place.path("project"));
    resumed.args(["--resume", run.to_str().unwrap()]);
    end(resumed).expect(0);
    assert!(place.path("results/c.txt").exists());
    place.run("", &["--allow-write", "missing"]).expect(2);
}

#[test]
fn files_have_a_largest_size() {
    let place = Place::new();
    let big = fs::File::create(place.path("project/big.txt")).unwrap();
    big.set_len((64 << 20) + 1).unwrap();
    let ended = place.run("read_text(\"big.txt\");", &[]).expect(1);
    assert!(ended.stderr.contains("it has more than 64 MiB"), "{}", ended.stderr);
    let write = "run::output(#{}); let s = \"\"; s.pad(70000000, \"x\"); write_text(\"s.txt\", s);";
    assert!(place.run(write, &[]).expect(1).stderr.contains("more than 64 MiB"));
    let fill = "run::output(#{}); let s = \"\"; s.pad(60000000, \"x\"); loop { write_text(\"s.txt\", s); }";
    assert!(place.run(fill, &[]).expect(1).stderr.contains("has written 1024 MiB, which is all it may"));

    let script = fs::File::create(place.path("project/huge.rhai")).unwrap();
    script.set_len(100 << 20).unwrap();
    for script in ["huge.rhai", "b.rhai"] {
        fs::write(place.path("project/b.rhai"), "import \"huge\" as h;").unwrap();
        let mut command = dbp_host(&place.path("project"));
        command.arg(script);
        assert!(end(command).expect(1).stderr.contains("a script is a file of at most 4 MiB"), "{script}");
    }
}

/// Ends of scripts that would use up the machine: code, and what the message has in it. Under a limit of the system's, so that
/// the machine that tests run on is not used up in truth.
#[test]
fn nothing_uses_the_machine_up() {
    let nested = |open: &str, close: &str| format!("let x = {}1{};", open.repeat(20_000), close.repeat(20_000));
    let cases: Vec<(String, i32, &str)> = vec![
        ("let x = 0; loop { x += 1; }".into(), 1, "100000 operations"),
        ("for i in 0..1000000000000 { let y = i; }".into(), 1, "100000 operations"),
        ("for i in range(0, 1000000000000, 1) { let y = i; }".into(), 1, "100000 operations"),
        ("while true { try { loop { } } catch { } }".into(), 1, "100000 operations"),
        ("fn f(n) { f(n + 1) } f(0);".into(), 1, "too deeply"),
        ("fn f(g) { g.call(g) } f(|g| g.call(g));".into(), 1, "too deeply"),
        ("let a = [1]; a.map(|x| { [1].map(|y| { loop { } }) });".into(), 1, "100000 operations"),
        ("let x = tensor::zeros([1000000, 1000000]);".into(), 1, "--max-tensor-bytes"),
        ("let x = []; loop { x.push(tensor::zeros([10000, 10000])); }".into(), 4, "memory"),
        ("let s = \"x\"; loop { s += s; }".into(), 4, "memory"),
        ("let a = [1]; loop { a += a; }".into(), 4, "memory"),
        ("let b = blob(1000); loop { b += b; }".into(), 4, "memory"),
        ("let m = #{ a: 1 }; loop { m = #{ a: m, b: m, c: m, d: m, e: m, f: m, g: m, h: m }; }".into(), 4, "memory"),
        ("let x = []; x.pad(1000000000000, 0);".into(), 1, "length: expected"),
        ("let x = blob(1000000000000);".into(), 1, "length: expected"),
        ("let s = \"\"; s.pad(1000000000000, \"ab\");".into(), 1, "length: expected"),
        ("let s = \"\"; s.pad(100000, '['); parse_json(`{\"a\":${s}`);".into(), 1, "error:"),
        ("let s = \"\"; s.pad(100000, `{\"a\":`); parse_json(s);".into(), 1, "error:"),
        (
            "let a = []; for i in 0..999 { a.push((i * 7919) % 1009); } a.sort(|x, y| ((x ^ y) % 5) - 2);".into(),
            1,
            "sorting",
        ),
        (nested("(", ")"), 1, "nested too deeply"),
        (nested("[", "]"), 1, "nested too deeply"),
        (nested("#{a:", "}"), 1, "nested too deeply"),
        (nested("!", ""), 1, "nested too deeply"),
        (nested("- ", ""), 1, "nested too deeply"),
        (format!("let x = 1{};", "+1".repeat(20_000)), 1, "nested too deeply"),
        (nested("if true {", "}"), 1, "nested too deeply"),
        (format!("let x = #{{}}; x{};", ".a".repeat(20_000)), 1, "nested too deeply"),
        // The stack itself, which no limit counts.
        ("let x = 0; let f = || x; x = f; print(#{ a: f }.to_json());".into(), 1, "or holds itself"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (number, (script, code, part)) in cases.iter().enumerate() {
        fs::write(folder.path().join(format!("{number}.rhai")), script).unwrap();
        let mut command = Command::new("sh");
        let host = env!("CARGO_BIN_EXE_dbp-host");
        let line =
            format!("ulimit -v 2000000; exec {host} {number}.rhai --device cpu --threads 1 --max-operations 100000");
        command.current_dir(folder.path()).args(["-c", &line]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = end(command);
        let shown: String = script.chars().take(80).collect();
        assert_eq!(ended.code, Some(*code), "{shown}: {}", ended.stderr);
        assert!(ended.stderr.contains(part) && !ended.stderr.contains("panicked"), "{shown}: {}", ended.stderr);
        assert!(!ended.stderr.contains("internal error"), "{shown}: {}", ended.stderr);
    }
}
