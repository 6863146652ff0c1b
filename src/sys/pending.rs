//! Watched signals that are blocked: seen while they are pending, and left so.
//!
//! A blocked signal does not come to the hook. A signalfd in the kqueue's epoll tells that one
//! became pending, and no more than that: reading it would take the signal. A signal that is
//! pending for the process may also be on its way to a thread that does not block it, and must
//! be left alone until it is known that all do, from /proc.
//!
//! Only then it is taken, counted, and *given back* to this very thread with a mark, so that
//! nobody counts it again. sigpending(), sigwait() and the handler on unblocking go on as if
//! it had never been away, and the process's own pending bit is free again, so that the next
//! one sent is told of too: the kernel merges a standard signal with one that is pending.
//!
//! But other threads do not find it there, and some may have blocked it for a moment only: in
//! a handler, at their start, in a critical section. So the thread looks again after it, in
//! longer and longer steps while it sleeps, and once somebody will have the signal it goes
//! back to the process; at the latest when the thread ends. Where the program's handler has
//! run before, somebody takes the signal as a rule. Then it goes back to the process at first,
//! and to this thread when it is found there still.
//!
//! Giving back makes the signalfd tell once more: an echo. Within one call of the program's
//! the thread cannot have used up what it was given back, so there such a signal is known
//! and left alone; otherwise it is taken again to look at the mark.

#![allow(unsafe_code)]

use super::clock::Clock;
use super::taken::{self, MERGING, Mark, Taken};
use super::{handling, hook, process, raw, signal, thread};
use core::cell::Cell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};
use libc::{c_int, c_long};
use std::ffi::CString;

/// When to look again after what was given back, ns: first, and then after twice that each
/// time, up to the longest. Who blocks the signal often may do so whenever we look.
const SOON: u64 = 1_000_000;
const LATE: u64 = 1_000_000_000;

/// What this thread has given back and what it knows of that, as masks of signals.
struct Own {
    /// Given to this thread in this call, where it cannot have used them up.
    held: Cell<u64>,
    /// Given to the process in this call, to rest there.
    rested: Cell<u64>,
    /// Sent to the process, wherever they are now: to be looked after.
    common: Cell<u64>,
    /// When to do so next, and how long it is from the time before, ns; 0: there is no need.
    next: Cell<u64>,
    step: Cell<u64>,
}

thread_local! {
    static OWN: Own = const {
        Own {
            held: Cell::new(0),
            rested: Cell::new(0),
            common: Cell::new(0),
            next: Cell::new(0),
            step: Cell::new(0),
        }
    };
    /// What happens when a thread ends that has signals of the process.
    static LEGACY: Legacy = const { Legacy };
}

/// Signals that the library's own thread has passed on a second time. It leaves them alone, or
/// each echo would have the next, until a thread of the program's looks at them.
static PASSED: AtomicU64 = AtomicU64::new(0);

/// The text of a /proc/*/status.
pub(super) struct Status(String);

impl Status {
    fn read(path: &CStr) -> Option<Status> {
        raw::read_text(path).ok().map(Status)
    }

    /// The calling thread's.
    pub(super) fn of_thread() -> Option<Status> {
        Status::read(c"/proc/thread-self/status")
    }

    /// What is pending for the thread alone.
    fn own(&self) -> u64 {
        self.mask("SigPnd:").unwrap_or(0)
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
    }

    /// A set of signals, signal 1 as the lowest bit.
    pub(super) fn mask(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.field(name)?, 16).ok()
    }
}

/// Signals of `mask` that are pending for this thread or the process, and blocked here.
fn pending(mask: u64) -> u64 {
    let mut set = 0u64;
    let size: c_long = 8;
    // SAFETY: the set has the size that is told.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, size) };
    set & mask & !signal::LIBCS_OWN
}

/// A call of the program's begins: looks without having been told. A signalfd's edge can be
/// lost, for what is pending for one thread alone does not show to another that polls.
pub(crate) fn begin(mask: u64) -> bool {
    OWN.with(|own| {
        own.held.set(0);
        own.rested.set(0);
        own.look(mask)
    })
}

/// Counts the signals of `mask` that are pending because every thread blocks them. True:
/// some were taken and given back, so that signalfds will tell of them again.
pub(crate) fn look(mask: u64) -> bool {
    OWN.with(|own| own.look(mask))
}

/// The thread is about to sleep: looks after what it has given back, if it is time for that.
/// How long it may sleep until the next time, ns, and what [`look`] says.
pub(crate) fn tend(mask: u64) -> (Option<u64>, bool) {
    let left = || match OWN.with(|own| own.next.get()) {
        0 => None,
        next => Some(next.saturating_sub(Clock::Monotonic.now())),
    };
    match left() {
        Some(0) => {
            // Other kqueues' too: what this thread has of theirs is in the way there as well.
            let echo = begin(mask | OWN.with(|own| own.common.get()));
            (left(), echo)
        }
        left => (left, false),
    }
}

impl Own {
    fn look(&self, mask: u64) -> bool {
        let pending = pending(mask);
        taken::forget(mask & !pending);
        let pending = pending & !taken::bare();
        if !thread::is_librarys() && PASSED.load(Ordering::SeqCst) & mask != 0 {
            PASSED.fetch_and(!mask, Ordering::SeqCst);
        }
        let mut due = self.common.get() != 0 && self.is_due(mask & !pending);
        if pending == 0 {
            return false;
        }
        // Without /proc nobody knows whose they are. The next call looks again.
        let Some(status) = Status::of_thread() else { return false };
        taken::note_queue(status.field("SigQ:"));
        let mut shared = pending & status.mask("ShdPnd:").unwrap_or(0);
        let mine = pending & status.own();
        let mut own = mine & !self.held.get();
        if thread::is_librarys() {
            // What is for the monitor alone is not the program's.
            own = 0;
            shared &= !(taken::resting() | PASSED.load(Ordering::SeqCst));
        } else {
            shared &= !(self.rested.get() & taken::resting());
        }
        let alone = status.field("Threads:") == Some("2");
        due |= !alone && self.next.get() == 0;
        let ours = if due { own & self.common.get() & !shared } else { 0 };
        let sure = alone && !thread::is_librarys();
        let blocked = if sure { shared | ours } else { blocked_everywhere(shared | ours) };
        let all = own | shared & blocked;
        if all == 0 {
            return false;
        }
        let old = self.common.get();
        self.pass_on(take(all, mine), ours & !blocked, alone);
        if alone || thread::is_librarys() {
            self.next.set(0);
        } else if self.common.get() & !old != 0 || self.next.get() == 0 {
            self.look_after(SOON);
        }
        true
    }

    /// Whether it is time to look after the common signals, which `gone` are no more.
    fn is_due(&self, gone: u64) -> bool {
        self.common.set(self.common.get() & !gone);
        if self.common.get() == 0 {
            self.next.set(0);
        }
        let due = self.next.get() != 0 && self.next.get() <= Clock::Monotonic.now();
        if due {
            self.look_after(LATE.min(self.step.get() * 2));
        }
        due
    }

    fn look_after(&self, step: u64) {
        if self.common.get() != 0 {
            self.step.set(step);
            self.next.set(Clock::Monotonic.now().saturating_add(step));
        }
    }

    /// Gives back what was taken, `free` to whichever thread will have it. `alone`: the program
    /// has but one.
    fn pass_on(&self, taken: Vec<Counted>, free: u64, alone: bool) {
        let known = taken.iter().filter(|one| one.is_known);
        let old = known.fold(0, |mask, one| mask | hook::bit(one.signal.number()));
        // The program will call for what is new, and that thread will take it over.
        let passing = thread::is_librarys() && !alone;
        let mut kept = Vec::new();
        for Counted { mut signal, mark, .. } in taken {
            let bit = hook::bit(signal.number());
            // One that has others before it stays behind them.
            let first = !alone && old & bit == 0;
            let rests = match passing {
                // It was put there since this thread looked.
                true => taken::resting() & bit != 0,
                false => first && bit & MERGING != 0 && handling::is_handled(signal.number()),
            };
            if mark == Mark::Process {
                self.common.set(self.common.get() | bit);
                let _ = LEGACY.try_with(|_| ());
            }
            if passing && !first {
                PASSED.fetch_or(bit, Ordering::SeqCst);
            }
            if mark == Mark::Process && (free & bit != 0 || passing || rests) {
                if rests {
                    self.rested.set(self.rested.get() | bit);
                }
                taken::rest(bit, rests);
                signal.mark(if passing && !rests { Mark::Passing } else { mark });
                signal.give_to_process();
            } else {
                taken::rest(bit, false);
                self.held.set(self.held.get() | bit);
                signal.mark(mark);
                kept.push(signal);
            }
        }
        let mut seen = 0;
        for signal in kept.iter_mut().rev() {
            let bit = hook::bit(signal.number());
            if seen & bit != 0 {
                signal.note_follower();
            }
            seen |= bit;
        }
        kept.into_iter().for_each(Taken::give_to_thread);
    }
}

/// Nobody watches the signal any more, so nobody will look after it: it goes back to the process
/// if this thread has it.
pub(crate) fn release(signal: c_int) {
    if !hook::is_watched(signal) {
        OWN.with(|own| own.release(hook::bit(signal)));
    }
}

/// The thread's own signals would end with it.
struct Legacy;

impl Drop for Legacy {
    fn drop(&mut self) {
        // A handler that calls kevent() would meet the locks this takes.
        signal::with_all_blocked(|| OWN.with(|own| own.release(u64::MAX)));
    }
}

impl Own {
    /// Gives to the process what is the process's and pending for this thread, of `mask`.
    fn release(&self, mask: u64) {
        let common = self.common.get() & mask;
        self.common.set(self.common.get() & !mask);
        if common == 0 || pending(common) == 0 {
            return;
        }
        let own = Status::of_thread().map_or(common, |status| status.own());
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        while let Some(mut signal) = Taken::any_of(common & own) {
            let mark = signal.unmark();
            if mark == Some(Mark::Thread) || mark.is_none() && signal.is_for_a_thread() {
                kept.push((signal, mark));
            } else {
                taken.push((signal, mark));
            }
        }
        for (mut signal, mark) in taken {
            if let Some(mark) = mark {
                taken::rest(hook::bit(signal.number()), true);
                signal.mark(mark);
            }
            signal.give_to_process();
        }
        for (mut signal, mark) in kept {
            if let Some(mark) = mark {
                signal.mark(mark);
            }
            signal.give_to_thread();
        }
    }
}

/// Those of `mask` that every thread blocks. One that waits in sigwait() does not.
fn blocked_everywhere(mask: u64) -> u64 {
    if mask == 0 {
        return 0;
    }
    let Some(threads) = process::threads() else { return 0 };
    let own = thread::tid();
    threads.iter().fold(mask, |mask, &thread| {
        // Where a handler runs it will be run once more.
        let mask = if thread == own { mask } else { mask & !handling::handled_by(thread, mask) };
        let path = CString::new(format!("/proc/self/task/{thread}/status"));
        match path.ok().and_then(|path| Status::read(&path)) {
            Some(status) => mask & status.mask("SigBlk:").unwrap_or(0),
            // It has ended meanwhile.
            None => mask,
        }
    })
}

/// A signal that was taken and is counted.
struct Counted {
    signal: Taken,
    mark: Mark,
    /// A thread of the program's has looked at it before.
    is_known: bool,
}

/// Takes all pending signals of `mask`, counting those that were not counted before; those of
/// `own` are pending for this thread. Of a standard signal one is kept, for one is all that
/// can be pending.
fn take(mask: u64, mut own: u64) -> Vec<Counted> {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    while let Some(mut signal) = Taken::any_of(mask) {
        let bit = hook::bit(signal.number());
        let for_thread = signal.is_for_a_thread() || own & bit != 0;
        // Nobody else takes those, and as long as there are some they come first.
        if bit & MERGING != 0 {
            own &= !bit;
        } else if own & bit != 0 && !signal.is_followed() {
            own &= Status::of_thread().map_or(0, |status| status.own());
        }
        let known = signal.unmark();
        let (mark, is_known) = match known {
            None => {
                hook::note(signal.number());
                let mark = if for_thread { Mark::Thread } else { Mark::Process };
                new.push(Counted { signal, mark, is_known: false });
                continue;
            }
            Some(Mark::Passing) => (Mark::Process, thread::is_librarys()),
            Some(mark) => (mark, true),
        };
        old.push(Counted { signal, mark, is_known });
    }
    // One that came while others were in our hands was sent after them.
    old.append(&mut new);
    let mut seen = 0;
    old.retain(|one| {
        let bit = hook::bit(one.signal.number());
        let first = seen & bit == 0;
        seen |= bit;
        first || bit & MERGING == 0
    });
    old
}
