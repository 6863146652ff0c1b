//! EVFILT_EMPTY (FreeBSD, NetBSD): nothing is left in a socket's send buffer.
//!
//! SIOCOUTQ says how much is unsent (for TCP: unacknowledged). No kernel event says that
//! it became nothing, so while bytes are out the knote looks again every few
//! milliseconds, by a timer in the kqueue's heap; with nothing out no timer runs, since the
//! knote is ready. A listening socket is always empty; what is no socket is EINVAL.

use super::{AGAIN, Facts, Fate, Filter, Outcome, Queue, descriptor};
use crate::abi::Kevent;
use crate::errno::{Errno, Result};
use crate::knote::{Slot, state};
use crate::sys::clock::Clock;
use crate::sys::file::{self, Sort};
use std::os::fd::RawFd;

/// The row of EVFILT_EMPTY; `own` is the socket's inode number, as far as it fits: what
/// tells the socket from a later one under the same descriptor.
pub(crate) struct Empty;

impl Filter for Empty {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        let fd = descriptor(queue.knotes[slot].ident)?;
        if file::sort(fd)? != Sort::Socket {
            return Err(Errno::EINVAL);
        }
        queue.knotes[slot].own = identity(fd)?;
        queue.timers.prepare(Clock::Monotonic, &queue.epoll)?;
        queue.knotes.activate(slot);
        Ok(())
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<()> {
        check(queue, slot)?;
        let knote = &mut queue.knotes[slot];
        knote.fflags = change.fflags;
        knote.state &= !state::TOLD;
        queue.knotes.activate(slot);
        Ok(())
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        check(queue, slot).map(|_| ())
    }

    fn is_gone(&self, queue: &mut Queue, slot: Slot) -> bool {
        check(queue, slot).is_err()
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        let Ok(fd) = check(queue, slot) else { return Outcome::Gone };
        // A socket that has no send queue to ask for (a listener) has nothing in it.
        let empty = file::unsent_bytes(fd).unwrap_or(0) == 0;
        let knote = &mut queue.knotes[slot];
        if !empty {
            knote.state &= !state::TOLD;
        }
        if empty && !knote.has(state::TOLD) {
            return Outcome::Ready(Facts { again: true, ..Facts::default() });
        }
        // The timerfd is there since the knote was attached.
        let _ = queue.look_again(slot, if empty { IDLE } else { AGAIN });
        Outcome::NotReady
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        if fate == Fate::Cleared {
            queue.knotes[slot].state |= state::TOLD;
            let _ = queue.look_again(slot, IDLE);
        }
    }
}

/// How often an EV_CLEAR knote that was told looks for new bytes, ns.
const IDLE: u64 = 50_000_000;

fn identity(fd: RawFd) -> Result<u32> {
    file::inode(fd).map(|inode| inode as u32)
}

/// The descriptor, if it still names the knote's socket: ENOENT if another, EBADF if none.
fn check(queue: &Queue, slot: Slot) -> Result<RawFd> {
    let knote = &queue.knotes[slot];
    let fd = descriptor(knote.ident)?;
    if identity(fd)? == knote.own { Ok(fd) } else { Err(Errno::ENOENT) }
}
