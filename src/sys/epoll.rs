//! epoll(7): the set of watched descriptors behind a kqueue.

#![allow(unsafe_code)]

use super::fd::Fd;
use super::{clock, count, number, zero};
use crate::errno::{Errno, Result};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};
use libc::c_long;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub(crate) const IN: u32 = libc::EPOLLIN as u32;
pub(crate) const OUT: u32 = libc::EPOLLOUT as u32;
pub(crate) const PRI: u32 = libc::EPOLLPRI as u32;
pub(crate) const ERR: u32 = libc::EPOLLERR as u32;
pub(crate) const HUP: u32 = libc::EPOLLHUP as u32;
pub(crate) const RDHUP: u32 = libc::EPOLLRDHUP as u32;
pub(crate) const ET: u32 = libc::EPOLLET as u32;
pub(crate) const ONESHOT: u32 = libc::EPOLLONESHOT as u32;

/// How many events one wait brings at most. 3 KiB of stack: kevent() must fit the
/// smallest thread stack; more events than this are fetched in further rounds.
pub(crate) const BATCH: usize = 256;

/// Room for the events of one wait.
pub(crate) struct Events {
    buf: [MaybeUninit<libc::epoll_event>; BATCH],
    len: usize,
}

impl Events {
    pub(crate) fn new() -> Events {
        Events { buf: [const { MaybeUninit::uninit() }; BATCH], len: 0 }
    }

    /// (token, ready mask) of each event of the last wait.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.buf.iter().take(self.len).map(|slot| {
            // SAFETY: the kernel wrote the first `len` entries.
            let event = unsafe { slot.assume_init() };
            (event.u64, event.events)
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// How long a wait may sleep.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// Look and return.
    None,
    /// Nanoseconds at least.
    Nanos(u64),
    /// Until something happens.
    Forever,
}

/// An epoll instance.
pub(crate) struct Epoll(Fd);

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Epoll {
    /// epoll_create1(2). The caller holds [`super::fd::creating`].
    pub(crate) fn new() -> Result<Epoll> {
        // SAFETY: touches no memory.
        let fd = number(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: fresh and ours.
        Ok(Epoll(Fd::new(unsafe { OwnedFd::from_raw_fd(fd) })?))
    }

    /// dup3(2): `other` takes this number over, and what it held goes once the last wait
    /// in it has returned.
    pub(crate) fn replace(&self, other: Epoll) -> Result<()> {
        // SAFETY: both numbers are ours and open.
        number(unsafe { libc::dup3(other.as_raw_fd(), self.as_raw_fd(), libc::O_CLOEXEC) }).map(|_| ())
    }

    fn ctl(&self, op: libc::c_int, fd: RawFd, events: u32, token: u64) -> Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: `event` is valid for the call; any number may stand for `fd`.
        zero(unsafe { libc::epoll_ctl(self.as_raw_fd(), op, fd, &raw mut event) })
    }

    /// EPOLL_CTL_ADD. EBADF, EPERM (not pollable), EEXIST, ELOOP, ENOMEM, ENOSPC.
    pub(crate) fn add(&self, fd: RawFd, events: u32, token: u64) -> Result<()> {
        self.ctl(libc::EPOLL_CTL_ADD, fd, events, token)
    }

    /// EPOLL_CTL_MOD. ENOENT: the number is another file's now; EBADF: closed. Looks
    /// at the descriptor anew, so that an edge already told of is told again.
    pub(crate) fn modify(&self, fd: RawFd, events: u32, token: u64) -> Result<()> {
        self.ctl(libc::EPOLL_CTL_MOD, fd, events, token)
    }

    /// EPOLL_CTL_DEL. ENOENT and EBADF as for [`Epoll::modify`].
    pub(crate) fn delete(&self, fd: RawFd) -> Result<()> {
        self.ctl(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// epoll_pwait2(2) for at most `max` events, with nanoseconds; epoll_pwait(2) with
    /// milliseconds rounded up where the kernel (before 5.11) lacks it. EINTR is handed on.
    ///
    /// Made with syscall(2), which is no cancellation point.
    pub(crate) fn wait(&self, events: &mut Events, max: usize, patience: Patience) -> Result<()> {
        events.len = 0;
        let ts = match patience {
            Patience::None => Some(clock::timespec(0)),
            Patience::Nanos(ns) => Some(clock::timespec(ns)),
            Patience::Forever => None,
        };
        if !NO_PWAIT2.load(Ordering::Relaxed) {
            let ts = ts.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
            match self.raw_wait(libc::SYS_epoll_pwait2, events, max, ts as c_long) {
                // EPERM: a sandbox older than the call.
                Err(Errno::ENOSYS | Errno::EPERM) => NO_PWAIT2.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        let ms = match patience {
            Patience::None => 0,
            Patience::Nanos(ns) => libc::c_int::try_from(ns.div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX),
            Patience::Forever => -1,
        };
        self.raw_wait(libc::SYS_epoll_pwait, events, max, c_long::from(ms))
    }

    /// Either wait; they differ in what `timeout` is. Every argument has a register's
    /// width: syscall(2) is variadic, and the kernel reads whole registers.
    fn raw_wait(&self, number: c_long, events: &mut Events, max: usize, timeout: c_long) -> Result<()> {
        let epoll = c_long::from(self.as_raw_fd());
        let max = max.clamp(1, BATCH) as c_long;
        let (no_mask, mask_size): (c_long, c_long) = (0, 8);
        // SAFETY: the buffer holds BATCH >= max entries; a timeout's address is valid for
        // the call, or null.
        let ret = unsafe { libc::syscall(number, epoll, events.buf.as_mut_ptr(), max, timeout, no_mask, mask_size) };
        count(ret).map(|n| events.len = n)
    }
}

static NO_PWAIT2: AtomicBool = AtomicBool::new(false);
