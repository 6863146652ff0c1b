//! EVFILT_FS: file systems are mounted and unmounted.
//!
//! As in FreeBSD `ident` says nothing, EV_CLEAR is implied, and `fflags` of an event has
//! what was asked for and has happened: VQ_MOUNT and VQ_UNMOUNT, in the mount namespace of
//! the thread that added the kqueue's first knote (`mounts.rs`). Nothing in Linux tells of
//! the other VQ_ bits (servers that do not respond, full disks); they may be asked for.

use super::{Facts, Fate, Filter, Outcome, Queue, mounts};
use crate::abi::{EV_ADD, EV_CLEAR, Kevent};
use crate::errno::Result;
use crate::knote::Slot;

/// The row of EVFILT_FS; `own` is what has happened.
pub(crate) struct Fs;

impl Filter for Fs {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        queue.knotes[slot].flags |= EV_CLEAR;
        mounts::join(queue, slot)
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        mounts::collect(queue);
        let knote = &mut queue.knotes[slot];
        // A change that only enables or disables often says nothing about hints.
        if change.flags & EV_ADD != 0 || change.fflags != 0 {
            knote.fflags = change.fflags;
        }
        queue.knotes.activate(slot);
        Ok(())
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        mounts::leave(queue, slot);
        Ok(())
    }

    fn adds_up(&self) -> bool {
        true
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        if queue.knotes[slot].own == 0 {
            // It may be one that could not be looked at before.
            mounts::collect(queue);
        }
        match queue.knotes[slot].own {
            0 => Outcome::NotReady,
            fflags => Outcome::Ready(Facts { fflags, again: true, ..Facts::default() }),
        }
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        match fate {
            Fate::Stays => {}
            Fate::Cleared | Fate::Dispatched => queue.knotes[slot].own = 0,
            Fate::Spent => mounts::leave(queue, slot),
        }
    }
}
