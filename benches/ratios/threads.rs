//! Workloads of several threads: all on one queue, and each on a queue of its own.

use crate::api::{self, *};
use crate::frame::{Side, Turn, Workload};
use crate::ready::{self, IN, NONE};
use crate::sys;
use libc::{EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLLIN, EPOLLONESHOT};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// The workloads of this file.
pub(crate) fn list() -> Vec<Workload> {
    vec![
        dispatch("dispatch-two-threads-2-cores", 2).bound(1.2),
        Workload::new("two-queues-2-cores", |side| queues(side, 2)).ops(2).cores(2),
        Workload::new("two-queues-against-one", |side| queues(side, 2))
            .ops(2)
            .cores(2)
            .against(|side| queues(side, 1))
            .bound(1.03),
    ]
}

/// So many threads on one queue, on two cores.
pub(crate) fn dispatch(name: &str, threads: usize) -> Workload {
    Workload::new(name, move |side| shared_queue(side, threads)).ops(SOCKETS).longer(4.0).cores(2)
}

/// Sockets on the shared queue.
const SOCKETS: usize = 64;
/// The token of the pipe that ends a turn.
const OVER: usize = SOCKETS;

/// A queue of either side.
enum Queue {
    Raw(OwnedFd),
    Lib(Kq),
}

impl Queue {
    fn new(side: Side) -> Outcome<Queue> {
        Ok(match side {
            Side::Raw => Queue::Raw(sys::epoll()),
            Side::Lib(lib) => Queue::Lib(lib.open()?),
        })
    }

    /// Registers a descriptor whose readability is told for as long as it lasts.
    fn level(&self, fd: &OwnedFd, token: usize) -> Outcome {
        match self {
            Queue::Raw(ep) => sys::epoll_ctl(sys::raw(ep), EPOLL_CTL_ADD, sys::raw(fd), IN, token as u64),
            Queue::Lib(kq) => kq.change(&[on_fd(sys::raw(fd), EVFILT_READ, EV_ADD, token)])?,
        }
        Ok(())
    }

    /// Registers one that is told of once each time it is armed.
    fn once(&self, fd: &OwnedFd, token: usize) -> Outcome {
        match self {
            Queue::Raw(ep) => sys::epoll_ctl(sys::raw(ep), EPOLL_CTL_ADD, sys::raw(fd), EPOLLONESHOT, token as u64),
            Queue::Lib(kq) => {
                kq.change(&[on_fd(sys::raw(fd), EVFILT_READ, EV_ADD | EV_DISPATCH | EV_DISABLE, token)])?
            }
        }
        Ok(())
    }

    #[inline]
    fn arm(&self, fd: &OwnedFd, token: usize) -> Outcome {
        match self {
            Queue::Raw(ep) => {
                sys::epoll_ctl(sys::raw(ep), EPOLL_CTL_MOD, sys::raw(fd), IN | EPOLLONESHOT, token as u64);
                Ok(())
            }
            Queue::Lib(kq) => kq.change(&[on_fd(sys::raw(fd), EVFILT_READ, EV_ENABLE | EV_DISPATCH, token)]),
        }
    }

    /// Waits, and hands the token and the bytes of each event to `each`.
    #[inline]
    fn wait(&self, fds: &[(OwnedFd, OwnedFd)], each: &mut impl FnMut(usize, isize) -> Outcome) -> Outcome {
        match self {
            Queue::Raw(ep) => {
                let mut out = [NONE; 8];
                let got = sys::epoll_wait(sys::raw(ep), &mut out, -1);
                for event in &out[..got] {
                    let (token, mask) = (event.u64 as usize, event.events);
                    api::expect("readable", mask & EPOLLIN as u32 != 0, true)?;
                    let bytes = fds.get(token).map_or(1, |(fd, _)| sys::fionread(sys::raw(fd)) as isize);
                    each(token, bytes)?;
                }
            }
            Queue::Lib(kq) => {
                let mut out = [change(0, 0, 0, 0); 8];
                let got = kq.call(&[], &mut out, Wait::Forever)?;
                for event in &out[..got] {
                    each(event.udata.addr(), event.data)?;
                }
            }
        }
        Ok(())
    }
}

/// One queue that several threads serve.
struct Shared {
    queue: Queue,
    pairs: Vec<(OwnedFd, OwnedFd)>,
    over: (OwnedFd, OwnedFd),
    /// A thread is at this socket.
    busy: Vec<AtomicBool>,
    /// How often each socket is still to be reported.
    to_come: Vec<AtomicUsize>,
    left: AtomicUsize,
}

impl Shared {
    /// What each thread does: takes events and arms their sockets again.
    fn serve(&self) -> Outcome {
        let mut over = false;
        while !over {
            self.queue.wait(&self.pairs, &mut |token, bytes| {
                api::expect("bytes", bytes, 1)?;
                if token == OVER {
                    over = true;
                    return Ok(());
                }
                self.served(token)
            })?;
        }
        Ok(())
    }

    #[inline]
    fn served(&self, token: usize) -> Outcome {
        // Never two threads at one socket, and never more reports than it was armed for.
        api::expect("another thread there", self.busy[token].swap(true, Ordering::AcqRel), false)?;
        let to_come = self.to_come[token].load(Ordering::Relaxed);
        api::expect("report nobody asked for", to_come == 0, false)?;
        self.to_come[token].store(to_come - 1, Ordering::Relaxed);
        self.busy[token].store(false, Ordering::Release);
        if to_come > 1 {
            self.queue.arm(&self.pairs[token].0, token)?;
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            sys::write(sys::raw(&self.over.1), b"x");
        }
        Ok(())
    }
}

/// Readable sockets, each reported to one of the threads, which arms it again.
fn shared_queue(side: Side, threads: usize) -> Outcome<Turn> {
    let pairs: Vec<_> = (0..SOCKETS).map(|_| sys::socketpair()).collect();
    let shared = Shared {
        queue: Queue::new(side)?,
        over: sys::pipe(),
        busy: pairs.iter().map(|_| AtomicBool::new(false)).collect(),
        to_come: pairs.iter().map(|_| AtomicUsize::new(0)).collect(),
        left: AtomicUsize::new(0),
        pairs,
    };
    shared.queue.level(&shared.over.0, OVER)?;
    for (token, (fd, peer)) in shared.pairs.iter().enumerate() {
        sys::write(sys::raw(peer), b"x");
        shared.queue.once(fd, token)?;
    }
    let team = Team::new(threads);
    Ok(Box::new(move |n| {
        shared.left.store(n * SOCKETS, Ordering::Release);
        shared.to_come.iter().for_each(|to_come| to_come.store(n, Ordering::Release));
        for (token, (fd, _)) in shared.pairs.iter().enumerate() {
            shared.queue.arm(fd, token)?;
        }
        team.run(|_| shared.serve())?;
        api::expect("reports left", shared.left.load(Ordering::Acquire), 0)?;
        api::expect("end", sys::read(sys::raw(&shared.over.0), &mut [0; 8]), 1)
    }))
}

/// Threads that work at once, each bound to a core: whether two of them share one is not left
/// to chance.
struct Team {
    threads: usize,
    cores: Vec<usize>,
}

impl Team {
    fn new(threads: usize) -> Team {
        Team { threads, cores: sys::cores() }
    }

    /// Runs `part` in every thread, this one among them, once all of them are there.
    fn run(&self, part: impl Fn(usize) -> Outcome + Sync) -> Outcome {
        let there = AtomicUsize::new(0);
        let part = &|which| {
            sys::bind(&[self.cores[which % self.cores.len()]]);
            there.fetch_add(1, Ordering::AcqRel);
            while there.load(Ordering::Acquire) < self.threads {
                thread::yield_now();
            }
            part(which)
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..self.threads).map(|which| scope.spawn(move || part(which))).collect();
            let mine = part(0);
            let panicked = |_| Err("a thread panicked".to_owned());
            others.into_iter().fold(mine, |so_far, other| so_far.and(other.join().unwrap_or_else(panicked)))
        })
    }
}

/// A byte written to the pipe, told of by the queue, and read.
#[inline]
fn pong(queue: &Queue, pipe: &[(OwnedFd, OwnedFd)]) -> Outcome {
    let mut events = 0;
    sys::write(sys::raw(&pipe[0].1), b"x");
    queue.wait(pipe, &mut |token, bytes| {
        events += 1;
        api::expect("token", token, 0)?;
        ready::read_one(sys::raw(&pipe[0].0), bytes)
    })?;
    api::expect("events", events, 1)
}

/// Threads, each with a queue and a pipe of its own, at the ping-pong of `pipe-pingpong`:
/// what they take from each other shows beside that line, and in how two compare to one.
fn queues(side: Side, threads: usize) -> Outcome<Turn> {
    let mut own = Vec::new();
    for _ in 0..threads {
        let (queue, pipe) = (Queue::new(side)?, sys::pipe());
        queue.level(&pipe.0, 0)?;
        own.push((queue, [pipe]));
    }
    let team = Team::new(threads);
    Ok(Box::new(move |n| {
        team.run(|which| {
            let (queue, pipe) = &own[which];
            (0..n).try_for_each(|_| pong(queue, pipe))
        })
    }))
}

/// The same ping-pong in one thread on one of `count` queues after the other.
pub(crate) fn many_queues(count: usize) -> Workload {
    let make =
        move |side| {
            let mut own = Vec::new();
            for _ in 0..count {
                let (queue, pipe) = (Queue::new(side)?, sys::pipe());
                queue.level(&pipe.0, 0)?;
                own.push((queue, [pipe]));
            }
            Ok(Box::new(move |n: usize| {
                (0..n).try_for_each(|_| own.iter().try_for_each(|(queue, pipe)| pong(queue, pipe)))
            }) as Turn)
        };
    Workload::new(format!("queues-{count}"), make).ops(count).fds(8 * count as u64 + 100)
}
