//! The public ABI: `struct kevent` and every number of `<sys/event.h>`.
//!
//! The numbers are those of libkqueue's header, because binaries carry numbers and
//! not names: a program compiled against either library must run on the other. Names
//! that only the BSDs have follow with numbers that clash with none of these. The C
//! header repeats the constants as literal C (cbindgen's own rendering of them is not
//! clean in C89); a C test compares the two value by value.

use core::ffi::{c_int, c_short, c_uint, c_ushort, c_void};

/// One change, event or error: the unit `kevent()` reads and writes.
///
/// Source: kqueue(2). Layout: libkqueue's, 32 bytes on LP64 and 20 on 32-bit.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct kevent {
    /// What is watched: a descriptor, pid, signal number or a number of the program's.
    pub ident: usize,
    /// `EVFILT_*`.
    pub filter: c_short,
    /// `EV_*`.
    pub flags: c_ushort,
    /// `NOTE_*`, by filter.
    pub fflags: c_uint,
    /// Filter-specific value; an errno where `EV_ERROR` is set.
    pub data: isize,
    /// The program's own, handed back untouched.
    pub udata: *mut c_void,
}

/// [`kevent`] under a Rust name.
pub type Kevent = kevent;

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<Kevent>() == 32);
    assert!(core::mem::offset_of!(kevent, filter) == 8);
    assert!(core::mem::offset_of!(kevent, flags) == 10);
    assert!(core::mem::offset_of!(kevent, fflags) == 12);
    assert!(core::mem::offset_of!(kevent, data) == 16);
    assert!(core::mem::offset_of!(kevent, udata) == 24);
};
#[cfg(target_pointer_width = "32")]
const _: () = assert!(size_of::<Kevent>() == 20);

macro_rules! constants {
    ($($name:ident: $ty:ty = $value:expr;)*) => {
        $(#[doc = concat!("`", stringify!($name), "` of `<sys/event.h>`.")] pub const $name: $ty = $value;)*

        /// Every constant by name, as the 64 bits a C program sees; for the header test.
        pub const ALL: &[(&str, i64)] = &[$((stringify!($name), $name as i64)),*];
    };
}

constants! {
    EVFILT_READ: c_short = -1;
    EVFILT_WRITE: c_short = -2;
    EVFILT_AIO: c_short = -3;
    EVFILT_VNODE: c_short = -4;
    EVFILT_PROC: c_short = -5;
    EVFILT_SIGNAL: c_short = -6;
    EVFILT_TIMER: c_short = -7;
    EVFILT_PROCDESC: c_short = -8;
    EVFILT_FS: c_short = -9;
    EVFILT_LIO: c_short = -10;
    EVFILT_USER: c_short = -11;
    EVFILT_LIBKQUEUE: c_short = -12;
    EVFILT_EMPTY: c_short = -13;
    EVFILT_EXCEPT: c_short = -15;
    EVFILT_SYSCOUNT: c_int = 15;

    EV_ADD: c_ushort = 0x0001;
    EV_DELETE: c_ushort = 0x0002;
    EV_ENABLE: c_ushort = 0x0004;
    EV_DISABLE: c_ushort = 0x0008;
    EV_ONESHOT: c_ushort = 0x0010;
    EV_CLEAR: c_ushort = 0x0020;
    EV_RECEIPT: c_ushort = 0x0040;
    EV_DISPATCH: c_ushort = 0x0080;
    EV_FORCEONESHOT: c_ushort = 0x0100;
    EV_KEEPUDATA: c_ushort = 0x0200;
    EV_SYSFLAGS: c_ushort = 0xF000;
    EV_FLAG1: c_ushort = 0x2000;
    EV_ERROR: c_ushort = 0x4000;
    EV_EOF: c_ushort = 0x8000;

    NOTE_LOWAT: c_uint = 0x1;
    NOTE_OOB: c_uint = 0x2;

    NOTE_FFNOP: c_uint = 0x0000_0000;
    NOTE_FFAND: c_uint = 0x4000_0000;
    NOTE_FFOR: c_uint = 0x8000_0000;
    NOTE_FFCOPY: c_uint = 0xc000_0000;
    NOTE_FFCTRLMASK: c_uint = 0xc000_0000;
    NOTE_FFLAGSMASK: c_uint = 0x00ff_ffff;
    NOTE_TRIGGER: c_uint = 0x0100_0000;

    NOTE_DELETE: c_uint = 0x0001;
    NOTE_WRITE: c_uint = 0x0002;
    NOTE_EXTEND: c_uint = 0x0004;
    NOTE_ATTRIB: c_uint = 0x0008;
    NOTE_LINK: c_uint = 0x0010;
    NOTE_RENAME: c_uint = 0x0020;
    NOTE_REVOKE: c_uint = 0x0040;
    NOTE_TRUNCATE: c_uint = 0x0080;
    NOTE_CLOSE: c_uint = 0x0100;
    NOTE_CLOSE_WRITE: c_uint = 0x0200;
    NOTE_READ: c_uint = 0x0400;
    NOTE_OPEN: c_uint = 0x0800;

    NOTE_EXIT: c_uint = 0x8000_0000;
    NOTE_FORK: c_uint = 0x4000_0000;
    NOTE_EXEC: c_uint = 0x2000_0000;
    NOTE_PCTRLMASK: c_uint = 0xf000_0000;
    NOTE_PDATAMASK: c_uint = 0x000f_ffff;
    NOTE_TRACK: c_uint = 0x0000_0001;
    NOTE_TRACKERR: c_uint = 0x0000_0002;
    NOTE_CHILD: c_uint = 0x0000_0004;

    NOTE_LINKUP: c_uint = 0x0001;
    NOTE_LINKDOWN: c_uint = 0x0002;
    NOTE_LINKINV: c_uint = 0x0004;

    NOTE_SECONDS: c_uint = 0x0001;
    NOTE_USECONDS: c_uint = 0x0002;
    NOTE_NSECONDS: c_uint = 0x0004;
    NOTE_ABSOLUTE: c_uint = 0x0008;
    NOTE_ABSTIME: c_uint = 0x0008;
    NOTE_MSECONDS: c_uint = 0x0010;

    VQ_NOTRESP: c_uint = 0x0001;
    VQ_NEEDAUTH: c_uint = 0x0002;
    VQ_LOWDISK: c_uint = 0x0004;
    VQ_MOUNT: c_uint = 0x0008;
    VQ_UNMOUNT: c_uint = 0x0010;
    VQ_DEAD: c_uint = 0x0020;
    VQ_ASSIST: c_uint = 0x0040;
    VQ_NOTRESPLOCK: c_uint = 0x0080;

    NOTE_VERSION: c_uint = 0x0001;
    NOTE_VERSION_STR: c_uint = 0x0002;
    NOTE_THREAD_SAFE: c_uint = 0x0003;
    NOTE_FORK_CLEANUP: c_uint = 0x0004;
    NOTE_DEBUG: c_uint = 0x0005;
    NOTE_DEBUG_PREFIX: c_uint = 0x0006;
    NOTE_DEBUG_FUNC: c_uint = 0x0007;
    NOTE_FILE_POLL_INTERVAL: c_uint = 0x0008;

    KQUEUE_CLOEXEC: c_uint = 0x0001;
}
