//! Nothing that was accepted is lost, however the connection ends; and no end waits for ever.
//!
//! The peers are a bare TLS library, which sends its TLS 1.3 tickets whether anybody reads them or not.

use crate::common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::bare::{self, Bare};
use common::{client_context, engines, kind_of, pattern, server_context, tcp_pair, within, LONG, NAME};
use sslfile::{Engine, SslFile, SslOptions, State, Version};

const VERSIONS: [Version; 2] = [Version::Tls1_2, Version::Tls1_3];
/// What a call may take on a machine that does other things as well, where it should take a fraction of a second.
const AT_MOST: Duration = Duration::from_secs(8);

fn bare_server<S: Read + Write>(stream: S, version: Version) -> Bare<S> {
    bare::server(stream, version..=version).expect("accept")
}

/// A file as client of a bare server.
fn client_of(engine: Engine, version: Version, options: SslOptions) -> (SslFile, Bare<TcpStream>) {
    client_on(tcp_pair(), engine, version, options)
}

/// The same between small buffers of fixed size: the system takes little, and does not begin to take more while one waits.
fn narrow_client_of(engine: Engine, version: Version, options: SslOptions) -> (SslFile, Bare<TcpStream>) {
    let (c, s) = tcp_pair();
    socket2::SockRef::from(&c).set_send_buffer_size(16 << 10).expect("buffer");
    socket2::SockRef::from(&s).set_recv_buffer_size(16 << 10).expect("buffer");
    client_on((c, s), engine, version, options)
}

fn client_on(
    (c, s): (TcpStream, TcpStream),
    engine: Engine,
    version: Version,
    options: SslOptions,
) -> (SslFile, Bare<TcpStream>) {
    thread::scope(|t| {
        let server = t.spawn(move || bare_server(s, version));
        let file = options.client(NAME).open(c, &client_context(engine)).expect("client");
        again(&file, || file.handshake()).expect("handshake");
        (file, server.join().expect("server"))
    })
}

fn server_of(engine: Engine, options: SslOptions) -> (SslFile, Bare<TcpStream>) {
    let (c, s) = tcp_pair();
    thread::scope(|t| {
        let client = t.spawn(move || bare::client(c, Version::Tls1_2..=Version::Tls1_3).expect("connect"));
        let file = options.server().open(s, &server_context(engine)).expect("server");
        again(&file, || file.handshake()).expect("handshake");
        (file, client.join().expect("client"))
    })
}

fn again<T>(file: &SslFile, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if file.is_nonblocking() && e.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_micros(200));
            }
            other => return other,
        }
    }
}

fn write_all(mut file: &SslFile, data: &[u8]) {
    let mut done = 0;
    while done < data.len() {
        done += again(file, || file.write(&data[done..])).expect("write");
    }
}

/// All that comes, and how it ended: `Ok` for close_notify.
fn read_all(stream: &mut impl Read, piece: usize, rest: Duration) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    let mut buf = vec![0; piece];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return (all, Ok(())),
            Ok(n) => all.extend_from_slice(&buf[..n]),
            Err(e) => return (all, Err(e)),
        }
        thread::sleep(rest);
    }
}

fn for_every_client(test: fn(Engine, Version, bool)) {
    for engine in engines() {
        for version in VERSIONS {
            for nonblocking in [false, true] {
                println!("{engine:?}, {version:?}, non-blocking: {nonblocking}");
                within(LONG, move || test(engine, version, nonblocking));
            }
        }
    }
}

/// 4 MiB and `close` at once, tickets unread, into a reader that starts late and takes its time.
#[test]
fn closed_at_once_loses_no_byte() {
    for_every_client(|engine, version, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking);
        let (file, mut server) = client_of(engine, version, options);
        let data = pattern(1, 4 << 20);
        let (got, end) = thread::scope(|t| {
            let reader = t.spawn(move || {
                thread::sleep(Duration::from_millis(300));
                read_all(&mut server, 16 << 10, Duration::from_millis(2))
            });
            write_all(&file, &data);
            again(&file, || file.close()).expect("close");
            drop(file);
            reader.join().expect("reader")
        });
        assert_eq!(got.len(), data.len());
        assert!(got == data);
        end.expect("close_notify");
    });
}

/// The reader is still at it when the close time-out has passed and the file is gone: what the system has taken arrives.
#[test]
fn reader_slower_than_the_close_timeout_loses_no_byte() {
    for_every_client(|engine, version, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking).close_timeout(Duration::from_millis(200));
        let (file, mut server) = client_of(engine, version, options);
        let data = pattern(10, 1 << 20);
        thread::scope(|t| {
            let (ended, end_seen) = mpsc::channel();
            let reader = t.spawn(move || {
                end_seen.recv().expect("the file's end");
                read_all(&mut server, 16 << 10, Duration::from_millis(3))
            });
            write_all(&file, &data);
            let start = Instant::now();
            again(&file, || file.close()).expect("a silent peer is no error");
            assert!(start.elapsed() >= Duration::from_millis(200));
            drop(file);
            ended.send(()).expect("reader");
            let (got, end) = reader.join().expect("reader");
            assert!(got == data, "{} of {} bytes", got.len(), data.len());
            end.expect("close_notify");
        });
    });
}

/// A TCP stream whose reads wait a while as soon as something has been written: the server's first flight is out, and the
/// client is done and away (as far as TLS 1.3 is concerned) long before the server sends its tickets.
#[derive(Debug)]
struct Late(TcpStream, bool);

impl Read for Late {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.1) {
            thread::sleep(Duration::from_millis(400));
        }
        self.0.read(buf)
    }
}

impl Write for Late {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.1 = true;
        self.0.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The tickets come while we are closing, and are read away.
#[test]
fn closed_before_the_server_has_sent_its_tickets_loses_no_byte() {
    for_every_client(|engine, version, nonblocking| {
        let (c, s) = tcp_pair();
        let data = pattern(11, 100_000);
        thread::scope(|t| {
            let server = t.spawn(move || read_all(&mut bare_server(Late(s, false), version), 4096, Duration::ZERO));
            let options = SslFile::options().client(NAME).nonblocking(nonblocking);
            let file = options.open(c, &client_context(engine)).expect("client");
            again(&file, || file.handshake()).expect("handshake");
            write_all(&file, &data);
            again(&file, || file.close()).expect("close");
            drop(file);
            let (got, end) = server.join().expect("server");
            assert!(got == data, "{} of {} bytes", got.len(), data.len());
            end.expect("close_notify");
        });
    });
}

/// The same from a server, whose client has sent something that nobody ever reads.
#[test]
fn closed_at_once_by_a_server_loses_no_byte() {
    for engine in engines() {
        for nonblocking in [false, true] {
            within(LONG, move || {
                let options = SslFile::options().nonblocking(nonblocking);
                let (file, mut client) = server_of(engine, options);
                client.write_all(&pattern(2, 10_000)).expect("what nobody reads");
                let data = pattern(3, 4 << 20);
                thread::scope(|t| {
                    let reader = t.spawn(move || {
                        thread::sleep(Duration::from_millis(300));
                        read_all(&mut client, 16 << 10, Duration::from_millis(1))
                    });
                    write_all(&file, &data);
                    again(&file, || file.close()).expect("close");
                    drop(file);
                    let (got, end) = reader.join().expect("reader");
                    assert!(got == data, "{} of {} bytes", got.len(), data.len());
                    end.expect("close_notify");
                });
            });
        }
    }
}

/// What peers still send while we close is read away and does not turn our end into a reset.
#[test]
fn closed_against_a_talking_peer_loses_no_byte() {
    for_every_client(|engine, version, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking);
        let (file, mut server) = client_of(engine, version, options);
        let data = pattern(4, 1 << 20);
        thread::scope(|t| {
            let peer = t.spawn(move || {
                let mut got = Vec::new();
                let mut buf = [0; 16 << 10];
                loop {
                    match server.read(&mut buf) {
                        Ok(0) => return (got, Ok(())),
                        Ok(n) => got.extend_from_slice(&buf[..n]),
                        Err(e) => return (got, Err(e)),
                    }
                    // A line of answer to each piece, as mail servers and the like do.
                    let _ = server.write(&[b'.'; 300]);
                }
            });
            write_all(&file, &data);
            again(&file, || file.close()).expect("close");
            drop(file);
            let (got, end) = peer.join().expect("peer");
            assert!(got == data, "{} of {} bytes", got.len(), data.len());
            end.expect("close_notify");
        });
    });
}

/// Drop waits for nothing; but what the system has taken, a peer that reads gets.
#[test]
fn dropped_with_all_handed_over_loses_no_byte() {
    for_every_client(|engine, version, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking);
        let (file, mut server) = client_of(engine, version, options);
        let data = pattern(5, 4 << 20);
        thread::scope(|t| {
            let reader = t.spawn(move || read_all(&mut server, 16 << 10, Duration::ZERO));
            write_all(&file, &data);
            again(&file, || (&file).flush()).expect("flush");
            drop(file);
            let (got, end) = reader.join().expect("reader");
            assert!(got == data, "{} of {} bytes", got.len(), data.len());
            end.expect("close_notify");
        });
    });
}

/// Many short ones, of all sizes: whoever closes first after one write.
#[test]
fn short_messages_closed_at_once_arrive_whole() {
    for engine in engines() {
        for version in VERSIONS {
            within(LONG, move || {
                for round in 0..40 {
                    let (file, mut server) = client_of(engine, version, SslFile::options());
                    let data = pattern(round, 1 + (round as usize * 104_729) % 300_000);
                    thread::scope(|t| {
                        let reader = t.spawn(move || read_all(&mut server, 50_000, Duration::ZERO));
                        write_all(&file, &data);
                        match round % 2 {
                            0 => file.close().expect("close"),
                            _ => drop(file),
                        }
                        let (got, end) = reader.join().expect("reader");
                        assert!(got == data, "round {round}: {} of {}", got.len(), data.len());
                        end.expect("close_notify");
                    });
                }
            });
        }
    }
}

/// Our end ends writing only: the answer, longer than any buffer, is read afterwards.
#[test]
fn reading_goes_on_after_shutdown_of_writing() {
    for_every_client(|engine, version, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking);
        let (file, mut server) = client_of(engine, version, options);
        let question = pattern(6, 1 << 20);
        let answer = pattern(7, 4 << 20);
        let reply = answer.clone();
        thread::scope(|t| {
            let peer = t.spawn(move || {
                let (got, end) = read_all(&mut server, 16 << 10, Duration::ZERO);
                end.expect("close_notify");
                server.write_all(&reply).expect("answer");
                server.shutdown().expect("close_notify");
                (got, server)
            });
            write_all(&file, &question);
            file.shutdown(Shutdown::Write).expect("shutdown");
            let refused = (&file).write(b"more").expect_err("after shutdown");
            assert_eq!(refused.kind(), ErrorKind::BrokenPipe, "{refused}");
            again(&file, || (&file).flush()).expect("flush");

            let mut got = Vec::new();
            let mut buf = vec![0; 100_000];
            loop {
                match again(&file, || (&file).read(&mut buf)).expect("read") {
                    0 => break,
                    n => got.extend_from_slice(&buf[..n]),
                }
            }
            assert!(got == answer);
            let (asked, server) = peer.join().expect("peer");
            assert!(asked == question);
            // Both have said their end: nothing to wait for.
            again(&file, || file.close()).expect("close");
            drop(server);
        });
    });
}

/// A peer that neither answers nor leaves is waited for as long as was asked, and that is no error.
#[test]
fn silent_peer_is_waited_for_and_no_error() {
    const WAIT: Duration = Duration::from_millis(400);
    for_every_client(|engine, version, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking).close_timeout(WAIT);
        let (file, mut server) = client_of(engine, version, options);
        write_all(&file, b"bye");
        let start = Instant::now();
        if nonblocking {
            let first = file.close().expect_err("a silent peer");
            assert_eq!(first.kind(), ErrorKind::WouldBlock, "{first}");
            assert_eq!(file.state(), State::Closing);
        }
        again(&file, || file.close()).expect("a silent peer is no error");
        let took = start.elapsed();
        assert!(took >= WAIT, "after {took:?}");
        assert!(took < AT_MOST, "stretched to {took:?}");
        assert_eq!(file.state(), State::Closed);
        assert!(!file.is_open());
        let (got, end) = read_all(&mut server, 100, Duration::ZERO);
        assert_eq!(got, b"bye");
        end.expect("close_notify");
        // Again, and it is still closed.
        file.close().expect("a second close");
        let later = (&file).read(&mut [0; 8]).expect_err("closed");
        assert_eq!(later.kind(), ErrorKind::NotConnected, "{later}");
    });
}

/// A peer that sends on and on cannot stretch it either.
#[test]
fn peer_that_never_stops_talking_cannot_stretch_close() {
    const WAIT: Duration = Duration::from_millis(300);
    for_every_client(|engine, version, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking).close_timeout(WAIT);
        let (file, mut server) = client_of(engine, version, options);
        thread::scope(|t| {
            // Ends with our end of TCP.
            let talker = t.spawn(move || while server.write_all(&[b'x'; 5000]).is_ok() {});
            let start = Instant::now();
            again(&file, || file.close()).expect("close");
            let took = start.elapsed();
            assert!(took < AT_MOST, "stretched to {took:?}");
            drop(file);
            talker.join().expect("talker");
        });
    });
}

/// Writes until the system takes no more, and leaves that unsent.
fn stuff(file: &SslFile) -> usize {
    let nonblocking = file.is_nonblocking();
    file.set_nonblocking(true).expect("switch");
    let data = [1; 64 << 10];
    let mut total = 0;
    loop {
        match (&*file).write(&data) {
            Ok(n) => total += n,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
                break;
            }
        }
    }
    assert!(file.unsent() > 0);
    file.set_nonblocking(nonblocking).expect("switch");
    total
}

/// A peer that takes nothing: what was accepted is lost, and that is told.
#[test]
fn peer_that_never_reads_makes_close_time_out() {
    const WAIT: Duration = Duration::from_millis(400);
    for_every_client(|engine, version, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking).close_timeout(WAIT);
        let (file, server) = narrow_client_of(engine, version, options);
        stuff(&file);
        let start = Instant::now();
        let error = again(&file, || file.close()).expect_err("something was lost");
        let took = start.elapsed();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::TimedOut));
        assert!(took >= WAIT, "after {took:?}");
        assert!(took < AT_MOST, "stretched to {took:?}");
        assert!(!file.is_open());
        assert!((&file).write(b"more").is_err());
        drop(server);
    });
}

/// As long as it gets on, the flush may take longer than the close time-out.
#[test]
fn slow_but_steady_reader_makes_no_close_time_out() {
    const WAIT: Duration = Duration::from_millis(1500);
    let test = |engine, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking).close_timeout(WAIT);
        // Between small buffers progress shows at our end whenever the reader takes something.
        let (file, mut server) = narrow_client_of(engine, Version::Tls1_3, options);
        let total = stuff(&file);
        assert!(file.unsent() > 200 << 10, "{} bytes unsent", file.unsent());
        thread::scope(|t| {
            let start = Instant::now();
            let rest = Duration::from_millis(100);
            let reader = t.spawn(move || read_all(&mut server, 8 << 10, rest));
            again(&file, || file.close()).expect("close");
            let took = start.elapsed();
            drop(file);
            let (got, end) = reader.join().expect("reader");
            assert_eq!(got.len(), total);
            end.expect("close_notify");
            assert!(took > WAIT, "done after {took:?}: this reader was not slow");
        });
    };
    for engine in engines() {
        for nonblocking in [false, true] {
            within(LONG, move || test(engine, nonblocking));
        }
    }
}

/// Zero does not wait: neither for the peer's end nor for a flush that does not get on.
#[test]
fn close_timeout_zero_does_not_wait() {
    for_every_client(|engine, version, nonblocking| {
        let options = || SslFile::options().nonblocking(nonblocking).close_timeout(Duration::ZERO);
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let (file, mut server) = client_of(engine, version, options());
            write_all(&file, b"bye");
            let start = Instant::now();
            file.close().expect("close");
            fastest = fastest.min(start.elapsed());
            assert_eq!(file.state(), State::Closed);
            drop(file);
            // Nothing is promised to a peer with unread tickets at our end but that it is told something.
            let (got, _) = read_all(&mut server, 100, Duration::ZERO);
            assert!(got == b"bye" || got.is_empty());
        }
        assert!(fastest < Duration::from_millis(500), "waited {fastest:?}");

        let (file, server) = narrow_client_of(engine, version, options());
        stuff(&file);
        let error = again(&file, || file.close()).expect_err("something was lost");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        drop(server);
    });
}

/// Non-blocking, `close` is asked again until it is done: with the peer's end, at the latest with the time-out.
#[test]
fn nonblocking_close_would_block_until_the_peer_has_ended() {
    for engine in engines() {
        for version in VERSIONS {
            within(LONG, move || {
                let options = SslFile::options().nonblocking(true).close_timeout(LONG);
                let (file, mut server) = client_of(engine, version, options);
                write_all(&file, b"bye");
                let other = file.try_clone().expect("try_clone");
                for _ in 0..50 {
                    let early = file.close().expect_err("the peer has not ended");
                    assert_eq!(early.kind(), ErrorKind::WouldBlock, "{early}");
                    assert_eq!(other.state(), State::Closing, "all handles see it");
                    thread::sleep(Duration::from_millis(1));
                }
                assert!(file.interest().readable, "the peer's end is what it waits for");
                let refused = (&other).write(b"more").expect_err("closing");
                assert_ne!(refused.kind(), ErrorKind::WouldBlock, "{refused}");
                let (got, end) = read_all(&mut server, 100, Duration::ZERO);
                assert_eq!(got, b"bye");
                end.expect("close_notify");
                server.shutdown().expect("close_notify");
                drop(server);
                again(&file, || other.close()).expect("close");
                assert_eq!(file.state(), State::Closed);
            });
        }
    }
}

/// What it does to the socket, and to nothing else.
#[test]
fn linger_is_the_sockets() {
    for engine in engines() {
        within(LONG, move || {
            let (file, server) = common::tls_pair(engine);
            let of_socket = || socket2::SockRef::from(file.get_ref()).linger().expect("linger");
            assert_eq!(file.linger().expect("linger"), None);
            for time in [Some(Duration::from_secs(3)), Some(Duration::ZERO), None] {
                file.set_linger(time).expect("set_linger");
                assert_eq!(file.linger().expect("linger"), time);
                assert_eq!(of_socket(), time);
            }
            // Data still arrives, and the end is still said.
            file.set_linger(Some(Duration::from_secs(3))).expect("set_linger");
            let data = pattern(8, 1 << 20);
            thread::scope(|t| {
                let reader = t.spawn(|| {
                    let mut all = Vec::new();
                    (&server).read_to_end(&mut all).expect("a clean end");
                    server.close().expect("close");
                    all
                });
                write_all(&file, &data);
                file.close().expect("close");
                assert!(reader.join().expect("reader") == data);
            });
        });
    }
}

/// A reset is told as one, behind what had arrived before it, and ever after.
#[test]
fn reset_is_told_behind_the_data() {
    for_every_client(|engine, version, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking);
        let (file, mut server) = client_of(engine, version, options);
        say_now(&mut server, b"last words");
        reset(&file, server);
        let mut buf = [0; 100];
        let mut got = Vec::new();
        let error = loop {
            match again(&file, || (&file).read(&mut buf)) {
                Ok(0) => panic!("a reset is no end"),
                Ok(n) => got.extend_from_slice(&buf[..n]),
                Err(e) => break e,
            }
        };
        assert_eq!(got, b"last words");
        for error in [error, (&file).read(&mut buf).expect_err("it stays reset")] {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::Truncated));
        }
        assert_eq!(file.state(), State::Failed);
    });
}

/// Without Nagle's delay: a reset would cost what still waits for an acknowledgement.
fn say_now(server: &mut Bare<TcpStream>, data: &[u8]) {
    server.get_ref().set_nodelay(true).expect("nodelay");
    server.write_all(data).expect("write");
}

/// SO_LINGER 0 makes the system reset; waits until our end has noticed.
fn reset(file: &SslFile, server: Bare<TcpStream>) {
    socket2::SockRef::from(server.get_ref()).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(server);
    use rustix::event::{poll, PollFd, PollFlags};
    let mut fds = [PollFd::new(file.get_ref(), PollFlags::OUT)];
    while !fds[0].revents().contains(PollFlags::ERR | PollFlags::HUP) {
        poll(&mut fds, None).expect("poll");
    }
}

/// Writing finds the connection broken; what arrived before is still read.
#[test]
fn error_on_write_discards_nothing_that_can_be_read() {
    for_every_client(|engine, version, nonblocking| {
        let options = SslFile::options().nonblocking(nonblocking);
        let (file, mut server) = client_of(engine, version, options);
        let data = pattern(9, 40_000);
        say_now(&mut server, &data);
        reset(&file, server);
        let (tell, told) = mpsc::channel();
        thread::scope(|t| {
            // From another thread, as it would be in a program that reads in one and writes in another.
            t.spawn(|| {
                let failed = again(&file, || (&file).write(b"anyone there?"));
                tell.send(failed.is_err()).expect("told");
            });
            assert!(told.recv().expect("writer"), "written into a reset connection");
        });
        let mut got = vec![0; data.len()];
        let mut done = 0;
        while done < got.len() {
            match again(&file, || (&file).read(&mut got[done..])).expect("what had arrived") {
                0 => panic!("the end after {done} of {} bytes", data.len()),
                n => done += n,
            }
        }
        assert!(got == data);
        let end = again(&file, || (&file).read(&mut [0; 8])).expect_err("a reset is no end");
        assert_eq!(kind_of(&end), Some(sslfile::ErrorKind::Truncated), "{end}");
    });
}
