//! EVFILT_LIBKQUEUE: the library about itself (libkqueue's own filter, no BSD has it).
//!
//! `fflags` is a number here and no set of bits. The version comes as one event of the
//! same call. The settings take effect in the change; with EV_RECEIPT the receipt's `data`
//! is the value from before.

use super::{Facts, Fate, Filter, Outcome, Queue};
use crate::abi::{
    EV_ADD, EV_ONESHOT, Kevent, NOTE_DEBUG, NOTE_DEBUG_FUNC, NOTE_DEBUG_PREFIX, NOTE_FILE_POLL_INTERVAL,
    NOTE_FORK_CLEANUP, NOTE_THREAD_SAFE, NOTE_VERSION, NOTE_VERSION_STR,
};
use crate::debug;
use crate::errno::{Errno, Result};
use crate::knote::Slot;
use core::ffi::CStr;

/// The row of EVFILT_LIBKQUEUE.
pub(crate) struct LibKqueue;

/// The release as a string.
pub(crate) const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("cargo gives versions without a zero byte"),
};

/// `MMmmpprr`: major, minor, patch and release, two hexadecimal digits each.
const VERSION_NUMBER: isize = {
    const fn number(text: &str) -> isize {
        let (mut value, mut at) = (0, 0);
        while at < text.len() {
            value = value * 10 + (text.as_bytes()[at] - b'0') as isize;
            at += 1;
        }
        value
    }
    number(env!("CARGO_PKG_VERSION_MAJOR")) << 24
        | number(env!("CARGO_PKG_VERSION_MINOR")) << 16
        | number(env!("CARGO_PKG_VERSION_PATCH")) << 8
};

impl Filter for LibKqueue {
    fn validate(&self, change: &Kevent) -> Result<()> {
        match change.fflags {
            NOTE_VERSION..=NOTE_DEBUG_FUNC => Ok(()),
            NOTE_FILE_POLL_INTERVAL => Err(Errno::ENOSYS),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Only the two questions make a knote, and it goes with its answer.
    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        queue.knotes[slot].flags |= EV_ONESHOT;
        queue.knotes.activate(slot);
        Ok(())
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<isize> {
        if change.flags & EV_ADD != 0 {
            self.validate(change)?;
            queue.knotes[slot].fflags = change.fflags;
            queue.knotes.activate(slot);
        }
        Ok(0)
    }

    fn detach(&self, _queue: &mut Queue, _slot: Slot) -> Result<()> {
        Ok(())
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        let fflags = queue.knotes[slot].fflags;
        let answer = Facts { fflags, ..Facts::default() };
        match fflags {
            NOTE_VERSION => Outcome::Ready(Facts { data: VERSION_NUMBER, ..answer }),
            NOTE_VERSION_STR => Outcome::Ready(Facts { udata: Some(VERSION.as_ptr() as usize), ..answer }),
            _ => Outcome::NotReady,
        }
    }

    fn settle(&self, _queue: &mut Queue, _slot: Slot, _fate: Fate) {}
}

/// Carries out a setting. `None`: the change is no setting. The value is the one from
/// before.
pub(crate) fn set(change: &Kevent) -> Option<isize> {
    match change.fflags {
        // Both are always so: this library has no other mode.
        NOTE_THREAD_SAFE | NOTE_FORK_CLEANUP => Some(1),
        NOTE_DEBUG => Some(isize::from(debug::switch(change.data != 0))),
        NOTE_DEBUG_PREFIX => Some(debug::set_prefix(change.data)),
        NOTE_DEBUG_FUNC => Some(debug::set_function(change.data)),
        _ => None,
    }
}
