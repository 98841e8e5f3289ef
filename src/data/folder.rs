//! A folder of images at any depth, in a fixed order; ImageNet's layout of `train/` and `val/` is recognized.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::classes::ClassTable;
use super::decode::decode_as;
use super::error::DataError;
use super::image::Image;
use super::labels::Labels;
use super::source::Source;

/// What counts as an image, in any case; the bytes decide what it really is.
pub const EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "npy"];
/// Folders nested deeper than this are taken for a mistake and left out.
const MAX_DEPTH: usize = 64;

/// What a folder of images is read as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderSpec {
    pub path: PathBuf,
    /// 1 to 3.
    pub channels: usize,
    pub labels: Option<Labels>,
    /// Endings, before the extension, of the two gray files that make one image of two channels.
    pub pair: Option<[String; 2]>,
    /// What files end in, where others lie among them.
    pub extension: Option<String>,
}

impl FolderSpec {
    /// RGB images without labels.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), channels: 3, labels: None, pair: None, extension: None }
    }
}

/// The image files under a folder, sorted bytewise by their path relative to it.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// Relative paths.
    files: Vec<PathBuf>,
    /// The second channels' files, if these are files of their own.
    seconds: Vec<PathBuf>,
    channels: usize,
    layout: Option<Layout>,
    /// Classes, and one label per file.
    labels: Option<(ClassTable, Vec<u32>)>,
}

/// Indices of the files under `train/` and under `val/`.
pub type Layout = (Vec<u32>, Vec<u32>);

impl Folder {
    /// Lists the images, which are loaded as RGB. Hidden files and folders are left out; links are followed, but not in circles.
    ///
    /// If there are images both under `train/` and under `val/`, they are the split, and what lies elsewhere (`test/`) is no
    /// part of the dataset.
    ///
    /// Errors: no such folder, an unreadable subfolder, or no images, saying what was found instead.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataError> {
        Self::open_as(&FolderSpec::new(path.as_ref()))
    }

    /// The same with other channels, with labels, or with two files to an image.
    ///
    /// Errors: as [`open`](Self::open); a file without its partner; an image that no class can be read off.
    pub fn open_as(spec: &FolderSpec) -> Result<Self, DataError> {
        let root = spec.path.clone();
        let mut files = list(&root)?;
        if let Some(wanted) = &spec.extension {
            files.retain(|file| ends_in(file, wanted));
            if files.is_empty() {
                return Err(DataError::NoImages { path: root, found: format!("none that ends in {wanted}") });
            }
        }
        let (files, seconds) = match &spec.pair {
            None => (files, Vec::new()),
            Some(endings) => partners(&root, files, endings)?,
        };
        let under = |name: &str| -> Vec<u32> {
            (0..files.len() as u32).filter(|&i| files[i as usize].starts_with(name)).collect()
        };
        let (train, val) = (under("train"), under("val"));
        let layout = (!train.is_empty() && !val.is_empty()).then_some((train, val));
        let labels = spec.labels.map(|labels| labels.read_off(&root, &files, layout.as_ref())).transpose()?;
        Ok(Self { root, files, seconds, channels: spec.channels, layout, labels })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.files.len()
    }

    /// The path relative to the folder.
    fn name(&self, index: usize) -> String {
        self.files[index].to_string_lossy().into_owned()
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn load(&self, index: usize) -> Result<Image, String> {
        let first = self.root.join(&self.files[index]);
        match self.seconds.get(index) {
            None => load_image(&first, self.channels),
            Some(second) => stacked(&load_image(&first, 1)?, &load_image(&self.root.join(second), 1)?),
        }
    }

    fn bytes(&self, index: usize) -> Option<Result<Vec<u8>, String>> {
        self.seconds.is_empty().then(|| read(&self.root.join(&self.files[index])))
    }

    fn paths(&self, index: usize) -> Vec<PathBuf> {
        let files = self.files.get(index).into_iter().chain(self.seconds.get(index));
        files.map(|file| self.root.join(file)).collect()
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

/// Files that end in the first of `endings`, and those that end in the second, in the same order.
pub(super) fn partners(
    root: &Path,
    files: Vec<PathBuf>,
    endings: &[String; 2],
) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    let of = |ending: &str| -> BTreeMap<PathBuf, PathBuf> {
        let named = |file: &PathBuf| {
            let stem = file.file_stem()?.to_str()?.strip_suffix(ending)?.to_owned();
            Some((file.with_file_name(stem), file.clone()))
        };
        files.iter().filter_map(named).collect()
    };
    let (firsts, mut seconds) = (of(&endings[0]), of(&endings[1]));
    let missing = |what: &'static str, count: usize, of: usize, first: &Path| DataError::Unpaired {
        count,
        of,
        what,
        partner: "partner",
        folder: root.into(),
        partners: root.into(),
        first: first.display().to_string(),
    };
    let alone: Vec<&PathBuf> =
        firsts.iter().filter(|(stem, _)| !seconds.contains_key(*stem)).map(|(_, file)| file).collect();
    if let Some(first) = alone.first() {
        return Err(missing("first channels", alone.len(), firsts.len(), first));
    }
    let total = seconds.len();
    let (firsts, partners): (Vec<_>, Vec<_>) =
        firsts.into_iter().filter_map(|(stem, file)| Some((file, seconds.remove(&stem)?))).unzip();
    if let Some(first) = seconds.values().next() {
        return Err(missing("second channels", seconds.len(), total, first));
    }
    if firsts.is_empty() {
        let found = format!("none that ends in {} or {}", endings[0], endings[1]);
        return Err(DataError::NoImages { path: root.into(), found });
    }
    Ok((firsts, partners))
}

/// Two gray images as the channels of one.
pub(super) fn stacked(first: &Image, second: &Image) -> Result<Image, String> {
    let Image { width, height, .. } = *first;
    if (width, height) != (second.width, second.height) {
        let (other_width, other_height) = (second.width, second.height);
        return Err(format!("the first channel has {width}×{height} pixels, the second {other_width}×{other_height}"));
    }
    let pixels = first.pixels.iter().zip(&second.pixels).flat_map(|(&a, &b)| [a, b]).collect();
    Ok(Image { width, height, channels: 2, pixels })
}

/// The images under a folder, relative to it, in bytewise order.
///
/// Errors: as [`Folder::open`].
pub(super) fn list(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let path = root.to_path_buf();
    match fs::metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(DataError::NotFound { path }),
        Err(source) => return Err(DataError::Io { path, source }),
        Ok(metadata) if !metadata.is_dir() => return Err(DataError::NotAFolder { path }),
        Ok(_) => {}
    }
    let mut walk = Walk::of(&EXTENSIONS);
    walk.visit(root, Path::new(""))?;
    if walk.files.is_empty() {
        return Err(DataError::NoImages { path, found: walk.found() });
    }
    Ok(in_order(walk.files))
}

/// The files under a folder that have one of these extensions, relative to it, in bytewise order; maybe none.
pub(super) fn files_of(root: &Path, extensions: &'static [&'static str]) -> Result<Vec<PathBuf>, DataError> {
    let mut walk = Walk::of(extensions);
    walk.visit(root, Path::new(""))?;
    Ok(in_order(walk.files))
}

fn in_order(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    files
}

/// Whether a file has this extension, in any case, with or without its dot.
pub(super) fn ends_in(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|own| own.eq_ignore_ascii_case(extension.trim_start_matches('.')))
}

/// Reads a file as an image of so many channels; the error is the reason for `skipped.csv`.
pub(super) fn load_image(path: &Path, channels: usize) -> Result<Image, String> {
    let bytes = read(path)?;
    decode_as(&bytes, channels).map_err(|error| error.to_string())
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read: {error}"))
}

/// One recursive listing.
struct Walk {
    extensions: &'static [&'static str],
    files: Vec<PathBuf>,
    /// How many files of other extensions there are.
    others: BTreeMap<String, usize>,
    /// The real paths of the folders that lead to the present one: a link to one of them is a circle.
    ancestors: Vec<PathBuf>,
}

impl Walk {
    fn of(extensions: &'static [&'static str]) -> Self {
        Self { extensions, files: Vec::new(), others: BTreeMap::new(), ancestors: Vec::new() }
    }

    fn visit(&mut self, folder: &Path, relative: &Path) -> Result<(), DataError> {
        let failed = |source| DataError::Io { path: folder.to_path_buf(), source };
        let real = fs::canonicalize(folder).map_err(failed)?;
        if self.ancestors.len() >= MAX_DEPTH || self.ancestors.contains(&real) {
            return Ok(());
        }
        self.ancestors.push(real);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            let mut kind = entry.file_type().map_err(failed)?;
            if kind.is_symlink() {
                let Ok(target) = fs::metadata(&path) else { continue }; // A link to nowhere.
                kind = target.file_type();
            }
            if kind.is_dir() {
                self.visit(&path, &relative.join(&name))?;
            } else if kind.is_file() {
                self.add(relative.join(&name));
            }
        }
        self.ancestors.pop();
        Ok(())
    }

    fn add(&mut self, file: PathBuf) {
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        match extension {
            Some(extension) if self.extensions.contains(&extension.as_str()) => self.files.push(file),
            other => *self.others.entry(other.unwrap_or_default()).or_default() += 1,
        }
    }

    /// For example "12 .txt files and 1 .gif file".
    fn found(&self) -> String {
        let mut kinds: Vec<_> = self.others.iter().collect();
        kinds.sort_by_key(|&(_, &count)| std::cmp::Reverse(count));
        let mut parts: Vec<String> = kinds
            .iter()
            .take(3)
            .map(|(extension, count)| {
                let files = if **count == 1 { "file" } else { "files" };
                let kind = if extension.is_empty() { "unnamed-type".into() } else { format!(".{extension}") };
                format!("{count} {kind} {files}")
            })
            .collect();
        if kinds.len() > 3 {
            parts.push("others".into());
        }
        match parts.len() {
            0 => "no files at all".into(),
            1 => parts.remove(0),
            n => format!("{} and {}", parts[..n - 1].join(", "), parts[n - 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{fill_folder, gradient, jpeg_bytes, png_bytes};

    #[test]
    fn lists_every_depth_in_bytewise_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/2.JPG", "a-b.png", "a/1.jpeg", "Z.Png", "note.txt", ".hidden.png", ".cache/x.png"] {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), jpeg_bytes(&gradient(8, 8, 1))).unwrap();
        }
        let folder = Folder::open(dir.path()).unwrap();
        let names: Vec<String> = (0..folder.len()).map(|i| folder.name(i)).collect();
        assert_eq!(names, ["Z.Png", "a-b.png", "a/1.jpeg", "b/2.JPG"]);
        assert_eq!(folder.load(0).unwrap().channels, 3); // A gray JPEG by another name.
        assert!(folder.layout().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_circles() {
        let dir = tempfile::tempdir().unwrap();
        fill_folder(&dir.path().join("real"), 2);
        std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("real/circle")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all.png", dir.path().join("dead.png")).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!((0..4).map(|i| folder.name(i)).collect::<Vec<_>>()[..2], ["link/000.png", "link/001.png"]);
        assert_eq!(folder.len(), 4);
    }

    #[test]
    fn a_layout_needs_both_folders() {
        let dir = tempfile::tempdir().unwrap();
        fill_folder(&dir.path().join("train/class"), 3);
        assert!(Folder::open(dir.path()).unwrap().layout().is_none());
        fill_folder(&dir.path().join("val"), 2);
        fill_folder(&dir.path().join("test"), 4);
        assert_eq!(Folder::open(dir.path()).unwrap().layout(), Some(&(vec![4, 5, 6], vec![7, 8])));
    }

    #[test]
    fn errors_say_what_was_found() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| Folder::open(path).unwrap_err().to_string();
        assert!(message(dir.path()).ends_with("found no files at all"));
        for i in 0..12 {
            fs::write(dir.path().join(format!("{i}.txt")), "").unwrap();
        }
        fs::write(dir.path().join("x.GIF"), "").unwrap();
        assert!(message(dir.path()).ends_with("found 12 .txt files and 1 .gif file"));
        assert!(message(&dir.path().join("0.txt")).contains("is a file"));
        assert!(message(&dir.path().join("none")).starts_with("no folder"));
    }

    #[test]
    fn two_gray_files_are_one_image() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, image: &Image| fs::write(dir.path().join(name), png_bytes(image)).unwrap();
        write("x_a.png", &Image::filled(3, 2, 1, 7));
        write("x_b.png", &Image::filled(3, 2, 1, 9));
        let endings = ["_a".to_owned(), "_b".to_owned()];
        let spec = FolderSpec { channels: 2, pair: Some(endings), ..FolderSpec::new(dir.path()) };
        let folder = Folder::open_as(&spec).unwrap();
        assert_eq!((folder.len(), folder.name(0).as_str()), (1, "x_a.png"));
        assert_eq!(folder.load(0).unwrap().pixels, [7, 9].repeat(6));
        write("x_b.png", &Image::filled(2, 2, 1, 9));
        assert_eq!(folder.load(0).unwrap_err(), "the first channel has 3×2 pixels, the second 2×2");
        write("y_a.png", &Image::filled(3, 2, 1, 7));
        let error = Folder::open_as(&spec).unwrap_err().to_string();
        assert!(error.starts_with("1 of 2 first channels") && error.ends_with("the first: y_a.png"), "{error}");
    }
}
