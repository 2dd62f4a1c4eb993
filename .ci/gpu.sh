#!/usr/bin/env bash
# What only a GPU can show: bash .ci/gpu.sh DIR [--minutes 12] [--only PIECE,…] [--quick] [--device cuda]
# Trainings for the claims of the paper, several at once: bash .ci/gpu.sh DIR --only series --rows all --jobs 6 --minutes 14
# (it makes the pack from the archives in ALEXNET_NB_DATA or shared/data, and leaves the lines of finished trainings)
# It needs PyTorch and the package's requirements, and writes gpu.tar (cards) and gpu.log into DIR.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?the folder for the cards}
shift
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" -m tests.gpu --out "$out" --tar "$@"
