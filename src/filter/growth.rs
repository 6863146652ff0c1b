//! Files that grow: the process's one inotify instance, fanned out to the kqueues.
//!
//! A user has 128 inotify instances for all processes, so neither files nor kqueues may
//! cost one each. The instance stands, edge-triggered, in the epoll of every kqueue that
//! waits for a file; whichever thread reads first tells every kqueue concerned by letter.

use super::letters::LetterBox;
use super::{Queue, token};
use crate::errno::{Errno, Result};
use crate::knote::Slot;
use crate::sync::Mutex;
use crate::sys::epoll;
use crate::sys::fork::PerProcess;
use crate::sys::inotify::Inotify;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// A kqueue's part in the instance.
pub(crate) struct Subscription {
    letters: Arc<LetterBox>,
}

struct Reader {
    letters: Arc<LetterBox>,
    name: u64,
}

struct Hub {
    inotify: Inotify,
    /// Kqueues that have it in their epoll; with the last it is closed.
    subscribers: usize,
    /// Who wants to hear of each watch.
    watches: BTreeMap<i32, Vec<Reader>>,
}

static HUB: PerProcess<Mutex<Option<Hub>>> = PerProcess::new();

fn with_hub<T>(f: impl FnOnce(&mut Hub) -> Result<T>) -> Result<T> {
    let mut hub = HUB.get().lock();
    if hub.is_none() {
        *hub = Some(Hub { inotify: Inotify::new()?, subscribers: 0, watches: BTreeMap::new() });
    }
    hub.as_mut().map_or(Err(Errno::EBADF), f)
}

/// Has the knote in `slot` looked at whenever the file behind `fd` is written. Returns
/// the watch. EMFILE, ENOSPC, ENOMEM.
pub(super) fn watch(queue: &mut Queue, slot: Slot, fd: RawFd) -> Result<i32> {
    let name = queue.knotes.name(slot);
    let (epoll, letters, subscription) = (queue.epoll.clone(), queue.letter_box(), &mut queue.growth);
    with_hub(|hub| {
        if subscription.is_none() {
            epoll.add(hub.inotify.as_raw_fd(), epoll::IN | epoll::ET, token::GROWTH)?;
            hub.subscribers += 1;
        }
        let letters = subscription.get_or_insert_with(|| Subscription { letters }).letters.clone();
        let watch = hub.inotify.watch_writes(fd)?;
        hub.watches.entry(watch).or_default().push(Reader { letters, name });
        Ok(watch)
    })
}

/// Ends what [`watch`] began.
pub(super) fn unwatch(queue: &Queue, slot: Slot, watch: i32) {
    let name = queue.knotes.name(slot);
    let Some(own) = &queue.growth else { return };
    let _ = with_hub(|hub| {
        hub.leave(watch, |reader| reader.name == name && Arc::ptr_eq(&reader.letters, &own.letters));
        Ok(())
    });
}

impl Hub {
    fn leave(&mut self, watch: i32, gone: impl Fn(&Reader) -> bool) {
        let Some(readers) = self.watches.get_mut(&watch) else { return };
        readers.retain(|reader| !gone(reader));
        if readers.is_empty() {
            self.watches.remove(&watch);
            // The kernel may have dropped it with its file.
            let _ = self.inotify.unwatch(watch);
        }
    }

    /// Drops a note to everybody a piece of news concerns: all, if some were lost.
    fn tell(&self, watch: i32, mask: u32, reader_itself: &Arc<LetterBox>) {
        let one = self.watches.get(&watch).into_iter();
        let lost = mask & libc::IN_Q_OVERFLOW != 0;
        let all = lost.then(|| self.watches.values()).into_iter().flatten();
        for reader in one.chain(all).flatten() {
            reader.letters.drop_in(reader.name);
            if !Arc::ptr_eq(&reader.letters, reader_itself) {
                reader.letters.wake();
            }
        }
    }
}

/// Enters the instance into a fresh set of a kqueue that has it.
pub(super) fn enter(queue: &Queue, epoll: &epoll::Epoll) -> Result<()> {
    if queue.growth.is_none() {
        return Ok(());
    }
    with_hub(|hub| epoll.add(hub.inotify.as_raw_fd(), epoll::IN | epoll::ET, token::GROWTH))
}

/// The instance has news: reads them for everybody, and takes this kqueue's letters.
pub(crate) fn collect(queue: &mut Queue) {
    let Some(own) = &queue.growth else { return };
    let _ = with_hub(|hub| {
        while hub.inotify.read(|watch, mask| hub.tell(watch, mask, &own.letters)) {}
        Ok(())
    });
    queue.take_letters();
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut hub = HUB.get().lock();
        let Some(there) = hub.as_mut() else { return };
        let watches: Vec<i32> = there.watches.keys().copied().collect();
        for watch in watches {
            there.leave(watch, |reader| Arc::ptr_eq(&reader.letters, &self.letters));
        }
        there.subscribers = there.subscribers.saturating_sub(1);
        if there.subscribers == 0 {
            *hub = None;
        }
    }
}
