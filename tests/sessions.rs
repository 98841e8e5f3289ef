//! What is left of a session when its script has ended: nothing, whatever held what. Under `watch` the next version needs the memory.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::rc::{Rc, Weak};

use dbp_host::host::{self, Options, Outcome, Session};

const MODULE: &str = r#"
    export const NET = models::custom();
    export const EMPTY = models::custom();
    const WIDTH = 3.0;
    NET.forward = |m, x| x * global::WIDTH;
    fn build() {
        let net = models::custom();
        net.forward = |m, x| x * global::WIDTH;
        net
    }
    fn through(net, x) { net.forward(x) }
"#;

/// Runs a script beside `net.rhai`, and says what its session has become.
fn after(script: &str) -> Weak<Session> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("net.rhai"), MODULE).unwrap();
    let main = folder.path().join("main.rhai");
    std::fs::write(&main, script).unwrap();
    let mut options = Options::new(&main);
    options.runs = folder.path().join("runs");
    let session = Session::new(options).unwrap();
    if let Outcome::Failed(err) = host::execute(&session) {
        panic!("{script}: {err}");
    }
    Rc::downgrade(&session)
}

#[test]
fn nothing_keeps_a_session_behind_its_end() {
    let scripts = [
        "let net = models::custom(); net.forward = |m, x| x;",
        "const NET = models::custom(); NET.forward = |m, x| x; fn f() { global::NET }",
        "const NET = models::custom(); const N = 2.0; NET.loss = |m, x| (x * global::N).sum(); fn f() { }
         assert(NET.evaluate(tensor::ones(2)) == 4.0);",
        "import \"net\" as net; assert(net::NET.forward(tensor::ones(1)).item() == 3.0);",
        "import \"net\" as net; let made = net::EMPTY; made.forward = |m, x| x;",
        "import \"net\" as net; const MADE = net::build(); const NETS = [MADE, net::NET]; MADE.loss = |m, x| x; fn f() { }",
    ];
    let outcome = host::on_script_thread(move || {
        for script in scripts {
            assert!(after(script).upgrade().is_none(), "it lives on after {script}");
        }
        Outcome::Done
    });
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

#[test]
fn nothing_keeps_a_model_behind_its_session() {
    const MODEL: u64 = 4 * 16_000_000;
    let scripts = [
        "let net = models::custom(); net.parameter(\"w\", 16000000, \"ones\"); net.forward = |m, x| x * m.w;",
        "const NET = models::custom(); NET.parameter(\"w\", 16000000, \"ones\"); NET.forward = |m, x| x * m.w; fn f() { }",
        "import \"net\" as net; const NETS = [net::build()]; NETS[0].parameter(\"w\", 16000000, \"ones\"); fn f() { }",
    ];
    let outcome = host::on_script_thread(move || {
        for script in scripts {
            after(script);
            let before = resident();
            for _ in 0..5 {
                after(script);
            }
            let more = resident().saturating_sub(before);
            assert!(more < 2 * MODEL, "{} MB stay behind five times {script}", more >> 20);
        }
        Outcome::Done
    });
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
}

/// A function sees the constants of the source that it was written in, whoever calls it.
#[test]
fn a_function_sees_the_constants_of_its_source() {
    let script = r#"
        import "net" as net;
        const WIDTH = 5.0;
        fn uses() { global::WIDTH }
        let own = models::custom();
        own.forward = |m, x| x * global::WIDTH;
        let one = tensor::ones(1);
        let seen = [own.forward(one), net::through(own, one), net::build().forward(one), net::NET.forward(one)];
        assert(seen.map(|x| x.item()) == [5.0, 5.0, 3.0, 3.0]);
    "#;
    let outcome = host::on_script_thread(move || {
        after(script);
        Outcome::Done
    });
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
}
