//! Workloads of servers: both filters on many sockets, and a TCP echo between threads.

use crate::api::{self, *};
use crate::frame::{Side, Turn, Workload};
use crate::ready::{IN, NONE};
use crate::{lean, sys};
use libc::{EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLLIN, EPOLLOUT, epoll_event};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::thread::{self, JoinHandle};

/// The workloads of this file.
pub(crate) fn list() -> Vec<Workload> {
    vec![
        Workload::new("read-write-64", read_write).ops(SOCKETS).bound(1.05),
        Workload::new("tcp-echo", tcp_echo).bound(1.02),
        Workload::new("tcp-echo-2-cores", tcp_echo).cores(2).bound(1.02),
    ]
}

/// Connections of `read_write`.
const SOCKETS: usize = 64;
/// Bytes of a request and of a reply.
const MESSAGE: usize = 64;

/// A server's and a client's end.
type Pair = (OwnedFd, OwnedFd);
/// Answers one request of each client.
type Server = Box<dyn FnMut(&[Pair]) -> Outcome>;

/// Every client sends a request. The server reads each, asks for room to write, replies
/// when told that there is some, and stops asking, as HTTP servers do.
fn read_write(side: Side) -> Outcome<Turn> {
    let pairs: Vec<_> = (0..SOCKETS).map(|_| sys::socketpair()).collect();
    let mut server: Server = match side {
        Side::Raw => raw_server(&pairs),
        Side::Lib(lib) => lib_server(lib.open()?, &pairs)?,
    };
    Ok(Box::new(move |n| {
        let mut buf = [0; 2 * MESSAGE];
        for _ in 0..n {
            for (_, client) in &pairs {
                sys::write(sys::raw(client), &[b'q'; MESSAGE]);
            }
            server(&pairs)?;
            for (_, client) in &pairs {
                api::expect("reply", sys::read(sys::raw(client), &mut buf), MESSAGE)?;
            }
        }
        Ok(())
    }))
}

/// Reads a request of which `announced` bytes are said to be there.
#[inline]
fn take_request(fd: RawFd, announced: usize) -> Outcome {
    let mut buf = [0; 2 * MESSAGE];
    api::expect("announced", announced, MESSAGE)?;
    api::expect("request", sys::read(fd, &mut buf), MESSAGE)
}

fn raw_server(pairs: &[Pair]) -> Server {
    let ep = sys::epoll();
    for (i, (fd, _)) in pairs.iter().enumerate() {
        sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(fd), IN, i as u64);
    }
    let mut out = [NONE; 2 * SOCKETS];
    Box::new(move |pairs| {
        for (want, other) in [(EPOLLIN, EPOLLOUT), (EPOLLOUT, EPOLLIN)] {
            let mut left = SOCKETS;
            while left > 0 {
                let got = sys::epoll_wait(sys::raw(&ep), &mut out, -1);
                left = left.checked_sub(got).ok_or("too many events")?;
                for event in &out[..got] {
                    let (mask, i) = (event.events as i32, event.u64);
                    let fd = sys::raw(&pairs[i as usize].0);
                    api::expect("ready as asked", mask & (want | other), want)?;
                    let mut interest = IN;
                    if want == EPOLLIN {
                        take_request(fd, if lean() { MESSAGE } else { sys::fionread(fd) as usize })?;
                        interest |= EPOLLOUT;
                    } else {
                        api::expect("unsent", if lean() { 0 } else { sys::outq(fd) }, 0)?;
                        sys::write(fd, &[b'a'; MESSAGE]);
                    }
                    sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_MOD, fd, interest, i);
                }
            }
        }
        Ok(())
    })
}

/// The changes to EVFILT_WRITE go along with the next wait, as kqueue programs have it.
fn lib_server(kq: Kq, pairs: &[Pair]) -> Outcome<Server> {
    let add = |(i, (fd, _)): (usize, &Pair)| on_fd(sys::raw(fd), EVFILT_READ, EV_ADD, i);
    kq.change(&pairs.iter().enumerate().map(add).collect::<Vec<_>>())?;
    let mut out = api::events(2 * SOCKETS);
    let mut changes = Vec::with_capacity(SOCKETS);
    Ok(Box::new(move |_| {
        for (want, toggle) in [(EVFILT_READ, EV_ADD), (EVFILT_WRITE, EV_DELETE)] {
            let mut left = SOCKETS;
            let mut next = Vec::with_capacity(SOCKETS);
            while left > 0 {
                let got = kq.call(&changes, &mut out, Wait::Forever)?;
                changes.clear();
                left = left.checked_sub(got).ok_or("too many events")?;
                for event in &out[..got] {
                    let fd = event.ident as RawFd;
                    api::expect("filter", event.filter, want)?;
                    if want == EVFILT_READ {
                        take_request(fd, event.data as usize)?;
                    } else {
                        api::expect("room", event.data >= MESSAGE as isize, true)?;
                        sys::write(fd, &[b'a'; MESSAGE]);
                    }
                    next.push(on_fd(fd, EVFILT_WRITE, toggle, event.udata.addr()));
                }
            }
            changes = next;
        }
        Ok(())
    }))
}

/// Waits for one descriptor to become readable.
enum Reader {
    Raw { ep: OwnedFd, fd: RawFd },
    Lib { kq: Kq, fd: RawFd },
}

impl Reader {
    fn new(side: Side, fd: RawFd) -> Outcome<Reader> {
        Ok(match side {
            Side::Raw => {
                let ep = sys::epoll();
                sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, fd, IN, 7);
                Reader::Raw { ep, fd }
            }
            Side::Lib(lib) => {
                let kq = lib.open()?;
                kq.change(&[on_fd(fd, EVFILT_READ, EV_ADD, 7)])?;
                Reader::Lib { kq, fd }
            }
        })
    }

    /// Sleeps until there is something; the number of bytes, 0 at the end.
    #[inline]
    fn wait(&self) -> Outcome<usize> {
        match self {
            Reader::Raw { ep, fd } => {
                let mut out: [epoll_event; 8] = [NONE; 8];
                api::expect("events", sys::epoll_wait(sys::raw(ep), &mut out, -1), 1)?;
                let over = out[0].events & libc::EPOLLRDHUP as u32 != 0;
                Ok(match (lean(), over) {
                    (true, true) => 0,
                    (true, false) => MESSAGE,
                    (false, _) => sys::fionread(*fd) as usize,
                })
            }
            Reader::Lib { kq, fd } => {
                let mut out = [change(0, 0, 0, 0); 8];
                api::expect("events", kq.call(&[], &mut out, Wait::Forever)?, 1)?;
                api::expect("ident", out[0].ident, *fd as usize)?;
                usize::try_from(out[0].data).map_err(|_| format!("{:?}", out[0]))
            }
        }
    }
}

/// The client's end, and the thread that answers it.
struct Echo {
    client: TcpStream,
    server: Option<JoinHandle<Outcome<usize>>>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        // The server sees the end of the stream and returns; what it says is of no use now.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.take().map(JoinHandle::join);
    }
}

/// A message to a server thread and back, each thread in a queue of its own. The wait
/// sleeps on both sides: the answer cannot be there before the question was read.
fn tcp_echo(side: Side) -> Outcome<Turn> {
    let words = |e: std::io::Error| e.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").map_err(words)?;
    let client = TcpStream::connect(listener.local_addr().map_err(words)?).map_err(words)?;
    let (server, _) = listener.accept().map_err(words)?;
    client.set_nodelay(true).map_err(words)?;
    server.set_nodelay(true).map_err(words)?;
    let reader = Reader::new(side, client.as_raw_fd())?;
    let server = Some(thread::spawn(move || answer(side, server)));
    let mut echo = Echo { client, server };
    Ok(Box::new(move |n| {
        let mut buf = [b'q'; MESSAGE];
        for _ in 0..n {
            echo.client.write_all(&buf).map_err(|e| e.to_string())?;
            let came = reader.wait()?;
            if came != MESSAGE {
                let why = echo.server.take().map(JoinHandle::join);
                return Err(format!("{came} bytes came back; the server: {why:?}"));
            }
            echo.client.read_exact(&mut buf).map_err(|e| e.to_string())?;
        }
        Ok(())
    }))
}

/// The server thread: the number of messages answered when the client has gone.
fn answer(side: Side, mut stream: TcpStream) -> Outcome<usize> {
    let reader = Reader::new(side, stream.as_raw_fd())?;
    let mut buf = [0; MESSAGE];
    for answered in 0.. {
        match reader.wait()? {
            0 => return Ok(answered),
            MESSAGE => {}
            other => return Err(format!("{other} bytes came")),
        }
        stream.read_exact(&mut buf).map_err(|e| e.to_string())?;
        stream.write_all(&buf).map_err(|e| e.to_string())?;
    }
    Ok(0)
}
