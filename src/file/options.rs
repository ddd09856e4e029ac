use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::{OpenError, SslFile, ToServer};
use crate::backend::Backend;
use crate::connection::Connection;
use crate::context::{Context, Resume};
use crate::drive::alert_queue::InCall;
use crate::drive::handle::{Face, Handle};
use crate::drive::{tells_would_block, Shared};
use crate::error::{Error, ErrorKind};
use crate::machine::{Machine, Setup, CLOSE_TIMEOUT};
use crate::role::Role;
use crate::stream::{Inherited, Stream};
use crate::sys::MUST_BE_CLAIMED;
use crate::version::{Bounds, Version};

/// When a file shakes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Handshake {
    /// When it is opened: errors show there. A non-blocking file begins then and does not wait.
    Eager,
    /// On first use: read, write, flush, peek or handshake.
    Lazy,
}

/// How to open a file, in the manner of `fs::OpenOptions`. From [`SslFile::options`].
///
/// ```no_run
/// use std::time::Duration;
/// use sslfile::{Context, SslFile, Version};
/// # fn main() -> std::io::Result<()> {
/// let file = SslFile::options()
///     .min_version(Version::Tls1_3)
///     .handshake_timeout(Some(Duration::from_secs(5)))
///     .connect("example.com:443", &Context::client()?)?;
/// # drop(file);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SslOptions {
    role: Option<Role>,
    server_name: String,
    versions: Bounds,
    nonblocking: Option<bool>,
    handshake: Option<Handshake>,
    handshake_timeout: Option<Option<Duration>>,
    close_timeout: Duration,
    busy_poll: Duration,
    half_close: bool,
    send_limit: usize,
    already_read: Vec<u8>,
    backend: Option<Backend>,
    connect_timeout: Option<Duration>,
    timeout_kind: io::ErrorKind,
    resume: Option<Resume>,
    peer: Option<SocketAddr>,
    fresh: bool,
}

const SEND_LIMIT: usize = 256 * 1024;

impl SslOptions {
    pub(crate) fn new() -> SslOptions {
        SslOptions {
            role: None,
            server_name: String::new(),
            versions: Bounds::default(),
            nonblocking: None,
            handshake: None,
            handshake_timeout: None,
            close_timeout: CLOSE_TIMEOUT,
            busy_poll: Duration::ZERO,
            half_close: true,
            send_limit: SEND_LIMIT,
            already_read: Vec::new(),
            backend: None,
            connect_timeout: None,
            timeout_kind: io::ErrorKind::TimedOut,
            resume: None,
            peer: None,
            fresh: false,
        }
    }

    /// A client that expects the peer to be `server_name`, a DNS name or an IP address.
    pub fn client(mut self, server_name: &str) -> Self {
        self.role = Some(Role::Client);
        self.server_name = server_name.to_string();
        self
    }

    /// A server; the context must have an identity.
    pub fn server(mut self) -> Self {
        self.role = Some(Role::Server);
        self
    }

    /// The lowest version for this file, instead of the context's.
    pub fn min_version(mut self, version: Version) -> Self {
        self.versions.min = Some(version);
        self
    }

    /// The highest version for this file, instead of the context's.
    pub fn max_version(mut self, version: Version) -> Self {
        self.versions.max = Some(version);
        self
    }

    /// Whether the file is non-blocking. Default: as the stream is. For a stream without a descriptor `true` says that
    /// the stream itself gives `WouldBlock`.
    pub fn nonblocking(mut self, yes: bool) -> Self {
        self.nonblocking = Some(yes);
        self
    }

    /// When to shake hands. Default: eager.
    pub fn handshake(mut self, when: Handshake) -> Self {
        self.handshake = Some(when);
        self
    }

    /// A budget for the whole handshake, from its first step; when it is used up the handshake has failed for good, with
    /// `TimedOut`. Default: 30 s, but none while a file is non-blocking and without a backend. `None`: no limit. Streams without a
    /// descriptor have none.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.handshake_timeout = Some(timeout);
        self
    }

    /// How long `close` waits for the peer's end after ours, and for the peer to take something of what is unsent.
    /// Default 1 s; zero does not wait for the peer's end (and 1 s for what is unsent).
    pub fn close_timeout(mut self, time: Duration) -> Self {
        self.close_timeout = time;
        self
    }

    /// How long a blocking call that finds nothing to read, in the handshake too, goes on trying before it sleeps. Zero, the
    /// default: it sleeps at once. Any length will do; of use are some 20 to 100 µs, about as long as an answer takes.
    ///
    /// While it tries, the thread keeps its processor busy (and gives way, now and then, to others that want it); what it
    /// saves is going to sleep and being woken, which over loopback takes several times as long as the message itself. It
    /// pays where the peer answers that soon from another processor, and costs a full processor for up to `time` in each
    /// read where it does not. Nothing else changes: time-outs, `interrupt`, `close` and `shutdown` end a call as ever.
    ///
    /// No effect while the file is non-blocking, on what a backend reads, on streams without a descriptor, and on a machine
    /// with one processor. A thread that is bound to one of several spins: its peer may have another. A file that wraps this
    /// one spins in its place.
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.busy_poll = if has_many_cores() { time } else { Duration::ZERO };
        self
    }

    /// Whether our close_notify, of `shutdown(Write)` and `close`, is followed by a half-close of the stream: TCP's FIN. The
    /// default is yes, as with `TcpStream`. Without it TLS alone says our end, which is all that TLS asks for (RFC 8446, section
    /// 6.1): for connections through proxies such as tinyproxy, which take a FIN of one side for the end of both, so that an answer
    /// would not arrive. The stream ends with the file, or when both ends have been said.
    pub fn half_close(mut self, yes: bool) -> Self {
        self.half_close = yes;
        self
    }

    /// How many bytes may be unsent before a non-blocking `write`, and `send`, give `WouldBlock`. Default 256 KiB.
    pub fn send_limit(mut self, bytes: usize) -> Self {
        self.send_limit = bytes;
        self
    }

    /// Bytes that were already read from the stream and belong to the handshake.
    ///
    /// After a plain dialogue (STARTTLS) hand in all that was read too far: bytes that somebody slipped in behind the
    /// peer's last plain line then fail the handshake, and are never taken for what the peer says over TLS
    /// (CVE-2011-0411).
    pub fn already_read(mut self, bytes: Vec<u8>) -> Self {
        self.already_read = bytes;
        self
    }

    /// The backend that calls the file's callbacks. Default: that of the stream, if it has one. The backend shakes hands
    /// without being asked.
    pub fn backend(mut self, backend: &Backend) -> Self {
        self.backend = Some(backend.clone());
        self
    }

    /// For [`connect`](SslOptions::connect): how long the TCP connection may take, all addresses of the host together, each of
    /// which gets an even share of what is left. Looking the name up is not in it. Default: as long as the system takes.
    pub fn connect_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How calls are told that a time-out or a deadline has passed: `TimedOut`, the default, or `WouldBlock`. See
    /// [`set_timeout_kind`](SslFile::set_timeout_kind).
    pub fn timeout_kind(mut self, kind: io::ErrorKind) -> Self {
        self.timeout_kind = kind;
        self
    }

    /// Offers the session of that connection, whatever the context has in store and whoever is connected to. For servers
    /// that want to see the session of one connection again on another: those of FTP, whose data connections must resume the
    /// session of their control connection (vsftpd's `require_ssl_reuse`, ProFTPD unless `NoSessionReuseRequired`). May be asked
    /// for any number of times, and the options may be made once and kept: what is offered is what that connection has when a
    /// file is opened, also when it has ended since, but not when it has failed. (In TLS 1.3 sessions come with the server's
    /// first words behind the handshake.) It works where the context keeps no sessions, too
    /// ([`session_resumption`](crate::ContextBuilder::session_resumption)); without a session there is a full handshake. What
    /// the new connection gets is not put into the context's store.
    ///
    /// A session stands for its peer: where one is resumed the certificate is not looked at again, and the name in
    /// [`client`](SslOptions::client) is sent, but not checked. Give the name of the first connection; for another a server need not
    /// resume (RFC 6066, section 3).
    ///
    /// With [`Engine::Rustls`](crate::Engine::Rustls) in TLS 1.3, `resume` and each later read and write of that connection lay
    /// its session ready for 16 others: so many can be opened before the next one, and after its end. In TLS 1.2 each resumption
    /// has another session id there, and ProFTPD compares them: it refuses the data connections of a control connection that has
    /// itself resumed a session, so switch off those of the context
    /// ([`session_resumption(false)`](crate::ContextBuilder::session_resumption)).
    ///
    /// Opening fails with `InvalidInput` unless both connections are clients of the same context, and with `Unsupported` with
    /// [`Engine::Native`](crate::Engine::Native), and for a context made from a `rustls::ClientConfig`.
    ///
    /// ```no_run
    /// use sslfile::{Context, SslFile};
    /// # fn main() -> std::io::Result<()> {
    /// let context = Context::client()?;
    /// let control = SslFile::options().connect("ftp.example.com:990", &context)?;
    /// let options = SslFile::options().client("ftp.example.com").resume(&control);
    /// // ... for each transfer:
    /// let data = options.clone().connect("192.0.2.1:50000", &context)?;
    /// # drop(data);
    /// # Ok(())
    /// # }
    /// ```
    pub fn resume<S: Stream>(mut self, connection: &SslFile<S>) -> Self {
        self.resume = Some(connection.resumable());
        self
    }

    /// Has a client resume a session that [`SslFile::session`] has given, in this process or another. Instead of
    /// [`resume`](SslOptions::resume); the last one of the two counts. If the server does not take it there is a full handshake
    /// ([`is_resumed`](SslFile::is_resumed) says which).
    ///
    /// **Whoever can change these bytes decides who is trusted**: where a session is resumed neither certificate nor name is
    /// looked at again. Keep them as you would a private key. A ticket of TLS 1.3 should be used once (RFC 8446, appendix C.4).
    ///
    /// Opening fails with `InvalidInput` for a server and for bytes that are no session, and with `Unsupported` but with
    /// [`Engine::OpenSsl`](crate::Engine::OpenSsl), whose form it is (`openssl sess_id -inform DER` shows it).
    pub fn session(mut self, kept: &[u8]) -> Self {
        self.resume = Some(Resume::Kept(kept.to_vec().into()));
        self
    }

    /// The peer's address, where it is known better than the stream may know it.
    pub(crate) fn peer(mut self, addr: SocketAddr) -> Self {
        self.peer = Some(addr);
        self
    }

    /// The stream has just been made, and nobody has set anything on it: there is nothing to ask.
    pub(crate) fn fresh(mut self, yes: bool) -> Self {
        self.fresh = yes;
        self
    }

    /// Whatever the stream is set to.
    pub(crate) fn blocking_by_default(mut self) -> Self {
        self.nonblocking.get_or_insert(false);
        self
    }

    /// Whether each connection of a listener can be opened so.
    pub(crate) fn check_for_listener(&self, context: &Context) -> io::Result<()> {
        if self.role.is_some() || !self.already_read.is_empty() || self.backend.is_some() {
            let text = "a listener's options have no role, no name, no bytes of a stream and no backend";
            return Err(Error::invalid_input(text).into());
        }
        tells_would_block(self.timeout_kind)?;
        Ok(Connection::open(context, Role::Server, "", self.versions, self.resume.as_ref()).map(drop)?)
    }

    /// Opens a file over `stream`. Blocks for the handshake if that is eager and the file blocking.
    ///
    /// Errors, with the stream in them: `InvalidInput` without `client` or `server`, for a name that can't be one, for a
    /// server without an identity; `Unsupported` for what the engine can't do in this role; `ResourceBusy` if another
    /// file has the stream; those of [`SslFile::handshake`].
    pub fn open<S: Stream>(self, stream: S, context: &Context) -> Result<SslFile<S>, OpenError<S>> {
        let _call = InCall::begin();
        let opened = self.prepare(&stream, context);
        let (connection, mut inherited) = match opened {
            Ok(opened) => opened,
            Err(e) => return Err(OpenError::new(e, stream, self.already_read)),
        };
        let polled = stream.is_polled();
        let address = self.peer.map(|addr| addr.to_string()).or_else(|| stream.peer());
        let peer = match (self.role, address) {
            (Some(Role::Client), Some(address)) if address.contains(&self.server_name) => address,
            (Some(Role::Client), Some(address)) => format!("{} ({address})", self.server_name),
            (Some(Role::Client), None) => self.server_name,
            (_, address) => address.unwrap_or_else(|| "the peer".to_string()),
        };
        let nonblocking = self.nonblocking.unwrap_or(inherited.nonblocking);
        let backend = self.backend.or(inherited.backend.take());
        if backend.is_some() && !polled {
            let unread = stream.give_back(&inherited, self.already_read);
            return Err(OpenError::new(
                Error::unsupported("a backend needs a stream with a descriptor").into(),
                stream,
                unread,
            ));
        }
        let tells_would_block = self.timeout_kind == io::ErrorKind::WouldBlock || inherited.tells_would_block;
        let setup = Setup {
            handshake_timeout: self.handshake_timeout,
            half_closes: self.half_close,
            tells_would_block,
            ..Setup::of(&stream, &inherited, nonblocking, self.close_timeout, self.send_limit)
        };
        let mut machine = Machine::new(connection, &setup);
        machine.tls.feed(&self.already_read);
        let busy_poll = self.busy_poll.max(inherited.busy_poll);
        let shared = Arc::new(Shared::new(stream, Some(context), inherited, peer, machine, busy_poll));
        let mut outcome = Ok(());
        if self.handshake != Some(Handshake::Lazy) {
            outcome = shared.handshake();
        }
        if let (Some(backend), Ok(())) = (&backend, not_blocked(&outcome)) {
            outcome = shared.set_backend(Some(backend));
        }
        match not_blocked(&outcome).err().and(outcome.err()) {
            None => Ok(SslFile::from_handle(Handle::first(shared))),
            Some(e) => match Arc::try_unwrap(shared) {
                Ok(shared) => {
                    let (stream, unread) = shared.into_stream();
                    Err(OpenError::new(e, stream, unread))
                }
                // Nobody else can have it yet.
                Err(shared) => Ok(SslFile::from_handle(Handle::first(shared))),
            },
        }
    }

    fn prepare<S: Stream>(&self, stream: &S, context: &Context) -> io::Result<(Connection, Inherited)> {
        let Some(role) = self.role else {
            return Err(Error::invalid_input("options need client(name) or server()").into());
        };
        tells_would_block(self.timeout_kind)?;
        let connection = Connection::open(context, role, &self.server_name, self.versions, self.resume.as_ref())?;
        let inherited = if self.fresh && !MUST_BE_CLAIMED { Inherited::default() } else { stream.take_over()? };
        Ok((connection, inherited))
    }

    /// TCP connect, to each address of the host in turn, then `open` as a client of that host (unless `client` named
    /// another), eager unless set otherwise. Blocks; the TCP connect is not under the handshake's time-out, but under
    /// [`connect_timeout`](SslOptions::connect_timeout).
    ///
    /// Errors: `InvalidInput` for an address without a port, for options with `server` and for a connect time-out of zero;
    /// `TimedOut`; those of `TcpStream::connect` and of [`open`](SslOptions::open).
    pub fn connect<A: ToServer>(self, addr: A, context: &Context) -> io::Result<SslFile> {
        let (host, addrs) = addr.to_server()?;
        let options = match self.role {
            None => self.client(&host),
            Some(Role::Client) => self,
            Some(Role::Server) => return Err(Error::invalid_input("connect makes clients, not servers").into()),
        };
        let stream = match options.connect_timeout {
            None => TcpStream::connect(&addrs[..])?,
            Some(timeout) => connect_within(&addrs, timeout)?,
        };
        Ok(options.fresh(true).open(stream, context)?)
    }
}

/// To each address in turn, each with an even share of the time that is left.
fn connect_within(addrs: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
    let begin = Instant::now();
    let mut last = None;
    for (i, addr) in addrs.iter().enumerate() {
        let share = timeout.saturating_sub(begin.elapsed()) / (addrs.len() - i) as u32;
        // An address that fails late may leave nothing for the next; zero is for std to refuse.
        let share = if last.is_some() { share.max(Duration::from_millis(1)) } else { share };
        match TcpStream::connect_timeout(addr, share) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| Error::invalid_input("the host has no address").into()))
}

/// Whether a peer can run while we spin. Finding out means reading files, so it is done once.
fn has_many_cores() -> bool {
    static MANY: OnceLock<bool> = OnceLock::new();
    *MANY.get_or_init(|| {
        // The machine's, where Linux tells: std counts those that the thread which asks is bound to.
        let online = fs::read_to_string("/sys/devices/system/cpu/online").ok();
        let count =
            online.and_then(|list| processors(&list)).or_else(|| Some(thread::available_parallelism().ok()?.get()));
        count.is_some_and(|n| n > 1)
    })
}

/// How many there are in a list as Linux writes it: "0-3,6".
fn processors(list: &str) -> Option<usize> {
    let range = |range: &str| -> Option<usize> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        (last.parse::<usize>().ok()?).checked_sub(first.parse().ok()?)?.checked_add(1)
    };
    list.trim().split(',').try_fold(0, |count: usize, part| count.checked_add(range(part)?))
}

/// A non-blocking file that is opened eagerly has only begun its handshake. A time-out may be told by the same kind.
fn not_blocked(outcome: &io::Result<()>) -> Result<(), ()> {
    let is_timeout = |e| Error::of(e).is_some_and(|error| error.kind() == ErrorKind::TimedOut);
    match outcome {
        Err(e) if e.kind() != io::ErrorKind::WouldBlock || is_timeout(e) => Err(()),
        _ => Ok(()),
    }
}
