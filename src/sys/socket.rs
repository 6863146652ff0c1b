//! Sockets: what kind, how much room, how many waiting, and why they died.

#![allow(unsafe_code)]

use super::zero;
use crate::errno::Result;
use core::mem::MaybeUninit;
use std::os::fd::RawFd;

fn option(fd: RawFd, name: libc::c_int) -> Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: room for one int, as `len` says.
    zero(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

/// SO_SNDBUF: what the kernel lets queue for sending, in bytes of its own accounting.
pub(crate) fn send_buffer(fd: RawFd) -> Result<usize> {
    option(fd, libc::SO_SNDBUF).map(|n| usize::try_from(n).unwrap_or(0))
}

/// SO_ACCEPTCONN: whether the socket listens.
pub(crate) fn is_listening(fd: RawFd) -> bool {
    option(fd, libc::SO_ACCEPTCONN) == Ok(1)
}

/// What a socket is, as far as its events are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    Tcp,
    /// AF_UNIX with connections (stream and seqpacket).
    UnixStream,
    Other,
}

/// SO_DOMAIN and SO_TYPE in one answer, and of the sorts of internet sockets SO_PROTOCOL.
pub(crate) fn family(fd: RawFd) -> Result<Family> {
    let sort = option(fd, libc::SO_TYPE)?;
    Ok(match option(fd, libc::SO_DOMAIN)? {
        libc::AF_UNIX if sort != libc::SOCK_DGRAM => Family::UnixStream,
        libc::AF_INET | libc::AF_INET6
            if sort == libc::SOCK_STREAM && option(fd, libc::SO_PROTOCOL) == Ok(libc::IPPROTO_TCP) =>
        {
            Family::Tcp
        }
        _ => Family::Other,
    })
}

/// The states of `tcpi_state` that matter here.
const TCP_CLOSE: u8 = 7;

/// The head of `struct tcp_info` (linux/tcp.h), as far as it is read here. Older
/// kernels fill in less; the rest stays zero.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpInfo {
    state: u8,
    _head: [u8; 4],
    options: u8,
    _scales: [u8; 2],
    _rto_ato_mss: [u32; 4],
    unacked: u32,
    _lost_times_pmtu: [u32; 10],
    rtt: u32,
    _middle: [u32; 8],
    _rates: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    _min_rtt_and_segs: [u32; 3],
    _delivery_and_busy: [u64; 4],
    _delivered: [u32; 2],
    bytes_sent: u64,
    bytes_retrans: u64,
}

// linux/tcp.h: tcpi_bytes_acked at 120, tcpi_segs_in at 140, tcpi_bytes_sent at 200.
const _: () = {
    assert!(core::mem::offset_of!(TcpInfo, options) == 5);
    assert!(core::mem::offset_of!(TcpInfo, unacked) == 24);
    assert!(core::mem::offset_of!(TcpInfo, rtt) == 68);
    assert!(core::mem::offset_of!(TcpInfo, bytes_acked) == 120);
    assert!(core::mem::offset_of!(TcpInfo, segs_in) == 140);
    assert!(core::mem::offset_of!(TcpInfo, notsent_bytes) == 144);
    assert!(core::mem::offset_of!(TcpInfo, bytes_sent) == 200);
};

fn tcp_info(fd: RawFd) -> Result<TcpInfo> {
    let mut info = MaybeUninit::<TcpInfo>::zeroed();
    let mut len = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes.
    zero(unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len) })?;
    // SAFETY: every field is an integer; zeroed() and the kernel initialised them all.
    Ok(unsafe { info.assume_init() })
}

/// Connections a listening TCP socket has ready to accept: `tcpi_unacked` there.
pub(crate) fn tcp_backlog(fd: RawFd) -> Result<usize> {
    tcp_info(fd).map(|info| usize::try_from(info.unacked).unwrap_or(usize::MAX))
}

/// Why a TCP socket is in error, without reading SO_ERROR, which would take the error
/// away from the program: a connection that had been up was reset; one that never came
/// up was refused if a segment came back, and timed out otherwise.
pub(crate) fn tcp_error(fd: RawFd) -> Result<libc::c_int> {
    let info = tcp_info(fd)?;
    // A handshake that came to its end leaves a round-trip time, and options agreed upon.
    let was_up = info.rtt > 0 || info.options != 0 || info.bytes_acked > 0 || info.bytes_received > 0;
    Ok(if info.state != TCP_CLOSE || was_up {
        libc::ECONNRESET
    } else if info.segs_in > 0 {
        libc::ECONNREFUSED
    } else {
        libc::ETIMEDOUT
    })
}

/// What a TCP socket says of its sending side.
pub(crate) struct Sending {
    /// Bytes written and not yet acknowledged.
    pub(crate) queued: usize,
    /// shutdown(SHUT_WR), or an end like it.
    pub(crate) ended: bool,
}

/// The sending side of a TCP socket: one call for what SIOCOUTQ and the state tell.
pub(crate) fn tcp_sending(fd: RawFd) -> Result<Sending> {
    let info = tcp_info(fd)?;
    let sent = info.bytes_sent.saturating_sub(info.bytes_retrans);
    // bytes_acked counts the SYN (and the FIN) as a byte.
    let in_flight = sent.saturating_sub(info.bytes_acked.saturating_sub(1));
    let queued = in_flight.saturating_add(u64::from(info.notsent_bytes));
    Ok(Sending {
        queued: usize::try_from(queued).unwrap_or(usize::MAX),
        // FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING.
        ended: matches!(info.state, 4 | 5 | 6 | 9 | 11),
    })
}
