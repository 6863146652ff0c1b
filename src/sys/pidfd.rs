//! pidfd_open(2): a process as a descriptor that becomes readable when it ends.
//!
//! It ends with its last thread, whichever that is, and stays what it is after its number
//! was given to another. How it ended is learned without reaping it: from waitid(2) for a
//! child, from the descriptor itself (PIDFD_GET_INFO, Linux 6.15) for whatever has been
//! reaped, and from /proc for a zombie that is somebody else's or traced.

#![allow(unsafe_code)]

use super::fd::{self, Fd, Fresh};
use super::file::{self, Sort};
use super::{number, process, raw, retry};
use crate::errno::{Errno, Result};
use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};

/// A pidfd of the library's own.
pub(crate) struct PidFd(Fd);

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl PidFd {
    /// ESRCH: there is no such process; EMFILE, ENFILE, ENOMEM; ENOSYS before Linux 5.3.
    pub(crate) fn open(pid: libc::pid_t) -> Result<PidFd> {
        let _creating = fd::creating();
        let (pid, flags) = (libc::c_long::from(pid), 0 as libc::c_long);
        // SAFETY: touches no memory; a descriptor fits an int.
        let opened = number(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) } as libc::c_int);
        let fd = opened.map_err(|errno| match errno {
            // A number that no process can have, or that is a thread's.
            Errno::EINVAL | Errno::ENOENT => Errno::ESRCH,
            other => other,
        })?;
        Ok(PidFd(Fd::new(Fresh::new(fd))?))
    }
}

/// Whether the process behind a pidfd has ended.
pub(crate) fn has_ended(pidfd: RawFd) -> bool {
    fd::poll_now(pidfd, libc::POLLIN) & libc::POLLIN != 0
}

/// Whether a process has this number, as far as it can be told without a descriptor.
pub(crate) fn exists(pid: libc::pid_t) -> bool {
    // Signal 0 is not sent. A thread's number is no process'. EPERM: it may not be sent one.
    !matches!(process::send_to_thread(pid, pid, 0), Err(Errno::ESRCH | Errno::EINVAL))
}

/// Whether `fd` is a pidfd, of the program's or anybody's. EBADF.
pub(crate) fn is_pidfd(fd: RawFd) -> Result<bool> {
    // No device is asked what it may take for an order.
    if file::sort(fd)? != Sort::Anonymous {
        return Ok(false);
    }
    // ESRCH: reaped.
    Ok(matches!(info(fd), Ok(_) | Err(Errno::ESRCH)) || number_by_proc(fd).is_some())
}

/// wait(2)'s status of the process behind a pidfd. `None` if it has not ended, and where
/// nobody tells: another user's zombie, or reaped on a kernel before 6.15. EBADF: no pidfd.
pub(crate) fn status(pidfd: RawFd) -> Result<Option<i32>> {
    match child_status(libc::P_PIDFD, pidfd.unsigned_abs()) {
        Err(Errno::EBADF) => Err(Errno::EBADF),
        Ok(Some(status)) => Ok(Some(status)),
        // A child that somebody else traces is shown to its parent after the tracer has seen it.
        Ok(None) if !has_ended(pidfd) => Ok(None),
        _ => Ok(status_of_other(pidfd)),
    }
}

/// The same where waitid(2) has nothing to say.
fn status_of_other(pidfd: RawFd) -> Option<i32> {
    let exit = || info(pidfd).ok().filter(|info| info.mask & INFO_EXIT != 0);
    if let Some(info) = exit() {
        return Some(info.exit_code);
    }
    let known = info(pidfd).ok().and_then(|info| libc::pid_t::try_from(info.pid).ok());
    let by_proc = known.or_else(|| number_by_proc(pidfd)).and_then(zombie_status);
    // If it has been reaped meanwhile, the number may have been another's.
    exit().map(|info| info.exit_code).or(by_proc)
}

/// The same for a child by its number; `None`: it has not ended, or is traced and its tracer has
/// not seen that. ECHILD: it is no child of this process, or is reaped.
pub(crate) fn status_of_child(pid: libc::pid_t) -> Result<Option<i32>> {
    child_status(libc::P_PID, pid.unsigned_abs())
}

/// waitid(2), which leaves the child to be waited for by the program.
fn child_status(sort: libc::idtype_t, id: libc::id_t) -> Result<Option<i32>> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    let info = retry(|| raw::waitid(sort, id, options))?;
    // SAFETY: of a SIGCHLD, or all zero.
    if unsafe { info.si_pid() } == 0 {
        return Ok(None);
    }
    // SAFETY: of a SIGCHLD.
    Ok(Some(wait_word(info.si_code, unsafe { info.si_status() })))
}

/// What wait(2) makes of a siginfo's code and status.
fn wait_word(code: i32, status: i32) -> i32 {
    match code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status & 0x7f | 0x80,
        _ => status & 0x7f,
    }
}

/// The kernel's `struct pidfd_info` as it first was.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    credentials: [u32; 8],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

const INFO_PID: u64 = 1;
const INFO_EXIT: u64 = 8;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: u64 = 3 << 30 | 64 << 16 | 0xff << 8 | 11;

fn info(pidfd: RawFd) -> Result<Info> {
    let mut info = Info { mask: INFO_PID | INFO_EXIT, ..Info::default() };
    // SAFETY: the number says how long `info` is.
    number(unsafe { libc::ioctl(pidfd, GET_INFO as _, &raw mut info) })?;
    Ok(info)
}

/// The process' number from /proc/self/fdinfo; -1 once it is reaped.
fn number_by_proc(pidfd: RawFd) -> Option<libc::pid_t> {
    let info = proc_text(format!("self/fdinfo/{pidfd}"))?;
    info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// The exit code of a zombie by its number, from /proc.
fn zombie_status(pid: libc::pid_t) -> Option<i32> {
    exit_code(&proc_text(format!("{pid}/stat"))?)
}

fn proc_text(file: String) -> Option<String> {
    raw::read_text(&CString::new(format!("/proc/{file}")).ok()?).ok()
}

/// The last field of /proc/PID/stat, in wait(2)'s form.
fn exit_code(stat: &str) -> Option<i32> {
    // The name in brackets may contain anything, brackets and blanks too.
    let fields = stat.rsplit_once(')')?.1;
    // X: nobody will wait for it, and it is about to go.
    if !fields.trim_start().starts_with(['Z', 'X']) {
        return None;
    }
    fields.split_whitespace().nth(49)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_words_are_those_of_the_macros() {
        assert!(libc::WIFEXITED(wait_word(libc::CLD_EXITED, 3)));
        assert_eq!(libc::WEXITSTATUS(wait_word(libc::CLD_EXITED, 3)), 3);
        assert_eq!(libc::WTERMSIG(wait_word(libc::CLD_KILLED, 9)), 9);
        assert!(!libc::WCOREDUMP(wait_word(libc::CLD_KILLED, 9)));
        assert_eq!(libc::WTERMSIG(wait_word(libc::CLD_DUMPED, 6)), 6);
        assert!(libc::WCOREDUMP(wait_word(libc::CLD_DUMPED, 6)));
    }

    #[test]
    fn the_exit_code_is_found_behind_any_name() {
        let fields: Vec<String> = (4..=51).map(|field| field.to_string()).collect();
        let line = format!("7 (a ) Z (b) Z {} 2304\n", fields.join(" "));
        assert_eq!(exit_code(&line), Some(2304));
        assert_eq!(exit_code(&line.replace(") Z 4", ") X 4")), Some(2304));
        assert_eq!(exit_code(&line.replace(") Z 4", ") S 4")), None);
        assert_eq!(exit_code("7 (short) Z 1"), None);
    }
}
