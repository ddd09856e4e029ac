//! Revocation lists: what they refuse, what passes, and which are none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use sslfile::{ClientAuth, Context, ContextBuilder, Engine, ErrorKind};

use super::rig::{
    assert_unsupported, at, context, flag, honours, s_client, s_server, s_server_at, serve, visit, with_openssl, Own,
    Server, VERSIONS,
};
use crate::authority::{leaf_params, Authority};
use crate::common::{certs, client_builder, engines, kind_of, Pair, NAME};
use crate::harness::Bench;

/// A root, an intermediate with the number 20, and leaves below it.
struct Tree {
    root: Authority,
    middle: Authority,
}

/// In the year 2026 and long after.
const FRESH: i32 = 2090;
const STALE: i32 = 2002;

impl Tree {
    fn new() -> Tree {
        let root = Authority::new("root");
        let middle = root.numbered_intermediate("intermediate", 20);
        Tree { root, middle }
    }

    fn leaf(&self, serial: u64) -> Pair {
        let leaf = self.middle.numbered(serial);
        Pair { chain: format!("{}{}", leaf.chain, self.middle.pem), key: leaf.key }
    }

    fn client(&self, engine: Engine) -> ContextBuilder {
        client_builder(engine).add_root(self.root.certificate())
    }
}

#[test]
fn a_client_refuses_what_is_listed_with_certificate_revoked() {
    with_openssl(|bench| {
        let tree = Tree::new();
        let own = Own::new(bench, "server", &tree.leaf(7));
        let of_leaf = tree.middle.revoke(&[5, 7, 300], FRESH);
        let of_middle = tree.root.revoke(&[20], FRESH);
        let harmless = [tree.middle.revoke(&[8], FRESH), tree.root.revoke(&[7], FRESH)];
        for engine in engines() {
            for version in VERSIONS {
                let server = |port| s_server_at(port, version, &own);
                for list in [&of_leaf, &of_middle] {
                    for bytes in [list.der().to_vec(), list.pem().expect("PEM").into_bytes()] {
                        let builder = at(version, tree.client(engine).add_crls(&bytes));
                        let Some(client) = context(engine, "add_crls", builder) else { continue };
                        let met = visit(bench, &client, server, |_| ());
                        let text = met.refused(ErrorKind::Certificate, "alert number 44");
                        assert!(text.contains("it, or one above it, has been revoked"), "{engine:?}: {text}");
                    }
                }
                if honours(engine, "add_crls") {
                    // Other numbers; the same number of another issuer; a list of somebody else.
                    let mut builder = at(version, tree.client(engine));
                    for list in &harmless {
                        builder = builder.add_crls(list.der());
                    }
                    let builder = builder.add_crls(Authority::new("somebody else").revoke(&[7, 20], FRESH).der());
                    visit(bench, &builder.build().expect("context"), server, |_| ()).expect();
                }
            }
        }
    });
}

#[test]
fn a_server_refuses_clients_that_are_listed() {
    with_openssl(|bench| {
        let tree = Tree::new();
        let clients = [7, 8].map(|serial| Own::new(bench, &format!("client-{serial}"), &tree.leaf(serial)));
        let list = tree.middle.revoke(&[7], FRESH);
        for engine in engines() {
            for version in VERSIONS {
                for policy in [ClientAuth::Request, ClientAuth::Require] {
                    let builder = at(version, Context::builder().identity(certs().ecdsa.identity()));
                    let builder = builder.add_root(tree.root.certificate()).client_auth(policy).add_crls(list.der());
                    if !honours(engine, "add_crls") {
                        continue;
                    }
                    let server = builder.engine(engine).build().expect("context");
                    let client = |own: &Own, port| {
                        let mut command = s_client(port);
                        own.show(command.arg(flag(version)));
                        command
                    };
                    serve(bench, &server, |port| client(&clients[0], port), |_| ())
                        .refused(ErrorKind::Certificate, "alert number 44");
                    serve(bench, &server, |port| client(&clients[1], port), |_| ()).expect();
                }
            }
        }
    });
}

/// Who meets a server that shows the leaf with the number 7: one context for each answer.
fn meet(bench: &Bench, tree: &Tree, cases: Vec<(ContextBuilder, Result<(), &str>)>) {
    let own = Own::new(bench, "server", &tree.leaf(7));
    let server = Server::start(bench, |port| s_server(port, cases.len(), &own));
    for (number, (builder, expected)) in cases.into_iter().enumerate() {
        let client = builder.build().expect("context");
        let met = server.visit(&client, NAME, |_| ());
        match (met, expected) {
            (Ok(()), Ok(())) => {}
            (Err(e), Err(why)) => {
                assert_eq!(kind_of(&e), Some(ErrorKind::Certificate), "{number}: {e}");
                assert!(e.to_string().contains(why), "{number}: no {why:?} in {e}");
            }
            (met, expected) => panic!("{number}: {met:?} in place of {expected:?}"),
        }
    }
}

/// It refuses what it lists, and nothing else, on every engine.
#[test]
fn a_list_past_its_date_counts_as_it_stands() {
    with_openssl(|bench| {
        let tree = Tree::new();
        for engine in engines().into_iter().filter(|engine| honours(*engine, "add_crls")) {
            let with = |serial: u64| tree.client(engine).add_crls(tree.middle.revoke(&[serial], STALE).der());
            meet(bench, &tree, vec![(with(7), Err("has been revoked")), (with(8), Ok(()))]);
        }
    });
}

#[test]
fn all_lists_count_in_whatever_order_and_packing() {
    with_openssl(|bench| {
        let tree = Tree::new();
        let [old, new] = [(7, STALE), (8, FRESH)].map(|(serial, year)| tree.middle.revoke(&[serial], year));
        let (old_pem, new_pem) = (old.pem().expect("PEM"), new.pem().expect("PEM"));
        for engine in engines().into_iter().filter(|engine| honours(*engine, "add_crls")) {
            let client = |texts: &[&[u8]]| {
                (
                    texts.iter().fold(tree.client(engine), |builder, text| builder.add_crls(text)),
                    Err("has been revoked"),
                )
            };
            let both = [old.der().as_ref(), new.der().as_ref()].concat();
            let prose = format!("Our lists\n{new_pem}{}\n{old_pem}", tree.root.pem);
            meet(
                bench,
                &tree,
                vec![
                    client(&[old.der(), new.der()]),
                    client(&[new.der(), old.der()]),
                    client(&[&both]),
                    client(&[prose.as_bytes()]),
                    client(&[new_pem.as_bytes(), old.der()]),
                ],
            );
        }
    });
}

#[test]
fn a_list_counts_for_the_key_that_signed_it() {
    with_openssl(|bench| {
        let tree = Tree::new();
        let forged = Authority::new("intermediate");
        for engine in engines().into_iter().filter(|engine| honours(*engine, "add_crls")) {
            let with = |lists: &[rcgen::CertificateRevocationList]| {
                lists.iter().fold(tree.client(engine), |builder, list| builder.add_crls(list.der()))
            };
            let (alien, own) =
                (|serial| forged.revoke(&[serial], FRESH), |serial| tree.middle.revoke(&[serial], FRESH));
            meet(
                bench,
                &tree,
                vec![
                    // Alone it leaves open whether the certificate is good.
                    (with(&[alien(7)]), Err("no good signature")),
                    (with(&[alien(8)]), Err("no good signature")),
                    // The issuer has another key now.
                    (with(&[alien(7), own(8)]), Ok(())),
                    (with(&[own(8), alien(7)]), Ok(())),
                    (with(&[alien(8), own(7)]), Err("has been revoked")),
                    // With one of the root's that is as it should be.
                    (with(&[alien(8), tree.root.revoke(&[21], FRESH)]), Err("no good signature")),
                    (with(&[own(8), tree.root.revoke(&[21], FRESH)]), Ok(())),
                    (with(&[own(8), tree.root.revoke(&[20], FRESH)]), Err("has been revoked")),
                ],
            );
        }
    });
}

#[test]
fn what_is_listed_is_refused_before_anybody_is_asked_and_passes_where_everything_does() {
    with_openssl(|bench| {
        let tree = Tree::new();
        for engine in engines().into_iter().filter(|engine| honours(*engine, "add_crls")) {
            let asked = Arc::new(AtomicUsize::new(0));
            let count = asked.clone();
            let builder = tree.client(engine).add_crls(tree.middle.revoke(&[7], FRESH).der()).verify(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            meet(bench, &tree, vec![(builder.clone(), Err("has been revoked"))]);
            assert_eq!(asked.load(Ordering::SeqCst), 0, "{engine:?}");
            meet(bench, &tree, vec![(builder.danger_accept_invalid_certs(true), Ok(()))]);
            assert_eq!(asked.load(Ordering::SeqCst), 1, "{engine:?}");
        }
    });
}

/// One that is its own root has no issuer, whatever a list in its name says.
#[test]
fn a_self_signed_root_is_in_nobodys_list() {
    with_openssl(|bench| {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = leaf_params();
        params.serial_number = Some(rcgen::SerialNumber::from(7));
        let itself = params.self_signed(&key).expect("certificate");
        let pair = Pair { chain: itself.pem(), key: key.serialize_pem() };
        let own = Own::new(bench, "server", &pair);
        let list = Authority::new(NAME).revoke(&[7], FRESH);
        for engine in engines().into_iter().filter(|engine| honours(*engine, "add_crls")) {
            let root = sslfile::Certificate::from_pem(pair.chain.as_bytes()).expect("certificate");
            let client = client_builder(engine).add_root(root).add_crls(list.der()).build().expect("context");
            visit(bench, &client, |port| s_server(port, 1, &own), |_| ()).expect();
        }
    });
}

#[test]
fn what_is_no_list_is_refused_by_name() {
    let tree = Tree::new();
    let list = tree.middle.revoke(&[7], FRESH);
    let der = list.der().as_ref();
    let certificate = tree.root.certificate().to_der();
    let block = |der: &[u8]| pem::encode(&pem::Pem::new("X509 CRL", der)).into_bytes();
    let whole = list.pem().expect("PEM");
    let second = [whole.as_bytes(), &block(&certificate)].concat();
    // deltaCRLIndicator; an extension that nobody knows, critical: in place of cRLNumber (2.5.29.20).
    let number = [0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x14, 0x04, 0x03, 0x02, 0x01, 0x01];
    let at = der.windows(number.len()).position(|window| window == number).expect("cRLNumber");
    let mut delta = der.to_vec();
    delta[at + 6] = 0x1b;
    let mut strange = der.to_vec();
    strange[at..at + number.len()]
        .copy_from_slice(&[0x30, 0x0a, 0x06, 0x02, 0x55, 0x01, 0x01, 0x01, 0xff, 0x04, 0x01, 0x00]);
    for (bytes, words) in [
        (Vec::new(), &["add_crls", "empty"][..]),
        (b"prose".to_vec(), &["add_crls", "no PEM block"]),
        (tree.root.pem.clone().into_bytes(), &["add_crls has no X509 CRL block; it has CERTIFICATE"]),
        (whole.as_bytes()[..whole.len() / 2].to_vec(), &["add_crls"]),
        (certificate.clone(), &["add_crls, list 1: a certificate, not a revocation list"]),
        (second, &["add_crls, block 2 (X509 CRL): a certificate, not a revocation list"]),
        (der[..der.len() - 1].to_vec(), &["add_crls, list 1: not DER, or cut off"]),
        ([der, &der[..20]].concat(), &["add_crls, list 2: not DER, or cut off"]),
        (block(&der[..20]), &["add_crls, block 1 (X509 CRL): not a revocation list"]),
        (b"\x30\x03abc".to_vec(), &["add_crls, list 1: not a revocation list"]),
        (delta, &["add_crls, list 1: a delta list"]),
        (strange, &["add_crls, list 1: a critical extension that is not known"]),
    ] {
        for engine in engines() {
            let error = tree.client(engine).add_crls(&bytes).build().expect_err("no list");
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{engine:?}: {error}");
            for word in words {
                assert!(error.to_string().contains(word), "{engine:?}: {word:?} is not in {error}");
            }
        }
    }
    for engine in engines().into_iter().filter(|engine| !honours(*engine, "add_crls")) {
        let error = tree.client(engine).add_crls(der).build().expect_err("it has none");
        assert_unsupported(&error, "add_crls", engine);
    }
    // Whatever is changed in it, nothing panics. (Without its first byte it passes for PEM.)
    for at in 1..der.len() {
        let mut changed = der.to_vec();
        changed[at] ^= 0x21;
        for engine in engines().into_iter().filter(|engine| honours(*engine, "add_crls")) {
            if let Err(error) = tree.client(engine).add_crls(&changed).build() {
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{at}: {error}");
                assert!(error.to_string().contains("add_crls, list"), "{at}: {error}");
            }
        }
    }
}
