//! The deadlines of a kqueue: a heap for each clock in front of one timerfd.
//!
//! However many timers there are, they cost one descriptor a clock; adding one that is
//! not the earliest costs no system call, and firing any number costs one settime. A
//! timer leaves its heap when it expires and comes back when its event has been handed
//! out, so that an event nobody collects wakes nobody again. The timerfd is edge-triggered
//! in epoll and never read. It may be armed for a timer deleted since: that costs one
//! idle wake-up, where disarming would cost a system call for every deletion.
//!
//! Most timers are deleted before they are due. So nothing is taken out of the middle of a
//! heap: a timer that is stopped forgets which entry is its own, and the entry is dropped
//! when it comes up or when the heap is full. There is room for two entries a timer, so at
//! least half of a full heap is dropped, which keeps the share of each stop constant. And
//! no entry has to be found, so that none has to be followed as it moves.

use super::{Queue, token};
use crate::errno::Result;
use crate::knote::Slot;
use crate::sys::clock::Clock;
use crate::sys::epoll::{self, Epoll};
use crate::sys::timerfd::TimerFd;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::AsRawFd;

/// A deadline that never comes, in ns.
pub(crate) const NEVER: u64 = u64::MAX;

/// The start of a timer that does not run.
const STOPPED: u32 = 0;

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
    /// The number of its last start, which its entry in the heap has as well.
    start: u32,
}

impl Timer {
    /// What it is to count from now on.
    pub(crate) fn set(&mut self, clock: Clock, deadline: u64, period: u64) {
        (self.clock, self.deadline, self.period, self.reported) = (clock, deadline, period, 0);
    }

    /// How often it has expired by `now`.
    pub(crate) fn expiries(&self, now: u64) -> u64 {
        if self.deadline == NEVER || now < self.deadline {
            return 0;
        }
        // A timer without a period has expired once.
        (now - self.deadline).checked_div(self.period).map_or(1, |periods| periods + 1)
    }
}

/// A timer's place in a heap: the deadline in the high half, then the start, then the index.
/// Compared as one number, so that of equal deadlines the one started first comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u128);

impl Entry {
    fn new(deadline: u64, start: u32, index: u32) -> Entry {
        Entry(u128::from(deadline) << 64 | u128::from(start) << 32 | u128::from(index))
    }

    fn deadline(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The timer this is the entry of, unless that was stopped or started anew since.
    fn of(self, timers: &mut [Timer]) -> Option<&mut Timer> {
        let timer = &mut timers[self.0 as u32 as usize];
        (timer.start == (self.0 >> 32) as u32).then_some(timer)
    }
}

/// One clock's timers that run, and its timerfd.
struct Line {
    fd: Option<TimerFd>,
    /// What the timerfd is armed for, ns; [`NEVER`] once it has fired.
    armed: u64,
    /// The earliest on top.
    heap: BinaryHeap<Reverse<Entry>>,
    /// The clock when it was last looked at, ns, and the scan in which that was.
    seen: (u64, u64),
}

impl Default for Line {
    fn default() -> Line {
        Line { fd: None, armed: NEVER, heap: BinaryHeap::new(), seen: (0, 0) }
    }
}

/// All timers of a kqueue.
#[derive(Default)]
pub(crate) struct Timers {
    timers: Vec<Timer>,
    free: Vec<u32>,
    lines: [Line; 2],
    /// Counts the starts.
    starts: u32,
    /// A timerfd may not be armed early enough.
    behind: bool,
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
            line.open(clock, epoll)?;
        }
        self.reserve(clock)
    }

    fn reserve(&mut self, clock: Clock) -> Result<()> {
        if self.free.is_empty() {
            self.timers.try_reserve(1)?;
            // For taking all of them out.
            self.free.try_reserve(self.timers.capacity())?;
        }
        let line = &mut self.lines[line_of(clock)];
        let room = 2 * (self.timers.len() - self.free.len() + 1);
        if line.heap.capacity() < room {
            line.heap.try_reserve(room - line.heap.len())?;
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
    pub(crate) fn new_timer(&mut self, slot: Slot) -> u32 {
        let timer = Timer { deadline: NEVER, period: 0, reported: 0, clock: Clock::Monotonic, slot, start: STOPPED };
        if let Some(index) = self.free.pop() {
            self.timers[index as usize] = timer;
            return index;
        }
        self.timers.push(timer);
        u32::try_from(self.timers.len() - 1).expect("fewer timers than 2^32: their knotes are 48 bytes each")
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
        let timer = &mut self.timers[index as usize];
        timer.start = STOPPED;
        let (deadline, line) = (timer.deadline, &mut self.lines[line_of(timer.clock)]);
        if deadline == NEVER {
            return;
        }
        self.starts = self.starts.wrapping_add(1).max(STOPPED + 1);
        timer.start = self.starts;
        self.behind |= deadline < line.armed;
        if line.heap.len() == line.heap.capacity() {
            line.drop_stale(&mut self.timers);
        }
        line.heap.push(Reverse(Entry::new(deadline, self.starts, index)));
    }

    /// Stops a timer, if it runs.
    pub(crate) fn stop(&mut self, index: u32) {
        self.timers[index as usize].start = STOPPED;
    }

    /// The timerfd of `clock` reported: it has fired and is armed no more.
    pub(crate) fn fired(&mut self, clock: Clock) {
        self.lines[line_of(clock)].armed = NEVER;
        self.behind = true;
    }

    /// Takes the next timer that is due out of its heap.
    fn pop_due(&mut self, clock: Clock, now: u64) -> Option<Slot> {
        let heap = &mut self.lines[line_of(clock)].heap;
        while heap.peek().is_some_and(|next| next.0.deadline() <= now) {
            if let Some(timer) = heap.pop()?.0.of(&mut self.timers) {
                timer.start = STOPPED;
                return Some(timer.slot);
            }
        }
        None
    }

    /// Arms each timerfd that is not armed early enough.
    #[inline]
    pub(crate) fn arm(&mut self) {
        if core::mem::take(&mut self.behind) {
            self.catch_up();
        }
    }

    fn catch_up(&mut self) {
        for line in &mut self.lines {
            while let Some(&Reverse(next)) = line.heap.peek() {
                if line.armed <= next.deadline() {
                    break;
                }
                if next.of(&mut self.timers).is_none() {
                    line.heap.pop();
                } else if line.fd.as_ref().is_some_and(|fd| fd.arm(next.deadline()).is_ok()) {
                    line.armed = next.deadline();
                } else {
                    // A time out of range, of which there is none below NEVER, or the clock has just
                    // been set: the timerfd tells of that as well.
                    self.behind = true;
                    break;
                }
            }
        }
    }
}

impl Line {
    #[cold]
    fn open(&mut self, clock: Clock, epoll: &Epoll) -> Result<()> {
        let fd = TimerFd::new(clock)?;
        let token = if clock == Clock::Monotonic { token::TIMER_MONOTONIC } else { token::TIMER_REALTIME };
        epoll.add(fd.as_raw_fd(), epoll::IN | epoll::ET, token)?;
        self.fd = Some(fd);
        Ok(())
    }

    #[cold]
    fn drop_stale(&mut self, timers: &mut [Timer]) {
        self.heap.retain(|entry| entry.0.of(timers).is_some());
    }
}

/// The time on `clock` as of this scan, ns: looked up once for all timers of a call.
pub(crate) fn now(queue: &mut Queue, clock: Clock) -> u64 {
    match queue.timers.lines[line_of(clock)].seen {
        (time, scan) if scan == queue.scan => time,
        _ => look_at_the_clock(queue, clock),
    }
}

/// The time on `clock` this moment, ns, and for the rest of this scan.
pub(crate) fn look_at_the_clock(queue: &mut Queue, clock: Clock) -> u64 {
    let time = clock.now();
    queue.timers.lines[line_of(clock)].seen = (time, queue.scan);
    time
}

/// Queues the knotes of all timers of `clock` that are due.
pub(crate) fn expire(queue: &mut Queue, clock: Clock) {
    queue.timers.fired(clock);
    let now = look_at_the_clock(queue, clock);
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

    fn many(count: Slot) -> Timers {
        let mut timers = Timers::default();
        for slot in 0..count {
            assert!(timers.reserve(Clock::Monotonic).is_ok());
            assert_eq!(timers.new_timer(slot), slot);
        }
        timers
    }

    fn start(timers: &mut Timers, index: u32, deadline: u64) {
        timers.get(index).deadline = deadline;
        timers.start(index);
    }

    proptest! {
        #[test]
        fn the_heap_gives_back_what_a_sorted_list_would(
            steps in prop::collection::vec((0u32..20, 0u64..100, 0u8..10), 1..400),
        ) {
            let mut timers = many(20);
            let room = timers.lines[0].heap.capacity();
            // Deadline, when it was started, and which.
            let mut list: Vec<(u64, usize, Slot)> = Vec::new();
            for (nth, (timer, time, action)) in steps.into_iter().enumerate() {
                if action == 0 {
                    list.sort_unstable();
                    let due = list.extract_if(.., |entry| entry.0 <= time);
                    prop_assert_eq!(drain(&mut timers, time), due.map(|entry| entry.2).collect::<Vec<_>>());
                    continue;
                }
                list.retain(|entry| entry.2 != timer);
                if action == 1 {
                    timers.stop(timer);
                } else {
                    start(&mut timers, timer, time);
                    list.push((time, nth, timer));
                }
            }
            list.sort_unstable();
            prop_assert_eq!(drain(&mut timers, 100), list.iter().map(|entry| entry.2).collect::<Vec<_>>());
            prop_assert_eq!(timers.lines[0].heap.capacity(), room);
        }
    }

    #[test]
    fn expiries_count_from_the_deadline_and_not_from_now() {
        let timer = Timer { deadline: 100, period: 10, ..*many(1).get(0) };
        assert_eq!([99, 100, 109, 110, 135].map(|now| timer.expiries(now)), [0, 1, 1, 2, 4]);
    }

    #[test]
    fn a_timer_started_anew_for_ever_takes_no_more_room() {
        let mut timers = many(2);
        start(&mut timers, 1, 5);
        let room = timers.lines[0].heap.capacity();
        (0..1000).for_each(|after| start(&mut timers, 0, 1000 - after));
        assert_eq!(timers.lines[0].heap.capacity(), room);
        assert_eq!(drain(&mut timers, 1000), [0, 1]);
    }

    #[test]
    fn a_timer_that_never_comes_is_not_in_the_heap() {
        let mut timers = many(1);
        timers.start(0);
        assert!(drain(&mut timers, NEVER).is_empty());
        assert_eq!(timers.get(0).expiries(NEVER), 0);
    }
}
