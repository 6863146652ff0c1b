//! An echo server for thousands of connections: one thread, one kqueue.
//!
//! `cargo run --release --example echo [port]`
//!
//! What a client does not take at once is kept for it; its `EVFILT_READ` is disabled and
//! its `EVFILT_WRITE` enabled until everything is out. So a connection holds at most one
//! chunk, and one that keeps up holds none.
#![allow(unsafe_code, reason = "kevent() is a C function; the two blocks are in Queue")]

use std::collections::HashMap;
use std::ffi::{c_int, c_short, c_ushort};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use kqueue::{EV_ADD, EV_DISABLE, EV_ENABLE, EV_ERROR, EV_ONESHOT, EVFILT_READ, EVFILT_TIMER, EVFILT_WRITE, kevent};

/// Events taken in one call.
const EVENTS: usize = 256;
/// Connections accepted in one round; the rest comes with the next.
const ACCEPTS: isize = 256;
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// How long the listener rests when descriptors run out, in ms.
const PAUSE: isize = 100;

/// A kqueue, closed when dropped, and the changes its next wait will make.
struct Queue {
    fd: OwnedFd,
    changes: Vec<kevent>,
}

impl Queue {
    fn new() -> io::Result<Self> {
        let fd = kqueue::kqueue();
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: kqueue() has just made this descriptor and gives it to its caller.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let changes = Vec::new();
        Ok(Self { fd, changes })
    }

    /// Notes one change of the filter `filter` on `fd`.
    fn change(&mut self, fd: RawFd, filter: c_short, flags: c_ushort, data: isize) {
        self.changes.push(kevent {
            ident: usize::try_from(fd).unwrap_or(usize::MAX),
            filter,
            flags,
            fflags: 0,
            data,
            udata: ptr::null_mut(),
        });
    }

    /// Makes the changes, then waits for events.
    fn wait<'a>(&mut self, events: &'a mut [kevent]) -> io::Result<&'a [kevent]> {
        // SAFETY: both arrays are as long as said, and a null timeout is none.
        let n = unsafe {
            kevent(
                self.fd.as_raw_fd(),
                self.changes.as_ptr(),
                c_int::try_from(self.changes.len()).unwrap_or(c_int::MAX),
                events.as_mut_ptr(),
                c_int::try_from(events.len()).unwrap_or(c_int::MAX),
                ptr::null(),
            )
        };
        // An interrupted wait has made them too.
        self.changes.clear();
        match usize::try_from(n) {
            Ok(n) => Ok(&events[..n]),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == ErrorKind::Interrupted => Ok(&[]),
                e => Err(e),
            },
        }
    }
}

/// A client and what it has not taken yet.
struct Conn {
    stream: TcpStream,
    unsent: Vec<u8>,
}

/// `Ok(None)`: not now, try again when told.
fn attempt(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e),
    }
}

impl Conn {
    /// Echoes one chunk. `Ok(false)` at the end of the client's data.
    fn readable(&mut self, queue: &mut Queue, buf: &mut [u8]) -> io::Result<bool> {
        let Some(n) = attempt(self.stream.read(buf))? else {
            return Ok(true);
        };
        if n == 0 {
            return Ok(false);
        }
        let sent = attempt(self.stream.write(&buf[..n]))?.unwrap_or(0);
        if sent < n {
            self.unsent.extend_from_slice(&buf[sent..n]);
            let fd = self.stream.as_raw_fd();
            queue.change(fd, EVFILT_READ, EV_DISABLE, 0);
            queue.change(fd, EVFILT_WRITE, EV_ADD | EV_ENABLE, 0);
        }
        Ok(true)
    }

    /// Sends more of what is left.
    fn writable(&mut self, queue: &mut Queue) -> io::Result<bool> {
        let sent = attempt(self.stream.write(&self.unsent))?.unwrap_or(0);
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
            let fd = self.stream.as_raw_fd();
            queue.change(fd, EVFILT_WRITE, EV_DISABLE, 0);
            queue.change(fd, EVFILT_READ, EV_ENABLE, 0);
        }
        Ok(true)
    }
}

struct Server {
    queue: Queue,
    listener: TcpListener,
    conns: HashMap<usize, Conn>,
    buf: Vec<u8>,
}

impl Server {
    /// An event of a client. Dropping the connection closes it, and its knotes go along.
    fn client(&mut self, ev: &kevent) {
        let Some(conn) = self.conns.get_mut(&ev.ident) else {
            return;
        };
        let alive = match ev.filter {
            _ if ev.flags & EV_ERROR != 0 => Ok(false),
            EVFILT_READ => conn.readable(&mut self.queue, &mut self.buf),
            _ => conn.writable(&mut self.queue),
        };
        if !matches!(alive, Ok(true)) {
            self.conns.remove(&ev.ident);
        }
    }

    /// Accepts as many as the event's `data` says are there.
    fn accept(&mut self, waiting: isize) -> io::Result<()> {
        for _ in 0..waiting.min(ACCEPTS) {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    // The level-triggered knote would be reported at once, for ever.
                    let fd = self.listener.as_raw_fd();
                    self.queue.change(fd, EVFILT_READ, EV_DISABLE, 0);
                    self.queue.change(fd, EVFILT_TIMER, EV_ADD | EV_ONESHOT, PAUSE);
                    return Ok(());
                }
                // That client has left meanwhile.
                Err(_) => continue,
            };
            stream.set_nonblocking(true)?;
            let fd = stream.as_raw_fd();
            self.queue.change(fd, EVFILT_READ, EV_ADD, 0);
            let unsent = Vec::new();
            let key = usize::try_from(fd).unwrap_or(usize::MAX);
            self.conns.insert(key, Conn { stream, unsent });
        }
        Ok(())
    }

    /// Clients first: a number that one of them frees in this round is then not taken by
    /// a new connection before the round's last event is handled.
    fn round(&mut self, events: &[kevent]) -> io::Result<()> {
        let fd = self.listener.as_raw_fd();
        let ours = |ev: &&kevent| usize::try_from(fd) == Ok(ev.ident);
        for ev in events.iter().filter(|ev| !ours(ev)) {
            self.client(ev);
        }
        for ev in events.iter().filter(ours) {
            if ev.flags & EV_ERROR != 0 {
                let errno = i32::try_from(ev.data).unwrap_or(libc::EINVAL);
                return Err(io::Error::from_raw_os_error(errno));
            } else if ev.filter == EVFILT_TIMER {
                self.queue.change(fd, EVFILT_READ, EV_ENABLE, 0);
            } else {
                self.accept(ev.data)?;
            }
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|p| p.parse().ok());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.unwrap_or(7007)))?;
    listener.set_nonblocking(true)?;
    println!("echo: listening on {}", listener.local_addr()?);
    let mut queue = Queue::new()?;
    queue.change(listener.as_raw_fd(), EVFILT_READ, EV_ADD, 0);
    let mut server = Server { queue, listener, conns: HashMap::new(), buf: vec![0; CHUNK] };
    let mut events = [kevent { ident: 0, filter: 0, flags: 0, fflags: 0, data: 0, udata: ptr::null_mut() }; EVENTS];
    loop {
        let events = server.queue.wait(&mut events)?;
        server.round(events)?;
    }
}
