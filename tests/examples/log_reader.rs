//! Servers whose log nobody reads any more, as behind `| head -1`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use sslfile::SslFile;

use crate::built::example;
use crate::common::{client_builder, engines, LONG};
use crate::terminator::echo_target;
use crate::tool::{Files, Tool};

/// Starts it with nobody at the other end of its stdout and stderr. It is told where to listen, as it can't say.
fn start(name: &str, args: &[&str]) -> (Tool, u16) {
    let port = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    let program = example(name);
    let mut tool = Tool::new(Path::new("/bin/sh"));
    tool.discard_stdout = true;
    let addr = format!("127.0.0.1:{port}");
    // Stdin is open for as long as the reading ends are: by then they are not.
    let line = "read line; exec \"$0\" \"$@\" 2>&1";
    let mut tool = tool.args(&["-c", line, program.to_str().expect("path"), &addr]).args(args).open();
    tool.say(b"\n");
    let deadline = Instant::now() + LONG.min(Duration::from_secs(60));
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "{name} does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    (tool, port)
}

/// A client that knows whoever it is.
fn connect(port: u16) -> SslFile {
    let context = client_builder(engines()[0]).danger_accept_invalid_certs(true).build().expect("context");
    let file = SslFile::options().client("localhost").connect(("127.0.0.1", port), &context).expect("handshake");
    file.set_read_timeout(Some(LONG)).expect("time-out");
    file
}

fn serves_on(name: &str, args: &[&str], says: &str) {
    let (_server, port) = start(name, args);
    for _ in 0..20 {
        // A handshake that fails, of which it has something to say.
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|e| panic!("{name}: {e}"));
        tcp.write_all(b"\x16\x03\x01\0\x05 nonsense\r\n\r\n").expect("write");
        let _ = tcp.shutdown(Shutdown::Write);
        let _ = tcp.read_to_end(&mut Vec::new());
    }
    for _ in 0..20 {
        let mut file = connect(port);
        file.write_all(says.as_bytes()).expect("write");
        // In the chat others are told that one has come.
        let _other = (name == "chat").then(|| connect(port));
        assert!(file.read(&mut [0; 100]).unwrap_or_else(|e| panic!("{name}: {e}")) > 0, "{name}");
    }
}

#[test]
fn no_server_ends_and_no_client_loses_its_answer_when_nobody_reads_the_log() {
    let files = Files::new();
    let pair = ["--cert", &files.chain, "--key", &files.key];
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    serves_on("chat", &[], "hello\n");
    serves_on("echo_server", &pair, "hello\n");
    serves_on("graceful_stop", &pair, "hello\n");
    serves_on("keep_alive", &pair, request);
    serves_on("http_redirect", &pair, request);
    let target = echo_target("127.0.0.1:0").expect("bind").to_string();
    serves_on("terminator", &[&[&*target], &pair[..]].concat(), "hello\n");
    let (_behind, port) = start("echo_server", &pair);
    serves_on("proxy", &[&[&*format!("localhost:{port}"), "--ca", &files.ca], &pair[..]].concat(), "hello\n");
}
