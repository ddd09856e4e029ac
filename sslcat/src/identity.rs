//! Who we are: a certificate and its key, from files in the forms that people have them in, or made on the spot.

use std::fs;
use std::path::Path;

use sslfile::Identity;
use zeroize::Zeroizing;

use crate::args::Args;
use crate::exit::{self, Failure};
use crate::password;

/// PEM, with the key encrypted or not, or PKCS#12.
pub fn from_files(args: &Args, cert: &Path) -> Result<Identity, Failure> {
    let asked = &args.certificates;
    let read = |path: &Path| {
        let unusable = |error| Failure::new(exit::USAGE, format!("{}: {error}", path.display()));
        fs::read(path).map(Zeroizing::new).map_err(unusable)
    };
    let chain = read(cert)?;
    let name = cert.display().to_string();
    if is_archive(&chain) {
        if asked.key.is_some() {
            let text = format!("{name} is a PKCS#12 archive, with the key in it: without --key");
            return Err(Failure::new(exit::USAGE, text));
        }
        let open = |password: &str| {
            Identity::from_pkcs12(&chain, password)
                .map_err(|error| Failure::new(exit::USAGE, format!("{name}: {error}")))
        };
        // Many have none.
        let without = (asked.password_file.is_none() && asked.password_env.is_none()).then(|| open(""));
        return match without {
            Some(Ok(identity)) => Ok(identity),
            Some(Err(failure)) if !failure.text.contains("password") => Err(failure),
            _ => password::with(asked, &name, open),
        };
    }
    // One file is read once: it may be a pipe.
    let (key, key_name) = match &asked.key {
        Some(path) => (&read(path)?, path.display().to_string()),
        None => (&chain, name.clone()),
    };
    let both = if asked.key.is_some() { format!("{name} and {key_name}") } else { name };
    let unusable = |error| Failure::new(exit::USAGE, format!("{both}: {error}"));
    match is_encrypted(key) {
        true => {
            let open = |password: &str| Identity::from_pem_encrypted(&chain, key, password).map_err(unusable);
            password::with(asked, &key_name, open)
        }
        false => Identity::from_pem(&chain, key).map_err(unusable),
    }
}

/// DER, which begins with a SEQUENCE, and no text.
fn is_archive(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x30) && !contains(bytes, b"-----BEGIN")
}

/// PKCS#8 (RFC 5958), or OpenSSL's older form.
fn is_encrypted(pem: &[u8]) -> bool {
    contains(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY") || contains(pem, b"Proc-Type: 4,ENCRYPTED")
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A self-signed certificate, which nobody trusts unless told to; and its PEM text.
pub fn made_now(args: &Args) -> Result<(Identity, String), Failure> {
    let mut names = vec!["localhost".to_string(), "127.0.0.1".to_string(), "::1".to_string()];
    names.extend(args.certificates.name.clone());
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| Failure::new(exit::USAGE, format!("no certificate can be made: {error}")))?;
    let (chain, key) = (made.cert.pem(), Zeroizing::new(made.signing_key.serialize_pem()));
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes());
    Ok((identity.map_err(|error| Failure::new(exit::USAGE, error))?, chain))
}
