//! The frame: interleaved turns, paired ratios, medians of rounds.
//!
//! A *turn* is a few milliseconds of one workload on one side. A *pair* is one turn of
//! every side, one right after the other, so that whatever else the machine does meets
//! all of them; who goes first rotates from pair to pair. A *round* is some pairs. Its
//! CPU ratio is the time of all of a side's turns over that of raw's, so that what the
//! library does only now and then is in it; its wall ratio is the median of its pairs,
//! because one turn that another process interrupts would outweigh all others. The
//! figure printed is the median of the rounds; the spread is the tenth to the ninetieth
//! percentile of the paired ratios.
//!
//! After each turn the process sleeps for a moment, and the CPU time of that moment
//! still counts for the turn: a thread of the library that works late must not have its
//! time charged to the next side.

use crate::api::{Api, Outcome};
use crate::sys;
use std::io::{self, Write};

/// Who does the work.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// By hand, on epoll and its kin.
    Raw,
    /// A kqueue library.
    Lib(Api),
}

/// Does so many units of a workload and checks what came.
pub(crate) type Turn = Box<dyn FnMut(usize) -> Outcome>;

/// One line of the table.
pub(crate) struct Workload {
    pub(crate) name: String,
    make: Box<dyn FnMut(Side) -> Outcome<Turn>>,
    ops: usize,
    most: usize,
    cores: usize,
    fds: u64,
    peer_fds: u64,
}

impl Workload {
    /// A workload whose sides are set up by `make`.
    pub(crate) fn new(name: impl Into<String>, make: impl FnMut(Side) -> Outcome<Turn> + 'static) -> Workload {
        Workload { name: name.into(), make: Box::new(make), ops: 1, most: usize::MAX, cores: 1, fds: 1000, peer_fds: 0 }
    }

    /// How many operations one unit is; the time per operation is printed.
    pub(crate) fn ops(self, ops: usize) -> Workload {
        Workload { ops, ..self }
    }

    /// The largest turn, in units.
    pub(crate) fn most(self, most: usize) -> Workload {
        Workload { most, ..self }
    }

    /// How many cores it runs on.
    pub(crate) fn cores(self, cores: usize) -> Workload {
        Workload { cores, ..self }
    }

    /// How many descriptors all sides have open together, about, and how many more
    /// where a peer takes part.
    pub(crate) fn fds(self, fds: u64, peer_fds: u64) -> Workload {
        Workload { fds, peer_fds, ..self }
    }
}

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) pairs: usize,
    /// The length of raw's turn, ns.
    pub(crate) turn: u64,
}

impl Plan {
    /// For figures that are written down.
    pub(crate) const FULL: Plan = Plan { rounds: 15, pairs: 8, turn: 5_000_000 };
    /// For a look.
    pub(crate) const QUICK: Plan = Plan { rounds: 9, pairs: 2, turn: 3_000_000 };
}

/// How long the late work of a turn may take and still be counted, ns.
const SETTLE: u64 = 2_000_000;
/// No turn lasts this long, s.
const HANGS: u32 = 60;

/// The time of one turn, ns.
#[derive(Clone, Copy, Default)]
struct Time {
    cpu: u64,
    wall: u64,
}

fn timed(turn: &mut Turn, units: usize) -> Outcome<Time> {
    sys::watchdog(HANGS);
    let (wall, cpu) = (sys::now(), sys::cpu());
    turn(units)?;
    let wall = sys::now() - wall;
    sys::sleep_until(sys::now() + SETTLE);
    Ok(Time { cpu: sys::cpu() - cpu, wall })
}

/// Units for a turn of the planned length on the raw side. The fastest of a few tries
/// counts: one that was interrupted would make all turns too short.
fn calibrate(raw: &mut Turn, plan: Plan, most: usize) -> Outcome<usize> {
    let mut units = 1;
    loop {
        let mut wall = u64::MAX;
        for _ in 0..4 {
            wall = wall.min(timed(raw, units)?.wall.max(1));
            if wall < plan.turn / 2 {
                break;
            }
        }
        if wall >= plan.turn / 2 || units >= most {
            let fit = units as u64 * plan.turn / wall;
            return Ok(usize::try_from(fit).unwrap_or(most).clamp(1, most));
        }
        units = (units * 2).min(most);
    }
}

/// What a side's column shows.
struct Column {
    rounds: [Vec<f64>; 2],
    pairs: [Vec<f64>; 2],
}

/// The value below which the share `q` of `of` lies.
fn quantile(of: &mut [f64], q: f64) -> f64 {
    of.sort_by(f64::total_cmp);
    let at = (of.len() - 1) as f64 * q;
    let (low, high) = (at.floor(), at.ceil());
    of[low as usize] + (of[high as usize] - of[low as usize]) * (at - low)
}

fn over(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}

impl Column {
    fn new() -> Column {
        Column { rounds: [Vec::new(), Vec::new()], pairs: [Vec::new(), Vec::new()] }
    }

    /// One round of this side: its turns beside raw's.
    fn round(&mut self, side: &[Time], raw: &[Time]) {
        for (side, raw) in side.iter().zip(raw) {
            self.pairs[0].push(over(side.cpu, raw.cpu));
            self.pairs[1].push(over(side.wall, raw.wall));
        }
        let walls = self.pairs[1].len() - side.len();
        let mut walls = self.pairs[1][walls..].to_vec();
        self.rounds[0].push(over(sum_cpu(side), sum_cpu(raw)));
        self.rounds[1].push(quantile(&mut walls, 0.5));
    }

    /// CPU and wall: median of the rounds, spread of the pairs.
    fn text(&mut self) -> String {
        let mut parts = Vec::new();
        for which in 0..2 {
            let (rounds, pairs) = (&mut self.rounds[which], &mut self.pairs[which]);
            let mid = quantile(rounds, 0.5);
            let steady = quantile(rounds, 0.75) - quantile(rounds, 0.25) <= 0.05 * mid;
            let (low, high) = (quantile(pairs, 0.1), quantile(pairs, 0.9));
            let mark = if steady { ' ' } else { '~' };
            parts.push(format!("{mid:6.3}{mark} {:13}", format!("{low:.2}..{high:.2}")));
        }
        parts.join(" ")
    }
}

fn sum_cpu(times: &[Time]) -> u64 {
    times.iter().map(|time| time.cpu).sum()
}

/// The heading over the lines of [`run`].
pub(crate) fn heading(columns: &[&str]) {
    let names: Vec<_> = columns
        .iter()
        .map(|c| format!("{:>12} {:7} {:>12} {:7}", format!("{c} cpu"), "", format!("{c} wall"), ""))
        .collect();
    say(&format!("{:28}{:>9}  {}\n", "workload", "raw ns/op", names.join(" ")));
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    // A reader that went away is no reason to stop halfway.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Runs one workload on raw and then `libs`, and prints its line. The last word on a
/// side that may fail is in its column; an error here is one of raw or of `libs[0]`.
pub(crate) fn run(mut work: Workload, libs: &[Side], plan: Plan, nofile: u64) -> Outcome {
    say(&format!("{:28}", work.name));
    // A second raw side has what a peer may have: as many descriptors as the first.
    let more = |(i, side): &(usize, &Side)| *i > 0 || matches!(side, Side::Raw);
    let more = libs.iter().enumerate().filter(more).count() as u64;
    let fds = work.fds + work.peer_fds * more;
    if fds > nofile {
        say(&format!("skipped: wants {fds} descriptors, {nofile} are allowed\n"));
        return Ok(());
    }
    let cores = sys::cores();
    if work.cores > cores.len() {
        say(&format!("skipped: wants {} cores\n", work.cores));
        return Ok(());
    }
    sys::bind(&cores[..work.cores]);
    let done = measure(&mut work, libs, plan);
    sys::bind(&cores);
    match &done {
        Ok(line) => say(&format!("{line}\n")),
        Err(why) => say(&format!("FAILED: {why}\n")),
    }
    done.map(drop)
}

fn measure(work: &mut Workload, libs: &[Side], plan: Plan) -> Outcome<String> {
    let mut raw = (work.make)(Side::Raw).map_err(|e| format!("raw: {e}"))?;
    let units = calibrate(&mut raw, plan, work.most).map_err(|e| format!("raw: {e}"))?;
    let mut turns = vec![raw];
    let mut failed = Vec::new();
    for (i, side) in libs.iter().enumerate() {
        let made = (work.make)(*side).and_then(|mut t| timed(&mut t, units).map(|_| t));
        match made {
            Ok(turn) => turns.push(turn),
            Err(why) if i > 0 => failed.push(why),
            Err(why) => return Err(why),
        }
    }
    let (mut columns, ns) = rounds(work, &mut turns, units, plan, &mut failed)?;
    let mut line = format!("{:9.0}  ", ns / (units * work.ops) as f64);
    let texts: Vec<_> = columns.iter_mut().map(Column::text).collect();
    line.push_str(&texts.join(" "));
    for why in failed {
        line.push_str(&format!(" fails: {why}"));
    }
    Ok(line)
}

/// All rounds: the columns, and raw's CPU time of one turn. A peer that fails loses its
/// column; raw and ours must not.
fn rounds(
    work: &Workload,
    turns: &mut Vec<Turn>,
    units: usize,
    plan: Plan,
    failed: &mut Vec<String>,
) -> Outcome<(Vec<Column>, f64)> {
    let mut columns: Vec<_> = turns.iter().skip(1).map(|_| Column::new()).collect();
    let mut raw_cpu = Vec::new();
    let cores = sys::cores();
    for _ in 0..plan.rounds {
        // Threads that a library started since the last time are bound here.
        sys::bind(&cores[..work.cores.min(cores.len())]);
        let times = match round(turns, units, plan.pairs) {
            Ok(times) => times,
            Err((side, why)) if side > 1 => {
                turns.truncate(side);
                columns.truncate(side - 1);
                failed.push(why);
                continue;
            }
            Err((_, why)) => return Err(why),
        };
        raw_cpu.extend(times[0].iter().map(|t| t.cpu as f64));
        for (column, side) in columns.iter_mut().zip(&times[1..]) {
            column.round(side, &times[0]);
        }
    }
    Ok((columns, quantile(&mut raw_cpu, 0.5)))
}

/// One round: the times of every side, or the side that failed and why.
fn round(turns: &mut [Turn], units: usize, pairs: usize) -> Result<Vec<Vec<Time>>, (usize, String)> {
    let mut times = vec![Vec::with_capacity(pairs); turns.len()];
    for pair in 0..pairs {
        for step in 0..turns.len() {
            let side = (pair + step) % turns.len();
            times[side].push(timed(&mut turns[side], units).map_err(|why| (side, why))?);
        }
    }
    Ok(times)
}
