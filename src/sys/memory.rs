//! Copying to and from the program's memory as a kernel does: a bad pointer is EFAULT
//! and no crash.
//!
//! Before the first touch of a page process_vm_readv(2) on ourselves tells of a bad address,
//! where the touch would fault. Pages that once were good are remembered by each thread and
//! not asked about again, so that a loop with the same arrays pays nothing. A program that unmaps
//! a page and passes it again faults, as it would in any library call.

#![allow(unsafe_code)]

use crate::errno::{Errno, Result};
use core::cell::Cell;

/// The smallest page of any Linux.
const PAGE: usize = 4096;
const REMEMBERED: usize = 64;

thread_local! {
    /// Pages known to be readable, and writable ones, by page number; each thread its own.
    static GOOD: [[Cell<usize>; REMEMBERED]; 2] =
        const { [const { [const { Cell::new(NO_PAGE) }; REMEMBERED] }; 2] };
}

/// No page has this number.
const NO_PAGE: usize = usize::MAX;

#[derive(Clone, Copy)]
enum Access {
    Read = 0,
    Write = 1,
}

/// Whether all pages of `len` bytes (at most a page) from `address` are remembered.
fn known(access: Access, address: usize, len: usize) -> bool {
    let (first, last) = pages(address, len);
    GOOD.try_with(|good| {
        let is_good = |page: usize| good[access as usize][page % REMEMBERED].get() == page;
        is_good(first) && (first == last || is_good(last))
    })
    .unwrap_or(false)
}

fn remember(access: Access, address: usize, len: usize) {
    let _ = GOOD.try_with(|good| {
        let (first, last) = pages(address, len);
        for page in [first, last] {
            good[access as usize][page % REMEMBERED].set(page);
        }
    });
}

/// The numbers of the first and the last page of `len` bytes.
fn pages(address: usize, len: usize) -> (usize, usize) {
    (address / PAGE, address.wrapping_add(len - 1) / PAGE)
}

/// The largest structure that a program hands in.
const LARGEST: usize = 64;

/// Finds out whether `len` bytes at an address the program gave can be read, or written:
/// then they get what they hold. EFAULT.
///
/// # Safety
/// If the memory is mapped it must be the caller's to read, or to write.
#[inline(never)]
unsafe fn probe(access: Access, address: usize, len: usize) -> Result<()> {
    // SAFETY: the caller's promise.
    if known(access, address, len) { Ok(()) } else { unsafe { ask(access, address, len) } }
}

/// The same of the kernel.
///
/// # Safety
/// As for [`probe`].
#[cold]
unsafe fn ask(access: Access, address: usize, len: usize) -> Result<()> {
    let mut scratch = [0u8; LARGEST];
    let to = match access {
        Access::Read => scratch.as_mut_ptr() as usize,
        Access::Write => address,
    };
    let local = libc::iovec { iov_base: to as *mut libc::c_void, iov_len: len.min(LARGEST) };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, ..local };
    let pid = super::process::pid();
    // SAFETY: the kernel checks the address itself, and what is there is the caller's.
    let got = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(got) {
        Ok(got) if got != local.iov_len => return Err(Errno::EFAULT),
        Err(_) if Errno::last() == Errno::EFAULT => return Err(Errno::EFAULT),
        // Where the call is not allowed (seccomp) the pointers are taken as good.
        _ => {}
    }
    remember(access, address, len);
    Ok(())
}

/// An array of the program's, read item by item.
#[derive(Clone, Copy)]
pub(crate) struct Input<T> {
    at: *const T,
    len: usize,
}

impl<T: Copy> Input<T> {
    /// # Safety
    /// Any bit pattern must be a `T`, and nobody may write to mapped memory of `len` items
    /// while they are read.
    pub(crate) unsafe fn new(at: *const T, len: usize) -> Input<T> {
        Input { at, len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The items, each read when it is come to. EFAULT.
    pub(crate) fn iter(&self) -> Items<T> {
        Items { rest: *self, good: NO_PAGE }
    }
}

/// What is left of an [`Input`].
pub(crate) struct Items<T> {
    rest: Input<T>,
    /// The page of the last item, so that its neighbours are read without a question.
    good: usize,
}

impl<T: Copy> Iterator for Items<T> {
    type Item = Result<T>;

    #[inline]
    fn next(&mut self) -> Option<Result<T>> {
        const { assert!(size_of::<T>() <= LARGEST) };
        let Input { at, len } = self.rest;
        self.rest = Input { at: at.wrapping_add(1), len: len.checked_sub(1)? };
        let (first, last) = pages(at as usize, size_of::<T>());
        if first != self.good || last != self.good {
            // SAFETY: what `Input::new` was promised.
            if let Err(errno) = unsafe { probe(Access::Read, at as usize, size_of::<T>()) } {
                self.good = NO_PAGE;
                return Some(Err(errno));
            }
            self.good = last;
        }
        // SAFETY: what `Input::new` was promised; both pages were readable in this call.
        Some(Ok(unsafe { at.read_unaligned() }))
    }
}

/// An array of the program's, filled from the front. Nothing behind what was pushed is
/// touched, however long the program says it is.
pub(crate) struct Output<T> {
    at: *mut T,
    room: usize,
    len: usize,
    /// The page of the last item, so that its neighbours are written without a question.
    good: usize,
}

impl<T: Copy> Output<T> {
    /// # Safety
    /// Mapped memory for `room` items must be the caller's to write.
    pub(crate) unsafe fn new(at: *mut T, room: usize) -> Output<T> {
        Output { at, room, len: 0, good: NO_PAGE }
    }

    /// How many more items fit.
    pub(crate) fn room(&self) -> usize {
        self.room - self.len
    }

    /// How many items were pushed.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds an item; there must be room. EFAULT.
    #[inline]
    pub(crate) fn push(&mut self, value: T) -> Result<()> {
        const { assert!(size_of::<T>() <= LARGEST) };
        debug_assert!(self.len < self.room);
        let to = self.at.wrapping_add(self.len);
        let (first, last) = pages(to as usize, size_of::<T>());
        if first != self.good || last != self.good {
            // SAFETY: what `new` was promised.
            unsafe { probe(Access::Write, to as usize, size_of::<T>()) }?;
            self.good = last;
        }
        // SAFETY: what `new` was promised; both pages were writable in this call.
        unsafe { to.write_unaligned(value) };
        self.len += 1;
        Ok(())
    }
}

/// Copies a C string of the program's and keeps the copy for good; the address of the
/// copy, or 0 for address 0.
pub(crate) fn keep_c_string(address: isize) -> isize {
    if address == 0 {
        return 0;
    }
    // SAFETY: the program says that a C string is here (EVFILT_LIBKQUEUE's contract).
    let text = unsafe { core::ffi::CStr::from_ptr(address as *const core::ffi::c_char) };
    text.to_owned().into_raw() as isize
}

/// The text at an address [`keep_c_string`] returned; `None` for 0 or what is no text.
pub(crate) fn kept_c_string(address: isize) -> Option<&'static str> {
    if address == 0 {
        return None;
    }
    // SAFETY: made by keep_c_string and never freed.
    unsafe { core::ffi::CStr::from_ptr(address as *const core::ffi::c_char) }.to_str().ok()
}

/// Calls the printf-like function the program gave with one line, which ends in a zero.
pub(crate) fn call_printf(address: isize, line: &[u8]) {
    type Printf = unsafe extern "C" fn(*const core::ffi::c_char, ...);
    debug_assert_eq!(line.last(), Some(&0));
    // SAFETY: not null; the program says that it is such a function (EVFILT_LIBKQUEUE's contract).
    let function = unsafe { core::mem::transmute::<isize, Printf>(address) };
    // SAFETY: both arguments are C strings that live through the call.
    unsafe { function(c"%s".as_ptr(), line.as_ptr()) };
}
