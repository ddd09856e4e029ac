//! What people do without a full-duplex TLS stream: a mutex around a non-blocking one, and a poll when it would block.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{poll, PollFd, PollFlags};

use crate::peer::{Reader, Writer};

/// Two halves of `stream`, which is non-blocking and sits on `socket`.
pub fn halves<T>(stream: T, socket: TcpStream) -> (Reader, Writer)
where
    T: Read + Write + Send + 'static,
{
    let shared = Arc::new(Shared { stream: Mutex::new(stream), socket });
    (Box::new(ReadHalf(shared.clone())), Box::new(WriteHalf(shared)))
}

struct Shared<T> {
    stream: Mutex<T>,
    socket: TcpStream,
}

impl<T> Shared<T> {
    /// Holds the lock for one try, never while it waits.
    fn retry<R>(&self, flags: PollFlags, mut action: impl FnMut(&mut T) -> io::Result<R>) -> io::Result<R> {
        loop {
            let result = action(&mut self.lock());
            match result {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.socket, flags)], None)?;
                }
                other => return other,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ReadHalf<T>(Arc<Shared<T>>);

impl<T: Read> Read for ReadHalf<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.retry(PollFlags::IN, |stream| stream.read(buf))
    }
}

struct WriteHalf<T>(Arc<Shared<T>>);

impl<T: Write> Write for WriteHalf<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.retry(PollFlags::OUT, |stream| stream.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.retry(PollFlags::OUT, |stream| stream.flush())
    }
}
