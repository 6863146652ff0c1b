#!/bin/bash
# libevent on this library: Debian's source, whose configure finds kqueue() by itself, and its
# own regression suite beside the same suite on epoll.
#
# usage: libevent.sh [test...]      such as main/.. or thread/basic
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TESTS=("$@")

build() {
    need gcc make pkg-config dpkg-dev
    build_both libevent libevent
}

compile() {
    local flags=()
    [ "$1" = kqueue ] && flags=(CPPFLAGS="$KQ_CFLAGS" LIBS="$KQ_LIBS")
    (
        cd "$PORTS_DIR/libevent-$1" || exit
        # Debian's patches make the generated files look older than what they come from.
        touch aclocal.m4 && sleep 1 && touch configure config.h.in && find . -name Makefile.in -exec touch {} +
        sh configure --disable-shared --disable-openssl --disable-mbedtls "${flags[@]}" &&
            nice make -j"$JOBS" all && nice make -j"$JOBS" test/regress
    )
}

# regress BACKEND ARG...: with no other backend to choose from.
regress() {
    local none=(EVENT_NOPOLL=1 EVENT_NOSELECT=1)
    [ "$1" = kqueue ] && none+=(EVENT_NOEPOLL=1)
    (cd "$PORTS_DIR/libevent-$1" && env "${none[@]}" ./test/regress "${@:2}") </dev/null
}

suite() {
    regress "$1" "${TESTS[@]}" >"$PORTS_DIR/logs/libevent-$1.log" 2>&1 || true
    say "suite   $1: $(tail -n 1 "$PORTS_DIR/logs/libevent-$1.log")"
}

# failed LOG: the names stand before what went wrong.
failed() {
    sed -n 's|^\([a-z_]*/[a-z_0-9]*\):.*|name \1|p; /^  \[.* FAILED\]$/p' "$1" |
        awk '$1 == "name" { name = $2; next } { print name }' | sort -u
}
LOG_epoll=$PORTS_DIR/logs/libevent-epoll.log
LOG_kqueue=$PORTS_DIR/logs/libevent-kqueue.log

# Some tests measure clocks, and fail on a busy machine now and then: one that failed here
# alone gets a second run by itself.
fails_only_where_epoll_does() {
    local name status=0
    for name in $(comm -13 <(failed "$LOG_epoll") <(failed "$LOG_kqueue")); do
        say "        $name failed; once more"
        regress kqueue "$name" >"$PORTS_DIR/logs/libevent-again.log" 2>&1 || status=1
    done
    return $status
}
names_kqueue() { [[ $(regress kqueue --verbose main/methods 2>&1) == *'<kqueue> vs '* ]]; }

build
check 'the method is kqueue' names_kqueue
suite epoll
suite kqueue
check 'the suite ran to its end' grep -aqE '(tests ok|TESTS FAILED)' "$PORTS_DIR/logs/libevent-kqueue.log"
check 'what passes on epoll passes on kqueue' fails_only_where_epoll_does
closing libevent
