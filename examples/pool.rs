//! A thread pool woken by `EVFILT_USER`.
//!
//! `cargo run --release --example pool`
//!
//! Jobs belong to strands: those of one strand run in order, never two at once, on
//! whichever thread is free. Each strand is one user event. `EV_DISPATCH` hands it to a
//! single thread and disables it until that thread gives it back with `EV_ENABLE`;
//! `EV_CLEAR` forgets the trigger that was handed out, so that only a later one, which
//! is kept while the event is disabled, brings the strand up again.
#![allow(unsafe_code, reason = "kevent() is a C function; the two blocks are in Queue")]

use std::collections::VecDeque;
use std::ffi::{c_int, c_uint, c_ushort};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use kqueue::{EV_ADD, EV_CLEAR, EV_DISPATCH, EV_ENABLE, EV_ERROR, EVFILT_USER, NOTE_TRIGGER, kevent};

const THREADS: usize = 4;
const STRANDS: usize = 16;
const JOBS: u64 = 100_000;
/// The ident after those of the strands: triggered once, it stops every thread.
const STOP: usize = STRANDS;

/// A change to the user event `ident`.
fn user(ident: usize, flags: c_ushort, fflags: c_uint) -> kevent {
    kevent { ident, filter: EVFILT_USER, flags, fflags, data: 0, udata: ptr::null_mut() }
}

/// A kqueue, closed when dropped. Any number of threads may use it at once.
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

    /// Makes the changes, then waits if there is room for events.
    fn call(&self, changes: &[kevent], events: &mut [kevent]) -> io::Result<usize> {
        // SAFETY: both arrays are as long as said, and a null timeout is none.
        let n = unsafe {
            kevent(
                self.0.as_raw_fd(),
                changes.as_ptr(),
                c_int::try_from(changes.len()).unwrap_or(c_int::MAX),
                events.as_mut_ptr(),
                c_int::try_from(events.len()).unwrap_or(c_int::MAX),
                ptr::null(),
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    fn change(&self, change: kevent) -> io::Result<()> {
        self.call(&[change], &mut []).map(|_| ())
    }

    /// Makes the changes and sleeps until one event is there.
    fn next(&self, changes: &[kevent]) -> io::Result<kevent> {
        let mut event = [user(0, 0, 0)];
        let mut changes = changes;
        loop {
            match self.call(changes, &mut event) {
                Ok(_) if event[0].flags & EV_ERROR != 0 => {
                    let errno = i32::try_from(event[0].data).unwrap_or(0);
                    return Err(io::Error::from_raw_os_error(errno));
                }
                Ok(_) => return Ok(event[0]),
                // The changes are made by then.
                Err(e) if e.kind() == ErrorKind::Interrupted => changes = &[],
                Err(e) => return Err(e),
            }
        }
    }
}

type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// The strands and the kqueue their threads sleep in.
struct Pool<'a> {
    queue: Queue,
    strands: Vec<Mutex<VecDeque<Job<'a>>>>,
}

impl<'a> Pool<'a> {
    fn new(strands: usize) -> io::Result<Self> {
        let queue = Queue::new()?;
        for ident in 0..strands {
            queue.change(user(ident, EV_ADD | EV_CLEAR | EV_DISPATCH, 0))?;
        }
        // Without EV_CLEAR it stays triggered, for one thread after another.
        queue.change(user(strands, EV_ADD, 0))?;
        let strands = (0..strands).map(|_| Mutex::default()).collect();
        Ok(Self { queue, strands })
    }

    /// Appends a job to a strand. Only the first of an empty queue has to ring: while a
    /// job is there, a thread is on its way to it or will look again.
    fn post(&self, strand: usize, job: Job<'a>) -> io::Result<()> {
        let mut jobs = self.strands[strand].lock().unwrap_or_else(PoisonError::into_inner);
        let first = jobs.is_empty();
        jobs.push_back(job);
        drop(jobs);
        if first {
            self.queue.change(user(strand, 0, NOTE_TRIGGER))?;
        }
        Ok(())
    }

    /// Runs a strand until its queue is empty; the lock is not held while a job runs.
    fn run(&self, strand: usize) {
        loop {
            let jobs = std::mem::take(&mut *self.strands[strand].lock().unwrap_or_else(PoisonError::into_inner));
            if jobs.is_empty() {
                return;
            }
            jobs.into_iter().for_each(|job| job());
        }
    }

    /// What each thread does until the word to stop.
    fn work(&self) -> io::Result<()> {
        let mut event = self.queue.next(&[])?;
        while event.ident != self.strands.len() {
            self.run(event.ident);
            // Gives the strand back and waits for the next, in one call.
            event = self.queue.next(&[user(event.ident, EV_ENABLE, 0)])?;
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    // The strands keep the jobs of one sum apart: load and store, no read-modify-write.
    let sums: Vec<AtomicU64> = (0..STRANDS).map(|_| AtomicU64::new(0)).collect();
    let left = AtomicU64::new(JOBS);
    let done = Queue::new()?;
    done.change(user(0, EV_ADD | EV_CLEAR, 0))?;
    let pool = Pool::new(STRANDS)?;

    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| pool.work())).collect();
        for value in 0..JOBS {
            let strand = usize::try_from(value).unwrap_or(0) % STRANDS;
            let (sum, left, done) = (&sums[strand], &left, &done);
            let job = move || {
                sum.store(sum.load(Ordering::Relaxed) + value, Ordering::Relaxed);
                if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    done.change(user(0, 0, NOTE_TRIGGER)).expect("the event was added before the threads began");
                }
            };
            pool.post(strand, Box::new(job))?;
        }
        done.next(&[])?;
        pool.queue.change(user(STOP, 0, NOTE_TRIGGER))?;
        for thread in threads {
            thread.join().expect("no job panics")?;
        }
        Ok::<_, io::Error>(())
    })?;

    let sum: u64 = sums.iter().map(|s| s.load(Ordering::Relaxed)).sum();
    println!("{JOBS} jobs on {THREADS} threads, sum {sum}");
    if sum == JOBS * (JOBS - 1) / 2 { Ok(()) } else { Err(io::Error::other("two threads ran one strand at once")) }
}
