//! Bells: how a signal handler reaches the kqueues that watch the signal.
//!
//! Each such kqueue has one, in a list that only grows, so that a handler can walk it at any
//! moment without a lock. A bell is rung only while it is *wanted*: while a thread sleeps in
//! the kqueue, or somebody polls or watches it. Otherwise the next call looks at the counts.
//!
//! Order: a kqueue says that it wants the bell, then looks at the counts, then sleeps; the
//! hook counts, then looks whether the bell is wanted. All four are SeqCst: in any order of
//! them at least one sees the other.

#![allow(unsafe_code)]

use super::eventfd::Waker;
use super::{process, signal};
use crate::sys::fd;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

struct Bell {
    /// The signals it is rung for.
    signals: AtomicU64,
    wanted: AtomicBool,
    /// Handlers that are using `waker` at this moment.
    users: AtomicU32,
    waker: AtomicPtr<Waker>,
    /// Belongs to a kqueue.
    taken: AtomicBool,
    next: Option<&'static Bell>,
}

static FIRST: AtomicPtr<Bell> = AtomicPtr::new(core::ptr::null_mut());
/// The process the wakers belong to. A child that ran no fork handler shares them.
static OWNER: AtomicI32 = AtomicI32::new(0);

fn all() -> impl Iterator<Item = &'static Bell> {
    // SAFETY: null, or made by `new_bell` and never freed.
    let first = unsafe { FIRST.load(Ordering::Acquire).as_ref() };
    core::iter::successors(first, |bell| bell.next)
}

/// Rings every bell that is wanted for this signal. Async-signal-safe.
pub(super) fn ring(number: libc::c_int) {
    let mask = super::hook::bit(number);
    for bell in all() {
        if bell.is_for(mask) && bell.wanted.load(Ordering::SeqCst) {
            // A handler that came now might never return, by siglongjmp().
            signal::with_all_blocked(|| bell.ring(mask));
        }
    }
}

impl Bell {
    fn is_for(&self, mask: u64) -> bool {
        self.signals.load(Ordering::SeqCst) & mask != 0
    }

    fn ring(&self, mask: u64) {
        self.users.fetch_add(1, Ordering::SeqCst);
        if self.is_for(mask) && OWNER.load(Ordering::Relaxed) == process::pid() {
            // SAFETY: the owner waits for `users` between taking the signals away and
            // dropping the waker.
            if let Some(waker) = unsafe { self.waker.load(Ordering::SeqCst).as_ref() } {
                waker.wake();
            }
        }
        self.users.fetch_sub(1, Ordering::SeqCst);
    }
}

fn new_bell() -> &'static Bell {
    let mut first = FIRST.load(Ordering::Acquire);
    let bell = Box::leak(Box::new(Bell {
        signals: AtomicU64::new(0),
        wanted: AtomicBool::new(false),
        users: AtomicU32::new(0),
        waker: AtomicPtr::new(core::ptr::null_mut()),
        taken: AtomicBool::new(true),
        next: None,
    }));
    loop {
        // SAFETY: as in `all`.
        bell.next = unsafe { first.as_ref() };
        match FIRST.compare_exchange(first, bell, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return bell,
            Err(other) => first = other,
        }
    }
}

/// A kqueue's bell.
pub(crate) struct OwnBell {
    bell: &'static Bell,
    generation: u32,
}

impl OwnBell {
    pub(crate) fn new(waker: Arc<Waker>) -> OwnBell {
        OWNER.store(process::pid(), Ordering::Relaxed);
        let free = |bell: &&Bell| !bell.taken.swap(true, Ordering::AcqRel);
        let bell = all().find(free).unwrap_or_else(new_bell);
        bell.waker.store(Arc::into_raw(waker).cast_mut(), Ordering::SeqCst);
        bell.wanted.store(true, Ordering::SeqCst);
        OwnBell { bell, generation: fd::generation() }
    }

    /// The signals it is rung for.
    pub(crate) fn set_signals(&self, mask: u64) {
        self.bell.signals.store(mask, Ordering::SeqCst);
    }

    /// Whether it shall be rung.
    pub(crate) fn want(&self, wanted: bool) {
        self.bell.wanted.store(wanted, Ordering::SeqCst);
    }
}

impl Drop for OwnBell {
    fn drop(&mut self) {
        if self.generation != fd::generation() {
            return;
        }
        self.bell.signals.store(0, Ordering::SeqCst);
        while self.bell.users.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        let waker = self.bell.waker.swap(core::ptr::null_mut(), Ordering::SeqCst);
        // SAFETY: `new` made it of an Arc, and no handler uses it any more.
        drop(unsafe { Arc::from_raw(waker) });
        self.bell.taken.store(false, Ordering::Release);
    }
}

/// In a forked child: the parent's kqueues are not to be reached. Their wakers stay in
/// memory, as everything of the parent's does.
pub(super) fn reset_in_child() {
    for bell in all() {
        bell.signals.store(0, Ordering::SeqCst);
        bell.users.store(0, Ordering::SeqCst);
        bell.taken.store(false, Ordering::SeqCst);
    }
}
