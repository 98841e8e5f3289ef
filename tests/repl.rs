//! `dbp-host repl` through a pipe and at a terminal, as people and other programs meet it.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::{Guarded, only_run};
use dbp_host::train::lock::{RunLock, Taken};

/// How long a test waits for what must come; only a failing one waits so long.
const PATIENCE: Duration = Duration::from_secs(120);

fn repl(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(folder).args(["repl", "--device", "cpu", "--threads", "1"]);
    command.env("XDG_STATE_HOME", folder.join("state")).env("NO_COLOR", "1").env("TERM", "xterm");
    command
}

/// Pipes `input` into a session in a folder of its own.
fn piped(input: &str, args: &[&str]) -> (Output, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let output = piped_in(folder.path(), input, args);
    (output, folder)
}

fn piped_in(folder: &Path, input: &str, args: &[&str]) -> Output {
    let mut command = repl(folder);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Guarded::new(&mut command);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.output()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn what_an_input_defines_stays() {
    let input = r#"
let x = tensor::ones([2, 3]);
x
fn double(a) {
    a * 2
}
double(x.sum())
fn double(a) { a + a + 1 }
double(3)
import "std/recipe" as recipe
const K = 4
fn with_constant(a) { a + global::K }
with_constant(it)
let by = |a| a + K;
by.call(1)
let later = if K > 3 { "more" }
else { "less" };
later
()
[1, 2.5, 'c', "text", x]
#{ a: 1, "b c": () }
x.shape
  .len()
"#;
    let (output, _folder) = piped(input, &[]);
    let want = "\
tensor([[1., 1., 1.],
        [1., 1., 1.]])
Tensor [2, 3] float32 cpu, min 1, mean 1, max 1, std 0
tensor(12.)
Tensor [] float32 cpu
7
11
5
\"more\"
[1, 2.5, 'c', \"text\", Tensor [2, 3] float32]
#{ a: 1, \"b c\": () }
2
";
    assert_eq!((code(&output), stdout(&output).as_str(), stderr(&output).as_str()), (0, want, ""));
}

#[test]
fn the_first_error_of_a_pipe_ends_it_and_names_the_line() {
    let (output, _folder) = piped("let x = 1\n\n// about\nfn f(x) {\n  x.nope\n}\nf(x)\nprint(\"no\")", &[]);
    let want = "\
error: int has no property `nope`
 --> repl:5:5
  |
5 |   x.nope
  |     ^
called from repl:7
";
    assert_eq!((code(&output), stdout(&output).as_str(), stderr(&output).as_str()), (1, "", want));
    let (output, _folder) = piped("1\nlet y = [1,\n2\n", &[]);
    assert_eq!((code(&output), stdout(&output).as_str()), (1, "1\n"), "what never ends is wrong");
    let (output, _folder) = piped(":frob\n", &[]);
    assert!(code(&output) == 1 && stderr(&output).contains("no command is named :frob"), "{}", stderr(&output));
}

#[test]
fn a_name_that_is_gone_is_not_said_to_be_outside_of_a_function() {
    let hint = "functions see no variables from outside";
    let (output, _folder) = piped("let kept = 1\nfn f(x) { x }\n:clear\nkept\n", &[]);
    assert!(stderr(&output).starts_with("error: unknown variable: kept"), "{}", stderr(&output));
    assert!(!stderr(&output).contains(hint), "{}", stderr(&output));
    let (output, _folder) = piped("let kept = 1\nfn f(x) { kept + x }\nf(1)\n", &[]);
    assert!(stderr(&output).contains(hint), "{}", stderr(&output));
}

#[test]
fn tensors_say_what_is_in_them() {
    let input = "tensor::zeros([40, 5])\nlet x = tensor::ones([3])\nx[0] = 0.0\nx / x\nx > 0.5\ntensor::ones([2]).requires_grad()";
    let (output, _folder) = piped(input, &[]);
    let text = stdout(&output);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(text.starts_with("Tensor [40, 5] float32 cpu, min 0, mean 0, max 0, std 0\n"), "{text}");
    assert!(text.contains("min 1, mean 1, max 1, std 0, 1 nan\n"), "{text}");
    assert!(text.contains("bool cpu, 2 true, 1 false\n"), "{text}");
    assert!(text.contains("Tensor [2] float32 cpu requires_grad, min 1"), "{text}");
}

#[test]
fn limits_and_the_sandbox_hold_for_each_input() {
    let short = "let n = 0; while n < 100 { n += 1 }\n";
    let (output, _folder) = piped(&short.repeat(5), &["--max-operations", "2000"]);
    assert_eq!(code(&output), 0, "operations count from each input: {}", stderr(&output));
    let (output, _folder) = piped("let n = 0; while n < 5000 { n += 1 }", &["--max-operations", "2000"]);
    assert!(code(&output) == 1 && stderr(&output).contains("2000 operations"), "{}", stderr(&output));
    let (output, _folder) = piped("data::open(\"/\")", &[]);
    assert!(code(&output) == 1 && stderr(&output).contains("--allow-read"), "{}", stderr(&output));
    let (output, _folder) = piped("tensor::ones([1000])", &["--max-tensor-bytes", "100"]);
    assert_eq!(code(&output), 1);
}

#[test]
fn commands_explain_keep_and_forget() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("lib")).unwrap();
    fs::write(
        folder.path().join("lib/a.rhai"),
        "import \"b\" as b;\nlet four = b::twice(2);\nfn bad() {\n  [] + 1 + nope()\n}\n",
    )
    .unwrap();
    fs::write(folder.path().join("lib/b.rhai"), "/// Two times.\nfn twice(x) { x * 2 }").unwrap();
    let run = |input: &str| piped_in(folder.path(), input, &[]);

    let output = run(
        ":load lib/a.rhai\nfour\nb::twice(four)\nit + 1\n:help b::twice\n:vars\n:save kept.rhai\n:clear\n:vars\n:quit\nnever",
    );
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let want = "\
4
8
9
b::twice(x)
    Two times.
four = 4  (int)
it = 9  (int)
fn bad()
import \"lib/b\" as b
nothing yet
";
    assert_eq!(stdout(&output), want);
    let kept = fs::read_to_string(folder.path().join("kept.rhai")).unwrap();
    assert!(kept.contains("let it = b::twice(four);\nit + 1;\n") && !kept.contains(":vars"), "{kept}");
    let mut script = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    let output = script.current_dir(folder.path()).args(["kept.rhai", "--device", "cpu"]).output().unwrap();
    assert_eq!(code(&output), 0, "what was saved runs: {}", stderr(&output));

    let output = run("1\n:save kept.rhai");
    assert!(code(&output) == 1 && stderr(&output).contains(":save! kept.rhai overwrites it"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(folder.path().join("kept.rhai")).unwrap(), kept);
    let output = run("let z = 1\n:load lib/a.rhai\nbad()");
    assert!(stderr(&output).contains("--> lib/a.rhai:4:"), "{}", stderr(&output));
    let output = run(":time 1 + 1\n:time nope");
    assert!(code(&output) == 1 && stdout(&output).contains("values are thrown away"), "{}", stdout(&output));
}

#[test]
fn help_knows_functions_namespaces_types_and_variables() {
    let (output, _folder) =
        piped(":help tensor::zeros\n:help Tensor\n:help data\nlet x = 1\n:help x\n:help Tensor.reshape\n:help", &[]);
    let text = stdout(&output);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for part in [
        "tensor::zeros(shape",
        "type Tensor\n\nproperties\n",
        "  shape ",
        "operators\n",
        "namespace data\n\n",
        "  open(spec)",
        "x is a variable, int",
        "Tensor.reshape(shape",
        ":time EXPR",
        "namespaces: data, ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (output, _folder) = piped(":help tensor::zeroes", &[]);
    assert!(code(&output) == 1 && stderr(&output).contains("did you mean `tensor::zeros`?"), "{}", stderr(&output));
}

/// A small model with its data, an input a line.
const TRAINING: &str = r#"import "std/mae" as mae
let images = data::open(#{ name: "wirebond", size: 16, count: 24 })
let loader = data::loader(images, #{ batch: 4, image_size: 16, workers: 1 })
let model = models::mae(#{ image_size: 16, patch_size: 8, channels: 2, embed_dim: 16, depth: 1, num_heads: 2, decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2 })
let opt = optim::adamw(model, #{})
let parts = #{ model: model, opt: opt, loader: loader, energy: false }
"#;

#[test]
fn each_input_that_trains_makes_a_run_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let one = "let run = run::start(parts); for step in run.steps(2) { for batch in loader.micro(step) { model.loss(batch).backward(); } opt.step(); }\n";
    let output = piped_in(folder.path(), &format!("{TRAINING}{one}{one}run.step\n"), &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).ends_with("2\n"), "{}", stdout(&output));
    let runs: Vec<_> = fs::read_dir(folder.path().join("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(runs.len(), 2, "{runs:?}");
    for run in runs {
        let record: serde_json::Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
        assert_eq!((&record["status"], &record["step"]), (&"done".into(), &2.into()), "{}", run.display());
        let script = fs::read_to_string(run.join("script.rhai")).unwrap();
        assert!(script.starts_with("import \"std/mae\" as mae;\nlet images"), "{script}");
    }
}

/// What the editor tells the terminal when it begins to ask, and when it has a line: pasted text is marked in between.
const ASKING: &str = "\x1b[?2004h";
const TAKEN: &str = "\x1b[?2004l";

/// A session at a terminal.
struct Terminal {
    child: Guarded,
    keys: File,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn open(folder: &Path) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = Guarded::new(repl(folder).stdin(end()).stdout(end()).stderr(end()));
        let keys = File::from(pty.master);
        let mut screen = keys.try_clone().unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The terminal is gone when the program is: an error then, on Linux.
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        drop::<OwnedFd>(pty.slave);
        let mut terminal = Self { child, keys, output, seen: String::new() };
        terminal.wait_for_prompt();
        terminal
    }

    /// Waits until `text` is on the screen, and forgets all up to its end.
    fn wait_for(&mut self, text: &str) -> String {
        let began = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = PATIENCE.saturating_sub(began.elapsed());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("no {text:?} in {:?}", self.seen),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the editor asks anew. The text of the prompt alone may be that of a line drawn again, and what is typed
    /// between two lines may be lost.
    fn wait_for_prompt(&mut self) {
        self.wait_for(ASKING);
        self.wait_for("dbp> ");
    }

    /// Types a line and waits for what it prints.
    fn enter(&mut self, line: &str, want: &str) {
        self.press(&format!("{line}\r"));
        self.wait_for(TAKEN);
        self.wait_for(want);
        self.wait_for_prompt();
    }

    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
    }

    fn end(mut self) -> i32 {
        self.press("\x04");
        self.child.wait().unwrap().code().expect("it ended by itself")
    }
}

#[test]
fn a_terminal_has_a_prompt_completion_and_a_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::open(folder.path());
    terminal.press("let value = tensor::on\t");
    terminal.wait_for("tensor::ones(");
    terminal.press("[4])\r");
    terminal.wait_for_prompt();
    terminal.press("value.resh\t");
    terminal.wait_for("value.reshape(");
    terminal.press("[2, 2])\r");
    terminal.wait_for("Tensor [2, 2] float32 cpu");
    terminal.wait_for_prompt();
    // Several lines, and Ctrl-C, which drops the line that it finds.
    terminal.press("fn f(x) {\r");
    terminal.press("x + 40\r");
    terminal.press("}\r");
    terminal.wait_for("}");
    terminal.wait_for_prompt();
    terminal.press("let lost = 1");
    terminal.wait_for("lost = 1");
    terminal.press("\x03");
    terminal.wait_for_prompt();
    terminal.enter("f(2)", "42");
    // An error leaves all as it was.
    terminal.enter("value = 1; value.nope", "error: ");
    terminal.enter("value.len()", "4\r\n");
    terminal.enter("lost", "unknown variable: lost");
    assert_eq!(terminal.end(), 0);

    let mut again = Terminal::open(folder.path());
    again.press("\x1b[A"); // Up
    again.wait_for("lost");
    again.press("\x03");
    again.wait_for_prompt();
    again.press("\x12f(2"); // Ctrl-R
    again.wait_for("f(2)");
    again.press("\r");
    again.wait_for("unknown function: f");
    again.wait_for_prompt();
    assert_eq!(again.end(), 0);
}

#[test]
fn an_interrupt_ends_what_runs_and_not_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::open(folder.path());
    terminal.enter("let n = 0", "");
    terminal.press("while true { n += 1; if n == 2 { print(`be${\"gun\"}`) } }\r");
    terminal.wait_for("begun");
    terminal.interrupt();
    terminal.wait_for("interrupted");
    terminal.wait_for_prompt();
    // While nothing runs there is nothing to end.
    terminal.interrupt();
    terminal.interrupt();
    terminal.enter("n > 0", "true");

    for line in TRAINING.lines().take(6) {
        terminal.enter(line, "");
    }
    terminal.enter("let run = run::start(parts)", "runs/");
    terminal.enter("fn on_step(run) { if run.step == 2 { print(`tra${\"ining\"}`); } }", "");
    terminal.press("for step in run.steps(1000000) { for batch in loader.micro(step) { model.loss(batch).backward(); } opt.step(); }\r");
    terminal.wait_for("training");
    terminal.interrupt();
    terminal.wait_for("interrupted: saved");
    terminal.wait_for_prompt();
    terminal.enter("run.step >= 2", "true");
    terminal.enter("for step in run.steps(run.step + 1) { } run.step > 2", "true");
    assert_eq!(terminal.end(), 0);
}

/// A run that a later input may go on with is kept from other processes in between.
#[test]
fn a_run_is_the_prompts_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::open(folder.path());
    for line in TRAINING.lines() {
        terminal.enter(line, "");
    }
    terminal.enter("let run = run::start(parts)", "runs/");
    let run = only_run(&folder.path().join("runs"));
    let busy = |prompt: u32| match RunLock::take(&run).unwrap() {
        Taken::Busy(process) => process == Some(prompt),
        Taken::Held(_) => false,
    };
    assert!(busy(terminal.child.id()), "its input has ended, and it has not");
    let train = |then: &str| {
        format!(
            "for step in run.steps(2) {{ for batch in loader.micro(step) {{ model.loss(batch).backward(); }} opt.step(); {then} }}"
        )
    };
    terminal.enter(&train("if step == 1 { break; }"), "");
    assert!(busy(terminal.child.id()), "a step is left");
    terminal.enter(&train(""), "");
    terminal.enter("run.step", "2\r\n");
    assert!(!busy(terminal.child.id()), "it has ended");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn a_request_to_end_ends_the_session() {
    let folder = tempfile::tempdir().unwrap();
    for busy in [false, true] {
        let mut terminal = Terminal::open(folder.path());
        if busy {
            terminal.press("print(`be${\"gun\"}`); while true { }\r");
            terminal.wait_for("begun");
        }
        kill(Pid::from_raw(terminal.child.id() as i32), Signal::SIGTERM).unwrap();
        assert_eq!(terminal.child.wait().unwrap().code(), Some(130), "while an input runs: {busy}");
    }
}
