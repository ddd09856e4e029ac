//! f, g: threads that write on one connection.

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sslfile::SslFile;

use crate::common::{pattern, tls_pair, until_busy};
use crate::rig::on_each_engine;

/// More than the system takes for a connection.
const BIG: usize = 12 << 20;
/// Long enough for what must not wait.
const SOON: Duration = Duration::from_secs(5);

/// A thread is in the middle of one `write` of `BIG` bytes, which the peer does not read; another calls `small`. Then the
/// peer reads it all, of which what comes behind the `BIG` bytes is given back.
fn beside_a_big_write(small: fn(&SslFile), expected: usize, client: SslFile, server: &SslFile) -> Vec<u8> {
    let big = pattern(6, BIG);
    let mut all = vec![0; BIG + expected];
    thread::scope(|t| {
        let writer = t.spawn(|| { &client }.write(&big));
        until_busy(&client);
        // Into the middle of it.
        { server }.read_exact(&mut all[..1]).expect("read");
        let (done, is_done) = mpsc::channel();
        let other = client.clone();
        let caller = thread::spawn(move || {
            small(&other);
            done.send(()).expect("done");
        });
        let waited = is_done.recv_timeout(SOON);
        assert!(!writer.is_finished(), "the system took all of it");
        { server }.read_exact(&mut all[1..]).expect("read");
        assert_eq!(writer.join().expect("writer").expect("write"), BIG);
        caller.join().expect("caller");
        waited.expect("it waited for the big write");
    });
    client.close().expect("close");
    assert_eq!({ server }.read(&mut [0]).expect("the end"), 0);
    let at = (0..BIG).find(|i| all[*i] != big[*i]);
    assert_eq!(at, None, "what another thread sent is inside the big write, at");
    all.split_off(BIG)
}

#[test]
fn f_send_goes_behind_the_write_of_another_thread() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        let send = |file: &SslFile| {
            for i in 0..1000 {
                file.send(format!("{i:09};").as_bytes()).expect("send");
            }
        };
        let behind = beside_a_big_write(send, 10_000, client, &server);
        let in_order: String = (0..1000).map(|i| format!("{i:09};")).collect();
        assert!(behind == in_order.as_bytes());
    });
}

#[test]
fn f_send_beside_a_write_is_bounded_by_the_send_limit() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        let send = |file: &SslFile| {
            let mut accepted = 0;
            let refused = loop {
                match file.send(&[b's'; 1000]) {
                    Ok(()) => accepted += 1000,
                    Err(e) => break e,
                }
            };
            assert_eq!(refused.kind(), ErrorKind::WouldBlock);
            // The limit, less the chunk that the write has in hand.
            assert!((64 << 10..=256 << 10).contains(&accepted), "{accepted} bytes accepted");
        };
        let big = pattern(6, BIG);
        thread::scope(|t| {
            let writer = t.spawn(|| { &client }.write_all(&big));
            until_busy(&client);
            { &server }.read_exact(&mut [0]).expect("read");
            send(&client);
            t.spawn(|| {
                let mut all = Vec::new();
                { &server }.read_to_end(&mut all).expect("read");
                assert!(all[..BIG - 1] == big[1..], "what was sent is inside the write");
                assert!(all[BIG - 1..].iter().all(|byte| *byte == b's'));
            });
            // Waits for all that is accepted.
            { &client }.flush().expect("flush");
            writer.join().expect("writer").expect("write");
            client.close().expect("close");
        });
    });
}

#[test]
fn g_a_small_write_beside_a_big_one_is_queued_behind_it() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        let write = |mut file: &SslFile| {
            for word in [b"first ", b"second", b"third "] {
                assert_eq!(file.write(word).expect("write"), 6);
            }
        };
        let behind = beside_a_big_write(write, 18, client, &server);
        assert_eq!(behind, b"first secondthird ");
    });
}

/// In the order of asking, and whole.
#[test]
fn g_writes_and_sends_beside_a_write_keep_their_order() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        let both = |mut file: &SslFile| {
            for i in 0..100 {
                file.write_all(format!("w{i:03}").as_bytes()).expect("write");
                file.send(format!("s{i:03}").as_bytes()).expect("send");
            }
        };
        let behind = beside_a_big_write(both, 800, client, &server);
        let in_order: String = (0..100).map(|i| format!("w{i:03}s{i:03}")).collect();
        assert!(behind == in_order.as_bytes());
    });
}

/// One end of `g_two_ends...`: a thread in the middle of a big write; the calling one reads a byte, answers it, and then
/// reads the rest and the other's answer.
fn answering_end(file: &SslFile, big: &[u8], answer: &[u8], expected: &[u8], both_write: impl FnOnce()) {
    thread::scope(|t| {
        let writer = t.spawn(|| assert_eq!({ file }.write(big).expect("write"), big.len()));
        // It may be through already, where the other end, which waits to write, reads ahead.
        while !file.is_busy() && !writer.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        both_write();
        let mut all = vec![0; expected.len()];
        { file }.read_exact(&mut all[..1]).expect("read");
        { file }.write_all(answer).expect("answer");
        { file }.read_exact(&mut all[1..]).expect("read");
        assert!(all == expected);
    });
}

#[test]
fn g_two_ends_whose_readers_answer_get_past_a_big_write_each_way() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        let (up, down) = (pattern(7, BIG), pattern(8, BIG));
        let behind = |big: &[u8]| [big, b"pong"].concat();
        let barrier = std::sync::Barrier::new(2);
        let meet = || {
            barrier.wait();
        };
        thread::scope(|t| {
            t.spawn(|| answering_end(&server, &down, b"pong", &behind(&up), meet));
            answering_end(&client, &up, b"pong", &behind(&down), meet);
        });
    });
}

/// The answers do not fit under the send limit, so that they wait for their turn: that thread reads ahead meanwhile.
#[test]
fn g_two_ends_that_answer_with_writes_beyond_the_send_limit_get_on() {
    // More than small buffers take; with the answer less than is read ahead.
    const QUITE_BIG: usize = 600 << 10;
    const ANSWER: usize = 300 << 10;
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        for file in [&client, &server] {
            let socket = socket2::SockRef::from(file.get_ref());
            socket.set_send_buffer_size(32 << 10).expect("buffer");
            socket.set_recv_buffer_size(32 << 10).expect("buffer");
        }
        let (up, down, answer) = (pattern(7, QUITE_BIG), pattern(8, QUITE_BIG), pattern(9, ANSWER));
        let behind = |big: &[u8]| [big, &answer].concat();
        let barrier = std::sync::Barrier::new(2);
        let meet = || {
            barrier.wait();
        };
        thread::scope(|t| {
            t.spawn(|| answering_end(&server, &down, &answer, &behind(&up), meet));
            answering_end(&client, &up, &answer, &behind(&down), meet);
        });
    });
}

const MESSAGE: usize = 15_000_000;
const MESSAGES: usize = 2;
const PING: u8 = 1;
const PONG: u8 = 2;
const DATA: u8 = 3;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &(payload.len() as u32).to_be_bytes(), payload].concat()
}

/// As a WebSocket library has it: whoever reads answers each ping itself, with a write in the middle of reading.
fn web_socket(file: &SslFile) {
    thread::scope(|t| {
        t.spawn(|| {
            for i in 0..MESSAGES {
                { file }.write_all(&frame(PING, &[1; 100])).expect("ping");
                { file }.write_all(&frame(DATA, &vec![i as u8; MESSAGE])).expect("message");
            }
        });
        let (mut pings, mut pongs, mut messages) = (0, 0, 0);
        while [pings, pongs, messages] != [MESSAGES; 3] {
            let mut head = [0; 5];
            { file }.read_exact(&mut head).expect("head");
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let mut payload = vec![0; len as usize];
            { file }.read_exact(&mut payload).expect("payload");
            match head[0] {
                PING => {
                    { file }.write_all(&frame(PONG, &payload)).expect("pong");
                    pings += 1;
                }
                PONG => pongs += 1,
                DATA => {
                    assert!(payload.len() == MESSAGE && payload.iter().all(|byte| *byte == messages as u8));
                    messages += 1;
                }
                other => panic!("a frame inside a frame: {other}"),
            }
        }
        { file }.flush().expect("flush");
    });
}

#[test]
fn g_two_threads_at_each_end_that_answer_pings_get_through_big_messages() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        thread::scope(|t| {
            t.spawn(|| web_socket(&server));
            web_socket(&client);
        });
    });
}
