"""What `benches/gpu.sh` does: correctness, then times of the host and of PyTorch in turn, then a table. PyTorch alone is needed."""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from device import Device
from sides import Failed, Host, Peer

HERE = Path(__file__).resolve().parent
SIDES = {"nano": 64, "tiny": 64, "small": 224, "base": 224}  # Pixels.

# Losses of a few steps on the device over those on the CPU, relative. In bf16, whose numbers have three digits, near is enough.
# R moves at twenty times its usual rate, so that a wrong update shows.
CHECK_STEPS, CHECK_BATCH = 8, 32
CHECK_MODES = {"bp": None, "dbp": dict(preset="paper", lr=1e-2)}
TOLERANCE = {"float32": 1e-4, "bf16": 5e-3}

# The host's modes, as options of `decorrelate`: the paper's, with at most four rows per column of R, and with blocks as well.
MODES = {
    "bp": None,
    "paper": dict(preset="paper"),
    "4d": dict(preset="paper", max_rows="4d"),
    "lean": dict(preset="lean"),
}
TURN_SECS = 2.5  # What a turn should take, for the meters.
WRAP_UP_SECS = 5


def write_noise(folder, count, side):
    """Images of noise as BMP, small ones: the host resizes them, and no package is needed to write them."""
    noise = random.Random(0)
    size = 3 * side * side
    header = b"BM" + (54 + size).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    shape = (40).to_bytes(4, "little") + 2 * side.to_bytes(4, "little") + (1).to_bytes(2, "little") + (24).to_bytes(2, "little")
    rest = bytes(4) + size.to_bytes(4, "little") + bytes(16)
    for i in range(count):
        (folder / f"{i:05}.bmp").write_bytes(header + shape + rest + noise.randbytes(size))


class Bench:
    def __init__(self, args, folder):
        self.args, self.folder, self.started = args, folder, time.monotonic()
        self.device = Device(args.device)
        self.failed, self.rows = False, []
        self.plain_count, self.plain_secs = None, {}  # Multiply-adds of a step without decorrelation; seconds by batch.
        self.images = folder / "images"
        self.images.mkdir()
        write_noise(self.images, max([CHECK_BATCH, *args.batches]), 32)

    def left(self):
        return self.args.seconds - (time.monotonic() - self.started)

    def say(self, line):
        print(line, flush=True)

    # ---- Correctness -------------------------------------------------------------------------------------------------

    def check(self):
        """Losses of the same steps on both devices; in the other precision against float32 on the CPU."""
        on_device, plain = self.args.device, None
        for mode in CHECK_MODES:
            try:
                want = self.losses(mode, "cpu", "float32")
                if plain:
                    apart = max(abs(a - b) / abs(b) for a, b in zip(want, plain, strict=True))
                    self.fail_unless(apart > 5 * TOLERANCE["float32"], f"{mode} is {apart:.1e} from bp, too near to tell")
                plain = want
                for precision in dict.fromkeys(["float32", self.args.precision]):
                    got = self.losses(mode, on_device, precision)
                    worst = max(abs(a - b) / abs(b) for a, b in zip(got, want, strict=True))
                    within = worst <= TOLERANCE[precision]
                    verdict = "within" if within else "ABOVE"
                    self.say(f"check loss_{on_device}_over_cpu/nano/{mode}/{precision} {worst:.1e} "
                             f"bound {TOLERANCE[precision]:.0e} {verdict}   relative, the worst of {len(want)} steps of {CHECK_BATCH}")
                    self.fail_unless(within, f"{mode} in {precision} on {on_device}: {got}, on the CPU {want}")
            except Failed as error:
                self.fail_unless(False, f"{mode}: {error}")

    def fail_unless(self, held, what):
        if not held:
            self.failed = True
            self.say(f"!!!! CHECK FAILED: {what}")

    def losses(self, mode, device, precision):
        settings = dict(recipe="nano", batch=CHECK_BATCH, micro_batch=CHECK_BATCH // 2, precision=precision, steps=CHECK_STEPS, data=self.images)
        if CHECK_MODES[mode]:
            settings["decor"] = json.dumps(CHECK_MODES[mode])
        command = Host.command(self.args.host, device, self.args.threads, self.folder / "runs", settings)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=max(self.left(), 30))
        except subprocess.TimeoutExpired:
            raise Failed(f"no end after {max(self.left(), 30):.0f} s") from None
        losses = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("loss ")]
        if len(losses) != CHECK_STEPS:
            raise Failed(done.stderr.strip()[-400:] or f"{len(losses)} losses of {CHECK_STEPS}")
        return losses

    # ---- Times -------------------------------------------------------------------------------------------------------

    def sides(self, batch, group):
        """The processes that take turns: those without decorrelation, or those with it."""
        args, peers = self.args, [False, True] if self.args.compile else [False]
        common = dict(size=args.size, batch=batch, micro=min(args.micro, batch), precision=args.precision, device=args.device,
                      threads=args.threads)
        modes = ["bp"] if group == "bp" else ["paper", "4d", "lean"]
        for mode in modes:
            yield Host(mode, args.host, self.folder, self.images, options=MODES[mode], **common)
        for compiled in peers:
            name = "compile" if compiled else "eager"
            yield Peer(name, args.python, decorrelate=group != "bp", compiled=compiled, **common)

    def time(self, batch, group):
        label = f"{self.args.size}/{batch}/{group}"
        running = []
        try:
            for side in self.sides(batch, group):
                if self.left() < 60:
                    self.say(f"# {label}: {side.name} is left out, the time is up")
                    continue
                before = self.device.memory_mib()
                try:
                    side.start(timeout=self.left() - WRAP_UP_SECS)
                    side.fit(TURN_SECS, timeout=self.left() - WRAP_UP_SECS)
                except Failed as error:
                    self.say(f"# {label}: {side.name} is left out: {error}")
                    side.stop()
                    continue
                after = self.device.memory_mib()
                side.memory_mib = after - before if None not in (before, after) else None
                running.append(side)
            for _ in range(self.args.rounds):
                for side in list(running):
                    if self.left() < WRAP_UP_SECS:
                        break
                    try:
                        with self.device.watch() as watched:
                            side.turn(timeout=self.left())
                        side.watts.extend(watched.watts())
                    except Failed as error:
                        self.say(f"# {label}: {side.name} stopped: {error}")
                        side.stop()
                        running.remove(side)
        finally:
            for side in running:
                side.stop()
        self.report(batch, group, [side for side in running if side.step_secs])

    def report(self, batch, group, sides):
        eager = next((side for side in sides if side.name == "eager"), None)
        if group == "bp" and eager:
            self.plain_count = eager.count
        for side in sides:
            secs = statistics.median(side.step_secs)
            count = side.count or (self.plain_count or 0) * (1 + side.share)
            rate = 2 * count / secs / 1e12  # TFLOP/s; a multiply-add is two operations.
            peak = self.device.peak_tflops(self.args.precision)
            watts = statistics.fmean(side.watts) if side.watts else None
            self.rows.append([
                self.args.size, batch, "bp" if group == "bp" else "dbp", side.label(), f"{1e3 * secs:.1f}", f"{batch / secs:.0f}",
                f"{rate:.3g}" if count else "", f"{100 * rate / peak:.1f}" if count and peak else "",
                f"{side.memory_mib / 1024:.2f}" if side.memory_mib else "", f"{watts:.0f}" if watts else "",
                f"{watts * secs / batch:.3f}" if watts else "",
            ])
        for host in (side for side in sides if isinstance(side, Host)):
            name = f"{self.args.size}/{batch}/{host.name}"
            for peer in (side for side in sides if isinstance(side, Peer)):
                self.ratio(f"step_host_over_pytorch_{peer.name}/{name}", host, peer)
                if host.memory_mib and peer.memory_mib:
                    self.say(f"ratio peak_memory_host_over_pytorch_{peer.name}/{name} "
                             f"{host.memory_mib / peer.memory_mib:.3f}   {host.memory_mib:.0f} and {peer.memory_mib:.0f} MiB")
            secs = statistics.median(host.step_secs)
            if host.name == "bp":
                self.plain_secs[batch] = secs
            elif batch in self.plain_secs:
                self.say(f"ratio step_dbp_over_bp/{name} {secs / self.plain_secs[batch]:.3f}   "
                         f"counted {1 + host.share:.3f}   medians, not in turn")

    def ratio(self, name, host, peer):
        ratios = [a / b for a, b in zip(host.step_secs, peer.step_secs)]
        if ratios:
            self.say(f"ratio {name} {statistics.median(ratios):.3f}   lowest {min(ratios):.3f} highest {max(ratios):.3f}   "
                     f"median of {len(ratios)} pairs, {1e3 * statistics.median(host.step_secs):.1f} ms and "
                     f"{1e3 * statistics.median(peer.step_secs):.1f} ms a step, {self.args.precision}")

    def table(self):
        head = ["size", "batch", "", "side", "ms/step", "images/s", "TFLOP/s", "% of peak", "GiB", "W", "J/image"]
        rows = [head, *self.rows]
        widths = [max(len(str(row[i])) for row in rows) for i in range(len(head))]
        for row in rows:
            cells = [str(cell).ljust(w) if i < 4 and i != 1 else str(cell).rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
            self.say("  ".join(cells).rstrip())

    def run(self):
        self.say(f"# {self.device.name()}, {self.args.precision}, micro-batches of {self.args.micro}, peak "
                 f"{self.device.peak_tflops(self.args.precision) or 'unknown'} TFLOP/s, {self.args.seconds} s at most")
        self.check()
        for batch in self.args.batches:
            for group in ("bp", "dbp"):
                self.time(batch, group)
        self.say("")
        self.table()
        self.say(f"# {time.monotonic() - self.started:.0f} s in all; GiB and W are of the whole device, read with nvidia-smi")
        return 1 if self.failed else 0


def main():
    parser = argparse.ArgumentParser(description="The host against PyTorch on one device; benches/gpu.sh starts it")
    parser.add_argument("--host", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--size", choices=SIDES, default="base")
    parser.add_argument("--batches", type=lambda text: [int(part) for part in text.split()], default=[256, 4096])
    parser.add_argument("--micro", type=int, default=256)
    parser.add_argument("--precision", choices=TOLERANCE, default="bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=460)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(Bench(args, Path(folder)).run())


if __name__ == "__main__":
    main()
