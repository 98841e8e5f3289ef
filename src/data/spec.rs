//! What a script may ask for, and the source that answers it.

use std::path::{Path, PathBuf};

use super::error::DataError;
use super::folder::{Folder, FolderSpec};
use super::pairs::{self, Pairs, PairsSpec};
use super::shards::{Shards, ShardsSpec};
use super::source::{Source, Wirebond};

/// What a script asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// Images alone, unless the folder has the layout of ADE20K or CamVid.
    Folder(PathBuf),
    /// Images as they are asked for.
    Images(FolderSpec),
    /// Images in archives that are named one by one.
    Shards(ShardsSpec),
    /// Images and masks.
    Pairs(PairsSpec),
    Wirebond {
        size: usize,
        count: usize,
        seed: u64,
    },
}

impl Spec {
    /// The names of the generated data sets.
    pub const BUILT_IN: [&str; 1] = ["wirebond"];

    /// The built-in set with its defaults: 2304 images of 128×128, seed 0.
    pub fn wirebond() -> Self {
        Self::Wirebond { size: 128, count: 2304, seed: 0 }
    }

    /// A built-in name or the path of a folder; `./wirebond` is a folder.
    ///
    /// Errors: [`DataError::UnknownName`] for a single word that is neither.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        if text == "wirebond" {
            return Ok(Self::wirebond());
        }
        let path = Path::new(text);
        if !text.contains(['/', '\\', '.']) && !path.exists() {
            return Err(DataError::UnknownName { name: text.into(), known: Self::BUILT_IN.join(", ") });
        }
        Ok(Self::Folder(path.to_path_buf()))
    }

    /// The images, listed; none is read yet.
    ///
    /// Errors: those of the sources, and a size out of bounds.
    pub(super) fn open(&self) -> Result<Box<dyn Source>, DataError> {
        Ok(match *self {
            Self::Folder(ref path) => match pairs::recognize(path)? {
                Some(known) => Box::new(known),
                None => images(&FolderSpec::new(path))?,
            },
            Self::Images(ref spec) => images(spec)?,
            Self::Shards(ref spec) => Box::new(Shards::open(spec)?),
            Self::Pairs(ref spec) => Box::new(Pairs::open(spec)?),
            Self::Wirebond { size, count, seed } => {
                if !(16..=2048).contains(&size) {
                    return Err(DataError::range("size", "16 to 2048 pixels", size));
                }
                Box::new(Wirebond::new(size, count, seed))
            }
        })
    }
}

/// A folder of images; or, where that has none or is a file, archives of them.
fn images(spec: &FolderSpec) -> Result<Box<dyn Source>, DataError> {
    let none = match Folder::open_as(spec) {
        Err(err @ (DataError::NoImages { .. } | DataError::NotAFolder { .. })) => err,
        opened => return Ok(Box::new(opened?)),
    };
    match Shards::open(&ShardsSpec { archives: vec![spec.path.clone()], images: spec.clone() }) {
        Err(DataError::NoArchives { .. }) => Err(none),
        opened => Ok(Box::new(opened?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    #[test]
    fn specs_are_names_or_paths() {
        assert_eq!(Spec::parse("wirebond").unwrap(), Spec::wirebond());
        assert_eq!(Spec::parse("./wirebond").unwrap(), Spec::Folder("./wirebond".into()));
        let error = Spec::parse("wirebnd").unwrap_err().to_string();
        assert_eq!(error, "no folder and no built-in data set is named \"wirebnd\"; built in: wirebond");
        assert!(Dataset::open(&Spec::Wirebond { size: 4096, count: 1, seed: 0 }).is_err());
    }
}
