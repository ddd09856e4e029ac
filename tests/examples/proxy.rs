//! `proxy`: between our own ends, which show what it does; and with curl before it and `keep_alive` behind.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use sslfile::{SslFile, SslListener};

use crate::common::{client_context, engines, server_context, LONG};
use crate::tool::{is_here, Files, Tool};

/// The proxy and its port, before a target that is for "localhost".
fn start(files: &Files, target: u16) -> (Tool, String) {
    let proxy = Tool::example("proxy")
        .args(&["127.0.0.1:0", &format!("localhost:{target}")])
        .args(&["--cert", &files.chain, "--key", &files.key, "--ca", &files.ca])
        .open();
    let port = proxy.stdout.line("listening on ").rsplit(':').next().expect("port").to_string();
    (proxy, port)
}

struct Rig {
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "it lives as long as this"))]
    proxy: Tool,
    port: String,
    behind: SslListener,
    _files: Files,
}

impl Rig {
    fn new() -> Rig {
        let files = Files::new();
        let behind = SslListener::bind("127.0.0.1:0", &server_context(engines()[0])).expect("bind");
        let (proxy, port) = start(&files, behind.local_addr().expect("address").port());
        Rig { proxy, port, behind, _files: files }
    }

    /// A client, and what the proxy has connected it with.
    fn ends(&self) -> (SslFile, SslFile) {
        let tcp = TcpStream::connect(("127.0.0.1", self.port.parse().expect("port"))).expect("connect");
        let client = SslFile::client(tcp, &client_context(engines()[0]), "localhost").expect("handshake");
        let (server, _) = self.behind.accept().expect("accept");
        server.handshake().expect("handshake");
        for end in [&client, &server] {
            end.set_read_timeout(Some(LONG)).expect("time-out");
            end.set_write_timeout(Some(LONG)).expect("time-out");
        }
        (client, server)
    }
}

/// How much goes in until nobody takes more for a second.
fn fill(mut file: &SslFile) -> usize {
    file.set_write_timeout(Some(Duration::from_secs(1))).expect("time-out");
    let mut taken = 0;
    loop {
        match file.write(&[1; 64 * 1024]) {
            Ok(n) => taken += n,
            Err(e) if e.kind() == ErrorKind::TimedOut => return taken,
            Err(e) => panic!("{e}"),
        }
        assert!(taken < 64 << 20, "it takes all, and nobody reads it");
    }
}

#[test]
fn proxy_does_not_read_what_it_cannot_pass_on() {
    let rig = Rig::new();
    let (client, server) = rig.ends();
    for (from, mut to) in [(&client, &server), (&server, &client)] {
        let taken = fill(from);
        // All of it is there, when somebody reads at last.
        let mut got = vec![0; taken];
        from.set_write_timeout(Some(LONG)).expect("time-out");
        thread::scope(|scope| {
            // What was taken when the time was up.
            scope.spawn(|| (&*from).flush().expect("flush"));
            to.read_exact(&mut got).expect("read");
        });
        assert!(got.iter().all(|&byte| byte == 1));
    }
    // Both at once.
    thread::scope(|scope| {
        for (from, to) in [(&client, &server), (&server, &client)] {
            scope.spawn(move || {
                (&*from).write_all(&vec![2; 3 << 20]).expect("write");
                from.shutdown(Shutdown::Write).expect("shutdown");
            });
            scope.spawn(move || {
                let mut got = Vec::new();
                (&*to).read_to_end(&mut got).expect("an end");
                assert_eq!(got.len(), 3 << 20);
            });
        }
    });
}

#[test]
fn proxy_passes_an_end_on_as_an_end_and_the_other_direction_lives() {
    let rig = Rig::new();
    let (client, server) = rig.ends();
    for (mut first, mut second) in [(&client, &server), (&server, &client)] {
        first.write_all(b"all").expect("write");
        first.shutdown(Shutdown::Write).expect("shutdown");
        let mut got = String::new();
        second.read_to_string(&mut got).expect("an end");
        assert_eq!(got, "all");
    }
}

#[test]
fn proxy_passes_a_cut_on_as_a_cut() {
    let rig = Rig::new();
    for from_behind in [false, true] {
        let (client, server) = rig.ends();
        let (first, mut second) = if from_behind { (server, client) } else { (client, server) };
        (&first).write_all(b"not all").expect("write");
        let mut got = [0; 7];
        second.read_exact(&mut got).expect("what came before");
        first.abort();
        assert_eq!(second.read(&mut got).expect_err("no end").kind(), ErrorKind::BrokenPipe);
    }
}

#[test]
fn proxy_without_a_server_behind_it_cuts_its_client() {
    // A port that nobody else gets, and where nobody listens.
    let taken = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    let target = taken.local_addr().expect("address").as_socket().expect("an IP address").port();
    let files = Files::new();
    let (proxy, port) = start(&files, target);
    let tcp = TcpStream::connect(("127.0.0.1", port.parse().expect("port"))).expect("connect");
    let cut = SslFile::client(tcp, &client_context(engines()[0]), "localhost").map_err(io::Error::from);
    let cut = cut.and_then(|mut client| client.read(&mut [0])).expect_err("no end");
    assert!(matches!(cut.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{cut}");
    proxy.stderr.wait_for("refused");
}

#[test]
#[cfg(target_os = "linux")]
fn proxy_keeps_nothing_of_connections_that_have_ended() {
    let rig = Rig::new();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", rig.proxy.id())).expect("folder").count();
    let before = descriptors();
    for how in 0..12 {
        let (client, server) = rig.ends();
        (&client).write_all(b"x").expect("write");
        (&server).read_exact(&mut [0]).expect("read");
        let (first, second) = if how % 2 == 0 { (client, server) } else { (server, client) };
        match how % 3 {
            0 => first.abort(),
            1 => drop(first.close()),
            _ => first.shutdown(Shutdown::Write).expect("shutdown"),
        }
        let _ = (&second).read(&mut [0]);
        let _ = second.close();
    }
    let deadline = std::time::Instant::now() + LONG;
    while descriptors() > before {
        assert!(std::time::Instant::now() < deadline, "{} descriptors, and before {before}", descriptors());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn proxy_serves_curl_from_keep_alive() {
    if !is_here("curl", &["--version"]) {
        return;
    }
    let files = Files::new();
    let behind = Tool::example("keep_alive").args(&["127.0.0.1:0", "--cert", &files.chain, "--key", &files.key]).open();
    let target = behind.stdout.line("listening on ").rsplit(':').next().expect("port").parse().expect("port");
    let (_proxy, port) = start(&files, target);
    let body = files.write("body", &"0123456789".repeat(100_000));
    let (urls, (sender, ended)) = (format!("https://localhost:{port}/[1-3]"), mpsc::channel());
    for _ in 0..3 {
        let args = ["--silent", "--show-error", "--cacert", &files.ca, "--data-binary", &format!("@{body}"), &urls];
        let (curl, sender) = (Tool::new(Path::new("curl")).args(&args), sender.clone());
        thread::spawn(move || sender.send(curl.feed(b"").end()));
    }
    for _ in 0..3 {
        let ended = ended.recv_timeout(LONG).expect("an end");
        assert!(ended.code == 0 && ended.stdout == "0123456789".repeat(300_000).into_bytes(), "{ended:?}");
    }
}

#[test]
fn proxy_shows_itself() {
    let ended = Tool::example("proxy").feed(b"").end();
    assert_eq!(
        (ended.code, ended.stdout()),
        (0, "1048576 bytes came back, the same\n0 connections left\n"),
        "{ended:?}"
    );
}
