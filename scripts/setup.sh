# Sourced by the other scripts: a virtual environment in .venv with this checkout and the extras in $1 installed.
# What is there already is taken as it is; it is brought up to date when pyproject.toml or constraints.txt has changed
# since. PYTHON=python3.12 chooses another Python than the first on the PATH that is new enough.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
here=$(pwd -P)
venv=.venv

for name in datasets transforms viz; do
    [ -d "flare_geo/$name" ] || {
        echo "flare_geo/$name must be a symbolic link to ../$name: allow links (Windows: developer mode)," \
            "then git config core.symlinks true && git checkout -- flare_geo" >&2
        exit 1
    }
done

# The version of a Python, if it starts and is new enough; nothing otherwise.
version_of() {
    "$1" -c 'import sys; v = sys.version_info; print("%d.%d" % v[:2] if v >= (3, 11) else "")' 2>/dev/null
}

find_python() {
    local name names=(python3 python3.14 python3.13 python3.12 python3.11 python)
    if [ -n "${PYTHON:-}" ]; then names=("$PYTHON"); fi
    for name in "${names[@]}"; do
        [ -n "$(version_of "$name")" ] && echo "$name" && return
    done
    echo "Python 3.11 or newer is needed, ${names[0]} is $("${names[0]}" --version 2>&1 | head -n 1);" \
        "install one, or name it with PYTHON=/path/to/python" >&2
    return 1
}

bin_of_venv() {
    if [ -d "$venv/Scripts" ]; then echo "$venv/Scripts"; else echo "$venv/bin"; fi # Windows, others
}

# Why the environment that is there cannot be used; nothing if it can.
why_new() {
    local made_for now wanted
    now=$(version_of "$(bin_of_venv)/python")
    made_for=$(cat "$venv/.flare_geo" 2>/dev/null)
    if [ -z "$now" ] || ! "$(bin_of_venv)/python" -m pip --version >/dev/null 2>&1; then
        echo "it is broken or half made"
    elif [ -n "$made_for" ] && [ "$made_for" != "$now $here" ]; then
        echo "it was made for Python ${made_for/ / in }, this is Python $now in $here"
    elif [ -n "${PYTHON:-}" ]; then
        wanted=$(version_of "$PYTHON")
        if [ "$wanted" != "$now" ]; then echo "it has Python $now, PYTHON=$PYTHON is ${wanted:-too old}"; fi
    fi
}

make_venv() {
    local base
    base=$(find_python) || return
    echo "making $venv with $("$base" --version)"
    mkdir -p "$venv"
    echo "$(version_of "$base") $here" > "$venv/.flare_geo" # before the rest: says that it is ours, if this is interrupted
    "$base" -m venv "$venv" || {
        echo "$base cannot make a virtual environment (Debian, Ubuntu: apt-get install python3-venv)" >&2
        return 1
    }
}

if [ ! -e "$venv" ]; then
    make_venv || exit 1
else
    why=$(why_new)
    if [ -n "$why" ] && [ ! -e "$venv/.flare_geo" ]; then
        echo "$venv cannot be used and was not made by this script: $why; remove it and run this again" >&2
        exit 1
    elif [ -n "$why" ]; then
        echo "$venv is made anew: $why"
        find_python >/dev/null || exit 1
        rm -rf "$venv"
        make_venv || exit 1
    fi
fi

bin=$(bin_of_venv)
stamp="$venv/.flare_geo-$1"
if ! cat pyproject.toml constraints.txt | cmp -s - "$stamp"; then
    echo "installing flare-geo[$1] into $venv"
    "$bin/python" scripts/install.py "$1" || {
        echo "the installation did not end well: what pip says stands above; the same command goes on with it" >&2
        exit 1
    }
    cat pyproject.toml constraints.txt > "$stamp"
fi
export PATH="$PWD/$bin:$PATH"
