//! Applying a changelist: kqueue(2)'s rules for one change, and for many.
//!
//! A change is refused or applied whole. The engine owns what all filters share (which
//! knote, its flags, udata, enabled or not); a filter is asked for its part through its
//! row. The state bits are set before the filter registers anything, so that a disabled
//! knote is never armed.

use super::{Kqueue, State, hand_out, readable};
use crate::abi::{
    EV_ADD, EV_DELETE, EV_DISABLE, EV_ENABLE, EV_ERROR, EV_FORCEONESHOT, EV_KEEPUDATA, EV_ONESHOT, EV_RECEIPT,
    EV_SYSFLAGS, EVFILT_LIBKQUEUE, Kevent,
};
use crate::debug::{self, Named};
use crate::errno::{Errno, Result};
use crate::filter::{self, Queue};
use crate::knote::{Knote, STORED_FLAGS, Slot, state};
use crate::sys::fd;
use crate::sys::memory::{Input, Output};
use std::sync::Arc;

/// What a call does after its changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Goes on to collect events.
    Collect,
    /// Ends here: a receipt found no room.
    Return,
}

/// So many new entries in one call are the beginning of a long list of them.
const MANY: u32 = 8;

/// Applies the changes in order. Errors and receipts go into `events` while there is
/// room; an error without room ends the call with its errno, a receipt without room ends
/// it quietly. What was applied before stays.
#[inline(never)]
pub(super) fn apply_all(
    kqueue: &Arc<Kqueue>,
    state: &mut State,
    changes: Input<Kevent>,
    events: &mut Output<Kevent>,
) -> Result<Next> {
    // Timers are counted from the time of this call.
    state.queue.next_scan();
    let entered = state.queue.entered;
    for (done, asked) in changes.iter().enumerate() {
        // Copied before the answer is written: both lists may be the same array.
        let mut change = asked?;
        let traced = debug::is_on().then_some(change);
        change.flags &= !EV_SYSFLAGS;
        let mut result = apply(&mut state.queue, &mut change);
        if state.queue.crowded {
            state.queue.crowded = false;
            if readable::make_way(kqueue, state) && result.is_err() {
                result = apply(&mut state.queue, &mut change);
            }
        }
        if state.queue.entered.wrapping_sub(entered) == MANY {
            readable::step_aside(kqueue, state, changes.len() - done);
        }
        if let Some(asked) = traced {
            debug::trace("kevent", format_args!("change {} -> {result:?}", Named(&asked)));
        }
        match result {
            Ok(()) if change.flags & EV_RECEIPT == 0 => continue,
            Ok(()) => {}
            Err(errno) if events.room() == 0 => return Err(errno),
            Err(errno) => change.data = errno.raw() as isize,
        }
        if events.room() == 0 {
            return Ok(Next::Return);
        }
        change.flags = EV_ERROR;
        events.push(change)?;
    }
    Ok(Next::Collect)
}

/// Applies one change, and makes of it what a receipt shows, but for its flags.
fn apply(queue: &mut Queue, change: &mut Kevent) -> Result<()> {
    if change.filter == EVFILT_LIBKQUEUE && change.flags & EV_ADD != 0 {
        filter::ops(filter::row(change.filter)?).validate(change)?;
        if let Some(answer) = filter::libkqueue::answer(change) {
            *change = answer;
            return Ok(());
        }
    }
    register(queue, change)?;
    change.data = 0;
    Ok(())
}

/// kqueue(2)'s rules for one change.
fn register(queue: &mut Queue, change: &Kevent) -> Result<()> {
    let row = filter::row(change.filter)?;
    let ops = filter::ops(row);
    let has = |flag: u16| change.flags & flag != 0;
    if has(EV_ENABLE) && has(EV_DISABLE) || has(EV_ADD) && has(EV_KEEPUDATA) {
        return Err(Errno::EINVAL);
    }
    let on_descriptor = filter::on_descriptor(row);
    if on_descriptor {
        filter::descriptor(change.ident)?;
    }
    ops.catch_up(queue);
    match queue.find(row, change.ident) {
        Some(slot) if ops.is_over(queue, slot) => hand_out::drop_knote(queue, slot),
        Some(slot) if has(EV_DELETE) => return delete(queue, slot),
        Some(slot) => match modify(queue, slot, change) {
            // The file of the knote was closed and the number is another's now.
            Err(Errno::ENOENT) if has(EV_ADD) && on_descriptor && queue.find(row, change.ident).is_none() => {}
            other => return other,
        },
        None => {}
    }
    if has(EV_ADD) { add(queue, row, change) } else { Err(absent(on_descriptor, change.ident)) }
}

/// Why there is no such knote: the descriptor is not open, or nobody registered it.
fn absent(on_descriptor: bool, ident: usize) -> Errno {
    if on_descriptor && !filter::descriptor(ident).is_ok_and(fd::is_open) { Errno::EBADF } else { Errno::ENOENT }
}

#[inline(always)]
fn add(queue: &mut Queue, row: u8, change: &Kevent) -> Result<()> {
    filter::ops(row).validate(change)?;
    queue.reserve(row, 1)?;
    let mut knote = Knote::new(change.ident, row);
    knote.udata = change.udata as usize;
    knote.fflags = change.fflags;
    knote.flags = change.flags & STORED_FLAGS;
    if change.flags & EV_DISABLE != 0 {
        knote.state &= !state::ENABLED;
    }
    let slot = queue.knotes.insert(knote);
    let kept = queue.knotes.set_data(slot, change.data);
    let attached = kept.and_then(|()| filter::attach(queue, slot, row));
    if let Err(errno) = attached.and_then(|()| queue.enter(slot)) {
        return refuse(queue, slot, errno);
    }
    force(queue, slot, change);
    Ok(())
}

#[cold]
fn refuse(queue: &mut Queue, slot: Slot, errno: Errno) -> Result<()> {
    queue.knotes.remove(slot);
    Err(errno)
}

#[inline(always)]
fn delete(queue: &mut Queue, slot: Slot) -> Result<()> {
    let detached = filter::ops(queue.knotes[slot].row).detach(queue, slot);
    queue.remove(slot);
    detached
}

fn modify(queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
    let before = (queue.knotes[slot], queue.knotes.data(slot));
    let knote = &mut queue.knotes[slot];
    if change.flags & EV_KEEPUDATA == 0 {
        knote.udata = change.udata as usize;
    }
    if change.flags & EV_DISABLE != 0 {
        knote.state &= !state::ENABLED;
        queue.knotes.dequeue(slot);
    } else if change.flags & (EV_ENABLE | EV_ADD) != 0 {
        // kqueue(2): adding an event enables it, unless EV_DISABLE says otherwise.
        knote.state |= state::ENABLED;
    }
    let name = queue.knotes.name(slot);
    let result = filter::ops(before.0.row).modify(queue, slot, change);
    if let Err(errno) = result {
        return Err(undo(queue, slot, name, &before, errno));
    }
    if before.0.has(state::FORCED) {
        queue.knotes.activate(slot);
    }
    force(queue, slot, change);
    result
}

/// A refused change leaves the knote as it was; one on a file that is gone, no knote.
fn undo(queue: &mut Queue, slot: Slot, name: u64, (before, data): &(Knote, isize), errno: Errno) -> Errno {
    if queue.knotes.resolve(name) != Some(slot) {
        return errno;
    }
    if matches!(errno, Errno::ENOENT | Errno::EBADF)
        && let Ok(fd) = filter::descriptor(before.ident)
    {
        queue.forget(fd);
        // The filter may have failed for another reason than the number.
        if queue.knotes.resolve(name) != Some(slot) {
            return if fd::is_open(fd) { Errno::ENOENT } else { Errno::EBADF };
        }
    }
    let knote = &mut queue.knotes[slot];
    knote.udata = before.udata;
    knote.fflags = before.fflags;
    knote.state = knote.state & state::QUEUED | before.state & !state::QUEUED;
    // There is room for it: it was there.
    let _ = queue.knotes.set_data(slot, *data);
    if before.has(state::QUEUED) {
        queue.knotes.activate(slot);
    }
    errno
}

/// EV_FORCEONESHOT: one event, whether the condition holds or not, and the knote goes.
fn force(queue: &mut Queue, slot: Slot, change: &Kevent) {
    if change.flags & EV_FORCEONESHOT != 0 {
        let knote = &mut queue.knotes[slot];
        knote.flags |= EV_ONESHOT;
        knote.state |= state::FORCED;
        queue.knotes.activate(slot);
    }
}
