//! Link arguments of the shared object.
//!
//! They reach the cdylib alone, neither the tests nor the archive. The SONAME names
//! the ABI (libkqueue's), not the release, so it is spelled out here. `sigaction` and
//! `signal` are names that only the shared object may have; see `src/ffi/signal.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for arg in [
        "-Wl,-soname,libkqueue.so.0",
        // The monitor thread runs this code for as long as the process lives.
        "-Wl,-z,nodelete",
        "-Wl,-z,relro,-z,now",
        "-Wl,-z,defs",
        "-Wl,--undefined=sigactio[n],--defsym=sigaction=\"sigactio[n]\"",
        "-Wl,--undefined=signa[l],--defsym=signal=\"signa[l]\"",
    ] {
        println!("cargo::rustc-cdylib-link-arg={arg}");
    }
}
