//! A kqueue that another one watches, as the watcher keeps it, and its watchers, as it
//! keeps them.

use super::descriptors::SETS;
use super::letters::LetterBox;
use super::mask::unpack;
use super::{Inner, Queue, fd};
use crate::errno::{Errno, Result};
use crate::sys::sync::{Guard, Mutex};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

/// Who watches: a knote, reached by letter.
#[derive(Clone)]
pub(crate) struct Watcher {
    letters: Arc<LetterBox>,
    name: u64,
}

/// The watchers of a kqueue.
#[derive(Default)]
pub(crate) struct Watchers {
    all: Mutex<Vec<Watcher>>,
    count: AtomicUsize,
    /// How often the kqueue's epoll was replaced, which takes it out of its watchers'.
    renewals: AtomicU32,
}

impl Watchers {
    fn all(&self) -> Guard<'_, Vec<Watcher>> {
        self.all.lock()
    }

    pub(crate) fn enter(&self, watcher: Watcher) {
        let mut all = self.all();
        all.push(watcher);
        self.count.store(all.len(), Ordering::Relaxed);
    }

    fn leave(&self, watcher: &Watcher) {
        let mut all = self.all();
        all.retain(|other| other.name != watcher.name || !Arc::ptr_eq(&other.letters, &watcher.letters));
        self.count.store(all.len(), Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn any(&self) -> bool {
        self.count() > 0
    }

    /// The kqueue's epoll was replaced: everybody has to enter it anew.
    pub(crate) fn renewed(&self) {
        self.renewals.fetch_add(1, Ordering::AcqRel);
        for watcher in self.all().iter() {
            watcher.letters.drop_in(watcher.name);
            watcher.letters.wake();
        }
    }
}

/// The watched kqueue. It is told that it is watched, and not kept alive.
pub(crate) struct WatchedKqueue {
    inner: Weak<dyn Inner>,
    watcher: Watcher,
    /// Its epoll's renewals when it was entered last.
    renewals: u32,
    /// The version of its events as last looked at.
    pub(super) version: u32,
}

impl WatchedKqueue {
    pub(super) fn new(kqueue: &Arc<dyn Inner>, letters: Arc<LetterBox>, name: u64) -> WatchedKqueue {
        let watcher = Watcher { letters, name };
        let renewals = kqueue.watchers().renewals.load(Ordering::Acquire);
        kqueue.watch(watcher.clone());
        WatchedKqueue { inner: Arc::downgrade(kqueue), watcher, renewals, version: 0 }
    }

    /// The kqueue, unless it is gone.
    pub(super) fn kqueue(&self) -> Option<Arc<dyn Inner>> {
        self.inner.upgrade()
    }

    /// Whether its epoll was replaced since this was asked last.
    pub(super) fn was_renewed(&mut self) -> bool {
        let Some(kqueue) = self.kqueue() else { return false };
        let now = kqueue.watchers().renewals.load(Ordering::Acquire);
        core::mem::replace(&mut self.renewals, now) != now
    }

    /// It could not be entered: it is as if the epoll was replaced once more.
    pub(super) fn is_to_enter(&mut self) {
        self.renewals = self.renewals.wrapping_sub(1);
    }
}

/// Enters a watched kqueue anew whose epoll was replaced: with the old one it fell out of
/// the sets. ELOOP: meanwhile it has come to watch this one. After an error it is as if it
/// still had to be entered.
pub(super) fn refresh(queue: &mut Queue, number: RawFd) -> Result<()> {
    if !queue.fds.kqueues.get_mut(&number).is_some_and(WatchedKqueue::was_renewed) {
        return Ok(());
    }
    let entered = enter_anew(queue, number);
    if entered.is_err()
        && let Some(watched) = queue.fds.kqueues.get_mut(&number)
    {
        watched.is_to_enter();
    }
    entered
}

fn enter_anew(queue: &mut Queue, number: RawFd) -> Result<()> {
    let (target, entry) = (fd::target(queue, number), queue.fds.entry(number).copied().unwrap_or_default());
    for set in (0..SETS).filter(|&set| entry.armed[set] != 0) {
        let (wanted, token) = (unpack(entry.armed[set]), entry.token(number, set));
        match fd::with_set(queue, set, |epoll| epoll.add(target.number, wanted, token)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl Drop for WatchedKqueue {
    fn drop(&mut self) {
        if let Some(kqueue) = self.kqueue() {
            kqueue.watchers().leave(&self.watcher);
        }
    }
}
