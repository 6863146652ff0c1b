//! The calling thread: errno, cancellation, its number; and starting one of our own.

#![allow(unsafe_code)]

use super::signal;
use crate::errno::{Errno, Result};
use core::cell::Cell;
use core::ffi::{CStr, c_void};
use core::mem::MaybeUninit;
use libc::c_int;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// Keeps errno and the thread's cancellation state as they were, for the time of one
/// call of the program's into the library.
pub(crate) struct Guarded {
    errno: c_int,
    cancel: c_int,
}

impl Guarded {
    /// Saves errno and switches cancellation off: a cancellation acted upon inside
    /// Rust frames would skip their drops.
    pub(crate) fn enter() -> Guarded {
        let mut cancel = 0;
        // SAFETY: writes one int; the state is a valid one.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut cancel) };
        Guarded { errno: Self::errno(), cancel }
    }

    /// errno.
    pub(super) fn errno() -> c_int {
        // SAFETY: touches no memory.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: errno's location is always valid.
        unsafe { *errno }
    }

    pub(super) fn set_errno(value: c_int) {
        // SAFETY: touches no memory.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: errno's location is always valid.
        unsafe { *errno = value };
    }

    /// Whether the program allows the thread to be cancelled.
    pub(crate) fn is_cancellable(&self) -> bool {
        self.cancel != PTHREAD_CANCEL_DISABLE
    }

    /// Has [`Guarded::leave`] restore the cancellation state that `outer` found.
    pub(crate) fn within(self, outer: &Guarded) -> Guarded {
        Guarded { cancel: outer.cancel, ..self }
    }

    /// Ends the call: errno is the failure's, or what it was before.
    pub(crate) fn leave(&self, failure: Option<Errno>) {
        let mut ignored = 0;
        // SAFETY: restores the state saved above.
        unsafe { pthread_setcancelstate(self.cancel, &raw mut ignored) };
        Self::set_errno(failure.map_or(self.errno, Errno::raw));
    }
}

/// The kernel's number of this thread.
pub(crate) fn tid() -> libc::pid_t {
    // SAFETY: always succeeds and touches no memory.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    libc::pid_t::try_from(tid).unwrap_or(0)
}

/// What tells this thread from all others of the process, and is not 0. Async-signal-safe, and no
/// system call; a forked child's is its parent's.
pub(super) fn address() -> usize {
    // SAFETY: touches no memory.
    let errno = unsafe { libc::__errno_location() };
    errno.addr()
}

/// Names this thread. pthread_setname_np(3) could not: it opens a file of /proc for another one,
/// which may be gone, and a child started meanwhile would inherit that.
pub(crate) fn set_name(name: &CStr) {
    // SAFETY: reads a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Sets this thread's name to what it is.
pub(crate) fn keep_name() {
    let mut name = [0u8; 16];
    // SAFETY: a name has 16 bytes at most, the end mark included.
    if unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) } == 0 {
        // SAFETY: a C string, as the kernel wrote it.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

/// Enough for the monitor, which recurses nowhere.
const STACK: usize = 128 * 1024;

/// The size of a stack with room for [`STACK`]; `None` where only libc's default is known to
/// have it. libc takes the thread-local storage of the program and its libraries from the same
/// memory; glibc tells how much that is, in a function it has for language runtimes.
fn stack_size(attributes: *const libc::pthread_attr_t) -> Option<usize> {
    type MinStack = unsafe extern "C" fn(*const libc::pthread_attr_t) -> usize;
    // SAFETY: a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__pthread_get_minstack".as_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: glibc's function of that name has this type.
    let min_stack = unsafe { core::mem::transmute::<*mut c_void, MinStack>(found) };
    // SAFETY: the caller's attributes are initialised.
    unsafe { min_stack(attributes) }.checked_add(STACK)
}

thread_local! {
    static LIBRARYS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is one that [`spawn`] started.
pub(super) fn is_librarys() -> bool {
    LIBRARYS.get()
}

extern "C" fn begin(body: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` passed a function of this type.
    let body = unsafe { core::mem::transmute::<*mut c_void, fn()>(body) };
    LIBRARYS.set(true);
    body();
    core::ptr::null_mut()
}

/// Starts a detached thread with every signal blocked. ENOMEM if there is no room.
///
/// pthread_create(3) itself, and a function without an environment: what std's threads or a
/// closure keep on the heap would be lost in a forked child, which has no such thread.
pub(crate) fn spawn(body: fn()) -> Result<()> {
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: initialises the attributes.
    if unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) } != 0 {
        return Err(Errno::ENOMEM);
    }
    let attributes = attributes.as_mut_ptr();
    if let Some(size) = stack_size(attributes) {
        // SAFETY: initialised above; the size is above the minimum.
        unsafe { libc::pthread_attr_setstacksize(attributes, size) };
    }
    // SAFETY: initialised above.
    unsafe { libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED) };
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are initialised, and `begin` takes what it is passed.
    let failed = signal::with_all_blocked(|| unsafe {
        libc::pthread_create(thread.as_mut_ptr(), attributes, begin, body as *mut c_void)
    }) != 0;
    // SAFETY: initialised above, and not used any more.
    unsafe { libc::pthread_attr_destroy(attributes) };
    if failed {
        return Err(Errno::ENOMEM);
    }
    Ok(())
}
