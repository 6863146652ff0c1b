#!/bin/bash
# PostgreSQL on this library: Debian's source with the latches it uses on the BSDs, its own
# regression and isolation tests beside those of an epoll build, and the postmaster's death.
#
# usage: postgres.sh [build|suite|death|all]
#
# A latch is set by SIGURG (EVFILT_SIGNAL), every backend waits for its postmaster, which is
# no child of its, to exit (EVFILT_PROC), and most waits make a kqueue of their own.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

STEP=${1:-all}
PORT=27151
CLIENTS=${CLIENTS:-40}

build() {
    need gcc make pkg-config dpkg-dev bison flex perl util-linux procps
    build_both postgresql-15 postgres
}

# configure finds kqueue() by itself; the define prefers it to epoll.
compile() {
    local flags=()
    [ "$1" = kqueue ] && flags=(CPPFLAGS="-DWAIT_USE_KQUEUE $KQ_CFLAGS" LIBS="$KQ_LIBS")
    (
        cd "$PORTS_DIR/postgresql-15-$1" &&
            ./configure --prefix="$PWD/installed" --without-readline --without-zlib \
                --enable-cassert CFLAGS='-O1 -g -w' "${flags[@]}" &&
            nice make -j"$JOBS" && nice make -j"$JOBS" install &&
            nice make -C src/test/regress && nice make -C src/test/isolation || exit
        # Its server refuses to run as root.
        [ "$(id -u)" -ne 0 ] || chown -R nobody .
    )
}

as_user() {
    [ "$(id -u)" -ne 0 ] || set -- setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"
    exec env HOME="$PORTS_DIR" LC_ALL=C "$@"
}

suite() {
    local part log
    for part in regress isolation; do
        for backend in epoll kqueue; do
            log=$PORTS_DIR/logs/postgres-$backend-$part.log
            (cd "$PORTS_DIR/postgresql-15-$backend" &&
                as_user nice timeout 1800 make -C "src/test/$part" check MAX_CONNECTIONS=10) \
                >"$log" 2>&1 </dev/null || true
            say "suite   $backend $part: $(sed -n 's/^ \(.*tests .*[a-z]\)\..*$/\1/p' "$log")"
        done
        check "$part: the suite ran to its end" grep -q '^ .* tests ' "$log"
        check "$part: what passes on epoll passes on kqueue" fails_only_where_epoll_does "$part"
    done
}

fails_only_where_epoll_does() {
    [ -z "$(comm -13 <(failed "epoll-$1") <(failed "kqueue-$1"))" ]
}
failed() { sed -n 's/^\(test\)\? *\([a-z0-9_-]*\) *\.\.\. FAILED.*/\2/p' "$PORTS_DIR/logs/postgres-$1.log" | sort; }

# Every process of a server ends by itself when its postmaster is killed.
death() {
    local i postmaster children
    dir=$PORTS_DIR/postgres-data bin=$PORTS_DIR/postgresql-15-kqueue/installed/bin
    rm -rf "$dir" && mkdir "$dir"
    [ "$(id -u)" -ne 0 ] || chown nobody "$dir"
    (as_user "$bin/initdb" -D "$dir" -A trust) >"$PORTS_DIR/logs/postgres-initdb.log" 2>&1 ||
        die "initdb failed: see $PORTS_DIR/logs/postgres-initdb.log"
    start
    mkfifo "$dir/silence"
    exec 9<>"$dir/silence"
    check 'the server has the library under test mapped' maps_library "$postmaster"
    for ((i = 0; i < CLIENTS; i++)); do
        sql <"$dir/silence" 9<&- &
    done
    check "$CLIENTS clients are served" wait_until 20 backends "$CLIENTS"
    check 'an idle server sleeps' wait_until 20 sleeps
    children=$(pgrep -P "$postmaster")
    kill -KILL "$postmaster" && wait "$postmaster" 2>/dev/null || true
    check 'every process hears of the death of the postmaster' wait_until 10 all_gone
    exec 9<&-
    # What the killed one left in shared memory the next one finds and removes.
    start
    kill -INT "$postmaster" && wait "$postmaster" || true
    SERVERS=()
}
start() {
    (as_user "$bin/postgres" -D "$dir" -p "$PORT" -k "$dir" -h '') \
        >>"$PORTS_DIR/logs/postgres-server.log" 2>&1 &
    postmaster=$!
    SERVERS=("$postmaster")
    wait_until 20 answers || die 'the server does not answer'
}
sql() { (as_user "$bin/psql" -h "$dir" -p "$PORT" -d postgres -At "$@") 2>/dev/null; }
answers() { [ "$(sql -c 'select 1' </dev/null)" = 1 ]; }
backends() { [ "$(sql -c "select count(*) from pg_stat_activity where backend_type = 'client backend'" </dev/null)" -gt "$1" ]; }
# shellcheck disable=SC2046
sleeps() { [ "$(idle_ticks $(pgrep -P "$postmaster"))" -le 20 ]; }
# A dead one may wait for init to collect it.
all_gone() {
    local p
    for p in $children; do ! grep -qs '^State:.[^ZX]' "/proc/$p/status" || return 1; done
}

build
case $STEP in
build) check 'both builds stand' test -x "$PORTS_DIR/postgresql-15-kqueue/src/backend/postgres" ;;
suite) suite ;;
death) death ;;
all) death; suite ;;
*) die 'usage: postgres.sh [build|suite|death|all]' ;;
esac
closing postgres
