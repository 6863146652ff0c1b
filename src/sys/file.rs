//! Files: fstat(2), lseek(2), FIONREAD and what else tells how much there is to read.

#![allow(unsafe_code)]

use super::{ask_twice, number, raw, zero};
use crate::errno::{Errno, Result};
use core::mem::MaybeUninit;
use std::ffi::CString;
use std::os::fd::RawFd;

fn fstat(fd: RawFd) -> Result<libc::stat> {
    let mut stat = MaybeUninit::uninit();
    // SAFETY: `stat` has room for the answer.
    ask_twice(|| zero(unsafe { libc::fstat(fd, stat.as_mut_ptr()) }))?;
    // SAFETY: filled in by the successful call.
    Ok(unsafe { stat.assume_init() })
}

/// The inode number of what `fd` names. EBADF.
pub(crate) fn inode(fd: RawFd) -> Result<u64> {
    fstat(fd).map(|stat| stat.st_ino)
}

/// Device and inode of what `fd` names: what tells one file from another. EBADF.
pub(crate) fn identity(fd: RawFd) -> Result<(u64, u64)> {
    fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

/// What sort of file a descriptor names, by fstat(2)'s mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sort {
    Regular,
    Directory,
    Character,
    Block,
    Fifo,
    Socket,
    /// Kernel objects without a file type: eventfd, epoll, timerfd, …
    Anonymous,
}

/// The sort of file behind `fd`. EBADF.
pub(crate) fn sort(fd: RawFd) -> Result<Sort> {
    Ok(match fstat(fd)?.st_mode & libc::S_IFMT {
        libc::S_IFREG => Sort::Regular,
        libc::S_IFDIR => Sort::Directory,
        libc::S_IFCHR => Sort::Character,
        libc::S_IFBLK => Sort::Block,
        libc::S_IFIFO => Sort::Fifo,
        libc::S_IFSOCK => Sort::Socket,
        _ => Sort::Anonymous,
    })
}

/// Bytes between the descriptor's offset and the end of the file; negative behind it.
pub(crate) fn unread(fd: RawFd) -> Result<i64> {
    let size = fstat(fd)?.st_size;
    // SAFETY: moves nothing and touches no memory.
    let offset = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
    if offset == -1 { Err(Errno::last()) } else { Ok(size - offset) }
}

/// ioctl(FIONREAD): bytes ready to be read. EBADF; EINVAL on a listening socket;
/// ENOTTY where the object has no such count.
pub(crate) fn readable_bytes(fd: RawFd) -> Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    number(unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// ioctl(TIOCOUTQ), SIOCOUTQ on sockets: bytes written and not yet gone. EBADF; ENOTTY.
pub(crate) fn unsent_bytes(fd: RawFd) -> Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int.
    number(unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// fcntl(F_GETPIPE_SZ): capacity of a pipe in bytes.
pub(crate) fn pipe_capacity(fd: RawFd) -> Result<usize> {
    // SAFETY: touches no memory.
    let size = number(unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) })?;
    Ok(usize::try_from(size).unwrap_or(0))
}

/// Whether `fd` is an eventfd, and the value of its counter, from /proc/self/fdinfo.
pub(crate) fn eventfd_count(fd: RawFd) -> Option<u64> {
    let path = CString::new(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let info = raw::read_text(&path).ok()?;
    let hex = info.lines().find_map(|line| line.strip_prefix("eventfd-count:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// write(2) to standard error of one whole line; what cannot be written is lost.
pub(crate) fn write_stderr(line: &[u8]) {
    let _ = raw::write(2, line);
}
