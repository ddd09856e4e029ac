//! What may be done inside a callback: everything, in every callback.

use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use sslfile::{Backend, Callbacks, Engine, Role, SslFile, State};

use crate::common::{tcp_pair, within, LONG};
use crate::rig::{
    end_well, logged_pair, on_each_engine, on_each_engine_and_role, open, panics, settle, shaking_peer, turn_all_until,
    turn_until, wake_ups, Log, Peer, Told,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Accept,
    Read,
    Write,
    Close,
}

/// Does `deed` once in the given callback, after noting the call; all callbacks note theirs.
fn doing(log: &Log, place: In, deed: impl FnMut(&SslFile) + Send + 'static) -> Callbacks<SslFile> {
    let deed = Arc::new(Mutex::new(Some(deed)));
    let act = move |at: In, file: &SslFile| {
        if at == place {
            let deed = deed.lock().expect("deed").take();
            if let Some(mut deed) = deed {
                deed(file);
            }
        }
    };
    let (a, r, w, c) = (log.clone(), log.clone(), log.clone(), log.clone());
    let (act_a, act_r, act_w, act_c) = (act.clone(), act.clone(), act.clone(), act);
    Callbacks::new()
        .on_accept(move |file| {
            a.add(Told::Accept);
            act_a(In::Accept, file);
        })
        .on_read(move |file, data| {
            r.add(Told::Read(data.to_vec()));
            act_r(In::Read, file);
        })
        .on_write(move |file| {
            w.add(Told::Write);
            act_w(In::Write, file);
        })
        .on_close(move |file, end| {
            c.add(Told::Close(end.map_err(|e| e.kind())));
            act_c(In::Close, file);
        })
}

struct Scene {
    backend: Backend,
    log: Log,
    /// The user's only handle.
    file: Arc<Mutex<Option<SslFile>>>,
    peer: Peer,
}

/// A file in whose callback `place` the deed has been done, with the peer alive unless it had to end for that.
fn scene(engine: Engine, role: Role, place: In, deed: impl FnMut(&SslFile) + Send + 'static) -> Scene {
    let backend = Backend::new().expect("backend");
    let (ours, theirs) = tcp_pair();
    let peer = shaking_peer(role, theirs);
    let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
    let log = Log::new();
    let done = Arc::new(Mutex::new(false));
    let (mut deed, noted) = (deed, done.clone());
    file.set_callbacks(doing(&log, place, move |file| {
        *noted.lock().expect("done") = true;
        deed(file);
    }));
    let mut peer = {
        turn_until(&backend, || file.is_handshake_done() && peer.is_finished());
        peer.join().expect("peer")
    };
    match place {
        In::Accept | In::Write => {}
        In::Read => peer.write_all(b"hello").expect("write"),
        In::Close => {
            peer.shutdown().expect("close_notify");
        }
    }
    turn_until(&backend, || *done.lock().expect("done"));
    Scene { backend, log, file: Arc::new(Mutex::new(Some(file))), peer }
}

fn in_every_callback(test: fn(Engine, Role, In)) {
    for engine in crate::common::engines() {
        for role in [Role::Client, Role::Server] {
            for place in [In::Accept, In::Read, In::Write, In::Close] {
                println!("{engine:?} as {role:?} in {place:?}");
                within(LONG, move || test(engine, role, place));
            }
        }
    }
}

#[test]
fn callbacks_replaced_inside_a_callback_are_the_new_ones_at_once() {
    in_every_callback(|engine, role, place| {
        let new = Log::new();
        let next = new.clone();
        let mut scene = scene(engine, role, place, move |file| file.set_callbacks(next.callbacks()));
        let before = scene.log.all();
        if place != In::Close {
            scene.peer.write_all(b"more").expect("write");
            turn_until(&scene.backend, || new.data().ends_with(b"more"));
            end_well(scene.peer);
            turn_until(&scene.backend, || !new.closes().is_empty());
        }
        settle(&scene.backend);
        assert_eq!(scene.log.all(), before, "an old callback was called");
        assert_eq!(new.count(|told| *told == Told::Accept), 0, "accept again");
        let closes = scene.log.closes().len() + new.closes().len();
        assert_eq!(closes, 1, "{:?}, then {new:?}", scene.log);
    });
}

#[test]
fn callbacks_removed_inside_a_callback_are_not_called_again() {
    in_every_callback(|engine, role, place| {
        let mut scene = scene(engine, role, place, |file| {
            file.clear_accept_callback();
            file.clear_read_callback();
            file.clear_write_callback();
            file.clear_close_callback();
        });
        let before = scene.log.all();
        if place != In::Close {
            scene.peer.write_all(b"more").expect("write");
            end_well(scene.peer);
        }
        settle(&scene.backend);
        assert_eq!(scene.log.all(), before);
        let file = scene.file.lock().expect("file").take().expect("file");
        assert!(file.take_callbacks().is_empty());
        assert!(wake_ups(&scene.backend) <= 2, "spinning");
    });
}

#[test]
fn callbacks_taken_inside_a_callback_leave_out_the_running_one() {
    in_every_callback(|engine, role, place| {
        let taken = Arc::new(Mutex::new(None));
        let keep = taken.clone();
        let scene = scene(engine, role, place, move |file| {
            *keep.lock().expect("taken") = Some(file.take_callbacks());
        });
        settle(&scene.backend);
        let file = scene.file.lock().expect("file").take().expect("file");
        assert!(file.take_callbacks().is_empty(), "the running one was put back");
        let taken = taken.lock().expect("taken").take().expect("taken");
        let text = format!("{taken:?}");
        for (name, at) in [("accept", In::Accept), ("read", In::Read), ("write", In::Write), ("close", In::Close)] {
            assert!(text.contains(&format!("{name}: {}", at != place)), "{text}");
        }
    });
}

#[test]
fn a_file_closed_inside_a_callback_is_told_its_end_once() {
    in_every_callback(|engine, role, place| {
        let scene = scene(engine, role, place, |file| {
            assert_eq!(file.unsent(), 0);
            file.send(b"last words").expect("send");
            file.close().expect("close");
            assert_eq!(file.state(), State::Closing);
        });
        let Scene { backend, log, file, mut peer } = scene;
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).expect("read");
            let _ = peer.shutdown();
            got
        });
        turn_until(&backend, || !log.closes().is_empty() && reader.is_finished());
        assert_eq!(reader.join().expect("reader"), b"last words");
        settle(&backend);
        assert_eq!(log.closes(), [Ok(())]);
        let file = file.lock().expect("file").take().expect("file");
        assert_eq!(file.state(), State::Closed);
    });
}

#[test]
fn a_file_released_inside_a_callback_is_refused_there_and_lives_on() {
    in_every_callback(|engine, role, place| {
        let slot: Arc<Mutex<Option<SslFile>>> = Arc::default();
        let inside = slot.clone();
        let outcome = Arc::new(Mutex::new(None));
        let told = outcome.clone();
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(role, theirs);
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        let log = Log::new();
        let callbacks = doing(&log, place, move |_| {
            let Some(file) = inside.lock().expect("slot").take() else { return };
            let result = match file.release() {
                Ok((stream, _)) => Ok(stream),
                Err(e) => {
                    let (error, file) = e.into_parts();
                    Err((error.kind(), file))
                }
            };
            *told.lock().expect("outcome") = Some(result);
        });
        // Set in one step with the handle in its slot: the first turn comes later.
        file.set_callbacks(callbacks);
        *slot.lock().expect("slot") = Some(file);
        turn_until(&backend, || peer.is_finished());
        let mut peer = peer.join().expect("peer");
        match place {
            In::Read => peer.write_all(b"hello").expect("write"),
            In::Close => drop(peer.shutdown()),
            _ => {}
        }
        turn_until(&backend, || outcome.lock().expect("outcome").is_some());
        let outcome = outcome.lock().expect("outcome").take().expect("outcome");
        match outcome {
            Ok(_) => assert!(backend.is_empty()),
            Err((kind, file)) => {
                assert!(matches!(kind, ErrorKind::ResourceBusy | ErrorKind::WouldBlock), "{kind:?}");
                assert_eq!(file.backend(), Some(backend.clone()), "it has left its backend");
                settle(&backend);
                // Outside it goes.
                let (stream, _) = file.release().expect("release");
                drop(stream);
                assert!(backend.is_empty());
            }
        }
    });
}

#[test]
fn a_file_moved_inside_a_callback_is_called_by_its_new_backend_only() {
    in_every_callback(|engine, role, place| {
        let other = Backend::new().expect("backend");
        let (target, moved) = (other.clone(), Log::new());
        let mark = moved.clone();
        let mut scene = scene(engine, role, place, move |file| {
            file.set_backend(Some(&target)).expect("move");
            mark.add(Told::Accept);
        });
        assert_eq!((scene.backend.len(), other.len()), (0, 1));
        let before = scene.log.all();
        if place != In::Close {
            scene.peer.write_all(b"more").expect("write");
        }
        settle(&scene.backend);
        assert_eq!(scene.log.all(), before, "the old backend called something");
        if place != In::Close {
            turn_until(&other, || scene.log.data().ends_with(b"more"));
            end_well(scene.peer);
            turn_until(&other, || !scene.log.closes().is_empty());
        }
        settle(&other);
        assert_eq!(scene.log.closes().len(), 1);
    });
}

#[test]
fn a_file_taken_out_of_its_backend_inside_a_callback_is_called_no_more() {
    in_every_callback(|engine, role, place| {
        let mut scene = scene(engine, role, place, |file| file.set_backend(None).expect("out"));
        let before = scene.log.all();
        if place != In::Close {
            scene.peer.write_all(b"more").expect("write");
        }
        settle(&scene.backend);
        assert_eq!(scene.log.all(), before);
        assert!(scene.backend.is_empty());
        let file = scene.file.lock().expect("file").take().expect("file");
        assert_eq!(file.backend(), None);
        if place != In::Close {
            let mut got = [0; 4];
            file.set_nonblocking(false).expect("blocking");
            (&file).read_exact(&mut got).expect("read");
            assert_eq!(&got, b"more");
        }
    });
}

#[test]
fn the_last_handle_dropped_inside_a_callback_ends_the_connection() {
    in_every_callback(|engine, role, place| {
        let slot: Arc<Mutex<Option<SslFile>>> = Arc::default();
        let inside = slot.clone();
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(role, theirs);
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        let log = Log::new();
        let alive = Arc::new(());
        let (gone, owned): (Weak<()>, _) = (Arc::downgrade(&alive), alive);
        file.set_callbacks(doing(&log, place, move |file| {
            let _ = &owned;
            drop(inside.lock().expect("slot").take());
            // Still good for the rest of the call.
            let _ = (file.state(), file.is_open(), file.unsent());
            let _ = { file }.write(b"too late");
        }));
        *slot.lock().expect("slot") = Some(file);
        turn_until(&backend, || peer.is_finished());
        let mut peer = peer.join().expect("peer");
        match place {
            In::Read => peer.write_all(b"hello").expect("write"),
            In::Close => drop(peer.shutdown()),
            _ => {}
        }
        turn_until(&backend, || slot.lock().expect("slot").is_none());
        settle(&backend);
        let calls = log.all();
        assert!(backend.is_empty(), "{backend:?}");
        assert!(gone.upgrade().is_none(), "the callbacks are still there");
        let mut got = Vec::new();
        peer.read_to_end(&mut got).expect("close_notify");
        assert_eq!(got, b"");
        settle(&backend);
        assert_eq!(log.all(), calls, "called after the drop");
    });
}

/// A handle made from the argument of a callback in which the last one was dropped is on a dead connection, and harmless.
#[test]
fn a_handle_cloned_after_the_last_one_was_dropped_is_closed() {
    on_each_engine_and_role(|engine, role| {
        let slot: Arc<Mutex<Option<SslFile>>> = Arc::default();
        let late: Arc<Mutex<Option<SslFile>>> = Arc::default();
        let backend = Backend::new().expect("backend");
        let (file, mut peer, _) = logged_pair(engine, role, &backend);
        let (inside, outside) = (slot.clone(), late.clone());
        file.set_read_callback(move |file, _| {
            drop(inside.lock().expect("slot").take());
            *outside.lock().expect("late") = Some(file.clone());
        });
        *slot.lock().expect("slot") = Some(file);
        peer.write_all(b"x").expect("write");
        turn_until(&backend, || late.lock().expect("late").is_some());
        settle(&backend);
        let file = late.lock().expect("late").take().expect("late");
        assert!((&file).write(b"x").is_err());
        drop(file);
        settle(&backend);
        assert!(backend.is_empty());
        assert_eq!(peer.read(&mut [0; 1]).expect("close_notify"), 0);
    });
}

#[test]
fn a_panic_comes_out_of_turn_and_takes_only_its_callback() {
    in_every_callback(|engine, role, place| {
        let backend = Backend::new().expect("backend");
        let (_bystander, mut other_peer, other) = logged_pair(engine, role, &backend);
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(role, theirs);
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        let log = Log::new();
        file.set_callbacks(doing(&log, place, |_| panic!("in a callback")));
        let mut panicked = 0;
        let mut turn = || {
            let turned = || assert!(backend.turn(Some(Duration::from_millis(5))).is_ok());
            panicked += usize::from(panics(turned));
        };
        while !peer.is_finished() {
            turn();
        }
        let mut peer = peer.join().expect("peer");
        peer.write_all(b"hello").expect("write");
        other_peer.write_all(b"hello").expect("write");
        while other.data() != b"hello" || (log.data() != b"hello") {
            turn();
        }
        if place != In::Accept {
            assert_eq!((&file).write(b"x").expect("write"), 1);
        }
        if place != In::Close {
            let all = file.take_callbacks();
            let text = format!("{all:?}");
            for (name, at) in [("accept", In::Accept), ("read", In::Read), ("write", In::Write), ("close", In::Close)] {
                assert!(text.contains(&format!("{name}: {}", at != place)), "{text}");
            }
            file.set_callbacks(all);
        }
        end_well(peer);
        while log.closes().is_empty() {
            turn();
        }
        for _ in 0..20 {
            turn();
        }
        assert_eq!(panicked, 1);
        assert_eq!(log.closes(), [Ok(())]);
        assert!(file.take_callbacks().is_empty(), "the end has been told");
        other_peer.write_all(b" again").expect("write");
        turn_until(&backend, || other.data() == b"hello again");
    });
}

#[test]
fn a_panic_in_a_replaced_callback_leaves_the_new_one() {
    on_each_engine(|engine| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, _) = logged_pair(engine, Role::Server, &backend);
        let log = Log::new();
        let next = log.clone();
        file.set_read_callback(move |file, _| {
            let next = next.clone();
            file.set_read_callback(move |_, data| next.add(Told::Read(data.to_vec())));
            panic!("after replacing myself");
        });
        peer.write_all(b"x").expect("write");
        let mut panicked = false;
        while !panicked {
            panicked = panics(|| assert!(backend.turn(Some(Duration::from_millis(5))).is_ok()));
        }
        peer.write_all(b"y").expect("write");
        turn_until(&backend, || log.data() == b"y");
    });
}

/// A read callback that closes, removes or pauses: nothing more is delivered to it.
#[test]
fn a_read_callback_that_pauses_or_closes_gets_no_further_data() {
    on_each_engine_and_role(|engine, role| {
        for close in [false, true] {
            let backend = Backend::new().expect("backend");
            let (file, mut peer, log) = logged_pair(engine, role, &backend);
            let told = log.clone();
            file.set_read_callback(move |file, data| {
                told.add(Told::Read(data.to_vec()));
                match close {
                    true => file.close().expect("close"),
                    false => file.pause_reading(true),
                }
            });
            file.pause_reading(true);
            settle(&backend);
            let writer = thread::spawn(move || {
                let _ = peer.write_all(&[9; 300_000]);
                peer
            });
            file.pause_reading(false);
            turn_until(&backend, || !log.data().is_empty());
            let first = log.data().len();
            settle(&backend);
            assert_eq!(log.data().len(), first);
            if !close {
                while log.data().len() < 300_000 {
                    file.pause_reading(false);
                    backend.turn(Some(Duration::from_millis(5))).expect("turn");
                }
            }
            turn_until(&backend, || writer.is_finished());
            writer.join().expect("writer");
        }
    });
}

/// All queries and all settings, in every callback.
#[test]
fn every_method_may_be_called_inside_a_callback() {
    in_every_callback(|engine, role, place| {
        let scene = scene(engine, role, place, |file| {
            let before = format!("{file:?}");
            assert!(!before.is_empty());
            file.set_nonblocking(false).expect("blocking");
            file.set_nonblocking(true).expect("non-blocking");
            file.set_read_timeout(Some(LONG)).expect("time-out");
            file.set_write_timeout(Some(LONG)).expect("time-out");
            assert!(file.is_handshake_done());
            let _ = (file.version(), file.cipher(), file.alpn(), file.peer_certificate(), file.is_resumed());
            let _ = (file.is_open(), file.pending(), file.interest(), file.last_error(), file.is_busy());
            let _ = (file.peek(&mut [0; 4]), { file }.read(&mut [0; 4]));
            assert_eq!({ file }.write(b"x").expect("write"), 1);
            { file }.flush().expect("flush");
            file.interrupt();
            let backend = file.backend().expect("backend");
            assert_eq!(backend.turn(None).expect_err("turned").kind(), ErrorKind::InvalidInput);
            file.set_backend(Some(&backend)).expect("the same backend");
            drop(file.try_clone().expect("clone"));
            file.handshake().expect("handshake");
            file.shutdown(std::net::Shutdown::Write).expect("shutdown");
        });
        let Scene { backend, log, file, mut peer } = scene;
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).expect("read");
            end_well(peer);
            got
        });
        turn_until(&backend, || !log.closes().is_empty() && reader.is_finished());
        assert_eq!(reader.join().expect("reader"), b"x");
        drop(file);
        settle(&backend);
        assert!(backend.is_empty());
    });
}

/// A callback may end another file of the same backend that has an event in the same turn.
#[test]
fn a_callback_may_drop_another_file_with_an_event_in_the_same_turn() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let files: Arc<Mutex<Vec<Option<SslFile>>>> = Arc::default();
        let calls = Log::new();
        let mut peers = Vec::new();
        for mine in 0..3 {
            let (file, peer, _) = logged_pair(engine, role, &backend);
            let (others, calls) = (files.clone(), calls.clone());
            file.set_read_callback(move |_, _| {
                calls.add(Told::Write);
                let mut files = others.lock().expect("files");
                let taken: Vec<_> =
                    files.iter_mut().enumerate().filter(|(i, _)| *i != mine).map(|(_, file)| file.take()).collect();
                drop(files);
                drop(taken);
            });
            files.lock().expect("files").push(Some(file));
            peers.push(peer);
        }
        peers.iter_mut().for_each(|peer| peer.write_all(b"x").expect("write"));
        turn_all_until(&[&backend], || calls.writes() > 0);
        settle(&backend);
        assert_eq!(calls.writes(), 1);
        assert_eq!(backend.len(), 1);
    });
}

/// As one of the callback's own: the turn tells of it, and the file goes on.
#[test]
fn a_panic_of_what_a_replaced_callback_owned_leaves_the_file_usable() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("dropped");
            }
        }
    }
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, _) = logged_pair(engine, role, &backend);
        let log = Log::new();
        let (next, bomb) = (log.clone(), Bomb);
        file.set_read_callback(move |file, _| {
            let (_own, next) = (&bomb, next.clone());
            file.set_read_callback(move |_, data| next.add(Told::Read(data.to_vec())));
        });
        peer.write_all(b"x").expect("write");
        let turn_panics = || panics(|| assert!(backend.turn(Some(Duration::from_millis(5))).is_ok()));
        assert!((0..1000).any(|_| turn_panics()));
        peer.write_all(b"y").expect("write");
        turn_until(&backend, || log.data() == b"y");
        let (taken, taker) = (std::sync::mpsc::channel(), file.try_clone().expect("clone"));
        let thread = thread::spawn(move || {
            drop(taker.take_callbacks());
            taken.0.send(())
        });
        taken.1.recv_timeout(LONG).expect("taken");
        thread.join().expect("thread").expect("told");
    });
}
