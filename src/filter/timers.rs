//! The deadlines of a kqueue: a heap for each clock in front of one timerfd.
//!
//! However many timers there are, they cost one descriptor a clock; adding one that is
//! not the earliest costs no system call, and firing any number costs one settime. A
//! timer leaves its heap when it expires and comes back when its event has been handed
//! out, so that an event nobody collects wakes nobody again. The timerfd is edge-triggered
//! in epoll and never read. It may be armed for a timer deleted since: that costs one
//! idle wake-up, where disarming would cost a system call for every deletion.

use super::{Queue, token};
use crate::errno::Result;
use crate::knote::Slot;
use crate::sys::clock::Clock;
use crate::sys::epoll::{self, Epoll};
use crate::sys::timerfd::TimerFd;
use std::os::fd::AsRawFd;

/// A deadline that never comes, in ns.
pub(crate) const NEVER: u64 = u64::MAX;

const ABSENT: u32 = u32::MAX;

/// One timer; its index is what the knote keeps.
#[derive(Clone, Copy)]
pub(crate) struct Timer {
    /// When it expires next (or first did without having been reported), ns on `clock`.
    pub(crate) deadline: u64,
    /// ns between expiries; 0 for a timer that expires once.
    pub(crate) period: u64,
    /// Expiries in the event just worked out; taken off when it is handed out.
    pub(crate) reported: u64,
    pub(crate) clock: Clock,
    slot: Slot,
    position: u32,
}

impl Timer {
    /// How often it has expired by `now`.
    pub(crate) fn expiries(&self, now: u64) -> u64 {
        if self.deadline == NEVER || now < self.deadline {
            return 0;
        }
        // A timer without a period has expired once.
        (now - self.deadline).checked_div(self.period).map_or(1, |periods| periods + 1)
    }
}

/// A heap of (deadline, index), four children a node, and its timerfd.
#[derive(Default)]
struct Line {
    fd: Option<TimerFd>,
    /// What the timerfd is armed for; `None` once it has fired.
    armed: Option<u64>,
    heap: Vec<(u64, u32)>,
}

impl Line {
    fn arm(&mut self) {
        let Some(&(earliest, _)) = self.heap.first() else { return };
        if self.armed.is_some_and(|armed| armed <= earliest) {
            return;
        }
        // Only a time out of range fails, and there is none below NEVER.
        if self.fd.as_ref().is_some_and(|fd| fd.arm(earliest).is_ok()) {
            self.armed = Some(earliest);
        }
    }
}

/// All timers of a kqueue.
#[derive(Default)]
pub(crate) struct Timers {
    timers: Vec<Timer>,
    free: Vec<u32>,
    lines: [Line; 2],
}

fn line_of(clock: Clock) -> usize {
    match clock {
        Clock::Monotonic => 0,
        Clock::Realtime => 1,
    }
}

impl Timers {
    /// Makes sure that `clock` has its timerfd, and room for one timer more. EMFILE, ENFILE, ENOMEM.
    pub(crate) fn prepare(&mut self, clock: Clock, epoll: &Epoll) -> Result<()> {
        let line = &mut self.lines[line_of(clock)];
        if line.fd.is_none() {
            let fd = TimerFd::new(clock)?;
            let token = if clock == Clock::Monotonic { token::TIMER_MONOTONIC } else { token::TIMER_REALTIME };
            epoll.add(fd.as_raw_fd(), epoll::IN | epoll::ET, token)?;
            line.fd = Some(fd);
        }
        // Room for one more, and for taking all of them out.
        line.heap.try_reserve(1)?;
        if self.free.is_empty() {
            self.timers.try_reserve(1)?;
            self.free.try_reserve(self.timers.capacity())?;
        }
        Ok(())
    }

    /// Enters the timerfds into a fresh set.
    pub(super) fn enter(&self, epoll: &Epoll) -> Result<()> {
        for (line, token) in self.lines.iter().zip([token::TIMER_MONOTONIC, token::TIMER_REALTIME]) {
            if let Some(fd) = &line.fd {
                epoll.add(fd.as_raw_fd(), epoll::IN | epoll::ET, token)?;
            }
        }
        Ok(())
    }

    /// A timer that does not run yet.
    pub(crate) fn new_timer(&mut self, slot: Slot, clock: Clock, deadline: u64, period: u64) -> u32 {
        let timer = Timer { deadline, period, reported: 0, clock, slot, position: ABSENT };
        match self.free.pop() {
            Some(index) => {
                self.timers[index as usize] = timer;
                index
            }
            None => {
                self.timers.push(timer);
                u32::try_from(self.timers.len() - 1).unwrap_or(ABSENT)
            }
        }
    }

    pub(crate) fn get(&mut self, index: u32) -> &mut Timer {
        &mut self.timers[index as usize]
    }

    /// Forgets a timer; its index may serve another.
    pub(crate) fn delete(&mut self, index: u32) {
        self.stop(index);
        self.free.push(index);
    }

    /// Lets a timer run to its deadline.
    pub(crate) fn start(&mut self, index: u32) {
        self.stop(index);
        let Timer { deadline, clock, .. } = self.timers[index as usize];
        if deadline != NEVER {
            let heap = &mut self.lines[line_of(clock)].heap;
            heap.push((deadline, index));
            let last = heap.len() - 1;
            self.sift_up(line_of(clock), last);
        }
    }

    /// Takes a timer out of its heap, if it is in it.
    pub(crate) fn stop(&mut self, index: u32) {
        let Timer { clock, position, .. } = self.timers[index as usize];
        if position == ABSENT {
            return;
        }
        let (line, at) = (line_of(clock), position as usize);
        self.timers[index as usize].position = ABSENT;
        let heap = &mut self.lines[line].heap;
        heap.swap_remove(at);
        if at < heap.len() {
            self.sift_up(line, at);
            self.sift_down(line, at);
        }
    }

    /// The timerfd of `clock` reported: it has fired and is armed no more.
    pub(crate) fn fired(&mut self, clock: Clock) {
        self.lines[line_of(clock)].armed = None;
    }

    /// Takes the next timer that is due out of its heap.
    fn pop_due(&mut self, clock: Clock, now: u64) -> Option<Slot> {
        let &(deadline, index) = self.lines[line_of(clock)].heap.first()?;
        if deadline > now {
            return None;
        }
        self.stop(index);
        Some(self.timers[index as usize].slot)
    }

    /// Arms each timerfd that is not armed early enough.
    #[inline(always)]
    pub(crate) fn arm(&mut self) {
        self.lines.iter_mut().filter(|line| !line.heap.is_empty()).for_each(Line::arm);
    }

    fn sift_up(&mut self, line: usize, mut at: usize) {
        let heap = &mut self.lines[line].heap;
        let moving = heap[at];
        while at > 0 {
            let parent = (at - 1) / 4;
            if heap[parent].0 <= moving.0 {
                break;
            }
            heap[at] = heap[parent];
            self.timers[heap[at].1 as usize].position = at as u32;
            at = parent;
        }
        heap[at] = moving;
        self.timers[moving.1 as usize].position = at as u32;
    }

    fn sift_down(&mut self, line: usize, mut at: usize) {
        let heap = &mut self.lines[line].heap;
        let moving = heap[at];
        loop {
            let first = at * 4 + 1;
            let children = first..heap.len().min(first + 4);
            let Some(least) = children.min_by_key(|&child| heap[child].0) else { break };
            if moving.0 <= heap[least].0 {
                break;
            }
            heap[at] = heap[least];
            self.timers[heap[at].1 as usize].position = at as u32;
            at = least;
        }
        heap[at] = moving;
        self.timers[moving.1 as usize].position = at as u32;
    }
}

/// Queues the knotes of all timers of `clock` that are due.
pub(crate) fn expire(queue: &mut Queue, clock: Clock) {
    queue.timers.fired(clock);
    let now = clock.now();
    while let Some(slot) = queue.timers.pop_due(clock, now) {
        queue.knotes.activate(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(timers: &mut Timers, now: u64) -> Vec<Slot> {
        std::iter::from_fn(|| timers.pop_due(Clock::Monotonic, now)).collect()
    }

    proptest! {
        #[test]
        fn the_heap_gives_back_what_a_sorted_list_would(
            deadlines in prop::collection::vec(0u64..1000, 1..200),
            stopped in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
        ) {
            let mut timers = Timers::default();
            let indices: Vec<u32> = deadlines.iter().enumerate().map(|(slot, &deadline)| {
                let index = timers.new_timer(slot as Slot, Clock::Monotonic, deadline, 0);
                timers.start(index);
                index
            }).collect();
            let mut expected: Vec<(u64, Slot)> =
                deadlines.iter().enumerate().map(|(slot, &d)| (d, slot as Slot)).collect();
            for stop in stopped {
                let victim = stop.index(indices.len());
                timers.stop(indices[victim]);
                expected.retain(|&(_, slot)| slot as usize != victim);
            }
            expected.sort_unstable();
            let mut got = Vec::new();
            for now in 0..1000 {
                let mut due = drain(&mut timers, now);
                due.sort_unstable();
                got.extend(due.into_iter().map(|slot| (now, slot)));
            }
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn expiries_count_from_the_deadline_and_not_from_now() {
        let mut timers = Timers::default();
        let index = timers.new_timer(0, Clock::Monotonic, 100, 10);
        let timer = *timers.get(index);
        assert_eq!([99, 100, 109, 110, 135].map(|now| timer.expiries(now)), [0, 1, 1, 2, 4]);
    }

    #[test]
    fn a_timer_that_never_comes_is_not_in_the_heap() {
        let mut timers = Timers::default();
        let index = timers.new_timer(0, Clock::Monotonic, NEVER, 0);
        timers.start(index);
        assert!(drain(&mut timers, NEVER).is_empty());
        assert_eq!(timers.get(index).expiries(NEVER), 0);
    }
}
