//! What can be wrong with data, in words for the person who named it: what, where, and what would fix it.

use std::path::PathBuf;

/// An error of the data pipeline. A single unreadable file is none: it is skipped and listed (see [`super::Dataset::skipped`]).
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("no folder {}: check the path", path.display())]
    NotFound { path: PathBuf },

    #[error("{} is a file: name the folder that holds the images, or an archive that ends in .tar", path.display())]
    NotAFolder { path: PathBuf },

    #[error(
        "no images in {}: looked for .jpg, .jpeg, .png, .bmp, .tif, .tiff and .npy there and in its subfolders, found {found}",
        path.display()
    )]
    NoImages { path: PathBuf, found: String },

    #[error("cannot read {} as a tar archive: at byte {offset}: {problem}", path.display())]
    Archive { path: PathBuf, offset: u64, problem: String },

    #[error("{} is compressed: images are read from their place in an archive, so unpack it ({tool})", path.display())]
    Compressed { path: PathBuf, tool: &'static str },

    #[error("no archives in {}: looked for .tar there and in its subfolders", path.display())]
    NoArchives { path: PathBuf },

    #[error("two images of one sample in {}: {first} and {second}; say with image_extension which is meant", archive.display())]
    TwoInOneSample { archive: PathBuf, first: String, second: String },

    #[error("{file} in {}: expected a class as a whole number from 0 to {most}, got {got}", archive.display())]
    BadLabel { archive: PathBuf, file: String, most: usize, got: String },

    #[error("no folder and no built-in data set is named \"{name}\"; built in: {known}")]
    UnknownName { name: String, known: String },

    #[error("{count} of {of} {what} in {} without a {partner} of the same name in {}; the first: {first}", folder.display(), partners.display())]
    Unpaired {
        count: usize,
        of: usize,
        what: &'static str,
        partner: &'static str,
        folder: PathBuf,
        partners: PathBuf,
        first: String,
    },

    #[error("two {what} of one name in {}: {first} and {second}", folder.display())]
    TwoOfOneName { what: &'static str, folder: PathBuf, first: String, second: String },

    #[error("images and masks are both in {}: tell them apart with image_extension and mask_extension", folder.display())]
    Mixed { folder: PathBuf },

    #[error("no class can be read off {} in {}: expected {expected}", file.display(), root.display())]
    NoLabel { root: PathBuf, file: PathBuf, expected: &'static str },

    #[error("this dataset has no classes: open images with masks, or with labels")]
    NoClasses,

    #[error(
        "this dataset has no masks: open images with their masks, as data::open(#{{ images: …, masks: …, classes: … }})"
    )]
    NoMasks,

    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },

    #[error("{files} images are fewer than a batch of {batch}: lower the batch size or add images")]
    FewerThanBatch { files: usize, batch: usize },

    #[error("batch: {batch} images do not divide into {micro_batches} equal micro-batches")]
    MicroBatches { batch: usize, micro_batches: usize },

    /// A number outside its range; `expected` says which would do.
    #[error("{what}: expected {expected}, got {got}")]
    Range { what: &'static str, expected: String, got: String },

    #[error(
        "{skipped} of {files} images could not be read, more than 1 % and more than 20; the first: {name}: {reason}. \
         Repair or remove them (skipped.csv lists all)"
    )]
    TooManyUnreadable { skipped: usize, files: usize, name: String, reason: String },

    #[error("no readable image found after {attempts} tries; the last: {name}: {reason}")]
    NoReadable { attempts: usize, name: String, reason: String },

    /// A bug: a panic inside a thread of the loader, caught there.
    #[error("a data worker failed: {0}")]
    Worker(String),
}

impl DataError {
    pub(super) fn range(what: &'static str, expected: impl Into<String>, got: impl std::fmt::Display) -> Self {
        Self::Range { what, expected: expected.into(), got: got.to_string() }
    }
}
