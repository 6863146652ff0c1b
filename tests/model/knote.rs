//! One registration as kern_event.c would keep it.

use kqueue::abi::*;
use libc::c_ushort;

/// Whether a collect must, may or must not return a knote.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Pending {
    No,
    May,
    Must,
}

#[derive(Clone, Debug)]
pub(crate) struct Knote {
    pub(crate) mode: c_ushort,
    pub(crate) enabled: bool,
    pub(crate) udata: usize,
    /// An `EV_CLEAR` descriptor knote has something new to tell.
    pub(crate) edge: Pending,
    pub(crate) triggered: bool,
    pub(crate) fflags: u32,
    pub(crate) data: isize,
}

impl Knote {
    pub(crate) fn added(kev: &Kevent) -> Knote {
        let user = kev.filter == EVFILT_USER;
        Knote {
            mode: kev.flags & (EV_CLEAR | EV_ONESHOT | EV_DISPATCH),
            enabled: kev.flags & EV_DISABLE == 0,
            udata: kev.udata.addr(),
            edge: Pending::Must,
            triggered: user && kev.fflags & NOTE_TRIGGER != 0,
            fflags: kev.fflags & NOTE_FFLAGSMASK,
            data: kev.data,
        }
    }

    pub(crate) fn modify(&mut self, kev: &Kevent) {
        let was_enabled = self.enabled;
        if kev.flags & EV_KEEPUDATA == 0 {
            self.udata = kev.udata.addr();
        }
        if kev.flags & EV_DISABLE != 0 {
            self.enabled = false;
        } else if kev.flags & (EV_ADD | EV_ENABLE) != 0 {
            self.enabled = true;
        }
        if kev.filter == EVFILT_USER {
            self.touch(kev);
        } else if self.enabled {
            // The filter looks again; for a change that alters nothing it need not.
            let told = kev.flags & EV_ADD != 0 || !was_enabled;
            let edge = if told { Pending::Must } else { Pending::May };
            if edge > self.edge {
                self.edge = edge;
            }
        }
    }

    fn touch(&mut self, kev: &Kevent) {
        let bits = kev.fflags & NOTE_FFLAGSMASK;
        match kev.fflags & NOTE_FFCTRLMASK {
            NOTE_FFCOPY => self.fflags = bits,
            NOTE_FFOR => self.fflags |= bits,
            NOTE_FFAND => self.fflags &= bits,
            _ => {}
        }
        self.data = kev.data;
        if kev.fflags & NOTE_TRIGGER != 0 {
            self.triggered = true;
        }
        if kev.flags & EV_CLEAR != 0 {
            self.triggered = false;
        }
    }
}
