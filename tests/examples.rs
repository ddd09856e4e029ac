//! The examples, run as their users run them: as processes, with pipes, files, exit codes and real peers.

#[path = "examples/built.rs"]
mod built;
mod common;
#[cfg(unix)]
#[path = "examples/ftp.rs"]
mod ftp;
#[cfg(unix)]
#[allow(dead_code)]
#[path = "peers/ftp_server.rs"]
mod ftp_server;
#[path = "examples/graceful_stop.rs"]
mod graceful_stop;
#[cfg(unix)]
#[allow(dead_code)]
#[path = "peers/harness.rs"]
mod harness;
#[path = "examples/http_redirect.rs"]
mod http_redirect;
#[path = "examples/https_get.rs"]
mod https_get;
#[path = "examples/keep_alive.rs"]
mod keep_alive;
#[cfg(unix)]
#[path = "examples/log_reader.rs"]
mod log_reader;
#[path = "examples/proxy.rs"]
mod proxy;
#[cfg(unix)]
#[path = "examples/terminator.rs"]
mod terminator;
// `sslcat` has its tests with it too.
#[allow(dead_code)]
#[path = "examples/tool.rs"]
mod tool;

use common::engines;
use tool::Tool;

#[test]
fn demo_keeps_all_promises_on_each_engine() {
    let ended = Tool::example("demo").feed(b"").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    for engine in engines() {
        assert!(ended.stdout().contains(&format!("{engine:?} engine\n")), "{ended:?}");
    }
    for line in ["negotiated", "both ways", "time-out", "truncation"] {
        let count = ended.stdout().lines().filter(|l| l.trim_start().starts_with(line)).count();
        assert_eq!(count, engines().len(), "{line} in {ended:?}");
    }
    assert!(ended.stdout().ends_with("All as promised.\n"), "{ended:?}");
}
