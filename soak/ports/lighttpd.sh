#!/bin/bash
# lighttpd on this library: Debian's source, whose configure finds kqueue() by itself, with
# "freebsd-kqueue" for its event handler; its own tests beside the same on epoll, and a
# client that checks every byte.
#
# usage: lighttpd.sh     SECS_LOAD (default 10)
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

SECS_LOAD=${SECS_LOAD:-10}
CONNS=300
RUN=$PORTS_DIR/lighttpd-run
PORT=27301

build() {
    need gcc make pkg-config dpkg-dev zlib1g-dev libpcre2-dev perl
    build_both lighttpd lighttpd
    gcc -O2 -Wall -Wextra -o "$PORTS_DIR/http_check" "$ROOT/soak/ports/http_check.c"
}

compile() {
    local flags=()
    if [ "$1" = kqueue ]; then
        # One of configure's checks drops LDFLAGS and keeps LIBS.
        flags=(CPPFLAGS="$KQ_CFLAGS" LIBS="$KQ_LIBS" ac_cv_header_sys_epoll_h=no)
        grep -lE '^server\.(document-root|port)' "$PORTS_DIR/lighttpd-kqueue/tests"/*.conf |
            xargs sed -i '1i server.event-handler = "freebsd-kqueue"'
    fi
    (
        cd "$PORTS_DIR/lighttpd-$1" || exit
        sh configure --disable-dependency-tracking --without-bzip2 --without-zstd --without-brotli \
            --with-zlib --with-pcre2 "${flags[@]}" && nice make -j"$JOBS" &&
            nice make -C tests fcgi-responder scgi-responder
    )
}

suite() {
    local log=$PORTS_DIR/logs/lighttpd-$1-suite.log
    (
        cd "$PORTS_DIR/lighttpd-$1/tests" || exit
        export srcdir=. top_builddir=..
        sh ./prepare.sh && prove -v ./*.t
    ) >"$log" 2>&1 </dev/null || true
    say "suite   $1: $(grep -c '^ok ' "$log") ok, $(grep -c '^not ok ' "$log") failed"
}
# perl goes through the tests of the configuration in an order of its own.
passed() { grep '^ok ' "$PORTS_DIR/logs/lighttpd-$1-suite.log" | sed 's/^ok [0-9]* - //' | sort; }
passes_what_epoll_does() {
    local lost
    lost=$(comm -23 <(passed epoll) <(passed kqueue))
    [ -z "$lost" ] && return
    say "$lost"
    return 1
}

start() {
    mkdir -p "$RUN/html"
    awk 'BEGIN { for (i = 0; i < 262144; i++) printf "%c", 97 + i % 26 }' >"$RUN/html/256k"
    head -c 1024 "$RUN/html/256k" >"$RUN/html/1k"
    cat >"$RUN/lighttpd.conf" <<CONF
server.event-handler = "freebsd-kqueue"
server.document-root = "$RUN/html"
server.bind = "127.0.0.1"
server.port = $PORT
server.max-fds = 4096
server.errorlog = "$RUN/error.log"
server.modules = ()
CONF
    "$PORTS_DIR/lighttpd-kqueue/src/lighttpd" -D -m "$PORTS_DIR/lighttpd-kqueue/src/.libs" \
        -f "$RUN/lighttpd.conf" >"$PORTS_DIR/logs/lighttpd-server.log" 2>&1 &
    SERVERS+=($!)
    wait_until 10 open_port "$PORT" || die "lighttpd does not listen: see $PORTS_DIR/logs/lighttpd-server.log"
}

# exact FILE SIZE MODE
exact() {
    local out
    out=$("$PORTS_DIR/http_check" "$PORT" "/$1" "$2" "$CONNS" "$SECS_LOAD" "$3") || { say "$out"; return 1; }
    say "        $1 $3: $out"
    [[ $out == *' failed 0 '* ]]
}
few_descriptors() { [ "$(descriptors "$1")" -le "$2" ]; }
sleeps() { [ "$(idle_ticks "$1")" -le 4 ]; }

build
for backend in epoll kqueue; do suite "$backend"; done
check 'the suite ran' test "$(passed kqueue | wc -l)" -gt 100
check 'what passes on epoll passes on kqueue' passes_what_epoll_does
start
check 'lighttpd has the library under test mapped' maps_library "${SERVERS[0]}"
open=$(descriptors "${SERVERS[0]}")
for mode in keepalive close; do
    check "1 KiB byte for byte, $mode" exact 1k 1024 "$mode"
    check "256 KiB byte for byte, $mode" exact 256k 262144 "$mode"
done
check 'all connections are closed afterwards' wait_until 20 few_descriptors "${SERVERS[0]}" "$open"
check 'an idle lighttpd sleeps' sleeps "${SERVERS[0]}"
stop_servers
closing lighttpd
