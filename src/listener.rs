use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;

use crate::context::Context;
use crate::error::{Error, ErrorKind};
use crate::file::{Handshake, SslFile, SslOptions};

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
#[derive(Debug)]
pub struct SslListener {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    listener: TcpListener,
    settings: Mutex<Settings>,
}

#[derive(Debug)]
struct Settings {
    context: Context,
    handshake_timeout: Option<Option<Duration>>,
    closed: bool,
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
        let settings = Settings { context: context.clone(), handshake_timeout: None, closed: false };
        Ok(SslListener { shared: Arc::new(Shared { listener, settings: Mutex::new(settings) }) })
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
        Ok((self.open(stream)?, addr))
    }

    fn open(&self, stream: TcpStream) -> io::Result<SslFile> {
        let settings = self.shared.settings.lock();
        let mut options: SslOptions = SslFile::options().server().handshake(Handshake::Lazy);
        if let Some(timeout) = settings.handshake_timeout {
            options = options.handshake_timeout(timeout);
        }
        let context = settings.context.clone();
        drop(settings);
        Ok(options.open(stream, &context)?)
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

    /// Stops listening, for every handle; accepted files live on. The descriptor goes with the last handle. Never waits.
    pub fn close(&self) {
        self.shared.settings.lock().closed = true;
        // Wakes those who wait in `accept`.
        let _ = SockRef::from(&self.shared.listener).shutdown(Shutdown::Both);
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
