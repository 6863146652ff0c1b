//! Handing out: what becomes of a knote on the ready list, and of its event.
//!
//! A filter says whether the knote is ready, and with what; the knote's flags say what it
//! becomes then. Nearly every event is one of a level knote or an EV_CLEAR one, in a harvest
//! of many: what is rarer stands in functions of its own, out of the loop's registers.

use crate::abi::{EV_DISPATCH, EV_EOF, EV_ONESHOT, Kevent};
use crate::debug::{self, Named};
use crate::errno::Result;
use crate::filter::{self, Facts, Fate, Filter, Outcome, Queue};
use crate::knote::{Knote, STORED_FLAGS, Slot, state};
use crate::sys::memory::Output;

/// One pass over the ready list, up to where its tail is now. An error comes alone, or in the
/// next call.
#[inline(never)]
pub(super) fn hand_out(queue: &mut Queue, out: &mut Output<Kevent>, level: &mut bool) -> Result<()> {
    let mut left = queue.knotes.ready();
    while left > 0 && out.room() > 0 {
        let Some(slot) = queue.knotes.front() else { break };
        left -= 1;
        let name = queue.knotes.name(slot);
        queue.knotes.dequeue(slot);
        if queue.knotes[slot].is_seen(queue.scan) {
            // Handed out in this call already.
            if !filter::fd::is_told_again(&queue.knotes[slot]) {
                queue.knotes.requeue(slot);
            }
            continue;
        }
        let ops = filter::ops(queue.knotes[slot].row);
        let facts = match ops.deliver(queue, slot) {
            Outcome::Ready(facts) => facts,
            other => match let_go(queue, slot, name, other) {
                Some(facts) => facts,
                None => continue,
            },
        };
        match emit(queue, slot, ops, facts, out) {
            Ok(is_level) => *level |= is_level,
            Err(errno) => return if out.len() > 0 { Ok(()) } else { Err(errno) },
        }
    }
    Ok(())
}

/// A knote has no event to tell, but for one that was forced.
#[inline(never)]
fn let_go(queue: &mut Queue, slot: Slot, name: u64, outcome: Outcome) -> Option<Facts> {
    match outcome {
        Outcome::Ready(facts) => return Some(facts),
        Outcome::NotReady if queue.knotes[slot].has(state::FORCED) => return Some(Facts::default()),
        Outcome::NotReady => {}
        Outcome::Gone => forget(queue, slot, name),
        Outcome::Over => drop_knote(queue, slot),
    }
    None
}

/// Drops a knote that says its file is gone, and those on its descriptor of which that is true.
pub(super) fn forget(queue: &mut Queue, slot: Slot, name: u64) {
    if queue.knotes.resolve(name) != Some(slot) {
        return;
    }
    if let Ok(fd) = filter::descriptor(queue.knotes[slot].ident) {
        queue.forget(fd);
    }
    // It may have said so for another reason than the number. Off the ready list it would stay
    // silent.
    if queue.knotes.resolve(name) == Some(slot) {
        drop_knote(queue, slot);
    }
}

pub(super) fn drop_knote(queue: &mut Queue, slot: Slot) {
    let _ = filter::ops(queue.knotes[slot].row).detach(queue, slot);
    queue.remove(slot);
}

/// The event of a knote.
#[inline]
fn event(knote: &Knote, facts: Facts) -> Kevent {
    let last = if facts.last { EV_ONESHOT } else { 0 };
    let eof = if facts.eof { EV_EOF } else { 0 };
    Kevent {
        ident: knote.ident,
        filter: knote.filter(),
        flags: knote.flags | last | eof,
        fflags: facts.fflags,
        data: facts.data,
        udata: facts.udata.unwrap_or(knote.udata) as *mut core::ffi::c_void,
    }
}

/// Writes one event and does what the knote's flags say. True: it is a level event.
#[inline]
fn emit(queue: &mut Queue, slot: Slot, ops: &dyn Filter, facts: Facts, out: &mut Output<Kevent>) -> Result<bool> {
    if let Err(errno) = out.push(event(&queue.knotes[slot], facts)) {
        queue.knotes.requeue(slot);
        return Err(errno);
    }
    if debug::is_on() {
        trace(&queue.knotes[slot], facts);
    }
    let knote = &mut queue.knotes[slot];
    knote.set_seen(queue.scan);
    if facts.last || knote.flags & STORED_FLAGS != 0 {
        settle(queue, slot, ops, facts.last);
        return Ok(false);
    }
    ops.settle(queue, slot, Fate::Stays);
    if facts.again {
        queue.knotes.requeue(slot);
    }
    Ok(true)
}

/// Does what the flags of a knote say whose event was handed out.
#[inline(never)]
fn settle(queue: &mut Queue, slot: Slot, ops: &dyn Filter, last: bool) {
    let flags = queue.knotes[slot].flags;
    if last || flags & EV_ONESHOT != 0 {
        ops.settle(queue, slot, Fate::Spent);
        queue.remove(slot);
    } else if flags & EV_DISPATCH != 0 {
        queue.knotes[slot].state &= !state::ENABLED;
        ops.settle(queue, slot, Fate::Dispatched);
    } else {
        ops.settle(queue, slot, Fate::Cleared);
    }
}

/// Makes the event once more, which thus is nowhere in memory where there is no trace.
#[cold]
#[inline(never)]
fn trace(knote: &Knote, facts: Facts) {
    debug::trace("kevent", format_args!("event {}", Named(&event(knote, facts))));
}
