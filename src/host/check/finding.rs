//! One thing that `check` has to say, and how it looks.

use std::fmt;

use rhai::Position;
use serde_json::{Map, Value, json};

use crate::host::diagnosis::{Diagnosis, Place};
use crate::host::errors::Failure;
use crate::host::resolver::Library;

/// How bad it is. Only errors make `check` fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It would end the run.
    Error,
    /// It would not, but is hardly meant.
    Warning,
    /// What could not be looked at.
    Note,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Finding {
    pub severity: Severity,
    /// A name for the kind of finding; these stay as they are: `docs/check.md` lists them.
    pub code: &'static str,
    pub diagnosis: Diagnosis,
    /// Column behind what is meant, if that is a name.
    pub end_column: Option<usize>,
}

impl Finding {
    /// `name` is what stands at the place, if it is known.
    pub fn new(
        (severity, code): (Severity, &'static str),
        failure: Failure,
        (library, key, position): (&Library, &str, Position),
        name: Option<&str>,
    ) -> Self {
        let place = Place::new(library, key, position);
        let column = place.as_ref().map_or(0, |place| place.column);
        let end_column = name.filter(|_| column > 0).map(|name| column + name.chars().count());
        let diagnosis = Diagnosis { place, ..failure.into() };
        Self { severity, code, diagnosis, end_column }
    }

    /// Whether both say the same of the same place.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.code, &self.diagnosis.place, &self.diagnosis.message)
            == (other.code, &other.diagnosis.place, &other.diagnosis.message)
    }

    pub fn json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("severity".into(), json!(self.severity.word()));
        fields.insert("code".into(), json!(self.code));
        fields.insert("message".into(), json!(self.diagnosis.message));
        if let Some(hint) = &self.diagnosis.hint {
            fields.insert("hint".into(), json!(hint));
        }
        if let Some(place) = &self.diagnosis.place {
            fields.insert("file".into(), json!(place.file));
            fields.insert("line".into(), json!(place.line));
            if place.column > 0 {
                fields.insert("column".into(), json!(place.column));
            }
        }
        if let Some(column) = self.end_column {
            fields.insert("end_column".into(), json!(column));
        }
        Value::Object(fields)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnosis.draw(self.severity.word(), f)
    }
}
