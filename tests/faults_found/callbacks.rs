//! k, l: what becomes of callbacks, and of what they own.

use std::io::{Read, Write};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;

use sslfile::{Backend, Callbacks, Engine, Role, SslFile};

use crate::rig::{cut, end_well, on_each_engine_and_role, pair, reset, settle, turn_until, Log, Peer, Told};

const SOON: Duration = Duration::from_secs(10);

/// Something that callbacks own. Its owners are counted.
type Token = Arc<()>;

fn owners(token: &Token) -> usize {
    Arc::strong_count(token) - 1
}

/// All four, and each owns the token.
fn owning(token: &Token, log: &Log) -> Callbacks<SslFile> {
    let [a, r, w, c] = [(); 4].map(|()| token.clone());
    let (told, closed) = (log.clone(), log.clone());
    Callbacks::new()
        .on_accept(move |_: &SslFile| drop(a.clone()))
        .on_read(move |_, _| drop(r.clone()))
        .on_write(move |_| {
            drop(w.clone());
            told.add(Told::Write);
        })
        .on_close(move |_, end| {
            drop(c.clone());
            closed.add(Told::Close(end.map_err(|e| e.kind())));
        })
}

#[test]
fn k_callbacks_are_dropped_once_the_end_has_been_told() {
    const ENDS: [fn(Peer); 3] = [end_well, cut, reset];
    on_each_engine_and_role(|engine, role| {
        for end in ENDS {
            let backend = Backend::new().expect("backend");
            let (file, peer) = pair(engine, role, &backend);
            let (token, log) = (Token::default(), Log::new());
            file.set_callbacks(owning(&token, &log));
            turn_until(&backend, || log.writes() == 1);
            assert!(owners(&token) >= 3, "dropped while they are needed");
            end(peer);
            turn_until(&backend, || !log.closes().is_empty());
            settle(&backend);
            assert_eq!(owners(&token), 0, "kept, though nothing will be called any more");
            assert!(file.take_callbacks().is_empty());
        }
    });
}

#[test]
fn k_callbacks_are_dropped_after_our_own_close() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, peer) = pair(engine, role, &backend);
        let (token, log) = (Token::default(), Log::new());
        file.set_callbacks(owning(&token, &log));
        turn_until(&backend, || log.writes() == 1);
        file.close().expect("close");
        end_well(peer);
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        assert_eq!(log.closes(), [Ok(())]);
        assert_eq!(owners(&token), 0, "kept, though nothing will be called any more");
    });
}

#[test]
fn k_a_callback_that_owns_its_own_file_is_no_leak() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, peer) = pair(engine, role, &backend);
        let (own, own_too) = (file.clone(), file.clone());
        let (token, log) = (Token::default(), Log::new());
        let (held, closed) = (token.clone(), log.clone());
        let callbacks = Callbacks::new().on_read(move |_: &SslFile, data| own.send(data).expect("send"));
        file.set_callbacks(callbacks.on_close(move |_, end| {
            let _both = (&held, &own_too);
            closed.add(Told::Close(end.map_err(|e| e.kind())));
        }));
        file.keep();
        end_well(peer);
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        assert!(backend.is_empty());
        assert_eq!(owners(&token), 0, "the file owns itself through its callbacks");
    });
}

/// What one side of a proxy has: callbacks that own the other side.
fn pipe(to: &SslFile, token: &Token, log: &Log) -> Callbacks<SslFile> {
    let (forward, end_too, held, log) = (to.clone(), to.clone(), token.clone(), log.clone());
    Callbacks::new()
        .on_read(move |from: &SslFile, data| {
            forward.send(data).expect("send");
            from.pause_reading(forward.unsent() > 64 << 10);
        })
        .on_close(move |_, end| {
            let _held = &held;
            log.add(Told::Close(end.map_err(|e| e.kind())));
            let _ = end_too.close();
        })
}

#[test]
fn k_a_pair_of_files_that_own_each_other_is_freed() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (down, mut left) = pair(engine, role, &backend);
        let (up, right) = pair(engine, role, &backend);
        let (token, log) = (Token::default(), Log::new());
        let fds = [&down, &up].map(super::drops::socket_of);
        down.set_callbacks(pipe(&up, &token, &log));
        up.set_callbacks(pipe(&down, &token, &log));
        down.keep();
        up.keep();
        left.write_all(b"through both").expect("write");
        settle(&backend);
        end_well(left);
        end_well(right);
        turn_until(&backend, || log.closes().len() == 2);
        settle(&backend);
        assert!(backend.is_empty());
        assert_eq!(owners(&token), 0, "each side of the proxy keeps the other");
        for socket in fds {
            assert!(!super::drops::is_held(&socket), "its descriptor is kept");
        }
    });
}

/// A file whose read callback counts what comes, and in its first call waits until it is released.
struct Held {
    backend: Backend,
    file: SslFile,
    peer: Peer,
    /// Where the callback has got to.
    begun: mpsc::Receiver<usize>,
    release: mpsc::Sender<()>,
}

fn held(engine: Engine, role: Role) -> Held {
    let backend = Backend::new().expect("backend");
    let (file, peer) = pair(engine, role, &backend);
    let (begin, begun) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let mut calls = 0;
    file.set_read_callback(move |_, _| {
        calls += 1;
        begin.send(calls).expect("begin");
        if calls == 1 {
            released.recv().expect("released");
        }
    });
    Held { backend, file, peer, begun, release }
}

#[test]
fn l_take_callbacks_of_another_thread_waits_for_the_callback_at_hand_and_gives_it_out() {
    on_each_engine_and_role(|engine, role| {
        let Held { backend, file, mut peer, begun, release } = held(engine, role);
        peer.write_all(b"one").expect("write");
        let run = thread::spawn({
            let backend = backend.clone();
            move || backend.run()
        });
        assert_eq!(begun.recv_timeout(SOON), Ok(1));
        let (taken, is_taken) = mpsc::channel();
        let other = file.clone();
        let taker = thread::spawn(move || taken.send(other.take_callbacks()).expect("taken"));
        let early = is_taken.recv_timeout(Duration::from_millis(200)).is_ok();
        release.send(()).expect("release");
        assert!(!early, "it did not wait for the callback at hand");
        let callbacks = is_taken.recv_timeout(SOON).expect("taken");
        taker.join().expect("taker");
        assert!(!callbacks.is_empty(), "the callback at hand is lost");

        // After it has returned nothing is called.
        peer.write_all(b"two").expect("write");
        assert!(begun.recv_timeout(Duration::from_millis(100)).is_err(), "called after it was taken");
        // It is the same one: it goes on counting.
        file.set_callbacks(callbacks);
        assert_eq!(begun.recv_timeout(SOON), Ok(2));
        backend.stop();
        run.join().expect("run").expect("run");
    });
}

/// What the thread that waits for a callback to return must not do: keep the file from others.
#[test]
fn l_while_take_callbacks_waits_the_file_can_be_used() {
    on_each_engine_and_role(|engine, role| {
        let Held { backend, file, mut peer, begun, release } = held(engine, role);
        peer.write_all(b"one").expect("write");
        let run = thread::spawn({
            let backend = backend.clone();
            move || backend.run()
        });
        assert_eq!(begun.recv_timeout(SOON), Ok(1));
        let other = file.clone();
        let taker = thread::spawn(move || other.take_callbacks().is_empty());
        file.send(b"word").expect("send");
        let mut word = [0; 4];
        peer.read_exact(&mut word).expect("read");
        assert_eq!(&word, b"word");
        release.send(()).expect("release");
        assert!(!taker.join().expect("taker"), "the callback at hand is lost");
        backend.stop();
        run.join().expect("run").expect("run");
    });
}
