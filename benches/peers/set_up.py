"""Makes the Python environment that the benches compare with: `set_up.py FOLDER REQUIREMENTS` leaves FOLDER/bin/python.

A virtual environment where Python can make one; else the packages lie in FOLDER/packages, and FOLDER/bin/python is a script that
puts them in Python's way.
"""

import subprocess
import sys
from pathlib import Path


def main():
    folder, requirements = Path(sys.argv[1]), sys.argv[2]
    python = folder / "bin" / "python"
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True)
    if made.returncode == 0:
        pip = [str(python), "-m", "pip", "install"]
    else:
        print("python3 has no venv (apt install python3-venv): the packages go into a folder", file=sys.stderr)
        packages = (folder / "packages").resolve()
        python.parent.mkdir(parents=True, exist_ok=True)
        python.unlink(missing_ok=True)  # A failed attempt leaves a link to the system's own.
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        pip = [sys.executable, "-m", "pip", "install", "--target", str(packages)]
    subprocess.run([*pip, "--disable-pip-version-check", "-r", requirements], check=True)
    (folder / "ready").write_text("")


if __name__ == "__main__":
    main()
