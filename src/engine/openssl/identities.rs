//! Certificates and keys as OpenSSL has them, and which of them a server shows to whom.

use std::ptr;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{NameType, SniError, SslAlert, SslContextBuilder, SslMethod, SslRef};
use openssl::x509::X509;

use super::{hello, set_security_level, setup_error};
use crate::error::Error;
use crate::identity::Identity;
use crate::settings::{Offer, Settings};

pub(super) struct Parsed {
    /// Leaf first.
    chain: Vec<X509>,
    key: PKey<Private>,
}

impl Parsed {
    pub fn new(identity: &Identity) -> Result<Parsed, Error> {
        let material = identity.material();
        let parse = || {
            let chain = material.chain.iter().map(|c| X509::from_der(c.der())).collect::<Result<_, _>>()?;
            Ok(Parsed { chain, key: PKey::private_key_from_pkcs8(&material.key)? })
        };
        parse().map_err(|e| error(identity, e))
    }

    /// For all connections of a context.
    pub fn set(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        for (depth, certificate) in self.chain.iter().enumerate() {
            match depth {
                0 => context.set_certificate(certificate)?,
                _ => context.add_extra_chain_cert(certificate.clone())?,
            }
        }
        context.set_private_key(&self.key)?;
        context.check_private_key()
    }

    /// For one connection, whose context has none.
    fn show(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        for (depth, certificate) in self.chain.iter().enumerate() {
            match depth {
                0 => ssl.set_certificate(certificate)?,
                _ => ssl.add_chain_cert(certificate.clone())?,
            }
        }
        ssl.set_private_key(&self.key)
    }
}

pub(super) fn error(identity: &Identity, e: ErrorStack) -> Error {
    setup_error(&format!("the identity from {}", identity.material().origin), e)
}

/// Those of a server that has several.
pub(super) struct Identities {
    settings: Arc<Settings>,
    /// Those that are known beforehand.
    known: Vec<(Identity, Parsed)>,
}

impl Identities {
    pub fn new(settings: &Arc<Settings>) -> Result<Identities, Error> {
        let named = settings.named_identities.iter().map(|(_, identity)| identity);
        let known = named.chain(&settings.identity).map(|identity| {
            let parsed = Parsed::new(identity)?;
            let shown = (|| {
                // What OpenSSL would not show, a weak key say, must not come out in a handshake.
                let mut scratch = SslContextBuilder::new(SslMethod::tls_server())?;
                set_security_level(&mut scratch, settings);
                parsed.set(&mut scratch)
            })();
            shown.map_err(|e| error(identity, e))?;
            Ok((identity.clone(), parsed))
        });
        Ok(Identities { settings: settings.clone(), known: known.collect::<Result<_, Error>>()? })
    }

    pub fn attend(self, context: &mut SslContextBuilder) {
        if self.settings.choose_identity.is_some() {
            hello::attend(context);
        }
        context.set_servername_callback(move |ssl, alert| {
            self.show(ssl).map_err(|refusal| {
                *alert = refusal;
                SniError::ALERT_FATAL
            })
        });
    }

    /// OpenSSL asks whether the client gave a name or not.
    fn show(&self, ssl: &mut SslRef) -> Result<(), SslAlert> {
        if ssl.certificate().is_some() {
            // Asked again: the client had to repeat its first message (RFC 8446, section 4.1.4).
            return Ok(());
        }
        let (name, unread) = (ssl.servername(NameType::HOST_NAME), Offer::default());
        let chosen = self.settings.identity_for(name, hello::offer(ssl).unwrap_or(&unread));
        let chosen = chosen.ok_or(SslAlert::UNRECOGNIZED_NAME)?;
        let known = self.known.iter().find(|(known, _)| ptr::eq(known.material(), chosen.material()));
        let shown = match known {
            Some((_, parsed)) => parsed.show(ssl),
            None => Parsed::new(&chosen).map_err(|_| SslAlert::INTERNAL_ERROR)?.show(ssl),
        };
        shown.map_err(|_| SslAlert::INTERNAL_ERROR)
    }
}
