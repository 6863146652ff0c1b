//! The kqueue object: its descriptors, its state, its life.
//!
//! * **U**, the descriptor the program holds: the read end of a pipe.
//! * **L**, the held write end. It stands in E, where its POLLERR wakes every sleeper once
//!   the last copy of U is closed, and the monitor as long as that watches E; when it does
//!   not, L has the kernel signal the monitor, or stands in its epoll (`readable.rs`).
//! * **E**, the epoll that all knotes on descriptors, the timerfds and L stand in.
//!
//! One lock a kqueue, never held over a sleep. Lock order: an outer kqueue, an inner one
//! that it watches, the process's hubs; the monitor's list; its numbers; the table; last the
//! register and the signals' actions (`docs/descriptor-life.md` has them all). State is freed by
//! whoever drops the last reference: the table holds one for each number, `live` one, and every
//! call inside one.

mod change;
mod find;
mod hand_out;
mod monitor;
mod readable;
mod round;
mod table;
mod wait;

use crate::abi::Kevent;
use crate::debug;
use crate::errno::{Errno, Result};
use crate::filter::watched::{Watcher, Watchers};
use crate::filter::{Inner, Queue, inodes, signals, token};
use crate::sys::epoll::{Epoll, Events};
use crate::sys::eventfd::Waker;
use crate::sys::fd::{self, UserEnd};
use crate::sys::fork::{self, PerProcess};
use crate::sys::memory::Output;
use crate::sys::pipe::{self, Held};
use crate::sys::sleep::Nap;
use crate::sys::sock_diag;
use crate::sys::sync;
use core::sync::atomic::{AtomicBool, Ordering};
use find::{Found, find, find_inner};
use monitor::Monitor;
pub(crate) use round::{Request, Round};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use table::Table;

/// Everything the library keeps for a process.
#[derive(Default)]
struct Process {
    table: Table<Kqueue>,
    monitor: Monitor,
}

static PROCESS: PerProcess<Process> = PerProcess::new();

fn process() -> &'static Process {
    PROCESS.get()
}

/// One kqueue. On lines of its own, which the processor fetches in pairs: threads on different
/// kqueues must not meet there.
#[repr(align(128))]
pub(crate) struct Kqueue {
    state: sync::Mutex<State>,
    epoll: Arc<Epoll>,
    /// Wakes a thread asleep in the epoll, and whoever watches it.
    waker: Arc<Waker>,
    held: Held,
    /// Kqueues that watch this one. Outside the lock: a watcher holds its own.
    watchers: Watchers,
    /// It was seen under more numbers than one.
    copied: AtomicBool,
    numbers: sync::Mutex<Vec<(RawFd, UserEnd)>>,
    /// The last field: it tells that all others are gone.
    life: Life,
}

/// Whether a kqueue is still one for the program.
struct Life {
    /// Closed by the program; nothing is delivered any more.
    closed: AtomicBool,
    generation: u32,
}

impl Drop for Life {
    fn drop(&mut self) {
        // One that was never entered, or that a forked child inherited, is not counted.
        if self.generation == fd::generation() && self.closed.load(Ordering::Relaxed) {
            if process().table.is_empty() {
                sock_diag::close();
                inodes::close();
            }
            process().table.freed();
        }
    }
}

/// What the lock guards.
struct State {
    queue: Queue,
    /// Counts the calls.
    calls: u32,
    /// Threads asleep in the epoll.
    sleepers: u32,
    /// Activations of knotes the watchers have been told of; `None`: that was taken from them.
    told: Option<u32>,
    readable: readable::Readable,
}

type Locked<'a> = sync::Guard<'a, State>;

/// Makes a kqueue and answers its number. EMFILE, ENFILE, ENOMEM.
pub(crate) fn create() -> Result<RawFd> {
    debug::init();
    fork::install()?;
    match try_create() {
        Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOSPC) => {
            // What closed kqueues still hold may be what is missing. Another thread may be about
            // to free it.
            reap();
            process().table.wait_freed_for(Duration::from_millis(100));
            // Out of epoll's watches is out of memory to a program.
            try_create().map_err(|errno| if errno == Errno::ENOSPC { Errno::ENOMEM } else { errno })
        }
        other => other,
    }
}

fn try_create() -> Result<RawFd> {
    let process = process();
    let (user, note, held, epoll) = {
        let _creating = fd::creating();
        let (user, held) = pipe::sentinel()?;
        let note = UserEnd::new(user.as_raw_fd(), held.pipe_id())?;
        (user, note, held, Arc::new(Epoll::new()?))
    };
    // Last of what takes descriptors: if it fails, nothing stays.
    let post = process.monitor.ensure()?;
    let waker = Arc::new(Waker::new(epoll.clone(), post.always_ready(), token::WAKE));
    let kqueue = Arc::new(Kqueue {
        state: sync::Mutex::new(State::new(epoll.clone(), waker.clone(), post.clone())),
        waker,
        epoll,
        held,
        watchers: Watchers::default(),
        copied: AtomicBool::new(false),
        numbers: sync::Mutex::new(vec![(user.as_raw_fd(), note)]),
        life: Life { closed: AtomicBool::new(false), generation: fd::generation() },
    });
    kqueue.epoll.add(kqueue.held.as_raw_fd(), 0, token::SENTINEL)?;
    // Noted before it is watched: the monitor is told of a close once.
    if let Some(lost) = process.table.note(kqueue.held.as_raw_fd(), kqueue.clone()) {
        lost.ended();
    }
    post.watch(&kqueue.epoll, kqueue.held.as_raw_fd()).inspect_err(|_| kqueue.end())?;
    let number = pipe::hand_over(user);
    if let Some(evicted) = process.table.enter(number, kqueue.clone())? {
        // Its number was free, so this one was closed and the monitor is yet to hear of it,
        // or it lives on under another number.
        evicted.lose(number);
        evicted.end_if_closed();
    }
    if kqueue.is_closed() {
        // By another thread, before it was entered.
        process.table.leave(number, &kqueue);
    }
    Ok(number)
}

/// Ends every kqueue that the program has closed.
fn reap() {
    let all = process().table.all();
    let held: Vec<RawFd> = all.iter().map(|&(held, _)| held).collect();
    for index in fd::hung_up(&held) {
        if let Some((_, kqueue)) = all.get(index) {
            kqueue.end();
        }
    }
    for (_, kqueue) in all.iter().filter(|(_, kqueue)| !kqueue.is_intact()) {
        kqueue.end();
    }
}

/// Returns once every kqueue whose descriptor is closed has been freed.
pub(crate) fn drain_pending_close() {
    reap();
    process().table.wait_freed();
}

/// How far a call has come.
pub(crate) enum Progress {
    /// It is over, with so many events handed out.
    Done(usize),
    /// The thread has to sleep. That is the caller's part, in frames that own nothing.
    Sleep(Sleeper),
}

/// A thread that sleeps in a kqueue, which lives as long.
pub(crate) struct Sleeper(Found);

/// kevent(2): applies the changes, then collects events. EBADF, EFAULT, EINTR, EINVAL, and
/// what a change is refused with.
pub(crate) fn kevent(
    request: &Request,
    found: &mut Events,
    events: &mut Output<Kevent>,
    round: &mut Round,
) -> Result<Progress> {
    let named = find(request.number)?;
    let step = call(&named.kqueue, request, found, events, round);
    progress(named, step, request, found, events, round)
}

/// What a step means for its call.
#[inline]
fn progress(
    named: Found,
    step: Result<wait::Step>,
    request: &Request,
    found: &mut Events,
    events: &mut Output<Kevent>,
    round: &mut Round,
) -> Result<Progress> {
    match step {
        Ok(wait::Step::Done(count)) => Ok(Progress::Done(count)),
        Ok(wait::Step::Sleep { looked }) => {
            Ok(Progress::Sleep(Sleeper(Found { certain: named.certain || looked, ..named })))
        }
        Ok(wait::Step::Nothing) => in_vain(named, Ok(()), request, found, events, round),
        Err(errno) => in_vain(named, Err(errno), request, found, events, round),
    }
}

/// The call has nothing to tell, or failed. The number may have named another kqueue, or none,
/// when it began: its own has ended, or was reached under a number that is no longer its. Then
/// the call begins again.
#[inline(never)]
fn in_vain(
    named: Found,
    result: Result<()>,
    request: &Request,
    found: &mut Events,
    events: &mut Output<Kevent>,
    round: &mut Round,
) -> Result<Progress> {
    let again = match result {
        Err(Errno::EBADF) if named.kqueue.is_closed() => {
            process().table.leave(request.number, &named.kqueue);
            !named.certain
        }
        Ok(()) | Err(Errno::EBADF) => !named.certain && !named.is_named(request.number),
        Err(_) => false,
    };
    drop(named);
    if again { kevent(request, found, events, round) } else { result.map(|()| Progress::Done(0)) }
}

impl Sleeper {
    /// The wait to make.
    pub(crate) fn nap(&self, found: &mut Events, room: usize, round: &mut Round) -> Nap {
        round.note_sleep();
        Nap::new(self.0.kqueue.epoll.as_raw_fd(), found, wait::most(room), round.left())
    }

    /// Goes on after a wait that went as `waited` says.
    pub(crate) fn wake_up(
        self,
        request: &Request,
        waited: Result<bool>,
        found: &mut Events,
        events: &mut Output<Kevent>,
        round: &mut Round,
    ) -> Result<Progress> {
        let (named, number) = (self.0, request.number);
        let kqueue = &named.kqueue;
        if kqueue.is_parents() {
            return Err(Errno::EINTR);
        }
        // Where it matters, the clock is read before anything else can take time.
        let ended = waited.is_err() || kqueue.is_closed() || found.iter().any(|(token, _)| token == token::SENTINEL);
        let slept = ended.then(|| round.has_slept());
        let step = wait::wake_up(kqueue, number, found, events, round, waited);
        // A thread that slept has seen its own kqueue end, and so has one whose number a new
        // kqueue has got since.
        let renamed = || process().table.find(number).is_some_and(|there| !Arc::ptr_eq(&there, kqueue));
        if let Err(errno) = step
            && (slept.unwrap_or_else(|| round.has_slept()) || renamed())
        {
            return Err(errno);
        }
        progress(named, step, request, found, events, round)
    }

    /// The thread was cancelled and does not come back.
    pub(crate) fn give_up(self, request: &Request, found: &Events) {
        if !self.0.kqueue.is_parents() {
            wait::give_up(&self.0.kqueue, request.number, found);
        }
    }
}

fn call(
    kqueue: &Arc<Kqueue>,
    request: &Request,
    found: &mut Events,
    events: &mut Output<Kevent>,
    round: &mut Round,
) -> Result<wait::Step> {
    let mut state = kqueue.lock()?;
    if kqueue.is_closed() || state.is_due_for_a_look() && !kqueue.stands_behind(request.number) {
        return Err(Errno::EBADF);
    }
    if request.changes.len() > 0 {
        let applied = change::apply_all(kqueue, &mut state, request.changes, events);
        if applied != Ok(change::Next::Collect) || events.len() > 0 || events.room() == 0 {
            kqueue.leave(state, request.number, readable::Call::Change);
            // What made an event pending may have found the far end of the pipe closed.
            if kqueue.is_closed() && events.len() == 0 {
                return Err(Errno::EBADF);
            }
            return applied.map(|_| wait::Step::Done(events.len()));
        }
    } else if events.room() == 0 {
        return Ok(wait::Step::Done(0));
    }
    match request.patience() {
        Ok(patience) => {
            round.begin(patience);
            wait::collect(kqueue, state, request.number, found, events, round)
        }
        Err(errno) => {
            kqueue.leave(state, request.number, readable::Call::Change);
            Err(errno)
        }
    }
}

impl State {
    fn new(epoll: Arc<Epoll>, waker: Arc<Waker>, monitor: Arc<monitor::Post>) -> State {
        State {
            queue: Queue::new(epoll, waker, find_inner),
            calls: 0,
            sleepers: 0,
            told: Some(0),
            readable: readable::Readable::new(monitor),
        }
    }

    /// Whether the call that begins is the one in so many that looks whose its number is.
    fn is_due_for_a_look(&mut self) -> bool {
        const CALLS: u32 = 4096;
        self.calls = self.calls.wrapping_add(1);
        self.calls.is_multiple_of(CALLS)
    }

    /// Lets the epoll show only what it has itself, once nothing is on the ready list.
    fn dim_if_empty(&self) {
        if self.queue.knotes.ready() == 0 {
            self.queue.waker.dim();
        }
    }

    /// Wakes whoever watches this kqueue if knotes came onto the ready list since they were
    /// told last: what stands there does not show in the epoll any more.
    fn tell_watchers(&mut self, kqueue: &Kqueue) {
        let now = Some(self.queue.knotes.activations());
        let news = core::mem::replace(&mut self.told, now) != now;
        if news && kqueue.watchers.any() && self.queue.knotes.ready() > 0 {
            kqueue.waker.wake();
        }
    }
}

impl Kqueue {
    /// Whether this is a forked child, which came here from a handler: what other threads of the
    /// parent had locked is locked for ever.
    fn is_parents(&self) -> bool {
        self.life.generation != fd::generation()
    }

    /// EINTR: this is a forked child, in which nobody will let go of the lock.
    #[inline]
    fn lock(&self) -> Result<Locked<'_>> {
        self.state.lock_while(|| !self.is_parents()).ok_or(Errno::EINTR)
    }

    fn is_closed(&self) -> bool {
        self.life.closed.load(Ordering::Acquire)
    }

    fn numbers(&self) -> sync::Guard<'_, Vec<(RawFd, UserEnd)>> {
        self.numbers.lock()
    }

    /// `number` is another's now. In one step with the table, which would keep for ever what
    /// stands in it and not here.
    fn lose(self: &Arc<Self>, number: RawFd) {
        let mut numbers = self.numbers();
        process().table.leave(number, self);
        numbers.retain(|(own, _)| *own != number);
    }

    /// Ends a kqueue the program has closed: its numbers name nothing any more, its sleepers
    /// leave, and the last reference frees it.
    fn end(self: &Arc<Self>) {
        // At once, also if another thread is just about to.
        self.life.closed.store(true, Ordering::Release);
        if process().table.retire(self.held.as_raw_fd(), self) {
            self.ended();
        }
    }

    fn ended(self: &Arc<Self>) {
        self.life.closed.store(true, Ordering::Release);
        for (number, _) in core::mem::take(&mut *self.numbers()) {
            process().table.leave(number, self);
        }
    }

    /// Whether the program has left it its own descriptors.
    fn is_intact(&self) -> bool {
        self.held.is_intact() && self.epoll.is_intact()
    }

    fn end_if_closed(self: &Arc<Self>) {
        if self.held.is_hung_up() || !self.is_intact() {
            self.end();
        }
    }

    /// The end of every call: timers are armed, work that is left is passed on to whoever
    /// sleeps or watches, and the descriptor shows whether events are pending. True: the
    /// number was looked at for that, and is the kqueue's.
    fn leave(self: &Arc<Self>, mut state: Locked<'_>, number: RawFd, call: readable::Call) -> bool {
        state.queue.timers.arm();
        let pass_on = state.queue.knotes.ready() > 0 && state.sleepers > 0;
        state.tell_watchers(self);
        state.dim_if_empty();
        let looked = readable::leave(self, &mut state, number, call);
        self.expect_signals(&mut state);
        drop(state);
        if pass_on {
            // Without the lock: on one core the woken thread would run into it.
            self.waker.wake();
        }
        looked
    }
}

impl Kqueue {
    /// Has signals wake the kqueue if anybody is there to be woken.
    fn expect_signals(&self, state: &mut State) {
        if state.sleepers == 0 && !self.watchers.any() && state.readable.mark != readable::Mark::Armed {
            return signals::expect_no_more(&mut state.queue);
        }
        let before = state.queue.knotes.ready();
        signals::expect(&mut state.queue);
        if state.queue.knotes.ready() > before {
            self.waker.wake();
        }
    }
}

impl Inner for Kqueue {
    fn epoll(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    fn pending(self: Arc<Self>) -> Option<(usize, u32)> {
        /// While epolls are built anew they admit a ring, in which two threads may each hold the
        /// lock that the other wants here.
        const PATIENCE: usize = 4000;
        if self.is_closed() || self.held.is_hung_up() {
            return Some((0, 0));
        }
        let mut state = self.state.lock_within(PATIENCE)?;
        signals::expect(&mut state.queue);
        wait::look(&self, &mut state, false);
        let pending = state.queue.knotes.ready();
        state.queue.timers.arm();
        // Looking took the events out of the epoll. The one who asks knows now; a thread
        // that sleeps has to be woken, and other watchers still have to see it ready.
        let activations = state.queue.knotes.activations();
        state.told = Some(activations);
        if pending > 0 && self.watchers.count() > 1 {
            self.waker.light();
        }
        if pending > 0 && state.sleepers > 0 {
            self.waker.wake();
        }
        readable::looked(&self, &mut state);
        Some((pending, activations))
    }

    fn pipe_id(&self) -> u64 {
        self.held.pipe_id()
    }

    fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    fn watch(&self, watcher: Watcher) {
        self.watchers.enter(watcher);
        // What is pending already may not show in the epoll.
        self.waker.wake();
    }
}
