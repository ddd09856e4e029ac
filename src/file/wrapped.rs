//! TLS in TLS: a file as the stream of another.

use std::io;

use super::shared::{taken, Caller};
use super::SslFile;
use crate::stream::{Inherited, Stream, Transport, Wait};

impl<S: Stream> Stream for SslFile<S> {}

impl<S: Stream> Transport for SslFile<S> {
    fn is_polled(&self) -> bool {
        self.shared().polled
    }

    fn take_over(&self) -> io::Result<Inherited> {
        let mut core = self.shared().core.lock();
        if std::mem::replace(&mut core.taken, true) {
            return Err(taken().into());
        }
        let (read_timeout, write_timeout) = (core.read_timeout, core.write_timeout);
        Ok(Inherited { nonblocking: core.nonblocking, read_timeout, write_timeout })
    }

    fn give_back(&self, _: &Inherited, unread: Vec<u8>) -> Vec<u8> {
        let mut core = self.shared().core.lock();
        core.taken = false;
        core.connection.unread(&unread);
        Vec::new()
    }

    fn recv(&self, buf: &mut [u8], wait: Wait) -> io::Result<usize> {
        self.shared().input(Caller::Wrapper(wait), |connection| connection.read(buf))
    }

    fn send(&self, buf: &[u8], wait: Wait) -> io::Result<usize> {
        self.shared().write(Caller::Wrapper(wait), buf)
    }

    fn half_close(&self) {
        self.shared().shut(true, false);
    }

    fn end(&self) {
        self.shared().shut(true, true);
    }

    fn wake(&self) {
        let shared = self.shared();
        shared.wake_all(&shared.core.lock());
    }

    fn peer(&self) -> Option<String> {
        self.shared().stream.peer()
    }
}
