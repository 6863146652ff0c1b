//! The register of the library's own descriptors: which numbers are whose.
//!
//! Two things need it. A forked child shares the open files behind our descriptors with
//! its parent and closes them all: its atfork handler walks the register without a lock, so
//! the lines are plain atomics, by number, in chunks that are never freed. And a program
//! may close numbers that are not its own (closefrom(3)) and give them to files of its own,
//! which must not be closed or written then: so every descriptor of ours carries a mark in
//! its open file, the signal of F_SETSIG, and every line names the owner, for a number can
//! become ours again through another one.

#![allow(unsafe_code)]

use super::sync::{Guard, Mutex};
use super::{fd, file, fork, number, process, raw, signal, thread};
use crate::errno::{Errno, Result};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use once_cell::race::OnceBox;
use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// fcntl(2); libc has no names for them.
const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;

/// The register's part of the page that forks write.
pub(super) struct Head {
    /// Counts forks this process is the child of: descriptors made before the last one
    /// are closed already, and their numbers may be the program's by now.
    generation: AtomicU32,
    /// Owners so far.
    owners: AtomicU64,
    /// Held while a descriptor exists that the register does not know yet, and while the
    /// program's numbers are asked about, one of which may be such a one. The atfork
    /// handler takes it, so that no child inherits any.
    creating: ForkLock,
    /// Held while one exists that the register does not know any more.
    closing: ForkLock,
    /// Chunks up to the last that had a line in use.
    chunks: AtomicUsize,
    /// The chunk of the numbers that descriptors of ours get first.
    home: Lines,
}

impl Head {
    pub(super) const fn new() -> Head {
        Head {
            generation: AtomicU32::new(0),
            owners: AtomicU64::new(0),
            creating: ForkLock::new(),
            closing: ForkLock::new(),
            chunks: AtomicUsize::new(0),
            home: vacant(),
        }
    }
}

static HEAD: &Head = &fork::PAGE.register;

/// The number of the present generation; differs from an older value after a fork.
pub(crate) fn generation() -> u32 {
    HEAD.generation.load(Ordering::Relaxed)
}

/// A lock that forks wait for, unless it is their own thread that holds it: a handler may fork.
struct ForkLock {
    lock: Mutex<()>,
    /// The thread that holds it, by [`thread::address`], or 0.
    holder: AtomicUsize,
}

/// A [`ForkLock`] that is held.
pub(crate) struct ForkGuard {
    holder: &'static AtomicUsize,
    _guard: Guard<'static, ()>,
}

impl ForkLock {
    const fn new() -> ForkLock {
        ForkLock { lock: Mutex::new(()), holder: AtomicUsize::new(0) }
    }

    fn lock(&'static self) -> ForkGuard {
        self.held(self.lock.lock())
    }

    fn held(&'static self, guard: Guard<'static, ()>) -> ForkGuard {
        self.holder.store(thread::address(), Ordering::Relaxed);
        ForkGuard { holder: &self.holder, _guard: guard }
    }

    /// For a fork: `None` if a handler forks that interrupted this thread while it held the lock,
    /// or was about to hold it or had just done so, which only the time it takes tells. What was
    /// half made stays open in the child then until that is done with it, or execs.
    fn lock_for_fork(&'static self) -> Option<ForkGuard> {
        const PATIENCE: Duration = Duration::from_millis(50);
        /// Between two looks at the clock.
        const YIELDS: usize = 100;
        let mut since = None;
        while !self.is_own() && since.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
            if let Some(guard) = self.lock.lock_within(YIELDS) {
                return Some(self.held(guard));
            }
        }
        None
    }

    fn is_own(&self) -> bool {
        self.holder.load(Ordering::Relaxed) == thread::address()
    }

    /// In the child: lets go of it on behalf of a thread that is not there.
    fn give_up_in_child(&self) {
        if !self.is_own() {
            self.holder.store(0, Ordering::Relaxed);
            self.lock.reset();
        }
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        self.holder.store(0, Ordering::Relaxed);
    }
}

/// The locks a child must find free, in the order they are taken.
pub(super) type ForkGuards = [Option<ForkGuard>; 2];

/// Takes them, before a fork.
pub(super) fn lock_for_fork() -> ForkGuards {
    [HEAD.creating.lock_for_fork(), HEAD.closing.lock_for_fork()]
}

/// Makes those free in the child that could not be had.
pub(super) fn give_up_in_child([creating, closing]: &ForkGuards) {
    for (lock, guard) in [(&HEAD.creating, creating), (&HEAD.closing, closing)] {
        if guard.is_none() {
            lock.give_up_in_child();
        }
    }
}

/// Keeps forks out while descriptors are made and noted.
pub(crate) fn creating() -> ForkGuard {
    HEAD.creating.lock()
}

/// The signal that marks our descriptors, and that the held ends of kqueues send.
pub(crate) fn own_signal() -> libc::c_int {
    static SIGNAL: OnceLock<libc::c_int> = OnceLock::new();
    *SIGNAL.get_or_init(signal::spare_realtime)
}

/// Sends it to a thread of this process, which takes it by a signalfd.
pub(crate) fn signal_to(thread: libc::pid_t) {
    let _ = process::send_to_thread(process::pid(), thread, own_signal());
}

/// Marks a descriptor as ours. ENOMEM.
pub(super) fn mark(fd: RawFd) -> Result<()> {
    // SAFETY: takes an int.
    number(unsafe { libc::fcntl(fd, F_SETSIG, own_signal()) }).map(|_| ())
}

/// Whether a descriptor bears the mark.
fn is_marked(fd: RawFd) -> bool {
    // SAFETY: takes nothing.
    let signal = unsafe { libc::fcntl(fd, F_GETSIG) };
    signal == own_signal()
}

/// One number's line: its owner, 0 for nobody; and the pipe it must still name for the
/// child to close it (0: it must bear the mark).
struct Line {
    owner: AtomicU64,
    pipe_id: AtomicU64,
}

type Lines = [Line; CHUNK];

const fn vacant() -> Lines {
    [const { Line { owner: AtomicU64::new(0), pipe_id: AtomicU64::new(0) } }; CHUNK]
}

/// Where the library's own descriptors start, if the process' limit lets them.
pub(super) const FLOOR: RawFd = 256;

const CHUNK: usize = 128;
const CHUNKS: usize = 8192;
const HOME: usize = FLOOR.unsigned_abs() as usize / CHUNK;

static REGISTER: [OnceBox<Lines>; CHUNKS] = [const { OnceBox::new() }; CHUNKS];

/// The lines of a chunk, if it has any.
fn chunk(index: usize) -> Option<&'static Lines> {
    if index == HOME { Some(&HEAD.home) } else { REGISTER.get(index)?.get() }
}

fn line(fd: RawFd) -> Option<&'static Line> {
    let index = usize::try_from(fd).ok()?;
    let lines = match chunk(index / CHUNK) {
        Some(lines) => lines,
        None => REGISTER.get(index / CHUNK)?.get_or_init(|| Box::new(vacant())),
    };
    lines.get(index % CHUNK)
}

/// The bits of an owner's count. Above them stands its generation, so that a child forgets
/// all lines at once, without a write to any.
const COUNT_BITS: u32 = 48;

fn stamp() -> u64 {
    u64::from(generation()) << COUNT_BITS
}

/// An owner's hold on a number.
pub(super) struct Note {
    fd: RawFd,
    owner: u64,
}

impl Note {
    /// Notes `fd`, whoever had the number before. ENFILE for numbers beyond a million.
    pub(super) fn new(fd: RawFd, pipe_id: u64) -> Result<Note> {
        let line = line(fd).ok_or(Errno::ENFILE)?;
        let owner = stamp() | (HEAD.owners.fetch_add(1, Ordering::Relaxed) + 1);
        HEAD.chunks.fetch_max(fd.unsigned_abs() as usize / CHUNK + 1, Ordering::Relaxed);
        line.pipe_id.store(pipe_id, Ordering::Relaxed);
        line.owner.store(owner, Ordering::Release);
        Ok(Note { fd, owner })
    }

    /// Whether the number still is this owner's descriptor.
    pub(super) fn holds(&self) -> bool {
        line(self.fd).is_some_and(|line| line.owner.load(Ordering::Acquire) == self.owner) && is_marked(self.fd)
    }

    /// Takes the note back, and closes the descriptor if it is still the owner's. Forks
    /// are kept out meanwhile, so that no child inherits what nothing knows of.
    pub(super) fn strike(&self, close: bool) {
        let _closing = HEAD.closing.lock();
        let Some(line) = line(self.fd) else { return };
        let owned = line.owner.compare_exchange(self.owner, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if close && owned && is_marked(self.fd) {
            raw::close(self.fd);
        }
    }
}

/// In a forked child: closes every descriptor in the register and forgets them.
///
/// Async-signal-safe: atomics, fcntl, fstat, close and close_range only. errno is the caller's to keep.
pub(super) fn close_all_in_child() {
    let parents = stamp();
    HEAD.generation.fetch_add(1, Ordering::Relaxed);
    let mut run = 0..0;
    let mut kqueues = false;
    for (fd, pipe_id) in noted(parents) {
        kqueues |= pipe_id != 0;
        if !if pipe_id == 0 { is_marked(fd) } else { file::pipe_id(fd) == Ok(pipe_id) } {
            continue;
        }
        // Neighbours go in one call.
        if run.end != fd {
            raw::close_range(run);
            run = fd..fd;
        }
        run.end = fd + 1;
    }
    raw::close_range(run);
    if kqueues {
        close_copies(parents);
    }
}

/// The numbers noted under a generation's stamp, with their inodes.
fn noted(stamp: u64) -> impl Iterator<Item = (RawFd, u64)> {
    let lines =
        |index| chunk(index).into_iter().flatten().enumerate().map(move |(at, line)| (index * CHUNK + at, line));
    let chunks = 0..HEAD.chunks.load(Ordering::Relaxed);
    chunks.flat_map(lines).filter_map(move |(number, line)| {
        let owner = line.owner.load(Ordering::Acquire);
        let noted = owner != 0 && owner >> COUNT_BITS == stamp >> COUNT_BITS;
        let fd = RawFd::try_from(number).ok().filter(|_| noted)?;
        Some((fd, line.pipe_id.load(Ordering::Relaxed)))
    })
}

/// So many closed numbers in a row end the search for copies.
const GAP: usize = 8;

/// Closes copies of kqueues' descriptors that the library has not met: they would keep the
/// parent's kqueue from ending. dup(2) gives the lowest free number, so they are looked for
/// among the low ones that are in use, which costs a call for each.
fn close_copies(parents: u64) {
    let mut closed = 0;
    for fd in 0.. {
        match fd::status_flags(fd) {
            Err(_) => closed += 1,
            Ok(flags) => {
                closed = 0;
                // The kind of file is asked of few: one of a file system may take its time to answer.
                let may_be = flags & (libc::O_ACCMODE | libc::O_NONBLOCK | libc::O_PATH) == libc::O_NONBLOCK;
                let is = |pipe_id| noted(parents).any(|(_, noted)| noted == pipe_id);
                if may_be && file::pipe_id(fd).is_ok_and(is) {
                    raw::close(fd);
                }
            }
        }
        if closed == GAP {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_fork_waits_for_another_threads_lock_but_not_for_ever_and_the_child_finds_it_free() {
        static LOCK: ForkLock = ForkLock::new();
        let ((locked, is_locked), (done, is_done)) = (channel(), channel());
        let other = std::thread::spawn(move || {
            let _guard = LOCK.lock();
            locked.send(()).expect("somebody listens");
            is_done.recv().expect("somebody speaks");
        });
        is_locked.recv().expect("somebody speaks");
        assert!(LOCK.lock_for_fork().is_none());
        LOCK.give_up_in_child();
        drop(LOCK.lock());
        done.send(()).expect("somebody listens");
        other.join().expect("it does not panic");
    }

    #[test]
    fn a_fork_does_not_wait_for_its_own_thread_which_lets_go_in_the_child() {
        static LOCK: ForkLock = ForkLock::new();
        let guard = LOCK.lock();
        assert!(LOCK.lock_for_fork().is_none());
        LOCK.give_up_in_child();
        assert!(LOCK.lock.lock_within(1).is_none());
        drop(guard);
        assert!(LOCK.lock.lock_within(1).is_some());
    }
}
