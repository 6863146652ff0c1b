//! Workloads on descriptors that are ready: ping-pongs, many registered, rearming.

use crate::api::{self, *};
use crate::frame::{Side, Turn, Workload};
use crate::{lean, sys};
use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLIN, EPOLLONESHOT};
use libc::{EPOLLRDHUP, epoll_event};
use std::os::fd::{OwnedFd, RawFd};

/// What a careful program asks of a descriptor it reads.
pub(crate) const IN: i32 = EPOLLIN | EPOLLRDHUP;

/// An empty epoll event.
pub(crate) const NONE: epoll_event = epoll_event { events: 0, u64: 0 };

/// The workloads of this file.
pub(crate) fn list() -> Vec<Workload> {
    let mut all = vec![
        Workload::new("pipe-pingpong", |side| pingpong(side, Wait::Forever)).bound(1.06),
        Workload::new("pipe-pingpong-zero", |side| pingpong(side, Wait::Poll)).bound(1.06),
        Workload::new("pipe-pingpong-poll", pingpong_polled).bound(2.5),
    ];
    for size in [1_000, 10_000, 19_000] {
        for clear in [false, true] {
            all.push(registered(size, clear).bound(1.02));
        }
    }
    all.push(Workload::new("add-delete", |side| add_delete(side, 1)).bound(1.1));
    all.push(Workload::new("add-delete-64", |side| add_delete(side, 64)).ops(64).bound(1.08));
    all.push(Workload::new("oneshot-readd", |side| rearm(side, EV_ADD | EV_ONESHOT)).bound(1.08));
    all.push(Workload::new("dispatch-enable", |side| rearm(side, EV_ENABLE | EV_DISPATCH)).bound(1.08));
    all
}

/// Checks one EVFILT_READ event of `fd`.
#[inline]
pub(crate) fn check_read(event: &Kevent, fd: RawFd, bytes: isize) -> Outcome {
    let fits =
        event.ident == fd as usize && event.filter == EVFILT_READ && event.data == bytes && event.flags & EV_ERROR == 0;
    if fits { Ok(()) } else { Err(format!("not the READ event of {fd}: {event:?}")) }
}

/// Checks the same of an epoll event, and asks for the bytes as `data` would tell them.
#[inline]
pub(crate) fn check_in(event: &epoll_event, token: u64, fd: RawFd, bytes: i32) -> Outcome {
    let (mask, got) = (event.events, event.u64);
    let fits = got == token && mask & EPOLLIN as u32 != 0 && (lean() || sys::fionread(fd) == bytes);
    if fits { Ok(()) } else { Err(format!("not readable: {mask:#x} of {got}")) }
}

/// Write a byte, wait for it, read it.
fn pingpong(side: Side, wait: Wait) -> Outcome<Turn> {
    let (r, w) = sys::pipe();
    Ok(match side {
        Side::Raw => {
            let ep = sys::epoll();
            sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(&r), IN, 7);
            Box::new(move |n| {
                let (mut out, mut byte) = ([NONE; 8], [0]);
                for _ in 0..n {
                    sys::write(sys::raw(&w), b"x");
                    let got = sys::epoll_wait(sys::raw(&ep), &mut out, wait.millis());
                    api::expect("events", got, 1)?;
                    check_in(&out[0], 7, sys::raw(&r), 1)?;
                    sys::read(sys::raw(&r), &mut byte);
                }
                Ok(())
            })
        }
        Side::Lib(lib) => {
            let kq = lib.open()?;
            kq.change(&[on_fd(sys::raw(&r), EVFILT_READ, EV_ADD, 7)])?;
            Box::new(move |n| {
                let (mut out, mut byte) = ([change(0, 0, 0, 0); 8], [0]);
                for _ in 0..n {
                    sys::write(sys::raw(&w), b"x");
                    api::expect("events", kq.call(&[], &mut out, wait)?, 1)?;
                    check_read(&out[0], sys::raw(&r), 1)?;
                    sys::read(sys::raw(&r), &mut byte);
                }
                Ok(())
            })
        }
    })
}

/// How long poll() waits for what must come, ms.
const SOON: i32 = 2000;

/// The loop of a program that polls: poll() the queue, take what is there without
/// waiting, read it, and look again until nothing is left.
fn pingpong_polled(side: Side) -> Outcome<Turn> {
    let (r, w) = sys::pipe();
    Ok(match side {
        Side::Raw => {
            let ep = sys::epoll();
            sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(&r), IN, 7);
            Box::new(move |n| {
                let (mut out, mut byte) = ([NONE; 8], [0]);
                for _ in 0..n {
                    sys::write(sys::raw(&w), b"x");
                    api::expect("poll", sys::readable(sys::raw(&ep), SOON), true)?;
                    api::expect("events", sys::epoll_wait(sys::raw(&ep), &mut out, 0), 1)?;
                    check_in(&out[0], 7, sys::raw(&r), 1)?;
                    sys::read(sys::raw(&r), &mut byte);
                    api::expect("left", sys::epoll_wait(sys::raw(&ep), &mut out, 0), 0)?;
                }
                api::expect("poll at rest", sys::readable(sys::raw(&ep), 0), false)
            })
        }
        Side::Lib(lib) => {
            let kq = lib.open()?;
            kq.change(&[on_fd(sys::raw(&r), EVFILT_READ, EV_ADD, 7)])?;
            Box::new(move |n| {
                let (mut out, mut byte) = ([change(0, 0, 0, 0); 8], [0]);
                for _ in 0..n {
                    sys::write(sys::raw(&w), b"x");
                    api::expect("poll", sys::readable(kq.fd(), SOON), true)?;
                    api::expect("events", kq.call(&[], &mut out, Wait::Poll)?, 1)?;
                    check_read(&out[0], sys::raw(&r), 1)?;
                    sys::read(sys::raw(&r), &mut byte);
                    api::expect("left", kq.call(&[], &mut out, Wait::Poll)?, 0)?;
                }
                api::expect("poll at rest", sys::readable(kq.fd(), 0), false)
            })
        }
    })
}

/// How many of the registered sockets get data.
const ACTIVE: usize = 100;

/// `size` sockets registered, `ACTIVE` of them, spread evenly, written to and harvested.
pub(crate) fn registered(size: usize, clear: bool) -> Workload {
    let mode = if clear { "clear" } else { "level" };
    let make = move |side| registered_turn(side, size - ACTIVE, clear);
    Workload::new(format!("registered-{size}-{mode}"), make).ops(ACTIVE).fds(size as u64 + 300)
}

fn registered_turn(side: Side, idle: usize, clear: bool) -> Outcome<Turn> {
    let idle: Vec<_> = (0..idle).map(|_| sys::idle_socket()).collect();
    let pairs: Vec<_> = (0..ACTIVE).map(|_| sys::socketpair()).collect();
    let per = idle.len() / ACTIVE;
    // Idle ones first, then one active, and so on; the token of an idle one is ACTIVE.
    let order = (0..ACTIVE).flat_map(|i| {
        let rest = idle[i * per..(i + 1) * per].iter().map(|fd| (sys::raw(fd), ACTIVE));
        rest.chain([(sys::raw(&pairs[i].0), i)])
    });
    Ok(match side {
        Side::Raw => {
            let ep = sys::epoll();
            let mode = if clear { IN | EPOLLET } else { IN };
            for (fd, token) in order {
                sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, fd, mode, token as u64);
            }
            Box::new(move |n| {
                let _held = &idle;
                let mut out = [NONE; 128];
                for _ in 0..n {
                    let mut seen = Seen::write_all(&pairs);
                    while seen.left > 0 {
                        let got = sys::epoll_wait(sys::raw(&ep), &mut out, -1);
                        for event in &out[..got] {
                            let (token, mask) = (event.u64 as usize, event.events);
                            let fd = seen.take(token, &pairs)?;
                            let bytes = if lean() { 1 } else { sys::fionread(fd) };
                            api::expect("readable", mask & EPOLLIN as u32 != 0, true)?;
                            read_one(fd, bytes as isize)?;
                        }
                    }
                }
                Ok(())
            })
        }
        Side::Lib(lib) => {
            let kq = lib.open()?;
            let mode = if clear { EV_ADD | EV_CLEAR } else { EV_ADD };
            let adds: Vec<_> = order.map(|(fd, i)| on_fd(fd, EVFILT_READ, mode, i)).collect();
            kq.change(&adds)?;
            Box::new(move |n| {
                let _held = &idle;
                let mut out = [change(0, 0, 0, 0); 128];
                for _ in 0..n {
                    let mut seen = Seen::write_all(&pairs);
                    while seen.left > 0 {
                        let got = kq.call(&[], &mut out, Wait::Forever)?;
                        for event in &out[..got] {
                            let fd = seen.take(event.udata.addr(), &pairs)?;
                            api::expect("ident", event.ident, fd as usize)?;
                            read_one(fd, event.data)?;
                        }
                    }
                }
                Ok(())
            })
        }
    })
}

/// Which of the active sockets have been reported in this sweep.
struct Seen {
    left: usize,
    seen: [bool; ACTIVE],
}

impl Seen {
    /// A new sweep: a byte to every one.
    fn write_all(pairs: &[(OwnedFd, OwnedFd)]) -> Seen {
        for (_, peer) in pairs {
            sys::write(sys::raw(peer), b"x");
        }
        Seen { left: pairs.len(), seen: [false; ACTIVE] }
    }

    /// The descriptor of number `i`, which must come once.
    #[inline]
    fn take(&mut self, i: usize, pairs: &[(OwnedFd, OwnedFd)]) -> Outcome<RawFd> {
        match self.seen.get_mut(i) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(format!("number {i} came twice")),
            None => return Err(format!("number {i} is idle")),
        }
        self.left -= 1;
        Ok(sys::raw(&pairs[i].0))
    }
}

/// Takes the one byte that was announced.
#[inline]
pub(crate) fn read_one(fd: RawFd, announced: isize) -> Outcome {
    let mut buf = [0; 16];
    api::expect("announced", announced, 1)?;
    api::expect("read", sys::read(fd, &mut buf), 1)
}

/// `batch` sockets added in one call and deleted in another. Every socket has data
/// waiting, and a look at the end of the turn finds none of them registered.
fn add_delete(side: Side, batch: usize) -> Outcome<Turn> {
    let pairs: Vec<_> = (0..batch).map(|_| sys::socketpair()).collect();
    for (_, peer) in &pairs {
        sys::write(sys::raw(peer), b"x");
    }
    Ok(match side {
        Side::Raw => {
            let ep = sys::epoll();
            Box::new(move |n| {
                for _ in 0..n {
                    for (fd, _) in &pairs {
                        sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(fd), IN, 7);
                    }
                    for (fd, _) in &pairs {
                        sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_DEL, sys::raw(fd), 0, 0);
                    }
                }
                api::expect("events", sys::epoll_wait(sys::raw(&ep), &mut [NONE; 8], 0), 0)
            })
        }
        Side::Lib(lib) => {
            let kq = lib.open()?;
            let each = |flags| {
                let on = |(fd, _): &(OwnedFd, OwnedFd)| on_fd(sys::raw(fd), EVFILT_READ, flags, 7);
                pairs.iter().map(on).collect::<Vec<_>>()
            };
            let (adds, deletes) = (each(EV_ADD), each(EV_DELETE));
            Box::new(move |n| {
                let _held = &pairs;
                for _ in 0..n {
                    kq.change(&adds)?;
                    kq.change(&deletes)?;
                }
                api::expect("events", kq.call(&[], &mut api::events(8), Wait::Poll)?, 0)
            })
        }
    })
}

/// A socket with data waiting, reported once each time it is armed again, in one call.
fn rearm(side: Side, again: u16) -> Outcome<Turn> {
    let (a, b) = sys::socketpair();
    sys::write(sys::raw(&b), b"x");
    Ok(match side {
        Side::Raw => {
            let ep = sys::epoll();
            let mode = IN | EPOLLONESHOT;
            sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(&a), mode, 7);
            Box::new(move |n| {
                let _held = &b;
                let mut out = [NONE; 8];
                for _ in 0..n {
                    sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_MOD, sys::raw(&a), mode, 7);
                    api::expect("events", sys::epoll_wait(sys::raw(&ep), &mut out, -1), 1)?;
                    check_in(&out[0], 7, sys::raw(&a), 1)?;
                }
                api::expect("disarmed", sys::epoll_wait(sys::raw(&ep), &mut out, 0), 0)
            })
        }
        Side::Lib(lib) => {
            let kq = lib.open()?;
            if again & EV_DISPATCH != 0 {
                kq.change(&[on_fd(sys::raw(&a), EVFILT_READ, EV_ADD | EV_DISPATCH, 7)])?;
            }
            let again = [on_fd(sys::raw(&a), EVFILT_READ, again, 7)];
            Box::new(move |n| {
                let _held = &b;
                let mut out = [change(0, 0, 0, 0); 8];
                for _ in 0..n {
                    api::expect("events", kq.call(&again, &mut out, Wait::Forever)?, 1)?;
                    check_read(&out[0], sys::raw(&a), 1)?;
                }
                api::expect("disarmed", kq.call(&[], &mut out, Wait::Poll)?, 0)
            })
        }
    })
}
