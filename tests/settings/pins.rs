//! Pins: the SHA-256 of a public key that must be in the chain of trust.

use std::io::Write;
use std::process::{Command, Stdio};

use ring::digest::{digest, SHA256};
use sslfile::{ClientAuth, Context, ErrorKind};

use super::rig::{at, context, named, s_client, s_server, s_server_at, serve, visit, with_openssl, Own, VERSIONS};
use crate::authority::{leaf_params, Authority};
use crate::common::{ca, certs, client_builder, engines, Pair, RSA_KEY};

/// Of the first certificate in this text.
fn pin(certificate: &str) -> [u8; 32] {
    let mut command = Command::new("openssl");
    command.args(["x509", "-pubkey", "-noout"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut tool = command.spawn().expect("openssl x509");
    // It need not read what follows the first.
    let _ = tool.stdin.take().expect("stdin").write_all(certificate.as_bytes());
    let key = pem::parse(tool.wait_with_output().expect("openssl x509").stdout).expect("key");
    digest(&SHA256, key.contents()).as_ref().try_into().expect("32 bytes")
}

struct Chain {
    root: Authority,
    middle: Authority,
    /// Signs nothing here.
    other: Authority,
    /// The leaf, the intermediate, and the other authority's certificate, which has no business there.
    pair: Pair,
}

fn chain() -> Chain {
    let root = Authority::new("pinned root");
    let middle = root.intermediate("pinned intermediate");
    let other = Authority::new("unrelated");
    let leaf = middle.sign(leaf_params());
    let pair = Pair { chain: format!("{}{}{}", leaf.chain, middle.pem, other.pem), key: leaf.key };
    Chain { root, middle, other, pair }
}

#[test]
fn one_of_the_pinned_keys_must_be_in_the_verified_chain() {
    with_openssl(|bench| {
        let chain = chain();
        let own = Own::new(bench, "server", &chain.pair);
        let leaf = pin(&chain.pair.chain);
        for engine in engines() {
            for version in VERSIONS {
                let server = |port| s_server_at(port, version, &own);
                let with = |pins: &[[u8; 32]]| {
                    let builder = client_builder(engine).add_root(chain.root.certificate());
                    context(engine, "pin", pins.iter().fold(builder, |b, pin| b.pin(*pin)))
                };
                for good in [vec![leaf], vec![pin(&chain.middle.pem)], vec![pin(&chain.root.pem)], vec![[7; 32], leaf]]
                {
                    let Some(client) = with(&good) else { continue };
                    let (sent, _) = visit(bench, &client, server, |file| file.peer_certificates()).expect();
                    let sent = sent.expect("it knows");
                    assert!(sent.len() == 3 && sent.contains(&chain.other.certificate()), "{engine:?} {version}");
                }
                // The unrelated one is among what the peer sends, as was just seen.
                for bad in [vec![[7; 32]], vec![pin(&chain.other.pem)], vec![pin(&certs().ca_pem)]] {
                    let Some(client) = with(&bad) else { continue };
                    let text = visit(bench, &client, server, |_| ()).refused(ErrorKind::Certificate, "alert number");
                    assert!(text.contains("pin"), "{engine:?} {version}: {text}");
                }
            }
        }
    });
}

/// A pin does not make up for a bad certificate.
#[test]
fn pins_come_on_top_of_the_usual_checks() {
    with_openssl(|bench| {
        let chain = chain();
        let own = Own::new(bench, "server", &chain.pair);
        for engine in engines() {
            let builder = client_builder(engine).pin(pin(&chain.pair.chain));
            let Some(client) = context(engine, "pin", builder) else { continue };
            let met = visit(bench, &client, |port| s_server(port, 1, &own), |_| ());
            met.refused(ErrorKind::Certificate, "alert number 48");
        }
    });
}

#[test]
fn where_any_certificate_will_do_only_the_peer_s_own_key_counts() {
    with_openssl(|bench| {
        let chain = chain();
        let own = Own::new(bench, "server", &chain.pair);
        for engine in engines() {
            for version in VERSIONS {
                let server = |port| s_server_at(port, version, &own);
                let with = |sha256| {
                    let builder = client_builder(engine).danger_accept_invalid_certs(true).pin(sha256);
                    context(engine, "pin", builder)
                };
                let Some(client) = with(pin(&chain.pair.chain)) else { continue };
                visit(bench, &client, server, |_| ()).expect();
                for bad in [[7; 32], pin(&chain.middle.pem), pin(&chain.other.pem)] {
                    let Some(client) = with(bad) else { continue };
                    visit(bench, &client, server, |_| ()).refused(ErrorKind::Certificate, "alert number");
                }
            }
        }
    });
}

#[test]
fn a_server_pins_its_clients() {
    with_openssl(|bench| {
        let own = Own::new(bench, "client", &certs().client);
        for engine in engines() {
            for version in VERSIONS {
                let with = |sha256| {
                    let builder = Context::builder().identity(certs().ecdsa.identity()).add_root(ca()).pin(sha256);
                    // Without the option that it is about, where both are refused.
                    let builder = match super::rig::honours(engine, "client_auth") {
                        true => builder.client_auth(ClientAuth::Require),
                        false => builder,
                    };
                    context(engine, "pin", at(version, builder))
                };
                let client = |port| {
                    let mut command = s_client(port);
                    own.show(&mut command);
                    command
                };
                for good in [pin(&certs().client.chain), pin(&certs().ca_pem)] {
                    let Some(server) = with(good) else { continue };
                    serve(bench, &server, client, |_| ()).expect();
                }
                let Some(server) = with([7; 32]) else { continue };
                serve(bench, &server, client, |_| ()).refused(ErrorKind::Certificate, "alert number");
            }
        }
    });
}

/// As the documentation has it.
#[test]
fn the_openssl_command_line_makes_the_same_pins() {
    with_openssl(|bench| {
        let rsa = Pair { chain: named(&Authority::new("rsa"), "rsa.example").chain, key: RSA_KEY.to_string() };
        for pair in [&certs().ecdsa, &certs().rsa, &rsa] {
            let file = super::rig::write(bench, "cert.pem", &pair.chain);
            let line =
                "openssl x509 -in \"$0\" -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256";
            let output = std::process::Command::new("sh").args(["-c", line]).arg(&file).output().expect("sh");
            let said = String::from_utf8_lossy(&output.stdout).to_string();
            let expected: String = pin(&pair.chain).iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(said.trim().ends_with(&expected), "{said}: {expected}");
        }
    });
}
