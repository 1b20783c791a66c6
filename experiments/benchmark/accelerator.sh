#!/usr/bin/env bash
# Measure private steps on this machine's accelerator: one JSON document on standard output, in at most 8 minutes.
#
#   bash experiments/benchmark/accelerator.sh [--device cuda:0] [--profile] > accelerator.json
#
# PYTHON names the interpreter; WHEELS a folder of wheels to use beside its packages, without a network.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
if [ -n "${WHEELS:-}" ]; then
  packages=$(mktemp -d)
  trap 'rm -rf "$packages"' EXIT
  for wheel in "$WHEELS"/*.whl; do
    "$python" -m zipfile -e "$wheel" "$packages"
  done
  export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}"
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
timeout --kill-after=5 480 "$python" -m experiments.benchmark.accelerator "$@"
