//! EVFILT_READ (kqueue(2)) on everything epoll serves: sockets, pipes, ttys, eventfds, ….
//!
//! `data` is FIONREAD's count, which in the common case is the only system call beside the
//! wait, and also tells of a closed number (EBADF). For listening sockets it is the
//! number of connections to accept, for eventfds the counter. EV_EOF comes of RDHUP and
//! HUP; with it `fflags` is the socket's error, inferred and never read by SO_ERROR, which
//! would take it away from the program. What Linux cannot give: SO_RCVLOWAT on AF_UNIX,
//! and for datagram sockets more than the first datagram's length.

use super::kind::{self, Kind};
use super::{Facts, Fate, Filter, Outcome, Queue, descriptor, fd};
use crate::abi::{Kevent, NOTE_LOWAT};
use crate::errno::{Errno, Result};
use crate::knote::Slot;
use crate::sys::epoll::{ERR, HUP, IN, RDHUP};
use crate::sys::file;
use std::os::fd::RawFd;

/// The row of EVFILT_READ.
pub(crate) struct Read;

impl Filter for Read {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        let soft = queue.knotes[slot].fflags & NOTE_LOWAT != 0;
        fd::attach(queue, slot, soft)
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        queue.knotes[slot].fflags = change.fflags;
        queue.knotes.set_data(slot, change.data)?;
        fd::modify(queue, slot, change.fflags & NOTE_LOWAT != 0)
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        fd::detach(queue, slot)
    }

    fn is_gone(&self, queue: &mut Queue, slot: Slot) -> bool {
        fd::is_gone(queue, slot)
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        let mask = match fd::readiness(queue, slot) {
            Ok(mask) => mask,
            Err(outcome) => return outcome,
        };
        let Ok(number) = descriptor(queue.knotes[slot].ident) else { return Outcome::Gone };
        if mask & (ERR | HUP | RDHUP) != 0 {
            // The end of a file that lives on under another number says nothing of the one here.
            if fd::is_gone(queue, slot) {
                return Outcome::Gone;
            }
            if is_empty_pipe(queue, number, mask) {
                return look_closer(queue, slot, number, mask, Ok(0));
            }
        }
        match file::readable_bytes(number) {
            Ok(bytes) if bytes > 0 && mask & (ERR | HUP) == 0 => {
                gate(queue, slot, Facts { data: size(bytes), eof: mask & RDHUP != 0, ..Facts::default() }, mask)
            }
            counted => look_closer(queue, slot, number, mask, counted),
        }
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        fd::settle(queue, slot, fate);
    }
}

/// Whether epoll says that there is an end and nothing before it, as it does of pipes alone.
#[cold]
fn is_empty_pipe(queue: &mut Queue, number: RawFd, mask: u32) -> bool {
    mask & (IN | HUP) == HUP && matches!(queue.fds.kind(number), Kind::PipeReader | Kind::PipeBoth)
}

/// Holds an event back below the low-water mark; the end of the stream and an error pass it.
#[inline]
fn gate(queue: &mut Queue, slot: Slot, facts: Facts, mask: u32) -> Outcome {
    if queue.knotes[slot].fflags & NOTE_LOWAT == 0 {
        return Outcome::Ready(Facts { again: fd::keep_or_harden(queue, slot, false), ..facts });
    }
    gate_marked(queue, slot, facts, mask)
}

#[inline(never)]
fn gate_marked(queue: &mut Queue, slot: Slot, facts: Facts, mask: u32) -> Outcome {
    let knote = &queue.knotes[slot];
    if !facts.eof && mask & ERR == 0 && facts.data < queue.knotes.data(slot) {
        let number = descriptor(knote.ident).unwrap_or(-1);
        if kind::has_low_water_mark(number, queue.fds.kind(number)) {
            return fd::unready(queue, slot, true);
        }
    }
    Outcome::Ready(Facts { again: fd::keep_or_harden(queue, slot, true), ..facts })
}

fn size(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

/// An event where it is not just some bytes to read.
#[inline(never)]
fn look_closer(queue: &mut Queue, slot: Slot, number: RawFd, mask: u32, counted: Result<usize>) -> Outcome {
    let facts = match counted {
        Ok(bytes) => ended(queue, slot, number, mask, bytes),
        Err(Errno::EBADF) => Err(Outcome::Gone),
        // A terminal whose other side has gone.
        Err(Errno::EIO) => ended(queue, slot, number, mask, 0),
        Err(_) => uncounted(queue, slot, number, mask),
    };
    match facts {
        Ok(facts) => gate(queue, slot, facts, mask),
        Err(outcome) => outcome,
    }
}

/// Nothing to count, or something ended or failed: here the sort of file matters.
fn ended(
    queue: &mut Queue,
    slot: Slot,
    number: RawFd,
    mask: u32,
    bytes: usize,
) -> core::result::Result<Facts, Outcome> {
    let kind = queue.fds.kind(number);
    match kind {
        // Nothing ever comes out of this end. That the reader has gone is told of a pipe,
        // whose ends can both be read on FreeBSD, and not of a fifo opened for writing.
        Kind::PipeWriter => {
            let end = mask & ERR != 0 && file::is_anonymous_pipe(number);
            let eof = Facts { eof: true, ..Facts::default() };
            return if end { Ok(eof) } else { Err(fd::unready(queue, slot, true)) };
        }
        kind if kind.connects() && mask & (HUP | RDHUP | ERR) == HUP && bytes == 0 => {
            return Err(fd::unready(queue, slot, true));
        }
        _ => {}
    }
    if bytes == 0 && mask & (ERR | HUP | RDHUP) == 0 {
        // An empty datagram, an end-of-file character of a terminal, or somebody else
        // was quicker, or the number is another file's.
        if fd::full_mask(number) & IN == 0 {
            let gone = !fd::still_there(queue, slot);
            return Err(if gone { Outcome::Gone } else { fd::unready(queue, slot, false) });
        }
        // Or that other file has an empty look of its own, as those in /proc do.
        if fd::is_gone(queue, slot) {
            return Err(Outcome::Gone);
        }
    }
    // Without a hang-up it is an error of a datagram socket, or something in the socket's
    // error queue: news, but not the end of it.
    let failed = mask & ERR != 0 && mask & HUP != 0;
    let fflags = if failed { kind::pending_error(number, kind) } else { 0 };
    let eof = mask & (HUP | RDHUP) != 0;
    Ok(Facts { data: size(bytes), fflags, eof, ..Facts::default() })
}

/// Objects without a count of bytes.
fn uncounted(queue: &mut Queue, slot: Slot, number: RawFd, mask: u32) -> core::result::Result<Facts, Outcome> {
    let kind = queue.fds.kind(number);
    if let Some(waiting) = kind::backlog(number, kind) {
        if waiting == 0 || mask & IN == 0 {
            // Shut down it would be reported for ever.
            let lasting = mask & IN == 0 || mask & (HUP | RDHUP) != 0;
            return Err(fd::unready(queue, slot, lasting));
        }
        return Ok(Facts { data: size(waiting), ..Facts::default() });
    }
    if mask & (IN | HUP | RDHUP) == 0 {
        return Err(fd::unready(queue, slot, true));
    }
    if fd::is_gone(queue, slot) {
        return Err(Outcome::Gone);
    }
    let count = match kind {
        Kind::Other => file::eventfd_count(number),
        _ => None,
    };
    let data = match count {
        Some(0) => return Err(fd::unready(queue, slot, false)),
        Some(value) => isize::try_from(value).unwrap_or(isize::MAX),
        None => isize::from(mask & IN != 0),
    };
    Ok(Facts { data, eof: mask & (HUP | RDHUP) != 0, ..Facts::default() })
}
