//! Applying a changelist: kqueue(2)'s rules for one change, and for many.
//!
//! A change is refused or applied whole. The engine owns what all filters share (which
//! knote, its flags, udata, enabled or not); a filter is asked for its part through its
//! row. The state bits are set before the filter registers anything, so that a disabled
//! knote is never armed.

use super::{Kqueue, State, readable};
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
    state.queue.scan = state.queue.scan.wrapping_add(1);
    let entered = state.queue.entered;
    for (done, asked) in changes.iter().enumerate() {
        // Copied before the answer is written: both lists may be the same array.
        let asked = asked?;
        let mut change = asked;
        change.flags &= !EV_SYSFLAGS;
        let mut result = apply(&mut state.queue, &change);
        if core::mem::take(&mut state.queue.crowded) && readable::make_way(kqueue, state) && result.is_err() {
            result = apply(&mut state.queue, &change);
        }
        if state.queue.entered.wrapping_sub(entered) == MANY {
            readable::step_aside(kqueue, state, changes.len() - done);
        }
        if debug::is_on() {
            trace(asked, result.err());
        }
        let answer = match result {
            Ok(_) if change.flags & EV_RECEIPT == 0 => continue,
            Ok(receipt) => Kevent { flags: EV_ERROR, ..receipt },
            Err(errno) if events.room() == 0 => return Err(errno),
            Err(errno) => Kevent { flags: EV_ERROR, data: errno.raw() as isize, ..change },
        };
        if events.room() == 0 {
            return Ok(Next::Return);
        }
        events.push(answer)?;
    }
    Ok(Next::Collect)
}

#[cold]
#[inline(never)]
fn trace(asked: Kevent, refused: Option<Errno>) {
    let result = refused.map_or(Ok(()), Err);
    debug::trace("kevent", format_args!("change {} -> {result:?}", Named(&asked)));
}

/// Applies one change. The value is what a receipt shows, but for its flags.
fn apply(queue: &mut Queue, change: &Kevent) -> Result<Kevent> {
    if change.filter == EVFILT_LIBKQUEUE && change.flags & EV_ADD != 0 {
        filter::ops(filter::row(change.filter)?).validate(change)?;
        if let Some(answer) = filter::libkqueue::answer(change) {
            return Ok(answer);
        }
    }
    register(queue, change)?;
    Ok(Kevent { data: 0, ..*change })
}

/// kqueue(2)'s rules for one change.
fn register(queue: &mut Queue, change: &Kevent) -> Result<()> {
    let row = filter::row(change.filter)?;
    let ops = filter::ops(row);
    let has = |flag: u16| change.flags & flag != 0;
    if has(EV_ENABLE) && has(EV_DISABLE) || has(EV_ADD) && has(EV_KEEPUDATA) {
        return Err(Errno::EINVAL);
    }
    if ops.on_descriptor() {
        filter::descriptor(change.ident)?;
    }
    ops.catch_up(queue);
    let mut found = queue.find(row, change.ident, change.filter);
    if let Some(slot) = found
        && ops.is_over(queue, slot)
    {
        let _ = delete(queue, slot);
        found = None;
    }
    match found {
        Some(slot) if has(EV_DELETE) => delete(queue, slot),
        Some(slot) => match modify(queue, slot, change) {
            // The file of the knote was closed and the number is another's now.
            Err(Errno::ENOENT) if has(EV_ADD) && ops.on_descriptor() => add(queue, row, change),
            other => other,
        },
        None if has(EV_ADD) => add(queue, row, change),
        None => Err(absent(ops.on_descriptor(), change.ident)),
    }
}

/// Why there is no such knote: the descriptor is not open, or nobody registered it.
fn absent(on_descriptor: bool, ident: usize) -> Errno {
    if on_descriptor && !filter::descriptor(ident).is_ok_and(fd::is_open) { Errno::EBADF } else { Errno::ENOENT }
}

fn add(queue: &mut Queue, row: u8, change: &Kevent) -> Result<()> {
    filter::ops(row).validate(change)?;
    queue.reserve(1)?;
    let mut knote = Knote::new(change.ident, change.filter, row);
    knote.udata = change.udata as usize;
    knote.fflags = change.fflags;
    knote.data = change.data;
    knote.flags = change.flags & STORED_FLAGS;
    if change.flags & EV_DISABLE != 0 {
        knote.state &= !state::ENABLED;
    }
    let slot = queue.knotes.insert(knote);
    if let Err(errno) = filter::attach(queue, slot).and_then(|()| queue.enter(slot)) {
        queue.knotes.remove(slot);
        return Err(errno);
    }
    force(queue, slot, change);
    Ok(())
}

fn delete(queue: &mut Queue, slot: Slot) -> Result<()> {
    let detached = filter::ops(queue.knotes[slot].row).detach(queue, slot);
    queue.remove(slot);
    detached
}

fn modify(queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
    let before = queue.knotes[slot];
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
    let result = filter::ops(before.row).modify(queue, slot, change);
    if let Err(errno) = result {
        return Err(undo(queue, slot, name, &before, errno));
    }
    if before.has(state::FORCED) {
        queue.knotes.activate(slot);
    }
    force(queue, slot, change);
    result
}

/// A refused change leaves the knote as it was; one on a file that is gone, no knote.
fn undo(queue: &mut Queue, slot: Slot, name: u64, before: &Knote, errno: Errno) -> Errno {
    if queue.knotes.resolve(name) != Some(slot) {
        return errno;
    }
    if matches!(errno, Errno::ENOENT | Errno::EBADF)
        && let Ok(fd) = filter::descriptor(before.ident)
    {
        queue.forget(fd);
        return if fd::is_open(fd) { Errno::ENOENT } else { Errno::EBADF };
    }
    let knote = &mut queue.knotes[slot];
    knote.udata = before.udata;
    knote.fflags = before.fflags;
    knote.data = before.data;
    knote.state = knote.state & state::QUEUED | before.state & !state::QUEUED;
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
