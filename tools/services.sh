#!/bin/sh
# The real services that tests/services runs, and strace, with which tests/cost counts: say which are missing, or install
# them where that can be done unasked, as root on Debian and its like. Nothing that is installed here is started, now or
# at the next boot. Always ends with 0: a test that misses its program says so and is skipped.
set -u
PATH=$PATH:/usr/sbin:/sbin
LIMIT_S=300

# What is needed, and the Debian package that has it.
needed() {
    cat <<'PAIRS'
strace strace
nginx nginx-light
redis-server redis-server
redis-cli redis-tools
postgres postgresql
ab apache2-utils
wrk wrk
curl curl
systemd-notify systemd
PAIRS
}

# PostgreSQL's own programs are not on the PATH.
is_there() {
    command -v "$1" >/dev/null 2>&1 && return
    [ "$1" = postgres ] && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1
}

missing() {
    needed | while read -r program package; do
        is_there "$program" || echo "$package"
    done
}

install() {
    export DEBIAN_FRONTEND=noninteractive
    # Maintainer scripts ask this one whether they may start a service (invoke-rc.d(8)); 101 is no.
    policy=/usr/sbin/policy-rc.d
    made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=$policy
    fi
    # The lists of a fresh container are empty; those of an old one name versions that are gone.
    timeout "$LIMIT_S" apt-get update -q
    # shellcheck disable=SC2086  # one word per package
    timeout "$LIMIT_S" apt-get install -q -y --no-install-recommends --no-upgrade $1
    [ -z "$made" ] || rm -f "$made"
    for service in nginx redis-server postgresql; do
        case " $1 " in *" ${service%-*}"*) systemctl --quiet disable "$service" ;; esac
    done
}

wanted=$(missing | tr '\n' ' ')
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing $wanted"
    log=$(mktemp)
    install "$wanted" >"$log" 2>&1
    [ -z "$(missing)" ] || tail -n 5 "$log"
    rm -f "$log"
fi
wanted=$(missing | tr '\n' ' ')
[ -z "$wanted" ] || echo "skipped: tests with programs that are not installed: $wanted"
exit 0
