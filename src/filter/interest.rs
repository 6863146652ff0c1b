//! What epoll is asked for on behalf of the knotes on a descriptor, and what such a knote
//! keeps for itself.

use super::descriptors::Entry;
use super::{Ident, VARIANTS, served};
use crate::abi::{EV_CLEAR, EV_DISPATCH, EV_ONESHOT, EVFILT_EXCEPT, EVFILT_PROCDESC, EVFILT_READ};
use crate::knote::{Knote, Knotes, state};
use crate::sys::epoll;

/// `own` of a knote on a descriptor: bits 0–1 its set; bit 2 softened.
const SET_MASK: u32 = 3;
const SOFT: u32 = 4;

/// What a parked entry asks epoll for: nothing, told once.
pub(super) const PARKED: u32 = epoll::ONESHOT | epoll::ET;

/// The set a knote has its entry in.
pub(super) fn set_of(knote: &Knote) -> usize {
    (knote.own & SET_MASK) as usize
}

/// Whether epoll serves a knote.
pub(super) fn is_polled(knote: &Knote) -> bool {
    served(knote.row).ident == Ident::Polled
}

/// Whether a knote of a descriptor's entry stands in a set. Those on files that cannot be
/// polled stand in none.
pub(super) fn stands_in(knote: &Knote, set: usize) -> bool {
    knote.row & VARIANTS == 0 && set_of(knote) == set
}

pub(super) fn is_soft(knote: &Knote) -> bool {
    knote.own & SOFT != 0
}

/// The bits of interest of a filter.
pub(super) fn interest(filter: i16) -> u32 {
    match filter {
        EVFILT_READ => epoll::IN | epoll::RDHUP,
        EVFILT_EXCEPT => epoll::PRI,
        EVFILT_PROCDESC => epoll::IN,
        _ => epoll::OUT,
    }
}

/// How a knote has to be triggered in epoll.
pub(super) fn trigger(knote: &Knote) -> u32 {
    // EV_FORCEONESHOT makes an EV_ONESHOT of a knote that may share its entry.
    let once = if knote.has(state::FORCED) { EV_DISPATCH } else { EV_ONESHOT | EV_DISPATCH };
    if is_soft(knote) {
        epoll::ET
    } else if knote.flags & once != 0 {
        epoll::ONESHOT
    } else if knote.flags & EV_CLEAR != 0 {
        epoll::ET
    } else {
        0
    }
}

/// What epoll is asked for on behalf of a knote: nothing while it is disabled.
fn asks_for(knote: &Knote) -> u32 {
    if knote.is_enabled() { interest(knote.filter()) | trigger(knote) } else { 0 }
}

/// What a set should be asked for that has one knote.
pub(super) fn alone(knote: &Knote) -> u32 {
    match asks_for(knote) {
        0 => PARKED,
        mask => mask,
    }
}

/// What a set should be asked for on behalf of an entry's knotes: 0 if it has none.
pub(super) fn wanted(knotes: &Knotes, entry: Entry, set: usize) -> u32 {
    let (mut mask, mut any) = (0, false);
    for (_, knote) in entry.knotes(knotes).filter(|(_, knote)| stands_in(knote, set)) {
        any = true;
        mask |= asks_for(knote);
    }
    if any && mask == 0 { PARKED } else { mask }
}

/// Moves a knote to a set.
pub(super) fn put_in(knote: &mut Knote, set: usize) {
    knote.own = knote.own & !SET_MASK | set as u32;
}

pub(super) fn set_soft(knote: &mut Knote, soft: bool) {
    knote.own = knote.own & !SOFT | if soft { SOFT } else { 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_tells_which_rows_in_an_entry_are_polled() {
        for row in 0..=super::super::ROW_NESTED {
            match super::super::ROWS[usize::from(row)].map(|row| row.ident) {
                Some(Ident::Polled) => assert_eq!(row & VARIANTS, 0),
                Some(Ident::Unpolled) => assert_ne!(row & VARIANTS, 0),
                _ => {}
            }
        }
    }

    #[test]
    fn a_knote_remembers_its_set_and_softness_apart() {
        let mut knote = Knote::new(5, 1);
        put_in(&mut knote, 3);
        set_soft(&mut knote, true);
        assert_eq!((set_of(&knote), is_soft(&knote)), (3, true));
        put_in(&mut knote, 1);
        set_soft(&mut knote, false);
        assert_eq!((set_of(&knote), is_soft(&knote), knote.own), (1, false, 1));
    }
}
