//! Building a kqueue's epoll sets anew, to be rid of orphans.
//!
//! When a watched number is closed while the file lives on (a dup, a forked child), epoll
//! goes on reporting the entry, and nothing can remove it: EPOLL_CTL_DEL goes by number.
//! A level orphan would keep every wait from sleeping. So when one is seen, a fresh epoll
//! takes the place of the old under the same number, with the entries that still stand.
//!
//! Edges must neither be lost nor told twice. Entering a fresh set reports whatever is
//! ready; those first reports of edge entries are dropped. Then the old set is drained,
//! which holds every edge until now; later ones come through the new set.

use super::{Queue, inodes, mounts, processes, signals, timers, token};
use crate::errno::Result;
use crate::sys::ask_twice;
use crate::sys::clock::Clock;
use crate::sys::epoll::{self, BATCH, Epoll, Events};
use std::os::fd::{AsRawFd, RawFd};

/// Batches taken from a set at most, or as many as it has entries for: there may be orphans.
const ROUNDS: usize = 64;

/// Replaces the sets of `queue`. `enter_own` puts what belongs to the kqueue itself into
/// the fresh own set. Threads that sleep in the old one wake and go over to it; true: those
/// who watch it have to enter it anew. If there is no memory for it the orphan stays until
/// the next try.
pub(crate) fn rebuild(queue: &mut Queue, enter_own: impl FnOnce(&Epoll) -> Result<()>) -> bool {
    queue.fds.orphaned = false;
    let mut renewed = true;
    let inner: Vec<RawFd> = queue.fds.kqueues.keys().copied().collect();
    for number in inner {
        // What fails here is tried again when that kqueue is looked at.
        let _ = super::watched::refresh(queue, number);
    }
    for set in (1..super::descriptors::SETS).rev() {
        if queue.fds.nested(set).is_some() {
            renewed &= renew_nested(queue, set).is_ok();
        }
    }
    let own = renew_own(queue, enter_own).is_ok();
    let _ = epoll::fill_reserve();
    look_at_sources(queue);
    queue.fds.begun_anew &= !(renewed && own);
    queue.fds.orphaned = queue.fds.begun_anew;
    own
}

fn renew_nested(queue: &mut Queue, set: usize) -> Result<()> {
    let new = Epoll::new_or_reserve()?;
    queue.epoll.add(new.as_raw_fd(), epoll::IN, token::SETS + set as u64)?;
    refill(queue, set, &new)?;
    discard_first_reports(queue, set, &new);
    if let Some(old) = queue.fds.take_nested(set) {
        drain(queue, set, &old);
    }
    queue.fds.put_nested(set, new);
    Ok(())
}

fn renew_own(queue: &mut Queue, enter_own: impl FnOnce(&Epoll) -> Result<()>) -> Result<()> {
    let new = Epoll::new_or_reserve()?;
    enter_own(&new)?;
    queue.timers.enter(&new)?;
    inodes::enter(queue, &new)?;
    mounts::enter(queue, &new)?;
    processes::enter(queue, &new)?;
    signals::enter(queue, &new)?;
    for set in 1..super::descriptors::SETS {
        if let Some(nested) = queue.fds.nested(set) {
            new.add(nested.as_raw_fd(), epoll::IN, token::SETS + set as u64)?;
        }
    }
    refill(queue, 0, &new)?;
    discard_first_reports(queue, 0, &new);
    let old = queue.epoll.clone();
    drain(queue, 0, &old);
    queue.waker.evict_sleepers();
    // The sleepers stay where they are if the old set does.
    old.replace(new).inspect_err(|_| queue.waker.withdraw())?;
    queue.waker.renewed();
    Ok(())
}

/// Has epoll report everything that is ready once more: reports went lost with a thread.
pub(crate) fn ask_anew(queue: &mut Queue) {
    for set in 0..super::descriptors::SETS {
        for (number, armed, token) in queue.fds.armed(set) {
            if let Some(epoll) = super::fd::epoll_of(queue, set) {
                let _ = epoll.modify(super::fd::target(queue, number).number, armed, token);
            }
        }
    }
    queue.waker.taken();
    queue.waker.wake();
    look_at_sources(queue);
}

/// Looks at whatever stands in the epoll and is no descriptor of the program's.
fn look_at_sources(queue: &mut Queue) {
    timers::expire(queue, Clock::Monotonic);
    timers::expire(queue, Clock::Realtime);
    inodes::collect(queue);
    mounts::collect(queue);
    processes::look(queue);
    signals::take(queue);
}

/// Enters every descriptor of a set whose file still is the one it had. ENOMEM, ENOSPC: the
/// old set has to stay.
fn refill(queue: &mut Queue, set: usize, new: &Epoll) -> Result<()> {
    let mut gone: Vec<RawFd> = Vec::new();
    for (number, armed, token) in queue.fds.armed(set) {
        if super::fd::is_registered(queue, number, set) {
            ask_twice(|| new.add(super::fd::target(queue, number).number, armed, token))?;
        } else {
            gone.push(number);
        }
    }
    for number in gone {
        queue.forget(number);
    }
    Ok(())
}

/// Takes the reports that entering caused. Level entries report again by themselves and
/// one-shot ones are told here for good; edges wait for the next change.
fn discard_first_reports(queue: &mut Queue, set: usize, new: &Epoll) {
    take_reports(queue, set, new, |queue, token| super::fd::is_one_shot(queue, token, set));
}

/// Takes everything the old set still has to tell.
fn drain(queue: &mut Queue, set: usize, old: &Epoll) {
    take_reports(queue, set, old, |_, _| true);
}

/// Empties a set of what it has to tell of descriptors, and takes up what is to be `heard`.
/// Level entries come again in every batch, in turn.
fn take_reports(queue: &mut Queue, set: usize, epoll: &Epoll, heard: impl Fn(&Queue, u64) -> bool) {
    let mut events = Events::new();
    for _ in 0..ROUNDS.max(queue.fds.armed(set).len() / BATCH + 2) {
        if epoll.look(&mut events, BATCH).is_err() {
            return;
        }
        for (token, mask) in events.iter().filter(|(token, _)| token & token::SOURCE == 0) {
            if heard(queue, token) {
                super::fd::report(queue, token, set, mask);
            }
        }
        if events.len() < BATCH {
            return;
        }
    }
}
