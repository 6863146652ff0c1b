#!/bin/bash
# What takes too long for every change. Each part ends with one summary line; the logs
# of what failed stay in target/soak/PART.
#
#   soak/run.sh [PART...]     repeat faults valgrind asan tsan ports; all without one
#
# RUNS (100) is how often repeat runs each program, JOBS (2) how many run at a time,
# BUILD (build) where make put the library.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD
BUILD=${BUILD:-$root/build}
RUNS=${RUNS:-100}
JOBS=${JOBS:-2}
OUT=${OUT:-$root/target/soak}
TARGET=$(uname -m)-unknown-linux-gnu
CC=${CC:-gcc}
programs=$(cd ctests && ls ./*.c | sed 's|^\./||; s|\.c$||')
bad=

# Builds every C check on the library in $2 into $1, with the further flags of $3.
# Programs are NAME-shared and NAME-archive.
build_checks() {
	local dir=$1 lib=$2 flags=$3 name
	mkdir -p "$dir/lib"
	ln -sf "$lib/libkqueue.so" "$dir/lib/libkqueue.so"
	ln -sf "$lib/libkqueue.so" "$dir/lib/libkqueue.so.0"
	for name in $programs; do
		# shellcheck disable=SC2086
		$CC -O1 -g -Iinclude $flags "ctests/$name.c" -o "$dir/$name-shared" -pthread \
			-L"$dir/lib" -lkqueue -Wl,-rpath,"$dir/lib" &&
		$CC -O1 -g -Iinclude $flags "ctests/$name.c" -o "$dir/$name-archive" -pthread \
			"$lib/libkqueue.a" || return 1
	done
}

# Runs one line "LABEL COMMAND" and notes how it ended; the log stays if it failed.
one() {
	local label=${1%% *} command=${1#* } log status
	log=$PART_DIR/log/$label
	(cd "$PART_DIR/work" && timeout -k 10 900 bash -c "$command") >"$log" 2>&1
	status=$?
	case $status in
	0) echo "ok $label" >>"$PART_DIR/results"; rm -f "$log" ;;
	77) echo "skip $label" >>"$PART_DIR/results"; rm -f "$log" ;;
	*) echo "FAIL $label: status $status" | tee -a "$PART_DIR/results" ;;
	esac
}
export -f one

# Runs the lines of standard input, JOBS at a time, and prints the part's summary.
run_lines() {
	local part=$1 results
	PART_DIR=$OUT/$part
	export PART_DIR
	results=$PART_DIR/results
	rm -rf "$PART_DIR/log" "$PART_DIR/work"
	mkdir -p "$PART_DIR/log" "$PART_DIR/work"
	: >"$results"
	xargs -d '\n' -P "$JOBS" -I '{}' bash -c 'one "$1"' _ '{}'
	local failed
	failed=$(grep -c '^FAIL' "$results")
	echo "soak $part: $(grep -c '^ok' "$results") passed, $failed failed," \
		"$(grep -c '^skip' "$results") skipped; logs in $PART_DIR/log"
	[ "$failed" = 0 ] && [ -s "$results" ]
}

# A line for every single check of every program in $1, run under the command in $2.
each_check() {
	local dir=$1 under=$2 program check
	for program in "$dir"/*-shared "$dir"/*-archive; do
		# The plain build names them: another may need $under even to start.
		for check in $("$OUT/plain/${program##*/}" -l); do
			echo "${program##*/}.$check $under $program $check"
		done
	done
}

part_repeat() {
	local dir=$OUT/plain run program
	build_checks "$dir" "$BUILD" '' || return 1
	for run in $(seq "$RUNS"); do
		for program in "$dir"/*-shared "$dir"/*-archive; do
			echo "${program##*/}.$run $program"
		done
	done | run_lines repeat
}

# Which call fails how, and checks that between them make every one of those calls. What the
# loader could not do without (mmap, read, pread64, openat) fails in life_faults* only; what cannot fail
# with good arguments (rt_sigprocmask) nowhere.
FAULTS='pipe2:EMFILE pipe2:ENFILE epoll_create1:EMFILE epoll_create1:ENOMEM epoll_ctl:ENOMEM
	epoll_ctl:ENOSPC epoll_pwait2:EINTR epoll_pwait2:ENOSYS epoll_pwait2:EPERM epoll_pwait:EINTR
	eventfd2:EMFILE timerfd_create:EMFILE signalfd4:EMFILE inotify_init1:EMFILE
	inotify_add_watch:ENOSPC fcntl:EMFILE fcntl:EINVAL clone3:EAGAIN clone3:ENOSYS
	newfstatat:ENOMEM fstat:ENOMEM process_vm_readv:EPERM pwritev2:ENOSYS
	write:EINTR poll:EINTR dup3:EMFILE getsockopt:ENOBUFS socket:EMFILE sendto:ENOBUFS
	recvfrom:EAGAIN prctl:EPERM timerfd_settime:EINVAL pidfd_open:EMFILE
	pidfd_open:ENOSYS waitid:EINTR bind:ENOMEM setsockopt:ENOMEM recvmmsg:ENOBUFS recvmmsg:EAGAIN
	name_to_handle_at:EOPNOTSUPP fstatfs:ENOSYS rt_sigtimedwait:EAGAIN rt_tgsigqueueinfo:EAGAIN
	inotify_rm_watch:EINVAL readlink:EACCES ppoll:ENOMEM pidfd_send_signal:ENOSYS
	pidfd_send_signal:EPERM rt_sigqueueinfo:EPERM rt_tgsigqueueinfo:EPERM tgkill:EPERM kill:EPERM
	getdents64:EIO lseek:ESPIPE ioctl:ENOTTY close_range:ENOSYS vmsplice:EPERM'
FAULTY='life_kqueue.close_wakes_a_sleeper_with_a_timeout_and_knotes
	life_copies.dup_of_a_queue_is_the_queue life_kqueue.close_frees_every_descriptor_of_a_busy_queue
	life_process.a_forked_child_makes_queues_of_its_own
	io_close.close_with_a_dup_alive_silences_the_knotes_without_using_cpu
	io_file.growth_wakes_with_the_new_bytes
	engine_poll.waits_and_polls_by_turns_work_cleared_on_a_pipe
	engine_nested.the_outer_sees_the_event_of_a_socket
	engine_threads.a_sleeper_wakes_when_a_ready_knote_is_added_on_a_pipe
	engine_threads.four_triggers_in_one_call_wake_four_sleepers
	life_cancel.a_cancelled_sleeper_ends_and_its_cleanup_handlers_run
	signal_count.seven_kills_are_seven
	signal_blocked.a_blocked_signal_is_recorded_and_stays_pending
	signal_process.who_waits_for_it_afterwards_gets_it
	signal_process.polled_before_it_is_collected_it_goes_on_as_it_was
	signal_process.the_thread_that_counted_it_may_end
	signal_refused.who_takes_it_gets_it_and_the_next_counts_again
	proc_exit.delivered_exit_removes_the_knote_and_comes_once proc_fork.fork_is_an_event_at_once
	procdesc.exit_is_an_event_with_the_status
	vnode_file.a_write_beyond_the_end_is_write_and_extend
	vnode_directory.making_and_removing_files_is_write
	fs_mounts.mount_and_unmount_are_told_and_clear_is_implied'

part_faults() {
	command -v strace >/dev/null || { echo "soak faults: skipped, not installed"; return; }
	local dir=$OUT/plain fault name n
	build_checks "$dir" "$BUILD" '' || return 1
	{
		for name in shared archive; do
			echo "life_faults-$name SOAK=1 $dir/life_faults-$name"
			echo "life_faults_sources-$name SOAK=1 $dir/life_faults_sources-$name"
			echo "life_races-$name SOAK=1 $dir/life_races-$name"
		done
		for fault in $FAULTS; do
			for name in $FAULTY; do
				for n in 1 2 3 4 5 6 7 8 9 10 12 15 20; do
					echo "${name#*.}.$fault.$n $root/soak/under_fault ${fault%:*} ${fault#*:} $n" \
						"$dir/${name%.*}-shared ${name#*.}"
				done
			done
		done
	} | run_lines faults
}

# How many descriptors the library holds once a program has made and closed a kqueue.
own_descriptors() {
	$CC -Iinclude -o "$OUT/plain/own" -x c - -x none "$BUILD/libkqueue.a" -pthread <<-'END'
		#include <sys/event.h>
		#include <unistd.h>
		int main(void)
		{
			int status = close(kqueue());
			libkqueue_drain_pending_close();
			return status;
		}
	END
	KQUEUE_OWN_DESCRIPTORS=999 soak/under_valgrind "$OUT/plain/own" |
		sed -n 's/^open at the end: \([0-9]*\).*/\1/p'
}

# Checks that meet valgrind itself: it reserves descriptors below the limit, keeps its own
# open, runs many times slower, has masks of its own for signals, lacks epoll_pwait2, makes
# calls that life_faults would fail, and makes core files of its own. Plain programs show the
# same under it: SIGTSTP ends a process, kill() of one's own process returns before the handler
# has run, valgrind dies of a SIGSEGV that was sent with the siginfo of a fault, and never ends
# a process with threads where RLIMIT_SIGPENDING is 0; a thread that runs shows all signals blocked
# in /proc, so that a signal is looked after in vain. And it cannot go where /proc is not.
NOT_VALGRIND='64_descriptors|without_free_descriptors|descriptor_each|very_first_kqueue|first_kqueue |leaves?_no_descriptor_of_ours|not_rounded_up|absolute_and_a_relative|take_no_memory|block_every_signal|takes_no_signal|interrupted_call_stay_made|right_after_dup2|more_children_than|crowded_kqueue|a_fault_ends_the|finds_errno_and_leaves|at_the_limit|stop_and_continue_work|wait_says_of_a_core|no_child_lives_on|runs_each_time_though_threads|for_want_of_proc|^cost|^life_faults|^life_limits|^life_races'

part_valgrind() {
	command -v valgrind >/dev/null || { echo "soak valgrind: skipped, not installed"; return; }
	build_checks "$OUT/plain" "$BUILD" '' || return 1
	KQUEUE_OWN_DESCRIPTORS=$(own_descriptors) || return 1
	export KQUEUE_OWN_DESCRIPTORS
	each_check "$OUT/plain" "$root/soak/under_valgrind" | grep -Ev "$NOT_VALGRIND" | run_lines valgrind
}

# AddressSanitizer keeps the frames of our functions in a stack of its own where it looks for
# their use after their end; of a cleanup handler there libc does not know that a jump leaves it,
# so it does not look for that where jumps are checked.
real_stack() {
	sed '/^life_jumps/s/use_after_return=1/use_after_return=0/'
}

# A sanitizer's allocator takes locks that a child forked among busy threads finds locked, its
# memory grows, its own calls would be failed by life_faults, it stops sleepers by ptrace, and its search
# for leaks needs /proc.
NOT_SANITIZED='among_busy_threads|a_child_of_a_storm|sleepers_alone|under_contention|^life_faults|take_no_memory|without_taking_memory|leave_no_memory|no_memory_left|leave_nothing|exit_at_any_point|exit_with_sleepers|for_want_of_proc'

# ThreadSanitizer keeps books of descriptors, too: a check that closes a number while another
# thread uses it is a race to it. Plain programs show the rest: its own handler stands for the
# program's, with every signal blocked, keeping errno, and later, where no jump out of it may
# come; signal(n, SIG_ERR) succeeds; a thread of its own runs beside the first; an instrumented
# handler that it knows nothing of, as ours is, crashes in a thread that has only just begun. And
# the locks of this build allocate, also in a forked child, where some thread of a storm's may
# have had the allocator locked.
NOT_THREADED="$NOT_SANITIZED|an_outer_that_closes_while_its_inner_adds_it|gets_its_siginfo_context_and_mask|finds_errno_and_leaves|SIG_ERR_is_no_action|nodefer_and_onstack|a_storm_of_signals|with_one_thread_it_never_merges|runs_each_time_though_threads|another_signal_that_blocks_it|seventeen_thousand_edges|^life_jumps"

# The library and the checks under a sanitizer: $1 part, $2 its name and more for rustc,
# $3 the same for gcc, $4 what stands before each program, $5 the checks to leave out.
sanitized() {
	local part=$1 rust=$2 gcc=$3 environment=$4 dir=$OUT/$1
	# std stays as it is, for want of its sources; our own code is instrumented.
	RUSTC_BOOTSTRAP=1 \
	RUSTFLAGS="-Zsanitizer=$rust -Clinker=$root/soak/linker -Cforce-frame-pointers=yes" \
	CARGO_PROFILE_RELEASE_LTO=off CARGO_TARGET_DIR=$dir/target \
		cargo rustc -q --release --target "$TARGET" --lib --crate-type cdylib,staticlib ||
		return 1
	build_checks "$OUT/plain" "$BUILD" '' || return 1
	build_checks "$dir" "$dir/target/$TARGET/release" "-fsanitize=$gcc" || return 1
	each_check "$dir" "$environment" | real_stack | grep -Ev "$5" | run_lines "$part"
}

part_asan() {
	sanitized asan address address \
		'ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1' "$NOT_SANITIZED"
}

# Checks fork with threads about, and the runtime needs its usual address layout. It takes
# the place of sigaction() itself and would call ours, for libc's, before it is up.
part_tsan() {
	local fixed=
	setarch -R true 2>/dev/null && fixed='setarch -R'
	NO_FRONT=1 sanitized tsan 'thread -Cunsafe-allow-abi-mismatch=sanitizer' 'thread soak/tsan_names.c' \
		"TSAN_OPTIONS=die_after_fork=0:halt_on_error=0:atexit_sleep_ms=50:suppressions=$root/soak/tsan.supp $fixed" "$NOT_THREADED"
}

part_ports() {
	local script status=0
	for script in soak/ports/*.sh; do
		# Not executable: read by the others.
		[ -x "$script" ] || continue
		echo "soak ports: $script"
		if BUILD=$BUILD "$script"; then
			echo "soak ports: $script passed"
		else
			echo "soak ports: $script FAILED"
			status=1
		fi
	done
	return $status
}

[ -e "$BUILD/libkqueue.so" ] || { echo "no library in $BUILD: run make first" >&2; exit 1; }
mkdir -p "$OUT"
[ $# -gt 0 ] || set -- repeat faults valgrind asan tsan ports
for part in "$@"; do
	"part_$part" || bad="$bad $part"
done
if [ -n "$bad" ]; then
	echo "soak: FAILED in$bad"
	exit 1
fi
echo "soak: passed"
