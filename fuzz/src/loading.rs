//! Arbitrary bytes where keys, certificates and revocation lists are loaded: they are taken or refused, and what is taken can be used. Says how
//! much was taken.

use std::io::{self, ErrorKind};

use sslfile::{Certificate, Context, Identity};

use super::contexts::{clients, CHAIN, KEY};

pub fn loading(input: &[u8]) -> usize {
    let mut count = 0;
    for identity in [Identity::from_pem(input, input), Identity::from_pem(CHAIN, input), Identity::from_pem(input, KEY)]
    {
        count += usize::from(taken(identity).is_some());
    }
    for password in ["secret", ""] {
        match Identity::from_pkcs12(input, password) {
            // No engine that was built reads them.
            Err(e) if e.kind() == ErrorKind::Unsupported => {}
            identity => count += usize::from(taken(identity).is_some()),
        }
    }
    for client in clients() {
        let builder = Context::builder().engine(client.engine()).system_roots(false);
        match builder.add_crls(input).build() {
            Err(e) if e.kind() == ErrorKind::Unsupported => {}
            context => count += usize::from(taken(context).is_some()),
        }
    }
    let first = taken(Certificate::from_pem(input));
    let all = taken(Certificate::stack_from_pem(input));
    assert_eq!(first.as_ref(), all.as_ref().map(|all| &all[0]));
    for certificate in all.into_iter().flatten().chain(taken(Certificate::from_der(input))) {
        count += 1;
        assert_eq!(taken(Certificate::from_der(&certificate.to_der())).as_ref(), Some(&certificate));
        #[cfg(feature = "x509")]
        if let Some(info) = taken(certificate.info()) {
            assert!(!info.serial_hex().is_empty());
            info.is_valid_at(std::time::SystemTime::now());
            drop(format!("{info:?} {}", info.key_type));
        }
        for client in clients() {
            let builder = Context::builder().engine(client.engine()).system_roots(false);
            taken(builder.add_root(certificate.clone()).build());
        }
    }
    count
}

fn taken<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::InvalidInput, "{e}");
            assert!(!e.to_string().is_empty());
            None
        }
    }
}
