//! The filters, and what they may see of a kqueue.
//!
//! As in a BSD kernel every filter is a row of operations in a table indexed by its
//! number; the engine knows none by name. A filter answers with facts (is it ready, with
//! what data); what the flags of a registration make of them is the engine's business.
//! [`Queue`] is the part of a kqueue a filter works on; it is always used under the
//! kqueue's lock.

pub(crate) mod descriptors;
pub(crate) mod empty;
pub(crate) mod except;
pub(crate) mod fd;
pub(crate) mod file;
mod following;
pub(crate) mod fs;
mod hints;
mod index;
pub(crate) mod inodes;
mod interest;
mod kept;
pub(crate) mod kind;
mod letters;
pub(crate) mod libkqueue;
mod mask;
pub(crate) mod mounts;
pub(crate) mod nested;
pub(crate) mod procdesc;
pub(crate) mod process;
pub(crate) mod processes;
pub(crate) mod read;
pub(crate) mod rebuild;
pub(crate) mod signal;
pub(crate) mod signals;
pub(crate) mod timer;
pub(crate) mod timers;
pub(crate) mod user;
pub(crate) mod vnode;
pub(crate) mod watched;
pub(crate) mod write;

use crate::abi::{EVFILT_EMPTY, EVFILT_FS, EVFILT_PROC, EVFILT_PROCDESC, EVFILT_SIGNAL, EVFILT_SYSCOUNT, EVFILT_VNODE};
use crate::abi::{EVFILT_EXCEPT, EVFILT_LIBKQUEUE, EVFILT_READ, EVFILT_TIMER, EVFILT_USER, EVFILT_WRITE, Kevent};
use crate::errno::{Errno, Result};
use crate::knote::{Knote, Knotes, NONE, SCAN, Slot};
use crate::sys::clock::Clock;
use crate::sys::epoll::Epoll;
use crate::sys::eventfd::Waker;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Arc;

/// What a filter says of a knote that is about to be handed out.
pub(crate) enum Outcome {
    /// Its condition does not hold (any more).
    NotReady,
    /// What it watched is gone for good, and so are all knotes on that descriptor.
    Gone,
    /// What it watched has ended, and it has nothing to tell of that: the knote goes.
    Over,
    /// An event.
    Ready(Facts),
}

/// What an event tells beside the knote's own ident, filter, flags and udata.
#[derive(Clone, Copy, Default)]
pub(crate) struct Facts {
    pub(crate) data: isize,
    pub(crate) fflags: u32,
    /// Sets EV_EOF.
    pub(crate) eof: bool,
    /// The knote's last event, whatever it asked for: shown as EV_ONESHOT.
    pub(crate) last: bool,
    /// Takes the place of the knote's udata.
    pub(crate) udata: Option<usize>,
    /// A level knote whose condition the library has to look at itself: it stays on the
    /// ready list. Where epoll watches the level, epoll tells again.
    pub(crate) again: bool,
}

/// What becomes of a knote after its event was handed out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing: it is level-triggered.
    Stays,
    /// EV_CLEAR: its state starts anew.
    Cleared,
    /// EV_DISPATCH: disabled (the state bit is off already), and cleared if EV_CLEAR says so.
    Dispatched,
    /// EV_ONESHOT: it is about to be removed.
    Spent,
}

/// One filter's operations. All run under the kqueue's lock.
pub(crate) trait Filter: Sync {
    /// Refuses what the filter does not know before anything is touched. EINVAL.
    fn validate(&self, change: &Kevent) -> Result<()>;

    /// Starts watching for a new knote, which is in its slot already.
    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()>;

    /// A change to an existing knote, whose state bits and udata are the new ones
    /// already; `fflags` and `data` are the filter's to store. After an error the engine
    /// puts all of them back.
    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()>;

    /// Stops watching, and takes the knote out of its descriptor's entry if it stands in
    /// one. It is removed whatever this returns; the error tells the program that what it
    /// watched had gone before (ENOENT, EBADF).
    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()>;

    /// Takes in what has happened, before a change is made to a knote of this filter.
    fn catch_up(&self, _queue: &mut Queue) {}

    /// Whether what the knote watched has ended with nothing to tell, as [`Outcome::Over`].
    fn is_over(&self, _queue: &Queue, _slot: Slot) -> bool {
        false
    }

    /// What epoll has under the knote's own name ([`token::KNOTE`]) is ready.
    fn reported(&self, queue: &mut Queue, slot: Slot) {
        queue.knotes.activate(slot);
    }

    /// Whether the knote's descriptor does not name any more what the knote watches.
    fn is_gone(&self, _queue: &mut Queue, _slot: Slot) -> bool {
        false
    }

    /// Whether what epoll still holds may belong to the event of a knote that is ready
    /// already: its condition is made of news that come there. See [`adds_up`].
    fn adds_up(&self) -> bool {
        false
    }

    /// Is it ready, and with what? Consumes nothing.
    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome;

    /// The event was handed out. With [`Fate::Spent`] also what [`Filter::detach`] does.
    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate);
}

/// What the ident of a knote is, and with it where the knote is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ident {
    /// No descriptor. The index finds the knote.
    Key,
    /// A descriptor, so that EBADF and close rules apply. The index finds the knote.
    File,
    /// A descriptor whose entry has the knote, though no epoll.
    Unpolled,
    /// A descriptor that stands in epoll; its entry has the knote.
    Polled,
}

/// How knotes of one sort are served.
#[derive(Clone, Copy)]
struct Row {
    ident: Ident,
    ops: &'static dyn Filter,
}

/// Rows beyond the numbered filters, with the number of the filter in their low four bits:
/// what EVFILT_READ and EVFILT_WRITE are on files that epoll does not serve, EVFILT_READ on
/// kqueues, and EVFILT_PROC's announcement of a child.
pub(crate) const ROW_FILE_READ: u8 = VARIANTS + 1;
pub(crate) const ROW_FILE_WRITE: u8 = VARIANTS + 2;
pub(crate) const ROW_NESTED: u8 = 2 * VARIANTS + 1;
pub(crate) const ROW_CHILD: u8 = VARIANTS + 5;

/// The first row beyond the numbered filters. Of the rows whose knotes stand in the entry of
/// a descriptor those with this bit are not polled.
const VARIANTS: u8 = 16;

static ROWS: [Option<Row>; ROW_NESTED as usize + 1] = {
    const fn row(ident: Ident, ops: &'static dyn Filter) -> Option<Row> {
        Some(Row { ident, ops })
    }
    let mut rows = [None; ROW_NESTED as usize + 1];
    rows[row_of(EVFILT_READ)] = row(Ident::Polled, &read::Read);
    rows[row_of(EVFILT_WRITE)] = row(Ident::Polled, &write::Write);
    rows[row_of(EVFILT_PROC)] = row(Ident::Key, &process::Process);
    rows[row_of(EVFILT_PROCDESC)] = row(Ident::Polled, &procdesc::ProcDesc);
    rows[row_of(EVFILT_SIGNAL)] = row(Ident::Key, &signal::Signal);
    rows[row_of(EVFILT_TIMER)] = row(Ident::Key, &timer::Timer);
    rows[row_of(EVFILT_USER)] = row(Ident::Key, &user::User);
    rows[row_of(EVFILT_LIBKQUEUE)] = row(Ident::Key, &libkqueue::LibKqueue);
    rows[row_of(EVFILT_EMPTY)] = row(Ident::File, &empty::Empty);
    rows[row_of(EVFILT_EXCEPT)] = row(Ident::Polled, &except::Except);
    rows[row_of(EVFILT_VNODE)] = row(Ident::File, &vnode::Vnode);
    rows[row_of(EVFILT_FS)] = row(Ident::Key, &fs::Fs);
    rows[ROW_FILE_READ as usize] = row(Ident::Unpolled, &file::OnFile);
    rows[ROW_FILE_WRITE as usize] = row(Ident::Unpolled, &file::OnFile);
    rows[ROW_NESTED as usize] = row(Ident::Polled, &nested::Nested);
    rows[ROW_CHILD as usize] = row(Ident::Key, &process::Child);
    rows
};

const fn row_of(filter: i16) -> usize {
    filter.unsigned_abs() as usize
}

/// The row of a filter number. EINVAL if there is no such filter.
pub(crate) fn row(filter: i16) -> Result<u8> {
    let known = filter < 0 && i32::from(filter) >= -EVFILT_SYSCOUNT && ROWS[row_of(filter)].is_some();
    if known { u8::try_from(row_of(filter)).map_err(|_| Errno::EINVAL) } else { Err(Errno::EINVAL) }
}

#[inline(always)]
fn served(row: u8) -> &'static Row {
    ROWS[usize::from(row)].as_ref().expect("a knote's row is one that `row` or `attach` gave")
}

/// The operations of a row.
#[inline(always)]
pub(crate) fn ops(row: u8) -> &'static dyn Filter {
    served(row).ops
}

/// Whether the idents of a row are descriptors, so that EBADF and close rules apply.
#[inline(always)]
pub(crate) fn on_descriptor(row: u8) -> bool {
    served(row).ident != Ident::Key
}

/// Whether the knotes of a row stand in the entries of their descriptors.
#[inline(always)]
fn in_entry(row: u8) -> bool {
    matches!(served(row).ident, Ident::Unpolled | Ident::Polled)
}

/// Whether what epoll still holds may belong to the event of a ready knote of a row.
pub(crate) fn adds_up(row: u8) -> bool {
    on_descriptor(row) || ops(row).adds_up()
}

/// Another kqueue, as one that watches it sees it.
pub(crate) trait Inner: Send + Sync {
    /// The epoll descriptor that becomes readable with its events.
    fn epoll(&self) -> RawFd;
    /// What tells the pipe apart whose end the program holds.
    fn pipe_id(&self) -> u64;
    /// How many events are pending in it, and a number that changes with each new one. `None`:
    /// it could not be looked at.
    fn pending(self: Arc<Self>) -> Option<(usize, u32)>;
    /// Those who watch it.
    fn watchers(&self) -> &watched::Watchers;
    /// One watcher more: while there are any its own events wake its epoll.
    fn watch(&self, watcher: watched::Watcher);
}

/// Finds the kqueue a number names, if it does.
pub(crate) type FindKqueue = fn(RawFd) -> Option<Arc<dyn Inner>>;

/// What epoll hands back: a descriptor's registration, or a source of the kqueue's own.
///
/// | bits | meaning |
/// | --- | --- |
/// | 63 | a source; the low bits are its number |
/// | 62 | with bit 63: a source of one knote, which the rest names |
/// | 32–39 | generation of the descriptor's entry |
/// | 0–31 | the descriptor |
pub(crate) mod token {
    pub(crate) const SOURCE: u64 = 1 << 63;
    /// The held end of the pipe: the program has closed the kqueue.
    pub(crate) const SENTINEL: u64 = SOURCE;
    /// A wake-up from user space.
    pub(crate) const WAKE: u64 = SOURCE | 4;
    pub(crate) const TIMER_MONOTONIC: u64 = SOURCE | 1;
    pub(crate) const TIMER_REALTIME: u64 = SOURCE | 2;
    /// The process's inotify instance.
    pub(crate) const INODES: u64 = SOURCE | 3;
    /// The mount table.
    pub(crate) const MOUNTS: u64 = SOURCE | 6;
    /// The process connector.
    pub(crate) const PROCESSES: u64 = SOURCE | 5;
    /// The signalfd: a watched signal became pending.
    pub(crate) const SIGNALS: u64 = SOURCE | 7;
    /// What a knote has in the epoll for itself; the low bits are the knote's name.
    pub(crate) const KNOTE: u64 = SOURCE | 1 << 62;
    /// The sets nested in the kqueue's own, from number 1 on.
    pub(crate) const SETS: u64 = SOURCE | 16;
}

/// The state of a kqueue that filters work on.
pub(crate) struct Queue {
    pub(crate) epoll: Arc<Epoll>,
    pub(crate) knotes: Knotes,
    pub(crate) fds: descriptors::Descriptors,
    pub(crate) files: file::Files,
    pub(crate) timers: timers::Timers,
    /// Wakes whoever sleeps in the epoll.
    pub(crate) waker: Arc<Waker>,
    /// epoll refused an entry because too many paths lead to its file (EINVAL).
    pub(crate) crowded: bool,
    /// Counts the entries made in epoll for descriptors.
    pub(crate) entered: u32,
    pub(crate) inodes: Option<inodes::Subscription>,
    pub(crate) vnodes: vnode::Vnodes,
    pub(crate) mounts: Option<mounts::Mounts>,
    letters: Option<Arc<letters::LetterBox>>,
    watches: processes::Watches,
    following: Option<following::Subscription>,
    pub(crate) signals: signals::Signals,
    pub(crate) find_kqueue: FindKqueue,
    /// The number of the round in which changes are made or ready knotes are looked at.
    pub(crate) scan: u64,
    index: index::Index,
    /// Timers of knotes whose condition no kernel event tells of; see [`Queue::look_again`].
    looks: BTreeMap<Slot, u32>,
}

/// How long until a knote is looked at again, ns.
pub(crate) const AGAIN: u64 = 4_000_000;

/// The same for a file that the kernel does not let us watch, ns.
pub(crate) const RETRY: u64 = 50_000_000;

impl Queue {
    pub(crate) fn new(epoll: Arc<Epoll>, waker: Arc<Waker>, find_kqueue: FindKqueue) -> Queue {
        Queue {
            waker,
            crowded: false,
            entered: 0,
            epoll,
            knotes: Knotes::default(),
            fds: descriptors::Descriptors::default(),
            files: file::Files::default(),
            timers: timers::Timers::default(),
            inodes: None,
            vnodes: vnode::Vnodes::default(),
            mounts: None,
            letters: None,
            watches: processes::Watches::default(),
            following: None,
            signals: signals::Signals::default(),
            find_kqueue,
            scan: SCAN,
            index: index::Index::default(),
            looks: BTreeMap::new(),
        }
    }

    /// The knote of (ident, filter), if there is one, by the filter's row.
    #[inline(always)]
    pub(crate) fn find(&self, row: u8, ident: usize) -> Option<Slot> {
        if in_entry(row) {
            return self.fds.find(&self.knotes, descriptor(ident).ok()?, row);
        }
        self.index.find(&self.knotes, ident, row)
    }

    /// Makes room for `more` knotes of a row, at most one of them in the index. ENOMEM.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, row: u8, more: usize) -> Result<()> {
        self.knotes.reserve(more)?;
        if in_entry(row) { Ok(()) } else { self.index.reserve() }
    }

    /// Enters a new knote where [`Queue::find`] looks. Those in the entry of a descriptor
    /// have been entered there when they were attached.
    #[inline(always)]
    pub(crate) fn enter(&mut self, slot: Slot) -> Result<()> {
        if in_entry(self.knotes[slot].row) { Ok(()) } else { self.enter_in_index(slot) }
    }

    fn enter_in_index(&mut self, slot: Slot) -> Result<()> {
        let Knote { ident, row, .. } = self.knotes[slot];
        self.index.insert(&self.knotes, slot);
        if on_descriptor(row) {
            self.fds.set_others(descriptor(ident)?, true);
        }
        Ok(())
    }

    /// A new round begins.
    pub(crate) fn next_scan(&mut self) {
        self.scan = self.scan.wrapping_add(SCAN);
    }

    /// Queues a knote again `after` ns, for conditions that no kernel event
    /// tells of.
    pub(crate) fn look_again(&mut self, slot: Slot, after: u64) -> Result<()> {
        self.timers.prepare(Clock::Monotonic, &self.epoll)?;
        let timers = &mut self.timers;
        let index = *self.looks.entry(slot).or_insert_with(|| timers.new_timer(slot));
        timers.get(index).deadline = Clock::Monotonic.now().saturating_add(after);
        timers.start(index);
        Ok(())
    }

    /// Takes a knote out of the books, after its filter let go of it.
    #[inline(always)]
    pub(crate) fn remove(&mut self, slot: Slot) {
        if !self.looks.is_empty()
            && let Some(index) = self.looks.remove(&slot)
        {
            self.timers.delete(index);
        }
        if !in_entry(self.knotes[slot].row) {
            self.index.remove(&self.knotes, slot);
        }
        self.knotes.remove(slot);
    }

    /// epoll reported a source of the knote of this name.
    pub(crate) fn reported(&mut self, name: u64) {
        if let Some(slot) = self.knotes.resolve(name) {
            ops(self.knotes[slot].row).reported(self, slot);
        }
    }

    /// Something said that a descriptor's file is gone: drops the knotes of which that is
    /// true. Others on the number may be of the file it names now.
    pub(crate) fn forget(&mut self, fd: RawFd) {
        let mut suspects: Vec<Slot> = self.fds.knotes(&self.knotes, fd).map(|(slot, _)| slot).collect();
        if self.fds.has_others(fd) {
            let others =
                (1..VARIANTS).filter(|row| ROWS[usize::from(*row)].is_some_and(|row| row.ident == Ident::File));
            suspects.extend(others.filter_map(|row| self.index.find(&self.knotes, fd as usize, row)));
        }
        // By name: letting go of one may take another along.
        let names: Vec<u64> = suspects.into_iter().map(|slot| self.knotes.name(slot)).collect();
        for name in names {
            if let Some(slot) = self.knotes.resolve(name)
                && ops(self.knotes[slot].row).is_gone(self, slot)
            {
                fd::abandon(self, slot);
            }
        }
        fd::clear(self, fd);
    }
}

/// An ident as a descriptor number. EBADF for what cannot be one.
pub(crate) fn descriptor(ident: usize) -> Result<RawFd> {
    RawFd::try_from(ident).map_err(|_| Errno::EBADF)
}

/// Makes room in the books for a number, which must be open: a wild one must not make large ones.
/// EBADF, ENOMEM.
#[cold]
#[inline(never)]
fn cover(queue: &mut Queue, fd: RawFd) -> Result<()> {
    if crate::sys::fd::is_open(fd) { queue.fds.cover(fd) } else { Err(Errno::EBADF) }
}

/// Attaches a new knote: through its filter's row, or through the row that serves the
/// sort of file its descriptor names. EBADF, ENOMEM, and what that refuses it with.
#[inline(always)]
pub(crate) fn attach(queue: &mut Queue, slot: Slot, row: u8) -> Result<()> {
    if on_descriptor(row) {
        let fd = descriptor(queue.knotes[slot].ident)?;
        let entry = queue.fds.entry(fd).copied();
        if entry.is_none() {
            cover(queue, fd)?;
        }
        if let Some(inner) = (queue.find_kqueue)(fd) {
            return nested::attach(queue, slot, inner);
        }
        // A kqueue that was watched there would be asked for in the place of what is there now;
        // a filter that asks epoll nothing would not find out that knotes are an earlier file's.
        let earlier =
            |entry: descriptors::Entry| entry.kind == kind::Kind::Kqueue || entry.first != NONE && !in_entry(row);
        if entry.is_some_and(earlier) {
            queue.forget(fd);
        }
    }
    match ops(row).attach(queue, slot) {
        // epoll_ctl(2): the file cannot be polled.
        Err(Errno::EPERM) if in_entry(row) => file::attach(queue, slot),
        other => other,
    }
}
