use std::fmt;
use std::io::{self, Read, Write};
use std::time::Instant;

use parking_lot::Mutex;

use super::claimed::Claimed;
use super::{Inherited, Transport};
use crate::machine::Going;
use crate::sys::{self, descriptor_of, AsFd, AsRawFd, Descriptor, Doorbell, Ready, Woken};

/// Two halves, each used on its own: a child's stdout and stdin, say.
///
/// Halves that std makes with a descriptor (a child's pipes, files, sockets, and those of `std::io::pipe`) are polled: such a
/// file has time-outs and a non-blocking mode. They are set non-blocking (`O_NONBLOCK`) while a file has them. Over other
/// halves a file has neither, and a read and a write still do not wait for each other.
///
/// A write to a socket whose peer has gone is an error, whatever the program does with SIGPIPE. To a pipe that nobody reads
/// any more the system has no such write: a program that was not started by Rust's runtime must ignore that signal.
///
/// ```no_run
/// use std::process::{Command, Stdio};
/// use sslfile::{Context, Duplex, SslFile};
/// # fn main() -> std::io::Result<()> {
/// let mut child = Command::new("ssh")
///     .args(["gateway", "nc", "inside", "443"])
///     .stdin(Stdio::piped())
///     .stdout(Stdio::piped())
///     .spawn()?;
/// let (Some(out), Some(into)) = (child.stdout.take(), child.stdin.take()) else { unreachable!("both are piped") };
/// let file = SslFile::client(Duplex::new(out, into), &Context::client()?, "inside.example.com")?;
/// # drop(file);
/// # Ok(())
/// # }
/// ```
pub struct Duplex<R, W> {
    reader: Mutex<R>,
    writer: Mutex<W>,
    /// While a file has the halves, if both have descriptors.
    polled: Mutex<Option<[Claimed; 2]>>,
}

impl<R: Read, W: Write> Duplex<R, W> {
    /// Reads come from `reader`, writes go to `writer`.
    pub fn new(reader: R, writer: W) -> Self {
        Duplex { reader: Mutex::new(reader), writer: Mutex::new(writer), polled: Mutex::new(None) }
    }

    /// The halves again.
    pub fn into_inner(self) -> (R, W) {
        (self.reader.into_inner(), self.writer.into_inner())
    }
}

impl<R, W> fmt::Debug for Duplex<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").finish_non_exhaustive()
    }
}

impl<R: Read + Send + 'static, W: Write + Send + 'static> Transport for Duplex<R, W> {
    fn is_polled(&self) -> bool {
        descriptor_of(&*self.reader.lock()).is_some() && descriptor_of(&*self.writer.lock()).is_some()
    }

    fn take_over(&self) -> io::Result<Inherited> {
        let (reader, writer) = (self.reader.lock(), self.writer.lock());
        sys::silence_half(&*writer)?;
        let (Some(reader), Some(writer)) = (descriptor_of(&*reader), descriptor_of(&*writer)) else {
            return Ok(Inherited::default());
        };
        // The two may be one and the same.
        let polled = [Claimed::of(reader)?, Claimed::of(writer)?];
        let nonblocking = polled.iter().all(Claimed::was_nonblocking);
        polled.iter().try_for_each(Claimed::set_nonblocking)?;
        *self.polled.lock() = Some(polled);
        Ok(Inherited { nonblocking, ..Inherited::default() })
    }

    fn give_back(&self, _: &Inherited, unread: Vec<u8>) -> Vec<u8> {
        if let Some(polled) = self.polled.lock().take() {
            polled.iter().for_each(Claimed::restore);
        }
        unread
    }

    fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.lock().read(buf)
    }

    fn try_send(&self, buf: &[u8], _: Going) -> io::Result<usize> {
        sys::write_half(&mut *self.writer.lock(), buf)
    }

    fn wait(&self, wanted: Ready, bell: &Doorbell, until: Option<Instant>) -> Woken {
        let fds = self.polled.lock().as_ref().map(|polled| polled.each_ref().map(|claimed| claimed.fd.clone()));
        let Some([reader, writer]) = fds else { return bell.sleep(until) };
        let reads = Ready { readable: wanted.readable, writable: false };
        let writes = Ready { readable: false, writable: wanted.writable };
        sys::wait(&[(reader.as_fd(), reads), (writer.as_fd(), writes)], bell, until)
    }

    fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
        self.polled.lock().as_ref().map(|[reader, writer]| (reader.fd.as_raw_fd(), writer.fd.as_raw_fd()))
    }

    fn flush(&self) -> io::Result<()> {
        self.writer.lock().flush()
    }
}
