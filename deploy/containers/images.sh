#!/usr/bin/env bash
# make images: builds every target of the Dockerfile and holds each to its size.
#
#   images.sh [TARGET...]        build these (default: all), then print their sizes
#   images.sh --sizes [TARGET...]  only the sizes of what is built already
#
# Works with docker, podman or buildah, whichever is there first (or CONTAINER_TOOL names it).
#   BASE            the base image (default debian:bookworm-slim; base-images.sh makes one)
#   IMAGE_PREFIX    images are IMAGE_PREFIX/TARGET:IMAGE_TAG (default crafterse)
#   IMAGE_TAG       default: git describe
#   REPOSITORY_URL  where the sources are published, for the label (default: deploy/repository.env)
#   BUILD_OPTIONS   more options of the build, for example --network=host
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# TARGET=MiB over the base image; the budget of the demo image is the worker's and its model.
declare -A budgets=([gateway]=30 [router]=30 [uploader]=30 [worker]=130 [worker-demo]=160
    [admin]=30)
all=(gateway router uploader worker worker-demo admin)

fail() {
    echo "images: $*" >&2
    exit 1
}

find_tool() {
    local name
    for name in ${CONTAINER_TOOL:-docker podman buildah}; do
        if command -v "$name" > /dev/null; then
            echo "$name"
            return
        fi
    done
    fail "none of docker, podman and buildah is installed"
}

tool=$(find_tool)
base=${BASE:-debian:bookworm-slim}
prefix=${IMAGE_PREFIX:-crafterse}
repository=${REPOSITORY_URL:-$(sed -n 's/^REPOSITORY_URL=//p' deploy/repository.env)}
tag=${IMAGE_TAG:-$(git describe --always --dirty 2> /dev/null || echo unknown)}
only_sizes=0
if [[ ${1:-} == --sizes ]]; then
    only_sizes=1
    shift
fi
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=("${all[@]}")

build() {
    local target=$1 command=(build) log=build/images/$1.log options=()
    [[ $tool != buildah ]] || command=(build --layers)
    read -r -a options <<< "${BUILD_OPTIONS:-}"
    mkdir -p build/images
    "$tool" "${command[@]}" "${options[@]}" --file deploy/containers/Dockerfile --target "$target" \
        --build-arg BASE="$base" --build-arg VERSION="$tag" --build-arg JOBS="$(nproc)" \
        --label org.opencontainers.image.source="$repository" \
        --label org.opencontainers.image.version="$tag" \
        --label org.opencontainers.image.revision="$(git rev-parse HEAD 2> /dev/null || true)" \
        --label org.opencontainers.image.created="$(git log -1 --format=%cI 2> /dev/null || true)" \
        --tag "$prefix/$target:$tag" --tag "$prefix/$target:latest" . > "$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "$target was not built; its last lines are above, all of them in $log"
    }
}

# The bytes of an image, all layers together.
size() {
    local container bytes
    if [[ $tool != buildah ]]; then
        "$tool" image inspect --format '{{.Size}}' "$1"
        return
    fi
    container=$(buildah from --pull=never "$1")
    bytes=$(du -sxB1 "$(buildah mount "$container")" | cut -f1)
    buildah umount "$container" > /dev/null
    buildah rm "$container" > /dev/null
    echo "$bytes"
}

mib() { awk -v bytes="$1" 'BEGIN { printf "%.1f", bytes / 1048576 }'; }

started=$SECONDS
over=()
if [[ $only_sizes -eq 0 ]]; then
    for target in "${targets[@]}"; do
        [[ -n ${budgets[$target]:-} ]] || fail "no target $target: there are ${all[*]}"
        build "$target"
    done
fi
base_bytes=$(size "$base")
printf '%-12s %10s %12s %10s\n' image "size MiB" "over base" budget
for target in "${targets[@]}"; do
    bytes=$(size "$prefix/$target:$tag")
    own=$((bytes - base_bytes))
    printf '%-12s %10s %12s %10s\n' "$target" "$(mib "$bytes")" "$(mib "$own")" \
        "${budgets[$target]}"
    ((own <= budgets[$target] * 1048576)) || over+=("$target")
done
echo "base $base: $(mib "$base_bytes") MiB; built with $tool in $((SECONDS - started)) s"
[[ ${#over[@]} -eq 0 ]] || fail "over their budget: ${over[*]}"
