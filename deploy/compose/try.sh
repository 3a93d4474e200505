#!/usr/bin/env bash
# make compose-try: the whole stack in containers, one picture out of it, and everything gone again.
#
#   try.sh [OUT.png]
#
# NETWORK=host puts the containers on the host's network; LOCAL=1 takes the images that
# base-images.sh made. Needs the images (make images), curl and jq.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:-out/compose.png}
settings=build/compose/try.env
files=(-f deploy/compose/compose.yml)
if [[ ${NETWORK:-} == host ]]; then
    files+=(-f deploy/compose/host-network.yml)
else
    files+=(-f deploy/compose/ports.yml)
fi

compose() {
    if docker compose version > /dev/null 2>&1; then
        docker compose --env-file "$settings" "${files[@]}" "$@"
    else
        docker-compose --env-file "$settings" "${files[@]}" "$@"
    fi
}

say() { printf '\n$ %s\n' "$*"; }

ask() { curl -sS --max-time 90 -H "Authorization: Bearer $(cat build/compose/api.key)" "$@"; }

wait_for_model() {
    local deadline=$((SECONDS + 240))
    until ask http://localhost:8080/v1/models 2> /dev/null | jq -e 'any(.models[]; .workers > 0)' \
        > /dev/null 2>&1; do
        ((SECONDS < deadline)) || {
            echo "try: no worker announced itself within 240 s" >&2
            return 1
        }
        sleep 1
    done
}

finish() {
    local status=$?
    trap - EXIT
    if ((status != 0)); then
        compose ps || true
        compose logs --tail 20 || true
    fi
    say "docker compose down"
    compose down --volumes --timeout 30
    exit "$status"
}

deploy/compose/prepare.sh > /dev/null
grep -hv '^#' build/compose/env > "$settings"
[[ -z ${LOCAL:-} ]] || grep -hv '^#' deploy/compose/local.env >> "$settings"
[[ -z ${IMAGE_TAG:-} ]] || echo "IMAGE_TAG=$IMAGE_TAG" >> "$settings"
trap finish EXIT

say "docker compose up -d (${files[*]})"
started=$SECONDS
compose up -d
wait_for_model
echo "ready after $((SECONDS - started)) s"

say "docker compose ps"
compose ps

say "POST /v1/generations"
job=$(ask -H 'Prefer: wait=60' --json '{"prompt": "a flaming obsidian sword", "seed": 7}' \
    http://localhost:8080/v1/generations)
jq '{id, state, seed, url, timings}' <<< "$job"
mkdir -p "$(dirname "$out")"
say "GET $(jq -r .url <<< "$job")"
curl -fsS -o "$out" "$(jq -r .url <<< "$job")"
file "$out" 2> /dev/null || ls -l "$out"

say "what Prometheus scrapes"
for _ in $(seq 30); do
    up=$(curl -sS 'http://localhost:9090/api/v1/query?query=up==1' | jq '.data.result | length')
    [[ $up != 4 ]] || break
    sleep 2
done
curl -sS http://localhost:9090/api/v1/targets |
    jq -r '.data.activeTargets[] | "\(.labels.service)\t\(.scrapeUrl)\t\(.health)"' | sort
curl -sS http://localhost:9090/api/v1/rules |
    jq -r '"\([.data.groups[].rules[] | select(.type == "alerting")] | length) alerts, " +
        "firing: \([.data.groups[].rules[] | select(.state == "firing") | .name])"'
[[ $up == 4 ]]
