//! EVFILT_VNODE: something happened to a file, whatever its names.
//!
//! FreeBSD posts hints from inside each operation; those a knote asked for gather in its
//! `fflags` until EV_CLEAR takes them back. Here they are concluded (`hints.rs`) from what
//! inotify tells (`inodes.rs`) and from one fstat for each look.
//!
//! * The watch is added by way of /proc/self/fd, so it is on the descriptor's own file,
//!   unlinked or not, whoever has its name by now. That takes the permission to read it.
//! * The kernel drops a watch with the file's last name, even if it is open, when that was
//!   not the name it was opened by; it is then added anew. Inode numbers are used again at
//!   once, so the file's handle, which has a generation, tells whether it still is the same.
//! * The removal of an open directory shows in its parent alone, which is watched as well.
//! * Without inotify (the user's instances or watches are used up, no permission to read)
//!   the file is looked at by a timer, unless hints were asked for that leave no trace.

use super::hints::{self, LastLook};
use super::inodes::{self, Watch, news};
use super::kept;
use super::{Facts, Fate, Filter, Outcome, Queue, RETRY, descriptor};
use crate::abi::{EV_ADD, EV_CLEAR, Kevent, NOTE_DELETE, NOTE_RENAME};
use crate::errno::{Errno, Result};
use crate::knote::Slot;
use crate::sys::file::{self, Sort, Status};
use crate::sys::inotify::IN_MOVE_SELF;
use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The row of EVFILT_VNODE.
pub(crate) struct Vnode;

/// What a knote keeps, by `own`.
pub(crate) struct WatchedFile {
    last: LastLook,
    /// What tells the file from a later one in the same inode.
    handle: Option<u64>,
    /// Hints gathered and not taken back.
    found: u32,
    watch: Option<Watch>,
    /// On the parent of a directory whose removal was asked for.
    beside: Option<Watch>,
    /// Where it was last, if renaming was asked for.
    path: Option<OsString>,
    /// A timer looks, for want of `watch`; of `beside`.
    polled: bool,
    polled_beside: bool,
}

/// The files of a kqueue that are watched.
pub(crate) type Vnodes = kept::Kept<WatchedFile>;

/// Looks at the knote's file. ENOENT if the number names another by now, EBADF if none.
fn look(queue: &mut Queue, slot: Slot) -> Result<(RawFd, Status)> {
    let knote = queue.knotes[slot];
    let fd = descriptor(knote.ident)?;
    let now = file::status(fd)?;
    let same = now.identity == queue.vnodes.get(knote.own).last.status.identity;
    if same { Ok((fd, now)) } else { Err(Errno::ENOENT) }
}

/// The same, and surely, where a file may have come into the inode of one that is gone.
fn look_closely(queue: &mut Queue, slot: Slot) -> Result<(RawFd, Status)> {
    let (fd, now) = look(queue, slot)?;
    // A handle that is not to be had says nothing.
    let handles = queue.vnodes.get(queue.knotes[slot].own).handle.zip(file::handle(fd));
    if handles.is_none_or(|(then, now)| then == now) { Ok((fd, now)) } else { Err(Errno::ENOENT) }
}

/// Begins to watch for `asked`, by inotify or else by a timer.
fn start(queue: &mut Queue, slot: Slot, fd: RawFd, asked: u32) -> Result<()> {
    let index = queue.knotes[slot].own;
    let mask = hints::mask(asked, queue.vnodes.get(index).last.status.sort);
    if mask != 0 {
        match inodes::watch(queue, slot, fd, mask) {
            Ok(watch) => queue.vnodes.get(index).watch = Some(watch),
            Err(errno) if queue.crowded || asked & hints::TRACELESS != 0 => return Err(errno),
            Err(errno) => {
                queue.look_again(slot, RETRY).map_err(|_| errno)?;
                queue.vnodes.get(index).polled = true;
            }
        }
    }
    start_beside(queue, slot, fd, asked);
    Ok(())
}

/// Begins to follow what `asked` takes beside the file itself.
fn start_beside(queue: &mut Queue, slot: Slot, fd: RawFd, asked: u32) {
    let vnode = queue.vnodes.get(queue.knotes[slot].own);
    if asked & NOTE_RENAME != 0 {
        vnode.path = file::path(fd);
    }
    if asked & NOTE_DELETE != 0 && vnode.last.status.sort == Sort::Directory {
        watch_parent(queue, slot, fd);
    }
}

/// Other hints are asked for of the file that `was` like this: what has happened up to now is
/// judged by the old ones.
fn reask(queue: &mut Queue, slot: Slot, fd: RawFd, was: &Status, asked: u32) -> Result<()> {
    let (index, before) = (queue.knotes[slot].own, queue.knotes[slot].fflags);
    let mask = hints::mask(asked, was.sort);
    let watch = if mask == 0 { None } else { queue.vnodes.get(index).watch.take() };
    let mut widened = Ok(false);
    if let Some(watch) = watch {
        widened = inodes::change(queue, slot, &watch, fd, mask);
        queue.vnodes.get(index).watch = Some(watch);
    }
    let widened = widened?;
    gather(queue, slot)?;
    if widened {
        stop_beside(queue, slot);
        start_beside(queue, slot, fd, asked);
    } else {
        stop(queue, slot);
        if let Err(errno) = start(queue, slot, fd, asked) {
            let _ = start(queue, slot, fd, before);
            return Err(errno);
        }
    }
    queue.knotes[slot].fflags = asked;
    queue.vnodes.get(index).last.begin(mask & !hints::mask(before, was.sort), was);
    look_beside(queue, slot, asked & before)
}

/// Watches the directory that the knote's directory is in.
fn watch_parent(queue: &mut Queue, slot: Slot, fd: RawFd) {
    /// It may be moved while we look.
    const TRIES: usize = 8;
    let index = queue.knotes[slot].own;
    stop_beside(queue, slot);
    let identity = queue.vnodes.get(index).last.status.identity;
    for _ in 0..TRIES {
        let Some(path) = file::path(fd).and_then(|path| CString::new(path.as_bytes()).ok()) else { break };
        let Some(parent) = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())).parent() else { return };
        let Ok(parent) = CString::new(parent.as_os_str().as_bytes()) else { break };
        let Ok(watch) = inodes::watch_beside(queue, slot, parent) else { break };
        if file::identity_at(&path) == Some(identity) {
            queue.vnodes.get(index).beside = Some(watch);
            queue.vnodes.get(index).polled_beside = false;
            return;
        }
        inodes::unwatch(queue, slot, &watch);
        if file::status(fd).is_ok_and(|now| now.links == 0) {
            return;
        }
    }
    queue.vnodes.get(index).polled_beside = queue.look_again(slot, RETRY).is_ok();
}

/// A directory that was removed before its parent was watched anew is told of now: there is
/// nobody to do it later.
fn look_beside(queue: &mut Queue, slot: Slot, asked: u32) -> Result<()> {
    let (_, now) = look(queue, slot)?;
    if now.links == 0 && now.sort == Sort::Directory {
        let vnode = queue.vnodes.get(queue.knotes[slot].own);
        vnode.found |= vnode.last.judge(0, &now, asked);
    }
    Ok(())
}

fn stop_beside(queue: &mut Queue, slot: Slot) {
    let index = queue.knotes[slot].own;
    if let Some(watch) = queue.vnodes.get(index).beside.take() {
        inodes::unwatch(queue, slot, &watch);
    }
}

fn stop(queue: &mut Queue, slot: Slot) {
    let index = queue.knotes[slot].own;
    if let Some(watch) = queue.vnodes.get(index).watch.take() {
        inodes::unwatch(queue, slot, &watch);
    }
    stop_beside(queue, slot);
    queue.vnodes.get(index).polled = false;
    queue.vnodes.get(index).polled_beside = false;
}

fn release(queue: &mut Queue, slot: Slot) {
    stop(queue, slot);
    queue.vnodes.take(queue.knotes[slot].own);
}

/// What the knote's watches were told and it has not looked at.
fn take_news(vnode: &WatchedFile) -> u32 {
    vnode.watch.as_ref().map_or(0, Watch::take) | vnode.beside.as_ref().map_or(0, Watch::take)
}

/// The kernel dropped the watch, or may have (that news may be among what was lost): adds it anew
/// to a file without names. What the old one was told meanwhile. An error: the file is gone from
/// under the number.
fn watch_anew(queue: &mut Queue, slot: Slot, asked: u32, dropped: bool) -> Result<u32> {
    let (fd, now) = if dropped { look_closely(queue, slot)? } else { look(queue, slot)? };
    if now.links > 0 {
        // A file that has names keeps its watch: this one is another.
        return if dropped { Err(Errno::ENOENT) } else { Ok(0) };
    }
    let vnode = queue.vnodes.get(queue.knotes[slot].own);
    let Some(old) = vnode.watch.take() else { return Ok(0) };
    // Without a watch there is no more to tell of a file that has no names.
    let _ = start(queue, slot, fd, asked);
    let late = old.take();
    inodes::unwatch(queue, slot, &old);
    Ok(late & !news::UNWATCHED)
}

/// Gathers what has happened since the last look. An error: the file is gone from under
/// the number.
fn gather(queue: &mut Queue, slot: Slot) -> Result<()> {
    let (index, asked) = (queue.knotes[slot].own, queue.knotes[slot].fflags);
    // Before the look, which must not be older than the news.
    let mut news = take_news(queue.vnodes.get(index));
    if news & (news::LOST | news::UNWATCHED) != 0 {
        news |= watch_anew(queue, slot, asked, news & news::UNWATCHED != 0)?;
    }
    let (fd, now) = look(queue, slot)?;
    let vnode = queue.vnodes.get(index);
    if vnode.polled || news & (news::LOST | news::UNWATCHED) != 0 {
        let dropped = !vnode.polled && news & news::LOST == 0;
        news |= vnode.last.assume(&now, is_renamed(vnode, fd), dropped);
        if news & news::LOST != 0 {
            news |= news::ENTRIES | news::DIR_RENAMED;
        }
    }
    vnode.found |= vnode.last.judge(news, &now, asked);
    let polled = vnode.polled || vnode.polled_beside;
    if news & (IN_MOVE_SELF | news::LOST) != 0 && now.links > 0 {
        // It may be in another directory now.
        start_beside(queue, slot, fd, asked);
        look_beside(queue, slot, asked)?;
    }
    if polled {
        let _ = queue.look_again(slot, RETRY);
    }
    Ok(())
}

/// Whether the file has another path than when it was last asked for.
fn is_renamed(vnode: &WatchedFile, fd: RawFd) -> bool {
    let Some(was) = &vnode.path else { return false };
    let removed = |path: &OsString| path.as_bytes().ends_with(b" (deleted)");
    file::path(fd).is_some_and(|path| path != *was && !removed(&path))
}

impl Filter for Vnode {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        let knote = queue.knotes[slot];
        let fd = descriptor(knote.ident)?;
        let status = file::status(fd)?;
        let refused = match status.sort {
            Sort::Socket | Sort::Anonymous => true,
            Sort::Fifo => file::is_anonymous_pipe(fd),
            _ => false,
        };
        if refused {
            return Err(Errno::EINVAL);
        }
        let own = queue.vnodes.insert(WatchedFile {
            last: LastLook::new(status),
            handle: file::handle(fd),
            found: 0,
            watch: None,
            beside: None,
            path: None,
            polled: false,
            polled_beside: false,
        });
        queue.knotes[slot].own = own;
        start(queue, slot, fd, knote.fflags).inspect_err(|_| release(queue, slot))
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        let (fd, was) = look_closely(queue, slot)?;
        // A change that only enables or disables often says nothing about hints.
        let says = change.flags & EV_ADD != 0 || change.fflags != 0;
        let asked = if says { change.fflags } else { queue.knotes[slot].fflags };
        if asked != queue.knotes[slot].fflags {
            reask(queue, slot, fd, &was, asked)?;
        }
        queue.knotes.activate(slot);
        Ok(())
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        let result = look_closely(queue, slot).map(|_| ());
        release(queue, slot);
        result
    }

    fn is_gone(&self, queue: &mut Queue, slot: Slot) -> bool {
        look_closely(queue, slot).is_err()
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        if gather(queue, slot).is_err() {
            return Outcome::Gone;
        }
        match queue.vnodes.get(queue.knotes[slot].own).found {
            0 => Outcome::NotReady,
            fflags => Outcome::Ready(Facts { fflags, again: true, ..Facts::default() }),
        }
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        let knote = queue.knotes[slot];
        match fate {
            Fate::Spent => release(queue, slot),
            Fate::Cleared | Fate::Dispatched if knote.flags & EV_CLEAR != 0 => {
                queue.vnodes.get(knote.own).found = 0;
            }
            _ => {}
        }
    }
}
