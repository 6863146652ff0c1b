//! KQUEUE_DEBUG: what the program asks and what it gets, by name, on standard error.
//!
//! Lines read `KQ [tid]: function(): text`, as libkqueue's do. Off, it costs one relaxed
//! load; on, one write(2) a line and no allocation.

use crate::abi::{self, Kevent};
use crate::sys::{file, memory, process, thread};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicIsize, Ordering};

static ON: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);
/// Addresses the program gave: a C string, and a printf-like function. 0: none.
static PREFIX: AtomicIsize = AtomicIsize::new(0);
static FUNCTION: AtomicIsize = AtomicIsize::new(0);

/// Reads the environment, once.
pub(crate) fn init() {
    if !ASKED.swap(true, Ordering::Relaxed) && process::wants_debug() {
        ON.store(true, Ordering::Relaxed);
    }
}

/// Whether tracing is on.
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Switches tracing; answers what it was.
pub(crate) fn switch(on: bool) -> bool {
    ON.swap(on, Ordering::Relaxed)
}

/// Sets what lines begin with, by the address of a C string (0: "KQ"), of which a copy
/// is kept; answers the address of the copy from before.
pub(crate) fn set_prefix(address: isize) -> isize {
    PREFIX.swap(memory::keep_c_string(address), Ordering::Relaxed)
}

/// Sets what is called with each line, by address, as `f("%s", line)`; 0 writes to
/// standard error. Answers what it was.
pub(crate) fn set_function(address: isize) -> isize {
    FUNCTION.swap(address, Ordering::Relaxed)
}

/// One line on the stack; what does not fit is cut off.
struct Line {
    text: [u8; 480],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        // Two bytes stay free for the line's end and C's zero.
        let room = self.text.len() - 2 - self.len;
        let bytes = &s.as_bytes()[..s.len().min(room)];
        self.text[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }
}

/// Writes one line of `function` if tracing is on.
#[inline(always)]
pub(crate) fn trace(function: &str, text: fmt::Arguments<'_>) {
    if is_on() {
        write_line(function, text);
    }
}

#[cold]
fn write_line(function: &str, text: fmt::Arguments<'_>) {
    let mut line = Line { text: [0; 480], len: 0 };
    let prefix = memory::kept_c_string(PREFIX.load(Ordering::Relaxed)).unwrap_or("KQ");
    let _ = write!(line, "{prefix} [{}]: {function}(): {text}", thread::tid());
    line.text[line.len] = b'\n';
    let function = FUNCTION.load(Ordering::Relaxed);
    if function != 0 {
        memory::call_printf(function, &line.text[..line.len + 2]);
    } else {
        file::write_stderr(&line.text[..=line.len]);
    }
}

/// A kevent with the names of its filter and flags.
pub(crate) struct Named<'a>(pub(crate) &'a Kevent);

const FLAGS: [(u16, &str); 13] = [
    (abi::EV_ADD, "ADD"),
    (abi::EV_DELETE, "DELETE"),
    (abi::EV_ENABLE, "ENABLE"),
    (abi::EV_DISABLE, "DISABLE"),
    (abi::EV_ONESHOT, "ONESHOT"),
    (abi::EV_CLEAR, "CLEAR"),
    (abi::EV_RECEIPT, "RECEIPT"),
    (abi::EV_DISPATCH, "DISPATCH"),
    (abi::EV_FORCEONESHOT, "FORCEONESHOT"),
    (abi::EV_KEEPUDATA, "KEEPUDATA"),
    (abi::EV_FLAG1, "FLAG1"),
    (abi::EV_ERROR, "ERROR"),
    (abi::EV_EOF, "EOF"),
];

fn filter_name(filter: i16) -> &'static str {
    match filter {
        abi::EVFILT_READ => "READ",
        abi::EVFILT_WRITE => "WRITE",
        abi::EVFILT_AIO => "AIO",
        abi::EVFILT_VNODE => "VNODE",
        abi::EVFILT_PROC => "PROC",
        abi::EVFILT_SIGNAL => "SIGNAL",
        abi::EVFILT_TIMER => "TIMER",
        abi::EVFILT_PROCDESC => "PROCDESC",
        abi::EVFILT_FS => "FS",
        abi::EVFILT_LIO => "LIO",
        abi::EVFILT_USER => "USER",
        abi::EVFILT_LIBKQUEUE => "LIBKQUEUE",
        abi::EVFILT_EMPTY => "EMPTY",
        abi::EVFILT_EXCEPT => "EXCEPT",
        _ => "?",
    }
}

/// The names a filter's fflags have.
fn notes(filter: i16) -> &'static [(u32, &'static str)] {
    match filter {
        abi::EVFILT_READ | abi::EVFILT_WRITE => &[(abi::NOTE_LOWAT, "LOWAT")],
        abi::EVFILT_EXCEPT => &[(abi::NOTE_OOB, "OOB")],
        abi::EVFILT_USER => &[
            (abi::NOTE_TRIGGER, "TRIGGER"),
            (abi::NOTE_FFCOPY, "FFCOPY"),
            (abi::NOTE_FFOR, "FFOR"),
            (abi::NOTE_FFAND, "FFAND"),
        ],
        abi::EVFILT_TIMER => &[
            (abi::NOTE_SECONDS, "SECONDS"),
            (abi::NOTE_MSECONDS, "MSECONDS"),
            (abi::NOTE_USECONDS, "USECONDS"),
            (abi::NOTE_NSECONDS, "NSECONDS"),
            (abi::NOTE_ABSTIME, "ABSTIME"),
        ],
        abi::EVFILT_PROC | abi::EVFILT_PROCDESC => &[
            (abi::NOTE_EXIT, "EXIT"),
            (abi::NOTE_FORK, "FORK"),
            (abi::NOTE_EXEC, "EXEC"),
            (abi::NOTE_TRACK, "TRACK"),
            (abi::NOTE_TRACKERR, "TRACKERR"),
            (abi::NOTE_CHILD, "CHILD"),
        ],
        _ => &[],
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kevent { ident, filter, flags, fflags, data, udata } = *self.0;
        write!(f, "{{ ident={ident}, filter=EVFILT_{}({filter}), flags=", filter_name(filter))?;
        let mut rest = flags;
        for (bit, name) in FLAGS {
            if rest & bit != 0 {
                rest &= !bit;
                write!(f, "EV_{name} ")?;
            }
        }
        write!(f, "({flags:#06x}), fflags=")?;
        for &(bit, name) in notes(filter) {
            if fflags & bit == bit {
                write!(f, "NOTE_{name} ")?;
            }
        }
        write!(f, "({fflags:#x}), data={data}, udata={udata:p} }}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kevents_are_shown_by_name() {
        let kev = Kevent {
            ident: 3,
            filter: abi::EVFILT_READ,
            flags: abi::EV_ADD | abi::EV_CLEAR,
            fflags: 0,
            data: -1,
            udata: core::ptr::null_mut(),
        };
        let text = Named(&kev).to_string();
        assert!(text.contains("EVFILT_READ(-1), flags=EV_ADD EV_CLEAR (0x0021)"), "{text}");
    }
}
