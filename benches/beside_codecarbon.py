"""`dbp-host energy` beside codecarbon 3 on the same load: three loads of a minute each, both meters at once.

    pip install codecarbon
    python benches/beside_codecarbon.py [--seconds 60] [--country NLD] [--region california] [--binary target/release/dbp-host]

Prints a Markdown table and, for each figure, `ratio NAME VALUE`: ours over codecarbon's. Leave the machine alone meanwhile:
both see every process, themselves included.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import time


def burn(until):
    while time.monotonic() < until:
        sum(i * i for i in range(10_000))


def tracker(args, folder="."):
    from codecarbon import OfflineEmissionsTracker

    return OfflineEmissionsTracker(
        country_iso_code=args.country,
        region=args.region,
        pue=args.pue,
        output_dir=folder,
        save_to_file=False,
        log_level="error",
        allow_multiple_runs=True,
    )


def measure(load, args):
    """Both meters over the same seconds: (ours, codecarbon's)."""
    theirs = tracker(args)
    place = ["--country", args.country] + (["--region", args.region] if args.region else [])
    ours = [args.binary, "energy", "--json", "--pue", str(args.pue), *place, "--", "sleep", str(args.seconds)]
    until = time.monotonic() + args.seconds + 1
    workers = [multiprocessing.Process(target=burn, args=(until,)) for _ in range(load)]
    for worker in workers:
        worker.start()
    time.sleep(0.5)
    theirs.start()
    metered = subprocess.run(ours, capture_output=True, text=True, check=True)
    theirs.stop()
    for worker in workers:
        worker.terminate()
        worker.join()
    return json.loads(metered.stdout), theirs.final_emissions_data


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--country", default="NLD")
    parser.add_argument("--region")
    parser.add_argument("--pue", type=float, default=1.0)
    parser.add_argument("--binary", default="target/release/dbp-host")
    args = parser.parse_args()
    cores = os.cpu_count()
    print("| load | figure | dbp-host | codecarbon | ratio |\n| --- | --- | --- | --- | --- |", flush=True)
    ratios = []
    for name, load in [("idle", 0), ("one core", 1), (f"all {cores} cores", cores)]:
        ours, theirs = measure(load, args)
        parts = ours["components"]
        # Per second of each meter: theirs runs some milliseconds longer, around ours.
        rows = [
            ("CPU, W", parts["cpu"]["kwh"], theirs.cpu_energy, 3.6e6),
            ("RAM, W", parts["ram"]["kwh"], theirs.ram_energy, 3.6e6),
            ("total, W", ours["energy_kwh"], theirs.energy_consumed, 3.6e6),
            ("emissions, mg/s", ours["co2_kg"], theirs.emissions, 1e6),
        ]
        if "gpu" in parts:
            rows.insert(2, ("GPU, W", parts["gpu"]["kwh"], theirs.gpu_energy, 3.6e6))
        for figure, mine, yours, scale in rows:
            mine, yours = mine / ours["seconds"] * scale, yours / theirs.duration * scale
            ratio = mine / yours if yours else float("nan")
            print(f"| {name} | {figure} | {mine:.4f} | {yours:.4f} | {ratio:.4f} |")
            ratios.append((f"{figure.split(',')[0]}_{name}".replace(" ", "_").lower(), ratio))
        print(f"<!-- {name}: {ours['seconds']} s and {theirs.duration:.3f} s; ours from "
              f"{[s['source'] for part in parts.values() for s in part['sources']]} -->")
    for name, ratio in ratios:
        print(f"ratio {name} {ratio:.4f}")


if __name__ == "__main__":
    main()
