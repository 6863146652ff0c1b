//! Workloads on files: appending to many and collecting what happened.

use crate::api::{self, *};
use crate::frame::{Side, Turn, Workload};
use crate::ready::NONE;
use crate::sys;
use libc::{EPOLL_CTL_ADD, EPOLLIN};
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

/// The workloads of this file.
pub(crate) fn list() -> Vec<Workload> {
    [1, 100, 1_000]
        .map(|files| {
            let make = move |side| append(side, files);
            Workload::new(format!("vnode-append-{files}"), make).ops(files).fds(2 * files as u64 + 100).bound(1.08)
        })
        .into()
}

/// How far a file grows before it is cut.
const FULL: i64 = 4096;

/// Files without names: appended to, and cut when they are full.
struct Files(Vec<(File, i64)>);

impl Files {
    fn new(count: usize) -> Outcome<Files> {
        let one = |_| sys::unnamed_file().map(|file| (file, 0));
        (0..count).map(one).collect::<std::io::Result<_>>().map(Files).map_err(|why| format!("a file: {why}"))
    }

    fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.0.iter().map(|(file, _)| file.as_raw_fd())
    }

    /// Appends a byte to each. Whether they are full.
    fn append(&mut self) -> bool {
        for (file, size) in &mut self.0 {
            sys::write(file.as_raw_fd(), b"x");
            *size += 1;
        }
        self.0.first().is_some_and(|(_, size)| *size >= FULL)
    }

    /// Cuts all to nothing; the next byte goes to their beginning.
    fn cut(&mut self) -> Outcome {
        for (file, size) in &mut self.0 {
            file.set_len(0).map_err(|why| format!("ftruncate: {why}"))?;
            *size = 0;
        }
        Ok(())
    }
}

/// One byte to each file, then all events; each is checked against the file's new size.
fn append(side: Side, count: usize) -> Outcome<Turn> {
    let mut files = Files::new(count)?;
    Ok(match side {
        Side::Raw => {
            let (ep, ino) = (sys::epoll(), sys::inotify());
            sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(&ino), EPOLLIN, 7);
            let mut by_watch: Vec<(RawFd, i64)> = Vec::new();
            for fd in files.fds() {
                let wd = sys::inotify_watch(sys::raw(&ino), fd);
                by_watch.resize(by_watch.len().max(wd + 1), (-1, 0));
                by_watch[wd] = (fd, 0);
            }
            let mut buf = vec![0; 64 * 1024];
            Box::new(move |turns| {
                let mut out = [NONE; 8];
                for _ in 0..turns {
                    let full = files.append();
                    api::expect("events", sys::epoll_wait(sys::raw(&ep), &mut out, -1), 1)?;
                    api::expect("changes", sys::inotify_events(sys::raw(&ino), &mut buf, &mut by_watch), count)?;
                    if full {
                        files.cut()?;
                        sys::inotify_events(sys::raw(&ino), &mut buf, &mut by_watch);
                    }
                }
                Ok(())
            })
        }
        Side::Lib(lib) => {
            let kq = lib.open()?;
            for fd in files.fds() {
                let change = on_fd(fd, EVFILT_VNODE, EV_ADD | EV_CLEAR, 7);
                kq.change(&[with(change, NOTE_WRITE | NOTE_EXTEND, 0)])?;
            }
            let mut out = api::events(count + 1);
            Box::new(move |turns| {
                for _ in 0..turns {
                    let full = files.append();
                    let mut got = 0;
                    while got < count {
                        let n = kq.call(&[], &mut out, Wait::Forever)?;
                        let grown = |event: &&Kevent| event.fflags == NOTE_WRITE | NOTE_EXTEND;
                        api::expect("changes", out.iter().take(n).filter(grown).count(), n)?;
                        got += n;
                    }
                    api::expect("events", got, count)?;
                    if full {
                        files.cut()?;
                        kq.call(&[], &mut out, Wait::Poll)?;
                    }
                }
                Ok(())
            })
        }
    })
}
