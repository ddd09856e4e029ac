//! `std::io::pipe` came with Rust 1.87. With an older one there are no such halves to be known by `Duplex`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(std_pipe)");
    let output = env::var_os("RUSTC").and_then(|rustc| Command::new(rustc).arg("--version").output().ok());
    let version = output.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    // As in "rustc 1.87.0 (...)".
    if version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= 87) {
        println!("cargo::rustc-cfg=std_pipe");
    }
}
