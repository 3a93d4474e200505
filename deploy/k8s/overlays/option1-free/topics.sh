#!/usr/bin/env bash
# Prints the commands that make the topics of option 1 within the 1 GB of a managed free tier: the
# code's table (crafterse-admin topics) with smaller bounds. The router leaves what is there alone.
#
#   deploy/k8s/overlays/option1-free/topics.sh --bootstrap-server HOST:PORT --command-config FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../../.."

# MiB a partition. What falls out of results or a queue is lost to its job: alerts watch both.
bound() {
    case $1 in
        *.results) echo 64 ;;
        *.inputs | *.deadletter) echo 48 ;;
        *.status | *.hits) echo 32 ;;
        *) echo 12 ;;
    esac
}

total=0
while IFS=$'\t' read -r name partitions cleanup time _ message; do
    mib=$(bound "$name")
    total=$((total + mib * partitions))
    echo "kafka-topics.sh $* --create --if-not-exists --topic $name --partitions $partitions" \
        "--config cleanup.policy=$cleanup --config retention.ms=$time" \
        "--config retention.bytes=$((mib * 1048576)) --config max.message.bytes=$message"
done < <(CRAFTERSE_KAFKA_BROKERS=none:1 CRAFTERSE_POOLS=${CRAFTERSE_POOLS:-default} \
    CRAFTERSE_LANES=${CRAFTERSE_LANES:-8} build/bin/crafterse-admin topics | tail -n +2)
echo "# at most $total MiB in all"
((total <= 1000)) || {
    echo "topics.sh: more than 1 GB: fewer pools or lanes" >&2
    exit 1
}
