//! Resident bytes of a registered socket on which nothing happens.
//!
//! Each figure comes from a process of its own: sockets and the program's own books first,
//! then one registration, so that what a library makes once is there, then the others, a
//! call each. Their numbers follow one another, as a server's do whose clients are
//! elsewhere. What the process' anonymous memory has grown by, over their number, is the
//! figure. Memory of the kernel is not in it.

use crate::apart;
use crate::api::{self, *};
use crate::frame::{self, Field, Side, say};
use crate::ready::{IN, NONE};
use crate::sys;
use libc::{EPOLL_CTL_ADD, EPOLLOUT};
use std::os::fd::OwnedFd;

/// Sockets, after the first.
const SOCKETS: usize = 9_000;
/// Processes for each figure.
const ROUNDS: usize = 5;
/// What ours is meant to stay below, bytes.
const BOUND: f64 = 96.0;

type Pair = (OwnedFd, OwnedFd);

/// The lines, and whether both filters are asked for.
pub(crate) const LINES: [(&str, bool); 2] = [("resident-read", false), ("resident-read-write", true)];

/// The heading over the lines of [`run`].
pub(crate) fn heading(field: &Field) {
    let names: String = field.names().iter().map(|name| format!(" {:>10} | {:13} |", name, "spread")).collect();
    let rules: String = field.names().iter().map(|_| format!(" {:->10} | {:-<13} |", "", "")).collect();
    say(&format!("\n| {:29} | {:>7} | {:5} |{names}\n", "bytes of an idle socket", "raw", "bound"));
    say(&format!("| {:-<29} | {:->7} | {:-<5} |{rules}\n", "", "", ""));
}

/// Prints one line. An error is one of raw or of the library.
pub(crate) fn run(name: &str, both: bool, field: &Field, nofile: u64) -> Outcome {
    say(&format!("| {name:29} |"));
    let fds = 2 * SOCKETS as u64 + 1_100;
    if fds > nofile {
        say(&format!(" skipped: wants {fds} descriptors, {nofile} are allowed |\n"));
        return Ok(());
    }
    let mut cells = Vec::new();
    for place in 0..=field.names().len() {
        match figure(place, both, field) {
            Ok(bytes) => cells.push((
                frame::quantile(&bytes, 0.5),
                format!("{:.0}..{:.0}", frame::quantile(&bytes, 0.0), frame::quantile(&bytes, 1.0)),
            )),
            Err(why) if place > 1 => {
                say(&format!(" fails: {why} |\n"));
                return Ok(());
            }
            Err(why) => {
                say(&format!(" FAILED: {why} |\n"));
                return Err(why);
            }
        }
    }
    let others: String = cells[1..].iter().map(|(mid, spread)| format!(" {mid:10.1} | {spread:13} |")).collect();
    say(&format!(" {:7.1} | {BOUND:5.0} |{others}\n", cells[0].0));
    Ok(())
}

/// Bytes a socket on the side of this place, once for each round.
fn figure(place: usize, both: bool, field: &Field) -> Outcome<Vec<f64>> {
    let once = |_| {
        let work = || {
            let side = field.side(place)?;
            Ok(Box::new(move |_| grown(side, both).map(|bytes| bytes.to_string())) as apart::Work)
        };
        let bytes = apart::start(work)?.ask(1)?;
        bytes.parse().map_err(|_| format!("not a number: {bytes}"))
    };
    (0..ROUNDS).map(once).collect()
}

fn grown(side: Side, both: bool) -> Outcome<f64> {
    let sockets = if both { sys::full_socketpair } else { sys::socketpair };
    let clients = SOCKETS as i32 + 1_000;
    let apart = |(fd, client)| (fd, sys::moved_up(client, clients));
    let pairs: Vec<Pair> = (0..=SOCKETS).map(|_| apart(sockets())).collect();
    let (first, rest) = pairs.split_at(1);
    let bytes = match side {
        Side::Raw => {
            let ep = sys::epoll();
            let add = |some: &[Pair]| {
                let mask = if both { IN | EPOLLOUT } else { IN };
                some.iter().for_each(|(fd, _)| sys::epoll_ctl(sys::raw(&ep), EPOLL_CTL_ADD, sys::raw(fd), mask, 7));
                Ok(())
            };
            let bytes = between(|| add(first), || add(rest))?;
            api::expect("events", sys::epoll_wait(sys::raw(&ep), &mut [NONE; 8], 0), 0)?;
            bytes
        }
        Side::Lib(lib) => {
            let kq = lib.open()?;
            let filters: &[i16] = if both { &[EVFILT_READ, EVFILT_WRITE] } else { &[EVFILT_READ] };
            let add = |some: &[Pair]| {
                let each = |(fd, _): &Pair| {
                    filters.iter().try_for_each(|filter| kq.change(&[on_fd(sys::raw(fd), *filter, EV_ADD, 7)]))
                };
                some.iter().try_for_each(each)
            };
            let bytes = between(|| add(first), || add(rest))?;
            all_there(&kq, &pairs)?;
            bytes
        }
    };
    Ok(bytes as f64 / SOCKETS as f64)
}

/// What resident memory `work` takes once `before` is done, bytes.
fn between(before: impl FnOnce() -> Outcome, work: impl FnOnce() -> Outcome) -> Outcome<i64> {
    // The first reading makes what the second needs.
    before().and(resident().map(drop))?;
    let start = resident()?;
    work()?;
    Ok(resident()? - start)
}

/// Anonymous memory of this process that is resident, bytes.
fn resident() -> Outcome<i64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").map_err(|why| format!("smaps_rollup: {why}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches(" kB").parse::<i64>().map_err(|why| format!("smaps_rollup: {why}"))?;
    Ok(kib * 1024)
}

/// Every socket is idle as registered, and every one of them tells of a byte, once.
fn all_there(kq: &Kq, pairs: &[Pair]) -> Outcome {
    let mut out = api::events(pairs.len() + 1);
    api::expect("events of idle sockets", kq.call(&[], &mut out, Wait::Poll)?, 0)?;
    pairs.iter().for_each(|(_, peer)| {
        sys::write(sys::raw(peer), b"x");
    });
    let got = kq.call(&[], &mut out, Wait::Forever)?;
    let mut told: Vec<_> =
        out[..got].iter().filter(|e| e.filter == EVFILT_READ && e.data == 1).map(|e| e.ident).collect();
    told.sort_unstable();
    told.dedup();
    api::expect("sockets that tell", told.len(), pairs.len())
}
