//! Builds and runs every C check in `ctests/`, once on the shared object and once on the
//! archive.
//!
//! One line a check is printed, `shared io_read: ok NAME`. The list below names every
//! file; a file that is not in it fails `every_file_is_listed`.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use support::{Linkage, c_compiler, lib_dir, link, out_dir, output, root, run};

macro_rules! ctests {
    ($($name:ident)*) => {
        const LISTED: &[&str] = &[$(stringify!($name)),*];
        $(mod $name {
            #[test]
            fn shared() {
                super::check(stringify!($name), super::Linkage::Shared);
            }
            #[test]
            fn archive() {
                super::check(stringify!($name), super::Linkage::Archive);
            }
        })*
    };
}

ctests! {
    cost
    engine_args
    engine_changes
    engine_counts
    engine_faults
    engine_flags
    engine_mixed
    engine_nested
    engine_nested_races
    engine_poll
    engine_races
    engine_threads
    engine_waits
    fs_mounts
    io_close
    io_file
    io_local
    io_modes
    io_pipe
    io_reuse
    io_sets
    io_special
    io_tcp
    io_tcp_state
    life_cancel
    life_copies
    life_faults
    life_faults_sources
    life_forks
    life_jumps
    life_kqueue
    life_libkqueue
    life_limits
    life_process
    life_races
    life_signals
    life_tls
    proc_exit
    proc_fork
    proc_races
    procdesc
    signal_action
    signal_blocked
    signal_count
    signal_handler
    signal_process
    signal_refused
    signal_thread
    user_timer_life
    user_timer_timer
    user_timer_user
    vnode_directory
    vnode_file
    vnode_life
    vnode_limits
    vnode_races
}

/// Status of a program that could run none of its checks here.
const SKIPPED: i32 = 77;

fn check(name: &str, linkage: Linkage) {
    let kind = match linkage {
        Linkage::Shared => "shared",
        Linkage::Archive => "archive",
    };
    let program = out_dir().join(format!("{name}-{kind}"));
    let source = root().join("ctests").join(format!("{name}.c"));
    let mut compiler = c_compiler();
    compiler.arg(source).arg("-o").arg(&program);
    link(&mut compiler, linkage);
    output(&mut compiler);

    // A file and not a pipe: a process a failed check left behind would hold the pipe.
    let log = program.with_extension("log");
    let file = File::create(&log).expect("the target directory is writable");
    let errors = file.try_clone().expect("a descriptor is free");
    let mut command = run(&program);
    // Checks may put files where they stand.
    command.current_dir(out_dir()).stdout(file).stderr(errors);
    let status = command.status().expect("the program starts");
    let lines = report(&format!("{kind} {name}"), &log);

    let failed: Vec<&str> = lines.lines().filter(|l| l.starts_with("not ok")).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    match status.code() {
        Some(0) => assert!(lines.lines().any(|l| l.starts_with("ok")), "no check ran"),
        Some(SKIPPED) => {}
        _ => panic!("{name}: {status}"),
    }
}

/// Prints what a program wrote, each line under the program's name, and returns it.
fn report(title: &str, log: &Path) -> String {
    let bytes = fs::read(log).expect("the log was just written");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let named: String = text.lines().map(|l| format!("{title}: {l}\n")).collect();
    // Not println: cargo test shows that for failed tests only.
    let mut out = std::io::stdout().lock();
    out.write_all(named.as_bytes()).expect("standard output is open");
    text
}

#[test]
fn every_file_is_listed() {
    let dir = fs::read_dir(root().join("ctests")).expect("ctests is there");
    let mut files: Vec<String> = dir
        .filter_map(|entry| entry.expect("readable").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".c").map(str::to_owned))
        .collect();
    files.sort();
    let mut listed = LISTED.to_vec();
    listed.sort_unstable();
    assert_eq!(files, listed, "ctests/*.c and the list in tests/ctests.rs");
}

#[test]
fn both_libraries_are_there() {
    for name in ["libkqueue.so", "libkqueue.a"] {
        let path = lib_dir().join(name);
        assert!(path.is_file(), "{}", path.display());
    }
}
