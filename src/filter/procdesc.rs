//! EVFILT_PROCDESC (FreeBSD): the end of a process by its descriptor, which is a pidfd here.
//!
//! The program owns the descriptor. epoll watches it like any other, so it may be watched by
//! EVFILT_READ as well and its close ends both. How the process ended is looked up without
//! reaping it. What is no pidfd is EINVAL.

use super::{Facts, Fate, Filter, Outcome, Queue, descriptor, fd};
use crate::abi::{EV_ADD, EV_CLEAR, Kevent, NOTE_EXIT};
use crate::errno::{Errno, Result};
use crate::knote::Slot;
use crate::sys::epoll::IN;
use crate::sys::pidfd;

/// The row of EVFILT_PROCDESC.
pub(crate) struct ProcDesc;

impl Filter for ProcDesc {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        if !pidfd::is_pidfd(descriptor(queue.knotes[slot].ident)?)? {
            return Err(Errno::EINVAL);
        }
        queue.knotes[slot].flags |= EV_CLEAR;
        fd::attach(queue, slot, false)
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        if change.flags & EV_ADD != 0 {
            let knote = &mut queue.knotes[slot];
            knote.fflags = change.fflags;
        }
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
        let knote = queue.knotes[slot];
        let Ok(number) = descriptor(knote.ident) else { return Outcome::Gone };
        let Ok(status) = pidfd::status(number) else { return Outcome::Gone };
        if mask & IN == 0 || status.is_none() && !pidfd::has_ended(number) {
            return fd::unready(queue, slot, false);
        }
        if knote.fflags & NOTE_EXIT == 0 {
            return Outcome::Over;
        }
        let status = status.unwrap_or(0);
        Outcome::Ready(Facts { data: status as isize, fflags: NOTE_EXIT, eof: true, last: true, ..Facts::default() })
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        fd::settle(queue, slot, fate);
    }
}
