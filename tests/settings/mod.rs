//! Each setting of a context, by its effect on the wire: seen by real peers (OpenSSL's and GnuTLS' command line tools, Python's
//! `ssl`, tshark), on every engine that can; what an engine cannot is refused with the names of both.
//!
//! A peer that is not installed skips its tests, as in tests/peers.rs.
#![cfg(unix)]

mod alerts;
mod alpn;
mod bindings;
mod ciphers;
mod client_auth;
mod crls;
mod facts;
mod foreign;
mod fragments;
mod gnutls;
mod identities;
mod key_log;
mod ocsp;
mod pins;
mod post_handshake;
// Where native-tls is OpenSSL.
#[cfg(all(feature = "native-tls", not(target_vendor = "apple")))]
mod renegotiation;
mod resume;
mod rig;
mod sessions;
mod sni;
mod tickets;
mod trust;
mod verify;
