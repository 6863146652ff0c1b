//! The frame: interleaved turns, paired ratios, medians of rounds.
//!
//! A *turn* is a few milliseconds of one workload on one side, each side in a process of
//! its own. A *pair* is one turn of every side, one right after the other, so that
//! whatever else the machine does meets all of them; who goes first rotates from pair to
//! pair. A *round* is some pairs. Its CPU ratio is the time of all of a side's turns over
//! that of raw's, so that what the library does only now and then is in it; its wall ratio
//! is the median of its pairs, because one turn that another process interrupts would
//! outweigh all others. The figure printed is the median of the rounds; the spread is the
//! tenth to the ninetieth percentile of the paired ratios.
//!
//! A *scaling* workload has a second turn beside each one and is the time of the first
//! over that of the second; its figure is how the library's scaling compares to raw's.
//!
//! After each turn the process sleeps for a moment, and the CPU time of that moment
//! still counts for the turn: a thread of the library that works late is part of it.

use crate::apart::{self, Child, Work};
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

/// Who takes part beside raw.
#[derive(Clone)]
pub(crate) struct Field {
    /// A second raw in the place of the library.
    pub(crate) null: bool,
    /// Raw has no second thread.
    pub(crate) alone: bool,
    /// The directory of another library.
    pub(crate) peer: Option<String>,
}

impl Field {
    /// The side in this place, 0 being raw. A peer is loaded here, so in its own process.
    pub(crate) fn side(&self, place: usize) -> Outcome<Side> {
        if place == 0 || place == 1 && self.null {
            if !self.alone {
                sys::idle_thread();
            }
            return Ok(Side::Raw);
        }
        let peer = self.peer.as_deref().filter(|_| place > 1);
        peer.map_or(Ok(Api::ours()), Api::peer).map(Side::Lib)
    }

    /// The names of the sides after raw.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let first = if self.null { "raw" } else { "ours" };
        [Some(first), self.peer.as_ref().map(|_| "peer")].into_iter().flatten().collect()
    }
}

/// Does so many units of a workload and checks what came.
pub(crate) type Turn = Box<dyn FnMut(usize) -> Outcome>;

/// Sets a side up.
type Make = Box<dyn FnMut(Side) -> Outcome<Turn>>;

/// One line of the table.
pub(crate) struct Workload {
    pub(crate) name: String,
    make: Make,
    against: Option<Make>,
    ops: usize,
    most: usize,
    longer: f64,
    cores: usize,
    fds: u64,
    bound: Option<f64>,
}

impl Workload {
    /// A workload whose sides are set up by `make`.
    pub(crate) fn new(name: impl Into<String>, make: impl FnMut(Side) -> Outcome<Turn> + 'static) -> Workload {
        let (name, make) = (name.into(), Box::new(make));
        Workload { name, make, against: None, ops: 1, most: usize::MAX, longer: 1.0, cores: 1, fds: 1000, bound: None }
    }

    /// How many operations one unit is; the time per operation is printed.
    pub(crate) fn ops(self, ops: usize) -> Workload {
        Workload { ops, ..self }
    }

    /// The largest turn, in units.
    pub(crate) fn most(self, most: usize) -> Workload {
        Workload { most, ..self }
    }

    /// Makes turns so many times longer than planned, where the course of one is partly chance.
    pub(crate) fn longer(self, longer: f64) -> Workload {
        Workload { longer, ..self }
    }

    /// How many cores it runs on.
    pub(crate) fn cores(self, cores: usize) -> Workload {
        Workload { cores, ..self }
    }

    /// How many descriptors a side has open, about.
    pub(crate) fn fds(self, fds: u64) -> Workload {
        Workload { fds, ..self }
    }

    /// What ours/raw is meant to stay below.
    pub(crate) fn bound(self, bound: f64) -> Workload {
        Workload { bound: Some(bound), ..self }
    }

    /// Makes it a scaling workload: the time over that of a turn of one operation a unit.
    pub(crate) fn against(self, make: impl FnMut(Side) -> Outcome<Turn> + 'static) -> Workload {
        Workload { against: Some(Box::new(make)), ..self }
    }

    /// Why it cannot run here, if so.
    fn hindered(&self, nofile: u64) -> Option<String> {
        if self.fds > nofile {
            return Some(format!("wants {} descriptors, {nofile} are allowed", self.fds));
        }
        (self.cores > sys::cores().len()).then(|| format!("wants {} cores", self.cores))
    }
}

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) pairs: usize,
    /// The length of raw's turn, ns.
    pub(crate) turn: f64,
}

impl Plan {
    /// For figures that are written down.
    pub(crate) const FULL: Plan = Plan { rounds: 15, pairs: 8, turn: 5e6 };
    /// For a look.
    pub(crate) const QUICK: Plan = Plan { rounds: 9, pairs: 2, turn: 3e6 };
}

/// How long the late work of a turn may take and still be counted, ns.
const SETTLE: u64 = 2_000_000;

/// The time of one turn, ns; of a scaling workload, how many times that of the other.
#[derive(Clone, Copy)]
struct Time {
    cpu: f64,
    wall: f64,
}

/// CPU and wall time of a turn, as a child tells them.
fn timed(turn: &mut Turn, units: usize) -> Outcome<String> {
    let (wall, cpu) = (sys::now(), sys::cpu());
    turn(units)?;
    let wall = sys::now() - wall;
    sys::sleep_until(sys::now() + SETTLE);
    // Nothing takes no time, and nothing is divided by zero.
    Ok(format!("{} {} ", (sys::cpu() - cpu).max(1), wall.max(1)))
}

/// One side of a workload, set up in its process.
struct Party(Child);

impl Party {
    /// The side in this place: 0 is raw.
    fn new(work: &mut Workload, place: usize, field: &Field) -> Outcome<Party> {
        let setup = || {
            // Threads that a library starts are bound by this as well.
            sys::bind(&sys::cores()[..work.cores]);
            let side = field.side(place)?;
            let mut turn = (work.make)(side)?;
            let mut against = work.against.as_mut().map(|make| make(side)).transpose()?;
            Ok(Box::new(move |units| {
                let other = against.as_mut().map(|turn| timed(turn, units)).transpose()?;
                Ok(timed(&mut turn, units)? + &other.unwrap_or_default())
            }) as Work)
        };
        apart::start(setup).map(Party)
    }

    /// One turn; of a scaling workload, both.
    fn times(&mut self, units: usize) -> Outcome<(Time, Option<Time>)> {
        let text = self.0.ask(units)?;
        let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
        let mut time = || Some(Time { cpu: numbers.next()?, wall: numbers.next()? });
        Ok((time().ok_or_else(|| format!("not times: {text}"))?, time()))
    }

    fn timed(&mut self, units: usize) -> Outcome<Time> {
        Ok(match self.times(units)? {
            (time, None) => time,
            (time, Some(other)) => Time { cpu: time.cpu / other.cpu, wall: time.wall / other.wall },
        })
    }

    /// Units for a turn of so many ns. The fastest of a few tries counts: one that
    /// was interrupted would make all turns too short.
    fn calibrate(&mut self, turn: f64, most: usize) -> Outcome<usize> {
        let mut units = 1;
        loop {
            let mut wall = f64::MAX;
            for _ in 0..4 {
                wall = wall.min(self.times(units)?.0.wall);
                if wall < turn / 2.0 {
                    break;
                }
            }
            if wall >= turn / 2.0 || units >= most {
                let fit = units as f64 * turn / wall;
                return Ok((fit as usize).clamp(1, most));
            }
            units = (units * 2).min(most);
        }
    }
}

/// What a side's columns show.
#[derive(Default)]
struct Column {
    rounds: [Vec<f64>; 2],
    pairs: [Vec<f64>; 2],
}

/// The value below which the share `q` of `of` lies.
pub(crate) fn quantile(of: &[f64], q: f64) -> f64 {
    let mut of = of.to_vec();
    of.sort_by(f64::total_cmp);
    let at = (of.len() - 1) as f64 * q;
    let (low, high) = (at.floor(), at.ceil());
    of[low as usize] + (of[high as usize] - of[low as usize]) * (at - low)
}

impl Column {
    /// One round of this side: its turns beside raw's.
    fn round(&mut self, side: &[Time], raw: &[Time]) {
        for (side, raw) in side.iter().zip(raw) {
            self.pairs[0].push(side.cpu / raw.cpu);
            self.pairs[1].push(side.wall / raw.wall);
        }
        let walls = self.pairs[1].len() - side.len();
        let walls = &self.pairs[1][walls..];
        self.rounds[0].push(sum_cpu(side) / sum_cpu(raw));
        self.rounds[1].push(quantile(walls, 0.5));
    }

    /// CPU and wall: median of the rounds, spread of the pairs.
    fn text(&self) -> String {
        let mut text = String::new();
        for (rounds, pairs) in self.rounds.iter().zip(&self.pairs) {
            let mid = quantile(rounds, 0.5);
            let steady = quantile(rounds, 0.75) - quantile(rounds, 0.25) <= 0.05 * mid;
            let (low, high) = (quantile(pairs, 0.1), quantile(pairs, 0.9));
            let mark = if steady { ' ' } else { '~' };
            text.push_str(&format!(" {mid:9.3}{mark} | {:13} |", format!("{low:.2}..{high:.2}")));
        }
        text
    }
}

fn sum_cpu(times: &[Time]) -> f64 {
    times.iter().map(|time| time.cpu).sum()
}

/// Prints what is a part of a line.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    // A reader that went away is no reason to stop halfway.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The heading over the lines of [`run`]: a table in Markdown.
pub(crate) fn heading(field: &Field) {
    let (mut names, mut rule) = (String::new(), String::new());
    for name in field.names() {
        for what in ["CPU", "wall"] {
            names.push_str(&format!(" {:10} | {:13} |", format!("{name}, {what}"), "spread"));
            rule.push_str(&format!(" {:-<10} | {:-<13} |", "", ""));
        }
    }
    say(&format!("| {:29} | {:>7} | {:5} |{names}\n", "workload", "raw, ns", "bound"));
    say(&format!("| {:-<29} | {:-<7} | {:-<5} |{rule}\n", "", "", ""));
}

/// What a workload came to.
struct Figures {
    /// Raw's CPU time of one operation, ns; or its scaling.
    raw: f64,
    /// The library's, and the peer's unless it failed.
    columns: Vec<Column>,
    /// Why the peer has none.
    failed: Option<String>,
}

/// Prints one workload's line. The last word on a peer that fails is in its column; an
/// error here is one of raw or of the library.
pub(crate) fn run(mut work: Workload, field: &Field, plan: Plan, nofile: u64) -> Outcome {
    say(&format!("| {:29} |", work.name));
    if let Some(why) = work.hindered(nofile) {
        say(&format!(" skipped: {why} |\n"));
        return Ok(());
    }
    let bound = work.bound.map_or(String::new(), |bound| format!("{bound:.2}"));
    let done = measure(&mut work, field, plan);
    match &done {
        Ok(figures) => {
            let scaling = work.against.is_some();
            let raw = if scaling { format!("{:.2} x", figures.raw) } else { format!("{:.0}", figures.raw) };
            let columns: String = figures.columns.iter().map(Column::text).collect();
            let fails = figures.failed.as_ref().map_or(String::new(), |why| format!(" fails: {why} | | | |"));
            say(&format!(" {raw:>7} | {bound:>5} |{columns}{fails}\n"));
        }
        Err(why) => say(&format!(" FAILED: {why} |\n")),
    }
    done.map(drop)
}

/// One workload's CPU time of an operation, ns: raw's, the library's, and the peer's if it
/// has one. None where it cannot run here.
pub(crate) fn point(mut work: Workload, field: &Field, plan: Plan, nofile: u64) -> Outcome<Option<Vec<f64>>> {
    if work.hindered(nofile).is_some() {
        return Ok(None);
    }
    let figures = measure(&mut work, field, plan)?;
    let others = figures.columns.iter().map(|column| figures.raw * quantile(&column.rounds[0], 0.5));
    Ok(Some([figures.raw].into_iter().chain(others).collect()))
}

fn measure(work: &mut Workload, field: &Field, plan: Plan) -> Outcome<Figures> {
    let raw = |why| format!("raw: {why}");
    let mut parties = vec![Party::new(work, 0, field).map_err(raw)?];
    let units = parties[0].calibrate(plan.turn * work.longer, work.most).map_err(raw)?;
    let mut failed = None;
    for place in 1..=field.names().len() {
        match Party::new(work, place, field).and_then(|mut party| party.timed(units).map(|_| party)) {
            Ok(party) => parties.push(party),
            Err(why) if place > 1 => failed = Some(why),
            Err(why) => return Err(why),
        }
    }
    let mut columns: Vec<_> = parties.iter().skip(1).map(|_| Column::default()).collect();
    let mut raw_cpu = Vec::new();
    for _ in 0..plan.rounds {
        let times = match round(&mut parties, units, plan.pairs) {
            Ok(times) => times,
            Err((place, why)) if place > 1 => {
                parties.truncate(place);
                columns.truncate(place - 1);
                failed = Some(why);
                continue;
            }
            Err((_, why)) => return Err(why),
        };
        raw_cpu.extend(times[0].iter().map(|t| t.cpu));
        for (column, side) in columns.iter_mut().zip(&times[1..]) {
            column.round(side, &times[0]);
        }
    }
    let whole = if work.against.is_some() { work.ops } else { units * work.ops };
    Ok(Figures { raw: quantile(&raw_cpu, 0.5) / whole as f64, columns, failed })
}

/// One round: the times of every side, or the side that failed and why.
fn round(parties: &mut [Party], units: usize, pairs: usize) -> Result<Vec<Vec<Time>>, (usize, String)> {
    let mut times = vec![Vec::with_capacity(pairs); parties.len()];
    for pair in 0..pairs {
        for step in 0..parties.len() {
            let place = (pair + step) % parties.len();
            times[place].push(parties[place].timed(units).map_err(|why| (place, why))?);
        }
    }
    Ok(times)
}
