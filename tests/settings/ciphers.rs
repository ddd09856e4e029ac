//! Cipher suites, groups, signature algorithms, and whose order counts.

use sslfile::{Context, ContextBuilder, Engine, ErrorKind, Version};

use super::rig::{at, context, honours, s_client, s_server, serve, squeezed, visit, with_openssl, Own};
use crate::common::{certs, client_builder, engines, server_builder, servers_know_group_in_tls_1_2};

const TLS12: [&str; 2] = ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];

#[test]
fn the_suites_up_to_tls_1_2_are_those_listed() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            for name in TLS12 {
                let builder = at(Version::Tls1_2, server_builder(engine).cipher_list(name));
                let Some(server) = context(engine, "cipher_list", builder) else { continue };
                let (ours, said) = serve(bench, &server, s_client, |file| file.cipher()).expect();
                assert_eq!(ours.as_deref(), Some(name), "{engine:?}");
                assert!(said.contains(&format!("Cipher is {name}\n")), "{engine:?}: {said}");
            }
            let both = TLS12.join(":");
            let builder = at(Version::Tls1_2, client_builder(engine).cipher_list(&both));
            let Some(client) = context(engine, "cipher_list", builder) else { continue };
            let server = |port| s_server(port, 1, &own);
            let (_, said) = visit(bench, &client, server, |_| ()).expect();
            let offered = TLS12.join(":");
            assert!(said.contains(&format!("Shared ciphers:{offered}\n")), "{engine:?}: {said}");
        }
    });
}

#[test]
fn the_suites_of_tls_1_3_are_those_listed() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            for name in ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"] {
                let builder = at(Version::Tls1_3, server_builder(engine).ciphersuites(name));
                let Some(server) = context(engine, "ciphersuites", builder) else { continue };
                let (_, said) = serve(bench, &server, s_client, |_| ()).expect();
                assert!(said.contains(&format!("Cipher is {name}\n")), "{engine:?}: {said}");
                let builder = at(Version::Tls1_3, client_builder(engine).ciphersuites(name));
                let client = builder.build().expect("context");
                let (_, said) = visit(bench, &client, |port| s_server(port, 1, &own), |_| ()).expect();
                assert!(said.contains(&format!("CIPHER is {name}\n")), "{engine:?}: {said}");
            }
        }
    });
}

#[test]
fn no_suite_in_common_is_a_handshake_failure() {
    with_openssl(|bench| {
        for engine in engines() {
            let builder = at(Version::Tls1_2, server_builder(engine).cipher_list(TLS12[0]));
            let Some(server) = context(engine, "cipher_list", builder) else { continue };
            let client = |port| {
                let mut command = s_client(port);
                command.args(["-tls1_2", "-cipher", TLS12[1]]);
                command
            };
            serve(bench, &server, client, |_| ()).refused(ErrorKind::LocalAlert(40), "alert number 40");
        }
    });
}

#[test]
fn whose_order_of_suites_decides_is_as_said() {
    with_openssl(|bench| {
        for engine in engines().into_iter().filter(|engine| honours(*engine, "prefer_server_order")) {
            for (said, server_decides) in [(None, true), (Some(true), true), (Some(false), false)] {
                let builder = said.iter().fold(server_builder(engine), |b, yes| b.prefer_server_order(*yes));
                let list = TLS12.join(":");
                let server = at(Version::Tls1_2, builder.clone().cipher_list(&list)).build().expect("context");
                let client = |port| {
                    let mut command = s_client(port);
                    command.args(["-tls1_2", "-cipher", &format!("{}:{}", TLS12[1], TLS12[0])]);
                    command
                };
                let (_, heard) = serve(bench, &server, client, |_| ()).expect();
                let chosen = TLS12[if server_decides { 0 } else { 1 }];
                assert!(heard.contains(&format!("Cipher is {chosen}\n")), "{engine:?} {said:?}: {heard}");

                let suites = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"];
                let server = at(Version::Tls1_3, builder.ciphersuites(&suites.join(":"))).build().expect("context");
                let client = |port| {
                    let mut command = s_client(port);
                    command.args(["-ciphersuites", &format!("{}:{}", suites[1], suites[0])]);
                    command
                };
                let (_, heard) = serve(bench, &server, client, |_| ()).expect();
                let chosen = suites[if server_decides { 0 } else { 1 }];
                assert!(heard.contains(&format!("Cipher is {chosen}\n")), "{engine:?} {said:?}: {heard}");
            }
        }
    });
}

/// How `openssl` writes the group of the key exchange, without its spaces.
fn temp_key(group: &str) -> &'static [&'static str] {
    match group {
        "x25519" => &["TempKey:X25519"],
        "secp256r1" => &["TempKey:ECDH,prime256v1", "TempKey:ECDH,P-256"],
        "secp384r1" => &["TempKey:ECDH,secp384r1", "TempKey:ECDH,P-384"],
        _ => panic!("{group}"),
    }
}

#[test]
fn the_groups_are_those_listed_by_either_name() {
    with_openssl(|bench| {
        // An ECDSA certificate would ask for a group of its own in TLS 1.2.
        let own = Own::new(bench, "server", &certs().rsa);
        for engine in engines() {
            for version in super::rig::VERSIONS {
                for (list, group) in [
                    ("x25519", "x25519"),
                    ("X25519", "x25519"),
                    ("secp256r1", "secp256r1"),
                    ("P-256", "secp256r1"),
                    ("p-384", "secp384r1"),
                    ("SECP384R1", "secp384r1"),
                ] {
                    let case = format!("{engine:?} {version} {list}");
                    let builder = at(version, server_builder(engine).identity(certs().rsa.identity()).groups(list));
                    let Some(server) = context(engine, "groups", builder) else { continue };
                    let (ours, said) = serve(bench, &server, s_client, |file| file.group()).expect();
                    let squeezed = squeezed(&said);
                    assert!(temp_key(group).iter().any(|key| squeezed.contains(key)), "{case}: {said}");
                    let knows = version == Version::Tls1_3 || servers_know_group_in_tls_1_2(engine);
                    assert_eq!(ours.as_deref(), Some(group).filter(|_| knows), "{case}");

                    let client = at(version, client_builder(engine).groups(list)).build().expect("context");
                    let (ours, said) =
                        visit(bench, &client, |port| s_server(port, 1, &own), |file| file.group()).expect();
                    assert_eq!(ours.as_deref(), Some(group), "{case}: {said}");
                }
            }
        }
    });
}

/// A group that the server has, but for which the client has sent no key (RFC 8446, section 4.1.4).
#[test]
fn a_group_second_on_the_client_s_list_costs_a_round_trip_and_is_agreed_on() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            let builder = at(Version::Tls1_3, server_builder(engine).groups("secp384r1"));
            let Some(server) = context(engine, "groups", builder) else { continue };
            let client = |port| {
                let mut command = s_client(port);
                command.args(["-msg", "-groups", "X25519:P-384"]);
                command
            };
            let (group, said) = serve(bench, &server, client, |file| file.group()).expect();
            assert_eq!(said.matches(", ClientHello").count(), 2, "{engine:?}: {said}");
            assert_eq!(group.as_deref(), Some("secp384r1"), "{engine:?}");

            let client = client_builder(engine).groups("x25519:secp384r1").build().expect("context");
            let server = |port| {
                let mut command = s_server(port, 1, &own);
                command.args(["-msg", "-groups", "P-384"]);
                command
            };
            let (group, said) = visit(bench, &client, server, |file| file.group()).expect();
            assert_eq!(said.matches(", ClientHello").count(), 2, "{engine:?}: {said}");
            assert_eq!(group.as_deref(), Some("secp384r1"), "{engine:?}");
        }
    });
}

#[test]
fn no_group_in_common_is_a_handshake_failure() {
    with_openssl(|bench| {
        for engine in engines() {
            let builder = at(Version::Tls1_3, server_builder(engine).groups("secp384r1"));
            let Some(server) = context(engine, "groups", builder) else { continue };
            let client = |port| {
                let mut command = s_client(port);
                command.args(["-groups", "X25519"]);
                command
            };
            serve(bench, &server, client, |_| ()).refused(ErrorKind::LocalAlert(40), "alert number 40");
        }
    });
}

#[test]
fn the_signature_algorithms_are_those_listed() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().rsa);
        for engine in engines() {
            for version in super::rig::VERSIONS {
                for (name, digest) in [("rsa_pss_rsae_sha512", "SHA512"), ("RSA_PSS_RSAE_SHA384", "SHA384")] {
                    let builder = Context::builder().identity(certs().rsa.identity()).signature_algorithms(name);
                    let Some(server) = context(engine, "signature_algorithms", at(version, builder)) else { continue };
                    let (_, said) = serve(bench, &server, s_client, |_| ()).expect();
                    assert!(said.contains(&format!("Peer signing digest: {digest}\n")), "{engine:?} {version}: {said}");
                    // By its name in TLS 1.3 since OpenSSL 3.5, here and below.
                    let lower = name.to_ascii_lowercase();
                    let types = ["RSA-PSS", &lower].map(|name| format!("Peer signature type: {name}\n"));
                    assert!(types.iter().any(|line| said.contains(line)), "{engine:?} {version}: {said}");

                    // With what the test CA signs its certificates.
                    let list = format!("{name}:ecdsa_secp256r1_sha256");
                    let client =
                        at(version, client_builder(engine).signature_algorithms(&list)).build().expect("context");
                    let (_, said) = visit(bench, &client, |port| s_server(port, 1, &own), |_| ()).expect();
                    let offered = [format!("RSA-PSS+{digest}:ECDSA+SHA256"), list.to_ascii_lowercase()]
                        .map(|offered| format!("\nSignature Algorithms: {offered}\n"));
                    assert!(offered.iter().any(|line| said.contains(line)), "{engine:?} {version}: {said}");
                }
                // What is not listed is not used, though the key could.
                let builder = Context::builder().identity(certs().rsa.identity());
                let builder = at(version, builder.signature_algorithms("rsa_pss_rsae_sha512"));
                let Some(server) = context(engine, "signature_algorithms", builder) else { continue };
                let client = |port| {
                    let mut command = s_client(port);
                    command.args(["-sigalgs", "rsa_pss_rsae_sha256"]);
                    command
                };
                serve(bench, &server, client, |_| ()).refused(ErrorKind::LocalAlert(40), "alert number 40");
            }
        }
    });
}

#[test]
fn names_that_are_none_are_refused_with_the_option() {
    for engine in engines() {
        type Set = fn(ContextBuilder, &str) -> ContextBuilder;
        let options: [(&str, Set); 4] = [
            ("cipher_list", ContextBuilder::cipher_list),
            ("ciphersuites", ContextBuilder::ciphersuites),
            ("groups", ContextBuilder::groups),
            ("signature_algorithms", ContextBuilder::signature_algorithms),
        ];
        for (option, set) in options {
            if !honours(engine, option) {
                continue;
            }
            for bad in ["NO_SUCH_THING", "with\0nul", ":"] {
                let error = set(client_builder(engine), bad).build().expect_err("a name that is none");
                // A word of OpenSSL's language, for all that rustls knows.
                let unknown = match engine {
                    Engine::Rustls if bad != ":" => std::io::ErrorKind::Unsupported,
                    _ => std::io::ErrorKind::InvalidInput,
                };
                assert_eq!(error.kind(), unknown, "{engine:?} {option} {bad:?}: {error}");
                assert!(error.to_string().contains(option), "{engine:?} {option} {bad:?}: {error}");
            }
        }
    }
}

/// Certificates, pins and closures would be passed by.
#[test]
fn no_suite_without_certificates_is_taken_where_the_peer_is_to_be_checked() {
    const ALL: &str = "ALL:@SECLEVEL=0";
    const ANONYMOUS: [&str; 3] = ["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"];
    let engine = Engine::OpenSsl;
    if !engines().contains(&engine) {
        return;
    }
    with_openssl(move |bench| {
        let server = |port| {
            let mut command = std::process::Command::new("openssl");
            command
                .args(["s_server", "-nocert", "-naccept", "1", "-accept", &format!("127.0.0.1:{port}")])
                .args(ANONYMOUS);
            command
        };
        let client = || at(Version::Tls1_2, client_builder(engine).cipher_list(ALL));
        let all = client().danger_accept_invalid_certs(true);
        visit(bench, &all.clone().build().expect("context"), server, |file| file.cipher()).expect();
        for checks in [client(), all.clone().pin([7; 32]), all.verify(|_| Ok(()))] {
            let met = visit(bench, &checks.build().expect("context"), server, |file| file.cipher());
            assert!(met.ours.is_err(), "a server that is nobody: {:?}", met.ours);
        }
        let server = at(Version::Tls1_2, server_builder(engine).cipher_list(ALL));
        let anonymous = |port| {
            let mut command = s_client(port);
            command.args(ANONYMOUS);
            command
        };
        serve(bench, &server.clone().build().expect("context"), anonymous, |file| file.cipher()).expect();
        let server = server.add_root(crate::common::ca()).client_auth(sslfile::ClientAuth::Require);
        let met = serve(bench, &server.build().expect("context"), anonymous, |file| file.cipher());
        assert!(met.ours.is_err(), "a client that is nobody: {:?}", met.ours);
    });
}
