#!/bin/sh
# Make .venv from the newest Python that is here. Nothing is asked; one line says what is missing.
#   usage: tools/venv.sh DIRECTORY
set -eu
venv=$1

enough='import sys; sys.exit(sys.version_info < (3, 11))'
if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "$enough; import pip" 2>/dev/null; then
    exit 0
fi

# A name on PATH may be a stub that does not run, so each candidate is tried. One that can fill a virtual environment
# by itself (ensurepip; Debian ships it apart) is taken before one that cannot.
python= incomplete=
for candidate in python3.13 python3.12 python3.11 python3 /usr/bin/python3; do
    "$candidate" -c "$enough" 2>/dev/null || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        python=$candidate
        break
    fi
    incomplete=${incomplete:-$candidate}
done

if [ -z "$python" ] && [ -n "$incomplete" ]; then
    package="python$("$incomplete" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "cannot make $venv: $incomplete has no ensurepip; install $package (Debian, Ubuntu: apt-get install $package)" >&2
        exit 1
    fi
    echo "installing $package"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq "$package" </dev/null >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq "$package"; } </dev/null >/dev/null
    python=$incomplete
fi

if [ -z "$python" ]; then
    echo "cannot make $venv: no Python 3.11 or newer; install python3.11, python3.12 or python3.13 with its venv package" >&2
    exit 1
fi
echo "making $venv with $("$python" --version)"
"$python" -m venv --clear "$venv"
