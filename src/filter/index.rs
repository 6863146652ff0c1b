//! Finding a knote by (ident, number of its filter), where no descriptor's entry has it.
//!
//! An open-addressed table of slots, each with the hash of its key, so that a search touches
//! no knote but the one it finds: eight bytes a place. Linear probing, at most three quarters
//! full; a removal moves the rest of its run up, so that there are no tombstones.

use crate::errno::Result;
use crate::knote::{Knotes, NONE, Slot};

/// A knote, and the hash of its key; [`NONE`] for no knote.
#[derive(Clone, Copy)]
struct Place {
    slot: Slot,
    hash: u32,
}

/// The table. Its length is a power of two, or nothing.
#[derive(Default)]
pub(super) struct Index {
    places: Vec<Place>,
    used: usize,
    /// How many bits of a hash are more than the length needs.
    shift: u32,
}

/// The upper half of a product: idents and filter numbers are no adversary's choice, and
/// those that follow one another are spread evenly by the golden ratio.
fn hash(ident: usize, filter: u8) -> u32 {
    let key = (ident as u64) ^ u64::from(filter).rotate_right(8);
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

impl Index {
    /// Where a hash is looked for first: its highest bits depend on all bits of the key.
    fn home(&self, hash: u32) -> usize {
        (hash >> self.shift) as usize
    }

    fn next(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    /// The slot of a key.
    pub(super) fn find(&self, knotes: &Knotes, ident: usize, filter: u8) -> Option<Slot> {
        if self.used == 0 {
            return None;
        }
        let hash = hash(ident, filter);
        let mut place = self.home(hash);
        loop {
            let there = self.places[place];
            if there.slot == NONE {
                return None;
            }
            if there.hash == hash && knotes[there.slot].ident == ident && knotes[there.slot].number() == filter {
                return Some(there.slot);
            }
            place = self.next(place);
        }
    }

    /// Makes room for one knote more. ENOMEM.
    pub(super) fn reserve(&mut self) -> Result<()> {
        if (self.used + 1) * 4 > self.places.len() * 3 { self.grow() } else { Ok(()) }
    }

    #[cold]
    fn grow(&mut self) -> Result<()> {
        let grown = (self.places.len() * 2).max(8);
        let mut places = Vec::new();
        places.try_reserve_exact(grown)?;
        places.resize(grown, Place { slot: NONE, hash: 0 });
        let old = core::mem::replace(&mut self.places, places);
        self.shift = u32::BITS - grown.ilog2();
        old.into_iter().filter(|place| place.slot != NONE).for_each(|place| self.put(place));
        Ok(())
    }

    /// Enters a knote whose key is not in the table, which has room for it.
    pub(super) fn insert(&mut self, knotes: &Knotes, slot: Slot) {
        self.put(Place { slot, hash: hash(knotes[slot].ident, knotes[slot].number()) });
        self.used += 1;
    }

    fn put(&mut self, entry: Place) {
        let mut place = self.home(entry.hash);
        while self.places[place].slot != NONE {
            place = self.next(place);
        }
        self.places[place] = entry;
    }

    /// Takes a knote out, if it is in: there may be more knotes of a key than the one that is.
    pub(super) fn remove(&mut self, knotes: &Knotes, slot: Slot) {
        if self.used == 0 {
            return;
        }
        let mut hole = self.home(hash(knotes[slot].ident, knotes[slot].number()));
        while self.places[hole].slot != slot {
            if self.places[hole].slot == NONE {
                return;
            }
            hole = self.next(hole);
        }
        self.used -= 1;
        let mut place = hole;
        loop {
            place = self.next(place);
            let there = self.places[place];
            if there.slot == NONE {
                break;
            }
            let (home, mask) = (self.home(there.hash), self.places.len() - 1);
            // It may move to the hole if that is not before its home.
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(hole) & mask {
                self.places[hole] = there;
                hole = place;
            }
        }
        self.places[hole].slot = NONE;
    }

    /// Every slot in the table.
    #[cfg(test)]
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.places.iter().map(|place| place.slot).filter(|&slot| slot != NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knote::Knote;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn the_index_finds_what_a_map_would(
            steps in prop::collection::vec((any::<bool>(), 0usize..40, 11u8..14), 1..400),
        ) {
            let (mut knotes, mut index, mut map) = (Knotes::default(), Index::default(), HashMap::new());
            for (add, ident, filter) in steps {
                // Multiples of a large power of two would meet in a weak hash.
                let ident = ident << 40;
                let found = index.find(&knotes, ident, filter);
                prop_assert_eq!(found, map.get(&(ident, filter)).copied());
                match found {
                    None if add => {
                        let slot = knotes.insert(Knote::new(ident, filter));
                        prop_assert!(index.reserve().is_ok());
                        index.insert(&knotes, slot);
                        map.insert((ident, filter), slot);
                    }
                    Some(slot) if !add => {
                        index.remove(&knotes, slot);
                        knotes.remove(slot);
                        map.remove(&(ident, filter));
                    }
                    _ => {}
                }
                prop_assert_eq!(index.slots().count(), map.len());
            }
        }
    }
}
