//! Contexts made with the libraries themselves, in each role, with all of `SslFile`.
#![cfg(not(any(windows, target_vendor = "apple")))]

use std::io::{self, Read, Write};
use std::thread;

use sslfile::{Context, Engine, ErrorKind, SslFile, Version};

use super::rig::{asking, assert_unsupported, flag, s_server, serve, squeezed, with_openssl, Own, Server, VERSIONS};
use crate::common::{certs, engines, kind_of, pattern, tcp_pair, wait_for, within, LONG, NAME};

/// By what they were made of.
type Contexts = Vec<(&'static str, Context)>;

#[cfg(feature = "openssl")]
mod of_openssl {
    use openssl::pkey::{PKey, Private};
    use openssl::ssl::{
        SslAcceptor, SslConnector, SslContext, SslContextBuilder, SslMethod, SslVerifyMode, SslVersion,
    };
    use openssl::x509::X509;

    use super::Contexts;
    use crate::common::certs;

    const ALPN: &[u8] = b"\x03two\x03one";

    fn leaf() -> X509 {
        X509::from_pem(certs().ecdsa.chain.as_bytes()).expect("leaf")
    }

    fn key() -> PKey<Private> {
        PKey::private_key_from_pem(certs().ecdsa.key.as_bytes()).expect("key")
    }

    fn root() -> X509 {
        X509::from_pem(certs().ca_pem.as_bytes()).expect("root")
    }

    /// For both roles, with none of the modes that `SslConnector` and `SslAcceptor` set.
    pub fn bare() -> SslContextBuilder {
        let mut builder = SslContext::builder(SslMethod::tls()).expect("builder");
        builder.set_certificate(&leaf()).expect("leaf");
        builder.set_private_key(&key()).expect("key");
        builder.cert_store_mut().add_cert(root()).expect("root");
        builder.set_verify(SslVerifyMode::PEER);
        builder
    }

    pub fn clients() -> Contexts {
        let mut connector = SslConnector::builder(SslMethod::tls()).expect("builder");
        connector.cert_store_mut().add_cert(root()).expect("root");
        connector.set_alpn_protos(ALPN).expect("alpn");
        let mut bare = bare();
        bare.set_alpn_protos(ALPN).expect("alpn");
        vec![("SslConnector", connector.build().into()), ("SslContext", bare.build().into())]
    }

    pub fn servers() -> Contexts {
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("builder");
        acceptor.set_certificate(&leaf()).expect("leaf");
        acceptor.set_private_key(&key()).expect("key");
        acceptor.set_min_proto_version(Some(SslVersion::TLS1_2)).expect("version");
        let mut bare = bare();
        bare.set_verify(SslVerifyMode::NONE);
        vec![("SslAcceptor", acceptor.build().into()), ("SslContext", bare.build().into())]
    }
}

#[cfg(feature = "native-tls")]
mod of_native_tls {
    use native_tls::{Certificate, Identity, TlsAcceptor, TlsConnector};

    use super::Contexts;
    use crate::common::certs;

    pub fn clients() -> Contexts {
        let mut builder = TlsConnector::builder();
        let root = Certificate::from_pem(certs().ca_pem.as_bytes()).expect("root");
        builder.disable_built_in_roots(true).add_root_certificate(root).request_alpns(&["two", "one"]);
        vec![("TlsConnector", builder.build().expect("connector").into())]
    }

    pub fn servers() -> Contexts {
        let pair = &certs().ecdsa;
        let identity = Identity::from_pkcs8(pair.chain.as_bytes(), pair.key.as_bytes()).expect("identity");
        vec![("TlsAcceptor", TlsAcceptor::new(identity).expect("acceptor").into())]
    }
}

#[cfg(feature = "rustls")]
mod of_rustls {
    use std::sync::Arc;

    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};

    use super::Contexts;
    use crate::common::certs;

    pub fn clients() -> Contexts {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certs().ca_pem.as_bytes()).expect("root")).expect("root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"two".to_vec(), b"one".to_vec()];
        vec![("ClientConfig", Arc::new(config).into())]
    }

    pub fn servers() -> Contexts {
        let pair = &certs().ecdsa;
        let chain = CertificateDer::pem_slice_iter(pair.chain.as_bytes()).collect::<Result<_, _>>().expect("chain");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("key"))
            .expect("pair");
        vec![("ServerConfig", Arc::new(config).into())]
    }
}

fn clients() -> Contexts {
    let made: &[fn() -> Contexts] = &[
        #[cfg(feature = "openssl")]
        of_openssl::clients,
        #[cfg(feature = "native-tls")]
        of_native_tls::clients,
        #[cfg(feature = "rustls")]
        of_rustls::clients,
    ];
    made.iter().flat_map(|make| make()).collect()
}

fn servers() -> Contexts {
    let made: &[fn() -> Contexts] = &[
        #[cfg(feature = "openssl")]
        of_openssl::servers,
        #[cfg(feature = "native-tls")]
        of_native_tls::servers,
        #[cfg(feature = "rustls")]
        of_rustls::servers,
    ];
    made.iter().flat_map(|make| make()).collect()
}

#[test]
fn they_say_which_engine_they_are_of() {
    for (name, context) in clients().iter().chain(&servers()) {
        let engine = match *name {
            "TlsConnector" | "TlsAcceptor" => Engine::Native,
            "ClientConfig" | "ServerConfig" => Engine::Rustls,
            _ => Engine::OpenSsl,
        };
        assert_eq!(context.engine(), engine, "{name}");
        assert!(engines().contains(&engine), "{name}");
    }
}

#[test]
fn clients_speak_with_a_real_server_and_what_they_were_told_holds() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for (name, context) in clients() {
            for version in VERSIONS {
                let server = Server::start(bench, |port| {
                    let mut command = s_server(port, 1, &own);
                    command.args([flag(version), "-alpn", "one,two", "-servername", "other.example"]);
                    command.arg("-cert2").arg(&own.leaf).arg("-key2").arg(&own.key);
                    command
                });
                let alpn = server.visit(&context, NAME, |file| file.alpn()).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(alpn.as_deref(), Some(&b"one"[..]), "{name}");
                let said = server.said();
                assert!(said.contains("Hostname in TLS extension: \"localhost\""), "{name}: {said}");
            }
        }
    });
}

#[test]
fn servers_speak_with_a_real_client() {
    with_openssl(|bench| {
        for (name, context) in servers() {
            let (seen, said) =
                serve(bench, &context, |port| asking(port, Some("a.example")), |f| f.server_name()).expect();
            assert!(squeezed(&said).contains("subject=CN=localhost"), "{name}: {said}");
            let knows = context.engine() != Engine::Native;
            assert_eq!(seen.as_deref(), Some("a.example").filter(|_| knows), "{name}");
        }
    });
}

#[test]
fn the_name_given_when_opening_is_what_counts() {
    for (name, client) in clients() {
        for (server_name, server) in servers() {
            within(LONG, {
                let client = client.clone();
                move || {
                    let (c, s) = tcp_pair();
                    let refused = thread::spawn(move || SslFile::server(s, &server).map(drop).map_err(io::Error::from));
                    let error = SslFile::client(c, &client, "wrong.example").map(drop).expect_err("another name");
                    assert_eq!(error.kind(), ErrorKind::HostnameMismatch, "{name} at {server_name}: {error}");
                    let error = refused.join().expect("server").expect_err("refused");
                    assert_eq!(kind_of(&error), Some(ErrorKind::PeerAlert(42)), "{name} at {server_name}: {error}");
                }
            });
        }
    }
}

/// What `openssl` makes of a bare context is the user's choice.
#[cfg(feature = "openssl")]
#[test]
fn a_bare_context_verifies_if_it_was_told_to() {
    use self::of_openssl::bare;
    use openssl::ssl::SslVerifyMode;

    within(LONG, || {
        let server = Context::builder().identity(certs().self_signed.identity()).build().expect("context");
        let mut lax = bare();
        lax.set_verify(SslVerifyMode::NONE);
        for (client, accepted) in [(bare().build(), false), (lax.build(), true)] {
            let (c, s) = tcp_pair();
            thread::scope(|scope| {
                scope.spawn(|| drop(SslFile::server(s, &server)));
                let opened = SslFile::client(c, &client.into(), "any.example");
                assert_eq!(opened.is_ok(), accepted, "{opened:?}");
                if let Ok(file) = opened {
                    assert_eq!(file.verified_chain(), None, "nothing was verified");
                }
            });
        }
    });
}

#[test]
fn the_wrong_role_is_refused_with_a_clear_text() {
    for (name, context) in clients().into_iter().filter(|(name, _)| *name != "SslContext") {
        let error = SslFile::server(tcp_pair().1, &context).map(drop).expect_err("a client's");
        assert_eq!(error.error().kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("clients only"), "{name}: {error}");
    }
    for (name, context) in servers().into_iter().filter(|(name, _)| *name != "SslContext") {
        let error = SslFile::client(tcp_pair().0, &context, NAME).map(drop).expect_err("a server's");
        assert_eq!(error.error().kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("servers only"), "{name}: {error}");
    }
}

/// A context does not tell which roles its method has: that shows in the handshake.
#[cfg(feature = "openssl")]
#[test]
fn a_bare_context_for_the_other_role_fails_in_the_handshake() {
    use openssl::ssl::{SslContext, SslMethod};

    within(LONG, || {
        let context = |method| Context::from(SslContext::builder(method).expect("builder").build());
        let (mut c, s) = tcp_pair();
        c.write_all(&[22, 3, 1, 0, 4, 1, 0, 0, 0]).expect("write");
        let error = SslFile::server(s, &context(SslMethod::tls_client())).map(drop).expect_err("a client's");
        assert_eq!(error.error().kind(), io::ErrorKind::InvalidData, "{error}");
        let error = SslFile::client(tcp_pair().0, &context(SslMethod::tls_server()), NAME).map(drop);
        assert_eq!(error.expect_err("a server's").error().kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn version_bounds_of_a_file_hold_or_are_refused() {
    for (name, context) in clients() {
        for (server_name, server) in servers() {
            let options = SslFile::options().client(NAME).max_version(Version::Tls1_2);
            let (c, s) = tcp_pair();
            if context.engine() != Engine::OpenSsl {
                let error = options.open(c, &context).map(drop).expect_err("fixed in what it was made of");
                assert_unsupported(&error.into(), "version bounds", context.engine());
                continue;
            }
            within(LONG, {
                let context = context.clone();
                move || {
                    let opened = thread::spawn(move || SslFile::server(s, &server));
                    let file = options.open(c, &context).unwrap_or_else(|e| panic!("{name} at {server_name}: {e}"));
                    assert_eq!(file.version(), Some(Version::Tls1_2), "{name} at {server_name}");
                    opened.join().expect("server").expect("server");
                }
            });
        }
    }
}

/// Data both ways at once, in both modes: more than the socket takes, so that writes have to wait and to be tried again with
/// other buffers. This is what a bare `SslContext` without `ACCEPT_MOVING_WRITE_BUFFER` and `ENABLE_PARTIAL_WRITE` could not do
/// if OpenSSL ever met the socket.
#[test]
fn much_data_goes_both_ways_in_both_modes() {
    const DATA: usize = 4 << 20;
    for (name, client) in clients() {
        for (server_name, server) in servers() {
            for nonblocking in [false, true] {
                let client = client.clone();
                let server = server.clone();
                within(LONG, move || {
                    let (c, s) = tcp_pair();
                    let opened = thread::spawn(move || SslFile::server(s, &server).expect("server"));
                    let client = SslFile::client(c, &client, NAME).expect("client");
                    let server = opened.join().expect("server");
                    for file in [&client, &server] {
                        file.set_nonblocking(nonblocking).expect("mode");
                    }
                    thread::scope(|scope| {
                        for (file, ours, theirs) in [(&client, 1, 2), (&server, 2, 1)] {
                            scope.spawn(move || {
                                let got = exchange(file, &pattern(ours, DATA), DATA);
                                assert!(got == pattern(theirs, DATA), "{name}, {server_name}: other data");
                            });
                        }
                    });
                });
            }
        }
    }
}

/// Sends while it receives as much.
fn exchange(file: &SslFile, data: &[u8], expected: usize) -> Vec<u8> {
    let mut got = vec![0; expected];
    if !file.is_nonblocking() {
        thread::scope(|scope| {
            scope.spawn(|| data.chunks(50_000).for_each(|piece| (&mut &*file).write_all(piece).expect("write")));
            (&mut &*file).read_exact(&mut got).expect("read");
        });
        return got;
    }
    let (mut sent, mut received, mut flushed) = (0, 0, false);
    while !flushed || received < expected {
        let done = [
            match sent < data.len() {
                true => {
                    // Another buffer at each attempt.
                    let piece = data[sent..].iter().take(50_000).copied().collect::<Vec<_>>();
                    unless_blocked((&mut &*file).write(&piece)).inspect(|n| sent += n).is_some()
                }
                false => !flushed && unless_blocked((&mut &*file).flush()).inspect(|()| flushed = true).is_some(),
            },
            received < expected
                && unless_blocked((&mut &*file).read(&mut got[received..])).inspect(|n| received += n).is_some(),
        ];
        if done == [false; 2] {
            wait_for(file);
        }
    }
    got
}

fn unless_blocked<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
        other => Some(other.expect("transfer")),
    }
}

/// A record that is no data to a reader, in the midst of data: what `AUTO_RETRY` is for.
#[cfg(feature = "openssl")]
#[test]
fn a_key_update_does_not_disturb_a_bare_context() {
    with_openssl(|bench| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let mut client = std::process::Command::new("openssl");
        client.args(["s_client", "-tls1_3", "-connect", &address.to_string()]);
        let mut peer = bench.spawn(&mut client);
        let stream = crate::harness::accept(&peer, &listener);
        let mut context = of_openssl::bare();
        context.set_verify(openssl::ssl::SslVerifyMode::NONE);
        let file = SslFile::server(stream, &context.build().into()).expect("handshake");
        let mut word = [0; 6];
        for number in 0..3 {
            // It asks for ours as well.
            peer.feed(b"K\n");
            assert!(peer.said.waits_for(&"KEYUPDATE\n".repeat(number + 1)), "{}", peer.said.so_far());
            peer.feed(b"hello\n");
            (&file).read_exact(&mut word).expect("read");
            assert_eq!(&word, b"hello\n");
            (&file).write_all(b"and back\n").expect("write");
        }
        file.close().expect("close");
        assert_eq!(super::rig::all_said(peer).matches("and back").count(), 3);
    });
}

/// What a context's own callback has let pass is not the reason of what goes wrong later.
#[cfg(feature = "openssl")]
#[test]
fn an_accepted_certificate_is_not_blamed_for_a_broken_record() {
    use openssl::ssl::{SslContext, SslMethod, SslVerifyMode};
    use sslfile::Connection;

    use super::rig::at;
    use crate::common::server_builder;

    for version in VERSIONS {
        let mut builder = SslContext::builder(SslMethod::tls_client()).expect("builder");
        builder.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        let mut client = Connection::client(&builder.build().into(), NAME).expect("client");
        let server = at(version, server_builder(Engine::OpenSsl)).build().expect("context");
        let mut server = Connection::server(&server).expect("server");
        while client.handshake().is_err() | server.handshake().is_err() {
            for (from, to) in [(0, 1), (1, 0)] {
                let ends = [&mut client, &mut server];
                let output = ends[from].output().to_vec();
                ends[from].consume_output(output.len());
                ends[to].feed(&output);
            }
        }
        server.write(b"data").expect("write");
        let mut output = server.output().to_vec();
        *output.last_mut().expect("a record") ^= 1;
        client.feed(&output);
        let error = client.read(&mut [0; 4]).expect_err("broken");
        assert_eq!(kind_of(&error), Some(ErrorKind::LocalAlert(20)), "{version}: {error}");
        assert_eq!(client.take_alerts().last().map(sslfile::Alert::number), Some(20));
    }
}
