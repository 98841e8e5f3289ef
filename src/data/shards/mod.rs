//! Images in tar archives, as WebDataset lays them out: files of one name up to the first dot are a sample.
//!
//! [WebDataset's format](https://github.com/webdataset/webdataset#the-webdataset-format). Archives are not streamed: where
//! every image lies is read off the headers once, and any of them is then read by its place. So a dataset is shuffled, split
//! and cut as a folder is, and archives made from a folder give the batches of that folder: an image's name is its path in
//! the archive, whatever archive that is.

mod archives;
pub mod braces;
mod samples;
pub mod tar;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::classes::ClassTable;
use super::decode::decode_as;
use super::error::DataError;
use super::folder::{FolderSpec, Layout, ends_in, partners, stacked};
use super::image::Image;
use super::labels::Labels;
use super::source::Source;
use archives::{Archive, Handles, Part};
use samples::Sample;

/// Which archives, and what they are read as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardsSpec {
    /// Archives, or folders that hold them.
    pub archives: Vec<PathBuf>,
    /// As of a folder; its path stands for all archives in messages.
    pub images: FolderSpec,
}

/// The images of one or more archives, sorted bytewise by their path inside.
///
/// Where archives are called `train` and `val` (`train-000.tar`, or `train/000.tar`), that is the split: names begin with
/// `train/` and `val/`, as in a folder of these two, and archives of other names are no part of the dataset. Else `train/` and
/// `val/` inside archives are the split.
#[derive(Debug)]
pub struct Shards {
    handles: Handles,
    samples: Vec<Sample>,
    /// The second channels, if these are files of their own.
    seconds: Vec<Sample>,
    channels: usize,
    layout: Option<Layout>,
    /// Classes, and one label per sample.
    labels: Option<(ClassTable, Vec<u32>)>,
}

impl Shards {
    /// Reads the headers of all archives, in parallel; no image yet.
    ///
    /// Errors: no archives, a compressed one, one that is damaged, or none of whose files is an image; two images of one name
    /// or of one sample; and those of [`super::Folder::open_as`].
    pub fn open(spec: &ShardsSpec) -> Result<Self, DataError> {
        let root = &spec.images.path;
        let mut found = Vec::new();
        for path in &spec.archives {
            found.extend(archives::find(path)?);
        }
        let has = |part| found.iter().any(|(_, own)| *own == part);
        let in_parts = has(Part::Train) && has(Part::Val);
        if in_parts {
            found.retain(|(_, part)| *part != Part::Whole);
        }
        if found.is_empty() {
            return Err(DataError::NoArchives { path: root.clone() });
        }
        let with_labels = spec.images.labels == Some(Labels::Cls);
        let listed: Vec<Result<_, DataError>> =
            found.par_iter().enumerate().map(|(i, (path, _))| samples::list(path, i as u32, with_labels)).collect();
        let mut archives = Vec::with_capacity(listed.len());
        let (mut train, mut val, mut others) = (Vec::new(), Vec::new(), 0);
        for (listed, (_, part)) in listed.into_iter().zip(&found) {
            let listed = listed?; // The first in order, whichever was found first.
            archives.push(listed.archive);
            others += listed.others;
            let samples = if *part == Part::Val { &mut val } else { &mut train };
            samples.extend(listed.samples);
        }
        if in_parts {
            samples::below("train/", &mut train);
            samples::below("val/", &mut val);
        }
        let samples = [train, val].concat();
        if samples.is_empty() {
            let found = format!("{others} other files in {} archives", archives.len());
            return Err(DataError::NoImages { path: root.clone(), found });
        }
        let samples = samples::in_order(samples, spec.images.extension.as_deref(), root, &archives)?;
        Self::arrange(samples, archives, &spec.images)
    }

    /// Channels, split and labels, as a folder has them.
    fn arrange(samples: Vec<Sample>, archives: Vec<Archive>, spec: &FolderSpec) -> Result<Self, DataError> {
        let (samples, seconds) = match &spec.pair {
            None => (samples, Vec::new()),
            Some(endings) => {
                let of = |files: Vec<PathBuf>| -> Vec<Sample> {
                    let place = |file: &PathBuf| {
                        let name = file.to_string_lossy();
                        samples.binary_search_by(|sample| sample.name.as_bytes().cmp(name.as_bytes())).ok()
                    };
                    files.iter().filter_map(place).map(|place| samples[place].clone()).collect()
                };
                let (firsts, seconds) = partners(&spec.path, paths(&samples), endings)?;
                (of(firsts), of(seconds))
            }
        };
        let under = |folder: &str| -> Vec<u32> {
            (0..samples.len() as u32).filter(|&i| samples[i as usize].name.starts_with(folder)).collect()
        };
        let (train, val) = (under("train/"), under("val/"));
        let layout = (!train.is_empty() && !val.is_empty()).then_some((train, val));
        let labels = match spec.labels {
            None => None,
            Some(Labels::Cls) => Some(samples::numbered(&samples, &archives)?),
            Some(labels) => Some(labels.read_off(&spec.path, &paths(&samples), layout.as_ref())?),
        };
        Ok(Self { handles: Handles::new(archives), samples, seconds, channels: spec.channels, layout, labels })
    }

    fn read(&self, sample: &Sample) -> Result<Vec<u8>, String> {
        self.handles.read(sample.archive as usize, sample.offset, sample.size)
    }

    fn image(&self, sample: &Sample, channels: usize) -> Result<Image, String> {
        decode_as(&self.read(sample)?, channels).map_err(|error| error.to_string())
    }
}

fn paths(samples: &[Sample]) -> Vec<PathBuf> {
    samples.iter().map(|sample| PathBuf::from(&*sample.name)).collect()
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.samples.len()
    }

    /// The path inside the archive, after `train/` or `val/` where archives are that.
    fn name(&self, index: usize) -> String {
        self.samples[index].name.to_string()
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn load(&self, index: usize) -> Result<Image, String> {
        let first = &self.samples[index];
        match self.seconds.get(index) {
            None => self.image(first, self.channels),
            Some(second) => stacked(&self.image(first, 1)?, &self.image(second, 1)?),
        }
    }

    fn bytes(&self, index: usize) -> Option<Result<Vec<u8>, String>> {
        self.seconds.is_empty().then(|| self.read(&self.samples[index]))
    }

    fn archive(&self, index: usize) -> Option<&Path> {
        Some(&self.handles.archives()[self.samples[index].archive as usize].path)
    }

    fn archives(&self) -> Vec<PathBuf> {
        self.handles.archives().iter().map(|archive| archive.path.clone()).collect()
    }

    fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref()
    }

    fn classes(&self) -> Option<&ClassTable> {
        self.labels.as_ref().map(|(classes, _)| classes)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.as_ref().map(|(_, labels)| labels[index])
    }
}
