//! Several certificates on one server: by name, by a closure, and one for all others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sslfile::{Context, Engine, ErrorKind, Identity, Version};

use super::rig::{asking, at, context, flag, honours, named, serve, squeezed, with_openssl, write, VERSIONS};
use crate::authority::Authority;
use crate::common::{certs, engines, Pair};
use crate::harness::Bench;

/// The certificate that a client gets which asks for this name, as it prints it.
fn shown(bench: &Bench, context: &Context, version: Version, name: Option<&str>) -> (Option<String>, String) {
    let client = |port| {
        let mut command = asking(port, name);
        command.arg(flag(version));
        command
    };
    serve(bench, context, client, |file| file.server_name()).expect()
}

#[track_caller]
fn assert_shows(bench: &Bench, context: &Context, version: Version, name: Option<&str>, pair: &Pair) {
    let (_, said) = shown(bench, context, version, name);
    let leaf = pair.chain.split_inclusive("-----END CERTIFICATE-----").next().expect("leaf");
    assert!(squeezed(&said).contains(&squeezed(leaf)), "{version} {name:?}: {said}");
}

#[test]
fn the_name_asked_for_decides_and_one_is_for_all_others() {
    with_openssl(|bench| {
        let authority = Authority::new("names");
        let (one, many) = (named(&authority, "one.example"), named(&authority, "*.two.example"));
        for engine in engines() {
            for version in VERSIONS {
                // The default has another kind of key, which must not win over the name.
                let builder = Context::builder().identity(certs().rsa.identity());
                let builder = builder.add_identity("One.example", one.identity());
                let builder = builder.add_identity("*.two.example", many.identity());
                let Some(server) = context(engine, "add_identity", at(version, builder)) else { continue };
                for (name, pair) in [
                    (Some("one.example"), &one),
                    (Some("ONE.Example"), &one),
                    (Some("a.two.example"), &many),
                    (Some("two.example"), &certs().rsa),
                    (Some("b.a.two.example"), &certs().rsa),
                    (Some("three.example"), &certs().rsa),
                    (None, &certs().rsa),
                ] {
                    assert_shows(bench, &server, version, name, pair);
                }
            }
        }
    });
}

#[test]
fn the_whole_chain_of_the_chosen_one_is_sent() {
    with_openssl(|bench| {
        let root = Authority::new("root");
        let middle = root.intermediate("intermediate");
        let leaf = named(&middle, "one.example");
        let pair = Pair { chain: format!("{}{}", leaf.chain, middle.pem), key: leaf.key };
        let roots = write(bench, "one-root.pem", &root.pem);
        for engine in engines() {
            for version in VERSIONS {
                let builder = Context::builder().identity(certs().rsa.identity());
                let builder = at(version, builder.add_identity("one.example", pair.identity()));
                let Some(server) = context(engine, "add_identity", builder) else { continue };
                let client = |port| {
                    let mut command = asking(port, Some("one.example"));
                    command.args(["-verify_return_error", "-verify_hostname", "one.example", "-CAfile"]).arg(&roots);
                    command
                };
                let (_, said) = serve(bench, &server, client, |_| ()).expect();
                assert!(said.contains("Verify return code: 0 (ok)"), "{engine:?} {version}: {said}");
            }
        }
    });
}

/// What the library will not show as the only one, it will not as one of several, and says so as early.
#[test]
fn a_key_too_weak_to_show_is_refused_when_the_context_is_built() {
    with_openssl(|bench| {
        let (cert, key) = (write(bench, "weak.pem", ""), write(bench, "weak.key", ""));
        let mut command = std::process::Command::new("openssl");
        command
            .args(["req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=weak.example", "-keyout"])
            .arg(&key);
        let made = command.arg("-out").arg(&cert).output().expect("openssl");
        assert!(made.status.success(), "{made:?}");
        for engine in engines().into_iter().filter(|engine| honours(*engine, "add_identity")) {
            let Ok(weak) = Identity::from_pem_files(&cert, &key) else { continue };
            let alone = Context::builder().engine(engine).identity(weak.clone()).build();
            let named = Context::builder().engine(engine).add_identity("weak.example", weak).build();
            for built in [alone, named] {
                let error = built.expect_err("a weak key");
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{engine:?}: {error}");
                assert!(error.to_string().contains("weak.pem"), "{engine:?}: {error}");
            }
        }
    });
}

#[test]
fn exact_names_come_before_wildcards_and_the_first_before_the_second() {
    with_openssl(|bench| {
        let authority = Authority::new("names");
        let pairs = [(); 3].map(|()| named(&authority, "*.example"));
        for engine in engines() {
            let builder = Context::builder().add_identity("*.example", pairs[0].identity());
            let builder = builder.add_identity("one.example", pairs[1].identity());
            let builder = builder.add_identity("one.example", pairs[2].identity());
            let Some(server) = context(engine, "add_identity", builder) else { continue };
            assert_shows(bench, &server, Version::Tls1_3, Some("one.example"), &pairs[1]);
            assert_shows(bench, &server, Version::Tls1_3, Some("two.example"), &pairs[0]);
        }
    });
}

#[test]
fn without_a_default_strangers_are_refused_with_unrecognized_name() {
    with_openssl(|bench| {
        let one = named(&Authority::new("names"), "one.example");
        for engine in engines() {
            for version in VERSIONS {
                let builder = at(version, Context::builder().add_identity("one.example", one.identity()));
                let Some(server) = context(engine, "add_identity", builder) else { continue };
                for name in [Some("two.example"), None] {
                    let met = serve(bench, &server, |port| asking(port, name), |_| ());
                    met.refused(ErrorKind::LocalAlert(112), "alert number 112");
                }
                assert_shows(bench, &server, version, Some("one.example"), &one);
            }
        }
    });
}

#[test]
fn a_closure_chooses_and_may_leave_it_to_the_names() {
    with_openssl(|bench| {
        let authority = Authority::new("names");
        let (one, two) = (named(&authority, "one.example"), named(&authority, "two.example"));
        for engine in engines().into_iter().filter(|engine| honours(*engine, "choose_identity")) {
            for version in VERSIONS {
                let asked: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
                let (noted, chosen) = (asked.clone(), one.identity());
                let builder = Context::builder().identity(certs().rsa.identity());
                let builder = builder.add_identity("two.example", two.identity()).choose_identity(move |hello| {
                    noted.lock().expect("lock").push(hello.server_name().map(str::to_string));
                    (hello.server_name() == Some("one.example")).then(|| chosen.clone())
                });
                let Some(server) = context(engine, "choose_identity", at(version, builder)) else { continue };
                assert_shows(bench, &server, version, Some("one.example"), &one);
                assert_shows(bench, &server, version, Some("two.example"), &two);
                assert_shows(bench, &server, version, None, &certs().rsa);
                let asked = asked.lock().expect("lock");
                let expected = [Some("one.example".to_string()), Some("two.example".to_string()), None];
                assert_eq!(*asked, expected, "{engine:?} {version}");
            }
        }
    });
}

/// The client has to say its first words twice (RFC 8446, section 4.1.4).
#[test]
fn a_repeated_client_hello_gets_its_certificate_too() {
    with_openssl(|bench| {
        let middle = Authority::new("root").intermediate("intermediate");
        let leaf = named(&middle, "one.example");
        let pair = Pair { chain: format!("{}{}", leaf.chain, middle.pem), key: leaf.key };
        for engine in engines().into_iter().filter(|engine| honours(*engine, "choose_identity")) {
            let asked = Arc::new(AtomicUsize::new(0));
            let (chosen, count) = (pair.identity(), asked.clone());
            let builder = Context::builder().groups("secp384r1").choose_identity(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Some(chosen.clone())
            });
            let Some(server) = context(engine, "choose_identity", builder) else { continue };
            let client = |port| {
                let mut command = asking(port, Some("one.example"));
                // It sends a key for the first of them.
                command.args(["-msg", "-showcerts", "-groups", "X25519:P-384"]);
                command
            };
            let (_, said) = serve(bench, &server, client, |_| ()).expect();
            assert_eq!(said.matches(", ClientHello").count(), 2, "{engine:?}: {said}");
            let chain = said.split("\nServer certificate\n").next().expect("chain");
            assert_eq!(chain.matches("-----BEGIN CERTIFICATE-----").count(), 2, "{engine:?}: {said}");
            assert!(squeezed(&said).contains(&squeezed(&leaf.chain)), "{engine:?}: {said}");
            if engine == Engine::OpenSsl {
                assert_eq!(asked.load(Ordering::SeqCst), 1);
            }
        }
    });
}

#[test]
fn a_closure_that_panics_refuses_the_client_and_no_other() {
    with_openssl(|bench| {
        for engine in engines() {
            let builder = Context::builder().identity(certs().ecdsa.identity()).choose_identity(|hello| {
                assert_ne!(hello.server_name(), Some("panic.example"), "as the test wants");
                None
            });
            let Some(server) = context(engine, "choose_identity", builder) else { continue };
            let client = |port| asking(port, Some("panic.example"));
            serve(bench, &server, client, |_| ()).refused(ErrorKind::LocalAlert(112), "alert number 112");
            assert_shows(bench, &server, Version::Tls1_3, Some("one.example"), &certs().ecdsa);
        }
    });
}

/// RFC 8737: whoever asks for the protocol is shown the certificate with the answer, and everybody else the usual one.
#[test]
fn an_acme_challenge_is_answered_by_what_the_client_offers() {
    with_openssl(|bench| {
        let authority = Authority::new("names");
        let (answer, usual) = (named(&authority, "one.example"), named(&authority, "one.example"));
        for engine in engines().into_iter().filter(|engine| honours(*engine, "choose_identity")) {
            for version in VERSIONS {
                let challenge = answer.identity();
                let builder = Context::builder().alpn(["http/1.1", "acme-tls/1"]).identity(usual.identity());
                let builder = builder.choose_identity(move |hello| {
                    let is_challenge = hello.alpn().any(|protocol| protocol == b"acme-tls/1");
                    (is_challenge && hello.server_name() == Some("one.example")).then(|| challenge.clone())
                });
                let server = at(version, builder).engine(engine).build().expect("context");
                for (offered, name, pair, agreed) in [
                    (Some("acme-tls/1"), "one.example", &answer, Some("acme-tls/1")),
                    (Some("acme-tls/1"), "two.example", &usual, Some("acme-tls/1")),
                    (Some("h2,http/1.1"), "one.example", &usual, Some("http/1.1")),
                    (None, "one.example", &usual, None),
                ] {
                    let client = |port| {
                        let mut command = asking(port, Some(name));
                        if let Some(offered) = offered {
                            command.args(["-alpn", offered]);
                        }
                        command
                    };
                    let (alpn, said) = serve(bench, &server, client, |file| file.alpn()).expect();
                    assert_eq!(alpn.as_deref(), agreed.map(str::as_bytes), "{engine:?} {version}");
                    assert!(agreed.is_none_or(|agreed| said.contains(&format!("ALPN protocol: {agreed}"))), "{said}");
                    assert!(
                        squeezed(&said).contains(&squeezed(&pair.chain)),
                        "{engine:?} {version} {offered:?}: {said}"
                    );
                }
            }
        }
    });
}

#[test]
fn the_closure_that_chooses_is_told_all_that_the_client_offers() {
    type Offered = (Vec<Vec<u8>>, Option<Vec<Version>>, Vec<u16>);
    with_openssl(|bench| {
        for engine in engines().into_iter().filter(|engine| honours(*engine, "choose_identity")) {
            let heard: Arc<Mutex<Option<Offered>>> = Arc::default();
            let noted = heard.clone();
            let builder = Context::builder().engine(engine).identity(certs().ecdsa.identity());
            let builder = builder.choose_identity(move |hello| {
                let alpn = hello.alpn().map(<[u8]>::to_vec).collect();
                let offered = (alpn, hello.versions().map(<[Version]>::to_vec), hello.cipher_suites().to_vec());
                *noted.lock().expect("lock") = Some(offered);
                None
            });
            let server = builder.build().expect("context");
            let suites = ["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256", "-ciphersuites", "TLS_AES_256_GCM_SHA384"];
            for (arguments, versions, expected) in [
                (&["-min_protocol", "TLSv1.2"][..], vec![Version::Tls1_3, Version::Tls1_2], vec![0x1302, 0xc02b]),
                (&["-tls1_2"], vec![Version::Tls1_2], vec![0xc02b]),
                (&["-tls1_3"], vec![Version::Tls1_3], vec![0x1302]),
            ] {
                let client = |port| {
                    let mut command = asking(port, Some("one.example"));
                    command.args(suites).args(arguments);
                    command
                };
                serve(bench, &server, client, |_| ()).expect();
                let (alpn, told, mut offered) = heard.lock().expect("lock").take().expect("asked");
                assert!(alpn.is_empty(), "{engine:?}: {alpn:?}");
                let known = (engine == Engine::OpenSsl).then_some(versions);
                assert_eq!(told, known, "{engine:?} {arguments:?}");
                // TLS_EMPTY_RENEGOTIATION_INFO_SCSV
                offered.retain(|suite| *suite != 0x00ff);
                assert_eq!(offered, expected, "{engine:?} {arguments:?}");
            }
        }
    });
}
