//! Archives as `data::open` takes them: one path, several, or WebDataset's braces.

use std::path::PathBuf;

use rhai::{Array, Dynamic};

use crate::data::{FolderSpec, ShardsSpec, Spec};
use crate::host::errors::Failure;
use crate::host::options::FromOption;
use crate::host::session::Session;

/// What `shards` names.
pub struct Paths(Vec<String>);

impl FromOption for Paths {
    const EXPECTED: &'static str = "a path, such as \"train-{000..009}.tar\", or an array of paths";
    fn from_option(value: Dynamic) -> Option<Self> {
        if value.is_string() {
            return Some(Self(vec![value.into_string().ok()?]));
        }
        let paths: Vec<String> =
            value.try_cast::<Array>()?.into_iter().map(|path| path.into_string().ok()).collect::<Option<_>>()?;
        (!paths.is_empty()).then_some(Self(paths))
    }
}

/// Archives by their paths.
///
/// # Errors
/// One that does not exist or may not be read; braces that say nothing.
pub fn listed(session: &Session, Paths(paths): &Paths, images: FolderSpec) -> Result<Spec, Failure> {
    let mut archives = Vec::new();
    for path in paths {
        archives.extend(session.readable_all(path)?);
    }
    let path = paths.first().map(PathBuf::from).unwrap_or_default();
    Ok(Spec::Shards(ShardsSpec { archives, images: FolderSpec { path, ..images } }))
}

/// The same for a text that has braces and names no file or folder as it stands; `None` for any other.
///
/// # Errors
/// As [`listed`].
pub fn in_braces(session: &Session, text: &str, images: FolderSpec) -> Result<Option<Spec>, Failure> {
    if !text.contains('{') || session.readable(text).is_ok() {
        return Ok(None);
    }
    listed(session, &Paths(vec![text.to_owned()]), images).map(Some)
}
