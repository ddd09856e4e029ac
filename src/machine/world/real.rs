//! Real engines at both ends: the machine's connection, and a peer that is a [`Connection`] itself, fed with the other's bytes.
//! Keys and signatures differ from run to run, and with them a length now and then: such a world replays nearly, not exactly.

use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::rng::Rng;
use super::session::Plan;
use super::tags::Written;
use crate::certificate::Certificate;
use crate::connection::Connection;
use crate::context::Context;
use crate::engine::Engine;
use crate::error::ErrorKind;
use crate::identity::Identity;
use crate::role::Role;
use crate::version::Version;

const NAME: &str = "localhost";

/// Of one engine, for the newest version and for TLS 1.2: a client's and a server's.
type Contexts = Vec<[(Context, Context); 2]>;

fn contexts() -> &'static Contexts {
    static CONTEXTS: OnceLock<Contexts> = OnceLock::new();
    CONTEXTS.get_or_init(make_contexts)
}

fn make_contexts() -> Contexts {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::<String>::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "the world's CA");
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = ca.self_signed(&ca_key).expect("a root").pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec![NAME.to_string()]).expect("a name");
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate").pem();
    let identity = Identity::from_pem(leaf.as_bytes(), key.serialize_pem().as_bytes()).expect("an identity");
    let root = Certificate::from_pem(root.as_bytes()).expect("a root");
    let of_engine = |engine: Engine| {
        [Version::Tls1_2, Version::Tls1_3].map(|newest| {
            let client = Context::builder().engine(engine).system_roots(false).add_root(root.clone());
            let server = Context::builder().engine(engine).identity(identity.clone());
            // A server of native-tls has no TLS 1.3 to be bounded by.
            let bound = |builder: crate::ContextBuilder| match newest {
                Version::Tls1_2 => builder.max_version(newest),
                _ => builder,
            };
            (bound(client).build().expect("a client's context"), bound(server).build().expect("a server's context"))
        })
    };
    Engine::available().into_iter().map(of_engine).collect()
}

fn connection(engine: usize, is_tls13: bool, role: Role) -> Connection {
    let (client, server) = &contexts()[engine][usize::from(is_tls13)];
    match role {
        Role::Client => Connection::client(client, NAME),
        Role::Server => Connection::server(server),
    }
    .expect("a connection")
}

/// The peer's side, the innermost first.
pub(super) struct Real {
    layers: Vec<Connection>,
}

/// The connections of the files, and their peer.
pub(super) fn open(plans: &[Plan], rng: &mut Rng) -> (Vec<Connection>, Real) {
    let engines = contexts().len();
    let mut both = |plan: &Plan| {
        let other = if plan.role == Role::Client { Role::Server } else { Role::Client };
        let ours = connection(rng.below(engines), plan.is_tls13, plan.role);
        (ours, connection(rng.below(engines), plan.is_tls13, other))
    };
    let (ours, layers) = plans.iter().map(&mut both).unzip();
    (ours, Real { layers })
}

impl Real {
    /// Something has come; says what does not hold.
    pub fn hear(&mut self, bytes: &[u8], got: &mut Written) -> Result<(), String> {
        self.layers[0].feed(bytes);
        let mut buffer = vec![0; 16 * 1024];
        for at in 0..self.layers.len() {
            let _ = self.layers[at].handshake();
            while let Ok(n @ 1..) = self.layers[at].read(&mut buffer) {
                match self.layers.get_mut(at + 1) {
                    Some(above) => above.feed(&buffer[..n]),
                    None => got.take(&buffer[..n])?,
                }
            }
            let failure = self.layers[at].failure();
            let is_ours = |kind| !matches!(kind, ErrorKind::PeerAlert(_) | ErrorKind::Truncated);
            if let Some(error) = failure.filter(|error| is_ours(error.kind())) {
                return Err(format!("meaning: the peer's engine says: {error}"));
            }
            if !self.layers[at].is_handshake_done() {
                break;
            }
        }
        Ok(())
    }

    /// A client's first words. Says whether there are any.
    pub fn begin(&mut self, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        for at in 0..self.layers.len() {
            let _ = self.layers[at].handshake();
            if !self.layers[at].is_handshake_done() {
                break;
            }
        }
        self.take_output(out);
        out.len() > before
    }

    /// Data, or its close_notify.
    pub fn say(&mut self, at: usize, data: Option<&[u8]>) {
        let it = &mut self.layers[at];
        let Some(mut data) = data else {
            let _ = it.close();
            return;
        };
        while let Ok(n @ 1..) = it.write(data) {
            data = &data[n..];
        }
    }

    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        for at in (0..self.layers.len()).rev() {
            let bytes = self.layers[at].output().to_vec();
            self.layers[at].consume_output(bytes.len());
            match at.checked_sub(1) {
                Some(below) => self.say(below, Some(&bytes)),
                None => out.extend_from_slice(&bytes),
            }
        }
    }

    /// Of each: whether its handshake is done, and whether it has our close_notify.
    pub fn state(&self) -> impl Iterator<Item = (bool, bool)> + '_ {
        self.layers.iter().map(|it| (it.is_handshake_done(), it.is_peer_closed()))
    }
}
