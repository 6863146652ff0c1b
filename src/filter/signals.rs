//! A kqueue's part in the signals of the process: which it watches, and how it hears of them.
//!
//! The counts are the process's and only grow; a knote remembers where one stood at its last
//! event. So signals cost the same however many kqueues watch, and none takes from another.
//! A sleeper is woken by the kqueue's bell, which the hook rings, or by the signalfd, which
//! tells of blocked signals. A kqueue that nobody sleeps in looks when it is next called.

use super::{Queue, token};
use crate::errno::Result;
use crate::knote::{NONE, Slot};
use crate::sys::bells::OwnBell;
use crate::sys::epoll::{self, Epoll};
use crate::sys::signal::{SignalFd, count_interruptions};
use crate::sys::{hook, pending};
use std::os::fd::AsRawFd;

/// The part of one kqueue. No more than a null pointer where no signal is watched.
#[derive(Default)]
pub(crate) struct Signals(Option<Box<Watching>>);

impl Signals {
    pub(super) fn any(&self) -> bool {
        self.0.is_some()
    }
}

struct Watching {
    bell: OwnBell,
    fd: SignalFd,
    /// Those watched.
    mask: u64,
    /// The knote of each signal, and the count its event in hand tells.
    knotes: [(Slot, u32); hook::HIGHEST],
    /// The signalfd will tell again of what it has told.
    echo: bool,
    generation: u32,
}

impl Watching {
    fn new(queue: &Queue) -> Result<Watching> {
        count_interruptions()?;
        let fd = SignalFd::silent()?;
        queue.epoll.add(fd.as_raw_fd(), epoll::IN | epoll::ET, token::SIGNALS)?;
        Ok(Watching {
            bell: OwnBell::new(queue.waker.clone()),
            fd,
            mask: 0,
            knotes: [(NONE, 0); hook::HIGHEST],
            echo: false,
            generation: crate::sys::fd::generation(),
        })
    }

    /// Begins or ends to hear of what `mask` says.
    fn retune(&mut self, mask: u64) -> Result<()> {
        self.fd.retune(mask)?;
        self.bell.set_signals(mask);
        self.mask = mask;
        Ok(())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if self.generation == crate::sys::fd::generation() {
            hook::members(self.mask).for_each(hook::unwatch);
        }
    }
}

/// The signal that an ident names: 1 to 64, but none of libc's own two, which no program can
/// send or handle.
pub(super) fn number(ident: usize) -> Option<i32> {
    i32::try_from(ident).ok().filter(|number| (1..=64).contains(number) && !(32..34).contains(number))
}

fn place(queue: &Queue, slot: Slot) -> (usize, i32) {
    let number = number(queue.knotes[slot].ident).unwrap_or(1);
    (number.unsigned_abs() as usize - 1, number)
}

/// Watches the knote's signal. Returns the count from which on it counts. EMFILE, ENFILE,
/// ENOMEM.
pub(super) fn watch(queue: &mut Queue, slot: Slot) -> Result<u32> {
    let (place, number) = place(queue, slot);
    if queue.signals.0.is_none() {
        queue.signals.0 = Some(Box::new(Watching::new(queue)?));
        queue.expect_wakes();
    }
    let Some(own) = queue.signals.0.as_deref_mut() else { return Ok(0) };
    let mask = own.mask | hook::bit(number);
    if let Err(errno) = own.retune(mask) {
        if own.mask == 0 {
            queue.signals.0 = None;
        }
        return Err(errno);
    }
    own.knotes[place] = (slot, 0);
    hook::watch(number);
    // What is pending already was sent before.
    own.echo |= pending::begin(mask);
    Ok(hook::sent(number))
}

/// Ends what [`watch`] began.
pub(super) fn unwatch(queue: &mut Queue, slot: Slot) {
    let (place, number) = place(queue, slot);
    let Some(own) = queue.signals.0.as_deref_mut() else { return };
    own.knotes[place] = (NONE, 0);
    let left = own.mask & !hook::bit(number);
    // A signalfd that hears too much costs a look and no more.
    if own.retune(left).is_err() {
        own.mask = left;
    }
    hook::unwatch(number);
    pending::release(number);
    if left == 0 {
        queue.signals.0 = None;
    }
}

/// How often the knote's signal was sent since its last event.
pub(super) fn report(queue: &mut Queue, slot: Slot) -> u32 {
    let (place, number) = place(queue, slot);
    let (sent, before) = (hook::sent(number), queue.knotes[slot].own);
    if let Some(own) = queue.signals.0.as_deref_mut() {
        own.knotes[place].1 = sent;
    }
    sent.wrapping_sub(before)
}

/// That was handed out.
pub(super) fn reported(queue: &mut Queue, slot: Slot) {
    let (place, _) = place(queue, slot);
    if let Some(own) = queue.signals.0.as_deref() {
        queue.knotes[slot].own = own.knotes[place].1;
    }
}

/// Queues the knotes whose signals were sent. True: there are some that may be handed out.
#[inline]
pub(crate) fn gather(queue: &mut Queue) -> bool {
    queue.signals.any() && gather_watched(queue)
}

fn gather_watched(queue: &mut Queue) -> bool {
    let Some(own) = queue.signals.0.as_deref() else { return false };
    let mut some = false;
    for number in hook::members(own.mask) {
        let (slot, _) = own.knotes[number.unsigned_abs() as usize - 1];
        if queue.knotes[slot].own != hook::sent(number) {
            queue.knotes.activate(slot);
            some |= queue.knotes[slot].is_enabled();
        }
    }
    some
}

/// A call that collects begins: looks at what nothing told of. Where the program's changes
/// of actions do not come to us, that are those too.
pub(crate) fn begin(queue: &mut Queue) {
    let Some(own) = queue.signals.0.as_deref_mut() else { return };
    if !hook::is_in_front() {
        hook::compare(own.mask);
    }
    own.echo |= pending::begin(own.mask);
    gather(queue);
}

/// The signalfd told of something.
pub(crate) fn take(queue: &mut Queue) {
    if let Some(own) = queue.signals.0.as_deref_mut() {
        own.echo |= pending::look(own.mask);
        gather(queue);
    }
}

/// Whether the signalfd will tell again of what it has told, which should be got out of the
/// way before the program itself acts.
pub(crate) fn take_echo(queue: &mut Queue) -> bool {
    queue.signals.0.as_deref_mut().is_some_and(|own| core::mem::take(&mut own.echo))
}

/// Has the kqueue woken for signals from now on, and queues those that came before.
pub(crate) fn expect(queue: &mut Queue) {
    if let Some(own) = queue.signals.0.as_deref() {
        own.bell.want(true);
        gather(queue);
    }
}

/// The same for a thread that will sleep. Not all of libc's own calls come to us
/// (sigignore(3), sigset(3)), so actions are compared here in any case. Returns how long it
/// may sleep for their sake, ns.
pub(crate) fn before_sleep(queue: &mut Queue) -> Option<u64> {
    let own = queue.signals.0.as_deref_mut()?;
    if hook::is_in_front() {
        hook::compare(own.mask);
    }
    let (span, echo) = pending::tend(own.mask);
    own.echo |= echo;
    expect(queue);
    span
}

/// A call is over: somebody still wants to be woken, or nobody does.
pub(crate) fn expect_no_more(queue: &mut Queue) {
    if let Some(own) = queue.signals.0.as_deref() {
        own.bell.want(false);
    }
}

/// Enters the signalfd into a fresh set of the kqueue's.
pub(super) fn enter(queue: &Queue, epoll: &Epoll) -> Result<()> {
    match &queue.signals.0 {
        Some(own) => epoll.add(own.fd.as_raw_fd(), epoll::IN | epoll::ET, token::SIGNALS),
        None => Ok(()),
    }
}
