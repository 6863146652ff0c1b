//! EVFILT_USER (kqueue(2)): events the program raises itself.
//!
//! No kernel facility is needed: a trigger queues the knote, and the kqueue wakes a
//! sleeper if there is one. A knote costs no descriptor, a trigger with nobody asleep no
//! system call. The saved `fflags` hold the program's 24 bits and the saved `data` its
//! value, as FFCOPY, FFOR and FFAND leave them; both come back with the event. Where
//! FreeBSD does not trigger a new knote by EV_ADD|NOTE_TRIGGER, macOS and OpenBSD do, and
//! so does this: nobody relies on the opposite.

use super::{Facts, Fate, Filter, Outcome, Queue};
use crate::abi::{
    EV_CLEAR, Kevent, NOTE_FFAND, NOTE_FFCOPY, NOTE_FFCTRLMASK, NOTE_FFLAGSMASK, NOTE_FFOR, NOTE_TRIGGER,
};
use crate::errno::Result;
use crate::knote::{Knote, Slot};

/// The row of EVFILT_USER.
pub(crate) struct User;

/// `own`: triggered and not yet cleared. Set by NOTE_TRIGGER, cleared by a hand-out with
/// EV_CLEAR and by a change with EV_CLEAR.
const TRIGGERED: u32 = 1;

impl Filter for User {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        let asked = queue.knotes[slot].fflags;
        queue.knotes[slot].fflags = asked & NOTE_FFLAGSMASK;
        if asked & NOTE_TRIGGER != 0 {
            trigger(queue, slot);
        }
        Ok(())
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        queue.knotes.set_data(slot, change.data)?;
        let knote = &mut queue.knotes[slot];
        knote.fflags = combine(knote.fflags, change.fflags);
        if change.flags & EV_CLEAR != 0 {
            knote.own &= !TRIGGERED;
        }
        if change.fflags & NOTE_TRIGGER != 0 {
            knote.own |= TRIGGERED;
        }
        if is_triggered(knote) {
            queue.knotes.activate(slot);
        } else {
            queue.knotes.dequeue(slot);
        }
        Ok(())
    }

    fn detach(&self, _queue: &mut Queue, _slot: Slot) -> Result<()> {
        Ok(())
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        let knote = &queue.knotes[slot];
        if !is_triggered(knote) {
            return Outcome::NotReady;
        }
        Outcome::Ready(Facts { data: queue.knotes.data(slot), fflags: knote.fflags, again: true, ..Facts::default() })
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, _fate: Fate) {
        let knote = &mut queue.knotes[slot];
        if knote.flags & EV_CLEAR != 0 {
            knote.own &= !TRIGGERED;
        }
    }
}

fn is_triggered(knote: &Knote) -> bool {
    knote.own & TRIGGERED != 0
}

fn trigger(queue: &mut Queue, slot: Slot) {
    queue.knotes[slot].own |= TRIGGERED;
    queue.knotes.activate(slot);
}

/// What a change's fflags make of the stored ones: one of FFCOPY, FFOR, FFAND, FFNOP.
pub(crate) fn combine(stored: u32, asked: u32) -> u32 {
    let bits = asked & NOTE_FFLAGSMASK;
    match asked & NOTE_FFCTRLMASK {
        NOTE_FFAND => stored & bits,
        NOTE_FFOR => stored | bits,
        NOTE_FFCOPY => bits,
        _ => stored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::NOTE_FFNOP;

    #[test]
    fn control_bits_choose_how_the_24_bits_combine() {
        assert_eq!(combine(0b1100, NOTE_FFNOP | 0b1010), 0b1100);
        assert_eq!(combine(0b1100, NOTE_FFAND | 0b1010), 0b1000);
        assert_eq!(combine(0b1100, NOTE_FFOR | 0b1010), 0b1110);
        assert_eq!(combine(0b1100, NOTE_FFCOPY | 0b1010), 0b1010);
    }

    #[test]
    fn control_bits_and_the_trigger_are_never_stored() {
        assert_eq!(combine(0, NOTE_FFCOPY | NOTE_TRIGGER | 0xffff_ffff), NOTE_FFLAGSMASK);
    }
}
