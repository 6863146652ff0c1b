//! The Linux calls of the hand-written side, and the clocks, as safe functions.
//!
//! A call that fails ends the run: nothing here is expected to fail once the limits
//! are known to suffice, and a workload that goes on after a failure measures nothing.

use libc::{c_int, c_void, epoll_event, itimerspec, pollfd, timespec};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{ptr, thread};

/// The return of a call that must not fail.
#[inline]
fn must(ret: c_int, what: &str) -> c_int {
    assert!(ret >= 0, "{what}: {}", io::Error::last_os_error());
    ret
}

/// `must` for the calls that count bytes.
#[inline]
fn must_len(ret: isize, what: &str) -> usize {
    usize::try_from(ret).unwrap_or_else(|_| panic!("{what}: {}", io::Error::last_os_error()))
}

fn owned(fd: c_int, what: &str) -> OwnedFd {
    let fd = must(fd, what);
    // SAFETY: `fd` was returned by a creating call just now; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Owns both descriptors that pipe2 or socketpair wrote.
fn owned_pair(fds: [c_int; 2], what: &str) -> (OwnedFd, OwnedFd) {
    (owned(fds[0], what), owned(fds[1], what))
}

/// A non-blocking pipe: read end, write end.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [-1; 2];
    // SAFETY: `fds` holds two ints, as pipe2 writes.
    must(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) }, "pipe2");
    owned_pair(fds, "pipe2")
}

/// A connected, non-blocking pair of AF_UNIX stream sockets.
pub(crate) fn socketpair() -> (OwnedFd, OwnedFd) {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: `fds` holds two ints, as socketpair writes.
    must(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }, "socketpair");
    owned_pair(fds, "socketpair")
}

/// A connected pair of which the first end has no room to write any more.
pub(crate) fn full_socketpair() -> (OwnedFd, OwnedFd) {
    let pair = socketpair();
    let least: c_int = 0;
    let (to, size) = ((&raw const least).cast::<c_void>(), size_of::<c_int>() as libc::socklen_t);
    // SAFETY: `least` is an int, as SO_SNDBUF takes.
    must(unsafe { libc::setsockopt(raw(&pair.0), libc::SOL_SOCKET, libc::SO_SNDBUF, to, size) }, "SO_SNDBUF");
    let bytes = [0u8; 1024];
    // SAFETY: pointer and length are those of an array.
    while unsafe { libc::write(raw(&pair.0), bytes.as_ptr().cast::<c_void>(), bytes.len()) } > 0 {}
    pair
}

/// The same file under the lowest free number from `least` up.
pub(crate) fn moved_up(fd: OwnedFd, least: RawFd) -> OwnedFd {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::fcntl(raw(&fd), libc::F_DUPFD_CLOEXEC, least) }, "F_DUPFD_CLOEXEC")
}

/// A UDP socket that nobody sends to.
pub(crate) fn idle_socket() -> OwnedFd {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers.
    owned(unsafe { libc::socket(libc::AF_INET, kind, 0) }, "socket")
}

/// A non-blocking eventfd at 0.
pub(crate) fn eventfd() -> OwnedFd {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }, "eventfd")
}

/// A disarmed timerfd on CLOCK_MONOTONIC.
pub(crate) fn timerfd() -> OwnedFd {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: takes no pointers.
    owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) }, "timerfd_create")
}

/// A child that does `work` and exits with what it returns; with 101 if it panics.
#[inline]
pub(crate) fn fork_doing(work: impl FnOnce() -> c_int) -> libc::pid_t {
    // SAFETY: the child has this thread only and leaves by _exit. A caller with other
    // threads gives it work that calls nothing.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let status = panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(101);
        // SAFETY: never returns.
        unsafe { libc::_exit(status) };
    }
    must(pid, "fork")
}

/// Starts a thread that does nothing, with every signal blocked.
pub(crate) fn idle_thread() {
    let mut every = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set in.
    must(unsafe { libc::sigfillset(every.as_mut_ptr()) }, "sigfillset");
    // SAFETY: the first set is filled in, the second is by the call.
    must(unsafe { libc::sigprocmask(libc::SIG_SETMASK, every.as_ptr(), before.as_mut_ptr()) }, "sigprocmask");
    // It starts with its starter's mask.
    thread::spawn(|| {
        loop {
            thread::park();
        }
    });
    // SAFETY: filled in above.
    must(unsafe { libc::sigprocmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) }, "sigprocmask");
}

/// Reaps a child; wait(2)'s status.
#[inline]
pub(crate) fn reap(pid: libc::pid_t) -> c_int {
    let mut status = -1;
    // SAFETY: writes one int.
    must(unsafe { libc::waitpid(pid, &raw mut status, 0) }, "waitpid");
    status
}

/// A descriptor of a process.
#[inline]
pub(crate) fn pidfd(pid: libc::pid_t) -> OwnedFd {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as c_int, "pidfd_open")
}

/// What the child behind a pidfd exited with. It is not reaped.
#[inline]
pub(crate) fn exit_status(pidfd: RawFd) -> c_int {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
    // SAFETY: `info` has room for the answer.
    must(unsafe { libc::waitid(libc::P_PIDFD, pidfd.unsigned_abs(), info.as_mut_ptr(), options) }, "waitid");
    // SAFETY: zeroed, and filled in by the call.
    let info = unsafe { info.assume_init() };
    // SAFETY: of a child that ended.
    unsafe { info.si_status() }
}

/// Blocks `signal` in this thread and those it starts; a signalfd for it.
pub(crate) fn signalfd(signal: c_int) -> OwnedFd {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills `set` in.
    must(unsafe { libc::sigemptyset(set.as_mut_ptr()) }, "sigemptyset");
    // SAFETY: filled in above.
    let mut set = unsafe { set.assume_init() };
    // SAFETY: `set` is valid.
    must(unsafe { libc::sigaddset(&mut set, signal) }, "sigaddset");
    // SAFETY: `set` outlives the call; a null old set is allowed.
    must(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()) }, "sigprocmask");
    // SAFETY: `set` outlives the call.
    owned(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }, "signalfd")
}

/// The number of a signal that a signalfd tells of.
#[inline]
pub(crate) fn signalled(fd: RawFd) -> c_int {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    assert!(read(fd, &mut info) == info.len(), "read was cut short");
    // The number stands first.
    info[..4].try_into().map_or(-1, c_int::from_ne_bytes)
}

/// Ignores `signal`.
pub(crate) fn ignore(signal: c_int) {
    // SAFETY: no handler is installed.
    assert!(unsafe { libc::signal(signal, libc::SIG_IGN) } != libc::SIG_ERR, "signal: {}", io::Error::last_os_error());
}

/// Sends `signal` to this process.
#[inline]
pub(crate) fn kill_self(signal: c_int) {
    // SAFETY: takes no arguments.
    let this = unsafe { libc::getpid() };
    // SAFETY: takes no pointers.
    must(unsafe { libc::kill(this, signal) }, "kill");
}

/// Nanoseconds as a `timespec`.
pub(crate) fn timespec_of(ns: u64) -> timespec {
    timespec { tv_sec: (ns / 1_000_000_000) as libc::time_t, tv_nsec: (ns % 1_000_000_000) as libc::c_long }
}

/// Arms a timerfd for `at` nanoseconds of CLOCK_MONOTONIC, once; 0 disarms.
#[inline]
pub(crate) fn timerfd_set(fd: RawFd, at: u64) {
    let spec = itimerspec { it_interval: timespec_of(0), it_value: timespec_of(at) };
    // SAFETY: `spec` outlives the call; a null old value is allowed.
    let ret = unsafe { libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &spec, ptr::null_mut()) };
    must(ret, "timerfd_settime");
}

/// A new epoll.
pub(crate) fn epoll() -> OwnedFd {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "epoll_create1")
}

/// `epoll_ctl` with the event mask `events` and the data `token`.
#[inline]
pub(crate) fn epoll_ctl(ep: RawFd, op: c_int, fd: RawFd, events: c_int, token: u64) {
    let mut event = epoll_event { events: events as u32, u64: token };
    // SAFETY: `event` outlives the call.
    must(unsafe { libc::epoll_ctl(ep, op, fd, &mut event) }, "epoll_ctl");
}

/// `epoll_wait`; `timeout` in milliseconds, -1 for ever.
#[inline]
pub(crate) fn epoll_wait(ep: RawFd, out: &mut [epoll_event], timeout: c_int) -> usize {
    let room = c_int::try_from(out.len()).unwrap_or(c_int::MAX);
    // SAFETY: `out` has room for `room` events.
    must(unsafe { libc::epoll_wait(ep, out.as_mut_ptr(), room, timeout) }, "epoll_wait") as usize
}

/// Writes all of `bytes`, which the object has room for.
#[inline]
pub(crate) fn write(fd: RawFd, bytes: &[u8]) {
    // SAFETY: pointer and length are those of a slice.
    let n = unsafe { libc::write(fd, bytes.as_ptr().cast::<c_void>(), bytes.len()) };
    assert!(must_len(n, "write") == bytes.len(), "write was cut short");
}

/// Reads once, into `buf`; the number of bytes.
#[inline]
pub(crate) fn read(fd: RawFd, buf: &mut [u8]) -> usize {
    // SAFETY: pointer and length are those of a slice.
    let n = unsafe { libc::read(fd, buf.as_mut_ptr().cast::<c_void>(), buf.len()) };
    must_len(n, "read")
}

/// A file that has no name, for appending.
pub(crate) fn unnamed_file() -> io::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).custom_flags(libc::O_TMPFILE).open(std::env::temp_dir())
}

/// An inotify instance that does not block.
pub(crate) fn inotify() -> OwnedFd {
    // SAFETY: plain flags.
    owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }, "inotify_init1")
}

/// Watches the file behind `fd` for writes; the watch's number.
pub(crate) fn inotify_watch(ino: RawFd, fd: RawFd) -> usize {
    let path = CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    // SAFETY: the path is a C string.
    must(unsafe { libc::inotify_add_watch(ino, path.as_ptr(), libc::IN_MODIFY) }, "inotify_add_watch") as usize
}

/// Reads all that is queued and looks at each file. The number of those that have grown
/// beyond the size beside them, which is replaced.
#[inline]
pub(crate) fn inotify_events(ino: RawFd, buf: &mut [u8], by_watch: &mut [(RawFd, i64)]) -> usize {
    let head = size_of::<libc::inotify_event>();
    let mut grown = 0;
    let got = read(ino, buf);
    // No names: these watches are not on directories.
    for event in buf[..got].chunks_exact(head) {
        let watch = event[..4].try_into().map_or(0, u32::from_ne_bytes);
        let (fd, size) = &mut by_watch[watch as usize];
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `stat` has room for the answer.
        must(unsafe { libc::fstat(*fd, stat.as_mut_ptr()) }, "fstat");
        // SAFETY: filled in by the call.
        let now = unsafe { stat.assume_init_ref() }.st_size;
        grown += usize::from(now > *size);
        *size = now;
    }
    grown
}

/// Bytes that can be read now.
#[inline]
pub(crate) fn fionread(fd: RawFd) -> c_int {
    let mut n: c_int = 0;
    // SAFETY: FIONREAD writes one int.
    must(unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut n) }, "FIONREAD");
    n
}

/// Bytes of a socket that are sent and not yet taken.
#[inline]
pub(crate) fn outq(fd: RawFd) -> c_int {
    let mut n: c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int.
    must(unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut n) }, "SIOCOUTQ");
    n
}

/// Whether `fd` polls readable within `timeout` milliseconds.
#[inline]
pub(crate) fn readable(fd: RawFd, timeout: c_int) -> bool {
    let mut set = pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, and the count says so.
    must(unsafe { libc::poll(&mut set, 1, timeout) }, "poll") == 1
}

/// Closes by number: a workload's own use of `close`.
#[inline]
pub(crate) fn close(fd: OwnedFd) {
    drop(fd);
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut ts = timespec_of(0);
    // SAFETY: `ts` is written.
    must(unsafe { libc::clock_gettime(id, &mut ts) }, "clock_gettime");
    (ts.tv_sec as u64) * 1_000_000_000 + ts.tv_nsec as u64
}

/// CLOCK_MONOTONIC in nanoseconds.
#[inline]
pub(crate) fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// CPU time of all threads of the process, in nanoseconds, but for what [`stand_by_until`] took.
pub(crate) fn cpu() -> u64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID) - STOOD_BY.load(Ordering::Relaxed)
}

static STOOD_BY: AtomicU64 = AtomicU64::new(0);

/// Waits until `at` nanoseconds of CLOCK_MONOTONIC without a sleep, from which a core comes back
/// with cold caches: how cold is chance.
pub(crate) fn stand_by_until(at: u64) {
    let own = || clock(libc::CLOCK_THREAD_CPUTIME_ID);
    let before = own();
    while now() < at {
        thread::yield_now();
    }
    STOOD_BY.fetch_add(own() - before, Ordering::Relaxed);
}

/// Sleeps until `at` nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn sleep_until(at: u64) {
    let ts = timespec_of(at);
    let mono = libc::CLOCK_MONOTONIC;
    // SAFETY: `ts` outlives the call; no rest is asked for.
    while unsafe { libc::clock_nanosleep(mono, libc::TIMER_ABSTIME, &ts, ptr::null_mut()) } != 0 {}
}

/// The cores this process may use.
pub(crate) fn cores() -> Vec<usize> {
    // SAFETY: a cpu_set_t is an array of integers; zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the size is that of `set`.
    let ret = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    must(ret, "sched_getaffinity");
    // SAFETY: every index is below CPU_SETSIZE.
    let has = |core: usize| unsafe { libc::CPU_ISSET(core, &set) };
    (0..libc::CPU_SETSIZE as usize).filter(|&core| has(core)).collect()
}

/// Binds this thread and those it starts to `cores`.
pub(crate) fn bind(cores: &[usize]) {
    // SAFETY: as in `cores`.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    for &core in cores {
        // SAFETY: `core` came from `cores()`, so it is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: the size is that of `set`.
    must(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) }, "sched_setaffinity");
}

/// Raises RLIMIT_NOFILE as far as it goes, up to `want`; what is allowed now.
pub(crate) fn raise_nofile(want: u64) -> u64 {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `now` is written.
    must(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut now) }, "getrlimit");
    let tries = [now.rlim_max.max(want), now.rlim_max];
    for max in tries {
        let limit = libc::rlimit { rlim_cur: max.min(want).max(now.rlim_cur), rlim_max: max };
        // SAFETY: `limit` outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0 {
            return limit.rlim_cur;
        }
    }
    now.rlim_cur
}

/// Ends the process with SIGALRM's default action if the next `seconds` bring no call of
/// it; 0 for never.
pub(crate) fn watchdog(seconds: u32) {
    // SAFETY: takes no pointers.
    unsafe { libc::alarm(seconds) };
}

/// The raw number of an owned descriptor, short.
pub(crate) fn raw(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}
