//! EVFILT_WRITE (kqueue(2)) on everything epoll serves.
//!
//! `data` is the room left: SO_SNDBUF less what is queued, or a pipe's capacity less what
//! is in it, and at least 1 while epoll says that a write would go through. EV_EOF: the
//! reader of a pipe has gone, the connection has failed (`fflags` says why), or the
//! program itself has shut its side down, which TCP tells and AF_UNIX does not. A peer
//! that shut down its sending is no EV_EOF here.

use super::kind::{self, Kind};
use super::{Facts, Fate, Filter, Outcome, Queue, descriptor, fd};
use crate::abi::{Kevent, NOTE_LOWAT};
use crate::errno::{Errno, Result};
use crate::knote::Slot;
use crate::sys::epoll::{ERR, HUP, OUT, RDHUP};
use crate::sys::{file, socket};
use std::os::fd::RawFd;

/// The row of EVFILT_WRITE.
pub(crate) struct Write;

impl Filter for Write {
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
        queue.fds.forget_send_buffer(descriptor(change.ident)?);
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
        let ended = match mask & (ERR | HUP) {
            0 => Ok((false, 0)),
            // The end of a file that lives on under another number says nothing of the one here.
            _ if fd::is_gone(queue, slot) => Err(Outcome::Gone),
            _ => ended(queue, slot, number),
        };
        let (eof, fflags) = match ended {
            Ok(ended) => ended,
            Err(outcome) => return outcome,
        };
        match room(queue, slot, number) {
            Ok(room) => gate(queue, slot, Facts { data: room.data, eof: eof || room.shut, fflags, ..Facts::default() }),
            Err(_) if fd::is_gone(queue, slot) => Outcome::Gone,
            Err(_) => gate(queue, slot, Facts { data: 1, eof, fflags, ..Facts::default() }),
        }
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        fd::settle(queue, slot, fate);
    }
}

/// Holds an event back below the low-water mark; the end passes it.
fn gate(queue: &mut Queue, slot: Slot, facts: Facts) -> Outcome {
    let knote = queue.knotes[slot];
    let marked = knote.fflags & NOTE_LOWAT != 0;
    if marked && !facts.eof && facts.data < queue.knotes.data(slot) {
        let number = descriptor(knote.ident).unwrap_or(-1);
        if kind::has_low_water_mark(number, queue.fds.kind(number)) {
            // TCP tells of room only after it had none.
            let _ = queue.look_again(slot, super::AGAIN);
            return fd::unready(queue, slot, true);
        }
    }
    Outcome::Ready(Facts { again: fd::keep_or_harden(queue, slot, marked), ..facts })
}

/// Something ended: (EV_EOF, error) if it concerns writing.
fn ended(queue: &mut Queue, slot: Slot, number: RawFd) -> core::result::Result<(bool, u32), Outcome> {
    let kind = queue.fds.kind(number);
    let mask = fd::full_mask(number);
    let failed = mask & ERR != 0 && mask & HUP != 0;
    match kind {
        // Nothing can ever be written into this end.
        Kind::PipeReader => Err(fd::unready(queue, slot, true)),
        // Not connected yet.
        kind if kind.connects() && mask & (HUP | RDHUP | ERR) == HUP => Err(fd::unready(queue, slot, true)),
        // Something lies in the socket's error queue, which is nothing to the writer.
        kind if kind.connects() && mask & (OUT | HUP) == 0 => Err(fd::unready(queue, slot, true)),
        kind if kind.is_socket() => {
            let fflags = if failed { kind::pending_error(number, kind) } else { 0 };
            Ok((mask & HUP != 0, fflags))
        }
        _ => Ok((mask & (ERR | HUP) != 0, 0)),
    }
}

struct Room {
    data: isize,
    /// The program has shut its side down.
    shut: bool,
}

/// Bytes that can be written. EBADF, or another error, where the number may be another file's.
fn room(queue: &mut Queue, slot: Slot, number: RawFd) -> Result<Room> {
    let kind = queue.fds.kind(number);
    // A mark that an outdated size cannot reach would never be told of.
    if queue.knotes[slot].fflags & NOTE_LOWAT != 0 {
        queue.fds.forget_send_buffer(number);
    }
    let open = |free: usize| Room { data: isize::try_from(free.max(1)).unwrap_or(isize::MAX), shut: false };
    match kind {
        Kind::Tcp => {
            let sending = socket::tcp_sending(number)?;
            let size = queue.fds.send_buffer(number, sending.queued)?;
            Ok(Room { shut: sending.ended, ..open(size.saturating_sub(sending.queued)) })
        }
        Kind::UnixStream | Kind::Datagram => {
            let queued = file::unsent_bytes(number)?;
            let size = queue.fds.send_buffer(number, queued)?;
            Ok(open(size.saturating_sub(queued)))
        }
        Kind::PipeWriter | Kind::PipeBoth => {
            let inside = file::readable_bytes(number)?;
            let size = file::pipe_capacity(number)?;
            Ok(open(size.saturating_sub(inside)))
        }
        _ if fd::is_gone(queue, slot) => Err(Errno::EBADF),
        _ => Ok(open(1)),
    }
}
