# The compose file's neighbours from packages: see base-images.sh, which fills the context.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS redis
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends redis-server > /dev/null \
    && rm -rf /var/lib/apt/lists/*
USER redis
ENTRYPOINT []
CMD ["redis-server"]

FROM ${BASE} AS prometheus
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends prometheus > /dev/null \
    && rm -rf /var/lib/apt/lists/* && install -d -o nobody /prometheus
USER nobody
ENTRYPOINT ["prometheus"]

FROM ${BASE} AS alertmanager
RUN apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends prometheus-alertmanager > /dev/null \
    && rm -rf /var/lib/apt/lists/* && install -d -o nobody /alertmanager
USER nobody
ENTRYPOINT ["prometheus-alertmanager"]

FROM ${BASE} AS s3
COPY versitygw /usr/local/bin/
RUN install -d -o 10001 /data /data/meta /data/objects
USER 10001
ENTRYPOINT ["versitygw"]

FROM ${BASE} AS kafka
# Java's package wants a place for its manuals, which a slim image leaves out.
RUN mkdir -p /usr/share/man/man1 && apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends openjdk-17-jre-headless > /dev/null \
    && rm -rf /var/lib/apt/lists/* && useradd --uid 1000 appuser && install -d -o 1000 /var/lib/kafka
COPY kafka-lib /opt/kafka/libs
COPY kafka-entry.sh /opt/kafka/entry
USER 1000
ENTRYPOINT ["/opt/kafka/entry"]
