//! `sslcat`, run as its users run it: as a process, with pipes, files, exit codes and real peers.

#[path = "../../tests/common/basis.rs"]
mod common;
#[cfg(unix)]
#[path = "sslcat/exec.rs"]
mod exec;
#[path = "sslcat/exit_codes.rs"]
mod exit_codes;
#[path = "sslcat/keep.rs"]
mod keep;
#[path = "sslcat/manual.rs"]
mod manual;
#[path = "sslcat/ocsp.rs"]
mod ocsp;
#[path = "sslcat/options.rs"]
mod options;
#[path = "sslcat/password.rs"]
mod password;
/// Peers of the library's tests.
#[cfg(unix)]
#[allow(dead_code)]
#[path = "../../tests/peers"]
mod peers {
    pub mod ftp_server;
    pub mod harness;
}
#[path = "sslcat/proxy.rs"]
mod proxy;
#[cfg(unix)]
#[path = "sslcat/real_servers.rs"]
mod real_servers;
#[path = "sslcat/report.rs"]
mod report;
#[path = "sslcat/scan.rs"]
mod scan;
#[path = "sslcat/server.rs"]
mod server;
#[cfg(unix)]
#[path = "sslcat/servers.rs"]
mod servers;
#[path = "sslcat/session.rs"]
mod session;
#[path = "sslcat/starttls.rs"]
mod starttls;
#[cfg(all(unix, feature = "line-editing"))]
#[path = "sslcat/terminal.rs"]
mod terminal;
#[allow(dead_code)]
#[path = "../../tests/examples/tool.rs"]
mod tool;
#[path = "sslcat/transfer.rs"]
mod transfer;
#[cfg(unix)]
#[path = "sslcat/unix_socket.rs"]
mod unix_socket;

use std::path::Path;

use sslfile::Engine;
use tool::Tool;

const SSLCAT: &str = env!("CARGO_BIN_EXE_sslcat");

impl Tool {
    /// Where `sslcat -l` listens.
    fn port(&self) -> String {
        let line = self.stderr.line("listening on ");
        line.rsplit(':').next().expect("port").to_string()
    }
}

/// `sslcat` on the engine that it takes by itself.
fn tool_alone() -> Tool {
    let mut tool = Tool::new(Path::new(SSLCAT));
    for name in ["https_proxy", "all_proxy", "no_proxy"] {
        tool.command.env_remove(name).env_remove(name.to_uppercase());
    }
    tool
}

/// `sslcat` on this engine.
fn sslcat(engine: Engine, args: &[&str]) -> Tool {
    let library = match engine {
        Engine::Native => "native",
        Engine::OpenSsl => "openssl",
        Engine::Rustls => "rustls",
        other => panic!("sslcat does not know {other:?}"),
    };
    tool_alone().args(&["--engine", library]).args(args)
}
