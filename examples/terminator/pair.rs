//! A client and its connection to the target. What can't be passed on is not read; an end is passed on as an end, and a cut as a cut.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sslfile::{CallOut, Callbacks, PlainFile, SslFile};

use crate::log;
use crate::proxy::Ends;
use crate::target::Target;

/// What one side may leave unread before the other is not read from any more.
const HIGH_WATER: usize = 128 * 1024;

/// What all pairs have in common.
pub struct Gate {
    pub target: Arc<Target>,
    pub send_proxy: Option<String>,
    /// Zero: for ever.
    pub idle: Duration,
    pub stats: Stats,
}

/// The callbacks of each side own it, and so both sides; they are taken, and so dropped, at the end.
pub struct Pair {
    gate: Arc<Gate>,
    ends: Ends,
    client: SslFile,
    upstream: PlainFile,
    /// Directions that have not ended.
    open: AtomicU64,
    /// When something moved last.
    moved: Mutex<Instant>,
    alarm: Mutex<Option<CallOut>>,
}

/// What comes from one side goes to the other. Their types differ.
macro_rules! pass {
    ($pair:ident, $from:ident: $From:ty => $to:ident: $To:ty, told: $told:literal) => {
        let (reads, closes) = ($pair.clone(), $pair.clone());
        let on_read = move |from: &$From, data: &[u8]| {
            let to = &reads.$to;
            *reads.moved.lock() = Instant::now();
            // An error comes to the close callback; if that has been called before, this is the end.
            if to.send(data).is_err() && reads.open.load(Relaxed) == 1 {
                return reads.part();
            }
            if to.unsent() > HIGH_WATER {
                from.pause_reading(true);
                // There while it is needed, as it is called after every message. None of these is being called now.
                let paused = from.clone();
                to.set_callbacks(to.take_callbacks().on_write(move |to: &$To| {
                    paused.pause_reading(false);
                    // All but this one.
                    to.set_callbacks(to.take_callbacks());
                }));
            }
        };
        let on_close = move |_: &$From, end: io::Result<()>| match end {
            // It may still be waiting for its answer.
            Ok(()) => {
                let _ = closes.$to.shutdown(Shutdown::Write);
                if closes.open.fetch_sub(1, Relaxed) == 1 {
                    closes.part();
                }
            }
            Err(error) => {
                if $told {
                    log::warn(format_args!("{}: {error}", closes.ends.client));
                }
                closes.cut();
            }
        };
        $pair.$from.set_callbacks(Callbacks::new().on_read(on_read).on_close(on_close));
    };
}

impl Pair {
    /// With a connection to the target, once there is one. Until then nothing is read from the client.
    pub fn join(gate: &Arc<Gate>, client: SslFile, ends: Ends) {
        let Some(backend) = client.backend() else { return };
        gate.stats.accepted.fetch_add(1, Relaxed);
        let joined = gate.clone();
        gate.target.connect(&backend, move |connected| {
            if let Err(error) = connected.and_then(|tcp| Pair::begin(&joined, client.clone(), tcp, ends)) {
                // No close_notify: an answer that could not be had must not look like an empty one.
                client.abort();
                joined.stats.ended.fetch_add(1, Relaxed);
                log::warn(format_args!("{}: {error}", ends.client));
            }
        });
    }

    fn begin(gate: &Arc<Gate>, client: SslFile, tcp: TcpStream, ends: Ends) -> io::Result<()> {
        tcp.set_nodelay(true).and(client.set_nodelay(true))?;
        let upstream = PlainFile::new(tcp);
        if let Some(version) = &gate.send_proxy {
            upstream.send(&ends.header(version, &client)?)?;
        }
        upstream.set_backend(client.backend().as_ref())?;
        let (gate, open, moved) = (gate.clone(), 2.into(), Mutex::new(Instant::now()));
        let pair = Arc::new(Pair { gate, ends, client, upstream, open, moved, alarm: Mutex::default() });
        if !pair.gate.idle.is_zero() {
            pair.watch();
        }
        // Many clients end with an error when they have all they want.
        pass!(pair, client: SslFile => upstream: PlainFile, told: false);
        pass!(pair, upstream: PlainFile => client: SslFile, told: true);
        Ok(())
    }

    /// What is missing must not look like an end: the client sees no close_notify, the target a reset.
    fn cut(&self) {
        self.client.abort();
        let _ = rustix::net::connect_unspec(self.upstream.get_ref());
        self.part();
    }

    /// What is unsent the backend still sends.
    fn part(&self) {
        self.gate.stats.ended.fetch_add(1, Relaxed);
        let _ = self.alarm.lock().take().map(|alarm| alarm.cancel());
        // The close callbacks of the other side would find nothing to do.
        drop((self.client.take_callbacks(), self.upstream.take_callbacks()));
    }

    /// Ends it when nothing has moved in either direction for too long.
    fn watch(self: &Arc<Self>) {
        let left = self.gate.idle.saturating_sub(self.moved.lock().elapsed());
        let Some(backend) = self.client.backend().filter(|_| !left.is_zero()) else {
            log::info(format_args!("{}: nothing has moved for {:?}", self.ends.client, self.gate.idle));
            return self.cut();
        };
        let pair = self.clone();
        *self.alarm.lock() = Some(backend.call_out(left, move || pair.watch()));
    }
}

impl Gate {
    pub fn handshake_failed(&self, client: SocketAddr, error: &io::Error) {
        self.stats.failed.fetch_add(1, Relaxed);
        log::warn(log::about(client, error));
    }
}

#[derive(Default)]
pub struct Stats {
    accepted: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
}

impl Stats {
    pub fn line(&self) -> String {
        let [accepted, ended, failed] = [&self.accepted, &self.ended, &self.failed].map(|n| n.load(Relaxed));
        format!("{} live, {accepted} in all, {failed} failed handshakes", accepted.saturating_sub(ended))
    }
}
