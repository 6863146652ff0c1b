//! EVFILT_SIGNAL (kqueue(2)): signals sent to the process, counted.
//!
//! It stands beside the program's own handling and changes nothing of that: handlers run,
//! ignored signals are ignored, blocked ones stay pending, those that end the process end
//! it. `data` is how often the signal was sent since the last event, counted when it is sent
//! and for each knote by itself; EV_CLEAR is set by itself. Where the counts come from:
//! `sys/hook.rs` for signals that are not blocked, `sys/pending.rs` for those that are; what
//! one kqueue keeps of it is in [`super::signals`].

use super::{Facts, Fate, Filter, Outcome, Queue, signals};
use crate::abi::{EV_CLEAR, Kevent};
use crate::errno::{Errno, Result};
use crate::knote::Slot;

/// The row of EVFILT_SIGNAL; `own` is the count at the last event.
pub(crate) struct Signal;

impl Filter for Signal {
    fn validate(&self, change: &Kevent) -> Result<()> {
        signals::number(change.ident).map(|_| ()).ok_or(Errno::EINVAL)
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        queue.knotes[slot].flags |= EV_CLEAR;
        queue.knotes[slot].own = signals::watch(queue, slot)?;
        Ok(())
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        queue.knotes[slot].fflags = change.fflags;
        signals::gather(queue);
        Ok(())
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        signals::unwatch(queue, slot);
        Ok(())
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        match signals::report(queue, slot) {
            0 => Outcome::NotReady,
            times => Outcome::Ready(Facts { data: isize::try_from(times).unwrap_or(isize::MAX), ..Facts::default() }),
        }
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        signals::reported(queue, slot);
        if fate == Fate::Spent {
            signals::unwatch(queue, slot);
        }
    }
}
