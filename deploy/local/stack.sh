#!/usr/bin/env bash
# make up, make down, make status: a stack that stays until it is told to go.
#
#   stack.sh up        start it and print where it answers (KAFKA=apache, MODEL=DIR|FILE)
#   stack.sh down      stop it; the pictures stay
#   stack.sh status    each process, its port, whether it is ready, its memory; each queue's lag
set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
stack=$tree/build/run/stack

# shellcheck source=deploy/local/services.sh
. "$tree/deploy/local/services.sh"
# shellcheck source=deploy/local/prepare.sh
. "$tree/deploy/local/prepare.sh"

fail() {
    echo "$command: $*" >&2
    exit 1
}

# ---- up --------------------------------------------------------------------------------------

print_where() {
    local url key=
    url=$(stack_setting url)
    [[ ! -f $stack/api.key ]] ||
        key="-H \"Authorization: Bearer \$(cat ${stack#"$tree"/}/api.key)\" "
    cat << END
The stack answers at $url
  Kafka    $(stack_setting kafka)
  model    $(stack_setting model)
  pictures $(stack_setting objects)
  logs     $stack/*.log

Make a picture:   make run PROMPT="a flaming obsidian sword"
or over HTTP:     curl $key-H 'Prefer: wait=30' \\
                      --json '{"prompt": "a flaming obsidian sword"}' $url/v1/generations
Look at it:       make status
Stop it:          make down
END
}

up() {
    check_stack_settings
    if stack_is_up; then
        echo "A stack is up already."
        print_where
        return
    fi
    prepare
    stack_stop 5 # what a crash may have left
    mkdir -p "$stack"
    trap 'stack_stop 5; exit 130' INT TERM HUP
    echo "Starting $(stack_contents) ..."
    stack_start "$(model_path)" || {
        stack_stop 5
        fail "the stack did not start; the logs are in $stack"
    }
    print_where
}

# ---- down ------------------------------------------------------------------------------------

down() {
    local name any=0 objects
    objects=$(stack_setting objects)
    for name in devbroker kafka "${stack_services[@]}"; do
        ! service_alive "$name" || any=1
    done
    if [[ $any -eq 0 ]]; then
        echo "No stack is up."
    fi
    stack_stop 20
    [[ $any -eq 0 ]] || echo "Stopped.${objects:+ The pictures stay in ${objects#"$tree"/}.}"
}

# ---- status ----------------------------------------------------------------------------------

memory_mib() {
    awk '/^VmRSS:/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status" 2> /dev/null || true
}

status_of() {
    local name=$1 pid state ports
    pid=$(service_pid "$name")
    if ! service_alive "$name"; then
        printf '%-10s %8s  %-22s %-9s\n' "$name" - - "not running"
        return
    fi
    # kafka.sh waits beside the Java process, which is the one to look at.
    [[ $name != kafka ]] || pid=$(cat "$stack/kafka/kafka.pid" 2> /dev/null || echo "$pid")
    ports=$(tr '\n' ' ' < "$stack/$name.ports" 2> /dev/null || true)
    state=running # Kafka has no /readyz
    if is_port_known "$name" metrics; then
        if is_ready "$name"; then state=ready; else state="not ready"; fi
    fi
    printf '%-10s %8d  %-28s %-9s %8s MiB\n' "$name" "$pid" "$ports" "$state" "$(memory_mib "$pid")"
}

# The router knows how far each consumer group is behind.
print_lags() {
    local port lags
    port=$(service_port router metrics)
    [[ -n $port ]] || return 0
    lags=$(curl -fs --max-time 3 "http://127.0.0.1:$port/metrics" |
        sed -nE 's/^crafterse_router_queue_lag\{(.*)\} ([0-9.e+]+)$/\1 \2/p' |
        sed -E 's/([a-z]+)="([^"]*)",?/\2 /g' || true)
    [[ -n $lags ]] || return 0
    printf '\n%-44s %s\n' "queue" "waiting"
    awk '{ printf "%-44s %d\n", $1, $NF }' <<< "$lags"
}

status() {
    local name broker=devbroker
    if [[ ! -f $stack/settings ]]; then
        echo "No stack is up; make up starts one."
        return
    fi
    [[ $(stack_setting kafka) != *Apache* ]] || broker=kafka
    [[ $(stack_setting kafka) != *yours* ]] || broker=
    printf '%-10s %8s  %-28s %-9s %12s\n' service pid ports state memory
    for name in $broker "${stack_services[@]}"; do
        status_of "$name"
    done
    print_lags
}

command=${1:-}
case $command in
    up | down | status) "$command" ;;
    *)
        echo "usage: $0 up|down|status" >&2
        exit 2
        ;;
esac
