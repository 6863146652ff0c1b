//! `Errno`: an error as the kernel and C programs know it.
//!
//! Inside the library every failure travels as a value; the C `errno` is written in
//! one place only, `ffi`, and only when a call returns -1.

use core::fmt;
use libc::c_int;

/// A non-zero error number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(c_int);

/// What fallible calls of this library return.
pub(crate) type Result<T> = core::result::Result<T, Errno>;

macro_rules! names {
    ($($name:ident)*) => {
        impl Errno {
            $(pub(crate) const $name: Errno = Errno(libc::$name);)*
        }

        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $(libc::$name => f.write_str(stringify!($name)),)*
                    other => write!(f, "errno {other}"),
                }
            }
        }
    };
}

names! { EAGAIN EBADF EEXIST EFAULT EINTR EINVAL EIO ELOOP EMFILE ENFILE ENOBUFS ENOENT ENOMEM ENOSPC ENOSYS ENOTSUP EPERM EPIPE ESRCH }

impl Errno {
    /// The calling thread's errno, to be read right after a failed call.
    pub(crate) fn last() -> Errno {
        Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// The error in a system call's bare return value, its negative.
    pub(crate) fn of_kernel(ret: i64) -> Errno {
        Errno(c_int::try_from(-ret).unwrap_or(libc::EIO))
    }

    /// The number as C knows it.
    pub(crate) fn raw(self) -> c_int {
        self.0
    }
}

impl From<std::collections::TryReserveError> for Errno {
    fn from(_: std::collections::TryReserveError) -> Errno {
        Errno::ENOMEM
    }
}
