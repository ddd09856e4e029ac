//! What the backend does for a socket: looking up, connecting, going over to TLS and back, calling handlers.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};

use super::{not_connected, End, Event, Inner, Mode, SocketState, SslSocket, State, Tls, CONNECT_TIMEOUT, LIMIT};
use crate::backend::{Happened, Place, Source};
use crate::callbacks::Callbacks;
use crate::error::{Error, ErrorKind};
use crate::file::{Handshake, PlainFile};
use crate::sys::{descriptor, is_in_progress, Descriptor};

impl Inner {
    /// Has the handlers called at the next turn for what has happened.
    pub fn schedule(self: &Arc<Self>, state: &mut State) {
        if state.events.is_empty() || std::mem::replace(&mut state.delivering, true) {
            return;
        }
        let weak = Arc::downgrade(self);
        self.backend.call_out(Duration::ZERO, move || {
            if let Some(inner) = weak.upgrade() {
                inner.deliver();
            }
        });
    }

    pub fn happened(self: &Arc<Self>, event: Event) {
        let mut state = self.state.lock();
        state.events.push_back(event);
        self.schedule(&mut state);
    }

    pub fn deliver(self: &Arc<Self>) {
        let socket = SslSocket { inner: self.clone() };
        // Also when a handler panics: the rest is for the next turn.
        struct Rest<'a>(&'a Arc<Inner>);
        impl Drop for Rest<'_> {
            fn drop(&mut self) {
                let mut state = self.0.state.lock();
                state.delivering = false;
                self.0.schedule(&mut state);
            }
        }
        let _rest = Rest(self);
        loop {
            let Some(event) = self.state.lock().events.pop_front() else { break };
            macro_rules! call {
                ($slot:ident $(, $argument:expr)*) => {{
                    let handler = self.handlers.lock().$slot.start();
                    if let Some(mut handler) = handler {
                        handler(&socket $(, $argument)*);
                        let unwanted = self.handlers.lock().$slot.finish(handler);
                        drop(unwanted);
                    }
                }};
            }
            match event {
                Event::State(state) => call!(state, state),
                Event::Mode(mode) => call!(mode, mode),
                Event::Encrypted => call!(encrypted),
                Event::ReadyRead => call!(ready_read),
                // Not if more has been written meanwhile: that is told when it is sent.
                Event::Written if self.is_written().is_ok_and(|yes| yes) => call!(written),
                Event::Written => {}
                Event::End(end) => self.tear_down(end),
                Event::Closed(end) => call!(closed, end),
            }
        }
    }

    pub fn is_current(&self, generation: u64) -> bool {
        let state = self.state.lock();
        state.generation == generation && !state.ending
    }

    pub fn looked_up(self: &Arc<Self>, found: io::Result<Vec<SocketAddr>>, generation: u64) {
        if !self.is_current(generation) {
            return;
        }
        let mut state = self.state.lock();
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                state.addresses = addresses.into();
                state.set_state(SocketState::Connecting);
                self.schedule(&mut state);
                drop(state);
                self.try_next(generation);
            }
            found => {
                let why = found.err().map_or("it has no address".to_string(), |e| e.to_string());
                let text = format!("cannot look up {}: {why}", state.host);
                drop(state);
                self.finish(Err(Error::new(ErrorKind::Other, text).with_io_kind(io::ErrorKind::NotFound).into()));
            }
        }
    }

    /// Tries the next address; gives up with the last error when there is none.
    pub fn try_next(self: &Arc<Self>, generation: u64) {
        loop {
            let mut state = self.state.lock();
            let Some(addr) = state.addresses.pop_front() else {
                let error = state.last_error.take().unwrap_or_else(not_connected);
                let text = format!("cannot connect to {}: {error}", state.host);
                drop(state);
                let error = Error::new(ErrorKind::Other, text).with_io_kind(error.kind()).with_source(error);
                return self.finish(Err(error.into()));
            };
            drop(state);
            match self.connect_to(addr, generation) {
                Ok(()) => return,
                Err(e) => self.state.lock().last_error = Some(e),
            }
        }
    }

    pub fn connect_to(self: &Arc<Self>, addr: SocketAddr, generation: u64) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&addr.into()) {
            Ok(()) => {}
            Err(e) if is_in_progress(&e) => {}
            Err(e) => return Err(e),
        }
        let connecting = Arc::new(Connecting {
            fd: descriptor(&socket),
            stream: Mutex::new(Some(socket.into())),
            owner: Arc::downgrade(self),
            generation,
        });
        let place = self.backend.add(connecting.clone())?;
        self.state.lock().connecting = Some((place.clone(), connecting));
        place.watch(Happened { writable: true, ..Happened::default() })
    }

    /// TCP is up.
    pub fn connected(self: &Arc<Self>, stream: TcpStream, generation: u64) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let plain = PlainFile::new(stream);
        let mut state = self.state.lock();
        if state.start.is_none() {
            state.connect_timer.take().map(|timer| timer.cancel());
        }
        state.plain = Some(plain.clone());
        state.set_state(SocketState::Connected);
        self.schedule(&mut state);
        drop(state);
        self.set_plain_callbacks(&plain, generation);
        plain.set_backend(Some(&self.backend))?;
        self.start_if_flushed();
        self.send_queue();
        Ok(())
    }

    pub fn set_plain_callbacks(self: &Arc<Self>, plain: &PlainFile, generation: u64) {
        let (reads, writes, closes) = (Arc::downgrade(self), Arc::downgrade(self), Arc::downgrade(self));
        plain.set_callbacks(
            Callbacks::new()
                .on_read(move |file: &PlainFile, data| {
                    if let Some(inner) = current(&reads, generation) {
                        file.pause_reading(inner.received(data));
                    }
                })
                .on_write(move |_| {
                    if let Some(inner) = current(&writes, generation) {
                        inner.written();
                    }
                })
                .on_close(move |_, end| {
                    if let Some(inner) = current(&closes, generation) {
                        inner.finish(end);
                    }
                }),
        );
    }

    /// Begins the encryption that was asked for, when nothing plain is left to be sent.
    pub fn start_if_flushed(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let (Some(plain), Some(start)) = (state.plain.clone(), state.start.clone()) else { return };
        if plain.unsent() > 0 {
            return;
        }
        state.start = None;
        let first = std::mem::take(&mut state.for_handshake);
        let generation = state.generation;
        let timeout = state.connect_timer.is_none().then_some(CONNECT_TIMEOUT);
        let (read_timeout, write_timeout) = (state.read_timeout, state.write_timeout);
        drop(state);
        let options = start.options().nonblocking(true).handshake(Handshake::Lazy).handshake_timeout(timeout);
        // Its callbacks are for plain text; they are set again when that is back.
        drop(plain.take_callbacks());
        plain.unread(&first);
        let opened = options.open(plain.clone(), &start.context);
        let tls = match opened {
            Ok(tls) => tls,
            Err(e) => return self.finish(Err(e.into())),
        };
        let mut state = self.state.lock();
        state.tls = Some(tls.clone());
        self.apply_timeouts(None, Some(tls.clone()), read_timeout, write_timeout);
        drop(state);
        self.set_tls_callbacks(&tls, generation);
        self.send_queue();
    }

    pub fn set_tls_callbacks(self: &Arc<Self>, tls: &Tls, generation: u64) {
        let (accepts, reads) = (Arc::downgrade(self), Arc::downgrade(self));
        let (writes, closes) = (Arc::downgrade(self), Arc::downgrade(self));
        tls.set_callbacks(
            Callbacks::new()
                .on_accept(move |_| {
                    if let Some(inner) = current(&accepts, generation) {
                        let mut state = inner.state.lock();
                        state.encrypted = true;
                        state.connect_timer.take().map(|timer| timer.cancel());
                        state.events.push_back(Event::Encrypted);
                        inner.schedule(&mut state);
                    }
                })
                .on_read(move |file: &Tls, data| {
                    if let Some(inner) = current(&reads, generation) {
                        file.pause_reading(inner.received(data));
                    }
                })
                .on_write(move |_| {
                    if let Some(inner) = current(&writes, generation) {
                        inner.written();
                    }
                })
                .on_close(move |_, end| {
                    if let Some(inner) = current(&closes, generation) {
                        inner.tls_ended(end);
                    }
                }),
        );
    }

    /// Says whether to read no more for now.
    pub fn received(self: &Arc<Self>, data: &[u8]) -> bool {
        let mut state = self.state.lock();
        if state.start.is_some() {
            state.for_handshake.extend(data);
            return state.for_handshake.len() >= LIMIT;
        }
        state.input.extend(data);
        let is_full = state.input.len() >= LIMIT;
        state.events.push_back(Event::ReadyRead);
        self.schedule(&mut state);
        is_full
    }

    /// A file has nothing left to send.
    pub fn written(self: &Arc<Self>) {
        self.start_if_flushed();
        match self.is_written() {
            Ok(true) if !self.state.lock().closing => self.happened(Event::Written),
            Ok(_) => {}
            // The file tells its end once, and has done so at the peer's.
            Err(e) if self.state.lock().peer_ended => self.finish(Err(e)),
            Err(_) => {}
        }
    }

    /// Whether all that was written has been handed to the system. The error says that some of it was lost: a file that has
    /// failed has nothing unsent either.
    fn is_written(&self) -> io::Result<bool> {
        let state = self.state.lock();
        let (plain, tls, queued) = (state.plain.clone(), state.tls.clone(), state.queued);
        drop(state);
        if queued > 0 || tls.as_ref().map_or(0, Tls::unsent) > 0 || plain.as_ref().map_or(0, PlainFile::unsent) > 0 {
            return Ok(false);
        }
        match (tls, plain) {
            // What was written in plain has gone before.
            (Some(tls), _) if !tls.is_handshake_done() => tls.last_error().map_or(Ok(true), Err),
            (Some(tls), _) => (&tls).flush().map(|()| true),
            (None, Some(plain)) => (&plain).flush().map(|()| true),
            (None, None) => Ok(false),
        }
    }

    /// Hands what was queued to the file that can now take it.
    pub fn send_queue(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.must_queue() {
            return;
        }
        let queue = std::mem::take(&mut state.queue);
        state.queued = 0;
        let (plain, tls, closing) = (state.plain.clone(), state.tls.clone(), state.closing);
        drop(state);
        let joined: Vec<u8> = queue.into_iter().flatten().collect();
        if !joined.is_empty() {
            // What can't be taken any more is told by the file's end.
            let _ = match (tls, plain) {
                (Some(tls), _) => tls.send(&joined),
                (None, Some(plain)) => plain.send(&joined),
                (None, None) => Ok(()),
            };
        }
        if closing {
            self.close_files();
        }
    }

    pub fn tls_ended(self: &Arc<Self>, end: io::Result<()>) {
        let state = self.state.lock();
        let (stopping, closing) = (state.stopping, state.closing);
        drop(state);
        match end {
            Ok(()) if stopping => self.back_to_plain(),
            Ok(()) if !closing => self.peer_ended(),
            end => self.finish(end),
        }
    }

    /// The peer has said close_notify unasked. If the end of the stream follows, that was that.
    fn peer_ended(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let Some(plain) = state.plain.clone() else { return };
        state.peer_ended = true;
        state.events.push_back(Event::ReadyRead);
        self.schedule(&mut state);
        let generation = state.generation;
        drop(state);
        let watched = plain.get_ref().try_clone().and_then(|stream| {
            let behind = Arc::new(Behind { stream, owner: Arc::downgrade(self), generation });
            let place = self.backend.add(behind)?;
            place.watch(Happened { readable: true, ..Happened::default() })?;
            Ok(place)
        });
        match watched {
            Ok(place) => self.state.lock().behind = Some(place),
            // Out of descriptors, say.
            Err(e) => self.finish(Err(e)),
        }
    }

    /// Answers the peer's close_notify with ours, as often as it takes to send it.
    pub fn answer_end(self: &Arc<Self>, tls: &Tls) {
        let done = tls.set_backend(None).and_then(|()| tls.close_clean());
        match done {
            Ok(()) => {
                let weak = Arc::downgrade(self);
                self.backend.call_out(Duration::ZERO, move || {
                    if let Some(inner) = weak.upgrade() {
                        inner.back_to_plain();
                    }
                });
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let (weak, tls) = (Arc::downgrade(self), tls.clone());
                self.backend.call_out(Duration::from_millis(10), move || {
                    if let Some(inner) = weak.upgrade() {
                        inner.answer_end(&tls);
                    }
                });
            }
            Err(e) => self.finish(Err(e)),
        }
    }

    fn back_to_plain(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.ending || !state.stopping {
            return;
        }
        state.peer_ended = false;
        let behind = state.behind.take();
        // Back to plain: the wrapped file has its backend again.
        (state.stopping, state.encrypted) = (false, false);
        let (tls, plain, generation) = (state.tls.take(), state.plain.clone(), state.generation);
        state.set_mode(Mode::Unencrypted);
        self.schedule(&mut state);
        drop(state);
        behind.inspect(|place| place.leave(false));
        drop(tls);
        plain.inspect(|plain| self.set_plain_callbacks(plain, generation));
        self.send_queue();
    }

    pub fn close_files(&self) {
        let state = self.state.lock();
        let (plain, tls) = (state.plain.clone(), state.tls.clone());
        drop(state);
        // The file's close callback tells how it went.
        let _ = match (tls, plain) {
            (Some(tls), _) => tls.close(),
            (None, Some(plain)) => plain.close(),
            (None, None) => Ok(()),
        };
    }

    pub fn connect_took_too_long(self: &Arc<Self>, generation: u64, timeout: Duration) {
        if !self.is_current(generation) {
            return;
        }
        let mut state = self.state.lock();
        state.connect_timer = None;
        let what = match state.state {
            SocketState::HostLookup => "looking up",
            SocketState::Connecting => "connecting to",
            _ => "the TLS handshake with",
        };
        let text = format!("{what} {} took longer than {timeout:?}", state.host);
        drop(state);
        self.finish(Err(Error::new(ErrorKind::TimedOut, text).into()));
    }

    /// The end of this connection, told once. It comes behind what has happened before: a handler that is told of the
    /// last data can still answer.
    pub fn finish(self: &Arc<Self>, end: io::Result<()>) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.ending, true) {
            return;
        }
        state.events.push_back(Event::End(end));
        self.schedule(&mut state);
    }

    fn tear_down(self: &Arc<Self>, end: io::Result<()>) {
        let mut state = self.state.lock();
        state.end = Some(match &end {
            Ok(()) => End::Clean,
            Err(e) => End::Failed(crate::machine::own(e)),
        });
        state.connect_timer.take().map(|timer| timer.cancel());
        state.queue.clear();
        (state.queued, state.encrypted, state.start) = (0, false, None);
        let connecting = state.connecting.take();
        let behind = state.behind.take();
        (state.peer_ended, state.stopping) = (false, false);
        let files = (state.tls.take(), state.plain.take());
        state.set_state(SocketState::Unconnected);
        state.set_mode(Mode::Unencrypted);
        state.events.push_back(Event::Closed(end));
        self.schedule(&mut state);
        drop(state);
        if let Some((place, _)) = connecting {
            place.leave(false);
        }
        behind.inspect(|place| place.leave(false));
        drop(files);
    }

    pub fn apply_timeouts(
        &self,
        plain: Option<PlainFile>,
        tls: Option<Tls>,
        read: Option<Duration>,
        write: Option<Duration>,
    ) {
        // A file that another has taken over is told when it comes back; TCP has a descriptor, so nothing else fails.
        if let Some(plain) = plain {
            let _ = plain.set_read_timeout(read).and_then(|()| plain.set_write_timeout(write));
        }
        if let Some(tls) = tls {
            let _ = tls.set_read_timeout(read).and_then(|()| tls.set_write_timeout(write));
        }
    }
}

fn current(weak: &Weak<Inner>, generation: u64) -> Option<Arc<Inner>> {
    weak.upgrade().filter(|inner| inner.is_current(generation))
}

/// A TCP connection that is being made.
pub(super) struct Connecting {
    fd: Descriptor,
    stream: Mutex<Option<TcpStream>>,
    owner: Weak<Inner>,
    generation: u64,
}

impl Source for Connecting {
    fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
        Some((self.fd, self.fd))
    }

    fn run(self: Arc<Self>, at: &Place, happened: Happened, _: &mut [u8]) -> usize {
        if !happened.writable && !happened.readable {
            return 0;
        }
        // Out of the poller before anybody can close the descriptor.
        at.leave(false);
        let (Some(stream), Some(owner)) = (self.stream.lock().take(), current(&self.owner, self.generation)) else {
            return 0;
        };
        owner.state.lock().connecting = None;
        let connected = match stream.take_error() {
            Ok(None) => owner.connected(stream, self.generation),
            Ok(Some(e)) | Err(e) => Err(e),
        };
        if let Err(e) = connected {
            owner.state.lock().last_error = Some(e);
            owner.try_next(self.generation);
        }
        0
    }

    fn orphaned(self: Arc<Self>, _: &Place) {}
}

/// What comes behind a close_notify that nobody asked for.
struct Behind {
    /// A handle of its own: the file's descriptor may be in the poller too.
    stream: TcpStream,
    owner: Weak<Inner>,
    generation: u64,
}

impl Source for Behind {
    fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
        let fd = descriptor(&self.stream);
        Some((fd, fd))
    }

    fn run(self: Arc<Self>, at: &Place, happened: Happened, _: &mut [u8]) -> usize {
        if !happened.readable {
            return 0;
        }
        at.leave(false);
        let Some(owner) = current(&self.owner, self.generation) else { return 0 };
        match self.stream.peek(&mut [0]) {
            Ok(0) => owner.finish(Ok(())),
            // Plain text, for which the user must stop the encryption; or nothing after all.
            Ok(_) => {}
            Err(e) => owner.finish(Err(e)),
        }
        0
    }

    fn orphaned(self: Arc<Self>, _: &Place) {}
}
