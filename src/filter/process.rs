//! EVFILT_PROC (kqueue(2)): the end of a process, and its forks and execs.
//!
//! A pidfd in the kqueue's epoll tells of the end, whoever the process belongs to, and how
//! it ended is looked up at that moment without reaping it. Forks, execs and the children of
//! NOTE_TRACK come from the process connector ([`super::processes`]), which not every machine
//! lets us hear; there, asking for them is ENOTSUP. SIGCHLD has no part in any of it.
//!
//! What happens is recorded when it is heard of, and told when the knote is handed out, so
//! that disabling hides without stopping. A knote whose process has ended tells of that as
//! its last event, or goes silently if it was not asked to.

use super::processes::{self, BY_CONNECTOR};
use super::{Facts, Fate, Filter, Outcome, Queue};
use crate::abi::{EV_ADD, EV_CLEAR, Kevent, NOTE_CHILD, NOTE_EXIT};
use crate::errno::Result;
use crate::knote::Slot;

/// The row of EVFILT_PROC.
pub(crate) struct Process;

/// The row of the announcement that NOTE_TRACK makes of a child: NOTE_CHILD, with the
/// parent's number as `data`. FreeBSD makes a knote of it too, since the child's end needs
/// `data` for itself. Nobody finds it by its key.
pub(crate) struct Child;

impl Filter for Process {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        queue.knotes[slot].flags |= EV_CLEAR;
        processes::start(queue, slot)
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        if change.flags & EV_ADD != 0 {
            processes::change(queue, slot, change.fflags & BY_CONNECTOR)?;
            let knote = &mut queue.knotes[slot];
            knote.fflags = change.fflags;
        }
        queue.knotes.activate(slot);
        Ok(())
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        processes::release(queue, slot);
        Ok(())
    }

    fn catch_up(&self, queue: &mut Queue) {
        processes::catch_up(queue);
    }

    fn is_over(&self, queue: &Queue, slot: Slot) -> bool {
        processes::is_over(queue, slot)
    }

    fn reported(&self, queue: &mut Queue, slot: Slot) {
        // What came before the end is told with it.
        processes::catch_up(queue);
        processes::end_by_pidfd(queue, slot);
    }

    fn adds_up(&self) -> bool {
        true
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        let (fflags, ended) = queue.watches.record(slot);
        if fflags == 0 {
            return if ended.is_some() { Outcome::Over } else { Outcome::NotReady };
        }
        let status = ended.filter(|_| fflags & NOTE_EXIT != 0).unwrap_or(0);
        let last = ended.is_some();
        Outcome::Ready(Facts { data: status as isize, fflags, eof: last, last, ..Facts::default() })
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        if fate == Fate::Spent {
            processes::release(queue, slot);
        } else {
            queue.watches.told(slot);
        }
    }
}

impl Filter for Child {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        queue.knotes.activate(slot);
        Ok(())
    }

    fn modify(&self, _queue: &mut Queue, _slot: Slot, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn detach(&self, _queue: &mut Queue, _slot: Slot) -> Result<()> {
        Ok(())
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        Outcome::Ready(Facts {
            data: queue.knotes[slot].own as isize,
            fflags: NOTE_CHILD,
            last: true,
            ..Facts::default()
        })
    }

    fn settle(&self, _queue: &mut Queue, _slot: Slot, _fate: Fate) {}
}
