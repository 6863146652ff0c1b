//! epoll(7): the set of watched descriptors behind a kqueue.

#![allow(unsafe_code)]

use super::fd::{Fd, Fresh};
use super::fork::PerProcess;
use super::sleep::{self, Nap};
use super::sync::Mutex;
use super::{number, raw, retry, zero};
use crate::errno::{Errno, Result};
use core::mem::MaybeUninit;
use libc::{c_int, c_long};
use std::os::fd::{AsRawFd, RawFd};

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
    pub(crate) const fn new() -> Events {
        Events { buf: [const { MaybeUninit::uninit() }; BATCH], len: 0 }
    }

    /// Makes an empty list where there is room for one. A list as a value would be written
    /// whole, 3 KiB in each call.
    ///
    /// # Safety
    /// `at` is valid and nobody else's.
    pub(crate) unsafe fn empty_at(at: *mut Events) {
        // SAFETY: the caller's promise; the field is in the same place.
        let len = unsafe { &raw mut (*at).len };
        // SAFETY: as above. The rest may be anything.
        unsafe { len.write(0) };
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

    /// The first `len` entries are what the kernel wrote.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len.min(BATCH);
    }

    /// Where the kernel is to write; [`Events::is_touched`] tells whether it did.
    pub(super) fn start(&mut self) -> *mut libc::epoll_event {
        self.len = 0;
        self.buf[0].write(libc::epoll_event { events: 0, u64: UNTOUCHED });
        self.buf.as_mut_ptr().cast()
    }

    /// Whether a sleep that did not come back has taken events nevertheless.
    pub(crate) fn is_touched(&self) -> bool {
        // SAFETY: the sleep wrote the first entry before it began.
        unsafe { self.buf[0].assume_init() }.u64 != UNTOUCHED
    }
}

/// A token that nothing has.
const UNTOUCHED: u64 = u64::MAX - 7;

/// How long a call may wait.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// Look and return.
    None,
    /// Nanoseconds at least.
    Nanos(u64),
    /// Until something happens.
    Forever,
}

impl Patience {
    /// Nanoseconds; `None` without end.
    pub(super) fn nanos(self) -> Option<u64> {
        match self {
            Patience::None => Some(0),
            Patience::Nanos(ns) => Some(ns),
            Patience::Forever => None,
        }
    }

    /// Milliseconds, rounded up; -1 without end.
    pub(super) fn millis(self) -> c_long {
        self.nanos().map_or(-1, |ns| c_int::try_from(ns.div_ceil(1_000_000)).unwrap_or(c_int::MAX).into())
    }
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
        Ok(Epoll(Fd::new(Fresh::new(fd))?))
    }

    /// As [`Epoll::new`], or the one held in reserve: for when there must be one.
    pub(crate) fn new_or_reserve() -> Result<Epoll> {
        let _creating = super::fd::creating();
        Epoll::new().or_else(|errno| take_reserve().ok_or(errno))
    }

    /// Whether the number still is this epoll: the program may have closed it.
    pub(crate) fn is_intact(&self) -> bool {
        self.0.is_intact()
    }

    /// dup3(2): `other` takes this number over, and what it held goes once the last wait
    /// in it has returned. EBADF: the program has closed this one.
    pub(crate) fn replace(&self, other: Epoll) -> Result<()> {
        if !self.is_intact() {
            return Err(Errno::EBADF);
        }
        // SAFETY: both numbers are ours and open.
        number(unsafe { libc::dup3(other.as_raw_fd(), self.as_raw_fd(), libc::O_CLOEXEC) }).map(|_| ())
    }

    #[inline(always)]
    fn ctl(&self, op: libc::c_int, fd: RawFd, events: u32, token: u64) -> Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: `event` is valid for the call; any number may stand for `fd`.
        zero(unsafe { libc::epoll_ctl(self.as_raw_fd(), op, fd, &raw mut event) })
    }

    /// EPOLL_CTL_ADD. EBADF, EPERM (not pollable), EEXIST, ELOOP, ENOMEM, ENOSPC.
    #[inline]
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

    /// What is ready now, `max` events at most. Never sleeps, and is no cancellation point.
    pub(crate) fn look(&self, events: &mut Events, max: usize) -> Result<()> {
        let (epoll, max) = (self.as_raw_fd().into(), max.clamp(1, BATCH) as c_long);
        let (now, no_mask, mask_size) = (0, 0, 8);
        let arguments = [epoll, events.buf.as_mut_ptr() as c_long, max, now, no_mask, mask_size];
        // SAFETY: the buffer holds BATCH >= max entries.
        let got = retry(|| unsafe { raw::call(libc::SYS_epoll_pwait, arguments) });
        events.len = got.unwrap_or(0);
        got.map(|_| ())
    }

    /// Sleeps for as long as `patience` says; no cancellation point. EINTR is handed on.
    pub(crate) fn wait(&self, events: &mut Events, patience: Patience) -> Result<()> {
        let mut nap = Nap::new(self.as_raw_fd(), events, BATCH, patience);
        // SAFETY: it is valid, and without a way to be cancelled nothing unwinds.
        unsafe { sleep::sleep(&raw mut nap) };
        nap.result(events).map(|_| ())
    }
}

static RESERVE: PerProcess<Mutex<Option<Epoll>>> = PerProcess::new();

fn take_reserve() -> Option<Epoll> {
    RESERVE.get().lock().take().filter(Epoll::is_intact)
}

/// Has one epoll in reserve, for when the program has used up its descriptors. EMFILE,
/// ENFILE, ENOMEM.
pub(crate) fn fill_reserve() -> Result<()> {
    let _creating = super::fd::creating();
    let mut reserve = RESERVE.get().lock();
    if !reserve.as_ref().is_some_and(Epoll::is_intact) {
        *reserve = Some(Epoll::new()?);
    }
    Ok(())
}
