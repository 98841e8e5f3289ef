#!/usr/bin/env python3
"""How long `dbp-host watch` takes from a save to the next version's first step, in seconds: nano, batch 256, images in memory.

    python3 benches/watch_restart.py [--host target/release/dbp-host] [--saves 5]

Each save changes the learning rate, so the run is stopped at a step boundary, saved, and started anew in the same process.
Printed are medians: `stopped_to_started` is what watching itself costs (the checkpoint is written before that), and
`stopped_to_first_step` has the first step in it. `save_to_stopped` depends on how far the step in progress was.
"""

import argparse
import pathlib
import statistics
import subprocess
import tempfile
import time

SCRIPT = """
import "std/mae" as mae;
let recipe = mae::recipe("nano", #{ steps: 100000, every: 100000, lr: 0.00LR });
let images = data::open("wirebond");
let model = mae::build(recipe, images);
model.decorrelate(["encoder.**"], recipe.dbp);
mae::pretrain(model, images, recipe);
fn on_step(run) { print(`step ${run.step}`); }
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="target/release/dbp-host")
    parser.add_argument("--saves", type=int, default=5)
    args = parser.parse_args()
    host = str(pathlib.Path(args.host).resolve())
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder) / "exp.rhai"
        script.write_text(SCRIPT.replace("LR", "10"))
        command = [host, "watch", "exp.rhai", "--device", "cpu"]
        watch = subprocess.Popen(
            command, cwd=folder, text=True, bufsize=1, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        times = {"save_to_stopped": [], "stopped_to_started": [], "stopped_to_first_step": []}

        def until(found):
            for line in watch.stdout:
                if found(line):
                    return time.monotonic()
            raise SystemExit("watch ended")

        until(lambda line: line.startswith("step 12"))  # More than an epoch: every image was made.
        for number in range(args.saves):
            script.write_text(SCRIPT.replace("LR", str(11 + number)))
            saved = time.monotonic()
            stopped = until(lambda line: "stopped at step" in line)
            started = until(lambda line: line.startswith("runs/"))
            first = until(lambda line: line.strip() == "step 1")
            times["save_to_stopped"].append(stopped - saved)
            times["stopped_to_started"].append(started - stopped)
            times["stopped_to_first_step"].append(first - stopped)
            until(lambda line: line.strip() == "step 3")
        watch.terminate()
        watch.wait()
    for name, values in times.items():
        print(f"seconds {name} {statistics.median(values):.3f} (of {len(values)}: {min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
