//! What many idle time-outs cost each turn of a backend.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use sslfile::{Backend, Callbacks, PlainFile};

use crate::limits;
use crate::pin::{self, Pin};
use crate::report::Table;

/// Never reached.
const FAR: Duration = Duration::from_secs(3600);
/// A 64-byte echo makes a turn.
const MESSAGE: [u8; 64] = [b'x'; 64];

/// For each number of timers: what a turn in which one connection echoes costs, with and without time-outs. What is a time-out
/// of a connection where descriptors allow (each connection takes two) is a call-out otherwise: both are kept in the same place.
pub fn run(counts: &[usize], turns: u64) -> io::Result<()> {
    pin::set(Pin::Together);
    let mut table = Table::new(&[
        "timers",
        "connections",
        "call-outs",
        "turn without",
        "with",
        "ratio",
        "any without",
        "with",
        "ratio",
        "call-out and cancel",
        "set again",
        "each when due",
    ]);
    for wanted in counts {
        eprintln!("{wanted} timers");
        let connections = limits::connections(*wanted, 2);
        let backend = Backend::new()?;
        let mut pairs = (0..connections).map(|_| pair(&backend)).collect::<io::Result<Vec<_>>>()?;
        // A new file is run once.
        while backend.turn(Some(Duration::ZERO))? > 0 {}
        let without = Turns::measure(&backend, &mut pairs, turns)?;
        for (_, file) in &pairs {
            file.set_read_timeout(Some(FAR))?;
        }
        // As a rule time-outs were set at different times, those of the oldest first.
        for i in connections..*wanted {
            backend.call_out(FAR + Duration::from_micros(i as u64), || {});
        }
        backend.turn(Some(Duration::ZERO))?;
        let with = Turns::measure(&backend, &mut pairs, turns)?;
        let cancelled = of_each(turns, || {
            backend.call_out(FAR, || {}).cancel();
            Ok(())
        })?;
        let mut number = Numbers(1);
        let again = of_each(turns, || {
            let (_, file) = &pairs[number.below(pairs.len())];
            file.set_read_timeout(Some(FAR))
        })?;
        let due = expire(&backend, &pairs)?;
        let text = |time: f64| format!("{:.2} µs", time * 1e6);
        table.push(vec![
            wanted.to_string(),
            connections.to_string(),
            (wanted - connections).to_string(),
            text(without.one),
            text(with.one),
            format!("{:.2}", with.one / without.one),
            text(without.any),
            text(with.any),
            format!("{:.2}", with.any / without.any),
            text(cancelled),
            text(again),
            text(due),
        ]);
    }
    table.print();
    Ok(())
}

/// The other end, and what a backend echoes on.
fn pair(backend: &Backend) -> io::Result<(UnixStream, PlainFile<UnixStream>)> {
    let (there, here) = UnixStream::pair()?;
    let file = PlainFile::new(here);
    file.set_nonblocking(true)?;
    file.set_callbacks(echoing());
    file.set_backend(Some(backend))?;
    Ok((there, file))
}

fn echoing() -> Callbacks<PlainFile<UnixStream>> {
    Callbacks::new().on_read(|file: &PlainFile<_>, data| {
        if let Err(e) = file.send(data) {
            eprintln!("a message is lost: {e}");
        }
    })
}

/// Processor seconds of a turn in which one connection echoes.
struct Turns {
    /// The same one each time.
    one: f64,
    /// Any of them: what is behind it is seldom in a cache.
    any: f64,
}

impl Turns {
    fn measure(backend: &Backend, pairs: &mut [(UnixStream, PlainFile<UnixStream>)], turns: u64) -> io::Result<Turns> {
        let mut number = Numbers(7);
        let last = pairs.len();
        let one = of_each(turns, || echo(backend, &mut pairs[last / 2].0))?;
        let any = of_each(turns, || echo(backend, &mut pairs[number.below(last)].0))?;
        Ok(Turns { one, any })
    }
}

fn echo(backend: &Backend, there: &mut UnixStream) -> io::Result<()> {
    there.write_all(&MESSAGE)?;
    backend.turn(None)?;
    there.set_nonblocking(true)?;
    let mut received = 0;
    while received < MESSAGE.len() {
        match there.read(&mut [0; MESSAGE.len()][received..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => received += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => drop(backend.turn(None)?),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Processor seconds of one of so many.
fn of_each(times: u64, mut f: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let begin = ThreadTime::now();
    (0..times).try_for_each(|_| f())?;
    Ok(begin.elapsed().as_secs_f64() / times as f64)
}

/// All at once: what the end of each costs.
fn expire(backend: &Backend, pairs: &[(UnixStream, PlainFile<UnixStream>)]) -> io::Result<f64> {
    let ended = Arc::new(AtomicUsize::new(0));
    for (_, file) in pairs {
        let ended = ended.clone();
        file.set_callbacks(echoing().on_close(move |_, result| {
            if result.is_err_and(|e| e.kind() == io::ErrorKind::TimedOut) {
                ended.fetch_add(1, Ordering::Relaxed);
            }
        }));
        file.set_read_timeout(Some(Duration::from_millis(1)))?;
    }
    thread::sleep(Duration::from_millis(5));
    let (start, begin) = (Instant::now(), ThreadTime::now());
    while ended.load(Ordering::Relaxed) < pairs.len() {
        backend.turn(Some(Duration::from_millis(10)))?;
        if start.elapsed() > Duration::from_secs(60) {
            let n = ended.load(Ordering::Relaxed);
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{n} of {} were timed out", pairs.len())));
        }
    }
    Ok(begin.elapsed().as_secs_f64() / pairs.len() as f64)
}

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}
