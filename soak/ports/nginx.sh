#!/bin/bash
# nginx on this library: Debian's source with ngx_kqueue_module for its event loop, files
# under load from wrk and from a client that checks every byte, reloads under load, and
# requests per second beside a build with its own epoll loop.
#
# usage: nginx.sh [build|load|reload|bench|all]
#
# BACKENDS (default "kqueue") are the builds that load and reload put to the test: "epoll"
# shows what is the machine's doing. SECS_LOAD (default 10), RELOADS (8), ROUNDS (5).
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

STEP=${1:-all}
BACKENDS=${BACKENDS:-kqueue}
SECS_LOAD=${SECS_LOAD:-10}
RELOADS=${RELOADS:-8}
ROUNDS=${ROUNDS:-5}
CONNS=500
RUN=$PORTS_DIR/nginx-run
PORT_epoll=27201
PORT_kqueue=27202

build() {
    need gcc make pkg-config dpkg-dev libpcre2-dev zlib1g-dev wrk curl
    build_both nginx nginx
    gcc -O2 -Wall -Wextra -o "$PORTS_DIR/http_check" "$ROOT/soak/ports/http_check.c"
}

# configure finds kqueue by itself where a test program with <sys/event.h> links. Its Linux
# headers lack that one include, so the compiler is told to add it; and as nginx's names for
# events are those of one interface alone, its test for epoll is made to fail.
compile() {
    local cc='-O2' ld=''
    if [ "$1" = kqueue ]; then
        cc="-O2 $KQ_CFLAGS -include sys/event.h"
        ld=$KQ_LIBS
        sed -i 's/efd = epoll_create(100);/efd = -1;/' "$PORTS_DIR/nginx-kqueue/auto/os/linux"
    fi
    cd "$PORTS_DIR/nginx-$1"
    nice ./configure --prefix="$RUN/$1" --with-threads --with-cc-opt="$cc" --with-ld-opt="$ld" &&
        nice make -j"$JOBS"
    local status=$?
    cd "$ROOT"
    return $status
}

nginx() { "$PORTS_DIR/nginx-$1/objs/nginx" -p "$RUN/$1/" -c nginx.conf "${@:2}"; }

# configure_server BACKEND PORT WORKERS
configure_server() {
    local dir=$RUN/$1 user=''
    rm -rf "$dir"
    mkdir -p "$dir/logs" "$dir/html"
    alphabet 1024 >"$dir/html/1k"
    alphabet 262144 >"$dir/html/256k"
    [ "$(id -u)" -eq 0 ] && user='user nobody nogroup;'
    cat >"$dir/nginx.conf" <<CONF
$user
daemon off;
worker_processes $3;
worker_rlimit_nofile 8192;
error_log logs/error.log notice;
pid nginx.pid;
events {
    use $1;
    worker_connections 4096;
}
http {
    access_log off;
    sendfile on;
    server {
        listen 127.0.0.1:$2 backlog=1024;
        root html;
        location /proxy/ { proxy_pass http://127.0.0.1:$2/; }
    }
}
CONF
}
alphabet() { awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf "%c", 97 + i % 26 }'; }

# start BACKEND PORT WORKERS: leaves the master's process id in MASTER.
start() {
    configure_server "$@"
    # Not through the function: that would make $! a shell between us and the master.
    "$PORTS_DIR/nginx-$1/objs/nginx" -p "$RUN/$1/" -c nginx.conf \
        >"$PORTS_DIR/logs/nginx-$1-server.log" 2>&1 &
    MASTER=$!
    SERVERS+=("$MASTER")
    wait_until 10 open_port "$2" || die "nginx-$1 does not listen: see $RUN/$1/logs/error.log"
}

workers() { pgrep -P "$MASTER" -f 'nginx: worker process' | paste -sd' '; }
worker_count() { [ "$(workers | wc -w)" -eq "$1" ]; }
few_descriptors() {
    # shellcheck disable=SC2046
    [ "$(descriptors $(workers))" -le "$1" ]
}
few_own() {
    local p
    for p in $(workers); do
        [ "$(own_descriptors "$p")" -le 8 ] || return 1
    done
}
no_complaint() {
    local log=$PORTS_DIR/logs/nginx-$1-complaints.log
    grep -E '\[(error|crit|alert|emerg)\]|exited on signal' "$RUN/$1/logs/error.log" >"$log" ||
        return 0
    say "$(wc -l <"$log") lines, of which the first:"
    head -3 "$log"
    return 1
}
sleeps() {
    # shellcheck disable=SC2046
    [ "$(idle_ticks $(workers))" -le 4 ]
}

# exact NAME PORT FILE SIZE SECONDS MODE: every answer is whole; no connection ends early.
exact() {
    local out
    out=$("$PORTS_DIR/http_check" "$2" "/$3" "$4" "$CONNS" "$5" "$6") || { say "$out"; return 1; }
    say "        $1 $6: $out"
    [[ $out == *' failed 0 stale 0 '* ]]
}

# clean_wrk NAME PORT MODE: wrk reports neither a socket error nor a bad status.
clean_wrk() {
    local out=$PORTS_DIR/logs/wrk.out
    run_wrk "$2" "$3" "$SECS_LOAD" >"$out"
    say "        $1 $3: $(grep -E 'requests in' "$out" | xargs)"
    ! grep -E 'Socket errors|Non-2xx' "$out" && grep -q 'requests in' "$out"
}

# run_wrk PORT MODE SECONDS [threads]
run_wrk() {
    local head=()
    [ "$2" = close ] && head=(-H 'Connection: close')
    wrk -t"${4:-2}" -c"$CONNS" -d"$3" --timeout 10 "${head[@]}" "http://127.0.0.1:$1/1k" 2>&1
}

load() {
    local backend=$1 port=PORT_$1 open
    port=${!port}
    start "$backend" "$port" 2
    wait_until 5 worker_count 2 || die 'the workers did not start'
    check "$backend: the event method is the one asked for" \
        grep -q "using the \"$backend\" event method" "$RUN/$backend/logs/error.log"
    [ "$backend" = kqueue ] &&
        check 'kqueue: a worker has the library under test mapped' \
            maps_library "$(workers | cut -d' ' -f1)"
    curl -s -o /dev/null "http://127.0.0.1:$port/1k"
    # shellcheck disable=SC2046
    open=$(descriptors $(workers))
    local before
    before=$(workers)
    for mode in keepalive close; do
        check "$backend: wrk, $CONNS connections, $mode" clean_wrk "$backend" "$port" "$mode"
        check "$backend: 1 KiB byte for byte, $mode" \
            exact "$backend" "$port" 1k 1024 "$SECS_LOAD" "$mode"
        check "$backend: 256 KiB byte for byte, $mode" \
            exact "$backend" "$port" 256k 262144 "$SECS_LOAD" "$mode"
        check "$backend: 256 KiB through a proxy, $mode" \
            exact "$backend" "$port" proxy/256k 262144 "$SECS_LOAD" "$mode"
    done
    check "$backend: all connections are closed afterwards" wait_until 10 few_descriptors "$open"
    check "$backend: a worker's event loop holds eight descriptors at most" few_own
    check "$backend: idle workers sleep" sleeps
    check "$backend: no worker has died" test "$before" = "$(workers)"
    check "$backend: the error log is clean" no_complaint "$backend"
    stop_servers
}

# spread_reloads BACKEND: takes two seconds for each, during which the load goes on.
spread_reloads() {
    local i
    for ((i = 0; i < RELOADS; i++)); do
        sleep 2
        nginx "$1" -s reload 2>/dev/null
    done
}

# reload_under BACKEND PORT MODE: a reload ends idle connections, so stale ones are due with
# keep-alive; failed requests are not.
reload_under() {
    local client out=$PORTS_DIR/logs/reload.out
    "$PORTS_DIR/http_check" "$2" /1k 1024 "$CONNS" $((2 * RELOADS + 2)) "$3" >"$out" &
    client=$!
    spread_reloads "$1"
    wait "$client" || { cat "$out"; return 1; }
    say "        $1 $3, $RELOADS reloads: $(cat "$out")"
    [ "$3" = keepalive ] || grep -q ' stale 0 ' "$out"
}

# wrk_under_reload BACKEND PORT: without keep-alive alone, for wrk takes a stale connection
# for an error.
wrk_under_reload() {
    local client out=$PORTS_DIR/logs/wrk-reload.out
    run_wrk "$2" close $((2 * RELOADS + 2)) >"$out" &
    client=$!
    spread_reloads "$1"
    wait "$client" || return 1
    say "        $1 close, $RELOADS reloads: $(grep -E 'requests in' "$out" | xargs)"
    ! grep -E 'Socket errors|Non-2xx' "$out" && grep -q 'requests in' "$out"
}

reloads_taken() { [ "$(grep -c '(SIGHUP) received' "$RUN/$1/logs/error.log")" -eq "$2" ]; }

reload() {
    local backend=$1 port=PORT_$1 before
    port=${!port}
    start "$backend" "$port" 2
    wait_until 5 worker_count 2 || die 'the workers did not start'
    before=$(workers)
    for mode in keepalive close; do
        check "$backend: no request fails under reloads, $mode" \
            reload_under "$backend" "$port" "$mode"
    done
    check "$backend: wrk sees no error under reloads, close" wrk_under_reload "$backend" "$port"
    check "$backend: every reload was taken" reloads_taken "$backend" $((3 * RELOADS))
    check "$backend: only the last generation of workers is left" wait_until 15 worker_count 2
    check "$backend: the workers are new ones" test "$before" != "$(workers)"
    check "$backend: idle workers sleep after the reloads" sleeps
    check "$backend: the error log is clean after the reloads" no_complaint "$backend"
    stop_servers
}

# One worker each: with more, epoll's EPOLLEXCLUSIVE spreads new connections, for which
# kqueue has no word.
bench() {
    local mode
    start epoll "$PORT_epoll" 1
    start kqueue "$PORT_kqueue" 1
    for mode in keepalive close; do
        check "wrk $mode was measured in all rounds" rounds "$mode"
        ratios "wrk -c $CONNS $mode" "$PORTS_DIR/logs/nginx-$mode.rounds"
    done
    stop_servers
}

rounds() {
    local mode=$1 file=$PORTS_DIR/logs/nginx-$1.rounds i backend order port rate_epoll rate_kqueue
    : >"$file"
    for ((i = 0; i < ROUNDS; i++)); do
        order='epoll kqueue'
        ((i % 2)) && order='kqueue epoll'
        for backend in $order; do
            port=PORT_$backend
            read -r "rate_$backend" < <(run_wrk "${!port}" "$mode" "${SECS_ROUND:-4}" 1 |
                awk '/Requests\/sec/ { print $2 }') || return 1
        done
        echo "$rate_epoll $rate_kqueue" >>"$file"
    done
    [ "$(wc -l <"$file")" -eq "$ROUNDS" ]
}

build
case $STEP in
build) check 'both builds stand' test -x "$PORTS_DIR/nginx-kqueue/objs/nginx" ;;
load | reload) for b in $BACKENDS; do "$STEP" "$b"; done ;;
bench) bench ;;
all) for b in $BACKENDS; do load "$b"; reload "$b"; done; bench ;;
*) die "usage: nginx.sh [build|load|reload|bench|all]" ;;
esac
closing nginx
