#!/usr/bin/env bash
# The tests in every setting: versions, Pythons, CPUs, threads, beside busy loops, without graphics libraries.
#   bash scripts/test_anywhere.sh                         all of them, once; about two hours on 2 cores
#   bash scripts/test_anywhere.sh --list                  what there is
#   bash scripts/test_anywhere.sh cpu-avx2 busy --times 3
#   bash scripts/test_anywhere.sh newest-3.12 -- tests/ops -k merge
# Environments are kept in .venvs; VENV_NEWEST_312=/path gives one of your own, PYTHON_312=/path a Python. What was run
# at this revision is not run again, so an interrupted run goes on with the same command.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "$0")/setup.sh" dev
exec python scripts/anywhere.py "$@"
