//! `SslListener` behaves as std's `TcpListener`, and no client can stop its accept loop.

mod options;

use crate::common;

use rustix::fd::{AsFd, AsRawFd};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    certs, client_context, engines, kind_of, loopbacks, pattern, server_builder, server_context, within, LONG, NAME,
};
use sslfile::{Context, Engine, ErrorKind as Kind, Handshake, SslFile, SslListener, State};

fn bind(ip: IpAddr, engine: Engine) -> SslListener {
    SslListener::bind((ip, 0), &server_context(engine)).expect("bind")
}

/// Runs the test on each engine over IPv4 and IPv6.
fn each(test: fn(Engine, IpAddr)) {
    within(LONG, move || {
        for engine in engines() {
            for ip in loopbacks() {
                test(engine, ip);
            }
        }
    });
}

/// A client that shakes hands at once, on a thread of its own since the listener's end is ours.
fn echo_client(addr: SocketAddr, context: &Context, name: &str, text: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = SslFile::options().client(name).connect(addr, context)?;
    file.write_all(text)?;
    file.shutdown(Shutdown::Write)?;
    let mut echo = Vec::new();
    file.read_to_end(&mut echo)?;
    Ok(echo)
}

fn echo(mut file: &SslFile) -> io::Result<u64> {
    let mut data = Vec::new();
    file.read_to_end(&mut data)?;
    file.write_all(&data)?;
    file.close()?;
    Ok(data.len() as u64)
}

// ------------------------------------------------------------------------------------------------
// As std's listener
// ------------------------------------------------------------------------------------------------

#[test]
fn accept_returns_with_the_tcp_connection_and_its_address() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let client = TcpStream::connect(listener.local_addr().expect("local_addr")).expect("connect");
        let (file, from) = listener.accept().expect("accept");
        assert_eq!(from, client.local_addr().expect("local_addr"));
        assert_eq!(file.peer_addr().expect("peer_addr"), from);
        assert_eq!((file.state(), file.is_nonblocking()), (State::Handshaking, false));
    });
}

#[test]
fn an_accepted_file_echoes() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        thread::scope(|t| {
            let client = t.spawn(move || echo_client(addr, &client_context(engine), NAME, b"hello").expect("client"));
            assert_eq!(echo(&listener.accept().expect("accept").0).expect("server"), 5);
            assert_eq!(client.join().expect("client"), b"hello");
        });
    });
}

#[test]
fn from_tcp_takes_a_listener_that_is_bound() {
    each(|engine, ip| {
        let tcp = TcpListener::bind((ip, 0)).expect("bind");
        let (addr, fd) = (tcp.local_addr().expect("local_addr"), tcp.as_raw_fd());
        let listener = SslListener::from_tcp(tcp, &server_context(engine)).expect("from_tcp");
        assert_eq!(listener.local_addr().expect("local_addr"), addr);
        assert_eq!(listener.as_fd().as_raw_fd(), fd);
        assert_eq!(listener.context().engine(), engine);
        let _client = TcpStream::connect(addr).expect("connect");
        listener.accept().expect("accept");
    });
}

#[test]
fn bind_to_a_foreign_address_fails_as_std_does() {
    each(|engine, _| {
        let error = SslListener::bind("1.1.1.1:9999", &server_context(engine)).expect_err("not ours");
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{error}");
    });
}

#[test]
fn a_port_is_bound_once() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        let error = SslListener::bind(addr, &server_context(engine)).expect_err("in use");
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    });
}

#[test]
fn a_port_can_be_bound_again_at_once() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        thread::scope(|t| {
            let client = t.spawn(move || echo_client(addr, &client_context(engine), NAME, b"x").expect("client"));
            // Our end closes first, so that the connection stays behind in TIME_WAIT.
            let file = listener.accept().expect("accept").0;
            file.set_linger(None).expect("set_linger");
            echo(&file).expect("server");
            client.join().expect("client");
        });
        drop(listener);
        let again = SslListener::bind(addr, &server_context(engine)).expect("bind again");
        assert_eq!(again.local_addr().expect("local_addr"), addr);
    });
}

#[test]
fn debug_shows_what_stds_does() {
    each(|engine, ip| {
        let tcp = TcpListener::bind((ip, 0)).expect("bind");
        let expected = format!("{tcp:?}").replace("TcpListener", "SslListener");
        let listener = SslListener::from_tcp(tcp, &server_context(engine)).expect("from_tcp");
        assert_eq!(format!("{listener:?}"), expected);
    });
}

#[test]
fn clones_accept_from_the_same_queue() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let clone = listener.try_clone().expect("try_clone");
        let addr = listener.local_addr().expect("local_addr");
        assert_eq!(clone.local_addr().expect("local_addr"), addr);
        // One after the other, then both waiting at once.
        let (one, two) = (TcpStream::connect(addr).expect("connect"), TcpStream::connect(addr).expect("connect"));
        assert_eq!(listener.accept().expect("accept").1, one.local_addr().expect("local_addr"));
        assert_eq!(clone.accept().expect("accept").1, two.local_addr().expect("local_addr"));
        thread::scope(|t| {
            let (accepted, results) = channel();
            for handle in [&listener, &clone] {
                let accepted = accepted.clone();
                t.spawn(move || accepted.send(handle.accept().expect("accept").1).expect("send"));
            }
            let clients = [TcpStream::connect(addr).expect("connect"), TcpStream::connect(addr).expect("connect")];
            let mut expected = clients.map(|c| c.local_addr().expect("local_addr"));
            let mut got = [results.recv().expect("first"), results.recv().expect("second")];
            expected.sort();
            got.sort();
            assert_eq!(got, expected);
        });
    });
}

#[test]
fn incoming_gives_files_one_by_one_without_end() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        let mut incoming = listener.incoming();
        for _ in 0..3 {
            let client = TcpStream::connect(addr).expect("connect");
            let file = incoming.next().expect("never ends").expect("incoming");
            assert_eq!(file.peer_addr().expect("peer_addr"), client.local_addr().expect("local_addr"));
        }
    });
}

#[test]
fn nonblocking_accept_would_block_and_then_gives_a_blocking_file() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let clone = listener.try_clone().expect("try_clone");
        listener.set_nonblocking(true).expect("set_nonblocking");
        for handle in [&listener, &clone] {
            assert_eq!(handle.accept().expect_err("nobody").kind(), ErrorKind::WouldBlock);
        }
        assert_eq!(clone.incoming().next().expect("never ends").expect_err("nobody").kind(), ErrorKind::WouldBlock);
        let addr = listener.local_addr().expect("local_addr");
        thread::scope(|t| {
            let client = t.spawn(move || echo_client(addr, &client_context(engine), NAME, b"hello").expect("client"));
            let file = loop {
                match clone.accept() {
                    Ok((file, _)) => break file,
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
                }
                thread::sleep(Duration::from_millis(1));
            };
            assert!(!file.is_nonblocking());
            assert_eq!(echo(&file).expect("server"), 5);
            assert_eq!(client.join().expect("client"), b"hello");
        });
        clone.set_nonblocking(false).expect("set_nonblocking");
        let _client = TcpStream::connect(addr).expect("connect");
        listener.accept().expect("accept");
    });
}

#[test]
fn socket_options_of_the_listener() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        if ip.is_ipv4() {
            listener.set_ttl(100).expect("set_ttl");
            assert_eq!(listener.ttl().expect("ttl"), 100);
            assert_eq!(listener.try_clone().expect("try_clone").ttl().expect("ttl"), 100);
        }
        assert!(listener.take_error().expect("take_error").is_none());
    });
}

// ------------------------------------------------------------------------------------------------
// What std's has not
// ------------------------------------------------------------------------------------------------

#[test]
fn close_wakes_every_blocked_accept_and_frees_the_port_but_no_file() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        let clone = listener.try_clone().expect("try_clone");
        thread::scope(|t| {
            let client = t.spawn(move || {
                let mut file = SslFile::options().client(NAME).connect(addr, &client_context(engine)).expect("client");
                file.read_exact(&mut [0]).expect("what the server says after the listener's end");
            });
            let (file, _) = listener.accept().expect("accept");
            file.handshake().expect("handshake");
            let (started, starts) = channel();
            let accepts: Vec<_> = [&listener, &clone]
                .map(|handle| {
                    let started = started.clone();
                    t.spawn(move || {
                        started.send(()).expect("send");
                        handle.accept().expect_err("woken").kind()
                    })
                })
                .into();
            starts.iter().take(2).for_each(drop);
            // They are about to accept; whether they already wait must make no difference.
            thread::sleep(Duration::from_millis(30));
            listener.close();
            for accept in accepts {
                accept.join().expect("accepter");
            }
            common::assert_refused(addr);
            clone.accept().expect_err("closed for every handle");
            assert!(!matches!(clone.incoming().next(), Some(Ok(_))));
            clone.close();
            (&file).write_all(&[1]).expect("accepted files live on");
            client.join().expect("client");
        });
        if cfg!(unix) {
            SslListener::bind(addr, &server_context(engine)).expect("the port is free while handles live");
        }
    });
}

#[test]
fn set_context_is_for_connections_accepted_from_now_on() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let clone = listener.try_clone().expect("try_clone");
        let addr = listener.local_addr().expect("local_addr");
        let other = server_builder(engine).identity(certs().other_name.identity()).build().expect("context");
        let context = client_context(engine);
        thread::scope(|t| {
            let context = &context;
            let client =
                |name: &'static str| t.spawn(move || echo_client(addr, context, name, b"hi").map_err(|e| kind_of(&e)));
            let before = client(NAME);
            // Accepted but not yet shaken when the context changes.
            let (file, _) = listener.accept().expect("accept");
            clone.set_context(&other);
            echo(&file).expect("server");
            assert_eq!(before.join().expect("client"), Ok(b"hi".to_vec()));

            let new = client("wrong.example");
            echo(&listener.accept().expect("accept").0).expect("server");
            assert_eq!(new.join().expect("client"), Ok(b"hi".to_vec()));

            let stale = client(NAME);
            echo(&listener.accept().expect("accept").0).expect_err("the client refuses the other name");
            assert_eq!(stale.join().expect("client"), Err(Some(Kind::HostnameMismatch)));
        });
    });
}

#[test]
fn handshake_timeout_of_the_listener_is_for_its_files() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let limit = Duration::from_millis(300);
        listener.set_handshake_timeout(Some(limit));
        let _silent = TcpStream::connect(listener.local_addr().expect("local_addr")).expect("connect");
        let (file, _) = listener.accept().expect("accept");
        let start = Instant::now();
        let error = (&file).read(&mut [0]).expect_err("silent");
        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::TimedOut, Some(Kind::TimedOut)), "{error}");
        assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
        assert_eq!(file.state(), State::Failed);
    });
}

// ------------------------------------------------------------------------------------------------
// The accept loop cannot be stopped
// ------------------------------------------------------------------------------------------------

/// A plain accept loop, a thread for each file, that reports what became of each client.
fn serve(listener: SslListener) -> Receiver<(SocketAddr, io::Result<u64>)> {
    let (report, reports) = channel();
    thread::spawn(move || {
        while let Ok((file, from)) = listener.accept() {
            let report = report.clone();
            thread::spawn(move || {
                let outcome = echo(&file);
                drop(file);
                let _ = report.send((from, outcome));
            });
        }
    });
    reports
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    Silent,
    HalfAHello,
    Http,
    Garbage,
    Gone,
}

const HTTP: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n";
const GARBAGE: &[u8] = &[0xde, 0xad, 0xbe, 0xef, 0x00, 0x01, 0x02, 0x03, 0xff, 0xfe, 0xfd, 0xfc];
/// The start of a record that announces a ClientHello of 512 bytes.
const HALF_A_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

impl Bad {
    const ALL: [Bad; 5] = [Bad::Silent, Bad::HalfAHello, Bad::Http, Bad::Garbage, Bad::Gone];

    fn connect(self, addr: SocketAddr) -> TcpStream {
        let mut tcp = TcpStream::connect(addr).expect("connect");
        match self {
            Bad::Silent => {}
            Bad::HalfAHello => tcp.write_all(HALF_A_HELLO).expect("write"),
            Bad::Http => tcp.write_all(HTTP).expect("write"),
            Bad::Garbage => tcp.write_all(GARBAGE).expect("write"),
            Bad::Gone => tcp.shutdown(Shutdown::Both).expect("shutdown"),
        }
        tcp
    }
}

#[test]
fn good_clients_behind_bad_ones_are_served_at_once() {
    each(|engine, ip| {
        const ROUNDS: usize = 5;
        let listener = bind(ip, engine);
        let handle = listener.try_clone().expect("try_clone");
        let addr = listener.local_addr().expect("local_addr");
        // All of them are in the queue, or accepted, before the first good one comes, and stay to the end.
        let bad: Vec<TcpStream> = (0..ROUNDS).flat_map(|_| Bad::ALL.map(|bad| bad.connect(addr))).collect();
        let reports = serve(listener);
        let context = client_context(engine);
        let start = Instant::now();
        for i in 0..ROUNDS {
            let text = pattern(i as u64, 1000);
            assert!(echo_client(addr, &context, NAME, &text).expect("good client") == text);
        }
        // Long before the 30 seconds after which the silent ones are given up.
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        let mut good = 0;
        // The silent and the half are still waited for.
        for _ in 0..ROUNDS * (1 + Bad::ALL.len() - 2) {
            let (from, outcome) = reports.recv_timeout(LONG).expect("report");
            match bad.iter().position(|tcp| tcp.local_addr().ok() == Some(from)) {
                None => good += (outcome.expect("good client") == 1000) as usize,
                Some(i) => match Bad::ALL[i % Bad::ALL.len()] {
                    Bad::Gone => assert_eq!(outcome.expect("an end before the first byte is no error"), 0),
                    Bad::Http | Bad::Garbage => assert_eq!(kind_of(&outcome.expect_err("bad")), Some(Kind::NotTls)),
                    which => panic!("{which:?} must still be waited for, and was: {outcome:?}"),
                },
            }
        }
        assert_eq!(good, ROUNDS);
        handle.close();
    });
}

/// What a bad client gets, and what the server is told.
fn meet(engine: Engine, ip: IpAddr, bad: &[u8], piece: usize) -> (Vec<u8>, io::Error) {
    let listener = bind(ip, engine);
    let addr = listener.local_addr().expect("local_addr");
    thread::scope(|t| {
        let client = t.spawn(move || {
            let mut tcp = TcpStream::connect(addr).expect("connect");
            tcp.set_nodelay(true).expect("nodelay");
            // The server may have seen enough, and left, before the last piece.
            let _ = bad.chunks(piece).try_for_each(|piece| tcp.write_all(piece));
            let mut answer = Vec::new();
            let _ = tcp.read_to_end(&mut answer);
            answer
        });
        let (file, _) = listener.accept().expect("accept");
        let error = (&file).read(&mut [0]).expect_err("this was no TLS");
        let again = (&file).write(&[0]).expect_err("it is final");
        assert_eq!((again.kind(), kind_of(&again)), (error.kind(), kind_of(&error)), "{again}");
        assert_eq!(again.to_string(), error.to_string());
        assert_eq!(file.state(), State::Failed);
        drop(file);
        (client.join().expect("client"), error)
    })
}

/// One fatal alert in the clear, and nothing else.
fn assert_alert(answer: &[u8]) {
    assert_eq!(answer.len(), 7, "{answer:x?}");
    assert_eq!(answer[..2], [0x15, 0x03], "{answer:x?}");
    assert_eq!(answer[3..6], [0x00, 0x02, 0x02], "{answer:x?}");
}

#[test]
fn http_gets_an_alert_and_the_error_says_so() {
    each(|engine, ip| {
        let (answer, error) = meet(engine, ip, HTTP, HTTP.len());
        assert_alert(&answer);
        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::InvalidData, Some(Kind::NotTls)), "{error}");
        let text = error.to_string();
        assert!(text.contains(&ip.to_string()), "who did that? {text}");
        assert!(text.contains("GET /") || hex_digits(&text).contains("474554202f"), "{text}");
    });
}

#[test]
fn garbage_gets_an_alert_and_the_error_shows_the_bytes() {
    each(|engine, ip| {
        let (answer, error) = meet(engine, ip, GARBAGE, GARBAGE.len());
        assert_alert(&answer);
        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::InvalidData, Some(Kind::NotTls)), "{error}");
        assert!(hex_digits(&error.to_string()).contains("deadbeef"), "{error}");
    });
}

#[test]
fn http_and_garbage_byte_by_byte_are_no_different() {
    each(|engine, ip| {
        for bad in [HTTP, GARBAGE] {
            let (_, error) = meet(engine, ip, bad, 1);
            assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::InvalidData, Some(Kind::NotTls)), "{error}");
        }
    });
}

#[test]
fn garbage_inside_a_record_is_an_error_of_the_protocol() {
    each(|engine, ip| {
        // A handshake record whose content is no ClientHello.
        let mut record = vec![0x16, 0x03, 0x01, 0x00, 0x20];
        record.extend([0xaa; 0x20]);
        let (answer, error) = meet(engine, ip, &record, record.len());
        assert_alert(&answer);
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        assert!(matches!(kind_of(&error), Some(Kind::Protocol | Kind::LocalAlert(_))), "{:?}", kind_of(&error));
    });
}

/// A text without what people put around hexadecimal digits.
fn hex_digits(text: &str) -> String {
    text.to_lowercase().replace("\\x", "").replace("0x", "").replace([' ', ',', ':', '[', ']'], "")
}

#[test]
fn a_client_that_ends_before_its_first_byte_is_the_end() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        for half in [Shutdown::Write, Shutdown::Both] {
            let tcp = TcpStream::connect(addr).expect("connect");
            tcp.shutdown(half).expect("shutdown");
            let (file, _) = listener.accept().expect("accept");
            for _ in 0..2 {
                assert_eq!((&file).read(&mut [0]).expect("the end, and no error"), 0, "{half:?}");
            }
        }
    });
}

#[test]
fn a_client_that_ends_inside_its_hello_is_a_cut() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        for n in 1..=HALF_A_HELLO.len() {
            let mut tcp = TcpStream::connect(addr).expect("connect");
            tcp.write_all(&HALF_A_HELLO[..n]).expect("write");
            tcp.shutdown(Shutdown::Write).expect("shutdown");
            let (file, _) = listener.accept().expect("accept");
            let error = (&file).read(&mut [0]).expect_err("cut");
            assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::BrokenPipe, Some(Kind::Truncated)), "{n}: {error}");
        }
    });
}

#[test]
fn a_client_that_resets_before_it_is_accepted_stops_nothing() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        for said in [&b""[..], HALF_A_HELLO] {
            let mut tcp = TcpStream::connect(addr).expect("connect");
            tcp.write_all(said).expect("write");
            socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).expect("linger");
            drop(tcp);
            let (file, _) = listener.accept().expect("accept");
            let error = (&file).read(&mut [0]).expect_err("reset");
            assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::ConnectionReset, Some(Kind::Truncated)), "{error}");
        }
        thread::scope(|t| {
            let client = t.spawn(move || echo_client(addr, &client_context(engine), NAME, b"hello").expect("client"));
            assert_eq!(echo(&listener.accept().expect("accept").0).expect("server"), 5);
            assert_eq!(client.join().expect("client"), b"hello");
        });
    });
}

#[test]
fn close_meets_an_accept_at_any_moment() {
    each(|engine, ip| {
        let context = server_context(engine);
        for i in 0..50 {
            let listener = SslListener::bind((ip, 0), &context).expect("bind");
            thread::scope(|t| {
                let accept = t.spawn(|| listener.accept().map(drop).expect_err("closed").kind());
                (0..i * 200).for_each(|_| std::hint::spin_loop());
                listener.close();
                assert_eq!(accept.join().expect("accepter"), ErrorKind::NotConnected);
            });
        }
    });
}

#[test]
fn a_bad_client_takes_no_time_from_a_nonblocking_server() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        let _silent = Bad::Silent.connect(addr);
        let (silent, _) = listener.accept().expect("accept");
        silent.set_nonblocking(true).expect("set_nonblocking");
        for _ in 0..3 {
            assert_eq!((&silent).read(&mut [0]).expect_err("silent").kind(), ErrorKind::WouldBlock);
            assert_eq!(silent.handshake().expect_err("silent").kind(), ErrorKind::WouldBlock);
        }
        assert_eq!(silent.state(), State::Handshaking);

        let _http = Bad::Http.connect(addr);
        let (http, _) = listener.accept().expect("accept");
        http.set_nonblocking(true).expect("set_nonblocking");
        let error = common::until_ready(&http, || (&http).read(&mut [0])).expect_err("HTTP");
        assert_eq!(kind_of(&error), Some(Kind::NotTls), "{error}");
    });
}

#[test]
fn a_client_of_plain_text_servers_is_told_what_it_met() {
    each(|engine, ip| {
        let listener = TcpListener::bind((ip, 0)).expect("bind");
        let addr = listener.local_addr().expect("local_addr");
        thread::scope(|t| {
            let server = t.spawn(|| {
                let (mut tcp, _) = listener.accept().expect("accept");
                tcp.write_all(b"220 mail.example.com ESMTP\r\n").expect("greeting");
                let mut rest = Vec::new();
                let _ = tcp.read_to_end(&mut rest);
                rest
            });
            let client =
                SslFile::options().handshake(Handshake::Lazy).connect(addr, &client_context(engine)).expect("connect");
            let error = (&client).read(&mut [0]).expect_err("plain text");
            assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::InvalidData, Some(Kind::NotTls)), "{error}");
            let text = error.to_string();
            assert!(text.contains("220 mail") || hex_digits(&text).contains("323230206d"), "{text}");
            drop(client);
            let sent = server.join().expect("server");
            assert_alert(&sent[sent.len().saturating_sub(7)..]);
        });
    });
}
