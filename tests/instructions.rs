//! How many instructions of the library's own `kevent()` takes for some work: a bound that
//! no busy machine disturbs.
//!
//! callgrind counts them, inside `kevent()`, in the shared object and in what the compiler
//! has it call to copy and clear memory; the rest of libc is left out. Each figure is the
//! difference of two runs of unequal length, which
//! leaves out what happens once. The bounds are a little above what was counted; whoever
//! makes a call longer on purpose raises them here and in `docs/performance.md`.

mod support;

use std::fs;
use support::{Linkage, c_compiler, have, link, out_dir, output, run, shipped, source};

/// A byte through a pipe, each time waited for; argv[1] times.
const PING_PONG: &str = r#"
#include <sys/event.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 0, kq = kqueue(), p[2];
	struct kevent ev[8];
	char c;
	if (kq < 0 || pipe(p) != 0)
		return 1;
	EV_SET(&ev[0], p[0], EVFILT_READ, EV_ADD, 0, 0, 0);
	if (kevent(kq, ev, 1, 0, 0, 0) != 0)
		return 2;
	while (n-- > 0)
		if (write(p[1], "x", 1) != 1 || kevent(kq, 0, 0, ev, 8, 0) != 1 || ev[0].data != 1 || read(p[0], &c, 1) != 1)
			return 3;
	return 0;
}
"#;

/// 64 readable sockets harvested in one call; argv[1] times.
const HARVEST: &str = r#"
#include <sys/event.h>
#include <sys/socket.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 0, kq = kqueue(), i, s[64][2];
	static struct kevent ev[64] __attribute__((aligned(4096)));
	struct timespec now = { 0, 0 };
	for (i = 0; i < 64; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, s[i]) != 0 || write(s[i][1], "x", 1) != 1)
			return 1;
		EV_SET(&ev[i], s[i][0], EVFILT_READ, EV_ADD, 0, 0, 0);
	}
	if (kevent(kq, ev, 64, 0, 0, 0) != 0)
		return 2;
	while (n-- > 0)
		if (kevent(kq, 0, 0, ev, 64, &now) != 64)
			return 3;
	return 0;
}
"#;

/// 64 pipes entered in one call and taken out in the next; argv[1] times.
const ADD_DELETE: &str = r#"
#include <sys/event.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 0, kq = kqueue(), i, p[2];
	static struct kevent add[64] __attribute__((aligned(4096))), del[64] __attribute__((aligned(4096)));
	for (i = 0; i < 64; i++) {
		if (pipe(p) != 0)
			return 1;
		EV_SET(&add[i], p[0], EVFILT_READ, EV_ADD, 0, 0, 0);
		EV_SET(&del[i], p[0], EVFILT_READ, EV_DELETE, 0, 0, 0);
	}
	while (n-- > 0)
		if (kevent(kq, add, 64, 0, 0, 0) != 0 || kevent(kq, del, 64, 0, 0, 0) != 0)
			return 2;
	return 0;
}
"#;

/// One pipe entered and taken out, a call each; argv[1] times.
const ADD_DELETE_SINGLY: &str = r#"
#include <sys/event.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 0, kq = kqueue(), p[2];
	struct kevent add, del;
	if (kq < 0 || pipe(p) != 0)
		return 1;
	EV_SET(&add, p[0], EVFILT_READ, EV_ADD, 0, 0, 0);
	EV_SET(&del, p[0], EVFILT_READ, EV_DELETE, 0, 0, 0);
	while (n-- > 0)
		if (kevent(kq, &add, 1, 0, 0, 0) != 0 || kevent(kq, &del, 1, 0, 0, 0) != 0)
			return 2;
	return 0;
}
"#;

/// A user event triggered and collected, a call each; argv[1] times.
const USER: &str = r#"
#include <sys/event.h>
#include <stdlib.h>
int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 0, kq = kqueue();
	struct kevent ev[8], trigger;
	EV_SET(&ev[0], 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, 0);
	EV_SET(&trigger, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, 0);
	if (kevent(kq, ev, 1, 0, 0, 0) != 0)
		return 1;
	while (n-- > 0)
		if (kevent(kq, &trigger, 1, 0, 0, 0) != 0 || kevent(kq, 0, 0, ev, 8, 0) != 1)
			return 2;
	return 0;
}
"#;

/// Rounds of the short run, and how many more in the long one.
const SHORT: u64 = 100;
const MORE: u64 = 500;

#[test]
fn a_ping_pong_keeps_its_bound() {
    keeps("ping-pong", PING_PONG, 1440);
}

#[test]
fn a_harvest_of_64_keeps_its_bound() {
    keeps("harvest", HARVEST, 64 * 420);
}

#[test]
fn a_trigger_and_its_event_keep_their_bound() {
    keeps("trigger", USER, 1600);
}

#[test]
fn adding_and_deleting_64_keeps_its_bound() {
    keeps("add-delete-64", ADD_DELETE, 64 * 890);
}

#[test]
fn adding_and_deleting_singly_keeps_its_bound() {
    keeps("add-delete", ADD_DELETE_SINGLY, 1710);
}

fn keeps(name: &str, text: &str, bound: u64) {
    if !have("valgrind") {
        return;
    }
    if cfg!(debug_assertions) && !shipped() {
        println!("skipped: the library is not optimised");
        return;
    }
    let program = out_dir().join(name);
    let mut compiler = c_compiler();
    compiler.arg(source(&format!("{name}.c"), text)).arg("-o").arg(&program);
    link(&mut compiler, Linkage::Shared);
    output(&mut compiler);

    let [short, long] = [SHORT, SHORT + MORE].map(|calls| {
        let profile = out_dir().join(format!("{name}-{calls}.callgrind"));
        let mut command = run("valgrind");
        command.args(["--tool=callgrind", "--toggle-collect=kevent"]);
        command.arg(format!("--callgrind-out-file={}", profile.display()));
        output(command.arg(&program).arg(calls.to_string()));
        instructions(&fs::read_to_string(&profile).expect("callgrind has written it"))
    });
    let each = (long - short) / MORE;
    println!("{name}: {each} instructions, {bound} at most");
    assert!(each > 100, "{name}: {each} instructions: they were not counted");
    assert!(each <= bound, "{name}: {each} instructions, {bound} at most");
}

/// The instructions in the shared object that a callgrind profile tells of.
fn instructions(profile: &str) -> u64 {
    let mut ours = Vec::new();
    let mut memory = Vec::new();
    let (mut inside, mut of_memory, mut of_a_call, mut sum) = (false, false, false, 0);
    for line in profile.lines() {
        // An object is named in full once, "(3) /path", and then by its number alone.
        let object = line.strip_prefix("ob=").or_else(|| line.strip_prefix("cob="));
        if let Some(object) = object {
            let number = object.split(' ').next().unwrap_or(object);
            if object.contains("libkqueue.so") {
                ours.push(number);
            }
            if line.starts_with("ob=") {
                inside = ours.contains(&number);
            }
        } else if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let number = function.split(' ').next().unwrap_or(function);
            if function.contains(" __mem") || function.contains(" mem") {
                memory.push(number);
            }
            if line.starts_with("fn=") {
                of_memory = memory.contains(&number);
            }
        } else if line.starts_with("calls=") {
            // The next line is what the callee took, which is counted where it stands.
            of_a_call = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok());
            if !core::mem::take(&mut of_a_call) && (inside || of_memory) {
                sum += cost.unwrap_or(0);
            }
        }
    }
    sum
}

#[test]
fn costs_of_callees_and_of_other_objects_do_not_count_but_memory_does() {
    let profile = "ob=(1) /x/libkqueue.so.0\nfn=(1) kevent\n10 5\n+2 7\ncob=(2) /x/libc.so\ncalls=1 0\n* 100\n\
                   ob=(2)\nfn=(2) ioctl\n1 50\nfn=(3) __memset_avx2\n1 20\nob=(1)\nfn=(1)\n12 1\n";
    assert_eq!(instructions(profile), 33);
}
