//! What a descriptor names, as far as events depend on it.
//!
//! Learned when an event needs it and never before: most events do not. A socket may
//! begin to listen after it was registered, so that much is asked for again.

use crate::sys::fd;
use crate::sys::file::{self, Sort};
use crate::sys::socket::{self, Family};
use std::os::fd::RawFd;

/// The sorts of pollable files that differ in what their events say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Kind {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    /// Another kqueue, watched through its epoll.
    Kqueue,
    /// The end of a pipe or fifo that can be read.
    PipeReader,
    /// The end that can be written.
    PipeWriter,
    /// A fifo opened for both.
    PipeBoth,
    Tcp,
    /// AF_UNIX with connections.
    UnixStream,
    /// Datagram and other sockets.
    Datagram,
    /// Anything else.
    Other,
}

impl Kind {
    pub(crate) fn is_socket(self) -> bool {
        matches!(self, Kind::Tcp | Kind::UnixStream | Kind::Datagram)
    }

    /// Whether a hang-up that no side of a connection caused means "not connected yet".
    pub(crate) fn connects(self) -> bool {
        matches!(self, Kind::Tcp | Kind::UnixStream)
    }

    /// Looks.
    pub(crate) fn of(fd: RawFd) -> Kind {
        match file::sort(fd) {
            Ok(Sort::Fifo) => match fd::status_flags(fd).unwrap_or(0) & libc::O_ACCMODE {
                libc::O_RDONLY => Kind::PipeReader,
                libc::O_WRONLY => Kind::PipeWriter,
                _ => Kind::PipeBoth,
            },
            Ok(Sort::Socket) => match socket::family(fd) {
                Ok(Family::Tcp) => Kind::Tcp,
                Ok(Family::UnixStream) => Kind::UnixStream,
                _ => Kind::Datagram,
            },
            _ => Kind::Other,
        }
    }
}

/// Connections that wait at a listening socket; `None` if `fd` does not listen. Where
/// the number is not to be had it is 1: epoll says that there is one.
pub(crate) fn backlog(fd: RawFd, kind: Kind) -> Option<usize> {
    if !kind.is_socket() || !socket::is_listening(fd) {
        return None;
    }
    let count = match kind {
        Kind::Tcp => socket::tcp_backlog(fd),
        Kind::UnixStream => file::inode(fd).and_then(crate::sys::sock_diag::unix_backlog),
        _ => Ok(1),
    };
    Some(count.unwrap_or(1))
}

/// Whether NOTE_LOWAT means anything: of sockets, those that do not listen.
pub(crate) fn has_low_water_mark(fd: RawFd, kind: Kind) -> bool {
    kind.is_socket() && !socket::is_listening(fd)
}

/// The error a socket in error holds, without taking it away from the program; 0 where
/// it is not to be told.
pub(crate) fn pending_error(fd: RawFd, kind: Kind) -> u32 {
    let error = match kind {
        Kind::Tcp => socket::tcp_error(fd).unwrap_or(0),
        Kind::UnixStream => libc::ECONNRESET,
        _ => 0,
    };
    u32::try_from(error).unwrap_or(0)
}
