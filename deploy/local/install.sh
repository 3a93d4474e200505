#!/usr/bin/env bash
# Installs the Debian packages of the named groups (deploy/local/packages) that are missing, after
# saying which and why. Does nothing, quickly, when none is.
#
#   deploy/local/install.sh GROUP...
set -euo pipefail
list=$(dirname "${BASH_SOURCE[0]}")/packages

[[ $# -gt 0 ]] || {
    echo "usage: $0 GROUP... (the groups are in $list)" >&2
    exit 2
}

# Fills the arrays names and reasons with the packages of all groups.
read_list() {
    local group name reason wanted
    while read -r group name reason; do
        for wanted in "$@"; do
            if [[ $group == "$wanted" ]]; then
                names+=("$name")
                reasons[$name]=$reason
            fi
        done
    done < "$list"
    [[ ${#names[@]} -gt 0 ]] || {
        echo "install: no package in $list belongs to: $*" >&2
        exit 2
    }
}

names=()
declare -A reasons=()
read_list "$@"

if ! command -v dpkg-query > /dev/null; then
    echo "install: this is no Debian, so nothing is installed; needed are: ${names[*]}" >&2
    exit 0
fi

missing=()
installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' 2> /dev/null || true)"
for name in "${names[@]}"; do
    [[ $installed == *" installed:$name "* ]] || missing+=("$name")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

echo "Installing ${#missing[@]} Debian packages that are missing:"
for name in "${missing[@]}"; do
    printf '  %-22s %s\n' "$name" "${reasons[$name]}"
done

as_root=()
if [[ $(id -u) -ne 0 ]]; then
    if ! command -v sudo > /dev/null; then
        echo "install: this needs root and there is no sudo. As root, run:" >&2
        echo "  apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
    # DPkg::Lock::Timeout: another apt of a freshly started machine may hold the lock for a while.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" > "$log" 2>&1
}
started=$SECONDS
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; }; then
    cat "$log" >&2
    echo "install: apt-get failed; its words are above. Nothing was started." >&2
    exit 1
fi
echo "Installed in $((SECONDS - started)) s."
