#!/bin/bash
# haproxy on this library: Debian's source with ev_kqueue.c for its polling, two threads that
# each have a kqueue, a proxy before a server within one process, and a client that checks
# every byte.
#
# usage: haproxy.sh      SECS_LOAD (default 10)
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

SECS_LOAD=${SECS_LOAD:-10}
CONNS=300
RUN=$PORTS_DIR/haproxy-run
PORT=27302
HAPROXY=$PORTS_DIR/haproxy-kqueue/haproxy

build() {
    local stamp log=$PORTS_DIR/logs/haproxy-build.log
    need gcc make pkg-config dpkg-dev
    fetch haproxy
    library
    stamp="$(version_of haproxy) $(header_sum) $KQ_CFLAGS $KQ_LIBS"
    say "haproxy $(version_of haproxy)"
    if tree haproxy kqueue "$stamp"; then
        nice make -C "$PORTS_DIR/haproxy-kqueue" -j"$JOBS" TARGET=generic USE_KQUEUE=1 USE_POLL=1 \
            USE_THREAD=1 ADDINC="$KQ_CFLAGS" ADDLIB="$KQ_LIBS" >"$log" 2>&1 ||
            die "haproxy does not build: see $log"
        echo "$stamp" >"$PORTS_DIR/haproxy-kqueue/.built"
    fi
    gcc -O2 -Wall -Wextra -o "$PORTS_DIR/http_check" "$ROOT/soak/ports/http_check.c"
}

configure() {
    mkdir -p "$RUN"
    awk 'BEGIN { for (i = 0; i < 8192; i++) printf "%c", 97 + i % 26 }' >"$RUN/8k"
    cat >"$RUN/haproxy.cfg" <<CONF
global
    nbthread 2
    maxconn 2000
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend proxy
    bind 127.0.0.1:$PORT
    default_backend itself
backend itself
    server one 127.0.0.1:$((PORT + 1)) check inter 500
frontend server
    bind 127.0.0.1:$((PORT + 1))
    http-request return status 200 content-type text/plain file $RUN/8k
CONF
}

uses_kqueue() { [[ $("$HAPROXY" -vv) == *'will use kqueue'* ]]; }
exact() {
    local out
    out=$("$PORTS_DIR/http_check" "$1" /8k 8192 "$CONNS" "$SECS_LOAD" "$2") || { say "$out"; return 1; }
    say "        $2: $out"
    [[ $out == *' failed 0 '* ]]
}
few_descriptors() { [ "$(descriptors "$1")" -le "$2" ]; }
sleeps() { [ "$(idle_ticks "$1")" -le 4 ]; }

build
configure
check 'haproxy chooses kqueue' uses_kqueue
"$HAPROXY" -db -f "$RUN/haproxy.cfg" >"$PORTS_DIR/logs/haproxy.log" 2>&1 &
SERVERS+=($!)
wait_until 10 open_port "$PORT" || die "haproxy does not listen: see $PORTS_DIR/logs/haproxy.log"
check 'haproxy has the library under test mapped' maps_library "${SERVERS[0]}"
sleep 1
open=$(descriptors "${SERVERS[0]}")
for mode in keepalive close; do
    check "8 KiB byte for byte, $mode" exact $((PORT + 1)) "$mode"
    check "8 KiB byte for byte through the proxy, $mode" exact "$PORT" "$mode"
done
# Connections kept for the next request to the server end after their time-out.
check 'all connections are closed afterwards' wait_until 20 few_descriptors "${SERVERS[0]}" $((open + 2))
check 'an idle haproxy sleeps' sleeps "${SERVERS[0]}"
stop_servers
closing haproxy
