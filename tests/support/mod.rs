//! What the tests share that look at the built library from outside: where it is, and a
//! C compiler to build programs on it.
//!
//! The library under test is the one cargo leaves beside the test program, or the build
//! in `KQUEUE_LIB_DIR`.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The names the library exports, sorted.
pub const EXPORTS: [&str; 5] = ["kevent", "kqueue", "kqueue1", "kqueuex", "libkqueue_drain_pending_close"];

/// What the shared object exports beside them, in front of libc's.
pub const IN_FRONT: [&str; 2] = ["sigaction", "signal"];

/// A program that needs a working library: a user event is triggered and read.
pub const PROGRAM: &str = r#"
#include <sys/event.h>
#include <unistd.h>
int main(void)
{
	struct kevent ev;
	int kq = kqueue();
	EV_SET(&ev, 7, EVFILT_USER, EV_ADD, 0, 0, 0);
	if (kq < 0 || kevent(kq, &ev, 1, 0, 0, 0) != 0)
		return 1;
	EV_SET(&ev, 7, EVFILT_USER, 0, NOTE_TRIGGER, 0, 0);
	if (kevent(kq, &ev, 1, &ev, 1, 0) != 1 || ev.ident != 7 || ev.filter != EVFILT_USER)
		return 2;
	return close(kq);
}
"#;

/// The root of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether the library under test is the one `make` builds.
pub fn shipped() -> bool {
    env::var_os("KQUEUE_LIB_DIR").is_some()
}

/// The directory of the library under test.
pub fn lib_dir() -> PathBuf {
    if let Some(dir) = env::var_os("KQUEUE_LIB_DIR") {
        return fs::canonicalize(dir).expect("KQUEUE_LIB_DIR is a directory");
    }
    let program = env::current_exe().expect("the test program has a path");
    program.parent().expect("and a directory").to_owned()
}

/// The shared object under test.
pub fn shared_object() -> PathBuf {
    lib_dir().join("libkqueue.so")
}

/// The archive under test.
pub fn archive() -> PathBuf {
    lib_dir().join("libkqueue.a")
}

/// A directory for this test program's output, apart from other builds' of the library.
pub fn out_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let build = lib_dir().to_string_lossy().replace(['/', ' '], "_");
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(build).join(env!("CARGO_CRATE_NAME"));
        fs::create_dir_all(&dir).expect("the target directory is writable");
        dir
    })
}

/// A directory of links under the names linker and loader look for: the file cargo
/// leaves has the SONAME inside but not as its name.
pub fn link_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = out_dir().join("links");
        fs::create_dir_all(&dir).expect("the target directory is writable");
        for name in ["libkqueue.so", "libkqueue.so.0"] {
            let link = dir.join(name);
            if link.symlink_metadata().is_ok() {
                fs::remove_file(&link).expect("the old link can go");
            }
            symlink(shared_object(), &link).expect("a link can be made");
        }
        dir
    })
}

/// Which of the two libraries a program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// `libkqueue.so`.
    Shared,
    /// `libkqueue.a`.
    Archive,
}

/// The C compiler, with `-Wall -Wextra -O1 -g` and the header's directory.
pub fn c_compiler() -> Command {
    // Outside a build script cc has nobody to ask for these.
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let target = format!("{}-unknown-linux-{libc}", env::consts::ARCH);
    let mut build = cc::Build::new();
    build.target(&target).host(&target).opt_level(1).debug(true);
    build.cargo_metadata(false).warnings(true);
    let mut command = build.get_compiler().to_command();
    command.args(["-Wextra", "-I"]).arg(root().join("include"));
    command
}

/// The arguments that link a program to the library.
pub fn link(command: &mut Command, linkage: Linkage) {
    match linkage {
        Linkage::Shared => {
            let dir = link_dir().display();
            command.args([format!("-L{dir}"), format!("-Wl,-rpath,{dir}")]);
            command.arg("-lkqueue");
        }
        Linkage::Archive => {
            command.arg(archive());
        }
    }
    command.arg("-pthread");
}

/// A command that runs a built program on the shared object under test.
pub fn run<S: AsRef<OsStr>>(program: S) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", link_dir());
    command
}

/// Runs a command; its standard output, or a panic with all it printed.
pub fn output(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{command:?}: {}\n{text}{}", done.status, String::from_utf8_lossy(&done.stderr));
    text
}

/// Whether a program can be started; says so when it cannot.
pub fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: no {program}");
    }
    found
}

/// A C source of this name with this text, in this test program's directory.
pub fn source(name: &str, text: &str) -> PathBuf {
    let path = out_dir().join(name);
    fs::write(&path, text).expect("the target directory is writable");
    path
}

/// Builds a C text on the library, runs it and returns what it printed.
pub fn run_text(name: &str, text: &str, linkage: Linkage, extra: &[&str]) -> String {
    let program = out_dir().join(name);
    let mut compiler = c_compiler();
    compiler.arg(source(&format!("{name}.c"), text));
    compiler.arg("-o").arg(&program);
    link(&mut compiler, linkage);
    output(compiler.args(extra));
    output(&mut run(&program))
}
