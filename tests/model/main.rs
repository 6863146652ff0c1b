//! Random changes, writes, reads, triggers and collects, against a plain model of the
//! knote rules.
//!
//! The model holds what FreeBSD's kern_event.c would: a knote is enabled or not, and
//! its filter says yes or not. Where the documents leave the answer open (an edge that
//! may be told again after a change that alters nothing) the model says "may". Events
//! are compared as a set; only their number is bound by the room there was.
// The library under test is a C interface: every call of it is a foreign one.
#![allow(unsafe_code)]

mod knote;
mod world;

use kqueue::abi::*;
use libc::c_ushort;
use proptest::prelude::*;
use world::{Action, Change, SLOTS, SOURCES, World};

#[derive(Clone, Debug)]
enum Op {
    Write(usize, usize),
    Read(usize, usize),
    Call(Vec<Change>, usize),
}

fn mode() -> impl Strategy<Value = c_ushort> {
    prop_oneof![
        3 => Just(0),
        3 => Just(EV_CLEAR),
        2 => Just(EV_ONESHOT),
        2 => Just(EV_DISPATCH),
        1 => Just(EV_CLEAR | EV_DISPATCH),
        1 => Just(EV_CLEAR | EV_ONESHOT),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => Just(Action::Add),
        2 => Just(Action::AddDisabled),
        2 => Just(Action::Delete),
        4 => Just(Action::Enable),
        3 => Just(Action::Disable),
        3 => Just(Action::Nothing),
        1 => Just(Action::EnableAndDisable),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let control = prop_oneof![Just(NOTE_FFNOP), Just(NOTE_FFAND), Just(NOTE_FFOR), Just(NOTE_FFCOPY)];
    let often = prop::bool::weighted(0.6);
    let seldom = prop::bool::weighted(0.1);
    (
        (0..SLOTS, action(), mode(), seldom, seldom, often),
        (control, 0..=NOTE_FFLAGSMASK, any::<isize>(), any::<usize>()),
    )
        .prop_map(|((slot, action, mode, keep_udata, receipt, trigger), (control, bits, data, udata))| Change {
            slot,
            action,
            mode,
            keep_udata,
            receipt,
            trigger,
            control,
            bits,
            data,
            udata,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..SOURCES, 1..60_usize).prop_map(|(s, n)| Op::Write(s, n)),
        1 => (0..SOURCES, 1..90_usize).prop_map(|(s, n)| Op::Read(s, n)),
        3 => (prop::collection::vec(change(), 1..4), 0..4_usize).prop_map(|(c, room)| Op::Call(c, room)),
        2 => (2..SLOTS + 3).prop_map(|room| Op::Call(Vec::new(), room)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_does_what_the_model_does(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in &ops {
            match op {
                Op::Write(source, n) => world.write(*source, *n),
                Op::Read(source, n) => world.read(*source, *n),
                Op::Call(changes, room) => world.kevent(changes, *room)?,
            }
        }
        world.dismantle()?;
    }
}
