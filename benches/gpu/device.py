"""What the device is and what it draws, by `nvidia-smi`, which asks NVML; absent where there is none."""

import contextlib
import subprocess
import threading
import time

# Dense matrix rates in TFLOP/s, without sparsity, from NVIDIA's data sheets: bf16, and TF32 for float32.
PEAKS = {"H100 PCIe": (756, 378), "H100": (989, 494), "H200": (989, 494), "A100": (312, 156)}


# The driver's figure is a mean over about a second, so the first ones of a turn are still those of the one before.
LAG_SECS = 1.0


class Watched:
    """Samples of `power.draw` while a `with` block runs."""

    def __init__(self, device):
        self.device, self.samples, self.done = device, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        begun = time.monotonic()
        while not self.done.wait(0.1):
            drawn = self.device.query("power.draw")
            if drawn is not None and time.monotonic() - begun > LAG_SECS:
                self.samples.append(drawn)

    def watts(self):
        return self.samples


class Device:
    def __init__(self, name):
        self.index = None
        if name.startswith("cuda"):
            self.index = int(name.partition(":")[2] or 0)

    def ask(self, field):
        """The text that `nvidia-smi` has for a field; None where it has none."""
        if self.index is None:
            return None
        # It counts GPUs by their place on the bus; a process may have been given but some of them.
        command = ["nvidia-smi", f"--id={self.index}", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def query(self, field):
        try:
            return float(self.ask(field) or "")
        except ValueError:
            return None

    def name(self):
        return self.ask("name") or "CPU" if self.index is None else self.ask("name") or "a GPU that nvidia-smi does not name"

    def peak_tflops(self, precision):
        name = self.ask("name") or ""
        return next((peaks[precision != "bf16"] for part, peaks in PEAKS.items() if part in name), None)

    def memory_mib(self):
        return self.query("memory.used")

    @contextlib.contextmanager
    def watch(self):
        watched = Watched(self)
        if self.index is not None:
            watched.thread.start()
        try:
            yield watched
        finally:
            watched.done.set()
            if self.index is not None:
                watched.thread.join()
