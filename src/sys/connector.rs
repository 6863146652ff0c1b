//! The process connector (netlink): the kernel tells of every fork, exec and exit on the
//! machine.
//!
//! It speaks to nobody outside the initial pid and user namespaces, and then without an
//! error: [`Connector::open`] therefore provokes a message (a thread that sets its name, to
//! what it was) and believes in the connector only if that comes back. Threads are told of
//! like processes, with the number of their process beside their own. A fork's and an exec's
//! message is there before the call returns; an exit's comes shortly after the process can be
//! waited for.

#![allow(unsafe_code)]

use super::fd::{self, Fd, Fresh};
use super::thread;
use super::{number, raw, zero};
use crate::errno::{Errno, Result};
use core::mem::MaybeUninit;
use libc::pid_t;
use std::os::fd::{AsRawFd, RawFd};

/// What happened to a process or one of its threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Fork {
        parent: pid_t,
        child: pid_t,
    },
    /// A process has one thread more.
    Thread {
        process: pid_t,
    },
    Exec {
        process: pid_t,
    },
    /// One of its threads has ended, the first or another, `code` being in wait(2)'s form.
    Exit {
        process: pid_t,
        first: bool,
        code: i32,
    },
}

/// What one read brought.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Read {
    /// Everything has been read.
    Empty,
    /// There may be more.
    More,
    /// Messages were lost since the last read.
    Lost,
}

const FORK: u32 = 1;
const EXEC: u32 = 2;
const NAME: u32 = 0x200;
const EXIT: u32 = 0x8000_0000;

/// `struct nlmsghdr` and `struct cn_msg`, which precede a message's body.
const HEADERS: usize = 16 + 20;
/// In an event's body: the part that its kind decides.
const DETAIL: usize = 16;
const NETLINK_CONNECTOR: libc::c_int = 11;
const NLMSG_DONE: u16 = 3;
/// The group, and the number, of the process connector.
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
/// Orders.
const LISTEN: u32 = 1;
const IGNORE: u32 = 2;

/// Messages taken by one system call, and room for each.
const BATCH: usize = 8;
const ROOM: usize = 96;
/// Bytes of messages that may wait to be read.
const QUEUE: libc::c_int = 4 << 20;

/// A socket that hears of processes.
pub(crate) struct Connector(Fd);

impl AsRawFd for Connector {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Connector {
    /// ENOTSUP: this machine does not let us hear of processes; EMFILE, ENFILE, ENOMEM.
    pub(crate) fn open() -> Result<Connector> {
        let connector = Connector::bound().map_err(|errno| match errno {
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => errno,
            _ => Errno::ENOTSUP,
        })?;
        // A long queue, as far as the limits allow.
        for option in [libc::SO_RCVBUF, libc::SO_RCVBUFFORCE] {
            let _ = connector.set(option, &QUEUE);
        }
        let heard = |kinds: &[u32]| connector.order(LISTEN, kinds).is_ok() && connector.hears();
        if heard(&[FORK, EXEC, EXIT, NAME]) {
            connector.order(LISTEN, &[FORK, EXEC, EXIT]).map_err(|_| Errno::ENOTSUP)?;
        } else if !heard(&[]) {
            return Err(Errno::ENOTSUP);
        }
        // Without it more is read and dropped here.
        let _ = connector.filter();
        Ok(connector)
    }

    fn bound() -> Result<Connector> {
        let _creating = fd::creating();
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: touches no memory.
        let fd = number(unsafe { libc::socket(libc::AF_NETLINK, kind, NETLINK_CONNECTOR) })?;
        let connector = Connector(Fd::new(Fresh::new(fd))?);
        // SAFETY: a sockaddr_nl may be all zero.
        let mut address: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = CN_IDX_PROC;
        let (address, len) = ((&raw const address).cast(), size_of::<libc::sockaddr_nl>() as libc::socklen_t);
        // SAFETY: pointer and length describe the address.
        zero(unsafe { libc::bind(connector.as_raw_fd(), address, len) })?;
        Ok(connector)
    }

    /// Has the kernel send messages of these kinds. Kernels before 6.6 know no kinds, and no
    /// such order: they take a shorter one, and then send all.
    fn order(&self, order: u32, kinds: &[u32]) -> Result<()> {
        let kinds = kinds.iter().fold(0, |all, kind| all | kind);
        let body: &[u32] = if kinds == 0 { &[order] } else { &[order, kinds] };
        raw::send(self.as_raw_fd(), &order_message(body)).map(|_| ())
    }

    /// Lets only the messages through that [`event`] reads, whatever else is sent.
    fn filter(&self) -> Result<()> {
        let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
        let is = |kind: u32, jt: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, 0, kind.to_be());
        let mut program = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, HEADERS as u32),
            is(FORK, 3),
            is(EXEC, 2),
            is(EXIT, 1),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        self.set(libc::SO_ATTACH_FILTER, &program)
    }

    /// setsockopt(2).
    fn set<T>(&self, option: libc::c_int, value: &T) -> Result<()> {
        let (value, len) = (core::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
        // SAFETY: pointer and length describe `value`.
        zero(unsafe { libc::setsockopt(self.as_raw_fd(), libc::SOL_SOCKET, option, value, len) })
    }

    /// Whether the connector speaks to this process.
    fn hears(&self) -> bool {
        thread::keep_name();
        let own = thread::tid().unsigned_abs();
        let mut heard = false;
        loop {
            let mut look = |body: &[u8]| heard |= word(body, 0) == Some(NAME) && word(body, DETAIL) == Some(own);
            match self.receive(&mut look) {
                Read::Empty => return heard,
                _ if heard => return true,
                _ => {}
            }
        }
    }

    /// Takes what has come, up to a batch, and calls `each`.
    pub(crate) fn read(&self, mut each: impl FnMut(Event)) -> Read {
        self.receive(&mut |body| {
            if let Some(event) = event(body) {
                each(event);
            }
        })
    }

    /// Calls `each` with the body of every message of one batch. Never inlined: its buffers
    /// would make the stack of callers that read nothing some pages deeper, and each page
    /// touched after a fork is copied.
    #[inline(never)]
    fn receive(&self, each: &mut impl FnMut(&[u8])) -> Read {
        let mut buffers = [[0u8; ROOM]; BATCH];
        let mut parts =
            buffers.each_mut().map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: ROOM });
        let mut messages = parts.each_mut().map(|part| {
            // SAFETY: an mmsghdr may be all zero.
            let mut message: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        });
        // SAFETY: every header describes a buffer of its own.
        let got = unsafe { raw::receive_many(self.as_raw_fd(), &mut messages) };
        let lens = messages.map(|message| usize::try_from(message.msg_len).unwrap_or(0));
        match got {
            Ok(got) => {
                for (buffer, len) in buffers.iter().zip(lens).take(got) {
                    each(buffer.get(HEADERS..len.min(ROOM)).unwrap_or(&[]));
                }
                if got < BATCH { Read::Empty } else { Read::More }
            }
            Err(Errno::ENOBUFS) => Read::Lost,
            Err(Errno::EINTR) => Read::More,
            Err(_) => Read::Empty,
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Before 6.6 the kernel would go on making messages for nobody.
        if self.0.is_intact() {
            let _ = self.order(IGNORE, &[]);
        }
    }
}

/// A message to the connector.
fn order_message(body: &[u32]) -> Vec<u8> {
    let body: Vec<u8> = body.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut message = Vec::with_capacity(HEADERS + body.len());
    let total = (HEADERS + body.len()) as u32;
    // nlmsghdr: length; type and flags; sequence and sender.
    message.extend(total.to_ne_bytes());
    [NLMSG_DONE, 0].iter().for_each(|half| message.extend(half.to_ne_bytes()));
    // cn_msg: to whom; sequence and acknowledgement; length and flags.
    [0, 0, CN_IDX_PROC, CN_VAL_PROC, 0, 0].iter().for_each(|word: &u32| message.extend(word.to_ne_bytes()));
    [body.len() as u16, 0].iter().for_each(|half| message.extend(half.to_ne_bytes()));
    message.extend(body);
    message
}

/// The 32 bits at a place of a body.
fn word(body: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?))
}

/// Reads `struct proc_event`.
fn event(body: &[u8]) -> Option<Event> {
    let number = |index: usize| word(body, DETAIL + 4 * index).map(|number| number as pid_t);
    Some(match word(body, 0)? {
        // Parent and its process, child and its process. A thread's "parent" is its process'.
        FORK if number(2)? == number(3)? => Event::Fork { parent: number(1)?, child: number(3)? },
        FORK => Event::Thread { process: number(3)? },
        EXEC => Event::Exec { process: number(1)? },
        EXIT => Event::Exit { process: number(1)?, first: number(0)? == number(1)?, code: number(2)? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(kind: u32, detail: [u32; 6]) -> Vec<u8> {
        let mut out = kind.to_ne_bytes().to_vec();
        out.extend([0; DETAIL - 4]);
        detail.iter().for_each(|word| out.extend(word.to_ne_bytes()));
        out
    }

    #[test]
    fn threads_are_told_from_processes() {
        let fork = body(FORK, [11, 10, 20, 20, 0, 0]);
        assert_eq!(event(&fork), Some(Event::Fork { parent: 10, child: 20 }));
        assert_eq!(event(&body(FORK, [1, 1, 21, 20, 0, 0])), Some(Event::Thread { process: 20 }));
        assert_eq!(event(&body(EXIT, [21, 20, 9, 17, 1, 1])), Some(Event::Exit { process: 20, first: false, code: 9 }));
    }

    #[test]
    fn other_and_short_messages_are_nothing() {
        assert_eq!(event(&body(NAME, [1; 6])), None);
        assert_eq!(event(&body(EXIT, [1; 6])[..24]), None);
        assert_eq!(event(&[]), None);
    }

    #[test]
    fn an_order_is_laid_out_as_the_kernel_reads_it() {
        let message = order_message(&[LISTEN, FORK]);
        assert_eq!(message.len(), HEADERS + 8);
        assert_eq!(word(&message, 0), Some(44));
        assert_eq!(word(&message, 16), Some(CN_IDX_PROC));
        assert_eq!(message.get(32), Some(&8u8.to_ne_bytes()[0]));
    }
}
