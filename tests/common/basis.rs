//! What the tests of every package share, whatever its features: certificates made on the spot, contexts per engine, bytes, a
//! watchdog.
#![allow(dead_code)]

use std::sync::{mpsc, OnceLock};
use std::thread;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use sslfile::{Certificate, Context, ContextBuilder, Engine, Identity};

/// The name every test certificate is for; it also carries 127.0.0.1 and ::1.
pub const NAME: &str = "localhost";

/// A certificate chain (leaf, then CA) and its key, as PEM.
#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Pair {
    pub fn identity(&self) -> Identity {
        Identity::from_pem(self.chain.as_bytes(), self.key.as_bytes()).expect("test identity")
    }
}

/// One CA for the process and what it signed.
pub struct Certs {
    pub ca_pem: String,
    pub ecdsa: Pair,
    pub rsa: Pair,
    /// Right CA, name `wrong.example`.
    pub other_name: Pair,
    /// For client authentication.
    pub client: Pair,
    /// Signed by nobody we trust.
    pub self_signed: Pair,
}

pub fn certs() -> &'static Certs {
    static CERTS: OnceLock<Certs> = OnceLock::new();
    CERTS.get_or_init(make_certs)
}

/// An RSA-2048 key as PKCS#8 PEM, the same in each run: not every library here can make one. The files beside it are its
/// other wrappings.
pub const RSA_KEY: &str = include_str!("keys/rsa.pem");
/// A P-256 key as PKCS#8 PEM, likewise.
pub const ECDSA_KEY: &str = include_str!("keys/ecdsa.pem");

fn leaf_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
    let mut params = CertificateParams::new(names.clone()).expect("names");
    params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn make_certs() -> Certs {
    let ca_key = KeyPair::generate().expect("ca key");
    let mut ca = CertificateParams::new(Vec::<String>::new()).expect("ca");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "sslfile test CA");
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_cert = ca.self_signed(&ca_key).expect("ca");
    let ca_pem = ca_cert.pem();
    let issuer = Issuer::new(ca, ca_key);
    let sign = |names: &[&str], key: KeyPair| Pair {
        chain: format!("{}{}", leaf_params(names).signed_by(&key, &issuer).expect("leaf").pem(), ca_pem),
        key: key.serialize_pem(),
    };
    let names = [NAME, "127.0.0.1", "::1"];
    let lone = KeyPair::generate().expect("key");
    Certs {
        ecdsa: sign(&names, KeyPair::from_pem(ECDSA_KEY).expect("key")),
        rsa: sign(&names, KeyPair::from_pem(RSA_KEY).expect("rsa")),
        other_name: sign(&["wrong.example"], KeyPair::generate().expect("key")),
        client: sign(&["client.example"], KeyPair::generate().expect("key")),
        self_signed: Pair {
            chain: leaf_params(&names).self_signed(&lone).expect("cert").pem(),
            key: lone.serialize_pem(),
        },
        ca_pem,
    }
}

pub fn ca() -> Certificate {
    Certificate::from_pem(certs().ca_pem.as_bytes()).expect("ca")
}

/// The engines that were built. Every behavioural test runs on each.
pub fn engines() -> Vec<Engine> {
    let engines = Engine::available();
    assert!(!engines.is_empty());
    engines
}

/// A builder that trusts the test CA only.
pub fn client_builder(engine: Engine) -> ContextBuilder {
    Context::builder().engine(engine).system_roots(false).add_root(ca())
}

/// A builder with the ECDSA identity.
pub fn server_builder(engine: Engine) -> ContextBuilder {
    Context::builder().engine(engine).identity(certs().ecdsa.identity())
}

pub fn client_context(engine: Engine) -> Context {
    client_builder(engine).build().expect("client context")
}

pub fn server_context(engine: Engine) -> Context {
    server_builder(engine).build().expect("server context")
}

/// Nothing takes so long, on a loaded machine either: who waits for it hangs.
pub const LONG: Duration = Duration::from_secs(600);

/// Deterministic bytes, so that loss, doubling and disorder all show.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Runs `f` on a thread of its own and fails the test, instead of hanging it, when it takes longer than `limit`.
pub fn within<T: Send + 'static>(limit: Duration, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let name = thread::current().name().unwrap_or("test").to_string();
    let thread = thread::Builder::new()
        .name(name)
        .spawn(move || {
            let value = f();
            let _ = done.send(value);
        })
        .expect("thread");
    match result.recv_timeout(limit) {
        Ok(value) => {
            thread.join().expect("joined");
            value
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("the thread sent nothing and did not panic"),
        },
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("HANG: not done after {limit:?}"),
    }
}
