#!/bin/bash
# libev on this library: Debian's source, whose configure finds kqueue() by itself. It has no
# test suite; libev_check.c puts each of its backends to work.
#
# usage: libev.sh        SECS (default 5) is for how long tokens go round
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

build() {
    local stamp log=$PORTS_DIR/logs/libev-build.log
    need gcc make pkg-config dpkg-dev
    fetch libev
    library
    stamp="$(version_of libev) $(header_sum) $KQ_CFLAGS $KQ_LIBS"
    say "libev $(version_of libev)"
    if tree libev kqueue "$stamp"; then
        compile >"$log" 2>&1 || die "libev does not build: see $log"
        echo "$stamp" >"$PORTS_DIR/libev-kqueue/.built"
    fi
    # shellcheck disable=SC2086
    gcc -O2 -Wall -fno-strict-aliasing -isystem "$PORTS_DIR/libev-kqueue" -o "$PORTS_DIR/libev_check" \
        "$ROOT/soak/ports/libev_check.c" "$PORTS_DIR/libev-kqueue/.libs/libev.a" $KQ_LIBS -lm -pthread
}

compile() {
    (cd "$PORTS_DIR/libev-kqueue" &&
        sh configure --disable-shared CPPFLAGS="$KQ_CFLAGS" LIBS="$KQ_LIBS" && nice make -j"$JOBS")
}

works() { timeout 120 "$PORTS_DIR/libev_check" "$1" "${SECS:-5}"; }

build
for backend in epoll kqueue; do check "libev on $backend" works "$backend"; done
closing libev
