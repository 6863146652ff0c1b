//! The library beside the same work written by hand on epoll, eventfd and timerfd.
//!
//! ```text
//! cargo bench --bench ratios                  # the whole table, about two minutes
//! cargo bench --bench ratios -- --quick timers
//! cargo bench --bench ratios -- --growth docs/growth.svg
//! KQUEUE_PEER=/usr/lib/x86_64-linux-gnu cargo bench --bench ratios
//! ```
//!
//! Words select workloads by substring. `--list` names them. `--quick` makes short
//! rounds. `--lean` spares the hand-written side the calls that learn what `data` tells
//! (FIONREAD, SIOCOUTQ). `--null` puts the hand-written side into both columns: every
//! ratio must then be 1.00 within five percent, or the machine is too busy to measure.
//! `--alone` measures the hand-written side in a process of one thread.
//! `--growth` measures curves in place of the table and draws them.
//! With `KQUEUE_PEER` set to a directory the `libkqueue.so.0` in it gets columns too.
//!
//! A lost, doubled or unexpected event ends its row and makes the exit status 1. What the
//! columns mean is in `docs/performance.md`.

// The hand-written side is made of system calls, and a peer is called by pointer.
#![allow(unsafe_code)]

#[path = "ratios/apart.rs"]
mod apart;
#[path = "ratios/api.rs"]
mod api;
#[path = "ratios/files.rs"]
mod files;
#[path = "ratios/frame.rs"]
mod frame;
#[path = "ratios/growth.rs"]
mod growth;
#[path = "ratios/memory.rs"]
mod memory;
#[path = "ratios/processes.rs"]
mod processes;
#[path = "ratios/ready.rs"]
mod ready;
#[path = "ratios/signals.rs"]
mod signals;
#[path = "ratios/svg.rs"]
mod svg;
#[path = "ratios/sys.rs"]
mod sys;
#[path = "ratios/threads.rs"]
mod threads;
#[path = "ratios/timers.rs"]
mod timers;
#[path = "ratios/traffic.rs"]
mod traffic;
#[path = "ratios/wakeups.rs"]
mod wakeups;

use api::Outcome;
use frame::{Field, Plan, Workload};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Descriptors that all workloads together can make use of at most.
const NOFILE: u64 = 65_536;

static LEAN: AtomicBool = AtomicBool::new(false);

/// Whether the hand-written side leaves out what it can do without.
#[inline]
fn lean() -> bool {
    LEAN.load(Ordering::Relaxed)
}

struct Args {
    plan: Plan,
    field: Field,
    list: bool,
    growth: Option<String>,
    words: Vec<String>,
}

impl Args {
    fn chosen(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word))
    }
}

fn args() -> Outcome<Args> {
    let field = Field { null: false, alone: false, peer: std::env::var("KQUEUE_PEER").ok() };
    let mut args = Args { plan: Plan::FULL, field, list: false, growth: None, words: Vec::new() };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        match arg.as_str() {
            // cargo bench says so to every bench.
            "--bench" => {}
            "--quick" => args.plan = Plan::QUICK,
            "--null" => args.field.null = true,
            "--alone" => args.field.alone = true,
            "--lean" => LEAN.store(true, Ordering::Relaxed),
            "--list" => args.list = true,
            "--growth" => args.growth = Some(given.next().ok_or("--growth: where to?")?),
            _ if arg.starts_with('-') => return Err(format!("{arg}: unknown option")),
            _ => args.words.push(arg),
        }
    }
    Ok(args)
}

fn workloads() -> impl Iterator<Item = Workload> {
    let [ready, traffic, wakeups, threads] = [ready::list(), traffic::list(), wakeups::list(), threads::list()];
    let [timers, files, processes, signals] = [timers::list(), files::list(), processes::list(), signals::list()];
    [ready, traffic, wakeups, threads, timers, files, processes, signals].into_iter().flatten()
}

fn bench() -> Outcome<bool> {
    let args = args()?;
    let works: Vec<_> = workloads().filter(|work| args.chosen(&work.name)).collect();
    let lines: Vec<_> = memory::LINES.into_iter().filter(|(name, _)| args.chosen(name)).collect();
    if args.list {
        works.iter().for_each(|work| println!("{}", work.name));
        let others = memory::LINES.into_iter().map(|(name, _)| name).chain(growth::names());
        others.filter(|name| args.chosen(name)).for_each(|name| println!("{name}"));
        return Ok(true);
    }
    // A peer that cannot even be loaded is a mistake of whoever asked for it.
    if args.field.peer.is_some() {
        apart::start(|| args.field.side(2).map(|_| Box::new(|_| Ok(String::new())) as apart::Work))?;
    }
    let nofile = sys::raise_nofile(NOFILE);
    if let Some(path) = &args.growth {
        return growth::run(path, |name| args.chosen(name), &args.field, args.plan, nofile).map(|()| true);
    }
    let mut good = true;
    if !works.is_empty() {
        frame::heading(&args.field);
    }
    for work in works {
        good &= frame::run(work, &args.field, args.plan, nofile).is_ok();
    }
    if !lines.is_empty() {
        memory::heading(&args.field);
    }
    for (name, both) in lines {
        good &= memory::run(name, both, &args.field, nofile).is_ok();
    }
    Ok(good)
}

fn main() -> ExitCode {
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("ratios: {why}");
            ExitCode::FAILURE
        }
    }
}
