//! What happened to a file: FreeBSD's hints, from inotify's bits and two looks at it.
//!
//! A BSD kernel posts a hint from inside each operation. inotify tells less: link, unlink
//! and chmod are all IN_ATTRIB, a truncation is a write, and identical neighbours in its
//! queue are one. So what gathered since the last look is judged once, against what the
//! file was then and is now. Each part of the last look is brought up to date only by
//! news of its own kind: what is seen early, before its news, must be judged when they come.
//!
//! What cannot be told apart: a longer ftruncate() from a write; a shorter one from one
//! followed by a shorter write; two changes of the link count that cancel out from chmod.

use super::inodes::news;
use crate::abi::{
    NOTE_ATTRIB, NOTE_CLOSE, NOTE_CLOSE_WRITE, NOTE_DELETE, NOTE_EXTEND, NOTE_LINK, NOTE_OPEN, NOTE_READ, NOTE_RENAME,
    NOTE_TRUNCATE, NOTE_WRITE,
};
use crate::sys::file::{Sort, Status};
use crate::sys::inotify::{
    IN_ACCESS, IN_ATTRIB, IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, IN_DELETE, IN_MODIFY, IN_MOVE_SELF, IN_OPEN,
};

/// What a file was at the last look.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastLook {
    pub(super) status: Status,
    /// The last look found the link count changed, perhaps before all its news had come.
    relinked: bool,
    /// The last look took a write for a time that was set, perhaps for the same reason.
    retimed: bool,
}

/// Hints with an event of their own in inotify, the same for files and directories.
const PLAIN: [(u32, u32); 5] = [
    (NOTE_RENAME, IN_MOVE_SELF),
    (NOTE_OPEN, IN_OPEN),
    (NOTE_READ, IN_ACCESS),
    (NOTE_CLOSE, IN_CLOSE_NOWRITE),
    (NOTE_CLOSE_WRITE, IN_CLOSE_WRITE),
];
/// Hints that have to be concluded, on files. An access time that was set shows as a read, and is
/// told from one by the file's other times; a rename changes them too. A modification time that
/// was set shows as a write, but with the access time as IN_ATTRIB: whoever asks for writes must
/// hear of that, or a write before it would be taken for the former.
const ON_FILES: [(u32, u32); 4] = [
    (NOTE_WRITE, IN_MODIFY | IN_ATTRIB),
    (NOTE_EXTEND | NOTE_TRUNCATE, IN_MODIFY),
    (NOTE_DELETE | NOTE_LINK, IN_ATTRIB),
    (NOTE_ATTRIB, IN_ATTRIB | IN_MODIFY | IN_ACCESS | IN_MOVE_SELF),
];
/// The same on directories. One that is replaced by rename() shows IN_ATTRIB; one that is
/// moved needs its parent watched anew. Times alone are not followed: IN_MODIFY and
/// IN_ACCESS would tell of every file inside.
const ON_DIRECTORIES: [(u32, u32); 4] = [
    (NOTE_WRITE | NOTE_LINK, super::inodes::ENTRIES),
    (NOTE_EXTEND, super::inodes::ENTRIES & !(libc::IN_CREATE | IN_DELETE)),
    (NOTE_DELETE, IN_ATTRIB | IN_MOVE_SELF),
    (NOTE_ATTRIB, IN_ATTRIB),
];

/// News of entries that are directories.
const DIRECTORIES: u32 = news::SUBDIRS | news::DIR_CAME | news::DIR_RENAMED;

/// What inotify has to be asked for, for the hints in `asked`; 0: nothing.
pub(super) fn mask(asked: u32, sort: Sort) -> u32 {
    let own: &[(u32, u32)] = if sort == Sort::Directory { &ON_DIRECTORIES } else { &ON_FILES };
    let all = PLAIN.iter().chain(own);
    all.filter(|(hints, _)| asked & hints != 0).fold(0, |mask, (_, events)| mask | events)
}

/// Hints of what leaves no trace in the file: only inotify tells.
pub(super) const TRACELESS: u32 = NOTE_OPEN | NOTE_READ | NOTE_CLOSE | NOTE_CLOSE_WRITE;

impl LastLook {
    pub(super) fn new(status: Status) -> LastLook {
        LastLook { status, relinked: false, retimed: false }
    }

    /// The events of `fresh` are told of from now on: what they tell of is taken to be as it `was`
    /// before that. Of other changes the news may be under way, and they are judged when it comes.
    pub(super) fn begin(&mut self, fresh: u32, was: &Status) {
        let links = if was.sort == Sort::Directory { super::inodes::ENTRIES } else { IN_ATTRIB };
        if fresh & IN_MODIFY != 0 {
            self.status.size = was.size;
        }
        if fresh & IN_ATTRIB != 0 {
            self.status.access = was.access;
        }
        if fresh & links != 0 && self.status.links > 0 {
            self.status.links = was.links;
        }
    }

    /// The news that must have been, by what is different, where there are none. `dropped`: none
    /// since the last name was removed, which has moved the second time on.
    pub(super) fn assume(&self, now: &Status, renamed: bool, dropped: bool) -> u32 {
        let was = &self.status;
        let directory = now.sort == Sort::Directory;
        let newer = was.written != now.written && (!dropped || now.written == now.changed);
        let written = was.size != now.size || newer;
        let touched = was.access != now.access || was.links != now.links && !directory;
        let mut news = if renamed { IN_MOVE_SELF } else { 0 };
        if written {
            news |= if directory { news::ENTRIES | news::DIR_RENAMED } else { IN_MODIFY };
        }
        if touched || was.changed != now.changed && !written && !renamed {
            news |= IN_ATTRIB;
        }
        news
    }

    /// The hints of all that has happened since the last look, as told to who asked for `asked`.
    pub(super) fn judge(&mut self, news: u32, now: &Status, asked: u32) -> u32 {
        let plain = PLAIN.iter().filter(|(_, events)| news & events != 0);
        let mut hints = plain.fold(0, |hints, (hint, _)| hints | hint);
        let was = self.status;
        if now.sort == Sort::Directory {
            hints |= directory(news, &was, now);
            self.status = *now;
            if news & IN_ATTRIB == 0 {
                self.status.access = was.access;
            }
            if news & DIRECTORIES == 0 && now.links > 0 {
                self.status.links = was.links;
            }
            return told(hints, asked, NOTE_WRITE | NOTE_EXTEND | NOTE_LINK);
        }
        let explained_late = self.retimed && (was.changed, was.links) == (now.changed, now.links);
        if news & IN_MODIFY != 0 {
            let found = modified(news, &was, now, asked);
            self.retimed = found == NOTE_ATTRIB;
            hints |= found;
            self.status.size = now.size;
        }
        if news & (IN_ATTRIB | IN_MODIFY) == IN_ATTRIB && explained_late {
            // News of the times that the last look has seen already: what it had was a write.
            self.retimed = false;
            hints |= NOTE_WRITE;
        } else if news & IN_ATTRIB != 0 {
            hints |= self.altered(news, &was, now);
            self.status.links = now.links;
            self.status.access = now.access;
        }
        let explained = news & (IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF) != 0;
        let same = was.written == now.written && was.links == now.links;
        if news & IN_ACCESS != 0 && !explained && same && was.changed != now.changed {
            hints |= NOTE_ATTRIB;
        }
        self.status.read = now.read;
        self.status.written = now.written;
        self.status.changed = now.changed;
        told(hints, asked, NOTE_WRITE | NOTE_EXTEND)
    }

    fn altered(&mut self, news: u32, was: &Status, now: &Status) -> u32 {
        let relinked = core::mem::replace(&mut self.relinked, now.links != was.links);
        let links = match now.links.cmp(&was.links) {
            core::cmp::Ordering::Less => NOTE_DELETE,
            core::cmp::Ordering::Greater => NOTE_LINK,
            // News of a link that the last look has seen already.
            core::cmp::Ordering::Equal if relinked && was.changed == now.changed => return 0,
            core::cmp::Ordering::Equal => return NOTE_ATTRIB,
        };
        // A write sets both times alike, a read moves the access time on: neither counts.
        let written = news & IN_MODIFY != 0 && now.written >= was.changed || now.written == now.changed;
        let times = now.written != was.written && !written || now.read < was.read;
        if times || now.access != was.access { links | NOTE_ATTRIB } else { links }
    }
}

/// What is told of `hints`. A BSD kernel posts the hints of one operation at once, and who
/// asked for one of them is given all: an operation may post several of those in `joint`.
fn told(hints: u32, asked: u32, joint: u32) -> u32 {
    hints & if hints & asked & joint == 0 { asked } else { asked | joint }
}

/// What IN_MODIFY stands for.
fn modified(news: u32, was: &Status, now: &Status, asked: u32) -> u32 {
    if now.size > was.size {
        return NOTE_WRITE | NOTE_EXTEND;
    }
    if now.size < was.size {
        // Cut, and maybe written again, though not as long: said to those who would hear
        // nothing otherwise.
        let unheard = asked & (NOTE_ATTRIB | NOTE_TRUNCATE) == 0 && now.size > 0;
        return NOTE_ATTRIB | NOTE_TRUNCATE | if unheard { NOTE_WRITE } else { 0 };
    }
    // A write sets both times alike; a change of the status right after it may have moved
    // the second on.
    let set = now.written != now.changed && now.changed != was.changed;
    let written_since = was.changed < now.written && now.written < now.changed;
    if set && !written_since && news & IN_ATTRIB == 0 { NOTE_ATTRIB } else { NOTE_WRITE }
}

/// What happened to a directory beside the plain events.
fn directory(news: u32, was: &Status, now: &Status) -> u32 {
    let any = |bits: u32| news & bits != 0;
    // Where each subdirectory counts as a link, the count tells whether one was replaced.
    let counts = now.links != 1;
    let recounted = now.links != was.links;
    let mut hints = 0;
    if any(news::ENTRIES) {
        hints |= NOTE_WRITE;
    }
    if any(news::MOVED) {
        hints |= NOTE_EXTEND;
    }
    let came = any(news::DIR_CAME) && (!counts || recounted);
    if any(news::SUBDIRS) || came || any(news::DIR_RENAMED) && counts && recounted {
        hints |= NOTE_LINK;
    }
    if now.links == 0 {
        hints |= if was.links == 0 { 0 } else { NOTE_DELETE };
    }
    // A removal by rename() shows as IN_ATTRIB, too.
    if any(IN_ATTRIB) && (now.links > 0 || now.access != was.access) {
        hints |= NOTE_ATTRIB;
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::NOTE_WRITE;

    fn file(written: i64, changed: i64) -> Status {
        let (at_no_time, access) = ((0, 0), (0o100600, 0, 0));
        let (written, changed) = ((written, 0), (changed, 0));
        Status { identity: (1, 1), sort: Sort::Regular, access, links: 1, size: 9, read: at_no_time, written, changed }
    }

    #[test]
    fn a_write_is_told_though_its_look_saw_times_that_were_set_after_it() {
        let mut last = LastLook::new(file(5, 5));
        assert_eq!(last.judge(IN_MODIFY, &file(1, 7), NOTE_WRITE | NOTE_ATTRIB), NOTE_ATTRIB);
        assert_eq!(last.judge(IN_ATTRIB, &file(1, 7), NOTE_WRITE | NOTE_ATTRIB), NOTE_WRITE);
        assert_eq!(last.judge(IN_ATTRIB, &file(1, 8), NOTE_WRITE | NOTE_ATTRIB), NOTE_ATTRIB);
    }

    #[test]
    fn who_asked_for_one_hint_of_an_operation_is_told_all_of_it() {
        let write = NOTE_WRITE | NOTE_EXTEND;
        assert_eq!(told(write, NOTE_WRITE, write), write);
        assert_eq!(told(write | NOTE_ATTRIB, NOTE_EXTEND, write), write);
        assert_eq!(told(NOTE_WRITE, NOTE_EXTEND, write), 0);
        assert_eq!(told(write, NOTE_ATTRIB, write), 0);
    }

    #[test]
    fn a_time_that_was_set_alone_is_no_write() {
        let mut last = LastLook::new(file(5, 5));
        assert_eq!(last.judge(IN_MODIFY, &file(1, 7), NOTE_WRITE | NOTE_ATTRIB), NOTE_ATTRIB);
        assert_eq!(last.judge(IN_ATTRIB, &file(1, 9), NOTE_WRITE | NOTE_ATTRIB), NOTE_ATTRIB);
    }
}
