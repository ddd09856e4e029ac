//! `terminator`: each of its options, and its end, as its users and their clients see it.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{kill_process, Pid, Signal};
use socket2::{Domain, Socket, Type};
use sslfile::{Certificate, Context, SslFile};

use crate::built::example;
use crate::common::{certs, client_builder, client_context, engines, has_ipv6, LONG};
use crate::tool::{is_here, Files, Tool};

/// A plain server that sends back what comes, until its client ends.
pub fn echo_target(addr: &str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(addr)?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut &tcp, &mut &tcp));
        }
    });
    Ok(addr)
}

fn echo() -> String {
    echo_target("127.0.0.1:0").expect("bind").to_string()
}

/// A plain server that hands out its connections.
fn target() -> (String, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("address").to_string();
    let (accepted, connections) = mpsc::channel();
    thread::spawn(move || listener.incoming().flatten().try_for_each(|tcp| accepted.send(tcp)));
    (addr, connections)
}

fn accept(connections: &mpsc::Receiver<TcpStream>) -> TcpStream {
    let tcp = connections.recv_timeout(LONG).expect("a connection to the target");
    tcp.set_read_timeout(Some(LONG)).expect("time-out");
    tcp
}

fn port_of(tool: &Tool) -> u16 {
    let line = tool.stdout.line("listening on ");
    let addr = line.split("listening on ").nth(1).and_then(|rest| rest.split(',').next()).expect("address");
    addr.parse::<SocketAddr>().expect("address").port()
}

fn start(files: &Files, target: &str, args: &[&str]) -> (Tool, u16) {
    let tool = Tool::example("terminator").args(&["127.0.0.1:0", target]);
    let tool = tool.args(&["--cert", &files.chain, "--key", &files.key]).args(args).open();
    let port = port_of(&tool);
    (tool, port)
}

fn tcp(port: u16) -> TcpStream {
    let tcp = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    tcp.set_read_timeout(Some(LONG)).expect("time-out");
    tcp
}

fn try_client(port: u16, name: &str, context: &Context) -> io::Result<SslFile> {
    SslFile::client(tcp(port), context, name).map_err(io::Error::from)
}

fn client(port: u16) -> SslFile {
    try_client(port, "localhost", &client_context(engines()[0])).expect("handshake")
}

fn goes_through(mut file: &SslFile) -> io::Result<()> {
    let mut back = [0; 100];
    file.write_all(&[b'x'; 100])?;
    file.read_exact(&mut back)
}

fn assert_cut(mut file: &SslFile) {
    let end = file.read(&mut [0]).expect_err("no answer, and no end either");
    assert!(matches!(end.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{end:?}");
}

fn signal(tool: &Tool, signal: Signal) {
    kill_process(Pid::from_raw(tool.id() as i32).expect("a process"), signal).expect("kill");
}

#[test]
fn terminator_shows_no_end_where_there_was_no_answer() {
    let files = Files::new();
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").to_string();
    // One fails on the way, the other at once.
    for target in [&*gone, "255.255.255.255:80"] {
        let (tool, port) = start(&files, target, &[]);
        let file = client(port);
        assert_cut(&file);
        let line = tool.stderr.line("WARN ");
        assert_eq!(line.matches(&file.local_addr().expect("address").to_string()).count(), 1, "{line}");
        assert_eq!(line.matches(target).count(), 1, "{line}");
    }
}

#[test]
fn terminator_passes_a_cut_on_as_a_cut_and_an_end_as_an_end() {
    let files = Files::new();
    let (target, connections) = target();
    let (_tool, port) = start(&files, &target, &[]);
    let mut cuts = client(port);
    cuts.write_all(b"half").expect("write");
    let mut plain = accept(&connections);
    plain.read_exact(&mut [0; 4]).expect("what came before");
    cuts.abort();
    assert_eq!(plain.read(&mut [0]).expect_err("no end").kind(), ErrorKind::ConnectionReset);

    let ends = client(port);
    let mut plain = accept(&connections);
    ends.shutdown(std::net::Shutdown::Write).expect("shutdown");
    assert_eq!(plain.read(&mut [0]).expect("an end"), 0);
    plain.write_all(b"answer").expect("write");
    drop(plain);
    let mut got = String::new();
    (&ends).read_to_string(&mut got).expect("an end");
    assert_eq!(got, "answer");
}

/// Writes until nothing more is taken. Returns how much was.
fn fill(mut from: impl Write) -> usize {
    let chunk = [b'x'; 1 << 16];
    let mut taken = 0;
    loop {
        match from.write(&chunk) {
            Ok(n) => taken += n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return taken,
            Err(e) => panic!("{e}"),
        }
        assert!(taken < 256 << 20, "who does not read is sent as much as anybody likes");
    }
}

#[test]
fn terminator_does_not_read_what_it_cannot_pass_on_and_loses_nothing_of_it() {
    let files = Files::new();
    let (target, connections) = target();
    let (_tool, port) = start(&files, &target, &["--loops", "1"]);
    let file = client(port);
    let plain = accept(&connections);
    let patience = Some(Duration::from_millis(200));
    plain.set_write_timeout(patience).expect("time-out");
    let up = |end: bool| {
        file.set_write_timeout(patience).expect("time-out");
        let sent = fill(&file);
        file.set_write_timeout(Some(LONG)).expect("time-out");
        // What it has taken and not sent goes with the next call.
        let got = thread::scope(|scope| {
            let reader = scope.spawn(|| io::copy(&mut (&plain).take(sent as u64), &mut io::sink()));
            (&file).flush().expect("flush");
            if end {
                file.shutdown(std::net::Shutdown::Write).expect("shutdown");
            }
            reader.join().expect("no panic").expect("read")
        });
        assert_eq!(got, sent as u64);
    };
    let down = || {
        let sent = fill(&plain);
        assert_eq!(io::copy(&mut (&file).take(sent as u64), &mut io::sink()).expect("read"), sent as u64);
    };
    up(false);
    down();
    up(false);
    down();
    // The ends behind it.
    up(true);
    assert_eq!((&plain).read(&mut [0]).expect("an end"), 0);
    let sent = fill(&plain);
    plain.shutdown(std::net::Shutdown::Write).expect("shutdown");
    assert_eq!(io::copy(&mut &file, &mut io::sink()).expect("an end"), sent as u64);
}

#[test]
fn terminator_tries_all_addresses_of_its_target() {
    let files = Files::new();
    let known = ("localhost", 1).to_socket_addrs().expect("localhost").map(|addr| addr.is_ipv6());
    let known: Vec<_> = known.collect();
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let is_v6 = addr.starts_with('[');
        if is_v6 && !has_ipv6() || !known.contains(&is_v6) {
            continue;
        }
        // On the other one nobody listens.
        let target = echo_target(addr).expect("bind");
        let (_tool, port) = start(&files, &format!("localhost:{}", target.port()), &[]);
        for _ in 0..3 {
            goes_through(&client(port)).expect("an echo");
        }
    }
}

#[test]
fn terminator_gives_up_connecting_and_other_clients_are_served_meanwhile() {
    let files = Files::new();
    // Its queue is full: whoever else comes has no answer.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    full.listen(0).expect("listen");
    let addr = full.local_addr().expect("address");
    let waiting: Vec<_> = (0..4).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket")).collect();
    waiting.iter().for_each(|socket| {
        socket.set_nonblocking(true).expect("non-blocking");
        let _ = socket.connect(&addr);
    });
    let target = addr.as_socket().expect("address").to_string();
    let (tool, port) = start(&files, &target, &["--connect-timeout", "1", "--loops", "1"]);
    let (first, second) = (client(port), client(port));
    assert_cut(&first);
    assert_cut(&second);
    tool.stderr.wait_for("timed out");
}

#[test]
fn terminator_raises_its_limit_of_descriptors() {
    let files = Files::new();
    let program = example("terminator");
    let line = "ulimit -Sn 40; exec \"$0\" \"$@\"";
    let tool = Tool::new(Path::new("/bin/sh")).args(&["-c", line, program.to_str().expect("path")]);
    let tool = tool.args(&["127.0.0.1:0", &echo(), "--cert", &files.chain, "--key", &files.key]).open();
    let port = port_of(&tool);
    let clients: Vec<_> = (0..50).map(|_| client(port)).collect();
    clients.iter().for_each(|file| goes_through(file).expect("an echo"));
}

#[test]
fn terminator_ends_when_one_of_its_loops_does() {
    if !is_here("strace", &["-V"]) {
        return;
    }
    let files = Files::new();
    let program = example("terminator");
    // What a loop waits with fails, the tenth time.
    let fault = "inject=epoll_wait,epoll_pwait,epoll_pwait2:error=EBADF:when=10";
    let tool = Tool::new(Path::new("strace")).args(&["-f", "-qq", "-o", "/dev/null", "-e", fault]);
    let tool = tool.args(&[program.to_str().expect("path"), "127.0.0.1:0", &echo(), "--cert", &files.chain]);
    let tool = tool.args(&["--key", &files.key, "--loops", "2"]).open();
    let port = port_of(&tool);
    let stop = AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let Ok(tcp) = TcpStream::connect(("127.0.0.1", port)) else { break };
                let _ = tcp.set_read_timeout(Some(Duration::from_millis(500)));
                if let Ok(file) = SslFile::client(tcp, &client_context(engines()[0]), "localhost") {
                    let _ = goes_through(&file);
                }
            }
        });
        let ended = tool.end();
        stop.store(true, Ordering::Relaxed);
        ended
    });
    assert!(ended.code == 1 && ended.stderr().contains("ERROR an event loop has ended"), "{ended:?}");
}

#[test]
fn terminator_cuts_a_connection_on_which_nothing_moves() {
    let files = Files::new();
    let (target, connections) = target();
    let (tool, port) = start(&files, &target, &["--idle", "1"]);
    let file = client(port);
    let mut plain = accept(&connections);
    // What moves in one direction only keeps it as well.
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(250));
        plain.write_all(b"x").expect("write");
        (&file).read_exact(&mut [0]).expect("read");
    }
    assert_cut(&file);
    assert_eq!(plain.read(&mut [0]).expect_err("no end").kind(), ErrorKind::ConnectionReset);
    tool.stdout.wait_for("nothing has moved for 1s");
}

#[test]
fn terminator_tells_its_target_who_the_client_is() {
    let files = Files::new();
    let context = client_builder(engines()[0]).alpn(["h2"]).build().expect("context");
    for version in ["v1", "v2"] {
        let (target, connections) = target();
        let (_tool, port) = start(&files, &target, &["--send-proxy", version, "--alpn", "h2"]);
        let mut file = try_client(port, "localhost", &context).expect("handshake");
        let from = file.local_addr().expect("address").port();
        file.write_all(b"hello").expect("write");
        let expected = match version {
            "v1" => format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {port}\r\n").into_bytes(),
            _ => {
                let mut rest = vec![127, 0, 0, 1, 127, 0, 0, 1];
                rest.extend([from.to_be_bytes(), port.to_be_bytes()].concat());
                rest.extend(*b"\x01\0\x02h2\x02\0\x09localhost");
                [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..], &[rest.len() as u8], &rest].concat()
            }
        };
        let mut got = vec![0; expected.len() + 5];
        accept(&connections).read_exact(&mut got).expect("read");
        assert_eq!(got, [&expected[..], b"hello"].concat(), "{version}");
    }
}

#[test]
fn terminator_believes_the_proxy_before_it_and_nobody_else() {
    let files = Files::new();
    let (target, connections) = target();
    let (tool, port) = start(&files, &target, &["--accept-proxy", "--send-proxy", "v1", "--loops", "1"]);
    let context = client_context(engines()[0]);
    let binary = |command: u8, family: u8, rest: &[u8]| {
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family, 0, rest.len() as u8], rest].concat()
    };
    let v6 = [&[0x20; 32][..], &[0, 80, 1, 0]].concat();
    let v4 = [&[1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 0], &b"\x04\0\x01x"[..]].concat();
    let cases = [
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 80 256\r\n".to_vec(), "TCP4 1.2.3.4 5.6.7.8 80 256"),
        (b"PROXY TCP6 2020::1 2020::2 80 256\r\n".to_vec(), "TCP6 2020::1 2020::2 80 256"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "TCP4 127.0.0.1 127.0.0.1 "),
        (binary(0x21, 0x11, &v4), "TCP4 1.2.3.4 5.6.7.8 80 256"),
        (
            binary(0x21, 0x21, &v6),
            "TCP6 2020:2020:2020:2020:2020:2020:2020:2020 2020:2020:2020:2020:2020:2020:2020:2020 80 256",
        ),
        (binary(0x20, 0, b""), "TCP4 127.0.0.1 127.0.0.1 "),
    ];
    // Says nothing, and holds up nobody.
    let _silent = tcp(port);
    for (header, expected) in &cases {
        for piece in [header.len(), 1] {
            let mut front = tcp(port);
            front.set_nodelay(true).expect("nodelay");
            header.chunks(piece).for_each(|bytes| front.write_all(bytes).expect("write"));
            let mut file = SslFile::client(front, &context, "localhost").expect("handshake");
            file.write_all(b"hello\n").expect("write");
            let mut plain = accept(&connections);
            let mut got = Vec::new();
            while !got.ends_with(b"hello\n") {
                let mut byte = [0];
                plain.read_exact(&mut byte).expect("read");
                got.push(byte[0]);
            }
            let got = String::from_utf8(got).expect("text");
            assert!(got.starts_with(&format!("PROXY {expected}")) && got.ends_with("\r\nhello\n"), "{got:?}");
        }
    }
    let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200)).into_bytes();
    let bad: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\0",
        b"PROXY TCP4 1.2.3.4 ::1 80 256\r\n",
        &long,
        &binary(0x21, 0x11, b"xx"),
        &binary(0x41, 0, b""),
    ];
    for header in bad {
        let mut front = tcp(port);
        front.write_all(header).expect("write");
        let end = front.read(&mut [0]);
        assert!(matches!(end, Ok(0)) || end.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset), "{end:?}");
    }
    tool.stderr.wait_for("no PROXY header");
}

#[test]
fn terminator_shows_the_certificate_for_the_name_that_was_asked_for() {
    let files = Files::new();
    let folder = files.dir.path().join("certs");
    fs::create_dir(&folder).expect("folder");
    let mut context = client_builder(engines()[0]);
    for name in ["one.test", "*.two.test"] {
        let made = rcgen::generate_simple_self_signed([name.to_string()]).expect("certificate");
        context = context.add_root(Certificate::from_pem(made.cert.pem().as_bytes()).expect("certificate"));
        let text = made.cert.pem() + &made.signing_key.serialize_pem();
        fs::write(folder.join(format!("{name}.pem")), text).expect("write");
    }
    let context = context.build().expect("context");
    let (tool, port) = start(&files, &echo(), &["--certs", folder.to_str().expect("path")]);
    for name in ["one.test", "a.two.test", "localhost"] {
        let file = try_client(port, name, &context).unwrap_or_else(|e| panic!("{name}: {e}"));
        goes_through(&file).expect("an echo");
    }
    // A broken one changes nothing, and it is said which.
    fs::write(folder.join("three.test.pem"), "nonsense").expect("write");
    signal(&tool, Signal::HUP);
    assert!(tool.stderr.line("the old certificates stay").contains("three.test.pem"));
    fs::remove_file(folder.join("three.test.pem")).expect("remove");
    fs::rename(folder.join("one.test.pem"), folder.join("four.test.pem")).expect("rename");
    signal(&tool, Signal::HUP);
    tool.stdout.wait_for("new certificates");
    try_client(port, "one.test", &context).expect_err("the certificate is gone");
    goes_through(&try_client(port, "localhost", &context).expect("handshake")).expect("an echo");
}

#[test]
fn terminator_takes_only_clients_with_a_certificate_when_told_so() {
    let files = Files::new();
    let (tool, port) = start(&files, &echo(), &["--client-ca", &files.ca]);
    let known = client_builder(engines()[0]).identity(certs().client.identity()).build().expect("context");
    goes_through(&try_client(port, "localhost", &known).expect("handshake")).expect("an echo");
    let unknown = try_client(port, "localhost", &client_context(engines()[0])).and_then(|file| goes_through(&file));
    assert!(unknown.is_err());
    tool.stderr.wait_for("WARN ");
}

#[test]
fn terminator_agrees_on_a_protocol_of_its_list() {
    let files = Files::new();
    let (_tool, port) = start(&files, &echo(), &["--alpn", "h2,http/1.1"]);
    for (offered, agreed) in [(vec!["http/1.1", "h2"], "h2"), (vec!["http/1.1"], "http/1.1")] {
        let context = client_builder(engines()[0]).alpn(offered).build().expect("context");
        let file = try_client(port, "localhost", &context).expect("handshake");
        assert_eq!(file.alpn().as_deref(), Some(agreed.as_bytes()));
        goes_through(&file).expect("an echo");
    }
}

#[test]
fn terminator_does_not_share_its_port_with_a_second_start() {
    let files = Files::new();
    for loops in ["1", "2"] {
        let (_first, port) = start(&files, &echo(), &["--loops", loops]);
        let addr = format!("127.0.0.1:{port}");
        let second = Tool::example("terminator").args(&[&addr, &echo(), "--loops", loops]);
        let ended = second.args(&["--cert", &files.chain, "--key", &files.key]).feed(b"").end();
        assert!(ended.code == 1 && ended.stderr().contains("in use"), "{ended:?}");
        for _ in 0..8 {
            goes_through(&client(port)).expect("an echo");
        }
    }
}

/// Clients who come one after the other while it is told to stop: whoever was connected is served.
fn stops_under_load() {
    const CLIENTS: usize = 12;
    let files = Files::new();
    let (tool, port) = start(&files, &echo(), &["--loops", "2"]);
    let served = AtomicUsize::new(0);
    let context = client_context(engines()[0]);
    let serve = || loop {
        let tcp = match TcpStream::connect(("127.0.0.1", port)) {
            Ok(tcp) => tcp,
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => return Ok(()),
            Err(e) => return Err(e),
        };
        tcp.set_read_timeout(Some(LONG))?;
        let file = SslFile::client(tcp, &context, "localhost")?;
        goes_through(&file)?;
        file.close()?;
        served.fetch_add(1, Ordering::Relaxed);
    };
    let results: Vec<io::Result<()>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(serve)).collect();
        while served.load(Ordering::Relaxed) < 100 && !clients.iter().any(|client| client.is_finished()) {
            thread::sleep(Duration::from_millis(1));
        }
        signal(&tool, Signal::TERM);
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    assert!(results.iter().all(Result::is_ok) && served.into_inner() >= 100, "{results:?}");
    let ended = tool.end();
    assert!(ended.code == 0 && ended.stdout().contains(" 0 live, "), "{ended:?}");
}

#[test]
fn terminator_loses_no_connection_when_it_stops_under_load() {
    for _ in 0..3 {
        stops_under_load();
    }
}

#[test]
fn terminator_behind_a_proxy_serves_who_is_connected_when_it_stops() {
    let files = Files::new();
    let (tool, port) = start(&files, &echo(), &["--loops", "2", "--accept-proxy"]);
    let waiting: Vec<_> = (0..20).map(|_| tcp(port)).collect();
    signal(&tool, Signal::TERM);
    tool.stdout.wait_for("stopping");
    for mut tcp in waiting {
        tcp.write_all(b"PROXY TCP4 1.2.3.4 5.6.7.8 80 256\r\n").expect("write");
        let file = SslFile::client(tcp, &client_context(engines()[0]), "localhost").expect("handshake");
        goes_through(&file).expect("an echo");
        file.close().expect("close");
    }
    let ended = tool.end();
    assert!(ended.code == 0 && ended.stdout().contains(" 0 live, 20 in all"), "{ended:?}");
}

#[test]
fn terminator_says_when_how_grave_and_each_address_once() {
    let files = Files::new();
    let (tool, port) = start(&files, &echo(), &[]);
    let mut tcp = tcp(port);
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("write");
    let _ = tcp.read_to_end(&mut Vec::new());
    let line = tool.stderr.line(" WARN ");
    let (time, rest) = line.split_once(' ').expect("a time");
    assert_eq!((time.len(), &time[4..5], &time[10..11], &time[23..]), (24, "-", "T", "Z"), "{line}");
    let now = Tool::new(Path::new("date")).args(&["-u", "+%Y-%m-%dT%H"]).feed(b"").end();
    // A run over the full hour is not worth more.
    assert!(time.starts_with(&now.stdout().trim_end()[..10]), "{line} at {now:?}");
    assert_eq!(rest.matches(&tcp.local_addr().expect("address").to_string()).count(), 1, "{line}");
    assert!(tool.stdout.line("listening on").contains(" INFO  listening on 127.0.0.1:"));
}
