#!/usr/bin/env bash
# Prints the commands that make the topics of option 1 within the 1 GB of a managed free tier: the
# code's table (crafterse-admin topics) with smaller bounds. The router leaves what is there alone.
#
#   deploy/k8s/overlays/option1-free/topics.sh --bootstrap-server HOST:PORT --command-config FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../../.."

# MiB a partition: what is kept, and the segment that is being written, which no bound takes away. A
# segment holds the largest message. What falls out of a queue is lost to its job: an alert watches
# them; of results half is used at most (RESULTS_WAITING_MAX).
bound() {
    case $1 in
        *.results) echo 48 16 ;;
        *.inputs | *.deadletter) echo 32 16 ;;
        *.status | *.hits) echo 24 8 ;;
        *) echo 8 4 ;;
    esac
}

# What is kept for so long: records, of a compacted topic its tombstones.
age() { [[ $1 == compact ]] && echo delete.retention.ms || echo retention.ms; }

total=0
count=0
while IFS=$'\t' read -r name partitions cleanup time _ message; do
    read -r kept segment < <(bound "$name")
    total=$((total + (kept + segment) * partitions))
    count=$((count + partitions))
    echo "kafka-topics.sh $* --create --if-not-exists --topic $name --partitions $partitions" \
        "--config cleanup.policy=$cleanup --config $(age "$cleanup")=$time" \
        "--config retention.bytes=$((kept * 1048576))" \
        "--config segment.bytes=$((segment * 1048576)) --config max.message.bytes=$message"
done < <(CRAFTERSE_KAFKA_BROKERS=none:1 CRAFTERSE_POOLS=${CRAFTERSE_POOLS:-default} \
    CRAFTERSE_LANES=${CRAFTERSE_LANES:-8} build/bin/crafterse-admin topics | tail -n +2)
echo "# $count partitions, at most $total MiB in all"
((count <= 100 && total * 1048576 <= 1000000000)) || {
    echo "topics.sh: more than 100 partitions or 1 GB: fewer pools or lanes" >&2
    exit 1
}
