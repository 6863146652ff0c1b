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

use super::{number, raw, signal};
use crate::errno::{Errno, Result};
use crate::sync::{Guard, Mutex};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use once_cell::race::OnceBox;
use std::os::fd::RawFd;
use std::sync::OnceLock;

/// fcntl(2); libc has no names for them.
const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;

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

/// Held while one exists that the register does not know any more.
static CLOSING: Mutex<()> = Mutex::new(());

/// The locks a child must find free, in the order they are taken.
pub(super) type ForkGuards = [Guard<'static, ()>; 2];

/// Takes them, before a fork.
pub(super) fn lock_for_fork() -> ForkGuards {
    [creating(), CLOSING.lock()]
}

/// Keeps forks out while descriptors are made and noted.
pub(crate) fn creating() -> Guard<'static, ()> {
    CREATING.lock()
}

/// The signal that marks our descriptors, and that the held ends of kqueues send.
pub(crate) fn own_signal() -> libc::c_int {
    static SIGNAL: OnceLock<libc::c_int> = OnceLock::new();
    *SIGNAL.get_or_init(signal::spare_realtime)
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

/// One number's line: its owner, 0 for nobody; and the inode it must still name for the
/// child to close it (0: it must bear the mark).
struct Line {
    owner: AtomicU64,
    inode: AtomicU64,
}

const CHUNK: usize = 256;
const CHUNKS: usize = 4096;

static REGISTER: [OnceBox<[Line; CHUNK]>; CHUNKS] = [const { OnceBox::new() }; CHUNKS];

/// Owners so far.
static OWNERS: AtomicU64 = AtomicU64::new(0);

fn line(fd: RawFd) -> Option<&'static Line> {
    let index = usize::try_from(fd).ok()?;
    let fresh = || Box::new([const { Line { owner: AtomicU64::new(0), inode: AtomicU64::new(0) } }; CHUNK]);
    REGISTER.get(index / CHUNK)?.get_or_init(fresh).get(index % CHUNK)
}

/// An owner's hold on a number.
pub(super) struct Note {
    fd: RawFd,
    owner: u64,
}

impl Note {
    /// Notes `fd`, whoever had the number before. ENFILE for numbers beyond a million.
    pub(super) fn new(fd: RawFd, inode: u64) -> Result<Note> {
        let line = line(fd).ok_or(Errno::ENFILE)?;
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed) + 1;
        line.inode.store(inode, Ordering::Relaxed);
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
        let _closing = CLOSING.lock();
        let Some(line) = line(self.fd) else { return };
        let owned = line.owner.compare_exchange(self.owner, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if close && owned && is_marked(self.fd) {
            raw::close(self.fd);
        }
    }
}

/// In a forked child: closes every descriptor in the register and forgets them.
///
/// Async-signal-safe: atomics, fcntl, fstat and close only.
pub(super) fn close_all_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for (chunk, lines) in REGISTER.iter().enumerate().filter_map(|(chunk, lines)| Some((chunk, lines.get()?))) {
        for (at, line) in lines.iter().enumerate() {
            if line.owner.swap(0, Ordering::Acquire) == 0 {
                continue;
            }
            let Ok(fd) = RawFd::try_from(chunk * CHUNK + at) else { continue };
            let inode = line.inode.load(Ordering::Relaxed);
            if if inode == 0 { is_marked(fd) } else { super::file::inode(fd) == Ok(inode) } {
                raw::close(fd);
            }
        }
    }
}
