//! A TLS peer with none of our code in it, on rustls: `bare_openssl.rs` for a build without OpenSSL.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::RangeInclusive;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConnection, Connection, Error, ProtocolVersion, ServerConnection, SupportedProtocolVersion,
};
use sslfile::Version;

use super::{rustls_configs as configs, NAME};

pub const LIBRARY: &str = "rustls";

pub struct Bare<S> {
    tls: Connection,
    stream: S,
}

/// Has the ECDSA certificate. The tickets of TLS 1.3 are sent whether anybody reads them or not.
pub fn server<S: Read + Write>(stream: S, versions: RangeInclusive<Version>) -> io::Result<Bare<S>> {
    let mut config = configs::server(ring::default_provider(), &supported(versions)).map_err(io::Error::other)?;
    config.send_tls13_tickets = 4;
    let tls = ServerConnection::new(Arc::new(config)).map_err(io::Error::other)?;
    shake(tls.into(), stream)
}

/// Asks for `NAME`, and checks nothing: the other end may be a process with a CA of its own.
pub fn client<S: Read + Write>(stream: S, versions: RangeInclusive<Version>) -> io::Result<Bare<S>> {
    let config = configs::client(ring::default_provider(), &supported(versions)).map_err(io::Error::other)?;
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    let tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    shake(tls.into(), stream)
}

/// None below TLS 1.2, which rustls takes for an error.
fn supported(versions: RangeInclusive<Version>) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(Version::Tls1_2, &TLS12), (Version::Tls1_3, &TLS13)];
    all.into_iter().filter(|(version, _)| versions.contains(version)).map(|(_, supported)| supported).collect()
}

fn shake<S: Read + Write>(tls: Connection, stream: S) -> io::Result<Bare<S>> {
    let mut bare = Bare { tls, stream };
    while bare.tls.is_handshaking() {
        bare.tls.complete_io(&mut bare.stream)?;
    }
    bare.send()?;
    Ok(bare)
}

impl<S> Bare<S> {
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    pub fn version(&self) -> Version {
        match self.tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => Version::Tls1_2,
            Some(ProtocolVersion::TLSv1_3) => Version::Tls1_3,
            other => panic!("{other:?}"),
        }
    }

    /// In DER.
    pub fn peer_certificate(&self) -> Vec<u8> {
        self.tls.peer_certificates().expect("certificates")[0].to_vec()
    }
}

impl<S: Read + Write> Bare<S> {
    /// Says close_notify.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        self.stream.flush()
    }
}

/// `Ok(0)` is close_notify and nothing else. Unlike that of rustls' own streams, reading does not begin with writing.
impl<S: Read + Write> Read for Bare<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            self.tls.read_tls(&mut self.stream)?;
            if let Err(e) = self.tls.process_new_packets() {
                // The alert is worth a try.
                let _ = self.send();
                return Err(io::Error::other(e));
            }
        }
    }
}

impl<S: Read + Write> Write for Bare<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let taken = self.tls.writer().write(buf)?;
        self.send()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// Whether that is what a read says when the other end has sent this alert.
pub fn is_bad_record_mac(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|e| e.downcast_ref());
    error == Some(&Error::AlertReceived(AlertDescription::BadRecordMac))
}
