//! `SslOptions::busy_poll` keeps a reader from sleeping and changes nothing else.

use crate::common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    client_context, engines, kind_of, pattern, server_context, tcp_pair, tls_pair_with, until_busy, within, LONG, NAME,
};
use sslfile::{Backend, Engine, ErrorKind as Kind, SslFile, SslOptions, Stream};

/// What people would set: most waits outlast it, so that a call spins and then sleeps.
const SHORT: Duration = Duration::from_micros(50);
/// No wait in here outlasts it.
const ENDLESS: Duration = Duration::MAX;

const LIMIT: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(4);

fn each(test: fn(Engine, Duration)) {
    within(4 * LONG, move || {
        for engine in engines() {
            [SHORT, ENDLESS].into_iter().for_each(|time| test(engine, time));
        }
    });
}

fn pair(engine: Engine, time: Duration) -> (SslFile, SslFile) {
    let options = SslFile::options().busy_poll(time);
    tls_pair_with(options.clone(), &client_context(engine), options, &server_context(engine))
}

fn times_out<T: std::fmt::Debug>(call: impl FnOnce() -> io::Result<T>) {
    let start = Instant::now();
    let error = call().expect_err("nothing can have come of it");
    let took = start.elapsed();
    assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::TimedOut, Some(Kind::TimedOut)), "{error}");
    assert!(took >= LIMIT && took < LIMIT + SOON, "limit {LIMIT:?}, took {took:?}");
}

/// One byte there and one back.
fn exchange<S: Stream, T: Stream>(mut one: &SslFile<S>, mut other: &SslFile<T>) {
    let mut byte = [0];
    one.write_all(&[1]).expect("write");
    other.read_exact(&mut byte).expect("read");
    other.write_all(&[2]).expect("write");
    one.read_exact(&mut byte).expect("read");
    assert_eq!(byte, [2]);
}

#[test]
fn time_outs_hold() {
    each(|engine, time| {
        let (client, server) = pair(engine, time);
        for mut file in [&client, &server] {
            file.set_read_timeout(Some(LIMIT)).expect("set");
            times_out(|| file.read(&mut [0]));
            times_out(|| file.peek(&mut [0]));
        }
        exchange(&client, &server);

        let (stream, silent) = tcp_pair();
        let options = SslFile::options().busy_poll(time).client(NAME);
        let options = options.handshake_timeout(Some(LIMIT));
        times_out(|| Ok(options.open(stream, &client_context(engine))?));
        drop(silent);
    });
}

#[test]
fn every_way_to_end_a_wait_ends_it() {
    each(|engine, time| {
        let (client, server) = pair(engine, time);
        let ended_by = |end: fn(&SslFile) -> io::Result<()>| {
            thread::scope(|t| {
                let first = t.spawn(|| (&client).read(&mut [0]));
                until_busy(&client);
                end(&client).expect("the end");
                first.join().expect("reader")
            })
        };
        let interrupted = ended_by(|file| {
            file.interrupt();
            Ok(())
        });
        assert_eq!(kind_of(&interrupted.expect_err("interrupted")), Some(Kind::Interrupted));
        exchange(&client, &server);
        assert_eq!(ended_by(|file| file.shutdown(Shutdown::Read)).expect("shut"), 0);

        let (client, server) = pair(engine, time);
        thread::scope(|t| {
            // One has the reading turn, the others wait for it.
            let readers: Vec<_> = (0..3).map(|_| t.spawn(|| (&client).read(&mut [0]))).collect();
            until_busy(&client);
            t.spawn(|| assert_eq!((&server).read(&mut [0]).expect("the end"), 0));
            client.close().expect("close");
            for reader in readers {
                let error = reader.join().expect("reader").expect_err("closed");
                assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
            }
        });
    });
}

#[test]
fn a_reader_delays_no_writer_and_no_other_reader() {
    each(|engine, time| {
        let (client, server) = pair(engine, time);
        let data = pattern(1, 4 << 20);
        let get = |mut file: &SslFile, len: usize| {
            let mut data = vec![0; len];
            file.read_exact(&mut data).expect("read");
            data
        };
        thread::scope(|t| {
            let reader = t.spawn(|| get(&client, 1));
            until_busy(&client);
            t.spawn(|| (&client).write_all(&data).expect("write"));
            assert!(get(&server, data.len()) == data);
            assert!(!reader.is_finished());
            (&server).write_all(&[7]).expect("write");
            assert_eq!(reader.join().expect("reader"), [7]);
        });
        thread::scope(|t| {
            t.spawn(|| (&client).write_all(&data).expect("write"));
            t.spawn(|| (&server).write_all(&data).expect("write"));
            t.spawn(|| assert!(get(&client, data.len()) == data));
            t.spawn(|| assert!(get(&server, data.len()) == data));
        });
        thread::scope(|t| {
            let readers = [t.spawn(|| get(&client, 1)), t.spawn(|| get(&client, 1))];
            until_busy(&client);
            for byte in [1, 2] {
                (&server).write_all(&[byte]).expect("write");
            }
            let mut got: Vec<u8> = readers.into_iter().flat_map(|reader| reader.join().expect("reader")).collect();
            got.sort_unstable();
            assert_eq!(got, [1, 2]);
        });
    });
}

/// With a spin that never ends, whoever waits at all hangs.
#[test]
fn what_does_not_block_does_not_spin() {
    within(LONG, || {
        for engine in engines() {
            let (client, server) = pair(engine, ENDLESS);
            client.set_nonblocking(true).expect("set");
            assert_eq!((&client).read(&mut [0]).expect_err("nothing there").kind(), ErrorKind::WouldBlock);
            assert!(client.is_open());
            let backend = Backend::new().expect("backend");
            let (said, heard) = mpsc::channel();
            client.set_read_callback(move |_, data| said.send(data.to_vec()).expect("send"));
            client.set_backend(Some(&backend)).expect("set");
            backend.turn(Some(Duration::ZERO)).expect("turn");
            (&server).write_all(b"heard").expect("write");
            while heard.try_recv().is_err() {
                backend.turn(Some(LONG)).expect("turn");
            }
        }
    });
}

#[cfg(unix)]
#[test]
fn halves_are_read_as_ever() {
    use std::process::{Command, Stdio};

    use sslfile::{Duplex, Handshake};
    each(|engine, time| {
        let halves = || {
            let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
            (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"), child)
        };
        let ((to_server, at_server, mut one), (to_client, at_client, mut other)) = (halves(), halves());
        let options = SslFile::options().busy_poll(time).handshake(Handshake::Lazy);
        let client = Duplex::new(at_client, to_server);
        let client = options.clone().client(NAME).open(client, &client_context(engine)).expect("client");
        let server = Duplex::new(at_server, to_client);
        let server = options.server().open(server, &server_context(engine)).expect("server");
        thread::scope(|t| {
            t.spawn(|| server.handshake().expect("server"));
            client.handshake().expect("client");
        });
        exchange(&client, &server);
        client.set_read_timeout(Some(LIMIT)).expect("set");
        times_out(|| (&client).read(&mut [0]));
        drop((client, server));
        for child in [&mut one, &mut other] {
            child.wait().expect("cat");
        }
    });
}

#[test]
fn files_in_files_are_read_as_ever() {
    each(|engine, time| {
        for (inner, outer) in [(time, Duration::ZERO), (Duration::ZERO, time), (time, time)] {
            let (client, server) = wrap(engine, pair(engine, inner), outer);
            client.set_read_timeout(Some(LIMIT)).expect("set");
            times_out(|| (&client).read(&mut [0]));
            exchange(&client, &server);
            client.set_read_timeout(None).expect("set");
            thread::scope(|t| {
                let reader = t.spawn(|| (&client).read(&mut [0]));
                until_busy(&client);
                client.interrupt();
                let error = reader.join().expect("reader").expect_err("interrupted");
                assert_eq!(kind_of(&error), Some(Kind::Interrupted), "{error}");
            });
        }
    });
}

/// TLS in TLS.
fn wrap(engine: Engine, (client, server): (SslFile, SslFile), time: Duration) -> (SslFile<SslFile>, SslFile<SslFile>) {
    let options: fn() -> SslOptions = SslFile::options;
    thread::scope(|t| {
        let server = t.spawn(move || options().busy_poll(time).server().open(server, &server_context(engine)));
        let client = options().busy_poll(time).client(NAME).open(client, &client_context(engine)).expect("client");
        (client, server.join().expect("server thread").expect("server"))
    })
}

#[cfg(target_os = "linux")]
mod sleeps {
    use std::fs;

    use rustix::thread::{sched_getaffinity, sched_setaffinity, CpuSet};

    use super::*;
    use common::passes_in_child;

    const READS: u64 = 20;

    /// How often the calling thread has gone to sleep.
    fn sleeps() -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("a count");
        line.trim().parse().expect("a number")
    }

    /// How often a reader sleeps, who waits two milliseconds and more for each of `READS` bytes.
    fn sleeps_of_reader<S: Stream>(reader: &SslFile<S>, writer: &SslFile<S>) -> u64 {
        exchange(reader, writer);
        let (done, next) = mpsc::channel();
        thread::scope(|t| {
            let reading = t.spawn(move || {
                let before = sleeps();
                for _ in 0..READS {
                    let mut reader = reader;
                    reader.read_exact(&mut [0]).expect("read");
                    done.send(()).expect("the writer listens");
                }
                sleeps() - before
            });
            for _ in 0..READS {
                until_busy(reader);
                thread::sleep(Duration::from_millis(2));
                let mut writer = writer;
                writer.write_all(&[1]).expect("write");
                next.recv().expect("the reader has it");
            }
            reading.join().expect("reader")
        })
    }

    #[test]
    fn a_reader_that_spins_does_not_sleep() {
        if has_one_processor() {
            return;
        }
        within(LONG, || {
            for engine in engines() {
                let (client, server) = pair(engine, Duration::ZERO);
                let plain = sleeps_of_reader(&client, &server);
                // A reader that was kept from running may find the byte there.
                assert!(plain >= READS / 2, "{engine:?}: {plain}");
                for file in [pair(engine, ENDLESS), pair(engine, LONG)] {
                    let spun = sleeps_of_reader(&file.0, &file.1);
                    // The lock may be held by somebody who asks whether it is busy.
                    assert!(spun <= READS / 4, "{engine:?}: {spun}");
                }
                for (inner, outer) in [(ENDLESS, Duration::ZERO), (Duration::ZERO, ENDLESS)] {
                    let (client, server) = wrap(engine, pair(engine, inner), outer);
                    let spun = sleeps_of_reader(&client, &server);
                    assert!(spun <= READS / 4, "{engine:?} in itself: {spun}");
                }
            }
        });
    }

    fn has_one_processor() -> bool {
        fs::read_to_string("/sys/devices/system/cpu/online").expect("sysfs").trim() == "0"
    }

    /// The peer's processor is another. Only the thread that opens the files is bound: readers that share one processor
    /// with all others spin too, but nothing gets on beside them.
    #[test]
    fn a_thread_that_is_bound_to_a_processor_spins_nevertheless() {
        const CHILD: &str = "SSLFILE_TEST_ONE_PROCESSOR";
        const TEST: &str = "busy_poll::sleeps::a_thread_that_is_bound_to_a_processor_spins_nevertheless";
        if has_one_processor() {
            return;
        }
        if std::env::var_os(CHILD).is_none() {
            return passes_in_child(TEST, &[(CHILD, "1")]);
        }
        within(LONG, || {
            let allowed = sched_getaffinity(None).expect("affinity");
            let mut one = CpuSet::new();
            one.set((0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).expect("a processor"));
            sched_setaffinity(None, &one).expect("bound");
            assert_eq!(thread::available_parallelism().expect("known").get(), 1);
            let options = SslFile::options().busy_poll(ENDLESS);
            sched_setaffinity(None, &allowed).expect("free again");
            for engine in engines() {
                let context = (client_context(engine), server_context(engine));
                let (client, server) = tls_pair_with(options.clone(), &context.0, options.clone(), &context.1);
                let spun = sleeps_of_reader(&client, &server);
                assert!(spun <= READS / 4, "{engine:?}: {spun}");
            }
        });
    }
}
