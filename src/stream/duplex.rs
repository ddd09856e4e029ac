use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::PollFlags;
use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};

use super::descriptor::descriptor_of;
use super::wait::{retry, wait_writable};
use super::{Inherited, Transport, Wait};

/// Two halves, each used on its own: a child's stdout and stdin, say.
///
/// Halves that std makes with a descriptor (a child's pipes, files, sockets) are polled: such a file has time-outs and
/// a non-blocking mode. They are set non-blocking (`O_NONBLOCK`) while a file has them. Over other halves a file has
/// neither, and a read and a write still do not wait for each other.
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
    polled: Mutex<Option<Polled>>,
}

/// Our own copies of the two descriptors, so that polling needs neither half's lock, and their flags as they were.
struct Polled {
    reader: Arc<OwnedFd>,
    writer: Arc<OwnedFd>,
    reader_flags: OFlags,
    writer_flags: OFlags,
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
        let (Some(reader), Some(writer)) = (descriptor_of(&*reader), descriptor_of(&*writer)) else {
            return Ok(Inherited::default());
        };
        let polled = Polled {
            reader_flags: fcntl_getfl(reader)?,
            writer_flags: fcntl_getfl(writer)?,
            reader: Arc::new(reader.try_clone_to_owned()?),
            writer: Arc::new(writer.try_clone_to_owned()?),
        };
        let nonblocking = (polled.reader_flags & polled.writer_flags).contains(OFlags::NONBLOCK);
        fcntl_setfl(reader, polled.reader_flags | OFlags::NONBLOCK)?;
        fcntl_setfl(writer, polled.writer_flags | OFlags::NONBLOCK)?;
        *self.polled.lock() = Some(polled);
        Ok(Inherited { nonblocking, ..Inherited::default() })
    }

    fn give_back(&self, _: &Inherited, unread: Vec<u8>) -> Vec<u8> {
        if let Some(polled) = self.polled.lock().take() {
            let _ = fcntl_setfl(&polled.reader, polled.reader_flags);
            let _ = fcntl_setfl(&polled.writer, polled.writer_flags);
        }
        unread
    }

    fn abandon(&self) {}

    fn recv(&self, buf: &mut [u8], wait: Wait) -> io::Result<usize> {
        let mut reader = self.reader.lock();
        let fd = self.polled.lock().as_ref().map(|polled| polled.reader.clone());
        match fd {
            Some(fd) => retry(fd.as_fd(), PollFlags::IN, wait, || reader.read(buf)),
            None => reader.read(buf),
        }
    }

    fn send(&self, buf: &[u8], wait: Wait) -> io::Result<usize> {
        let mut writer = self.writer.lock();
        let fd = self.polled.lock().as_ref().map(|polled| polled.writer.clone());
        match fd {
            Some(fd) => retry(fd.as_fd(), PollFlags::OUT, wait, || writer.write(buf)),
            None => writer.write(buf),
        }
    }

    fn wait_writable(&self, or_readable: bool, deadline: Option<Instant>) -> io::Result<()> {
        let fds = self.polled.lock().as_ref().map(|polled| (polled.reader.clone(), polled.writer.clone()));
        match fds {
            Some((reader, writer)) => wait_writable(writer.as_fd(), or_readable.then(|| reader.as_fd()), deadline),
            None => Ok(()),
        }
    }

    fn descriptors(&self) -> Option<(RawFd, RawFd)> {
        self.polled.lock().as_ref().map(|polled| (polled.reader.as_raw_fd(), polled.writer.as_raw_fd()))
    }

    fn flush(&self) -> io::Result<()> {
        self.writer.lock().flush()
    }
}
