//! Sleeping in epoll: cancellable where pthreads(7) wants it, and able to tell a signal
//! that ran a handler from one that did not.
//!
//! epoll_wait(2) fails with EINTR after a handler, but after SIGSTOP and SIGCONT, too, and
//! for signals that are ignored in the end, where a BSD sleeps on. The kernel leaves one
//! trace only of a handler: it builds the handler's frame on the thread's stack, from the
//! stack pointer less the ABI's red zone downwards. So a pattern stands there during the
//! system call, and what is left of it tells.
//!
//! Cancellation unwinds the thread's stack by force, and so do a signal handler's
//! pthread_exit() and siglongjmp(), which leave any sleep. Frames that own something must not
//! be on it then, so the functions here and their caller own nothing; what is to be given
//! back is given back by a cleanup handler, which glibc runs in all three cases.

#![allow(unsafe_code)]

use super::clock;
use super::epoll::{Events, Patience};
#[cfg(not(target_arch = "x86_64"))]
use super::raw;
use super::signal::Interruptions;
use crate::errno::{Errno, Result};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};
use libc::{c_int, c_long};
use std::os::fd::RawFd;

/// struct _pthread_cleanup_buffer (pthread.h).
#[repr(C)]
struct CleanupBuffer {
    routine: Option<extern "C" fn(*mut c_void)>,
    argument: *mut c_void,
    cancel_type: c_int,
    previous: *mut CleanupBuffer,
}

unsafe extern "C" {
    fn pthread_testcancel();
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
    fn pthread_setcanceltype(kind: c_int, old: *mut c_int) -> c_int;
    fn _pthread_cleanup_push(buffer: *mut CleanupBuffer, routine: extern "C" fn(*mut c_void), argument: *mut c_void);
    fn _pthread_cleanup_pop(buffer: *mut CleanupBuffer, execute: c_int);
}

const PTHREAD_CANCEL_ENABLE: c_int = 0;
const PTHREAD_CANCEL_ASYNCHRONOUS: c_int = 1;

/// Ends the calling thread here if it was cancelled. No frame of its callers up to the
/// program's may own anything.
pub(crate) extern "C" fn cancellation_point() {
    // SAFETY: takes nothing; the callers are as said above.
    unsafe { pthread_testcancel() };
}

/// The wait of a sleeping thread, worked out beforehand, and what came of it.
pub(crate) struct Nap {
    epoll: c_long,
    buffer: *mut libc::epoll_event,
    max: c_long,
    /// epoll_pwait2(2), or epoll_pwait(2) where there is none.
    number: c_long,
    time: libc::timespec,
    /// The argument that says how long: `None`, the address of `time`.
    timeout: Option<c_long>,
    if_left: Option<IfLeft>,
    cancellable: bool,
    /// The thread's cancellation type before a cancellable sleep, while that has changed it.
    kind: c_int,
    outcome: Outcome,
    before: Interruptions,
}

/// What a wait's system call came back with.
#[derive(Clone, Copy)]
#[repr(C)]
struct Outcome {
    /// As the kernel gives it: a count, or an errno's negative.
    ret: i64,
    /// Not 0: a signal handler ran meanwhile, or it is not known.
    disturbed: u64,
}

impl Nap {
    /// A wait in `epoll` for `max` events at most, which go to `events`: that has to stay where
    /// it is.
    pub(crate) fn new(epoll: RawFd, events: &mut Events, max: usize, patience: Patience) -> Nap {
        let nanos = patience.nanos();
        let exact = !NO_PWAIT2.load(Ordering::Relaxed);
        Nap {
            epoll: epoll.into(),
            buffer: events.start(),
            max: max as c_long,
            number: if exact { libc::SYS_epoll_pwait2 } else { libc::SYS_epoll_pwait },
            time: clock::timespec(nanos.unwrap_or(0)),
            timeout: match nanos {
                _ if !exact => Some(patience.millis()),
                None => Some(0),
                Some(_) => None,
            },
            if_left: None,
            cancellable: false,
            kind: UNCHANGED,
            outcome: Outcome { ret: 0, disturbed: 0 },
            before: Interruptions::so_far(),
        }
    }

    /// Has the function called with the nap's address if the sleep is left for good, by a
    /// signal handler or, if it is `cancellable`, by the thread's cancellation; no event was
    /// taken unless [`Events::is_touched`].
    pub(crate) fn if_left(self, call: IfLeft, cancellable: bool) -> Nap {
        Nap { if_left: Some(call), cancellable, ..self }
    }

    /// After that, with cancellation off: the thread's cancellation type is the program's again.
    pub(crate) fn restore_type(&self) {
        if self.kind != UNCHANGED {
            // SAFETY: a type the thread has had.
            unsafe { pthread_setcanceltype(self.kind, core::ptr::null_mut()) };
        }
    }

    /// How the wait went: EINTR if a handler of the program's ran. No event and no error
    /// where the time is over or something else interrupted it. True: a handler is known to
    /// have run though there were events, for a signalfd tells of what is on its way to one.
    pub(crate) fn result(&self, events: &mut Events) -> Result<bool> {
        let woken = usize::try_from(self.outcome.ret);
        events.set_len(woken.unwrap_or(0));
        if woken.is_ok() {
            return Ok(self.before.were_handled());
        }
        match Errno::of_kernel(self.outcome.ret) {
            Errno::EINTR if self.a_handler_ran() => Err(Errno::EINTR),
            Errno::EINTR => Ok(false),
            // EPERM: a sandbox older than the call.
            Errno::ENOSYS | Errno::EPERM if self.number == libc::SYS_epoll_pwait2 => {
                NO_PWAIT2.store(true, Ordering::Relaxed);
                Ok(false)
            }
            errno => Err(errno),
        }
    }

    fn a_handler_ran(&self) -> bool {
        let mut disturbed = self.outcome.disturbed;
        mark_defined(&mut disturbed);
        self.before.were_by_program(disturbed != 0)
    }
}

/// No cancellation type.
const UNCHANGED: c_int = -1;

/// What a thread runs that leaves its sleep for good; its argument is the nap.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct IfLeft(pub(crate) extern "C" fn(*mut c_void));

/// Sleeps as `nap` says.
///
/// # Safety
/// The nap is valid and nobody else's. No frame up to the program's owns anything, or calls
/// Rust functions that could unwind: neither this one nor [`wait`] does.
pub(crate) unsafe extern "C" fn sleep(nap: *mut Nap) {
    // SAFETY: the caller's promise.
    let Some(IfLeft(routine)) = (unsafe { (*nap).if_left }) else {
        // SAFETY: the caller's promise.
        return unsafe { wait(nap) };
    };
    let mut buffer = const { MaybeUninit::<CleanupBuffer>::uninit() };
    let buffer = &raw mut buffer as *mut CleanupBuffer;
    // SAFETY: the buffer is popped again before it ends.
    unsafe { _pthread_cleanup_push(buffer, routine, nap as *mut c_void) };
    // SAFETY: the caller's promise.
    if unsafe { (*nap).cancellable } {
        // SAFETY: the caller's promise.
        unsafe { wait_cancellably(nap) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { wait(nap) };
    }
    // SAFETY: pushed above; it is not to be run.
    unsafe { _pthread_cleanup_pop(buffer, 0) };
}

unsafe extern "C" fn wait_cancellably(nap: *mut Nap) {
    let mut state = 0;
    // SAFETY: the caller's promise.
    let kind = unsafe { &raw mut (*nap).kind };
    // SAFETY: valid arguments.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &raw mut state) };
    // SAFETY: from here to its counterpart the thread may end at any instruction: nothing
    // but one system call happens.
    unsafe { pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, kind) };
    // SAFETY: the caller's promise.
    unsafe { wait(nap) };
    // SAFETY: it was filled in above.
    let was = unsafe { kind.read() };
    // SAFETY: restores what was.
    unsafe { pthread_setcanceltype(was, core::ptr::null_mut()) };
    // SAFETY: restores what was.
    unsafe { pthread_setcancelstate(state, &raw mut state) };
}

unsafe extern "C" fn wait(nap: *mut Nap) {
    // SAFETY: the caller's promise.
    let nap = unsafe { &mut *nap };
    let timeout = match nap.timeout {
        Some(number) => number,
        None => &raw const nap.time as c_long,
    };
    // SAFETY: the buffer holds BATCH >= max entries, the time lives through the call.
    nap.outcome = unsafe { wait_call(nap.epoll, nap.buffer, nap.max, timeout, nap.number) };
}

/// The kernel (before 5.11) lacks epoll_pwait2.
static NO_PWAIT2: AtomicBool = AtomicBool::new(false);

/// The system call `number` with no signal mask, and the pattern below the red zone. The
/// kernel's frame ends within 68 bytes of it: with the floating point state, after which
/// it writes a magic number.
///
/// The stack pointer is lowered over the pattern, but not while the kernel sleeps: what is
/// below it then is nobody's, as far as memory checkers know.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn wait_call(
    epoll: c_long,
    events: *mut libc::epoll_event,
    max: c_long,
    timeout: c_long,
    number: c_long,
) -> Outcome {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "mov rax, r8",
        "mov r10, rcx",
        "xor r8d, r8d",
        "mov r9d, 8",
        "movabs rcx, {pattern}",
        "sub rsp, 208",
        ".cfi_adjust_cfa_offset 208",
        "mov [rsp + 8], rcx",
        "mov [rsp + 16], rcx",
        "mov [rsp + 24], rcx",
        "mov [rsp + 32], rcx",
        "mov [rsp + 40], rcx",
        "mov [rsp + 48], rcx",
        "mov [rsp + 56], rcx",
        "mov [rsp + 64], rcx",
        "mov [rsp + 72], rcx",
        "add rsp, 208",
        ".cfi_adjust_cfa_offset -208",
        "syscall",
        "sub rsp, 208",
        ".cfi_adjust_cfa_offset 208",
        "movabs rcx, {pattern}",
        "xor edx, edx",
        ".irp at, 8, 16, 24, 32, 40, 48, 56, 64, 72",
        "mov r8, [rsp + \\at]",
        "xor r8, rcx",
        "or rdx, r8",
        ".endr",
        "add rsp, 208",
        ".cfi_adjust_cfa_offset -208",
        "ret",
        ".cfi_endproc",
        pattern = const 0x5ac3_96e1_0fb4_7d28_u64,
    )
}

/// The same through syscall(2), not knowing whether a handler ran.
#[cfg(not(target_arch = "x86_64"))]
unsafe extern "C" fn wait_call(
    epoll: c_long,
    events: *mut libc::epoll_event,
    max: c_long,
    timeout: c_long,
    number: c_long,
) -> Outcome {
    let (no_mask, mask_size) = (0, 8);
    // SAFETY: the caller's promise.
    let woken = unsafe { raw::call(number, [epoll, events as c_long, max, timeout, no_mask, mask_size]) };
    let ret = woken.map_or_else(|errno| -i64::from(errno.raw()), |count| count as i64);
    Outcome { ret, disturbed: 1 }
}

/// Tells valgrind that the remains of the pattern are a value, though they were read from
/// below the stack. These rotations are its way of being asked; they do nothing else.
#[cfg(target_arch = "x86_64")]
fn mark_defined(value: &mut u64) {
    let make_defined: u64 = 0x4d43_0002;
    let request = [make_defined, &raw mut *value as u64, size_of::<u64>() as u64, 0, 0, 0];
    // SAFETY: rotates rdi by 128 bits in all and exchanges rbx with itself: nothing changes.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            inout("rdx") 0_u64 => _, in("rax") &raw const request, options(nostack)
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn mark_defined(_value: &mut u64) {}
