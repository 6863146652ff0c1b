//! `Fd`: a descriptor that belongs to the library, and the register of them all.
//!
//! A program must never meet our descriptors by accident: none is ever 0, 1 or 2, they
//! are moved above the numbers programs use, they are close-on-exec, and a forked
//! child closes them, because it shares the open files behind them with its parent.
//! For the last point every number is noted in a register that an atfork handler can
//! walk without a lock: plain atomics in chunks that are never freed.

#![allow(unsafe_code)]

use super::{ask_twice, number, retry, zero};
use crate::errno::{Errno, Result};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use once_cell::race::OnceBox;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the library's own descriptors start, if the process' limit lets them.
const FLOOR: RawFd = 256;

/// Counts forks this process is the child of: descriptors made before the last one
/// are closed already, and their numbers may be the program's by now.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The number of the present generation; differs from an older value after a fork.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Held while a descriptor exists that the register does not know yet. The atfork
/// handler takes it, so that no child inherits such a one. std's lock, since its whole
/// state is one word that the child can release.
static CREATING: Mutex<()> = Mutex::new(());

/// The locks a child must find free, in the order they are taken.
pub(super) type ForkGuards = (MutexGuard<'static, ()>, MutexGuard<'static, FreeLines>);

/// Takes them, before a fork.
pub(super) fn lock_for_fork() -> ForkGuards {
    (creating(), FREE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Keeps forks out while descriptors are made and noted.
pub(crate) fn creating() -> MutexGuard<'static, ()> {
    CREATING.lock().unwrap_or_else(PoisonError::into_inner)
}

const CHUNK: usize = 256;
const CHUNKS: usize = 4096;

/// One line of the register: a number, or -1; and the inode it must still name for the
/// child to close it (0: close it whatever it is).
struct Line {
    fd: AtomicI32,
    inode: AtomicU64,
}

static REGISTER: [OnceBox<[Line; CHUNK]>; CHUNKS] = [const { OnceBox::new() }; CHUNKS];
static FREE: Mutex<FreeLines> = Mutex::new(FreeLines { free: Vec::new(), used: 0 });

/// The unused lines of the register.
pub(super) struct FreeLines {
    free: Vec<usize>,
    used: usize,
}

fn line(index: usize) -> Option<&'static Line> {
    let chunk = REGISTER
        .get(index / CHUNK)?
        .get_or_init(|| Box::new([const { Line { fd: AtomicI32::new(-1), inode: AtomicU64::new(0) } }; CHUNK]));
    chunk.get(index % CHUNK)
}

/// A note in the register.
struct Note(usize);

impl Note {
    /// Notes `fd`; ENFILE once the register is full (a million descriptors).
    fn new(fd: RawFd, inode: u64) -> Result<Note> {
        let mut lines = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let index = lines.free.pop().unwrap_or(lines.used);
        let line = line(index).ok_or(Errno::ENFILE)?;
        lines.used = lines.used.max(index + 1);
        line.inode.store(inode, Ordering::Relaxed);
        line.fd.store(fd, Ordering::Release);
        Ok(Note(index))
    }
}

impl Note {
    /// Takes the note back and runs `close` with forks kept out, so that no child inherits
    /// a descriptor that nothing knows of.
    fn strike(&self, close: impl FnOnce()) {
        let mut lines = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = line(self.0) {
            line.fd.store(-1, Ordering::Release);
        }
        close();
        lines.free.push(self.0);
    }
}

/// A descriptor of the library's own.
pub(crate) struct Fd {
    fd: ManuallyDrop<OwnedFd>,
    note: Note,
    generation: u32,
}

impl Fd {
    /// Takes a fresh descriptor over: moves it up and notes it. The caller holds
    /// [`creating`].
    pub(crate) fn new(fd: OwnedFd) -> Result<Fd> {
        let fd = move_up(fd)?;
        let note = Note::new(fd.as_raw_fd(), 0)?;
        Ok(Fd { fd: ManuallyDrop::new(fd), note, generation: generation() })
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        if self.generation != generation() {
            return;
        }
        let fd = &mut self.fd;
        // SAFETY: dropped once, here, and not used afterwards.
        self.note.strike(|| unsafe { ManuallyDrop::drop(fd) });
    }
}

/// Notes the program's end of a kqueue, which a child closes only while it still is
/// the pipe with this inode: the program may have closed it and reused the number.
pub(crate) struct UserEnd {
    note: Note,
    generation: u32,
}

impl UserEnd {
    pub(crate) fn new(fd: RawFd, inode: u64) -> Result<UserEnd> {
        Ok(UserEnd { note: Note::new(fd, inode)?, generation: generation() })
    }
}

impl Drop for UserEnd {
    fn drop(&mut self) {
        if self.generation == generation() {
            self.note.strike(|| {});
        }
    }
}

/// Moves a descriptor to [`FLOOR`] or above, or at least out of 0, 1 and 2.
fn move_up(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() >= FLOOR {
        return Ok(fd);
    }
    match dup_above(&fd, FLOOR) {
        Ok(moved) => Ok(moved),
        // The limit is lower, or all above is taken.
        Err(_) if fd.as_raw_fd() > 2 => Ok(fd),
        Err(_) => dup_above(&fd, 3),
    }
}

fn dup_above(fd: &OwnedFd, floor: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an int and touches no memory.
    let moved = number(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, floor) })?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(moved) })
}

/// Whether `fd` is an open descriptor, by fcntl(F_GETFD).
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD touches no memory.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// `O_*` status flags and access mode of `fd`.
pub(crate) fn status_flags(fd: RawFd) -> Result<libc::c_int> {
    // SAFETY: F_GETFL touches no memory.
    number(unsafe { libc::fcntl(fd, libc::F_GETFL) })
}

/// poll(2) on one descriptor without waiting: what holds of `events` now, with
/// POLLERR, POLLHUP and POLLNVAL.
pub(crate) fn poll_now(fd: RawFd, events: i16) -> i16 {
    let mut one = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one valid pollfd; a zero timeout never sleeps.
    let polled = ask_twice(|| retry(|| number(unsafe { libc::poll(&raw mut one, 1, 0) })));
    if polled.is_ok() { one.revents } else { 0 }
}

/// Which of `fds` report POLLERR now, as indices.
pub(crate) fn hung_up(fds: &[RawFd]) -> Vec<usize> {
    let mut found = Vec::new();
    for (start, chunk) in fds.chunks(64).enumerate() {
        let mut set: Vec<libc::pollfd> = chunk.iter().map(|&fd| libc::pollfd { fd, events: 0, revents: 0 }).collect();
        let len = set.len() as libc::nfds_t;
        // SAFETY: the pointer and length describe `set`; a zero timeout never sleeps.
        if retry(|| number(unsafe { libc::poll(set.as_mut_ptr(), len, 0) })).is_err() {
            // More at once than RLIMIT_NOFILE allows by now.
            set.iter_mut().for_each(|one| one.revents = poll_now(one.fd, 0));
        }
        let up = set.iter().enumerate().filter(|(_, one)| one.revents & libc::POLLERR != 0);
        found.extend(up.map(|(index, _)| start * 64 + index));
    }
    found
}

/// In a forked child: closes every descriptor in the register and forgets them.
///
/// Async-signal-safe: atomics, fstat and close only. The lines stay marked as used, so
/// that whatever the parent's threads held half done stays out of the way; they are
/// a few bytes each.
pub(super) fn close_all_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for chunk in REGISTER.iter().map_while(OnceBox::get) {
        for line in chunk {
            let fd = line.fd.swap(-1, Ordering::Acquire);
            let inode = line.inode.load(Ordering::Relaxed);
            if fd >= 0 && (inode == 0 || super::file::inode(fd) == Ok(inode)) {
                // SAFETY: the number is the library's, or the kqueue's own pipe end.
                let _ = zero(unsafe { libc::close(fd) });
            }
        }
    }
}
