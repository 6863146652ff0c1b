//! What one call asks for, and what it knows while it collects: how long it may wait, and what
//! it has come upon.

use crate::abi::Kevent;
use crate::errno::{Errno, Result};
use crate::sys::clock::Clock;
use crate::sys::epoll::Patience;
use crate::sys::memory::Input;
use std::os::fd::RawFd;

/// What a kevent(2) call asks for.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) number: RawFd,
    pub(crate) changes: Input<Kevent>,
    /// One, or none; read when it is needed.
    pub(crate) timeout: Input<libc::timespec>,
}

impl Request {
    /// What the timeout allows. EFAULT; EINVAL for what is no time.
    #[inline]
    pub(crate) fn patience(&self) -> Result<Patience> {
        if self.timeout.len() == 0 { Ok(Patience::Forever) } else { self.time() }
    }

    #[inline(never)]
    fn time(&self) -> Result<Patience> {
        let timeout = self.timeout.iter().next().ok_or(Errno::EFAULT)??;
        let seconds = u64::try_from(timeout.tv_sec).map_err(|_| Errno::EINVAL)?;
        let nanos = u64::try_from(timeout.tv_nsec).ok().filter(|&ns| ns < 1_000_000_000).ok_or(Errno::EINVAL)?;
        match (seconds, nanos) {
            (0, 0) => Ok(Patience::None),
            // As in FreeBSD: longer than 68 years is for ever.
            (seconds, _) if seconds > i32::MAX.unsigned_abs().into() => Ok(Patience::Forever),
            (seconds, nanos) => Ok(Patience::Nanos(seconds * 1_000_000_000 + nanos)),
        }
    }
}

/// What a call to collect knows. It stands in the caller's frame, through all sleeps.
pub(crate) struct Round {
    patience: Patience,
    /// When a wait with a time-out ends, ns; 0 before it is needed.
    deadline: u64,
    /// When the thread went to sleep first, ns; 0 if it did not.
    asleep_since: u64,
    /// What is left of the patience, for the wait at hand.
    left: Patience,
    /// How long the thread may sleep before it has to look after signals, ns.
    pub(super) span: Option<u64>,
    /// How many entries had been removed when the thread went to sleep: what it brings back
    /// from there may be older than those that were removed since.
    pub(super) removed: u32,
    /// How many events the wait at hand asks epoll for.
    pub(super) asked: usize,
    /// epoll may have more to tell than the last wait brought.
    pub(super) more: bool,
    /// A level event went out whose condition may well still hold.
    pub(super) level: bool,
    /// A handler of the program's ran in the sleep that is just over: without an event that
    /// is EINTR.
    pub(super) interrupted: bool,
}

/// More than a wait takes that finds something at once, less than a nap that another
/// thread can have seen, ns.
const MOMENT: u64 = 300_000;

impl Round {
    pub(crate) fn new(patience: Patience) -> Round {
        Round {
            patience,
            deadline: 0,
            asleep_since: 0,
            left: patience,
            span: None,
            removed: 0,
            asked: 0,
            more: false,
            level: false,
            interrupted: false,
        }
    }

    /// The call begins to collect. One that began before, under a number that was another
    /// kqueue's, goes on with the time that is left.
    pub(super) fn begin(&mut self, patience: Patience) {
        *self = Round { deadline: self.deadline, ..Round::new(patience) };
    }

    /// Works out what is left of the patience. Once it has run out the next wait is the last.
    /// The time begins with the first wait that may take some.
    pub(super) fn look_at_the_clock(&mut self) {
        let Patience::Nanos(ns) = self.patience else { return };
        let now = Clock::Monotonic.now();
        if self.deadline == 0 {
            self.deadline = now.saturating_add(ns);
        }
        self.left = match self.deadline.saturating_sub(now) {
            0 => Patience::None,
            ns => Patience::Nanos(ns),
        };
    }

    /// Whether the call may take time.
    pub(super) fn is_patient(&self) -> bool {
        !matches!(self.patience, Patience::None)
    }

    /// Whether the wait at hand is the last, and none to sleep in.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.left, Patience::None)
    }

    /// How long the thread may sleep.
    pub(super) fn left(&self) -> Patience {
        match (self.span, self.left) {
            (Some(span), Patience::Nanos(left)) => Patience::Nanos(left.min(span)),
            (Some(span), Patience::Forever) => Patience::Nanos(span),
            (_, left) => left,
        }
    }

    /// The thread goes to sleep now, with nothing left to be done before.
    pub(super) fn note_sleep(&mut self) {
        if self.asleep_since == 0 {
            self.asleep_since = Clock::Monotonic.now();
        }
    }

    /// Whether the thread was asleep, and did not just find something there already.
    pub(super) fn has_slept(&self) -> bool {
        self.asleep_since != 0 && Clock::Monotonic.now().saturating_sub(self.asleep_since) > MOMENT
    }
}
