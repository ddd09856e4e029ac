//! A peer's own certificate, given as a root: what people make with one command for a test, a printer, a database.

use rcgen::{date_time_ymd, BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use sslfile::{Certificate, ClientAuth, Context, Engine, ErrorKind as Kind};

use super::{assert_says, shake};
use crate::authority::{leaf_params, Authority};
use crate::common::{client_builder, client_context, engines, kind_of, server_builder, within, Pair, LONG, NAME};
use crate::harness::{find, run};

/// As `openssl req -x509` has it: for a name, self-signed, and an authority besides.
fn own_params() -> CertificateParams {
    let mut params = leaf_params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn signed_by_itself(params: &CertificateParams) -> Pair {
    let key = KeyPair::generate().expect("key");
    Pair { chain: params.self_signed(&key).expect("certificate").pem(), key: key.serialize_pem() }
}

fn certificate(pair: &Pair) -> Certificate {
    Certificate::from_pem(pair.chain.as_bytes()).expect("certificate")
}

fn serves(engine: Engine, pair: &Pair) -> Context {
    server_builder(engine).identity(pair.identity()).build().expect("server")
}

fn trusts(engine: Engine, pair: &Pair) -> Context {
    client_builder(engine).add_root(certificate(pair)).build().expect("client")
}

/// It counts for its own name only, and only where it was given.
#[track_caller]
fn assert_is_its_own_root(pair: &Pair) {
    for engine in engines() {
        let server = serves(engine, pair);
        let (client, _server) = shake(&trusts(engine, pair), NAME, &server, false).files();
        if engine != Engine::Native {
            assert_eq!(client.verified_chain(), Some(vec![certificate(pair)]), "{engine:?}");
        }
        let (ours, _) = shake(&trusts(engine, pair), "example.com", &server, false).errors();
        assert_eq!(kind_of(&ours), Some(Kind::HostnameMismatch), "{engine:?}: {ours}");
        let (ours, _) = shake(&client_context(engine), NAME, &server, false).errors();
        assert_eq!(kind_of(&ours), Some(Kind::Certificate), "{engine:?}: {ours}");
    }
}

#[test]
fn an_authority_s_own_certificate_is_its_root() {
    within(LONG, || assert_is_its_own_root(&signed_by_itself(&own_params())));
}

#[test]
fn what_openssl_req_x509_makes_is_its_root() {
    run(find(&["openssl"]), |bench, _| {
        let made = bench.files.folder.path().join("own.pem");
        let mut command = std::process::Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"]).arg(&made);
        let output = command.output().expect("openssl");
        assert!(output.status.success(), "{output:?}");
        let key = std::fs::read_to_string(&made).expect("key");
        assert_is_its_own_root(&Pair { chain: String::from_utf8(output.stdout).expect("text"), key });
    });
}

#[test]
fn its_dates_and_uses_count() {
    within(LONG, || {
        let mut expired = own_params();
        (expired.not_before, expired.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        let mut early = own_params();
        (early.not_before, early.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
        let mut for_clients = own_params();
        for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let mut both = own_params();
        both.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        for (params, word) in
            [(expired, Some("expired")), (early, Some("valid")), (for_clients, Some("purpose")), (both, None)]
        {
            let pair = signed_by_itself(&params);
            for engine in engines() {
                let outcome = shake(&trusts(engine, &pair), NAME, &serves(engine, &pair), false);
                let Some(word) = word else {
                    outcome.files();
                    continue;
                };
                let (ours, _) = outcome.errors();
                assert_eq!(kind_of(&ours), Some(Kind::Certificate), "{engine:?}: {ours}");
                if word != "purpose" {
                    assert_says(&ours, &[word]);
                }
            }
        }
    });
}

/// The issuer is not asked for: a leaf alone can be trusted. (`native-tls` goes up to a self-signed one.)
#[test]
fn one_that_somebody_else_issued_counts_too() {
    within(LONG, || {
        let authority = Authority::new("not asked");
        let (good, old) = (authority.sign(leaf_params()), authority.expired());
        let with_issuer = Pair { chain: good.chain.clone() + &authority.pem, key: good.key.clone() };
        for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
            for shown in [&good, &with_issuer] {
                let (client, _server) = shake(&trusts(engine, &good), NAME, &serves(engine, shown), false).files();
                // OpenSSL goes on to an issuer that is sent along.
                let chain = client.verified_chain().expect("chain");
                assert_eq!(chain[0], certificate(&good), "{engine:?}");
                assert!(chain.len() == 1 || engine == Engine::OpenSsl, "{engine:?}: {chain:?}");
            }
            // Not what it issued, nor another of the same issuer.
            let other = authority.sign(leaf_params());
            for (trusted, shown) in [(&good, &other), (&old, &old)] {
                let (ours, _) = shake(&trusts(engine, trusted), NAME, &serves(engine, shown), false).errors();
                assert_eq!(kind_of(&ours), Some(Kind::Certificate), "{engine:?}: {ours}");
            }
        }
    });
}

#[test]
fn a_client_s_own_certificate_is_its_root() {
    within(LONG, || {
        let own = signed_by_itself(&own_params());
        let stranger = signed_by_itself(&own_params());
        let mut for_servers = own_params();
        for_servers.distinguished_name.push(DnType::OrganizationName, "servers");
        for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let for_servers = signed_by_itself(&for_servers);
        let mut expired = own_params();
        expired.distinguished_name.push(DnType::OrganizationName, "old");
        (expired.not_before, expired.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        let expired = signed_by_itself(&expired);
        for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
            let mut server = server_builder(engine).client_auth(ClientAuth::Require);
            for root in [&own, &for_servers, &expired] {
                server = server.add_root(certificate(root));
            }
            let server = server.build().expect("server");
            let with = |pair: &Pair| client_builder(engine).identity(pair.identity()).build().expect("client");
            let (_client, seen) = shake(&with(&own), NAME, &server, false).files();
            assert_eq!(seen.peer_certificate(), Some(certificate(&own)), "{engine:?}");
            assert_eq!(seen.verified_chain(), Some(vec![certificate(&own)]), "{engine:?}");
            for bad in [&stranger, &for_servers, &expired] {
                let refused = shake(&with(bad), NAME, &server, false).server.expect_err("refused");
                assert_eq!(kind_of(&refused), Some(Kind::Certificate), "{engine:?}: {refused}");
            }
        }
    });
}

#[test]
fn a_pin_of_its_key_holds() {
    within(LONG, || {
        let pair = signed_by_itself(&own_params());
        let key = KeyPair::from_pem(&pair.key).expect("key");
        let info = rcgen::PublicKeyData::subject_public_key_info(&key);
        let pin: [u8; 32] = ring::digest::digest(&ring::digest::SHA256, &info).as_ref().try_into().expect("32 bytes");
        for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
            let pinned = |pin| client_builder(engine).add_root(certificate(&pair)).pin(pin).build().expect("client");
            shake(&pinned(pin), NAME, &serves(engine, &pair), false).files();
            let (ours, _) = shake(&pinned([7; 32]), NAME, &serves(engine, &pair), false).errors();
            assert_eq!(kind_of(&ours), Some(Kind::Certificate), "{engine:?}: {ours}");
        }
    });
}
