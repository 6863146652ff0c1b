//! The built library and its header against the ABI they must keep: exported names,
//! SONAME, `struct kevent`, every constant, and the languages the header compiles in.

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::mem::{offset_of, size_of};
use std::process::Command;
use support::{
    EXPORTS, IN_FRONT, Linkage, archive, c_compiler, have, out_dir, output, root, run_text, shared_object, shipped,
    source,
};

/// The names `nm` prints, without their addresses.
fn names(nm: &mut Command) -> BTreeSet<String> {
    output(nm)
        .lines()
        .filter(|line| !line.ends_with(':'))
        .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
        .collect()
}

#[test]
fn shared_object_exports_the_public_names_only() {
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only"]).arg(shared_object());
    let found = names(&mut nm);
    let expected: BTreeSet<String> = EXPORTS.iter().chain(&IN_FRONT).map(|&name| name.to_owned()).collect();
    assert_eq!(found, expected);
}

#[test]
fn archive_and_rust_programs_do_not_stand_in_front_of_libc() {
    let program = std::env::current_exe().expect("the test program has a path");
    for file in [archive(), program] {
        let mut nm = Command::new("nm");
        let found = names(nm.args(["-g", "--defined-only"]).arg(&file));
        assert!(IN_FRONT.iter().all(|&name| !found.contains(name)), "{}", file.display());
    }
}

#[test]
fn shipped_archive_exports_the_public_names_only() {
    if !shipped() {
        println!("skipped: only make's archive is reduced to them");
        return;
    }
    let mut nm = Command::new("nm");
    nm.args(["-g", "--defined-only"]).arg(archive());
    let mut found = names(&mut nm);
    // Hidden, and must be found by name when another archive has it too.
    found.remove("DW.ref.rust_eh_personality");
    assert_eq!(found, EXPORTS.map(str::to_owned).into());
}

#[test]
fn shipped_files_name_no_place_they_were_built_in() {
    if !shipped() {
        println!("skipped: only make leaves the places out");
        return;
    }
    for file in [shared_object(), archive()] {
        let bytes = fs::read(&file).expect("the library is readable");
        let texts = bytes.split(|byte| !byte.is_ascii_graphic()).filter_map(|text| str::from_utf8(text).ok());
        // Rust's own library comes built, with places that are the same everywhere.
        let of_rust = |text: &str| text.starts_with("/rustc/") || text.starts_with("/rust/");
        let of_here = |text: &str| text.contains(env!("CARGO_MANIFEST_DIR")) || text.contains("registry/src");
        let found: BTreeSet<&str> = texts
            .filter(|text| of_here(text) || text.starts_with('/') && text.contains(".rs"))
            .filter(|text| !of_rust(text))
            .collect();
        assert_eq!(found, BTreeSet::new(), "{}", file.display());
    }
}

#[test]
fn soname_names_the_abi_and_the_object_is_never_unloaded() {
    let mut readelf = Command::new("readelf");
    let dynamic = output(readelf.args(["-d", "-W"]).arg(shared_object()));
    let line = |tag: &str| dynamic.lines().find(|l| l.contains(tag)).unwrap_or("");
    assert!(line("(SONAME)").contains("[libkqueue.so.0]"), "{dynamic}");
    assert!(line("(FLAGS_1)").contains("NODELETE"), "{dynamic}");
    assert!(line("(FLAGS_1)").contains("NOW"), "{dynamic}");
    assert_eq!(line("(TEXTREL)"), "");
}

/// The header as cbindgen makes it from the sources.
fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml"));
    let bindings = cbindgen::Builder::new()
        .with_config(config.expect("cbindgen.toml is valid"))
        .with_src(root().join("src/abi.rs"))
        .with_src(root().join("src/ffi.rs"))
        .generate()
        .expect("the sources parse");
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).expect("the header is text");
    // cbindgen always spells these as <stdint.h> does, which would have to be included.
    text.replace("  uintptr_t ", "  __UINTPTR_TYPE__ ").replace("  intptr_t ", "  __INTPTR_TYPE__ ")
}

#[test]
fn header_is_what_the_sources_generate() {
    let path = root().join("include/sys/event.h");
    let text = generated();
    if std::env::var_os("KQUEUE_REWRITE_HEADER").is_some() {
        fs::write(&path, &text).expect("the header can be written");
    }
    let kept = fs::read_to_string(&path).expect("the header is there");
    for (kept, new) in kept.lines().zip(text.lines()) {
        assert_eq!(kept, new, "stale; see the header's first lines");
    }
    assert_eq!(kept, text, "stale; see the header's first lines");
}

#[test]
fn header_and_library_agree_on_every_constant() {
    let mut text = String::from("#include <sys/event.h>\n#include <stdio.h>\nint main(void)\n{\n");
    for (name, _) in kqueue::abi::ALL {
        writeln!(text, "#ifndef {name}\n#error {name}\n#endif").expect("a String takes all");
        writeln!(text, "\tprintf(\"%s %lld\\n\", \"{name}\", (long long)({name}));").expect("a String takes all");
    }
    text.push_str("\treturn 0;\n}\n");
    let expected: String = kqueue::abi::ALL.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    let printed = run_text("constants", &text, Linkage::Shared, &[]);
    assert_eq!(printed, expected);
}

#[test]
fn header_names_no_constant_the_library_does_not_have() {
    let header = fs::read_to_string(root().join("include/sys/event.h")).expect("it is there");
    let known: BTreeSet<&str> = kqueue::abi::ALL.iter().map(|(name, _)| *name).collect();
    let prefixes = ["EV_", "EVFILT_", "NOTE_", "VQ_", "KQUEUE_"];
    let mut count = 0;
    for line in header.lines() {
        let Some(rest) = line.strip_prefix("#define ") else {
            continue;
        };
        let name = rest.split(['(', ' ']).next().unwrap_or(rest);
        if name != "EV_SET" && prefixes.iter().any(|p| name.starts_with(p)) {
            assert!(known.contains(name), "{name}");
            count += 1;
        }
    }
    assert_eq!(count, known.len(), "each is defined once");
}

#[test]
fn struct_kevent_has_one_layout_in_both_languages() {
    let text = r#"
#include <sys/event.h>
#include <stddef.h>
#include <stdio.h>
#define FIELD(name) printf(" %d", (int)offsetof(struct kevent, name))
int main(void)
{
	struct kevent kev = {0};
	FIELD(ident), FIELD(filter), FIELD(flags), FIELD(fflags), FIELD(data), FIELD(udata);
	kev.filter = -1, kev.data = -1, kev.flags--, kev.fflags--, kev.ident--;
	printf(" %d\n", kev.filter < 0 && kev.data < 0 && kev.flags && kev.fflags && kev.ident);
	return printf("%d\n", (int)sizeof(struct kevent)) < 0;
}
"#;
    use kqueue::kevent;
    let expected = format!(
        " {} {} {} {} {} {} 1\n{}\n",
        offset_of!(kevent, ident),
        offset_of!(kevent, filter),
        offset_of!(kevent, flags),
        offset_of!(kevent, fflags),
        offset_of!(kevent, data),
        offset_of!(kevent, udata),
        size_of::<kevent>()
    );
    assert_eq!(run_text("layout", text, Linkage::Shared, &[]), expected);
    if cfg!(target_pointer_width = "64") {
        assert_eq!(expected, " 0 8 10 12 16 24 1\n32\n");
    }
}

#[test]
fn ev_set_evaluates_each_argument_once_and_captures_no_name() {
    let text = r#"
#include <sys/event.h>
#include <stdio.h>
int main(void)
{
	struct kevent kev[2], *kevp = kev;
	int ident = 1, filter = -2, flags = 3, fflags = 4, data = 5;
	char name[4], *udata = name;
	if (ident)
		EV_SET(kevp++, ident++, filter++, flags++, fflags++, data++, udata++);
	else
		return 1;
	printf("%d %d %d %d %d %d %d\n", (int)(kevp - kev), ident, filter, flags, fflags, data, (int)(udata - name));
	printf("%d %d %d %d %d %d\n", (int)kev[0].ident, kev[0].filter, kev[0].flags,
	    (int)kev[0].fflags, (int)kev[0].data, kev[0].udata == name);
	return 0;
}
"#;
    let printed = run_text("ev_set", text, Linkage::Shared, &[]);
    assert_eq!(printed, "1 2 -1 4 5 6 1\n1 -2 3 4 5 1\n");
}

/// Uses every part of the header; the second inclusion must add nothing.
const EVERY_LANGUAGE: &str = "
#include <sys/event.h>
#include <sys/event.h>
#if LIBKQUEUE != 1
#error LIBKQUEUE
#endif
int call(const struct timespec *timeout);
int call(const struct timespec *timeout)
{
	struct kevent ev[2];
	EV_SET(&ev[0], 1, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_FFCOPY | NOTE_TRIGGER, 0, 0);
	EV_SET(ev + 1, 0, EVFILT_READ, EV_EOF | EV_SYSFLAGS, NOTE_EXIT, -1, ev);
	libkqueue_drain_pending_close();
	return kevent(kqueue() + kqueue1(0) + kqueuex(KQUEUE_CLOEXEC), ev, 2, ev, 2, timeout);
}
";

/// The standards of this list the compiler knows must all accept the header; how many.
fn accepted(compiler: &str, file: &str, standards: &[&str], includes: &[&str]) -> usize {
    let mut count = 0;
    for standard in standards {
        let std = format!("-std={standard}");
        let mut probe = Command::new(compiler);
        probe.args([&std, "-fsyntax-only", "-x", "c++", "/dev/null"]);
        if file.ends_with(".c") {
            probe.args(["-x", "c", "/dev/null"]);
        }
        let known = probe.output().expect("the compiler starts");
        let complaint = String::from_utf8_lossy(&known.stderr).into_owned();
        if complaint.contains("unrecognized") || complaint.contains("invalid value") {
            println!("skipped: {compiler} has no {standard}");
            continue;
        }
        let mut command = Command::new(compiler);
        command.args([&std, "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-I"]);
        command.arg(root().join("include")).args(includes);
        output(command.args(["-Wundef", "-fsyntax-only"]).arg(out_dir().join(file)));
        count += 1;
    }
    count
}

#[test]
fn header_is_clean_in_every_c() {
    source("language.c", EVERY_LANGUAGE);
    let gcc = c_compiler().get_program().to_string_lossy().into_owned();
    let standards = ["c89", "iso9899:199409", "c99", "c11", "c17", "c2x", "gnu89", "gnu99", "gnu17", "gnu2x"];
    for before in [&["-Wshadow"][..], &["-include", "stdio.h"]] {
        assert!(accepted(&gcc, "language.c", &standards, before) >= 6);
    }
}

#[test]
fn header_is_clean_in_every_cxx() {
    if !have("g++") {
        return;
    }
    source("language.cc", EVERY_LANGUAGE);
    let standards = ["c++98", "c++11", "c++14", "c++17", "c++20", "gnu++98", "gnu++17", "gnu++20"];
    for before in [&["-Wextra"][..], &["-include", "cstdio"]] {
        assert!(accepted("g++", "language.cc", &standards, before) >= 4);
    }
}

#[test]
fn header_included_first_leaves_feature_macros_open() {
    let text = "
#include <sys/event.h>
#define _GNU_SOURCE 1
#define _FILE_OFFSET_BITS 64
#include <sched.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>
int main(void)
{
	cpu_set_t set;
	struct timespec none = {0, 0};
	uintptr_t ident = (uintptr_t)&set;
	CPU_ZERO(&set);
	if (sched_getaffinity(0, sizeof set, &set) != 0 || ident == 0)
		return 1;
	if (sizeof(off_t) != 8)
		return 2;
	return kevent(-1, 0, 0, 0, 0, &none) == -1 ? 0 : 3;
}
";
    run_text("features", text, Linkage::Shared, &["-std=c99", "-Werror"]);
}

#[test]
fn header_included_after_libc_brings_its_types() {
    let text = "
#include <stdio.h>
#include <sys/event.h>
int main(void)
{
	struct kevent ev;
	pid_t pid = 1;
	EV_SET(&ev, (uintptr_t)pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, (intptr_t)0, (void *)(uintptr_t)1);
	return ev.ident != 1;
}
";
    run_text("types", text, Linkage::Shared, &["-Werror"]);
}
