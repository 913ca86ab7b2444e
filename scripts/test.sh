#!/usr/bin/env bash
# Passes the tests: makes .venv, installs what the tests need, checks style and types, runs pytest.
# Arguments go to pytest: bash scripts/test.sh tests/ops -k merge
set -euo pipefail
source "$(dirname "$0")/setup.sh" dev
ruff check .
ruff format --check .
mypy -p flare_geo
python -m pytest "$@"
