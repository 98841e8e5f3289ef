//! Small files of a script's own: text, tables, pictures. What may be read and written is the sandbox's business.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};
use serde_json::Value;

use super::models::PictureHandle;
use crate::energy::emissions::field;
use crate::host::args::to_json;
use crate::host::errors::{Failure, ScriptResult, check_arg, script_error};
use crate::host::sandbox::write_whole;
use crate::host::session::Session;

/// Of one text: 64 MiB.
const MAX_BYTES: u64 = 64 << 20;

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(functions).into());
}

fn read(session: &Session, path: &str) -> Result<String, Failure> {
    let real = session.readable(path)?;
    let failed = |err: &dyn std::fmt::Display| Failure::script(format!("cannot read {path}: {err}"));
    // Neither a device nor a pipe: they may never end.
    if !real.is_file() {
        return Err(failed(&"it is not a file"));
    }
    let file = File::open(&real).map_err(|err| failed(&err))?;
    let mut bytes = Vec::new();
    // A file may grow, or say nothing of its length.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|err| failed(&err))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(&format!("it has more than {} MiB", MAX_BYTES >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8 text"))
}

fn write(session: &Session, path: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let real = session.writable(path)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::script(format!("cannot write {path}: it would have more than {} MiB", MAX_BYTES >> 20)));
    }
    session.count_written(bytes.len())?;
    write_whole(&real, bytes)?;
    Ok(real)
}

fn shown(path: &Path) -> ImmutableString {
    path.display().to_string().into()
}

/// One cell of a table: text as it is, all else as JSON has it.
fn cell(value: &Dynamic) -> String {
    match to_json(value) {
        Value::Null => String::new(),
        Value::String(text) => field(&text),
        other => field(&other.to_string()),
    }
}

/// Numbers, `true` and `false` as such, nothing as `()`, all else as text.
fn value(text: String) -> Dynamic {
    match text.as_str() {
        "" => return Dynamic::UNIT,
        "true" => return true.into(),
        "false" => return false.into(),
        _ => {}
    }
    if let Ok(int) = text.parse::<i64>() {
        return int.into();
    }
    match text.parse::<f64>() {
        Ok(float) if text.contains(|c: char| c.is_ascii_digit()) => float.into(),
        _ => text.into(),
    }
}

/// The records of a CSV text (RFC 4180): cells between commas, those with commas, quotes or line ends in quotes.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut begun) = (false, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        begun = true;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            c if quoted => cell.push(c),
            ',' => record.push(std::mem::take(&mut cell)),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                record.push(std::mem::take(&mut cell));
                records.push(std::mem::take(&mut record));
                begun = false;
            }
            c => cell.push(c),
        }
    }
    if begun {
        record.push(cell);
        records.push(record);
    }
    records
}

#[export_module]
mod functions {
    /// The text of a file that the script may read: in its folder, in `datasets/`, in its run directory, what `--set` names, and
    /// below `--allow-read` and `--allow-write`. At most 64 MiB of UTF-8.
    #[rhai_fn(return_raw)]
    pub fn read_text(ctx: NativeCallContext, path: ImmutableString) -> ScriptResult<String> {
        read(&Session::of(&ctx), &path).map_err(|err| script_error(&ctx, err))
    }

    /// Writes a text file as a whole, in the place of one that is there; returns where it is. A path starts from the run
    /// directory of the last run, or leads below `--allow-write`; folders on its way are made. At most 64 MiB, and 1 GiB in all.
    ///
    /// ```rhai
    /// run::output(#{ name: "notes" });
    /// write_text("notes/first.txt", "a line\n");
    /// assert(read_text("notes/first.txt") == "a line\n");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn write_text(
        ctx: NativeCallContext,
        path: ImmutableString,
        text: ImmutableString,
    ) -> ScriptResult<ImmutableString> {
        let written = write(&Session::of(&ctx), &path, text.as_bytes());
        Ok(shown(&written.map_err(|err| script_error(&ctx, err))?))
    }

    /// The rows of a table with commas whose first line names the columns, a map each. Numbers, `true` and `false` are read as
    /// such, an empty cell is `()`. Read where `read_text` reads.
    #[rhai_fn(return_raw)]
    pub fn read_csv(ctx: NativeCallContext, path: ImmutableString) -> ScriptResult<Array> {
        let text = read(&Session::of(&ctx), &path).map_err(|err| script_error(&ctx, err))?;
        let mut records = records(text.trim_start_matches('\u{feff}')).into_iter();
        let Some(names) = records.next() else { return Ok(Array::new()) };
        let mut rows = Array::new();
        for (number, record) in records.enumerate() {
            check_arg(&ctx, record.len() == names.len(), || {
                format!("{path}: row {} has {} cells for {} columns", number + 1, record.len(), names.len())
            })?;
            let row: Map = names.iter().map(|name| name.as_str().into()).zip(record.into_iter().map(value)).collect();
            rows.push(row.into());
        }
        Ok(rows)
    }

    /// Writes rows, a map each, as a table with commas, with the first row's keys as columns, in alphabetical order; returns where
    /// it is. Written where `write_text` writes.
    ///
    /// ```rhai
    /// run::output(#{ name: "table" });
    /// write_csv("scores.csv", [#{ layer: "qkv", loss: 0.5 }, #{ layer: "fc1", loss: 1 }]);
    /// assert(read_text("scores.csv") == "layer,loss\nqkv,0.5\nfc1,1\n");
    /// assert(read_csv("scores.csv")[0].loss == 0.5);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn write_csv(ctx: NativeCallContext, path: ImmutableString, rows: Array) -> ScriptResult<ImmutableString> {
        let first = rows.first().and_then(|row| row.read_lock::<Map>().map(|row| row.keys().cloned().collect()));
        let columns: Vec<_> = first.unwrap_or_default();
        check_arg(&ctx, !columns.is_empty(), || "rows: expected maps, one for each row, got none".to_owned())?;
        let names: Vec<String> = columns.iter().map(|name| field(name)).collect();
        let mut text = names.join(",") + "\n";
        for (number, row) in rows.iter().enumerate() {
            let row = row.read_lock::<Map>().filter(|row| row.keys().eq(columns.iter()));
            let row = row.ok_or_else(|| {
                let columns = columns.join(", ");
                script_error(&ctx, format!("rows: expected a map of {columns} in row {}, as in the first", number + 1))
            })?;
            let cells: Vec<String> = columns.iter().map(|name| row.get(name).map_or_else(String::new, cell)).collect();
            text.push_str(&(cells.join(",") + "\n"));
        }
        let written = write(&Session::of(&ctx), &path, text.as_bytes());
        Ok(shown(&written.map_err(|err| script_error(&ctx, err))?))
    }

    /// Writes the picture as PNG, where `write_text` writes; returns where it is.
    #[rhai_fn(return_raw, pure)]
    pub fn save(
        ctx: NativeCallContext,
        picture: &mut PictureHandle,
        path: ImmutableString,
    ) -> ScriptResult<ImmutableString> {
        let (png, ..) = picture.0.png().map_err(|err| script_error(&ctx, err))?;
        let path = if path.ends_with(".png") { path.to_string() } else { format!("{path}.png") };
        Ok(shown(&write(&Session::of(&ctx), &path, &png).map_err(|err| script_error(&ctx, err))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_apart_as_they_were_put_together() {
        assert_eq!(records("a,b\n1,\"x, \"\"y\"\"\nz\"\r\n"), [vec!["a", "b"], vec!["1", "x, \"y\"\nz"]]);
        assert_eq!(records("a,\n,"), [["a", ""], ["", ""]], "no line end at the end");
        assert!(records("").is_empty());
        let values = ["7", "-1.5e3", "true", "", "nan", "7 up"].map(|text| value(text.to_owned()));
        let types = values.map(|value| value.type_name().to_owned());
        assert_eq!(types, ["i64", "f64", "bool", "()", "string", "string"]);
    }
}
