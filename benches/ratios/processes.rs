//! A child's life: forked, watched, ended, reported and reaped.

use crate::api::{self, *};
use crate::frame::{Side, Turn, Workload};
use crate::ready::NONE;
use crate::sys;
use libc::{EPOLL_CTL_ADD, EPOLLIN};
use std::os::fd::OwnedFd;

/// The workloads of this file.
pub(crate) fn list() -> Vec<Workload> {
    vec![Workload::new("fork-exit-wait", fork_exit_wait).bound(1.05)]
}

/// What the child exits with.
const STATUS: i32 = 7;

enum Watch {
    Raw(OwnedFd),
    Lib(Kq),
}

impl Watch {
    /// One child from its fork to its reaping.
    #[inline]
    fn child(&self) -> Outcome {
        let pid = sys::fork_doing(|| STATUS);
        let told = match self {
            Watch::Raw(ep) => {
                let pidfd = sys::pidfd(pid);
                sys::epoll_ctl(sys::raw(ep), EPOLL_CTL_ADD, sys::raw(&pidfd), EPOLLIN, 7);
                let mut out = [NONE; 8];
                api::expect("events", sys::epoll_wait(sys::raw(ep), &mut out, -1), 1)?;
                sys::exit_status(sys::raw(&pidfd)) << 8
            }
            Watch::Lib(kq) => {
                let ident = usize::try_from(pid).unwrap_or(0);
                kq.change(&[with(change(ident, EVFILT_PROC, EV_ADD, 7), NOTE_EXIT, 0)])?;
                let mut out = [change(0, 0, 0, 0); 8];
                api::expect("events", kq.call(&[], &mut out, Wait::Forever)?, 1)?;
                api::expect("ident", out[0].ident, ident)?;
                i32::try_from(out[0].data).unwrap_or(-1)
            }
        };
        api::expect("status told", told, STATUS << 8)?;
        api::expect("status", sys::reap(pid), STATUS << 8)
    }
}

fn fork_exit_wait(side: Side) -> Outcome<Turn> {
    let watch = match side {
        Side::Raw => Watch::Raw(sys::epoll()),
        Side::Lib(lib) => Watch::Lib(lib.open()?),
    };
    Ok(Box::new(move |n| {
        for _ in 0..n {
            watch.child()?;
        }
        Ok(())
    }))
}
