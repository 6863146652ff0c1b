//! The descriptors of one case, the model of its queue, and the comparison of the two.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use crate::knote::{Knote, Pending};
use kqueue::abi::*;
use libc::{c_int, c_short, c_ushort};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};

pub(crate) type Step = Result<(), TestCaseError>;

const PIPES: usize = 3;
/// Slots: READ of each pipe, WRITE of each pipe, READ and WRITE of the socket, users.
const SOCK_READ: usize = 2 * PIPES;
const SOCK_WRITE: usize = SOCK_READ + 1;
const FIRST_USER: usize = SOCK_WRITE + 1;
pub(crate) const SLOTS: usize = FIRST_USER + 4;
/// Sources of bytes: the pipes and the socket.
pub(crate) const SOURCES: usize = PIPES + 1;
/// Kept far below a pipe's size, so that the write ends stay ready.
const MOST_BYTES: usize = 3000;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Add,
    AddDisabled,
    Delete,
    Enable,
    Disable,
    Nothing,
    EnableAndDisable,
}

#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) slot: usize,
    pub(crate) action: Action,
    /// `EV_CLEAR`, `EV_ONESHOT` and `EV_DISPATCH` of an `EV_ADD`.
    pub(crate) mode: c_ushort,
    pub(crate) keep_udata: bool,
    pub(crate) receipt: bool,
    pub(crate) trigger: bool,
    pub(crate) control: u32,
    pub(crate) bits: u32,
    pub(crate) data: isize,
    pub(crate) udata: usize,
}

/// The descriptors of one case and what the model thinks of the queue.
pub(crate) struct World {
    kq: OwnedFd,
    pipes: Vec<(OwnedFd, OwnedFd)>,
    watched: UnixStream,
    peer: UnixStream,
    pipe_size: usize,
    bytes: [usize; SOURCES],
    knotes: BTreeMap<usize, Knote>,
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [-1; 2];
    // SAFETY: fds has room for the two numbers pipe2 writes.
    let r = unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
    assert_eq!(r, 0, "pipe2");
    // SAFETY: pipe2 succeeded, so this number is open and nobody else's.
    let reader = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: as above.
    let writer = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    (reader, writer)
}

fn call(kq: &OwnedFd, changes: &[Kevent], room: usize) -> Result<Vec<Kevent>, c_int> {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut out = Vec::with_capacity(room);
    let (n, m) = (changes.len() as c_int, room as c_int);
    // SAFETY: both arrays live through the call and have at least the lengths given.
    let r = unsafe { kqueue::kevent(kq.as_raw_fd(), changes.as_ptr(), n, out.as_mut_ptr(), m, &raw const zero) };
    match usize::try_from(r) {
        Ok(len) => {
            assert!(len <= room, "{len} events in room for {room}");
            // SAFETY: kevent wrote the first len entries.
            unsafe { out.set_len(len) };
            Ok(out)
        }
        Err(_) => Err(std::io::Error::last_os_error().raw_os_error().expect("an errno after -1")),
    }
}

/// The source of bytes behind a READ slot.
fn source(slot: usize) -> Option<usize> {
    match slot {
        s if s < PIPES => Some(s),
        SOCK_READ => Some(PIPES),
        _ => None,
    }
}

impl World {
    pub(crate) fn new() -> World {
        // SAFETY: takes nothing.
        #[allow(unused_unsafe)]
        let number = unsafe { kqueue::kqueue() };
        assert!(number >= 0, "kqueue");
        // SAFETY: kqueue succeeded, so the number is open and nobody else's.
        let kq = unsafe { OwnedFd::from_raw_fd(number) };
        let pipes: Vec<_> = (0..PIPES).map(|_| pipe()).collect();
        // SAFETY: asks for a number only.
        let size = unsafe { libc::fcntl(pipes[0].1.as_raw_fd(), libc::F_GETPIPE_SZ) };
        let (watched, peer) = UnixStream::pair().expect("socketpair");
        World {
            kq,
            pipes,
            watched,
            peer,
            pipe_size: usize::try_from(size).expect("a pipe's size"),
            bytes: [0; SOURCES],
            knotes: BTreeMap::new(),
        }
    }

    fn key(&self, slot: usize) -> (usize, c_short) {
        let fd = |n: c_int| usize::try_from(n).expect("an open descriptor");
        match slot {
            s if s < PIPES => (fd(self.pipes[s].0.as_raw_fd()), EVFILT_READ),
            s if s < SOCK_READ => (fd(self.pipes[s - PIPES].1.as_raw_fd()), EVFILT_WRITE),
            SOCK_READ => (fd(self.watched.as_raw_fd()), EVFILT_READ),
            SOCK_WRITE => (fd(self.watched.as_raw_fd()), EVFILT_WRITE),
            s => (s - FIRST_USER, EVFILT_USER),
        }
    }

    fn slot_of(&self, event: &Kevent) -> Option<usize> {
        (0..SLOTS).find(|&s| self.key(s) == (event.ident, event.filter))
    }

    /// The change as the library sees it. Combinations on which the BSDs differ are
    /// turned into neighbours on which they agree.
    fn kevent_of(&self, c: &Change) -> Kevent {
        let (ident, filter) = self.key(c.slot);
        let old = self.knotes.get(&c.slot);
        let adds = matches!(c.action, Action::Add | Action::AddDisabled);
        let mut flags = match c.action {
            Action::Add => EV_ADD,
            Action::AddDisabled => EV_ADD | EV_DISABLE,
            Action::Delete => EV_DELETE,
            Action::Enable => EV_ENABLE,
            Action::Disable => EV_DISABLE,
            Action::Nothing => 0,
            Action::EnableAndDisable => EV_ADD | EV_ENABLE | EV_DISABLE,
        };
        if adds {
            flags |= c.mode;
        }
        if old.is_some_and(|k| k.mode & EV_CLEAR != 0) {
            flags &= !EV_CLEAR;
        }
        if c.keep_udata {
            flags |= EV_KEEPUDATA;
        }
        if c.receipt {
            flags |= EV_RECEIPT;
        }
        let (mut fflags, mut data) = (0, 0);
        if filter == EVFILT_USER {
            let takes_back = old.is_some() && flags & EV_CLEAR != 0;
            fflags = c.bits | if adds { NOTE_FFCOPY } else { c.control };
            if c.trigger && !takes_back {
                fflags |= NOTE_TRIGGER;
            }
            data = match old {
                Some(k) if !adds && fflags & NOTE_TRIGGER == 0 => k.data,
                _ => c.data,
            };
        }
        Kevent { ident, filter, flags, fflags, data, udata: ptr::without_provenance_mut(c.udata) }
    }

    /// What the change does to the model; the errno it must give, 0 for success.
    fn change(&mut self, slot: usize, kev: &Kevent) -> c_int {
        let adds = kev.flags & EV_ADD != 0;
        if kev.flags & (EV_ENABLE | EV_DISABLE) == EV_ENABLE | EV_DISABLE || (adds && kev.flags & EV_KEEPUDATA != 0) {
            return libc::EINVAL;
        }
        if !adds && !self.knotes.contains_key(&slot) {
            return libc::ENOENT;
        }
        if kev.flags & EV_DELETE != 0 {
            self.knotes.remove(&slot);
        } else if let Some(k) = self.knotes.get_mut(&slot) {
            k.modify(kev);
        } else {
            self.knotes.insert(slot, Knote::added(kev));
        }
        0
    }

    fn pending(&self, slot: usize) -> Pending {
        let Some(k) = self.knotes.get(&slot) else {
            return Pending::No;
        };
        let empty = source(slot).is_some_and(|s| self.bytes[s] == 0);
        match () {
            () if !k.enabled || empty => Pending::No,
            () if slot >= FIRST_USER => {
                if k.triggered {
                    Pending::Must
                } else {
                    Pending::No
                }
            }
            () if k.mode & EV_CLEAR != 0 => k.edge,
            () => Pending::Must,
        }
    }

    /// One call: changes, their errors and receipts, then what is pending.
    pub(crate) fn kevent(&mut self, changes: &[Change], room: usize) -> Step {
        let room = if room == 0 { 0 } else { changes.len() + room - 1 };
        let mut list = Vec::new();
        let mut answers = Vec::new();
        let mut stopped = None;
        for c in changes {
            let kev = self.kevent_of(c);
            list.push(kev);
            if stopped.is_some() {
                continue;
            }
            let errno = self.change(c.slot, &kev);
            if errno != 0 || c.receipt {
                answers.push((kev, errno));
                if room == 0 {
                    stopped = Some(errno);
                }
            }
        }
        let got = call(&self.kq, &list, room);
        match (stopped, got) {
            (Some(0), Ok(events)) => prop_assert_eq!(events.len(), 0),
            (Some(errno), got) => prop_assert_eq!(got.err(), Some(errno), "{:?}", list),
            (None, Err(errno)) => prop_assert!(false, "errno {} for {:?}", errno, list),
            (None, Ok(events)) if !answers.is_empty() => return compare_answers(&answers, &events),
            (None, Ok(events)) => return self.collected(&events, room),
        }
        Ok(())
    }

    fn collected(&mut self, events: &[Kevent], room: usize) -> Step {
        let before: Vec<_> = (0..SLOTS).map(|s| self.pending(s)).collect();
        let mut seen = [false; SLOTS];
        for e in events {
            let slot = self.slot_of(e);
            prop_assert!(slot.is_some(), "an event of nobody: {:?}", e);
            let slot = slot.expect("just asserted");
            prop_assert!(!seen[slot], "twice in one call: {:?}", e);
            seen[slot] = true;
            prop_assert!(before[slot] != Pending::No, "not pending: {:?} {:?}", e, self.knotes.get(&slot));
            self.compare_event(slot, e)?;
            self.deliver(slot);
        }
        if events.len() == room {
            return Ok(());
        }
        for slot in (0..SLOTS).filter(|&s| !seen[s]) {
            prop_assert!(before[slot] != Pending::Must, "missed: {:?} {:?}", self.key(slot), self.knotes.get(&slot));
            if let (Pending::May, Some(k)) = (before[slot], self.knotes.get_mut(&slot)) {
                k.edge = Pending::No;
            }
        }
        Ok(())
    }

    fn compare_event(&self, slot: usize, e: &Kevent) -> Step {
        let k = &self.knotes[&slot];
        prop_assert_eq!(e.flags, k.mode, "flags of {:?}", e);
        prop_assert_eq!(e.udata.addr(), k.udata, "udata of {:?}", e);
        prop_assert_eq!(e.fflags, k.fflags, "fflags of {:?}", e);
        let data = match (source(slot), slot) {
            (Some(s), _) => self.bytes[s],
            (None, SOCK_WRITE) => {
                prop_assert!(e.data > 0, "room of {:?}", e);
                return Ok(());
            }
            (None, s) if s < SOCK_READ => self.pipe_size - self.bytes[s - PIPES],
            _ => {
                prop_assert_eq!(e.data, k.data, "data of {:?}", e);
                return Ok(());
            }
        };
        prop_assert_eq!(usize::try_from(e.data).ok(), Some(data), "data of {:?}", e);
        Ok(())
    }

    fn deliver(&mut self, slot: usize) {
        let k = self.knotes.get_mut(&slot).expect("a delivered knote exists");
        if k.mode & EV_CLEAR != 0 {
            k.edge = Pending::No;
            k.triggered = false;
        }
        if k.mode & EV_DISPATCH != 0 {
            k.enabled = false;
        }
        if k.mode & EV_ONESHOT != 0 {
            self.knotes.remove(&slot);
        }
    }

    fn set_edge(&mut self, slot: usize, edge: Pending) {
        if let Some(k) = self.knotes.get_mut(&slot)
            && edge > k.edge
        {
            k.edge = edge;
        }
    }

    pub(crate) fn write(&mut self, from: usize, n: usize) {
        if self.bytes[from] + n > MOST_BYTES {
            return;
        }
        let bytes = vec![b'x'; n];
        if from < PIPES {
            // SAFETY: bytes holds n bytes.
            let r = unsafe { libc::write(self.pipes[from].1.as_raw_fd(), bytes.as_ptr().cast(), n) };
            assert_eq!(usize::try_from(r).ok(), Some(n), "write");
        } else {
            self.peer.write_all(&bytes).expect("write to the peer");
        }
        self.bytes[from] += n;
        self.set_edge(if from < PIPES { from } else { SOCK_READ }, Pending::Must);
    }

    pub(crate) fn read(&mut self, from: usize, n: usize) {
        let n = n.min(self.bytes[from]);
        if n == 0 {
            return;
        }
        let mut bytes = vec![0; n];
        let fd = if from < PIPES { self.pipes[from].0.as_raw_fd() } else { self.watched.as_raw_fd() };
        // SAFETY: bytes has room for n bytes.
        let r = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), n) };
        assert_eq!(usize::try_from(r).ok(), Some(n), "read");
        self.bytes[from] -= n;
        if from < PIPES {
            // A drain may count as an edge though the pipe was never full.
            self.set_edge(PIPES + from, Pending::May);
        }
    }

    /// What the model holds can be deleted, and nothing else can.
    pub(crate) fn dismantle(&mut self) -> Step {
        for slot in 0..SLOTS {
            let (ident, filter) = self.key(slot);
            let kev = Kevent { ident, filter, flags: EV_DELETE, fflags: 0, data: 0, udata: ptr::null_mut() };
            let errno = call(&self.kq, &[kev], 0).err();
            let expected = if self.knotes.remove(&slot).is_some() { None } else { Some(libc::ENOENT) };
            prop_assert_eq!(errno, expected, "deleting {:?}", (ident, filter));
        }
        prop_assert_eq!(call(&self.kq, &[], 4).map(|events| events.len()), Ok(0));
        Ok(())
    }
}

/// Errors and receipts come in the order of the changes and carry their key and udata.
fn compare_answers(answers: &[(Kevent, c_int)], events: &[Kevent]) -> Step {
    prop_assert_eq!(events.len(), answers.len(), "{:?} for {:?}", events, answers);
    for (event, (kev, errno)) in events.iter().zip(answers) {
        prop_assert!(event.flags & EV_ERROR != 0, "{:?}", event);
        prop_assert_eq!(event.data, *errno as isize, "{:?}", event);
        prop_assert_eq!((event.ident, event.filter), (kev.ident, kev.filter));
        prop_assert_eq!(event.udata, kev.udata);
    }
    Ok(())
}
