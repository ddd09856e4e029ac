//! What is said of a certificate that is refused: the same on every engine, with what a person needs to mend it.

use rcgen::{date_time_ymd, CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use sslfile::{Certificate, Context, Engine, Version};

use super::shake;
use crate::authority::{ca_params, leaf_params, Authority};
use crate::common::{client_builder, engines, server_builder, within, Pair, LONG, NAME};

struct Cause {
    what: &'static str,
    /// What the server shows.
    pair: Pair,
    /// Whom the client trusts.
    root: Certificate,
    /// Whom it expects.
    name: &'static str,
    /// What it says, behind "the peer's certificate is"; in place of `NOW` the time stands.
    text: String,
    /// The same of a library that does not tell what it has refused, and where what is sent is encrypted.
    blind: &'static str,
}

const NOW: &str = "NOW";
const UNTOLD: &str =
    " (more is not told by this TLS library: `openssl s_client -showcerts -connect HOST:PORT` shows the certificate)";

fn leaf(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).expect("names");
    params.distinguished_name.push(DnType::CommonName, "the leaf");
    params
}

fn with_chain(pair: &Pair, others: &[&Authority]) -> Pair {
    let others: String = others.iter().map(|authority| authority.pem.as_str()).collect();
    Pair { chain: pair.chain.clone() + &others, key: pair.key.clone() }
}

fn causes() -> Vec<Cause> {
    let root = Authority::new("The Root");
    let other_root = Authority::new("Another Root");
    let middle = root.intermediate("The Intermediate");
    let mut causes = Vec::new();
    let mut cause = |what, pair, root: &Authority, name, text: &str, blind| {
        causes.push(Cause { what, pair, root: root.certificate(), name, text: text.to_string(), blind });
    };

    let blind = "for another name: it is not for example.com";
    let two = root.sign(leaf(&["localhost", "*.example.net", "127.0.0.1", "::1"]));
    let text = "for another name: it is for localhost, *.example.net, 127.0.0.1 and ::1, not for example.com";
    cause("another name", two, &root, "example.com", text, blind);
    let one = root.sign(leaf(&["localhost"]));
    let text = "for another name: it is for localhost, not for 127.0.0.1";
    cause("a name and no address", one, &root, "127.0.0.1", text, "for another name: it is not for 127.0.0.1");
    let none = root.sign(leaf(&[]));
    let text = "for another name: it names no host, so none that is example.com; its subject is CN=the leaf";
    cause("no name", none, &root, "example.com", text, blind);
    let names: Vec<String> = (0..500).map(|i| format!("host{i}.example.net")).collect();
    let many = root.sign(leaf(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    let text = format!("for another name: it is for {} and 490 others, not for example.com", names[..10].join(", "));
    cause("many names", many, &root, "example.com", &text, blind);

    let text = "not acceptable: it expired on 2002-01-01 00:00:00 UTC; this machine's clock says NOW";
    let blind = "not acceptable: it, or one above it, has expired; this machine's clock says NOW";
    cause("expired", root.expired(), &root, NAME, text, blind);
    let mut params = ca_params("The Old Intermediate");
    params.not_after = date_time_ymd(2003, 4, 5);
    let old = root.sign_authority(params);
    let pair = with_chain(&old.sign(leaf_params()), &[&old]);
    let text = "not acceptable: in its chain CN=The Old Intermediate expired on 2003-04-05 00:00:00 UTC; \
                this machine's clock says NOW";
    cause("an intermediate has expired", pair, &root, NAME, text, blind);
    let text = "not acceptable: it is not valid before 2090-01-01 00:00:00 UTC; this machine's clock says NOW";
    let blind = "not acceptable: it, or one above it, is not valid yet; this machine's clock says NOW";
    cause("not yet valid", root.not_yet_valid(), &root, NAME, text, blind);

    let blind = "not acceptable: its issuer is not known";
    let signed = middle.sign(leaf_params());
    let text = "not acceptable: its issuer is not known: the peer sent no intermediate certificate with it, and \
                CN=The Intermediate is not among the trusted roots";
    cause("the intermediate is missing", signed.clone(), &root, NAME, text, blind);
    let text =
        "not acceptable: its issuer is not known: CN=The Intermediate is neither among the other certificates that \
                the peer sent nor among the trusted roots";
    cause("another was sent in its place", with_chain(&signed, &[&other_root]), &root, NAME, text, blind);
    let text = "not acceptable: an issuer above it is not known: what the peer sent leads to CN=The Intermediate, whose issuer \
                CN=The Root is not among the trusted roots";
    cause("the root is not known", with_chain(&signed, &[&middle]), &other_root, NAME, text, blind);
    let text = "not acceptable: its chain ends with the self-signed CN=The Root, which is not among the trusted roots";
    cause("nor is it where it was sent", with_chain(&signed, &[&middle, &root]), &other_root, NAME, text, blind);
    let key = KeyPair::generate().expect("key");
    let own = leaf(&["localhost"]).self_signed(&key).expect("certificate").pem();
    let own = Pair { chain: own, key: key.serialize_pem() };
    let text = "not acceptable: it is self-signed (CN=the leaf) and not among the trusted roots";
    cause("self-signed", own, &root, NAME, text, blind);
    // As `openssl req -x509` makes it.
    let key = KeyPair::generate().expect("key");
    let mut params = ca_params("localhost");
    params.key_usages.clear();
    let own = params.self_signed(&key).expect("certificate").pem();
    let own = Pair { chain: own, key: key.serialize_pem() };
    let text = "not acceptable: it is self-signed (CN=localhost) and not among the trusted roots";
    cause("self-signed as an authority", own, &root, NAME, text, blind);

    let mut params = leaf_params();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let text =
        "not acceptable: it, or one above it, is for another purpose (extended key usage: serverAuth and clientAuth \
                are asked for)";
    cause(
        "another purpose",
        root.sign(params),
        &root,
        NAME,
        text,
        "not acceptable: it, or one above it, is for another purpose",
    );
    causes
}

#[test]
fn a_refused_certificate_is_told_with_its_cause_and_in_the_same_words_on_every_engine() {
    for cause in causes() {
        for client in engines() {
            for version in [Version::Tls1_2, Version::Tls1_3] {
                let Cause { what, pair, root, name, text, blind } = &cause;
                let server = *engines().iter().find(|engine| **engine != Engine::Native).unwrap_or(&client);
                let server = server_builder(server).identity(pair.identity()).max_version(version).build();
                let server = server.expect("server context");
                let trusting = Context::builder().engine(client).system_roots(false).add_root(root.clone());
                let trusting = trusting.build().expect("client context");
                let name = *name;
                let (ours, _) = within(LONG, move || shake(&trusting, name, &server, false).errors());
                let is_blind = client == Engine::Native && version == Version::Tls1_3 && engines() != [client];
                let said = without_time(&ours.to_string());
                let wanted = match is_blind && text.as_str() != *blind {
                    true => format!("TLS handshake: the peer's certificate is {blind}"),
                    false => format!("TLS handshake: the peer's certificate is {text}"),
                };
                let said_behind = said.split_once(": ").map_or("", |(_peer, behind)| behind);
                match is_blind {
                    true => assert!(said_behind.starts_with(&wanted), "{what}, {client:?}, {version}: {said}"),
                    false => assert_eq!(said_behind, wanted, "{what}, {client:?}, {version}"),
                }
                assert_eq!(said.contains(UNTOLD), is_blind && !what.contains("purpose"), "{said}");
                assert_readable(&said);
            }
        }
    }
}

/// The same of a server that refuses its client.
#[test]
fn a_server_says_the_same_of_its_client() {
    let ours = Authority::new("The Root");
    let strange = Authority::new("Another Root");
    let clients = [
        (
            strange.sign(leaf_params()),
            "its issuer is not known: the peer sent no intermediate certificate with it, and CN=Another Root is not among \
             the trusted roots",
        ),
        (ours.expired(), "it expired on 2002-01-01 00:00:00 UTC; this machine's clock says NOW"),
    ];
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
        for (pair, text) in &clients {
            for version in [Version::Tls1_2, Version::Tls1_3] {
                let server = server_builder(engine).client_auth(sslfile::ClientAuth::Require);
                let server = server.add_root(ours.certificate()).max_version(version).build().expect("server context");
                let client = client_builder(engine).identity(pair.identity()).build().expect("client context");
                let (_, theirs) = within(LONG, move || shake(&client, NAME, &server, false).errors());
                let said = without_time(&theirs.to_string());
                let wanted = format!("TLS handshake: the peer's certificate is not acceptable: {text}");
                assert!(said.ends_with(&wanted), "{engine:?}, {version}: {said}");
                assert_readable(&said);
            }
        }
    }
}

/// A library set up elsewhere says what it can, and no less.
#[cfg(feature = "openssl")]
#[test]
fn a_context_made_with_openssl_itself_tells_the_cause_too() {
    use openssl::ssl::{SslConnector, SslMethod};
    let client = Context::from(SslConnector::builder(SslMethod::tls_client()).expect("builder").build());
    let server = server_builder(Engine::OpenSsl).build().expect("server context");
    let (ours, _) = within(LONG, move || shake(&client, NAME, &server, false).errors());
    let said = ours.to_string();
    assert!(said.contains("CN=sslfile test CA"), "{said}");
    assert_readable(&said);
}

fn without_time(text: &str) -> String {
    const BEFORE: &str = "clock says ";
    let Some((before, behind)) = text.split_once(BEFORE) else { return text.to_string() };
    let (time, behind) = behind.split_at("2026-11-30 00:00:00 UTC".len());
    assert!(time > "2026-01-01 00:00:00 UTC" && time.ends_with(" UTC"), "{text}");
    format!("{before}{BEFORE}{NOW}{behind}")
}

/// No constants of a library's, no file of its sources, no numbers of its own.
#[track_caller]
fn assert_readable(text: &str) {
    for word in [".c:", ".rs", "error:", "Error", "Some(", "DnsName", "UnknownIssuer", "UNIX", "invalid peer"] {
        assert!(!text.contains(word), "{word:?} is in {text:?}");
    }
}
