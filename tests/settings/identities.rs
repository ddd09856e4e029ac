//! Several certificates on one server: by name, by a closure, and one for all others.

use std::sync::{Arc, Mutex};

use sslfile::{Context, Engine, ErrorKind, Version};

use super::rig::{asking, at, context, flag, named, refused, serve, squeezed, with_openssl, VERSIONS};
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
        for engine in engines().into_iter().filter(|engine| !refused(*engine).contains(&"choose_identity")) {
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
        let one = named(&Authority::new("names"), "one.example");
        for engine in engines() {
            let builder = Context::builder().add_identity("one.example", one.identity());
            let Some(server) = context(engine, "add_identity", builder) else { continue };
            let client = |port| {
                let mut command = asking(port, Some("one.example"));
                // It sends a key for the first of them.
                command.args(["-msg", "-groups", "ffdhe2048:P-384"]);
                command
            };
            let (_, said) = serve(bench, &server, client, |_| ()).expect();
            let hellos = said.matches(", ClientHello").count();
            // OpenSSL's servers have ffdhe2048.
            assert_eq!(hellos, if engine == Engine::OpenSsl { 1 } else { 2 }, "{engine:?}: {said}");
            let builder = Context::builder().add_identity("one.example", one.identity()).groups("secp384r1");
            let Some(server) = context(engine, "groups", builder) else { continue };
            let (_, said) = serve(bench, &server, client, |_| ()).expect();
            assert_eq!(said.matches(", ClientHello").count(), 2, "{engine:?}: {said}");
            let leaf = one.chain.trim();
            assert!(squeezed(&said).contains(&squeezed(leaf)), "{engine:?}: {said}");
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
