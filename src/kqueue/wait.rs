//! Collecting events: what is ready in user space, what epoll brings, and the sleep.
//!
//! epoll's reports and the library's own activations go onto one first-in-first-out ready
//! list, from which events are handed out. A level knote that epoll watches leaves the
//! list and comes back with epoll's next report, behind the others; one the library
//! watches goes to the tail. So with room for one event all take turns.
//!
//! Each wait asks for one event more than there is room for: fewer than that, and the
//! close of the kqueue cannot have been left behind in epoll. What is left over is stale in
//! the next call and costs two system calls to ask anew, so that call takes as many fewer.

use super::readable::Call;
use super::{Kqueue, Locked, State};
use crate::abi::{EV_CLEAR, EV_DISPATCH, EV_EOF, EV_ONESHOT, Kevent};
use crate::debug::{self, Named};
use crate::errno::{Errno, Result};
use crate::filter::{self, Facts, Fate, Outcome, Queue, file, inodes, mounts, processes, signals, timers, token};
use crate::knote::{Knote, Slot, state};
use crate::sys::clock::Clock;
use crate::sys::epoll::{BATCH, Epoll, Events, Patience};
use crate::sys::memory::Output;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// How far collecting has come.
pub(super) enum Step {
    /// Over, with so many events handed out.
    Done(usize),
    /// Over: there was nothing.
    Nothing,
    /// The thread has to sleep as [`Round::left`] says, and then [`wake_up`]. The number was
    /// looked at, and is the kqueue's.
    Sleep { looked: bool },
}

/// What one call to collect knows. It stands in the caller's frame, through all sleeps.
pub(crate) struct Round {
    patience: Patience,
    /// When a wait with a time-out ends, ns; 0 before it is needed.
    deadline: u64,
    /// When the thread went to sleep first, ns; 0 if it did not.
    asleep_since: u64,
    /// What is left of the patience, for the wait at hand.
    left: Patience,
    /// How many events the wait at hand asks epoll for.
    asked: usize,
    /// epoll may have more to tell than the last wait brought.
    more: bool,
    /// A level event went out whose condition may well still hold.
    level: bool,
    /// A handler of the program's ran in the sleep that is just over: without an event that
    /// is EINTR.
    interrupted: bool,
}

impl Round {
    pub(crate) fn new(patience: Patience) -> Round {
        let deadline = match patience {
            Patience::Nanos(ns) => Clock::Monotonic.now().saturating_add(ns),
            _ => 0,
        };
        Round {
            patience,
            deadline,
            asleep_since: 0,
            left: patience,
            asked: 0,
            more: false,
            level: false,
            interrupted: false,
        }
    }

    /// Works out what is left of the patience. Once it has run out the next wait is the last.
    fn look_at_the_clock(&mut self) {
        self.left = match self.patience {
            Patience::Nanos(_) => match self.deadline.saturating_sub(Clock::Monotonic.now()) {
                0 => Patience::None,
                ns => Patience::Nanos(ns),
            },
            other => other,
        };
    }

    fn is_over(&self) -> bool {
        matches!(self.left, Patience::None)
    }

    /// How long the thread may sleep.
    pub(super) fn left(&self) -> Patience {
        self.left
    }

    /// The thread goes to sleep now, with nothing left to be done before.
    pub(super) fn note_sleep(&mut self) {
        if self.asleep_since == 0 {
            self.asleep_since = Clock::Monotonic.now();
        }
    }

    /// Whether the thread was asleep, and did not just find something there already.
    pub(super) fn has_slept(&self) -> bool {
        self.asleep_since != 0 && Clock::Monotonic.now().saturating_sub(self.asleep_since) > MOMENT
    }
}

/// More than a wait takes that finds something at once, less than a nap that another
/// thread can have seen, ns.
const MOMENT: u64 = 300_000;

/// Waits as `patience` allows and hands out events, up to where the thread has to sleep.
pub(super) fn collect(
    kqueue: &Arc<Kqueue>,
    mut state: Locked<'_>,
    number: RawFd,
    found: &mut Events,
    out: &mut Output<Kevent>,
    round: &mut Round,
) -> Result<Step> {
    signals::begin(&mut state.queue);
    file::look_at_ends(&mut state.queue);
    go_on(kqueue, state, number, found, out, round, None)
}

/// The thread has slept, and `waited` is how that went: takes up what it `found`.
pub(super) fn wake_up(
    kqueue: &Arc<Kqueue>,
    number: RawFd,
    found: &mut Events,
    out: &mut Output<Kevent>,
    round: &mut Round,
    waited: Result<bool>,
) -> Result<Step> {
    round.interrupted = waited != Ok(false);
    let waited = waited.map(|_| ());
    let mut state = kqueue.state.lock();
    state.sleepers -= 1;
    state.queue.scan = state.queue.scan.wrapping_add(1);
    go_on(kqueue, state, number, found, out, round, Some(waited))
}

/// The thread was cancelled in its sleep. With it may be lost what epoll had given it:
/// everything is asked anew.
pub(super) fn give_up(kqueue: &Arc<Kqueue>, number: RawFd, found: &Events) {
    let mut state = kqueue.state.lock();
    state.sleepers -= 1;
    if found.is_touched() {
        filter::rebuild::ask_anew(&mut state.queue);
    }
    kqueue.leave(state, number, Call::Wait);
}

fn go_on(
    kqueue: &Arc<Kqueue>,
    mut state: Locked<'_>,
    number: RawFd,
    found: &mut Events,
    out: &mut Output<Kevent>,
    round: &mut Round,
    mut slept: Option<Result<()>>,
) -> Result<Step> {
    let result = loop {
        let waited = match slept.take() {
            Some(waited) => waited,
            None => {
                state.queue.scan = state.queue.scan.wrapping_add(1);
                round.look_at_the_clock();
                signals::gather(&mut state.queue);
                if state.queue.knotes.ready() == 0 && !round.is_over() {
                    signals::before_sleep(&mut state.queue);
                }
                if state.queue.knotes.ready() == 0 && !round.is_over() {
                    round.asked = most(out.room());
                    let looked = super::readable::before_sleep(kqueue, &mut state, number);
                    if looked == Some(false) {
                        break Ok(Step::Nothing);
                    }
                    fall_asleep(&mut state);
                    return Ok(Step::Sleep { looked: looked.is_some() });
                }
                round.asked = wanted(&state.queue, out.room());
                kqueue.epoll.look(found, round.asked)
            }
        };
        let waited = match waited {
            // A signal is noted before its handler runs: its event comes instead.
            Err(Errno::EINTR) if signals::gather(&mut state.queue) => {
                found.set_len(0);
                Ok(())
            }
            // The program has closed the epoll's number.
            Err(errno) if errno != Errno::EINTR => {
                kqueue.end();
                Err(errno)
            }
            other => other,
        };
        if let Err(errno) = waited.and_then(|()| take_up(kqueue, &mut state, found, out.room(), round)) {
            break Err(if kqueue.is_closed() { Errno::EBADF } else { errno });
        }
        match hand_out_all(kqueue, &mut state, found, out, round) {
            Ok(()) if out.len() == 0 && round.interrupted => break Err(Errno::EINTR),
            Ok(()) if out.len() == 0 && !round.is_over() => {}
            Ok(()) if out.len() == 0 => break Ok(Step::Nothing),
            Ok(()) => break Ok(Step::Done(out.len())),
            Err(errno) => break Err(errno),
        }
    };
    let habit = if matches!(round.patience, Patience::None) { Call::Poll } else { Call::Wait };
    let call = if round.level || round.more { Call::StillPending(habit.into()) } else { habit };
    if out.len() == 0 && matches!(call, Call::Poll) {
        kqueue.leave(state, number, Call::FoundNothing);
    } else {
        kqueue.leave(state, number, call);
    }
    result
}

/// How many events to ask epoll for when there is `room`: one more, which tells that there
/// are more.
pub(super) fn most(room: usize) -> usize {
    room.saturating_add(1).min(BATCH)
}

/// The same beside what is on the ready list already. That is taken into account only where
/// all that would be handed out comes from epoll and leaves the list for it: other knotes
/// that stay, or that come onto the list by themselves, would overtake what is left in
/// epoll, and an event that adds up would go out in part. With room for one event it is
/// always a stale one, and only asking whether the kqueue is closed would come on top.
fn wanted(queue: &Queue, room: usize) -> usize {
    let ready = queue.knotes.ready();
    if ready == 0 || room == 1 || !next(queue, room).all(filter::fd::is_told_by_epoll) {
        return most(room);
    }
    most(room.saturating_sub(ready))
}

/// The knotes on the ready list that there is `room` for.
fn next(queue: &Queue, room: usize) -> impl Iterator<Item = &Knote> {
    let slots = core::iter::successors(queue.knotes.front(), |&slot| queue.knotes.after(slot));
    slots.take(room).map(|slot| &queue.knotes[slot])
}

/// Gets a kqueue ready for a thread to sleep in its epoll, without the lock.
fn fall_asleep(state: &mut State) {
    state.dim_if_empty();
    state.queue.timers.arm();
    state.sleepers += 1;
}

/// Takes up what a wait has found.
fn take_up(kqueue: &Arc<Kqueue>, state: &mut State, found: &mut Events, room: usize, round: &mut Round) -> Result<()> {
    if kqueue.is_closed() {
        return Err(Errno::EBADF);
    }
    round.more = found.len() == round.asked;
    absorb(kqueue, state, found)?;
    if round.is_over() && state.queue.knotes.ready() == 0 {
        inodes::catch_up(&mut state.queue);
    }
    if falls_short(&state.queue, room, round) {
        round.asked = most(room.saturating_sub(state.queue.knotes.ready()));
        kqueue.epoll.look(found, round.asked)?;
        absorb(kqueue, state, found)?;
        round.more = found.len() == round.asked;
    }
    let more = round.more && edge_waits(&state.queue, room) || falls_short(&state.queue, room, round);
    if more || signals::take_echo(&mut state.queue) {
        take_all(kqueue, state, found, round)?;
    }
    // A close may be hidden behind events there was no room for.
    if round.more && room < BATCH && kqueue.held.is_hung_up() {
        kqueue.end();
        return Err(Errno::EBADF);
    }
    Ok(())
}

/// Whether one of the next `room` ready knotes is an edge of an earlier scan, or the news of
/// a process. epoll may hold another edge of it by now, and both are one event.
fn edge_waits(queue: &Queue, room: usize) -> bool {
    next(queue, room)
        .any(|knote| knote.flags & EV_CLEAR != 0 && knote.hinted != queue.scan && filter::ops(knote.row).adds_up())
}

/// Whether a wait that was asked for fewer events, since others were ready, brought some of
/// those once more, or what is no event. Nearly always the next wait makes up for that.
fn falls_short(queue: &Queue, room: usize, round: &Round) -> bool {
    round.more && round.asked < most(room) && queue.knotes.ready() <= room
}

/// Takes all that epoll holds, so that its edges meet those that wait on the ready list.
fn take_all(kqueue: &Arc<Kqueue>, state: &mut State, found: &mut Events, round: &mut Round) -> Result<()> {
    for _ in 0..LOOKS {
        kqueue.epoll.look(found, BATCH)?;
        absorb(kqueue, state, found)?;
        round.more = found.len() == BATCH;
        if !round.more {
            break;
        }
    }
    Ok(())
}

/// Takes over what epoll reported: queues knotes, notes wake-ups. EBADF: the program has
/// closed the kqueue.
fn absorb(kqueue: &Arc<Kqueue>, state: &mut State, events: &Events) -> Result<()> {
    for (token, mask) in events.iter() {
        match token {
            token::SENTINEL => {
                kqueue.end();
                return Err(Errno::EBADF);
            }
            token::WAKE => {
                state.queue.waker.taken();
                state.queue.take_letters();
                processes::take_news(&mut state.queue);
                signals::gather(&mut state.queue);
            }
            token::TIMER_MONOTONIC => timers::expire(&mut state.queue, Clock::Monotonic),
            token::TIMER_REALTIME => timers::expire(&mut state.queue, Clock::Realtime),
            token::INODES => inodes::collect(&mut state.queue),
            token::MOUNTS => mounts::collect(&mut state.queue),
            token::SIGNALS => signals::take(&mut state.queue),
            token::PROCESSES => processes::collect(&mut state.queue),
            token if token & token::KNOTE == token::KNOTE => state.queue.reported(token & !token::KNOTE),
            token if token & token::SOURCE != 0 => absorb_set(&mut state.queue, token - token::SETS),
            token => filter::fd::report(&mut state.queue, token, 0, mask),
        }
    }
    if state.queue.fds.orphaned {
        rebuild(kqueue, state);
    }
    Ok(())
}

/// Gets rid of entries nobody can remove from the epoll.
fn rebuild(kqueue: &Arc<Kqueue>, state: &mut State) {
    let enter_own = |epoll: &Epoll| epoll.add(kqueue.held.as_raw_fd(), 0, token::SENTINEL);
    if filter::rebuild::rebuild(&mut state.queue, enter_own) {
        kqueue.watchers.renewed();
        super::readable::after_rebuild(kqueue, state);
    }
}

/// Reads a nested set that reported itself. Never inlined: it needs a stack page of its own,
/// and after a fork each page that is touched is copied.
#[inline(never)]
fn absorb_set(queue: &mut Queue, set: u64) {
    let Ok(set) = usize::try_from(set) else { return };
    let mut events = Events::new();
    for _ in 0..LOOKS {
        let Some(epoll) = queue.fds.nested(set) else { return };
        if epoll.look(&mut events, BATCH).is_err() {
            return;
        }
        for (token, mask) in events.iter() {
            filter::fd::report(queue, token, set, mask);
        }
        if events.len() < BATCH {
            return;
        }
    }
}

/// Hands out what is ready, and fetches more from epoll for as long as there is room and
/// epoll has more. Level entries come again and again, in turn: after as many batches as
/// repeat what was on the ready list before, one that brings no new event is the last.
fn hand_out_all(
    kqueue: &Arc<Kqueue>,
    state: &mut State,
    found: &mut Events,
    out: &mut Output<Kevent>,
    round: &mut Round,
) -> Result<()> {
    let repeats = state.queue.knotes.ready().div_ceil(BATCH).max(1);
    let mut fruitless = 0;
    loop {
        let before = out.len();
        if let Err(errno) = hand_out(&mut state.queue, out, &mut round.level) {
            return if out.len() > 0 { Ok(()) } else { Err(errno) };
        }
        fruitless = if out.len() > before { 0 } else { fruitless + 1 };
        let enough = if out.len() > 0 { repeats } else { LOOKS };
        if !round.more || out.room() == 0 || fruitless >= enough {
            return Ok(());
        }
        let max = most(out.room());
        if kqueue.epoll.look(found, max).is_err() {
            return Ok(());
        }
        round.more = found.len() == max;
        if absorb(kqueue, state, found).is_err() {
            // The events at hand were there before the close.
            return Ok(());
        }
    }
}

/// One pass over the ready list, up to where its tail is now.
fn hand_out(queue: &mut Queue, out: &mut Output<Kevent>, level: &mut bool) -> Result<()> {
    let mut left = queue.knotes.ready();
    while left > 0 && out.room() > 0 {
        let Some(slot) = queue.knotes.front() else { break };
        left -= 1;
        let name = queue.knotes.name(slot);
        queue.knotes.dequeue(slot);
        if queue.knotes[slot].seen == queue.scan {
            // Handed out in this call already.
            if !filter::fd::is_told_again(&queue.knotes[slot]) {
                queue.knotes.requeue(slot);
            }
            continue;
        }
        match filter::ops(queue.knotes[slot].row).deliver(queue, slot) {
            Outcome::Gone => forget(queue, slot, name),
            Outcome::Over => drop_knote(queue, slot),
            Outcome::NotReady if !queue.knotes[slot].has(state::FORCED) => {}
            Outcome::NotReady => emit(queue, slot, Facts::default(), out, level)?,
            Outcome::Ready(facts) => emit(queue, slot, facts, out, level)?,
        }
    }
    Ok(())
}

/// Drops all knotes on the descriptor of a knote whose file is gone.
fn forget(queue: &mut Queue, slot: Slot, name: u64) {
    if queue.knotes.resolve(name) != Some(slot) {
        return;
    }
    if let Ok(fd) = filter::descriptor(queue.knotes[slot].ident) {
        queue.forget(fd);
    }
}

fn drop_knote(queue: &mut Queue, slot: Slot) {
    let _ = filter::ops(queue.knotes[slot].row).detach(queue, slot);
    queue.remove(slot);
}

/// Writes one event and does what the knote's flags say.
fn emit(queue: &mut Queue, slot: Slot, facts: Facts, out: &mut Output<Kevent>, level: &mut bool) -> Result<()> {
    let knote = &queue.knotes[slot];
    let flags = knote.flags | if facts.last { EV_ONESHOT } else { 0 };
    let ops = filter::ops(knote.row);
    let event = Kevent {
        ident: knote.ident,
        filter: knote.filter,
        flags: flags | if facts.eof { EV_EOF } else { 0 },
        fflags: facts.fflags,
        data: facts.data,
        udata: facts.udata.unwrap_or(knote.udata) as *mut core::ffi::c_void,
    };
    if let Err(errno) = out.push(event) {
        queue.knotes.requeue(slot);
        return Err(errno);
    }
    debug::trace("kevent", format_args!("event {}", Named(&event)));
    queue.knotes[slot].seen = queue.scan;
    if flags & EV_ONESHOT != 0 {
        ops.settle(queue, slot, Fate::Spent);
        queue.remove(slot);
    } else if flags & EV_DISPATCH != 0 {
        queue.knotes[slot].state &= !state::ENABLED;
        ops.settle(queue, slot, Fate::Dispatched);
    } else if flags & EV_CLEAR != 0 {
        ops.settle(queue, slot, Fate::Cleared);
    } else {
        *level = true;
        ops.settle(queue, slot, Fate::Stays);
        if facts.again {
            queue.knotes.requeue(slot);
        }
    }
    Ok(())
}

/// Looks without consuming: afterwards exactly the knotes whose events are pending are on
/// the ready list.
pub(super) fn look(kqueue: &Arc<Kqueue>, state: &mut State) {
    state.queue.scan = state.queue.scan.wrapping_add(1);
    let mut events = Events::new();
    for _ in 0..LOOKS {
        if kqueue.epoll.look(&mut events, BATCH).is_err() || absorb(kqueue, state, &events).is_err() {
            return;
        }
        if events.len() < BATCH {
            break;
        }
    }
    let queue = &mut state.queue;
    let mut at = queue.knotes.front();
    while let Some(slot) = at {
        let name = queue.knotes.name(slot);
        let next = queue.knotes.after(slot).map(|next| queue.knotes.name(next));
        match filter::ops(queue.knotes[slot].row).deliver(queue, slot) {
            Outcome::Gone => forget(queue, slot, name),
            Outcome::Over => drop_knote(queue, slot),
            Outcome::NotReady if !queue.knotes[slot].has(state::FORCED) => queue.knotes.dequeue(slot),
            _ => {}
        }
        at = next.and_then(|next| queue.knotes.resolve(next));
    }
    state.dim_if_empty();
}

/// Batches taken at most where epoll is to be emptied: level entries come again in every
/// batch.
const LOOKS: usize = 8;
