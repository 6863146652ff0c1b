//! EVFILT_READ and EVFILT_WRITE on files that epoll refuses (EPERM).
//!
//! Regular files: `data` is size less offset, negative behind the end, looked at whenever
//! the knote comes up; at the end the knote leaves the ready list, and an inotify watch
//! brings it back when the file is written. Writes by another machine are not seen. Nothing
//! tells of an lseek(), so each call that collects looks at the offsets of some of the files
//! that are at their end.
//! Writing never blocks: always ready with `data` 0, as in FreeBSD's kernel. Devices that
//! cannot be polled (/dev/null, /dev/zero) are always ready, as in NetBSD and OpenBSD.
//!
//! epoll cannot tell here when the number names another file, so each look compares the
//! file's identity.

use super::inodes::{self, Watch, news};
use super::kept::Kept;
use super::{Facts, ROW_FILE_READ, ROW_FILE_WRITE};
use super::{Fate, Filter, Outcome, Queue, RETRY, descriptor, fd};
use crate::abi::{EV_CLEAR, EV_ONESHOT, EVFILT_READ, EVFILT_WRITE, Kevent};
use crate::errno::{Errno, Result};
use crate::knote::{Knotes, Slot};
use crate::sys::file::{self, Sort};
use crate::sys::inotify::IN_MODIFY;
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// The rows of EVFILT_READ and EVFILT_WRITE on files.
pub(crate) struct OnFile;

/// What a knote on a file keeps, by `own`.
pub(crate) struct OpenFile {
    identity: (u64, u64),
    /// What tells a regular file from a later one that got the inode of this one when it was
    /// deleted, if the file system has it.
    handle: Option<u64>,
    regular: bool,
    /// The watch on it, once the end was reached or an edge told.
    watch: Option<Watch>,
    /// Where its end was, if that was where the offset stood when it was looked at last.
    end: Option<i64>,
    /// It is among [`Files::at_end`].
    listed: bool,
}

/// The files of a kqueue.
#[derive(Default)]
pub(crate) struct Files {
    kept: Kept<OpenFile>,
    /// The knotes found at the end, by name, those looked at longest ago first.
    at_end: VecDeque<u64>,
}

/// How many of the files at their end one call looks at.
const LOOKS: usize = 16;

/// Queues knotes whose offset was moved away from the end. To be called as a call begins.
#[inline]
pub(crate) fn look_at_ends(queue: &mut Queue) {
    if !queue.files.at_end.is_empty() {
        look_at_some(queue);
    }
}

fn look_at_some(queue: &mut Queue) {
    let mut moved = false;
    for _ in 0..queue.files.at_end.len().min(LOOKS) {
        let Some(name) = queue.files.at_end.pop_front() else { break };
        let Some(slot) = queue.knotes.resolve(name) else { continue };
        let knote = queue.knotes[slot];
        let file = queue.files.kept.get(knote.own);
        let there = file.end.is_some_and(|end| descriptor(knote.ident).and_then(file::offset) == Ok(end));
        if there || file.end.is_some() && !knote.is_enabled() {
            queue.files.at_end.push_back(name);
            continue;
        }
        file.listed = false;
        if file.end.take().is_some() {
            moved = true;
            queue.knotes.activate(slot);
        }
    }
    if moved {
        // A write that is known already must not be told once more afterwards.
        inodes::collect(queue);
    }
}

/// The file was looked at: has the coming calls look at its offset, if that is at the end.
fn note(queue: &mut Queue, slot: Slot, end: Option<i64>) {
    let file = queue.files.kept.get(queue.knotes[slot].own);
    file.end = end;
    if end.is_some() && !core::mem::replace(&mut file.listed, true) {
        queue.files.list(&queue.knotes, slot);
    }
}

impl Files {
    /// Has the coming calls look at a file's offset. Each file is listed once, so that at least
    /// half of a full list are knotes that are gone, more of which may come than calls look at.
    fn list(&mut self, knotes: &Knotes, slot: Slot) {
        if self.at_end.len() >= 2 * self.kept.len() + LOOKS {
            self.at_end.retain(|&name| knotes.resolve(name).is_some());
        }
        self.at_end.push_back(knotes.name(slot));
    }
}

/// Attaches a knote to a descriptor epoll refused. EINVAL for filters that have no
/// meaning there.
#[cold]
pub(super) fn attach(queue: &mut Queue, slot: Slot) -> Result<()> {
    let knote = queue.knotes[slot];
    let fd = descriptor(knote.ident)?;
    let row = match knote.filter() {
        EVFILT_READ => ROW_FILE_READ,
        EVFILT_WRITE => ROW_FILE_WRITE,
        _ => return Err(Errno::EINVAL),
    };
    // What an earlier file left under the number.
    queue.forget(fd);
    let status = file::status(fd)?;
    let regular = status.sort == Sort::Regular;
    let handle = if regular { file::handle(fd) } else { None };
    let watched = OpenFile { identity: status.identity, handle, regular, watch: None, end: None, listed: false };
    queue.knotes[slot].row = row;
    queue.knotes[slot].own = queue.files.kept.insert(watched);
    fd::enter(queue, fd, slot);
    queue.knotes.activate(slot);
    Ok(())
}

/// The number and the size of the knote's file: ENOENT if the number names another, EBADF if none.
fn check(queue: &mut Queue, slot: Slot) -> Result<(RawFd, i64)> {
    let knote = queue.knotes[slot];
    let fd = descriptor(knote.ident)?;
    let status = file::status(fd)?;
    let watched = queue.files.kept.get(knote.own);
    // A handle that is not to be had says nothing.
    let is_later = || watched.handle.is_some_and(|then| file::handle(fd).is_some_and(|now| now != then));
    if status.identity != watched.identity || is_later() { Err(Errno::ENOENT) } else { Ok((fd, status.size)) }
}

/// Waits for the file to be written, from the first time that matters. Whether it has
/// begun to.
fn watch(queue: &mut Queue, slot: Slot, fd: RawFd) -> bool {
    let index = queue.knotes[slot].own;
    if queue.files.kept.get(index).watch.is_some() {
        return false;
    }
    let watch = inodes::watch(queue, slot, fd, IN_MODIFY).ok();
    if watch.is_none() {
        // If a timer cannot be had either, the next change of the knote looks again.
        let _ = queue.look_again(slot, RETRY);
    }
    queue.files.kept.get(index).watch = watch;
    true
}

fn unwatch(queue: &mut Queue, slot: Slot) {
    if let Some(watch) = queue.files.kept.get(queue.knotes[slot].own).watch.take() {
        inodes::unwatch(queue, slot, &watch);
    }
}

/// Has the next write told anew. To be called before the file is looked at.
fn heard(queue: &mut Queue, slot: Slot) {
    let file = queue.files.kept.get(queue.knotes[slot].own);
    let told = file.watch.as_ref().map_or(0, Watch::take);
    // The kernel drops the watch with the last name of a file, open or not; that may be among
    // the news that were lost.
    if told & (news::UNWATCHED | news::LOST) != 0 {
        unwatch(queue, slot);
    }
}

impl Filter for OnFile {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        attach(queue, slot)
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        check(queue, slot)?;
        queue.knotes[slot].fflags = change.fflags;
        queue.knotes.activate(slot);
        Ok(())
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        let result = check(queue, slot).map(|_| ());
        unwatch(queue, slot);
        fd::leave(queue, slot);
        queue.files.kept.take(queue.knotes[slot].own);
        result
    }

    fn is_gone(&self, queue: &mut Queue, slot: Slot) -> bool {
        check(queue, slot).is_err()
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        heard(queue, slot);
        let Ok((fd, size)) = check(queue, slot) else { return Outcome::Gone };
        let knote = queue.knotes[slot];
        if knote.filter() == EVFILT_WRITE || !queue.files.kept.get(knote.own).regular {
            return Outcome::Ready(Facts { again: true, ..Facts::default() });
        }
        let mut unread = file::offset(fd).map(|offset| size - offset);
        // The next edge is a write after this look, and so is what ends a wait at the end. The file
        // may have grown before the watch was there.
        let waits = knote.flags & (EV_CLEAR | EV_ONESHOT) == EV_CLEAR || unread == Ok(0);
        if waits && watch(queue, slot, fd) {
            unread = file::unread(fd);
        }
        match unread {
            Ok(0) => {
                note(queue, slot, file::offset(fd).ok());
                Outcome::NotReady
            }
            Ok(bytes) => {
                note(queue, slot, None);
                let data = isize::try_from(bytes).unwrap_or(isize::MAX);
                Outcome::Ready(Facts { data, again: true, ..Facts::default() })
            }
            Err(_) => Outcome::Gone,
        }
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        if fate == Fate::Spent {
            let _ = self.detach(queue, slot);
        }
    }
}
