//! The locks and references the table is made of: std's here, loom's in `tests/loom.rs`,
//! which tries the table in every order of its threads' steps.

pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
