//! The locks: of what a process has once, of each kqueue, and of what is outside that one.
//!
//! std's: their whole state is one word, in the value itself, so that a fork handler can
//! hold them and a child finds nothing of another thread's in them. parking_lot keeps the
//! waiting threads of a process in one table, whose locks nobody can take before a fork.
//! Poisoning means nothing here, since no panic is survived. ThreadSanitizer does not see what
//! happens inside std, which comes compiled, so for it (`--cfg kqueue_tsan`) parking_lot's
//! take their place.

/// Here so that a model of the threads can put its own in its place.
pub(crate) use std::sync::Arc;
use std::time::Duration;

#[cfg(not(kqueue_tsan))]
mod kind {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
    use std::sync::{PoisonError, TryLockError};
    use std::time::Duration;

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        match mutex.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_for<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>, time: Duration) -> MutexGuard<'a, T> {
        condition.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(kqueue_tsan)]
mod kind {
    pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};
    use std::time::Duration;

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock()
    }

    pub(super) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        mutex.try_lock()
    }

    pub(super) fn wait<'a, T>(condition: &Condvar, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condition.wait(&mut guard);
        guard
    }

    pub(super) fn wait_for<'a, T>(
        condition: &Condvar,
        mut guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> MutexGuard<'a, T> {
        condition.wait_for(&mut guard, time);
        guard
    }
}

/// A mutual exclusion lock around a value.
#[derive(Default)]
pub(crate) struct Mutex<T>(kind::Mutex<T>);

/// Access to the value, for as long as it lives.
pub(crate) type Guard<'a, T> = kind::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(kind::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        kind::lock(&self.0)
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
            let free = kind::try_lock(&self.0);
            if free.is_none() {
                std::thread::yield_now();
            }
            free
        })
    }
}

/// Where threads wait for a value behind a lock to change.
#[derive(Default)]
pub(crate) struct Condvar(kind::Condvar);

impl Condvar {
    /// Wakes one of them.
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all of them.
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Lets go of the lock, sleeps, and takes it again. May wake for no reason.
    pub(crate) fn wait<'a, T>(&self, guard: Guard<'a, T>) -> Guard<'a, T> {
        kind::wait(&self.0, guard)
    }

    /// The same, for as long as `time` at most.
    pub(crate) fn wait_for<'a, T>(&self, guard: Guard<'a, T>, time: Duration) -> Guard<'a, T> {
        kind::wait_for(&self.0, guard, time)
    }
}
