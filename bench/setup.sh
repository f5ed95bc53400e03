#!/bin/sh
# Everything that is measured: the two C programs and this checkout into build/bench, the rivals into a directory of the
# user that all checkouts share. What is there already stays. Starts nothing. A rival that cannot be had is left out.
#   usage: bench/setup.sh [programs]    (only the C programs)
set -u
cd "$(dirname "$0")/.." || exit 1
build=build/bench
peers=${PEERS:-$HOME/.cache/ncolony-peers}
mkdir -p "$build" "$peers"

cannot() {
    echo "cannot prepare the benchmarks: $1" >&2
    exit 1
}

left_out() {
    echo "$1 is left out: $2" >&2
}

root_with_apt() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    root_with_apt || return 1
    apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } </dev/null >/dev/null 2>&1
}

compile() {
    # Static where that can be: the payload's own start is no part of what is compared.
    [ "$build/$1" -nt "bench/$1.c" ] && return
    for static in -static ''; do
        # shellcheck disable=SC2086
        gcc -O2 -Wall $static -o "$build/$1.new" "bench/$1.c" 2>"$build/gcc.log" && mv "$build/$1.new" "$build/$1" && return
    done
    cannot "gcc does not compile bench/$1.c: $(head -1 "$build/gcc.log")"
}

ours() {
    sh tools/venv.sh "$build/ours" || exit 1
    pip="$build/ours/bin/python -m pip install -q --disable-pip-version-check --no-input"
    if ! cmp -s requirements/run.txt "$build/ours/run.txt"; then
        $pip --require-hashes -r requirements/run.txt || cannot "the dependencies of this checkout cannot be installed"
        cp requirements/run.txt "$build/ours/run.txt"
    fi
    # As people install it: copied and compiled, not a link to here.
    $pip --no-build-isolation --no-deps --force-reinstall . || cannot "this checkout cannot be installed"
    git describe --always --dirty --exclude='*' >"$build/ours/commit" 2>/dev/null || rm -f "$build/ours/commit"
}

# python_rival NAME PROGRAM REQUIREMENT...
python_rival() {
    name=$1 program=$2
    shift 2
    [ -x "$peers/$name/bin/$program" ] && return
    sh tools/venv.sh "$peers/$name" &&
        "$peers/$name/bin/python" -m pip install -q --disable-pip-version-check --no-input "$@" ||
        left_out "$name" "pip cannot install $*"
}

npm_rival() {
    [ -x "$peers/pm2/node_modules/.bin/pm2" ] && return
    command -v npm >/dev/null || { left_out pm2 "there is no npm"; return; }
    npm install --silent --prefix "$peers/pm2" pm2@7.0.4 >/dev/null 2>&1 || left_out pm2 "npm cannot install it"
}

s6_rival() {
    command -v s6-svscan >/dev/null || apt_install s6 || left_out s6 "there is no s6-svscan, and apt-get cannot install it"
}

# unpacked_rival PACKAGE PROGRAM: unpacked, not installed, since such a package starts a service.
unpacked_rival() {
    for place in "$peers/root/usr/bin" "$peers/root/usr/sbin"; do
        [ -x "$place/$2" ] && return
    done
    command -v "$2" >/dev/null && return
    mkdir -p "$peers/deb" "$peers/root"
    command -v apt-get >/dev/null &&
        (cd "$peers/deb" && { apt-get download -qq "$1" || { root_with_apt && apt-get update -qq && apt-get download -qq "$1"; }; }) \
            >/dev/null 2>&1 && dpkg -x "$peers/deb/$1"_*.deb "$peers/root" ||
        left_out "$1" "apt-get cannot download it"
}

command -v gcc >/dev/null || apt_install gcc libc6-dev || cannot "there is no gcc"
compile payload
compile limit
[ "${1:-}" = programs ] && exit
ours
python_rival ncolony twist 'ncolony==2024.1.11.74140' twisted 'setuptools<81'
# Later versions of setuptools have no pkg_resources.
python_rival supervisor supervisord 'supervisor==4.3.0' 'setuptools<81'
python_rival circus circusd 'circus==0.19.0'
s6_rival
unpacked_rival runit runsvdir
unpacked_rival daemontools svscan
npm_rival
exit 0
