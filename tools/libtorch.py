#!/usr/bin/env python3
"""Puts libtorch where the build expects it: `.libtorch/torch` in this checkout.

libtorch comes out of PyTorch's wheel, which carries its headers too; nothing of Python is used at run time. The wheels
are unpacked once into the user's cache and shared by every checkout. Every file is checked against the wheel's own
RECORD (SHA-256) when it is unpacked, and by size and time at each later call, so that a broken cache is repaired.

Environment: LIBTORCH, a libtorch 2.11.0 of your own, is linked instead; CUDA=1 adds the wheels libtorch_cuda.so names;
XDG_CACHE_HOME moves the cache.
"""

import base64
import csv
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TORCH = "2.11.0"
PYTHON_TAG = "312"  # Fixed, so that this machine's own Python version does not matter.
# libtorch_cpu.so of a CUDA wheel names libcudart and libcupti, so the CPU needs these two as well.
CPU_WHEELS = [f"torch=={TORCH}", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"]
GLIBC = ["manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_25", "manylinux_2_24", "manylinux_2_17", "manylinux2014"]

CHECKOUT = Path(__file__).resolve().parent.parent
LINK = CHECKOUT / ".libtorch"


def fail(message):
    sys.exit(f"error: {message}")


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dbp-host" / f"libtorch-{TORCH}-{platform.machine()}"


def download(requirements, into, size, with_dependencies=False):
    """Fetches wheels for the fixed Python tag; pip checks each against the index's hash."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--only-binary=:all:"]
    command += ["--python-version", PYTHON_TAG, "--implementation", "cp", "--dest", str(into)]
    for glibc in GLIBC:
        command += ["--platform", f"{glibc}_{platform.machine()}"]
    if not with_dependencies:
        command.append("--no-deps")
    into.mkdir()
    print(f"downloading {', '.join(requirements)} ({size}) …", file=sys.stderr, flush=True)
    try:
        # pip's own half downloads go where a later set-up clears them away.
        done = subprocess.run(command + requirements, env=os.environ | {"TMPDIR": str(into)})
    except OSError as err:
        fail(f"could not start pip: {err}")
    if done.returncode != 0:
        fail("pip could not download libtorch; is python3-pip installed and a package index reachable?\n"
             "       With a libtorch 2.11.0 of your own: LIBTORCH=/path/to/libtorch make setup")


def wheel_files(root):
    """The (path, sha256, size) rows of every unpacked wheel's RECORD, Python's own files left out."""
    records = list(root.glob("*.dist-info/RECORD"))
    for record in records:
        with open(record, newline="") as rows:
            for path, digest, size in csv.reader(rows):
                if digest and not path.endswith(".py"):
                    yield path, digest.removeprefix("sha256="), int(size)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def first_broken(root):
    """The first file that is missing or differs from its RECORD; None if all are whole. Writes the manifest."""
    manifest = {}
    for path, digest, size in wheel_files(root):
        file = root / path
        if not file.is_file() or file.stat().st_size != size or sha256(file) != digest:
            return path
        manifest[path] = [size, file.stat().st_mtime_ns]
    if not manifest:
        return "RECORD"
    (root / "manifest.json").write_text(json.dumps(manifest))
    return None


def looks_whole(root):
    """Quick check: every file of the manifest has the size and time it had when its hash was right."""
    try:
        manifest = json.loads((root / "manifest.json").read_text())
        return all(
            [(stat := (root / path).stat()).st_size, stat.st_mtime_ns] == seen for path, seen in manifest.items()
        )
    except (OSError, ValueError):
        return False


def unpack(requirements, root):
    """Downloads and unpacks beside `root`, verifies, then renames: `root` exists only whole."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with aside_folder(root) as aside:
        wheels, tree = Path(aside) / "wheels", Path(aside) / "tree"
        download(requirements, wheels, "550 MB")
        for wheel in sorted(wheels.glob("*.whl")):
            print(f"unpacking {wheel.name} …", file=sys.stderr, flush=True)
            shutil.unpack_archive(wheel, tree, "zip")
            wheel.unlink()
        if broken := first_broken(tree):
            fail(f"the downloaded wheel is broken at {broken}; run `make setup` again")
        if root.exists():
            shutil.rmtree(root)
        tree.rename(root)


def aside_folder(root):
    """A folder beside `root` to work in; a killed set-up's is known by its name."""
    return tempfile.TemporaryDirectory(dir=root.parent, prefix=f"unpacking-{root.name}-")


def ensure_cached(requirements, root, cuda):
    """Makes `root` whole, holding a lock so that two checkouts do not unpack at once. Returns `root`."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.parent / f"{root.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in root.parent.glob(f"unpacking-{root.name}-*"):  # A killed set-up's remains; the lock says nobody works on them.
            shutil.rmtree(left, ignore_errors=True)
        if root.exists() and not looks_whole(root):
            print(f"checking {root} …", file=sys.stderr, flush=True)
            if broken := first_broken(root):
                print(f"{root}/{broken} is broken; fetching it anew", file=sys.stderr)
                shutil.rmtree(root)
        if not root.exists():
            unpack(requirements, root)
        if cuda:
            add_cuda(root)
    return root


def cuda_wheels(root):
    """What the torch wheel requires beside itself on Linux, as it says in its METADATA."""
    (metadata,) = root.glob("torch-*.dist-info/METADATA")
    wanted = []
    for line in metadata.read_text().splitlines():
        if line.startswith("Requires-Dist:"):
            requirement, _, marker = line.removeprefix("Requires-Dist:").partition(";")
            if "nvidia" in requirement and "extra" not in marker or requirement.strip().startswith("cuda-toolkit"):
                wanted.append(requirement.strip())
    return wanted


def add_cuda(root):
    """Unpacks the CUDA libraries into the same tree, where libtorch_cuda.so's own run path looks for them."""
    if (root / "cuda.done").exists():
        return
    with aside_folder(root) as aside:
        wheels = Path(aside) / "wheels"
        # cuda-toolkit is a meta-package: with its dependencies, but without torch's Python ones.
        download(cuda_wheels(root), wheels, "about 2 GB", with_dependencies=True)
        for wheel in sorted(wheels.glob("*.whl")):
            shutil.unpack_archive(wheel, root, "zip")
    if broken := first_broken(root):
        fail(f"the downloaded CUDA libraries are broken at {broken}; run `make setup CUDA=1` again")
    (root / "cuda.done").touch()


def own_libtorch(path):
    path = Path(path).resolve()
    found = None
    for name, start in [("build-version", ""), ("version.py", "__version__ = '")]:  # libtorch's archive, a wheel
        if (path / name).is_file():
            lines = (path / name).read_text().splitlines()
            found = found or next((line.removeprefix(start).strip("'") for line in lines if line.startswith(start)), None)
    if not (path / "lib").is_dir() or not (path / "include").is_dir():
        fail(f"LIBTORCH={path}: expected a folder with lib/ and include/ in it")
    if found and not found.startswith(TORCH):
        fail(f"LIBTORCH={path} is {found}; this project is built against {TORCH}")
    return path


def link(target, at):
    if at.is_symlink() and at.readlink() == target:
        return  # Left alone: touching it would make cargo rebuild torch-sys.
    if at.is_symlink() or at.is_file():
        at.unlink()
    elif at.is_dir():
        shutil.rmtree(at)
    at.symlink_to(target)


def main():
    if given := os.environ.get("LIBTORCH"):
        if LINK.is_symlink():
            LINK.unlink()
        LINK.mkdir(exist_ok=True)
        link(own_libtorch(given), LINK / "torch")
    else:
        root = ensure_cached(CPU_WHEELS, cache_dir(), os.environ.get("CUDA") == "1")
        link(root, LINK)
    print(f"libtorch {TORCH}: {(LINK / 'torch').resolve()}", file=sys.stderr)


if __name__ == "__main__":
    main()
