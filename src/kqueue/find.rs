//! From a number to the kqueue it names, through the table and, where that is not to be
//! trusted, through the inode of the pipe behind the number.

use super::{Kqueue, process};
use crate::errno::{Errno, Result};
use crate::filter::Inner;
use crate::sys::fd::{self, UserEnd};
use crate::sys::file;
use core::sync::atomic::{AtomicU32, Ordering};
use std::os::fd::RawFd;
use std::sync::Arc;

/// Which uses of a kqueue's numbers are looked at, by fstat(2): nothing else tells at once of
/// a number that was closed and may be another file's by now.
///
/// All of them, once it has been seen under more numbers than one. Else the first few: at its
/// beginning a descriptor is moved and duplicated, and a call in a long loop pays nothing.
pub(super) struct Looks(AtomicU32);

impl Looks {
    const FIRST: u32 = 4;
    const ALL: u32 = u32::MAX;

    pub(super) fn new() -> Looks {
        Looks(AtomicU32::new(Self::FIRST))
    }

    /// Whether this use is looked at.
    fn take(&self) -> bool {
        let left = self.0.load(Ordering::Relaxed);
        if left != 0 && left != Self::ALL {
            // One that another thread took at the same time may be had twice.
            let _ = self.0.compare_exchange(left, left - 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        left != 0
    }

    fn at_all(&self) {
        self.0.store(Self::ALL, Ordering::Relaxed);
    }
}

/// The kqueue that `number` names, and whether it was looked at. EBADF.
#[inline]
pub(super) fn find(number: RawFd) -> Result<Found> {
    match process().table.find(number) {
        Some(kqueue) if !kqueue.looks.take() => Ok(Found { kqueue, certain: false }),
        found => look(number, found),
    }
}

/// Looks whether `number` names what was `found` in the table.
#[inline(never)]
fn look(number: RawFd, found: Option<Arc<Kqueue>>) -> Result<Found> {
    match found {
        Some(kqueue) if file::inode(number) == Ok(kqueue.held.inode()) => Ok(Found { kqueue, certain: true }),
        Some(kqueue) => {
            process().table.leave(number, &kqueue);
            kqueue.numbers().retain(|(own, _)| *own != number);
            kqueue.looks.at_all();
            kqueue.end_if_closed();
            adopt(number)
        }
        None => adopt(number),
    }
}

/// What a number names.
pub(super) struct Found {
    pub(super) kqueue: Arc<Kqueue>,
    /// It certainly did when it was looked for.
    pub(super) certain: bool,
}

/// Recognises a copy of a kqueue's descriptor by the pipe behind it. EBADF.
fn adopt(number: RawFd) -> Result<Found> {
    let inode = file::inode(number)?;
    let all = process().table.all();
    let (_, kqueue) = all.into_iter().find(|(_, kqueue)| kqueue.held.inode() == inode).ok_or(Errno::EBADF)?;
    if file::sort(number)? != file::Sort::Fifo {
        return Err(Errno::EBADF);
    }
    kqueue.looks.at_all();
    let note = {
        let _creating = fd::creating();
        UserEnd::new(number, inode)?
    };
    kqueue.numbers().push((number, note));
    if let Some(evicted) = process().table.enter(number, kqueue.clone())?
        && !Arc::ptr_eq(&evicted, &kqueue)
    {
        evicted.numbers().retain(|(own, _)| *own != number);
        evicted.end_if_closed();
    }
    if kqueue.is_closed() {
        // It ended while it was entered.
        process().table.leave(number, &kqueue);
        return Err(Errno::EBADF);
    }
    Ok(Found { kqueue, certain: true })
}

/// The kqueue behind a number that a change names, for kqueues that watch kqueues.
pub(super) fn find_inner(number: RawFd) -> Option<Arc<dyn Inner>> {
    let kqueue = process().table.find(number)?;
    (file::inode(number) == Ok(kqueue.held.inode())).then_some(kqueue as Arc<dyn Inner>)
}
