#!/usr/bin/env bash
# Writes components/strimzi/topics.yaml from the topic table in the code (common/bus/topics.c),
# which crafterse-admin prints.
#
#   deploy/k8s/topics.sh            write it
#   deploy/k8s/topics.sh --check    fail when it is not what the code says
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
page=deploy/k8s/components/strimzi/topics.yaml

topics() {
    CRAFTERSE_KAFKA_BROKERS=none:1 CRAFTERSE_POOLS=$1 CRAFTERSE_LANES=$2 \
        build/bin/crafterse-admin topics | tail -n +2
}

# The pools of the overlays, each with its lanes: twice the most workers that KEDA may start.
render() {
    echo "# Written by deploy/k8s/topics.sh from common/bus/topics.c."
    { topics default 8 && topics sdxl 16 | grep '\.sdxl'; } |
        while IFS=$'\t' read -r name partitions cleanup time bytes message; do
            # What is kept for so long: records, of a compacted topic its tombstones.
            age=$([[ $cleanup == compact ]] && echo delete.retention.ms || echo retention.ms)
            cat << END
---
apiVersion: kafka.strimzi.io/v1beta2
kind: KafkaTopic
metadata:
  name: $name
  labels: {strimzi.io/cluster: crafterse}
spec:
  partitions: $partitions
  replicas: 3
  config:
    cleanup.policy: $cleanup
    $age: $time
    retention.bytes: $bytes
    max.message.bytes: $message
    min.insync.replicas: 2
END
        done
}

fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
render > "$fresh"
case "${1:-}" in
    --check)
        diff -u "$page" "$fresh" || {
            echo "$page is stale: run deploy/k8s/topics.sh and commit it"
            exit 1
        }
        ;;
    "") mv "$fresh" "$page" && chmod 644 "$page" ;;
    *)
        echo "usage: $0 [--check]" >&2
        exit 2
        ;;
esac
