//! `ftp`: lists, fetches and stores, with vsftpd, which wants each transfer to resume the session of its control connection.

use std::fs;

use crate::common::{pattern, NAME};
use crate::ftp_server::{find, Kind, Server};
use crate::harness::{run, Bench};
use crate::tool::{Ended, Tool};

fn ftp(bench: &Bench, server: &Server, commands: &[&str]) -> Ended {
    let roots = bench.files.roots.to_str().expect("path in UTF-8");
    let mut tool = Tool::example("ftp").args(&["--ca", roots, &format!("{NAME}:{}", server.port)]);
    tool.command.env("FTP_PASSWORD", &server.password);
    tool.args(commands).feed(b"").end()
}

#[test]
fn ftp_lists_fetches_and_stores() {
    run(find(Kind::Vsftpd), |bench, vsftpd| {
        let server = vsftpd.start(bench);
        let folder = bench.files.folder.path();
        let data = pattern(1, 1_000_000);
        let here = |name: &str| folder.join(name).to_str().expect("path in UTF-8").to_string();
        fs::write(here("sent"), &data).expect("write");
        let (sent, first, second) = (here("sent"), here("first"), here("second"));
        let puts = ["put", &sent, "one", "put", &sent, "two", "put", &sent, "three", "put", &sent, "four"];
        let gets = ["get", "one", &first, "get", "four", &second, "list", "."];
        let ended = ftp(bench, &server, &[&puts[..], &gets[..]].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        for name in ["one", "two", "three", "four"] {
            assert!(fs::read(server.files.join(name)).expect("stored") == data, "{name}");
            assert!(ended.stdout().lines().any(|line| line.ends_with(&format!(" {name}"))), "{ended:?}");
        }
        for name in [first, second] {
            assert!(fs::read(name).expect("fetched") == data);
        }
    });
}

#[test]
fn ftp_says_what_the_server_said() {
    run(find(Kind::Vsftpd), |bench, vsftpd| {
        let server = vsftpd.start(bench);
        let to = bench.files.folder.path().join("none");
        let ended = ftp(bench, &server, &["get", "none", to.to_str().expect("path in UTF-8")]);
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr().contains("RETR none: 550 Failed to open file."), "{ended:?}");
        let ended = ftp(bench, &server, &["list"]);
        assert!(ended.code == 1 && ended.stderr().contains("\\\"list\\\" needs more words"), "{ended:?}");
        let ended = ftp(bench, &server, &["list", "a\r\nDELE b"]);
        assert!(ended.code == 1 && ended.stderr().contains("a line break"), "{ended:?}");
    });
}
