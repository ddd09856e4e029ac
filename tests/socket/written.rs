//! `on_written` says that all that was written has been handed to the system, and is believed.

use super::*;

/// What was unsent at each call of `on_written`.
fn note_unsent(probe: &Probe) -> Arc<Mutex<Vec<usize>>> {
    let notes: Arc<Mutex<Vec<usize>>> = Arc::default();
    let to = notes.clone();
    let say = probe.log.clone();
    probe.socket.on_written(move |socket| {
        to.lock().expect("lock").push(socket.unsent());
        say.lock().expect("lock").events.push("written".to_string());
    });
    notes
}

const MUCH: usize = 16 << 20;

/// Queued while plain text is still being sent, and handed on when the mode changes.
// On Windows the system takes any amount at once while it holds less than it wants to.
#[cfg(unix)]
#[test]
fn what_is_queued_for_another_mode_counts_as_unsent() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (a, mut b) = tcp_pair();
            // Left to itself a system may take all of it.
            socket2::SockRef::from(&a).set_send_buffer_size(256 << 10).expect("buffer");
            socket2::SockRef::from(&b).set_recv_buffer_size(256 << 10).expect("buffer");
            let client = Probe::from_tcp(&backend, a);
            let notes = note_unsent(&client);
            client.socket.write(&vec![1; MUCH]).expect("plain");
            client.socket.start_client_encryption(&client_context(engine), NAME).expect("start");
            client.socket.write(&vec![7; MUCH]).expect("queued until encrypted");
            let (go_on, wait) = mpsc::channel();
            let server = thread::spawn(move || {
                b.read_exact(&mut vec![0; MUCH]).expect("plain");
                let mut file = SslFile::server(b, &server_context(engine)).expect("server");
                wait.recv().expect("told to go on");
                file.read_exact(&mut vec![0; MUCH]).expect("TLS");
                file.close()
            });
            client.until("encrypted");
            for _ in 0..20 {
                backend.turn(Some(Duration::from_millis(5))).expect("turn");
            }
            assert!(client.socket.unsent() > 0, "the system has taken all of it");
            assert!(!client.has("written"), "{notes:?}");
            go_on.send(()).expect("send");
            client.until("written");
            assert_eq!(*notes.lock().expect("lock"), [0]);
            client.socket.close();
            client.end().expect("end");
            server.join().expect("server").expect("close");
        }
    });
}

#[test]
fn what_is_written_in_a_handler_before_counts_too() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (client, server) = encrypted_pair(engine, &backend);
            let notes = note_unsent(&client);
            // Told in the same turn, and before.
            let full = AtomicBool::new(false);
            client.socket.on_ready_read(move |socket| {
                drain(socket);
                if !full.swap(true, Ordering::SeqCst) {
                    socket.write(&vec![7; MUCH]).expect("write");
                }
            });
            server.socket.on_ready_read(|_| ());
            server.socket.write(b"now").expect("write");
            client.socket.write(b"some").expect("write");
            for _ in 0..20 {
                backend.turn(Some(Duration::from_millis(5))).expect("turn");
            }
            let mut got = 0;
            turn_until(&backend, "all of it", || {
                got += drain(&server.socket).len();
                got == MUCH + 4 && client.socket.unsent() == 0
            });
            client.until("written");
            assert!(notes.lock().expect("lock").iter().all(|unsent| *unsent == 0), "{notes:?}");
        }
    });
}

#[test]
fn what_was_lost_is_not_written() {
    within(LONG, || {
        for engine in engines() {
            for (encrypted, reset) in [(false, false), (false, true), (true, false), (true, true)] {
                let backend = backend();
                let (a, b) = tcp_pair();
                // Drops what is received with a reset.
                socket2::SockRef::from(&b).set_linger(Some(Duration::ZERO)).expect("linger");
                let stuck = Probe::from_tcp(&backend, a);
                let (go_on, wait) = mpsc::channel();
                let server = thread::spawn(move || {
                    if encrypted {
                        let file = SslFile::server(b, &server_context(engine)).expect("server");
                        let _ = wait.recv();
                        // Without a close_notify.
                        drop(file.release().expect("the stream"));
                    } else {
                        let _ = wait.recv();
                        drop(b);
                    }
                });
                if encrypted {
                    stuck.socket.start_client_encryption(&client_context(engine), NAME).expect("start");
                    stuck.until("encrypted");
                }
                for _ in 0..5 {
                    backend.turn(Some(Duration::from_millis(5))).expect("turn");
                }
                let before = stuck.events().len();
                stuck.socket.write(&vec![0; MUCH]).expect("write");
                match reset {
                    true => go_on.send(()).expect("send"),
                    false => stuck.socket.set_write_timeout(Some(Duration::from_millis(100))),
                }
                let end = stuck.end().expect_err("stuck");
                let events = &stuck.events()[before..];
                assert!(!events.iter().any(|event| event == "written"), "{encrypted} {reset}: {end}: {events:?}");
                drop(go_on);
                let _ = server.join();
            }
        }
    });
}
