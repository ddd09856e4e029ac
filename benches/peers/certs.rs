//! One CA for the process and a P-256 certificate for `localhost` that it signed.

use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// The name every server has.
pub const NAME: &str = "localhost";

/// As PEM.
pub struct Certs {
    pub ca: String,
    pub leaf: String,
    pub key: String,
}

pub fn certs() -> &'static Certs {
    static CERTS: OnceLock<Certs> = OnceLock::new();
    CERTS.get_or_init(|| make().expect("certificates"))
}

fn make() -> Result<Certs, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "sslfile bench CA");
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![NAME.to_string()])?;
    leaf.distinguished_name.push(DnType::CommonName, NAME);
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(Certs { ca: ca_pem, leaf: leaf.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}
