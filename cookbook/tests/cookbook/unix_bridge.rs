//! `unix_bridge`: tiny_http behind it, with curl before it; and its ends.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;

use super::rig::{files, is_here, output, rigs};
use crate::examples::unix_bridge::unix::{bridge, forward, start_http};

#[test]
fn unix_bridge_puts_tiny_http_behind_tls() {
    if !is_here("curl", &["--version"]) {
        return;
    }
    let folder = files();
    let (socket, chain) = (folder.path().join("http"), folder.path().join("chain.pem"));
    start_http(&socket).expect("listen");
    let body = folder.path().join("body");
    std::fs::write(&body, "0123456789".repeat(300_000)).expect("write");
    for rig in rigs() {
        let (listener, port) = rig.listen();
        let socket = socket.clone();
        thread::spawn(move || forward(&listener, &socket));
        let url = format!("https://localhost:{port}/x");
        let chain = chain.to_str().expect("path");
        let data = format!("@{}", body.to_str().expect("path"));
        let curl =
            ["--silent", "--show-error", "--cacert", chain, "--write-out", "%{num_connects}", "--data-binary", &data];
        let got = output("curl", &[&curl[..], &[&url, &url]].concat());
        let answer = |connects: u8| format!("You asked for /x\n{}{connects}", "0123456789".repeat(300_000));
        assert!(got == answer(1) + &answer(0), "{:?}: {} bytes", rig.engine, got.len());
    }
}

#[test]
fn unix_bridge_passes_ends_on_and_tells_a_cut() {
    for rig in rigs() {
        let (listener, port) = rig.listen();
        let accepted = |connect: &dyn Fn() -> _| {
            let (mut socket, ended): (std::os::unix::net::UnixStream, _) = connect();
            let (mut file, _) = listener.accept().expect("accept");
            let serving = thread::spawn(move || {
                file.handshake().expect("handshake");
                file.write_all(b"welcome").expect("write");
                file
            });
            let mut got = [0; 7];
            socket.read_exact(&mut got).expect("read");
            (socket, ended, serving.join().expect("server"))
        };
        let connect = || bridge(lazily(&rig, port)).expect("bridge");

        // An end in either direction leaves the other alone.
        let (mut socket, ended, mut file) = accepted(&connect);
        socket.write_all(b"question").expect("write");
        socket.shutdown(Shutdown::Write).expect("shutdown");
        let mut got = String::new();
        file.read_to_string(&mut got).expect("an end");
        file.write_all(b"answer").expect("write");
        file.shutdown(Shutdown::Write).expect("shutdown");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an end");
        assert_eq!((&*got, &*answer), ("question", "answer"));
        ended.join().expect("bridge").expect("a good end");

        // A cut is an end to the socket; the bridge says what it was.
        let (mut socket, ended, file) = accepted(&connect);
        file.abort();
        assert_eq!(socket.read(&mut [0]).expect("an end"), 0);
        drop(socket);
        let told = ended.join().expect("bridge").expect_err("a cut");
        assert_eq!(told.kind(), ErrorKind::BrokenPipe, "{:?}: {told}", rig.engine);

        // Who closes with input unread has not done with it: a cut to the peer.
        let (socket, ended, mut file) = accepted(&connect);
        file.write_all(b"never read").expect("write");
        let there = socket2::SockRef::from(&socket).peek(&mut [std::mem::MaybeUninit::uninit()]);
        assert_eq!(there.expect("peek"), 1);
        drop(socket);
        let told = file.read_to_end(&mut Vec::new()).expect_err("no end");
        assert_eq!(told.kind(), ErrorKind::BrokenPipe, "{:?}: {told}", rig.engine);
        ended.join().expect("bridge").expect_err("a cut");
    }
}

fn lazily(rig: &super::rig::Rig, port: u16) -> sslfile::SslFile {
    let options = sslfile::SslFile::options().client("localhost").handshake(sslfile::Handshake::Lazy);
    options.connect(("127.0.0.1", port), &rig.client).expect("connect")
}
