//! From a number to the kqueue it names: through the table, and where that is not to be
//! trusted through the identity of the pipe behind the number.
//!
//! The table cannot know of a close that leaves a copy open. So a kqueue seen under more
//! numbers than one has each use of them looked at, by fstat(2); of any other a call looks
//! that has nothing to tell, when it is over: it may have waited in the wrong one. Of the calls
//! with events, and of those that only make changes, one in some thousands looks. So that no
//! other file is taken for a kqueue in use for long, the monitor looks in each tick, too, which
//! it has for those that wait.

use super::{Kqueue, process};
use crate::errno::{Errno, Result};
use crate::filter::Inner;
use crate::sys::fd::{self, UserEnd};
use crate::sys::file;
use core::sync::atomic::Ordering;
use std::os::fd::RawFd;
use std::sync::Arc;

/// The kqueue that `number` names, and whether it was looked at. EBADF.
#[inline]
pub(super) fn find(number: RawFd) -> Result<Found> {
    match process().table.find(number) {
        Some(kqueue) if !kqueue.copied.load(Ordering::Relaxed) => Ok(Found { kqueue, certain: false }),
        Some(kqueue) => look(number, Found { kqueue, certain: true }),
        None => adopt(number),
    }
}

#[inline(never)]
fn look(number: RawFd, found: Found) -> Result<Found> {
    if found.is_named(number) { Ok(found) } else { adopt(number) }
}

/// What a number names.
pub(super) struct Found {
    pub(super) kqueue: Arc<Kqueue>,
    /// It certainly did when it was looked for.
    pub(super) certain: bool,
}

impl Found {
    /// Whether `number` names this kqueue now. If not, it is taken from it.
    pub(super) fn is_named(&self, number: RawFd) -> bool {
        self.kqueue.is_named(number)
    }
}

impl Kqueue {
    /// Whether `number` names this kqueue now.
    pub(super) fn stands_behind(&self, number: RawFd) -> bool {
        file::pipe_id(number) == Ok(self.held.pipe_id())
    }

    /// The same. If not, the number is taken from it.
    fn is_named(self: &Arc<Self>, number: RawFd) -> bool {
        let named = self.stands_behind(number);
        if !named {
            self.lose(number);
            // If it lives, then under another number.
            self.copied.store(true, Ordering::Relaxed);
            self.end_if_closed();
        }
        named
    }

    /// Looks at all its numbers, on behalf of calls that never do.
    pub(super) fn look_at_numbers(self: &Arc<Self>) {
        let numbers: Vec<RawFd> = self.numbers().iter().map(|&(number, _)| number).collect();
        for number in numbers {
            self.is_named(number);
        }
    }
}

/// Recognises a copy of a kqueue's descriptor by the pipe behind it. EBADF.
#[inline(never)]
fn adopt(number: RawFd) -> Result<Found> {
    let pipe_id = file::pipe_id(number)?;
    let all = process().table.all();
    let (_, kqueue) = all.into_iter().find(|(_, kqueue)| kqueue.held.pipe_id() == pipe_id).ok_or(Errno::EBADF)?;
    if file::sort(number)? != file::Sort::Fifo {
        return Err(Errno::EBADF);
    }
    kqueue.copied.store(true, Ordering::Relaxed);
    let note = {
        let _creating = fd::creating();
        UserEnd::new(number, pipe_id)?
    };
    let evicted = {
        let mut numbers = kqueue.numbers();
        numbers.push((number, note));
        process().table.enter(number, kqueue.clone())?
    };
    if let Some(evicted) = evicted
        && !Arc::ptr_eq(&evicted, &kqueue)
    {
        evicted.lose(number);
        evicted.end_if_closed();
    }
    if kqueue.is_closed() {
        // It ended while it was entered.
        process().table.leave(number, &kqueue);
        return Err(Errno::EBADF);
    }
    Ok(Found { kqueue, certain: true })
}

/// The kqueue behind a number that a change names, for kqueues that watch kqueues.
pub(super) fn find_inner(number: RawFd) -> Option<Arc<dyn Inner>> {
    let kqueue = process().table.find(number)?;
    (file::pipe_id(number) == Ok(kqueue.held.pipe_id())).then_some(kqueue as Arc<dyn Inner>)
}
