//! What each engine knows about a connection, on which end.

use std::sync::Arc;
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sslfile::{ClientAuth, Context, ContextBuilder, Engine, Role, SslFile, Version};

use crate::common::{
    ca, certs, client_builder, engines, has_openssl, server_builder, servers_know_group_in_tls_1_2, tcp_pair,
    tls_pair_with, within, LONG, NAME,
};
use crate::table::{can, honours, table, word};

/// "yes", "None" or "Unsupported".
fn known(file: &SslFile, fact: &str) -> &'static str {
    fn of<T>(fact: Option<T>) -> &'static str {
        fact.map_or("None", |_| "yes")
    }
    match fact {
        "version" => of(file.version()),
        "cipher" => of(file.cipher()),
        "group" => of(file.group()),
        "alpn" => of(file.alpn()),
        "server_name" => of(file.server_name()),
        "peer_certificate" => of(file.peer_certificate()),
        "peer_certificates" => of(file.peer_certificates()),
        "verified_chain" => of(file.verified_chain()),
        "is_resumed" => of(file.is_resumed()),
        "tls_server_end_point" => of(file.tls_server_end_point()),
        "has_extended_master_secret" => of(file.has_extended_master_secret()),
        "tls_exporter" => of(file.tls_exporter()),
        "ocsp_response" => of(file.ocsp_response()),
        "handshake_time" => of(file.handshake_time()),
        "traffic" => of(Some(file.traffic()).filter(|traffic| traffic.bytes_sent > 0 && traffic.records_received > 0)),
        "export_keying_material" => match file.export_keying_material(&mut [0; 32], "EXPORTER-sslfile-test", None) {
            Ok(()) => "yes",
            Err(e) => {
                assert_eq!(e.kind(), std::io::ErrorKind::Unsupported, "{e}");
                "Unsupported"
            }
        },
        other => panic!("a line that no test knows: {other:?}"),
    }
}

/// Two ends between which there is something to know, each on an engine.
fn ends(client: Engine, server: Engine, version: Version) -> (SslFile, SslFile) {
    let client = ContextBuilder::identity(client_builder(client), certs().client.identity()).alpn(["one"]);
    let mut server_side = server_builder(server).min_version(version).max_version(version).alpn(["one"]);
    if honours(server, "client_auth") {
        server_side = server_side.add_root(ca()).client_auth(ClientAuth::Require);
    }
    let (client, server) = (client.build().expect("client"), server_side.build().expect("server"));
    tls_pair_with(SslFile::options(), &client, SslFile::options(), &server)
}

/// A client of a server that has an OCSP response.
fn stapled(engine: Engine, version: Version) -> SslFile {
    let mut client = client_builder(engine).min_version(version).max_version(version);
    if honours(engine, "ocsp_stapling") {
        client = client.ocsp_stapling(true);
    }
    let context: Context = client.build().expect("context");
    let pair = &certs().ecdsa;
    let leaf = CertificateDer::from_pem_slice(pair.chain.as_bytes()).expect("leaf");
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert_with_ocsp(vec![leaf], key, b"a response".to_vec())
        .expect("certificate");
    let (ours, theirs) = tcp_pair();
    let server = thread::spawn(move || {
        let connection = ServerConnection::new(Arc::new(config)).expect("server");
        let mut stream = StreamOwned::new(connection, theirs);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("handshake");
        }
    });
    let file = SslFile::client(ours, &context, NAME).expect("handshake");
    server.join().expect("server");
    file
}

/// What has been seen of a fact with a version: on which end, what was known.
fn seen(engine: Engine, version: Version, fact: &str) -> Vec<(Role, &'static str)> {
    // Native's servers may have no TLS 1.3: then another engine's speaks with its clients, if there is one.
    let serves = |other: Engine| other != Engine::Native || version == Version::Tls1_2;
    let mut seen = Vec::new();
    if let Some(server) = [engine].into_iter().chain(engines()).find(|other| serves(*other)) {
        let (c, s) = ends(engine, server, version);
        if server == engine {
            seen.push((Role::Server, known(&s, fact)));
        }
        if fact != "ocsp_response" {
            seen.push((Role::Client, known(&c, fact)));
        }
    }
    if fact == "ocsp_response" {
        seen.push((Role::Client, known(&stapled(engine, version), fact)));
    }
    seen
}

#[test]
fn each_fact_is_known_as_the_table_says() {
    within(LONG, || {
        for engine in engines() {
            for (names, cells) in table("fact") {
                for name in names {
                    let (fact, only) = name.split_once(" in ").unwrap_or((&name, ""));
                    if fact == "group" && engine == Engine::OpenSsl && !has_openssl(3, 0) {
                        continue;
                    }
                    for version in [Version::Tls1_2, Version::Tls1_3] {
                        if !only.is_empty() && only.replace(' ', "v") != version.to_string() {
                            continue;
                        }
                        let word = match word(&cells, engine) {
                            "clients" if fact == "group" && servers_know_group_in_tls_1_2(engine) => "yes",
                            word => word,
                        };
                        for (role, known) in seen(engine, version, fact) {
                            let expected = match word {
                                "clients" if can(word, role) => "yes",
                                "clients" => "None",
                                word => word,
                            };
                            assert_eq!(known, expected, "{engine:?}, {role:?}, {version}: {name}");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn each_fact_has_a_line() {
    let listed: Vec<String> = table("fact").into_iter().flat_map(|(names, _)| names).collect();
    let (_, methods) =
        include_str!("../../src/engine/mod.rs").split_once("trait Session: Send {\n").expect("the methods");
    let (_, facts) = methods.split_once("fn pending(&self)").expect("what is not about the connection");
    let facts: Vec<&str> = facts.split("\n    fn ").skip(1).filter_map(|method| method.split('(').next()).collect();
    assert!(facts.len() > 10, "{facts:?}");
    for fact in facts {
        let has_line = |line: &String| line.split(' ').next() == Some(fact);
        assert!(listed.iter().any(has_line), "{fact} is in no line of the table");
    }
}
