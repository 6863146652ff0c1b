//! Files: fstat(2), lseek(2), FIONREAD and what else tells what there is to read, and which
//! file a descriptor names.

#![allow(unsafe_code)]

use super::{ask_twice, number, raw, zero};
use crate::errno::{Errno, Result};
use core::mem::MaybeUninit;
use libc::c_long;
use std::ffi::{CStr, CString, OsString};
use std::os::fd::RawFd;

fn fstat(fd: RawFd) -> Result<libc::stat> {
    let mut stat = MaybeUninit::uninit();
    // SAFETY: `stat` has room for the answer.
    ask_twice(|| zero(unsafe { raw_fstat(fd, stat.as_mut_ptr()) }))?;
    // SAFETY: filled in by the successful call.
    Ok(unsafe { stat.assume_init() })
}

/// fstat(2) by its own number: glibc's goes by newfstatat, which looks at a path first.
///
/// # Safety
/// `stat` must have room for the answer.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
unsafe fn raw_fstat(fd: RawFd, stat: *mut libc::stat) -> libc::c_int {
    // SAFETY: the caller's promise; the structure is the kernel's own on these machines.
    let ret = unsafe { libc::syscall(libc::SYS_fstat, libc::c_long::from(fd), stat) };
    ret as libc::c_int
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use libc::fstat as raw_fstat;

/// The inode number of what `fd` names. EBADF.
pub(crate) fn inode(fd: RawFd) -> Result<u64> {
    fstat(fd).map(|stat| stat.st_ino)
}

/// What tells a pipe from every other file, in one word: device and inode number, which has 32
/// bits in a pipe. EBADF.
pub(crate) fn pipe_id(fd: RawFd) -> Result<u64> {
    fstat(fd).map(|stat| stat.st_dev.rotate_left(32) ^ stat.st_ino)
}

/// Device and inode of the directory entry `path` names; `None` if there is none.
pub(crate) fn identity_at(path: &CStr) -> Option<(u64, u64)> {
    let mut stat = MaybeUninit::uninit();
    // SAFETY: `path` is a C string, and `stat` has room for the answer.
    zero(unsafe { libc::lstat(path.as_ptr(), stat.as_mut_ptr()) }).ok()?;
    // SAFETY: filled in by the successful call.
    let stat: libc::stat = unsafe { stat.assume_init() };
    Some((stat.st_dev, stat.st_ino))
}

/// The path of what `fd` names, as far as the kernel knows one; " (deleted)" may follow.
pub(crate) fn path(fd: RawFd) -> Option<OsString> {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).ok().map(Into::into)
}

/// A moment as a file's status has it: seconds, ns.
pub(crate) type Moment = (i64, i64);

/// A look at a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Device and inode: what tells one file from another.
    pub(crate) identity: (u64, u64),
    pub(crate) sort: Sort,
    /// Permissions and owners.
    pub(crate) access: (u32, u32, u32),
    pub(crate) links: u64,
    pub(crate) size: i64,
    pub(crate) read: Moment,
    pub(crate) written: Moment,
    pub(crate) changed: Moment,
}

/// fstat(2). EBADF.
#[allow(clippy::useless_conversion, reason = "the fields differ in width from one machine to the next")]
pub(crate) fn status(fd: RawFd) -> Result<Status> {
    let stat = fstat(fd)?;
    Ok(Status {
        identity: (stat.st_dev, stat.st_ino),
        sort: sort_of(&stat),
        access: (stat.st_mode, stat.st_uid, stat.st_gid),
        links: stat.st_nlink.into(),
        size: stat.st_size,
        read: (stat.st_atime.into(), stat.st_atime_nsec.into()),
        written: (stat.st_mtime.into(), stat.st_mtime_nsec.into()),
        changed: (stat.st_ctime.into(), stat.st_ctime_nsec.into()),
    })
}

/// Whether `fd` is an end of a pipe without a name, by fstatfs(2).
pub(crate) fn is_anonymous_pipe(fd: RawFd) -> bool {
    /// PIPEFS_MAGIC of linux/magic.h.
    const PIPEFS: u32 = 0x5049_5045;
    let mut statfs = MaybeUninit::uninit();
    // SAFETY: `statfs` has room for the answer.
    if zero(unsafe { libc::fstatfs(fd, statfs.as_mut_ptr()) }).is_err() {
        return false;
    }
    // SAFETY: filled in by the successful call.
    let statfs: libc::statfs = unsafe { statfs.assume_init() };
    statfs.f_type as u32 == PIPEFS
}

/// A number that tells a file from a later one with the same inode number: its handle,
/// which has the inode's generation, in short. `None` where the file system gives none, or
/// memory is short.
pub(crate) fn handle(fd: RawFd) -> Option<u64> {
    const ROOM: usize = 128;
    #[repr(C)]
    struct Handle {
        bytes: libc::c_uint,
        kind: libc::c_int,
        data: [u8; ROOM],
    }
    let mut handle = Handle { bytes: ROOM as libc::c_uint, kind: 0, data: [0; ROOM] };
    let mut mount: libc::c_int = 0;
    let (at, flags) = (libc::c_long::from(fd), libc::c_long::from(libc::AT_EMPTY_PATH));
    // SAFETY: the path is a C string, `handle` has the room it says, `mount` takes an int.
    let ret =
        unsafe { libc::syscall(libc::SYS_name_to_handle_at, at, c"".as_ptr(), &raw mut handle, &raw mut mount, flags) };
    if ret != 0 {
        return None;
    }
    let used = handle.data.get(..usize::try_from(handle.bytes).unwrap_or(0)).unwrap_or(&[]);
    // FNV-1a.
    Some(used.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)))
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
    fstat(fd).map(|stat| sort_of(&stat))
}

fn sort_of(stat: &libc::stat) -> Sort {
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => Sort::Regular,
        libc::S_IFDIR => Sort::Directory,
        libc::S_IFCHR => Sort::Character,
        libc::S_IFBLK => Sort::Block,
        libc::S_IFIFO => Sort::Fifo,
        libc::S_IFSOCK => Sort::Socket,
        _ => Sort::Anonymous,
    }
}

/// Bytes between the descriptor's offset and the end of the file; negative behind it.
pub(crate) fn unread(fd: RawFd) -> Result<i64> {
    Ok(fstat(fd)?.st_size - offset(fd)?)
}

/// Where the next read of an open file begins.
pub(crate) fn offset(fd: RawFd) -> Result<i64> {
    // SAFETY: moves nothing and touches no memory.
    let offset = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
    if offset == -1 { Err(Errno::last()) } else { Ok(offset) }
}

/// ioctl(2) of a request that asks for one int, which is a count.
#[inline]
fn ioctl_count(fd: RawFd, request: libc::Ioctl) -> Result<usize> {
    let mut bytes: libc::c_int = 0;
    let arguments = [fd.into(), request as c_long, &raw mut bytes as c_long, 0, 0, 0];
    // SAFETY: the callers' requests write one int.
    unsafe { raw::call(libc::SYS_ioctl, arguments) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// ioctl(FIONREAD): bytes ready to be read. EBADF; EINVAL on a listening socket;
/// ENOTTY where the object has no such count.
pub(crate) fn readable_bytes(fd: RawFd) -> Result<usize> {
    ioctl_count(fd, libc::FIONREAD)
}

/// ioctl(TIOCOUTQ), SIOCOUTQ on sockets: bytes written and not yet gone. EBADF; ENOTTY.
pub(crate) fn unsent_bytes(fd: RawFd) -> Result<usize> {
    ioctl_count(fd, libc::TIOCOUTQ)
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
