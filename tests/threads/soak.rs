//! The soak: several writers and several readers on clones of both ends, every size, every order.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use sslfile::SslFile;

use super::{again, again_on, byte_of, narrow_files, seed, Order, Random, LARGEST, LIMIT, PERIOD, WRITERS};
use crate::common::{engines, within};

const READERS: usize = 3;

/// Each writer until the common budget is used up; how much `write` accepted from each.
fn write_share(file: &SslFile, writer: usize, seed: u64, budget: &AtomicU64) -> u64 {
    let mut random = Random::new(seed, writer as u64);
    let source: Vec<u8> = (0..(LARGEST + PERIOD) as u64).map(|n| byte_of(writer, n)).collect();
    let mut done = 0;
    loop {
        let size = random.size() as u64;
        let taken =
            budget.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| (left > 0).then(|| left - left.min(size)));
        let Ok(left) = taken else { return done };
        let mut rest = left.min(size) as usize;
        while rest > 0 {
            let from = (done % PERIOD as u64) as usize;
            let n = again_on(file, PollFlags::OUT, || (&*file).write(&source[from..from + rest])).expect("write");
            assert!(n >= 1 && n <= rest, "{n} of {rest} bytes accepted");
            done += n as u64;
            rest -= n;
        }
    }
}

/// Readers that keep the order: the reading itself goes from thread to thread.
fn read_in_order(file: &SslFile, reader: u64, seed: u64, order: &Mutex<Order>) {
    let mut random = Random::new(seed, 100 + reader);
    let mut buf = vec![0; LARGEST];
    loop {
        let size = random.size();
        let mut order = order.lock().expect("order");
        match again_on(file, PollFlags::IN, || (&*file).read(&mut buf[..size])).expect("read") {
            0 => return,
            n => order.check(&buf[..n]),
        }
    }
}

/// Readers all at once: who got what is known to nobody, but every byte was got once.
fn read_in_any_order(file: &SslFile, reader: u64, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed, 200 + reader);
    let mut buf = vec![0; LARGEST];
    let mut counts = vec![0; 256];
    loop {
        let size = random.size();
        match again_on(file, PollFlags::IN, || (&*file).read(&mut buf[..size])).expect("read") {
            0 => return counts,
            n => buf[..n].iter().for_each(|byte| counts[usize::from(*byte)] += 1),
        }
    }
}

/// One direction: several writers on clones, then the end; several readers on clones of the other file.
fn one_way(from: &SslFile, to: &SslFile, in_order: bool, seed: u64, bytes: u64) {
    let budget = AtomicU64::new(bytes);
    let order = Mutex::new(Order::default());
    thread::scope(|t| {
        let readers: Vec<_> = (0..READERS as u64)
            .map(|i| {
                let file = to.try_clone().expect("try_clone");
                let order = &order;
                t.spawn(move || {
                    if in_order {
                        read_in_order(&file, i, seed, order);
                        return Vec::new();
                    }
                    read_in_any_order(&file, i, seed)
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|i| {
                let file = from.try_clone().expect("try_clone");
                let budget = &budget;
                t.spawn(move || write_share(&file, i, seed, budget))
            })
            .collect();
        let sent: Vec<u64> = writers.into_iter().map(|w| w.join().expect("writer")).collect();
        from.shutdown(Shutdown::Write).expect("shutdown");
        again(from, || (&*from).flush()).expect("flush");
        let counts: Vec<Vec<u64>> = readers.into_iter().map(|r| r.join().expect("reader")).collect();
        assert_eq!(sent.iter().sum::<u64>(), bytes);
        if in_order {
            assert_eq!(order.lock().expect("order").seen[..], sent[..]);
        } else {
            let mut expected = vec![0; 256];
            for (writer, sent) in sent.iter().enumerate() {
                for n in 0..PERIOD as u64 {
                    let times = sent / PERIOD as u64 + u64::from(n < sent % PERIOD as u64);
                    expected[usize::from(byte_of(writer, n))] += times;
                }
            }
            let got: Vec<u64> = (0..256).map(|b| counts.iter().map(|c| c[b]).sum()).collect();
            assert!(got == expected, "lost or doubled: {got:?} for {expected:?}");
        }
    });
}

/// How much to send each way, in MiB.
pub fn mib() -> u64 {
    match std::env::var("SSLFILE_SOAK_MIB") {
        Ok(text) => text.parse().expect("SSLFILE_SOAK_MIB is a number"),
        Err(_) => 24,
    }
}

fn soak(nonblocking: bool) {
    let mib = mib();
    let seed = seed();
    // At 2 MiB a second even a machine that does other things gets there.
    let limit = LIMIT + Duration::from_secs(mib);
    for engine in engines() {
        within(limit, move || {
            for in_order in [true, false] {
                let start = Instant::now();
                let (client, server) = narrow_files(engine, nonblocking);
                let bytes = (mib << 20) / 2;
                thread::scope(|t| {
                    t.spawn(|| one_way(&client, &server, in_order, seed, bytes));
                    one_way(&server, &client, !in_order, !seed, bytes);
                });
                println!("{engine:?}: {} MiB each way in {:?}", mib / 2, start.elapsed());
            }
        });
    }
}

#[test]
fn soak_blocking() {
    soak(false);
}

#[test]
fn soak_nonblocking() {
    soak(true);
}
