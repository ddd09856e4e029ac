//! A listener whose connections are TLS: the face. What a backend does for it stands in `shared`.

mod callbacks;
mod passing;
mod queue;
mod settings;
mod shared;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

use crate::backend::Backend;
use crate::context::Context;
use crate::file::{SslFile, SslOptions};
use crate::sys::{descriptor, SHUTDOWN_WAKES};
use shared::Shared;

/// A listener whose connections are TLS. [`try_clone`](SslListener::try_clone) shares everything.
///
/// The handshake is not done in `accept` but on the accepted file's first use, in whatever thread that is: a client that
/// connects and says nothing holds up nobody else. What std's `TcpListener` has is here with its meaning, but for
/// `FromRawFd` and `From<OwnedFd>` (a descriptor has no context; use [`from_tcp`](SslListener::from_tcp)) and `IntoRawFd`
/// (on Windows the same of sockets).
///
/// ```no_run
/// use std::io::{Read, Write};
/// use std::thread;
/// use sslfile::{Context, Identity, SslListener};
/// # fn main() -> std::io::Result<()> {
/// let identity = Identity::from_pem_files("cert.pem", "key.pem")?;
/// let listener = SslListener::bind("127.0.0.1:8443", &Context::server(identity)?)?;
/// for file in listener.incoming() {
///     let mut file = file?; // neither for a client's sake nor for want of descriptors: see `accept`
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
        // Elsewhere sockets inherit more than time-outs.
        let linux = cfg!(any(target_os = "linux", target_os = "android"));
        let socket = SockRef::from(&listener);
        let accepts_fresh = linux && socket.read_timeout()?.is_none() && socket.write_timeout()?.is_none();
        if !SHUTDOWN_WAKES {
            listener.set_nonblocking(true)?;
        }
        Ok(SslListener { shared: Arc::new(Shared::new(listener, accepts_fresh, context)) })
    }

    /// Waits for a connection. Returns with the TCP connection, as a blocking file; the handshake happens on first use.
    ///
    /// No client can make it fail, nor can a process that is out of descriptors: it tries again at once after an error of
    /// one connection (those that accept(2) lists: `ECONNABORTED`, `EPROTO`, `ENETUNREACH` and so on), and every 100 ms
    /// while the system has no descriptors, or no memory, for another (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`); until then
    /// connections wait in the system's queue. So `?` behind it ends a server only when the listener itself is over.
    ///
    /// Errors: `WouldBlock` if non-blocking, and then the system's too when it is out of something, as nothing is waited
    /// for; `NotConnected` after `close` and `finish`, also when that happens during the wait; `InvalidInput` with a context
    /// that has no identity.
    pub fn accept(&self) -> io::Result<(SslFile, SocketAddr)> {
        let (stream, addr) = self.shared.accept()?;
        Ok((self.shared.open(stream, addr, SslOptions::blocking_by_default)?, addr))
    }

    /// The connections, as `accept` gives them, without end: after `close` it gives `NotConnected` for ever, so leave the
    /// loop at an error.
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
        self.shared.set_nonblocking(nonblocking)
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

    /// The handshake time-out of files accepted from now on. Default: as
    /// [`SslOptions::handshake_timeout`](crate::SslOptions::handshake_timeout).
    pub fn set_handshake_timeout(&self, timeout: Option<Duration>) {
        let mut settings = self.shared.settings.lock();
        settings.options = settings.options.clone().handshake_timeout(timeout);
    }

    /// How files accepted from now on are opened, through any handle and in both modes: version bounds, time-outs, send limit,
    /// busy poll, how a time-out is told, blocking or not (in callback mode they never block). They shake hands on first use,
    /// or by the backend, as ever. What was set before, by [`set_handshake_timeout`](SslListener::set_handshake_timeout) too, is
    /// forgotten.
    ///
    /// Errors, with everything as it was: `InvalidInput` for options with a role, a name, bytes of a stream or a backend; those of
    /// opening a server with these bounds and the context of now.
    pub fn set_options(&self, options: SslOptions) -> io::Result<()> {
        let context = self.context();
        options.check_for_listener(&context)?;
        self.shared.settings.lock().options = options;
        Ok(())
    }

    /// How many handshakes may be under way at once in callback mode; further connections wait in the system's queue.
    /// Default 1024.
    ///
    /// When so many are under way and another client comes, the oldest of those that have been silent for a second or
    /// more since they connected is dropped in its favour, and the error callback told (`TimedOut`): connections that say
    /// nothing keep nobody out for long. Who has sent a byte has the [handshake time-out](SslListener::set_handshake_timeout).
    pub fn set_pending_limit(&self, handshakes: usize) {
        self.shared.settings.lock().pending_limit = handshakes;
        self.shared.make_ready();
    }

    /// Handshakes under way in callback mode.
    pub fn pending(&self) -> usize {
        self.shared.pending()
    }

    /// From now on the backend accepts, shakes hands, and calls `f` with each file whose handshake is done, and the
    /// peer's address. The file is non-blocking and in the listener's backend; set its callbacks and
    /// [`keep`](SslFile::keep) it, or move it elsewhere. A peer that connects and ends before its first byte is passed
    /// over. The listener is non-blocking from now on.
    ///
    /// Inside `f` every method of the listener may be called. The backend holds a handle of its own until
    /// [`close`](SslListener::close); so an `f` that has one on the backend, as a proxy's, keeps both until then.
    ///
    /// Errors: `NotConnected` after `close` and `finish`; those of the system.
    ///
    /// Pike's accept callback of `SSL.Port`, which must not forget to dequeue; here the file is yours.
    pub fn set_accept_callback(
        &self,
        backend: &Backend,
        f: impl FnMut(SslFile, SocketAddr) + Send + 'static,
    ) -> io::Result<()> {
        self.shared.check_open()?;
        self.set_nonblocking(true)?;
        let old = self.shared.callbacks.lock().accept.set(Some(Box::new(f)));
        drop(old);
        self.shared.enter(backend)
    }

    /// Calls `f` for each handshake that failed, took too long or was given up for others, with the peer's address; and, with the listener's own
    /// address, when the system can't accept (it is out of descriptors, say): the listener tries again by itself.
    pub fn set_error_callback(&self, f: impl FnMut(SocketAddr, io::Error) + Send + 'static) {
        let old = self.shared.callbacks.lock().error.set(Some(Box::new(f)));
        drop(old);
    }

    /// Stops accepting in callback mode, or goes on with it. Handshakes under way and accepted files are not concerned;
    /// new connections wait in the system's queue.
    pub fn pause(&self, paused: bool) {
        self.shared.settings.lock().paused = paused;
        self.shared.make_ready();
    }

    /// Stops listening, for every handle, and drops the handshakes under way; accepted files live on. The descriptor
    /// goes with the last handle. Never waits.
    ///
    /// Clients that wait in the system's queue are reset: see [`finish`](SslListener::finish).
    pub fn close(&self) {
        self.shared.close();
    }

    /// The end of a server that turns nobody away who is connected already. In callback mode: takes what is in the system's
    /// queue, then stops listening, for every handle; the handshakes under way are finished, as many at once as the limit
    /// allows, and handed to the accept callback. When the last is done, or has failed, and is told, the listener leaves its
    /// backend, with its callbacks: [`Backend::len`] counts the files then. [`close`](SslListener::close) may be called
    /// meanwhile. Without an accept callback the same as `close`.
    ///
    /// Waits for nobody (on Linux a millisecond, for TCP connections half made). On Linux no connection is lost there that
    /// was made when `finish` was called, nor one that a client on this machine is just making; a client a long way off may
    /// believe for the length of its way that it is connected, and be reset. Elsewhere one that is made in the moment
    /// between the last look into the queue and the end may be reset too. If the system has no descriptors for those in the
    /// queue, they stay there, and the listener with them, until it has.
    ///
    /// ```no_run
    /// # use sslfile::{Backend, Context, SslListener};
    /// # fn serve(listener: SslListener, backend: Backend) -> std::io::Result<()> {
    /// listener.finish();
    /// while !backend.is_empty() {
    ///     backend.turn(None)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn finish(&self) {
        self.shared.finish();
    }
}

impl fmt::Debug for SslListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As std's.
        let mut out = f.debug_struct("SslListener");
        if let Ok(addr) = self.local_addr() {
            out.field("addr", &addr);
        }
        out.field(if cfg!(windows) { "socket" } else { "fd" }, &descriptor(&self.shared.listener)).finish()
    }
}

/// Errors should show when a listener is made, not when a client comes.
fn check(context: &Context) -> io::Result<()> {
    crate::connection::Connection::server(context).map(drop)
}

#[cfg(unix)]
impl std::os::fd::AsFd for SslListener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.shared.listener.as_fd()
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for SslListener {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.shared.listener.as_raw_fd()
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsSocket for SslListener {
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        self.shared.listener.as_socket()
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsRawSocket for SslListener {
    fn as_raw_socket(&self) -> std::os::windows::io::RawSocket {
        self.shared.listener.as_raw_socket()
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
