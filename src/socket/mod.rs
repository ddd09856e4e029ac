mod drive;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::backend::{Backend, CallOut, Place};
use crate::callbacks::Slot;
use crate::context::Context;
use crate::error::{Error, ErrorKind};
use crate::file::{without_scope, PlainFile, SslFile, SslOptions};

/// What an [`SslSocket`] speaks. Set as soon as encryption is asked for, before the handshake is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Plain TCP.
    Unencrypted,
    /// TLS, as the client.
    SslClient,
    /// TLS, as the server.
    SslServer,
}

/// How far an [`SslSocket`] is. Encryption is a matter of [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketState {
    /// No connection, or no more.
    Unconnected,
    /// The host's addresses are being looked up.
    HostLookup,
    /// An address is being tried.
    Connecting,
    /// TCP is up.
    Connected,
    /// `close` has been called, and what was written is being sent.
    Closing,
}

/// One object for a TCP connection that may be plain or TLS, and change; driven by a backend. Clones are handles; when
/// the last one goes the connection is closed without waiting.
///
/// No method waits: names are looked up by a thread of their own, connecting is done by the backend, and what is
/// written is queued from the first moment, before there is a connection even. Handlers are called by the backend's
/// [`turn`](Backend::turn) only, and never two at once. One that is set late is not told what it missed; set them first.
///
/// After iomodules' `SslSocket`, cl-async's `tcp-ssl-connect` and Blade's `TLSSocket`.
///
/// ```no_run
/// use sslfile::{Backend, Context, SslSocket};
/// # fn main() -> std::io::Result<()> {
/// let backend = Backend::new()?;
/// let socket = SslSocket::new(&backend);
/// socket.on_ready_read(|socket| {
///     let mut buf = [0; 4096];
///     while let Ok(n @ 1..) = socket.read(&mut buf) {
///         print!("{}", String::from_utf8_lossy(&buf[..n]));
///     }
/// });
/// let stopper = backend.clone();
/// socket.on_closed(move |_, end| {
///     println!("{end:?}");
///     stopper.stop();
/// });
/// socket.connect_encrypted("example.com", 443, &Context::client()?)?;
/// socket.write(b"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n")?;
/// backend.run()
/// # }
/// ```
#[derive(Clone)]
pub struct SslSocket {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Backend,
    state: Mutex<State>,
    handlers: Mutex<Handlers>,
}

type Tls = SslFile<PlainFile<TcpStream>>;

/// Under a lock that is not held while files are called.
struct State {
    state: SocketState,
    mode: Mode,
    /// Counts connections, so that what belongs to an earlier one is known.
    generation: u64,
    host: String,
    addresses: VecDeque<SocketAddr>,
    last_error: Option<io::Error>,
    connecting: Option<(Place, Arc<drive::Connecting>)>,
    connect_timeout: Option<Duration>,
    connect_timer: Option<CallOut>,
    plain: Option<PlainFile>,
    tls: Option<Tls>,
    /// Encryption that begins when there is a connection and what was written in plain has been sent.
    start: Option<Start>,
    /// What has come and has not been read when encryption is asked for, and since: it belongs to the handshake, and
    /// must never be taken for what the peer says over TLS (CVE-2011-0411).
    for_handshake: Vec<u8>,
    /// `stop_encryption` is under way.
    stopping: bool,
    /// The peer has said close_notify unasked: it may end the connection, or wait for us to go back to plain.
    peer_ended: bool,
    /// Looks for what comes behind that.
    behind: Option<Place>,
    encrypted: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    /// Written, and waiting for a connection, or for a change of mode to be done.
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    input: VecDeque<u8>,
    end: Option<End>,
    /// The end is among the events.
    ending: bool,
    closing: bool,
    events: VecDeque<Event>,
    delivering: bool,
}

#[derive(Clone)]
struct Start {
    context: Context,
    /// `None`: as a server.
    server_name: Option<String>,
}

#[derive(Clone)]
enum End {
    Clean,
    Failed(Error),
}

enum Event {
    State(SocketState),
    Mode(Mode),
    Encrypted,
    ReadyRead,
    Written,
    End(io::Result<()>),
    Closed(io::Result<()>),
}

type OnSocket = Box<dyn FnMut(&SslSocket) + Send>;
type OnState = Box<dyn FnMut(&SslSocket, SocketState) + Send>;
type OnMode = Box<dyn FnMut(&SslSocket, Mode) + Send>;
type OnClosed = Box<dyn FnMut(&SslSocket, io::Result<()>) + Send>;

#[derive(Default)]
struct Handlers {
    state: Slot<OnState>,
    mode: Slot<OnMode>,
    encrypted: Slot<OnSocket>,
    ready_read: Slot<OnSocket>,
    written: Slot<OnSocket>,
    closed: Slot<OnClosed>,
}

/// What is queued before there is a connection, and kept for reading, at most.
const LIMIT: usize = 256 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

impl SslSocket {
    /// A socket without a connection.
    pub fn new(backend: &Backend) -> SslSocket {
        let state = State {
            state: SocketState::Unconnected,
            mode: Mode::Unencrypted,
            generation: 0,
            host: String::new(),
            addresses: VecDeque::new(),
            last_error: None,
            connecting: None,
            connect_timeout: Some(CONNECT_TIMEOUT),
            connect_timer: None,
            plain: None,
            tls: None,
            start: None,
            for_handshake: Vec::new(),
            stopping: false,
            peer_ended: false,
            behind: None,
            encrypted: false,
            read_timeout: None,
            write_timeout: None,
            queue: VecDeque::new(),
            queued: 0,
            input: VecDeque::new(),
            end: None,
            ending: false,
            closing: false,
            events: VecDeque::new(),
            delivering: false,
        };
        let inner = Inner { backend: backend.clone(), state: Mutex::new(state), handlers: Mutex::default() };
        SslSocket { inner: Arc::new(inner) }
    }

    /// Over a TCP connection made elsewhere. It becomes non-blocking.
    ///
    /// Errors: those of the system.
    pub fn from_tcp(backend: &Backend, stream: TcpStream) -> io::Result<SslSocket> {
        let socket = SslSocket::new(backend);
        socket.inner.state.lock().generation = 1;
        socket.inner.connected(stream, 1)?;
        Ok(socket)
    }

    /// Looks up `host` and connects to its addresses in turn, in plain TCP. What fails is told to `on_closed`; the
    /// connect time-out (default 30 s) is for all of it.
    ///
    /// Errors: `AlreadyExists` unless unconnected; `InvalidInput` for an empty host.
    pub fn connect(&self, host: &str, port: u16) -> io::Result<()> {
        self.begin(host, port, None)
    }

    /// As `connect`, then encrypts as a client of `host`; the time-out is for the handshake too. The certificate must be for
    /// `host`, without the link of an address of the link ("fe80::1%eth0").
    ///
    /// Errors: those of `connect`; `InvalidInput` for a host that can't be a server's name.
    pub fn connect_encrypted(&self, host: &str, port: u16, context: &Context) -> io::Result<()> {
        let start =
            Start { context: context.clone(), server_name: Some(without_scope(without_brackets(host)).to_string()) };
        start.check()?;
        self.begin(host, port, Some(start))
    }

    /// Goes over to TLS as a client of `server_name`, once all that was written in plain has been sent (STARTTLS).
    ///
    /// Errors: `NotConnected` without a connection; `AlreadyExists` if encrypted already, or about to be;
    /// `InvalidInput` for a name that can't be one.
    pub fn start_client_encryption(&self, context: &Context, server_name: &str) -> io::Result<()> {
        self.start(Start { context: context.clone(), server_name: Some(server_name.to_string()) })
    }

    /// Goes over to TLS as a server, once all that was written in plain has been sent.
    ///
    /// Errors: those of `start_client_encryption`; `InvalidInput` for a context without an identity.
    pub fn start_server_encryption(&self, context: &Context) -> io::Result<()> {
        self.start(Start { context: context.clone(), server_name: None })
    }

    /// Goes back to plain TCP: exchanges close_notify with the peer, whoever says it first. The mode changes when that
    /// is done; what is written meanwhile is sent in plain afterwards. That the peer has said it first shows as `Ok(0)`
    /// of `read`.
    ///
    /// Errors: `NotConnected` without a connection; `InvalidInput` if it is not encrypted.
    pub fn stop_encryption(&self) -> io::Result<()> {
        let mut state = self.inner.state.lock();
        let Some(tls) = state.tls.clone() else {
            return Err(match state.plain {
                Some(_) => Error::invalid_input("the socket is not encrypted").into(),
                None => not_connected(),
            });
        };
        state.stopping = true;
        let peer_was_first = state.peer_ended;
        drop(state);
        if peer_was_first {
            // The file has told its end already.
            self.inner.answer_end(&tls);
            return Ok(());
        }
        tls.close_clean()
    }

    /// What it speaks.
    pub fn mode(&self) -> Mode {
        self.inner.state.lock().mode
    }

    /// How far it is.
    pub fn state(&self) -> SocketState {
        self.inner.state.lock().state
    }

    /// Whether the handshake is done, and encryption not stopped again.
    pub fn is_encrypted(&self) -> bool {
        self.inner.state.lock().encrypted
    }

    /// Queues all of `data` or nothing, from the first moment; up to 256 KiB before there is a connection, and then as
    /// [`SslFile::send`]. `on_written` tells when all of it has gone.
    ///
    /// Errors: `WouldBlock` if it does not fit; `NotConnected` after `close` and after the end.
    pub fn write(&self, data: &[u8]) -> io::Result<()> {
        let mut state = self.inner.state.lock();
        if state.closing || state.end.is_some() {
            return Err(not_connected());
        }
        if state.must_queue() {
            if state.queued > 0 && state.queued.saturating_add(data.len()) > LIMIT {
                return Err(Error::would_block("the send limit is reached").into());
            }
            state.queued += data.len();
            state.queue.push_back(data.to_vec());
            return Ok(());
        }
        let (plain, tls) = (state.plain.clone(), state.tls.clone());
        drop(state);
        match (tls, plain) {
            (Some(tls), _) => tls.send(data),
            (None, Some(plain)) => plain.send(data),
            (None, None) => Err(not_connected()),
        }
    }

    /// Bytes written and not yet handed to the system.
    pub fn unsent(&self) -> usize {
        let state = self.inner.state.lock();
        let (plain, tls, queued) = (state.plain.clone(), state.tls.clone(), state.queued);
        drop(state);
        queued + plain.map_or(0, |plain| plain.unsent()) + tls.map_or(0, |tls| tls.unsent())
    }

    /// What has arrived, at most `buf.len()`. `Ok(0)`: the peer has ended cleanly.
    ///
    /// Errors: `WouldBlock` if nothing has arrived; the error that ended the connection, after all data before it;
    /// `NotConnected` if there was none.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.inner.state.lock();
        let n = buf.len().min(state.input.len());
        for (to, from) in buf.iter_mut().zip(state.input.drain(..n)) {
            *to = from;
        }
        if n > 0 || buf.is_empty() {
            let (plain, tls) = (state.plain.clone(), state.tls.clone());
            let has_room = state.input.len() < LIMIT;
            drop(state);
            if has_room {
                tls.inspect(|tls| tls.pause_reading(false));
                plain.inspect(|plain| plain.pause_reading(false));
            }
            return Ok(n);
        }
        match (&state.end, state.state) {
            _ if state.peer_ended => Ok(0),
            (Some(End::Clean), _) => Ok(0),
            (Some(End::Failed(e)), _) => Err(e.clone().into()),
            (None, SocketState::Unconnected) => Err(not_connected()),
            (None, _) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// For the look-up, the connect and, with `connect_encrypted`, the handshake in all. Default 30 s; `None`: no limit.
    /// For connections begun from now on.
    pub fn set_connect_timeout(&self, timeout: Option<Duration>) {
        self.inner.state.lock().connect_timeout = timeout;
    }

    /// Ends the connection with `TimedOut` when nothing has come for so long. Default: none.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        let mut state = self.inner.state.lock();
        state.read_timeout = timeout.filter(|time| !time.is_zero());
        self.inner.apply_timeouts(state.plain.clone(), state.tls.clone(), state.read_timeout, state.write_timeout);
    }

    /// Ends the connection with `TimedOut` when nothing of what is unsent could be sent for so long. Default: none.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        let mut state = self.inner.state.lock();
        state.write_timeout = timeout.filter(|time| !time.is_zero());
        self.inner.apply_timeouts(state.plain.clone(), state.tls.clone(), state.read_timeout, state.write_timeout);
    }

    /// Sends what was written, says close_notify if encrypted, and ends the connection; `on_closed` tells when. While
    /// there is no connection yet: gives up.
    pub fn close(&self) {
        let mut state = self.inner.state.lock();
        if state.end.is_some() || state.closing || state.state == SocketState::Unconnected {
            return;
        }
        state.closing = true;
        let connected = state.plain.is_some();
        let peer_was_first = state.peer_ended;
        let must_wait = state.must_queue() && state.queued > 0;
        if connected {
            state.set_state(SocketState::Closing);
        }
        self.inner.schedule(&mut state);
        drop(state);
        if !connected {
            self.inner.finish(Ok(()));
        } else if !must_wait {
            self.inner.close_files();
            if peer_was_first {
                self.inner.finish(Ok(()));
            }
        }
    }

    /// Called at each change of [`state`](SslSocket::state).
    pub fn on_state_changed(&self, f: impl FnMut(&SslSocket, SocketState) + Send + 'static) {
        drop(self.inner.handlers.lock().state.set(Some(Box::new(f))));
    }

    /// Called at each change of [`mode`](SslSocket::mode).
    pub fn on_mode_changed(&self, f: impl FnMut(&SslSocket, Mode) + Send + 'static) {
        drop(self.inner.handlers.lock().mode.set(Some(Box::new(f))));
    }

    /// Called when a handshake is done.
    pub fn on_encrypted(&self, f: impl FnMut(&SslSocket) + Send + 'static) {
        drop(self.inner.handlers.lock().encrypted.set(Some(Box::new(f))));
    }

    /// Called when something has arrived that can be [`read`](SslSocket::read), the peer's close_notify included (`Ok(0)`).
    pub fn on_ready_read(&self, f: impl FnMut(&SslSocket) + Send + 'static) {
        drop(self.inner.handlers.lock().ready_read.set(Some(Box::new(f))));
    }

    /// All that was written has been handed to the system, in whatever mode. Not called for what was lost:
    /// [`on_closed`](SslSocket::on_closed) tells.
    pub fn on_written(&self, f: impl FnMut(&SslSocket) + Send + 'static) {
        drop(self.inner.handlers.lock().written.set(Some(Box::new(f))));
    }

    /// Once: the end, clean or not. A host that does not resolve, refuses, is silent or shows a certificate for another
    /// name, each has an error of its own.
    pub fn on_closed(&self, f: impl FnMut(&SslSocket, io::Result<()>) + Send + 'static) {
        drop(self.inner.handlers.lock().closed.set(Some(Box::new(f))));
    }

    /// The peer's address. Errors: `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let plain = self.inner.state.lock().plain.clone();
        plain.ok_or_else(not_connected)?.get_ref().peer_addr()
    }

    /// Our own address. Errors: `NotConnected`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let plain = self.inner.state.lock().plain.clone();
        plain.ok_or_else(not_connected)?.get_ref().local_addr()
    }

    fn begin(&self, host: &str, port: u16, start: Option<Start>) -> io::Result<()> {
        if host.is_empty() || host.contains('\0') {
            return Err(Error::invalid_input(format!("{host:?} cannot be a host")).into());
        }
        let mut state = self.inner.state.lock();
        if state.state != SocketState::Unconnected || !state.events.is_empty() {
            return Err(already("the socket is in use").into());
        }
        state.generation += 1;
        let generation = state.generation;
        (state.end, state.ending, state.closing, state.stopping) = (None, false, false, false);
        state.input.clear();
        state.for_handshake.clear();
        state.last_error = None;
        state.host = format!("{host}:{port}");
        if let Some(start) = &start {
            state.set_mode(start.mode());
        }
        state.start = start;
        state.set_state(SocketState::HostLookup);
        let weak = Arc::downgrade(&self.inner);
        if let Some(timeout) = state.connect_timeout {
            let weak = weak.clone();
            state.connect_timer = Some(self.inner.backend.call_out(timeout, move || {
                if let Some(inner) = weak.upgrade() {
                    inner.connect_took_too_long(generation, timeout);
                }
            }));
        }
        self.inner.schedule(&mut state);
        drop(state);
        let bare = without_brackets(host).to_string();
        // The system's look-up blocks, and nothing can break it off.
        let looked_up = thread::Builder::new().name("sslfile-lookup".to_string()).spawn(move || {
            let found = (bare.as_str(), port).to_socket_addrs().map(|addrs| addrs.collect::<Vec<_>>());
            if let Some(inner) = weak.upgrade() {
                let weak = weak.clone();
                inner.backend.call_out(Duration::ZERO, move || {
                    if let Some(inner) = weak.upgrade() {
                        inner.looked_up(found, generation);
                    }
                });
            }
        });
        if let Err(e) = looked_up {
            self.inner.finish(Err(e));
        }
        Ok(())
    }

    fn start(&self, start: Start) -> io::Result<()> {
        start.check()?;
        let mut state = self.inner.state.lock();
        if state.plain.is_none() || state.closing || state.end.is_some() {
            return Err(not_connected());
        }
        if state.tls.is_some() || state.start.is_some() {
            return Err(already("the socket is encrypted already").into());
        }
        state.set_mode(start.mode());
        state.start = Some(start);
        state.for_handshake = state.input.drain(..).collect();
        self.inner.schedule(&mut state);
        drop(state);
        self.inner.start_if_flushed();
        Ok(())
    }
}

impl fmt::Debug for SslSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        f.debug_struct("SslSocket").field("state", &state.state).field("mode", &state.mode).finish_non_exhaustive()
    }
}

impl Start {
    fn mode(&self) -> Mode {
        match self.server_name {
            Some(_) => Mode::SslClient,
            None => Mode::SslServer,
        }
    }

    fn options(&self) -> SslOptions {
        match &self.server_name {
            Some(name) => SslFile::options().client(name),
            None => SslFile::options().server(),
        }
    }

    /// A wrong name, or a missing identity, shows at once.
    fn check(&self) -> io::Result<()> {
        match &self.server_name {
            Some(name) => crate::Connection::client(&self.context, name).map(drop),
            None => crate::Connection::server(&self.context).map(drop),
        }
    }
}

impl State {
    fn set_state(&mut self, state: SocketState) {
        if std::mem::replace(&mut self.state, state) != state {
            self.events.push_back(Event::State(state));
        }
    }

    fn set_mode(&mut self, mode: Mode) {
        if std::mem::replace(&mut self.mode, mode) != mode {
            self.events.push_back(Event::Mode(mode));
        }
    }

    /// Nothing can be written to the files now.
    fn must_queue(&self) -> bool {
        self.plain.is_none() || self.start.is_some() || self.stopping
    }
}

/// An IPv6 address may be written as in a URL.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

fn not_connected() -> io::Error {
    Error::new(ErrorKind::NotOpen, "the socket is not connected").into()
}

fn already(text: &str) -> Error {
    Error::new(ErrorKind::Other, text).with_io_kind(io::ErrorKind::AlreadyExists)
}
