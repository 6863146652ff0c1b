//! Which number names which kqueue.
//!
//! Finding a kqueue and taking a reference is one operation under the lock of the
//! number's own slot, on a cache line of its own, so that calls on different kqueues never
//! meet. Slots of the numbers programs have stand in leaves that only grow; numbers from
//! 65,536 on share a map. Beside it, `live` holds every kqueue by its held end, whose number
//! cannot be reused before the library itself closes it: that is the name by which late
//! notices find the right one or none.

use crate::errno::{Errno, Result};
use crate::sys::fd;
use crate::sys::sync::{Arc, Condvar, Mutex};
use core::sync::atomic::{AtomicBool, Ordering};
use once_cell::race::OnceBox;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::time::Duration;

/// Nothing of it reaches beyond its own line, the lock included.
#[repr(align(64))]
struct Slot<T> {
    kqueue: Mutex<Option<Arc<T>>>,
    /// A kqueue once had this number. Most never see one, and every new knote on a
    /// descriptor asks.
    used: AtomicBool,
}

const LEAF: usize = 64;
const LEAVES: usize = 1024;

type Leaf<T> = [Slot<T>; LEAF];

/// The table of a process.
pub(crate) struct Table<T> {
    generation: u32,
    leaves: [OnceBox<Leaf<T>>; LEAVES],
    high: Mutex<BTreeMap<RawFd, Arc<T>>>,
    live: Mutex<BTreeMap<RawFd, Arc<T>>>,
    closing: Mutex<Closing>,
    all_freed: Condvar,
}

#[derive(Default)]
struct Closing {
    /// Kqueues that are closed and not yet freed.
    kqueues: usize,
    /// Threads that wait for that. A wake-up for nobody is a system call, too.
    waiting: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table {
            generation: fd::generation(),
            leaves: [const { OnceBox::new() }; LEAVES],
            high: Mutex::default(),
            live: Mutex::default(),
            closing: Mutex::default(),
            all_freed: Condvar::default(),
        }
    }
}

impl<T> Table<T> {
    /// The slot of a number below the high ones, if any kqueue ever had one near it.
    fn slot(&self, number: usize) -> Option<&Slot<T>> {
        self.leaves.get(number / LEAF)?.get()?.get(number % LEAF)
    }

    /// A reference to the kqueue that `number` names. In a child that was forked in here, by a
    /// handler, it may be that none can be had any more.
    pub(crate) fn find(&self, number: RawFd) -> Option<Arc<T>> {
        let is_own = || self.generation == fd::generation();
        let index = usize::try_from(number).ok()?;
        match self.slot(index) {
            Some(slot) if !slot.used.load(Ordering::Acquire) => None,
            Some(slot) => slot.kqueue.lock_while(is_own)?.clone(),
            None if index < LEAF * LEAVES => None,
            None => self.high.lock_while(is_own)?.get(&number).cloned(),
        }
    }

    /// Enters `kqueue` under `number` and hands back whose number it was. EBADF for a
    /// negative number.
    pub(crate) fn enter(&self, number: RawFd, kqueue: Arc<T>) -> Result<Option<Arc<T>>> {
        let index = usize::try_from(number).map_err(|_| Errno::EBADF)?;
        let Some(leaf) = self.leaves.get(index / LEAF) else {
            return Ok(self.high.lock().insert(number, kqueue));
        };
        let vacant = |_| Slot { kqueue: Mutex::new(None), used: AtomicBool::new(false) };
        let slot = &leaf.get_or_init(|| Box::new(core::array::from_fn(vacant)))[index % LEAF];
        slot.used.store(true, Ordering::Release);
        Ok(slot.kqueue.lock().replace(kqueue))
    }

    /// Empties the slot of `number` if it still is `kqueue`'s.
    pub(crate) fn leave(&self, number: RawFd, kqueue: &Arc<T>) {
        let is_it = |there: &Arc<T>| Arc::ptr_eq(there, kqueue);
        if let Some(slot) = usize::try_from(number).ok().and_then(|index| self.slot(index)) {
            let _gone = slot.kqueue.lock().take_if(|there| is_it(there));
        } else {
            let mut high = self.high.lock();
            if high.get(&number).is_some_and(is_it) {
                high.remove(&number);
            }
        }
    }

    /// Notes a kqueue by its held end. One that had this number has lost it, as only a
    /// program can bring about that closes what is not its own: it counts as retired.
    pub(crate) fn note(&self, held: RawFd, kqueue: Arc<T>) -> Option<Arc<T>> {
        let lost = self.live.lock().insert(held, kqueue);
        if lost.is_some() {
            self.closing.lock().kqueues += 1;
        }
        lost
    }

    /// The live kqueue with this held end.
    pub(crate) fn by_held(&self, held: RawFd) -> Option<Arc<T>> {
        self.live.lock().get(&held).cloned()
    }

    /// Whether no kqueue is alive.
    pub(crate) fn is_empty(&self) -> bool {
        self.live.lock().is_empty()
    }

    /// Every live kqueue.
    pub(crate) fn all(&self) -> Vec<(RawFd, Arc<T>)> {
        self.live.lock().iter().map(|(&held, kqueue)| (held, kqueue.clone())).collect()
    }

    /// Takes a kqueue out of the living; true for the one caller who did it. From here on
    /// it counts as closing until [`Table::freed`].
    pub(crate) fn retire(&self, held: RawFd, kqueue: &Arc<T>) -> bool {
        let mut live = self.live.lock();
        let same = live.get(&held).is_some_and(|there| Arc::ptr_eq(there, kqueue));
        if same {
            live.remove(&held);
            self.closing.lock().kqueues += 1;
        }
        same
    }

    /// A retired kqueue has been freed.
    pub(crate) fn freed(&self) {
        let mut closing = self.closing.lock();
        closing.kqueues = closing.kqueues.saturating_sub(1);
        if closing.kqueues == 0 && closing.waiting > 0 {
            self.all_freed.notify_all();
        }
    }

    /// Waits until no kqueue is closing.
    pub(crate) fn wait_freed(&self) {
        let mut closing = self.closing.lock();
        closing.waiting += 1;
        while closing.kqueues > 0 {
            closing = self.all_freed.wait(closing);
        }
        closing.waiting -= 1;
    }

    /// The same, for as long as `time` at most, or a spurious wake-up.
    pub(crate) fn wait_freed_for(&self, time: Duration) {
        let mut closing = self.closing.lock();
        closing.waiting += 1;
        if closing.kqueues > 0 {
            closing = self.all_freed.wait_for(closing, time);
        }
        closing.waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_far_apart_have_slots_of_their_own() {
        let table = Table::default();
        for number in [0, 63, 64, 65_535, 65_536, RawFd::MAX] {
            assert!(table.find(number).is_none());
            assert!(matches!(table.enter(number, Arc::new(number)), Ok(None)));
        }
        for number in [0, 63, 64, 65_535, 65_536, RawFd::MAX] {
            assert_eq!(table.find(number).as_deref(), Some(&number));
        }
        assert!(table.find(-1).is_none());
        assert!(table.enter(-1, Arc::new(0)).is_err());
    }

    #[test]
    fn a_late_leave_takes_nothing_from_the_new_owner_of_a_number() {
        let table = Table::default();
        let (old, new) = (Arc::new(1), Arc::new(2));
        assert!(matches!(table.enter(5, old.clone()), Ok(None)));
        assert!(matches!(table.enter(5, new.clone()), Ok(Some(evicted)) if Arc::ptr_eq(&evicted, &old)));
        table.leave(5, &old);
        assert_eq!(table.find(5).as_deref(), Some(&2));
        table.leave(5, &new);
        assert!(table.find(5).is_none());
    }

    #[test]
    fn a_kqueue_is_retired_once_and_waited_for_until_freed() {
        let table = Table::default();
        let kqueue = Arc::new(1);
        assert!(table.note(9, kqueue.clone()).is_none());
        assert!(table.retire(9, &kqueue));
        assert!(!table.retire(9, &kqueue));
        table.freed();
        table.wait_freed();
        assert!(table.by_held(9).is_none());
    }
}
