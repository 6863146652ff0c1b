//! EVFILT_EXCEPT (macOS, OpenBSD): out-of-band data and its like.
//!
//! EPOLLPRI tells: urgent data on TCP, packet-mode changes of a pty. NOTE_OOB asks for it, and
//! comes back in `fflags`; who asks for no condition is told of none. Ordinary data and hang-ups
//! are none of its business.

use super::{Facts, Fate, Filter, Outcome, Queue, fd};
use crate::abi::{Kevent, NOTE_OOB};
use crate::errno::Result;
use crate::knote::Slot;
use crate::sys::epoll::PRI;

/// The row of EVFILT_EXCEPT.
pub(crate) struct Except;

impl Filter for Except {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        fd::attach(queue, slot, false)
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        let knote = &mut queue.knotes[slot];
        knote.fflags = change.fflags;
        fd::modify(queue, slot, false)
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        fd::detach(queue, slot)
    }

    fn is_gone(&self, queue: &mut Queue, slot: Slot) -> bool {
        fd::is_gone(queue, slot)
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        let mask = match fd::readiness(queue, slot) {
            Ok(mask) => mask,
            Err(outcome) => return outcome,
        };
        if fd::is_gone(queue, slot) {
            return Outcome::Gone;
        }
        if mask & PRI == 0 || queue.knotes[slot].fflags & NOTE_OOB == 0 {
            return fd::unready(queue, slot, true);
        }
        Outcome::Ready(Facts { fflags: NOTE_OOB, again: fd::keep_or_harden(queue, slot, false), ..Facts::default() })
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        fd::settle(queue, slot, fate);
    }
}
