#!/usr/bin/env bash
# Writes docs/CONFIGURATION.md from the option tables that the services themselves carry, so that
# the page cannot differ from the program.
#
#   deploy/local/docs.sh            write it
#   deploy/local/docs.sh --check    fail when it is not what the binaries say
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

page=docs/CONFIGURATION.md

render() {
    cat <<'INTRODUCTION'
# Settings

Every setting is an environment variable. A service checks all of them before it starts and reports
every problem at once; `build/bin/<service> --check-config` does only that, and `--print-config`
shows the values in force. A secret may instead be read from a file that `CRAFTERSE_<NAME>_FILE`
names.

This page is written by `make docs` from the tables in the binaries; `make lint` fails when it is
stale.
INTRODUCTION
    local service
    for service in gateway router worker uploader devbroker; do
        printf '\n## %s\n\n' "$service"
        "build/bin/$service" --config-table
    done
    printf '\n## Shared by all\n\n'
    build/bin/gateway --config-table-shared
}

# In a table's text "<key>" would be taken for HTML.
escape() { sed '/^| /s/</\\</g'; }

fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
render | escape > "$fresh"
case "${1:-}" in
    --check)
        if ! diff -u "$page" "$fresh"; then
            echo "$page is stale: run make docs and commit it"
            exit 1
        fi
        echo "$page is what the binaries say"
        ;;
    "")
        mkdir -p "$(dirname "$page")"
        mv "$fresh" "$page"
        chmod 644 "$page"
        echo "wrote $page"
        ;;
    *)
        echo "usage: $0 [--check]" >&2
        exit 2
        ;;
esac
