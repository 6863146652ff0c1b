//! Forks, execs and exits: the process's one connector, fanned out to the kqueues.
//!
//! The connector tells of the whole machine, so there is one socket, opened when a knote
//! first asks for what only it tells, and closed when nobody does any more. It stands,
//! edge-triggered, in the epoll of every kqueue that follows processes by it; whichever
//! thread reads first notes the news for all of them and wakes those they concern. A kqueue
//! applies its news itself, under its own lock.
//!
//! The children of a tracked process are followed from the moment their birth is read, for
//! they may be gone before their kqueue gets to make knotes. Their threads are counted: a
//! process ends with the last, which need not be the first. News are kept small: what may
//! happen again and again (a fork, an exec) waits once for each process.
//!
//! Lock order: a kqueue, then the hub.

use super::{Queue, token};
use crate::abi::{NOTE_EXEC, NOTE_FORK, NOTE_TRACK, NOTE_TRACKERR};
use crate::errno::{Errno, Result};
use crate::sys::connector::{Connector, Event, Read};
use crate::sys::epoll::{self, Epoll};
use crate::sys::eventfd::Waker;
use crate::sys::fork::PerProcess;
use crate::sys::sync::{Guard, Mutex};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// A kqueue's part in the connector.
pub(crate) struct Subscription {
    key: u64,
}

/// One process that a kqueue follows.
struct Followed {
    /// Tells it from a later process of the same number.
    serial: u64,
    /// NOTE_FORK, NOTE_EXEC, NOTE_TRACK: what is asked for.
    wanted: u32,
    /// Its end is learned from the connector: no pidfd tells of it.
    to_the_end: bool,
    /// Threads it has; `None` if it was followed only after its birth, or messages were lost.
    threads: Option<u32>,
    /// What the threads that have ended so far ended with. They are told of in any order: one that
    /// left by itself, with 0, may be the last though another has ended the process.
    code: i32,
    /// Bits of `News::Did` that wait to be taken.
    waiting: u32,
}

/// What happened to a process a kqueue follows.
pub(super) struct News {
    pub(super) pid: i32,
    pub(super) serial: u64,
    pub(super) what: What,
}

pub(super) enum What {
    /// NOTE_FORK, NOTE_EXEC, NOTE_TRACKERR; [`MAY_HAVE_ENDED`], [`LOST_A_THREAD`].
    Did(u32),
    /// A process of this number bore it. It is followed.
    Born { parent: i32, parent_serial: u64 },
    /// It has ended, with this status.
    Ended(i32),
}

/// Among the bits of [`What::Did`]: its first thread has ended, which most likely is the last.
pub(super) const MAY_HAVE_ENDED: u32 = 1 << 8;
/// Another thread has, and nobody knows whether that was the last.
pub(super) const LOST_A_THREAD: u32 = 1 << 9;

/// The news of one kqueue.
struct Ledger {
    waker: Arc<Waker>,
    followed: BTreeMap<i32, Followed>,
    news: Vec<News>,
}

struct Hub {
    connector: Connector,
    ledgers: BTreeMap<u64, Ledger>,
    /// The last number given to a ledger or to a followed process.
    serial: u64,
}

static HUB: PerProcess<Mutex<Option<Hub>>> = PerProcess::new();

fn hub() -> Guard<'static, Option<Hub>> {
    HUB.get().lock()
}

impl Hub {
    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Reads what the socket holds into the ledgers.
    fn read(&mut self) {
        let (ledgers, serial) = (&mut self.ledgers, &mut self.serial);
        loop {
            let note = |event| ledgers.values_mut().for_each(|ledger| ledger.note(event, serial));
            match self.connector.read(note) {
                Read::Empty => return,
                Read::More => {}
                Read::Lost => ledgers.values_mut().for_each(Ledger::note_loss),
            }
        }
    }
}

impl Ledger {
    fn take(&mut self) -> Vec<News> {
        let news = core::mem::take(&mut self.news);
        for one in &news {
            if let Some(followed) = self.followed.get_mut(&one.pid) {
                followed.waiting = 0;
            }
        }
        news
    }

    fn note(&mut self, event: Event, serial: &mut u64) {
        match event {
            Event::Fork { parent, child } => self.note_fork(parent, child, serial),
            Event::Thread { process } => {
                if let Some(threads) = self.followed.get_mut(&process).and_then(|one| one.threads.as_mut()) {
                    *threads += 1;
                }
            }
            Event::Exec { process } => {
                if let Some(one) = self.followed.get_mut(&process) {
                    // The other threads have to end, but some may be told of only now.
                    one.code = 0;
                    self.post(process, NOTE_EXEC);
                }
            }
            Event::Exit { process, first, code } => self.note_exit(process, first, code),
        }
    }

    fn note_fork(&mut self, parent: i32, child: i32, serial: &mut u64) {
        let Some(&Followed { wanted, serial: parent_serial, .. }) = self.followed.get(&parent) else { return };
        if wanted & NOTE_TRACK != 0 {
            *serial += 1;
            let born = Followed { serial: *serial, wanted, to_the_end: true, threads: Some(1), code: 0, waiting: 0 };
            if let Some(old) = self.followed.insert(child, born)
                && old.to_the_end
            {
                // Its number is in use again.
                self.news.push(News { pid: child, serial: old.serial, what: What::Ended(old.code) });
            }
            self.news.push(News { pid: child, serial: *serial, what: What::Born { parent, parent_serial } });
        }
        self.post(parent, NOTE_FORK);
    }

    fn note_exit(&mut self, process: i32, first: bool, code: i32) {
        let Some(one) = self.followed.get_mut(&process).filter(|one| one.to_the_end) else { return };
        if code != 0 {
            one.code = code;
        }
        let (serial, code) = (one.serial, one.code);
        match &mut one.threads {
            Some(0 | 1) => {
                self.followed.remove(&process);
                self.news.push(News { pid: process, serial, what: What::Ended(code) });
            }
            Some(threads) => *threads -= 1,
            None => self.post(process, if first { MAY_HAVE_ENDED } else { LOST_A_THREAD }),
        }
    }

    /// Messages were lost: who was born or has ended is not known any more.
    fn note_loss(&mut self) {
        let pids: Vec<i32> = self.followed.keys().copied().collect();
        for pid in pids {
            if let Some(one) = self.followed.get_mut(&pid) {
                one.threads = None;
            }
            self.post(pid, NOTE_TRACKERR | MAY_HAVE_ENDED);
        }
    }

    /// Notes bits for a followed process, as far as they are asked for and do not wait yet.
    fn post(&mut self, pid: i32, bits: u32) {
        let Some(one) = self.followed.get_mut(&pid) else { return };
        let mut asked = one.wanted & (NOTE_FORK | NOTE_EXEC);
        asked |= if one.wanted != 0 { NOTE_TRACKERR } else { 0 };
        asked |= if one.to_the_end { MAY_HAVE_ENDED | LOST_A_THREAD } else { 0 };
        let new = bits & asked & !one.waiting;
        if new != 0 {
            one.waiting |= new;
            let serial = one.serial;
            self.news.push(News { pid, serial, what: What::Did(new) });
        }
    }
}

/// Follows a process, or changes what is asked about it. Returns the number it is followed
/// under. ENOTSUP where the machine tells nothing; EMFILE, ENFILE, ENOMEM.
pub(super) fn follow(queue: &mut Queue, pid: i32, wanted: u32, to_the_end: bool) -> Result<u64> {
    let key = subscribe(queue)?;
    let mut hub = hub();
    let hub = hub.as_mut().ok_or(Errno::ENOTSUP)?;
    let fresh = hub.next();
    let ledger = hub.ledgers.get_mut(&key).ok_or(Errno::ENOTSUP)?;
    let new = Followed { serial: fresh, wanted, to_the_end, threads: None, code: 0, waiting: 0 };
    let one = ledger.followed.entry(pid).or_insert(new);
    one.wanted = wanted;
    one.to_the_end |= to_the_end;
    Ok(one.serial)
}

/// Ends what [`follow`] or a birth began.
pub(super) fn unfollow(queue: &Queue, pid: i32, serial: u64) {
    let Some(own) = &queue.following else { return };
    let mut hub = hub();
    let ledger = hub.as_mut().and_then(|hub| hub.ledgers.get_mut(&own.key));
    if let Some(ledger) = ledger
        && ledger.followed.get(&pid).is_some_and(|one| one.serial == serial)
    {
        ledger.followed.remove(&pid);
    }
}

/// Puts the socket, opened if need be, into the kqueue's epoll.
fn subscribe(queue: &mut Queue) -> Result<u64> {
    if let Some(own) = &queue.following {
        return Ok(own.key);
    }
    let mut place = hub();
    if place.is_none() {
        *place = Some(Hub { connector: Connector::open()?, ledgers: BTreeMap::new(), serial: 0 });
    }
    let hub = place.as_mut().ok_or(Errno::ENOTSUP)?;
    let entered = queue.epoll.add(hub.connector.as_raw_fd(), epoll::IN | epoll::ET, token::PROCESSES);
    if let Err(errno) = entered {
        close_if_unused(&mut place);
        queue.crowded |= errno == Errno::EINVAL;
        return Err(errno);
    }
    let key = hub.next();
    hub.ledgers.insert(key, Ledger { waker: queue.waker.clone(), followed: BTreeMap::new(), news: Vec::new() });
    queue.following = Some(Subscription { key });
    queue.expect_wakes();
    Ok(key)
}

fn close_if_unused(hub: &mut Option<Hub>) {
    if hub.as_ref().is_some_and(|hub| hub.ledgers.is_empty()) {
        *hub = None;
    }
}

/// Enters the socket into a fresh set of a kqueue that has it.
pub(super) fn enter(queue: &Queue, epoll: &Epoll) -> Result<()> {
    match hub().as_ref().filter(|_| queue.following.is_some()) {
        Some(hub) => epoll.add(hub.connector.as_raw_fd(), epoll::IN | epoll::ET, token::PROCESSES),
        None => Ok(()),
    }
}

/// Reads the socket for everybody, wakes the others, and takes this kqueue's news, oldest
/// first.
pub(super) fn collect(queue: &mut Queue) -> Vec<News> {
    let Some(own) = &queue.following else { return Vec::new() };
    let mut place = hub();
    let Some(hub) = place.as_mut() else { return Vec::new() };
    hub.read();
    let news_for_others = hub.ledgers.iter().filter(|(key, ledger)| **key != own.key && !ledger.news.is_empty());
    news_for_others.for_each(|(_, ledger)| ledger.waker.wake());
    hub.ledgers.get_mut(&own.key).map(Ledger::take).unwrap_or_default()
}

/// Takes the socket out of the epoll of a kqueue that follows nobody any more.
pub(super) fn leave_if_idle(queue: &mut Queue) {
    let Some(own) = &queue.following else { return };
    let place = hub();
    let Some(hub) = place.as_ref() else { return };
    if hub.ledgers.get(&own.key).is_none_or(|ledger| ledger.followed.is_empty() && ledger.news.is_empty()) {
        let _ = queue.epoll.delete(hub.connector.as_raw_fd());
        drop(place);
        queue.following = None;
    }
}

/// Takes the news that another kqueue's thread has read.
pub(super) fn take(queue: &Queue) -> Vec<News> {
    let Some(own) = &queue.following else { return Vec::new() };
    let mut hub = hub();
    let ledger = hub.as_mut().and_then(|hub| hub.ledgers.get_mut(&own.key));
    ledger.map(Ledger::take).unwrap_or_default()
}

/// What the last thread that ended of a followed process ended with.
pub(super) fn last_code(queue: &Queue, pid: i32) -> i32 {
    let key = queue.following.as_ref().map(|own| own.key);
    let hub = hub();
    let ledger = hub.as_ref().and_then(|hub| hub.ledgers.get(&key?));
    ledger.and_then(|ledger| ledger.followed.get(&pid)).map_or(0, |one| one.code)
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut hub = hub();
        if let Some(hub) = hub.as_mut() {
            hub.ledgers.remove(&self.key);
        }
        close_if_unused(&mut hub);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::NOTE_EXIT;
    use crate::sys::eventfd::AlwaysReady;
    use crate::sys::fd;

    const FIRST: i32 = 100;
    const CHILD: i32 = 200;

    /// A ledger that follows a process and its child, and what becomes of the child.
    fn of_a_child(events: &[Event]) -> Vec<What> {
        let (epoll, ready) = {
            let _creating = fd::creating();
            (Epoll::new().expect("an epoll"), AlwaysReady::new().expect("an eventfd"))
        };
        let waker = Arc::new(Waker::new(Arc::new(epoll), Arc::new(ready), token::WAKE));
        let mut ledger = Ledger { waker, followed: BTreeMap::new(), news: Vec::new() };
        let wanted = NOTE_TRACK | NOTE_EXIT | NOTE_EXEC;
        let first = Followed { serial: 1, wanted, to_the_end: false, threads: None, code: 0, waiting: 0 };
        ledger.followed.insert(FIRST, first);
        let mut serial = 1;
        ledger.note(Event::Fork { parent: FIRST, child: CHILD }, &mut serial);
        ledger.take();
        events.iter().for_each(|&event| ledger.note(event, &mut serial));
        ledger.take().into_iter().map(|one| one.what).collect()
    }

    fn exit(first: bool, code: i32) -> Event {
        Event::Exit { process: CHILD, first, code }
    }

    const THREAD: Event = Event::Thread { process: CHILD };
    const EXEC: Event = Event::Exec { process: CHILD };

    #[test]
    fn a_process_ends_with_its_last_thread_and_what_ended_it() {
        let news = of_a_child(&[THREAD, exit(true, 5 << 8), exit(false, 0)]);
        assert!(matches!(news[..], [What::Ended(1280)]));
    }

    #[test]
    fn threads_that_exec_ended_are_no_end_however_late_they_are_told_of() {
        assert!(matches!(
            of_a_child(&[THREAD, THREAD, exit(true, 9), EXEC, exit(false, 0)])[..],
            [What::Did(NOTE_EXEC)]
        ));
        let news = of_a_child(&[THREAD, exit(true, 9), EXEC, THREAD, exit(false, 0), exit(true, 0)]);
        assert!(matches!(news[..], [What::Did(NOTE_EXEC), What::Ended(0)]));
    }
}
