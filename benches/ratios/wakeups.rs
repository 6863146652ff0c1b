//! Workloads without descriptors of the program's: user events, and a queue's own life.

use crate::api::{self, *};
use crate::frame::{Side, Turn, Workload};
use crate::ready::NONE;
use crate::sys;
use libc::{EPOLL_CTL_ADD, EPOLLIN};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// The workloads of this file.
pub(crate) fn list() -> Vec<Workload> {
    vec![
        Workload::new("user-one-thread", user_one_thread).bound(0.4),
        Workload::new("user-two-threads", user_two_threads).bound(1.05),
        Workload::new("user-two-threads-2-cores", user_two_threads).cores(2).bound(1.05),
        // Every queue of a turn may still be open when the turn ends.
        Workload::new("kqueue-close", open_close).most(4096).bound(5.0),
    ]
}

/// What one thread wakes another with.
enum Bell {
    Raw { ep: OwnedFd, event: OwnedFd },
    Lib(Kq),
}

/// The user event's number.
const IDENT: usize = 1;

impl Bell {
    fn new(side: Side) -> Outcome<Bell> {
        Ok(match side {
            Side::Raw => {
                let (ep, event) = (sys::epoll(), sys::eventfd());
                sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(&event), EPOLLIN, 7);
                Bell::Raw { ep, event }
            }
            Side::Lib(lib) => {
                let kq = lib.open()?;
                kq.change(&[change(IDENT, EVFILT_USER, EV_ADD | EV_CLEAR, 7)])?;
                Bell::Lib(kq)
            }
        })
    }

    #[inline]
    fn ring(&self) -> Outcome {
        match self {
            Bell::Raw { event, .. } => {
                sys::write(sys::raw(event), &1u64.to_ne_bytes());
                Ok(())
            }
            Bell::Lib(kq) => kq.change(&[with(change(IDENT, EVFILT_USER, 0, 7), NOTE_TRIGGER, 0)]),
        }
    }

    /// Waits for exactly one ring.
    #[inline]
    fn wait(&self) -> Outcome {
        match self {
            Bell::Raw { ep, event } => {
                let (mut out, mut count) = ([NONE; 8], [0; 8]);
                api::expect("events", sys::epoll_wait(sys::raw(ep), &mut out, -1), 1)?;
                sys::read(sys::raw(event), &mut count);
                api::expect("rings", u64::from_ne_bytes(count), 1)
            }
            Bell::Lib(kq) => {
                let mut out = [change(0, 0, 0, 0); 8];
                api::expect("events", kq.call(&[], &mut out, Wait::Forever)?, 1)?;
                api::expect("filter", out[0].filter, EVFILT_USER)?;
                api::expect("ident", out[0].ident, IDENT)
            }
        }
    }

    /// Fails if there is a ring nobody rang.
    fn silent(&self) -> Outcome {
        let left = match self {
            Bell::Raw { ep, .. } => sys::epoll_wait(sys::raw(ep), &mut [NONE; 8], 0),
            Bell::Lib(kq) => kq.call(&[], &mut api::events(8), Wait::Poll)?,
        };
        api::expect("left over", left, 0)
    }
}

fn user_one_thread(side: Side) -> Outcome<Turn> {
    let bell = Bell::new(side)?;
    Ok(Box::new(move |n| {
        for _ in 0..n {
            bell.ring()?;
            bell.wait()?;
        }
        bell.silent()
    }))
}

/// What the two threads share.
struct Shared {
    there: Bell,
    back: Bell,
    answered: AtomicUsize,
    over: AtomicBool,
}

/// The other thread, which ends when this is dropped.
struct Partner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Outcome>>,
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        // A partner that has ended already hears nothing; both are fine here.
        let _ = self.shared.there.ring();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A ring to a second thread and one back; each waits in a queue of its own.
fn user_two_threads(side: Side) -> Outcome<Turn> {
    let shared = Arc::new(Shared {
        there: Bell::new(side)?,
        back: Bell::new(side)?,
        answered: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let theirs = Arc::clone(&shared);
    let thread = Some(thread::spawn(move || {
        let done = answer(&theirs);
        theirs.over.store(true, Ordering::Release);
        theirs.back.ring().and(done)
    }));
    let mut partner = Partner { shared, thread };
    Ok(Box::new(move |n| {
        let shared = &partner.shared;
        let before = shared.answered.load(Ordering::Relaxed);
        for _ in 0..n {
            shared.there.ring()?;
            shared.back.wait()?;
            if shared.over.load(Ordering::Acquire) {
                let why = partner.thread.take().map(JoinHandle::join);
                return Err(format!("the other thread: {why:?}"));
            }
        }
        shared.back.silent()?;
        api::expect("answers", shared.answered.load(Ordering::Relaxed), before + n)
    }))
}

fn answer(shared: &Shared) -> Outcome {
    loop {
        shared.there.wait()?;
        if shared.over.load(Ordering::Acquire) {
            return Ok(());
        }
        shared.answered.fetch_add(1, Ordering::Relaxed);
        shared.back.ring()?;
    }
}

/// Queues closed between two waits for the library to have freed them.
const DRAIN: usize = 256;

/// A queue made and closed. What the library frees later is part of the work, so the
/// turn waits for it.
fn open_close(side: Side) -> Outcome<Turn> {
    Ok(match side {
        Side::Raw => Box::new(|n| {
            for _ in 0..n {
                sys::close(sys::epoll());
            }
            Ok(())
        }),
        Side::Lib(lib) => Box::new(move |n| {
            for i in 1..=n {
                drop(lib.open()?);
                if i % DRAIN == 0 {
                    lib.drain();
                }
            }
            lib.drain();
            Ok(())
        }),
    })
}

/// One of `standing` user knotes triggered in one call and harvested in the next, each in
/// its turn. Raw has one eventfd, however many there are here.
pub(crate) fn one_triggered(standing: usize) -> Workload {
    let make = move |side| {
        let Side::Lib(lib) = side else { return user_one_thread(side) };
        let kq = lib.open()?;
        for ident in 0..standing {
            kq.change(&[change(ident, EVFILT_USER, EV_ADD | EV_CLEAR, 7)])?;
        }
        let mut next = 0;
        Ok(Box::new(move |n: usize| {
            let mut out = [change(0, 0, 0, 0); 8];
            for _ in 0..n {
                // Prime, so that all are met, though not in the order they were added.
                next = (next + 7919) % standing;
                kq.change(&[with(change(next, EVFILT_USER, 0, 7), NOTE_TRIGGER, 0)])?;
                api::expect("events", kq.call(&[], &mut out, Wait::Forever)?, 1)?;
                api::expect("ident", out[0].ident, next)?;
            }
            api::expect("left over", kq.call(&[], &mut out, Wait::Poll)?, 0)
        }) as Turn)
    };
    Workload::new(format!("user-among-{standing}"), make)
}
