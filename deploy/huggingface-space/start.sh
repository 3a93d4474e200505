#!/bin/sh
# What the Space runs: the model, then the worker in place of this script, so that SIGTERM reaches
# it.
set -eu
: "${MODEL_URL:?set MODEL_URL to the model to draw with}"
: "${MODEL_SHA256:?set MODEL_SHA256 to its digest}"

folder=${MODEL_FOLDER:-/models}
name=${MODEL_URL##*/}
case $name in
    *.tar) name=${name%.tar} ;;
    *.safetensors) ;;
    *)
        echo "start-space: MODEL_URL names neither a .safetensors nor a .tar file" >&2
        exit 1
        ;;
esac
fetch-model "$MODEL_URL" "$MODEL_SHA256" "$folder/$name"
export CRAFTERSE_MODEL_PATH="$folder/$name"
exec worker
