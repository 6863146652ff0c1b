//! Calls that libc makes cancellation points, made past it.
//!
//! Cancellation is off while the library works, but that is not enough: pthread_cancel(3)
//! may have seen a thread in its cancellable sleep and send the signal afterwards, and
//! libc's handler acts on it inside any cancellation point whose state it finds
//! asynchronous, as libc itself makes it for the time of the call. So no such call of libc's
//! may happen while a lock is held. The program's next one acts on the cancellation.
//! `tests/layers.rs` looks for calls that do not go this way.

#![allow(unsafe_code)]

use super::{clock, count, retry, zero};
use crate::errno::{Errno, Result};
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ops::Range;
use libc::{c_long, c_void};
use std::os::fd::RawFd;

/// The system call `number` itself, for the calls that `kevent()` makes most. The value is a
/// count or the like; errno stays as it is. What takes fewer arguments ignores the rest.
///
/// # Safety
/// As for the call.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn call(number: c_long, arguments: [c_long; 6]) -> Result<usize> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let ret: i64;
    // SAFETY: the caller's promise. The kernel changes two registers and keeps to itself.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => ret,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    usize::try_from(ret).map_err(|_| Errno::of_kernel(ret))
}

/// The same through syscall(2), which sets errno.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn call(number: c_long, arguments: [c_long; 6]) -> Result<usize> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: the caller's promise; every argument has a register's width.
    count(unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) })
}

/// read(2).
pub(super) fn read(fd: RawFd, into: &mut [u8]) -> Result<usize> {
    // SAFETY: pointer and length describe `into`.
    count(unsafe { libc::syscall(libc::SYS_read, c_long::from(fd), into.as_mut_ptr(), into.len()) })
}

/// write(2).
pub(super) fn write(fd: RawFd, bytes: &[u8]) -> Result<usize> {
    // SAFETY: pointer and length describe `bytes`.
    count(unsafe { libc::syscall(libc::SYS_write, c_long::from(fd), bytes.as_ptr(), bytes.len()) })
}

/// Takes up to 16 bytes out of a pipe that does not block: by vmsplice(2), which refuses all
/// other files, or by read(2) where a sandbox refuses that.
pub(super) fn take_from_pipe(fd: RawFd) -> Result<usize> {
    let mut bytes = [0u8; 16];
    let place = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let (count_of, flags): (c_long, c_long) = (1, libc::SPLICE_F_NONBLOCK.into());
    // SAFETY: the one place describes `bytes`, which the kernel writes into.
    match count(unsafe { libc::syscall(libc::SYS_vmsplice, c_long::from(fd), &raw const place, count_of, flags) }) {
        Err(Errno::ENOSYS | Errno::EPERM) => read(fd, &mut bytes),
        taken => taken,
    }
}

/// close(2); whatever it answers the number is free.
pub(super) fn close(fd: RawFd) {
    // SAFETY: touches no memory. That the number may be closed is the caller's affair, as
    // with any descriptor.
    unsafe { libc::syscall(libc::SYS_close, c_long::from(fd)) };
}

/// close_range(2), or close(2) for each number where that is missing.
pub(super) fn close_range(fds: Range<RawFd>) {
    let (first, last, no_flags) = (c_long::from(fds.start), c_long::from(fds.end) - 1, c_long::from(0));
    // SAFETY: touches no memory, and as with close.
    if fds.len() < 2 || unsafe { libc::syscall(libc::SYS_close_range, first, last, no_flags) } != 0 {
        fds.for_each(close);
    }
}

/// poll(2) without waiting.
pub(super) fn poll(set: &mut [libc::pollfd]) -> Result<usize> {
    retry(|| poll_for(set, 0))
}

/// Sleeps for some ns, or until a handler has run.
pub(super) fn pause(ns: u64) {
    let _ = poll_for(&mut [], ns);
}

fn poll_for(set: &mut [libc::pollfd], ns: u64) -> Result<usize> {
    let time = clock::timespec(ns);
    let (no_mask, mask_size): (c_long, c_long) = (0, 8);
    // SAFETY: pointer and length describe `set`; the time lives through the call.
    count(unsafe { libc::syscall(libc::SYS_ppoll, set.as_mut_ptr(), set.len(), &raw const time, no_mask, mask_size) })
}

/// send(2) on a connected socket, or to the kernel.
pub(super) fn send(fd: RawFd, bytes: &[u8]) -> Result<usize> {
    let (flags, nobody, no_size): (c_long, c_long, c_long) = (0, 0, 0);
    // SAFETY: pointer and length describe `bytes`; no address is given.
    count(unsafe {
        libc::syscall(libc::SYS_sendto, c_long::from(fd), bytes.as_ptr(), bytes.len(), flags, nobody, no_size)
    })
}

/// recv(2) without waiting.
pub(super) fn receive(fd: RawFd, into: &mut [u8]) -> Result<usize> {
    let (flags, nobody, no_size): (c_long, c_long, c_long) = (libc::MSG_DONTWAIT.into(), 0, 0);
    // SAFETY: pointer and length describe `into`; the sender's address is not asked for.
    count(unsafe {
        libc::syscall(libc::SYS_recvfrom, c_long::from(fd), into.as_mut_ptr(), into.len(), flags, nobody, no_size)
    })
}

/// sigtimedwait(2) without waiting or wanting to know more.
pub(super) fn take_signal(set: &libc::sigset_t) -> Result<()> {
    let now = clock::timespec(0);
    let (no_info, mask_size): (c_long, c_long) = (0, 8);
    let set: *const c_void = core::ptr::from_ref(set).cast();
    // SAFETY: the kernel reads the set's first eight bytes; the time lives through the call.
    let taken = unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, set, no_info, &raw const now, mask_size) };
    zero(if taken == -1 { -1 } else { 0 })
}

/// waitid(2), without the usage that only the kernel's has.
pub(super) fn waitid(sort: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> Result<libc::siginfo_t> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let (sort, id, no_usage): (c_long, c_long, c_long) = (sort.into(), id.into(), 0);
    let into = info.as_mut_ptr();
    // SAFETY: `info` has room for the answer.
    let waited = unsafe { libc::syscall(libc::SYS_waitid, sort, id, into, c_long::from(options), no_usage) };
    count(waited)?;
    // SAFETY: zeroed, and filled in by the successful call.
    Ok(unsafe { info.assume_init() })
}

/// recvmmsg(2) without waiting: how many of `messages` were filled.
///
/// # Safety
/// Every message's header describes memory that is the caller's to fill.
pub(super) unsafe fn receive_many(fd: RawFd, messages: &mut [libc::mmsghdr]) -> Result<usize> {
    let (flags, no_timeout): (c_long, c_long) = (libc::MSG_DONTWAIT.into(), 0);
    let (list, len) = (messages.as_mut_ptr(), messages.len());
    // SAFETY: the caller's promise; no timeout is given.
    count(unsafe { libc::syscall(libc::SYS_recvmmsg, c_long::from(fd), list, len, flags, no_timeout) })
}

/// pread(2), for files smaller than memory.
pub(super) fn read_at(fd: RawFd, into: &mut [u8], at: usize) -> Result<usize> {
    // SAFETY: pointer and length describe `into`.
    count(unsafe { libc::syscall(libc::SYS_pread64, c_long::from(fd), into.as_mut_ptr(), into.len(), at) })
}

/// open(2) for reading.
pub(super) fn open(path: &CStr) -> Result<RawFd> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let (here, flags) = (c_long::from(libc::AT_FDCWD), c_long::from(flags));
    // SAFETY: `path` is a C string.
    let fd = retry(|| count(unsafe { libc::syscall(libc::SYS_openat, here, path.as_ptr(), flags) }))?;
    Ok(RawFd::try_from(fd).unwrap_or(-1))
}

/// The text of a small file in /proc.
pub(super) fn read_text(path: &CStr) -> Result<String> {
    // No child shall inherit the descriptor.
    let _creating = super::fd::creating();
    let fd = open(path)?;
    let mut bytes = Vec::new();
    let result = loop {
        let mut some = [0u8; 512];
        match retry(|| read(fd, &mut some)) {
            Ok(0) => break Ok(()),
            Ok(got) => bytes.extend_from_slice(some.get(..got).unwrap_or(&[])),
            Err(errno) => break Err(errno),
        }
    };
    close(fd);
    result.map(|()| String::from_utf8_lossy(&bytes).into_owned())
}
