use std::fmt;
use std::io::{self, Read, Write};
use std::time::Instant;

use parking_lot::Mutex;

use super::{Inherited, Transport};
use crate::machine::Going;
use crate::sys::{self, Descriptor, Doorbell, Ready, Woken};

/// Any `Read + Write`. One lock: while it blocks in a read, a write waits (use [`Duplex`](crate::Duplex) for full
/// duplex).
///
/// Such a file has no time-outs. It is non-blocking if the stream is by itself and
/// [`SslOptions::nonblocking`](crate::SslOptions::nonblocking) says so.
///
/// ```no_run
/// use sslfile::{Context, ReadWrite, SslFile};
/// # fn serial() -> std::io::Result<std::net::TcpStream> { unimplemented!() }
/// # fn main() -> std::io::Result<()> {
/// let file = SslFile::client(ReadWrite::new(serial()?), &Context::client()?, "device.example.com")?;
/// # drop(file);
/// # Ok(())
/// # }
/// ```
pub struct ReadWrite<T> {
    inner: Mutex<T>,
}

impl<T: Read + Write> ReadWrite<T> {
    /// Reads from and writes to `inner`.
    pub fn new(inner: T) -> Self {
        ReadWrite { inner: Mutex::new(inner) }
    }

    /// The stream again.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<T> fmt::Debug for ReadWrite<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadWrite").finish_non_exhaustive()
    }
}

impl<T: Read + Write + Send + 'static> Transport for ReadWrite<T> {
    fn is_polled(&self) -> bool {
        false
    }

    fn take_over(&self) -> io::Result<Inherited> {
        sys::silence_half(&*self.inner.lock())?;
        Ok(Inherited::default())
    }

    fn give_back(&self, _: &Inherited, unread: Vec<u8>) -> Vec<u8> {
        unread
    }

    fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.lock().read(buf)
    }

    fn try_send(&self, buf: &[u8], _: Going) -> io::Result<usize> {
        sys::write_half(&mut *self.inner.lock(), buf)
    }

    fn is_duplex(&self) -> bool {
        false
    }

    fn wait(&self, _: Ready, bell: &Doorbell, until: Option<Instant>) -> Woken {
        bell.sleep(until)
    }

    fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
        None
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.lock().flush()
    }
}
