//! Scores of random label maps against `tests/reference/scores.py`, which counts pixel by pixel.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use common::reference;
use dbp_host::confusion::Confusion;
use dbp_host::train::segmentation;
use serde_json::Value;
use tch::{Kind, Tensor};

#[test]
fn scores_agree_with_counting_by_hand() {
    let (cases, tensors) = reference("scores");
    let map = |name: String| tensors[&name].to_kind(Kind::Int64);
    for (case, expected) in cases.as_object().unwrap() {
        let classes = expected["classes"].as_u64().unwrap() as usize;
        let (annotation, prediction) = (map(format!("{case}.annotation")), map(format!("{case}.prediction")));
        let mut confusion = Confusion::new(classes);
        // Image by image, as validation adds them.
        for i in 0..annotation.size()[0] {
            segmentation::add(&mut confusion, &annotation.narrow(0, i, 1), &prediction.narrow(0, i, 1)).unwrap();
        }
        let same = |what: &str, ours: Option<f64>, theirs: &Value| match (ours, theirs.as_f64()) {
            (Some(ours), Some(theirs)) => assert!((ours - theirs).abs() < 1e-12, "{case} {what}: {ours} {theirs}"),
            (ours, theirs) => assert_eq!(ours, theirs, "{case} {what}"),
        };
        for class in 0..classes {
            same(&format!("IoU of {class}"), confusion.iou(class), &expected["iou"][class]);
            same(&format!("accuracy of {class}"), confusion.accuracy(class), &expected["accuracy"][class]);
        }
        same("mIoU", confusion.miou(), &expected["miou"]);
        same("mean accuracy", confusion.mean_accuracy(), &expected["mean_accuracy"]);
        same("pixel accuracy", confusion.pixel_accuracy(), &expected["pixel_accuracy"]);
    }
}

#[test]
fn labels_beyond_the_classes_are_refused() {
    let map = |label: i64| Tensor::from_slice(&[0, label]).view([1, 1, 2]);
    let mut confusion = Confusion::new(2);
    for (annotation, prediction, what) in [(2, 0, "annotation"), (0, 2, "prediction"), (-1, 0, "annotation")] {
        let err = segmentation::add(&mut confusion, &map(annotation), &map(prediction)).unwrap_err();
        assert_eq!(err.to_string(), format!("{what}: a label is beyond the 2 classes"));
    }
    let err = segmentation::add(&mut confusion, &map(0), &map(0).view([1, 2, 1])).unwrap_err();
    assert!(err.to_string().starts_with("prediction: expected shape [1, 1, 2]"), "{err}");
    assert_eq!(confusion, Confusion::new(2));
}
