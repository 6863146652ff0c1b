//! Link arguments of the shared object.
//!
//! They reach the cdylib alone, neither the tests nor the archive. The SONAME names
//! the ABI (libkqueue's), not the release, so it is spelled out here. `sigaction`, `signal`
//! and their like are names that only the shared object may have; see `src/ffi/signal.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for arg in [
        "-Wl,-soname,libkqueue.so.0",
        // The monitor thread runs this code for as long as the process lives.
        "-Wl,-z,nodelete",
        "-Wl,-z,relro,-z,now",
        "-Wl,-z,defs",
    ] {
        println!("cargo::rustc-cdylib-link-arg={arg}");
    }
    for name in ["sigaction", "signal", "bsd_signal", "sysv_signal", "__sysv_signal", "sigset", "sigignore"] {
        let (head, tail) = name.split_at(name.len() - 1);
        println!("cargo::rustc-cdylib-link-arg=-Wl,--undefined={head}[{tail}],--defsym={name}=\"{head}[{tail}]\"");
    }
}
