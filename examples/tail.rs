//! `tail -f`: follows a growing file by `EVFILT_READ`, also across log rotation.
//!
//! `cargo run --release --example tail FILE`
//!
//! On a regular file `EVFILT_READ` is ready while the offset is not at the end, with the
//! distance to it in `data`; at the end it sleeps until the file grows. A distance below
//! zero says that the file was cut. Nothing tells that the name now belongs to another
//! file, so a timer looks once a second; the new file gets a knote of its own, and the
//! old one loses its knote when it is closed.
#![allow(unsafe_code, reason = "kevent() is a C function; the two blocks are in Queue")]

use std::ffi::{c_int, c_short};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;

use kqueue::{EV_ADD, EVFILT_READ, EVFILT_TIMER, kevent};

/// How often to ask what the name stands for, in ms.
const LOOK: isize = 1000;
/// Lines shown at the beginning, as far as the last [`BACK`] bytes hold them.
const LINES: usize = 10;
const BACK: u64 = 8192;

/// A kqueue, closed when dropped.
struct Queue(OwnedFd);

impl Queue {
    fn new() -> io::Result<Self> {
        let fd = kqueue::kqueue();
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: kqueue() has just made this descriptor and gives it to its caller.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes the changes, then waits if there is room for events.
    fn call(&self, changes: &[kevent], events: &mut [kevent]) -> io::Result<usize> {
        // SAFETY: both arrays are as long as said, and a null timeout is none.
        let n = unsafe {
            kevent(
                self.0.as_raw_fd(),
                changes.as_ptr(),
                c_int::try_from(changes.len()).unwrap_or(c_int::MAX),
                events.as_mut_ptr(),
                c_int::try_from(events.len()).unwrap_or(c_int::MAX),
                ptr::null(),
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    fn add(&self, ident: usize, filter: c_short, data: isize) -> io::Result<()> {
        let add = kevent { flags: EV_ADD, ..event(ident, filter, data) };
        self.call(&[add], &mut []).map(|_| ())
    }
}

fn event(ident: usize, filter: c_short, data: isize) -> kevent {
    kevent { ident, filter, flags: 0, fflags: 0, data, udata: ptr::null_mut() }
}

/// A file's descriptor as an ident.
fn ident(file: &File) -> usize {
    usize::try_from(file.as_raw_fd()).unwrap_or(usize::MAX)
}

/// Copies from the offset to the end.
fn copy(file: &mut File) -> io::Result<()> {
    let mut out = io::stdout().lock();
    io::copy(file, &mut out)?;
    out.flush()
}

/// Puts the offset before the last lines.
fn seek_last_lines(file: &mut File) -> io::Result<()> {
    let from = file.metadata()?.len().saturating_sub(BACK);
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(BACK).read_to_end(&mut text)?;
    // The newline that ends the last line opens no other.
    let start = (1..text.len()).rev().filter(|&i| text[i - 1] == b'\n').nth(LINES - 1).unwrap_or(0);
    let start = u64::try_from(start).unwrap_or(0);
    file.seek(SeekFrom::Start(from + start)).map(|_| ())
}

/// The file that has taken the name over, if one has.
fn rotated(path: &Path, held: &File) -> io::Result<Option<File>> {
    let result = fs::metadata(path).and_then(|named| {
        let held = held.metadata()?;
        if (named.dev(), named.ino()) == (held.dev(), held.ino()) {
            return Ok(None);
        }
        File::open(path).map(Some)
    });
    match result {
        // No new one yet: keep to the old one.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        other => other,
    }
}

fn main() -> io::Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("usage: tail FILE"));
    };
    let path = Path::new(&path);
    let mut file = File::open(path)?;
    seek_last_lines(&mut file)?;
    let queue = Queue::new()?;
    queue.add(ident(&file), EVFILT_READ, 0)?;
    queue.add(0, EVFILT_TIMER, LOOK)?;
    let mut events = [event(0, 0, 0); 2];
    loop {
        let n = match queue.call(&[], &mut events) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        for ev in &events[..n] {
            if ev.filter == EVFILT_TIMER {
                if let Some(next) = rotated(path, &file)? {
                    // What was written between the last event and now.
                    copy(&mut file)?;
                    queue.add(ident(&next), EVFILT_READ, 0)?;
                    // Closes the old one: its knote goes.
                    file = next;
                }
            } else if ev.ident == ident(&file) {
                if ev.data < 0 {
                    file.rewind()?;
                }
                copy(&mut file)?;
            }
        }
    }
}
