//! How the cost of one event grows with what else is there.
//!
//! Curves of CPU time, measured like the rows of the table, a point a row: the library's
//! is raw's median times the median of the paired ratios, so that both were measured on
//! the same machine at the same time. Written as tables in Markdown and as one drawing.

use crate::api::Outcome;
use crate::frame::{self, Field, Plan, Workload, say};
use crate::svg::{self, Curve, Panel};
use crate::{ready, threads, timers, wakeups};

/// A drawing of the library's cost over something that grows.
struct Growth {
    name: &'static str,
    /// What one operation is.
    title: &'static str,
    /// What grows.
    across: &'static str,
    at: &'static [usize],
    make: fn(usize) -> Workload,
}

const STANDING: &[usize] = &[10, 100, 1_000, 10_000, 100_000];

const ALL: [Growth; 6] = [
    Growth {
        name: "grow-sockets",
        title: "one of 100 active sockets",
        across: "sockets registered",
        at: &[100, 300, 1_000, 3_000, 10_000, 19_000],
        make: |size| ready::registered(size, false),
    },
    Growth {
        name: "grow-timers-due",
        title: "a timer added, due, harvested",
        across: "other timers standing",
        at: STANDING,
        make: timers::one_due,
    },
    Growth {
        name: "grow-timers-armed",
        title: "a timer added and deleted",
        across: "other timers standing",
        at: STANDING,
        make: timers::one_armed,
    },
    Growth {
        name: "grow-users",
        title: "a user event triggered, harvested",
        across: "user knotes (raw: one eventfd)",
        at: STANDING,
        make: wakeups::one_triggered,
    },
    Growth {
        name: "grow-queues",
        title: "a pipe's byte, queues in turn",
        across: "kqueues",
        at: &[1, 3, 10, 30, 100, 300, 600],
        make: threads::many_queues,
    },
    Growth {
        name: "grow-threads",
        title: "an EV_DISPATCH report",
        across: "threads on one kqueue, 2 cores",
        at: &[1, 2, 4, 8],
        make: |threads| threads::dispatch("dispatch-threads", threads),
    },
];

/// The names of the drawings.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|growth| growth.name)
}

/// Measures what `chosen` picks, prints tables and writes the drawing to `path`.
pub(crate) fn run(path: &str, chosen: impl Fn(&str) -> bool, field: &Field, plan: Plan, nofile: u64) -> Outcome {
    let mut panels = Vec::new();
    for growth in ALL.iter().filter(|growth| chosen(growth.name)) {
        panels.push(growth.panel(field, plan, nofile)?);
    }
    std::fs::write(path, svg::draw(&panels)).map_err(|why| format!("{path}: {why}"))
}

impl Growth {
    fn panel(&self, field: &Field, plan: Plan, nofile: u64) -> Outcome<Panel> {
        say(&format!("\n{}: CPU time, ns\n\n| {:30} | {:>9} |", self.title, self.across, "raw"));
        let sides = field.names();
        sides.iter().for_each(|name| say(&format!(" {name:>9} | {name:>5}/raw |")));
        say(&format!("\n| {:-<30} | {:->9} |{}\n", "", "", " --------: | --------: |".repeat(sides.len())));
        let mut curves: Vec<_> = [&"raw"].into_iter().chain(&sides).map(|name| Curve::new(name)).collect();
        for &at in self.at {
            say(&format!("| {at:<30} |"));
            let Some(ns) = frame::point((self.make)(at), field, plan, nofile)? else {
                say(" skipped: too few descriptors or cores |\n");
                continue;
            };
            for (curve, ns) in curves.iter_mut().zip(&ns) {
                curve.points.push((at as f64, *ns));
            }
            let others: String = ns[1..].iter().map(|x| format!(" {x:9.0} | {:9.3} |", x / ns[0])).collect();
            say(&format!(" {:9.0} |{others}\n", ns[0]));
        }
        Ok(Panel { title: self.title, across: self.across, curves })
    }
}
