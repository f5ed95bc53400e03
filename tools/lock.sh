#!/bin/sh
# Write requirements/*.txt anew from pyproject.toml: every version with the hashes of its files, for every Python we
# support. The resolver lives in a directory of its own that is removed again.
#   usage: tools/lock.sh PYTHON
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$1" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q --disable-pip-version-check uv

lock() {
    output=$1
    shift
    UV_CUSTOM_COMPILE_COMMAND="make lock" "$scratch/venv/bin/uv" pip compile -q --no-config --universal \
        --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links ${UPGRADE:+--upgrade} \
        "$@" -o "$output" pyproject.toml >/dev/null
}

lock requirements/run.txt --group build
# The files after it repeat the first one's versions exactly.
lock requirements/dev.txt --group build --group dev --group docs --constraint requirements/run.txt
lock requirements/fuzz.txt --group fuzz --constraint requirements/dev.txt
