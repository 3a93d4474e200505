#!/usr/bin/env bash
# Starts a Kafka node from the settings that the official image takes: KAFKA_NODE_ID=1 is node.id=1.
set -euo pipefail
data=${KAFKA_LOG_DIRS:-/var/lib/kafka}
properties=$data/server.properties
mkdir -p "$data"
env | sed -n 's/^KAFKA_\([A-Z0-9_]*\)=\(.*\)$/\1 \2/p' | while read -r name value; do
    case $name in
        HEAP_OPTS | LOG_DIRS) ;;
        *) echo "$(tr 'A-Z_' 'a-z.' <<< "$name")=$value" ;;
    esac
done > "$properties"
echo "log.dirs=$data/records" >> "$properties"
cat > "$data/log4j.properties" <<'LOG'
log4j.rootLogger=WARN, out
log4j.logger.kafka=INFO
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=[%d] %p %m (%c)%n
LOG
run=(java -XX:+UseSerialGC -XX:TieredStopAtLevel=1
    -Dlog4j.configuration="file:$data/log4j.properties" -cp '/opt/kafka/libs/*')
if [[ ! -f $data/records/meta.properties ]]; then
    "${run[@]}" kafka.tools.StorageTool format --ignore-formatted \
        -t "${CLUSTER_ID:-4L6g3nShT-eMCtK--X86sw}" -c "$properties"
fi
# shellcheck disable=SC2086 # options of java, split on purpose
exec "${run[@]}" ${KAFKA_HEAP_OPTS:--Xms256m -Xmx512m} kafka.Kafka "$properties"
