//! Where images come from and how they become batches: everything between a folder and `[N, C, H, W]` numbers.
//!
//! | file | idea |
//! | --- | --- |
//! | [`decode`] | bytes of a file → [`Image`], or the reason why not |
//! | [`folder`], [`source`] | lists of images: a folder, the generated `wirebond` set, or anything that implements [`Source`] |
//! | [`shards`] | the same from tar archives, where they lie |
//! | [`spec`] | what may be asked for, and which source that is |
//! | [`dataset`] | a [`Dataset`]: a view (subset, split) of a source, with one cache and one list of skipped files |
//! | [`pairs`], [`mask`], [`classes`] | images with masks: which belong together, and what a mask's numbers or colors mean |
//! | [`normalization`] | means and standard deviations, looked up or measured |
//! | `fetch`, `picture`, `planes` | the way of an image into a batch: from memory, or as much of a JPEG as its crop needs |
//! | `resize`, `resample` | Pillow's bicubic resizing, of pixels and of planes |
//! | [`augment`] | crops, flips and resizing, equal to Pillow's and torchvision's |
//! | [`labels`] | classes of whole images |
//! | [`summary`], [`intensity`], [`preview`] | what is in a dataset: numbers, what brightness alone tells, a contact sheet |
//! | [`segment`] | the same for images with masks, and changes of color |
//! | [`loader`], [`val_loader`] | batches, prepared ahead by threads, each a pure function of its position |
//!
//! Of libtorch, nothing here knows more than the memory that batches are written into. Every random choice is keyed ([`crate::random`]), so neither
//! the number of workers, nor the cache, nor what was asked for before changes a single value.

pub mod augment;
mod cache;
pub mod classes;
pub mod dataset;
pub mod decode;
pub mod error;
mod fetch;
pub mod folder;
pub mod image;
pub mod intensity;
pub mod labels;
pub mod loader;
pub mod mask;
pub mod normalization;
pub mod pairs;
mod pass;
mod picture;
mod planes;
mod prefetch;
pub mod preview;
mod resample;
mod resize;
pub mod segment;
pub mod shards;
mod skips;
pub mod source;
pub mod spec;
pub mod summary;
#[cfg(test)]
pub(crate) mod testing;
pub mod val_loader;
pub mod wirebond;

pub use augment::{Crop, Transform, normalize_into};
pub use classes::{ClassTable, IGNORE};
pub use dataset::Dataset;
pub use decode::{DecodeError, decode, with_channels};
pub use error::DataError;
pub use folder::{Folder, FolderSpec};
pub use image::Image;
pub use labels::Labels;
pub use loader::{Batch, Loader, LoaderConfig, default_workers};
pub use mask::{Coding, Mask};
pub use normalization::Normalization;
pub use pairs::{Folders, Pairs, PairsSpec};
pub use segment::{Jitter, Segmentation};
pub use shards::{Shards, ShardsSpec};
pub use source::{Source, Wirebond};
pub use spec::Spec;
pub use val_loader::ValLoader;
