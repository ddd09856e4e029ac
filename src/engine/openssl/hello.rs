//! What a client offers in its first message, for whoever chooses a certificate by it. OpenSSL has it in one callback only, and
//! the name that the client asks for in a later one.

use std::ffi::c_uint;
use std::sync::OnceLock;
use std::{ptr, slice};

use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{ClientHelloResponse, Ssl, SslContextBuilder, SslRef, SslVersion};

use crate::settings::Offer;
use crate::version::Version;

/// Has each connection of the context keep what its client offers.
pub(super) fn attend(context: &mut SslContextBuilder) {
    context.set_client_hello_callback(|ssl, _| {
        let offer = read(ssl);
        ssl.set_ex_data(index()?, offer);
        Ok(ClientHelloResponse::SUCCESS)
    });
}

pub(super) fn offer(ssl: &SslRef) -> Option<&Offer> {
    ssl.ex_data(index().ok()?)
}

fn index() -> Result<Index<Ssl, Offer>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, Offer>> = OnceLock::new();
    super::index(&INDEX)
}

/// OpenSSL has not looked at the extensions yet; if they are broken it will refuse them.
fn read(ssl: &SslRef) -> Offer {
    /// application_layer_protocol_negotiation (RFC 7301, section 3.1) and supported_versions (RFC 8446, section 4.2.1)
    const ALPN: c_uint = 16;
    const SUPPORTED_VERSIONS: c_uint = 43;
    let numbers =
        |bytes: &[u8]| bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect::<Vec<_>>();
    let alpn = extension(ssl, ALPN).unwrap_or_default();
    let versions = match extension(ssl, SUPPORTED_VERSIONS) {
        Some(list) => numbers(list.get(1..).unwrap_or_default()).into_iter().filter_map(version).collect(),
        None => ssl.client_hello_legacy_version().and_then(legacy_version).into_iter().collect(),
    };
    Offer {
        alpn: protocols(alpn.get(2..).unwrap_or_default()),
        versions: Some(versions),
        cipher_suites: numbers(ssl.client_hello_ciphers().unwrap_or_default()),
    }
}

fn protocols(mut list: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((length, rest)) = list.split_first() {
        let Some((protocol, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        found.push(protocol.to_vec());
        list = rest;
    }
    found
}

fn version(number: u16) -> Option<Version> {
    Some(match number {
        0x300 => Version::Ssl3,
        0x301 => Version::Tls1_0,
        0x302 => Version::Tls1_1,
        0x303 => Version::Tls1_2,
        0x304 => Version::Tls1_3,
        _ => return None,
    })
}

fn legacy_version(version: SslVersion) -> Option<Version> {
    [
        (SslVersion::SSL3, Version::Ssl3),
        (SslVersion::TLS1, Version::Tls1_0),
        (SslVersion::TLS1_1, Version::Tls1_1),
        (SslVersion::TLS1_2, Version::Tls1_2),
    ]
    .into_iter()
    .find_map(|(theirs, ours)| (theirs == version).then_some(ours))
}

/// The body of an extension of the client's.
#[allow(unsafe_code, reason = "the openssl crate has no call for it")]
fn extension(ssl: &SslRef, number: c_uint) -> Option<Vec<u8>> {
    let (mut start, mut length) = (ptr::null(), 0);
    // SAFETY: the pointer is that of a live `SSL`. What it gives are bytes of the client's message, which is there as long as
    // the callback runs, and they are copied at once; elsewhere than in the callback it gives none.
    unsafe {
        let found = openssl_sys::SSL_client_hello_get0_ext(ssl.as_ptr(), number, &mut start, &mut length);
        (found == 1 && !start.is_null()).then(|| slice::from_raw_parts(start, length).to_vec())
    }
}
