"""The two sides as processes that idle until it is their turn: the host runs `step.rhai`, PyTorch `benches/peers/serve.py`."""

import json
import os
import queue
import subprocess
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """What a side said when it failed."""


class Side:
    def __init__(self, name, size, batch, micro, precision, device, threads):
        self.name, self.size, self.batch, self.micro = name, size, batch, micro
        self.precision, self.device, self.threads = precision, device, threads
        self.step_secs, self.watts, self.memory_mib = [], [], None
        self.count, self.share = None, 0.0  # Multiply-adds of a step as PyTorch counts them; what R adds, as the host counts.
        self.steps = 1
        self.process = None

    def launch(self, command, **pipes):
        self.errors = []
        self.lines = queue.Queue()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **pipes)
        threading.Thread(target=self.read, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put(None)

    def answer(self, timeout):
        try:
            line = self.lines.get(timeout=max(timeout, 1))
        except queue.Empty:
            raise Failed("the time is up") from None
        if line is None:
            time.sleep(0.2)  # For the last of its errors.
            said = " ".join(part.strip() for part in self.errors if part.strip())
            raise Failed(said[-400:] or "its process has ended")
        if line.startswith("error:"):
            raise Failed(line.removeprefix("error:").strip())
        return line

    def fit(self, secs, timeout):
        """Chooses how many steps make a turn."""
        end = time.monotonic() + timeout
        self.take(1, timeout)
        took = self.take(1, end - time.monotonic())
        self.steps = max(1, min(200, round(secs / took)))

    def turn(self, timeout):
        self.step_secs.append(self.take(self.steps, timeout) / self.steps)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Host(Side):
    def __init__(self, name, host, folder, images, options, **common):
        super().__init__(name, **common)
        self.host, self.images, self.options = host, images, options
        self.folder = Path(folder) / f"{common['size']}-{common['batch']}-{name}"
        self.folder.mkdir(exist_ok=True)
        self.begun = 0

    @staticmethod
    def command(host, device, threads, runs, settings, tf32=False):
        command = [host, str(HERE / "step.rhai"), "--device", device, "--runs", str(runs)]
        command += ["--threads", str(threads)] if threads else []
        command += ["--tf32"] if tf32 else []
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        return command

    def label(self):
        return "host" if self.name == "bp" else f"host, {self.name}"

    def start(self, timeout):
        self.tell("0 1")
        settings = dict(recipe=self.size, batch=self.batch, micro_batch=self.micro, precision=self.precision,
                        data=self.images, turn=self.folder / "turn.txt")
        if self.options:
            settings["decor"] = json.dumps(self.options)
        self.launch(self.command(self.host, self.device, self.threads, self.folder / "runs", settings,
                                 tf32=self.device != "cpu"))  # As the peer, in what stays float32.
        ready, share, _ = self.answer(timeout).split()
        if ready != "ready":
            raise Failed(f"expected `ready`, got `{ready}`")
        self.share = float(share)

    def tell(self, text):
        """The script polls the file, and must not see half of it."""
        (self.folder / "next.txt").write_text(text)
        os.replace(self.folder / "next.txt", self.folder / "turn.txt")

    def take(self, steps, timeout):
        self.begun += 1
        self.tell(f"{self.begun} {steps}")
        return float(self.answer(timeout).split()[1])


class Peer(Side):
    def __init__(self, name, python, decorrelate, compiled, **common):
        super().__init__(name, **common)
        self.python, self.decorrelate, self.compiled = python, decorrelate, compiled

    def label(self):
        return f"PyTorch, {self.name}"

    def start(self, timeout):
        end = time.monotonic() + timeout
        command = [self.python, str(HERE.parent / "peers" / "serve.py"), "--size", self.size, "--batch", str(self.batch),
                   "--micro-batches", str(self.batch // self.micro), "--device", self.device]
        flags = [("--decorrelate", self.decorrelate), ("--bf16", self.precision == "bf16"), ("--compile", self.compiled)]
        command += ["--threads", str(self.threads)] if self.threads else []
        self.launch(command + [flag for flag, given in flags if given], stdin=subprocess.PIPE)
        if self.answer(timeout) != "ready":
            raise Failed("expected `ready`")
        self.take(1, end - time.monotonic())  # Compiles.
        if not self.compiled:
            self.count = int(self.ask("count", end - time.monotonic()))

    def ask(self, command, timeout):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # The answer tells.
        return self.answer(timeout)

    def take(self, steps, timeout):
        return float(self.ask(f"steps {steps}", timeout))
