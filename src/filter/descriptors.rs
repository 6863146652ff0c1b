//! The books of a kqueue's descriptors: for each number its knotes, and what epoll was
//! asked for on their behalf.
//!
//! A table in chunks, indexed by the number as the kernel's own is: one slot serves all
//! filters on a descriptor, and finding it costs no hashing. What the books mean, and who
//! changes them when, is `fd`'s business.

use super::kind::Kind;
use super::watched::Watched;
use crate::errno::Result;
use crate::knote::{NONE, Slot};
use crate::sys::epoll::Epoll;
use std::collections::BTreeMap;
use std::os::fd::RawFd;

/// Knotes a descriptor's entry has places for: READ, WRITE, EXCEPT, PROCDESC.
pub(crate) const COLUMNS: usize = 4;
/// Epoll sets a kqueue has at most: as many as knotes that cannot share.
pub(super) const SETS: usize = COLUMNS;

/// One descriptor number. 56 bytes.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// Counts, for each set, the files whose entries in it were given up; part of epoll's
    /// token.
    pub(super) generations: [u32; SETS],
    pub(super) columns: [Slot; COLUMNS],
    /// What each set was asked for: 0 if there is no entry in it.
    pub(super) armed: [u32; SETS],
    /// SO_SNDBUF as last read; 0 if not.
    pub(super) send_buffer: u32,
    pub(super) kind: Kind,
    /// There are knotes on it that are not in `columns`.
    others: bool,
}

const VACANT: Entry = Entry {
    generations: [0; SETS],
    columns: [NONE; COLUMNS],
    armed: [0; SETS],
    send_buffer: 0,
    kind: Kind::Unknown,
    others: false,
};

impl Entry {
    /// What epoll tells of the number's entry in a set.
    pub(super) fn token(&self, fd: RawFd, set: usize) -> u64 {
        u64::from(self.generations[set] & 0x7fff_ffff) << 32 | u64::from(fd.unsigned_abs())
    }
}

const CHUNK: usize = 64;

/// All descriptors of a kqueue, indexed by number in chunks.
#[derive(Default)]
pub(crate) struct Descriptors {
    chunks: Vec<Option<Box<[Entry; CHUNK]>>>,
    /// The sets beside the kqueue's own epoll.
    nested: [Option<Epoll>; SETS - 1],
    /// Kqueues that are watched, by the number they are watched under.
    pub(super) kqueues: BTreeMap<RawFd, Watched>,
    /// epoll reported an entry nobody has: its file was closed under its number and
    /// lives on elsewhere.
    pub(crate) orphaned: bool,
}

#[cold]
fn vacant_chunk() -> Box<[Entry; CHUNK]> {
    Box::new([VACANT; CHUNK])
}

fn place(fd: RawFd) -> (usize, usize) {
    let fd = usize::try_from(fd).unwrap_or(0);
    (fd / CHUNK, fd % CHUNK)
}

impl Descriptors {
    pub(super) fn entry(&self, fd: RawFd) -> Option<&Entry> {
        let (chunk, at) = place(fd);
        Some(&self.chunks.get(chunk)?.as_ref()?[at])
    }

    pub(super) fn known_mut(&mut self, fd: RawFd) -> Option<&mut Entry> {
        let (chunk, at) = place(fd);
        Some(&mut self.chunks.get_mut(chunk)?.as_mut()?[at])
    }

    pub(super) fn entry_mut(&mut self, fd: RawFd) -> &mut Entry {
        let (chunk, at) = place(fd);
        if self.chunks.len() <= chunk {
            self.grow(chunk);
        }
        &mut self.chunks[chunk].get_or_insert_with(vacant_chunk)[at]
    }

    #[cold]
    fn grow(&mut self, chunk: usize) {
        self.chunks.resize_with(chunk + 1, || None);
    }

    pub(crate) fn knote(&self, fd: RawFd, column: usize) -> Option<Slot> {
        self.entry(fd).map(|entry| entry.columns[column]).filter(|&slot| slot != NONE)
    }

    pub(crate) fn set_knote(&mut self, fd: RawFd, column: usize, slot: Slot) {
        self.entry_mut(fd).columns[column] = slot;
    }

    pub(crate) fn set_others(&mut self, fd: RawFd, others: bool) {
        self.entry_mut(fd).others = others;
    }

    pub(crate) fn has_others(&self, fd: RawFd) -> bool {
        self.entry(fd).is_some_and(|entry| entry.others)
    }

    /// Whether the books reach as far as the number, or nearly.
    pub(crate) fn covers(&self, fd: RawFd) -> bool {
        place(fd).0 < self.chunks.len() + 1024
    }

    /// What the descriptor is, looked up at the first question.
    pub(crate) fn kind(&mut self, fd: RawFd) -> Kind {
        let entry = self.entry_mut(fd);
        if entry.kind == Kind::Unknown {
            entry.kind = Kind::of(fd);
        }
        entry.kind
    }

    pub(super) fn set_kind(&mut self, fd: RawFd, kind: Kind) {
        self.entry_mut(fd).kind = kind;
    }

    /// Nothing ties a number to its file any more: what was known of that is forgotten.
    pub(super) fn untie(&mut self, fd: RawFd) {
        let entry = self.entry_mut(fd);
        entry.kind = Kind::Unknown;
        entry.send_buffer = 0;
        self.kqueues.remove(&fd);
    }

    /// SO_SNDBUF, remembered; read again when more than half of it is `used`, since TCP
    /// lets it grow with the load.
    pub(crate) fn send_buffer(&mut self, fd: RawFd, used: usize) -> Result<usize> {
        let entry = self.entry_mut(fd);
        let known = usize::try_from(entry.send_buffer).unwrap_or(0);
        if known == 0 || used > known / 2 {
            let size = crate::sys::socket::send_buffer(fd)?;
            entry.send_buffer = u32::try_from(size).unwrap_or(u32::MAX);
            return Ok(size);
        }
        Ok(known)
    }

    pub(super) fn token(&self, fd: RawFd, set: usize) -> u64 {
        self.entry(fd).unwrap_or(&VACANT).token(fd, set)
    }

    /// A nested set by its number, from 1 on.
    pub(crate) fn nested(&self, set: usize) -> Option<&Epoll> {
        self.nested.get(set.checked_sub(1)?)?.as_ref()
    }

    pub(super) fn take_nested(&mut self, set: usize) -> Option<Epoll> {
        self.nested.get_mut(set.checked_sub(1)?)?.take()
    }

    pub(super) fn put_nested(&mut self, set: usize, epoll: Epoll) {
        if let Some(place) = set.checked_sub(1).and_then(|nested| self.nested.get_mut(nested)) {
            *place = Some(epoll);
        }
    }

    /// (number, what it was asked for, token) of every entry in a set.
    pub(super) fn armed(&self, set: usize) -> Vec<(RawFd, u32, u64)> {
        let mut armed = Vec::new();
        for (chunk, entries) in self.chunks.iter().enumerate() {
            for (at, entry) in entries.iter().flat_map(|entries| entries.iter().enumerate()) {
                if let (true, Ok(number)) = (entry.armed[set] != 0, RawFd::try_from(chunk * CHUNK + at)) {
                    armed.push((number, entry.armed[set], self.token(number, set)));
                }
            }
        }
        armed
    }
}
