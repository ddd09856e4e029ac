//! `--keep`: a server that stays, among scans and others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{Engine, SslFile};

use crate::common::{client_context, engines, NAME};
use crate::tool::{Files, Tool};
use crate::{sslcat, tool_alone};

fn keep(engine: Engine, files: &Files, more: &[&str]) -> Tool {
    let listen = ["-l", "127.0.0.1:0", "--keep", "--cert", &files.chain, "--key", &files.key];
    sslcat(engine, &listen).args(more)
}

fn file(engine: Engine, server: &Tool) -> SslFile {
    SslFile::client(tcp(server), &client_context(engine), NAME).unwrap()
}

fn tcp(server: &Tool) -> TcpStream {
    TcpStream::connect(format!("127.0.0.1:{}", server.port())).unwrap()
}

#[test]
fn scans_end_nothing_and_hold_up_nobody() {
    let files = Files::new();
    for engine in engines() {
        let server = keep(engine, &files, &["--max-conns", "1"]).feed(b"");
        let mut silent = Vec::new();
        for _ in 0..30 {
            drop(tcp(&server));
            let _ = tcp(&server).write_all(b"GET / HTTP/1.0\r\n\r\n");
            let _ = tcp(&server).write_all(b"\x16\x03\x01\x02\x00\x01\x00");
            silent.push(tcp(&server));
        }
        let start = Instant::now();
        for text in ["one", "two"] {
            let client = sslcat(engine, &["localhost", &server.port(), "--ca", &files.ca]);
            let ended = client.feed(text.as_bytes()).end();
            assert_eq!(ended.code, 0, "{engine:?}: {ended:?}");
            server.stdout.wait_for(text);
        }
        // The handshake's time-out has not helped.
        assert!(start.elapsed() < Duration::from_secs(25), "{engine:?}");
    }
}

#[test]
fn silent_connections_are_sent_away_in_time() {
    let files = Files::new();
    for engine in engines() {
        let server = keep(engine, &files, &["-w", "0.3"]).feed(b"");
        let mut silent = tcp(&server);
        // Whatever is said there: it ends.
        let _ = silent.read_to_end(&mut Vec::new());
        server.stderr.wait_for("longer than its time-out");
        // Nor does -w end the server.
        thread::sleep(Duration::from_millis(400));
        let ended = sslcat(engine, &["localhost", &server.port(), "--ca", &files.ca]).feed(b"still there").end();
        assert_eq!(ended.code, 0, "{engine:?}: {ended:?}");
        server.stdout.wait_for("still there");
    }
}

#[test]
fn serves_so_many_at_once_and_the_others_after_them() {
    let files = Files::new();
    let engine = engines()[0];
    let server = keep(engine, &files, &["--max-conns", "2", "-v"]).open();
    let (mut first, mut second) = (file(engine, &server), file(engine, &server));
    for (file, text) in [(&mut first, "first"), (&mut second, "second")] {
        file.write_all(text.as_bytes()).unwrap();
        server.stdout.wait_for(text);
    }
    let mut third = file(engine, &server);
    third.write_all(b"third").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(third.read(&mut [0; 10]).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    first.write_all(b" and last").unwrap();
    server.stdout.wait_for(" and last");
    first.close().unwrap();
    let all = server.stdout.wait_for("third");
    assert!(all.ends_with(" and lastthird"), "{all}");
}

#[test]
fn stdin_goes_to_all_who_are_there_and_theirs_to_stdout() {
    let files = Files::new();
    for engine in engines() {
        // What is said before anybody comes is for the first.
        let mut server = keep(engine, &files, &["-v", "--crlf"]).open();
        server.say(b"early ");
        let clients: Vec<_> = (0..2)
            .map(|number| {
                let args = ["localhost", &server.port(), "--ca", &files.ca];
                let mut client = sslcat(engine, &args).open();
                client.say(format!("<client {number}>").as_bytes());
                server.stdout.wait_for(&format!("<client {number}>"));
                client
            })
            .collect();
        server.say(b"all of you\n");
        for client in &clients {
            client.stdout.wait_for("all of you");
        }
        let server = server.end_stdin();
        for (number, client) in clients.into_iter().enumerate() {
            let ended = client.end();
            let expected = if number == 0 { "early all of you\r\n" } else { "all of you\r\n" };
            assert_eq!((ended.code, ended.stdout()), (0, expected), "{engine:?}: {ended:?}");
        }
        // Who comes later hears the end at once, and is heard.
        let args = ["localhost", &server.port(), "--ca", &files.ca];
        let ended = sslcat(engine, &args).feed(b"too late").end();
        assert_eq!((ended.code, ended.stdout()), (0, ""), "{engine:?}: {ended:?}");
        server.stdout.wait_for("too late");
    }
}

#[test]
fn no_shutdown_keeps_who_comes_after_stdins_end() {
    let files = Files::new();
    let engine = engines()[0];
    let server = keep(engine, &files, &["--no-shutdown"]).feed(b"");
    for text in ["one", "two"] {
        let mut file = file(engine, &server);
        file.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert_eq!(file.read(&mut [0; 10]).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        file.write_all(text.as_bytes()).unwrap();
        server.stdout.wait_for(text);
        file.close().unwrap();
    }
}

#[test]
fn who_does_not_read_is_not_waited_for_for_ever() {
    let files = Files::new();
    let engine = engines()[0];
    let mut server = keep(engine, &files, &["-w", "1"]).open();
    let (stuck, mut other) = (file(engine, &server), file(engine, &server));
    // Both are in.
    for (file, text) in [(&stuck, "stuck"), (&other, "other")] {
        (&*file).write_all(text.as_bytes()).unwrap();
        server.stdout.wait_for(text);
    }
    let reading = thread::spawn(move || {
        let mut got = 0;
        let mut buf = vec![0; 64 * 1024];
        while got < 32 << 20 {
            got += other.read(&mut buf).unwrap();
        }
    });
    server.say(&vec![b'x'; 32 << 20]);
    reading.join().unwrap();
    drop(stuck);
}

#[test]
fn ends_when_nobody_reads_its_output() {
    let files = Files::new();
    let engine = engines()[0];
    let mut server = keep(engine, &files, &[]);
    server.discard_stdout = true;
    let server = server.open();
    file(engine, &server).write_all(b"hello").unwrap();
    let ended = server.end();
    assert_eq!(ended.code, 6, "{ended:?}");
}

#[test]
fn waits_for_a_connection_as_long_as_it_was_told() {
    let start = Instant::now();
    let ended = tool_alone().args(&["-l", "127.0.0.1:0", "-w", "0.5"]).open().end();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr().contains("nobody has connected"), "{ended:?}");
    assert!(start.elapsed() >= Duration::from_millis(500));
}

#[test]
fn options_of_servers_are_for_servers() {
    for args in [
        &["localhost", "1", "--keep"][..],
        &["-l", "0", "--max-conns", "3"],
        &["-l", "0", "--keep", "--max-conns", "0"],
        &["localhost", "1", "--check", "--exec", "cat"],
        &["-l", "0", "--crlf", "--exec", "cat"],
        &["-l", "0", "--proxy", "http://localhost"],
        &["-U", "socket", "--proxy", "http://localhost"],
    ] {
        let ended = tool_alone().args(args).feed(b"").end();
        assert_eq!(ended.code, 1, "{args:?}: {ended:?}");
    }
}
