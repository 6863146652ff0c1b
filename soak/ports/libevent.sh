#!/bin/bash
# libevent on this library: Debian's source, whose configure finds kqueue() by itself, and its
# own regression suite beside the same suite on epoll.
#
# usage: libevent.sh [test...]      such as main/.. or thread/basic
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TESTS=("$@")

build() {
    local backend stamp log
    need gcc make pkg-config dpkg-dev
    fetch libevent
    stamp=$(version_of libevent)
    say "libevent $stamp"
    for backend in epoll kqueue; do
        [ "$backend" = kqueue ] && library && stamp="$stamp $(header_sum) $KQ_CFLAGS $KQ_LIBS"
        tree libevent "$backend" "$stamp" || continue
        log=$PORTS_DIR/logs/libevent-$backend-build.log
        compile "$backend" >"$log" 2>&1 || die "libevent-$backend does not build: see $log"
        echo "$stamp" >"$PORTS_DIR/libevent-$backend/.built"
    done
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

# failed BACKEND: "  [name FAILED]" comes after the group's heading.
failed() { grep -a '^  \[.* FAILED\]$' "$PORTS_DIR/logs/libevent-$1.log" | sort -u || true; }
fails_only_where_epoll_does() { [ -z "$(comm -13 <(failed epoll) <(failed kqueue) | tee /dev/stderr)" ]; }
names_kqueue() { [[ $(regress kqueue --verbose main/methods 2>&1) == *'<kqueue> vs '* ]]; }

build
check 'the method is kqueue' names_kqueue
suite epoll
suite kqueue
check 'the suite ran to its end' grep -aqE '(tests ok|TESTS FAILED)' "$PORTS_DIR/logs/libevent-kqueue.log"
check 'what passes on epoll passes on kqueue' fails_only_where_epoll_does
closing libevent
