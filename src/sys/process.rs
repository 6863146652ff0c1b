//! The process: its number, its threads, its environment as far as it is allowed to count.

#![allow(unsafe_code)]

use super::count;
use crate::errno::Result;

/// The process's number.
pub(super) fn pid() -> libc::pid_t {
    // SAFETY: always succeeds and touches no memory.
    unsafe { libc::getpid() }
}

/// kill(2) of the process itself.
pub(super) fn send(signal: libc::c_int) {
    // SAFETY: takes numbers.
    unsafe { libc::kill(pid(), signal) };
}

/// tgkill(2). ESRCH, EINVAL, EPERM.
pub(super) fn send_to_thread(process: libc::pid_t, thread: libc::pid_t, signal: libc::c_int) -> Result<()> {
    let [process, thread, signal] = [process, thread, signal].map(libc::c_long::from);
    // SAFETY: takes numbers.
    count(unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) }).map(|_| ())
}

/// The kernel's numbers of its threads.
pub(super) fn threads() -> Option<Vec<libc::pid_t>> {
    // No child shall inherit the descriptor.
    let _creating = super::fd::creating();
    let entries = std::fs::read_dir("/proc/self/task").ok()?;
    Some(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// Whether KQUEUE_DEBUG is set, neither empty nor 0. A program that runs with more rights
/// than its user (AT_SECURE) takes no orders from the environment.
pub(crate) fn wants_debug() -> bool {
    // SAFETY: reads the auxiliary vector.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return false;
    }
    std::env::var_os("KQUEUE_DEBUG").is_some_and(|value| !value.is_empty() && value != "0")
}
