//! A listener in a backend: who is told what, limits, new certificates, the end. Clients are a bare TLS library and bare TCP.

use crate::common;
use crate::rig;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{certs, client_context, kind_of, server_context, tcp_pair, LONG};
use rig::{bare_client, end_well, on_each_engine, panics, settle, turn_all_until, turn_until, wake_ups, Log, Peer};
use sslfile::{Backend, Context, Engine, SslFile, SslListener};

/// A listener in a backend that notes what it is told.
struct Port {
    backend: Backend,
    listener: SslListener,
    addr: SocketAddr,
    accepted: Arc<Mutex<Vec<(SslFile, SocketAddr)>>>,
    failed: Arc<Mutex<Vec<(SocketAddr, std::io::Error)>>>,
}

impl Port {
    fn new(engine: Engine) -> Port {
        Port::over(SslListener::bind((Ipv4Addr::LOCALHOST, 0), &server_context(engine)).expect("bind"))
    }

    fn over(listener: SslListener) -> Port {
        let backend = Backend::new().expect("backend");
        let (accepted, failed): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let (files, errors) = (accepted.clone(), failed.clone());
        listener
            .set_accept_callback(&backend, move |file, addr| files.lock().expect("files").push((file, addr)))
            .expect("accept callback");
        listener.set_error_callback(move |addr, e| errors.lock().expect("errors").push((addr, e)));
        let addr = listener.local_addr().expect("addr");
        Port { backend, listener, addr, accepted, failed }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).expect("connect")
    }

    fn client(&self) -> JoinHandle<Peer> {
        let tcp = self.connect();
        thread::spawn(move || bare_client(tcp))
    }

    fn accepted(&self) -> usize {
        self.accepted.lock().expect("files").len()
    }

    fn failed(&self) -> usize {
        self.failed.lock().expect("errors").len()
    }

    /// One connection, both ends.
    fn open(&self) -> (SslFile, Peer) {
        let before = self.accepted();
        let client = self.client();
        turn_until(&self.backend, || client.is_finished() && self.accepted() > before);
        let (file, _) = self.accepted.lock().expect("files").pop().expect("file");
        (file, client.join().expect("client"))
    }
}

#[test]
fn the_accept_callback_gets_each_file_once_after_its_handshake() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let clients: Vec<_> = (0..20).map(|_| port.client()).collect();
        turn_until(&port.backend, || port.accepted() == 20 && clients.iter().all(JoinHandle::is_finished));
        settle(&port.backend);
        assert_eq!((port.accepted(), port.failed()), (20, 0));
        let mut theirs: Vec<_> = clients.into_iter().map(|client| client.join().expect("client")).collect();
        for (file, addr) in port.accepted.lock().expect("files").iter() {
            assert!(file.is_handshake_done() && file.is_nonblocking());
            assert_eq!(file.backend(), Some(port.backend.clone()));
            assert_eq!(file.peer_addr().expect("addr"), *addr);
            let at = |peer: &Peer| peer.get_ref().local_addr().expect("addr") == *addr;
            let at = theirs.iter().position(at).expect("a client with that address");
            theirs.swap_remove(at);
        }
        assert!(theirs.is_empty());
    });
}

#[test]
fn accepted_files_echo_through_callbacks_when_kept() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let log = Log::new();
        let ends = log.clone();
        port.listener
            .set_accept_callback(&port.backend, move |file, _| {
                let ends = ends.clone();
                file.set_read_callback(|file, data| file.send(data).expect("send"));
                file.set_close_callback(move |_, end| ends.add(rig::Told::Close(end.map_err(|e| e.kind()))));
                file.keep();
            })
            .expect("accept callback");
        let clients: Vec<_> = (0..10_u8)
            .map(|i| {
                let tcp = port.connect();
                thread::spawn(move || {
                    let mut peer = bare_client(tcp);
                    let data = common::pattern(u64::from(i), 50_000);
                    peer.write_all(&data).expect("write");
                    let mut got = vec![0; data.len()];
                    peer.read_exact(&mut got).expect("read");
                    assert!(got == data);
                    end_well(peer);
                })
            })
            .collect();
        turn_until(&port.backend, || log.closes().len() == 10);
        clients.into_iter().for_each(|client| client.join().expect("client"));
        settle(&port.backend);
        assert_eq!(log.closes(), [Ok(()); 10]);
        assert_eq!(port.backend.len(), 1, "only the listener is left");
    });
}

/// What came with the last flight of the handshake is not lost between the listener and the file's callbacks.
#[test]
fn data_that_came_with_the_handshake_is_delivered() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let tcp = port.connect();
        let client = thread::spawn(move || {
            let mut peer = bare_client(tcp);
            peer.write_all(b"at once").expect("write");
            end_well(peer);
        });
        turn_until(&port.backend, || port.accepted() == 1 && client.is_finished());
        client.join().expect("client");
        settle(&port.backend);
        let (file, _) = port.accepted.lock().expect("files").pop().expect("file");
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        turn_until(&port.backend, || !log.closes().is_empty());
        assert_eq!(log.data(), b"at once");
        assert_eq!(log.closes(), [Ok(())]);
    });
}

#[test]
fn each_failed_handshake_is_an_error_with_its_address_and_cause() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let mut http = port.connect();
        http.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
        turn_until(&port.backend, || port.failed() == 1);
        let mut cut = port.connect();
        cut.write_all(&[22, 3, 1]).expect("write");
        cut.shutdown(std::net::Shutdown::Write).expect("shutdown");
        turn_until(&port.backend, || port.failed() == 2);
        let mut reset = port.connect();
        let reset_addr = reset.local_addr().expect("addr");
        reset.write_all(&[22, 3, 1]).expect("write");
        socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).expect("linger");
        settle(&port.backend);
        drop(reset);
        turn_until(&port.backend, || port.failed() == 3);
        let mut alert = port.connect();
        alert.write_all(&[21, 3, 1, 0, 2, 2, 40]).expect("write");
        turn_until(&port.backend, || port.failed() == 4);
        settle(&port.backend);
        assert_eq!(port.accepted(), 0);
        let errors = port.failed.lock().expect("errors");
        let addr = |tcp: &TcpStream| tcp.local_addr().expect("addr");
        let expected = [
            (addr(&http), ErrorKind::InvalidData),
            (addr(&cut), ErrorKind::BrokenPipe),
            (reset_addr, ErrorKind::ConnectionReset),
            (addr(&alert), ErrorKind::InvalidData),
        ];
        let told: Vec<_> = errors.iter().map(|(addr, e)| (*addr, e.kind())).collect();
        assert_eq!(told, expected);
        assert_eq!(kind_of(&errors[0].1), Some(sslfile::ErrorKind::NotTls));
        for (addr, e) in errors.iter() {
            assert!(e.to_string().contains(&addr.to_string()), "says not with whom: {e}");
        }
        drop(errors);
        assert_eq!(port.backend.len(), 1, "failed files stay");
    });
}

#[test]
fn a_peer_that_ends_before_its_first_byte_calls_nothing() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        for _ in 0..10 {
            drop(port.connect());
        }
        settle(&port.backend);
        assert_eq!((port.accepted(), port.failed()), (0, 0));
        assert_eq!(port.backend.len(), 1);
        port.open();
    });
}

#[test]
fn a_silent_client_is_an_error_after_the_handshake_time_out() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let limit = Duration::from_millis(200);
        port.listener.set_handshake_timeout(Some(limit));
        let start = Instant::now();
        let silent = port.connect();
        turn_until(&port.backend, || port.failed() == 1);
        assert!(start.elapsed() >= limit);
        let (addr, e) = port.failed.lock().expect("errors").pop().expect("error");
        assert_eq!((addr, e.kind()), (silent.local_addr().expect("addr"), ErrorKind::TimedOut));
        assert_eq!(port.backend.len(), 1);
        port.listener.set_handshake_timeout(None);
        port.open();
    });
}

#[test]
fn a_silent_client_delays_no_other() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let silent: Vec<_> = (0..50).map(|_| port.connect()).collect();
        let start = Instant::now();
        port.open();
        assert!(start.elapsed() < LONG / 4);
        assert_eq!(port.failed(), 0);
        drop(silent);
        settle(&port.backend);
        assert_eq!(port.failed(), 0, "they never said anything");
    });
}

#[test]
fn at_the_pending_limit_others_wait_in_the_systems_queue_and_nobody_spins() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        port.listener.set_pending_limit(3);
        port.listener.set_handshake_timeout(None);
        // Who has said something keeps its place.
        let slow: Vec<_> = (0..3).map(|_| port.connect()).collect();
        slow.iter().for_each(|mut slow| slow.write_all(&[22]).expect("write"));
        settle(&port.backend);
        assert_eq!((port.backend.len(), port.listener.pending()), (1 + 3, 3));
        let client = port.client();
        settle(&port.backend);
        assert_eq!((port.backend.len(), port.accepted()), (1 + 3, 0), "accepted above the limit");
        assert!(wake_ups(&port.backend) <= 2, "spinning at the limit");
        drop(slow);
        turn_until(&port.backend, || port.accepted() == 1 && client.is_finished());
        client.join().expect("client");
        // A higher limit is taken up at once.
        port.listener.set_pending_limit(0);
        let client = port.client();
        settle(&port.backend);
        assert_eq!(port.accepted(), 1);
        port.listener.set_pending_limit(10);
        turn_until(&port.backend, || port.accepted() == 2 && client.is_finished());
        client.join().expect("client");
    });
}

#[test]
fn pause_leaves_clients_in_the_systems_queue_and_those_under_way_alone() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let early = port.connect();
        settle(&port.backend);
        assert_eq!(port.backend.len(), 2);
        port.listener.pause(true);
        let early = thread::spawn(move || bare_client(early));
        turn_until(&port.backend, || port.accepted() == 1 && early.is_finished());
        early.join().expect("client");
        let late = port.client();
        settle(&port.backend);
        assert_eq!(port.accepted(), 1);
        assert!(wake_ups(&port.backend) <= 2, "spinning while paused");
        port.listener.pause(false);
        turn_until(&port.backend, || port.accepted() == 2 && late.is_finished());
        late.join().expect("client");
    });
}

#[test]
fn a_new_context_is_for_new_connections_and_old_ones_live_on() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let (file, mut old) = port.open();
        let other: Context =
            Context::builder().engine(engine).identity(certs().rsa.identity()).build().expect("context");
        port.listener.set_context(&other);
        let (_file, new) = port.open();
        assert_ne!(old.peer_certificate(), new.peer_certificate());
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        old.write_all(b"still here").expect("write");
        turn_until(&port.backend, || log.data() == b"still here");
    });
}

#[test]
fn a_bad_pair_is_refused_and_the_old_one_kept() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let (_, before) = port.open();
        let mixed = sslfile::Identity::from_pem(certs().ecdsa.chain.as_bytes(), certs().rsa.key.as_bytes());
        let context = mixed.and_then(|identity| Context::builder().engine(engine).identity(identity).build());
        assert!(context.is_err(), "a key that does not fit was taken");
        let (_, after) = port.open();
        assert_eq!(before.peer_certificate(), after.peer_certificate());
    });
}

#[test]
fn close_stops_listening_and_drops_no_live_connection() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let (file, mut peer) = port.open();
        let mut under_way = port.connect();
        settle(&port.backend);
        port.listener.close();
        settle(&port.backend);
        assert_eq!(port.backend.len(), 1, "the live file only");
        assert_eq!(under_way.read(&mut [0; 1]).expect("its end"), 0);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        peer.write_all(b"hello").expect("write");
        turn_until(&port.backend, || log.data() == b"hello");
        assert_eq!(port.listener.accept().expect_err("accepted").kind(), ErrorKind::NotConnected);
        let again = port.listener.set_accept_callback(&port.backend, |_, _| ());
        assert_eq!(again.expect_err("set").kind(), ErrorKind::NotConnected);
        let addr = port.addr;
        drop(port);
        common::assert_refused(addr);
    });
}

#[test]
fn the_listener_may_be_closed_paused_and_changed_inside_its_callbacks() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let (inside, files) = (port.listener.try_clone().expect("clone"), port.accepted.clone());
        let (backend, context) = (port.backend.clone(), server_context(engine));
        port.listener
            .set_accept_callback(&port.backend, move |file, addr| {
                inside.pause(true);
                inside.pause(false);
                inside.set_context(&context);
                inside.set_pending_limit(5);
                let (listener, files_too) = (inside.try_clone().expect("clone"), files.clone());
                files.lock().expect("files").push((file, addr));
                let next = move |file, addr| {
                    files_too.lock().expect("files").push((file, addr));
                    listener.close();
                };
                inside.set_accept_callback(&backend, next).expect("replace");
            })
            .expect("accept callback");
        let one = port.client();
        turn_until(&port.backend, || port.accepted() == 1 && one.is_finished());
        let two = port.client();
        turn_until(&port.backend, || port.accepted() == 2 && two.is_finished());
        settle(&port.backend);
        assert_eq!(port.backend.len(), 2, "the files only");
        let peers = (one.join().expect("client"), two.join().expect("client"));
        drop(peers);
    });
}

#[test]
fn a_panic_in_the_accept_callback_comes_out_of_turn() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        port.listener.set_accept_callback(&port.backend, |_, _| panic!("in accept")).expect("accept callback");
        let client = port.client();
        let start = Instant::now();
        while !panics(|| assert!(port.backend.turn(Some(Duration::from_millis(5))).is_ok())) {
            assert!(start.elapsed() < LONG / 4, "no panic");
        }
        drop(client);
        // The listener is usable: a new callback serves the next client.
        let files = port.accepted.clone();
        let push = move |file, addr| files.lock().expect("files").push((file, addr));
        port.listener.set_accept_callback(&port.backend, push).expect("accept callback");
        port.open();
    });
}

#[test]
fn a_file_moved_to_another_backend_inside_the_accept_callback_is_driven_there() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let worker = Backend::new().expect("backend");
        let (target, log) = (worker.clone(), Log::new());
        let inside = log.clone();
        port.listener
            .set_accept_callback(&port.backend, move |file, _| {
                file.set_callbacks(inside.callbacks());
                file.set_backend(Some(&target)).expect("move");
                file.keep();
            })
            .expect("accept callback");
        let client = port.client();
        turn_all_until(&[&port.backend, &worker], || worker.len() == 1 && client.is_finished());
        let mut peer = client.join().expect("client");
        peer.write_all(b"hello").expect("write");
        settle(&port.backend);
        assert_eq!(log.data(), b"");
        turn_until(&worker, || log.data() == b"hello");
        end_well(peer);
        turn_until(&worker, || worker.is_empty());
    });
}

/// Handshakes that are under way when the listener moves end in either backend; no client is lost.
#[test]
fn a_listener_moved_while_clients_come_loses_none() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let other = Backend::new().expect("backend");
        thread::scope(|t| {
            let runs = [t.spawn(|| port.backend.run()), t.spawn(|| other.run())];
            let mut clients = Vec::new();
            for i in 0..60 {
                clients.push(port.client());
                let (files, backend) = (port.accepted.clone(), if i % 2 == 0 { &other } else { &port.backend });
                let push = move |file, addr| {
                    thread::sleep(Duration::from_micros(500));
                    files.lock().expect("files").push((file, addr));
                };
                port.listener.set_accept_callback(backend, push).expect("move");
            }
            let peers: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
            let start = Instant::now();
            while port.accepted() + port.failed() < 60 && start.elapsed() < LONG / 4 {
                thread::sleep(Duration::from_millis(5));
            }
            port.backend.stop();
            other.stop();
            for run in runs {
                run.join().expect("thread").expect("run");
            }
            assert_eq!((port.accepted(), port.failed()), (60, 0));
            assert!(peers.iter().all(Result::is_ok));
        });
    });
}

/// One listener per backend on the same port: the system shares the clients out, and each is served.
#[cfg(unix)]
#[test]
fn ports_are_shared_between_backends_with_reuseport() {
    use crate::common::server_builder;
    use socket2::{Domain, Socket, Type};
    on_each_engine(|engine| {
        let socket = |addr: SocketAddr| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
            socket.set_reuse_port(true).expect("SO_REUSEPORT");
            socket.bind(&addr.into()).expect("bind");
            socket.listen(100).expect("listen");
            std::net::TcpListener::from(socket)
        };
        let first = socket((Ipv4Addr::LOCALHOST, 0).into());
        let addr = first.local_addr().expect("addr");
        let context = server_builder(engine).build().expect("context");
        let ports =
            [first, socket(addr)].map(|tcp| Port::over(SslListener::from_tcp(tcp, &context).expect("listener")));
        let backends = [&ports[0].backend, &ports[1].backend];
        let clients: Vec<_> = (0..40).map(|_| ports[0].client()).collect();
        turn_all_until(&backends, || {
            ports[0].accepted() + ports[1].accepted() == 40 && clients.iter().all(JoinHandle::is_finished)
        });
        assert!(ports.iter().all(|port| port.accepted() > 0), "one port got all");
        clients.into_iter().for_each(|client| drop(client.join().expect("client")));
    });
}

/// A bare TCP pair has nothing to do with it: the listener's backend goes on when a client's machine is just gone.
#[test]
fn an_idle_listener_wakes_nobody() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let (_unrelated, _pair) = tcp_pair();
        settle(&port.backend);
        assert!(wake_ups(&port.backend) <= 2);
        let (file, _peer) = port.open();
        settle(&port.backend);
        assert!(wake_ups(&port.backend) <= 2);
        drop(file);
    });
}

/// The whole client side is ours as well: both in one backend and one thread.
#[test]
fn clients_and_listener_share_one_backend() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let log = Log::new();
        let options = SslFile::options().client(common::NAME).nonblocking(true).backend(&port.backend);
        let file = options.open(port.connect(), &client_context(engine)).expect("client");
        file.set_callbacks(log.callbacks());
        file.send(b"hello").expect("send");
        turn_until(&port.backend, || port.accepted() == 1);
        let (server, _) = port.accepted.lock().expect("files").pop().expect("file");
        server.set_read_callback(|file, data| file.send(data).expect("send"));
        turn_until(&port.backend, || log.data() == b"hello");
        drop(server);
        turn_until(&port.backend, || !log.closes().is_empty());
        assert_eq!(log.closes(), [Ok(())]);
    });
}
