#!/usr/bin/env bash
# Everything that needs a GPU, in under 8 minutes: the tests marked gpu, then the benchmarks.
#
#   bash scripts/bench/gpu.sh OUT_FOLDER          # on the machine with the GPU
#   bash scripts/bench/gpu.sh OUT_FOLDER tiny     # a rehearsal at tiny sizes, anywhere
#
# Runs from the checkout, nothing is installed. Needs torch, triton, torch-geometric and pytest, none
# of pyvista, meshio, jsonargparse, trimesh, scikit-fem. One part that fails or takes too long does
# not stop the next; what it measured until then is in its JSON. Exit status 0: every part was well.
set -uo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ] || { [ $# -eq 2 ] && [ "$2" != tiny ]; }; then
    echo "usage: bash scripts/bench/gpu.sh OUT_FOLDER [tiny]" >&2
    exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
size=${2:-full}
cd "$(dirname "$0")/../.." || exit 2
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
ALL=470 # seconds, for everything but the table at the end
failed=()
: >"$out/log.txt"

# part NAME SECONDS COMMAND...: runs it, at most so long and never past the end; keeps its output.
part() {
    local name=$1 seconds=$2 left=$((ALL - SECONDS)) status began=$SECONDS
    shift 2
    [ "$seconds" -gt "$left" ] && seconds=$left
    echo "== $name" | tee -a "$out/log.txt"
    if [ "$seconds" -lt 5 ]; then
        echo "$name: not run, the time is up" | tee -a "$out/log.txt"
        failed+=("$name (not run)")
        return
    fi
    # Into a file: a process that outlives its parent would hold a pipe open.
    timeout -k 5 "$seconds" "$@" </dev/null >>"$out/log.txt" 2>&1
    status=$?
    [ "$status" -eq 0 ] || failed+=("$name (status $status)")
    echo "$name: status $status after $((SECONDS - began)) s" | tee -a "$out/log.txt"
}

# bench NAME SECONDS SCRIPT OPTIONS...: a benchmark, which stops itself before it is stopped.
bench() {
    local name=$1 seconds=$2 script=$3
    shift 3
    [ "$seconds" -gt $((ALL - SECONDS)) ] && seconds=$((ALL - SECONDS))
    part "$name" "$seconds" python "scripts/bench/$script.py" --out "$out/$name.json" \
        --limit "$((seconds - 25))" "$@"
}

workers=()
if [ "$size" = full ] && python -c "import xdist" 2>/dev/null; then
    workers=(-n 6) # most of the time is the compiling of kernels
fi
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv

# A warning of another version of torch is no reason to leave a kernel untested: -W default.
part tests 130 python -m pytest -m gpu -q -W default -p no:cacheprovider "${workers[@]}" \
    tests/ops tests/nn
if [ "$size" = tiny ]; then
    small=(--points 200 400 --latents 8 --check-points 100 --seconds 0.01)
    bench bare 60 mixer --bare --widths 8 "${small[@]}"
    bench model 60 model --configs tiny --seconds 0.01
    bench mixer 60 mixer "${small[@]}"
    bench ragged 60 ragged --sizes tiny --seconds 0.01
    bench backends 60 backends --clouds 200 50,0,90 --pairs 8,8 --heads 2 --seconds 0.01
else
    bench bare 85 mixer --bare --backends auto sdpa triton varlen --seconds 0.15
    bench model 90 model --seconds 1.5
    bench mixer 75 mixer --seconds 0.2
    bench ragged 45 ragged --seconds 0.5
    bench model_compiled 90 model --configs elasticity 1m --compile --seconds 1
    bench backends 75 backends --seconds 0.1
fi

{
    python - "$out" <<'PYTHON'
import json, pathlib, sys

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    result = json.loads(path.read_text())
    print(f"-- {path.stem}: {result['device']}, torch {result['torch']}, {result['git_revision']}")
    for row in result["rows"]:
        if "failed" in row and row["failed"] != "out of memory":
            print(f"FAILED {row.get('check') or row.get('way')}: {row['failed']}")
    print(*result["headlines"], sep="\n")
PYTHON
    echo "-- all after $SECONDS s; failed: ${failed[*]:-none}"
} 2>&1 | tee "$out/summary.txt"
[ ${#failed[@]} -eq 0 ]
