//! A backend that comes late, as callbacks of others took their time: what was in time counts all the same.

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sslfile::{Backend, Handshake, Role, SslFile};

use crate::common::{client_context, pattern, tcp_pair, NAME};
use crate::rig::{logged_pair_with, on_each_engine, settle, shaking_peer, turn_until, Log, Told};

const LIMIT: Duration = Duration::from_millis(600);

/// So much makes room.
const TAKEN: usize = 512 * 1024;

fn be_busy() {
    thread::sleep(LIMIT + LIMIT / 2);
}

#[test]
fn a_close_goes_on_whose_peer_took_all_in_time() {
    on_each_engine(|engine| {
        let backend = Backend::new().expect("backend");
        let options = SslFile::options().close_timeout(LIMIT).send_limit(8 << 20);
        let (file, mut peer, log) = logged_pair_with(engine, Role::Client, options, &backend);
        let data = pattern(1, 24 << 20);
        let mut accepted = 0;
        while let Ok(n) = (&file).write(&data[accepted..]) {
            accepted += n;
        }
        file.close().expect("the backend finishes it");
        let (late, go_on) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            while all.len() < TAKEN {
                let mut piece = vec![0; 64 * 1024];
                let n = peer.read(&mut piece).expect("read");
                all.extend_from_slice(&piece[..n]);
            }
            go_on.recv().expect("the late backend");
            peer.read_to_end(&mut all).expect("all, and close_notify");
            all
        });
        be_busy();
        late.send(()).expect("reader");
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(log.closes(), [Ok(())]);
        assert!(reader.join().expect("reader") == data[..accepted]);
    });
}

#[test]
fn a_handshake_ends_well_whose_last_flight_came_in_time() {
    on_each_engine(|engine| {
        for driven in [true, false] {
            let backend = Backend::new().expect("backend");
            let (ours, theirs) = tcp_pair();
            let options =
                SslFile::options().nonblocking(true).handshake(Handshake::Lazy).handshake_timeout(Some(LIMIT));
            let file = options.client(NAME).open(ours, &client_context(engine)).expect("open");
            let log = Log::new();
            if driven {
                file.set_backend(Some(&backend)).expect("set_backend");
                file.set_callbacks(log.callbacks());
                settle(&backend);
            } else {
                assert_eq!(file.handshake().expect_err("waits").kind(), ErrorKind::WouldBlock);
            }
            let peer = shaking_peer(Role::Client, theirs);
            be_busy();
            if driven {
                turn_until(&backend, || !log.is_empty());
                assert_eq!(log.all()[0], Told::Accept);
            } else {
                file.handshake().expect("handshake");
            }
            drop(peer.join().expect("peer"));
        }
    });
}

#[test]
fn data_that_came_in_time_is_told_and_no_time_out() {
    on_each_engine(|engine| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair_with(engine, Role::Client, SslFile::options(), &backend);
        file.set_read_timeout(Some(LIMIT)).expect("time-out");
        peer.write_all(b"in time").expect("write");
        be_busy();
        turn_until(&backend, || !log.is_empty());
        assert_eq!(log.all(), [Told::Read(b"in time".to_vec())]);
        // And after that its time-out counts anew.
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(log.closes(), [Err(ErrorKind::TimedOut)]);
    });
}
