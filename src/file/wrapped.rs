//! A file as the stream of another: TLS in TLS, TLS over a plain file.

use std::io;
use std::time::Instant;

use super::{PlainFile, SslFile};
use crate::drive::Caller;
use crate::machine::Going;
use crate::stream::{Inherited, Stream, Transport};
use crate::sys::{Descriptor, Doorbell, Ready, Woken};

macro_rules! transport_for_file {
    ($file:ident) => {
        impl<S: Stream> Stream for $file<S> {}

        impl<S: Stream> Transport for $file<S> {
            fn is_polled(&self) -> bool {
                self.shared().stream.is_polled()
            }

            fn take_over(&self) -> io::Result<Inherited> {
                let backend = self.shared().lend()?;
                let core = self.shared().ask();
                Ok(Inherited {
                    nonblocking: core.machine.nonblocking,
                    read_timeout: core.machine.read_timeout(),
                    write_timeout: core.machine.write_timeout(),
                    deadlines: core.machine.deadlines(),
                    tells_would_block: core.machine.tells_would_block(),
                    backend,
                    busy_poll: self.shared().busy_poll,
                })
            }

            fn give_back(&self, _: &Inherited, unread: Vec<u8>) -> Vec<u8> {
                self.shared().take_home(&unread);
                Vec::new()
            }

            fn abandon(&self) {
                self.shared().take_home(&[]);
            }

            fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
                self.shared().read(Caller::Wrapper, |connection| connection.read(buf))
            }

            fn recv_for_slice(&self, buf: &mut [u8]) -> io::Result<usize> {
                self.shared().read(Caller::Briefly, |connection| connection.read(buf))
            }

            fn try_send(&self, buf: &[u8], _: Going) -> io::Result<usize> {
                self.shared().write(Caller::Wrapper, buf)
            }

            fn is_duplex(&self) -> bool {
                self.shared().stream.is_duplex()
            }

            fn half_close(&self) {
                self.shared().shut(true, false);
            }

            fn end(&self) {
                self.shared().shut(true, true);
            }

            fn wait(&self, watched: Ready, bell: &Doorbell, until: Option<Instant>) -> Woken {
                self.shared().stream.wait(watched, bell, until)
            }

            fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
                self.shared().stream.descriptors()
            }

            fn watched(&self, wanted: Ready) -> Ready {
                let inner = self.shared().ask().machine.waits_for_wrapper(wanted.readable, wanted.writable);
                self.shared().stream.watched(inner.into())
            }

            fn deadline(&self) -> Option<Instant> {
                let own = self.shared().ask().machine.deadline();
                own.into_iter().chain(self.shared().stream.deadline()).min()
            }

            fn is_ready(&self) -> bool {
                self.shared().is_ready()
            }

            fn is_file(&self) -> bool {
                true
            }

            fn holds_back(&self) -> bool {
                self.shared().ask().machine.has_output()
            }

            fn push(&self) -> io::Result<()> {
                self.shared().flush(Caller::Wrapper)
            }

            fn take_error(&self) -> Option<io::Error> {
                self.shared().stream.take_error()
            }

            fn local(&self) -> Option<String> {
                self.shared().stream.local()
            }

            fn peer(&self) -> Option<String> {
                self.shared().stream.peer()
            }
        }
    };
}

transport_for_file!(SslFile);
transport_for_file!(PlainFile);
