//! sock_diag(7): the one way to learn how many connections wait at a listening AF_UNIX
//! socket. One netlink socket for the process, opened at the first question.

#![allow(unsafe_code)]

use super::fd::{self, Fd, Fresh};
use super::fork::PerProcess;
use super::sync::Mutex;
use super::{number, raw};
use crate::errno::{Errno, Result};
use std::os::fd::AsRawFd;

const NETLINK_SOCK_DIAG: libc::c_int = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 24;
/// `struct unix_diag_msg`, which precedes the attributes of an answer.
const ANSWER: usize = 16;

static SOCKET: PerProcess<Mutex<Option<Fd>>> = PerProcess::new();

/// Connections ready to accept at the AF_UNIX listener with this inode number.
pub(crate) fn unix_backlog(inode: u64) -> Result<usize> {
    let mut socket = SOCKET.get().lock();
    if !socket.as_ref().is_some_and(Fd::is_intact) {
        *socket = Some(open()?);
    }
    let fd = socket.as_ref().ok_or(Errno::EBADF)?;
    let request = request(inode);
    raw::send(fd.as_raw_fd(), &request)?;
    // The kernel has answered in send().
    let mut answer = [0u8; 512];
    let got = raw::receive(fd.as_raw_fd(), &mut answer)?;
    queue_length(answer.get(..got).unwrap_or(&[])).ok_or(Errno::ENOENT)
}

/// Closes the socket; the next question opens another. For when no kqueue is left.
pub(crate) fn close() {
    *SOCKET.get().lock() = None;
}

fn open() -> Result<Fd> {
    let _creating = fd::creating();
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: touches no memory.
    let fd = number(unsafe { libc::socket(libc::AF_NETLINK, kind, NETLINK_SOCK_DIAG) })?;
    Fd::new(Fresh::new(fd))
}

/// `struct nlmsghdr` and `struct unix_diag_req` for one inode.
fn request(inode: u64) -> [u8; REQUEST] {
    let mut out = [0u8; REQUEST];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(room) = out.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    };
    put(0, &(REQUEST as u32).to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &NLM_F_REQUEST.to_ne_bytes());
    put(HEADER, &[libc::AF_UNIX as u8]);
    put(HEADER + 4, &u32::MAX.to_ne_bytes());
    put(HEADER + 8, &(inode as u32).to_ne_bytes());
    put(HEADER + 12, &UDIAG_SHOW_RQLEN.to_ne_bytes());
    // The cookie "no cookie".
    put(HEADER + 16, &[0xff; 8]);
    out
}

/// Finds the receive queue's length among the attributes of an answer.
fn queue_length(answer: &[u8]) -> Option<usize> {
    let u16_at = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    if u16_at(4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let mut at = HEADER + ANSWER;
    loop {
        let len = usize::from(u16_at(at)?);
        if u16_at(at + 2)? == UNIX_DIAG_RQLEN {
            return usize::try_from(u32_at(at + 4)?).ok();
        }
        at += len.max(4).next_multiple_of(4);
    }
}
