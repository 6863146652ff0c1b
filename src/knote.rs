//! Knotes: one registration each, and the slab and ready list that hold them.
//!
//! What the program asked for (saved `fflags` and `data`, flags, udata) is kept apart
//! from what will be reported, which the filter works out when an event is handed out.
//! Knotes live in a slab and are named by slot; what outlives a lock (a token in
//! another thread's hands, a late notice) carries the slot's generation as well, so that
//! a stale one meets a newer generation and is dropped. No pointers, no deferred frees.

use crate::abi::{EV_CLEAR, EV_DISPATCH, EV_ONESHOT};
use crate::errno::Result;

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

/// The bits of a slot's generation.
const GENERATIONS: u32 = u32::MAX >> 2;

/// A slot of the slab.
pub(crate) type Slot = u32;

/// The flags of a change that a knote keeps and shows in its events.
pub(crate) const STORED_FLAGS: u16 = EV_ONESHOT | EV_CLEAR | EV_DISPATCH;

/// State bits of a knote.
///
/// | bit | meaning | set by | cleared by |
/// | --- | --- | --- | --- |
/// | `ENABLED` | may be handed out | EV_ADD, EV_ENABLE | EV_DISABLE, EV_DISPATCH's delivery |
/// | `QUEUED` | is on the ready list | `activate` | hand-out, disabling, deletion |
/// | `FORCED` | is due even if its condition does not hold | EV_FORCEONESHOT | deletion |
/// | `LIVE` | the slot holds a knote | `insert` | `remove` |
/// | `TOLD` | the filter has told what it would tell | the filter | the filter |
pub(crate) mod state {
    pub(crate) const ENABLED: u8 = 1;
    pub(crate) const QUEUED: u8 = 2;
    pub(crate) const FORCED: u8 = 4;
    pub(crate) const LIVE: u8 = 8;
    pub(crate) const TOLD: u8 = 16;
}

/// One registration, keyed by (ident, filter) in its kqueue. 48 bytes; its `data` stands
/// aside, in [`Knotes::data`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knote {
    pub(crate) ident: usize,
    pub(crate) udata: usize,
    /// The `fflags` last asked for.
    pub(crate) fflags: u32,
    /// Whatever the filter keeps here (an index into its own table, or bits).
    pub(crate) own: u32,
    /// The next knote on the same descriptor, for those that stand in its entry.
    pub(crate) sibling: Slot,
    /// What happened to it in the scan it happened in; see [`mark`].
    marks: u32,
    next: Slot,
    prev: Slot,
    generation: u32,
    /// EV_ONESHOT, EV_CLEAR, EV_DISPATCH as of the first EV_ADD, and what the filter added.
    pub(crate) flags: u16,
    /// The row of operations that serves this knote; its low bits are the filter's number.
    pub(crate) row: u8,
    pub(crate) state: u8,
}

/// The bits of a row that number the filter.
pub(crate) const NUMBER: u8 = 15;

/// From the number of one scan to that of the next. The bits below are free.
pub(crate) const SCAN: u64 = 1 << 8;

/// A knote's marks, in the free bits of a scan's number, of which 24 more are kept: as many
/// scans no knote waits. In any other scan the marks mean nothing.
mod mark {
    /// What epoll told of the descriptor, as the filter packs it.
    pub(super) const HINT: u32 = 0x3f;
    /// There is such a hint.
    pub(super) const HINTED: u32 = 0x40;
    /// The knote was handed out: at most once in each scan.
    pub(super) const SEEN: u32 = 0x80;
}

impl Knote {
    pub(crate) fn new(ident: usize, row: u8) -> Knote {
        Knote {
            ident,
            udata: 0,
            fflags: 0,
            own: 0,
            sibling: NONE,
            marks: 0,
            next: NONE,
            prev: NONE,
            generation: 0,
            flags: 0,
            row,
            state: state::ENABLED,
        }
    }

    /// EVFILT_*.
    pub(crate) fn filter(&self) -> i16 {
        -i16::from(self.number())
    }

    /// The number of its filter: EVFILT_* without its sign.
    pub(crate) fn number(&self) -> u8 {
        self.row & NUMBER
    }

    /// The marks that were made in this scan.
    fn marks(&self, scan: u64) -> u32 {
        let scan = scan as u32;
        if u64::from(self.marks ^ scan) < SCAN { self.marks } else { scan }
    }

    /// What epoll told of the knote's descriptor in this scan.
    pub(crate) fn hint(&self, scan: u64) -> Option<u8> {
        let marks = self.marks(scan);
        (marks & mark::HINTED != 0).then_some((marks & mark::HINT) as u8)
    }

    /// Only the low six bits are kept.
    pub(crate) fn set_hint(&mut self, scan: u64, hint: u8) {
        self.marks = self.marks(scan) & !mark::HINT | mark::HINTED | u32::from(hint) & mark::HINT;
    }

    /// Whether it was handed out in this scan.
    pub(crate) fn is_seen(&self, scan: u64) -> bool {
        self.marks(scan) & mark::SEEN != 0
    }

    pub(crate) fn set_seen(&mut self, scan: u64) {
        self.marks = self.marks(scan) | mark::SEEN;
    }

    pub(crate) fn has(&self, bit: u8) -> bool {
        self.state & bit != 0
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.has(state::ENABLED)
    }

    /// Whether an event stays reported until its condition ends.
    pub(crate) fn is_level(&self) -> bool {
        self.flags & STORED_FLAGS == 0
    }
}

/// The knotes of one kqueue, and the list of those that are ready, oldest first.
///
/// The list runs through the knotes themselves, so that queueing allocates nothing and
/// taking one out of the middle is constant work.
pub(crate) struct Knotes {
    slots: Vec<Knote>,
    free: Vec<Slot>,
    /// The `data` last asked for, in chunks that are made for the first that is not 0: few
    /// filters ask for any, and those on descriptors next to never.
    data: Vec<Vec<isize>>,
    /// The oldest and the newest on the list; [`NONE`] if it is empty.
    first: Slot,
    last: Slot,
    ready: usize,
    activations: u32,
}

/// How many knotes have their `data` in one chunk.
const CHUNK: usize = 64;

fn place(slot: Slot) -> (usize, usize) {
    (slot as usize / CHUNK, slot as usize % CHUNK)
}

impl Default for Knotes {
    fn default() -> Knotes {
        Knotes {
            slots: Vec::new(),
            free: Vec::new(),
            data: Vec::new(),
            first: NONE,
            last: NONE,
            ready: 0,
            activations: 0,
        }
    }
}

impl core::ops::Index<Slot> for Knotes {
    type Output = Knote;
    fn index(&self, slot: Slot) -> &Knote {
        &self.slots[slot as usize]
    }
}

impl core::ops::IndexMut<Slot> for Knotes {
    fn index_mut(&mut self, slot: Slot) -> &mut Knote {
        &mut self.slots[slot as usize]
    }
}

impl Knotes {
    /// Makes room for `more` knotes, and for taking all of them out. ENOMEM.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, more: usize) -> Result<()> {
        if self.free.len() < more { self.grow(more) } else { Ok(()) }
    }

    #[cold]
    fn grow(&mut self, more: usize) -> Result<()> {
        self.slots.try_reserve(more)?;
        Ok(self.free.try_reserve(self.slots.capacity())?)
    }

    #[inline(always)]
    pub(crate) fn insert(&mut self, mut knote: Knote) -> Slot {
        knote.state |= state::LIVE;
        if let Some(slot) = self.free.pop() {
            knote.generation = self[slot].generation;
            self[slot] = knote;
            return slot;
        }
        self.slots.push(knote);
        Slot::try_from(self.slots.len() - 1).expect("fewer knotes than 2^32: they are 48 bytes each")
    }

    /// Frees a slot; names of it with a generation become stale.
    #[inline(always)]
    pub(crate) fn remove(&mut self, slot: Slot) {
        if self[slot].has(state::QUEUED) {
            self.dequeue(slot);
        }
        let knote = &mut self[slot];
        knote.state = 0;
        knote.generation = knote.generation.wrapping_add(1) & GENERATIONS;
        self.free.push(slot);
        if !self.data.is_empty()
            && let Some(data) = self.data_mut(slot)
        {
            *data = 0;
        }
    }

    /// The `data` last asked for.
    pub(crate) fn data(&self, slot: Slot) -> isize {
        let (chunk, at) = place(slot);
        self.data.get(chunk).and_then(|chunk| chunk.get(at)).map_or(0, |&data| data)
    }

    /// ENOMEM.
    #[inline(always)]
    pub(crate) fn set_data(&mut self, slot: Slot, data: isize) -> Result<()> {
        if data == 0 && self.data.is_empty() { Ok(()) } else { self.keep_data(slot, data) }
    }

    fn keep_data(&mut self, slot: Slot, data: isize) -> Result<()> {
        if let Some(place) = self.data_mut(slot) {
            *place = data;
        } else if data != 0 {
            let (chunk, at) = place(slot);
            if self.data.len() <= chunk {
                self.data.try_reserve(chunk + 1 - self.data.len())?;
                self.data.resize_with(chunk + 1, Vec::new);
            }
            self.data[chunk].try_reserve_exact(CHUNK)?;
            self.data[chunk].resize(CHUNK, 0);
            self.data[chunk][at] = data;
        }
        Ok(())
    }

    fn data_mut(&mut self, slot: Slot) -> Option<&mut isize> {
        let (chunk, at) = place(slot);
        self.data.get_mut(chunk)?.get_mut(at)
    }

    /// A name for `slot` that a later knote in the same slot does not answer to. Its two
    /// highest bits are free.
    pub(crate) fn name(&self, slot: Slot) -> u64 {
        u64::from(slot) | u64::from(self[slot].generation) << 32
    }

    /// The slot of a name, if its knote still exists.
    pub(crate) fn resolve(&self, name: u64) -> Option<Slot> {
        let (slot, generation) = (name as u32, (name >> 32) as u32);
        let knote = self.slots.get(slot as usize)?;
        (knote.has(state::LIVE) && knote.generation == generation).then_some(slot)
    }

    /// How many knotes there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Counts the times a knote came onto the list anew.
    pub(crate) fn activations(&self) -> u32 {
        self.activations
    }

    /// How many knotes are on the ready list.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// Queues an enabled knote at the tail, unless it is queued already.
    pub(crate) fn activate(&mut self, slot: Slot) {
        if self.append(slot) {
            self.activations = self.activations.wrapping_add(1);
        }
    }

    /// The same for a knote that never ceased to be ready.
    pub(crate) fn requeue(&mut self, slot: Slot) {
        self.append(slot);
    }

    fn append(&mut self, slot: Slot) -> bool {
        let last = self.last;
        let knote = &mut self[slot];
        if knote.state & (state::ENABLED | state::QUEUED) != state::ENABLED {
            return false;
        }
        knote.state |= state::QUEUED;
        knote.next = NONE;
        knote.prev = last;
        match last {
            NONE => self.first = slot,
            last => self[last].next = slot,
        }
        self.last = slot;
        self.ready += 1;
        true
    }

    /// Takes a knote off the ready list, if it is on it.
    pub(crate) fn dequeue(&mut self, slot: Slot) {
        let knote = &mut self[slot];
        if !knote.has(state::QUEUED) {
            return;
        }
        knote.state &= !state::QUEUED;
        let (next, prev) = (knote.next, knote.prev);
        match prev {
            NONE => self.first = next,
            prev => self[prev].next = next,
        }
        match next {
            NONE => self.last = prev,
            next => self[next].prev = prev,
        }
        self.ready -= 1;
    }

    /// The oldest ready knote.
    pub(crate) fn front(&self) -> Option<Slot> {
        (self.first != NONE).then_some(self.first)
    }

    /// The ready knote after `slot`, which must be queued.
    pub(crate) fn after(&self, slot: Slot) -> Option<Slot> {
        let next = self[slot].next;
        (next != NONE).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Knotes, [Slot; 3]) {
        let mut knotes = Knotes::default();
        let slots = [1, 2, 3].map(|ident| knotes.insert(Knote::new(ident, 11)));
        slots.iter().for_each(|&slot| knotes.activate(slot));
        (knotes, slots)
    }

    fn order(knotes: &Knotes) -> Vec<usize> {
        let mut idents = Vec::new();
        let mut at = knotes.front();
        while let Some(slot) = at {
            idents.push(knotes[slot].ident);
            at = knotes.after(slot);
        }
        assert_eq!(idents.len(), knotes.ready());
        idents
    }

    #[test]
    fn ready_knotes_come_in_the_order_they_were_activated() {
        let (mut knotes, slots) = three();
        knotes.activate(slots[0]);
        assert_eq!(order(&knotes), [1, 2, 3]);
    }

    #[test]
    fn a_knote_can_leave_the_list_at_either_end_and_in_the_middle() {
        for (gone, left) in [(0, [2, 3]), (1, [1, 3]), (2, [1, 2])] {
            let (mut knotes, slots) = three();
            knotes.dequeue(slots[gone]);
            knotes.dequeue(slots[gone]);
            assert_eq!(order(&knotes), left);
            knotes.activate(slots[gone]);
            assert_eq!(order(&knotes).last(), Some(&(gone + 1)));
        }
    }

    #[test]
    fn a_disabled_knote_is_not_queued() {
        let (mut knotes, slots) = three();
        knotes.dequeue(slots[1]);
        knotes[slots[1]].state &= !state::ENABLED;
        knotes.activate(slots[1]);
        assert_eq!(order(&knotes), [1, 3]);
    }

    #[test]
    fn the_name_of_a_removed_knote_resolves_to_nothing() {
        let (mut knotes, slots) = three();
        let name = knotes.name(slots[1]);
        assert_eq!(knotes.resolve(name), Some(slots[1]));
        knotes.remove(slots[1]);
        assert_eq!(knotes.resolve(name), None);
        let again = knotes.insert(Knote::new(4, 11));
        assert_eq!(again, slots[1]);
        assert_eq!(knotes.resolve(name), None);
        assert_eq!(order(&knotes), [1, 3]);
    }

    #[test]
    fn a_knote_takes_48_bytes() {
        assert_eq!(size_of::<Knote>(), 48);
    }

    #[test]
    fn data_is_kept_for_the_knote_it_was_asked_for_and_goes_with_it() {
        let mut knotes = Knotes::default();
        let slots: Vec<Slot> = (0..200).map(|ident| knotes.insert(Knote::new(ident, 7))).collect();
        assert!(knotes.set_data(slots[130], -5).is_ok());
        assert_eq!(slots.iter().filter(|&&slot| knotes.data(slot) != 0).collect::<Vec<_>>(), [&slots[130]]);
        assert_eq!(knotes.data(slots[130]), -5);
        knotes.remove(slots[130]);
        let again = knotes.insert(Knote::new(7, 7));
        assert_eq!((again, knotes.data(again)), (slots[130], 0));
    }

    #[test]
    fn marks_hold_for_the_scan_they_were_made_in() {
        let mut knote = Knote::new(1, 1);
        let (one, two) = (9 * SCAN, 10 * SCAN);
        assert_eq!((knote.hint(0), knote.is_seen(0)), (None, false));
        knote.set_hint(one, 0x2a);
        knote.set_seen(one);
        assert_eq!((knote.hint(one), knote.is_seen(one)), (Some(0x2a), true));
        assert_eq!((knote.hint(two), knote.is_seen(two)), (None, false));
        knote.set_seen(two);
        assert_eq!((knote.hint(two), knote.is_seen(two)), (None, true));
        knote.set_hint(two, 0);
        assert_eq!((knote.hint(two), knote.is_seen(two)), (Some(0), true));
    }
}
