#!/usr/bin/env bash
# Run a command as if graphics libraries were not installed.
#
#   scripts/without_graphics.sh [--hide all|egl|x11] COMMAND...
#
#   all   no libGL, libEGL, libOSMesa, libX11, ...: a slim container (the default)
#   egl   libGL and libX11 are there, libEGL and libOSMesa are not: a desktop without EGL
#   x11   libEGL is there, libX11 is not: a server with EGL alone
#
# The libraries are hidden by an overlay over their folders in a mount namespace of the command's
# own; nothing on the disk is changed. It needs Linux and root, or user namespaces. Where they are
# not allowed it says so and ends with status 77, which tests take as a reason to skip. What a VTK
# wheel brings along in site-packages stays.
set -euo pipefail

hidden=all
if [[ "${1:-}" == --hide ]]; then
    hidden="${2:-}"
    shift $(($# > 1 ? 2 : 1))
fi
case "$hidden" in
    all) patterns='lib(GL|EGL|OpenGL|OSMesa|X|xcb|gbm)' ;;
    egl) patterns='lib(EGL|OSMesa)' ;;
    x11) patterns='libX11' ;;
    *)
        echo "without_graphics.sh: --hide must be all, egl or x11, got '$hidden'" >&2
        exit 2
        ;;
esac
if [[ $# -eq 0 ]]; then
    echo "usage: without_graphics.sh [--hide all|egl|x11] COMMAND..." >&2
    exit 2
fi

if [[ -z "${FLARE_GEO_INSIDE:-}" ]]; then
    namespace=()
    for options in "-m" "-mr"; do
        if unshare $options true 2>/dev/null; then
            namespace=(unshare $options)
            break
        fi
    done
    if [[ ${#namespace[@]} -eq 0 ]]; then
        echo "without_graphics.sh: no mount namespace can be made here (needs root)" >&2
        exit 77
    fi
    FLARE_GEO_INSIDE=1 exec "${namespace[@]}" --propagation private \
        bash "$0" --hide "$hidden" "$@"
fi
unset FLARE_GEO_INSIDE

room="$(mktemp -d)"
mount -t tmpfs tmpfs "$room"
number=0
for folder in $( (ldconfig -p | sed -n 's/.* => \(.*\)\/[^/]*$/\1/p'; echo /usr/lib/x86_64-linux-gnu) \
    | xargs -r realpath -q | sort -u); do
    names="$(ls "$folder" | grep -E "^$patterns.*\.so" || true)"
    [[ -n "$names" ]] || continue
    number=$((number + 1))
    mkdir -p "$room/$number/upper" "$room/$number/work"
    layers="lowerdir=$folder,upperdir=$room/$number/upper,workdir=$room/$number/work"
    if ! { for name in $names; do mknod "$room/$number/upper/$name" c 0 0; done &&
        mount -t overlay overlay -o "$layers" "$folder"; } 2>/dev/null; then
        echo "without_graphics.sh: $folder cannot be overlaid here" >&2
        exit 77
    fi
done
umount -l "$room" # the overlays hold what they need of it
rmdir "$room"
exec "$@"
