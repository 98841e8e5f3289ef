//! Tar archives through the command line: the same run as from a folder, what may be read, what is an error.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::Path;
use std::process::Command;

use image::RgbImage;
use tempfile::TempDir;

mod common;
use common::{Ended, dbp_host, end, only_run, set, val_losses};

/// `photos/` with `count` pictures of two classes.
fn workplace(count: u32) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for number in 0..count {
        let folder = place.path().join(["photos/n0", "photos/n1"][number as usize % 2]);
        fs::create_dir_all(&folder).unwrap();
        let picture = RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, number as u8]));
        picture.save(folder.join(format!("{number:02}.png"))).unwrap();
    }
    place
}

/// Packs `from` as `docs/data.md` says, into archives of so many files each.
fn pack(from: &Path, to: &Path, each: usize) {
    fs::create_dir_all(to).unwrap();
    let program = "find . -type f | LC_ALL=C sort > \"$0/list\" && split -a 6 -d -l \"$1\" \"$0/list\" \"$0/part-\" \
                   && for part in \"$0\"/part-*; do tar -chf \"$0/${part##*/part-}.tar\" --hard-dereference -T \"$part\"; done \
                   && rm \"$0/list\" \"$0\"/part-*";
    let mut command = Command::new("bash");
    command.current_dir(from).args(["-ec", program]).arg(to).arg(each.to_string());
    assert!(command.status().unwrap().success());
}

/// Runs a script of these lines in the folder.
fn script(folder: &Path, text: &str, options: &[&str]) -> Ended {
    fs::write(folder.join("test.rhai"), text).unwrap();
    let mut command = dbp_host(folder);
    command.args(options).arg("test.rhai");
    end(command)
}

#[test]
fn a_run_from_shards_is_the_run_from_their_folder() {
    let place = workplace(24);
    fs::write(place.path().join("photos/n1/07.png"), "no picture").unwrap();
    pack(&place.path().join("photos"), &place.path().join("shards"), 7);
    assert_eq!(fs::read_dir(place.path().join("shards")).unwrap().count(), 4);
    let run = |data: &str, runs: &str| {
        let mut command = dbp_host(place.path());
        command.arg(common::pretrain()).args(["--runs", runs]);
        let changes =
            [("recipe", "nano"), ("steps", "3"), ("batch", "8"), ("image_size", "32"), ("every", "3"), ("data", data)];
        set(&mut command, &changes);
        let ended = end(command).expect(0);
        let run = only_run(&place.path().join(runs));
        let read = |file: &str| fs::read_to_string(run.join(file)).unwrap();
        (val_losses(&run), read("files.txt"), read("skipped.csv"), ended)
    };
    let folder = run("photos", "a");
    assert!(!folder.0.is_empty());
    for (data, runs) in [("shards", "b"), ("shards/{000000..000003}.tar", "c")] {
        let shards = run(data, runs);
        assert_eq!((&folder.0, &folder.1), (&shards.0, &shards.1), "{data}");
        assert!(shards.2.contains("n1/07.png,") && shards.2.contains("(in 000002.tar)"), "{}", shards.2);
    }
}

#[test]
fn scripts_name_shards_in_several_ways() {
    let place = workplace(9);
    pack(&place.path().join("photos"), &place.path().join("shards"), 4);
    let ended = script(
        place.path(),
        "for shards in [\"shards\", \"shards/{000000..000002}.tar\", [\"shards/000000.tar\", \"shards/00000{1,2}.tar\"]] {\n\
             let d = data::open(#{ shards: shards, labels: \"folders\", channels: 1 });\n\
             print(`${d.len()} ${d.channels} ${d.classes}`);\n\
         }\n\
         let d = data::open(#{ folder: \"shards/{000000..000002}.tar\", labels: \"folders\" });\n\
         print(d.len()); d.describe(); print(d.preview(\"sheet\"));\n\
         print(data::open(\"shards/000002.tar\").files());",
        &[],
    );
    let ended = ended.expect(0);
    assert_eq!(ended.stdout.matches("9 1 [\"n0\", \"n1\"]").count(), 3, "{}", ended.stdout);
    for part in ["archives    3", "images      9", "sheet.png", "[\"n1/07.png\"]"] {
        assert!(ended.stdout.contains(part), "no {part:?} in:\n{}", ended.stdout);
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    let place = workplace(9);
    let shards = place.path().join("project/shards");
    pack(&place.path().join("photos"), &shards, 4);
    let bytes = fs::read(shards.join("000001.tar")).unwrap();
    fs::write(shards.join("cut.tar"), &bytes[..700]).unwrap();
    fs::write(shards.join("x.tar.gz"), &bytes).unwrap();
    pack(&place.path().join("photos"), &place.path().join("elsewhere"), 9);
    let project = place.path().join("project");
    for (argument, expected) in [
        ("\"shards/{000000..000007}.tar\"", "no such file or folder: shards/000003.tar"),
        ("\"shards/{0-7}.tar\"", "braces: expected a range {000..009} or a list {a,b}, got \"shards/{0-7}.tar\""),
        ("\"shards/cut.tar\"", "cut.tar as a tar archive: at byte "),
        (
            "\"shards/x.tar.gz\"",
            "x.tar.gz is compressed: images are read from their place in an archive, so unpack it (gunzip)",
        ),
        ("\"../elsewhere/000000.tar\"", "the script may not read"),
        ("\"../elsewhere/{000000..000000}.tar\"", "the script may not read"),
        ("#{ shards: \"shards/000000.tar\", masks: \"masks\", classes: 2 }", "masks are read from folders"),
        ("#{ shards: [] }", "shards: expected a path"),
        ("#{ shards: \"shards/000000.tar\", folder: \"shards\" }", "expected one of folder, shards and name"),
        ("#{ shards: \"shards/000000.tar\", labels: \"cls\" }", "expected a .cls file with a number beside each image"),
        ("\"shards/{000000,000000}.tar\"", "two images of one name"),
    ] {
        let ended = script(&project, &format!("data::open({argument});"), &[]).expect(1);
        assert!(ended.stderr.contains(expected), "{argument}:\n{}", ended.stderr);
        assert!(ended.stderr.contains("test.rhai:1:"), "{argument}:\n{}", ended.stderr);
    }
    let open = "print(data::open(\"../elsewhere/{000000..000000}.tar\").len());";
    assert!(script(&project, open, &["--allow-read", "../elsewhere"]).expect(0).stdout.starts_with('9'));
    let named = "print(data::open(arg(\"data\", \"\")).len());";
    let given = "data=../elsewhere/{000000..000000}.tar";
    assert!(script(&project, named, &["--set", given]).expect(0).stdout.starts_with('9'));
}
