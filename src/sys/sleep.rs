//! Sleeping in epoll: cancellable where pthreads(7) wants it, and able to tell a signal
//! that ran a handler from one that did not.
//!
//! epoll_wait(2) fails with EINTR after a handler, but after SIGSTOP and SIGCONT, too, and
//! for signals that are ignored in the end, where a BSD sleeps on. The kernel leaves one
//! trace only of a handler: it builds the handler's frame on the thread's stack, from the
//! stack pointer less the ABI's red zone downwards. So a pattern stands there during the
//! system call, and what is left of it tells.
//!
//! Cancellation unwinds the thread's stack by force. Frames that own something must not be
//! on it then, so the functions here and their caller own nothing; what is to be given
//! back is given back by a cleanup handler.

#![allow(unsafe_code)]

use super::epoll::{Events, Patience};
use super::{clock, thread};
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
    fn pthread_setcanceltype(kind: c_int, old: *mut c_int) -> c_int;
    fn _pthread_cleanup_push(buffer: *mut CleanupBuffer, routine: extern "C" fn(*mut c_void), argument: *mut c_void);
    fn _pthread_cleanup_pop(buffer: *mut CleanupBuffer, execute: c_int);
}

const PTHREAD_CANCEL_ASYNCHRONOUS: c_int = 1;

/// Ends the calling thread here if it was cancelled. No frame of its callers up to the
/// program's may own anything.
pub(crate) extern "C" fn cancellation_point() {
    // SAFETY: takes nothing; the callers are as said above.
    unsafe { pthread_testcancel() };
}

/// What the wait of a sleeping thread is, and what came of it.
pub(crate) struct Nap {
    epoll: RawFd,
    max: usize,
    patience: Patience,
    outcome: Outcome,
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
    /// A wait in `epoll` for `max` events at most.
    pub(crate) fn new(epoll: RawFd, max: usize, patience: Patience) -> Nap {
        Nap { epoll, max, patience, outcome: Outcome { ret: 0, disturbed: 0 } }
    }

    /// How the wait went: EINTR if a handler of the program's ran. No event and no error
    /// where the time is over or something else interrupted it.
    pub(crate) fn result(&self, events: &mut Events) -> Result<()> {
        let woken = usize::try_from(self.outcome.ret);
        events.set_len(woken.unwrap_or(0));
        match woken {
            Ok(_) => Ok(()),
            Err(_) if self.outcome.ret == -i64::from(libc::EINTR) => {
                if self.a_handler_ran() {
                    Err(Errno::EINTR)
                } else {
                    Ok(())
                }
            }
            Err(_) => Err(Errno::of_kernel(self.outcome.ret)),
        }
    }

    fn a_handler_ran(&self) -> bool {
        let mut disturbed = self.outcome.disturbed;
        mark_defined(&mut disturbed);
        if disturbed == 0 { super::signal::handlers_elsewhere() } else { super::signal::handlers_installed() }
    }
}

/// Sleeps as `nap` says. With `on_cancel` the sleep is a cancellation point, if the program
/// has not switched cancellation off: if the thread is cancelled in it, the function is called with `nap` and the thread ends, and no event
/// was taken unless [`Events::is_touched`].
///
/// # Safety
/// Both pointers are valid and nobody else's; no frame up to the program's owns anything.
pub(crate) unsafe extern "C" fn sleep(nap: *mut Nap, events: *mut Events, on_cancel: Option<OnCancel>) {
    let Some(OnCancel(routine)) = on_cancel else {
        // libc may interrupt a wait even for a cancellation that is deferred.
        // SAFETY: the caller's promise.
        return thread::uncancelled(|| unsafe { wait(nap, events) });
    };
    let mut buffer = MaybeUninit::uninit();
    let mut kind = 0;
    // SAFETY: the buffer is popped again before it ends.
    unsafe { _pthread_cleanup_push(buffer.as_mut_ptr(), routine, nap.cast()) };
    // SAFETY: from here to its counterpart the thread may end at any instruction: nothing
    // but one system call happens.
    unsafe { pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &raw mut kind) };
    // SAFETY: the caller's promise.
    unsafe { wait(nap, events) };
    // SAFETY: restores what was.
    unsafe { pthread_setcanceltype(kind, &raw mut kind) };
    // SAFETY: pushed above; it is not to be run.
    unsafe { _pthread_cleanup_pop(buffer.as_mut_ptr(), 0) };
}

/// What a thread cancelled in its sleep runs; its argument is the nap.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct OnCancel(pub(crate) extern "C" fn(*mut c_void));

/// epoll_pwait2(2) where the kernel (5.11) has it, else epoll_pwait(2) with milliseconds
/// rounded up.
unsafe extern "C" fn wait(nap: *mut Nap, events: *mut Events) {
    // SAFETY: the caller's promise.
    let nap = unsafe { &mut *nap };
    // SAFETY: the caller's promise.
    let buffer = unsafe { Events::start(events) };
    let (epoll, max) = (c_long::from(nap.epoll), nap.max as c_long);
    if !NO_PWAIT2.load(Ordering::Relaxed) {
        let time = clock::timespec(nap.patience.nanos().unwrap_or(0));
        let time = if nap.patience.nanos().is_some() { &raw const time as c_long } else { 0 };
        // SAFETY: the buffer holds BATCH >= max entries, the time lives through the call.
        nap.outcome = unsafe { wait_call(epoll, buffer, max, time, libc::SYS_epoll_pwait2) };
        // EPERM: a sandbox older than the call.
        if nap.outcome.ret != -i64::from(libc::ENOSYS) && nap.outcome.ret != -i64::from(libc::EPERM) {
            return;
        }
        NO_PWAIT2.store(true, Ordering::Relaxed);
    }
    // SAFETY: as above; the time is a number here.
    nap.outcome = unsafe { wait_call(epoll, buffer, max, nap.patience.millis(), libc::SYS_epoll_pwait) };
}

/// The kernel lacks epoll_pwait2.
pub(super) static NO_PWAIT2: AtomicBool = AtomicBool::new(false);

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
    let (no_mask, mask_size): (c_long, c_long) = (0, 8);
    // SAFETY: the caller's promise; every argument has a register's width.
    let ret = unsafe { libc::syscall(number, epoll, events, max, timeout, no_mask, mask_size) };
    let ret = if ret == -1 { -i64::from(Errno::last().raw()) } else { ret as i64 };
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
