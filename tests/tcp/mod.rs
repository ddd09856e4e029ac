//! What programs written for `std::net::TcpStream` rely on, asked of `SslFile`: our own wording of each behaviour that
//! std's TCP tests check, on every engine, over IPv4 and IPv6.

mod default_context;
mod handles;
mod nagle;
#[cfg(unix)]
mod to_server;

use crate::common;

use rustix::fd::{AsFd, AsRawFd};
use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    client_context, engines, has_ipv6, kind_of, loopbacks, pattern, server_context, tls_pair_with, until_busy,
    until_ready, within, LONG, NAME,
};
use sslfile::{Context, Engine, Handshake, PlainFile, SslFile, SslListener, SslOptions, State};

/// A TLS listener on loopback, and what a client needs to reach it.
struct Net {
    engine: Engine,
    addr: SocketAddr,
    listener: SslListener,
    client: Context,
}

impl Net {
    fn new(engine: Engine, ip: impl Into<std::net::IpAddr>) -> Net {
        let listener = SslListener::bind((ip.into(), 0), &server_context(engine)).expect("bind");
        let addr = listener.local_addr().expect("local_addr");
        Net { engine, addr, listener, client: client_context(engine) }
    }

    /// As `SslFile::connect`, but trusting the test CA.
    fn connect(&self) -> SslFile {
        lazy().connect(self.addr, &self.client).expect("connect")
    }

    fn accept(&self) -> SslFile {
        self.listener.accept().expect("accept").0
    }

    /// Both ends, on one thread; nobody has shaken hands yet.
    fn pair(&self) -> (SslFile, SslFile) {
        let client = self.connect();
        (client, self.accept())
    }

    /// Both ends, hands shaken.
    fn open_pair(&self) -> (SslFile, SslFile) {
        let (client, server) = self.pair();
        thread::scope(|t| {
            t.spawn(|| client.handshake().expect("client handshake"));
            server.handshake().expect("server handshake");
        });
        (client, server)
    }
}

fn lazy() -> SslOptions {
    SslFile::options().handshake(Handshake::Lazy)
}

/// Runs the test on each engine over IPv4 and IPv6.
fn each(test: fn(&Net)) {
    within(LONG, move || {
        for engine in engines() {
            loopbacks().into_iter().for_each(|ip| test(&Net::new(engine, ip)));
        }
    });
}

fn read_byte(mut file: &SslFile) -> u8 {
    let mut byte = [0];
    assert_eq!(file.read(&mut byte).expect("read"), 1);
    byte[0]
}

fn write_byte(mut file: &SslFile, byte: u8) {
    assert_eq!(file.write(&[byte]).expect("write"), 1);
}

// ------------------------------------------------------------------------------------------------
// Connecting
// ------------------------------------------------------------------------------------------------

#[test]
fn connects_to_an_address_however_it_is_written() {
    each(|net| {
        let (ip, port) = (net.addr.ip(), net.addr.port());
        let text = net.addr.to_string();
        let host = ip.to_string();
        let clients: [&(dyn Fn() -> io::Result<SslFile> + Sync); 5] = [
            &|| lazy().connect(net.addr, &net.client),
            &|| lazy().connect((ip, port), &net.client),
            &|| lazy().connect((host.as_str(), port), &net.client),
            &|| lazy().connect(text.as_str(), &net.client),
            &|| lazy().connect(text.clone(), &net.client),
        ];
        for connect in clients {
            thread::scope(|t| {
                t.spawn(|| write_byte(&connect().expect("connect"), 66));
                assert_eq!(read_byte(&net.accept()), 66);
            });
        }
    });
}

/// As std does; and no certificate names a link.
#[test]
fn connects_to_an_address_with_a_scope_and_checks_the_address_without_it() {
    if !has_ipv6() {
        return;
    }
    within(LONG, || {
        for engine in engines() {
            let net = Net::new(engine, Ipv6Addr::LOCALHOST);
            let port = net.addr.port();
            let text = format!("[::1%1]:{port}");
            TcpStream::connect(&text).and_then(|_| net.listener.accept()).expect("std's connects");
            let host = "::1%1";
            for connect in [&|| lazy().connect(&text, &net.client), &|| lazy().connect((host, port), &net.client)]
                as [&(dyn Fn() -> io::Result<SslFile> + Sync); 2]
            {
                thread::scope(|t| {
                    t.spawn(|| write_byte(&connect().expect("connect"), 66));
                    assert_eq!(read_byte(&net.accept()), 66);
                });
            }
        }
    });
}

#[test]
fn connects_to_localhost_by_name() {
    within(LONG, || {
        for engine in engines() {
            let net = Net::new(engine, Ipv4Addr::LOCALHOST);
            thread::scope(|t| {
                t.spawn(|| write_byte(&lazy().connect((NAME, net.addr.port()), &net.client).expect("connect"), 144));
                assert_eq!(read_byte(&net.accept()), 144);
            });
        }
    });
}

#[test]
fn std_connect_needs_no_handshake_to_return() {
    each(|net| {
        let file = SslFile::connect(net.addr).expect("connect");
        assert_eq!(file.peer_addr().expect("peer_addr"), net.addr);
        assert_eq!(file.state(), State::Handshaking);
        assert!(!file.is_handshake_done() && !file.is_nonblocking());
        let file = SslFile::connect_timeout(&net.addr, Duration::from_secs(20)).expect("connect_timeout");
        assert_eq!(file.peer_addr().expect("peer_addr"), net.addr);
        assert_eq!(file.state(), State::Handshaking);
    });
}

/// std's `connect` takes no context, so this is about the roots of the system. It has the test CA among them in a process
/// of its own only, to which the environment says so.
#[test]
fn std_connect_trusts_the_roots_of_the_system_and_no_others() {
    const ADDR: &str = "SSLFILE_TEST_ADDR";
    if let Ok(addr) = std::env::var(ADDR) {
        let mut stream = SslFile::connect(addr).expect("connect");
        stream.write_all(b"hello").expect("write_all");
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).expect("read_exact");
        assert_eq!(&echo, b"hello");
        return;
    }
    within(LONG, || {
        let net = Net::new(engines()[0], Ipv4Addr::LOCALHOST);
        let addr = format!("{NAME}:{}", net.addr.port());
        thread::scope(|t| {
            t.spawn(|| (&net.accept()).read(&mut [0]).expect_err("the client refuses us"));
            let error = (&SslFile::connect(addr.as_str()).expect("connect")).write(&[1]).expect_err("unknown CA");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::Certificate), "{error}");
        });
        let mut roots = tempfile::NamedTempFile::new().expect("temporary file");
        roots.write_all(common::certs().ca_pem.as_bytes()).expect("write");
        let roots = roots.path().to_str().expect("path");
        thread::scope(|t| {
            let echo = t.spawn(|| {
                let server = net.accept();
                let mut text = [0; 5];
                (&server).read_exact(&mut text).expect("read");
                (&server).write_all(&text).expect("write");
            });
            let name = "tcp::std_connect_trusts_the_roots_of_the_system_and_no_others";
            let variables = [(ADDR, addr.as_str()), ("SSL_CERT_FILE", roots)];
            common::passes_in_child(name, &variables);
            echo.join().expect("server");
        });
    });
}

#[test]
fn connect_whose_peer_accepts_later_on_the_same_thread() {
    each(|net| {
        let client = net.connect();
        let (server, from) = net.listener.accept().expect("accept");
        assert_eq!(from, client.local_addr().expect("local_addr"));
        thread::scope(|t| {
            t.spawn(|| write_byte(&client, 7));
            assert_eq!(read_byte(&server), 7);
        });
    });
}

#[test]
fn refused_connect_is_connection_refused() {
    within(LONG, || {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind").local_addr().expect("local_addr");
        let error = SslFile::connect(free).expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        let error = SslFile::connect_timeout(&free, Duration::from_secs(20)).expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        for engine in engines() {
            let error = SslFile::options().connect(free, &client_context(engine)).expect_err("nobody listens");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        }
    });
}

#[test]
fn connect_timeout_of_zero_is_refused() {
    each(|net| {
        let error = SslFile::connect_timeout(&net.addr, Duration::ZERO).expect_err("zero");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    });
}

#[test]
fn connect_timeout_bounds_a_connect_nobody_answers() {
    within(LONG, || {
        // A queue for one connection, taken: the kernel drops what else comes.
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("bind");
        listener.listen(0).expect("listen");
        let addr = listener.local_addr().expect("local_addr").as_socket().expect("inet");
        let _taken = TcpStream::connect(addr).expect("connect");
        let (start, limit) = (Instant::now(), Duration::from_millis(300));
        let error = SslFile::connect_timeout(&addr, limit).expect_err("the queue is full");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(start.elapsed() >= limit && start.elapsed() < LONG / 4, "{:?}", start.elapsed());
    });
}

#[test]
fn address_without_port_is_invalid_input() {
    within(LONG, || {
        for text in ["localhost", "", "localhost:", "localhost:port", "localhost:65536"] {
            let error = SslFile::connect(text).expect_err(text);
            assert_eq!(error.kind(), TcpStream::connect(text).expect_err(text).kind(), "{text:?}: {error}");
        }
    });
}

#[test]
fn names_of_both_ends() {
    each(|net| {
        let (client, server) = net.pair();
        assert_eq!(net.listener.local_addr().expect("local_addr"), net.addr);
        assert_eq!(client.peer_addr().expect("peer_addr"), net.addr);
        assert_eq!(server.local_addr().expect("local_addr"), net.addr);
        assert_eq!(client.local_addr().expect("local_addr"), server.peer_addr().expect("peer_addr"));
    });
}

#[test]
fn ten_clients_one_after_the_other() {
    each(|net| {
        thread::scope(|t| {
            t.spawn(|| (0..10).for_each(|i| write_byte(&net.connect(), i)));
            for (i, file) in net.listener.incoming().take(10).enumerate() {
                assert_eq!(read_byte(&file.expect("incoming")), i as u8);
            }
        });
    });
}

#[test]
fn ten_clients_at_once_last_comes_first() {
    each(|net| {
        // All connect before any speaks, and they speak in reverse order.
        let clients: Vec<SslFile> = (0..10).map(|_| net.connect()).collect();
        thread::scope(|t| {
            for (i, file) in net.listener.incoming().take(10).enumerate() {
                t.spawn(move || assert_eq!(read_byte(&file.expect("incoming")), i as u8));
            }
            for (i, client) in clients.iter().enumerate().rev() {
                write_byte(client, i as u8);
            }
        });
    });
}

// ------------------------------------------------------------------------------------------------
// Reading and writing
// ------------------------------------------------------------------------------------------------

#[test]
fn read_gives_what_is_there_and_not_more() {
    each(|net| {
        let (client, server) = net.pair();
        thread::scope(|t| {
            t.spawn(|| {
                write_byte(&server, 10);
                assert_eq!(read_byte(&server), 1);
            });
            assert_eq!((&client).read(&mut [0; 10]).expect("read"), 1);
            write_byte(&client, 1);
        });
    });
}

#[test]
fn read_vectored_fills_buffers_in_order() {
    each(|net| {
        let (client, mut server) = net.open_pair();
        assert_eq!((&client).write(&[10, 11, 12]).expect("write"), 3);
        let (mut a, mut b, mut c) = ([], [0], [0; 3]);
        let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b), IoSliceMut::new(&mut c)];
        // The empty first buffer must not make it look like the end.
        let n = server.read_vectored(&mut bufs).expect("read_vectored");
        assert!((1..=3).contains(&n), "{n}");
        let got: Vec<u8> = b.into_iter().chain(c).collect();
        assert_eq!(got[..n], [10, 11, 12][..n]);
        assert_eq!(server.read_vectored(&mut [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])]).expect("empty"), 0);
    });
}

#[test]
fn write_vectored_sends_buffers_in_order() {
    each(|net| {
        let (mut client, server) = net.open_pair();
        let bufs = [IoSlice::new(&[]), IoSlice::new(&[10]), IoSlice::new(&[11, 12])];
        let n = client.write_vectored(&bufs).expect("write_vectored");
        assert!((1..=3).contains(&n), "{n}");
        let mut got = vec![0; n];
        (&server).read_exact(&mut got).expect("read");
        assert_eq!(got, [10, 11, 12][..n]);
        assert_eq!(client.write_vectored(&[IoSlice::new(&[]), IoSlice::new(&[])]).expect("empty"), 0);
    });
}

#[test]
fn std_io_works_on_it_by_value_and_by_reference() {
    each(|net| {
        let (mut client, server) = net.open_pair();
        let data = pattern(1, 300_000);
        thread::scope(|t| {
            let sent = t.spawn(|| {
                client.write_all(b"one\ntwo\n").expect("write_all");
                io::copy(&mut &data[..], &mut client).expect("copy");
                client.flush().expect("flush");
                client.shutdown(Shutdown::Write).expect("shutdown");
            });
            let mut reader = BufReader::new(&server);
            let mut line = String::new();
            assert_eq!(reader.read_line(&mut line).expect("read_line"), 4);
            assert_eq!(reader.read_line(&mut line).expect("read_line"), 4);
            assert_eq!(line, "one\ntwo\n");
            let mut got = Vec::new();
            assert_eq!(reader.read_to_end(&mut got).expect("read_to_end"), data.len());
            assert!(got == data);
            sent.join().expect("sender");
        });
        let error = (&server).read_exact(&mut [0]).expect_err("nothing is left");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn megabytes_both_ways_at_once() {
    each(|net| {
        let (client, server) = net.pair();
        let (up, down) = (pattern(2, 2 << 20), pattern(3, 3 << 20));
        let read_exactly = |mut file: &SslFile, expected: &[u8]| {
            let mut got = vec![0; expected.len()];
            file.read_exact(&mut got).expect("read_exact");
            assert!(got == expected);
        };
        thread::scope(|t| {
            t.spawn(|| (&client).write_all(&up).expect("up"));
            t.spawn(|| (&server).write_all(&down).expect("down"));
            t.spawn(|| read_exactly(&client, &down));
            t.spawn(|| read_exactly(&server, &up));
        });
    });
}

#[test]
fn peek_shows_without_taking() {
    each(|net| {
        let (client, server) = net.open_pair();
        assert_eq!((&server).write(&[1, 3, 3, 7]).expect("write"), 4);
        let mut buf = [0; 10];
        for _ in 0..3 {
            assert_eq!(client.peek(&mut buf).expect("peek"), 4);
            assert_eq!(buf[..4], [1, 3, 3, 7]);
        }
        assert_eq!(client.peek(&mut buf[..2]).expect("peek"), 2);
        assert_eq!(client.pending(), 4);
        assert_eq!((&client).read(&mut buf).expect("read"), 4);
        assert_eq!(client.pending(), 0);
        client.set_nonblocking(true).expect("set_nonblocking");
        assert_eq!(client.peek(&mut buf).expect_err("nothing there").kind(), ErrorKind::WouldBlock);
        client.set_nonblocking(false).expect("set_nonblocking");
        server.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(client.peek(&mut buf).expect("peek at the end"), 0);
        assert_eq!((&client).read(&mut buf).expect("read at the end"), 0);
    });
}

#[test]
fn blocking_peek_waits_for_the_first_byte() {
    each(|net| {
        let (client, server) = net.pair();
        thread::scope(|t| {
            let peeked = t.spawn(|| client.peek(&mut [0; 4]).expect("peek"));
            server.handshake().expect("handshake");
            until_busy(&client);
            write_byte(&server, 1);
            assert_eq!(peeked.join().expect("peeker"), 1);
        });
        assert_eq!(read_byte(&client), 1);
    });
}

// ------------------------------------------------------------------------------------------------
// The peer leaves
// ------------------------------------------------------------------------------------------------

#[test]
fn client_that_leaves_without_a_word_is_the_end_and_stays_it() {
    each(|net| {
        let (client, server) = net.pair();
        drop(client);
        assert_eq!((&server).read(&mut [0]).expect("read"), 0);
        assert_eq!((&server).read(&mut [0]).expect("read again"), 0);
        assert_eq!(server.peek(&mut [0]).expect("peek"), 0);
    });
}

#[test]
fn bare_tcp_client_that_leaves_without_a_word_is_the_end_too() {
    each(|net| {
        drop(TcpStream::connect(net.addr).expect("connect"));
        let server = net.accept();
        assert_eq!((&server).read(&mut [0]).expect("read"), 0);
        assert_eq!((&server).read(&mut [0]).expect("read again"), 0);
    });
}

#[test]
fn to_a_client_an_end_without_a_word_is_a_cut_and_stays_it() {
    each(|net| {
        let listener = TcpListener::bind((net.addr.ip(), 0)).expect("bind");
        let client = lazy()
            .connect(listener.local_addr().expect("local_addr"), &net.client)
            .expect("connect to the bare listener");
        thread::scope(|t| {
            t.spawn(|| {
                // It reads the hello, so that what comes is FIN and not RST.
                let (mut bare, _) = listener.accept().expect("accept");
                assert_ne!(bare.read(&mut [0; 1 << 14]).expect("hello"), 0);
            });
            for _ in 0..2 {
                let error = (&client).read(&mut [0]).expect_err("an end that anyone could have forged");
                assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
                assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::Truncated), "{error}");
            }
        });
    });
}

#[test]
fn write_to_a_client_that_left_fails_as_on_tcp() {
    each(|net| {
        let (client, server) = net.pair();
        drop(client);
        let error = (&server).write(&[0]).expect_err("no handshake can have been");
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::ConnectionAborted];
        assert!(kinds.contains(&error.kind()), "{:?}: {error}", error.kind());
    });
}

#[test]
fn what_was_written_before_a_drop_arrives() {
    each(|net| {
        let (client, server) = net.pair();
        thread::scope(|t| {
            t.spawn(move || {
                (&client).write_all(&[9; 40_000]).expect("write_all");
                drop(client);
            });
            let mut got = Vec::new();
            (&server).read_to_end(&mut got).expect("clean end");
            assert_eq!(got, [9; 40_000]);
        });
    });
}

// ------------------------------------------------------------------------------------------------
// Options
// ------------------------------------------------------------------------------------------------

#[test]
fn socket_options_are_those_of_the_socket() {
    each(|net| {
        let client = net.connect();
        let tcp = client.get_ref().try_clone().expect("the socket itself");
        assert!(!client.nodelay().expect("nodelay"));
        client.set_nodelay(true).expect("set_nodelay");
        assert!(client.nodelay().expect("nodelay") && tcp.nodelay().expect("nodelay"));
        client.set_nodelay(false).expect("set_nodelay");
        assert!(!client.nodelay().expect("nodelay"));

        if net.addr.is_ipv4() {
            client.set_ttl(100).expect("set_ttl");
            assert_eq!((client.ttl().expect("ttl"), tcp.ttl().expect("ttl")), (100, 100));
        }

        assert_eq!(client.linger().expect("linger"), None);
        client.set_linger(Some(Duration::from_secs(1))).expect("set_linger");
        assert_eq!(client.linger().expect("linger"), Some(Duration::from_secs(1)));
        client.set_linger(None).expect("set_linger");
        assert_eq!(client.linger().expect("linger"), None);

        assert!(client.take_error().expect("take_error").is_none());
        assert_eq!(client.as_raw_fd(), client.get_ref().as_raw_fd());
        assert_eq!(client.as_fd().as_raw_fd(), client.as_raw_fd());
        assert_eq!(client.try_clone().expect("try_clone").as_raw_fd(), client.as_raw_fd());
    });
}

#[test]
fn timeouts_are_kept_and_shared_by_clones() {
    each(|net| {
        let client = net.connect();
        let clone = client.try_clone().expect("try_clone");
        let long = Duration::new(15410, 0);
        assert_eq!((client.read_timeout().expect("get"), client.write_timeout().expect("get")), (None, None));
        client.set_read_timeout(Some(long)).expect("set");
        assert_eq!((clone.read_timeout().expect("get"), clone.write_timeout().expect("get")), (Some(long), None));
        client.set_write_timeout(Some(long)).expect("set");
        assert_eq!((clone.read_timeout().expect("get"), clone.write_timeout().expect("get")), (Some(long), Some(long)));
        clone.set_read_timeout(None).expect("set");
        clone.set_write_timeout(None).expect("set");
        assert_eq!((client.read_timeout().expect("get"), client.write_timeout().expect("get")), (None, None));
    });
}

#[test]
fn mode_and_timeouts_of_a_stream_are_taken_over_and_put_back() {
    each(|net| {
        let (one, two) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(2)));
        let tcp = TcpStream::connect(net.addr).expect("connect");
        tcp.set_nonblocking(true).expect("set_nonblocking");
        tcp.set_read_timeout(one).expect("set");
        tcp.set_write_timeout(two).expect("set");
        let mut options = SslFile::options().client(NAME);
        // Windows does not tell a stream's mode.
        if cfg!(windows) {
            options = options.nonblocking(true);
        }
        let file = options.open(tcp, &net.client).expect("open");
        assert!(file.is_nonblocking());
        assert_eq!((file.read_timeout().expect("get"), file.write_timeout().expect("get")), (one, two));
        file.set_nonblocking(false).expect("set_nonblocking");
        file.set_read_timeout(Some(LONG)).expect("set");
        file.set_write_timeout(None).expect("set");
        let server = net.accept();
        thread::scope(|t| {
            t.spawn(|| write_byte(&server, 1));
            assert_eq!(read_byte(&file), 1);
        });
        let (mut tcp, _) = file.release().expect("release");
        assert_eq!((tcp.read_timeout().expect("get"), tcp.write_timeout().expect("get")), (one, two));
        if cfg!(windows) {
            // And there it is given back blocking.
            tcp.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
            assert_eq!(tcp.read(&mut [0; 1000]).expect_err("nothing there").kind(), ErrorKind::TimedOut);
            return;
        }
        assert_eq!(tcp.read(&mut [0; 1000]).expect_err("nothing there").kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn zero_timeouts_are_refused_and_change_nothing() {
    each(|net| {
        let client = net.connect();
        client.set_read_timeout(Some(LONG)).expect("set");
        let error = client.set_read_timeout(Some(Duration::ZERO)).expect_err("zero");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let error = client.set_write_timeout(Some(Duration::ZERO)).expect_err("zero");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_eq!((client.read_timeout().expect("get"), client.write_timeout().expect("get")), (Some(LONG), None));
    });
}

#[test]
fn read_times_out_when_the_data_is_used_up() {
    each(|net| {
        let (client, server) = net.open_pair();
        let limit = Duration::from_millis(200);
        client.set_read_timeout(Some(limit)).expect("set_read_timeout");
        (&server).write_all(b"hello world").expect("write");
        let mut buf = [0; 11];
        (&client).read_exact(&mut buf).expect("read_exact");
        assert_eq!(&buf, b"hello world");
        let start = Instant::now();
        let error = (&client).read_exact(&mut buf).expect_err("nothing comes");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
    });
}

#[test]
fn debug_names_type_and_state() {
    each(|net| {
        let (client, _server) = net.open_pair();
        let text = format!("{client:?}");
        assert!(text.contains("SslFile") && text.contains("Open"), "{text}");
        assert!(format!("{:?}", net.listener).contains("SslListener"));
    });
}

// ------------------------------------------------------------------------------------------------
// Non-blocking
// ------------------------------------------------------------------------------------------------

#[test]
fn nonblocking_read_before_anyone_accepted_would_block() {
    each(|net| {
        let client = net.connect();
        client.set_nonblocking(false).expect("set_nonblocking");
        client.set_nonblocking(true).expect("set_nonblocking");
        assert_eq!((&client).read(&mut [0]).expect_err("too early").kind(), ErrorKind::WouldBlock);
        assert_eq!(client.peek(&mut [0]).expect_err("too early").kind(), ErrorKind::WouldBlock);
        assert_eq!((&client).write(&[1]).expect_err("too early").kind(), ErrorKind::WouldBlock);
        let server = net.accept();
        thread::scope(|t| {
            t.spawn(|| {
                assert_eq!(read_byte(&server), 1);
                write_byte(&server, 2);
            });
            assert_eq!(until_ready(&client, || (&client).write(&[1])).expect("write"), 1);
            let mut buf = [0; 2];
            assert_eq!(until_ready(&client, || (&client).read(&mut buf)).expect("read"), 1);
            assert_eq!(buf[0], 2);
        });
    });
}

#[cfg(unix)]
#[test]
fn a_client_that_polls_for_input_alone_hears_a_server_that_speaks_first() {
    use rustix::event::{poll, PollFd, PollFlags, Timespec};
    each(|net| {
        let client = net.connect();
        client.set_nonblocking(true).expect("set_nonblocking");
        let server = net.accept();
        thread::scope(|t| {
            t.spawn(|| write_byte(&server, b'2'));
            let mut buf = [0; 2];
            let read = loop {
                let limit = Timespec { tv_sec: LONG.as_secs() as i64, tv_nsec: 0 };
                let ready = poll(&mut [PollFd::new(&client, PollFlags::IN)], Some(&limit)).expect("poll");
                assert_ne!(ready, 0, "the server has heard nothing");
                match (&client).read(&mut buf) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    other => break other,
                }
            };
            assert_eq!((read.expect("read"), buf[0]), (1, b'2'));
        });
    });
}

#[test]
fn both_ends_on_one_thread_when_neither_blocks() {
    each(|net| {
        let (client, server) = net.pair();
        let (data, mut got, mut sent) = (pattern(4, 1 << 20), Vec::new(), 0);
        client.set_nonblocking(true).expect("set_nonblocking");
        server.set_nonblocking(true).expect("set_nonblocking");
        let mut buf = [0; 10_000];
        while got.len() < data.len() {
            let wrote = if sent < data.len() { (&client).write(&data[sent..]) } else { (&client).flush().map(|()| 0) };
            match wrote {
                Ok(n) => sent += n,
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
            }
            match (&server).read(&mut buf) {
                Ok(n) => got.extend_from_slice(&buf[..n]),
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
            }
            // The client's part in the handshake and its answers to the server need a read now and then.
            if let Err(e) = (&client).read(&mut buf) {
                assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
            }
        }
        assert!(got == data);
    });
}

#[test]
fn mode_belongs_to_the_connection_and_changes_under_a_blocked_reader() {
    each(|net| {
        let (client, server) = net.open_pair();
        let clone = client.try_clone().expect("try_clone");
        thread::scope(|t| {
            let read = t.spawn(|| read_byte(&clone));
            until_busy(&client);
            client.set_nonblocking(true).expect("set_nonblocking");
            assert!(clone.is_nonblocking());
            assert_eq!((&client).read(&mut [0]).expect_err("nothing there").kind(), ErrorKind::WouldBlock);
            client.set_nonblocking(false).expect("set_nonblocking");
            assert!(!read.is_finished());
            write_byte(&server, 8);
            assert_eq!(read.join().expect("reader"), 8);
        });
        assert!(!clone.is_nonblocking());
    });
}

// ------------------------------------------------------------------------------------------------
// Types
// ------------------------------------------------------------------------------------------------

/// A program that names std's type and compiles with ours in its place: every stable method that means something.
#[allow(dead_code)]
fn compiles_with_our_type_in_the_place_of_stds(addr: SocketAddr) -> io::Result<()> {
    use sslfile::SslFile as TcpStream;
    fn traits<T>(_: &T)
    where
        T: Read + Write + std::fmt::Debug + Send + Sync + AsFd + AsRawFd + Unpin + UnwindSafe + RefUnwindSafe + 'static,
    {
    }
    fn by_reference<'a, T>(_: &'a T)
    where
        &'a T: Read + Write,
    {
    }
    let stream: TcpStream = TcpStream::connect("localhost:443")?;
    let _ = TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
    traits(&stream);
    by_reference(&stream);
    let _: (SocketAddr, SocketAddr) = (stream.peer_addr()?, stream.local_addr()?);
    let _: TcpStream = stream.try_clone()?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    let _: (Option<Duration>, Option<Duration>) = (stream.read_timeout()?, stream.write_timeout()?);
    let _: usize = stream.peek(&mut [0])?;
    stream.set_nodelay(true)?;
    let _: bool = stream.nodelay()?;
    stream.set_ttl(64)?;
    let _: u32 = stream.ttl()?;
    let _: Option<io::Error> = stream.take_error()?;
    stream.set_nonblocking(false)?;
    stream.shutdown(Shutdown::Both)
}

#[test]
fn engine_is_the_one_asked_for() {
    each(|net| {
        let (client, server) = net.pair();
        assert_eq!((client.context().engine(), server.context().engine()), (net.engine, net.engine));
    });
}
