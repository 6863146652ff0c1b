//! The library as its users link it: the archive with the least, autoconf's question,
//! and an installed tree found through pkg-config.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Linkage, PROGRAM, archive, c_compiler, have, lib_dir, out_dir, output, root, run_text, shipped, source};

#[test]
fn archive_links_with_pthread_alone() {
    run_text("least", PROGRAM, Linkage::Archive, &["-lpthread"]);
}

#[test]
fn archive_links_statically() {
    if !static_libc() {
        println!("skipped: no static libc");
        return;
    }
    assert!(run_static("static", PROGRAM, &["-lpthread"]), "-static");
    let listed = ["-lpthread", "-lrt", "-ldl", "-lm"];
    assert!(run_static("static-pc", PROGRAM, &listed), "as in the .pc");
}

/// Whether this machine can link any program statically.
fn static_libc() -> bool {
    run_static("none", "int main(void) { return 0; }", &[])
}

/// Whether a text builds with `-static` and the archive; run if it does.
fn run_static(name: &str, text: &str, libs: &[&str]) -> bool {
    let program = out_dir().join(name);
    let mut compiler = c_compiler();
    compiler.arg(source(&format!("{name}.c"), text)).arg("-static");
    compiler.arg(archive()).args(libs).arg("-o").arg(&program);
    let built = compiler.output().expect("the compiler starts");
    if built.status.success() {
        output(&mut Command::new(&program));
    } else {
        println!("{}", String::from_utf8_lossy(&built.stderr));
    }
    built.status.success()
}

#[test]
fn autoconf_finds_kqueue_in_both_libraries() {
    // Its question declares the function without its type.
    let text = "char kqueue();\nint main(void)\n{\n\treturn kqueue() < 0 ? 1 : 0;\n}\n";
    for (name, linkage) in [("conftest-so", Linkage::Shared), ("conftest-a", Linkage::Archive)] {
        run_text(name, text, linkage, &["-fno-builtin", "-std=gnu99"]);
    }
}

#[test]
fn shipped_archive_lives_beside_another_rust_archive() {
    if !shipped() || !have("rustc") {
        println!("skipped: only make's archive hides Rust's own names");
        return;
    }
    let other = out_dir().join("libother.a");
    let text = "#[unsafe(no_mangle)]\npub extern \"C\" fn other() -> i32 {\n    \
                let all: Vec<String> = (0..3).map(|n| format!(\"{n}\")).collect();\n    \
                all.concat().len() as i32\n}\n";
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--crate-type=staticlib", "-O", "-Clto=fat"]);
    rustc.arg(source("other.rs", text)).arg("-o").arg(&other);
    output(&mut rustc);
    let text =
        PROGRAM.replace("int main(void)\n{", "int other(void);\nint main(void)\n{\n\tif (other() != 3)\n\t\treturn 9;");
    let other = other.to_string_lossy().into_owned();
    run_text("beside", &text, Linkage::Archive, &[&other]);
}

/// `make TARGET` with the library under test as the build, into a fresh tree.
fn make(tree: &Path, target: &str) {
    let mut make = Command::new("make");
    make.arg("-C").arg(root()).args(["-s", "-j4", target]);
    make.arg(format!("DESTDIR={}", tree.display()));
    make.arg(format!("BUILD={}", staged().display()));
    // Not the flags of the make that may run this test.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PREFIX", "LIBDIR", "INCLUDEDIR"] {
        make.env_remove(name);
    }
    output(make.args(["PREFIX=/opt/kq", "LIBDIR=/opt/kq/lib64"]));
}

/// The library under test under the file names `make` gives it.
fn staged() -> PathBuf {
    let dir = out_dir().join("staged");
    fs::create_dir_all(&dir).expect("the target directory is writable");
    for name in ["libkqueue.so", "libkqueue.a"] {
        fs::copy(lib_dir().join(name), dir.join(name)).expect("the library is there");
    }
    dir
}

/// Every file and link below a directory, relative to it, sorted.
fn files(dir: &Path) -> Vec<String> {
    let found = output(Command::new("find").arg(dir).args(["!", "-type", "d", "-printf", "%P\\n"]));
    let mut list: Vec<String> = found.lines().map(str::to_owned).collect();
    list.sort();
    list
}

#[test]
fn installed_tree_is_complete_usable_and_removable() {
    let tree = tempfile::tempdir().expect("a temporary directory");
    make(tree.path(), "install");
    let version = env!("CARGO_PKG_VERSION").replace('.', " ");
    let mut numbers = version.split(' ');
    let (major, minor) = (numbers.next().unwrap_or(""), numbers.next().unwrap_or(""));
    let object = format!("opt/kq/lib64/libkqueue.so.0.{major}.{minor}");
    let expected = [
        "opt/kq/include/kqueue/sys/event.h",
        "opt/kq/lib64/libkqueue.a",
        "opt/kq/lib64/libkqueue.so",
        "opt/kq/lib64/libkqueue.so.0",
        &object,
        "opt/kq/lib64/pkgconfig/libkqueue.pc",
        "opt/kq/share/man/man2/kevent.2",
        "opt/kq/share/man/man2/kqueue.2",
    ];
    assert_eq!(files(tree.path()), expected);
    let lib = tree.path().join("opt/kq/lib64");
    let target = |name: &str| fs::read_link(lib.join(name)).expect("a link");
    assert_eq!(target("libkqueue.so"), Path::new("libkqueue.so.0"));
    assert_eq!(lib.join(target("libkqueue.so.0")), tree.path().join(&object));
    build_through_pkg_config(tree.path());
    make(tree.path(), "uninstall");
    assert_eq!(files(tree.path()), [""; 0]);
    assert!(!tree.path().join("opt/kq/include/kqueue").exists());
}

/// Builds and runs the program with what pkg-config says, dynamic and from the archive.
fn build_through_pkg_config(tree: &Path) {
    if !have("pkg-config") {
        return;
    }
    let lib = tree.join("opt/kq/lib64");
    let ask = |arguments: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", lib.join("pkgconfig"));
        command.arg(format!("--define-variable=prefix={}", tree.join("opt/kq").display()));
        output(command.args(arguments).arg("libkqueue"))
    };
    assert_eq!(ask(&["--modversion"]).trim(), env!("CARGO_PKG_VERSION"));
    let source = source("installed.c", PROGRAM);
    for (name, question) in
        [("installed", &["--cflags", "--libs"][..]), ("installed-static", &["--static", "--cflags", "--libs"])]
    {
        let flags = ask(question);
        assert_eq!(flags.contains("-lrt"), name.ends_with("static"), "{flags}");
        let program = out_dir().join(name);
        // Not c_compiler(): its -I would find the source tree's header.
        let mut cc = Command::new(c_compiler().get_program());
        cc.arg(&source).arg("-o").arg(&program).args(flags.split_whitespace());
        if name.ends_with("static") && static_libc() {
            cc.arg("-static");
        }
        output(&mut cc);
        output(Command::new(&program).env("LD_LIBRARY_PATH", &lib));
    }
}
