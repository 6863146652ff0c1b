//! sigaction(2) and signal(2) as the shared library exports them, in front of libc's.
//!
//! A program must not see our hook, nor push it aside, while it changes the action of a
//! watched signal; for signals nobody watches these hand on what they are given.
//!
//! Only the shared library may have the two names: in an archive they would stand in for
//! libc's in every program, watched signals or not. All libraries are made from one compile,
//! so the functions have names here that nobody uses, and the linker gives the shared library
//! the others (`build.rs`). These names are patterns, too: rustc has the linker export what
//! they match, which is the name of the alias and not their own.

use super::enter;
use crate::sys::hook;
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

/// signal(2), as glibc has it: restarts system calls, blocks the signal meanwhile.
#[unsafe(export_name = "signa[l]")]
pub(super) extern "C" fn front_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    let mut before = libc::SIG_ERR;
    enter(|| {
        before = hook::change_simply(signal, handler)?;
        Ok(0)
    });
    before
}
