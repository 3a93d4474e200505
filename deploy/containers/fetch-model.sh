#!/bin/sh
# Fetches one model and verifies it: Kubernetes runs this before a worker starts.
#
#   fetch-model URL SHA256 DESTINATION
#
# URL names a .safetensors checkpoint, or a .tar of a folder as diffusers writes it; DESTINATION is
# the file, or the folder that the tar is unpacked into. What is there already with the right digest
# is kept (a volume that outlives the pod), a half-fetched file is continued, and nothing is put in
# place before its SHA-256 is the one that was asked for.
set -eu

fail() {
    echo "fetch-model: $*" >&2
    exit 1
}

[ $# -eq 3 ] || fail "usage: fetch-model URL SHA256 DESTINATION"
url=$1 digest=$2 destination=$3
case $digest in
    *[!0-9a-f]* | '') fail "SHA256 is 64 lower-case hex digits, not \"$digest\"" ;;
esac
[ ${#digest} -eq 64 ] || fail "SHA256 is 64 lower-case hex digits, not \"$digest\""

part=$destination.part
marker=$destination.sha256
if [ -e "$destination" ] && [ "$(cat "$marker" 2> /dev/null)" = "$digest" ]; then
    # A file is read again: a volume may have been damaged. A folder was verified as its tar.
    if [ -d "$destination" ] ||
        [ "$(sha256sum < "$destination" | cut -d' ' -f1)" = "$digest" ]; then
        echo "fetch-model: $destination is there and has the digest"
        exit 0
    fi
fi

mkdir -p "$(dirname "$destination")"
# --continue-at fails where a server knows no ranges: then from the beginning.
curl --fail --silent --show-error --location --retry 5 --retry-connrefused \
    --continue-at - --output "$part" "$url" ||
    { rm -f "$part" && curl --fail --silent --show-error --location --retry 5 \
        --output "$part" "$url"; } ||
    fail "$url could not be fetched"
found=$(sha256sum < "$part" | cut -d' ' -f1)
if [ "$found" != "$digest" ]; then
    rm -f "$part"
    fail "$url has the SHA-256 $found, not $digest: nothing was installed"
fi

rm -rf "$destination" "$marker"
case $url in
    *.tar)
        mkdir -p "$destination.new"
        tar --extract --no-same-owner --file "$part" --directory "$destination.new"
        mv "$destination.new" "$destination"
        rm -f "$part"
        ;;
    *) mv "$part" "$destination" ;;
esac
echo "$digest" > "$marker"
echo "fetch-model: $destination is there"
