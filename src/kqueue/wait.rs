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

use super::hand_out::{drop_knote, forget, hand_out};
use super::readable::Call;
use super::round::Round;
use super::{Kqueue, Locked, State};
use crate::abi::{EV_CLEAR, Kevent};
use crate::errno::{Errno, Result};
use crate::filter::{self, Outcome, Queue, file, inodes, mounts, processes, signals, timers, token};
use crate::knote::{Knote, state};
use crate::sys::clock::Clock;
use crate::sys::epoll::{BATCH, Epoll, Events};
use crate::sys::memory::Output;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// How far collecting has come.
pub(super) enum Step {
    /// Over, with so many events handed out.
    Done(usize),
    /// Over: there was nothing, and the number was not looked at.
    Nothing,
    /// The thread has to sleep as [`Round::left`] says, and then [`wake_up`]. The number was
    /// looked at, and is the kqueue's.
    Sleep { looked: bool },
}

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
    let mut state = kqueue.lock()?;
    state.sleepers -= 1;
    state.queue.fds.outdated = state.queue.fds.removed != round.removed;
    state.queue.next_scan();
    go_on(kqueue, state, number, found, out, round, Some(waited))
}

/// The thread was cancelled in its sleep. With it may be lost what epoll had given it:
/// everything is asked anew.
pub(super) fn give_up(kqueue: &Arc<Kqueue>, number: RawFd, found: &Events) {
    let Ok(mut state) = kqueue.lock() else { return };
    state.sleepers -= 1;
    if found.is_touched() {
        filter::rebuild::ask_anew(&mut state.queue);
    }
    kqueue.leave(state, number, Call::Wait);
}

/// Inlined, as is [`take_up`]: handing on what one call works with is dearer than the work.
#[inline(always)]
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
                state.queue.next_scan();
                round.look_at_the_clock();
                signals::gather(&mut state.queue);
                if state.queue.knotes.ready() == 0 && !round.is_over() {
                    round.span = signals::before_sleep(&mut state.queue);
                    if state.queue.knotes.ready() == 0 {
                        round.asked = most(out.room());
                        let looked = super::readable::before_sleep(kqueue, &mut state, number);
                        if looked == Some(false) {
                            break Err(Errno::EBADF);
                        }
                        fall_asleep(&mut state, round);
                        return Ok(Step::Sleep { looked: looked.is_some() });
                    }
                }
                let room = out.room();
                round.asked = if state.queue.knotes.ready() > 0 { wanted(&state.queue, room) } else { most(room) };
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
        let taken = match waited {
            Ok(()) => take_up(kqueue, &mut state, found, out.room(), round),
            Err(errno) => Err(errno),
        };
        if let Err(errno) = taken {
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
    let habit = if round.is_patient() { Call::Wait } else { Call::Poll };
    let call = if round.level || round.more { Call::StillPending(habit.into()) } else { habit };
    let call = if out.len() == 0 && matches!(call, Call::Poll) { Call::FoundNothing } else { call };
    match (result, kqueue.leave(state, number, call)) {
        (Ok(Step::Nothing), true) => Ok(Step::Done(0)),
        (result, _) => result,
    }
}

/// How many events to ask epoll for when there is `room`: one more, which tells that there
/// are more.
pub(super) fn most(room: usize) -> usize {
    room.min(BATCH - 1) + 1
}

/// The same beside what is on the ready list already. That is taken into account only where
/// all that would be handed out comes from epoll and leaves the list for it: other knotes
/// that stay, or that come onto the list by themselves, would overtake what is left in
/// epoll, and an event that adds up would go out in part. With room for one event it is
/// always a stale one, and only asking whether the kqueue is closed would come on top.
fn wanted(queue: &Queue, room: usize) -> usize {
    if room == 1 || !next(queue, room).all(filter::fd::is_told_by_epoll) {
        return most(room);
    }
    most(room.saturating_sub(queue.knotes.ready()))
}

/// The knotes on the ready list that there is `room` for.
fn next(queue: &Queue, room: usize) -> impl Iterator<Item = &Knote> {
    let slots = core::iter::successors(queue.knotes.front(), |&slot| queue.knotes.after(slot));
    slots.take(room).map(|slot| &queue.knotes[slot])
}

/// Gets a kqueue ready for a thread to sleep in its epoll, without the lock.
fn fall_asleep(state: &mut State, round: &mut Round) {
    state.dim_if_empty();
    state.queue.timers.arm();
    round.removed = state.queue.fds.removed;
    state.sleepers += 1;
}

/// Takes up what a wait has found.
#[inline(always)]
fn take_up(kqueue: &Arc<Kqueue>, state: &mut State, found: &mut Events, room: usize, round: &mut Round) -> Result<()> {
    if kqueue.is_closed() {
        return Err(Errno::EBADF);
    }
    round.more = found.len() == round.asked;
    absorb(kqueue, state, found)?;
    if core::mem::take(&mut state.queue.fds.asked_anew) {
        take_once_more(kqueue, state, found, round)?;
    }
    if round.is_over() && state.queue.knotes.ready() == 0 {
        inodes::catch_up(&mut state.queue);
        processes::take_news(&mut state.queue);
    }
    let all = round.more && take_more(kqueue, state, found, room, round)?;
    if all || signals::take_echo(&mut state.queue) {
        take_all(kqueue, state, found, round)?;
    }
    // A close may be hidden behind events there was no room for.
    if round.more && room < BATCH && kqueue.held.is_hung_up() {
        kqueue.end();
        return Err(Errno::EBADF);
    }
    Ok(())
}

/// What was found was too old to be told, and epoll was asked for it anew.
#[cold]
fn take_once_more(kqueue: &Arc<Kqueue>, state: &mut State, found: &mut Events, round: &mut Round) -> Result<()> {
    kqueue.epoll.look(found, round.asked)?;
    round.more = found.len() == round.asked;
    absorb(kqueue, state, found)
}

/// epoll may have more: waits again where the first wait fell short. True: all that there is
/// has to be taken.
#[inline(never)]
fn take_more(
    kqueue: &Arc<Kqueue>,
    state: &mut State,
    found: &mut Events,
    room: usize,
    round: &mut Round,
) -> Result<bool> {
    if falls_short(&state.queue, room, round) {
        round.asked = most(room.saturating_sub(state.queue.knotes.ready()));
        kqueue.epoll.look(found, round.asked)?;
        absorb(kqueue, state, found)?;
        round.more = found.len() == round.asked;
    }
    Ok(round.more && edge_waits(&state.queue, room) || falls_short(&state.queue, room, round))
}

/// Whether one of the next `room` ready knotes is an edge of an earlier scan, or the news of
/// a process. epoll may hold another edge of it by now, and both are one event.
fn edge_waits(queue: &Queue, room: usize) -> bool {
    next(queue, room)
        .any(|knote| knote.flags & EV_CLEAR != 0 && knote.hint(queue.scan).is_none() && filter::adds_up(knote.row))
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
        if token & token::SOURCE == 0 {
            filter::fd::report(&mut state.queue, token, 0, mask);
            continue;
        }
        match token {
            token::SENTINEL => {
                kqueue.end();
                return Err(Errno::EBADF);
            }
            token::WAKE => {
                state.queue.waker.taken();
                state.told = None;
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
            token => absorb_set(&mut state.queue, token - token::SETS),
        }
    }
    state.queue.fds.outdated = false;
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
        super::readable::after_rebuild(state);
    }
}

/// Reads a nested set that reported itself. Never inlined: it needs a stack page of its own,
/// and after a fork each page that is touched is copied.
#[inline(never)]
fn absorb_set(queue: &mut Queue, set: u64) {
    let Ok(set) = usize::try_from(set) else { return };
    let (mut events, mut emptying) = (Events::new(), Emptying::of(queue));
    while let Some(epoll) = queue.fds.nested(set)
        && epoll.look(&mut events, BATCH).is_ok()
    {
        for (token, mask) in events.iter() {
            filter::fd::report(queue, token, set, mask);
        }
        if !emptying.goes_on(queue, events.len()) {
            return;
        }
    }
}

/// How an epoll is emptied in which level entries come again in every batch, in turn.
struct Emptying {
    /// Those of knotes, as of the last batch.
    activations: u32,
    /// How many batches have brought none in a row.
    fruitless: usize,
}

impl Emptying {
    fn of(queue: &Queue) -> Emptying {
        Emptying { activations: queue.knotes.activations(), fruitless: 0 }
    }

    /// A batch of `len` was taken up: whether another may bring what is not on the ready list.
    fn goes_on(&mut self, queue: &Queue, len: usize) -> bool {
        let before = core::mem::replace(&mut self.activations, queue.knotes.activations());
        self.fruitless = if self.activations == before { self.fruitless + 1 } else { 0 };
        len == BATCH && self.fruitless < queue.knotes.ready().div_ceil(BATCH).max(1)
    }
}

/// Hands out what is ready, and fetches more from epoll for as long as there is room and
/// epoll has more.
fn hand_out_all(
    kqueue: &Arc<Kqueue>,
    state: &mut State,
    found: &mut Events,
    out: &mut Output<Kevent>,
    round: &mut Round,
) -> Result<()> {
    let ready = state.queue.knotes.ready();
    hand_out(&mut state.queue, out, &mut round.level)?;
    if round.more { hand_out_more(kqueue, state, found, out, round, ready) } else { Ok(()) }
}

/// Level entries come again and again, in turn: after as many batches as repeat what was
/// `ready` before, one that brings no new event is the last.
#[inline(never)]
fn hand_out_more(
    kqueue: &Arc<Kqueue>,
    state: &mut State,
    found: &mut Events,
    out: &mut Output<Kevent>,
    round: &mut Round,
    ready: usize,
) -> Result<()> {
    let repeats = ready.div_ceil(BATCH).max(1);
    let mut fruitless = usize::from(out.len() == 0);
    while round.more && out.room() > 0 && fruitless < if out.len() > 0 { repeats } else { LOOKS } {
        let max = most(out.room());
        if kqueue.epoll.look(found, max).is_err() {
            break;
        }
        round.more = found.len() == max;
        if absorb(kqueue, state, found).is_err() {
            // The events at hand were there before the close.
            break;
        }
        let before = out.len();
        hand_out(&mut state.queue, out, &mut round.level)?;
        fruitless = if out.len() > before { 0 } else { fruitless + 1 };
    }
    Ok(())
}

/// Looks without consuming: afterwards exactly the knotes whose events are pending are on
/// the ready list; where only `some` matter, not all of a great many.
pub(super) fn look(kqueue: &Arc<Kqueue>, state: &mut State, some: bool) {
    state.queue.next_scan();
    let (mut events, mut emptying) = (Events::new(), Emptying::of(&state.queue));
    let batches = if some { LOOKS } else { usize::MAX };
    for _ in 0..batches {
        if kqueue.epoll.look(&mut events, BATCH).is_err() || absorb(kqueue, state, &events).is_err() {
            return;
        }
        if !emptying.goes_on(&state.queue, events.len()) {
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
