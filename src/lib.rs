#![doc = include_str!("docs/crate.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(any(unix, windows)))]
compile_error!("sslfile runs on Unix systems and on Windows");

mod alert;
mod backend;
mod callbacks;
mod certificate;
#[cfg(feature = "x509")]
mod certificate_info;
mod connection;
mod context;
mod der;
mod drive;
mod engine;
mod error;
mod file;
#[cfg(test)]
mod house;
mod identity;
#[cfg(test)]
mod layers;
mod listener;
mod machine;
mod revocation;
mod role;
#[cfg(all(test, shuttle))]
mod schedules;
mod settings;
mod socket;
mod stream;
mod sync;
mod sys;
mod version;

pub use alert::Alert;
pub use backend::{Backend, CallOut};
pub use callbacks::Callbacks;
pub use certificate::Certificate;
#[cfg(feature = "x509")]
pub use certificate_info::{CertificateInfo, KeyType, SubjectAltName};
pub use connection::{Connection, Traffic};
pub use context::{Context, ContextBuilder};
pub use engine::Engine;
pub use error::{Error, ErrorKind};
pub use file::{Handshake, OpenError, PlainFile, ReleaseError, SslFile, SslOptions, ToServer};
pub use identity::Identity;
pub use listener::{Incoming, SslListener};
pub use machine::{Interest, State};
pub use role::Role;
pub use settings::{ClientAuth, ClientHello, PeerCertificates};
pub use socket::{Mode, SocketState, SslSocket};
#[cfg(unix)]
pub use stream::Polled;
pub use stream::{Duplex, ReadWrite, Stream};
pub use version::Version;

/// Longer answers than the crate page has room for.
pub mod guide {
    #[doc = include_str!("docs/callbacks.md")]
    pub mod callbacks {}
    #[doc = include_str!("docs/engines.md")]
    pub mod engines {}
    #[doc = include_str!("docs/bounds.md")]
    pub mod bounds {}
    #[doc = include_str!("docs/unexpected_end.md")]
    pub mod unexpected_end {}
    #[doc = include_str!("docs/tcp_stream.md")]
    pub mod tcp_stream {}
    #[doc = include_str!("docs/pike.md")]
    pub mod pike {}
    #[doc = include_str!("docs/models.md")]
    pub mod models {}
}

/// Its examples compile too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
