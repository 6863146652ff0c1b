//! Calls that a signal handler makes in the middle of another call of its thread.
//!
//! A kernel is not entered twice by one thread; a library is, and the interrupted call may
//! hold any lock. So a thread says while it is at work here, and a call that comes then only
//! leaves its changes behind, which the interrupted one carries out before it sleeps or
//! returns. That is later than the handler, and before the thread sees anything of it.
//!
//! Everything here is of one thread. Atomics and compiler fences are for its handlers, which
//! may come between any two instructions, and be interrupted themselves.

use crate::abi::{EV_ERROR, EV_RECEIPT, kevent};
use crate::errno::{Errno, Result};
use crate::kqueue::{Request, Round};
use crate::sys::epoll::{Events, Patience};
use crate::sys::fd;
use crate::sys::memory::{Input, Output};
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};
use libc::c_int;

/// So many changes can wait; a handler seldom makes more than one.
const ROOM: usize = 32;

/// A change, and the number of its kqueue.
type Change = (c_int, kevent);

/// What a thread knows of its calls.
pub(super) struct Thread {
    at_work: AtomicBool,
    /// Changes left behind.
    left: AtomicUsize,
    changes: [Cell<Option<Change>>; ROOM],
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            at_work: AtomicBool::new(false),
            left: AtomicUsize::new(0),
            changes: [const { Cell::new(None) }; ROOM],
        }
    };
}

/// The calling thread's. It lives as long as the thread, having no destructor.
pub(super) fn thread() -> *const Thread {
    THREAD.with(core::ptr::from_ref)
}

impl Thread {
    /// Begins to work, unless this thread is at work already.
    pub(super) fn begin(&self) -> bool {
        let interrupted = self.at_work.load(Ordering::Relaxed);
        self.at_work.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        !interrupted
    }

    /// Ends the work, and makes up for what came meanwhile.
    pub(super) fn end(&self) {
        loop {
            compiler_fence(Ordering::SeqCst);
            self.at_work.store(false, Ordering::Relaxed);
            // A handler that comes later finds nobody at work.
            compiler_fence(Ordering::SeqCst);
            if self.left.load(Ordering::Relaxed) == 0 {
                return;
            }
            self.begin();
            self.carry_out();
        }
    }

    #[cold]
    fn carry_out(&self) {
        let mut done = 0;
        while self.left.compare_exchange(done, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            if let Some((number, change)) = self.changes.get(done).and_then(Cell::take) {
                apply(number, &change);
            }
            done += 1;
        }
    }

    /// What a call is told that comes while the thread is at work. ENOMEM: no room for its
    /// changes; EINTR: it would have to wait.
    #[cold]
    pub(super) fn leave_behind(&self, request: &Request, events: &mut Output<kevent>) -> Result<usize> {
        if !fd::is_open(request.number) {
            return Err(Errno::EBADF);
        }
        for change in request.changes.iter() {
            let change = change?;
            self.add((request.number, change))?;
            if change.flags & EV_RECEIPT != 0 {
                if events.room() == 0 {
                    return Ok(events.len());
                }
                events.push(kevent { flags: EV_ERROR, data: 0, ..change })?;
            }
        }
        let waits = events.len() == 0 && events.room() > 0 && !matches!(request.patience()?, Patience::None);
        if waits { Err(Errno::EINTR) } else { Ok(events.len()) }
    }

    fn add(&self, change: Change) -> Result<()> {
        let next = |left: usize| (left < ROOM).then_some(left + 1);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let place = taken.ok().and_then(|at| self.changes.get(at)).ok_or(Errno::ENOMEM)?;
        place.set(Some(change));
        compiler_fence(Ordering::SeqCst);
        Ok(())
    }
}

/// Makes a change late. Whoever asked for it was told that it is done, and hears no more.
fn apply(number: c_int, change: &kevent) {
    // SAFETY: one change, which lives through the call.
    let changes = unsafe { Input::new(core::ptr::from_ref(change), 1) };
    // SAFETY: none.
    let timeout = unsafe { Input::new(core::ptr::null(), 0) };
    // SAFETY: no room.
    let mut events = unsafe { Output::new(core::ptr::null_mut(), 0) };
    let request = Request { number, changes, timeout };
    let _ = crate::kqueue::kevent(&request, &mut Events::new(), &mut events, &mut Round::new(Patience::Forever));
}

/// Does what cannot be left for later. ENOMEM: the thread is at work already.
pub(super) fn alone(work: impl FnOnce() -> Result<c_int>) -> Result<c_int> {
    THREAD.with(|thread| {
        if !thread.begin() {
            return Err(Errno::ENOMEM);
        }
        let result = work();
        thread.end();
        result
    })
}
