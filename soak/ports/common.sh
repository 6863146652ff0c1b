# Shared by the port scripts: sources, packages, the library, figures, results.
#
# PORTS_DIR     where sources, builds and logs live (default: kqueue-ports under TMPDIR)
# PORTS_PREFIX  an installed libkqueue to use instead of installing this tree's
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PORTS_DIR=${PORTS_DIR:-${TMPDIR:-/tmp}/kqueue-ports}
PREFIX=${PORTS_PREFIX:-$PORTS_DIR/prefix}
JOBS=${JOBS:-2}
PASSED=0
FAILED=0
SERVERS=()

# nginx drops root before it opens the files it serves.
umask 022
mkdir -p "$PORTS_DIR/src" "$PORTS_DIR/logs"

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 2; }

# check NAME COMMAND...: one named result.
check() {
    local name=$1
    shift
    if "$@"; then
        PASSED=$((PASSED + 1))
        say "ok      $name"
    else
        FAILED=$((FAILED + 1))
        say "not ok  $name"
    fi
}

# closing NAME: the last line of a run, and its exit status.
closing() {
    say "$1: $PASSED ok, $FAILED not ok"
    [ "$FAILED" -eq 0 ] && [ "$PASSED" -gt 0 ]
}

stop_servers() {
    local pid
    for pid in "${SERVERS[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${SERVERS[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    SERVERS=()
}
trap stop_servers EXIT

# need PACKAGE...: installs the Debian packages that are missing.
need() {
    local p missing=()
    for p in "$@"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$p")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || die "please install: ${missing[*]}"
    apt-get update >"$PORTS_DIR/logs/apt.log" 2>&1 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        "${missing[@]}" >>"$PORTS_DIR/logs/apt.log" 2>&1 ||
        die "cannot install ${missing[*]}: see $PORTS_DIR/logs/apt.log"
}

# apt_src ARG...: an apt program that knows the machine's own suites as source suites,
# from a directory of its own, so that nothing under /etc changes.
apt_src() {
    local apt=$PORTS_DIR/apt program=$1
    shift
    "$program" -o Dir::Etc::SourceList=/dev/null \
        -o Dir::Etc::SourceParts="$apt/sources.d" -o Dir::State::Lists="$apt/lists" \
        -o Dir::Cache="$apt/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}

source_lists() {
    local f apt=$PORTS_DIR/apt
    [ -e "$apt/done" ] && return
    mkdir -p "$apt/sources.d" "$apt/lists/partial" "$apt/cache/archives/partial"
    for f in /etc/apt/sources.list.d/*.sources; do
        [ -e "$f" ] && sed 's/^Types:.*/Types: deb-src/' "$f" >"$apt/sources.d/${f##*/}"
    done
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -e "$f" ] && sed -n 's/^deb /deb-src /p' "$f" >"$apt/sources.d/${f##*/}"
    done
    # A repository without sources fails here; the package decides below.
    apt_src apt-get update >"$PORTS_DIR/logs/apt-src.log" 2>&1 || true
    touch "$apt/done"
}

# fetch PACKAGE: Debian's source, with Debian's patches, in src/PACKAGE. A mirror may list
# a version it no longer has: then the next older one is taken.
fetch() {
    local name=$1 version dsc
    [ -e "$PORTS_DIR/src/$name/debian/changelog" ] && return
    source_lists
    cd "$PORTS_DIR/src"
    for version in $(apt_src apt-cache showsrc "$name" | sed -n 's/^Version: //p' | sort -rVu); do
        if apt_src apt-get source --download-only "$name=$version" \
            >>"$PORTS_DIR/logs/apt-src.log" 2>&1; then
            dsc=${name}_${version#*:}.dsc
            rm -rf "$name.new"
            dpkg-source --no-check -x "$dsc" "$name.new" >>"$PORTS_DIR/logs/apt-src.log" 2>&1 &&
                mv "$name.new" "$name"
            break
        fi
    done
    cd "$ROOT"
    [ -d "$PORTS_DIR/src/$name" ] || die "no source of $name: see $PORTS_DIR/logs/apt-src.log"
}

version_of() { (cd "$PORTS_DIR/src/$1" && dpkg-parsechangelog -S Version); }

# library: builds and installs this tree's library, as a packager would, and looks it up.
library() {
    local pc build=BUILD=${BUILD:-build}
    if [ -z "${PORTS_PREFIX:-}" ]; then
        { make -C "$ROOT" "$build" all && make -C "$ROOT" "$build" install PREFIX="$PREFIX"; } \
            >"$PORTS_DIR/logs/install.log" 2>&1 ||
            die "make install failed: see $PORTS_DIR/logs/install.log"
    fi
    pc=$(find "$PREFIX" -name libkqueue.pc -print -quit)
    [ -n "$pc" ] || die "no libkqueue.pc under $PREFIX"
    export PKG_CONFIG_PATH=${pc%/*}
    KQ_CFLAGS=$(pkg-config --cflags libkqueue)
    KQ_LIBDIR=$(pkg-config --variable=libdir libkqueue)
    KQ_LIBS="$(pkg-config --libs libkqueue) -Wl,-rpath,$KQ_LIBDIR"
}

# The build depends on the header, not on the library behind the SONAME.
header_sum() { find "$PREFIX" -name event.h -exec cat {} + | sha256sum | cut -c1-16; }

# tree PACKAGE BACKEND STAMP: a fresh copy of the source, unless STAMP is already built.
# Fails when there is nothing to do.
tree() {
    local dir=$PORTS_DIR/$1-$2
    [ "$(cat "$dir/.built" 2>/dev/null)" = "$3" ] && return 1
    rm -rf "$dir"
    cp -a "$PORTS_DIR/src/$1" "$dir"
}

# build_both PACKAGE NAME: a tree of the package for each backend, built by `compile BACKEND`.
build_both() {
    local backend stamp log
    fetch "$1"
    stamp=$(version_of "$1")
    say "$2 $stamp"
    for backend in epoll kqueue; do
        [ "$backend" = kqueue ] && library && stamp="$stamp $(header_sum) $KQ_CFLAGS $KQ_LIBS"
        tree "$1" "$backend" "$stamp" || continue
        log=$PORTS_DIR/logs/$2-$backend-build.log
        compile "$backend" >"$log" 2>&1 || die "$2-$backend does not build: see $log"
        echo "$stamp" >"$PORTS_DIR/$1-$backend/.built"
    done
}

# maps_library PID: the process runs on the library under test.
maps_library() { grep -q "$(readlink -f "$KQ_LIBDIR/libkqueue.so.0")" "/proc/$1/maps"; }

# descriptors PID...: files, sockets and pipes the processes have open. Epolls and their like
# are the event loop's own, which makes some of them at the first need.
descriptors() {
    local p
    for p in "$@"; do find "/proc/$p/fd" -type l ! -lname 'anon_inode:*'; done | wc -l
}
own_descriptors() { find "/proc/$1/fd" -type l -lname 'anon_inode:*' | wc -l; }

# idle_ticks PID...: processor time the processes use in two seconds, in clock ticks.
idle_ticks() {
    local before after
    before=$(ticks "$@")
    sleep 2
    after=$(ticks "$@")
    echo $((after - before))
}

ticks() {
    local p sum=0 t
    for p in "$@"; do
        t=$(sed 's/.*) //' "/proc/$p/stat" 2>/dev/null | awk '{ print $12 + $13 }')
        sum=$((sum + t))
    done
    echo "$sum"
}

# wait_until SECONDS COMMAND...: the condition holds within the time.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

open_port() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# ratios LABEL FILE: lines "epoll kqueue" of alternating rounds to the median of the rounds'
# ratios, with the spread and both medians.
ratios() {
    awk '{ printf "%.4f %s %s\n", $2 / $1, $1, $2 }' "$2" | sort -n | awk -v label="$1" '
        function median(a, n) { return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2 }
        function order(a, n,   i, j, t) {
            for (i = 2; i <= n; i++)
                for (j = i; j > 1 && a[j - 1] > a[j]; j--) {
                    t = a[j]; a[j] = a[j - 1]; a[j - 1] = t
                }
        }
        { r[NR] = $1; e[NR] = $2; k[NR] = $3 }
        END {
            order(e, NR); order(k, NR)
            printf "ratio   %-38s kqueue/epoll %.3f (%.3f .. %.3f, %d rounds)", label,
                median(r, NR), r[1], r[NR], NR
            printf " epoll %.0f/s kqueue %.0f/s\n", median(e, NR), median(k, NR)
        }'
}
