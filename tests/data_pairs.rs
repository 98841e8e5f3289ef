//! Images with masks, through the command line: what is opened, what is skipped with its reason, what is an error.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::Path;

use image::{ColorType, GrayImage, ImageEncoder, Luma, RgbImage};
use tempfile::TempDir;

mod common;
use common::{Ended, dbp_host, end};

const CLASSES: &str = "classes: [\"background\", \"left\", \"right\"]";

/// `count` pictures of 40×30 pixels with masks: label 1 on the left, 2 on the right.
fn workplace(count: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..count {
        write_pair(folder.path(), &format!("{number:02}"), &mask(40, 30));
    }
    folder
}

fn mask(width: u32, height: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| Luma([if y < 5 { 0 } else { 1 + u8::from(x >= 20) }]))
}

fn write_pair(folder: &Path, name: &str, mask: &GrayImage) {
    fs::create_dir_all(folder.join("images")).unwrap();
    fs::create_dir_all(folder.join("masks")).unwrap();
    let picture = RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, 90]));
    picture.save(folder.join(format!("images/{name}.png"))).unwrap();
    mask.save(folder.join(format!("masks/{name}.png"))).unwrap();
}

/// Runs a script of these lines in the folder.
fn script(folder: &Path, text: &str) -> Ended {
    fs::write(folder.join("test.rhai"), text).unwrap();
    let mut command = dbp_host(folder);
    command.arg("test.rhai");
    end(command)
}

fn open(options: &str) -> String {
    format!("let d = data::open(#{{ images: \"images\", masks: \"masks\", {options} }});\n")
}

const LOAD: &str = "let l = data::pair_loader(d, #{ batch: 4, image_size: 32, long_edge: [24, 48], workers: 1 });\n\
                    for step in 0..6 { for b in l.micro(step) { if b.masks.shape != [4, 32, 32] { throw \"shape\" } } }\n";

#[test]
fn pairs_become_batches_and_whole_images_for_validation() {
    let place = workplace(9);
    write_pair(place.path(), "05", &mask(40, 30));
    let text = open(CLASSES)
        + LOAD
        + "let parts = d.split(0.4);\n\
           let v = l.validation(parts.val);\n\
           for b in v.batches() { print(`${b.images.shape} ${b.masks.shape} ${b.names}`); }\n\
           for b in l.validation(data::open(\"./images\")).batches() { print(`alone ${b.images.shape} ${b.has_masks}`); }\n\
           print(d.classes); print(d.class_frequencies()); print(d.class_weights()); d.describe();\n\
           print(d.preview(\"sheet\"));";
    let ended = script(place.path(), &text).expect(0);
    for part in [
        "[3, 3, 24, 32] [3, 30, 40]",
        "alone [4, 3, 24, 32] false",
        "\"background\", \"left\", \"right\"",
        "0.1666",
        "images      9",
        "sheet.png",
    ] {
        assert!(ended.stdout.contains(part), "no {part:?} in:\n{}", ended.stdout);
    }
    assert!(place.path().join("previews/sheet.png").is_file());
}

#[test]
fn what_does_not_fit_is_skipped_with_its_reason() {
    let place = workplace(12);
    let folder = place.path();
    write_pair(folder, "a-size", &mask(39, 30));
    let mut beyond = mask(40, 30);
    beyond.put_pixel(7, 20, Luma([9]));
    write_pair(folder, "b-label", &beyond);
    write_pair(folder, "c-ignored", &GrayImage::from_pixel(40, 30, Luma([255])));
    write_pair(folder, "d-corrupt", &mask(40, 30));
    let bytes = fs::read(folder.join("masks/d-corrupt.png")).unwrap();
    fs::write(folder.join("masks/d-corrupt.png"), &bytes[..bytes.len() / 2]).unwrap();
    write_pair(folder, "e-color", &mask(40, 30));
    RgbImage::from_pixel(40, 30, image::Rgb([1, 2, 3])).save(folder.join("masks/e-color.png")).unwrap();
    fs::write(folder.join("images/f-empty.png"), b"").unwrap();
    fs::write(folder.join("masks/f-empty.png"), b"").unwrap();
    let ended = script(folder, &(open(CLASSES) + "d.describe();\n" + LOAD + "print(d.skipped());")).expect(0);
    let parts = [
        "skipped     5;",
        "all ignored 1",
        "the image has 40×30 pixels, its mask 39×30",
        "the mask has the label 9 at x 7, y 20, but there are 3 classes (0 to 2)",
        "every pixel of the mask is ignored",
        "truncated",
        "the mask has colors",
        "the file is empty",
    ];
    for part in parts {
        assert!(ended.stdout.contains(part), "no {part:?} in:\n{}", ended.stdout);
    }
}

#[test]
fn masks_of_colors_and_of_gray_levels() {
    let place = workplace(0);
    let folder = place.path();
    for number in 0..4 {
        write_pair(folder, &format!("{number}"), &mask(40, 30));
        let colors: Vec<u8> =
            (0..40 * 30).flat_map(|i| if i % 40 < 10 { [255, 0, 0, 9] } else { [0, 0, 0, 255] }).collect();
        let file = fs::File::create(folder.join(format!("masks/{number}.png"))).unwrap();
        let encoder = image::codecs::png::PngEncoder::new(file);
        encoder.write_image(&colors, 40, 30, ColorType::Rgba8.into()).unwrap();
    }
    let by_color = "colors: #{ background: [0, 0, 0], red: [255, 0, 0] }, classes: [\"background\", \"red\"]";
    let gray = "binary_threshold: 50";
    for options in [by_color, gray] {
        let ended = script(folder, &(open(options) + "print(d.class_frequencies());")).expect(0);
        assert!(ended.stdout.contains("[0.75, 0.25]"), "{options}: {}", ended.stdout);
    }
    let unknown = "colors: [[0, 0, 0], [0, 0, 255]]";
    let ended = script(folder, &(open(unknown) + "d.describe();")).expect(1);
    assert!(ended.stderr.contains("the mask has the color [255, 0, 0] at x 0, y 0"), "{}", ended.stderr);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let place = workplace(3);
    let folder = place.path();
    let cases: [(&str, &[&str]); 8] = [
        ("", &["the option classes is missing"]),
        ("classes: 300", &["classes: expected at most 255", "300"]),
        ("classes: [\"a\", \"a\"]", &["\"a\" twice"]),
        ("classes: 3, ignore: 1", &["ignore: 1 is the label of \"class 1\""]),
        ("classes: 3, binary_threshold: 128", &["expected 2 with binary_threshold, got 3"]),
        ("classes: 3, channels: 4", &["channels: expected 1, 2 or 3, got 4"]),
        ("classes: 3, ignroe: 255", &["ignroe", "did you mean `ignore`?"]),
        ("classes: 3, val_images: \"images\"", &["val_images and val_masks belong together"]),
    ];
    for (options, parts) in cases {
        let ended = script(folder, &open(options)).expect(1);
        for part in parts {
            assert!(ended.stderr.contains(part), "{options}: no {part:?} in:\n{}", ended.stderr);
        }
    }
    fs::remove_file(folder.join("masks/01.png")).unwrap();
    let ended = script(folder, &open(CLASSES)).expect(1);
    assert!(ended.stderr.contains("1 of 3 images") && ended.stderr.contains("the first: 01.png"), "{}", ended.stderr);
    fs::remove_file(folder.join("images/01.png")).unwrap();
    fs::remove_file(folder.join("images/02.png")).unwrap();
    let ended = script(folder, &open(CLASSES)).expect(1);
    assert!(ended.stderr.contains("1 of 2 masks") && ended.stderr.contains("02.png"), "{}", ended.stderr);
    for path in ["../out.png", "/tmp/out.png", ""] {
        let text = format!("data::open(#{{ name: \"wirebond\", size: 32, count: 2 }}).preview(\"{path}\");");
        let ended = script(folder, &text).expect(1);
        assert!(ended.stderr.contains("path: expected one inside the run directory"), "{}", ended.stderr);
    }
}

#[test]
fn images_without_masks_say_so() {
    let place = workplace(4);
    let cases = [
        ("data::pair_loader(data::open(\"images\"), #{ batch: 2, image_size: 32 });", "this dataset has no masks"),
        ("data::open(\"images\").class_weights();", "this dataset has no classes"),
        (
            "let l = data::loader(data::open(\"images\"), #{ batch: 2, image_size: 32 }); for b in l.micro(0) { b.masks }",
            "this batch has no masks",
        ),
        (
            "let l = data::loader(data::open(\"images\"), #{ batch: 2, image_size: 32 }); for b in l.micro(0) { b.labels }",
            "this batch has no labels",
        ),
    ];
    for (text, part) in cases {
        let ended = script(place.path(), &text.replace("\"images\"", "\"./images\"")).expect(1);
        assert!(ended.stderr.contains(part), "no {part:?} in:\n{}", ended.stderr);
    }
}

#[test]
fn labels_are_read_off_paths() {
    let place = tempfile::tempdir().unwrap();
    for (class, count) in [("cat", 3), ("dog", 5)] {
        fs::create_dir_all(place.path().join("pets").join(class)).unwrap();
        for number in 0..count {
            let file = place.path().join(format!("pets/{class}/{class}_{number}.png"));
            RgbImage::from_pixel(20, 20, image::Rgb([number; 3])).save(file).unwrap();
        }
    }
    for labels in ["folders", "prefix"] {
        let text = format!(
            "let d = data::open(#{{ folder: \"pets\", labels: \"{labels}\", channels: 1 }});\n\
             print(d.classes); print(d.class_frequencies()); d.describe();\n\
             let l = data::loader(d, #{{ batch: 4, image_size: 16 }});\n\
             for b in l.micro(0) {{ print(`${{b.images.shape}} ${{b.labels.shape}}`); }}\n\
             for b in l.validation(d).batches() {{ print(b.names.len()); }}"
        );
        let ended = script(place.path(), &text).expect(0);
        for part in ["[\"cat\", \"dog\"]", "[0.375, 0.625]", "[4, 1, 16, 16] [4]"] {
            assert!(ended.stdout.contains(part), "no {part:?} in:\n{}", ended.stdout);
        }
    }
}
