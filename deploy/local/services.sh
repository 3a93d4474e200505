# shellcheck shell=bash
# Starts, watches and stops the services of one stack on this machine. Sourced by run.sh and
# stack.sh, which own the words for people.
#
# A stack lives in one folder: <name>.pid, <name>.ports (written by the service itself, "http=8080"
# lines), <name>.log of every process, objects/ (the folder store) and `settings`. Every port is
# free and on loopback. Each setting that the caller already has in the environment wins, so the
# same script runs against another Kafka, Redis or object store.
#
# The sourcing script sets stack (the stack's folder, absolute) and tree (the repository, absolute).
: "${stack:?}" "${tree:?}"

# Order of starting and of showing; the broker comes first.
stack_services=(router worker uploader gateway)
ready_seconds=300 # seconds are usual; a large model on a busy machine takes longer

# ---- One process -----------------------------------------------------------------------------

# The pid file holds "PID STARTTIME": a pid alone may have gone to somebody else.
service_pid() {
    local pid=
    read -r pid _ 2> /dev/null < "$stack/$1.pid" || true
    echo "$pid"
}

# process_birth PID: when it started, in clock ticks since boot; nothing when it has ended.
process_birth() {
    local stat fields
    stat=$(cat "/proc/$1/stat" 2> /dev/null) || return 0
    read -r -a fields <<< "${stat##*) }" # after "PID (name) ": the name may hold anything
    [[ ${fields[0]} == Z ]] || echo "${fields[19]}"
}

service_alive() {
    local pid birth
    read -r pid birth 2> /dev/null < "$stack/$1.pid" || return 1
    [[ -n $birth && $(process_birth "$pid") == "$birth" ]]
}

# service_port NAME KIND: the port that the service published, or nothing.
service_port() {
    sed -n "s/^$2=//p" "$stack/$1.ports" 2> /dev/null || true
}

# launch NAME COMMAND...: starts it in the background, in a session of its own, so that Ctrl-C in
# the terminal reaches only the script, which then stops everything in order. With stack_tied=1
# the process also gets SIGTERM when the script is killed outright.
launch() {
    local name=$1 tie=()
    shift
    [[ ${stack_tied:-0} -eq 0 ]] || tie=(setpriv --pdeathsig TERM)
    rm -f "$stack/$name.ports"
    CRAFTERSE_PORT_FILE="$stack/$name.ports" setsid "${tie[@]}" "$@" \
        > "$stack/$name.log" 2>&1 < /dev/null &
    echo "$! $(process_birth $!)" > "$stack/$name.pid"
    disown # or bash would tell of each one that was killed
}

# The first one that was started and has ended; nothing when all live.
dead_service() {
    local name
    for name in devbroker kafka "${stack_services[@]}"; do
        if [[ -f $stack/$name.pid ]] && ! service_alive "$name"; then
            echo "$name"
            return
        fi
    done
}

# The service ended or never became ready: its last words, and where the rest is.
explain() {
    local name=$1 why=$2
    {
        echo "$name $why. The end of its log ($stack/$name.log):"
        tail -n 12 "$stack/$name.log" 2> /dev/null | sed 's/^/  | /'
    } >&2
}

# wait_for NAME SECONDS TEST...: until the test holds. Fails when the process ends or time is up.
wait_for() {
    local name=$1 seconds=$2 deadline=$((SECONDS + $2))
    shift 2
    until "$@"; do
        if ! service_alive "$name"; then
            explain "$name" "ended before it was ready"
            return 1
        fi
        if ((SECONDS >= deadline)); then
            explain "$name" "is not ready after $seconds s"
            return 1
        fi
        sleep 0.05
    done
}

is_port_known() {
    [[ -n $(service_port "$1" "$2") ]]
}

is_ready() {
    local port
    port=$(service_port "$1" metrics)
    [[ -n $port ]] && curl -fs -o /dev/null --max-time 2 "http://127.0.0.1:$port/readyz"
}

# The gateway has heard of the worker: before that it answers 503 to every order.
knows_a_model() {
    local key=()
    [[ ! -f $stack/api.key ]] || key=(-H "Authorization: Bearer $(cat "$stack/api.key")")
    curl -fs --max-time 2 "${key[@]}" "$stack_url/v1/models" |
        jq -e 'any(.models[]; .workers > 0)' > /dev/null
}

# ---- The stack -------------------------------------------------------------------------------

# Exports what all services share. Three kinds of Kafka: one that the caller names, Apache's, or
# devbroker.
start_kafka() {
    export CRAFTERSE_KAFKA_BROKERS CRAFTERSE_KAFKA_SESSION_TIMEOUT CRAFTERSE_EMBEDDED
    if [[ -n ${CRAFTERSE_KAFKA_BROKERS:-} ]]; then
        stack_kafka="$CRAFTERSE_KAFKA_BROKERS (yours)"
        return
    fi
    CRAFTERSE_KAFKA_SESSION_TIMEOUT=${CRAFTERSE_KAFKA_SESSION_TIMEOUT:-6s}
    if [[ ${KAFKA:-} == apache ]]; then
        launch kafka "$tree/deploy/local/kafka.sh" start "$stack/kafka" "$stack/kafka.ports"
        wait_for kafka "$ready_seconds" is_port_known kafka kafka || return 1
        CRAFTERSE_KAFKA_BROKERS=127.0.0.1:$(service_port kafka kafka)
        stack_kafka="$CRAFTERSE_KAFKA_BROKERS (Apache Kafka)"
    else
        launch devbroker "$tree/build/bin/devbroker"
        wait_for devbroker "$ready_seconds" is_port_known devbroker kafka || return 1
        CRAFTERSE_KAFKA_BROKERS=127.0.0.1:$(service_port devbroker kafka)
        CRAFTERSE_EMBEDDED=true
        stack_kafka="$CRAFTERSE_KAFKA_BROKERS (devbroker)"
    fi
}

# What stack_start is about to start, for people.
stack_contents() {
    local kafka="devbroker, "
    [[ ${KAFKA:-} != apache ]] || kafka="Apache Kafka, "
    [[ -z ${CRAFTERSE_KAFKA_BROKERS:-} ]] || kafka=
    echo "${kafka}router, worker, uploader and gateway"
}

# The gateway may go without keys only with devbroker and on loopback; otherwise a key is made.
make_api_key() {
    local key
    [[ ${CRAFTERSE_EMBEDDED:-} != true ]] || {
        export CRAFTERSE_AUTH=${CRAFTERSE_AUTH:-off}
        return
    }
    [[ -z ${CRAFTERSE_API_KEYS_FILE:-} ]] || return 0
    key=$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')
    (
        umask 077
        echo "$key" > "$stack/api.key"
        printf 'local:%s\n' "$(printf %s "$key" | sha256sum | cut -d' ' -f1)" > "$stack/api.keys"
    )
    export CRAFTERSE_API_KEYS_FILE=$stack/api.keys
}

# Where the folder store lies. A Kafka or Redis of the caller's remembers pictures for longer than
# one stack lives, so their objects must stay where the next stack finds them.
objects_folder() {
    if [[ -n ${CRAFTERSE_STORE_FOLDER:-} ]]; then
        echo "$CRAFTERSE_STORE_FOLDER"
    elif [[ -n ${CRAFTERSE_KAFKA_BROKERS:-}${CRAFTERSE_REDIS_URL:-} ]]; then
        echo "$tree/build/run/objects"
    else
        echo "$stack/objects"
    fi
}

# stack_start MODEL_FOLDER: starts everything at once (joining a group takes seconds each) and
# returns when all are ready; on failure says why and returns 1, leaving the rest for stack_stop.
stack_start() {
    local model=$1 name objects
    objects=$(objects_folder) # before start_kafka names a broker of ours
    export CRAFTERSE_METRICS_LISTEN=127.0.0.1:0
    start_kafka || return 1
    make_api_key

    export CRAFTERSE_TOPICS_CREATE=${CRAFTERSE_TOPICS_CREATE:-true}
    export CRAFTERSE_TOPICS_REPLICATION=${CRAFTERSE_TOPICS_REPLICATION:-1}
    export CRAFTERSE_STORE=${CRAFTERSE_STORE:-folder}
    export CRAFTERSE_MODEL_PATH=$model
    export CRAFTERSE_HTTP_LISTEN=${CRAFTERSE_HTTP_LISTEN:-127.0.0.1:0}
    if [[ $CRAFTERSE_STORE == folder ]]; then
        mkdir -p "$objects"
        export CRAFTERSE_STORE_FOLDER=$objects CRAFTERSE_OBJECTS_FOLDER=$objects
    fi
    for name in "${stack_services[@]}"; do
        launch "$name" "$tree/build/bin/$name"
    done
    for name in "${stack_services[@]}"; do
        wait_for "$name" "$ready_seconds" is_ready "$name" || return 1
    done
    stack_url=http://127.0.0.1:$(service_port gateway http)
    wait_for gateway "$ready_seconds" knows_a_model || return 1
    [[ $CRAFTERSE_STORE == folder ]] || objects=$CRAFTERSE_STORE
    printf '%s\n' "url=$stack_url" "kafka=$stack_kafka" "model=$model" "objects=$objects" \
        > "$stack/settings"
}

# Ends processes by name: asks, waits up to SECONDS, then kills.
end_processes() {
    local deadline=$((SECONDS + $1)) name running
    shift
    for name in "$@"; do
        ! service_alive "$name" || kill -TERM "$(service_pid "$name")" 2> /dev/null || true
    done
    while :; do
        running=()
        for name in "$@"; do
            if service_alive "$name"; then running+=("$name"); else rm -f "$stack/$name.pid"; fi
        done
        [[ ${#running[@]} -gt 0 ]] || return 0
        ((SECONDS < deadline)) || break
        sleep 0.05
    done
    for name in "${running[@]}"; do
        kill -KILL "$(service_pid "$name")" 2> /dev/null || true
        rm -f "$stack/$name.pid"
    done
}

# stack_stop SECONDS: services first, so that they can still say goodbye to Kafka. devbroker keeps
# nothing, so there is nothing to wait for.
stack_stop() {
    end_processes "$1" "${stack_services[@]}"
    end_processes 0 devbroker
    end_processes "$1" kafka
    rm -f "$stack/settings" "$stack"/*.ports "$stack/api.key" "$stack/api.keys"
}

stack_setting() {
    sed -n "s/^$1=//p" "$stack/settings" 2> /dev/null || true
}

# Up means: it was started whole, and its gateway still lives.
stack_is_up() {
    [[ -f $stack/settings ]] && service_alive gateway
}
