//! Letters: how news reach a kqueue from outside its own epoll and its own lock.
//!
//! Facilities a process has once (an inotify instance, the process connector) are read by
//! whichever thread comes first. It drops the names of the knotes concerned into the
//! letter boxes of their kqueues and wakes those, for whom epoll would find nothing left
//! to tell. Names go stale with their knotes, so that a late letter reaches nobody.
//!
//! Lock order: a kqueue, then the facility, then a letter box.

use super::Queue;
use crate::errno::Errno;
use crate::sys::eventfd::Waker;
use crate::sys::sync::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One kqueue's letters: names of knotes to look at again.
pub(crate) struct LetterBox {
    names: Mutex<BTreeSet<u64>>,
    waker: Arc<Waker>,
}

impl LetterBox {
    fn new(waker: Arc<Waker>) -> LetterBox {
        LetterBox { names: Mutex::default(), waker }
    }

    /// Drops a letter for the knote of that name. The caller wakes the kqueue, unless it is
    /// the one at work.
    pub(crate) fn drop_in(&self, name: u64) {
        self.names.lock().insert(name);
    }

    /// Has the kqueue read its letters.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    fn empty(&self) -> BTreeSet<u64> {
        core::mem::take(&mut *self.names.lock())
    }
}

impl Queue {
    /// This kqueue's letter box.
    pub(crate) fn letter_box(&mut self) -> Arc<LetterBox> {
        let letters = match &self.letters {
            Some(letters) => letters.clone(),
            None => Arc::new(LetterBox::new(self.waker.clone())),
        };
        if self.letters.is_none() {
            self.letters = Some(letters.clone());
            self.expect_wakes();
        }
        letters
    }

    /// From now on something outside may have to wake this kqueue, which must not fail then.
    pub(super) fn expect_wakes(&mut self) {
        self.crowded |= self.waker.prepare() == Err(Errno::EINVAL);
    }

    /// Whether something outside may have to wake it.
    pub(crate) fn expects_wakes(&self) -> bool {
        self.letters.is_some() || self.following.is_some() || self.signals.any()
    }

    /// Queues the knotes this kqueue's letters name.
    pub(crate) fn take_letters(&mut self) {
        let Some(letters) = &self.letters else { return };
        for name in letters.empty() {
            if let Some(slot) = self.knotes.resolve(name) {
                self.knotes.activate(slot);
            }
        }
    }
}
