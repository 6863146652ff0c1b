//! Clocks, in nanoseconds (clock_gettime(2), answered by the vDSO without a system call).

#![allow(unsafe_code)]

/// The two clocks timers run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Clock {
    /// Time since boot, not counting sleep; never set.
    Monotonic,
    /// Calendar time since the Epoch; the administrator may set it.
    Realtime,
}

impl Clock {
    /// The clock's number for the kernel.
    pub(super) fn id(self) -> libc::clockid_t {
        match self {
            Clock::Monotonic => libc::CLOCK_MONOTONIC,
            Clock::Realtime => libc::CLOCK_REALTIME,
        }
    }

    /// Nanoseconds now.
    pub(crate) fn now(self) -> u64 {
        let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec; both clocks exist on every Linux.
        unsafe { libc::clock_gettime(self.id(), &raw mut ts) };
        let seconds = u64::try_from(ts.tv_sec).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(ts.tv_nsec).unwrap_or(0))
    }
}

/// Splits nanoseconds for the kernel; saturates at what `time_t` holds.
pub(super) fn timespec(ns: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(ns / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::try_from(ns % 1_000_000_000).unwrap_or(0),
    }
}
