//! Contexts, made once. Keys and certificates are files, so that a finding can be had again.

use std::io::ErrorKind;
use std::sync::OnceLock;

use sslfile::{Certificate, Connection, Context, ContextBuilder, Engine, Identity, Version};

pub const CA: &[u8] = include_bytes!("../fixtures/ca.pem");
pub const CHAIN: &[u8] = include_bytes!("../fixtures/server.pem");
pub const KEY: &[u8] = include_bytes!("../fixtures/server.key");

const NAME: &str = "localhost";

/// A client and a server that get on.
pub struct Pairing {
    pub client: Context,
    pub server: Context,
}

impl Pairing {
    pub fn client(&self) -> Connection {
        Connection::client(&self.client, NAME).expect("client")
    }

    pub fn server(&self) -> Connection {
        Connection::server(&self.server).expect("server")
    }
}

/// Each engine's client with each engine's server, on TLS 1.2 and on 1.3.
pub fn pairings() -> &'static [Pairing] {
    static PAIRINGS: OnceLock<Vec<Pairing>> = OnceLock::new();
    PAIRINGS.get_or_init(|| {
        let mut pairings = Vec::new();
        for version in [Version::Tls1_2, Version::Tls1_3] {
            for server in able(version, server) {
                pairings.extend(able(version, client).map(|client| Pairing { client, server: server.clone() }));
            }
        }
        assert!(pairings.len() >= Engine::available().len());
        pairings
    })
}

/// A client of each engine.
pub fn clients() -> &'static [Context] {
    static CLIENTS: OnceLock<Vec<Context>> = OnceLock::new();
    CLIENTS.get_or_init(|| of_each_engine(client))
}

/// A server of each engine.
pub fn servers() -> &'static [Context] {
    static SERVERS: OnceLock<Vec<Context>> = OnceLock::new();
    SERVERS.get_or_init(|| of_each_engine(server))
}

fn of_each_engine(builder: fn(Engine) -> ContextBuilder) -> Vec<Context> {
    Engine::available().into_iter().map(|engine| builder(engine).build().expect("context")).collect()
}

/// Those that can speak this version.
fn able(version: Version, builder: fn(Engine) -> ContextBuilder) -> impl Iterator<Item = Context> {
    Engine::available().into_iter().filter_map(move |engine| {
        match builder(engine).min_version(version).max_version(version).build() {
            Ok(context) => Some(context),
            Err(e) if e.kind() == ErrorKind::Unsupported => None,
            Err(e) => panic!("{engine:?}, {version}: {e}"),
        }
    })
}

fn client(engine: Engine) -> ContextBuilder {
    let root = Certificate::from_pem(CA).expect("root");
    Context::builder().engine(engine).system_roots(false).add_root(root)
}

fn server(engine: Engine) -> ContextBuilder {
    Context::builder().engine(engine).identity(Identity::from_pem(CHAIN, KEY).expect("identity"))
}
