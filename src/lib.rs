//! BSD's kqueue(2) for Linux, as a drop-in C library (`libkqueue.so.0`).
//!
//! The library is four layers, arrows going down only:
//!
//! * `ffi`: the exported C functions;
//! * `kqueue`: the kqueue object, its table, changelists, waiting, the monitor thread;
//! * `filter`: one file a filter, behind one table of operations;
//! * `sys`: one file a kernel facility, safe wrappers over the raw calls.
//!
//! `abi` (the public numbers), `errno`, `knote` and `debug` are used by all of them. A
//! call of `kevent()` passes from `ffi` to a counted reference from the table, applies its
//! changes under the kqueue's lock, sleeps without it, and hands events out under it again.
//!
//! Rust programs can use the functions of the crate as C programs do.

pub mod abi;
mod debug;
mod errno;
mod ffi;
mod filter;
mod knote;
mod kqueue;
mod sys;

pub use abi::*;
pub use ffi::{kevent, kqueue, kqueue1, kqueuex, libkqueue_drain_pending_close};
