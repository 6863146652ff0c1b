#!/bin/bash
# redis on this library: Debian's source with ae_kqueue.c for its event loop, its own test
# suite, and redis-benchmark beside a build with its own epoll loop.
#
# usage: redis.sh [build|info|suite|bench|all] [unit...]
#
# Units (unit/protocol, integration/replication, ...) narrow the suite, which is otherwise
# run whole. The epoll build's log of the same units is kept and reused; FRESH=1 runs it
# again. BACKENDS=epoll runs the suite there alone. ROUNDS (default 5) is the number of
# alternating benchmark rounds.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

STEP=${1:-all}
[ $# -gt 0 ] && shift
UNITS=("$@")
ROUNDS=${ROUNDS:-5}
PORT_epoll=27101
PORT_kqueue=27102
BASE_epoll=22000
BASE_kqueue=26000

build() {
    need gcc make pkg-config dpkg-dev libjemalloc-dev tcl procps
    build_both redis redis
}

# config.h names one event interface for all of Linux; that line is the whole port.
compile() {
    local dir=$PORTS_DIR/redis-$1 cflags='' ldflags=''
    if [ "$1" = kqueue ]; then
        sed -i 's/^#define HAVE_EPOLL 1$/#define HAVE_KQUEUE 1/' "$dir/src/config.h"
        cflags=$KQ_CFLAGS
        # redis names its libraries before the objects that need them.
        ldflags="-Wl,--no-as-needed $KQ_LIBS"
    fi
    nice make -C "$dir/src" -j"$JOBS" MALLOC=jemalloc USE_SYSTEM_JEMALLOC=yes USE_SYSTEMD=no \
        REDIS_CFLAGS="$cflags" REDIS_LDFLAGS="$ldflags"
}

cli() { "$PORTS_DIR/redis-epoll/src/redis-cli" -p "$1" "${@:2}" 2>/dev/null; }
answers() { [ "$(cli "$1" ping)" = PONG ]; }

start() {
    local port=$2
    "$PORTS_DIR/redis-$1/src/redis-server" --port "$port" --bind 127.0.0.1 --save '' \
        --appendonly no --dir "$PORTS_DIR/logs" --maxclients 4000 \
        >"$PORTS_DIR/logs/redis-$1-server.log" 2>&1 &
    SERVERS+=($!)
    wait_until 10 answers "$port" || die "redis-$1 does not answer on port $port"
}

info() {
    start kqueue "$PORT_kqueue"
    check 'INFO says multiplexing_api:kqueue' says_kqueue
    check 'the server has the library under test mapped' maps_library "${SERVERS[0]}"
    check 'a pipelined load is answered' load_answered
    check 'no descriptor is left open after 500 clients' descriptors_return "${SERVERS[0]}"
    check 'an idle server sleeps' sleeps "${SERVERS[0]}"
    stop_servers
}

says_kqueue() { [[ $(cli "$PORT_kqueue" info server) == *multiplexing_api:kqueue* ]]; }

load_answered() {
    local n
    n=$(for ((i = 0; i < 5000; i++)); do echo 'incr soak'; done | cli "$PORT_kqueue" | tail -1)
    [ "$n" = 5000 ]
}

descriptors_return() {
    local before
    before=$(descriptors "$1")
    "$PORTS_DIR/redis-epoll/src/redis-benchmark" -p "$PORT_kqueue" -q -c 500 -n 20000 -t set \
        >/dev/null 2>&1 || return 1
    wait_until 5 has_descriptors "$1" "$before"
}
has_descriptors() { [ "$(descriptors "$1")" -le "$2" ] && [ "$(own_descriptors "$1")" -le 8 ]; }

# Ten ticks of redis' own clock a second cost next to nothing; a spinning loop costs 200.
sleeps() { [ "$(idle_ticks "$1")" -le 10 ]; }

suite() {
    local key=all base
    [ ${#UNITS[@]} -gt 0 ] && key=$(printf '%s\n' "${UNITS[@]}" | tr / - | paste -sd+)
    for backend in ${BACKENDS:-epoll kqueue}; do
        local log=$PORTS_DIR/logs/redis-$backend-suite-$key.log
        base=BASE_$backend
        if [ "$backend" = epoll ] && [ -z "${FRESH:-}" ] && grep -qs '^closed ' "$log"; then
            say "suite   epoll: from the kept log"
        else
            run_suite "$backend" "${!base}" "$log" "${UNITS[@]}"
        fi
        outcome "$backend" "$log"
        check "$backend: the suite ran to its end" grep -aq 'The End' "$log"
    done
    [ "${BACKENDS:-}" = epoll ] || compare_suites "$PORTS_DIR/logs/redis-epoll-suite-$key.log" \
        "$PORTS_DIR/logs/redis-kqueue-suite-$key.log"
}

# run_suite BACKEND BASEPORT LOG [unit...]
run_suite() {
    local backend=$1 port=$2 log=$3 unit args=() begin=$SECONDS status=0
    shift 3
    for unit in "$@"; do args+=(--single "$unit"); done
    (cd "$PORTS_DIR/redis-$backend" &&
        nice timeout "${SUITE_TIMEOUT:-5400}" ./runtest --clients "${CLIENTS:-2}" --durable \
            --baseport "$port" --portcount 3000 "${args[@]}") >"$log" 2>&1 </dev/null || status=$?
    echo "closed $status after $((SECONDS - begin)) s" >>"$log"
}

results() { sed 's/\x1b\[[0-9;]*m//g' "$2" | grep -a "^\[$1\]" || true; }
failures() { results '\(err\|exception\|timeout\)' "$1"; }

outcome() {
    say "suite   $1: $(results ok "$2" | wc -l) ok, $(failures "$2" | wc -l) failed," \
        "$(results '\(skip\|ignore\)' "$2" | wc -l) skipped, $(grep '^closed ' "$2")"
    failures "$2" | sed 's/^/          /'
}

# compare_suites EPOLL-LOG KQUEUE-LOG. Some tests measure time, and fail on a busy machine
# now and then: a unit that failed here alone gets a second run by itself.
compare_suites() {
    local unit log=$PORTS_DIR/logs/redis-kqueue-again.log
    for unit in $(new_failures "$1" "$2" | sed -n 's|.* in tests/\(.*\)\.tcl$|\1|p' | sort -u); do
        run_suite kqueue "$BASE_kqueue" "$log" "$unit"
        outcome "kqueue, $unit again" "$log"
        check "$unit run again fails only where epoll does" same_failures "$1" "$log"
    done
    check 'every unit ended' all_units "$1" "$2"
    check 'what passes on epoll passes on kqueue' same_names "$1" "$2"
}
new_failures() { comm -13 <(failures "$1" | sort -u) <(failures "$2" | sort -u); }
same_failures() { grep -aq 'The End' "$2" && [ -z "$(new_failures "$1" "$2")" ]; }
units_ended() { sed 's/\x1b\[[0-9;]*m//g' "$1" | grep -ac '^\[[0-9]*/[0-9]* done\]' || true; }
all_units() { [ "$(units_ended "$1")" -gt 0 ] && [ "$(units_ended "$1")" = "$(units_ended "$2")" ]; }

# Names carry numbers drawn at random; without those the lists are the same. What failed
# has had its own check.
plain() { sed 's/[0-9][0-9.]*/N/g' | sort -u; }
names() { results ok "$1" | sed 's/^\[ok\]: //; s/ ([0-9]* ms)$//' | plain; }
failed_names() { failures "$1" | sed 's/^\[[a-z]*\]: //; s/ in tests.*//' | plain; }
same_names() {
    local lost
    lost=$(comm -23 <(names "$1") <(sort -u <(names "$2") <(failed_names "$2")))
    [ -z "$lost" ] && return
    say "$lost"
    return 1
}

# bench: both servers stand beside each other; the one that is not asked sleeps. One client
# program for both, so that the servers alone differ.
bench() {
    start epoll "$PORT_epoll"
    start kqueue "$PORT_kqueue"
    one_load 'redis-benchmark -c 50' -n "${REQUESTS:-100000}" -c 50
    one_load 'redis-benchmark -c 50 -P 16' -n "${PIPELINED:-1000000}" -c 50 -P 16
    one_load 'redis-benchmark -c 500' -n "${REQUESTS:-100000}" -c 500
    stop_servers
}

# one_load LABEL ARGS...
one_load() {
    local label=$1 round backend order port test dir=$PORTS_DIR/logs/redis-bench
    shift
    rm -rf "$dir"
    mkdir -p "$dir"
    for ((round = 0; round < ROUNDS; round++)); do
        order='epoll kqueue'
        ((round % 2)) && order='kqueue epoll'
        for backend in $order; do
            port=PORT_$backend
            "$PORTS_DIR/redis-epoll/src/redis-benchmark" -p "${!port}" --csv -t ping,set,get \
                "$@" >"$dir/$backend" 2>/dev/null
        done
        join -t, <(rates "$dir/epoll") <(rates "$dir/kqueue") | while IFS=, read -r test e k; do
            echo "$e $k" >>"$dir/${test// /_}.rounds"
        done
    done
    for test in "$dir"/*.rounds; do
        test=${test##*/}
        ratios "$label ${test%.rounds}" "$dir/$test"
    done
    check "$label was measured in all rounds" measured "$dir"
}
rates() { sed -n 's/^"\([A-Z][A-Z_]*\)","\([0-9.]*\)".*/\1,\2/p' "$1" | sort; }
measured() { [ "$(cat "$1"/*.rounds | wc -l)" -ge $((3 * ROUNDS)) ]; }

build
case $STEP in
build) check 'both builds stand' test -x "$PORTS_DIR/redis-kqueue/src/redis-server" ;;
info) info ;;
suite) suite ;;
bench) bench ;;
all) info; bench; suite ;;
*) die "usage: redis.sh [build|info|suite|bench|all] [unit...]" ;;
esac
closing redis
