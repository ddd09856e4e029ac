//! A thousand connections with nothing to do wake nobody.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sslfile::{Backend, Engine, SslFile};

use super::new;
use crate::common::{self, engines, tcp_pair, test_in_child, within, LONG};
use crate::rig::{settle, turn_until, Log};

const CONNECTIONS: usize = 1000;
const IDLE: Duration = Duration::from_secs(2);

/// 1,000 established connections, both ends of each, and nothing to do: the thread that waits is not woken once.
#[test]
fn an_idle_backend_with_a_thousand_connections_is_never_woken() {
    for engine in engines() {
        within(LONG * 2, move || {
            let backend = new();
            let files = establish(engine, &backend, CONNECTIONS);
            settle(&backend);
            let (sleeps, start) = (context_switches(), Instant::now());
            let mut turns = 0;
            while let Some(left) = IDLE.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
                assert_eq!(backend.turn(Some(left)).expect("turn"), 0);
                turns += 1;
            }
            assert!(turns <= 2, "{engine:?}: {turns} turns");
            let sleeps = context_switches() - sleeps;
            assert!(sleeps <= 4, "{engine:?}: went to sleep {sleeps} times");
            drop(files);
            assert!(backend.is_empty());
        });
    }
}

/// How often this thread has given up the processor by itself.
fn context_switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("switches");
    line.trim().parse().expect("a number")
}

/// Pairs of files in one backend, hands shaken.
fn establish(engine: Engine, backend: &Backend, connections: usize) -> Vec<SslFile> {
    let (client, server) = (common::client_context(engine), common::server_context(engine));
    let calm = || SslFile::options().nonblocking(true).handshake(sslfile::Handshake::Lazy).backend(backend);
    let mut files = Vec::new();
    for _ in 0..connections {
        let (c, s) = tcp_pair();
        files.push(calm().client(common::NAME).open(c, &client).expect("client"));
        files.push(calm().server().open(s, &server).expect("server"));
        if files.len() % 50 == 0 {
            turn_until(backend, || files.iter().rev().take(50).all(SslFile::is_handshake_done));
        }
    }
    turn_until(backend, || files.iter().all(SslFile::is_handshake_done));
    let log = Log::new();
    files.iter().for_each(|file| file.set_callbacks(log.callbacks()));
    files
}

/// The same, counted by strace from the moment the process says that it is idle.
#[test]
fn an_idle_backend_makes_no_system_call() {
    const VARIABLE: &str = "SSLFILE_TEST_IDLE";
    const NAME: &str = "backend::idle::an_idle_backend_makes_no_system_call";
    if std::env::var_os(VARIABLE).is_some() {
        let backend = new();
        let files = establish(engines()[0], &backend, CONNECTIONS);
        settle(&backend);
        println!("IDLE {}", rustix::thread::gettid().as_raw_nonzero());
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).expect("go");
        backend.turn(Some(IDLE)).expect("turn");
        println!("BUSY");
        drop(files);
        return;
    }
    let Ok(version) = std::process::Command::new("strace").arg("-V").output() else {
        assert!(std::env::var_os("SSLFILE_NO_SKIP").is_none_or(|value| value != "1"), "strace is missing");
        let _ = writeln!(std::io::stderr(), "skipped: no strace");
        return;
    };
    assert!(version.status.success());
    within(LONG * 2, || {
        let mut child = test_in_child(NAME, &[(VARIABLE, "1")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let tid = loop {
            let line = lines.next().expect("line").expect("line");
            if let Some((_, tid)) = line.split_once("IDLE ") {
                break tid.trim().to_string();
            }
        };
        let dir = tempfile::tempdir().expect("dir");
        let trace = dir.path().join("trace");
        let mut strace = std::process::Command::new("strace")
            .args(["-p", &tid, "-o"])
            .arg(&trace)
            .env("LC_ALL", "C.UTF-8")
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace");
        // It says so when it has attached.
        let mut said = BufReader::new(strace.stderr.take().expect("stderr")).lines();
        let attached = said.next().expect("a line").expect("a line");
        if !attached.contains("attached") {
            child.kill().expect("kill");
            child.wait().expect("wait");
            strace.wait().expect("wait");
            // A matter of permissions, which no installation gives.
            let _ = writeln!(std::io::stderr(), "skipped: strace may not: {attached}");
            return;
        }
        writeln!(child.stdin.take().expect("stdin")).expect("go");
        while !lines.next().expect("line").expect("line").contains("BUSY") {}
        let status = child.wait().expect("wait");
        strace.wait().expect("wait");
        let trace = std::fs::read_to_string(trace).expect("trace");
        // Up to the word that the two seconds are over, but for the read that waited for us.
        let idle: Vec<_> =
            trace.lines().take_while(|line| !line.contains("BUSY")).filter(|line| !line.contains("read(0")).collect();
        println!("{}", idle.join("\n"));
        assert!(!idle.is_empty(), "nothing was traced:\n{trace}");
        let waits =
            idle.iter().filter(|line| line.starts_with("epoll_wait") || line.starts_with("epoll_pwait")).count();
        assert!((1..=3).contains(&waits), "woken while idle: {waits} waits");
        assert!(idle.len() <= 8, "{} system calls in two idle seconds", idle.len());
        assert!(status.success());
    });
}
