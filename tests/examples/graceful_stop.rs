//! `graceful_stop`: told to stop by a signal, with OpenSSL's client and ours.
#![cfg(unix)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use rustix::process::{kill_process, Pid, Signal};
use sslfile::SslFile;

use crate::common::{client_context, engines, LONG};
use crate::tool::{is_here, Files, Tool};

fn start(files: &Files, grace: &str) -> (Tool, String) {
    let server = Tool::example("graceful_stop")
        .args(&["127.0.0.1:0", "--cert", &files.chain, "--key", &files.key, "--grace", grace])
        .open();
    let port = server.stdout.line("listening on ").rsplit(':').next().expect("port").to_string();
    (server, port)
}

fn stop(server: &Tool) {
    let id = Pid::from_raw(server.id() as i32).expect("a process");
    kill_process(id, Signal::TERM).expect("kill");
    server.stdout.wait_for("stopping\n");
}

fn connect(port: &str) -> SslFile {
    let tcp = TcpStream::connect(("127.0.0.1", port.parse().expect("port"))).expect("connect");
    let file = SslFile::client(tcp, &client_context(engines()[0]), "localhost").expect("handshake");
    file.set_read_timeout(Some(LONG)).expect("time-out");
    file
}

/// Asks something and has the answer: the server knows this client.
fn greet(file: &SslFile) {
    let mut line = String::new();
    (&*file).write_all(b"hello\n").expect("write");
    BufReader::new(file).read_line(&mut line).expect("read");
    assert_eq!(line, "you said hello\n");
}

#[test]
fn graceful_stop_answers_what_was_asked_ends_and_takes_nobody_else() {
    let files = Files::new();
    let (server, port) = start(&files, "60");
    let (idle, mut asking) = (connect(&port), connect(&port));
    greet(&idle);
    greet(&asking);
    asking.write_all(b"one\ntwo\nnot a whole line").expect("write");
    stop(&server);
    let mut answers = String::new();
    asking.read_to_string(&mut answers).expect("an end, and no cut");
    assert_eq!(answers, "you said one\nyou said two\n");
    assert_eq!((&idle).read(&mut [0]).expect("an end, and no cut"), 0);
    let late = TcpStream::connect(("127.0.0.1", port.parse().expect("port")));
    assert_eq!(late.expect_err("a connection after the end").kind(), ErrorKind::ConnectionRefused);
    drop((idle, asking));
    let ended = server.end();
    assert!(ended.code == 0 && ended.stdout().ends_with("\nall done\n"), "{ended:?}");
}

#[test]
fn graceful_stop_cuts_what_is_left_when_the_time_is_up() {
    let files = Files::new();
    let (server, port) = start(&files, "0");
    let mut asking = connect(&port);
    greet(&asking);
    asking.write_all(b"one\n").expect("write");
    stop(&server);
    let end = asking.read_to_end(&mut Vec::new()).expect_err("half an answer, and no end");
    assert_eq!(end.kind(), ErrorKind::BrokenPipe, "{end}");
    let ended = server.end();
    assert!(ended.code == 0 && ended.stdout().ends_with("\n1 cut\n"), "{ended:?}");
}

#[test]
fn graceful_stop_lets_openssls_client_have_its_answer() {
    if !is_here("openssl", &["version"]) {
        return;
    }
    let files = Files::new();
    let (server, port) = start(&files, "60");
    let client = Tool::new(std::path::Path::new("openssl"));
    let connect = format!("127.0.0.1:{port}");
    let mut client = client.args(&["s_client", "-quiet", "-CAfile", &files.ca, "-connect", &connect]).open();
    client.say(b"hello\n");
    client.stdout.wait_for("you said hello\n");
    client.say(b"once more\n");
    server.stdout.wait_for("\"once more\"\n");
    stop(&server);
    let answered = client.end();
    assert!(answered.stdout().ends_with("you said once more\n"), "{answered:?}");
    assert_eq!(server.end().code, 0);
}

#[test]
fn graceful_stop_shows_itself() {
    let ended = Tool::example("graceful_stop").feed(b"").end();
    assert!(ended.code == 0 && ended.stdout().ends_with("all done\n"), "{ended:?}");
    assert!(ended.stdout().contains("client: you said three\n"), "{ended:?}");
}
