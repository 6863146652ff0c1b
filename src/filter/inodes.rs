//! What happens to files: the process's one inotify instance, fanned out to the kqueues.
//!
//! A user has 128 inotify instances for all processes, so neither files nor kqueues may
//! cost one each. The instance stands, edge-triggered, in the epoll of every kqueue that
//! waits for a file; whichever thread reads first tells every kqueue concerned by letter.
//!
//! An instance has one watch for an inode, whatever the number of descriptors and knotes
//! on it. So a watch has *readers*, and each is told of its own part: bits that gather in its
//! [`Watch`] until the knote is looked at. The kernel is asked for what any reader wants or has
//! wanted: while it takes something back, it loses what happens. Events between a rename's two
//! halves, and names, are dealt with here; what the bits mean is for the filters to say.

use super::letters::LetterBox;
use super::{Queue, token};
use crate::errno::{Errno, Result};
use crate::knote::{Knotes, Slot};
use crate::sys::epoll;
use crate::sys::fork::PerProcess;
use crate::sys::inotify::{
    Event, Events, IN_CREATE, IN_DELETE, IN_IGNORED, IN_ISDIR, IN_MOVED_FROM, IN_MOVED_TO, IN_Q_OVERFLOW, Inotify,
};
use crate::sys::sync::{Guard, Mutex};
use core::sync::atomic::{AtomicU32, Ordering};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// News beside the `IN_*` bits of what happened to the inode itself.
pub(super) mod news {
    /// Events were lost, or the watch was: only a comparison tells what happened.
    pub(crate) const LOST: u32 = super::IN_Q_OVERFLOW;
    /// The kernel dropped the watch with the inode, or with its last name.
    pub(crate) const UNWATCHED: u32 = super::IN_IGNORED;
    /// The directory's entries changed.
    pub(crate) const ENTRIES: u32 = 1 << 16;
    /// A subdirectory was made, removed or moved away.
    pub(crate) const SUBDIRS: u32 = 1 << 17;
    /// An entry came from another directory or went to one.
    pub(crate) const MOVED: u32 = 1 << 18;
    /// A directory came from another directory, perhaps in place of one.
    pub(crate) const DIR_CAME: u32 = 1 << 19;
    /// A directory was renamed within, perhaps in place of another.
    pub(crate) const DIR_RENAMED: u32 = 1 << 20;
    /// A directory beside the knote's was removed, if not the knote's itself.
    pub(crate) const BESIDE: u32 = 1 << 21;
}

/// What a directory's events have in their mask when its entries change.
pub(super) const ENTRIES: u32 = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO;

/// How far from one half of a rename the other may stand: threads may rename at once.
const HALVES_APART: usize = 16;

/// A knote's watch.
pub(super) struct Watch {
    wd: i32,
    news: Arc<AtomicU32>,
}

impl Watch {
    /// What happened since it was last asked.
    pub(super) fn take(&self) -> u32 {
        self.news.swap(0, Ordering::AcqRel)
    }
}

/// A kqueue's part in the instance.
pub(crate) struct Subscription {
    letters: Arc<LetterBox>,
}

/// One knote that wants to hear of an inode.
struct Reader {
    letters: Arc<LetterBox>,
    name: u64,
    news: Arc<AtomicU32>,
    /// What it wants, `IN_*`.
    mask: u32,
    /// It is a directory of this parent, and wants to know of its own removal.
    below: bool,
}

/// One inode.
#[derive(Default)]
struct Record {
    readers: Vec<Reader>,
}

impl Record {
    fn tell(&self, event: &Event, entries: u32, own: &Subscription, knotes: &mut Knotes) {
        for reader in &self.readers {
            let bits = reader.news_of(event, entries);
            // Whoever has news already has been told to look.
            if bits == 0 || reader.news.fetch_or(bits, Ordering::AcqRel) != 0 {
                continue;
            }
            if !Arc::ptr_eq(&reader.letters, &own.letters) {
                reader.letters.drop_in(reader.name);
                reader.letters.wake();
            } else if let Some(slot) = knotes.resolve(reader.name) {
                knotes.activate(slot);
            }
        }
    }
}

/// The inodes by the numbers of their watches.
type Records = BTreeMap<i32, Record>;

struct Hub {
    inotify: Inotify,
    /// Kqueues that have it in their epoll.
    subscribers: usize,
    records: Records,
    /// Where events are read to. Not on the stack: threads may have small ones.
    buffer: Vec<u8>,
}

/// Room for some four thousand events on files.
const BUFFER: usize = 64 * 1024;

static HUB: PerProcess<Mutex<Option<Hub>>> = PerProcess::new();

fn lock() -> Guard<'static, Option<Hub>> {
    HUB.get().lock()
}

/// The name of a descriptor's inode that is good whatever its names in the tree are.
fn place_of(fd: RawFd) -> CString {
    CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default()
}

/// Has the knote in `slot` told of what `mask` says happens to the file behind `fd`.
/// EMFILE, EACCES (it cannot be read), ENOSPC, ENOMEM.
pub(super) fn watch(queue: &mut Queue, slot: Slot, fd: RawFd, mask: u32) -> Result<Watch> {
    add(queue, slot, place_of(fd), mask, false)
}

/// Has the knote in `slot`, which is on a directory, told when a directory in `parent` is
/// removed. Errors as for [`watch`].
pub(super) fn watch_beside(queue: &mut Queue, slot: Slot, parent: CString) -> Result<Watch> {
    add(queue, slot, parent, IN_DELETE, true)
}

fn add(queue: &mut Queue, slot: Slot, place: CString, mask: u32, below: bool) -> Result<Watch> {
    let mut hub = lock();
    if !hub.as_ref().is_some_and(|hub| hub.inotify.is_intact()) {
        let buffer = vec![0; BUFFER];
        *hub = Some(Hub { inotify: Inotify::new()?, subscribers: 0, records: Records::default(), buffer });
    }
    let Some(there) = hub.as_mut() else { return Err(Errno::EBADF) };
    there.subscribe(queue)?;
    let hub = there;
    let wd = loop {
        let wd = hub.inotify.widen(&place, mask)?;
        if !hub.records.contains_key(&wd) {
            break wd;
        }
        // What is queued happened before the new reader was there. That may be the end of the
        // watch: the file's last name may be gone since.
        hub.drain(queue);
        if hub.records.contains_key(&wd) {
            break wd;
        }
    };
    let watch = Watch { wd, news: Arc::default() };
    let record = hub.records.entry(wd).or_default();
    let (letters, name, news) = (queue.letter_box(), queue.knotes.name(slot), watch.news.clone());
    record.readers.push(Reader { letters, name, news, mask, below });
    Ok(watch)
}

/// Replaces what a watch wants, once what is queued has been told by what it wanted before.
/// False if the kernel has dropped the watch.
pub(super) fn change(queue: &mut Queue, slot: Slot, watch: &Watch, fd: RawFd, mask: u32) -> Result<bool> {
    let name = queue.knotes.name(slot);
    let mut hub = lock();
    let Some(hub) = hub.as_mut() else { return Err(Errno::ENOENT) };
    hub.drain(queue);
    if !hub.widen(&place_of(fd), mask, watch.wd)? {
        return Ok(false);
    }
    if let Some(own) = &queue.inodes
        && let Some(record) = hub.records.get_mut(&watch.wd)
    {
        record.readers.iter_mut().filter(|reader| reader.is(own, name)).for_each(|reader| reader.mask = mask);
    }
    Ok(true)
}

/// Ends what [`watch`] or [`watch_beside`] began.
pub(super) fn unwatch(queue: &Queue, slot: Slot, watch: &Watch) {
    let name = queue.knotes.name(slot);
    let Some(own) = &queue.inodes else { return };
    if let Some(hub) = lock().as_mut() {
        hub.leave(watch.wd, |reader| reader.is(own, name) && Arc::ptr_eq(&reader.news, &watch.news));
    }
}

/// The instance has news: reads them for everybody.
pub(crate) fn collect(queue: &mut Queue) {
    if queue.inodes.is_some()
        && let Some(hub) = lock().as_mut()
    {
        hub.drain(queue);
    }
}

/// Waits for whoever is reading the instance at this moment, and takes this kqueue's
/// letters: what happened before the call must not be missed because another thread has
/// read it and not told yet.
pub(crate) fn catch_up(queue: &mut Queue) {
    if queue.inodes.is_some() {
        drop(lock());
        queue.take_letters();
    }
}

/// Enters the instance into a fresh set of a kqueue that has it.
pub(super) fn enter(queue: &Queue, epoll: &epoll::Epoll) -> Result<()> {
    match lock().as_ref() {
        Some(hub) if queue.inodes.is_some() => hub.enter(epoll),
        _ => Ok(()),
    }
}

impl Reader {
    fn is(&self, own: &Subscription, name: u64) -> bool {
        self.name == name && Arc::ptr_eq(&self.letters, &own.letters)
    }

    /// What an event is to this reader; 0: nothing. `entries` is what it is to a watched
    /// directory that one of its entries is concerned.
    fn news_of(&self, event: &Event, entries: u32) -> u32 {
        if self.below {
            let removed = event.mask & (IN_DELETE | IN_ISDIR) == IN_DELETE | IN_ISDIR;
            if removed || event.mask & (news::LOST | news::UNWATCHED) != 0 { news::BESIDE } else { 0 }
        } else if event.named {
            if event.mask & self.mask != 0 { entries } else { 0 }
        } else {
            event.mask & (self.mask | news::LOST | news::UNWATCHED)
        }
    }
}

/// What an event about an entry is to the directory. What happens inside its files is
/// nothing.
fn entries_of(event: &Event, within: bool) -> u32 {
    let directory = event.mask & IN_ISDIR != 0;
    let of_dir = |bits: u32| news::ENTRIES | if directory { bits } else { 0 };
    match event.mask & ENTRIES {
        0 => 0,
        _ if within => of_dir(news::DIR_RENAMED),
        IN_MOVED_FROM => news::MOVED | of_dir(news::SUBDIRS),
        IN_MOVED_TO => news::MOVED | of_dir(news::DIR_CAME),
        _ => of_dir(news::SUBDIRS),
    }
}

/// Whether `event` is the first half of a rename within one directory.
fn is_within(event: &Event, mut rest: Events<'_>) -> bool {
    let other = rest.by_ref().take(HALVES_APART).find(|other| other.cookie == event.cookie);
    other.is_some_and(|other| other.wd == event.wd)
}

impl Hub {
    /// Puts the instance into a kqueue's epoll, if it is not there.
    fn subscribe(&mut self, queue: &mut Queue) -> Result<()> {
        if queue.inodes.is_none() {
            // Too many paths lead to the instance as long as the monitor watches the kqueue.
            self.enter(&queue.epoll).inspect_err(|&errno| queue.crowded = errno == Errno::EINVAL)?;
            self.subscribers += 1;
            queue.inodes = Some(Subscription { letters: queue.letter_box() });
        }
        Ok(())
    }

    fn enter(&self, epoll: &epoll::Epoll) -> Result<()> {
        epoll.add(self.inotify.as_raw_fd(), epoll::IN | epoll::ET, token::INODES)
    }

    /// Reads the instance empty and tells everybody; `queue` is the one at work.
    fn drain(&mut self, queue: &mut Queue) {
        let Some(own) = &queue.inodes else { return };
        // The renames whose first halves were told last: several threads' may be mixed.
        let (mut halves, mut told) = ([0; HALVES_APART], 0);
        loop {
            let (mut events, more) = self.inotify.read(&mut self.buffer);
            while let Some(event) = events.next() {
                let first = event.mask & IN_MOVED_FROM != 0 && is_within(&event, events.clone());
                if first {
                    halves[told % HALVES_APART] = event.cookie;
                    told += 1;
                }
                let within = first || event.mask & IN_MOVED_TO != 0 && halves.contains(&event.cookie);
                tell(&mut self.records, &event, within, own, &mut queue.knotes);
            }
            if !more {
                return;
            }
        }
    }

    /// Asks for more events of the inode at a place, if that is the one of the watch `wd`. False if
    /// it is another, or the kernel has dropped the watch, of which the news may be yet to come.
    fn widen(&mut self, place: &CString, mask: u32, wd: i32) -> Result<bool> {
        let found = self.inotify.widen(place, mask)?;
        let known = self.records.contains_key(&found);
        if !known {
            let _ = self.inotify.unwatch(found);
        }
        Ok(known && found == wd)
    }

    fn leave(&mut self, wd: i32, gone: impl Fn(&Reader) -> bool) {
        let Some(record) = self.records.get_mut(&wd) else { return };
        record.readers.retain(|reader| !gone(reader));
        if record.readers.is_empty() {
            self.records.remove(&wd);
            // The kernel may have dropped it with its file.
            let _ = self.inotify.unwatch(wd);
        }
    }
}

/// Tells everybody an event concerns: all, if some were lost.
fn tell(records: &mut Records, event: &Event, within: bool, own: &Subscription, knotes: &mut Knotes) {
    if event.mask & news::LOST != 0 {
        records.values().for_each(|record| record.tell(event, 0, own, knotes));
    } else if event.mask & news::UNWATCHED != 0 {
        if let Some(record) = records.remove(&event.wd) {
            record.tell(event, 0, own, knotes);
        }
    } else if let Some(record) = records.get(&event.wd) {
        record.tell(event, entries_of(event, within), own, knotes);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut hub = lock();
        let Some(there) = hub.as_mut() else { return };
        let mine = |reader: &Reader| Arc::ptr_eq(&reader.letters, &self.letters);
        let of_mine = there.records.iter().filter(|(_, record)| record.readers.iter().any(mine));
        let watches: Vec<i32> = of_mine.map(|(&wd, _)| wd).collect();
        for wd in watches {
            there.leave(wd, mine);
        }
        there.subscribers = there.subscribers.saturating_sub(1);
    }
}

/// Closes the instance if no kqueue needs it: for when none is left. Not before, since
/// closing one makes the kernel wait, for milliseconds.
pub(crate) fn close() {
    lock().take_if(|hub| hub.subscribers == 0);
}
