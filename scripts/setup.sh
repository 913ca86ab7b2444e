# Sourced by the other scripts: a virtual environment in .venv with this checkout and the extras in
# $1 installed. What is there already is taken as it is; it is brought up to date when
# pyproject.toml or constraints.txt has changed since.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
venv=.venv
stamp="$venv/.flare_geo-$1"
if [ ! -x "$venv/bin/python" ]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "Python 3.11 or newer is needed, this is $(python3 --version)" >&2
        exit 1
    }
    echo "making $venv"
    python3 -m venv "$venv" || exit 1
fi
if ! cat pyproject.toml constraints.txt | cmp -s - "$stamp"; then
    echo "installing flare-geo[$1] into $venv (a minute or two)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c constraints.txt -e ".[$1]" || exit 1
    cat pyproject.toml constraints.txt > "$stamp"
fi
export PATH="$PWD/$venv/bin:$PATH"
