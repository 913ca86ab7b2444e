#!/usr/bin/env bash
# Passes the tests: makes .venv, installs what the tests need, checks style and types, runs pytest
# with one process a core (at most 8). Arguments go to pytest: bash scripts/test.sh tests/ops -k merge
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "$0")/setup.sh" dev
ruff check .
ruff format --check .
mypy -p flare_geo
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # the processes share the cores
python -m pytest -n auto --maxprocesses 8 --dist loadfile "$@"
