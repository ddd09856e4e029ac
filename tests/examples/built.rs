//! The examples as programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sslfile::Engine;

use crate::common::engines;
use crate::tool::Tool;

/// The folder of the examples. `cargo test --test examples` alone does not build them; that is done here, with the profile and
/// the features of this test.
fn examples() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // target/debug/deps/examples-0123456789abcdef
        let test = std::env::current_exe().expect("path of the test");
        let folder = test.ancestors().nth(2).expect("folder of the profile");
        let profile = match folder.file_name().and_then(|name| name.to_str()).expect("profile") {
            "debug" => "dev",
            other => other,
        };
        let features = engines().into_iter().map(|engine| match engine {
            Engine::Native => "native-tls",
            Engine::OpenSsl => "openssl",
            _ => "rustls",
        });
        // What cargo says of the package it tests would make it build again whatever asks for that, ring among others.
        let told = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let told =
            told.filter(|name| ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"].iter().any(|told| name.starts_with(told)));
        let mut cargo = Command::new(env!("CARGO"));
        told.for_each(|name| {
            cargo.env_remove(name);
        });
        let built = cargo
            .args(["build", "--quiet", "--no-default-features", "--profile", profile])
            .args(["--example", "demo", "--example", "https_get"])
            .args(["--example", "http_redirect", "--example", "ftp", "--example", "proxy"])
            .args(["--example", "keep_alive", "--example", "graceful_stop", "--example", "terminator"])
            .args(["--example", "echo_server", "--example", "chat"])
            .args(["--features", &features.collect::<Vec<_>>().join(",")])
            .arg("--target-dir")
            .arg(folder.parent().expect("target folder"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo");
        assert!(built.success(), "the examples do not build");
        folder.join("examples")
    })
}

/// Where this example is.
pub fn example(name: &str) -> PathBuf {
    examples().join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

impl Tool {
    pub fn example(name: &str) -> Tool {
        Tool::new(&example(name))
    }
}
