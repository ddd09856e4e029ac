//! A TLS peer with none of our code in it, on OpenSSL. Without the feature `openssl` there is `bare_rustls.rs` instead,
//! which is the same on rustls.

use std::io::{self, Read, Write};
use std::ops::RangeInclusive;

use openssl::pkey::PKey;
use openssl::ssl::{
    ErrorCode, Ssl, SslAcceptor, SslConnector, SslContextBuilder, SslMethod, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;
use sslfile::Version;

use super::{certs, NAME};

pub const LIBRARY: &str = "OpenSSL";

pub struct Bare<S>(SslStream<S>);

/// Has the ECDSA certificate. The tickets of TLS 1.3 are sent whether anybody reads them or not.
pub fn server<S: Read + Write>(stream: S, versions: RangeInclusive<Version>) -> io::Result<Bare<S>> {
    let pair = &certs().ecdsa;
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
    set_versions(&mut acceptor, versions)?;
    let key = PKey::private_key_from_pem(pair.key.as_bytes())?;
    let leaf = X509::from_pem(pair.chain.as_bytes())?;
    acceptor.set_certificate(&leaf)?;
    acceptor.set_private_key(&key)?;
    acceptor.set_num_tickets(4)?;
    let mut stream = SslStream::new(Ssl::new(acceptor.build().context())?, stream)?;
    stream.accept().map_err(failed)?;
    Ok(Bare(stream))
}

/// Asks for `NAME`, and checks nothing: the other end may be a process with a CA of its own.
pub fn client<S: Read + Write>(stream: S, versions: RangeInclusive<Version>) -> io::Result<Bare<S>> {
    let mut connector = SslConnector::builder(SslMethod::tls())?;
    set_versions(&mut connector, versions)?;
    connector.set_verify(SslVerifyMode::NONE);
    let mut stream = SslStream::new(connector.build().configure()?.into_ssl(NAME)?, stream)?;
    stream.connect().map_err(failed)?;
    Ok(Bare(stream))
}

fn set_versions(context: &mut SslContextBuilder, versions: RangeInclusive<Version>) -> io::Result<()> {
    context.set_min_proto_version(Some(number(*versions.start())))?;
    context.set_max_proto_version(Some(number(*versions.end())))?;
    if *versions.start() < Version::Tls1_2 {
        // Nothing old goes with what Debian thinks is safe.
        context.set_security_level(0);
        context.set_cipher_list("ALL")?;
    }
    Ok(())
}

fn number(version: Version) -> SslVersion {
    match version {
        Version::Tls1_0 => SslVersion::TLS1,
        Version::Tls1_1 => SslVersion::TLS1_1,
        Version::Tls1_2 => SslVersion::TLS1_2,
        _ => SslVersion::TLS1_3,
    }
}

fn failed(error: openssl::ssl::Error) -> io::Error {
    error.into_io_error().unwrap_or_else(io::Error::other)
}

impl<S> Bare<S> {
    pub fn get_ref(&self) -> &S {
        self.0.get_ref()
    }

    pub fn version(&self) -> Version {
        let all = [Version::Tls1_0, Version::Tls1_1, Version::Tls1_2, Version::Tls1_3];
        let spoken = self.0.ssl().version2();
        all.into_iter().find(|version| Some(number(*version)) == spoken).expect("a version")
    }

    /// In DER.
    pub fn peer_certificate(&self) -> Vec<u8> {
        self.0.ssl().peer_certificate().expect("certificate").to_der().expect("der")
    }
}

impl<S: Read + Write> Bare<S> {
    /// Says close_notify.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.0.shutdown().map(drop).map_err(failed)
    }
}

/// `Ok(0)` is close_notify and nothing else. (`Read` of the `openssl` crate takes any end for a clean one.)
impl<S: Read + Write> Read for Bare<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.ssl_read(buf) {
            Err(e) if e.code() == ErrorCode::ZERO_RETURN => Ok(0),
            other => other.map_err(failed),
        }
    }
}

impl<S: Read + Write> Write for Bare<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether that is what a read says when the other end has sent this alert.
pub fn is_bad_record_mac(error: &io::Error) -> bool {
    error.to_string().contains("bad record mac")
}
