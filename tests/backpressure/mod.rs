//! A peer that floods is held by TCP, `send` by its limit; and slow readers are their own problem.

use crate::common;
use crate::rig;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{client_context, engines, pattern, server_context, tcp_pair, test_in_child, within, LONG, NAME};
use rig::{end_well, logged_pair, on_each_engine_and_role, pair_with, settle, turn_until, wake_ups, Log};
use sslfile::{Backend, Engine, Handshake, SslFile};

/// What the crate may hold for one connection.
const LIMIT: usize = 256 * 1024;

/// Reads nothing: no read callback, and paused.
type Hold = (&'static str, fn(&SslFile));
const HOLDS: [Hold; 2] =
    [("no read callback", |file| file.clear_read_callback()), ("paused", |file| file.pause_reading(true))];

#[test]
fn a_flooding_peer_is_held_by_its_window() {
    on_each_engine_and_role(|engine, role| {
        for (name, hold) in HOLDS {
            println!("{name}");
            let backend = Backend::new().expect("backend");
            let (file, mut peer, log) = logged_pair(engine, role, &backend);
            hold(&file);
            let sent = Arc::new(AtomicUsize::new(0));
            let count = sent.clone();
            let total = 64 << 20;
            let flood = thread::spawn(move || {
                let chunk = vec![5; 64 * 1024];
                while count.load(Ordering::SeqCst) < total {
                    peer.write_all(&chunk).expect("write");
                    count.fetch_add(chunk.len(), Ordering::SeqCst);
                }
                end_well(peer);
            });
            let mut before = usize::MAX;
            while before != sent.load(Ordering::SeqCst) {
                before = sent.load(Ordering::SeqCst);
                settle(&backend);
                thread::sleep(Duration::from_millis(100));
            }
            assert!(before > 0 && before < total, "{before} of {total} bytes went");
            assert!(log.is_empty(), "{log:?}");
            assert!(wake_ups(&backend) <= 2, "spinning while the peer is held");
            // What is ahead is what direct calls would find.
            assert!(file.pending() <= LIMIT, "{} bytes decrypted ahead", file.pending());
            let read = Arc::new(AtomicUsize::new(0));
            let sum = read.clone();
            file.set_read_callback(move |_, data| {
                assert!(data.iter().all(|byte| *byte == 5));
                sum.fetch_add(data.len(), Ordering::SeqCst);
            });
            file.pause_reading(false);
            turn_until(&backend, || !log.closes().is_empty());
            flood.join().expect("flood");
            assert_eq!(read.load(Ordering::SeqCst), total, "what waited was not all delivered");
        }
    });
}

/// Resident memory of the child that holds a hundred flooded connections, against a hundred idle ones.
#[test]
fn a_flooded_connection_holds_a_bounded_amount_of_memory() {
    const VARIABLE: &str = "SSLFILE_TEST_FLOODED";
    const TEST: &str = "backpressure::a_flooded_connection_holds_a_bounded_amount_of_memory";
    const FILES: usize = 100;
    if let Some(what) = std::env::var_os(VARIABLE) {
        let (engine, hold) = what.to_str().and_then(|what| what.split_once(' ')).expect("engine and hold");
        let engine = engines().into_iter().find(|e| format!("{e:?}") == engine).expect("engine");
        let hold = HOLDS.iter().find(|(name, _)| *name == hold).expect("hold").1;
        let backend = Backend::new().expect("backend");
        let context = server_context(engine);
        let mut files = Vec::new();
        let log = Log::new();
        for addr in std::io::stdin().lines().take(FILES) {
            let tcp = TcpStream::connect(addr.expect("line")).expect("connect");
            let options = SslFile::options().server().nonblocking(true).backend(&backend);
            let file = options.open(tcp, &context).expect("open");
            file.set_callbacks(log.callbacks());
            hold(&file);
            turn_until(&backend, || file.is_handshake_done());
            files.push(file);
        }
        settle(&backend);
        println!("IDLE {}", resident());
        let mut lines = std::io::stdin().lines();
        for _ in 0..2 {
            // In two rounds: what the first turn of all needs is not the connections'.
            let end = Instant::now() + Duration::from_secs(2);
            while Instant::now() < end {
                backend.turn(Some(Duration::from_millis(20))).expect("turn");
            }
        }
        println!("FULL {}", resident());
        let _ = lines.next();
        assert!(log.data().is_empty());
        drop(files);
        return;
    }
    for engine in engines() {
        for (name, _) in HOLDS {
            within(LONG, move || {
                let mut child = test_in_child(TEST, &[(VARIABLE, &format!("{engine:?} {name}"))])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("child");
                let mut to_child = child.stdin.take().expect("stdin");
                let out = child.stdout.take().expect("stdout");
                let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind");
                let addr = listener.local_addr().expect("addr");
                let peers: Vec<_> = (0..FILES)
                    .map(|_| {
                        writeln!(to_child, "{addr}").expect("address");
                        let (tcp, _) = listener.accept().expect("accept");
                        rig::bare_client(tcp)
                    })
                    .collect();
                let read = |word: &str, lines: &mut dyn Iterator<Item = std::io::Result<String>>| loop {
                    let line = lines.next().expect("line").expect("line");
                    if let Some((_, number)) = line.split_once(word) {
                        return number.trim().parse::<usize>().expect("number");
                    }
                };
                let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out));
                let idle = read("IDLE ", &mut lines);
                let flood = |mut peer: rig::Peer| {
                    // Held until the child is gone.
                    thread::spawn(move || {
                        let mut sent = 0;
                        while let Ok(n) = peer.write(&[0; 16384]) {
                            sent += n;
                        }
                        sent
                    })
                };
                let floods: Vec<_> = peers.into_iter().map(flood).collect();
                let full = read("FULL ", &mut lines);
                drop(to_child);
                for _ in lines {}
                assert!(child.wait().expect("wait").success());
                for flood in floods {
                    assert!(flood.join().expect("flood") > 64 * 1024, "no flood");
                }
                let each = full.saturating_sub(idle) / FILES;
                println!("{engine:?}, {name}: {} KiB for each connection", each / 1024);
                assert!(each <= LIMIT, "{engine:?}, {name}: {each} bytes for each connection");
            });
        }
    }
}

/// Bytes of memory that this process has in use.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("number") * 1024
}

#[test]
fn send_takes_all_or_nothing_up_to_its_limit() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let options = SslFile::options().nonblocking(true).send_limit(100_000);
        let (file, mut peer) = pair_with(engine, role, options, &backend);
        // One piece above the limit is taken when nothing is unsent.
        let mut accepted = 8 << 20;
        file.send(&pattern(1, accepted)).expect("send");
        settle(&backend);
        let mut unsent = file.unsent();
        assert!(unsent > 100_000);
        assert_eq!(file.send(b"x").expect_err("sent").kind(), ErrorKind::WouldBlock);
        assert_eq!(file.unsent(), unsent, "half taken");
        let (go, wait) = std::sync::mpsc::channel::<usize>();
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            for n in wait {
                let start = got.len();
                got.resize(start + n, 0);
                peer.read_exact(&mut got[start..]).expect("read");
            }
            got
        });
        go.send(accepted).expect("go");
        turn_until(&backend, || file.unsent() == 0);
        // Small ones, until the limit is reached: never above it.
        let mut rest = Vec::new();
        loop {
            let piece = pattern(rest.len() as u64, 3000);
            match file.send(&piece) {
                Ok(()) => rest.extend_from_slice(&piece),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
            unsent = file.unsent();
            assert!(unsent <= 100_000, "{unsent} bytes unsent");
        }
        assert!(file.unsent() + 3000 > 100_000, "refused too early, at {}", file.unsent());
        go.send(rest.len()).expect("go");
        turn_until(&backend, || file.unsent() == 0);
        drop(go);
        let mut all = pattern(1, accepted);
        all.extend_from_slice(&rest);
        accepted = all.len();
        let got = reader.join().expect("reader");
        assert_eq!(got.len(), accepted);
        assert!(got == all);
    });
}

/// A writer who goes on in its write callback keeps a bounded amount unsent however slow the peer.
#[test]
fn a_write_callback_that_always_writes_keeps_a_bounded_amount_unsent() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let options = SslFile::options().nonblocking(true).send_limit(64 * 1024);
        let (file, mut peer) = pair_with(engine, role, options, &backend);
        let written = Arc::new(AtomicUsize::new(0));
        let (count, total) = (written.clone(), 4 << 20);
        file.set_write_callback(move |mut file| {
            while count.load(Ordering::SeqCst) < total {
                match file.write(&[3; 10_000]) {
                    Ok(n) => drop(count.fetch_add(n, Ordering::SeqCst)),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::WouldBlock);
                        break;
                    }
                }
                assert!(file.unsent() <= 64 * 1024, "{} bytes unsent", file.unsent());
            }
        });
        let sum = written.clone();
        let reader = thread::spawn(move || {
            let mut buf = [0; 5000];
            let mut got = 0;
            while got < total {
                got += peer.read(&mut buf).expect("read");
            }
            (got, peer)
        });
        turn_until(&backend, || sum.load(Ordering::SeqCst) >= total && reader.is_finished());
        assert!(reader.join().expect("reader").0 >= total);
    });
}

/// A hundred that ask for a lot and read nothing beside a hundred that echo: the echoes take what they take alone, more
/// or less.
#[test]
fn a_hundred_slow_readers_do_not_slow_a_hundred_fast_ones() {
    for engine in engines() {
        within(LONG * 2, move || {
            let alone = echo_time(engine, 0);
            let beside = echo_time(engine, 100);
            println!("{engine:?}: {alone:?} alone, {beside:?} beside slow readers");
            assert!(beside < alone * 4 + Duration::from_secs(1), "{beside:?} instead of {alone:?}");
        });
    }
}

fn echo_time(engine: Engine, slow: usize) -> Duration {
    const FAST: usize = 100;
    const ROUNDS: usize = 50;
    let (server_loop, client_loop) = (Backend::new().expect("backend"), Backend::new().expect("backend"));
    let (client, server) = (client_context(engine), server_context(engine));
    let calm = || SslFile::options().nonblocking(true).handshake(Handshake::Lazy);
    let open = || {
        let (c, s) = tcp_pair();
        let file = calm().server().backend(&server_loop).open(s, &server).expect("server");
        (calm().client(NAME).backend(&client_loop).open(c, &client).expect("client"), file)
    };
    let shake = |files: &[(SslFile, SslFile)]| {
        rig::turn_all_until(&[&server_loop, &client_loop], || {
            files.iter().all(|(c, s)| c.is_handshake_done() && s.is_handshake_done())
        });
    };
    let sluggish: Vec<_> = (0..slow).map(|_| open()).collect();
    shake(&sluggish);
    for (reader, writer) in &sluggish {
        reader.pause_reading(true);
        // Always more to say.
        writer.set_write_callback(|file| drop(file.send(&[0; 200_000])));
    }
    let fast: Vec<_> = (0..FAST).map(|_| open()).collect();
    shake(&fast);
    let done = Arc::new(AtomicUsize::new(0));
    for (client, server) in &fast {
        server.set_read_callback(|file, data| file.send(data).expect("send"));
        let (count, mut rounds, mut got) = (done.clone(), 0, 0);
        client.set_read_callback(move |file, data| {
            got += data.len();
            if got < 1000 {
                return;
            }
            got = 0;
            rounds += 1;
            match rounds {
                ROUNDS => drop(count.fetch_add(1, Ordering::SeqCst)),
                _ => file.send(&[1; 1000]).expect("send"),
            }
        });
    }
    thread::scope(|t| {
        let serving = t.spawn(|| server_loop.run());
        let running = t.spawn(|| client_loop.run());
        let start = Instant::now();
        fast.iter().for_each(|(client, _)| client.send(&[1; 1000]).expect("send"));
        while done.load(Ordering::SeqCst) < FAST {
            thread::sleep(Duration::from_millis(1));
            assert!(start.elapsed() < LONG, "{} of {FAST} done", done.load(Ordering::SeqCst));
        }
        let time = start.elapsed();
        server_loop.stop();
        client_loop.stop();
        serving.join().expect("thread").expect("run");
        running.join().expect("thread").expect("run");
        for (_, writer) in &sluggish {
            assert!(writer.unsent() > 0, "the slow readers were not slow");
        }
        time
    })
}

/// One file that floods its backend does not starve the other files of that backend.
#[test]
fn a_flooding_peer_starves_no_other_file() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (flooded, mut flooder, _) = logged_pair(engine, role, &backend);
        flooded.set_read_callback(|_, _| ());
        let (_file, mut peer, log) = logged_pair(engine, role, &backend);
        let flood = thread::spawn(move || while flooder.write_all(&[0; 65536]).is_ok() {});
        for round in 1..=50 {
            peer.write_all(b"x").expect("write");
            let start = Instant::now();
            while log.data().len() < round {
                backend.turn(None).expect("turn");
                assert!(start.elapsed() < LONG / 10, "starved");
            }
        }
        drop(flooded);
        flood.join().expect("flood");
    });
}
