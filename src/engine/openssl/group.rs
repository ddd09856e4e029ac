//! The group of the key exchange, by its name in the registry of IANA.

use std::ffi::{c_char, CStr};
use std::ptr;

use foreign_types::ForeignTypeRef;
use openssl::nid::Nid;
use openssl::pkey::{HasParams, HasPublic, Id, PKey, PKeyRef, Private, Public};
use openssl::ssl::SslRef;

pub(super) fn of(ssl: &SslRef, is_tls13: bool) -> Option<String> {
    // Up to TLS 1.2 a session goes on without an exchange; what OpenSSL tells is that of the first connection.
    if !is_tls13 && ssl.session_reused() {
        return None;
    }
    let of_peer = || of_key(&*ssl.peer_tmp_key().ok()?, is_tls13);
    let of_ours = || of_key(&*ssl.tmp_key().ok()?, is_tls13);
    told(ssl).map(str::to_string).or_else(of_peer).or_else(of_ours)
}

/// OpenSSL's own word, from 3.2 on. The keys would not do: a hybrid of X25519 and ML-KEM is exchanged by something that is no key.
#[allow(unsafe_code, reason = "the openssl crate has no call for it")]
fn told(ssl: &SslRef) -> Option<&str> {
    // Where openssl-sys has the function, it comes before the one below.
    #[allow(unused_imports, reason = "with OpenSSL 3.2")]
    use openssl_sys::*;
    // Some versions look into the session without asking whether there is one.
    ssl.session()?;
    // SAFETY: the pointer is that of a live `SSL`, which has a session, and the call changes nothing. The name is NULL, or a
    // string of C that belongs to the `SSL_CTX`, which lives as long as `ssl`.
    unsafe {
        let name = SSL_get0_group_name(ssl.as_ptr());
        (!name.is_null()).then(|| CStr::from_ptr(name))?.to_str().ok()
    }
}

#[allow(dead_code, unsafe_code, non_snake_case, reason = "in place of a function of C")]
unsafe fn SSL_get0_group_name(_: *mut openssl_sys::SSL) -> *const c_char {
    ptr::null()
}

/// The group that a key is in.
fn of_key<T: HasPublic + HasParams>(key: &PKeyRef<T>, is_tls13: bool) -> Option<String> {
    Some(match key.id() {
        Id::X25519 => "x25519".to_string(),
        Id::X448 => "x448".to_string(),
        Id::EC => match key.ec_key().ok()?.group().curve_name()? {
            Nid::X9_62_PRIME256V1 => "secp256r1".to_string(),
            curve => curve.short_name().ok()?.to_string(),
        },
        // Before TLS 1.3 a server could make one up.
        Id::DH | Id::DHX if is_tls13 => format!("ffdhe{}", key.bits()),
        _ => return None,
    })
}

/// What the openssl crate has only with OpenSSL 3.0 and later. Where it has them, its own come before these.
#[allow(dead_code, reason = "with OpenSSL 3")]
trait NoTmpKeys {
    fn peer_tmp_key(&self) -> Result<PKey<Public>, ()> {
        Err(())
    }

    fn tmp_key(&self) -> Result<PKey<Private>, ()> {
        Err(())
    }
}

impl NoTmpKeys for SslRef {}
