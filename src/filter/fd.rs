//! Descriptors in epoll: which registrations serve which knotes.
//!
//! BSD keys knotes by (number, filter), each with its own mode; epoll keys entries by
//! (file, number), one mode each, and reports the whole ready mask whatever changed. So:
//!
//! * Level knotes of a descriptor share one entry. A lone EV_CLEAR knote is EPOLLET, a
//!   lone EV_ONESHOT or EV_DISPATCH one EPOLLONESHOT, which the kernel disarms by itself.
//! * A knote that cannot share gets an entry of its own in a further epoll *set*, nested
//!   in the kqueue's and made at the first need. Two EV_CLEAR knotes cannot share either:
//!   an edge of one would report the other.
//! * An entry whose knotes are all disabled is *parked*: EPOLLONESHOT and EPOLLET with an
//!   empty mask tell of a hang-up once at most, and the entry still answers the question
//!   whether the number names the file it named before.
//! * epoll's answer to a change is the truth about closed and reused numbers: ENOENT and
//!   EBADF mean that the file of our knotes is gone.
//!
//! A level knote whose condition epoll cannot express (a low-water mark, a socket not
//! connected yet, the wrong end of a pipe) would spin. It is *softened*: edge-triggered in
//! epoll, and kept on the ready list by us for as long as its condition holds.

use super::descriptors::{Entry, SETS};
use super::interest::{
    PARKED, alone, interest, is_polled, is_soft, put_in, set_of, set_soft, stands_in, trigger, wanted,
};
use super::kind::Kind;
use super::mask::{pack, unpack};
use super::watched::WatchedKqueue;
use super::{Fate, Inner, Outcome, Queue, descriptor, in_entry, ops, token};
use crate::abi::{EV_DISPATCH, EV_ONESHOT};
use crate::errno::{Errno, Result};
use crate::knote::{Knote, NONE, Slot, state};
use crate::sys::epoll::{self, Epoll};
use crate::sys::{ask_twice, fd as sys_fd};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// What epoll is given for a descriptor.
pub(super) struct Target {
    pub(super) number: RawFd,
    /// A watched kqueue, whose epoll stands for it: that number is its own for as long.
    _kqueue: Option<Arc<dyn Inner>>,
}

pub(super) fn target(queue: &Queue, fd: RawFd) -> Target {
    match queue.fds.entry(fd) {
        Some(Entry { kind: Kind::Kqueue, .. }) => target_kqueue(queue, fd),
        _ => Target { number: fd, _kqueue: None },
    }
}

#[cold]
fn target_kqueue(queue: &Queue, fd: RawFd) -> Target {
    let kqueue = queue.fds.kqueues.get(&fd).and_then(WatchedKqueue::kqueue);
    Target { number: kqueue.as_ref().map_or(-1, |kqueue| kqueue.epoll()), _kqueue: kqueue }
}

/// The epoll of a set, if it is there.
pub(super) fn epoll_of(queue: &Queue, set: usize) -> Option<&Epoll> {
    if set == 0 { Some(&queue.epoll) } else { queue.fds.nested(set) }
}

/// Runs `f` on a set, which is made if it is a nested one and missing.
#[cold]
pub(super) fn with_set<T>(queue: &mut Queue, set: usize, f: impl FnOnce(&Epoll) -> Result<T>) -> Result<T> {
    if epoll_of(queue, set).is_none() {
        let _creating = sys_fd::creating();
        let made = Epoll::new()?;
        queue.epoll.add(made.as_raw_fd(), epoll::IN, token::SETS + set as u64)?;
        queue.fds.put_nested(set, made);
    }
    epoll_of(queue, set).map_or(Err(Errno::EBADF), f)
}

/// Brings a set's entry in line with its knotes. Always asks epoll, which looks at the
/// descriptor anew: that is how a change reports what is there already, and how a file
/// that is gone is found out (ENOENT, EBADF).
fn apply(queue: &mut Queue, fd: RawFd, set: usize) -> Result<()> {
    let Some(&entry) = queue.fds.entry(fd) else { return Ok(()) };
    let wanted = wanted(&queue.knotes, entry, set);
    bring(queue, fd, entry, set, wanted)
}

/// Has a set's entry be what is `wanted`.
#[inline(always)]
fn bring(queue: &mut Queue, fd: RawFd, entry: Entry, set: usize, wanted: u32) -> Result<()> {
    let (armed, token) = (entry.armed[set], entry.token(fd, set));
    let asked = if set == 0 && entry.kind != Kind::Kqueue {
        ask(&queue.epoll, fd, armed, wanted, token)
    } else {
        let target = target(queue, fd);
        with_set(queue, set, |epoll| ask(epoll, target.number, armed, wanted, token))
    };
    if let Err(errno) = asked {
        queue.crowded |= armed == 0 && errno == Errno::EINVAL;
        return Err(errno);
    }
    queue.entered = queue.entered.wrapping_add(u32::from(armed == 0 && wanted != 0));
    queue.fds.removed = queue.fds.removed.wrapping_add(u32::from(armed != 0 && wanted == 0));
    queue.fds.note(fd, set, pack(wanted));
    Ok(())
}

/// Asks a set for what is `wanted` of a number, where it was `armed` before.
#[inline(always)]
fn ask(epoll: &Epoll, number: RawFd, armed: u8, wanted: u32, token: u64) -> Result<()> {
    // A number that was in the set and now cannot be polled (EPERM) is another file's.
    let other_file = |errno| if errno == Errno::EPERM { Errno::ENOENT } else { errno };
    match (armed, wanted) {
        (0, 0) => Ok(()),
        (0, _) => match epoll.add(number, wanted, token) {
            Err(Errno::EEXIST) => epoll.modify(number, wanted, token),
            other => other,
        },
        (_, 0) => epoll.delete(number).map_err(other_file),
        _ => epoll.modify(number, wanted, token).map_err(other_file),
    }
}

/// Whether an error of [`apply`] says that the number names another file, or none.
fn gone(error: Errno) -> bool {
    matches!(error, Errno::ENOENT | Errno::EBADF)
}

/// The set for a knote, whichever it may be in now: its level siblings' if it is level
/// itself, else a free one.
fn choose_set(queue: &Queue, fd: RawFd, slot: Slot, trigger_wanted: u32) -> usize {
    let others = || queue.fds.knotes(&queue.knotes, fd).filter(|&(other, _)| other != slot);
    let siblings = || others().map(|(_, knote)| knote).filter(|knote| is_polled(knote));
    let free = |&set: &usize| siblings().all(|sibling| set_of(sibling) != set);
    if trigger_wanted == 0
        && let Some(level) = siblings().find(|sibling| trigger(sibling) == 0)
    {
        return set_of(level);
    }
    (0..SETS).find(free).unwrap_or(0)
}

/// Starts watching a descriptor for a new knote. `soft` asks for edges in epoll and the
/// level kept by us. EBADF, EPERM (not pollable), ENOMEM, ENOSPC, EMFILE.
pub(super) fn attach(queue: &mut Queue, slot: Slot, soft: bool) -> Result<()> {
    let fd = descriptor(queue.knotes[slot].ident)?;
    match begin(queue, fd, slot, soft) {
        Err(errno) => begin_again(queue, fd, slot, soft, errno).inspect_err(|_| leave(queue, slot)),
        Ok(()) => Ok(()),
    }
}

/// If the entry was an earlier file's its knotes go, and this one starts afresh.
#[cold]
fn begin_again(queue: &mut Queue, fd: RawFd, slot: Slot, soft: bool, errno: Errno) -> Result<()> {
    if !gone(errno) {
        return Err(errno);
    }
    leave(queue, slot);
    queue.forget(fd);
    if !sys_fd::is_open(fd) {
        return Err(Errno::EBADF);
    }
    begin(queue, fd, slot, soft)
}

/// Enters a knote where it can stand, and asks epoll for it.
#[inline(always)]
fn begin(queue: &mut Queue, fd: RawFd, slot: Slot, soft: bool) -> Result<()> {
    let entry = enter(queue, fd, slot);
    let knote = &mut queue.knotes[slot];
    knote.own = 0;
    set_soft(knote, soft);
    if entry.has_only(slot, knote) && !entry.is_elsewhere(0) {
        let wanted = alone(knote);
        return bring(queue, fd, entry, 0, wanted);
    }
    let trigger = trigger(knote);
    let set = choose_set(queue, fd, slot, trigger);
    put_in(&mut queue.knotes[slot], set);
    // What other sets have of the number may be of an earlier file: epoll would not say so here.
    if entry.is_elsewhere(set) {
        queue.fds.doubt_kind(fd);
    }
    apply(queue, fd, set)
}

/// Enters a new knote in the entry of its descriptor.
#[inline(always)]
pub(super) fn enter(queue: &mut Queue, fd: RawFd, slot: Slot) -> Entry {
    queue.fds.link(&mut queue.knotes, fd, slot)
}

/// Takes a knote out of the entry of its descriptor, if it is still in.
#[inline(always)]
pub(super) fn leave(queue: &mut Queue, slot: Slot) {
    if let Ok(fd) = descriptor(queue.knotes[slot].ident) {
        queue.fds.unlink(&mut queue.knotes, fd, slot);
    }
}

/// A change to a knote. ENOENT or EBADF: its file is gone, and so are all knotes on the
/// number, this one included.
pub(super) fn modify(queue: &mut Queue, slot: Slot, soft: bool) -> Result<()> {
    let knote = &mut queue.knotes[slot];
    let (fd, set) = (descriptor(knote.ident)?, set_of(knote));
    let entry = queue.fds.entry(fd).copied().unwrap_or_default();
    if entry.has_only(slot, knote) {
        set_soft(knote, soft);
        let wanted = alone(knote);
        return bring(queue, fd, entry, set, wanted);
    }
    // A softened knote is given another try at the real level; a new mark softens.
    if is_alone(queue, fd, slot) {
        set_soft(&mut queue.knotes[slot], soft);
    } else if soft {
        return resettle(queue, fd, slot);
    }
    apply(queue, fd, set)
}

/// Whether a knote shares its set with no other.
fn is_alone(queue: &Queue, fd: RawFd, slot: Slot) -> bool {
    let set = set_of(&queue.knotes[slot]);
    let mut knotes = queue.fds.knotes(&queue.knotes, fd);
    knotes.all(|(other, knote)| other == slot || !stands_in(knote, set))
}

/// Moves a knote that can no longer share its set into one of its own, edge-triggered. An
/// error leaves it where it was.
fn resettle(queue: &mut Queue, fd: RawFd, slot: Slot) -> Result<()> {
    let before = queue.knotes[slot].own;
    let old = set_of(&queue.knotes[slot]);
    let new = choose_set(queue, fd, slot, epoll::ET);
    set_soft(&mut queue.knotes[slot], true);
    put_in(&mut queue.knotes[slot], new);
    let moved = queue.knotes[slot].own;
    // The old set first, which tells whether the number still is that file's: the new one would
    // take any.
    let mut result = apply(queue, fd, old);
    if result.is_ok() {
        result = apply(queue, fd, new);
        if result.is_err_and(gone) {
            // What it had there was an earlier file's.
            queue.knotes[slot].own = before;
            clear(queue, fd);
            queue.knotes[slot].own = moved;
            result = apply(queue, fd, new);
        }
    }
    result.inspect_err(|&errno| {
        queue.knotes[slot].own = before;
        if !gone(errno) {
            let _ = apply(queue, fd, old);
        }
    })
}

/// Stops watching for a knote. ENOENT, EBADF: the file had gone before.
pub(super) fn detach(queue: &mut Queue, slot: Slot) -> Result<()> {
    let fd = descriptor(queue.knotes[slot].ident)?;
    let set = set_of(&queue.knotes[slot]);
    let entry = queue.fds.unlink(&mut queue.knotes, fd, slot);
    let wanted = if entry.first == NONE { 0 } else { wanted(&queue.knotes, entry, set) };
    match bring(queue, fd, entry, set, wanted) {
        Err(errno) if gone(errno) => {
            queue.forget(fd);
            Err(if sys_fd::is_open(fd) { Errno::ENOENT } else { Errno::EBADF })
        }
        _ => Ok(()),
    }
}

/// Removes a knote whose file is gone, without asking epoll for anything.
pub(super) fn abandon(queue: &mut Queue, slot: Slot) {
    let row = queue.knotes[slot].row;
    if in_entry(row) && row < super::VARIANTS {
        leave(queue, slot);
    } else {
        let _ = ops(row).detach(queue, slot);
    }
    queue.remove(slot);
}

/// Whether a knote's entry in epoll is another file's than its number names.
pub(super) fn is_gone(queue: &Queue, slot: Slot) -> bool {
    let knote = &queue.knotes[slot];
    !descriptor(knote.ident).is_ok_and(|fd| is_registered(queue, fd, set_of(knote)))
}

/// Gives up the entries of a number that serve no knote any more: what epoll still reports
/// of them is stale from here on.
pub(super) fn clear(queue: &mut Queue, fd: RawFd) {
    let Queue { fds, knotes, .. } = queue;
    let Some(entry) = fds.known_mut(fd) else { return };
    if entry.kind == Kind::Kqueue && entry.first != NONE {
        return;
    }
    let mut begun_anew = false;
    for set in 0..SETS {
        if !entry.knotes(knotes).any(|(_, knote)| stands_in(knote, set)) {
            begun_anew |= entry.give_up(set);
        }
    }
    fds.removed = fds.removed.wrapping_add(1);
    // Once all counts have been used no stale report may be left that bears one.
    fds.begun_anew |= begun_anew;
    fds.orphaned |= begun_anew;
    fds.untie(fd);
}

/// Whether a set has an entry for the file that a number names now. Asked by adding it
/// once more, which changes nothing if it is there; EPOLL_CTL_MOD would report it anew.
pub(super) fn is_registered(queue: &Queue, fd: RawFd, set: usize) -> bool {
    let (Some(epoll), target) = (epoll_of(queue, set), target(queue, fd)) else { return false };
    // A number the program has closed may be a descriptor of ours for the moment that it is
    // made: its entry could not be deleted once that has moved on.
    let _creating = sys_fd::creating();
    match ask_twice(|| epoll.add(target.number, PARKED, queue.fds.token(fd, set))) {
        Err(Errno::EEXIST) => true,
        Ok(()) => {
            let _ = epoll.delete(target.number);
            false
        }
        Err(_) => false,
    }
}

/// Whether the entry a token names tells once only.
pub(super) fn is_one_shot(queue: &Queue, token: u64, set: usize) -> bool {
    let entry = queue.fds.entry(token as u32 as RawFd);
    entry.is_some_and(|entry| unpack(entry.armed[set]) & epoll::ONESHOT != 0)
}

/// epoll reported `mask` for a descriptor's entry in one of the sets: queues the knotes
/// it concerns. Of a report that may be another file's only this much is taken: epoll is asked
/// what holds now.
pub(crate) fn report(queue: &mut Queue, token: u64, set: usize, mask: u32) {
    let fd = token as u32 as RawFd;
    let Queue { fds, knotes, scan, .. } = queue;
    let (mut doubtful, begun_anew) = (fds.is_doubtful(), fds.begun_anew);
    let Some(entry) = fds.known_mut(fd) else { return };
    let armed = entry.armed[set];
    if entry.token(fd, set) != token || armed == 0 {
        fds.orphaned |= !fds.outdated;
        return;
    }
    if armed & pack(epoll::ONESHOT) != 0 {
        // What was asked for nothing tells of a hang-up at most, whatever else there is.
        doubtful |= armed == pack(PARKED);
        // The kernel has disarmed the entry and keeps it.
        entry.armed[set] = pack(PARKED);
    } else if doubtful && !begun_anew && entry.kind != Kind::Kqueue && armed & pack(epoll::ET) != 0 {
        return ask_epoll_anew(queue, fd, set);
    }
    let mut next = entry.first;
    while next != NONE {
        let slot = next;
        let knote = &mut knotes[slot];
        next = knote.sibling;
        let concerns = interest(knote.filter()) | epoll::ERR | epoll::HUP;
        if stands_in(knote, set) && mask & concerns != 0 {
            if !doubtful {
                knote.set_hint(*scan, pack(mask));
            }
            knotes.activate(slot);
        }
    }
}

/// Has epoll report an edge once more that may be of an earlier knote, or file. Asking what holds
/// now would tell of it here, and what entering this one reported would tell of it again.
#[cold]
fn ask_epoll_anew(queue: &mut Queue, fd: RawFd, set: usize) {
    queue.fds.asked_anew = true;
    if apply(queue, fd, set).is_err_and(gone) {
        queue.forget(fd);
    }
}

/// What epoll says of a knote's descriptor: as reported in this scan, or, for a knote
/// that has waited on the ready list since, asked for anew: the condition may have passed,
/// and the number may be another file's. The error is what to answer instead of an event.
pub(super) fn readiness(queue: &mut Queue, slot: Slot) -> core::result::Result<u32, Outcome> {
    match queue.knotes[slot].hint(queue.scan) {
        Some(hint) => Ok(unpack(hint)),
        None => ask_anew(queue, slot),
    }
}

#[cold]
fn ask_anew(queue: &mut Queue, slot: Slot) -> core::result::Result<u32, Outcome> {
    let knote = queue.knotes[slot];
    let Ok(fd) = descriptor(knote.ident) else { return Err(Outcome::Gone) };
    if !is_registered(queue, fd, set_of(&knote)) {
        return Err(Outcome::Gone);
    }
    let events = i16::try_from(interest(knote.filter())).unwrap_or(0);
    match u32::from(sys_fd::poll_now(target(queue, fd).number, events).unsigned_abs()) {
        0 => Err(unready(queue, slot, false)),
        mask => Ok(mask),
    }
}

/// The whole ready mask of a descriptor, hang-ups of both sides included.
pub(super) fn full_mask(fd: RawFd) -> u32 {
    let events = epoll::IN | epoll::OUT | epoll::PRI | epoll::RDHUP;
    u32::from(sys_fd::poll_now(fd, i16::try_from(events).unwrap_or(0)).unsigned_abs())
}

/// The knote is not ready although epoll reported it. What epoll will report from here
/// on is set right: an entry the kernel disarmed is armed again, and a level that would
/// spin is softened.
pub(super) fn unready(queue: &mut Queue, slot: Slot, lasting: bool) -> Outcome {
    let knote = queue.knotes[slot];
    let Ok(fd) = descriptor(knote.ident) else { return Outcome::Gone };
    let disarmed = knote.flags & (EV_ONESHOT | EV_DISPATCH) != 0 && !is_soft(&knote);
    let spins = lasting && trigger(&knote) == 0;
    if !disarmed && !spins {
        return Outcome::NotReady;
    }
    let result = if is_alone(queue, fd, slot) {
        set_soft(&mut queue.knotes[slot], true);
        apply(queue, fd, set_of(&knote))
    } else {
        resettle(queue, fd, slot)
    };
    match result {
        Ok(()) => Outcome::NotReady,
        Err(errno) if gone(errno) => Outcome::Gone,
        // No descriptor or memory for a set of its own.
        Err(_) => {
            soften_together(queue, fd, set_of(&knote));
            Outcome::NotReady
        }
    }
}

/// Softens all knotes of a set that have to share it, so that it tells of edges alone.
#[cold]
fn soften_together(queue: &mut Queue, fd: RawFd, set: usize) {
    let mut next = queue.fds.entry(fd).map_or(NONE, |entry| entry.first);
    while next != NONE {
        let knote = &mut queue.knotes[next];
        next = knote.sibling;
        if stands_in(knote, set) {
            set_soft(knote, true);
        }
    }
    let _ = apply(queue, fd, set);
}

/// Asks epoll whether the number still names the knote's file.
pub(super) fn still_there(queue: &mut Queue, slot: Slot) -> bool {
    let knote = queue.knotes[slot];
    let Ok(fd) = descriptor(knote.ident) else { return false };
    !apply(queue, fd, set_of(&knote)).is_err_and(gone)
}

/// Whether epoll itself tells of the knote again for as long as it is ready.
pub(crate) fn is_told_again(knote: &Knote) -> bool {
    knote.row < super::VARIANTS && is_polled(knote) && trigger(knote) == 0
}

/// Whether the knote comes onto the ready list by epoll's reports alone, and leaves it when
/// it is handed out.
pub(crate) fn is_told_by_epoll(knote: &Knote) -> bool {
    let watched = knote.row < super::VARIANTS && is_polled(knote);
    watched && !knote.has(state::FORCED) && trigger(knote) & epoll::ET == 0
}

/// Whether a ready level knote stays on our list: the softened do. One that was softened
/// for a condition that has passed is handed back to epoll instead, if it is alone in its set.
#[inline(always)]
pub(super) fn keep_or_harden(queue: &mut Queue, slot: Slot, marked: bool) -> bool {
    is_soft(&queue.knotes[slot]) && (marked || !harden(queue, slot))
}

/// False: it has to stay.
#[inline(never)]
fn harden(queue: &mut Queue, slot: Slot) -> bool {
    let knote = queue.knotes[slot];
    let Ok(fd) = descriptor(knote.ident) else { return true };
    if knote.is_level() {
        if !is_alone(queue, fd, slot) {
            return false;
        }
        set_soft(&mut queue.knotes[slot], false);
        let _ = apply(queue, fd, set_of(&knote));
    }
    true
}

/// After a hand-out: only knotes that stop need anything done, and only if the kernel
/// has not disarmed their entry by itself.
pub(super) fn settle(queue: &mut Queue, slot: Slot, fate: Fate) {
    if matches!(fate, Fate::Stays | Fate::Cleared) {
        return;
    }
    let knote = &queue.knotes[slot];
    let Ok(fd) = descriptor(knote.ident) else { return };
    let set = set_of(knote);
    if fate == Fate::Spent {
        leave(queue, slot);
    }
    // A parked entry stays for the next EV_ADD, which then is one EPOLL_CTL_MOD.
    if queue.fds.entry(fd).is_some_and(|entry| entry.armed[set] != pack(PARKED)) {
        let _ = apply(queue, fd, set);
    }
}
