use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::backend::{Backend, Happened, Place, Source};
use crate::callbacks::Slot;
use crate::context::Context;
use crate::error::{Error, ErrorKind};
use crate::file::{Handshake, SslFile, SslOptions};
use crate::sync::Mutex;

/// A listener whose connections are TLS. [`try_clone`](SslListener::try_clone) shares everything.
///
/// The handshake is not done in `accept` but on the accepted file's first use, in whatever thread that is: a client that
/// connects and says nothing holds up nobody else. What std's `TcpListener` has is here with its meaning, but for
/// `FromRawFd` and `From<OwnedFd>` (a descriptor has no context; use [`from_tcp`](SslListener::from_tcp)) and `IntoRawFd`.
///
/// ```no_run
/// use std::io::{Read, Write};
/// use std::thread;
/// use sslfile::{Context, Identity, SslListener};
/// # fn main() -> std::io::Result<()> {
/// let identity = Identity::from_pem_files("cert.pem", "key.pem")?;
/// let listener = SslListener::bind("127.0.0.1:8443", &Context::server(identity)?)?;
/// for file in listener.incoming() {
///     let mut file = file?;
///     thread::spawn(move || {
///         let mut line = [0; 100];
///         let n = file.read(&mut line)?; // shakes hands
///         file.write_all(&line[..n])?;
///         file.close()
///     });
/// }
/// # Ok(())
/// # }
/// ```
pub struct SslListener {
    shared: Arc<Shared>,
}

struct Shared {
    listener: TcpListener,
    /// What it accepts has nothing set on it.
    accepts_fresh: bool,
    settings: Mutex<Settings>,
    callbacks: Mutex<ListenerCallbacks>,
}

struct Settings {
    context: Context,
    handshake_timeout: Option<Option<Duration>>,
    closed: bool,
    paused: bool,
    pending_limit: usize,
    /// Files whose handshake is under way, in callback mode.
    pending: HashMap<u64, SslFile>,
    next_pending: u64,
    /// After an error of the system: accept nothing until then.
    resting: Option<Instant>,
    place: Option<Place>,
    /// What the backend has been told.
    watched: bool,
    /// How many connections to take in the next turn: as many as there were, or twice as many if there were more.
    burst: usize,
}

/// Locked for the length of a call: there is one accept callback, and it is called by one thread at a time.
#[derive(Default)]
struct ListenerCallbacks {
    accept: Slot<OnAccept>,
    error: Slot<OnError>,
    /// What they are to be told.
    accepted: VecDeque<(SslFile, SocketAddr)>,
    failed: VecDeque<(SocketAddr, io::Error)>,
}

type OnAccept = Box<dyn FnMut(SslFile, SocketAddr) + Send>;
type OnError = Box<dyn FnMut(SocketAddr, io::Error) + Send>;

/// Handshakes under way at once, unless set otherwise.
const PENDING_LIMIT: usize = 1024;
/// Connections accepted in one run, so that the files of the backend have their turn.
const FAIR_SHARE: usize = 64;
/// How long to leave the system alone when it can't accept: it is out of descriptors, say.
const REST: Duration = Duration::from_millis(100);

// As `TcpListener`: no code of a user runs while the settings change.
impl std::panic::UnwindSafe for SslListener {}
impl std::panic::RefUnwindSafe for SslListener {}

impl SslListener {
    /// As `TcpListener::bind`: tries each address until one can be bound.
    ///
    /// Errors: `InvalidInput` if the context has no identity; those of `TcpListener::bind`.
    pub fn bind<A: ToSocketAddrs>(addr: A, context: &Context) -> io::Result<SslListener> {
        check(context)?;
        SslListener::from_tcp(TcpListener::bind(addr)?, context)
    }

    /// Over a listener made elsewhere.
    ///
    /// Errors: `InvalidInput` if the context has no identity.
    pub fn from_tcp(listener: TcpListener, context: &Context) -> io::Result<SslListener> {
        check(context)?;
        let settings = Settings {
            context: context.clone(),
            handshake_timeout: None,
            closed: false,
            paused: false,
            pending_limit: PENDING_LIMIT,
            pending: HashMap::new(),
            next_pending: 0,
            resting: None,
            place: None,
            watched: false,
            burst: 0,
        };
        // Elsewhere sockets inherit more than time-outs.
        let linux = cfg!(any(target_os = "linux", target_os = "android"));
        let socket = SockRef::from(&listener);
        let accepts_fresh = linux && socket.read_timeout()?.is_none() && socket.write_timeout()?.is_none();
        let shared = Shared { listener, accepts_fresh, settings: Mutex::new(settings), callbacks: Mutex::default() };
        Ok(SslListener { shared: Arc::new(shared) })
    }

    /// Waits for a connection. Returns with the TCP connection, as a blocking file; the handshake happens on first use.
    ///
    /// Errors: those of `TcpListener::accept`; `WouldBlock` if non-blocking; `NotConnected` after `close`, also when
    /// that happens during the wait.
    pub fn accept(&self) -> io::Result<(SslFile, SocketAddr)> {
        self.check_open()?;
        let (stream, addr) = match self.shared.listener.accept() {
            Ok(accepted) => accepted,
            Err(e) => {
                self.check_open()?;
                return Err(e);
            }
        };
        Ok((self.shared.open(stream, addr, |options| options.nonblocking(false))?, addr))
    }

    fn check_open(&self) -> io::Result<()> {
        match self.shared.settings.lock().closed {
            true => Err(Error::new(ErrorKind::NotOpen, "the listener has been closed").into()),
            false => Ok(()),
        }
    }

    /// The connections, as `accept` gives them, without end.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.listener.local_addr()
    }

    /// Another handle on the same listener.
    pub fn try_clone(&self) -> io::Result<SslListener> {
        Ok(SslListener { shared: self.shared.clone() })
    }

    /// Whether `accept` returns `WouldBlock` rather than wait. Accepted files are blocking all the same.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.listener.set_nonblocking(nonblocking)
    }

    /// Sets `IP_TTL`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.shared.listener.set_ttl(ttl)
    }

    /// The value of `IP_TTL`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.shared.listener.ttl()
    }

    /// The value of `SO_ERROR`, which is cleared.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.shared.listener.take_error()
    }

    /// The context for new connections.
    pub fn context(&self) -> Context {
        self.shared.settings.lock().context.clone()
    }

    /// For connections accepted from now on, through any handle: new certificates, say. A context without an identity
    /// makes `accept` fail with `InvalidInput`.
    pub fn set_context(&self, context: &Context) {
        self.shared.settings.lock().context = context.clone();
    }

    /// The handshake time-out of files accepted from now on. Default: as [`SslOptions::handshake_timeout`].
    pub fn set_handshake_timeout(&self, timeout: Option<Duration>) {
        self.shared.settings.lock().handshake_timeout = Some(timeout);
    }

    /// How many handshakes may be under way at once in callback mode; further connections wait in the system's queue.
    /// Default 1024.
    pub fn set_pending_limit(&self, handshakes: usize) {
        self.shared.settings.lock().pending_limit = handshakes;
        self.shared.tell_backend();
    }

    /// From now on the backend accepts, shakes hands, and calls `f` with each file whose handshake is done, and the
    /// peer's address. The file is non-blocking and in the listener's backend; set its callbacks and
    /// [`keep`](SslFile::keep) it, or move it elsewhere. A peer that connects and ends before its first byte is passed
    /// over. The listener is non-blocking from now on.
    ///
    /// Inside `f` every method of the listener may be called. The backend holds a handle of its own until
    /// [`close`](SslListener::close).
    ///
    /// Errors: `NotConnected` after `close`; those of the system.
    ///
    /// Pike's accept callback of `SSL.Port`, which must not forget to dequeue; here the file is yours.
    pub fn set_accept_callback(
        &self,
        backend: &Backend,
        f: impl FnMut(SslFile, SocketAddr) + Send + 'static,
    ) -> io::Result<()> {
        self.check_open()?;
        self.set_nonblocking(true)?;
        let old = self.shared.callbacks.lock().accept.set(Some(Box::new(f)));
        drop(old);
        let mut settings = self.shared.settings.lock();
        // More than once if another thread does the same.
        while let Some(old) = settings.place.take() {
            if old.is_in(backend) {
                settings.place = Some(old);
                return Ok(());
            }
            drop(settings);
            old.leave(true);
            settings = self.shared.settings.lock();
        }
        if settings.closed {
            drop(settings);
            return self.check_open();
        }
        settings.watched = false;
        settings.place = Some(backend.add(self.shared.clone())?);
        Ok(())
    }

    /// Calls `f` for each handshake that failed or took too long, with the peer's address; and, with the listener's own
    /// address, when the system can't accept (it is out of descriptors, say): the listener tries again by itself.
    pub fn set_error_callback(&self, f: impl FnMut(SocketAddr, io::Error) + Send + 'static) {
        let old = self.shared.callbacks.lock().error.set(Some(Box::new(f)));
        drop(old);
    }

    /// Stops accepting in callback mode, or goes on with it. Handshakes under way and accepted files are not concerned;
    /// new connections wait in the system's queue.
    pub fn pause(&self, paused: bool) {
        self.shared.settings.lock().paused = paused;
        self.shared.tell_backend();
    }

    /// Stops listening, for every handle, and drops the handshakes under way; accepted files live on. The descriptor
    /// goes with the last handle. Never waits.
    pub fn close(&self) {
        let mut settings = self.shared.settings.lock();
        settings.closed = true;
        let place = settings.place.take();
        let pending = std::mem::take(&mut settings.pending);
        drop(settings);
        if let Some(place) = place {
            place.leave(false);
        }
        drop(pending);
        let mut callbacks = self.shared.callbacks.lock();
        let old = (callbacks.accept.set(None), callbacks.error.set(None));
        drop(callbacks);
        drop(old);
        // Wakes those who wait in `accept`.
        let _ = SockRef::from(&self.shared.listener).shutdown(Shutdown::Both);
    }
}

impl Shared {
    /// A file that shakes hands later, with the settings of the moment.
    fn open(
        &self,
        stream: TcpStream,
        addr: SocketAddr,
        more: impl FnOnce(SslOptions) -> SslOptions,
    ) -> io::Result<SslFile> {
        let settings = self.settings.lock();
        let options = SslFile::options().server().handshake(Handshake::Lazy);
        let mut options = options.peer(addr).fresh(self.accepts_fresh);
        if let Some(timeout) = settings.handshake_timeout {
            options = options.handshake_timeout(timeout);
        }
        let context = settings.context.clone();
        drop(settings);
        Ok(more(options).open(stream, &context)?)
    }

    /// What the backend should wait for has changed.
    fn tell_backend(&self) {
        let mut settings = self.settings.lock();
        let wanted = settings.wants_more();
        let Some(place) = settings.place.clone() else { return };
        if std::mem::replace(&mut settings.watched, wanted) == wanted {
            return;
        }
        if let Err(e) = place.watch(Happened { readable: wanted, ..Happened::default() }) {
            settings.watched = false;
            drop(settings);
            self.report_own(e);
        }
    }

    /// Takes what is in the system's queue, up to the limits.
    fn accept_some(self: &Arc<Self>, backend: &Backend) -> usize {
        // No more than are likely there: a look at the empty queue is a call for nothing.
        let limit = self.settings.lock().burst.clamp(1, FAIR_SHARE);
        self.settings.lock().burst = limit * 2;
        for accepted in 0..limit {
            if !self.settings.lock().wants_more() {
                return 0;
            }
            match self.listener.accept() {
                Ok((stream, addr)) => self.begin(stream, addr, backend),
                Err(e) => match e.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.settings.lock().burst = accepted;
                        return 0;
                    }
                    // That peer has gone again.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        let mut settings = self.settings.lock();
                        let until = Instant::now() + REST;
                        settings.resting = Some(until);
                        if let Some(place) = &settings.place {
                            place.set_alarm(Some(until));
                        }
                        drop(settings);
                        return self.report_own(e);
                    }
                },
            }
        }
        0
    }

    fn begin(self: &Arc<Self>, stream: TcpStream, addr: SocketAddr, backend: &Backend) {
        let opened = self.open(stream, addr, |options| options.nonblocking(true).backend(backend));
        let file = match opened {
            Ok(file) => file,
            Err(e) => {
                self.report(addr, e);
                return;
            }
        };
        let mut settings = self.settings.lock();
        let id = settings.next_pending;
        settings.next_pending += 1;
        settings.pending.insert(id, file.clone());
        drop(settings);
        let listener = Arc::downgrade(self);
        file.set_opened(move |result| {
            let Some(listener) = listener.upgrade() else { return };
            let file = listener.settings.lock().pending.remove(&id);
            listener.tell_backend();
            match (file, result) {
                (Some(file), Ok(())) => listener.deliver(file, addr),
                // It ended before its first byte.
                (Some(_), Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {}
                (Some(_), Err(e)) => drop(listener.report(addr, e)),
                // Closed meanwhile.
                (None, _) => {}
            }
        });
    }

    fn deliver(&self, file: SslFile, addr: SocketAddr) {
        self.callbacks.lock().accepted.push_back((file, addr));
        call_all(&self.callbacks, |all| (&mut all.accept, &mut all.accepted), |f, (file, addr)| f(file, addr));
    }

    /// Says how many callbacks were called.
    fn report(&self, addr: SocketAddr, e: io::Error) -> usize {
        self.callbacks.lock().failed.push_back((addr, e));
        call_all(&self.callbacks, |all| (&mut all.error, &mut all.failed), |f, (addr, e)| f(addr, e))
    }

    fn report_own(&self, e: io::Error) -> usize {
        match self.listener.local_addr() {
            Ok(addr) => self.report(addr, e),
            Err(_) => 0,
        }
    }
}

/// Calls a callback with all it is to be told; says how often. If another thread is calling it, that one goes on with
/// what is new. Without a callback nobody is told.
fn call_all<T, A>(
    callbacks: &Mutex<ListenerCallbacks>,
    parts: impl Fn(&mut ListenerCallbacks) -> (&mut Slot<T>, &mut VecDeque<A>),
    f: impl Fn(&mut T, A),
) -> usize {
    let mut calls = 0;
    loop {
        let mut all = callbacks.lock();
        let (slot, waiting) = parts(&mut all);
        let Some(mut callback) = slot.start() else {
            let unheard = if slot.is_set() { VecDeque::new() } else { std::mem::take(waiting) };
            drop(all);
            drop(unheard);
            return calls;
        };
        let Some(arguments) = waiting.pop_front() else {
            // Nobody can have changed the slot meanwhile.
            let unwanted = slot.finish(callback);
            drop(all);
            drop(unwanted);
            return calls;
        };
        drop(all);
        let result = catch_unwind(AssertUnwindSafe(|| f(&mut callback, arguments)));
        let mut all = callbacks.lock();
        let (slot, _) = parts(&mut all);
        let unwanted = match &result {
            Ok(()) => slot.finish(callback),
            Err(_) => {
                slot.lost();
                Some(callback)
            }
        };
        drop(all);
        drop(unwanted);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        calls += 1;
    }
}

impl Settings {
    fn wants_more(&self) -> bool {
        !self.closed && !self.paused && self.resting.is_none() && self.pending.len() < self.pending_limit
    }
}

impl Source for Shared {
    fn descriptors(&self) -> Option<(RawFd, RawFd)> {
        let fd = self.listener.as_raw_fd();
        Some((fd, fd))
    }

    fn run(self: Arc<Self>, at: &Place, happened: Happened, _: &mut [u8]) -> usize {
        let mut settings = self.settings.lock();
        if !settings.place.as_ref().is_some_and(|place| place.is(at)) {
            return 0;
        }
        settings.watched &= !happened.disarmed;
        if settings.resting.is_some_and(|until| until <= Instant::now()) {
            settings.resting = None;
        }
        drop(settings);
        let calls = match at.backend() {
            Some(backend) if happened.readable => self.accept_some(&backend),
            _ => 0,
        };
        self.tell_backend();
        calls
    }

    fn orphaned(self: Arc<Self>, at: &Place) {
        let mut settings = self.settings.lock();
        if !settings.place.as_ref().is_some_and(|place| place.is(at)) {
            return;
        }
        settings.place = None;
        let pending = std::mem::take(&mut settings.pending);
        drop(settings);
        drop(pending);
    }
}

impl fmt::Debug for SslListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SslListener").field("listener", &self.shared.listener).finish_non_exhaustive()
    }
}

/// Errors should show when a listener is made, not when a client comes.
fn check(context: &Context) -> io::Result<()> {
    crate::connection::Connection::server(context).map(drop)
}

impl AsFd for SslListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.listener.as_fd()
    }
}

impl AsRawFd for SslListener {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.listener.as_raw_fd()
    }
}

/// The connections of an [`SslListener`]. Never ends; see [`SslListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a SslListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<SslFile>;

    fn next(&mut self) -> Option<io::Result<SslFile>> {
        Some(self.listener.accept().map(|(file, _)| file))
    }
}

impl std::iter::FusedIterator for Incoming<'_> {}
