//! Which files of archives are images, and which belong together.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::archives::{Archive, compressed_by};
use super::{ends_in, tar};
use crate::data::classes::{ClassTable, MAX_CLASSES};
use crate::data::error::DataError;
use crate::data::folder::EXTENSIONS;

/// An image and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub name: Box<str>,
    pub archive: u32,
    pub offset: u64,
    pub size: u64,
    /// What its `.cls` file says; read where classes are asked for.
    pub label: Option<u32>,
}

/// What is in one archive.
pub struct Listed {
    pub archive: Archive,
    pub samples: Vec<Sample>,
    /// How many files are no images.
    pub others: usize,
}

/// Lists an archive's images, with their labels where these are wanted.
///
/// Errors: an archive that is damaged, compressed or none; a label that is no number.
pub fn list(path: &Path, index: u32, with_labels: bool) -> Result<Listed, DataError> {
    let failed = |source: io::Error| DataError::Io { path: path.into(), source };
    let (archive, file) = Archive::open(path).map_err(failed)?;
    let mut first = [0; 6];
    if archive.length >= 6 {
        file.read_exact_at(&mut first, 0).map_err(failed)?;
    }
    if let Some(tool) = compressed_by(&first) {
        return Err(DataError::Compressed { path: path.into(), tool });
    }
    let (mut samples, mut links, mut classes, mut others) = (Vec::new(), Vec::new(), Vec::new(), 0);
    tar::members(
        |buffer, offset| file.read_exact_at(buffer, offset),
        archive.length,
        |member| {
            let tar::Member { name, offset, size, link } = member;
            if EXTENSIONS.iter().any(|extension| ends_in(Path::new(&name), extension)) {
                match link {
                    None => samples.push(Sample { name: name.into(), archive: index, offset, size, label: None }),
                    Some(target) => links.push((name, target)),
                }
            } else if with_labels && link.is_none() && field(&name).eq_ignore_ascii_case("cls") {
                classes.push((name, offset, size));
            } else {
                others += 1;
            }
        },
    )
    .map_err(|tar::Damage { offset, problem }| DataError::Archive { path: path.into(), offset, problem })?;

    if !links.is_empty() {
        let by_name: HashMap<&str, &Sample> = samples.iter().map(|sample| (&*sample.name, sample)).collect();
        let linked = |(name, target): (String, String)| {
            by_name.get(target.as_str()).map(|&found| Sample { name: name.into(), ..found.clone() })
        };
        let linked: Vec<Sample> = links.into_iter().filter_map(linked).collect();
        samples.extend(linked);
    }
    let mut labels = HashMap::with_capacity(classes.len());
    for (name, offset, size) in &classes {
        let mut text = vec![0; (*size).min(32) as usize]; // A number is shorter.
        file.read_exact_at(&mut text, *offset).map_err(failed)?;
        let text = String::from_utf8_lossy(&text);
        let label = text.trim().parse().ok().filter(|&label: &u32| (label as usize) < MAX_CLASSES);
        let label = label.ok_or_else(|| DataError::BadLabel {
            archive: path.into(),
            file: name.clone(),
            most: MAX_CLASSES - 1,
            got: format!("{:?}", text.trim()),
        })?;
        labels.insert(key(name), label);
    }
    for sample in &mut samples {
        sample.label = labels.get(key(&sample.name)).copied();
    }
    Ok(Listed { archive, samples, others })
}

/// What a sample's files have in common: the path up to the first dot of the name.
fn key(name: &str) -> &str {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    name[start..].find('.').map_or(name, |dot| &name[..start + dot])
}

/// What tells a sample's files apart: `jpg`, `cls`, `left.png`.
fn field(name: &str) -> &str {
    name[key(name).len()..].trim_start_matches('.')
}

/// Puts `prefix` before all names, unless all have it.
pub fn below(prefix: &str, samples: &mut [Sample]) {
    if !samples.iter().all(|sample| sample.name.starts_with(prefix)) {
        samples.iter_mut().for_each(|sample| sample.name = format!("{prefix}{}", sample.name).into());
    }
}

/// Sorts images bytewise by name, as a folder's, and takes of each sample the one that `wanted` says.
///
/// Errors: two of one name; a sample of several images none of which is said to be meant; none that is wanted.
pub fn in_order(
    mut samples: Vec<Sample>,
    wanted: Option<&str>,
    root: &Path,
    archives: &[Archive],
) -> Result<Vec<Sample>, DataError> {
    let wanted = wanted.map(|wanted| wanted.trim_start_matches('.').to_ascii_lowercase());
    if let Some(wanted) = &wanted {
        let ending = format!(".{wanted}");
        samples.retain(|sample| format!(".{}", field(&sample.name)).to_ascii_lowercase().ends_with(&ending));
        if samples.is_empty() {
            return Err(DataError::NoImages { path: root.into(), found: format!("none that ends in {wanted}") });
        }
    }
    // By sample first, so that its images follow each other.
    samples.sort_by(|a, b| (key(&a.name), &a.name).cmp(&(key(&b.name), &b.name)));
    let archive = |sample: &Sample| archives[sample.archive as usize].path.as_path();
    if let Some([first, second]) = samples.windows(2).find(|two| two[0].name == two[1].name) {
        let place = |sample: &Sample| format!("{} in {}", sample.name, archive(sample).display());
        let (first, second) = (place(first), place(second));
        return Err(DataError::TwoOfOneName { what: "images", folder: root.into(), first, second });
    }
    let mut kept = Vec::with_capacity(samples.len());
    for images in samples.chunk_by(|a, b| key(&a.name) == key(&b.name)) {
        let exact = images.iter().find(|image| wanted.as_deref().is_some_and(|wanted| is(field(&image.name), wanted)));
        match (images, exact) {
            (_, Some(exact)) => kept.push(exact.clone()),
            // Where all have more dots, dots are part of their names: 2019.07.01.jpg, 2019.07.02.jpg.
            ([first, second, ..], None) if images.iter().any(|image| !field(&image.name).contains('.')) => {
                return Err(DataError::TwoInOneSample {
                    archive: archive(first).into(),
                    first: first.name.to_string(),
                    second: second.name.to_string(),
                });
            }
            _ => kept.extend_from_slice(images),
        }
    }
    kept.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    Ok(kept)
}

fn is(field: &str, wanted: &str) -> bool {
    field.eq_ignore_ascii_case(wanted)
}

/// The classes that `.cls` files number, and each image's.
///
/// Errors: an image without one.
pub fn numbered(samples: &[Sample], archives: &[Archive]) -> Result<(ClassTable, Vec<u32>), DataError> {
    let label = |sample: &Sample| {
        sample.label.ok_or_else(|| DataError::NoLabel {
            root: archives[sample.archive as usize].path.clone(),
            file: sample.name.as_ref().into(),
            expected: "a .cls file with a number beside each image",
        })
    };
    let labels: Vec<u32> = samples.iter().map(label).collect::<Result<_, _>>()?;
    let classes = labels.iter().max().map_or(0, |&most| most as usize + 1);
    Ok((ClassTable::numbered(classes)?, labels))
}
