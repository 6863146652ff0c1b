//! Which threads run the program's handler of a watched signal just now.
//!
//! A thread blocks a signal while it runs its handler, and most often for no other reason: one
//! that is found pending meanwhile needs nobody to look after it, since the thread takes it when
//! the handler returns. All of this is called by the hook: atomics, and no lock. The thread's
//! number is asked for each time: the first use of a thread-local in a thread may allocate, in
//! the middle of the program's malloc().

use super::hook;
use super::thread;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use libc::c_int;

struct Signal {
    /// A handler of the program's has run for it, and no other was set since.
    handled: AtomicBool,
    /// Threads in which the program's handler runs; 0: none.
    threads: [AtomicI32; THREADS],
}

/// How many such threads are kept in mind for a signal.
const THREADS: usize = 4;

static SIGNALS: [Signal; hook::HIGHEST] =
    [const { Signal { handled: AtomicBool::new(false), threads: [const { AtomicI32::new(0) }; THREADS] } };
        hook::HIGHEST];

fn of(signal: c_int) -> Option<&'static Signal> {
    SIGNALS.get(hook::place(signal)?)
}

/// A place that says that this thread runs the handler of a signal. One whose handler never
/// returns keeps it until the thread comes to do so again.
pub(super) struct Handling(Option<&'static AtomicI32>);

/// The calling thread is about to run the handler.
pub(super) fn begin(signal: c_int) -> Handling {
    let tid = thread::tid();
    let Some(own) = of(signal) else { return Handling(None) };
    own.handled.store(true, Ordering::Relaxed);
    Handling(own.threads.iter().find(|place| {
        place.load(Ordering::Relaxed) == tid
            || place.compare_exchange(0, tid, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }))
}

impl Handling {
    pub(super) fn end(self) {
        if let Some(place) = self.0 {
            place.store(0, Ordering::SeqCst);
        }
    }
}

/// The signals of `mask` whose handlers another thread runs, and so blocks for this while only.
pub(super) fn handled_by(thread: c_int, mask: u64) -> u64 {
    let runs = |signal: &c_int| {
        of(*signal).is_some_and(|own| own.threads.iter().any(|place| place.load(Ordering::SeqCst) == thread))
    };
    hook::members(mask).filter(runs).fold(0, |mask, signal| mask | hook::bit(signal))
}

/// Whether there is a handler for the signal, and some thread that lets it run.
pub(super) fn is_handled(signal: c_int) -> bool {
    of(signal).is_some_and(|own| own.handled.load(Ordering::Relaxed))
}

/// The program sets another handler.
pub(super) fn forget(signal: c_int) {
    if let Some(own) = of(signal) {
        own.handled.store(false, Ordering::Relaxed);
    }
}
