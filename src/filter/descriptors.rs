//! The books of a kqueue's descriptors: for each number its knotes, and what epoll was
//! asked for on their behalf.
//!
//! A table in chunks, indexed by the number as the kernel's own is: one slot serves all
//! filters on a descriptor, and finding it costs no hashing. The knotes on a descriptor hang
//! together as siblings, so that a number nobody watches costs no more than 16 bytes. What
//! the books mean, and who changes them when, is `fd`'s business.

use super::kind::Kind;
use super::mask;
use super::watched::WatchedKqueue;
use crate::errno::Result;
use crate::knote::{Knote, Knotes, NONE, NUMBER, Slot};
use crate::sys::epoll::Epoll;
use crate::sys::socket;
use std::collections::BTreeMap;
use std::os::fd::RawFd;

/// Epoll sets a kqueue has at most: as many as knotes that cannot share. READ, WRITE, EXCEPT
/// and PROCDESC stand in the entry of a descriptor.
pub(super) const SETS: usize = 4;

/// One descriptor number. 16 bytes.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// The first of its knotes, which are in the order of their filters; or [`NONE`].
    pub(super) first: Slot,
    /// Counts, for each set, the files whose entries in it were given up; part of epoll's
    /// token.
    generations: [u8; SETS],
    /// What each set was asked for, as [`mask`] packs it: 0 if there is no entry in it.
    pub(super) armed: [u8; SETS],
    pub(super) kind: Kind,
    /// SO_SNDBUF as [`Descriptors::send_buffer`] packs it, while the kind is known; or 0.
    buffer: u16,
    /// There are knotes on it that the index finds.
    others: bool,
}

const VACANT: Entry =
    Entry { first: NONE, generations: [0; SETS], armed: [0; SETS], kind: Kind::Unknown, buffer: 0, others: false };

impl Default for Entry {
    fn default() -> Entry {
        VACANT
    }
}

impl Entry {
    /// What epoll tells of the number's entry in a set.
    pub(super) fn token(&self, fd: RawFd, set: usize) -> u64 {
        u64::from(self.generations[set]) << 32 | u64::from(fd as u32)
    }

    /// Its knotes, in the order of their filters.
    pub(super) fn knotes(self, knotes: &Knotes) -> impl Iterator<Item = (Slot, &Knote)> {
        let mut next = self.first;
        core::iter::from_fn(move || {
            let slot = next;
            let knote = (slot != NONE).then(|| &knotes[slot])?;
            next = knote.sibling;
            Some((slot, knote))
        })
    }

    /// Whether a knote is the only one of it.
    pub(super) fn has_only(self, slot: Slot, knote: &Knote) -> bool {
        self.first == slot && knote.sibling == NONE
    }

    /// Whether sets have an entry of it, and this one has none.
    pub(super) fn is_elsewhere(&self, set: usize) -> bool {
        self.armed[set] == 0 && self.armed != [0; SETS]
    }

    /// Enters a knote beside others.
    #[cold]
    fn link_beside(&mut self, knotes: &mut Knotes, slot: Slot) {
        let number = knotes[slot].number();
        let before = self.knotes(knotes).take_while(|(_, knote)| knote.number() < number).last().map(|(slot, _)| slot);
        let next = match before {
            None => core::mem::replace(&mut self.first, slot),
            Some(before) => core::mem::replace(&mut knotes[before].sibling, slot),
        };
        knotes[slot].sibling = next;
    }

    /// Takes out a knote that is not the first, if it is in.
    #[cold]
    fn unlink_behind(&mut self, knotes: &mut Knotes, slot: Slot) {
        let before = self.knotes(knotes).find(|(_, knote)| knote.sibling == slot).map(|(slot, _)| slot);
        if let Some(before) = before {
            knotes[before].sibling = knotes[slot].sibling;
        }
    }

    /// Its entry in a set is given up: reports of it are stale from here on. True: the count
    /// has begun anew, so that those of the first file might be taken for the next one's.
    pub(super) fn give_up(&mut self, set: usize) -> bool {
        let entered = core::mem::take(&mut self.armed[set]) != 0;
        self.generations[set] = self.generations[set].wrapping_add(u8::from(entered));
        entered && self.generations[set] == 0
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
    pub(super) kqueues: BTreeMap<RawFd, WatchedKqueue>,
    /// epoll reported an entry nobody has: its file was closed under its number and
    /// lives on elsewhere.
    pub(crate) orphaned: bool,
    /// Counts the entries that were taken out of a set or given up.
    pub(crate) removed: u32,
    /// The reports at hand are older than the last of those: one may be of an earlier file.
    pub(crate) outdated: bool,
    /// epoll was asked to report once more what such a one told of.
    pub(crate) asked_anew: bool,
    /// A count of files has begun anew, so that an orphan's reports may bear the token of a
    /// live entry until the sets are built anew.
    pub(super) begun_anew: bool,
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

    /// Makes room for a number. ENOMEM.
    pub(super) fn cover(&mut self, fd: RawFd) -> Result<()> {
        let (chunk, _) = place(fd);
        let mut entries = Vec::new();
        entries.try_reserve_exact(CHUNK)?;
        entries.resize(CHUNK, VACANT);
        if self.chunks.len() <= chunk {
            self.chunks.try_reserve(chunk + 1 - self.chunks.len())?;
            self.chunks.resize_with(chunk + 1, || None);
        }
        self.chunks[chunk] = entries.into_boxed_slice().try_into().ok();
        Ok(())
    }

    /// The knote on a number that the filter of `row` has there.
    #[inline(always)]
    pub(super) fn find(&self, knotes: &Knotes, fd: RawFd, row: u8) -> Option<Slot> {
        let mut slot = self.entry(fd)?.first;
        while slot != NONE && knotes[slot].number() != row & NUMBER {
            slot = knotes[slot].sibling;
        }
        (slot != NONE).then_some(slot)
    }

    /// The knotes in the entry of a number.
    pub(super) fn knotes<'a>(
        &self,
        knotes: &'a Knotes,
        fd: RawFd,
    ) -> impl Iterator<Item = (Slot, &'a Knote)> + use<'a> {
        self.entry(fd).unwrap_or(&VACANT).knotes(knotes)
    }

    /// Enters a knote, of a filter that has none there. The entry as it is then.
    #[inline(always)]
    pub(super) fn link(&mut self, knotes: &mut Knotes, fd: RawFd, slot: Slot) -> Entry {
        let Some(entry) = self.known_mut(fd) else { return VACANT };
        if entry.first == NONE {
            entry.first = slot;
            knotes[slot].sibling = NONE;
        } else {
            entry.link_beside(knotes, slot);
        }
        *entry
    }

    /// Takes a knote out, if it is in. The entry as it is then.
    #[inline(always)]
    pub(super) fn unlink(&mut self, knotes: &mut Knotes, fd: RawFd, slot: Slot) -> Entry {
        let Some(entry) = self.known_mut(fd) else { return VACANT };
        if entry.first == slot {
            entry.first = knotes[slot].sibling;
        } else {
            entry.unlink_behind(knotes, slot);
        }
        *entry
    }

    /// Notes what a set was asked for on behalf of a number.
    #[inline(always)]
    pub(super) fn note(&mut self, fd: RawFd, set: usize, armed: u8) {
        let Some(entry) = self.known_mut(fd) else { return };
        entry.armed[set] = armed;
        if entry.armed == [0; SETS] && core::mem::take(&mut entry.kind) == Kind::Kqueue {
            self.kqueues.remove(&fd);
        }
    }

    pub(crate) fn set_others(&mut self, fd: RawFd, others: bool) {
        if let Some(entry) = self.known_mut(fd) {
            entry.others = others;
        }
    }

    pub(crate) fn has_others(&self, fd: RawFd) -> bool {
        self.entry(fd).is_some_and(|entry| entry.others)
    }

    /// What the descriptor is, looked up at the first question.
    pub(crate) fn kind(&mut self, fd: RawFd) -> Kind {
        let Some(entry) = self.known_mut(fd) else { return Kind::of(fd) };
        if entry.kind == Kind::Unknown {
            entry.kind = Kind::of(fd);
            entry.buffer = 0;
        }
        entry.kind
    }

    /// SO_SNDBUF of a socket whose kind is known, remembered if it can be packed; read again when
    /// more than half of it is `used`, since TCP lets it grow with the load. The program may set
    /// it, too: see [`Descriptors::forget_send_buffer`].
    pub(super) fn send_buffer(&mut self, fd: RawFd, used: usize) -> Result<usize> {
        /// Four bits of an entry's buffer tell by how many the others are to be shifted.
        const SHIFT: u32 = 4;
        let Some(entry) = self.known_mut(fd) else { return socket::send_buffer(fd) };
        let known = usize::from(entry.buffer >> SHIFT) << (entry.buffer & ((1 << SHIFT) - 1));
        if known != 0 && used <= known / 2 {
            return Ok(known);
        }
        let size = socket::send_buffer(fd)?;
        let zeros = size.trailing_zeros().min((1 << SHIFT) - 1);
        let packed = u16::try_from((size >> zeros) << SHIFT | zeros as usize);
        entry.buffer = packed.unwrap_or(0);
        Ok(size)
    }

    /// Has SO_SNDBUF read again.
    pub(super) fn forget_send_buffer(&mut self, fd: RawFd) {
        if let Some(entry) = self.known_mut(fd) {
            entry.buffer = 0;
        }
    }

    pub(super) fn set_kind(&mut self, fd: RawFd, kind: Kind) {
        if let Some(entry) = self.known_mut(fd) {
            entry.kind = kind;
        }
    }

    /// Has the kind looked up again: the number may be another file's. That it still is a
    /// kqueue's is looked at where one is watched.
    pub(super) fn doubt_kind(&mut self, fd: RawFd) {
        if let Some(entry) = self.known_mut(fd)
            && entry.kind != Kind::Kqueue
        {
            entry.kind = Kind::Unknown;
        }
    }

    /// Whether a report may be of another file than its token says.
    pub(super) fn is_doubtful(&self) -> bool {
        self.outdated || self.begun_anew
    }

    /// Nothing ties a number to its file any more: what was known of that is forgotten.
    pub(super) fn untie(&mut self, fd: RawFd) {
        if let Some(entry) = self.known_mut(fd)
            && core::mem::take(&mut entry.kind) == Kind::Kqueue
        {
            self.kqueues.remove(&fd);
        }
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
                    armed.push((number, mask::unpack(entry.armed[set]), entry.token(number, set)));
                }
            }
        }
        armed
    }
}
