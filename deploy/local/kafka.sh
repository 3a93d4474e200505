#!/usr/bin/env bash
# A real Apache Kafka on this machine: one node (KRaft: broker and controller in one process), with
# a small heap, on loopback. For tests and for `make run KAFKA=apache`; not for production.
#
#   kafka.sh install DIR                fetch the jars into DIR/lib with Maven (once; needs network)
#   kafka.sh start DATA_DIR PORT_FILE [SETTINGS]
#                                       run a node until SIGTERM or SIGINT; the lines of SETTINGS,
#                                       a file, override those of server.properties (tests make a
#                                       node of a cluster with it)
#
# `start` keeps records and settings in DATA_DIR. The first start picks two free ports and formats
# the storage; a later start with the same DATA_DIR is the same node, on the same port, with the
# same records. When the node answers, PORT_FILE gets the line "kafka=PORT" and stdout the address.
# DATA_DIR/kafka.pid holds the Java process (for tests that kill it), DATA_DIR/kafka.log its log.
# The jars are looked for in CRAFTERSE_KAFKA_HOME (default: build/kafka of this tree). Nodes of one
# cluster get the same CRAFTERSE_KAFKA_CLUSTER (22 characters of base64); CRAFTERSE_KAFKA_HEAP is
# Java's largest heap (512m).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kafka_home=${CRAFTERSE_KAFKA_HOME:-$here/../../build/kafka}

fail() {
    echo "kafka.sh: $*" >&2
    exit 1
}

need_java() {
    command -v java >/dev/null ||
        fail "no java: install Java 17 (Debian: apt install openjdk-17-jre-headless)"
}

# ---- install ---------------------------------------------------------------------------------

install_jars() {
    local home=$1 wanted
    need_java
    wanted=$(sha256sum <"$here/kafka/pom.xml" | cut -d' ' -f1)
    [ -f "$home/installed" ] && [ "$(cat "$home/installed")" = "$wanted" ] && return 0
    command -v mvn >/dev/null || fail "no mvn: install Maven (Debian: apt install maven)"
    mkdir -p "$home"
    rm -rf "${home:?}/lib.new" "${home:?}/pom"
    mkdir "$home/pom"
    cp "$here/kafka/pom.xml" "$home/pom/"
    echo "kafka.sh: fetching Apache Kafka with Maven into $home/lib" >&2
    mvn -B -q -f "$home/pom/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$(cd "$home" && pwd)/lib.new" >"$home/maven.log" 2>&1 || {
        tail -n 15 "$home/maven.log" >&2
        fail "Maven could not fetch Kafka's jars: see the lines above ($home/maven.log)"
    }
    rm -rf "${home:?}/lib"
    mv "$home/lib.new" "$home/lib"
    echo "$wanted" >"$home/installed"
}

# ---- start -----------------------------------------------------------------------------------

is_free() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Below the kernel's range for outgoing connections, so that nothing takes the port in between.
free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + RANDOM % 12000))
        if [ "$port" != "${1:-}" ] && is_free "$port"; then
            echo "$port"
            return
        fi
    done
    fail "found no free port between 20000 and 32000"
}

write_settings() {
    local data=$1 settings=$2 port controller_port
    port=$(free_port)
    controller_port=$(free_port "$port")
    cat >"$data/log4j.properties" <<END
log4j.rootLogger=WARN, file
log4j.logger.kafka=INFO
log4j.logger.org.apache.kafka=WARN
log4j.appender.file=org.apache.log4j.FileAppender
log4j.appender.file.File=$data/kafka.log
log4j.appender.file.layout=org.apache.log4j.PatternLayout
log4j.appender.file.layout.ConversionPattern=[%d] %p %m (%c)%n
END
    cat >"$data/server.properties.new" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$data/records
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
log.segment.bytes=67108864
num.network.threads=2
num.io.threads=2
background.threads=2
log.cleaner.dedupe.buffer.size=16777216
END
    if [ -n "$settings" ]; then # the last line of a name counts
        cat "$settings" >>"$data/server.properties.new"
    fi
    mv "$data/server.properties.new" "$data/server.properties"
}

run_java() {
    java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
        -Dlog4j.configuration="file:$data/log4j.properties" -cp "$kafka_home/lib/*" "$@"
}

format_storage() {
    [ -f "$data/records/meta.properties" ] && return 0
    local cluster
    cluster=${CRAFTERSE_KAFKA_CLUSTER:-$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' |
        cut -c 1-22)}
    run_java kafka.tools.StorageTool format --ignore-formatted -t "$cluster" \
        -c "$data/server.properties" >"$data/format.log" 2>&1 || {
        tail -n 5 "$data/format.log" >&2
        fail "could not format $data/records"
    }
}

stop_node() {
    trap '' TERM INT
    kill -TERM "$node" 2>/dev/null || true
    for _ in $(seq 100); do
        kill -0 "$node" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$node" 2>/dev/null || true
    rm -f "$port_file" "$data/kafka.pid"
    exit 0
}

explain_exit() {
    grep -E 'ERROR|FATAL|BindException' "$data/kafka.log" "$data/kafka.out" | tail -n 5 >&2 || true
    fail "Kafka ended before it was asked to: see $data/kafka.log"
}

# The port answers before the node does; its log says when it serves.
wait_until_serving() {
    for _ in $(seq 600); do
        kill -0 "$node" 2>/dev/null || explain_exit
        if tail -c "+$log_start" "$data/kafka.log" | grep -q 'Kafka Server started'; then
            return
        fi
        sleep 0.1
    done
    kill -KILL "$node"
    fail "Kafka did not start within 60 s: see $data/kafka.log"
}

start_node() {
    data=$1
    port_file=$2
    local settings=${3:-}
    need_java
    [ -d "$kafka_home/lib" ] ||
        fail "no jars in $kafka_home/lib: run 'kafka.sh install $kafka_home' first"
    mkdir -p "$data"
    data=$(cd "$data" && pwd)
    rm -f "$port_file"
    [ -f "$data/server.properties" ] || write_settings "$data" "$settings"
    format_storage
    touch "$data/kafka.log"
    log_start=$(($(stat -c %s "$data/kafka.log") + 1))

    # setpriv: should this script be killed outright, the node goes too.
    # The quick compiler starts soonest; the load bench asks for the one that servers run with.
    setpriv --pdeathsig TERM java -Xms256m "-Xmx${CRAFTERSE_KAFKA_HEAP:-512m}" -XX:+UseSerialGC \
        -XX:TieredStopAtLevel="${CRAFTERSE_KAFKA_JIT_LEVEL:-1}" \
        -Dlog4j.configuration="file:$data/log4j.properties" -cp "$kafka_home/lib/*" \
        kafka.Kafka "$data/server.properties" </dev/null >"$data/kafka.out" 2>&1 &
    node=$!
    trap stop_node TERM INT
    echo "$node" >"$data/kafka.pid"
    wait_until_serving

    port=$(sed -n 's|^advertised.listeners=PLAINTEXT://[^:]*:\([0-9]*\).*|\1|p' \
        "$data/server.properties" | tail -n 1)
    echo "kafka=$port" >"$port_file.new"
    mv "$port_file.new" "$port_file"
    echo "127.0.0.1:$port"
    wait "$node" || true
    explain_exit
}

case "${1:-}:$#" in
    install:2) install_jars "$2" ;;
    start:3 | start:4) start_node "$2" "$3" "${4:-}" ;;
    *) fail "usage: kafka.sh install DIR | kafka.sh start DATA_DIR PORT_FILE [SETTINGS]" ;;
esac
