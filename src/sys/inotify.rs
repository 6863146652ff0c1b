//! inotify(7), as far as growing files need it.

#![allow(unsafe_code)]

use super::fd::{self, Fd};
use super::{number, raw, retry, zero};
use crate::errno::Result;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// One inotify instance. A user has 128 of them for all processes, so the library
/// makes one for the process and no more.
pub(crate) struct Inotify(Fd);

impl AsRawFd for Inotify {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Inotify {
    pub(crate) fn new() -> Result<Inotify> {
        let _creating = fd::creating();
        // SAFETY: touches no memory.
        let fd = number(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        // SAFETY: fresh and ours.
        Ok(Inotify(Fd::new(unsafe { OwnedFd::from_raw_fd(fd) })?))
    }

    /// Watches the file behind `fd` for writes, whatever its name is by now. Two
    /// descriptors of one file share a watch and get the same number.
    pub(crate) fn watch_writes(&self, fd: RawFd) -> Result<i32> {
        let path = CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        // SAFETY: `path` is a C string.
        number(unsafe { libc::inotify_add_watch(self.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) })
    }

    pub(crate) fn unwatch(&self, wd: i32) -> Result<()> {
        // SAFETY: touches no memory.
        zero(unsafe { libc::inotify_rm_watch(self.as_raw_fd(), wd) })
    }

    /// Reads what is queued, one bufferful, and calls `each` with (watch, mask). False
    /// when there was nothing.
    pub(crate) fn read(&self, mut each: impl FnMut(i32, u32)) -> bool {
        let mut buf = [0u8; 1024];
        let got = retry(|| raw::read(self.as_raw_fd(), &mut buf));
        let mut rest = buf.get(..got.unwrap_or(0)).unwrap_or(&[]);
        let any = !rest.is_empty();
        while let Some((head, tail)) = rest.split_at_checked(size_of::<libc::inotify_event>()) {
            let word = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
            each(word(0) as i32, word(4));
            let name = usize::try_from(word(12)).unwrap_or(usize::MAX);
            rest = tail.get(name..).unwrap_or(&[]);
        }
        any
    }
}
