#!/usr/bin/env bash
# Installs what checks the manifests and the workflow, pinned, into build/tools with Go (1.24 or
# newer). kubectl is not among them: 1.28 or newer from your distribution or https://kubernetes.io.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p build/tools
export GOBIN=$PWD/build/tools CGO_ENABLED=0
go install -ldflags=-s github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0
go install -ldflags=-s github.com/zegl/kube-score/cmd/kube-score@v1.20.0
go install -ldflags=-s github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
