//! The peer's process (`serve.py`): it waits for a line, does what it says, and answers with a line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::{Result, Setting};

/// Where the peer's programs are.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");

/// Ends with this value.
pub struct Peer {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts it and waits until its model is made.
    pub fn start(setting: &Setting, options: &[String]) -> Result<Self> {
        let mut child = Command::new(&setting.python)
            .arg(format!("{FOLDER}/serve.py"))
            .args(["--threads".to_owned(), setting.threads.to_string()])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("its stdout is not piped")?);
        let mut peer = Self { child, commands, answers };
        match peer.answer()?.as_str() {
            "ready" => Ok(peer),
            other => Err(format!("PyTorch: expected `ready`, got `{other}`").into()),
        }
    }

    /// Errors: what the peer says went wrong, or that it ended.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        let commands = self.commands.as_mut().ok_or("its stdin is closed")?;
        writeln!(commands, "{command}")?;
        commands.flush()?;
        self.answer()
    }

    /// Seconds that `count` steps take it.
    pub fn steps(&mut self, count: usize) -> Result<f64> {
        Ok(self.ask(&format!("steps {count}"))?.parse()?)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("PyTorch's process has ended: {}", self.child.wait()?).into());
        }
        match line.trim().strip_prefix("error: ") {
            Some(error) => Err(format!("PyTorch: {error}").into()),
            None => Ok(line.trim().to_owned()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.commands = None; // It reads the end of its input, and ends.
        let _ = self.child.wait();
    }
}

/// The peer's versions, in words.
pub fn versions(python: &Path) -> Result<String> {
    let script = "import sys, torch; print(f'PyTorch {torch.__version__}, Python {sys.version.split()[0]}')";
    let output = Command::new(python).args(["-c", script]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
