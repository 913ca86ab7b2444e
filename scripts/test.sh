#!/usr/bin/env bash
# Passes the tests: makes .venv, installs what the tests need, checks style and types, resolves the versions for all
# platforms (where a package index answers), runs pytest with one process a core (at most 8; files in order: the long ones
# of cli come early, and no core waits at the end), and the tests of ops and nn again as two other CPUs compute, but for
# those that compile or import and round nothing otherwise for it. Arguments go to pytest, which then is all:
# bash scripts/test.sh tests/ops -k merge
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "$0")/setup.sh" dev
ruff check .
ruff format --check .
mypy -p flare_geo
if [ $# -eq 0 ]; then bash scripts/resolve.sh; fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # the processes share the cores
python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"
if [ $# -eq 0 ]; then
    VENV_PINNED_311="$PWD/.venv" python scripts/anywhere.py cpu-lowest mkl-compatible -- tests/ops tests/nn \
        -k "not compile and not kernels_fit and not opcheck and not registered and not is_light and not configurations"
fi
