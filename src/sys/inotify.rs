//! inotify(7): what happens to files, by inode.

#![allow(unsafe_code)]

use super::fd::{self, Fd, Fresh};
use super::{number, raw, retry, zero};
use crate::errno::Result;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, RawFd};

pub(crate) use libc::{
    IN_ACCESS, IN_ATTRIB, IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_IGNORED, IN_ISDIR, IN_MODIFY,
    IN_MOVE_SELF, IN_MOVED_FROM, IN_MOVED_TO, IN_OPEN, IN_Q_OVERFLOW,
};

/// Room for the longest event there is: a name of NAME_MAX bytes and its end.
const LONGEST: usize = size_of::<libc::inotify_event>() + 256;

/// How long the second half of a rename is waited for, by the number of the look, in ns. It
/// comes at once, unless the thread that renames was preempted for its reader: a sleep lets it
/// run again.
const MOMENTS: [u64; 4] = [0, 20_000, 50_000, 200_000];

/// One inotify instance. A user has 128 of them for all processes, so the library
/// makes one for the process and no more.
pub(crate) struct Inotify(Fd);

impl AsRawFd for Inotify {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// One event. Its name is of no use to anybody; that it has one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) wd: i32,
    /// `IN_*`.
    pub(crate) mask: u32,
    /// Ties the two halves of a rename together.
    pub(crate) cookie: u32,
    /// It is about an entry of the watched directory, not the directory itself.
    pub(crate) named: bool,
}

impl Inotify {
    /// Whether the number still is this instance: the program may have closed it.
    pub(crate) fn is_intact(&self) -> bool {
        self.0.is_intact()
    }

    /// inotify_init1(2). EMFILE: this process or its user has too many; ENOMEM.
    pub(crate) fn new() -> Result<Inotify> {
        let _creating = fd::creating();
        // SAFETY: touches no memory.
        let fd = number(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        Ok(Inotify(Fd::new(Fresh::new(fd))?))
    }

    /// inotify_add_watch(2): watches the inode that `path` names now for the events of
    /// `mask`, in addition to those it is watched for. All paths of an inode share one
    /// watch and get the same number. EACCES, ENOENT, ENOMEM, ENOSPC.
    pub(crate) fn widen(&self, path: &CStr, mask: u32) -> Result<i32> {
        // SAFETY: `path` is a C string.
        number(unsafe { libc::inotify_add_watch(self.as_raw_fd(), path.as_ptr(), mask | libc::IN_MASK_ADD) })
    }

    pub(crate) fn unwatch(&self, wd: i32) -> Result<()> {
        // SAFETY: touches no memory.
        zero(unsafe { libc::inotify_rm_watch(self.as_raw_fd(), wd) })
    }

    /// Reads what is queued, as much as `buf` holds. The second value says whether more
    /// may be there: the kernel stops early only for want of room.
    ///
    /// A rename is two events, queued one right after the other, and a reader may come between
    /// them. Who reads a first half last waits a moment: none may follow.
    pub(crate) fn read<'b>(&self, buf: &'b mut [u8]) -> (Events<'b>, bool) {
        let mut got = self.append(buf, 0);
        for moment in MOMENTS {
            if events(buf, got).last().is_none_or(|event| event.mask & IN_MOVED_FROM == 0) {
                break;
            }
            if moment > 0 {
                raw::pause(moment);
            }
            got = self.append(buf, got);
        }
        (events(buf, got), got + LONGEST > buf.len())
    }

    /// Reads into `buf` behind what it holds; how much it holds then.
    fn append(&self, buf: &mut [u8], held: usize) -> usize {
        let Some(room) = buf.get_mut(held..) else { return held };
        held + retry(|| raw::read(self.as_raw_fd(), room)).unwrap_or(0)
    }
}

fn events(buf: &[u8], held: usize) -> Events<'_> {
    Events { rest: buf.get(..held).unwrap_or(&[]) }
}

/// The events of one read.
#[derive(Clone)]
pub(crate) struct Events<'b> {
    rest: &'b [u8],
}

impl Iterator for Events<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let (head, tail) = self.rest.split_at_checked(size_of::<libc::inotify_event>())?;
        let word = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let name = usize::try_from(word(12)).unwrap_or(usize::MAX);
        self.rest = tail.get(name..).unwrap_or(&[]);
        Some(Event { wd: word(0) as i32, mask: word(4), cookie: word(8), named: name > 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event without a name.
    fn bytes(mask: u32, cookie: u32) -> Vec<u8> {
        [1, mask, cookie, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
    }

    /// What is read where each read finds one event more, as beside a thread that renames.
    fn read(queued: &[Vec<u8>]) -> Vec<u32> {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        zero(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_DIRECT | libc::O_NONBLOCK | libc::O_CLOEXEC) })
            .expect("a pipe of packets");
        let [out, input] = ends.map(Fresh::new);
        for event in queued {
            raw::write(input.as_raw_fd(), event).expect("room for an event");
        }
        let _creating = fd::creating();
        let inotify = Inotify(Fd::new(out).expect("a descriptor"));
        let mut buf = [0; 4096];
        let (events, _) = inotify.read(&mut buf);
        events.map(|event| event.mask).collect()
    }

    #[test]
    fn the_second_half_of_a_rename_is_read_with_the_first() {
        let halves = [bytes(IN_MOVED_FROM, 7), bytes(IN_MOVED_TO, 7), bytes(IN_MODIFY, 0)];
        assert_eq!(read(&halves), [IN_MOVED_FROM, IN_MOVED_TO]);
    }

    #[test]
    fn a_half_that_none_follows_is_handed_on() {
        assert_eq!(read(&[bytes(IN_MOVED_FROM, 7)]), [IN_MOVED_FROM]);
        assert_eq!(read(&[bytes(IN_MODIFY, 0), bytes(IN_MODIFY, 0)]), [IN_MODIFY]);
    }
}
