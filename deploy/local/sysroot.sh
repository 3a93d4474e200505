#!/usr/bin/env bash
# Unpacks what the build needs of another architecture (Debian's headers and libraries, those of
# deploy/local/packages) into a folder that a cross compiler and qemu-user take as their root.
# Nothing is installed, so nothing of this machine can conflict with it. Does nothing when it is
# there.
#
#   deploy/local/sysroot.sh ARCHITECTURE FOLDER      e.g. arm64 build/sysroot-arm64
set -euo pipefail

[[ $# -eq 2 ]] || {
    echo "usage: $0 ARCHITECTURE FOLDER (e.g. arm64 build/sysroot-arm64)" >&2
    exit 2
}
architecture=$1
folder=$2
list=$(dirname "${BASH_SOURCE[0]}")/packages
packages=$(awk '$1 == "build" && $2 ~ /^lib.*-dev$/ { print $2 }' "$list" | paste -sd,)
[[ -e $folder/ready && $(< "$folder/ready") == "$packages" ]] && exit 0
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")

# A folder that a signal left half done would make mmdebstrap refuse.
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
echo "Unpacking Debian $suite for $architecture into $folder (about 170 MB)."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! mmdebstrap --architectures="$architecture" --variant=extract --include="$packages" \
    "$suite" "$folder" > "$log" 2>&1; then
    cat "$log" >&2
    echo "sysroot: mmdebstrap failed; its words are above." >&2
    exit 1
fi

# The links of the packages lead from the root: from here they would lead into this machine.
while IFS= read -r -d '' link; do
    target=$(readlink "$link")
    ln -sfn "$(realpath -ms --relative-to="$(dirname "$link")" "$folder$target")" "$link"
done < <(find "$folder" -type l -lname '/*' -print0)

# What update-alternatives would do when OpenBLAS is installed.
for libraries in "$folder"/usr/lib/*-linux-gnu*; do
    ln -sfn openblas-pthread/libopenblas.so.0 "$libraries/libopenblas.so.0"
    ln -sfn ../openblas-pthread/pkgconfig/openblas.pc "$libraries/pkgconfig/openblas.pc"
done
echo "$packages" > "$folder/ready"
