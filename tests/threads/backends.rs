//! The same soak in event loops: one backend for each core, connections moved from one to the other while data flows, and
//! threads that write, blocking, on the files that have callbacks.

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::Duration;

use sslfile::{Backend, Callbacks, Engine, SslFile};

use super::{byte_of, narrow_files, seed, Order, Random, LIMIT, PERIOD, WRITERS};
use crate::common::{engines, within};

const CONNECTIONS: usize = 4;
const LARGEST_WRITE: usize = 64 * 1024;

/// What the read callback of one end has seen.
type Seen = Arc<Mutex<Order>>;

/// Sets callbacks that check the order of what comes, and tell the end.
fn watch(file: &SslFile, ended: mpsc::Sender<std::io::Result<()>>) -> Seen {
    let seen = Seen::default();
    let order = seen.clone();
    file.set_callbacks(
        Callbacks::new()
            .on_read(move |_: &SslFile, data| order.lock().expect("order").check(data))
            .on_close(move |_, end| drop(ended.send(end))),
    );
    seen
}

/// One writer's share, blocking.
fn write_all_of(file: &SslFile, writer: usize, seed: u64, bytes: u64) {
    let mut random = Random::new(seed, writer as u64);
    let source: Vec<u8> = (0..(LARGEST_WRITE + PERIOD) as u64).map(|n| byte_of(writer, n)).collect();
    let mut done = 0;
    while done < bytes {
        let from = (done % PERIOD as u64) as usize;
        let size = random.size().min(LARGEST_WRITE).min((bytes - done) as usize);
        done += (&*file).write(&source[from..from + size]).expect("write") as u64;
    }
}

fn moved_while_data_flows(engine: Engine, seed: u64, bytes: u64) {
    let backends: Vec<Backend> = (0..2).map(|_| Backend::new().expect("backend")).collect();
    let share = bytes / WRITERS as u64 / CONNECTIONS as u64;
    let pairs: Vec<_> = (0..CONNECTIONS).map(|_| narrow_files(engine, false)).collect();
    let files: Vec<&SslFile> = pairs.iter().flat_map(|(client, server)| [client, server]).collect();
    let (ended, ends) = mpsc::channel();
    let seen: Vec<Seen> = files.iter().map(|file| watch(file, ended.clone())).collect();
    let (done, moves) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|t| {
        for backend in &backends {
            t.spawn(|| backend.run().expect("run"));
        }
        for (i, file) in files.iter().enumerate() {
            file.set_backend(Some(&backends[i % 2])).expect("set_backend");
        }
        let mover = t.spawn(|| {
            let mut random = Random::new(seed, 999);
            while !done.load(Ordering::Acquire) {
                let file = files[random.size() % files.len()];
                let to = random.size() % 3;
                // None at all, now and then.
                file.set_backend(backends.get(to)).expect("set_backend");
                file.set_backend(Some(&backends[to % 2])).expect("set_backend");
                moves.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(200));
            }
        });
        let writers: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(i, file)| {
                let seed = seed ^ i as u64;
                t.spawn(move || {
                    thread::scope(|t| {
                        for writer in 0..WRITERS {
                            t.spawn(move || write_all_of(file, writer, seed, share));
                        }
                    });
                    file.shutdown(Shutdown::Write).expect("shutdown");
                    (&**file).flush().expect("flush");
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().expect("writer"));
        for _ in &files {
            ends.recv().expect("an end").expect("a clean one");
        }
        done.store(true, Ordering::Release);
        mover.join().expect("mover");
        backends.iter().for_each(Backend::stop);
    });
    for seen in seen {
        assert_eq!(seen.lock().expect("order").seen[..], [share; WRITERS]);
    }
    assert!(ends.try_recv().is_err(), "an end was told twice");
    println!("{engine:?}: {} MiB each way, {} moves", bytes >> 20, moves.load(Ordering::Relaxed));
}

#[test]
fn soak_in_backends() {
    let mib = super::soak::mib();
    let seed = seed();
    for engine in engines() {
        within(LIMIT + Duration::from_secs(mib), move || moved_while_data_flows(engine, seed, (mib << 20) / 2));
    }
}
