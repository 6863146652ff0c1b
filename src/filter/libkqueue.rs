//! EVFILT_LIBKQUEUE: the library about itself (libkqueue's own filter, no BSD has it).
//!
//! `fflags` is a number here and no set of bits. The version comes as one event of the
//! same call. The settings take effect in the change; with EV_RECEIPT the receipt's `data`
//! is the value from before.

use super::{Facts, Fate, Filter, Outcome, Queue};
use crate::abi::{
    EV_ADD, EV_ONESHOT, EV_RECEIPT, Kevent, NOTE_DEBUG, NOTE_DEBUG_FUNC, NOTE_DEBUG_PREFIX, NOTE_FILE_POLL_INTERVAL,
    NOTE_FORK_CLEANUP, NOTE_THREAD_SAFE, NOTE_VERSION, NOTE_VERSION_STR,
};
use crate::debug;
use crate::errno::{Errno, Result};
use crate::knote::Slot;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering};

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

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        if change.flags & EV_ADD != 0 {
            self.validate(change)?;
            queue.knotes[slot].fflags = change.fflags;
            queue.knotes.activate(slot);
        }
        Ok(())
    }

    fn detach(&self, _queue: &mut Queue, _slot: Slot) -> Result<()> {
        Ok(())
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        let fflags = queue.knotes[slot].fflags;
        let data = if fflags == NOTE_VERSION { VERSION_NUMBER } else { 0 };
        let udata = (fflags == NOTE_VERSION_STR).then_some(VERSION.as_ptr() as usize);
        Outcome::Ready(Facts { data, fflags, udata, ..Facts::default() })
    }

    fn settle(&self, _queue: &mut Queue, _slot: Slot, _fate: Fate) {}
}

/// Carries out a setting, or answers a question that asks for a receipt: what the receipt
/// says. `None`: the change asks for an event.
#[cold]
pub(crate) fn answer(change: &Kevent) -> Option<Kevent> {
    let on = change.data != 0;
    let data = match change.fflags {
        NOTE_THREAD_SAFE => isize::from(THREAD_SAFE.swap(on, Ordering::Relaxed)),
        NOTE_FORK_CLEANUP => isize::from(FORK_CLEANUP.swap(on, Ordering::Relaxed)),
        NOTE_DEBUG => isize::from(debug::switch(on)),
        NOTE_DEBUG_PREFIX => debug::set_prefix(address(change)),
        NOTE_DEBUG_FUNC => debug::set_function(address(change)),
        NOTE_VERSION if change.flags & EV_RECEIPT != 0 => VERSION_NUMBER,
        NOTE_VERSION_STR if change.flags & EV_RECEIPT != 0 => {
            return Some(Kevent { udata: VERSION.as_ptr().cast_mut().cast(), data: 0, ..*change });
        }
        _ => return None,
    };
    Some(Kevent { data, ..*change })
}

/// The pointer of a setting: in `data`, where libkqueue's callers put it, or in `udata`.
fn address(change: &Kevent) -> isize {
    if change.data != 0 { change.data } else { change.udata as isize }
}

/// What the program was told or has said; both hold whatever it says, since this library
/// has no other mode.
static THREAD_SAFE: AtomicBool = AtomicBool::new(true);
static FORK_CLEANUP: AtomicBool = AtomicBool::new(true);
