"""Scores of label maps, counted one pixel at a time with sets and loops: what `src/confusion.rs` is checked against.

    python tests/reference/scores.py        # writes scores.safetensors; numpy, safetensors

Per case: `annotation`, `prediction` [N, H, W] uint8 (255 in the annotation does not count), and in the metadata key `config`, as JSON:
iou and accuracy per class (null where a class is absent), miou, mean_accuracy, pixel_accuracy.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def scores(annotation, prediction, classes):
    where = {k: (set(), set()) for k in range(classes)}
    right = counted = 0
    for place, (a, p) in enumerate(zip(annotation.ravel().tolist(), prediction.ravel().tolist())):
        if a == 255:
            continue
        counted += 1
        right += a == p
        where[a][0].add(place)
        where[p][1].add(place)
    iou, accuracy = [], []
    for truth, said in where.values():
        iou.append(len(truth & said) / len(truth | said) if truth | said else None)
        accuracy.append(len(truth & said) / len(truth) if truth else None)
    mean = lambda values: (lambda v: sum(v) / len(v) if v else None)([x for x in values if x is not None])
    return {
        "iou": iou, "accuracy": accuracy, "miou": mean(iou), "mean_accuracy": mean(accuracy),
        "pixel_accuracy": right / counted if counted else None,
    }


def main():
    rng = np.random.default_rng(0)
    tensors, found = {}, {}
    for case, (classes, present, shape) in {
        "two": (2, [0, 1], (1, 24, 31)),
        "eleven": (11, list(range(11)), (3, 20, 17)),
        "some_absent": (150, [3, 7, 20, 149], (2, 16, 16)),
        "only_predicted": (4, [0, 2], (1, 9, 9)),
        "all_ignored": (3, [], (1, 4, 4)),
    }.items():
        annotation = rng.choice(np.array(present + [255], np.uint8), shape)
        guess = rng.choice(np.array(present or [0], np.uint8), shape)
        prediction = np.where((rng.random(shape) < 0.6) & (annotation != 255), annotation, guess).astype(np.uint8)
        if case == "only_predicted":
            prediction[0, 0, :5] = 3
        tensors |= {f"{case}.annotation": annotation, f"{case}.prediction": prediction}
        found[case] = {"classes": classes} | scores(annotation, prediction, classes)
    path = Path(__file__).with_name("scores.safetensors")
    save_file(tensors, path, metadata={"config": json.dumps(found)})
    print(path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
