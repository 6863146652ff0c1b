//! The exported C functions: pointers and counts in, one number and errno out.
//!
//! Rules for all of them: errno is set exactly when -1 is returned and otherwise left
//! alone; pthread cancellation is off for the time of the call, but for the sleeps of a
//! `kevent()` that may be cancelled; a panic never leaves (the
//! product is built with panic=abort, and `extern "C"` aborts in any case). Pointers are
//! not trusted: a bad one is EFAULT.

#![allow(unsafe_code)]

mod reentry;
mod signal;

use crate::abi::{KQUEUE_CLOEXEC, kevent};
use crate::debug;
use crate::errno::{Errno, Result};
use crate::kqueue::{Progress, Request, Round, Sleeper};
use crate::sys::epoll::{Events, Patience};
use crate::sys::memory::{Input, Output};
use crate::sys::sleep::{self, IfLeft, Nap};
use crate::sys::thread::Guarded;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use libc::{c_int, c_uint, timespec};

/// Runs one call with errno and cancellation as the rules above say.
fn enter(call: impl FnOnce() -> Result<c_int>) -> c_int {
    let guard = Guarded::enter();
    let result = call();
    guard.leave(result.err());
    result.unwrap_or(-1)
}

fn create(function: &str) -> Result<c_int> {
    let result = reentry::alone(crate::kqueue::create);
    debug::trace(function, format_args!("{result:?}"));
    result
}

/// Makes a kqueue: a descriptor to watch events with. kqueue(2).
///
/// Returns the descriptor, or -1 and errno: EMFILE, ENFILE, ENOMEM.
#[unsafe(no_mangle)]
pub extern "C" fn kqueue() -> c_int {
    enter(|| create("kqueue"))
}

/// NetBSD's kqueue1(2): `flags` may hold O_CLOEXEC and O_NONBLOCK. EINVAL for others.
#[unsafe(no_mangle)]
pub extern "C" fn kqueue1(flags: c_int) -> c_int {
    enter(|| if flags & !(libc::O_CLOEXEC | libc::O_NONBLOCK) == 0 { create("kqueue1") } else { Err(Errno::EINVAL) })
}

/// FreeBSD's kqueuex(2): `flags` may be KQUEUE_CLOEXEC. EINVAL for others.
#[unsafe(no_mangle)]
pub extern "C" fn kqueuex(flags: c_uint) -> c_int {
    enter(|| if flags & !KQUEUE_CLOEXEC == 0 { create("kqueuex") } else { Err(Errno::EINVAL) })
}

/// Applies changes to a kqueue and collects events from it. kevent(2).
///
/// Returns the number of entries written to `eventlist`, or -1 and errno: EBADF, EFAULT,
/// EINTR, EINVAL, ENOENT, ENOMEM, and what a change was refused with. With `nevents` above
/// 0 it is a cancellation point: before it does anything, and asleep if there are no changes.
///
/// # Safety
/// Mapped memory behind `changelist` must hold `nchanges` structures; behind `eventlist`
/// the caller must own as many as there are events to report, `nevents` at most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kevent(
    kq: c_int,
    changelist: *const kevent,
    nchanges: c_int,
    eventlist: *mut kevent,
    nevents: c_int,
    timeout: *const timespec,
) -> c_int {
    // Cancellation and siglongjmp() unwind this frame: it owns nothing, and calls nothing that
    // could unwind by itself, for whose sake the compiler would stop it here.
    if nevents > 0 {
        sleep::cancellation_point();
    }
    let mut found = const { MaybeUninit::<Events>::uninit() };
    let mut call = const { MaybeUninit::<Call>::uninit() };
    let (call, found) = (&raw mut call as *mut Call, &raw mut found as *mut Events);
    let lists = Lists { changelist, nchanges, eventlist, nevents, timeout };
    // SAFETY: the caller's promise; both live as long as this frame.
    let mut status = unsafe { begin(call, found, kq, &raw const lists) };
    while status == ASLEEP {
        // SAFETY: the nap is the call's first field, and was filled in for this sleep.
        unsafe { sleep::sleep(call as *mut Nap) };
        // SAFETY: as above.
        status = unsafe { go_on(call) };
    }
    status
}

/// [`kevent`]'s arguments, but for the first.
struct Lists {
    changelist: *const kevent,
    nchanges: c_int,
    eventlist: *mut kevent,
    nevents: c_int,
    timeout: *const timespec,
}

/// A call of [`kevent`] that may sleep. It is never dropped as a whole, since a thread that
/// leaves its sleep would skip that.
#[repr(C)]
struct Call {
    /// First: the cleanup handler finds the call by its address. There while the status is
    /// [`ASLEEP`], as is who sleeps.
    nap: MaybeUninit<Nap>,
    guard: Guarded,
    request: Request,
    events: Output<kevent>,
    round: Round,
    found: *mut Events,
    sleeper: MaybeUninit<Sleeper>,
    thread: *const reentry::Thread,
}

/// The status of a call whose thread is to sleep.
const ASLEEP: c_int = -2;

/// A call up to its first sleep.
///
/// # Safety
/// As for [`kevent`]; `call` and `found` are the caller's to lend.
unsafe extern "C" fn begin(call: *mut Call, found: *mut Events, kq: c_int, lists: *const Lists) -> c_int {
    let guard = Guarded::enter();
    // SAFETY: the caller's promise.
    unsafe { Events::empty_at(found) };
    // SAFETY: the caller's promise.
    let lists = unsafe { &*lists };
    let (Ok(nchanges), Ok(nevents)) = (usize::try_from(lists.nchanges), usize::try_from(lists.nevents)) else {
        guard.leave(Some(Errno::EINVAL));
        return -1;
    };
    // SAFETY: the caller's promise; every address is checked when it is used.
    let changes = unsafe { Input::new(lists.changelist, nchanges) };
    // SAFETY: as above.
    let timeout = unsafe { Input::new(lists.timeout, usize::from(!lists.timeout.is_null())) };
    // SAFETY: as above.
    let events = unsafe { Output::new(lists.eventlist, nevents) };
    let request = Request { number: kq, changes, timeout };
    let thread = reentry::thread();
    let (round, nap, sleeper) = (Round::new(Patience::Forever), MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the caller's promise.
    let place = unsafe { &mut *call.cast::<MaybeUninit<Call>>() };
    let call = place.write(Call { nap, guard, request, events, round, found, sleeper, thread });
    // SAFETY: the calling thread's own.
    if !unsafe { &*thread }.begin() {
        return put_off(call);
    }
    // SAFETY: the caller's promise.
    let progress = crate::kqueue::kevent(&call.request, unsafe { &mut *found }, &mut call.events, &mut call.round);
    proceed(call, progress)
}

/// A call in the middle of another one of its thread.
#[cold]
#[inline(never)]
fn put_off(call: &mut Call) -> c_int {
    // SAFETY: the calling thread's own.
    let result = unsafe { &*call.thread }.leave_behind(&call.request, &mut call.events);
    ended(call, result)
}

/// Goes on after a sleep.
///
/// # Safety
/// The call's thread has slept.
unsafe extern "C" fn go_on(call: *mut Call) -> c_int {
    // SAFETY: the caller's promise.
    let call = unsafe { &mut *call };
    // SAFETY: the calling thread's own.
    unsafe { &*call.thread }.begin();
    // SAFETY: lent for the whole call.
    let found = unsafe { &mut *call.found };
    // SAFETY: the call has slept.
    let waited = unsafe { call.nap.assume_init_ref() }.result(found);
    // SAFETY: it is there while the call sleeps, and taken once.
    let sleeper = unsafe { call.sleeper.assume_init_read() };
    let progress = sleeper.wake_up(&call.request, waited, found, &mut call.events, &mut call.round);
    proceed(call, progress)
}

/// What the program is told, or the preparations for a sleep.
#[inline(always)]
fn proceed(call: &mut Call, progress: Result<Progress>) -> c_int {
    // SAFETY: the calling thread's own.
    unsafe { &*call.thread }.end();
    match progress {
        Ok(Progress::Done(count)) => ended(call, Ok(count)),
        Ok(Progress::Sleep(sleeper)) => prepare_sleep(call, sleeper),
        Err(errno) => ended(call, Err(errno)),
    }
}

#[inline(never)]
fn prepare_sleep(call: &mut Call, sleeper: Sleeper) -> c_int {
    // SAFETY: lent for the whole call.
    let nap = sleeper.nap(unsafe { &mut *call.found }, call.events.room(), &mut call.round);
    // Changes would be lost to the program with their answer.
    let cancellable = call.guard.is_cancellable() && call.request.changes.len() == 0;
    call.nap.write(nap.if_left(IfLeft(left), cancellable));
    call.sleeper.write(sleeper);
    ASLEEP
}

/// Ends a call: what the program is told.
fn ended(call: &Call, result: Result<usize>) -> c_int {
    let result = result.and_then(|count| c_int::try_from(count).map_err(|_| Errno::EINVAL));
    if debug::is_on() {
        trace(call, result);
    }
    call.guard.leave(result.err());
    result.unwrap_or(-1)
}

#[cold]
#[inline(never)]
fn trace(call: &Call, result: Result<c_int>) {
    let (kq, nchanges, room) = (call.request.number, call.request.changes.len(), call.events.room());
    debug::trace("kevent", format_args!("kq={kq} nchanges={nchanges} room={room} -> {result:?}"));
}

/// The thread of a call has left its sleep for good: it was cancelled and ends, or a signal
/// handler of the program's jumps out of the call, and it goes on elsewhere.
extern "C" fn left(call: *mut c_void) {
    // glibc acts upon a cancellation again at the next cancellation point, also in a thread
    // that ends already: what follows would be left half done.
    let guard = Guarded::enter();
    // SAFETY: a call whose thread sleeps.
    let call = unsafe { &mut *call.cast::<Call>() };
    // SAFETY: it is there while the call sleeps, and taken once.
    let sleeper = unsafe { call.sleeper.assume_init_read() };
    // SAFETY: the calling thread's own.
    let thread = unsafe { &*call.thread };
    thread.begin();
    // SAFETY: lent for the whole call.
    sleeper.give_up(&call.request, unsafe { &*call.found });
    thread.end();
    // SAFETY: the call has slept.
    unsafe { call.nap.assume_init_ref() }.restore_type();
    guard.within(&call.guard).leave(None);
}

/// Returns once every kqueue whose descriptor is closed has been freed.
#[unsafe(no_mangle)]
pub extern "C" fn libkqueue_drain_pending_close() {
    enter(|| {
        reentry::alone(|| {
            crate::kqueue::drain_pending_close();
            Ok(0)
        })
    });
}
