//! EVFILT_TIMER (kqueue(2)): periodic, one-shot and calendar timers.
//!
//! Deadlines live in [`super::timers`]. A period counts from the last deadline and not
//! from the last report, so late collection neither drifts nor loses: `data` is how often
//! the timer has expired since the last report. Disabling hides a timer and does not stop
//! it: time goes on, and what would have expired is worked out when it is enabled again.
//! NOTE_ABSTIME asks for calendar time; such a timer expires once, follows changes of the
//! clock, and stays reported unless EV_CLEAR or EV_ONESHOT say otherwise.

use super::timers::{self, NEVER};
use super::{Facts, Fate, Filter, Outcome, Queue};
use crate::abi::{
    EV_ADD, EV_CLEAR, EV_ONESHOT, Kevent, NOTE_ABSTIME, NOTE_MSECONDS, NOTE_NSECONDS, NOTE_SECONDS, NOTE_USECONDS,
};
use crate::errno::{Errno, Result};
use crate::knote::{Knote, Slot};
use crate::sys::clock::Clock;

/// The row of EVFILT_TIMER; `own` is the timer's index.
pub(crate) struct Timer;

const UNITS: u32 = NOTE_SECONDS | NOTE_MSECONDS | NOTE_USECONDS | NOTE_NSECONDS;

impl Filter for Timer {
    fn validate(&self, change: &Kevent) -> Result<()> {
        let units = change.fflags & UNITS;
        if change.fflags & !(UNITS | NOTE_ABSTIME) != 0 || units.count_ones() > 1 || change.data < 0 {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        let clock = clock_of(queue.knotes[slot].fflags);
        queue.timers.prepare(clock, &queue.epoll)?;
        queue.knotes[slot].own = queue.timers.new_timer(slot);
        restart(queue, slot);
        Ok(())
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        if change.flags & EV_ADD != 0 {
            self.validate(change)?;
            queue.timers.prepare(clock_of(change.fflags), &queue.epoll)?;
            queue.knotes.set_data(slot, change.data)?;
            queue.knotes[slot].fflags = change.fflags;
            // What had expired under the old settings is forgotten.
            queue.knotes.dequeue(slot);
            restart(queue, slot);
        } else {
            resume(queue, slot);
        }
        Ok(())
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        queue.timers.delete(queue.knotes[slot].own);
        Ok(())
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        let index = queue.knotes[slot].own;
        let clock = queue.timers.get(index).clock;
        let now = timers::now(queue, clock);
        let timer = queue.timers.get(index);
        timer.reported = timer.expiries(now);
        if timer.reported == 0 {
            run(queue, slot, now);
            return Outcome::NotReady;
        }
        let data = isize::try_from(timer.reported).unwrap_or(isize::MAX);
        // Only what is asked for shows in fflags: nothing is, as in FreeBSD.
        Outcome::Ready(Facts { data, again: timer.period == 0, ..Facts::default() })
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        let knote = &queue.knotes[slot];
        if fate == Fate::Spent {
            return queue.timers.delete(knote.own);
        }
        let timer = queue.timers.get(knote.own);
        if timer.period > 0 {
            timer.deadline = timer.deadline.saturating_add(timer.reported.saturating_mul(timer.period));
        } else if knote.flags & EV_CLEAR != 0 {
            timer.deadline = NEVER;
        }
        resume(queue, slot);
    }
}

/// Starts the timer from now with what the knote asks for.
fn restart(queue: &mut Queue, slot: Slot) {
    let knote = &mut queue.knotes[slot];
    if knote.fflags & NOTE_ABSTIME == 0 {
        knote.flags |= EV_CLEAR;
    }
    let &mut Knote { fflags, flags, own, .. } = knote;
    let clock = clock_of(fflags);
    let now = timers::now(queue, clock);
    let (deadline, period) = schedule(fflags, queue.knotes.data(slot), flags & EV_ONESHOT != 0, now);
    queue.timers.get(own).set(clock, deadline, period);
    run(queue, slot, now);
}

/// Lets the timer go on to its deadline.
fn resume(queue: &mut Queue, slot: Slot) {
    let clock = queue.timers.get(queue.knotes[slot].own).clock;
    let now = timers::now(queue, clock);
    run(queue, slot, now);
}

/// Queues the knote if it is due, and else lets an enabled one run to its deadline. A
/// disabled one is left out of the heap, so that it wakes nobody.
fn run(queue: &mut Queue, slot: Slot, now: u64) {
    let knote = &queue.knotes[slot];
    let (index, enabled) = (knote.own, knote.is_enabled());
    if enabled && !is_due(queue, index, now) {
        return queue.timers.start(index);
    }
    queue.timers.stop(index);
    if enabled {
        queue.knotes.activate(slot);
    }
}

/// Whether a timer has expired. A moment before its deadline the clock is looked at once
/// more: what is due by now needs no timerfd.
fn is_due(queue: &mut Queue, index: u32, now: u64) -> bool {
    let &mut timers::Timer { clock, deadline, .. } = queue.timers.get(index);
    let left = deadline.saturating_sub(now);
    left == 0 || left < MOMENT && deadline <= timers::look_at_the_clock(queue, clock)
}

/// About what a call takes, ns.
const MOMENT: u64 = 1_000;

fn clock_of(fflags: u32) -> Clock {
    if fflags & NOTE_ABSTIME != 0 { Clock::Realtime } else { Clock::Monotonic }
}

/// (first deadline, period) in ns of what a change asks for, at `now` ns. What no clock
/// reaches becomes [`NEVER`].
fn schedule(fflags: u32, data: isize, once: bool, now: u64) -> (u64, u64) {
    let unit = match fflags & UNITS {
        NOTE_SECONDS => 1_000_000_000,
        NOTE_USECONDS => 1_000,
        NOTE_NSECONDS => 1,
        _ => 1_000_000,
    };
    let data = u64::try_from(data).unwrap_or(0);
    let reachable = |ns: u64| if ns > i64::MAX.unsigned_abs() { NEVER } else { ns };
    if fflags & NOTE_ABSTIME != 0 {
        return (reachable(data.saturating_mul(unit)), 0);
    }
    // A period of nothing is one unit; once after nothing is at once.
    let span = if once { data } else { data.max(1) }.saturating_mul(unit);
    (reachable(now.saturating_add(span)), if once { 0 } else { span })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_the_default_unit() {
        assert_eq!(schedule(0, 5, false, 7), (5_000_007, 5_000_000));
        assert_eq!(schedule(NOTE_MSECONDS, 5, false, 7), (5_000_007, 5_000_000));
        assert_eq!(schedule(NOTE_SECONDS, 5, true, 7), (5_000_000_007, 0));
        assert_eq!(schedule(NOTE_USECONDS, 5, true, 7), (5_007, 0));
        assert_eq!(schedule(NOTE_NSECONDS, 5, true, 7), (12, 0));
    }

    #[test]
    fn nothing_is_at_once_for_a_oneshot_and_one_unit_for_a_period() {
        assert_eq!(schedule(0, 0, true, 7), (7, 0));
        assert_eq!(schedule(0, 0, false, 7), (1_000_007, 1_000_000));
    }

    #[test]
    fn what_overflows_never_comes() {
        assert_eq!(schedule(NOTE_SECONDS, isize::MAX, true, 7).0, NEVER);
        assert_eq!(schedule(NOTE_SECONDS | NOTE_ABSTIME, isize::MAX, true, 7).0, NEVER);
        assert_eq!(schedule(NOTE_NSECONDS, isize::MAX, true, 7).0, NEVER);
    }

    #[test]
    fn calendar_time_expires_once_at_the_time_itself() {
        assert_eq!(schedule(NOTE_SECONDS | NOTE_ABSTIME, 3, false, 999), (3_000_000_000, 0));
        assert_eq!(schedule(NOTE_ABSTIME, 0, false, 999), (0, 0));
    }
}
