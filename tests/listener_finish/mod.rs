//! `SslListener::finish`: a server stops, and nobody who is connected is turned away.

use crate::common;
use crate::rig;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{server_context, within, LONG};
use rig::{bare_client, on_each_engine, panics, settle, turn_until};
use sslfile::{Backend, Engine, SslFile, SslListener};

struct Port {
    backend: Backend,
    listener: SslListener,
    addr: SocketAddr,
    accepted: Arc<Mutex<Vec<SslFile>>>,
    failed: Arc<AtomicUsize>,
}

impl Port {
    fn new(engine: Engine) -> Port {
        let listener = SslListener::bind((Ipv4Addr::LOCALHOST, 0), &server_context(engine)).expect("bind");
        let backend = Backend::new().expect("backend");
        let (accepted, failed): (Arc<Mutex<Vec<_>>>, Arc<AtomicUsize>) = Default::default();
        let (files, errors) = (accepted.clone(), failed.clone());
        let callback = move |file, _| files.lock().expect("files").push(file);
        listener.set_accept_callback(&backend, callback).expect("accept callback");
        listener.set_error_callback(move |_, _| {
            errors.fetch_add(1, Ordering::SeqCst);
        });
        let addr = listener.local_addr().expect("addr");
        Port { backend, listener, addr, accepted, failed }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).expect("connect")
    }

    fn accepted(&self) -> usize {
        self.accepted.lock().expect("files").len()
    }

    fn failed(&self) -> usize {
        self.failed.load(Ordering::SeqCst)
    }

    /// The listener has left its backend: the files that were accepted are there, and nothing else.
    fn has_left(&self) -> bool {
        self.backend.len() == self.accepted()
    }

    fn assert_over(&self) {
        assert_eq!(self.listener.pending(), 0);
        common::assert_refused(self.addr);
        assert_eq!(self.listener.accept().expect_err("accepted").kind(), ErrorKind::NotConnected);
        let again = self.listener.set_accept_callback(&self.backend, |_, _| ()).expect_err("set");
        assert_eq!(again.kind(), ErrorKind::NotConnected);
        // In any order, again and again.
        self.listener.finish();
        self.listener.close();
        self.listener.finish();
    }
}

fn shake(clients: Vec<TcpStream>) -> Vec<JoinHandle<()>> {
    clients.into_iter().map(|tcp| thread::spawn(move || drop(bare_client(tcp)))).collect()
}

#[test]
fn what_is_in_the_queue_is_served_beyond_the_limit_and_nothing_behind_it() {
    on_each_engine(|engine| {
        for (limit, paused) in [(1, false), (3, false), (1000, false), (3, true), (0, false)] {
            let port = Port::new(engine);
            port.listener.set_pending_limit(limit);
            port.listener.pause(paused);
            settle(&port.backend);
            // The backend has not seen any of them.
            let clients: Vec<_> = (0..20).map(|_| port.connect()).collect();
            port.listener.finish();
            common::assert_refused(port.addr);
            let clients = shake(clients);
            turn_until(&port.backend, || {
                assert!((1..=limit.clamp(1, 20)).contains(&port.listener.pending()) || port.has_left());
                port.has_left()
            });
            assert_eq!((port.accepted(), port.failed()), (20, 0));
            clients.into_iter().for_each(|client| client.join().expect("client"));
            port.assert_over();
        }
    });
}

#[test]
fn handshakes_under_way_are_finished_failed_or_out_of_time_and_told() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        port.listener.set_handshake_timeout(Some(Duration::from_secs(2)));
        let (good, bad, silent) = (port.connect(), port.connect(), port.connect());
        turn_until(&port.backend, || port.listener.pending() == 3);
        port.listener.finish();
        assert_eq!(port.listener.pending(), 3);
        (&bad).write_all(b"no TLS at all\r\n").expect("write");
        let good = shake(vec![good]);
        turn_until(&port.backend, || port.has_left());
        assert_eq!((port.accepted(), port.failed()), (1, 2));
        good.into_iter().for_each(|client| client.join().expect("client"));
        drop((silent, bad));
        port.assert_over();
    });
}

/// Nobody new is to be favoured.
#[test]
fn who_says_nothing_for_long_keeps_its_place() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        port.listener.set_pending_limit(1);
        let clients = [port.connect(), port.connect()];
        port.listener.finish();
        let end = Instant::now() + Duration::from_millis(1300);
        while Instant::now() < end {
            port.backend.turn(Some(Duration::from_millis(50))).expect("turn");
        }
        assert_eq!((port.listener.pending(), port.failed()), (1, 0));
        let clients = shake(clients.into());
        turn_until(&port.backend, || port.has_left());
        assert_eq!((port.accepted(), port.failed()), (2, 0));
        clients.into_iter().for_each(|client| client.join().expect("client"));
    });
}

#[test]
fn an_idle_listener_is_gone_at_once_with_what_its_callbacks_own() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        settle(&port.backend);
        let begin = Instant::now();
        port.listener.finish();
        assert!(begin.elapsed() < Duration::from_millis(500), "waited");
        assert!(port.backend.is_empty());
        assert_eq!((Arc::strong_count(&port.accepted), Arc::strong_count(&port.failed)), (1, 1));
        port.assert_over();
        // Before the backend has turned even once.
        let port = Port::new(engine);
        port.listener.finish();
        assert!(port.backend.is_empty());
        port.assert_over();
    });
}

#[test]
fn without_callbacks_it_is_close() {
    on_each_engine(|engine| {
        let listener = SslListener::bind((Ipv4Addr::LOCALHOST, 0), &server_context(engine)).expect("bind");
        let addr = listener.local_addr().expect("addr");
        thread::scope(|t| {
            let waiting = t.spawn(|| listener.accept().map(drop));
            listener.finish();
            assert_eq!(waiting.join().expect("thread").expect_err("ended").kind(), ErrorKind::NotConnected);
        });
        common::assert_refused(addr);
    });
}

#[test]
fn it_may_be_called_in_a_callback_and_no_handle_need_be_kept() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        let clone = Mutex::new(Some(port.listener.try_clone().expect("clone")));
        let files = port.accepted.clone();
        let callback = move |file, _| {
            files.lock().expect("files").push(file);
            // The last one that users have.
            if let Some(listener) = clone.lock().expect("listener").take() {
                listener.finish();
            }
        };
        port.listener.set_accept_callback(&port.backend, callback).expect("set");
        let Port { backend, listener, addr, accepted, .. } = port;
        drop(listener);
        let clients = shake((0..10).map(|_| TcpStream::connect(addr).expect("connect")).collect());
        turn_until(&backend, || accepted.lock().expect("files").len() == 10);
        assert_eq!(backend.len(), 10, "the listener is still there");
        assert_eq!(Arc::strong_count(&accepted), 1, "its callback is still there");
        clients.into_iter().for_each(|client| client.join().expect("client"));
    });
}

#[test]
fn a_panic_of_the_accept_callback_does_not_keep_it() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        port.listener.set_accept_callback(&port.backend, |_, _| panic!("told to")).expect("set");
        let client = shake(vec![port.connect()]);
        port.listener.finish();
        while !panics(|| assert!(port.backend.turn(Some(LONG)).is_ok())) {}
        assert!(port.backend.is_empty());
        drop(client);
        port.assert_over();
    });
}

#[test]
fn close_ends_it_at_once() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        port.listener.set_pending_limit(2);
        let clients: Vec<_> = (0..5).map(|_| port.connect()).collect();
        port.listener.finish();
        assert_eq!((port.listener.pending(), port.backend.len()), (2, 1 + 2));
        port.listener.close();
        assert!(port.backend.is_empty());
        for mut client in clients {
            assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)), "the end of some kind");
        }
        port.assert_over();
    });
}

#[test]
fn a_backend_that_goes_takes_it_along() {
    on_each_engine(|engine| {
        let Port { backend, listener, addr, accepted, .. } = Port::new(engine);
        let client = TcpStream::connect(addr).expect("connect");
        listener.finish();
        assert_eq!(listener.pending(), 1);
        drop(backend);
        assert_eq!((listener.pending(), Arc::strong_count(&accepted)), (0, 1));
        drop(client);
    });
}

/// Clients that connect in a loop: each of them to whom the system said that it is connected gets its answer.
#[test]
fn under_load_every_connection_that_was_made_is_served() {
    within(2 * LONG, || {
        for engine in common::engines() {
            (0..3).for_each(|_| stop_under_load(engine));
        }
    });
}

fn stop_under_load(engine: Engine) {
    const CLIENTS: usize = 10;
    let backend = Backend::new().expect("backend");
    let listener = SslListener::bind((Ipv4Addr::LOCALHOST, 0), &server_context(engine)).expect("bind");
    let addr = listener.local_addr().expect("addr");
    let callback = |file: SslFile, _| {
        file.set_read_callback(|file, data| file.send(data).expect("send"));
        file.keep();
    };
    listener.set_accept_callback(&backend, callback).expect("set");
    let errors: Arc<Mutex<Vec<String>>> = Arc::default();
    let notes = errors.clone();
    listener.set_error_callback(move |addr, e| notes.lock().expect("notes").push(format!("{addr}: {e}")));
    let served = AtomicUsize::new(0);
    thread::scope(|t| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                t.spawn(|| loop {
                    let tcp = match TcpStream::connect(addr) {
                        Ok(tcp) => tcp,
                        Err(e) if e.kind() == ErrorKind::ConnectionRefused => return,
                        Err(e) => panic!("connect: {e}"),
                    };
                    let mut peer = bare_client(tcp);
                    peer.write_all(b"x").expect("write");
                    peer.read_exact(&mut [0]).expect("the echo");
                    rig::end_well(peer);
                    served.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        let mut enough = 2 * CLIENTS;
        turn_until(&backend, || {
            if served.load(Ordering::SeqCst) >= enough {
                listener.set_pending_limit(2);
                listener.finish();
                enough = usize::MAX;
            }
            enough == usize::MAX && backend.is_empty() && clients.iter().all(|client| client.is_finished())
        });
    });
    assert_eq!(*errors.lock().expect("notes"), Vec::<String>::new());
}
