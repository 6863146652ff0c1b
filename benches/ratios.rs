//! The library beside the same work written by hand on epoll, eventfd and timerfd.
//!
//! ```text
//! cargo bench --bench ratios                  # everything, about two minutes
//! cargo bench --bench ratios -- --quick timers
//! KQUEUE_PEER=/usr/lib/x86_64-linux-gnu cargo bench --bench ratios
//! ```
//!
//! Words select workloads by substring. `--list` names them. `--quick` makes short
//! rounds. `--lean` spares the hand-written side the calls that learn what `data` tells
//! (FIONREAD, SIOCOUTQ). `--null` puts the hand-written side into both columns: every
//! ratio must then be 1.00 within five percent, or the machine is too busy to measure.
//! With `KQUEUE_PEER` set to a directory the `libkqueue.so.0` in it gets a column too.
//!
//! A lost, doubled or unexpected event ends the run with status 1. What the columns mean
//! is in `docs/performance.md`.

// The hand-written side is made of system calls, and a peer is called by pointer.
#![allow(unsafe_code)]

#[path = "ratios/api.rs"]
mod api;
#[path = "ratios/files.rs"]
mod files;
#[path = "ratios/frame.rs"]
mod frame;
#[path = "ratios/processes.rs"]
mod processes;
#[path = "ratios/ready.rs"]
mod ready;
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

use api::{Api, Outcome};
use frame::{Plan, Side, Workload};
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
    null: bool,
    list: bool,
    words: Vec<String>,
}

fn args() -> Outcome<Args> {
    let mut args = Args { plan: Plan::FULL, null: false, list: false, words: Vec::new() };
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            // cargo bench says so to every bench.
            "--bench" => {}
            "--quick" => args.plan = Plan::QUICK,
            "--null" => args.null = true,
            "--lean" => LEAN.store(true, Ordering::Relaxed),
            "--list" => args.list = true,
            _ if arg.starts_with('-') => return Err(format!("{arg}: unknown option")),
            _ => args.words.push(arg),
        }
    }
    Ok(args)
}

fn workloads(words: &[String]) -> impl Iterator<Item = Workload> {
    let [ready, traffic, wakeups] = [ready::list(), traffic::list(), wakeups::list()];
    let [threads, timers, files] = [threads::list(), timers::list(), files::list()];
    let all = [ready, traffic, wakeups, threads, timers, files, processes::list()];
    let chosen = move |w: &Workload| words.is_empty() || words.iter().any(|x| w.name.contains(x));
    all.into_iter().flatten().filter(chosen)
}

fn bench() -> Outcome<bool> {
    let args = args()?;
    if args.list {
        workloads(&args.words).for_each(|w| println!("{}", w.name));
        return Ok(true);
    }
    let (mut sides, mut columns) = (vec![Side::Lib(Api::ours())], vec!["ours"]);
    if args.null {
        (sides, columns) = (vec![Side::Raw], vec!["raw"]);
    }
    if let Ok(dir) = std::env::var("KQUEUE_PEER") {
        sides.push(Side::Lib(Api::peer(&dir)?));
        columns.push("peer");
    }
    let nofile = sys::raise_nofile(NOFILE);
    frame::heading(&columns);
    let mut good = true;
    for work in workloads(&args.words) {
        good &= frame::run(work, &sides, args.plan, nofile).is_ok();
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
