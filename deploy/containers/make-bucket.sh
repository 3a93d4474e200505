#!/bin/sh
# Makes the bucket that the uploader writes to, where it is missing. Reads the uploader's settings:
# CRAFTERSE_S3_ENDPOINT, _REGION, _BUCKET, _ACCESS_KEY_ID, _SECRET_ACCESS_KEY. With PUBLIC_READ=true
# anybody may read its objects, as a CDN's clients do.
set -eu

url=$CRAFTERSE_S3_ENDPOINT/$CRAFTERSE_S3_BUCKET
sign=aws:amz:${CRAFTERSE_S3_REGION:-auto}:s3
# request BODY CURL-ARGUMENT...: prints the status. The body's digest is part of what is signed, and
# the key travels in curl's config on stdin: arguments can be read by every process.
request() {
    body=$1
    shift
    digest=$(printf %s "$body" | sha256sum | cut -d' ' -f1)
    printf 'user = "%s:%s"\n' "$CRAFTERSE_S3_ACCESS_KEY_ID" "$CRAFTERSE_S3_SECRET_ACCESS_KEY" |
        curl --config - --aws-sigv4 "$sign" --silent --show-error --output /dev/null \
            --retry 20 --retry-delay 1 --retry-connrefused --write-out '%{http_code}' \
            --request PUT --header "x-amz-content-sha256: $digest" \
            --header 'Content-Type: application/octet-stream' --data "$body" "$@"
}

# Two answers mean that it is there: it was made now (200), or it is ours already (409).
code=$(request "" "$url")
case $code in
    200 | 409) echo "make-bucket: $url is there ($code)" ;;
    *)
        echo "make-bucket: $url was answered with HTTP $code" >&2
        exit 1
        ;;
esac

[ "${PUBLIC_READ:-false}" = true ] || exit 0
policy='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
    "Action": "s3:GetObject", "Resource": "arn:aws:s3:::'$CRAFTERSE_S3_BUCKET'/*"}]}'
code=$(request "$policy" "$url?policy=")
case $code in
    200 | 204) echo "make-bucket: anybody may read $url" ;;
    *)
        echo "make-bucket: the policy of $url was answered with HTTP $code" >&2
        exit 1
        ;;
esac
