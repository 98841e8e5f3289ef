//! Classes of whole images, read off their paths.

use std::path::{Component, Path, PathBuf};

use super::classes::ClassTable;
use super::error::DataError;
use super::folder::Layout;

/// Where the class of an image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// The first folder of the path, below `train/` and `val/` where these are.
    Folders,
    /// The file's name up to the first `_`.
    Prefix,
    /// A number in a file beside the image, as in WebDataset's archives; see `shards`.
    Cls,
}

impl Labels {
    /// The classes in alphabetical order, and the label of each file. Files outside of a layout are no part of the dataset:
    /// theirs is 0.
    ///
    /// Errors: a path without a class in it.
    pub(super) fn read_off(
        self,
        root: &Path,
        files: &[PathBuf],
        layout: Option<&Layout>,
    ) -> Result<(ClassTable, Vec<u32>), DataError> {
        let used: Vec<u32> = match layout {
            Some((train, val)) => train.iter().chain(val).copied().collect(),
            None => (0..files.len() as u32).collect(),
        };
        let mut classes = Vec::with_capacity(used.len());
        for &file in &used {
            let path = &files[file as usize];
            let class = self.class_of(path, layout.is_some());
            classes.push(class.ok_or_else(|| DataError::NoLabel {
                root: root.into(),
                file: path.clone(),
                expected: match self {
                    Self::Folders => "a folder for each class",
                    Self::Prefix => "names that begin with the class and an underscore",
                    Self::Cls => "a .cls file beside each image of an archive",
                },
            })?);
        }
        let mut names = classes.clone();
        names.sort();
        names.dedup();
        let mut labels = vec![0; files.len()];
        for (&file, class) in used.iter().zip(&classes) {
            labels[file as usize] = names.binary_search(class).map_or(0, |label| label as u32);
        }
        Ok((ClassTable::new(names)?, labels))
    }

    fn class_of(self, file: &Path, in_layout: bool) -> Option<String> {
        match self {
            Self::Folders => {
                let mut folders = file.parent()?.components().skip(usize::from(in_layout));
                let Component::Normal(class) = folders.next()? else { return None };
                Some(class.to_string_lossy().into_owned())
            }
            Self::Prefix => {
                let name = file.file_name()?.to_string_lossy();
                let (class, _) = name.split_once('_')?;
                (!class.is_empty()).then(|| class.to_owned())
            }
            Self::Cls => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: Labels, files: &[&str], layout: Option<&Layout>) -> Result<(Vec<String>, Vec<u32>), DataError> {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        labels.read_off(Path::new("x"), &files, layout).map(|(classes, labels)| (classes.names, labels))
    }

    #[test]
    fn folders_are_classes() {
        let (names, labels) = read(Labels::Folders, &["b/1.png", "a/deep/2.png", "b/3.png"], None).unwrap();
        assert_eq!((names, labels), (vec!["a".to_owned(), "b".to_owned()], vec![1, 0, 1]));
        let files = ["test/1.png", "train/b/1.png", "train/c/2.png", "val/b/3.png"];
        let (names, labels) = read(Labels::Folders, &files, Some(&(vec![1, 2], vec![3]))).unwrap();
        assert_eq!((names, labels), (vec!["b".to_owned(), "c".to_owned()], vec![0, 0, 1, 0]));
        let error = read(Labels::Folders, &["a/1.png", "2.png"], None).unwrap_err().to_string();
        assert_eq!(error, "no class can be read off 2.png in x: expected a folder for each class");
    }

    #[test]
    fn prefixes_are_classes() {
        let (names, labels) = read(Labels::Prefix, &["n02_dog.JPEG", "n01_cat_1.JPEG"], None).unwrap();
        assert_eq!((names, labels), (vec!["n01".to_owned(), "n02".to_owned()], vec![1, 0]));
        assert!(read(Labels::Prefix, &["dog.jpg"], None).is_err());
    }
}
