#!/usr/bin/env bash
# Makes the images that others come from a registry, from packages instead, so that building and
# running can be tested where no registry is reached.
#
#   base-images.sh base      debian:bookworm-slim from Debian packages (mmdebstrap)
#   base-images.sh stack     what the compose file runs beside our services, on that base:
#                            Kafka (Maven), Redis, Prometheus and Alertmanager (Debian),
#                            versitygw as the S3 server (Go module)
#
# Images of the stack are tagged crafterse-local/NAME; deploy/compose/local.env names them. Grafana
# is packaged by none of these: where no registry is reached the stack runs without it.
# Needs root (mmdebstrap), and mmdebstrap, docker; for the stack also java, maven and go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=build/images
options=()
read -r -a options <<< "${BUILD_OPTIONS:-}"

fail() {
    echo "base-images: $*" >&2
    exit 1
}

need() {
    local name
    for name in "$@"; do
        command -v "$name" > /dev/null || fail "$name is not installed"
    done
}

# As the official slim image: without documents, manuals and translations.
make_base() {
    local path excludes=()
    need mmdebstrap docker
    for path in doc man locale info lintian groff; do
        excludes+=(--dpkgopt="path-exclude=/usr/share/$path/*")
    done
    mkdir -p "$work"
    mmdebstrap --quiet --variant=minbase "${excludes[@]}" \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-include=/usr/share/locale/locale.alias' bookworm "$work/base.tar"
    docker import \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'CMD ["bash"]' "$work/base.tar" debian:bookworm-slim
    rm "$work/base.tar"
}

make_stack() {
    local context=$work/stack name
    need docker go
    rm -rf "$context"
    mkdir -p "$context"
    deploy/local/kafka.sh install build/kafka
    cp -r build/kafka/lib "$context/kafka-lib"
    cp deploy/containers/kafka-entry.sh "$context/"
    GOBIN=$PWD/$context CGO_ENABLED=0 go install -ldflags=-s \
        github.com/versity/versitygw/cmd/versitygw@v1.8.0
    for name in kafka redis prometheus alertmanager s3; do
        docker build "${options[@]}" --file deploy/containers/stack.Dockerfile --target "$name" \
            --tag "crafterse-local/$name" "$context"
    done
}

case ${1:-} in
    base) make_base ;;
    stack) make_stack ;;
    *) fail "usage: base-images.sh base|stack" ;;
esac
