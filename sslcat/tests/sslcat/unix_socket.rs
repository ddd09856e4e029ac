//! Unix sockets, both ways.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

use crate::common::{engines, pattern};
use crate::tool::{Files, Tool};
use crate::{sslcat, tool_alone};

fn place(files: &Files, name: &str) -> (PathBuf, String) {
    let path = files.dir.path().join(name);
    let text = path.display().to_string();
    (path, text)
}

fn signal(tool: &Tool, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(tool.id() as i32).unwrap(), signal).unwrap();
}

#[test]
fn speaks_tls_over_a_unix_socket() {
    const LEN: usize = 1 << 20;
    let files = Files::new();
    for engine in engines() {
        let (path, socket) = place(&files, &format!("{engine:?}"));
        let args = ["-l", "-U", &socket, "--cert", &files.chain, "--key", &files.key];
        let server = sslcat(engine, &args).feed(&pattern(2, LEN));
        server.stderr.wait_for("listening on ");
        let args = ["--unix", &socket, "--name", "localhost", "--ca", &files.ca, "--json"];
        let client = sslcat(engine, &args).feed(&pattern(1, LEN)).end();
        let server = server.end();
        assert_eq!((client.code, server.code), (0, 0), "{engine:?}: {} {}", client.stderr(), server.stderr());
        assert!(client.stdout == pattern(2, LEN) && server.stdout == pattern(1, LEN), "{engine:?}: wrong bytes");
        assert!(client.stderr().contains(&format!("\"host\":\"{socket}\"")), "{}", client.stderr());
        assert!(!path.exists(), "{engine:?}: the file is still there");
    }
}

#[test]
fn wants_to_know_whom_to_expect() {
    let files = Files::new();
    let (path, socket) = place(&files, "socket");
    let ended = tool_alone().args(&["-U", &socket]).feed(b"").end();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr().contains("--name"), "{ended:?}");
    let ended = tool_alone().args(&["-U", &socket, "-k"]).feed(b"").end();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr().contains(&socket), "{ended:?}");
    let ended = tool_alone().args(&["-U", &socket, "localhost", "443"]).feed(b"").end();
    assert_eq!(ended.code, 1, "{ended:?}");

    let server = tool_alone().args(&["-l", "-U", &socket]).feed(b"");
    server.stderr.wait_for("listening on ");
    let ended = tool_alone().args(&["-U", &socket, "-k"]).feed(b"trust").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(server.end().stdout(), "trust");
    assert!(!path.exists());
}

#[test]
fn asks_for_tls_in_plain_text_there_too() {
    use std::io::{BufRead, BufReader, Read, Write};
    let files = Files::new();
    let (path, socket) = place(&files, "mail");
    let listener = UnixListener::bind(path).unwrap();
    let context = crate::common::server_context(engines()[0]);
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        (&stream).write_all(b"220 hello\r\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "EHLO [127.0.0.1]");
        (&stream).write_all(b"250-hello\r\n250 STARTTLS\r\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "STARTTLS");
        (&stream).write_all(b"220 begin\r\n").unwrap();
        let mut file = sslfile::SslFile::server(stream, &context).unwrap();
        let mut got = String::new();
        file.read_to_string(&mut got).unwrap();
        file.close().unwrap();
        got
    });
    let args = ["-U", &socket, "--starttls", "smtp", "--name", "localhost", "--ca", &files.ca];
    let ended = tool_alone().args(&args).feed(b"in private").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(server.join().unwrap(), "in private");
}

#[test]
fn takes_its_own_file_with_it_at_every_end() {
    use rustix::process::Signal;
    let files = Files::new();
    for end in [Signal::INT, Signal::TERM, Signal::HUP] {
        for keep in [&["--keep"][..], &[], &["--keep", "--exec", "cat"]] {
            let (path, socket) = place(&files, "socket");
            let server = tool_alone().args(&["-l", "-U", &socket]).args(keep).open();
            server.stderr.wait_for("listening on ");
            assert!(path.exists());
            signal(&server, end);
            assert!(server.end().code < 0, "by the signal");
            assert!(!path.exists(), "{end:?} {keep:?}");
        }
    }
}

#[test]
fn a_file_that_is_not_its_own_stays() {
    use rustix::process::Signal;
    let files = Files::new();
    let (path, socket) = place(&files, "socket");
    let listen = || tool_alone().args(&["-l", "--keep", "-U", &socket]).open();

    // One that took its place.
    let server = listen();
    server.stderr.wait_for("listening on ");
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    signal(&server, Signal::TERM);
    assert!(server.end().code < 0, "by the signal");
    UnixStream::connect(&path).unwrap();

    // One in use.
    let ended = listen().end();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr().contains("in use"), "{ended:?}");
    UnixStream::connect(&path).unwrap();

    // One that was left behind.
    drop(other);
    let ended = listen().end();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr().contains("nobody listens there"), "{ended:?}");
    assert!(path.exists());

    // No socket at all.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "dear").unwrap();
    let ended = listen().end();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "dear");
}

/// As `nohup` and `&` have it.
#[cfg(target_os = "linux")]
#[test]
fn signals_that_were_ignored_stay_so() {
    use rustix::process::Signal;
    let files = Files::new();
    let (path, socket) = place(&files, "socket");
    let line = format!("trap '' HUP INT; exec {} -l --keep -U '{socket}'", crate::SSLCAT);
    let server = Tool::new(std::path::Path::new("sh")).args(&["-c", &line]).open();
    server.stderr.wait_for("listening on ");
    for ignored in [Signal::HUP, Signal::INT] {
        signal(&server, ignored);
    }
    let args = ["-U", &socket, "-k"];
    assert_eq!(tool_alone().args(&args).feed(b"alive").end().code, 0);
    server.stdout.wait_for("alive");
    signal(&server, Signal::TERM);
    assert!(server.end().code < 0, "by the signal");
    assert!(!path.exists());
}
