//! sigaction(2), signal(2) and their like as the shared library exports them, in front of libc's.
//!
//! A program must not see our hook, nor push it aside, while it changes the action of a
//! watched signal; for signals nobody watches these hand on what they are given.
//!
//! Only the shared library may have these names: in an archive they would stand in for
//! libc's in every program, watched signals or not. All libraries are made from one compile,
//! so the functions have names here that nobody uses, and the linker gives the shared library
//! the others (`build.rs`). These names are patterns, too: rustc has the linker export what
//! they match, which is the name of the alias and not their own.

use super::enter;
use crate::errno::Result;
use crate::sys::hook;
use crate::sys::signal::set_blocked;
use libc::{c_int, sigaction, sighandler_t};

/// sigaction(2).
///
/// # Safety
/// As for libc's: `new` and `old` are null or valid.
#[unsafe(export_name = "sigactio[n]")]
pub(super) unsafe extern "C" fn front_sigaction(signal: c_int, new: *const sigaction, old: *mut sigaction) -> c_int {
    // SAFETY: the caller's promise.
    let new = unsafe { new.as_ref() };
    // SAFETY: as above.
    let old = unsafe { old.as_mut() };
    enter(|| {
        let before = hook::change(signal, new)?;
        if let Some(old) = old {
            *old = before;
        }
        Ok(0)
    })
}

/// Runs `f`, which gives a handler.
fn handler(f: impl FnOnce() -> Result<sighandler_t>) -> sighandler_t {
    let mut before = libc::SIG_ERR;
    enter(|| {
        before = f()?;
        Ok(0)
    });
    before
}

/// signal(2), as glibc has it: restarts system calls, blocks the signal meanwhile.
#[unsafe(export_name = "signa[l]")]
pub(super) extern "C" fn front_signal(signal: c_int, new: sighandler_t) -> sighandler_t {
    handler(|| hook::change_simply(signal, new))
}

/// Another name of it.
#[unsafe(export_name = "bsd_signa[l]")]
pub(super) extern "C" fn front_bsd_signal(signal: c_int, new: sighandler_t) -> sighandler_t {
    front_signal(signal, new)
}

/// System V's signal(), for one time and without blocking. A program that asks its C headers for
/// POSIX alone calls it by the name of signal().
#[unsafe(export_name = "sysv_signa[l]")]
pub(super) extern "C" fn front_sysv_signal(signal: c_int, new: sighandler_t) -> sighandler_t {
    handler(|| hook::change_plainly(signal, new, libc::SA_RESETHAND | libc::SA_NODEFER))
}

/// What it is called there.
#[unsafe(export_name = "__sysv_signa[l]")]
pub(super) extern "C" fn front_own_sysv_signal(signal: c_int, new: sighandler_t) -> sighandler_t {
    front_sysv_signal(signal, new)
}

/// sigset(3): an action, or SIG_HOLD.
#[unsafe(export_name = "sigse[t]")]
pub(super) extern "C" fn front_sigset(signal: c_int, new: sighandler_t) -> sighandler_t {
    const SIG_HOLD: sighandler_t = 2;
    handler(|| {
        let before = if new == SIG_HOLD {
            hook::change(signal, None)?.sa_sigaction
        } else {
            hook::change_plainly(signal, new, 0)?
        };
        let was_held = set_blocked(signal, new == SIG_HOLD);
        Ok(if was_held { SIG_HOLD } else { before })
    })
}

/// sigignore(3).
#[unsafe(export_name = "sigignor[e]")]
pub(super) extern "C" fn front_sigignore(signal: c_int) -> c_int {
    enter(|| hook::change_plainly(signal, libc::SIG_IGN, 0).map(|_| 0))
}
