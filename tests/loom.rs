//! The table of kqueues in every order in which its threads can take their steps: finding
//! one against its close, a number that is reused against the late notice, and the wait for
//! what is closed.
//!
//! A program of its own without the test harness: under that, the table's own tests would
//! come along and want the library's own locks.

use ::loom::sync::atomic::{AtomicUsize, Ordering};
use ::loom::thread;
use std::sync::Arc as StdArc;

mod errno {
    //! As much of the library's as the table uses.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Errno;
    pub(crate) type Result<T> = core::result::Result<T, Errno>;
    impl Errno {
        pub(crate) const EBADF: Errno = Errno;
    }
}

mod sys {
    pub(crate) mod fd {
        //! No model forks.
        pub(crate) fn generation() -> u32 {
            0
        }
    }

    pub(crate) mod sync {
        //! The library's locks, in the form of loom's.
        pub(crate) use loom::sync::{Arc, MutexGuard as Guard};
        use std::time::Duration;

        pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

        impl<T> Mutex<T> {
            pub(crate) fn new(value: T) -> Mutex<T> {
                Mutex(loom::sync::Mutex::new(value))
            }

            pub(crate) fn lock(&self) -> Guard<'_, T> {
                self.0.lock().expect("no model panics with a lock")
            }

            pub(crate) fn lock_while(&self, _goes_on: impl Fn() -> bool) -> Option<Guard<'_, T>> {
                Some(self.lock())
            }
        }

        impl<T: Default> Default for Mutex<T> {
            fn default() -> Mutex<T> {
                Mutex::new(T::default())
            }
        }

        #[derive(Default)]
        pub(crate) struct Condvar(loom::sync::Condvar);

        impl Condvar {
            pub(crate) fn notify_all(&self) {
                self.0.notify_all();
            }

            pub(crate) fn wait<'a, T>(&self, guard: Guard<'a, T>) -> Guard<'a, T> {
                self.0.wait(guard).expect("no model panics with a lock")
            }

            pub(crate) fn wait_for<'a, T>(&self, guard: Guard<'a, T>, _time: Duration) -> Guard<'a, T> {
                self.wait(guard)
            }
        }
    }
}

#[allow(dead_code, unused_imports, reason = "not every operation is part of a race, and no test of its own")]
#[path = "../src/kqueue/table.rs"]
mod table;

use sys::sync::Arc;
use table::Table;

/// What stands for a kqueue: it tells the table when it is freed, as the real one does.
struct Kqueue {
    name: i32,
    held: i32,
    table: StdArc<Table<Kqueue>>,
    freed: StdArc<AtomicUsize>,
}

impl Drop for Kqueue {
    fn drop(&mut self) {
        self.freed.fetch_add(1, Ordering::Relaxed);
        self.table.freed();
    }
}

const NUMBER: i32 = 5;

struct World {
    table: StdArc<Table<Kqueue>>,
    freed: StdArc<AtomicUsize>,
}

impl World {
    fn new() -> World {
        World { table: StdArc::new(Table::default()), freed: StdArc::new(AtomicUsize::new(0)) }
    }

    /// What create() does once it has the descriptors; the kqueue evicted ends.
    fn create(&self, name: i32) -> Arc<Kqueue> {
        let (table, freed) = (self.table.clone(), self.freed.clone());
        let kqueue = Arc::new(Kqueue { name, held: 100 + name, table, freed });
        assert!(self.table.note(kqueue.held, kqueue.clone()).is_none());
        if let Ok(Some(evicted)) = self.table.enter(NUMBER, kqueue.clone()) {
            self.end(&evicted);
        }
        kqueue
    }

    /// What ends a kqueue that its program has closed; whether this call did.
    fn end(&self, kqueue: &Arc<Kqueue>) -> bool {
        let first = self.table.retire(kqueue.held, kqueue);
        if first {
            self.table.leave(NUMBER, kqueue);
        }
        first
    }

    fn twin(&self) -> World {
        World { table: self.table.clone(), freed: self.freed.clone() }
    }

    fn freed(&self) -> usize {
        self.freed.load(Ordering::Relaxed)
    }
}

fn a_kqueue_that_was_found_lives_until_it_is_let_go() {
    ::loom::model(|| {
        let world = World::new();
        drop(world.create(1));
        let (finder, monitor) = (world.twin(), world.twin());
        let finder = thread::spawn(move || {
            if let Some(found) = finder.table.find(NUMBER) {
                assert_eq!(found.name, 1);
                assert_eq!(finder.freed(), 0, "it is freed under a call that uses it");
            }
        });
        let monitor = thread::spawn(move || {
            let closed = monitor.table.by_held(101).expect("nobody else ends it");
            assert!(monitor.end(&closed));
        });
        finder.join().expect("the finder ends well");
        monitor.join().expect("the monitor ends well");
        world.table.wait_freed();
        assert_eq!(world.freed(), 1);
        assert!(world.table.find(NUMBER).is_none());
        assert!(world.table.is_empty());
    });
}

fn a_late_notice_takes_nothing_from_the_kqueue_that_has_the_number_now() {
    ::loom::model(|| {
        let world = World::new();
        drop(world.create(1));
        let (program, monitor) = (world.twin(), world.twin());
        let program = thread::spawn(move || drop(program.create(2)));
        let monitor = thread::spawn(move || {
            if let Some(closed) = monitor.table.by_held(101) {
                monitor.end(&closed);
            }
        });
        program.join().expect("the program ends well");
        monitor.join().expect("the monitor ends well");
        world.table.wait_freed();
        assert_eq!(world.freed(), 1);
        let live = world.table.find(NUMBER).expect("the new one has the number");
        assert_eq!(live.name, 2);
        assert!(world.end(&live));
    });
}

fn of_two_who_end_a_kqueue_one_did_and_the_wait_ends_when_it_is_freed() {
    ::loom::model(|| {
        let world = World::new();
        drop(world.create(1));
        let enders: Vec<_> = (0..2)
            .map(|_| {
                let world = world.twin();
                thread::spawn(move || match world.table.find(NUMBER) {
                    Some(found) => usize::from(world.end(&found)),
                    None => 0,
                })
            })
            .collect();
        world.table.wait_freed();
        let ended: usize = enders.into_iter().map(|ender| ender.join().expect("it ends well")).sum();
        assert_eq!(ended, 1);
        world.table.wait_freed();
        assert_eq!(world.freed(), 1);
    });
}

fn main() {
    let models: [(&str, fn()); 3] = [
        ("a_kqueue_that_was_found_lives_until_it_is_let_go", a_kqueue_that_was_found_lives_until_it_is_let_go),
        (
            "a_late_notice_takes_nothing_from_the_kqueue_that_has_the_number_now",
            a_late_notice_takes_nothing_from_the_kqueue_that_has_the_number_now,
        ),
        (
            "of_two_who_end_a_kqueue_one_did_and_the_wait_ends_when_it_is_freed",
            of_two_who_end_a_kqueue_one_did_and_the_wait_ends_when_it_is_freed,
        ),
    ];
    for (name, model) in models {
        model();
        println!("model {name} ... ok");
    }
}
