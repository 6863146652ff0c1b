//! Workloads on timers.
//!
//! The hand-written side of `timers-armed` and `timers-fired` is what event loops have:
//! a binary heap in user space whose timers know their place in it, the loop's cached
//! time, and one timerfd armed for the earliest. It makes no call for a timer that is
//! not the earliest, so it is the hardest to match; the `-fd` lines have one timerfd for
//! each timer instead.

use crate::api::{self, *};
use crate::frame::{Side, Turn, Workload};
use crate::ready::NONE;
use crate::sys;
use libc::{EPOLL_CTL_ADD, EPOLLIN};
use std::os::fd::OwnedFd;

/// Timers at once.
const MANY: usize = 10_000;
/// Timers at once where each is a descriptor that is opened and closed.
const FEWER: usize = 1_000;

/// The workloads of this file.
pub(crate) fn list() -> Vec<Workload> {
    // Beside a descriptor for each timer, as raw has in the -fd lines.
    const SPARE: u64 = 1000;
    let (many, fewer) = (MANY as u64, FEWER as u64);
    vec![
        Workload::new("timers-armed", |side| armed(side, MANY, heap_armed)).ops(MANY).fds(SPARE).bound(6.0),
        Workload::new("timers-armed-fd", |side| armed(side, FEWER, fd_armed)).ops(FEWER).fds(fewer + SPARE),
        Workload::new("timers-fired", |side| fired(side, heap_fired)).ops(MANY).most(8).longer(8.0).fds(SPARE),
        Workload::new("timers-fired-fd", |side| fired(side, fd_fired))
            .ops(MANY)
            .most(8)
            .longer(8.0)
            .fds(many + SPARE)
            .bound(1.0),
    ]
}

/// The timer of step `i` in an order that is not that of the deadlines.
#[inline]
fn shuffled(i: usize, count: usize) -> usize {
    // Prime, and so without a common factor with either count.
    i * 7919 % count
}

/// The delay of timer `i`, ms: some minutes, so that none is due in a run.
#[inline]
fn delay(i: usize) -> usize {
    600_000 + i * 997 % 100_003
}

/// A binary heap of deadlines out of which any timer can be taken.
struct Heap {
    /// Deadline (ns) and timer.
    heap: Vec<(u64, usize)>,
    /// Where in `heap` each timer is.
    place: Vec<usize>,
}

impl Heap {
    fn new(timers: usize) -> Heap {
        Heap { heap: Vec::with_capacity(timers), place: vec![usize::MAX; timers] }
    }

    fn earliest(&self) -> Option<(u64, usize)> {
        self.heap.first().copied()
    }

    fn put(&mut self, at: usize, entry: (u64, usize)) {
        self.heap[at] = entry;
        self.place[entry.1] = at;
    }

    fn up(&mut self, mut at: usize) {
        let entry = self.heap[at];
        while at > 0 && self.heap[(at - 1) / 2].0 > entry.0 {
            self.put(at, self.heap[(at - 1) / 2]);
            at = (at - 1) / 2;
        }
        self.put(at, entry);
    }

    fn down(&mut self, mut at: usize) {
        let entry = self.heap[at];
        loop {
            let mut child = 2 * at + 1;
            if child + 1 < self.heap.len() && self.heap[child + 1].0 < self.heap[child].0 {
                child += 1;
            }
            if child >= self.heap.len() || self.heap[child].0 >= entry.0 {
                break;
            }
            self.put(at, self.heap[child]);
            at = child;
        }
        self.put(at, entry);
    }

    fn add(&mut self, timer: usize, deadline: u64) {
        self.heap.push((deadline, timer));
        self.up(self.heap.len() - 1);
    }

    fn remove(&mut self, timer: usize) {
        let at = self.place[timer];
        self.place[timer] = usize::MAX;
        let last = self.heap.pop().expect("the timer is in the heap");
        if at < self.heap.len() {
            self.put(at, last);
            self.up(at);
            self.down(self.place[last.1]);
        }
    }
}

/// The timers of a hand-written loop.
struct Loop {
    ep: OwnedFd,
    timer: OwnedFd,
    heap: Heap,
    /// What the timerfd is set to, ns; `u64::MAX` for not at all.
    set: u64,
}

impl Loop {
    fn new(timers: usize) -> Loop {
        let (ep, timer) = (sys::epoll(), sys::timerfd());
        sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(&timer), EPOLLIN, 7);
        Loop { ep, timer, heap: Heap::new(timers), set: u64::MAX }
    }

    #[inline]
    fn arm(&mut self, timer: usize, deadline: u64) {
        self.heap.add(timer, deadline);
        if deadline < self.set {
            self.set = deadline;
            sys::timerfd_set(sys::raw(&self.timer), deadline);
        }
    }

    /// Sleeps for the earliest and hands every timer that is due to `each`.
    #[inline]
    fn wait(&mut self, each: &mut impl FnMut(usize) -> Outcome) -> Outcome {
        let (mut out, mut count) = ([NONE; 8], [0; 8]);
        api::expect("events", sys::epoll_wait(sys::raw(&self.ep), &mut out, -1), 1)?;
        sys::read(sys::raw(&self.timer), &mut count);
        self.due(each)?;
        self.set = u64::MAX;
        if let Some((deadline, _)) = self.heap.earliest() {
            self.set = deadline;
            sys::timerfd_set(sys::raw(&self.timer), deadline);
        }
        Ok(())
    }

    /// Takes the timers that are due out of the heap.
    #[inline]
    fn due(&mut self, each: &mut impl FnMut(usize) -> Outcome) -> Outcome {
        let now = sys::now();
        while let Some((deadline, timer)) = self.heap.earliest() {
            if deadline > now {
                break;
            }
            self.heap.remove(timer);
            each(timer)?;
        }
        Ok(())
    }

    /// Nothing is armed any more.
    fn rest(&mut self) -> Outcome {
        self.set = u64::MAX;
        sys::timerfd_set(sys::raw(&self.timer), 0);
        api::expect("timers left", self.heap.heap.len(), 0)
    }
}

/// Timers armed, all of them, and then deleted in another order, a call each.
fn armed(side: Side, count: usize, raw: fn(usize) -> Turn) -> Outcome<Turn> {
    let Side::Lib(lib) = side else {
        return Ok(raw(count));
    };
    let kq = lib.open()?;
    Ok(Box::new(move |n| {
        let flags = EV_ADD | EV_ONESHOT;
        for _ in 0..n {
            for i in 0..count {
                let timer = change(i, EVFILT_TIMER, flags, i);
                kq.change(&[with(timer, 0, delay(i) as isize)])?;
            }
            for i in 0..count {
                let timer = shuffled(i, count);
                kq.change(&[change(timer, EVFILT_TIMER, EV_DELETE, timer)])?;
            }
        }
        api::expect("events", kq.call(&[], &mut api::events(8), Wait::Poll)?, 0)?;
        let gone = |i| kq.change(&[change(i, EVFILT_TIMER, EV_DELETE, i)]).is_err();
        api::expect("timers deleted", (0..count).step_by(count / 10).all(gone), true)
    }))
}

fn heap_armed(count: usize) -> Turn {
    let mut ours = Loop::new(count);
    Box::new(move |n| {
        for _ in 0..n {
            let now = sys::now();
            for i in 0..count {
                ours.arm(i, now + delay(i) as u64 * 1_000_000);
            }
            for i in 0..count {
                ours.heap.remove(shuffled(i, count));
            }
        }
        ours.rest()
    })
}

fn fd_armed(count: usize) -> Turn {
    let ep = sys::epoll();
    Box::new(move |n| {
        for _ in 0..n {
            let now = sys::now();
            let mut timers: Vec<_> = (0..count).map(|_| None).collect();
            for (i, slot) in timers.iter_mut().enumerate() {
                let fd = sys::timerfd();
                sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(&fd), EPOLLIN, i as u64);
                sys::timerfd_set(sys::raw(&fd), now + delay(i) as u64 * 1_000_000);
                *slot = Some(fd);
            }
            for i in 0..count {
                timers[shuffled(i, count)] = None;
            }
        }
        api::expect("events", sys::epoll_wait(sys::raw(&ep), &mut [NONE; 8], 0), 0)
    })
}

/// From arming to the first deadline, ns: longer than arming all of them takes.
const LEAD: usize = 5_000_000;
/// Between two deadlines, ns.
const STEP: usize = 10;

/// The delay of timer `i` of `fired`, ns.
#[inline]
fn soon(i: usize) -> usize {
    LEAD + shuffled(i, MANY) * STEP
}

/// Waits until every timer armed before now is due.
fn until_due() {
    // One step more than the last, and the slack the kernel may add.
    sys::stand_by_until(sys::now() + (LEAD + (MANY + 1) * STEP + 100_000) as u64);
}

/// Which of the timers have been reported.
struct Fired {
    seen: Vec<bool>,
    left: usize,
}

impl Fired {
    fn none() -> Fired {
        Fired { seen: vec![false; MANY], left: MANY }
    }

    #[inline]
    fn add(&mut self, timer: usize) -> Outcome {
        match self.seen.get_mut(timer) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(format!("timer {timer} fired twice or is unknown")),
        }
        self.left -= 1;
        Ok(())
    }
}

/// Timers armed, 64 changes a call, and harvested once all of them are due. All sides stand by
/// until then, which no CPU time is charged for but that of the library's thread: look at CPU
/// time.
fn fired(side: Side, raw: fn() -> Turn) -> Outcome<Turn> {
    let Side::Lib(lib) = side else {
        return Ok(raw());
    };
    let kq = lib.open()?;
    let add = |i| {
        let timer = change(i, EVFILT_TIMER, EV_ADD | EV_ONESHOT, i);
        with(timer, NOTE_NSECONDS, soon(i) as isize)
    };
    let adds: Vec<_> = (0..MANY).map(add).collect();
    let mut out = api::events(256);
    Ok(Box::new(move |n| {
        for _ in 0..n {
            let mut fired = Fired::none();
            for some in adds.chunks(64) {
                kq.change(some)?;
            }
            until_due();
            while fired.left > 0 {
                let got = kq.call(&[], &mut out, Wait::Forever)?;
                for event in &out[..got] {
                    api::expect("filter", event.filter, EVFILT_TIMER)?;
                    api::expect("expiries", event.data, 1)?;
                    fired.add(event.ident)?;
                }
            }
        }
        api::expect("events", kq.call(&[], &mut out, Wait::Poll)?, 0)
    }))
}

fn heap_fired() -> Turn {
    let mut ours = Loop::new(MANY);
    Box::new(move |n| {
        for _ in 0..n {
            let mut fired = Fired::none();
            let now = sys::now();
            for i in 0..MANY {
                ours.arm(i, now + soon(i) as u64);
            }
            until_due();
            while fired.left > 0 {
                ours.wait(&mut |timer| fired.add(timer))?;
            }
        }
        ours.rest()
    })
}

fn fd_fired() -> Turn {
    let ep = sys::epoll();
    let timers: Vec<_> = (0..MANY).map(|_| sys::timerfd()).collect();
    for (i, fd) in timers.iter().enumerate() {
        sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(fd), EPOLLIN, i as u64);
    }
    Box::new(move |n| {
        let (mut out, mut count) = ([NONE; 256], [0; 8]);
        for _ in 0..n {
            let mut fired = Fired::none();
            let now = sys::now();
            for (i, fd) in timers.iter().enumerate() {
                sys::timerfd_set(sys::raw(fd), now + soon(i) as u64);
            }
            until_due();
            while fired.left > 0 {
                let got = sys::epoll_wait(sys::raw(&ep), &mut out, -1);
                for event in &out[..got] {
                    let timer = event.u64 as usize;
                    sys::read(sys::raw(&timers[timer]), &mut count);
                    api::expect("expiries", u64::from_ne_bytes(count), 1)?;
                    fired.add(timer)?;
                }
            }
        }
        Ok(())
    })
}

/// One timer added, due at once and harvested in one call, while `standing` others are
/// far from due.
pub(crate) fn one_due(standing: usize) -> Workload {
    one_among("timer-due-among", standing, |side, standing| match side {
        Side::Raw => Ok(Box::new({
            let mut ours = heap_of(standing);
            move |n| {
                for _ in 0..n {
                    let mut fired = 0;
                    // Due before the loop would sleep: no timerfd, but a look at the others.
                    ours.heap.add(standing, sys::now() + 1);
                    api::expect("events", sys::epoll_wait(sys::raw(&ours.ep), &mut [NONE; 8], 0), 0)?;
                    ours.due(&mut |timer| {
                        fired += 1;
                        api::expect("timer", timer, standing)
                    })?;
                    api::expect("fired", fired, 1)?;
                }
                api::expect("standing", ours.heap.heap.len(), standing)
            }
        })),
        Side::Lib(lib) => {
            let kq = queue_of(lib, standing)?;
            let due = with(change(standing, EVFILT_TIMER, EV_ADD | EV_ONESHOT, standing), NOTE_NSECONDS, 1);
            Ok(Box::new(move |n| {
                let mut out = [change(0, 0, 0, 0); 8];
                for _ in 0..n {
                    api::expect("events", kq.call(&[due], &mut out, Wait::Forever)?, 1)?;
                    api::expect("timer", out[0].ident, standing)?;
                    api::expect("expiries", out[0].data, 1)?;
                }
                api::expect("events", kq.call(&[], &mut out, Wait::Poll)?, 0)
            }))
        }
    })
}

/// One timer added and deleted, in two calls, while `standing` others stand.
pub(crate) fn one_armed(standing: usize) -> Workload {
    one_among("timer-armed-among", standing, |side, standing| match side {
        Side::Raw => Ok(Box::new({
            let mut ours = heap_of(standing);
            move |n| {
                let now = sys::now();
                for i in 0..n {
                    ours.arm(standing, now + delay(i) as u64 * 1_000_000);
                    ours.heap.remove(standing);
                }
                api::expect("standing", ours.heap.heap.len(), standing)
            }
        })),
        Side::Lib(lib) => {
            let kq = queue_of(lib, standing)?;
            Ok(Box::new(move |n| {
                for i in 0..n {
                    let timer = change(standing, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 7);
                    kq.change(&[with(timer, 0, delay(i) as isize)])?;
                    kq.change(&[change(standing, EVFILT_TIMER, EV_DELETE, 7)])?;
                }
                api::expect("events", kq.call(&[], &mut api::events(8), Wait::Poll)?, 0)
            }))
        }
    })
}

fn one_among(name: &str, standing: usize, make: fn(Side, usize) -> Outcome<Turn>) -> Workload {
    Workload::new(format!("{name}-{standing}"), move |side| make(side, standing))
}

fn heap_of(standing: usize) -> Loop {
    let mut timers = Loop::new(standing + 1);
    let now = sys::now();
    (0..standing).for_each(|i| timers.arm(i, now + delay(i) as u64 * 1_000_000));
    timers
}

fn queue_of(lib: Api, standing: usize) -> Outcome<Kq> {
    let kq = lib.open()?;
    for i in 0..standing {
        kq.change(&[with(change(i, EVFILT_TIMER, EV_ADD | EV_ONESHOT, i), 0, delay(i) as isize)])?;
    }
    Ok(kq)
}
