//! Functions without a namespace: `arg`, `assert`, and bounded versions of Rhai's own that make big values at once.

use std::time::{Duration, Instant};

use rhai::plugin::*;
use rhai::{Array, Blob, Dynamic, Engine, FLOAT, INT, ImmutableString, NativeCallContext};

use crate::host::args;
use crate::host::convert::{self, Number};
use crate::host::errors::{ScriptResult, check_arg, script_error};
use crate::host::session::Session;
use crate::host::suggest;

/// Elements of an array, a text or a blob that one call may make.
const MAX_LENGTH: INT = 100_000_000;

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(globals).into());
}

fn check_length(ctx: &NativeCallContext, length: INT) -> ScriptResult<usize> {
    check_arg(ctx, (0..=MAX_LENGTH).contains(&length), || format!("length: expected 0 to {MAX_LENGTH}, got {length}"))?;
    Ok(length as usize)
}

#[export_module]
mod globals {
    /// A parameter of the script: `default`, unless the command line says `--set name=value`.
    ///
    /// The name is a literal, so that parameters are found without running the script. A value is text where the default
    /// is text, else JSON.
    ///
    /// ```rhai
    /// let depth = arg("depth", 4); // --set depth=6 makes it 6
    /// assert(depth == 4);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn arg(ctx: NativeCallContext, name: ImmutableString, default: Dynamic) -> ScriptResult<Dynamic> {
        args::value(&Session::of(&ctx), &name, default).map_err(|err| script_error(&ctx, err))
    }

    /// A number as text with so many digits behind the point, 0 to 17.
    ///
    /// ```rhai
    /// assert(fixed(2.0 / 3.0, 3) == "0.667");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn fixed(ctx: NativeCallContext, number: Number, digits: INT) -> ScriptResult<String> {
        let number = convert::float(&ctx, "number", &number)?;
        check_arg(&ctx, (0..=17).contains(&digits), || format!("digits: expected 0 to 17, got {digits}"))?;
        Ok(format!("{number:.*}", digits as usize))
    }

    /// Fails with `message` unless `condition` holds.
    ///
    /// ```rhai
    /// assert(1 + 1 == 2, "numbers are as they were");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn assert(ctx: NativeCallContext, condition: bool, message: ImmutableString) -> ScriptResult<()> {
        check_arg(&ctx, condition, || if message.is_empty() { "assertion failed".into() } else { message.to_string() })
    }

    /// Fails unless `condition` holds.
    #[rhai_fn(name = "assert", return_raw)]
    pub fn assert_only(ctx: NativeCallContext, condition: bool) -> ScriptResult<()> {
        check_arg(&ctx, condition, || "assertion failed".to_owned())
    }

    /// The one of `names` that `name` was probably meant to be; empty text if none is near. For messages of one's own:
    /// `throw #{ message: …, hint: … }`.
    ///
    /// ```rhai
    /// assert(nearest("bacth", ["batch", "steps"]) == "batch");
    /// assert(nearest("frobnicate", ["batch", "steps"]) == "");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn nearest(ctx: NativeCallContext, name: ImmutableString, names: Array) -> ScriptResult<ImmutableString> {
        let text = |name: Dynamic| {
            let kind = ctx.engine().map_type_name(name.type_name());
            let wrong = || script_error(&ctx, format!("names: expected an array of text, got {kind} in it"));
            name.into_immutable_string().map_err(|_| wrong())
        };
        let names: Vec<ImmutableString> = names.into_iter().map(text).collect::<ScriptResult<_>>()?;
        Ok(suggest::nearest(&name, names.iter().map(ImmutableString::as_str)).unwrap_or_default().into())
    }

    /// Waits for so many seconds; an interrupt ends the wait.
    ///
    /// ```rhai
    /// sleep(0.001);
    /// ```
    pub fn sleep(ctx: NativeCallContext, seconds: FLOAT) {
        let session = Session::of(&ctx);
        let began = Instant::now();
        while began.elapsed().as_secs_f64() < seconds && !session.interrupted() {
            let left = (seconds - began.elapsed().as_secs_f64()).clamp(0.0, 0.05);
            std::thread::sleep(Duration::from_secs_f64(left));
        }
    }

    /// Waits for so many seconds; an interrupt ends the wait.
    ///
    /// ```rhai
    /// sleep(0);
    /// ```
    #[rhai_fn(name = "sleep")]
    pub fn sleep_whole(ctx: NativeCallContext, seconds: INT) {
        sleep(ctx, seconds as FLOAT);
    }

    /// Appends `item` until the array has `length` elements.
    ///
    /// ```rhai
    /// let row = [1];
    /// row.pad(3, 0);
    /// assert(row == [1, 0, 0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn pad(ctx: NativeCallContext, array: &mut Array, length: INT, item: Dynamic) -> ScriptResult<()> {
        let length = check_length(&ctx, length)?;
        if length > array.len() {
            array.resize(length, item);
        }
        Ok(())
    }

    /// Appends `text` until there are `length` characters.
    ///
    /// ```rhai
    /// let line = "loss";
    /// line.pad(8, ".");
    /// assert(line == "loss....");
    /// ```
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_text(
        ctx: NativeCallContext,
        string: &mut ImmutableString,
        length: INT,
        text: ImmutableString,
    ) -> ScriptResult<()> {
        let length = check_length(&ctx, length)?;
        let missing = length.saturating_sub(string.chars().count());
        let padding: String = text.chars().cycle().take(missing).collect();
        *string += padding.as_str();
        Ok(())
    }

    /// Appends `character` until there are `length` characters.
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_char(
        ctx: NativeCallContext,
        string: &mut ImmutableString,
        length: INT,
        character: char,
    ) -> ScriptResult<()> {
        let length = check_length(&ctx, length)?;
        let missing = length.saturating_sub(string.chars().count());
        *string += character.to_string().repeat(missing).as_str();
        Ok(())
    }

    /// `length` zero bytes.
    #[rhai_fn(return_raw)]
    pub fn blob(ctx: NativeCallContext, length: INT) -> ScriptResult<Blob> {
        Ok(vec![0; check_length(&ctx, length)?])
    }

    /// `length` bytes of `value`.
    ///
    /// ```rhai
    /// assert(blob(2, 255).to_array() == [255, 255]);
    /// ```
    #[rhai_fn(name = "blob", return_raw)]
    pub fn blob_of(ctx: NativeCallContext, length: INT, value: INT) -> ScriptResult<Blob> {
        Ok(vec![value as u8; check_length(&ctx, length)?])
    }

    /// Appends `value` until the blob has `length` bytes.
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_blob(ctx: NativeCallContext, blob: &mut Blob, length: INT, value: INT) -> ScriptResult<()> {
        let length = check_length(&ctx, length)?;
        if length > blob.len() {
            blob.resize(length, value as u8);
        }
        Ok(())
    }
}
