use super::{Session, Stop, Wire};
use crate::certificate::Certificate;
use crate::error::Error;

/// No TLS: bytes pass as they are. For files without TLS, which have all else in common with those that have it.
pub(crate) struct PlainText;

impl Session for PlainText {
    fn handshake(&mut self, _: &mut Wire) -> Result<(), Stop> {
        Ok(())
    }

    fn read(&mut self, wire: &mut Wire, buf: &mut [u8]) -> Result<usize, Stop> {
        match wire.incoming.read_into(buf) {
            0 => Err(Stop::NeedsInput),
            n => Ok(n),
        }
    }

    fn write(&mut self, wire: &mut Wire, data: &[u8]) -> Result<usize, Stop> {
        wire.outgoing.append(data);
        Ok(data.len())
    }

    fn close(&mut self, _: &mut Wire) -> Result<(), Stop> {
        Ok(())
    }

    fn pending(&self) -> usize {
        0
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        None
    }

    fn peer_certificate(&self) -> Option<Certificate> {
        None
    }

    fn tls_server_end_point(&self) -> Option<Vec<u8>> {
        None
    }

    fn export_keying_material(&self, _: &mut [u8], _: &str, _: Option<&[u8]>) -> Result<(), Error> {
        Err(Error::unsupported("a connection without TLS has no keys"))
    }
}
