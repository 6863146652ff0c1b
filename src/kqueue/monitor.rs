//! The one thread of the library: it hears of closed kqueues and watches those that are
//! polled.
//!
//! It is started with the first kqueue of a process, with every signal blocked, and then
//! sleeps in an epoll of its own that holds: a signalfd for the realtime signal that the
//! held ends send it (and for SIGIO, which the kernel sends instead when the realtime queue
//! is full), a timerfd for its ticks, every kqueue that is armed, and the held ends of those
//! that can send no signal. A signal is a hint: what counts is POLLERR at the held end. With
//! no kqueue left it sleeps for good; it is never joined, and exit does not know it.

use super::{Kqueue, process, readable};
use crate::errno::{Errno, Result};
use crate::sys::clock::Clock;
use crate::sys::epoll::{self, Epoll, Events, Patience};
use crate::sys::eventfd::AlwaysReady;
use crate::sys::signal::{self, SignalFd};
use crate::sys::sync::{Condvar, Mutex};
use crate::sys::timerfd::TimerFd;
use crate::sys::{fd, register, thread};
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Weak};

/// The monitor of a process, started when it is first needed.
#[derive(Default)]
pub(super) struct Monitor {
    post: Mutex<Option<Arc<Post>>>,
    start: Handshake,
}

/// How the thread tells its starter how it went.
#[derive(Default)]
struct Handshake {
    answer: Mutex<Option<Result<Arc<Post>>>>,
    answered: Condvar,
}

impl Handshake {
    fn answer(&self, answer: Result<Arc<Post>>) {
        *self.answer.lock() = Some(answer);
        self.answered.notify_one();
    }

    fn wait(&self) -> Result<Arc<Post>> {
        let mut answer = self.answer.lock();
        loop {
            match answer.take() {
                Some(answer) => return answer,
                None => answer = self.answered.wait(answer),
            }
        }
    }
}

/// Where the monitor is reached.
pub(super) struct Post {
    tid: i32,
    generation: u32,
    /// The thread is no more.
    gone: AtomicBool,
    /// It lacks what it needs: the next kqueue gets another.
    lost: AtomicBool,
    /// There is another: the thread ends when it wakes.
    replaced: AtomicBool,
    epoll: Epoll,
    always_ready: Arc<AlwaysReady>,
    clock: TimerFd,
    ticks: Mutex<Ticks>,
}

/// Kqueues to tick for, and when.
#[derive(Default)]
struct Ticks {
    due: Vec<(u64, Weak<Kqueue>)>,
    /// What the timerfd is armed for, ns: the earliest of them, but while they are gone through.
    armed: Option<u64>,
}

const SIGNALS: u64 = u64::MAX;
const TICKS: u64 = u64::MAX - 1;
const OVERFLOW: u64 = u64::MAX - 2;

/// What the thread hears of closed kqueues by.
struct Signals {
    closed: SignalFd,
    /// SIGIO, which the kernel sends when there is no room for the other. It is a program's
    /// signal, too: this only wakes, and is never read.
    overflow: SignalFd,
}

impl Signals {
    fn new() -> Result<Signals> {
        let _creating = fd::creating();
        Ok(Signals { closed: SignalFd::new(register::own_signal())?, overflow: SignalFd::new(libc::SIGIO)? })
    }

    fn take(&self) {
        while let Some(held) = self.closed.take() {
            hint(held);
        }
    }

    /// Some notices were lost: looks at all.
    fn overflow() {
        if signal::take_own(libc::SIGIO) {
            super::reap();
        }
    }
}

/// The token of an armed kqueue's epoll.
fn token(held: RawFd) -> u64 {
    u64::from(held.unsigned_abs())
}

/// With this bit it is that of the held end itself.
const END: u64 = 1 << 32;

impl Monitor {
    /// The running monitor. EMFILE, ENFILE, ENOMEM: it could not be started; the next call
    /// tries again.
    pub(super) fn ensure(&self) -> Result<Arc<Post>> {
        let mut post = self.post.lock();
        // One that has ended, or that the program has closed the descriptors of, is not to be
        // reached any more.
        if let Some(post) = post.as_ref().filter(|post| post.is_intact()) {
            return Ok(post.clone());
        }
        // The lock is held: one start at a time, and one answer.
        thread::spawn(run)?;
        let started = self.start.wait()?;
        for (_, kqueue) in process().table.all() {
            // One of a monitor that was lost, and perhaps lost as well.
            if kqueue.is_intact() {
                readable::hand_over(&kqueue, &mut kqueue.state.lock(), started.clone());
            }
            // Nobody may have heard of a close that came before.
            kqueue.end_if_closed();
        }
        if let Some(lost) = post.replace(started.clone()) {
            lost.retire();
        }
        Ok(started)
    }
}

/// The thread. The signalfd is made here: it tells of the signals of the thread that made it.
fn run() {
    thread::set_name(c"kqueue-monitor");
    let start = &process().monitor.start;
    let (post, signals) = match Signals::new().and_then(|signals| Ok((Post::new(&signals)?, signals))) {
        Ok((post, signals)) => (Arc::new(post), signals),
        Err(errno) => {
            start.answer(Err(errno));
            return;
        }
    };
    start.answer(Ok(post.clone()));
    let mut events = Events::new();
    while let Ok(()) | Err(Errno::EINTR) = post.epoll.wait(&mut events, Patience::Forever) {
        if post.replaced.load(Ordering::Relaxed) {
            break;
        }
        for (token, _) in events.iter() {
            match token {
                SIGNALS => signals.take(),
                OVERFLOW => Signals::overflow(),
                TICKS => post.take_ticks(),
                held => told(held),
            }
        }
    }
    post.gone.store(true, Ordering::Release);
}

/// An armed kqueue's epoll has become ready, or a held end has lost its other end.
fn told(token: u64) {
    let Ok(held) = RawFd::try_from(token & !END) else { return };
    if token & END != 0 {
        hint(held);
    } else if let Some(kqueue) = process().table.by_held(held) {
        readable::epoll_ready(&kqueue);
    }
}

/// A kqueue may have been closed.
fn hint(held: RawFd) {
    if let Some(kqueue) = process().table.by_held(held) {
        kqueue.end_if_closed();
    }
}

impl Post {
    fn new(signals: &Signals) -> Result<Post> {
        let clock = TimerFd::new(Clock::Monotonic)?;
        let (epoll, always_ready) = {
            let _creating = fd::creating();
            (Epoll::new()?, Arc::new(AlwaysReady::new()?))
        };
        epoll.add(signals.closed.as_raw_fd(), epoll::IN, SIGNALS)?;
        epoll.add(signals.overflow.as_raw_fd(), epoll::IN | epoll::ET, OVERFLOW)?;
        epoll.add(clock.as_raw_fd(), epoll::IN | epoll::ET, TICKS)?;
        epoll::fill_reserve()?;
        let (tid, generation) = (thread::tid(), fd::generation());
        let [gone, lost, replaced] = [const { AtomicBool::new(false) }; 3];
        Ok(Post { tid, generation, gone, lost, replaced, epoll, always_ready, clock, ticks: Mutex::default() })
    }

    /// The thread to signal.
    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    /// Ends the thread, which wakes by what the program has left of its descriptors.
    fn retire(&self) {
        self.replaced.store(true, Ordering::Relaxed);
        if !self.gone.load(Ordering::Acquire) {
            register::signal_to(self.tid);
        }
        if self.clock.is_intact() {
            let _ = self.clock.arm(1);
        }
    }

    fn is_intact(&self) -> bool {
        let runs = !self.gone.load(Ordering::Acquire) && !self.lost.load(Ordering::Relaxed);
        runs && self.epoll.is_intact() && self.always_ready.is_intact()
    }

    /// The descriptor whose entry in a kqueue's epoll wakes its sleepers.
    pub(super) fn always_ready(&self) -> Arc<AlwaysReady> {
        self.always_ready.clone()
    }

    /// Begins to watch a kqueue's epoll for its next readiness. EINVAL: epoll allows no
    /// more paths from some descriptor in it.
    pub(super) fn watch(&self, of: &Epoll, held: RawFd) -> Result<()> {
        self.epoll.add(of.as_raw_fd(), epoll::IN | epoll::ONESHOT, token(held))
    }

    /// Watches for its next readiness after that.
    pub(super) fn watch_on(&self, of: &Epoll, held: RawFd) -> Result<()> {
        self.epoll.modify(of.as_raw_fd(), epoll::IN | epoll::ONESHOT, token(held))
    }

    /// Watches no more. While it does, every new entry in the kqueue's epoll costs the
    /// kernel a check of all paths.
    pub(super) fn unwatch(&self, of: &Epoll) {
        let _ = self.epoll.delete(of.as_raw_fd());
    }

    /// Begins to watch a held end for the close of the other, until it is closed itself.
    pub(super) fn watch_end(&self, held: RawFd) -> Result<()> {
        self.epoll.add(held, epoll::ONESHOT, token(held) | END)
    }

    /// Ticks for `kqueue` after `span` ns.
    pub(super) fn tick(&self, kqueue: Weak<Kqueue>, span: u64) {
        let due = Clock::Monotonic.now().saturating_add(span);
        // A child that a handler forked has no monitor.
        let Some(mut ticks) = self.ticks.lock_while(|| self.generation == fd::generation()) else { return };
        ticks.due.push((due, kqueue));
        self.arm_clock(&mut ticks, due);
    }

    fn arm_clock(&self, ticks: &mut Ticks, due: u64) {
        if ticks.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        match self.clock.arm(due) {
            Ok(()) => ticks.armed = Some(due),
            Err(_) if !self.clock.is_intact() => self.lost.store(true, Ordering::Relaxed),
            Err(_) => {}
        }
    }

    fn take_ticks(&self) {
        let now = Clock::Monotonic.now();
        let due: Vec<Weak<Kqueue>> = {
            let mut ticks = self.ticks.lock();
            ticks.armed = None;
            ticks.due.extract_if(.., |(due, _)| *due <= now).map(|(_, kqueue)| kqueue).collect()
        };
        for weak in due {
            // The list's lock is not held: a kqueue's lock comes before it.
            let span = weak.upgrade().and_then(|kqueue| readable::tick(&kqueue));
            if let Some(span) = span {
                self.tick(weak, span);
            }
        }
        let mut ticks = self.ticks.lock();
        if let Some(earliest) = ticks.due.iter().map(|&(due, _)| due).min() {
            self.arm_clock(&mut ticks, earliest);
        }
    }
}
