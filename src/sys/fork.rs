//! pthread_atfork(3): what makes "a kqueue is not inherited" true.
//!
//! A child shares the open files behind our descriptors with its parent: a pipe end
//! left open in a child would keep the kqueue from ever ending, and an epoll_ctl there
//! would change the parent's set. So the child closes them all, and forgets the rest.
//! Handlers run no allocation and no lock the child did not take in `prepare`.

#![allow(unsafe_code)]

use super::sync::{Guard, Mutex};
use super::thread::Guarded;
use super::{hook, register, signal};
use crate::errno::{Errno, Result};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use once_cell::race::OnceBox;

/// What forks write, and every new descriptor, on one page: after a fork the first write to a
/// page costs parent and child a fault each, as much as a dozen of small system calls.
#[repr(align(4096))]
pub(super) struct Page {
    pub(super) register: register::Head,
    /// Held while signals are hooked and unhooked.
    pub(super) signals: Mutex<()>,
    /// The locks between `prepare` and its counterpart.
    held: UnsafeCell<Option<Held>>,
}

/// What a fork finds locked, and the mask to go back to.
struct Held {
    descriptors: register::ForkGuards,
    signals: Guard<'static, ()>,
    mask: libc::sigset_t,
}

// SAFETY: the cell is only touched by the thread that holds the locks whose guards are inside.
unsafe impl Sync for Page {}

pub(super) static PAGE: Page =
    Page { register: register::Head::new(), signals: Mutex::new(()), held: UnsafeCell::new(None) };
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Signals are blocked until the end of the fork, for a handler may want any of the locks. The
/// one of their actions comes last: a handler that waits for it may have interrupted a thread
/// that holds another.
extern "C" fn prepare() {
    let mask = signal::block_all();
    let held = Held { descriptors: register::lock_for_fork(), signals: PAGE.signals.lock(), mask };
    // SAFETY: we hold the locks that guard this cell.
    unsafe { *PAGE.held.get() = Some(held) };
}

extern "C" fn parent() {
    // SAFETY: `prepare` ran in this thread, which still holds the locks.
    if let Some(Held { descriptors, signals, mask }) = unsafe { (*PAGE.held.get()).take() } {
        drop((signals, descriptors));
        signal::restore(&mask);
    }
}

extern "C" fn child() {
    // What fails in here is none of the program's business.
    let errno = Guarded::errno();
    // SAFETY: `prepare` ran in this thread, the only one there is.
    if let Some(held) = unsafe { &*PAGE.held.get() } {
        register::give_up_in_child(&held.descriptors);
    }
    register::close_all_in_child();
    hook::reset_in_child();
    parent();
    Guarded::set_errno(errno);
}

/// Installs the handlers, once in the life of the process (children inherit them).
/// ENOMEM.
pub(crate) fn install() -> Result<()> {
    let _creating = register::creating();
    if REGISTERED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: the three handlers live as long as the process: the library is never unmapped.
    if unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) } != 0 {
        return Err(Errno::ENOMEM);
    }
    REGISTERED.store(true, Ordering::Relaxed);
    Ok(())
}

/// State of the process that a forked child leaves behind instead of inheriting: whatever
/// another thread of the parent was doing to it at that moment, the child starts with a
/// fresh one. The parent's stays in memory, untouched.
pub(crate) struct PerProcess<T: 'static> {
    first: OnceBox<Node<T>>,
}

struct Node<T: 'static> {
    generation: u32,
    value: T,
    next: OnceBox<Node<T>>,
}

impl<T: Default> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess { first: OnceBox::new() }
    }

    /// This process's own.
    pub(crate) fn get(&self) -> &T {
        let generation = register::generation();
        let fresh = || Box::new(Node { generation, value: T::default(), next: OnceBox::new() });
        let mut node = self.first.get_or_init(fresh);
        while node.generation != generation {
            node = node.next.get_or_init(fresh);
        }
        &node.value
    }
}
