#!/bin/bash
# libuv on this library: Debian's source with the files the BSDs use in place of epoll and
# inotify, and its own test suite beside the same suite on epoll.
#
# usage: libuv.sh [test...]      such as tcp_open or fs_event_watch_dir
#
# A process is waited for by EVFILT_PROC, a file or directory by EVFILT_VNODE.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TESTS=("$@")

build() {
    need gcc make pkg-config dpkg-dev
    build_both libuv1 libuv
}

# Upstream's makefile wants autotools; it names one source to a line.
listed() { sed -n "/^$1 =/,/[^\\\\]\$/s/.*\(\(src\|test\)\/[a-z0-9\/-]*\.c\).*/\1/p" Makefile.am; }

compile() (
    local flags=(-D_GNU_SOURCE -Iinclude -Isrc) libs=(-pthread -ldl -lrt -lutil) event
    cd "$PORTS_DIR/libuv1-$1" || exit
    event='epoll linux-inotify'
    [ "$1" = kqueue ] && event=kqueue && to_kqueue &&
        flags+=(-DHAVE_KQUEUE=1 "$KQ_CFLAGS") && read -ra libs <<<"${libs[*]} $KQ_LIBS"
    {
        printf 'CFLAGS = -O1 -g -w %s\n' "${flags[*]}"
        printf 'LIB ='; objects "$(listed libuv_la_SOURCES; unix_sources "$event")"
        printf 'TEST ='; objects "$(listed test_run_tests_SOURCES; echo test/runner-unix.c)"
        printf 'run-tests: $(TEST) libuv.a\n\t$(CC) -o $@ $^ %s\n' "${libs[*]}"
        printf 'libuv.a: $(LIB)\n\t$(AR) rcs $@ $^\n'
    } >Makefile.port
    nice make -f Makefile.port -j"$JOBS"
)

objects() { sort -u <<<"${1//.c/.o}" | paste -sd' '; }

# unix_sources BACKEND...: what every Unix has, what Linux has, and the backend.
unix_sources() {
    local f
    for f in async core dl fs getaddrinfo getnameinfo loop-watcher loop pipe poll process \
        random-devurandom signal stream tcp thread tty udp \
        linux-core linux-syscalls procfs-exepath proctitle random-getrandom random-sysctl-linux $1; do
        echo "src/unix/$f.c"
    done
}

# The handles get the BSDs' fields, the loop the BSDs' backend, and the tests of file events
# expect what the BSDs tell: no file's name.
to_kqueue() {
    cp include/uv/bsd.h include/uv/linux.h
    sed -i '/sysctl\.h/d' src/unix/kqueue.c
    sed -i 's/^#define UV_USE_SIGCHLD$/#include <sys\/event.h>/' src/unix/process.c
    sed -i '/^int uv__io_fork(/,/^}/d; /^int uv__platform_loop_init(/,/^}/d
        /^void uv__platform_loop_delete(/,/^}/d' src/unix/linux-core.c
    sed -n '/^int uv__platform_loop_init(/,/^}/p; /^void uv__platform_loop_delete(/,/^}/p' \
        src/unix/freebsd.c >>src/unix/linux-core.c
    # Upstream skips this test on FreeBSD, where a directory can be watched.
    sed -i 's/^#if !defined(__DragonFly__)/& \&\& !defined(UV_HAVE_KQUEUE)/' test/test-poll.c
    sed -i '/^ *#if.*__APPLE__/s/ || defined *(__linux__)//' test/test-fs-event.c test/test-fork.c
}

# suite BACKEND: one line of TAP for each test.
suite() {
    local log=$PORTS_DIR/logs/libuv-$1.log name
    {
        if [ ${#TESTS[@]} -eq 0 ]; then
            one "$1"
        else
            for name in "${TESTS[@]}"; do one "$1" "$name"; done
        fi
    } >"$log" 2>&1 </dev/null
    say "suite   $1: $(grep -c '^ok ' "$log") ok, $(grep -c '^not ok ' "$log") not ok"
}
one() { (cd "$PORTS_DIR/libuv1-$1" && UV_RUN_AS_ROOT=1 nice timeout 1800 ./run-tests "${@:2}") || true; }

failed() { sed -n 's/^not ok [0-9]* - \([a-z0-9_]*\).*/\1/p' "$1" | sort -u; }

LOG_epoll=$PORTS_DIR/logs/libuv-epoll.log
LOG_kqueue=$PORTS_DIR/logs/libuv-kqueue.log
fails_only_where_epoll_does() {
    local name status=0
    for name in $(comm -13 <(failed "$LOG_epoll") <(failed "$LOG_kqueue")); do
        say "        $name failed; once more"
        one kqueue "$name" >"$PORTS_DIR/logs/libuv-again.log" 2>&1
        grep -q "^ok .*$name" "$PORTS_DIR/logs/libuv-again.log" || status=1
    done
    return $status
}
linked() { ldd "$PORTS_DIR/libuv1-kqueue/run-tests" | grep -F "$KQ_LIBDIR/libkqueue.so.0" >/dev/null; }
# As many results as the first line of a whole run announces.
planned() { if [ ${#TESTS[@]} -gt 0 ]; then echo ${#TESTS[@]}; else sed -n 's/^1\.\.//p' "$LOG_kqueue"; fi; }
results() { grep -cE '^(not )?ok ' "$LOG_kqueue" || true; }
ended() { [ "$(results)" -gt 0 ] && [ "$(results)" = "$(planned)" ]; }

build
check 'the tests run on the library under test' linked
suite epoll
suite kqueue
check 'the suite ran to its end' ended
check 'what passes on epoll passes on kqueue' fails_only_where_epoll_does
closing libuv
