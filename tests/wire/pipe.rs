//! An in-memory duplex that never blocks: two ends, each `Read + Write`, with as little room, as short transfers and as many
//! refusals as a seed wants. What was written before an end is dropped can still be read, as on TCP.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Rng;

/// How an end treats its user.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Bytes in flight in one direction.
    pub room: usize,
    /// Per cent of calls that say `WouldBlock` for no reason.
    pub refuse: usize,
    /// Per cent of calls that say `Interrupted`.
    pub interrupt: usize,
    /// Per cent of calls that move less than they could.
    pub short: usize,
}

impl Manners {
    pub const EASY: Manners = Manners { room: usize::MAX, refuse: 0, interrupt: 0, short: 0 };

    pub fn random(rng: &mut Rng) -> Manners {
        if rng.percent(20) {
            return Manners::EASY;
        }
        Manners {
            room: *rng.pick(&[300, 2_000, 10_000, 100_000, usize::MAX]),
            refuse: rng.below(40),
            interrupt: rng.below(20),
            short: rng.below(90),
        }
    }
}

#[derive(Debug, Default)]
struct Way {
    flight: VecDeque<u8>,
    passed: usize,
    writer_gone: bool,
    reader_gone: bool,
    /// The reader gets no byte at or behind this offset, but the end of the stream.
    cut: Option<usize>,
}

#[derive(Debug)]
struct Inside {
    /// `ways[i]` is written by end `i`.
    ways: [Way; 2],
    manners: Manners,
    rng: Rng,
}

/// The wire as the test sees it.
#[derive(Clone, Debug)]
pub struct Pipe(Arc<Mutex<Inside>>);

#[derive(Debug)]
pub struct End {
    pipe: Pipe,
    side: usize,
    _alive: Sender<()>,
}

/// Tells when an end was dropped.
pub struct Alive(Receiver<()>);

impl Alive {
    pub fn is_gone(&self) -> bool {
        self.0.try_recv() == Err(mpsc::TryRecvError::Disconnected)
    }
}

impl Pipe {
    pub fn new(manners: Manners, seed: u64) -> (Pipe, [(End, Alive); 2]) {
        let rng = Rng::new(seed);
        let pipe = Pipe(Arc::new(Mutex::new(Inside { ways: Default::default(), manners, rng })));
        let end = |side| {
            let (alive, watch) = mpsc::channel();
            (End { pipe: pipe.clone(), side, _alive: alive }, Alive(watch))
        };
        let ends = [end(0), end(1)];
        (pipe, ends)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn set_manners(&self, manners: Manners) {
        self.inside().manners = manners;
    }

    /// Ends what end `side` writes, `more` bytes behind what was read of it; says at which offset that is.
    pub fn cut(&self, side: usize, more: usize) -> usize {
        let way = &mut self.inside().ways[side];
        let at = way.passed + more;
        way.cut = Some(at);
        at
    }

    pub fn in_flight(&self, side: usize) -> usize {
        self.inside().ways[side].flight.len()
    }

    /// Bytes of end `side` that the other has read.
    pub fn passed(&self, side: usize) -> usize {
        self.inside().ways[side].passed
    }
}

impl Inside {
    fn upset(&mut self) -> io::Result<()> {
        let Manners { refuse, interrupt, .. } = self.manners;
        if self.rng.percent(refuse) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.rng.percent(interrupt) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    fn shorten(&mut self, n: usize) -> usize {
        let short = self.manners.short;
        if n > 1 && self.rng.percent(short) {
            1 + self.rng.below(n)
        } else {
            n
        }
    }
}

impl Read for End {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let inside = &mut *self.pipe.inside();
        inside.upset()?;
        let way = &inside.ways[1 - self.side];
        let left = way.cut.map_or(usize::MAX, |cut| cut.saturating_sub(way.passed));
        let n = buf.len().min(way.flight.len()).min(left);
        if n == 0 {
            let ended = left == 0 || way.writer_gone || buf.is_empty();
            return if ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let n = inside.shorten(n);
        let way = &mut inside.ways[1 - self.side];
        for (to, from) in buf.iter_mut().zip(way.flight.drain(..n)) {
            *to = from;
        }
        way.passed += n;
        Ok(n)
    }
}

impl Write for End {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let inside = &mut *self.pipe.inside();
        inside.upset()?;
        let way = &inside.ways[self.side];
        if way.reader_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = buf.len().min(inside.manners.room.saturating_sub(way.flight.len()));
        if n == 0 && !buf.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = inside.shorten(n);
        inside.ways[self.side].flight.extend(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut inside = self.pipe.inside();
        inside.ways[self.side].writer_gone = true;
        inside.ways[1 - self.side].reader_gone = true;
    }
}
