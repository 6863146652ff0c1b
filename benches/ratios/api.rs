//! The kqueue interface as the workloads see it: three function pointers.
//!
//! The library and a peer are both called through pointers, as a C program calls a
//! shared object, so that neither is inlined into the loop that measures it.

use kqueue::kevent as Event;
use libc::{c_char, c_int, c_short, c_uint, c_ushort, c_void, timespec};
use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::{mem, ptr};

pub(crate) use kqueue::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_ERROR, EV_ONESHOT, EVFILT_PROC, EVFILT_READ,
    EVFILT_SIGNAL, EVFILT_TIMER, EVFILT_USER, EVFILT_VNODE, EVFILT_WRITE, NOTE_EXIT, NOTE_EXTEND, NOTE_NSECONDS,
    NOTE_TRIGGER, NOTE_WRITE,
};

/// `struct kevent`.
pub(crate) type Kevent = Event;

/// What a workload returns: a lost or unexpected event in words.
pub(crate) type Outcome<T = ()> = Result<T, String>;

type KqueueFn = unsafe extern "C" fn() -> c_int;
type KeventFn = unsafe extern "C" fn(c_int, *const Event, c_int, *mut Event, c_int, *const timespec) -> c_int;
type DrainFn = unsafe extern "C" fn();

/// One implementation of kqueue.
#[derive(Clone, Copy)]
pub(crate) struct Api {
    kqueue: KqueueFn,
    kevent: KeventFn,
    drain: Option<DrainFn>,
}

impl Api {
    /// The library of this package.
    pub(crate) fn ours() -> Api {
        Api { kqueue: kqueue::kqueue, kevent: kqueue::kevent, drain: Some(kqueue::libkqueue_drain_pending_close) }
    }

    /// The library in `dir`, loaded apart from everything else.
    pub(crate) fn peer(dir: &str) -> Outcome<Api> {
        let path = format!("{dir}/libkqueue.so.0");
        let name = CString::new(path.clone()).map_err(|e| e.to_string())?;
        // SAFETY: `name` ends in a zero byte; the library's constructors are its own affair.
        let lib = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if lib.is_null() {
            return Err(format!("{path}: cannot be loaded"));
        }
        let need = |name| symbol(lib, name).ok_or_else(|| format!("{path}: a symbol is missing"));
        let (kqueue, kevent) = (need(c"kqueue".as_ptr())?, need(c"kevent".as_ptr())?);
        let drain = symbol(lib, c"libkqueue_drain_pending_close".as_ptr());
        Ok(Api {
            // SAFETY: kqueue(2) is this type in every libkqueue.
            kqueue: unsafe { mem::transmute::<*mut c_void, KqueueFn>(kqueue) },
            // SAFETY: kevent(2) is this type in every libkqueue.
            kevent: unsafe { mem::transmute::<*mut c_void, KeventFn>(kevent) },
            // SAFETY: void (void), where it exists.
            drain: drain.map(|f| unsafe { mem::transmute::<*mut c_void, DrainFn>(f) }),
        })
    }

    /// A new kqueue.
    pub(crate) fn open(self) -> Outcome<Kq> {
        // SAFETY: takes no arguments.
        let fd = unsafe { (self.kqueue)() };
        if fd < 0 {
            return Err(format!("kqueue: {}", std::io::Error::last_os_error()));
        }
        // SAFETY: `fd` is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Kq { api: self, fd })
    }

    /// Returns when every closed kqueue is freed, where the library can tell.
    pub(crate) fn drain(self) {
        if let Some(drain) = self.drain {
            // SAFETY: takes no arguments and may be called at any time.
            unsafe { drain() };
        }
    }
}

fn symbol(lib: *mut c_void, name: *const c_char) -> Option<*mut c_void> {
    // SAFETY: `lib` came from dlopen, `name` from a C string literal.
    let at = unsafe { libc::dlsym(lib, name) };
    (!at.is_null()).then_some(at)
}

/// How long a call waits.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    /// Until something comes: a NULL timeout.
    Forever,
    /// Not at all: a zero timeout.
    Poll,
}

impl Wait {
    /// The same for `epoll_wait`.
    #[inline]
    pub(crate) fn millis(self) -> c_int {
        match self {
            Wait::Forever => -1,
            Wait::Poll => 0,
        }
    }
}

/// A kqueue of one of the implementations; closed on drop.
pub(crate) struct Kq {
    api: Api,
    fd: OwnedFd,
}

impl Kq {
    /// The descriptor.
    pub(crate) fn fd(&self) -> RawFd {
        crate::sys::raw(&self.fd)
    }

    /// `kevent()` with both lists.
    #[inline]
    pub(crate) fn call(&self, changes: &[Kevent], out: &mut [Kevent], wait: Wait) -> Outcome<usize> {
        static ZERO: timespec = timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = match wait {
            Wait::Forever => ptr::null(),
            Wait::Poll => &raw const ZERO,
        };
        let (n, room) = (changes.len() as c_int, out.len() as c_int);
        let (from, to) = (changes.as_ptr(), out.as_mut_ptr());
        // SAFETY: both lists are slices of the lengths given; the timeout is null or static.
        let ret = unsafe { (self.api.kevent)(self.fd(), from, n, to, room, timeout) };
        usize::try_from(ret).map_err(|_| format!("kevent: {}", std::io::Error::last_os_error()))
    }

    /// Makes changes that must succeed, and takes no events.
    #[inline]
    pub(crate) fn change(&self, changes: &[Kevent]) -> Outcome {
        expect("events of a call without room", self.call(changes, &mut [], Wait::Poll)?, 0)
    }
}

/// A change.
#[inline]
pub(crate) fn change(ident: usize, filter: c_short, flags: c_ushort, udata: usize) -> Kevent {
    Kevent { ident, filter, flags, fflags: 0, data: 0, udata: ptr::without_provenance_mut(udata) }
}

/// A change of a descriptor's knote.
#[inline]
pub(crate) fn on_fd(fd: RawFd, filter: c_short, flags: c_ushort, udata: usize) -> Kevent {
    change(fd as usize, filter, flags, udata)
}

/// A change with fflags and data.
#[inline]
pub(crate) fn with(mut event: Kevent, fflags: c_uint, data: isize) -> Kevent {
    event.fflags = fflags;
    event.data = data;
    event
}

/// An eventlist.
pub(crate) fn events(n: usize) -> Vec<Kevent> {
    vec![change(0, 0, 0, 0); n]
}

/// Fails unless `got` is `want`.
#[inline]
pub(crate) fn expect<T: PartialEq + std::fmt::Display>(what: &str, got: T, want: T) -> Outcome {
    if got == want { Ok(()) } else { Err(format!("{what}: {got}, not {want}")) }
}
