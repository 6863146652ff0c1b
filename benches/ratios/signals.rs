//! A signal's way from this process to itself.

use crate::api::{self, *};
use crate::frame::{Side, Turn, Workload};
use crate::ready::NONE;
use crate::sys;
use libc::{EPOLL_CTL_ADD, EPOLLIN, c_int};

/// The workloads of this file.
pub(crate) fn list() -> Vec<Workload> {
    vec![Workload::new("signal-self", to_self).bound(1.1)]
}

const SIGNAL: c_int = libc::SIGUSR1;

/// Sent, told of and counted: one signal at a time.
fn to_self(side: Side) -> Outcome<Turn> {
    Ok(match side {
        Side::Raw => {
            let (ep, fd) = (sys::epoll(), sys::signalfd(SIGNAL));
            sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(&fd), EPOLLIN, 7);
            Box::new(move |n| {
                let mut out = [NONE; 8];
                for _ in 0..n {
                    sys::kill_self(SIGNAL);
                    api::expect("events", sys::epoll_wait(sys::raw(&ep), &mut out, -1), 1)?;
                    api::expect("signal", sys::signalled(sys::raw(&fd)), SIGNAL)?;
                }
                api::expect("left over", sys::epoll_wait(sys::raw(&ep), &mut out, 0), 0)
            })
        }
        Side::Lib(lib) => {
            sys::ignore(SIGNAL);
            let kq = lib.open()?;
            let ident = usize::try_from(SIGNAL).unwrap_or(0);
            kq.change(&[change(ident, EVFILT_SIGNAL, EV_ADD, 7)])?;
            Box::new(move |n| {
                let mut out = [change(0, 0, 0, 0); 8];
                for _ in 0..n {
                    sys::kill_self(SIGNAL);
                    api::expect("events", kq.call(&[], &mut out, Wait::Forever)?, 1)?;
                    api::expect("filter", out[0].filter, EVFILT_SIGNAL)?;
                    api::expect("ident", out[0].ident, ident)?;
                    api::expect("times", out[0].data, 1)?;
                }
                api::expect("left over", kq.call(&[], &mut out, Wait::Poll)?, 0)
            })
        }
    })
}
