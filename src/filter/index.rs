//! Finding a knote by (ident, number of its filter), where no descriptor's entry has it.
//!
//! An open-addressed table of slots: four bytes a knote, since the keys stand in the
//! knotes themselves. Linear probing, at most three quarters full; a removal moves the rest of
//! its run up, so that there are no tombstones.

use crate::errno::Result;
use crate::knote::{Knotes, NONE, Slot};

/// The table. Its length is a power of two, or nothing.
#[derive(Default)]
pub(super) struct Index {
    places: Vec<Slot>,
    used: usize,
}

/// Multiplies and folds: idents and filter numbers are no adversary's choice.
fn hash(ident: usize, filter: u8) -> usize {
    let key = (ident as u64) ^ u64::from(filter).rotate_right(8);
    let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 32)) as usize
}

impl Index {
    fn home(&self, ident: usize, filter: u8) -> usize {
        hash(ident, filter) & (self.places.len() - 1)
    }

    fn next(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    fn place(&self, knotes: &Knotes, ident: usize, filter: u8) -> Option<usize> {
        if self.used == 0 {
            return None;
        }
        let mut place = self.home(ident, filter);
        while self.places[place] != NONE {
            let knote = &knotes[self.places[place]];
            if knote.ident == ident && knote.number() == filter {
                return Some(place);
            }
            place = self.next(place);
        }
        None
    }

    /// The slot of a key.
    pub(super) fn find(&self, knotes: &Knotes, ident: usize, filter: u8) -> Option<Slot> {
        self.place(knotes, ident, filter).map(|place| self.places[place])
    }

    /// Makes room for one knote more. ENOMEM.
    pub(super) fn reserve(&mut self, knotes: &Knotes) -> Result<()> {
        if (self.used + 1) * 4 > self.places.len() * 3 { self.grow(knotes) } else { Ok(()) }
    }

    #[cold]
    fn grow(&mut self, knotes: &Knotes) -> Result<()> {
        let grown = (self.places.len() * 2).max(8);
        let mut places = Vec::new();
        places.try_reserve_exact(grown)?;
        places.resize(grown, NONE);
        let old = core::mem::replace(&mut self.places, places);
        old.into_iter().filter(|&slot| slot != NONE).for_each(|slot| self.put(knotes, slot));
        Ok(())
    }

    /// Enters a knote whose key is not in the table, which has room for it.
    pub(super) fn insert(&mut self, knotes: &Knotes, slot: Slot) {
        self.put(knotes, slot);
        self.used += 1;
    }

    fn put(&mut self, knotes: &Knotes, slot: Slot) {
        let mut place = self.home(knotes[slot].ident, knotes[slot].number());
        while self.places[place] != NONE {
            place = self.next(place);
        }
        self.places[place] = slot;
    }

    /// Takes a knote out, if it is in: there may be more knotes of a key than the one that is.
    pub(super) fn remove(&mut self, knotes: &Knotes, slot: Slot) {
        let Some(mut hole) = self.place(knotes, knotes[slot].ident, knotes[slot].number()) else { return };
        if self.places[hole] != slot {
            return;
        }
        self.used -= 1;
        let mut place = self.next(hole);
        while self.places[place] != NONE {
            let knote = &knotes[self.places[place]];
            let home = self.home(knote.ident, knote.number());
            let mask = self.places.len() - 1;
            // It may move to the hole if that is not before its home.
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(hole) & mask {
                self.places[hole] = self.places[place];
                hole = place;
            }
            place = self.next(place);
        }
        self.places[hole] = NONE;
    }

    /// Every slot in the table.
    #[cfg(test)]
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.places.iter().copied().filter(|&slot| slot != NONE)
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
                        prop_assert!(index.reserve(&knotes).is_ok());
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
