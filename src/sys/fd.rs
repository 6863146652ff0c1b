//! `Fd`: a descriptor that belongs to the library.
//!
//! A program must never meet our descriptors by accident: none is ever 0, 1 or 2, they
//! are moved above the numbers programs use, they are close-on-exec, and they are noted in
//! the [`register`](super::register).

#![allow(unsafe_code)]

use super::register::{self, FLOOR, Note};
pub(crate) use super::register::{creating, generation};
use super::{ask_twice, number, raw};
use crate::errno::Result;
use core::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};

/// A descriptor that the kernel has just made for us, and that nothing knows of yet. Dropped
/// it is closed, by no cancellation point of libc's.
pub(crate) struct Fresh(RawFd);

impl Fresh {
    pub(super) fn new(fd: RawFd) -> Fresh {
        Fresh(fd)
    }

    /// The number, which stays open.
    pub(super) fn keep(self) -> RawFd {
        ManuallyDrop::new(self).0
    }
}

impl AsRawFd for Fresh {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        raw::close(self.0);
    }
}

/// A descriptor of the library's own.
pub(crate) struct Fd {
    fd: RawFd,
    note: Note,
    generation: u32,
}

impl Fd {
    /// Takes a fresh descriptor over: moves it up, marks and notes it. The caller holds
    /// [`creating`].
    pub(super) fn new(fd: Fresh) -> Result<Fd> {
        let fd = move_up(fd)?;
        register::mark(fd.as_raw_fd())?;
        let note = Note::new(fd.as_raw_fd(), 0)?;
        Ok(Fd { fd: fd.keep(), note, generation: generation() })
    }

    /// Whether the number still is this descriptor: the program may have closed it.
    pub(crate) fn is_intact(&self) -> bool {
        self.generation == generation() && self.note.holds()
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        if self.generation == generation() {
            self.note.strike(true);
        }
    }
}

/// Notes the program's end of a kqueue, which a child closes only while it still is
/// this pipe: the program may have closed it and reused the number.
pub(crate) struct UserEnd {
    note: Note,
    generation: u32,
}

impl UserEnd {
    pub(crate) fn new(fd: RawFd, pipe_id: u64) -> Result<UserEnd> {
        Ok(UserEnd { note: Note::new(fd, pipe_id)?, generation: generation() })
    }
}

impl Drop for UserEnd {
    fn drop(&mut self) {
        if self.generation == generation() {
            self.note.strike(false);
        }
    }
}

/// Moves a descriptor to [`FLOOR`] or above, or at least out of 0, 1 and 2.
fn move_up(fd: Fresh) -> Result<Fresh> {
    if fd.as_raw_fd() >= FLOOR {
        return Ok(fd);
    }
    match dup_above(&fd, FLOOR) {
        // The limit is lower, or all above is taken.
        Err(_) if fd.as_raw_fd() > 2 => Ok(fd),
        Err(_) => dup_above(&fd, 3),
        moved => moved,
    }
}

fn dup_above(fd: &Fresh, floor: RawFd) -> Result<Fresh> {
    // SAFETY: F_DUPFD_CLOEXEC takes an int and touches no memory.
    let moved = number(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, floor) })?;
    Ok(Fresh::new(moved))
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
    let polled = ask_twice(|| raw::poll(core::slice::from_mut(&mut one)));
    if polled.is_ok() { one.revents } else { 0 }
}

/// Which of `fds` are closed or report POLLERR now, as indices.
pub(crate) fn hung_up(fds: &[RawFd]) -> Vec<usize> {
    let mut found = Vec::new();
    for (start, chunk) in fds.chunks(64).enumerate() {
        let mut set: Vec<libc::pollfd> = chunk.iter().map(|&fd| libc::pollfd { fd, events: 0, revents: 0 }).collect();
        if raw::poll(&mut set).is_err() {
            // More at once than RLIMIT_NOFILE allows by now.
            set.iter_mut().for_each(|one| one.revents = poll_now(one.fd, 0));
        }
        let up = set.iter().enumerate().filter(|(_, one)| one.revents & (libc::POLLERR | libc::POLLNVAL) != 0);
        found.extend(up.map(|(index, _)| start * 64 + index));
    }
    found
}
