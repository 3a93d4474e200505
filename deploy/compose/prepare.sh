#!/usr/bin/env bash
# Makes what the compose stack needs and no repository holds: an API key, the S3 server's secret and
# Grafana's password, in build/compose. What is there stays.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=build/compose

random() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }

mkdir -p "$folder"
chmod 700 "$folder"
[[ -f $folder/api.key ]] || random > "$folder/api.key"
[[ -f $folder/s3.key ]] || random > "$folder/s3.key"
[[ -f $folder/grafana.password ]] || random > "$folder/grafana.password"
# The gateway knows keys by their hash alone (docs/HTTP-API.md).
printf 'compose:%s\n' "$(tr -d '\n' < "$folder/api.key" | sha256sum | cut -d' ' -f1)" \
    > "$folder/api.keys"
# Containers read them as a user of their own; the folder keeps others out.
chmod 644 "$folder"/*
printf 'COMPOSE_PROJECT_NAME=crafterse\nS3_SECRET_ACCESS_KEY=%s\n' "$(cat "$folder/s3.key")" \
    > "$folder/env"
echo "The API key is in $folder/api.key. Now:"
echo "  docker compose --env-file $folder/env -f deploy/compose/compose.yml \\"
echo "      -f deploy/compose/ports.yml --profile grafana up -d"
