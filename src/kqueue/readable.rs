//! The descriptor as poll(2) sees it: readable exactly while events are pending.
//!
//! E is what becomes ready, U is what is polled. For kernel events the monitor has E in
//! its own epoll, one-shot; when E becomes ready it looks under the lock and puts a byte
//! into the pipe.
//!
//! | state | byte in the pipe | the monitor watches E | when |
//! | --- | --- | --- | --- |
//! | `Armed` | no | yes | nothing was pending and the program may poll |
//! | `Fired` | yes | no | something is pending |
//! | `Off` | no | no, E is not even in its epoll | a thread waits in kevent(), or just has: what comes is its |
//!
//! Arming whenever a call leaves would wake the monitor for every event that arrives
//! while a busy program works. A call that finds nothing without waiting arms at once:
//! that program polls. One that waited leaves the kqueue `Off` and *left*: the monitor
//! arms it when it stays away for longer than a tick, which grows while it keeps coming
//! back. All changes are made under the kqueue's lock.

use super::monitor::Post;
use super::{Kqueue, State, wait};
use crate::errno::{Errno, Result};
use crate::filter::signals;
use crate::sys::fd;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// The three states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    Armed,
    Fired,
    Off,
}

/// How the monitor hears of the kqueue's close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Notice {
    /// By E alone, which it watches while the kqueue is `Armed`.
    Watch,
    /// The same, after a signal was asked for.
    Hushed,
    /// By a signal.
    Signal,
    /// By L, which stands in its epoll for good, where the signal could not be had.
    Entry,
}

/// What a call was like, for what it says about the program's habits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// It only made changes.
    Change,
    /// It collected without waiting.
    Poll,
    /// It collected without waiting, and there was nothing.
    FoundNothing,
    /// It was willing to wait.
    Wait,
    /// It collected, and events may be pending still; true: it was willing to wait.
    StillPending(bool),
}

impl From<Call> for bool {
    fn from(call: Call) -> bool {
        matches!(call, Call::Wait | Call::StillPending(true))
    }
}

/// The shortest and the longest tick, ns.
const TICK: u64 = 2_000_000;
const LONGEST_TICK: u64 = 50_000_000;

/// How a kqueue stands with its pollers.
pub(super) struct Readable {
    monitor: Arc<Post>,
    pub(super) mark: Mark,
    notice: Notice,
    /// E stands in the monitor's epoll.
    watched: bool,
    /// Counts the calls that collected and left it `Off`.
    leaves: u32,
    /// `leaves` at the last tick.
    ticked: u32,
    /// The monitor ticks for it.
    ticking: bool,
    /// How long it may stay away, ns.
    tick: u64,
}

impl Readable {
    pub(super) fn new(monitor: Arc<Post>) -> Readable {
        let (mark, notice) = (Mark::Armed, Notice::Watch);
        Readable { monitor, mark, notice, watched: true, leaves: 0, ticked: 0, ticking: false, tick: TICK }
    }
}

/// Another monitor takes over from one that the program closed descriptors of.
pub(super) fn hand_over(kqueue: &Arc<Kqueue>, state: &mut State, monitor: Arc<Post>) {
    kqueue.waker.use_instead(monitor.always_ready());
    unwatch(kqueue, state);
    let readable = &mut state.readable;
    (readable.monitor, readable.notice, readable.ticking) = (monitor, Notice::Watch, false);
    match readable.mark {
        Mark::Armed => arm(kqueue, state),
        Mark::Off => {
            listen(kqueue, state);
            left(kqueue, state);
        }
        Mark::Fired => listen(kqueue, state),
    }
    // The last wake-ups may have gone nowhere.
    if state.sleepers > 0 {
        kqueue.waker.wake();
    }
}

/// A thread is about to sleep: no byte may stand in the pipe, and what comes is its own.
/// Whether `number` still is the kqueue's is looked at only where this takes a system call in
/// any case: once for all the sleeps that follow one another.
pub(super) fn before_sleep(kqueue: &Kqueue, state: &mut State, number: RawFd) -> Option<bool> {
    let named = match state.readable.mark {
        Mark::Off => return None,
        Mark::Fired => unmark(kqueue, state, number),
        Mark::Armed => kqueue.stands_behind(number),
    };
    if named {
        switch_off(kqueue, state);
    }
    Some(named)
}

/// A close that came before the monitor hears of it otherwise is found by the thread that
/// goes to sleep, or by the tick.
fn switch_off(kqueue: &Kqueue, state: &mut State) {
    listen(kqueue, state);
    unwatch(kqueue, state);
    state.readable.mark = Mark::Off;
}

/// Makes way for a descriptor that epoll refuses as long as the monitor watches. What is
/// shown already needs no watch.
pub(super) fn make_way(kqueue: &Arc<Kqueue>, state: &mut State) -> bool {
    if state.readable.mark == Mark::Armed && state.readable.watched {
        switch_off(kqueue, state);
        left(kqueue, state);
        return true;
    }
    unwatch(kqueue, state)
}

/// Has the monitor watch no more for the rest of a call, if that makes up for the time it
/// takes to begin again, which grows with what is in the epoll; `coming` changes are left.
/// [`leave`] begins again.
pub(super) fn step_aside(kqueue: &Kqueue, state: &mut State, coming: usize) {
    if state.readable.mark == Mark::Armed && state.queue.knotes.len() <= coming * 8 {
        unwatch(kqueue, state);
    }
}

/// True: it watched.
fn unwatch(kqueue: &Kqueue, state: &mut State) -> bool {
    let watched = core::mem::take(&mut state.readable.watched);
    if watched {
        state.readable.monitor.unwatch(&kqueue.epoll);
    }
    watched
}

/// Whether `number` was the kqueue's. If it has become another file, the pipe is closed, or a
/// call under another of its numbers takes the byte out: until then the kqueue stays `Fired`.
fn unmark(kqueue: &Kqueue, state: &mut State, number: RawFd) -> bool {
    // What takes a byte out of the pipe sends the signal, too. The monitor is about to watch E
    // again, or to ask for the signal.
    if state.readable.notice == Notice::Signal {
        kqueue.held.hush();
        state.readable.notice = Notice::Hushed;
    }
    // With nothing in between: the number may become another file's.
    let named = kqueue.stands_behind(number);
    if named {
        kqueue.held.unmark(number);
    } else {
        listen(kqueue, state);
    }
    named
}

/// Has the monitor hear of the close when it does not watch E, if that can be had.
fn listen(kqueue: &Kqueue, state: &mut State) {
    let (held, monitor) = (&kqueue.held, &state.readable.monitor);
    let notified = match state.readable.notice {
        Notice::Watch => held.notify(monitor.tid()),
        Notice::Hushed => held.notify_again(monitor.tid()),
        Notice::Signal | Notice::Entry => return,
    };
    if notified.is_ok() {
        state.readable.notice = Notice::Signal;
    // A number that is the program's by now would tell a file of its own to who knows whom.
    } else if held.is_intact() && monitor.watch_end(held.as_raw_fd()).is_ok() {
        state.readable.notice = Notice::Entry;
    }
}

fn fire(kqueue: &Arc<Kqueue>, state: &mut State) {
    listen(kqueue, state);
    // A close that came before that shows here, and so does one of the held end.
    if matches!(kqueue.held.mark(), Err(Errno::EPIPE | Errno::EBADF)) {
        kqueue.end();
    }
    state.readable.mark = Mark::Fired;
}

/// Has the monitor watch, or shows at once what is pending already.
fn arm(kqueue: &Arc<Kqueue>, state: &mut State) {
    if kqueue.is_closed() {
        return;
    }
    if state.queue.knotes.ready() > 0 {
        return fire(kqueue, state);
    }
    state.readable.mark = Mark::Armed;
    if watch_and_wake(kqueue, state).is_err() {
        // Without a watch it is looked at in each tick.
        switch_off(kqueue, state);
        left(kqueue, state);
    }
}

/// Has the monitor watch in such a way that wake-ups can come. They share one descriptor, to
/// which epoll lets only so many paths lead.
fn watch_and_wake(kqueue: &Kqueue, state: &mut State) -> Result<()> {
    let woken = state.queue.expects_wakes();
    match watch(kqueue, state) {
        Ok(()) if woken => state.queue.waker.prepare(),
        Err(_) if !woken => {
            state.queue.waker.withdraw();
            watch(kqueue, state)
        }
        other => other,
    }
}

fn watch(kqueue: &Kqueue, state: &mut State) -> Result<()> {
    let held = kqueue.held.as_raw_fd();
    if state.readable.watched {
        return state.readable.monitor.watch_on(&kqueue.epoll, held);
    }
    state.readable.monitor.watch(&kqueue.epoll, held)?;
    state.readable.watched = true;
    Ok(())
}

/// A call is over. True: its number was looked at, and is the kqueue's.
#[inline(always)]
pub(super) fn leave(kqueue: &Arc<Kqueue>, state: &mut State, number: RawFd, call: Call) -> bool {
    if state.sleepers > 0 {
        return false;
    }
    let ready = state.queue.knotes.ready() > 0;
    match state.readable.mark {
        Mark::Off => match call {
            Call::FoundNothing => arm(kqueue, state),
            // Who makes changes is not the one who collects: that one may be in poll() by now.
            Call::Change => keep_an_eye(kqueue, state),
            _ => left(kqueue, state),
        },
        Mark::Armed if ready => fire(kqueue, state),
        Mark::Armed if !state.readable.watched => arm(kqueue, state),
        Mark::Armed => {}
        Mark::Fired => return leave_fired(kqueue, state, number, call, ready),
    }
    false
}

fn leave_fired(kqueue: &Arc<Kqueue>, state: &mut State, number: RawFd, call: Call, ready: bool) -> bool {
    match call {
        // Only an exact look tells whether a change took away the last pending event.
        Call::Change if !ready => clear_if_empty(kqueue, state, number),
        Call::Change | Call::StillPending(_) => {}
        _ if ready => {}
        Call::Wait => {
            let named = unmark(kqueue, state, number);
            if named {
                switch_off(kqueue, state);
                left(kqueue, state);
            }
            return named;
        }
        Call::Poll | Call::FoundNothing => {
            let named = unmark(kqueue, state, number);
            if named {
                state.readable.tick = TICK;
                arm(kqueue, state);
            }
            return named;
        }
    }
    false
}

/// Looks what is pending, on behalf of those who only see the descriptor or its epoll.
fn look(kqueue: &Arc<Kqueue>, state: &mut State) {
    signals::expect(&mut state.queue);
    wait::look(kqueue, state, true);
    state.queue.timers.arm();
    state.tell_watchers(kqueue);
}

/// Somebody else looked. What that brought onto the ready list does not show in the epoll
/// any more, where the monitor would have seen it.
pub(super) fn looked(kqueue: &Arc<Kqueue>, state: &mut State) {
    let seen = state.readable.watched && state.queue.knotes.ready() == 0;
    if state.readable.mark == Mark::Armed && !seen {
        arm(kqueue, state);
    }
}

fn clear_if_empty(kqueue: &Arc<Kqueue>, state: &mut State, number: RawFd) {
    if fd::poll_now(kqueue.epoll.as_raw_fd(), libc::POLLIN) != 0 {
        look(kqueue, state);
        if state.queue.knotes.ready() > 0 {
            return;
        }
    }
    if unmark(kqueue, state, number) {
        arm(kqueue, state);
    }
}

/// The program has gone away with the kqueue `Off`: the monitor keeps an eye on that.
fn left(kqueue: &Arc<Kqueue>, state: &mut State) {
    state.readable.leaves = state.readable.leaves.wrapping_add(1);
    keep_an_eye(kqueue, state);
}

fn keep_an_eye(kqueue: &Arc<Kqueue>, state: &mut State) {
    if !state.readable.ticking {
        begin_to_tick(kqueue, state);
    }
}

#[cold]
fn begin_to_tick(kqueue: &Arc<Kqueue>, state: &mut State) {
    state.readable.ticking = true;
    state.readable.ticked = state.readable.leaves.wrapping_sub(1);
    state.readable.monitor.tick(Arc::downgrade(kqueue), state.readable.tick);
}

/// The monitor's tick. The value is the next tick's length, ns; `None`: no more ticks.
pub(super) fn tick(kqueue: &Arc<Kqueue>) -> Option<u64> {
    kqueue.look_at_numbers();
    let mut state = kqueue.state.lock_after_others();
    let state = &mut *state;
    let came_back = state.readable.leaves != state.readable.ticked;
    state.readable.ticked = state.readable.leaves;
    if came_back {
        state.readable.tick = (state.readable.tick * 2).min(LONGEST_TICK);
        return Some(state.readable.tick);
    }
    if state.sleepers == 0 && state.readable.mark == Mark::Off {
        look(kqueue, state);
        arm(kqueue, state);
        if state.readable.mark == Mark::Off {
            return Some(LONGEST_TICK);
        }
    }
    state.readable.ticking = false;
    None
}

/// The monitor was told that E is ready: shows it if events are pending, and goes on
/// watching if not.
pub(super) fn epoll_ready(kqueue: &Arc<Kqueue>) {
    let mut state = kqueue.state.lock_after_others();
    let state = &mut *state;
    if state.readable.mark != Mark::Armed {
        return;
    }
    look(kqueue, state);
    arm(kqueue, state);
}

/// E was replaced by a new epoll under the same number: the monitor gets to know it.
/// [`leave`], [`looked`] and the monitor itself arm anew, once it is known what is pending.
pub(super) fn after_rebuild(state: &mut State) {
    state.readable.watched = false;
}
