//! Archives against the folders that they are made from; and archives that are broken.

use std::fs;
use std::path::{Path, PathBuf};

use super::tar::{Damage, Member, members};
use super::*;
use crate::data::testing::{fill_folder, gradient, png_bytes};
use crate::data::{Batch, Crop, Dataset, Folder, Loader, LoaderConfig, Spec};

/// A header of ustar.
fn header(name: &str, kind: u8, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    summed(block)
}

/// The header with the sum that it ought to have.
fn summed(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = [header(name, kind, content.len()).as_slice(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|&n| n == rest + n.to_string().len()).unwrap();
        format!("{length} {key}={value}\n")
    };
    entry("pax", b'x', records.iter().map(record).collect::<String>().as_bytes())
}

/// With the blocks that end an archive.
fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

fn list(bytes: &[u8]) -> Result<Vec<Member>, Damage> {
    let mut found = Vec::new();
    let read = |buffer: &mut [u8], offset: u64| {
        let from = usize::try_from(offset).unwrap();
        let end = from.checked_add(buffer.len()).filter(|&end| end <= bytes.len());
        buffer.copy_from_slice(&bytes[from..end.ok_or(std::io::ErrorKind::UnexpectedEof)?]);
        Ok(())
    };
    members(read, bytes.len() as u64, |member| found.push(member))?;
    Ok(found)
}

fn names(bytes: &[u8]) -> Vec<String> {
    list(bytes).unwrap().into_iter().map(|member| member.name).collect()
}

fn problem(bytes: &[u8]) -> String {
    let Damage { offset, problem } = list(bytes).unwrap_err();
    format!("{offset}: {problem}")
}

/// Archives the files of `root` that are in `files`.
fn pack(root: &Path, files: &[&str], to: &Path) {
    let entries: Vec<Vec<u8>> =
        files.iter().map(|file| entry(file, b'0', &fs::read(root.join(file)).unwrap())).collect();
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::write(to, archive(&entries)).unwrap();
}

/// The files of a folder dealt out to so many archives, in an order of their own.
fn deal(root: &Path, to: &Path, count: usize, backwards: bool) {
    let mut files: Vec<String> =
        Folder::open(root).map(|folder| (0..folder.len()).map(|i| folder.name(i)).collect()).unwrap();
    if backwards {
        files.reverse();
    }
    for shard in 0..count {
        let own: Vec<&str> = files.iter().skip(shard).step_by(count).map(String::as_str).collect();
        pack(root, &own, &to.join(format!("{shard:03}.tar")));
    }
}

fn open(path: &Path) -> Result<Dataset, DataError> {
    Dataset::open_with_cache(&Spec::Folder(path.into()), 0)
}

fn error(path: &Path) -> String {
    open(path).unwrap_err().to_string()
}

/// Two epochs, crops and all.
fn batches(dataset: &Dataset) -> Vec<Batch> {
    let config = LoaderConfig {
        batch: 4,
        micro_batches: 2,
        image_size: (8, 8),
        crop: Crop::Random,
        flip: true,
        seed: 5,
        workers: 2,
    };
    let loader = Loader::new(dataset.clone(), config).unwrap();
    let steps = 2 * loader.steps_per_epoch();
    assert!(steps >= 2);
    (0..steps).flat_map(|step| [0, 1].map(|micro| loader.micro(step, micro).unwrap())).collect()
}

/// Whatever a script may ask of a dataset comes out the same.
fn assert_same(folder: &Dataset, shards: &Dataset) {
    assert_eq!(folder.files(), shards.files());
    assert_eq!(batches(folder), batches(shards));
    assert_eq!(folder.subset_count(5, 3).unwrap().files(), shards.subset_count(5, 3).unwrap().files());
    let (own, other) = (folder.split(0.3, 1).unwrap(), shards.split(0.3, 1).unwrap());
    assert_eq!((own.0.files(), own.1.files()), (other.0.files(), other.1.files()));
    assert_eq!(batches(&own.0), batches(&other.0));
}

#[test]
fn any_shards_of_a_folder_give_its_batches() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("photos");
    fill_folder(&root.join("a"), 7);
    fill_folder(&root.join("b-2/deep"), 6);
    fs::write(root.join("a/003.png"), "no picture").unwrap();
    let folder = open(&root).unwrap();
    for (count, backwards) in [(1, false), (1, true), (3, false), (4, true)] {
        let to = dir.path().join(format!("{count}-{backwards}"));
        deal(&root, &to, count, backwards);
        let shards = open(&to).unwrap();
        assert_same(&folder, &shards);
        let [(name, reason)] = &shards.skipped()[..] else { panic!("{:?}", shards.skipped()) };
        assert_eq!(name, "a/003.png");
        assert!(reason.contains("unknown first bytes (in ") && reason.ends_with(".tar)"), "{reason}");
    }
    // An archive by its name is a set of its own.
    assert_same(&folder, &open(&dir.path().join("1-true/000.tar")).unwrap());
}

#[test]
fn train_and_val_are_the_split_wherever_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("photos");
    fill_folder(&root.join("train/x"), 9);
    fill_folder(&root.join("val/x"), 4);
    let folder = open(&root).unwrap();
    deal(&root, &dir.path().join("inside"), 2, false);
    deal(&root.join("train"), &dir.path().join("folders/train"), 2, false);
    deal(&root.join("val"), &dir.path().join("folders/val"), 1, false);
    let named = dir.path().join("named");
    for (part, count) in [("train", 2), ("val", 1)] {
        deal(&root.join(part), &dir.path().join("aside"), count, false);
        fs::create_dir_all(&named).unwrap();
        for shard in 0..count {
            let from = dir.path().join(format!("aside/{shard:03}.tar"));
            fs::rename(from, named.join(format!("photos-{part}-{shard:06}.tar"))).unwrap();
        }
    }
    pack(&root, &["train/x/000.png"], &named.join("photos-test-0.tar")); // No part of it.
    for shards in ["inside", "folders", "named"] {
        assert_same(&folder, &open(&dir.path().join(shards)).unwrap());
    }
    // Of one part alone there is nothing to split off.
    let train = open(&dir.path().join("folders/train")).unwrap();
    assert_same(&open(&root.join("train")).unwrap(), &train);
}

fn asked(archives: &[&Path], change: impl FnOnce(&mut FolderSpec)) -> Result<Dataset, DataError> {
    let mut images = FolderSpec::new(archives[0]);
    change(&mut images);
    let archives = archives.iter().map(|&path| path.into()).collect();
    Dataset::open_with_cache(&Spec::Shards(ShardsSpec { archives, images }), 0)
}

#[test]
fn labels_are_numbers_or_read_off_paths() {
    let dir = tempfile::tempdir().unwrap();
    let image = png_bytes(&gradient(12, 10, 3));
    let (png, json) = (|name: &str| entry(name, b'0', &image), entry("n1/a.json", b'0', b"{}"));
    let cls = |name: &str, text: &str| entry(name, b'0', text.as_bytes());
    let path = dir.path().join("x.tar");
    let write = |entries: &[Vec<u8>]| fs::write(&path, archive(entries)).unwrap();
    write(&[png("n1/a.png"), cls("n1/a.cls", "2\n"), json, cls("n0/b.cls", "0"), png("n0/b.PNG")]);
    let numbered = asked(&[&path], |images| images.labels = Some(Labels::Cls)).unwrap();
    assert_eq!(numbered.files(), ["n0/b.PNG", "n1/a.png"]);
    assert_eq!((numbered.label(0), numbered.label(1), numbered.classes().unwrap().len()), (Some(0), Some(2), 3));
    let by_folder = asked(&[&path], |images| images.labels = Some(Labels::Folders)).unwrap();
    assert_eq!((by_folder.label(0), by_folder.label(1)), (Some(0), Some(1)));
    assert_eq!(by_folder.classes().unwrap().names, ["n0", "n1"]);

    let error = || asked(&[&path], |images| images.labels = Some(Labels::Cls)).unwrap_err().to_string();
    write(&[png("a.png"), cls("a.cls", "0"), png("b.png")]);
    assert!(error().starts_with("no class can be read off b.png in "), "{}", error());
    for wrong in ["dog", "", "-1", "65536", "1.5", "99999999999999999999999999999999999999999"] {
        write(&[png("a.png"), cls("a.cls", wrong)]);
        assert!(error().contains("expected a class as a whole number from 0 to 65535, got \""), "{}", error());
    }
    assert!(open(&path).unwrap().classes().is_none()); // Unless they are asked for.
}

#[test]
fn two_images_of_a_sample_are_told_apart_by_their_extension() {
    let dir = tempfile::tempdir().unwrap();
    let image = png_bytes(&gradient(12, 10, 3));
    let path = dir.path().join("x.tar");
    let write = |names: &[&str]| {
        let entries: Vec<_> = names.iter().map(|name| entry(name, b'0', &image)).collect();
        fs::write(&path, archive(&entries)).unwrap();
    };
    write(&["a.jpg", "a.seg.png", "b.jpg", "b.seg.png", "b.d/c.jpg"]);
    let message = error(&path);
    assert!(message.ends_with("a.jpg and a.seg.png; say with image_extension which is meant"), "{message}");
    let of = |extension: &str| asked(&[&path], |images| images.extension = Some(extension.into())).unwrap().files();
    assert_eq!(of("JPG"), ["a.jpg", "b.d/c.jpg", "b.jpg"]);
    assert_eq!(of("seg.png"), ["a.seg.png", "b.seg.png"]);
    assert_eq!(of(".png"), ["a.seg.png", "b.seg.png"]);
    write(&["2019.07.01.jpg", "2019.07.02.jpg"]);
    assert_eq!(open(&path).unwrap().len(), 2);
    write(&["x_a.png", "x_b.png", "y_b.png", "y_a.png"]);
    let pair = Some(["_a".to_owned(), "_b".to_owned()]);
    let pairs = asked(&[&path], |images| (images.pair, images.channels) = (pair, 2)).unwrap();
    assert_eq!((pairs.files(), pairs.load(1).unwrap().channels), (vec!["x_a.png".into(), "y_a.png".into()], 2));
}

#[test]
fn what_is_no_dataset_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        fs::write(dir.path().join(name), bytes).unwrap();
        dir.path().join(name)
    };
    let image = png_bytes(&gradient(12, 10, 3));
    let one = archive(&[entry("a/1.png", b'0', &image)]);
    let (first, second) = (file("0.tar", &one), file("1.tar", &one));
    let message = error(dir.path());
    assert!(message.starts_with("two images of one name in ") && message.contains("a/1.png in "), "{message}");
    assert!(message.contains("0.tar and a/1.png in ") && message.ends_with("1.tar"), "{message}");
    fs::remove_file(second).unwrap();
    assert_eq!(open(dir.path()).unwrap().len(), 1);
    fs::remove_file(first).unwrap();

    let message = error(&file("empty.tar", &archive(&[entry("a.txt", b'0', b"x")])));
    assert!(message.ends_with("found 1 other files in 1 archives"), "{message}");
    let message = error(&file("zipped.tar", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]));
    assert!(message.ends_with("so unpack it (gunzip)"), "{message}");
    fs::remove_file(dir.path().join("empty.tar")).unwrap();
    fs::remove_file(dir.path().join("zipped.tar")).unwrap();
    let zipped = file("x.tar.zst", b"");
    assert!(error(dir.path()).ends_with("so unpack it (unzstd)") && error(&zipped).ends_with("so unpack it (unzstd)"));
    let message = error(&file("short.tar", b"hello"));
    assert!(message.contains("short.tar as a tar archive: at byte 0: a header of 512 bytes"), "{message}");
    assert!(error(&file("x.txt", b"hello")).ends_with("or an archive that ends in .tar"));
    assert!(asked(&[dir.path()], |_| ()).is_err());
}

#[test]
fn all_that_archives_write_is_read() {
    let long = format!("./{}/x.jpg", "long".repeat(60));
    let mut prefixed = header("b.jpg", b'0', 0);
    prefixed[345..348].copy_from_slice(b"dir");
    let mut gnu = prefixed;
    gnu[257..265].copy_from_slice(b"ustar  \0"); // Here no prefix stands.
    let mut base256 = header("c.jpg", b'0', 0);
    base256[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    let mut block = vec![0; 512];
    block[..3].copy_from_slice(b"abc");
    let mut signed = header("d\u{e9}.jpg", b'0', 0);
    let sum: i32 =
        signed.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { i32::from(b as i8) }).sum();
    signed[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut link = header("link.jpg", b'1', 77);
    link[157..164].copy_from_slice(b"./c.jpg");
    let bytes = archive(&[
        entry("./", b'5', b""),
        entry("././@LongLink", b'L', format!("{long}\0").as_bytes()),
        entry("cut", b'0', b"12345"),
        summed(prefixed).to_vec(),
        summed(gnu).to_vec(),
        summed(base256).to_vec(),
        block,
        pax(&[("mtime", "1.5"), ("path", "é/\n ü.jpg"), ("size", "600")]),
        entry("short", b'0', &[7; 600]), // The same size here: what follows shows that it is read.
        entry("g", b'g', b"19 comment=nothing\n"),
        summed(link).to_vec(),
        header("nowhere.jpg", b'1', 0).to_vec(),
        header("soft.jpg", b'2', 0).to_vec(),
        entry("K", b'K', b"where.jpg\0"),
        entry("old/", 0, b""),
        entry("/abs//./e.jpg", 0, b"x"),
        entry(".hidden/f.jpg", b'0', b"x"),
        entry("a/._g.jpg", b'0', b"x"),
        entry("unknown.jpg", b'Z', b"x"),
        signed.to_vec(),
    ]);
    let found = list(&bytes).unwrap();
    let expected = [&long[2..], "dir/b.jpg", "b.jpg", "c.jpg", "é/\n ü.jpg", "link.jpg", "abs/e.jpg", "d\u{e9}.jpg"];
    assert_eq!(found.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), expected);
    assert_eq!(found[5].link.as_deref(), Some("c.jpg"));
    assert!(found.iter().filter(|member| member.link.is_some()).count() == 1);
    let content = |i: usize| &bytes[found[i].offset as usize..][..found[i].size as usize];
    assert_eq!((content(0), content(3), content(4)), (&b"12345"[..], &b"abc"[..], &[7; 600][..]));
}

#[test]
fn a_hard_link_is_an_image_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut link = header("b.png", b'1', 0);
    link[157..162].copy_from_slice(b"a.png");
    let path = dir.path().join("x.tar");
    fs::write(&path, archive(&[entry("a.png", b'0', &png_bytes(&gradient(12, 10, 3))), summed(link).to_vec()]))
        .unwrap();
    let opened = open(&path).unwrap();
    assert_eq!((opened.files(), opened.load(0)), (vec!["a.png".into(), "b.png".into()], opened.load(1)));
}

#[test]
fn no_cut_is_silent() {
    let bytes = archive(&[entry("a.jpg", b'0', &[1; 700]), pax(&[("path", "b.jpg")]), entry("x", b'0', b"123")]);
    let whole = names(&bytes);
    assert_eq!(whole, ["a.jpg", "b.jpg"]);
    for length in 0..bytes.len() {
        match list(&bytes[..length]) {
            Ok(found) => assert!(length >= bytes.len() - 512 && found.len() == 2, "{length}"),
            Err(Damage { offset, problem }) => {
                assert!(offset <= length as u64 && problem.contains("the archive was cut off"), "{length}: {problem}");
            }
        }
    }
    let twice = [bytes.clone(), bytes].concat();
    assert!(problem(&twice).contains("more follows behind the end"), "{}", problem(&twice));
}

#[test]
fn hostile_numbers_are_refused() {
    let refused = |header: [u8; 512]| problem(&archive(&[summed(header).to_vec(), vec![0; 512]]));
    let with_size = |size: &[u8; 12]| {
        let mut block = header("a.jpg", b'0', 0);
        block[124..136].copy_from_slice(size);
        block
    };
    assert!(refused(with_size(b"77777777777\0")).contains("a.jpg has 8589934591 bytes, of which 1536 are there"));
    let mut most = [0xff; 12];
    assert_eq!(refused(with_size(&most)), "0: the size of a file is no number"); // It is negative.
    most[0] = 0x80;
    assert_eq!(refused(with_size(&most)), "0: the size of a file is no number"); // 2^88.
    most[..4].copy_from_slice(&[0x80, 0, 0, 0]);
    assert!(refused(with_size(&most)).contains("18446744073709551615 bytes"));
    assert_eq!(refused(with_size(b"12x\0\0\0\0\0\0\0\0\0")), "0: the size of a file is no number");
    let huge = archive(&[entry("L", b'L', &vec![b'a'; (1 << 20) + 1])]);
    assert!(problem(&huge).contains("a name or a record of 1048577 bytes"));
    for broken in
        ["8 path=a\n", "x path=a\n", "99 path=a\n", "8 patha\n", "0 ", "18446744073709551616 a=b\n", "12 size=big\n"]
    {
        let bytes = archive(&[entry("pax", b'x', broken.as_bytes()), entry("a.jpg", b'0', b"")]);
        assert!(problem(&bytes).contains("a pax record is broken"), "{broken:?}");
    }
    let sparse = archive(&[pax(&[("GNU.sparse.major", "1")]), entry("a.jpg", b'0', b"")]);
    assert!(problem(&sparse).contains("a.jpg is stored without its holes"));
    assert!(problem(&[b'x'; 2048]).starts_with("0: it does not begin with the header of a file"));
    let mut damaged = archive(&[entry("a.jpg", b'0', b"1"), entry("b.jpg", b'0', b"2")]);
    damaged[1024] ^= 1;
    assert!(problem(&damaged).starts_with("1024: expected the header of a file"));
}

#[test]
fn flipped_bits_never_break_the_reader() {
    let bytes = archive(&[
        entry("./@LongLink", b'L', "d/a.jpg\0".as_bytes()),
        entry("x", b'0', &[1; 700]),
        pax(&[("path", "b.jpg"), ("size", "3")]),
        entry("y", b'0', b"123"),
    ]);
    let mut rng = crate::random::Key::new(7, crate::random::Stream::Split).rng();
    let (mut damaged, mut read) = (0, 0);
    for round in 0..4000 {
        let mut flipped = bytes.clone();
        for _ in 0..1 + round % 3 {
            let bit = rng.next_u64() as usize % (8 * flipped.len());
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        // Half of the headers are made to agree again, so that what they say is taken at its word.
        if round % 2 == 0 {
            for block in flipped.as_chunks_mut::<512>().0 {
                if &block[257..262] == b"ustar" {
                    *block = summed(*block);
                }
            }
        }
        match list(&flipped) {
            Ok(found) => {
                read += 1;
                assert!(found.iter().all(|member| member.offset + member.size <= flipped.len() as u64));
            }
            Err(_) => damaged += 1,
        }
    }
    assert!(damaged > 200 && read > 200, "{damaged} {read}");
}

#[test]
fn stamps_tell_changed_archives() {
    let dir = tempfile::tempdir().unwrap();
    fill_folder(&dir.path().join("photos"), 3);
    deal(&dir.path().join("photos"), &dir.path().join("shards"), 2, false);
    let shards = dir.path().join("shards");
    let opened = open(&shards).unwrap();
    let stamp = opened.stamp();
    assert_eq!(stamp, open(&shards).unwrap().stamp());
    let mut bytes = fs::read(shards.join("001.tar")).unwrap();
    bytes.extend([0; 512]);
    fs::write(shards.join("001.tar"), bytes).unwrap();
    assert_ne!(stamp, open(&shards).unwrap().stamp());
    assert!(opened.load(1).unwrap_err().starts_with("the archive has changed since it was opened"));
}
