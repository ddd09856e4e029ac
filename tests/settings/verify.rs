//! The closure that has the last word on a peer's certificate.

use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, Issuer, KeyPair, NameConstraints};
use sslfile::{Certificate, ClientAuth, Context, ContextBuilder, Engine, ErrorKind, SslFile};

use super::rig::{
    at, context, flag, s_client, s_server, s_server_at, serve, visit, with_openssl, Own, Server, VERSIONS,
};
use crate::authority::{leaf_params, Authority};
use crate::common::{ca, certs, client_builder, engines, Pair, NAME};

type Heard = Arc<Mutex<Vec<(Vec<Certificate>, Option<String>)>>>;

/// Notes what it is asked, and says `answer`.
fn asking(builder: ContextBuilder, answer: Result<(), &'static str>) -> (ContextBuilder, Heard) {
    let heard = Heard::default();
    let notes = heard.clone();
    let builder = builder.verify(move |peer| {
        assert_eq!(peer.leaf(), &peer.chain()[0]);
        notes.lock().expect("lock").push((peer.chain().to_vec(), peer.server_name().map(str::to_string)));
        answer.map_err(str::to_string)
    });
    (builder, heard)
}

fn count(heard: &Heard) -> usize {
    heard.lock().expect("lock").len()
}

#[test]
fn it_sees_what_a_server_sent_once_and_may_refuse_it() {
    with_openssl(|bench| {
        let root = Authority::new("root");
        let middle = root.intermediate("intermediate");
        let leaf = middle.sign(leaf_params());
        let pair = Pair { chain: format!("{}{}", leaf.chain, middle.pem), key: leaf.key };
        let own = Own::new(bench, "server", &pair);
        for engine in engines() {
            for version in VERSIONS {
                let server = |port| s_server_at(port, version, &own);
                let trusting = || client_builder(engine).add_root(root.certificate());
                let (builder, heard) = asking(trusting(), Ok(()));
                let Some(client) = context(engine, "verify", builder) else { continue };
                visit(bench, &client, server, |_| ()).expect();
                let sent = vec![Certificate::from_pem(pair.chain.as_bytes()).expect("leaf"), middle.certificate()];
                let expected = vec![(sent, Some(NAME.to_string()))];
                assert_eq!(*heard.lock().expect("lock"), expected, "{engine:?} {version}");

                let (builder, heard) = asking(trusting(), Err("not on a Sunday"));
                let client = builder.build().expect("context");
                let text = visit(bench, &client, server, |_| ()).refused(ErrorKind::Certificate, "alert number");
                assert!(text.contains("not on a Sunday"), "{engine:?} {version}: {text}");
                assert_eq!(count(&heard), 1, "{engine:?} {version}");

                // Nobody is asked about what does not pass the usual checks, whatever the answer would be.
                let (builder, heard) = asking(client_builder(engine), Ok(()));
                let client = builder.build().expect("context");
                visit(bench, &client, server, |_| ()).refused(ErrorKind::Certificate, "alert number 48");
                assert_eq!(count(&heard), 0, "{engine:?} {version}");

                // Unless there are none.
                for (answer, accepted) in [(Ok(()), true), (Err("not this one"), false)] {
                    let builder = client_builder(engine).danger_accept_invalid_certs(true);
                    let (builder, heard) = asking(builder, answer);
                    let client = builder.build().expect("context");
                    let met = visit(bench, &client, server, |_| ());
                    assert_eq!(met.ours.is_ok(), accepted, "{engine:?} {version}: {}", met.said);
                    assert_eq!(count(&heard), 1, "{engine:?} {version}");
                }
            }
        }
    });
}

#[test]
fn another_name_is_refused_before_anybody_is_asked() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().other_name);
        for engine in engines() {
            let (builder, heard) = asking(client_builder(engine), Ok(()));
            let Some(client) = context(engine, "verify", builder) else { continue };
            let met = visit(bench, &client, |port| s_server(port, 1, &own), |_| ());
            met.refused(ErrorKind::HostnameMismatch, "alert number 42");
            assert_eq!(count(&heard), 0, "{engine:?}");
        }
    });
}

/// Under an authority that may not speak for this name. OpenSSL looks at that last of all, when the closure has been asked.
#[test]
fn what_the_closure_accepts_may_still_be_refused_for_name_constraints() {
    with_openssl(|bench| {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "for another domain");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("another.example".to_string())],
            excluded_subtrees: Vec::new(),
        });
        let root = params.self_signed(&key).expect("ca");
        let leaf_key = KeyPair::generate().expect("key");
        let leaf = leaf_params().signed_by(&leaf_key, &Issuer::new(params, key)).expect("leaf");
        let own = Own::new(bench, "server", &Pair { chain: leaf.pem(), key: leaf_key.serialize_pem() });
        for engine in engines() {
            let root = Certificate::from_pem(root.pem().as_bytes()).expect("root");
            let (builder, heard) = asking(client_builder(engine).add_root(root), Ok(()));
            let Some(client) = context(engine, "verify", builder) else { continue };
            visit(bench, &client, |port| s_server(port, 1, &own), |_| ())
                .refused(ErrorKind::Certificate, "alert number");
            assert_eq!(count(&heard), usize::from(engine == Engine::OpenSsl), "{engine:?}");
        }
    });
}

#[test]
fn a_server_asks_about_the_certificate_that_a_client_shows() {
    with_openssl(|bench| {
        let own = Own::new(bench, "client", &certs().client);
        for engine in engines().into_iter().filter(|engine| super::rig::honours(*engine, "verify")) {
            for version in VERSIONS {
                let serving = |answer| {
                    let builder = Context::builder().engine(engine).identity(certs().ecdsa.identity()).add_root(ca());
                    let (builder, heard) = asking(at(version, builder.client_auth(ClientAuth::Request)), answer);
                    (builder.build().expect("context"), heard)
                };
                let showing = |port| {
                    let mut command = s_client(port);
                    own.show(&mut command);
                    command
                };
                let (server, heard) = serving(Ok(()));
                serve(bench, &server, s_client, |_| ()).expect();
                assert_eq!(count(&heard), 0, "{engine:?} {version}: it has shown none");
                serve(bench, &server, showing, |_| ()).expect();
                let leaf = Certificate::from_pem(certs().client.chain.as_bytes()).expect("leaf");
                let seen = heard.lock().expect("lock").clone();
                assert_eq!(seen.len(), 1, "{engine:?} {version}");
                assert_eq!((&seen[0].0[0], &seen[0].1), (&leaf, &None), "{engine:?} {version}");

                let (server, _) = serving(Err("not this client"));
                let text = serve(bench, &server, showing, |_| ()).refused(ErrorKind::Certificate, "alert number");
                assert!(text.contains("not this client"), "{engine:?} {version}: {text}");
            }
        }
    });
}

#[test]
fn a_resumed_session_asks_nobody() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            for version in VERSIONS {
                let (builder, heard) = asking(client_builder(engine), Ok(()));
                let Some(client) = context(engine, "verify", builder) else { continue };
                let server = Server::start(bench, |port| {
                    let mut command = s_server(port, 2, &own);
                    command.arg(flag(version));
                    command
                });
                let look = |file: &SslFile| (file.is_resumed(), file.verified_chain().is_some());
                assert_eq!(server.visit(&client, NAME, look).expect("visit"), (Some(false), true));
                assert_eq!(server.visit(&client, NAME, look).expect("visit"), (Some(true), false));
                assert_eq!(count(&heard), 1, "{engine:?} {version}");
            }
        }
    });
}

#[test]
fn one_that_panics_refuses_the_peer() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            let builder = client_builder(engine).verify(|_| panic!("as the test wants"));
            let Some(client) = context(engine, "verify", builder) else { continue };
            let met = visit(bench, &client, |port| s_server(port, 1, &own), |_| ());
            met.refused(ErrorKind::Certificate, "alert number");
        }
    });
}
