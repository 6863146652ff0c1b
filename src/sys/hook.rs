//! The hook: our function in front of the program's action for a watched signal.
//!
//! A BSD kernel notes every signal at the moment it is sent, whatever then becomes of it.
//! Linux tells nobody, so while a signal is watched the kernel's action for it is the hook,
//! which counts it, rings whoever waits, and goes on as the program wants. It is installed
//! with the program's own mask and flags, so the kernel does what those ask for.
//!
//! Ignored signals get the hook too, since the kernel drops them unseen. Those whose default
//! is to end or stop the process do not: with the hook they would not. Nor does an ignored
//! SIGCHLD, whose being ignored has children reap themselves.
//!
//! The kernel's table is the truth. What the hook hides of an action stands in a *seat*, and
//! each seat has an entry point of its own: the kernel's handler address says which seat holds.
//! So changing an action is one atomic step, and a copy of it that libc's own sigaction()
//! handed out means the same when it is put back (system(3) does that).
//!
//! One lock for changes, held with all signals blocked, because handlers may call sigaction().
//! The hook itself takes none, and allocates nothing: so it uses no thread-local. Nor does the
//! program's change of a signal that was never watched. If the first watch came meanwhile,
//! which may have put back the action from before, such a change is made once more.

#![allow(unsafe_code)]

use super::sync::Mutex;
use super::thread::Guarded;
use super::{bells, handling, signal as signals, taken, zero};
use crate::errno::{Errno, Result};
use core::ffi::c_void;
use core::mem::{MaybeUninit, transmute};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use libc::{c_int, sigaction, siginfo_t};

/// The highest signal number.
pub(crate) const HIGHEST: usize = 64;

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    /// glibc's sigaction(2) under the name that nobody else's takes the place of.
    #[link_name = "__sigaction"]
    fn libc_sigaction(signal: c_int, new: *const sigaction, old: *mut sigaction) -> c_int;
    /// The same for signal(2).
    fn ssignal(signal: c_int, handler: usize) -> usize;
}
#[cfg(not(target_env = "gnu"))]
use libc::{sigaction as libc_sigaction, signal as ssignal};

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// How many actions of one signal can be told apart; the oldest is forgotten.
const SEATS: usize = 4;

const ENTRIES: [Handler; SEATS] = [enter::<0>, enter::<1>, enter::<2>, enter::<3>];

/// What the hook hides of one of the program's actions. Written under the lock before its
/// entry point is installed; RESETHAND alone is carried out by the hook.
struct Seat {
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
}

struct Signal {
    /// Times sent while hooked, or found pending.
    sent: AtomicU32,
    /// Knotes of all kqueues.
    watches: AtomicU32,
    /// Some knote has watched it.
    known: AtomicBool,
    /// The seat last given.
    last: AtomicUsize,
    seats: [Seat; SEATS],
}

static SIGNALS: [Signal; HIGHEST] = [const {
    Signal {
        sent: AtomicU32::new(0),
        watches: AtomicU32::new(0),
        known: AtomicBool::new(false),
        last: AtomicUsize::new(0),
        seats: [const { Seat { handler: AtomicUsize::new(0), flags: AtomicI32::new(0), mask: AtomicU64::new(0) } };
            SEATS],
    }
}; HIGHEST];

static LOCK: &Mutex<()> = &super::fork::PAGE.signals;

/// Some knote has watched a signal.
static USED: AtomicBool = AtomicBool::new(false);

/// A call of sigaction() by that name has come to ours: it stands before libc's.
static IN_FRONT: AtomicBool = AtomicBool::new(false);

fn of(signal: c_int) -> Option<&'static Signal> {
    SIGNALS.get(place(signal)?)
}

/// Where a signal stands in a table of all.
pub(super) fn place(signal: c_int) -> Option<usize> {
    usize::try_from(signal).ok()?.checked_sub(1)
}

/// The bit of a signal in a mask of the kernel's.
pub(crate) fn bit(signal: c_int) -> u64 {
    1 << ((signal - 1) & 63)
}

/// The signals in such a mask.
pub(crate) fn members(mask: u64) -> impl Iterator<Item = c_int> {
    (1..=64).filter(move |&signal| mask & bit(signal) != 0)
}

/// How often a signal was sent, modulo 2^32: only differences mean anything.
pub(crate) fn sent(signal: c_int) -> u32 {
    of(signal).map_or(0, |own| own.sent.load(Ordering::SeqCst))
}

/// Notes that a signal was sent and rings for it.
pub(super) fn note(signal: c_int) {
    if let Some(own) = of(signal) {
        own.sent.fetch_add(1, Ordering::SeqCst);
        bells::ring(signal);
    }
}

extern "C" fn enter<const SEAT: usize>(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = Guarded::errno();
    // SAFETY: the kernel's siginfo, on this handler's stack.
    let known = unsafe { taken::unmark(info) };
    match known {
        None => note(signal),
        Some(_) => taken::rest(bit(signal), false),
    }
    let handler = of(signal).map_or(libc::SIG_IGN, |own| own.seats[SEAT].take_handler(signal));
    let runs = is_function(handler);
    signals::note_interruption(runs);
    if !runs {
        // SAFETY: as above.
        step_aside(signal, unsafe { &*info }, SEAT);
    }
    Guarded::set_errno(errno);
    if runs {
        // SAFETY: the program gave this function for the purpose; one of a single argument
        // ignores the others, as it does when the kernel calls it.
        let handler = unsafe { transmute::<usize, Handler>(handler) };
        let running = handling::begin(signal);
        handler(signal, info, context);
        running.end();
    }
}

/// Behind the hook nothing runs, and the kernel itself goes by whether the signal is ignored:
/// then it must find what the program has set, or would send the signal for ever. A thread
/// cannot go on behind a fault, whatever is ignored; a process in the background may use its
/// terminal if it ignores being stopped for it.
fn step_aside(signal: c_int, info: &siginfo_t, seat: usize) {
    let action = match signal {
        _ if is_fault(signal, info.si_code) => libc::SIG_DFL,
        libc::SIGTTIN | libc::SIGTTOU if info.si_code == SI_KERNEL => libc::SIG_IGN,
        _ => return,
    };
    if let Ok(mut there) = get(signal)
        && seat_of(there.sa_sigaction) == Some(seat)
    {
        there.sa_sigaction = action;
        let _ = set(signal, &there);
    }
    if action == libc::SIG_DFL {
        // Where the cause is not met again. It is blocked until the hook returns.
        taken::Taken::of(info).give_back();
    }
}

/// `si_code` of what the kernel sends without a reason of its own.
const SI_KERNEL: c_int = 0x80;

/// Whether a thread was stopped by what it did, which no ignoring lets it pass.
fn is_fault(signal: c_int, code: c_int) -> bool {
    /// A page in memory that nobody has touched went bad.
    const BUS_MCEERR_AO: c_int = 5;
    let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
    code > 0 && faults.contains(&signal) && (signal, code) != (libc::SIGBUS, BUS_MCEERR_AO)
}

impl Seat {
    /// The handler to run. SA_RESETHAND where the kernel must not carry it out: the first
    /// to come takes it.
    fn take_handler(&self, signal: c_int) -> usize {
        let handler = self.handler.load(Ordering::Acquire);
        let once = self.flags.load(Ordering::Relaxed) & libc::SA_RESETHAND != 0 && is_ignored_by_default(signal);
        if once && is_function(handler) { self.handler.swap(libc::SIG_DFL, Ordering::AcqRel) } else { handler }
    }
}

fn is_function(handler: usize) -> bool {
    handler != libc::SIG_DFL && handler != libc::SIG_IGN
}

fn is_ignored_by_default(signal: c_int) -> bool {
    matches!(signal, libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH)
}

/// Whether the hook takes the place of this action.
fn wants_hook(signal: c_int, handler: usize) -> bool {
    match handler {
        libc::SIG_IGN => signal != libc::SIGCHLD,
        libc::SIG_DFL => is_ignored_by_default(signal),
        _ => true,
    }
}

/// Which of our entry points an address is.
fn seat_of(handler: usize) -> Option<usize> {
    ENTRIES.iter().position(|&entry| entry as usize == handler)
}

fn set(signal: c_int, action: &sigaction) -> Result<()> {
    // SAFETY: `action` is valid; the old one is not asked for.
    zero(unsafe { libc_sigaction(signal, action, core::ptr::null_mut()) })
}

/// The kernel's action. EINVAL.
pub(super) fn get(signal: c_int) -> Result<sigaction> {
    let mut action = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: asks only; `action` has room.
    zero(unsafe { libc_sigaction(signal, core::ptr::null(), action.as_mut_ptr()) })?;
    // SAFETY: zeroes are an action, and the call filled it in.
    Ok(unsafe { action.assume_init() })
}

/// An action as the program meant it: what one of our entry points stands for, if it is one.
/// Flags and mask of a handler are in the kernel, and libc may have changed them there
/// (siginterrupt(3)).
fn unhooked(signal: c_int, mut action: sigaction) -> sigaction {
    let (Some(seat), Some(own)) = (seat_of(action.sa_sigaction), of(signal)) else { return action };
    let seat = &own.seats[seat];
    action.sa_sigaction = seat.handler.load(Ordering::Acquire);
    let (hidden, flags) = (libc::SA_SIGINFO | libc::SA_RESETHAND, seat.flags.load(Ordering::Relaxed));
    if is_function(action.sa_sigaction) {
        action.sa_flags = action.sa_flags & !hidden | flags & hidden;
    } else {
        action.sa_flags = flags;
        action.sa_mask = signals::set_from(seat.mask.load(Ordering::Relaxed));
    }
    action
}

/// Makes an action of the program's the one in force: behind the hook if the signal is
/// watched. Under the lock.
fn put(signal: c_int, action: &sigaction) -> Result<()> {
    let own = of(signal).filter(|own| own.watches.load(Ordering::SeqCst) > 0);
    let Some(own) = own.filter(|_| wants_hook(signal, action.sa_sigaction)) else { return set(signal, action) };
    handling::forget(signal);
    let next = (own.last.load(Ordering::Relaxed) + 1) % SEATS;
    own.last.store(next, Ordering::Relaxed);
    let seat = &own.seats[next];
    seat.flags.store(action.sa_flags, Ordering::Relaxed);
    seat.mask.store(signals::mask_of(&action.sa_mask), Ordering::Relaxed);
    seat.handler.store(action.sa_sigaction, Ordering::Release);
    let mut hooked = *action;
    hooked.sa_sigaction = ENTRIES[next] as usize;
    hooked.sa_flags |= libc::SA_SIGINFO;
    if !is_function(action.sa_sigaction) {
        // As little noticed as can be.
        hooked.sa_flags |= libc::SA_RESTART | libc::SA_ONSTACK;
        hooked.sa_flags &= !(libc::SA_RESETHAND | libc::SA_NODEFER);
        hooked.sa_mask = signals::set_from(u64::MAX);
    } else if is_ignored_by_default(signal) {
        // The kernel would reset it to what ignores the signal unseen.
        hooked.sa_flags &= !libc::SA_RESETHAND;
    }
    set(signal, &hooked)
}

fn with_lock<T>(f: impl FnOnce() -> T) -> T {
    signals::with_all_blocked(|| {
        let _held = LOCK.lock();
        f()
    })
}

/// Puts the hook in front of whatever action is there. Under the lock.
fn hook(signal: c_int) {
    if let Ok(action) = get(signal)
        && seat_of(action.sa_sigaction).is_none()
        && wants_hook(signal, action.sa_sigaction)
    {
        let _ = put(signal, &action);
    }
}

/// Finds out whether ours stands in front: a program that never changes an action would not
/// tell. What the name means here it means to the program, unless that loads the library with
/// RTLD_DEEPBIND.
#[cold]
fn knock(signal: c_int) {
    // SAFETY: neither sets nor asks anything.
    unsafe { libc::sigaction(signal, core::ptr::null(), core::ptr::null_mut()) };
}

/// One knote more watches the signal.
pub(crate) fn watch(signal: c_int) {
    let Some(own) = of(signal) else { return };
    if !USED.load(Ordering::Relaxed) {
        knock(signal);
    }
    with_lock(|| {
        USED.store(true, Ordering::Relaxed);
        own.known.store(true, Ordering::SeqCst);
        own.watches.fetch_add(1, Ordering::SeqCst);
        hook(signal);
    });
}

/// One knote less: with the last the program's action stands again.
pub(crate) fn unwatch(signal: c_int) {
    let Some(own) = of(signal) else { return };
    with_lock(|| {
        if own.watches.fetch_sub(1, Ordering::SeqCst) == 1 {
            unhook(signal);
        }
    });
}

fn unhook(signal: c_int) {
    if let Ok(action) = get(signal)
        && seat_of(action.sa_sigaction).is_some()
    {
        let _ = set(signal, &unhooked(signal, action));
    }
}

/// Whether some knote watches the signal.
pub(super) fn is_watched(signal: c_int) -> bool {
    of(signal).is_some_and(|own| own.watches.load(Ordering::SeqCst) > 0)
}

/// Whether changes of its action take the lock: some knote watches the signal, or did.
fn is_known(signal: c_int) -> bool {
    of(signal).is_some_and(|own| own.known.load(Ordering::SeqCst))
}

/// Takes over what was changed past [`change`], for these signals.
pub(crate) fn compare(mask: u64) {
    for signal in members(mask) {
        let changed = get(signal)
            .is_ok_and(|action| seat_of(action.sa_sigaction).is_none() && wants_hook(signal, action.sa_sigaction));
        if changed && is_watched(signal) {
            with_lock(|| hook(signal));
        }
    }
}

/// Whether the program's changes come to [`change`].
pub(crate) fn is_in_front() -> bool {
    IN_FRONT.load(Ordering::Relaxed)
}

/// sigaction(2) for the program: as if there were no hook. Returns the action from before.
/// EINVAL.
pub(crate) fn change(signal: c_int, new: Option<&sigaction>) -> Result<sigaction> {
    IN_FRONT.store(true, Ordering::Relaxed);
    if is_known(signal) {
        return with_lock(|| exchange(signal, new));
    }
    let mut old = MaybeUninit::<sigaction>::zeroed();
    let pointer = new.map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: `pointer` is null or valid for the call; `old` has room.
    zero(unsafe { libc_sigaction(signal, pointer, old.as_mut_ptr()) })?;
    // The first watch came meanwhile: it may have put back what this has replaced.
    if new.is_some() && is_known(signal) {
        change(signal, new)?;
    }
    // SAFETY: zeroes are an action, and the call filled it in.
    Ok(unhooked(signal, unsafe { old.assume_init() }))
}

/// The same under the lock.
fn exchange(signal: c_int, new: Option<&sigaction>) -> Result<sigaction> {
    let old = unhooked(signal, get(signal)?);
    new.map_or(Ok(()), |&new| put(signal, &unhooked(signal, new)))?;
    Ok(old)
}

/// signal(2) for the program. Returns the handler from before. EINVAL.
pub(crate) fn change_simply(signal: c_int, handler: usize) -> Result<usize> {
    IN_FRONT.store(true, Ordering::Relaxed);
    if is_known(signal) {
        return with_lock(|| exchange_simply(signal, handler));
    }
    let old = libc_signal(signal, handler)?;
    // As in `change`.
    if is_known(signal) {
        change_simply(signal, handler)?;
    }
    Ok(old)
}

/// The same under the lock.
fn exchange_simply(signal: c_int, handler: usize) -> Result<usize> {
    if !is_watched(signal) {
        return libc_signal(signal, handler);
    }
    if handler == libc::SIG_ERR {
        return Err(Errno::EINVAL);
    }
    let own_signal = signals::set_from(bit(signal));
    let action = sigaction { sa_sigaction: handler, sa_flags: libc::SA_RESTART, sa_mask: own_signal, ..get(signal)? };
    exchange(signal, Some(&action)).map(|old| old.sa_sigaction)
}

/// libc's signal(), which knows what siginterrupt(3) has asked for.
fn libc_signal(signal: c_int, handler: usize) -> Result<usize> {
    let meant = |handler| match (seat_of(handler), of(signal)) {
        (Some(seat), Some(own)) => own.seats[seat].handler.load(Ordering::Acquire),
        _ => handler,
    };
    // SAFETY: takes numbers; a bad one is an error return.
    let old = unsafe { ssignal(signal, meant(handler)) };
    if old == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(meant(old))
}

/// Signals that come to the hook; true: those alone behind which no function stands.
pub(super) fn hooked(silent_only: bool) -> u64 {
    let is_hooked = |signal: c_int| {
        let action = if is_watched(signal) { get(signal).ok() } else { None };
        action.is_some_and(|action| {
            let silent = !is_function(unhooked(signal, action).sa_sigaction);
            seat_of(action.sa_sigaction).is_some() && (silent || !silent_only)
        })
    };
    (1..=64).filter(|&signal| is_hooked(signal)).fold(0, |mask, signal| mask | bit(signal))
}

/// In a forked child, which watches nothing: every action is the program's again. System
/// calls and atomics only.
pub(super) fn reset_in_child() {
    bells::reset_in_child();
    // To look at them all brings two pages into the child.
    if !USED.load(Ordering::Relaxed) {
        return;
    }
    taken::reset_in_child();
    for signal in 1..=64 {
        if of(signal).is_some_and(|own| own.watches.swap(0, Ordering::SeqCst) > 0) {
            unhook(signal);
        }
    }
}
