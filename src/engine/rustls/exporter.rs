//! Keys exported from a connection. rustls has that in its buffered interface only; its key log gives the secret, and its
//! cryptography the functions.

use rustls::crypto::tls13::{HkdfExpander, OkmBlock};
use rustls::SupportedCipherSuite;

use super::notes::Secret;
use crate::error::Error;

pub(super) fn export(
    suite: SupportedCipherSuite,
    secret: &Secret,
    server_random: &[u8; 32],
    out: &mut [u8],
    label: &str,
    context: Option<&[u8]>,
) -> Result<(), Error> {
    let refuse = |what: &str| Err(Error::invalid_input(format!("export_keying_material: {what}")));
    match suite {
        // RFC 8446, section 7.5.
        SupportedCipherSuite::Tls13(suite) => {
            let hash = suite.common.hash_provider;
            let expander = suite.hkdf_provider.expander_for_okm(&secret.bytes);
            let mut derived = vec![0; expander.hash_len()];
            if !expand_label(&*expander, label.as_bytes(), hash.hash(&[]).as_ref(), &mut derived) {
                return refuse("the label is longer than 249 bytes");
            }
            let expander = suite.hkdf_provider.expander_for_okm(&OkmBlock::new(&derived));
            let context = hash.hash(context.unwrap_or_default());
            match expand_label(&*expander, b"exporter", context.as_ref(), out) {
                true => Ok(()),
                false => refuse("that is more than can be derived"),
            }
        }
        // RFC 5705, section 4.
        SupportedCipherSuite::Tls12(suite) => {
            let mut seed = [&secret.client_random[..], server_random].concat();
            if let Some(context) = context {
                let Ok(length) = u16::try_from(context.len()) else {
                    return refuse("the context is longer than 65,535 bytes");
                };
                seed.extend_from_slice(&length.to_be_bytes());
                seed.extend_from_slice(context);
            }
            if label.is_empty() {
                return refuse("the label is empty");
            }
            suite.prf_provider.for_secret(out, secret.bytes.as_ref(), label.as_bytes(), &seed);
            Ok(())
        }
    }
}

/// HKDF-Expand-Label (RFC 8446, section 7.1). False: too long.
fn expand_label(expander: &dyn HkdfExpander, label: &[u8], context: &[u8], out: &mut [u8]) -> bool {
    const PREFIX: &[u8] = b"tls13 ";
    let (Ok(length), Ok(label_length)) = (u16::try_from(out.len()), u8::try_from(PREFIX.len() + label.len())) else {
        return false;
    };
    let info = [&length.to_be_bytes()[..], &[label_length], PREFIX, label, &[context.len() as u8], context];
    expander.expand_slice(&info, out).is_ok()
}
