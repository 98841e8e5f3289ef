#!/usr/bin/env bash
# The host against PyTorch on an NVIDIA GPU, in under eight minutes and without a compiler:
#
#     HOST=./dbp-host PYTHON=python3 benches/gpu.sh
#
# Needs a release binary and a Python with the PyTorch that the binary was built for (2.11); no other packages. First whether the
# device computes what the CPU does, then times, memory and watts; benches/README.md says what the lines mean. Exit code 1: the
# device computes something else.
#
#     DEVICE=cpu SIZE=nano BATCHES="32 64" MICRO=32 benches/gpu.sh   tries all of it out where there is no GPU
#
# SECONDS_MAX (460) is when it stops to begin anything new; PRECISION is "bf16" or "float32"; ROUNDS (3) is how often the sides
# take turns; COMPILE=0 leaves out torch.compile, which needs a C compiler on the machine; THREADS is for the CPU.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HOST=${HOST:-$here/../target/release/dbp-host}
PYTHON=${PYTHON:-python3}
case $HOST in */*) ;; *) HOST=$(command -v -- "$HOST" || echo "./$HOST") ;; esac
[ -x "$HOST" ] || { echo "HOST: there is no program $HOST; build it elsewhere with make build" >&2; exit 2; }
"$PYTHON" -c 'import torch' 2>/dev/null || { echo "PYTHON: $PYTHON has no torch; say which Python has" >&2; exit 2; }

# The binary looks for libtorch where it was built, and finds PyTorch's here.
libraries=$("$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "lib")')
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
echo "# libtorch of $libraries"
ldd "$HOST" | awk '/not found/ { print "missing library: " $1 > "/dev/stderr"; missing = 1 } END { exit missing }' || exit 2
"$HOST" --version | sed 's/^/# /'
exec "$PYTHON" "$here/gpu/run.py" --host "$HOST" --python "$PYTHON" \
    --device "${DEVICE:-cuda:0}" --size "${SIZE:-base}" --batches "${BATCHES:-256 4096}" --micro "${MICRO:-256}" \
    --precision "${PRECISION:-bf16}" --rounds "${ROUNDS:-3}" --compile "${COMPILE:-1}" --seconds "${SECONDS_MAX:-460}" \
    ${THREADS:+--threads "$THREADS"}
