//! The house rules of ARCHITECTURE.md, held by reading the sources: who may import whom, and what may stand where.
//!
//! The checker is a function of (path, text) pairs, so that made-up offenders can show that every rule fires. It reads
//! tokens, not types: comments and literals are blanked, then paths are followed through `crate::`, `dbp_host::`,
//! `self::`, `super::` and grouped imports. What a macro or a re-export hides, it does not see.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::Path;

/// Module → the other modules of the crate that it may name. A new module needs a row; `lib.rs` is the front page and
/// may name all.
const IMPORTS: &[(&str, &[&str])] = &[
    ("libtorch", &[]),
    ("random", &[]),
    ("schedule", &[]),
    ("confusion", &[]),
    ("nn", &["libtorch", "random", "schedule"]),
    ("data", &["libtorch", "random", "confusion"]),
    ("energy", &[]),
    ("train", &["nn", "data", "energy", "libtorch", "random", "schedule", "confusion"]),
    ("report", &[]),
    ("host", &["train", "report", "nn", "data", "energy", "libtorch", "random", "schedule", "confusion"]),
    ("main", &["host"]),
];

/// Crates that `main.rs` may name beside this one.
const MAIN_CRATES: &[&str] = &["std", "clap", "clap_complete", "dbp_host", "crate", "self"];

const MAX_LINES: usize = 600;

/// Files that are mostly a table, and so may be longer, with the reason.
const TABLES: &[(&str, &str)] = &[];

#[test]
fn the_sources_keep_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    read_sources(&root.join("src"), "src", &mut files);
    assert!(!files.is_empty(), "no sources under {}", root.display());
    let offenses = check(&files);
    assert!(offenses.is_empty(), "{} offenses against ARCHITECTURE.md:\n{}", offenses.len(), offenses.join("\n"));
    for (table, _) in TABLES {
        assert!(files.iter().any(|(path, _)| path == table), "TABLES names {table}, which does not exist");
    }
}

/// Adds all Rust files under `folder` as (path from the crate's root, text), in order of their names.
fn read_sources(folder: &Path, name: &str, files: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.map(|entry| entry.expect("a readable folder entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = format!("{name}/{}", path.file_name().expect("an entry has a name").to_string_lossy());
        if path.is_dir() {
            read_sources(&path, &name, files);
        } else if name.ends_with(".rs") {
            files.push((name, fs::read_to_string(&path).expect("a source file is readable UTF-8")));
        }
    }
}

/// All offenses, each as `path:line: what, and why it matters`.
fn check(files: &[(String, String)]) -> Vec<String> {
    files.iter().flat_map(|(path, text)| check_file(path, text)).collect()
}

fn check_file(path: &str, text: &str) -> Vec<String> {
    let mut offenses = Vec::new();
    let mut report = |line: usize, what: String| offenses.push(format!("{path}:{line}: {what}"));
    let module = Module::of(path);
    let top = module.top();
    let tokens = tokens(&blank(text));
    let in_tests = test_lines(&tokens);

    if top != "lib" {
        match IMPORTS.iter().find(|(name, _)| *name == top) {
            None => report(1, format!("module `{top}` has no row in IMPORTS: say there what it may import")),
            Some((_, allowed)) => {
                for (line, target) in imports(&tokens, &module) {
                    check_import(top, allowed, &target).into_iter().for_each(|what| report(line, what));
                }
            }
        }
    }
    if top == "main" {
        for (line, name) in use_roots(&tokens) {
            if !MAIN_CRATES.contains(&name.as_str()) {
                report(
                    line,
                    format!("main.rs uses `{name}`: it is the command line and nothing else (clap and `host`)"),
                );
            }
        }
    }
    for (i, token) in tokens.iter().enumerate() {
        let line = token.line;
        if top != "host" && (names_crate(&tokens, i, "rhai") || token.text == "rhai_fn") {
            report(line, "`rhai` outside src/host: nothing below host knows that scripts exist".to_owned());
        }
        if top != "libtorch" && token.text == "unsafe" {
            report(line, "`unsafe` outside src/libtorch: what needs it belongs into the one audited place".to_owned());
        }
        if ["report", "energy"].contains(&top) {
            for name in ["tch", "torch_sys"] {
                if names_crate(&tokens, i, name) {
                    report(line, format!("`{name}` in src/{top}: it must work, and be tested, without libtorch"));
                }
            }
        }
        if top == "nn"
            && !in_tests.contains(&line)
            && let Some(what) = world_access(&tokens, i)
        {
            let reason = "nn opens no file and reads no clock: a model is a function of its inputs and seed";
            report(line, format!("`{what}` in src/nn: {reason}"));
        }
    }
    let lines = text.lines().count();
    if lines > MAX_LINES && !TABLES.iter().any(|(table, _)| *table == path) {
        report(
            MAX_LINES + 1,
            format!("{lines} lines: split at {MAX_LINES}, one idea per file (or list a table in TABLES)"),
        );
    }
    offenses
}

fn check_import(top: &str, allowed: &[&str], target: &str) -> Option<String> {
    if target == top || allowed.contains(&target) {
        return None;
    }
    if target == "*" {
        let reason = "name the module, so that the order of modules can be checked";
        return Some(format!("`{top}` imports everything from the crate's root: {reason}"));
    }
    if IMPORTS.iter().any(|(name, _)| *name == target) {
        let list = if allowed.is_empty() { "nothing".to_owned() } else { format!("only {}", allowed.join(", ")) };
        let order = "main → host → {train, report} → {nn, data, energy} → libtorch";
        return Some(format!("`{top}` imports `{target}`, but may import {list}: {order}"));
    }
    let advice = "name the module it comes from, or give a new module a row in IMPORTS";
    Some(format!("`{top}` names `{target}` from the crate's root: {advice}"))
}

/// What at token `i` reaches for files or clocks.
fn world_access(tokens: &[Token], i: usize) -> Option<String> {
    let name = tokens[i].text.as_str();
    if ["Instant", "SystemTime"].contains(&name) || (name == "chrono" && names_crate(tokens, i, name)) {
        return Some(name.to_owned());
    }
    if name != "std" || is_path_tail(tokens, i) {
        return None;
    }
    let mut paths = Vec::new();
    follow(tokens, i + 1, &["std".to_owned()], &mut paths);
    let hit = paths.iter().find(|(_, path)| path.len() > 1 && ["fs", "time"].contains(&path[1].as_str()))?;
    // `Duration` is an amount, not a clock; `Instant` and `SystemTime` are caught by name.
    (hit.1.last().is_none_or(|last| last != "Duration")).then(|| hit.1.join("::"))
}

/// Where a file lies in the tree of modules: `src/nn/vit.rs` is `["nn", "vit"]`, `src/nn/mod.rs` is `["nn"]`.
struct Module(Vec<String>);

impl Module {
    fn of(path: &str) -> Self {
        let inner = path.strip_prefix("src/").unwrap_or(path);
        let inner = inner.strip_suffix(".rs").unwrap_or(inner);
        Self(inner.strip_suffix("/mod").unwrap_or(inner).split('/').map(str::to_owned).collect())
    }

    fn top(&self) -> &str {
        &self.0[0]
    }

    /// The path that `super` and `self` start from; the crate's root for `lib.rs` and `main.rs`.
    fn base(&self) -> Vec<String> {
        if ["lib", "main"].contains(&self.top()) { Vec::new() } else { self.0.clone() }
    }
}

#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
}

/// Words, `::` and single other characters.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            let end = if word(first) {
                rest.find(|c| !word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push(Token { text: rest[..end].to_owned(), line: number + 1 });
            rest = rest[end..].trim_start();
        }
    }
    tokens
}

/// The text with comments and the insides of literals turned into spaces; line breaks stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = literal_end(&chars, i);
        if end > i {
            out.extend(chars[i..end].iter().map(|&c| if c == '\n' { c } else { ' ' }));
            i = end;
        } else {
            out.push(chars[i]);
            i += 1;
        }
    }
    out
}

/// Where the comment or literal that starts at `i` ends; `i` if none starts there.
fn literal_end(chars: &[char], i: usize) -> usize {
    let at = |k: usize| chars.get(k).copied().unwrap_or('\0');
    let word_before = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    // `br"…"` and `cr"…"`.
    let prefixed = i > 0 && ['b', 'c'].contains(&chars[i - 1]);
    match (at(i), at(i + 1)) {
        ('/', '/') => (i..chars.len()).find(|&k| chars[k] == '\n').unwrap_or(chars.len()),
        ('/', '*') => {
            let (mut depth, mut k) = (0, i);
            while k < chars.len() {
                match (at(k), at(k + 1)) {
                    ('/', '*') => (depth, k) = (depth + 1, k + 2),
                    ('*', '/') => (depth, k) = (depth - 1, k + 2),
                    _ => k += 1,
                }
                if depth == 0 {
                    return k;
                }
            }
            chars.len()
        }
        ('"', _) => quoted_end(chars, i + 1, '"'),
        // A raw string; a `b` or `c` in front of one is left standing as a word, which does no harm.
        ('r', '"' | '#') if !word_before || prefixed => {
            let hashes = (i + 1..).take_while(|&k| at(k) == '#').count();
            if at(i + 1 + hashes) != '"' {
                return i; // A raw identifier.
            }
            let closes = |k: usize| at(k) == '"' && (1..=hashes).all(|h| at(k + h) == '#');
            let start = i + 2 + hashes;
            (start..chars.len()).find(|&k| closes(k)).map_or(chars.len(), |k| k + 1 + hashes)
        }
        // A character, not a lifetime: it is escaped or closes at once.
        ('\'', next) if next == '\\' || at(i + 2) == '\'' => quoted_end(chars, i + 1, '\''),
        _ => i,
    }
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut k = start;
    while k < chars.len() && chars[k] != quote {
        k += if chars[k] == '\\' { 2 } else { 1 };
    }
    (k + 1).min(chars.len())
}

/// Every module of the crate that the file names: (line, first part of the path from the root, or `*`).
fn imports(tokens: &[Token], module: &Module) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inline: Vec<(String, usize)> = Vec::new(); // Modules opened in the file, with the depth of their braces.
    let mut depth = 0;
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i].text.as_str() {
            "{" => {
                depth += 1;
                if i >= 2 && tokens[i - 2].text == "mod" {
                    inline.push((tokens[i - 1].text.clone(), depth));
                }
            }
            "}" => {
                inline.retain(|(_, opened)| *opened != depth);
                depth = depth.saturating_sub(1);
            }
            start @ ("crate" | "dbp_host" | "super" | "self")
                if next_is(tokens, i, "::") && !is_path_tail(tokens, i) =>
            {
                let mut base = module.base();
                base.extend(inline.iter().map(|(name, _)| name.clone()));
                match start {
                    "crate" | "dbp_host" => base.clear(),
                    "super" => drop(base.pop()),
                    _ => {}
                }
                let mut paths = Vec::new();
                i = follow(tokens, i + 1, &base, &mut paths);
                found.extend(paths.into_iter().map(|(line, path)| (line, path.into_iter().next().unwrap_or_default())));
                found.retain(|(_, first)| !first.is_empty());
                continue; // The brackets of a group were consumed whole.
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// Follows a path from token `i`, a `::` or what ends the path; pushes every path it leads to, and answers where it
/// ends.
fn follow(tokens: &[Token], mut i: usize, base: &[String], paths: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = base.to_vec();
    let mut line = tokens.get(i).map_or(0, |token| token.line);
    while next_is(tokens, i.wrapping_sub(1), "::") {
        let Some(token) = tokens.get(i + 1) else { break };
        match token.text.as_str() {
            "{" => return group(tokens, i + 2, &path, paths),
            "super" => drop(path.pop()),
            "self" => {}
            name if name == "*" || name.chars().all(|c| c.is_alphanumeric() || c == '_') => path.push(name.to_owned()),
            _ => break, // `::<T>`
        }
        line = token.line;
        i += 2;
    }
    paths.push((line, path));
    i
}

/// Follows each path of a group whose `{` lies before token `i`; answers the token after its `}`.
fn group(tokens: &[Token], mut i: usize, base: &[String], paths: &mut Vec<(usize, Vec<String>)>) -> usize {
    while let Some(token) = tokens.get(i) {
        match token.text.as_str() {
            "}" => return i + 1,
            "," => i += 1,
            "as" => i += 2,
            name => {
                let mut path = base.to_vec();
                match name {
                    "super" => drop(path.pop()),
                    "self" => {}
                    _ => path.push(name.to_owned()),
                }
                let mut inner = Vec::new();
                i = follow(tokens, i + 1, &path, &mut inner);
                // A path that ends with its first word stands on that word's line, not on the next token's.
                paths.extend(inner.into_iter().map(|(line, p)| (if p == path { token.line } else { line }, p)));
            }
        }
    }
    i
}

/// The first word of every `use` and `extern crate`.
fn use_roots(tokens: &[Token]) -> Vec<(usize, String)> {
    let starts = tokens.windows(3).filter_map(|window| match (window[0].text.as_str(), window[1].text.as_str()) {
        ("use", "::") | ("extern", "crate") => Some(&window[2]),
        ("use", _) => Some(&window[1]),
        _ => None,
    });
    starts.map(|token| (token.line, token.text.clone())).collect()
}

/// Whether token `i` names an external crate: `name::…`, `use name`, `extern crate name`.
fn names_crate(tokens: &[Token], i: usize, name: &str) -> bool {
    let before = i.checked_sub(1).map_or("", |k| tokens[k].text.as_str());
    let imported = ["use", "crate"].contains(&before);
    tokens[i].text == name && !is_path_tail(tokens, i) && (next_is(tokens, i, "::") || imported)
}

/// Whether token `i` is a later part of a path, as `b` in `a::b`. (A leading `::`, as in `::rhai`, starts one.)
fn is_path_tail(tokens: &[Token], i: usize) -> bool {
    if i < 2 || tokens[i - 1].text != "::" {
        return false;
    }
    let before = tokens[i - 2].text.as_str();
    let arrow = before == ">" && i > 2 && tokens[i - 3].text == "-";
    let word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>');
    word && !arrow && !["use", "pub", "return"].contains(&before)
}

fn next_is(tokens: &[Token], i: usize, text: &str) -> bool {
    tokens.get(i.wrapping_add(1)).is_some_and(|token| token.text == text)
}

/// The lines of items under `#[cfg(test)]`.
fn test_lines(tokens: &[Token]) -> std::collections::HashSet<usize> {
    let mut lines = std::collections::HashSet::new();
    for i in 0..tokens.len() {
        let marks = ["#", "[", "cfg", "(", "test", ")", "]"];
        if !marks.iter().enumerate().all(|(k, mark)| tokens.get(i + k).is_some_and(|token| token.text == *mark)) {
            continue;
        }
        let mut depth = 0;
        for token in &tokens[i + marks.len()..] {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 && ["}", ";"].contains(&token.text.as_str()) {
                lines.extend(tokens[i].line..=token.line);
                break;
            }
        }
    }
    lines
}

/// A made-up file: path, text, and what must be reported (line, part of the message); nothing for a file without fault.
type Case = (&'static str, &'static str, &'static [(usize, &'static str)]);

const CASES: &[Case] = &[
    ("src/nn/a.rs", "use crate::random::Rng;\nuse crate::libtorch;\nuse crate::nn::b;\nuse super::c;", &[]),
    (
        "src/nn/a.rs",
        "//! No.\nuse crate::train::Run;",
        &[(2, "`nn` imports `train`, but may import only libtorch, random, schedule")],
    ),
    ("src/nn/a.rs", "use super::super::data::Image;", &[(1, "`nn` imports `data`")]),
    ("src/nn/mod.rs", "use super::data::Image;", &[(1, "`nn` imports `data`")]),
    ("src/nn/a/b.rs", "use super::super::data::Image;", &[]), // This is nn::data.
    (
        "src/nn/a.rs",
        "mod inner {\n use super::super::super::data::X;\n}\nuse super::data;",
        &[(2, "`nn` imports `data`")],
    ),
    (
        "src/data/a.rs",
        "use crate::{\n    nn::{Vit, mae},\n    random::Rng,\n    energy,\n};",
        &[(2, "`nn`"), (2, "`nn`"), (4, "`energy`")],
    ),
    ("src/data/a.rs", "fn f(x: crate::host::Script) {}", &[(1, "`data` imports `host`")]),
    ("src/data/a.rs", "use super::{super::nn, b};", &[(1, "`data` imports `nn`")]),
    ("src/data/a.rs", "use crate::*;", &[(1, "everything from the crate's root")]),
    ("src/data/a.rs", "use crate::Image;", &[(1, "`data` names `Image` from the crate's root")]),
    ("src/energy/a.rs", "use crate::random::Rng;", &[(1, "`energy` imports `random`, but may import nothing")]),
    (
        "src/report/a.rs",
        "// crate::nn\nconst A: &str = \"crate::nn\";\n/* crate::nn */ const B: char = '\"';\nuse crate::nn;",
        &[(4, "`nn`")],
    ),
    (
        "src/report/a.rs",
        "const A: &str = r#\"\"crate::nn\"#; fn f<'a>(x: &'a str) { crate::data::g() }",
        &[(1, "`data`")],
    ),
    (
        "src/train/a.rs",
        "use crate::{nn, data, energy, libtorch, random};\nuse crate::report::Table;",
        &[(2, "`report`")],
    ),
    ("src/host/api/a.rs", "use rhai::Engine;\nuse crate::{train, report::plot, nn, data};", &[]),
    ("src/host/a.rs", "use crate::main::run;", &[(1, "`host` imports `main`")]),
    (
        "src/main.rs",
        "use clap::Parser;\nuse dbp_host::host::run;\nuse dbp_host::train::Run;",
        &[(3, "`main` imports `train`")],
    ),
    ("src/main.rs", "use rhai::Engine;", &[(1, "main.rs uses `rhai`"), (1, "`rhai` outside src/host")]),
    ("src/lib.rs", "pub mod nn;\npub use crate::nn::Vit;", &[]),
    ("src/extra/a.rs", "", &[(1, "module `extra` has no row in IMPORTS")]),
    ("src/nn/a.rs", "fn f() -> ::rhai::Dynamic { todo!() }", &[(1, "`rhai` outside src/host")]),
    ("src/nn/a.rs", "// unsafe\nunsafe fn f() {}\n#![deny(unsafe_code)]", &[(2, "`unsafe` outside src/libtorch")]),
    ("src/libtorch/a.rs", "unsafe fn f() {}", &[]),
    ("src/energy/a.rs", "use tch::Tensor;", &[(1, "`tch` in src/energy")]),
    ("src/report/a.rs", "fn f(tch: u8) -> u8 { tch }\nfn g() { tch::no_grad(f) }", &[(2, "`tch` in src/report")]),
    ("src/nn/a.rs", "use std::fs;", &[(1, "`std::fs` in src/nn")]),
    ("src/nn/a.rs", "use std::{\n collections::HashMap,\n fs::File,\n};", &[(1, "`std::fs::File`")]),
    (
        "src/nn/a.rs",
        "fn f() {\n let t = std::time::Instant::now();\n}",
        &[(2, "`std::time::Instant"), (2, "`Instant`")],
    ),
    ("src/nn/a.rs", "use std::time::Duration;", &[]),
    ("src/nn/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n use std::fs;\n fn g() {}\n}", &[]),
    ("src/nn/a.rs", "#[cfg(test)]\nmod tests {}\nuse std::fs;", &[(3, "`std::fs`")]),
    ("src/data/a.rs", "use std::fs;\nuse std::time::Instant;", &[]),
];

#[test]
fn every_rule_fires_on_made_up_offenders() {
    for (path, text, expected) in CASES {
        let found = check(&[((*path).to_owned(), (*text).to_owned())]);
        let fits = |(line, part): &(usize, &str)| {
            found.iter().any(|offense| offense.starts_with(&format!("{path}:{line}: ")) && offense.contains(part))
        };
        assert_eq!(found.len(), expected.len(), "{path}:\n{text}\n→ {found:#?}");
        assert!(expected.iter().all(fits), "{path}:\n{text}\n→ {found:#?}");
    }
    let long = "\n".repeat(MAX_LINES + 5);
    let found = check(&[("src/nn/long.rs".to_owned(), long)]);
    assert!(found.len() == 1 && found[0].starts_with("src/nn/long.rs:601: 605 lines"), "{found:?}");
}

#[test]
fn the_table_has_no_cycle() {
    // A module may only import modules that stand above it in some order: remove what imports nothing that is left.
    let mut left = IMPORTS.to_vec();
    while !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
        let before = left.len();
        left.retain(|(_, allowed)| allowed.iter().any(|name| names.contains(name)));
        assert!(left.len() < before, "these import each other in a circle: {names:?}");
    }
}
