//! What to speak, and with what: the context, our certificate and key.

use std::fs;
use std::path::Path;

use sslfile::{Certificate, ClientAuth, Context, Engine, Identity, Version};

use crate::args::{Args, Library};
use crate::exit::{self, Failure};

pub fn context(args: &Args, identity: Option<Identity>) -> Result<Context, Failure> {
    let mut builder = Context::builder();
    if let Some(library) = args.tls.engine {
        builder = builder.engine(match library {
            Library::Native => Engine::Native,
            Library::Openssl => Engine::OpenSsl,
            Library::Rustls => Engine::Rustls,
        });
    }
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    if let Some(path) = &args.certificates.ca {
        let unusable = |error| Failure::new(exit::USAGE, format!("{}: {error}", path.display()));
        let roots = fs::read(path).and_then(|pem| Certificate::stack_from_pem(&pem)).map_err(unusable)?;
        builder = roots.into_iter().fold(builder.system_roots(false), |builder, root| builder.add_root(root));
        if args.connection.listen {
            builder = builder.client_auth(ClientAuth::Require);
        }
    }
    if args.certificates.insecure {
        // Nobody is asked who is trusted, and to read the system's roots takes longer than all the rest.
        builder = builder.system_roots(false).danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
    }
    if !args.tls.alpn.is_empty() {
        builder = builder.alpn(&args.tls.alpn);
    }
    if args.tls.tls12 {
        builder = builder.min_version(Version::Tls1_2).max_version(Version::Tls1_2);
    }
    if args.tls.tls13 {
        builder = builder.min_version(Version::Tls1_3).max_version(Version::Tls1_3);
    }
    builder.build().map_err(|error| Failure::new(exit::USAGE, error))
}

pub fn identity_from_files(args: &Args, cert: &Path) -> Result<Identity, Failure> {
    let key = args.certificates.key.as_deref().unwrap_or(cert);
    Identity::from_pem_files(cert, key).map_err(|error| Failure::new(exit::USAGE, error))
}

/// A self-signed certificate, which nobody trusts unless told to; and its PEM text.
pub fn identity_made_now(args: &Args) -> Result<(Identity, String), Failure> {
    let mut names = vec!["localhost".to_string(), "127.0.0.1".to_string(), "::1".to_string()];
    names.extend(args.certificates.name.clone());
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| Failure::new(exit::USAGE, format!("no certificate can be made: {error}")))?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes());
    Ok((identity.map_err(|error| Failure::new(exit::USAGE, error))?, chain))
}
