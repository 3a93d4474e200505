#!/usr/bin/env bash
# Installs what checks the manifests and the workflow, pinned, into build/tools with Go (1.24 or
# newer); does nothing when they are there. kubectl is not among them: 1.28 or newer from your
# distribution or https://kubernetes.io.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools=(
    github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0
    github.com/zegl/kube-score/cmd/kube-score@v1.20.0
    github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
)
installed=build/tools/installed
[[ -f $installed && $(< $installed) == "${tools[*]}" ]] && exit 0
mkdir -p build/tools
export GOBIN=$PWD/build/tools CGO_ENABLED=0
for tool in "${tools[@]}"; do
    go install -ldflags=-s "$tool"
done
echo "${tools[*]}" > $installed
