//! Certificates that are wrong in one respect each.

use rcgen::{
    date_time_ymd, BasicConstraints, CertificateParams, CertificateRevocationList, CertificateRevocationListParams,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use sslfile::Certificate;

use crate::common::{Pair, NAME};

/// A CA of its own.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

pub fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// For the usual names.
pub fn leaf_params() -> CertificateParams {
    let names = [NAME, "127.0.0.1", "::1"].map(String::from);
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, NAME);
    params
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("key");
        let params = ca_params(name);
        let pem = params.self_signed(&key).expect("ca").pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    #[allow(dead_code, reason = "one of the tests that share this file needs it")]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.pem.as_bytes()).expect("ca")
    }

    /// A leaf alone, with its key.
    pub fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("key");
        let leaf = params.signed_by(&key, &self.issuer).expect("leaf");
        Pair { chain: leaf.pem(), key: key.serialize_pem() }
    }

    /// A CA under this one.
    pub fn intermediate(&self, name: &str) -> Authority {
        self.sign_authority(ca_params(name))
    }

    /// The same, with this serial number.
    pub fn numbered_intermediate(&self, name: &str, serial: u64) -> Authority {
        let mut params = ca_params(name);
        params.serial_number = Some(SerialNumber::from(serial));
        self.sign_authority(params)
    }

    pub fn sign_authority(&self, params: CertificateParams) -> Authority {
        let key = KeyPair::generate().expect("key");
        let pem = params.signed_by(&key, &self.issuer).expect("ca").pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// The usual leaf, with this serial number.
    pub fn numbered(&self, serial: u64) -> Pair {
        let mut params = leaf_params();
        params.serial_number = Some(SerialNumber::from(serial));
        self.sign(params)
    }

    /// A list of what it has revoked, for which the next one was to come in this year.
    pub fn revoke(&self, serials: &[u64], next_year: i32) -> CertificateRevocationList {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2001, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2001, 2, 1),
            next_update: date_time_ymd(next_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("list")
    }

    pub fn expired(&self) -> Pair {
        let mut params = leaf_params();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(params)
    }

    pub fn not_yet_valid(&self) -> Pair {
        let mut params = leaf_params();
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
        self.sign(params)
    }
}
