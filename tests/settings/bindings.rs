//! Channel bindings where they are not a matter of course: certificates whose signature has its hash elsewhere, and keys that
//! are bound to nothing.

use std::process::Command;

use ring::digest::{digest, Algorithm, SHA256, SHA384, SHA512};
use sslfile::{Certificate, Context, Engine, SslFile};

use super::rig::with_openssl;
use crate::common::{client_builder, engines, tls_pair_with, Pair};
use crate::harness::Bench;

/// Self-signed, with a key and a signature of this kind.
fn made(bench: &Bench, name: &str, arguments: &[&str]) -> Pair {
    let path = |end: &str| bench.files.folder.path().join(format!("{name}.{end}"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    command.args(["-addext", "subjectAltName=DNS:localhost"]).args(arguments);
    command.arg("-out").arg(path("pem")).arg("-keyout").arg(path("key"));
    let output = command.output().expect("openssl");
    assert!(output.status.success(), "{name}: {output:?}");
    let read = |end| std::fs::read_to_string(path(end)).expect("made");
    Pair { chain: read("pem"), key: read("key") }
}

/// What both ends have for it, which must be the same.
fn end_point(client: Engine, server: Engine, pair: &Pair) -> Option<Vec<u8>> {
    let root = Certificate::from_pem(pair.chain.as_bytes()).expect("certificate");
    let client = client_builder(client).add_root(root).build().expect("client");
    let server = Context::builder().engine(server).identity(pair.identity()).build().expect("server");
    let (c, s) = tls_pair_with(SslFile::options(), &client, SslFile::options(), &server);
    assert_eq!(c.tls_server_end_point(), s.tls_server_end_point());
    c.tls_server_end_point()
}

#[test]
fn end_points_of_certificates_signed_with_rsa_pss() {
    with_openssl(|bench| {
        let hashes: [(&str, &'static Algorithm); 3] = [("sha256", &SHA256), ("sha384", &SHA384), ("sha512", &SHA512)];
        let pss = ["-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss"];
        for (name, hash) in hashes {
            let flag = format!("-{name}");
            let pair = made(bench, name, &[&pss[..], &[&flag, "-sigopt", "rsa_pss_saltlen:digest"]].concat());
            let leaf = Certificate::from_pem(pair.chain.as_bytes()).expect("leaf").to_der();
            for client in engines() {
                for server in engines() {
                    let expected = digest(hash, &leaf).as_ref().to_vec();
                    let found = end_point(client, server, &pair);
                    assert_eq!(found, Some(expected), "{client:?} to {server:?}: {name}");
                }
            }
        }
        // Another hash function for the mask: there is no single one (RFC 5929, section 4.1).
        let two = made(bench, "two", &[&pss[..], &["-sha256", "-sigopt", "rsa_mgf1_md:sha512"]].concat());
        for engine in engines() {
            assert_eq!(end_point(engine, engine, &two), None, "{engine:?}");
        }
    });
}

#[test]
fn an_end_point_takes_a_hash_function() {
    with_openssl(|bench| {
        let pair = made(bench, "ed25519", &["-newkey", "ed25519"]);
        for engine in engines() {
            assert_eq!(end_point(engine, engine, &pair), None, "{engine:?}");
        }
    });
}

/// OpenSSL without the extended master secret, which it can leave away from 3.0 on.
#[cfg(feature = "openssl")]
mod without_extended_master_secret {
    use std::io::Write;
    use std::net::TcpStream;
    use std::thread;

    use openssl::pkey::PKey;
    use openssl::ssl::{Ssl, SslContextBuilder, SslMethod, SslOptions, SslStream, SslVersion};
    use openssl::x509::X509;
    use sslfile::{Role, Version};

    use super::*;
    use crate::common::{certs, client_context, has_openssl, server_context, tcp_pair, within, LONG, NAME};

    const NO_EXTENDED_MASTER_SECRET: u64 = 1;

    /// The role is ours; says one byte.
    fn peer(role: Role, version: SslVersion, options: u64, stream: TcpStream) -> SslStream<TcpStream> {
        let method = match role {
            Role::Client => SslMethod::tls_server(),
            Role::Server => SslMethod::tls_client(),
        };
        let mut context = SslContextBuilder::new(method).expect("context");
        context.set_max_proto_version(Some(version)).expect("version");
        context.set_options(SslOptions::from_bits_retain(options));
        let pair = &certs().ecdsa;
        context.set_certificate(&X509::from_pem(pair.chain.as_bytes()).expect("leaf")).expect("leaf");
        context.set_private_key(&PKey::private_key_from_pem(pair.key.as_bytes()).expect("key")).expect("key");
        let mut stream = SslStream::new(Ssl::new(&context.build()).expect("ssl"), stream).expect("stream");
        match role {
            Role::Client => stream.accept().expect("accept"),
            Role::Server => stream.connect().expect("connect"),
        }
        stream.write_all(b"x").expect("write");
        stream
    }

    #[test]
    fn there_is_no_tls_exporter_and_one_can_know() {
        if !has_openssl(3, 0) {
            println!("there is no way to leave it away");
            return;
        }
        for engine in engines() {
            for role in [Role::Client, Role::Server] {
                let cases = [
                    (SslVersion::TLS1_2, NO_EXTENDED_MASTER_SECRET, false),
                    (SslVersion::TLS1_2, 0, true),
                    (SslVersion::TLS1_3, NO_EXTENDED_MASTER_SECRET, true),
                ];
                for (version, options, is_bound) in cases {
                    within(LONG, move || {
                        let (ours, theirs) = tcp_pair();
                        let other = thread::spawn(move || peer(role, version, options, theirs));
                        let file = match role {
                            Role::Client => SslFile::client(ours, &client_context(engine), NAME),
                            Role::Server => SslFile::server(ours, &server_context(engine)),
                        };
                        let file = file.expect("handshake");
                        let other = other.join().expect("peer");
                        let what = format!("{engine:?} as {role:?}, {:?}, bound: {is_bound}", file.version());
                        if engine == Engine::Native {
                            assert_eq!(
                                (file.has_extended_master_secret(), file.tls_exporter()),
                                (None, None),
                                "{what}"
                            );
                            return;
                        }
                        let expected = if version == SslVersion::TLS1_3 { Version::Tls1_3 } else { Version::Tls1_2 };
                        assert_eq!(file.version(), Some(expected), "{what}");
                        assert_eq!(file.has_extended_master_secret(), Some(is_bound), "{what}");
                        assert_eq!(file.tls_exporter().is_some(), is_bound, "{what}");
                        // Whoever asks for it by name gets it, and it is the peer's.
                        let (mut mine, mut its) = ([0; 32], [0; 32]);
                        file.export_keying_material(&mut mine, "EXPORTER-test", None).expect("export");
                        other.ssl().export_keying_material(&mut its, "EXPORTER-test", None).expect("export");
                        assert_eq!(mine, its, "{what}");
                    });
                }
            }
        }
    }

    #[test]
    fn nothing_is_known_of_it_before_the_handshake() {
        for engine in engines() {
            let (ours, _theirs) = tcp_pair();
            let options = SslFile::options().client(NAME).handshake(sslfile::Handshake::Lazy);
            let file = options.open(ours, &client_context(engine)).expect("lazy");
            assert_eq!(file.has_extended_master_secret(), None, "{engine:?}");
        }
    }
}
