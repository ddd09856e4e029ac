//! `--exec`: a process for each connection.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{Engine, SslFile};

use crate::common::{certs, client_context, engines, pattern, LONG, NAME};
use crate::sslcat;
use crate::tool::{is_here, Files, Tool};

/// Waits for something that the system does not tell.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "HANG: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn exec(engine: Engine, files: &Files, command: &str, more: &[&str]) -> Tool {
    let listen = ["-l", "127.0.0.1:0", "--cert", &files.chain, "--key", &files.key, "--exec", command];
    sslcat(engine, &listen).args(more)
}

fn client(engine: Engine, files: &Files, server: &Tool) -> Tool {
    sslcat(engine, &["localhost", &server.port(), "--ca", &files.ca])
}

/// A client that has shaken hands.
fn file(engine: Engine, server: &Tool) -> SslFile {
    let tcp = TcpStream::connect(format!("127.0.0.1:{}", server.port())).unwrap();
    SslFile::client(tcp, &client_context(engine), NAME).unwrap()
}

/// Processes that it has started and has not waited for.
#[cfg(target_os = "linux")]
fn children(tool: &Tool) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", tool.id())).unwrap();
    let children = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks.map(|task| children(task.unwrap())).collect()
}

#[test]
fn joins_a_process_to_each_connection_both_ways_at_once() {
    const LEN: usize = 4 << 20;
    let files = Files::new();
    for engine in engines() {
        // More than pipes and sockets hold, both ways: who does one after the other gets stuck.
        let server = exec(engine, &files, "cat", &["--keep"]).feed(b"");
        let clients: Vec<_> = (1..4).map(|seed| client(engine, &files, &server).feed(&pattern(seed, LEN))).collect();
        for (seed, client) in (1..4).zip(clients) {
            let ended = client.end();
            assert_eq!((ended.code, ended.stderr()), (0, ""), "{engine:?}");
            assert!(ended.stdout == pattern(seed, LEN), "{engine:?}: wrong bytes");
        }
        #[cfg(target_os = "linux")]
        until("no zombies", || children(&server).is_empty());
    }
}

#[test]
fn serves_openssl_s_client_with_a_process() {
    if !is_here("openssl", &["version"]) {
        return;
    }
    let files = Files::new();
    for engine in engines() {
        let server = exec(engine, &files, "read line; echo \"you said $line\"", &["--keep"]).feed(b"");
        for _ in 0..2 {
            let address = format!("127.0.0.1:{}", server.port());
            let args = ["s_client", "-connect", &address, "-CAfile", &files.ca, "-verify_return_error", "-quiet"];
            // Its stdin stays open: the process ends it.
            let mut client = Tool::new(Path::new("openssl")).args(&args).open();
            client.say(b"hello\n");
            let ended = client.end();
            assert_eq!((ended.code, ended.stdout()), (0, "you said hello\n"), "{engine:?}: {ended:?}");
        }
    }
}

#[test]
fn all_that_the_process_wrote_arrives_before_its_end() {
    const LEN: usize = 3 << 20;
    let files = Files::new();
    fs::write(files.dir.path().join("much"), pattern(9, LEN)).unwrap();
    let much = files.dir.path().join("much").display().to_string();
    for engine in engines() {
        // A slow reader, which has said nothing and does not end: the process has ended long before.
        let server = exec(engine, &files, &format!("cat '{much}'"), &[]).feed(b"");
        let mut reader = file(engine, &server);
        let mut got = Vec::new();
        let mut buf = vec![0; 256 * 1024];
        loop {
            match reader.read(&mut buf).unwrap() {
                0 => break,
                n => got.extend_from_slice(&buf[..n]),
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert!(got == pattern(9, LEN), "{engine:?}: {} bytes", got.len());
        reader.close().unwrap();
        let ended = server.end();
        assert_eq!(ended.code, 0, "{engine:?}: {ended:?}");

        // One that sends much to a process that does not read it, and has ended.
        let server = exec(engine, &files, "exec <&-; echo enough", &[]).feed(b"");
        let mut client = client(engine, &files, &server);
        client.command.stdin(fs::File::open(&much).unwrap());
        let ended = client.open().end();
        assert_eq!((ended.code, ended.stdout()), (0, "enough\n"), "{engine:?}: {ended:?}");
        assert_eq!(server.end().code, 0, "{engine:?}");
    }
}

#[test]
fn the_peers_end_is_that_of_the_process_s_stdin() {
    let files = Files::new();
    for engine in engines() {
        // Its answer comes after that.
        let server = exec(engine, &files, "wc -c; echo that was it", &[]).feed(b"");
        let ended = client(engine, &files, &server).feed(&pattern(1, 100_000)).end();
        assert_eq!((ended.code, ended.stdout()), (0, "100000\nthat was it\n"), "{engine:?}: {ended:?}");
        assert_eq!(server.end().code, 0, "{engine:?}");

        // Its stdout has ended; it goes on listening, to the peer's end.
        let seen = files.dir.path().join(format!("seen {engine:?}"));
        let command = format!("echo go on; exec >&-; cat > '{}'", seen.display());
        let server = exec(engine, &files, &command, &[]).feed(b"");
        let mut writer = file(engine, &server);
        let mut got = String::new();
        writer.read_to_string(&mut got).unwrap();
        assert_eq!(got, "go on\n");
        writer.write_all(b"much later").unwrap();
        writer.close().unwrap();
        assert_eq!(server.end().code, 0, "{engine:?}");
        assert_eq!(fs::read_to_string(seen).unwrap(), "much later", "{engine:?}");
    }
}

#[test]
fn tells_how_the_process_ended() {
    let files = Files::new();
    for engine in engines() {
        // Its own end, whatever it thinks of it.
        let server = exec(engine, &files, "cat; exit 7", &[]).feed(b"");
        let ended = client(engine, &files, &server).feed(b"hello").end();
        assert_eq!((ended.code, ended.stdout()), (0, "hello"), "{engine:?}: {ended:?}");
        let ended = server.end();
        assert_eq!(ended.code, 6, "{engine:?}: {ended:?}");
        assert!(ended.stderr().contains("exit status: 7"), "{ended:?}");

        // Not its own: what it wrote may be a part.
        let server = exec(engine, &files, "echo half; kill -9 $$", &[]).feed(b"");
        let ended = client(engine, &files, &server).open().end();
        assert_eq!((ended.code, ended.stdout()), (5, "half\n"), "{engine:?}: {ended:?}");
        let ended = server.end();
        assert_eq!(ended.code, 6, "{engine:?}: {ended:?}");
        assert!(ended.stderr().contains("signal: 9"), "{ended:?}");
    }
    let server = exec(engines()[0], &files, "/no/such/program", &[]).feed(b"");
    let ended = client(engines()[0], &files, &server).open().end();
    assert_eq!((ended.code, ended.stdout()), (0, ""), "{ended:?}");
    assert_eq!(server.end().code, 6);
}

#[cfg(target_os = "linux")]
#[test]
fn a_lost_peer_ends_the_process() {
    let files = Files::new();
    let engine = engines()[0];
    let said = files.dir.path().join("said");
    for command in [
        // Closed pipes are enough.
        "cat".to_string(),
        "while echo more; do :; done".to_string(),
        // It hears of it by its stdin, and has something left to do.
        format!("cat; echo told > '{}'", said.display()),
        // It is asked to end, with what it has started.
        "sleep 1000 | cat".to_string(),
        // It does not listen.
        "trap '' TERM PIPE; while :; do sleep 1; done".to_string(),
    ] {
        let server = exec(engine, &files, &command, &["--keep"]).feed(b"");
        let lost = file(engine, &server);
        until("a process", || !children(&server).is_empty());
        lost.abort();
        drop(lost);
        until("an end of the process", || children(&server).is_empty());
        // And the server goes on.
        let next = file(engine, &server);
        next.abort();
    }
    assert_eq!(fs::read_to_string(said).unwrap(), "told\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_the_processes_too() {
    let files = Files::new();
    let engine = engines()[0];
    let alive = files.dir.path().join("alive");
    let command = format!("trap 'rm \"{0}\"; exit' TERM; touch '{0}'; while :; do sleep 0.05; done", alive.display());
    let server = exec(engine, &files, &command, &["--keep"]).feed(b"");
    let _peer = file(engine, &server);
    until("the process", || alive.exists());
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(server.id() as i32).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(server.end().code < 0, "by the signal");
    until("the process's end", || !alive.exists());
}

#[test]
fn time_outs_are_for_what_moves() {
    let files = Files::new();
    let engine = engines()[0];
    // Slow, but it moves.
    let server = exec(engine, &files, "for i in 1 2 3 4 5 6; do sleep 0.3; echo $i; done", &["-w", "1"]).feed(b"");
    let ended = client(engine, &files, &server).open().end();
    assert_eq!((ended.code, ended.stdout()), (0, "1\n2\n3\n4\n5\n6\n"), "{ended:?}");
    assert_eq!(server.end().code, 0);

    for command in ["sleep 1000", "exec >&-; sleep 1000"] {
        let server = exec(engine, &files, command, &["-w", "0.5"]).feed(b"");
        let _client = client(engine, &files, &server).open();
        let ended = server.end();
        assert_eq!(ended.code, 5, "{command}: {ended:?}");
        assert!(ended.stderr().contains("0.5 s"), "{command}: {ended:?}");
    }
}

#[test]
fn the_process_knows_who_is_there() {
    let files = Files::new();
    let (chain, key) = (files.write("own.pem", &certs().client.chain), files.write("own.key", &certs().client.key));
    let command = "env | grep ^SSLCAT_ | sort";
    for engine in engines() {
        let demanding = engine != Engine::Native;
        let ca: &[&str] = if demanding { &["--ca", &files.ca] } else { &[] };
        let mut server = exec(engine, &files, command, ca);
        server.command.env("SSLCAT_PEER_SUBJECT", "not this one");
        let server = server.feed(b"");
        let mut client = client(engine, &files, &server);
        if demanding {
            client = client.args(&["--cert", &chain, "--key", &key]);
        }
        let ended = client.open().end();
        let mut lines = ended.stdout().lines();
        let mut next = |start: &str| {
            let line = lines.next().unwrap_or_default();
            line.strip_prefix(start).unwrap_or_else(|| panic!("no {start} in {ended:?}"))
        };
        assert_eq!(next("SSLCAT_LOCAL_ADDR="), "127.0.0.1");
        assert_eq!(next("SSLCAT_LOCAL_PORT="), server.port());
        if demanding {
            assert_eq!(next("SSLCAT_PEER_SUBJECT="), "CN=client.example");
        }
        assert_eq!(next("SSLCAT_REMOTE_ADDR="), "127.0.0.1");
        assert!(next("SSLCAT_REMOTE_PORT=").parse::<u16>().is_ok());
        assert_eq!(server.end().code, 0, "{engine:?}");
    }
}

#[test]
fn a_client_can_have_a_process_as_well() {
    let files = Files::new();
    for engine in engines() {
        let mut server = sslcat(engine, &["-l", "127.0.0.1:0", "--cert", &files.chain, "--key", &files.key]).open();
        let tool = client(engine, &files, &server).args(&["--exec", "read line; echo \"<$line>\""]).open();
        server.say(b"hello\n");
        assert_eq!(tool.end().code, 0, "{engine:?}");
        let ended = server.end();
        assert_eq!((ended.code, ended.stdout()), (0, "<hello>\n"), "{engine:?}: {ended:?}");
    }
}

/// Of a file that was shut down already.
#[test]
fn a_peer_that_only_listens_is_served() {
    let files = Files::new();
    for engine in engines() {
        let server = exec(engine, &files, "sleep 0.2; echo late", &[]).feed(b"");
        let mut listener = file(engine, &server);
        listener.shutdown(Shutdown::Write).unwrap();
        let mut got = String::new();
        listener.read_to_string(&mut got).unwrap();
        assert_eq!(got, "late\n", "{engine:?}");
        listener.close().unwrap();
        assert_eq!(server.end().code, 0, "{engine:?}");
    }
}
