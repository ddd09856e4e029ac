//! Where the name stands: in subjectAltName, or in the common name (CN) alone.

use rcgen::{CertificateParams, DnType, SanType};
use sslfile::{Context, ContextBuilder, Engine, ErrorKind as Kind};

use super::shake;
use crate::authority::Authority;
use crate::common::{engines, kind_of, server_builder, within, Pair, LONG, NAME};
use crate::table::honours;

fn named(authority: &Authority, common: &str, others: Vec<SanType>) -> Pair {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common);
    params.subject_alt_names = others;
    authority.sign(params)
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("name"))
}

/// What a client says of the name in this certificate.
#[track_caller]
fn assert_counts(engine: Engine, client: ContextBuilder, pair: &Pair, name: &str, counts: bool) {
    let client = client.build().expect("client");
    let server = server_builder(engine).identity(pair.identity()).build().expect("server");
    let outcome = shake(&client, name, &server, false).client;
    match outcome {
        Ok(_) => assert!(counts, "{engine:?}: {name} is accepted"),
        Err(e) => {
            assert!(!counts, "{engine:?}: {e}");
            assert_eq!(kind_of(&e), Some(Kind::HostnameMismatch), "{engine:?}: {e}");
        }
    }
}

#[test]
fn a_common_name_counts_where_that_is_asked_for_and_no_name_stands_beside_it() {
    within(LONG, || {
        let authority = Authority::new("common names");
        let alone = named(&authority, NAME, Vec::new());
        let address = SanType::IpAddress("127.0.0.1".parse().expect("address"));
        let mail = SanType::Rfc822Name("mail@localhost".try_into().expect("mail"));
        let beside_others = named(&authority, NAME, vec![address.clone(), mail]);
        let beside_a_name = named(&authority, NAME, vec![dns("other.example")]);
        let whole = named(&authority, "other.example", vec![dns(NAME), address]);
        let is_address = named(&authority, "127.0.0.1", Vec::new());
        for engine in engines() {
            let client = || Context::builder().engine(engine).system_roots(false).add_root(authority.certificate());
            // The guide says it: native-tls can't be told.
            let by_default = engine == Engine::Native && cfg!(not(target_vendor = "apple"));
            let may_ask = honours(engine, "accept_common_names") && cfg!(not(target_vendor = "apple"));
            for pair in [&alone, &beside_others] {
                assert_counts(engine, client(), pair, NAME, by_default);
                if may_ask {
                    assert_counts(engine, client().accept_common_names(true), pair, NAME, true);
                }
                assert_counts(engine, client().accept_common_names(false), pair, NAME, by_default);
            }
            let mut clients = vec![client()];
            if may_ask {
                clients.push(client().accept_common_names(true));
            }
            for client in clients {
                assert_counts(engine, client.clone(), &beside_a_name, NAME, false);
                assert_counts(engine, client.clone(), &beside_a_name, "other.example", true);
                assert_counts(engine, client.clone(), &whole, NAME, true);
                assert_counts(engine, client.clone(), &whole, "127.0.0.1", true);
                assert_counts(engine, client, &is_address, "127.0.0.1", false);
            }
        }
    });
}

/// Of a context that OpenSSL's own types were set up for nothing else was said, either.
#[cfg(feature = "openssl")]
#[test]
fn in_a_context_made_elsewhere_it_does_not_count() {
    use openssl::ssl::{SslContext, SslMethod, SslVerifyMode};
    within(LONG, || {
        let authority = Authority::new("common names elsewhere");
        let mut made = SslContext::builder(SslMethod::tls_client()).expect("context");
        made.set_verify(SslVerifyMode::PEER);
        let root = openssl::x509::X509::from_pem(authority.pem.as_bytes()).expect("root");
        made.cert_store_mut().add_cert(root).expect("root");
        let client = Context::from(made.build());
        for (pair, counts) in
            [(named(&authority, NAME, Vec::new()), false), (named(&authority, "x", vec![dns(NAME)]), true)]
        {
            let server = server_builder(Engine::OpenSsl).identity(pair.identity()).build().expect("server");
            assert_eq!(shake(&client, NAME, &server, false).client.is_ok(), counts);
        }
    });
}

#[test]
fn a_wildcard_is_a_whole_label() {
    within(LONG, || {
        let authority = Authority::new("wildcards in part");
        for wildcard in ["w*.example.com", "*w.example.com", "w*w.example.com"] {
            let pair = named(&authority, "x", vec![dns(wildcard)]);
            for engine in engines() {
                let client = Context::builder().engine(engine).system_roots(false).add_root(authority.certificate());
                assert_counts(engine, client, &pair, "www.example.com", false);
            }
        }
    });
}
