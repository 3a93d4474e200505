#!/usr/bin/env bash
# Fuzzes one parser: tests/fuzz/run.sh PROGRAM SECONDS. It starts from tests/fuzz/corpus/NAME and
# what earlier runs found worth keeping (build/fuzz/corpus/NAME). An input that breaks it is left in
# build/fuzz/NAME-crash-… and the like. Each run adds a line to build/fuzz/log: date, commit, name,
# processor seconds, runs, how many places of the program were reached.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
program=$1 seconds=$2
name=${program##*/}
log=build/fuzz/$name.log
mkdir -p "build/fuzz/corpus/$name"
echo "fuzz $name: $seconds s"

TIMEFORMAT='%U %S'
status=0
cpu=$({
    time "$program" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=2048 -max_len=65536 \
        -artifact_prefix="build/fuzz/$name-" -print_final_stats=1 "build/fuzz/corpus/$name" \
        "tests/fuzz/corpus/$name" > "$log" 2>&1
} 2>&1) || status=$?
cpu=$(awk '{printf "%.0f", $1 + $2}' <<< "$cpu")
runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
reached=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2 || true)
printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$(date -u +%F)" "$(git describe --always --dirty)" "$name" \
    "$cpu" "${runs:-0}" "${reached:-0}" >> build/fuzz/log
if [[ $status -ne 0 ]]; then
    tail -n 40 "$log"
    echo "fuzz $name: FAILED, see $log"
    exit 1
fi
echo "fuzz $name: $runs runs, $cpu s of processor time, $reached places reached"
