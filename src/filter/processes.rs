//! The processes a kqueue watches: pidfds, the connector's news, and running out of
//! descriptors.
//!
//! A watch should cost no descriptor. When pidfds run out the kqueue gives all of its own
//! back, and the connector tells of the ends until no such knote is left. Children of a
//! tracked process are followed by the connector alone from the start.

use super::following::{self, LOST_A_THREAD, MAY_HAVE_ENDED, News, What};
use super::{Queue, ROW_CHILD, row_of, token};
use crate::abi::{EV_ONESHOT, EVFILT_PROC, NOTE_EXEC, NOTE_EXIT, NOTE_FORK, NOTE_TRACK, NOTE_TRACKERR};
use crate::errno::{Errno, Result};
use crate::knote::{Knote, STORED_FLAGS, Slot};
use crate::sys::epoll::{self, Epoll};
use crate::sys::pidfd::{self, PidFd};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

/// EVFILT_PROC in the index.
const PROC: u8 = row_of(EVFILT_PROC) as u8;

/// What only the connector tells.
pub(super) const BY_CONNECTOR: u32 = NOTE_FORK | NOTE_EXEC | NOTE_TRACK;

/// What a pidfd is asked for in epoll: told once, so that a copy in a child made behind the
/// library's back cannot make it tell for ever.
const WATCH: u32 = epoll::IN | epoll::ONESHOT;

/// What a knote knows of its process.
#[derive(Default)]
struct WatchedProcess {
    /// Stands in the epoll under the knote's name, until the end.
    pidfd: Option<PidFd>,
    /// The number it is followed under, if the connector tells of it.
    followed: Option<u64>,
    /// What has happened and is not told yet.
    seen: u32,
    /// wait(2)'s status, once it has ended.
    ended: Option<i32>,
}

/// The processes a kqueue watches, by knote.
#[derive(Default)]
pub(crate) struct Watches {
    by_slot: BTreeMap<Slot, WatchedProcess>,
    /// Descriptors ran out: ends are learned from the connector.
    crowded: bool,
}

impl Watches {
    /// What has happened to a knote's process and is not told yet; and its status, if it
    /// has ended.
    pub(super) fn record(&self, slot: Slot) -> (u32, Option<i32>) {
        self.by_slot.get(&slot).map_or((0, None), |watched| (watched.seen, watched.ended))
    }

    /// Everything has been told.
    pub(super) fn told(&mut self, slot: Slot) {
        if let Some(watched) = self.by_slot.get_mut(&slot) {
            watched.seen = 0;
        }
    }
}

/// An ident as a process' number. ESRCH for what cannot be one.
fn pid_of(ident: usize) -> Result<i32> {
    i32::try_from(ident).map_err(|_| Errno::ESRCH)
}

fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE)
}

/// Starts watching for a new knote. ESRCH: no such process, or a zombie whose end is not
/// asked for; ENOTSUP: only the connector could tell, and it is silent here; EMFILE, ENFILE,
/// ENOMEM, ENOSPC.
pub(super) fn start(queue: &mut Queue, slot: Slot) -> Result<()> {
    let shortage = match watch(queue, slot) {
        Err(errno) if is_shortage(errno) => errno,
        other => return other,
    };
    if !make_room(queue) {
        return Err(shortage);
    }
    watch(queue, slot).map_err(|errno| {
        queue.watches.crowded = false;
        // It was not the connector that was asked for.
        if errno == Errno::ENOTSUP { shortage } else { errno }
    })
}

/// What is `wanted` of the connector has changed. As for [`start`].
pub(super) fn change(queue: &mut Queue, slot: Slot, wanted: u32) -> Result<()> {
    if queue.watches.record(slot).1.is_some() {
        return Ok(());
    }
    follow(queue, slot, wanted)
}

fn watch(queue: &mut Queue, slot: Slot) -> Result<()> {
    let knote = queue.knotes[slot];
    let pid = pid_of(knote.ident)?;
    queue.watches.by_slot.insert(slot, WatchedProcess::default());
    // Following comes first, so that nothing falls between.
    let followed = follow(queue, slot, knote.fflags & BY_CONNECTOR);
    let watched = followed.and_then(|()| match PidFd::open(pid) {
        Ok(pidfd) if knote.fflags & NOTE_EXIT == 0 && pidfd::has_ended(pidfd.as_raw_fd()) => Err(Errno::ESRCH),
        Ok(pidfd) if queue.watches.crowded => {
            end_if_over(queue, slot, &pidfd);
            Ok(())
        }
        Ok(pidfd) => keep(queue, slot, pidfd),
        Err(errno) if is_shortage(errno) && queue.watches.crowded => {
            if !pidfd::exists(pid) {
                return Err(Errno::ESRCH);
            }
            // A child may be a zombie already. A stranger's end is heard of if it is yet to come.
            match pidfd::status_of_child(pid) {
                Ok(Some(_)) if knote.fflags & NOTE_EXIT == 0 => return Err(Errno::ESRCH),
                Ok(Some(status)) => end(queue, slot, status),
                _ => {}
            }
            Ok(())
        }
        Err(errno) => Err(errno),
    });
    watched.inspect_err(|_| release(queue, slot))
}

/// Has the connector tell of a knote's process what is `wanted`, or no more if nothing is.
fn follow(queue: &mut Queue, slot: Slot, wanted: u32) -> Result<()> {
    let pid = pid_of(queue.knotes[slot].ident)?;
    let Watches { by_slot, crowded } = &queue.watches;
    let Some(&WatchedProcess { ref pidfd, followed, .. }) = by_slot.get(&slot) else { return Ok(()) };
    let to_the_end = *crowded || followed.is_some() && pidfd.is_none();
    if wanted != 0 || to_the_end {
        let serial = following::follow(queue, pid, wanted, to_the_end)?;
        queue.watches.by_slot.entry(slot).or_default().followed = Some(serial);
    } else if let Some(serial) = followed {
        following::unfollow(queue, pid, serial);
        queue.watches.by_slot.entry(slot).or_default().followed = None;
    }
    Ok(())
}

/// Has a pidfd tell of a knote's end.
fn keep(queue: &mut Queue, slot: Slot, pidfd: PidFd) -> Result<()> {
    queue.epoll.add(pidfd.as_raw_fd(), WATCH, token::KNOTE | queue.knotes.name(slot))?;
    queue.watches.by_slot.entry(slot).or_default().pidfd = Some(pidfd);
    Ok(())
}

/// Descriptors have run out: gives the pidfds of the kqueue back, if it has any, and has the
/// connector tell of the ends. False if that cannot be.
fn make_room(queue: &mut Queue) -> bool {
    let with_pidfd = |(&slot, watched): (&Slot, &WatchedProcess)| watched.pidfd.is_some().then_some(slot);
    let slots: Vec<Slot> = queue.watches.by_slot.iter().filter_map(with_pidfd).collect();
    if let (None, Some(&first)) = (&queue.following, slots.first()) {
        // The connector's socket needs a descriptor too.
        queue.watches.by_slot.entry(first).or_default().pidfd = None;
    }
    queue.watches.crowded = true;
    for slot in slots {
        let wanted = queue.knotes[slot].fflags & BY_CONNECTOR;
        if follow(queue, slot, wanted).is_err() {
            queue.watches.crowded = false;
            watch_again(queue, slot);
            return false;
        }
        match queue.watches.by_slot.entry(slot).or_default().pidfd.take() {
            Some(pidfd) => end_if_over(queue, slot, &pidfd),
            None => check(queue, slot, false),
        }
    }
    true
}

/// Gives a knote the pidfd back that it lent.
fn watch_again(queue: &mut Queue, slot: Slot) {
    let Ok(pid) = pid_of(queue.knotes[slot].ident) else { return };
    if PidFd::open(pid).and_then(|pidfd| keep(queue, slot, pidfd)).is_err() {
        check(queue, slot, false);
    }
}

/// Stops watching for a knote.
pub(super) fn release(queue: &mut Queue, slot: Slot) {
    let Some(watched) = queue.watches.by_slot.remove(&slot) else { return };
    if let (Some(serial), Ok(pid)) = (watched.followed, pid_of(queue.knotes[slot].ident)) {
        following::unfollow(queue, pid, serial);
    }
    queue.watches.crowded &= !queue.watches.by_slot.is_empty();
}

/// A knote's process has ended.
fn end(queue: &mut Queue, slot: Slot, status: i32) {
    let asked = queue.knotes[slot].fflags & NOTE_EXIT;
    let Some(watched) = queue.watches.by_slot.get_mut(&slot) else { return };
    watched.ended = Some(status);
    watched.seen |= asked;
    watched.pidfd = None;
    if let (Some(serial), Ok(pid)) = (watched.followed.take(), pid_of(queue.knotes[slot].ident)) {
        following::unfollow(queue, pid, serial);
    }
    queue.knotes.activate(slot);
}

/// Whether a knote's process has ended, which it did not ask for, and nothing else is to be
/// told. The pidfd may not have been heard yet, and the connector is late with ends.
pub(super) fn is_over(queue: &Queue, slot: Slot) -> bool {
    let asked = queue.knotes[slot].fflags & NOTE_EXIT != 0;
    let Some(watched) = queue.watches.by_slot.get(&slot).filter(|watched| !asked && watched.seen == 0) else {
        return false;
    };
    watched.ended.is_some() || watched.pidfd.as_ref().is_some_and(|pidfd| pidfd::has_ended(pidfd.as_raw_fd()))
}

/// The pidfd of a knote tells of the end, unless something else has.
pub(super) fn end_by_pidfd(queue: &mut Queue, slot: Slot) {
    if let Some(pidfd) = queue.watches.by_slot.get(&slot).and_then(|watched| watched.pidfd.as_ref()) {
        let status = status(pidfd);
        end(queue, slot, status);
    }
}

/// What wait(2) says of an ended process; 0 where nobody tells.
fn status(pidfd: &PidFd) -> i32 {
    pidfd::status(pidfd.as_raw_fd()).ok().flatten().unwrap_or(0)
}

fn end_if_over(queue: &mut Queue, slot: Slot, pidfd: &PidFd) {
    if pidfd::has_ended(pidfd.as_raw_fd()) {
        end(queue, slot, status(pidfd));
    }
}

/// A knote's process may have ended: looks whether it has. `likely` says what to believe where
/// that takes a descriptor and there is none.
fn check(queue: &mut Queue, slot: Slot, likely: bool) {
    let Ok(pid) = pid_of(queue.knotes[slot].ident) else { return };
    let child = pidfd::status_of_child(pid);
    if let Ok(Some(status)) = child {
        return end(queue, slot, status);
    }
    match PidFd::open(pid) {
        Ok(pidfd) => end_if_over(queue, slot, &pidfd),
        // A zombie that is not shown yet, or a living process.
        Err(_) if child.is_ok() || !likely && pidfd::exists(pid) => {}
        Err(_) => end(queue, slot, following::last_code(queue, pid)),
    }
}

/// Reads what the connector has, for all kqueues, and applies this one's news.
pub(super) fn catch_up(queue: &mut Queue) {
    let news = following::collect(queue);
    apply(queue, news);
}

/// The connector has something to tell.
pub(crate) fn collect(queue: &mut Queue) {
    catch_up(queue);
    following::leave_if_idle(queue);
}

/// Applies the news that another kqueue's thread has read.
pub(crate) fn take_news(queue: &mut Queue) {
    let news = following::take(queue);
    apply(queue, news);
}

fn apply(queue: &mut Queue, news: Vec<News>) {
    for News { pid, serial, what } in news {
        let slot = follower(queue, pid, serial);
        match (what, slot) {
            (What::Born { parent, parent_serial }, _) => match follower(queue, parent, parent_serial) {
                Some(parent) => bear(queue, parent, pid, serial),
                None => following::unfollow(queue, pid, serial),
            },
            (What::Did(bits), Some(slot)) => did(queue, slot, bits),
            (What::Ended(status), Some(slot)) => end(queue, slot, status),
            (_, None) => {}
        }
    }
}

/// The knote that follows a process under this number.
fn follower(queue: &Queue, pid: i32, serial: u64) -> Option<Slot> {
    let slot = queue.index.find(&queue.knotes, usize::try_from(pid).ok()?, PROC)?;
    let followed = queue.watches.by_slot.get(&slot)?.followed;
    (followed == Some(serial)).then_some(slot)
}

fn did(queue: &mut Queue, slot: Slot, bits: u32) {
    let asked = queue.knotes[slot].fflags & (NOTE_FORK | NOTE_EXEC) | NOTE_TRACKERR;
    if let Some(watched) = queue.watches.by_slot.get_mut(&slot)
        && bits & asked != 0
    {
        watched.seen |= bits & asked;
        queue.knotes.activate(slot);
    }
    if bits & (MAY_HAVE_ENDED | LOST_A_THREAD) != 0 {
        check(queue, slot, bits & MAY_HAVE_ENDED != 0);
    }
}

/// A tracked process has a child: announces it, and gives it a knote like its parent's.
fn bear(queue: &mut Queue, parent: Slot, pid: i32, serial: u64) {
    let Ok(ident) = usize::try_from(pid) else { return };
    if queue.reserve(PROC, 2).is_err() {
        following::unfollow(queue, pid, serial);
        return did(queue, parent, NOTE_TRACKERR);
    }
    let parent = queue.knotes[parent];
    let mut announcement = Knote::new(ident, ROW_CHILD);
    announcement.udata = parent.udata;
    announcement.own = parent.ident as u32;
    announcement.flags = parent.flags & STORED_FLAGS | EV_ONESHOT;
    let slot = queue.knotes.insert(announcement);
    queue.knotes.activate(slot);

    if let Some(earlier) = queue.index.find(&queue.knotes, ident, PROC) {
        // The number's last process has ended; its knote tells of that and is not found by
        // its key any more.
        end_by_pidfd(queue, earlier);
        queue.index.remove(&queue.knotes, earlier);
    }
    let mut knote = Knote::new(ident, parent.row);
    knote.udata = parent.udata;
    knote.fflags = parent.fflags;
    knote.flags = parent.flags;
    let slot = queue.knotes.insert(knote);
    queue.watches.by_slot.insert(slot, WatchedProcess { followed: Some(serial), ..WatchedProcess::default() });
    queue.index.insert(&queue.knotes, slot);
}

/// After a fresh epoll took the place of one: takes what may have been reported in between.
pub(super) fn look(queue: &mut Queue) {
    collect(queue);
    let over = |(&slot, watched): (&Slot, &WatchedProcess)| {
        watched.pidfd.as_ref().is_some_and(|pidfd| pidfd::has_ended(pidfd.as_raw_fd())).then_some(slot)
    };
    let slots: Vec<Slot> = queue.watches.by_slot.iter().filter_map(over).collect();
    slots.into_iter().for_each(|slot| end_by_pidfd(queue, slot));
}

/// Enters what the knotes have in the epoll into a fresh one.
pub(super) fn enter(queue: &Queue, epoll: &Epoll) -> Result<()> {
    following::enter(queue, epoll)?;
    for (&slot, watched) in &queue.watches.by_slot {
        if let Some(pidfd) = &watched.pidfd {
            epoll.add(pidfd.as_raw_fd(), WATCH, token::KNOTE | queue.knotes.name(slot))?;
        }
    }
    Ok(())
}
