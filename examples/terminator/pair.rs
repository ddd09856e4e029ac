//! A client and its connection to the target. What can't be passed on is not read; an end is passed on as an end, and a cut as a cut.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    pub start: Instant,
    pub stats: Stats,
}

/// The callbacks of each side own the other; both are taken, and so dropped, at the end.
pub struct Pair {
    gate: Arc<Gate>,
    ends: Ends,
    /// Directions that have not ended.
    open: AtomicU64,
    /// When something moved last, in milliseconds since the start.
    moved: AtomicU64,
    alarm: Mutex<Option<CallOut>>,
}

impl Pair {
    /// With a connection to the target, once there is one. Until then nothing is read from the client.
    pub fn join(gate: &Arc<Gate>, client: SslFile, ends: Ends) {
        let Some(backend) = client.backend() else { return };
        gate.stats.accepted.fetch_add(1, Relaxed);
        let joined = gate.clone();
        gate.target.connect(&backend, move |connected| {
            if let Err(error) = connected.and_then(|tcp| Pair::begin(&joined, &client, tcp, ends)) {
                // No close_notify: an answer that could not be had must not look like an empty one.
                client.abort();
                joined.stats.ended.fetch_add(1, Relaxed);
                log::warn(format_args!("{}: {error}", ends.client));
            }
        });
    }

    fn begin(gate: &Arc<Gate>, client: &SslFile, tcp: TcpStream, ends: Ends) -> io::Result<()> {
        let upstream = PlainFile::new(tcp);
        if let Some(version) = &gate.send_proxy {
            upstream.send(&ends.header(version, client))?;
        }
        upstream.set_backend(client.backend().as_ref())?;
        let (open, moved) = (2.into(), gate.now().into());
        let pair = Arc::new(Pair { gate: gate.clone(), ends, open, moved, alarm: Mutex::default() });
        if !gate.idle.is_zero() {
            pair.watch(client, &upstream);
        }
        let (reads, closes) = (pair.clone(), pair.clone());
        let (to, from) = (upstream.clone(), upstream.clone());
        client.set_callbacks(
            Callbacks::new()
                .on_read(move |client: &SslFile, data| {
                    reads.count(&reads.gate.stats.received, data);
                    // An error comes to the close callback; if that has been called before, this is the end.
                    if to.send(data).is_err() && reads.open.load(Relaxed) == 1 {
                        return reads.part(client, &to);
                    }
                    if to.unsent() > HIGH_WATER {
                        client.pause_reading(true);
                        // There while it is needed, as it is called after every message. None of these is being called now.
                        let paused = client.clone();
                        to.set_callbacks(to.take_callbacks().on_write(move |upstream: &PlainFile| {
                            paused.pause_reading(false);
                            // All but this one.
                            upstream.set_callbacks(upstream.take_callbacks());
                        }));
                    }
                })
                .on_close(move |client, end| closes.client_ended(client, &from, end)),
        );
        let (reads, closes) = (pair.clone(), pair);
        let (to, from) = (client.clone(), client.clone());
        upstream.set_callbacks(
            Callbacks::new()
                .on_read(move |upstream: &PlainFile, data| {
                    reads.count(&reads.gate.stats.sent, data);
                    if to.send(data).is_err() && reads.open.load(Relaxed) == 1 {
                        return reads.part(&to, upstream);
                    }
                    if to.unsent() > HIGH_WATER {
                        upstream.pause_reading(true);
                        let paused = upstream.clone();
                        to.set_write_callback(move |client| {
                            paused.pause_reading(false);
                            client.clear_write_callback();
                        });
                    }
                })
                .on_close(move |upstream, end| closes.upstream_ended(&from, upstream, end)),
        );
        Ok(())
    }

    fn count(&self, direction: &AtomicU64, data: &[u8]) {
        direction.fetch_add(data.len() as u64, Relaxed);
        self.moved.store(self.gate.now(), Relaxed);
    }

    fn client_ended(&self, client: &SslFile, upstream: &PlainFile, end: io::Result<()>) {
        match end {
            // It may still be waiting for its answer.
            Ok(()) => drop(upstream.shutdown(Shutdown::Write)),
            // Many end so when they have all they want.
            Err(_) => return self.cut(client, upstream),
        }
        self.direction_ended(client, upstream);
    }

    fn upstream_ended(&self, client: &SslFile, upstream: &PlainFile, end: io::Result<()>) {
        match end {
            Ok(()) => drop(client.shutdown(Shutdown::Write)),
            Err(error) => {
                log::warn(format_args!("{}: {}", self.ends.client, error));
                return self.cut(client, upstream);
            }
        }
        self.direction_ended(client, upstream);
    }

    fn direction_ended(&self, client: &SslFile, upstream: &PlainFile) {
        if self.open.fetch_sub(1, Relaxed) == 1 {
            self.part(client, upstream);
        }
    }

    /// What is missing must not look like an end: the client sees no close_notify, the target a reset.
    fn cut(&self, client: &SslFile, upstream: &PlainFile) {
        client.abort();
        let _ = rustix::net::connect_unspec(upstream.get_ref());
        self.part(client, upstream);
    }

    /// What is unsent the backend still sends.
    fn part(&self, client: &SslFile, upstream: &PlainFile) {
        self.gate.stats.ended.fetch_add(1, Relaxed);
        if let Some(alarm) = self.alarm.lock().unwrap_or_else(PoisonError::into_inner).take() {
            alarm.cancel();
        }
        // The close callbacks of the other side would find nothing to do.
        drop((client.take_callbacks(), upstream.take_callbacks()));
    }

    /// Ends it when nothing has moved in either direction for too long.
    fn watch(self: &Arc<Self>, client: &SslFile, upstream: &PlainFile) {
        let quiet = Duration::from_millis(self.gate.now() - self.moved.load(Relaxed));
        let left = self.gate.idle.saturating_sub(quiet);
        let Some(backend) = client.backend().filter(|_| !left.is_zero()) else {
            log::info(format_args!("{}: nothing has moved for {:?}", self.ends.client, self.gate.idle));
            return self.cut(client, upstream);
        };
        let (pair, client, upstream) = (self.clone(), client.clone(), upstream.clone());
        let alarm = backend.call_out(left, move || pair.watch(&client, &upstream));
        *self.alarm.lock().unwrap_or_else(PoisonError::into_inner) = Some(alarm);
    }
}

impl Gate {
    pub fn handshake_failed(&self, client: SocketAddr, error: &io::Error) {
        self.stats.failed.fetch_add(1, Relaxed);
        log::warn(log::about(client, error));
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

#[derive(Default)]
pub struct Stats {
    accepted: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Stats {
    pub fn line(&self) -> String {
        let counters = [&self.accepted, &self.ended, &self.failed, &self.received, &self.sent];
        let [accepted, ended, failed, received, sent] = counters.map(|counter| counter.load(Relaxed));
        let live = accepted.saturating_sub(ended);
        format!(
            "{live} live, {accepted} in all, {failed} failed handshakes, {received} bytes from clients, {sent} to them"
        )
    }
}
