//! The order of the source: `ffi`, then `kqueue`, then `filter`, then `sys`, each using
//! only what stands below it; and `unsafe` in `ffi` and `sys` alone.

use std::fs;
use std::path::{Path, PathBuf};

/// What a part may name of the crate besides itself. Parts not listed are leaves.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("ffi", &["kqueue", "sys", "abi", "errno", "debug"]),
    ("kqueue", &["filter", "sys", "knote", "abi", "errno", "debug"]),
    ("filter", &["sys", "knote", "abi", "errno", "debug"]),
    ("sys", &["errno"]),
    ("debug", &["abi", "errno", "sys"]),
    ("knote", &["abi", "errno"]),
];

struct Source {
    /// Path below `src`, without the suffix: `filter/read`.
    name: String,
    /// Its code: no comments, no test module.
    lines: Vec<String>,
}

impl Source {
    fn part(&self) -> &str {
        self.name.split('/').next().unwrap_or(&self.name)
    }
}

/// Every source file but the crate's root.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let all = paths.iter().map(|path| {
        let name = path.strip_prefix(&root).expect("it was found there");
        let name = name.with_extension("").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("a source is text");
        // The tests of a file stand at its end and may look sideways.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or("");
        let code = code.lines().map(without_comment).collect();
        Source { name, lines: code }
    });
    all.filter(|source| source.name != "lib").collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the source tree is readable") {
        let path = entry.expect("the source tree is readable").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|suffix| suffix == "rs") {
            found.push(path);
        }
    }
}

fn without_comment(line: &str) -> String {
    line.split("//").next().unwrap_or("").trim_end().to_owned()
}

/// The words of a line, a word being what can be a name.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The first names after `prefix::`, one or a list in braces.
fn named_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code.get(..at).unwrap_or("");
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = code.get(at + prefix.len()..).unwrap_or("");
        match rest.strip_prefix('{') {
            Some(list) => found.extend(first_names(list)),
            None => found.extend(words(rest).next()),
        }
    }
    found
}

/// The first name of each item of `a::b, c::{d, e}, f}`.
fn first_names(list: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut depth, mut start) = (1, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            let item = list.get(start..at).unwrap_or("").trim();
            found.extend(words(item).next().filter(|name| !name.is_empty()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found
}

#[test]
fn every_arrow_points_down() {
    let all = sources();
    assert!(all.iter().any(|source| source.part() == "sys"));
    let modules: Vec<&str> = all.iter().map(Source::part).collect();
    let mut wrong = Vec::new();
    for source in &all {
        let may = MAY_USE.iter().find(|(part, _)| *part == source.part());
        let code = source.lines.join("\n");
        let mut used = named_after(&code, "crate::");
        if !source.name.contains('/') {
            // Of a file at the top, super is the crate.
            used.extend(named_after(&code, "super::"));
        }
        for name in used {
            let known = modules.contains(&name) && name != source.part();
            if known && !may.is_some_and(|(_, list)| list.contains(&name)) {
                wrong.push(format!("{} uses {name}", source.name));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn no_filter_names_another() {
    let all = sources();
    let filters: Vec<&str> = all
        .iter()
        .filter(|s| s.part() == "filter" && s.lines.iter().any(|l| l.contains("Filter for ")))
        .filter_map(|s| s.name.strip_prefix("filter/"))
        .filter(|name| *name != "mod")
        .collect();
    assert!(!filters.is_empty());
    let mut wrong = Vec::new();
    for source in &all {
        let Some(own) = source.name.strip_prefix("filter/") else {
            continue;
        };
        let code = source.lines.join("\n");
        let mut used = named_after(&code, "super::");
        used.extend(named_after(&code, "crate::filter::"));
        let others = used.iter().filter(|name| filters.contains(name) && **name != own);
        wrong.extend(others.filter(|_| own != "mod").map(|name| format!("{own} names {name}")));
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_table_does_not_know_the_monitor() {
    for source in sources() {
        if source.name == "kqueue/table" {
            let found = source.lines.iter().find(|l| l.contains("monitor::"));
            assert_eq!(found, None);
        }
    }
}

#[test]
fn unsafe_stands_in_ffi_and_sys_alone() {
    let mut wrong = Vec::new();
    for source in sources() {
        if matches!(source.part(), "ffi" | "sys") {
            continue;
        }
        for line in &source.lines {
            if words(line).any(|word| word == "unsafe") {
                wrong.push(format!("{}: {line}", source.name));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// Functions that are cancellation points in libc, and std's that call them. Even where
/// cancellation is off one of these may act on it, with locks held (`sys/raw.rs`).
const CANCELLATION_POINTS: [&str; 38] = [
    "libc::accept",
    "libc::accept4",
    "libc::close",
    "libc::connect",
    "libc::creat",
    "libc::epoll_pwait",
    "libc::epoll_wait",
    "libc::fsync",
    "libc::nanosleep",
    "libc::open",
    "libc::open64",
    "libc::openat",
    "libc::pause",
    "libc::poll",
    "libc::ppoll",
    "libc::pread",
    "libc::preadv",
    "libc::pwrite",
    "libc::pwritev",
    "libc::pwritev2",
    "libc::read",
    "libc::readv",
    "libc::recv",
    "libc::recvfrom",
    "libc::recvmmsg",
    "libc::recvmsg",
    "libc::select",
    "libc::send",
    "libc::sendmsg",
    "libc::sendto",
    "libc::sigtimedwait",
    "libc::usleep",
    "libc::waitid",
    "libc::waitpid",
    "libc::write",
    "libc::writev",
    "std::fs::read_to_string",
    "std::thread::sleep",
];

#[test]
fn nothing_is_a_cancellation_point() {
    let mut wrong = Vec::new();
    for source in sources() {
        for line in &source.lines {
            let calls = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
            let found = calls.filter(|call| CANCELLATION_POINTS.contains(call) || call.starts_with("std::fs::File"));
            wrong.extend(found.map(|call| format!("{} calls {call}", source.name)));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn named_after_reads_single_names_and_lists() {
    let code = "use crate::abi::{EV_ADD, a};\nuse crate::{errno::E, sys::{fd, epoll}, knote};";
    assert_eq!(named_after(code, "crate::"), ["abi", "errno", "sys", "knote"]);
    assert_eq!(named_after("mycrate::x; x::crate::y", "crate::"), [""; 0]);
}
