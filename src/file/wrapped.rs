//! A file as the stream of another: TLS in TLS, TLS over a plain file.

use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use super::guarded::Caller;
use super::{PlainFile, SslFile};
use crate::stream::{Inherited, Stream, Transport, Wait};

macro_rules! transport_for_file {
    ($file:ident) => {
        impl<S: Stream> Stream for $file<S> {}

        impl<S: Stream> Transport for $file<S> {
            fn is_polled(&self) -> bool {
                self.shared().polled
            }

            fn take_over(&self) -> io::Result<Inherited> {
                let backend = self.shared().lend()?;
                let core = self.shared().lock();
                let (read_timeout, write_timeout) = (core.read_timeout, core.write_timeout);
                let (nonblocking, busy_poll) = (core.nonblocking, self.shared().busy_poll);
                Ok(Inherited { nonblocking, read_timeout, write_timeout, backend, busy_poll })
            }

            fn give_back(&self, _: &Inherited, unread: Vec<u8>) -> Vec<u8> {
                self.shared().take_home(&unread);
                Vec::new()
            }

            fn abandon(&self) {
                self.shared().take_home(&[]);
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

            fn wait_writable(&self, or_readable: bool, deadline: Option<Instant>) -> io::Result<()> {
                match or_readable && self.shared().is_ready() {
                    true => Ok(()),
                    false => self.shared().stream.wait_writable(or_readable, deadline),
                }
            }

            fn descriptors(&self) -> Option<(RawFd, RawFd)> {
                self.shared().stream.descriptors()
            }

            fn is_ready(&self) -> bool {
                self.shared().is_ready()
            }

            fn is_file(&self) -> bool {
                true
            }

            fn holds_back(&self) -> bool {
                self.shared().ask().has_output()
            }

            fn push(&self, wait: Wait) -> io::Result<()> {
                self.shared().flush(Caller::Wrapper(wait))
            }

            fn wake(&self) {
                let shared = self.shared();
                shared.wake_all(&shared.lock());
            }

            fn peer(&self) -> Option<String> {
                self.shared().stream.peer()
            }
        }
    };
}

transport_for_file!(SslFile);
transport_for_file!(PlainFile);
