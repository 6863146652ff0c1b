//! /proc/self/mountinfo: the mount table, proc_pid_mountinfo(5).

#![allow(unsafe_code)]

use super::fd::{self, Fd, Fresh};
use super::{raw, retry};
use crate::errno::{Errno, Result};
use std::os::fd::{AsRawFd, RawFd};

/// The table of the mount namespace that the calling thread was in.
pub(crate) struct MountTable(Fd);

impl AsRawFd for MountTable {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl MountTable {
    /// ENOTSUP without /proc; EMFILE, ENFILE, ENOMEM.
    pub(crate) fn open() -> Result<MountTable> {
        let _creating = fd::creating();
        let fd = raw::open(c"/proc/thread-self/mountinfo")
            .map_err(|errno| if errno == Errno::ENOENT { Errno::ENOTSUP } else { errno })?;
        Ok(MountTable(Fd::new(Fresh::new(fd))?))
    }

    /// Whether the table has changed since it was opened or last asked; for one asker only.
    pub(crate) fn has_changed(&self) -> bool {
        fd::poll_now(self.as_raw_fd(), libc::POLLPRI) & libc::POLLPRI != 0
    }

    /// The whole text: through this descriptor, since another thread may be in another
    /// namespace.
    pub(crate) fn text(&self) -> Result<String> {
        let mut text = Vec::new();
        let mut part = vec![0u8; 16 * 1024];
        loop {
            let got = retry(|| raw::read_at(self.as_raw_fd(), &mut part, text.len()))?;
            if got == 0 {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            text.extend_from_slice(part.get(..got).unwrap_or(&[]));
        }
    }
}
