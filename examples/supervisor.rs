//! A supervisor: keeps one child running for each command, and stops them all on SIGTERM.
//!
//! `cargo run --release --example supervisor -- 'sleep 5' 'exec httpd -f'`
//!
//! `EVFILT_PROC` with `NOTE_EXIT` says which child ended, with no SIGCHLD handler. A child that
//! ends is started again after a pause, which `EVFILT_TIMER` measures and which doubles for
//! one that does not last. `EVFILT_SIGNAL` brings SIGTERM and SIGINT as events; as signals
//! they are ignored. Then the children get SIGTERM, and after a while SIGKILL.
#![allow(unsafe_code, reason = "kevent(), signal() and kill() are C functions")]

use std::collections::BTreeMap;
use std::ffi::{c_int, c_short, c_uint};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;
use std::time::{Duration, Instant};

use kqueue::{EV_ADD, EV_ONESHOT, EVFILT_PROC, EVFILT_SIGNAL, EVFILT_TIMER, NOTE_EXIT, kevent};

/// A child that ran for longer is started with no pause.
const LASTING: Duration = Duration::from_secs(10);
const PAUSE_MS: isize = 250;
const LONGEST_PAUSE_MS: isize = 30_000;
/// Between SIGTERM and SIGKILL.
const GRACE_MS: isize = 5_000;
/// The timer for that; the others have their service's number.
const GRACE: usize = usize::MAX;
const STOPS: [c_int; 2] = [libc::SIGTERM, libc::SIGINT];

struct Queue(OwnedFd);

impl Queue {
    fn new() -> io::Result<Self> {
        let fd = kqueue::kqueue();
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: kqueue() has just made this descriptor and gives it to its caller.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn add(&self, ident: usize, filter: c_short, fflags: c_uint, data: isize) -> io::Result<()> {
        let once = if filter == EVFILT_TIMER { EV_ONESHOT } else { 0 };
        let change = kevent { ident, filter, flags: EV_ADD | once, fflags, data, udata: ptr::null_mut() };
        // SAFETY: one change, no room for events, and a null timeout is none.
        let made = unsafe { kevent(self.0.as_raw_fd(), &raw const change, 1, ptr::null_mut(), 0, ptr::null()) };
        if made < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sleeps until one event is there.
    fn next(&self) -> io::Result<kevent> {
        let mut event = kevent { ident: 0, filter: 0, flags: 0, fflags: 0, data: 0, udata: ptr::null_mut() };
        loop {
            // SAFETY: no changes, room for one event, and a null timeout is none.
            let n = unsafe { kevent(self.0.as_raw_fd(), ptr::null(), 0, &raw mut event, 1, ptr::null()) };
            match usize::try_from(n) {
                Ok(_) => return Ok(event),
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
            }
        }
    }
}

struct Service {
    command: String,
    pause_ms: isize,
}

struct Running {
    service: usize,
    child: Child,
    started: Instant,
}

/// In a child: a program inherits what is ignored.
fn stop_by_signals() -> io::Result<()> {
    for stop in STOPS {
        // SAFETY: takes no pointers.
        unsafe { libc::signal(stop, libc::SIG_DFL) };
    }
    Ok(())
}

struct Supervisor {
    queue: Queue,
    services: Vec<Service>,
    /// By process number.
    running: BTreeMap<usize, Running>,
    stopping: bool,
}

impl Supervisor {
    fn start(&mut self, service: usize) -> io::Result<()> {
        let command = self.services[service].command.clone();
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(&command).process_group(0);
        // SAFETY: the closure calls nothing but signal(), which a forked child may.
        unsafe { shell.pre_exec(stop_by_signals) };
        let Ok(child) = shell.spawn() else { return self.start_later(service) };
        let pid = usize::try_from(child.id()).unwrap_or(0);
        // It may have ended already: then that is reported all the same.
        self.queue.add(pid, EVFILT_PROC, NOTE_EXIT, 0)?;
        println!("{command}: started, {pid}");
        self.running.insert(pid, Running { service, child, started: Instant::now() });
        Ok(())
    }

    fn start_later(&mut self, service: usize) -> io::Result<()> {
        let pause = &mut self.services[service].pause_ms;
        let now = *pause;
        *pause = (*pause * 2).min(LONGEST_PAUSE_MS);
        self.queue.add(service, EVFILT_TIMER, 0, now)
    }

    /// The event takes nothing away: the child is there to be waited for.
    fn ended(&mut self, pid: usize) -> io::Result<()> {
        let Some(mut gone) = self.running.remove(&pid) else { return Ok(()) };
        let status = gone.child.wait()?;
        println!("{}: {status}", self.services[gone.service].command);
        if self.stopping {
            return Ok(());
        }
        if gone.started.elapsed() < LASTING {
            return self.start_later(gone.service);
        }
        self.services[gone.service].pause_ms = PAUSE_MS;
        self.start(gone.service)
    }

    fn signal_all(&self, signal: c_int) {
        for &pid in self.running.keys() {
            let group = -libc::pid_t::try_from(pid).unwrap_or(0);
            // SAFETY: takes no pointers; each child leads a group of its own.
            unsafe { libc::kill(group, signal) };
        }
    }

    fn stop(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.stopping, true) {
            return Ok(());
        }
        self.signal_all(libc::SIGTERM);
        self.queue.add(GRACE, EVFILT_TIMER, 0, GRACE_MS)
    }

    fn run(&mut self) -> io::Result<()> {
        for stop in STOPS {
            // SAFETY: takes no pointers.
            unsafe { libc::signal(stop, libc::SIG_IGN) };
            self.queue.add(usize::try_from(stop).unwrap_or(0), EVFILT_SIGNAL, 0, 0)?;
        }
        for service in 0..self.services.len() {
            self.start(service)?;
        }
        while !self.stopping || !self.running.is_empty() {
            let event = self.queue.next()?;
            match (event.filter, event.ident) {
                (EVFILT_SIGNAL, _) => self.stop()?,
                (EVFILT_PROC, pid) => self.ended(pid)?,
                (_, GRACE) => self.signal_all(libc::SIGKILL),
                (_, service) if !self.stopping => self.start(service)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let services: Vec<Service> =
        std::env::args().skip(1).map(|command| Service { command, pause_ms: PAUSE_MS }).collect();
    if services.is_empty() {
        return Err(io::Error::other("usage: supervisor COMMAND..."));
    }
    Supervisor { queue: Queue::new()?, services, running: BTreeMap::new(), stopping: false }.run()
}
