#!/bin/bash
# CPython on this library: the select module of Debian's interpreter, compiled once more with
# kqueue in it, and CPython's own tests of it, of selectors and of asyncio, whose event loop
# then stands on kqueue. The same tests with the interpreter's own module, on epoll, tell
# what is the machine's doing.
#
# usage: python.sh [test...]
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TESTS=("$@")
[ ${#TESTS[@]} -gt 0 ] || TESTS=(test_selectors test_asyncio test_asyncore test_asynchat test_socketserver)
SOURCE=python3.11
PYTHON=/usr/bin/$SOURCE
RUN=$PORTS_DIR/python

build() {
    local backend log=$PORTS_DIR/logs/python-build.log
    need gcc pkg-config dpkg-dev python3.11 libpython3.11-dev
    fetch "$SOURCE"
    library
    say "python $(version_of "$SOURCE")"
    rm -rf "$RUN"
    for backend in epoll kqueue; do
        mkdir -p "$RUN/$backend"
        ln -s "$PORTS_DIR/src/$SOURCE/Lib/test" "$RUN/$backend/test"
    done
    # shellcheck disable=SC2046,SC2086
    gcc -O2 -fPIC -shared -DHAVE_KQUEUE=1 -DHAVE_SYS_EVENT_H=1 $KQ_CFLAGS \
        -I"/usr/include/$SOURCE" -I"/usr/include/$SOURCE/internal" \
        "$PORTS_DIR/src/$SOURCE/Modules/selectmodule.c" -o "$RUN/kqueue/select.so" $KQ_LIBS \
        >"$log" 2>&1 || die "the select module does not build: see $log"
    # The interpreter has a select module inside, which no path can hide.
    cat >"$RUN/kqueue/sitecustomize.py" <<'PY'
import importlib.machinery
import importlib.util
import os
import sys

path = os.path.join(os.path.dirname(__file__), "select.so")
loader = importlib.machinery.ExtensionFileLoader("select", path)
spec = importlib.util.spec_from_file_location("select", path, loader=loader)
module = importlib.util.module_from_spec(spec)
loader.exec_module(module)
sys.modules["select"] = module
PY
}

python() { PYTHONPATH=$RUN/$1 "$PYTHON" "${@:2}"; }
selects_kqueue() { [ "$(python kqueue -c 'import selectors; print(selectors.DefaultSelector.__name__)')" = KqueueSelector ]; }

# suite BACKEND TEST...
suite() {
    (cd "$RUN" && python "$1" -m test -v --timeout 300 "${@:2}") \
        >"$PORTS_DIR/logs/python-$1.log" 2>&1 </dev/null
}
passed() { grep -c '\.\.\. ok$' "$PORTS_DIR/logs/python-$1.log"; }
failed() { grep -E '^(FAIL|ERROR): ' "$PORTS_DIR/logs/python-$1.log" | sort -u || true; }

# Some tests come once for each selector there is: these exist on one side only.
fails_only_where_epoll_does() {
    local new
    new=$(comm -13 <(failed epoll) <(failed kqueue))
    [ -z "$new" ] && return
    say "$new"
    return 1
}

build
check 'asyncio and selectors choose kqueue' selects_kqueue
suite epoll "${TESTS[@]}" || true
say "suite   epoll: $(passed epoll) ok, $(failed epoll | wc -l) failed"
ended=0
suite kqueue test_kqueue "${TESTS[@]}" || ended=$?
say "suite   kqueue: $(passed kqueue) ok, $(failed kqueue | wc -l) failed, ended with $ended"
check 'the suite ran to its end' grep -q '^Tests result: ' "$PORTS_DIR/logs/python-kqueue.log"
check 'kqueue runs no fewer tests than epoll' test "$(passed kqueue)" -ge "$(passed epoll)"
check 'what passes on epoll passes on kqueue' fails_only_where_epoll_does
closing python
