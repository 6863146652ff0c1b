//! The locks: of what a process has once, of each kqueue, and of what is outside that one.
//!
//! One word each, in the value itself, so that a fork handler can hold them and a child finds
//! nothing of another thread's in them; parking_lot keeps the waiting threads of a process in
//! one table, whose locks nobody can take before a fork. And unlike std's, who waits looks up
//! now and then whether the lock still can become free: in a child that a handler forked it
//! is held for ever by a thread that is not there.

#![allow(unsafe_code)]

use super::futex;
use core::sync::atomic::{AtomicU32, Ordering};
/// Here so that a model of the threads can put its own in its place.
pub(crate) use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The lock itself, in one of these states.
pub(crate) struct Word(AtomicU32);

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep until it is free.
const WANTED: u32 = 2;

/// How often a thread looks before it sleeps. A short look finds the end of many a call; where
/// that does not do the holder is in a system call, which looking makes no shorter. A hundred
/// looks cost two threads on two cores up to half more time and won none.
const LOOKS: usize = 10;

/// How long it sleeps before it looks whether it waits in vain. A handler's return ends the
/// sleep at once.
const LONG: Duration = Duration::from_secs(1);

impl Word {
    /// True: it is ours. False: it was not while `goes_on` said that it could be.
    #[cold]
    fn wait(&self, goes_on: impl Fn() -> bool) -> bool {
        let mut word = self.look();
        if word == FREE && lock_api::RawMutex::try_lock(self) {
            return true;
        }
        // Who has slept cannot know that nobody else does.
        while word == WANTED || self.0.swap(WANTED, Ordering::Acquire) != FREE {
            if !goes_on() {
                return false;
            }
            futex::wait(&self.0, WANTED, LONG);
            word = self.look();
        }
        true
    }

    /// What the word is, once it is not just [`HELD`] or that has lasted.
    fn look(&self) -> u32 {
        for _ in 1..LOOKS {
            match self.0.load(Ordering::Relaxed) {
                HELD => core::hint::spin_loop(),
                word => return word,
            }
        }
        self.0.load(Ordering::Relaxed)
    }
}

// SAFETY: only whoever finds the word FREE and writes another gets the lock, with acquire, and
// gives it back with release.
unsafe impl lock_api::RawMutex for Word {
    #[allow(clippy::declare_interior_mutable_const, reason = "a first value, never used in place")]
    const INIT: Word = Word(AtomicU32::new(FREE));

    type GuardMarker = lock_api::GuardSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.wait(|| true);
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.0.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.0.swap(FREE, Ordering::Release) == WANTED {
            futex::wake(&self.0, 1);
        }
    }
}

/// A mutual exclusion lock around a value.
#[derive(Default)]
pub(crate) struct Mutex<T>(lock_api::Mutex<Word, T>);

/// Access to the value, for as long as it lives.
pub(crate) type Guard<'a, T> = lock_api::MutexGuard<'a, Word, T>;

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(lock_api::Mutex::from_raw(<Word as lock_api::RawMutex>::INIT, value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.0.lock()
    }

    /// The same where the holder may be a thread that does not exist: `None` once `goes_on` says
    /// no, which is asked while the lock is not to be had.
    #[inline]
    pub(crate) fn lock_while(&self, goes_on: impl Fn() -> bool) -> Option<Guard<'_, T>> {
        if let Some(guard) = self.0.try_lock() {
            return Some(guard);
        }
        // SAFETY: the word is only waited for, and given back by the guard.
        let is_ours = unsafe { self.0.raw() }.wait(goes_on);
        // SAFETY: the lock is held, and this is the only guard of it.
        is_ours.then(|| unsafe { self.0.make_guard_unchecked() })
    }

    /// The same for the library's own thread, which lets those of the program go first: one it
    /// has taken the core from holds the lock for a moment only, and once somebody sleeps in the
    /// lock each unlock is a system call.
    pub(crate) fn lock_after_others(&self) -> Guard<'_, T> {
        self.lock_within(10).unwrap_or_else(|| self.lock())
    }

    /// The same where the holder may be waiting for the caller: `None` after having let others run
    /// so many times.
    pub(crate) fn lock_within(&self, yields: usize) -> Option<Guard<'_, T>> {
        (0..yields).find_map(|_| {
            let free = self.0.try_lock();
            if free.is_none() {
                thread::yield_now();
            }
            free
        })
    }
}

impl Mutex<()> {
    /// Makes it free, in a forked child, whose threads it is not held by.
    pub(crate) fn reset(&self) {
        // SAFETY: there is no value that two could have at once.
        unsafe { self.0.raw() }.0.store(FREE, Ordering::Relaxed);
    }
}

/// Where threads wait for a value behind a lock to change: counts the calls that say it has.
#[derive(Default)]
pub(crate) struct Condvar(AtomicU32);

impl Condvar {
    /// Wakes one of them.
    pub(crate) fn notify_one(&self) {
        self.notify(1);
    }

    /// Wakes all of them.
    pub(crate) fn notify_all(&self) {
        self.notify(i32::MAX);
    }

    fn notify(&self, threads: i32) {
        self.0.fetch_add(1, Ordering::Release);
        futex::wake(&self.0, threads);
    }

    /// Lets go of the lock, sleeps, and takes it again. May wake for no reason.
    pub(crate) fn wait<'a, T>(&self, guard: Guard<'a, T>) -> Guard<'a, T> {
        self.wait_for(guard, LONG)
    }

    /// The same, for as long as `time` at most.
    pub(crate) fn wait_for<'a, T>(&self, mut guard: Guard<'a, T>, time: Duration) -> Guard<'a, T> {
        let count = self.0.load(Ordering::Acquire);
        Guard::unlocked(&mut guard, || futex::wait(&self.0, count, time));
        guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn eight_threads_never_hold_it_at_once() {
        let count = Arc::new(Mutex::new(0u32));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let count = count.clone();
                thread::spawn(move || {
                    for _ in 0..10_000 {
                        let mut guard = count.lock();
                        let before = *guard;
                        if before.is_multiple_of(64) {
                            // Others come to sleep meanwhile.
                            thread::yield_now();
                        }
                        *guard = before + 1;
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
        assert_eq!(*count.lock(), 80_000);
    }

    #[test]
    fn who_waits_in_vain_is_told_so() {
        let lock = Mutex::new(());
        let _held = lock.lock();
        assert!(lock.lock_while(|| false).is_none());
        assert!(lock.lock_within(3).is_none());
    }

    #[test]
    fn a_waiting_thread_gets_it() {
        let lock = Arc::new(Mutex::new(false));
        let held = lock.lock();
        let other = {
            let lock = lock.clone();
            thread::spawn(move || lock.lock_while(|| true).map(|mut value| core::mem::replace(&mut *value, true)))
        };
        while lock.0.is_locked() && word(&lock) != WANTED {
            thread::yield_now();
        }
        drop(held);
        assert_eq!(other.join().expect("it does not panic"), Some(false));
        assert!(*lock.lock());
    }

    #[test]
    fn a_change_wakes_who_waits_for_it_and_time_ends_the_wait() {
        let pair = Arc::new((Mutex::new(0), Condvar::default()));
        let other = {
            let pair = pair.clone();
            thread::spawn(move || {
                let mut value = pair.0.lock();
                while *value == 0 {
                    value = pair.1.wait(value);
                }
                *value
            })
        };
        *pair.0.lock() = 7;
        pair.1.notify_all();
        assert_eq!(other.join().expect("it does not panic"), 7);
        let (begin, time) = (Instant::now(), Duration::from_millis(5));
        drop(pair.1.wait_for(pair.0.lock(), time));
        assert!(begin.elapsed() >= time);
    }

    fn word<T>(lock: &Mutex<T>) -> u32 {
        // SAFETY: it is only read.
        unsafe { lock.0.raw() }.0.load(Ordering::Relaxed)
    }
}
