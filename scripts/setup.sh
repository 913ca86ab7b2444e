# shellcheck shell=bash
# Sourced by the other scripts: a virtual environment in .venv with this checkout and the extras in $1 installed.
# What is there already is taken as it is; it is brought up to date when pyproject.toml or constraints.txt has changed
# since. PYTHON=python3.12 chooses another Python than the first on the PATH that is new enough.
case "${PYTHON:-}" in /*) ;; */*) PYTHON="$PWD/$PYTHON" ;; esac
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

# The version of a Python, if it starts, is one and is new enough; nothing otherwise.
version_of() {
    "$1" -c 'import sys; v = sys.version_info; print("%d.%d" % v[:2] if v >= (3, 11) else "")' 2>/dev/null |
        grep -xE '3\.[0-9]+'
}

find_python() {
    local name names=(python3 python3.14 python3.13 python3.12 python3.11 python)
    if [ -n "${PYTHON:-}" ]; then names=("$PYTHON"); fi
    for name in "${names[@]}"; do
        [ -n "$(version_of "$name")" ] && echo "$name" && return
    done
    if [ -n "${PYTHON:-}" ]; then
        echo "PYTHON must name a Python 3.11 or newer, $PYTHON is none; nothing was changed" >&2
    else
        echo "Python 3.11 or newer is needed, and none is on the PATH;" \
            "install one, or name it with PYTHON=/path/to/python" >&2
    fi
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
    elif [ -e "$venv/.flare_geo" ] && [ "$made_for" != "$now $here" ]; then
        echo "it was made for Python ${made_for/ / in }, this is Python $now in $here"
    elif [ -n "${PYTHON:-}" ]; then
        wanted=$(version_of "$PYTHON")
        if [ "$wanted" != "$now" ]; then echo "it has Python $now, PYTHON=$PYTHON is $wanted"; fi
    fi
}

make_venv() {
    local base
    base=$(find_python) || return
    echo "making $venv with $("$base" --version)"
    # The mark comes before the rest: it says that this folder is ours, if we are interrupted
    if ! { mkdir -p "$venv" && echo "$(version_of "$base") $here" > "$venv/.flare_geo"; } 2>/dev/null; then
        echo "$here/$venv cannot be written: make room there, or allow it" >&2
        return 1
    fi
    "$base" -m venv "$venv" || {
        local advice="its reason stands above"
        "$base" -c 'import ensurepip, venv' 2>/dev/null || advice="Debian, Ubuntu: apt-get install python3-venv"
        echo "$base cannot make a virtual environment in $here ($advice)" >&2
        return 1
    }
}

# One set-up at a time in a checkout; that of a process which is gone is taken over.
lock=$venv.lock
waiting=0
until mkdir "$lock" 2>/dev/null; do
    [ -d "$lock" ] || break # the checkout cannot be written: then nothing will be changed either
    owner=$(cat "$lock/pid" 2>/dev/null)
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null || [ -z "$owner" ] && [ "$waiting" -gt 9 ]; then
        rm -rf "$lock"
        continue
    fi
    if [ "$waiting" -eq 1 ]; then echo "waiting for process ${owner:-?}, which sets up $here/$venv"; fi
    waiting=$((waiting + 1))
    sleep 1
done
if [ -d "$lock" ]; then
    echo $$ > "$lock/pid"
    trap 'rm -rf "$here/$lock"' EXIT
fi

if [ -n "${PYTHON:-}" ]; then find_python >/dev/null || exit 1; fi
if [ -L "$venv" ] && [ ! -e "$venv" ]; then
    echo "$here/$venv is a link to $(readlink "$venv"), which is not there: remove the link and run this again" >&2
    exit 1
elif [ ! -e "$venv" ]; then
    make_venv || exit 1
else
    why=$(why_new)
    if [ -n "$why" ] && [ ! -e "$venv/.flare_geo" ]; then
        echo "$here/$venv cannot be used and was not made by this script: $why; remove it and run this again" >&2
        exit 1
    elif [ -n "$why" ]; then
        echo "$venv is made anew: $why"
        find_python >/dev/null || exit 1
        if [ ! -w . ] || ! rm -rf "$venv"; then
            echo "$here/$venv cannot be removed: allow it, or remove it yourself" >&2
            exit 1
        fi
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
if [ -d "$lock" ]; then
    rm -rf "$lock"
    trap - EXIT
fi
