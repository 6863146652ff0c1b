//! A kqueue that another one watches, as the watcher keeps it.

use super::Inner;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

/// The watched kqueue. It is told that it is watched, and not kept alive.
pub(crate) struct Watched(Weak<dyn Inner>);

impl Watched {
    pub(super) fn new(kqueue: &Arc<dyn Inner>) -> Watched {
        kqueue.watched(1);
        Watched(Arc::downgrade(kqueue))
    }

    /// The kqueue, unless it is gone.
    pub(super) fn kqueue(&self) -> Option<Arc<dyn Inner>> {
        self.0.upgrade()
    }

    /// The descriptor that stands for it in epoll; -1 once it is gone.
    pub(super) fn target(&self) -> RawFd {
        self.kqueue().map_or(-1, |kqueue| kqueue.epoll())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(kqueue) = self.kqueue() {
            kqueue.watched(-1);
        }
    }
}
