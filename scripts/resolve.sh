#!/usr/bin/env bash
# Resolves pyproject.toml from the package index for every platform and Python that is promised, with and without
# constraints.txt, and with the lowest versions allowed: from metadata, no wheel is downloaded, none may need a compiler.
# Ends with status 0 and a sentence where no index answers. uv keeps what it read, so that a second time takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
platforms=(x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin x86_64-pc-windows-msvc)
pythons=(3.11 3.12 3.13 3.14)
export MACOSX_DEPLOYMENT_TARGET=14.0
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}" # a proxy's certificate, where there is one
python=$(command -v python)
export python

# PYTHON PLATFORM EXTRAS OPTIONS...: nothing if it resolves, else what uv says
resolve() {
    local version=$1 platform=$2 said extras extra
    IFS=, read -ra extras <<<"$3"
    shift 3
    for extra in "${extras[@]}"; do set -- "$@" --extra "$extra"; done
    said=$(uv pip compile --quiet --no-python-downloads --python "$python" --only-binary :all: \
        --python-version "$version" --python-platform "$platform" "$@" pyproject.toml 2>&1 >/dev/null) && return
    echo "Python $version on $platform with $*: $said"
    return 1
}
export -f resolve

if ! said=$(echo filelock | uv pip compile --quiet --no-python-downloads --python "$python" --refresh - 2>&1); then
    echo "the versions are not resolved, as no package index answers: ${said##*$'\n'}"
    exit 0
fi
for platform in "${platforms[@]}"; do
    for version in "${pythons[@]}"; do
        for extras in dev train,viz,generate; do
            echo "$version $platform $extras"
            echo "$version $platform $extras -c constraints.txt"
        done
    done
    echo "${pythons[0]} $platform dev --resolution lowest-direct"
done | xargs -P 8 -L 1 bash -c 'resolve "$@"' _ || { # mostly they wait for the index
    echo "what does not resolve stands above" >&2
    exit 1
}
echo "the versions resolve for ${#platforms[@]} platforms and Python ${pythons[*]}"
