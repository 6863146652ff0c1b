//! timerfd_create(2): one clock's next deadline as a pollable descriptor.

#![allow(unsafe_code)]

use super::clock::{self, Clock};
use super::fd::{self, Fd, Fresh};
use super::{number, zero};
use crate::errno::Result;
use std::os::fd::{AsRawFd, RawFd};

/// A timerfd that is armed with absolute times and never read: every arming clears
/// what it had to tell.
pub(crate) struct TimerFd {
    fd: Fd,
    clock: Clock,
}

impl AsRawFd for TimerFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl TimerFd {
    pub(crate) fn new(clock: Clock) -> Result<TimerFd> {
        let _creating = fd::creating();
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: touches no memory.
        let fd = number(unsafe { libc::timerfd_create(clock.id(), flags) })?;
        let fd = Fd::new(Fresh::new(fd))?;
        Ok(TimerFd { fd, clock })
    }

    /// Whether the number still is this descriptor: the program may have closed it.
    pub(crate) fn is_intact(&self) -> bool {
        self.fd.is_intact()
    }

    /// Arms for `deadline` (ns on this clock; 0 would disarm and becomes 1). A calendar
    /// timer also becomes readable when the clock is set (TFD_TIMER_CANCEL_ON_SET).
    pub(crate) fn arm(&self, deadline: u64) -> Result<()> {
        let value = libc::itimerspec { it_interval: clock::timespec(0), it_value: clock::timespec(deadline.max(1)) };
        let flags = match self.clock {
            Clock::Monotonic => libc::TFD_TIMER_ABSTIME,
            Clock::Realtime => libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET,
        };
        // SAFETY: `value` is valid; the old value is not asked for.
        zero(unsafe { libc::timerfd_settime(self.fd.as_raw_fd(), flags, &raw const value, core::ptr::null_mut()) })
    }
}
