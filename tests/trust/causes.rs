//! What is said of a certificate that is refused: the same on every engine, with what a person needs to mend it.

use rcgen::{date_time_ymd, CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::PrivatePkcs8KeyDer;
use sslfile::{Certificate, Context, Engine, Error, Identity, Version};

use super::shake;
use crate::authority::{ca_params, leaf_params, Authority};
use crate::common::{certs, client_builder, engines, server_builder, within, Pair, LONG, NAME};

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

    let anew = Authority::new("The Root");
    let text = "not acceptable: a signature in its chain is not by the issuer of that name that is known here (its own issuer is \
                CN=The Root): another key, as of an authority that was made anew, or a forgery";
    let blind = "not acceptable: a signature in its chain, or the peer's own on the handshake, is not by the key that it should be by";
    cause("the root was made anew", root.sign(leaf_params()), &anew, NAME, text, blind);

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
                assert_eq!(
                    said.contains(UNTOLD),
                    is_blind && !["another purpose", "the root was made anew"].contains(what),
                    "{said}"
                );
                assert_readable(&said);
                let shown = Error::of(&ours).expect("ours").peer_certificates();
                match is_blind {
                    true => assert_eq!(shown, [], "{what}"),
                    false => {
                        let sent = Certificate::stack_from_pem(pair.chain.as_bytes()).expect("chain");
                        assert_eq!(shown, sent, "{what}, {client:?}, {version}");
                    }
                }
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
                let sent = Certificate::from_pem(pair.chain.as_bytes()).expect("its own");
                let shown = Error::of(&theirs).expect("ours").peer_certificates();
                assert_eq!(shown.first(), Some(&sent), "{engine:?}, {version}");
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

/// A mistake with files, and what is said of it; the names of the files are in it.
struct Mistake {
    what: &'static str,
    chain: Vec<u8>,
    key: Vec<u8>,
    says: String,
}

#[test]
fn mistakes_with_files_are_told_with_what_to_do() {
    let root = Authority::new("The Root");
    let middle = root.intermediate("The Intermediate");
    let pair = with_chain(&middle.sign(leaf(&["localhost"])), &[&middle]);
    let (chain, key) = (pair.chain.clone().into_bytes(), pair.key.clone().into_bytes());
    let leaf_der = Certificate::from_pem(&chain).expect("leaf").to_der();
    let key_der = PrivatePkcs8KeyDer::from_pem_slice(&key).expect("key").secret_pkcs8_der().to_vec();
    let archive = include_bytes!("../common/keys/ecdsa.rc2.p12").to_vec();
    let wrong_order = format!("{}{}", middle.pem, pair.chain);
    let other = certs().ecdsa.key.clone().into_bytes();
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(key.iter().flat_map(|b| [*b, 0])).collect();
    let cut_at = pair.chain.rfind("-----END").expect("an end");
    let broken = pair.chain.replacen("MII", "M!!", 1).into_bytes();

    let mut mistakes = Vec::new();
    let mut mistake = |what, chain: &[u8], key: &[u8], says: &str| {
        mistakes.push(Mistake { what, chain: chain.to_vec(), key: key.to_vec(), says: says.to_string() });
    };
    let text = "KEY, block 1 (PRIVATE KEY): the key belongs to block 2 of CHAIN and not to the first certificate there, \
                CN=The Intermediate: the chain must begin with the key's own, and go on with that of whoever signed the one before";
    mistake("wrong order", wrong_order.as_bytes(), &key, text);
    let text =
        "KEY, block 1 (PRIVATE KEY): the key does not belong to the certificate (certificate: CHAIN, CN=the leaf)";
    mistake("another key", &chain, &other, text);
    let text = "CHAIN has no PEM block: it is a certificate in DER and not in PEM: `openssl x509 -inform DER` converts it, and \
                Certificate::from_der takes it as it is";
    mistake("a certificate in DER", &leaf_der, &key, text);
    let text =
        "KEY has no PEM block: it is a private key in DER and not in PEM: `openssl pkey -inform DER` converts it";
    mistake("a key in DER", &chain, &key_der, text);
    let text =
        "KEY has no PEM block: it is a PKCS#12 archive and not PEM: Identity::from_pkcs12 takes it as it is, with its \
                password";
    mistake("an archive", &chain, &archive, text);
    let text = "KEY has no PEM block: it is in UTF-16, as some editors and shells write it: PEM is plain ASCII";
    mistake("UTF-16", &chain, &utf16, text);
    let text = "CHAIN breaks off: block 2 (CERTIFICATE) begins and does not end";
    mistake("a chain that is cut", &chain[..cut_at], &key, text);
    let text = "KEY breaks off: block 1 (PRIVATE KEY) begins and does not end";
    mistake("a key that is cut", &chain, &key[..40], text);
    let text = "CHAIN, block 1 (CERTIFICATE): is not valid PEM: invalid data: Invalid symbol 33, offset 1.";
    mistake("not Base64", &broken, &key, text);

    let folder = tempfile::tempdir().expect("folder");
    let (chain_file, key_file) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    for Mistake { what, chain, key, says } in mistakes {
        std::fs::write(&chain_file, chain).expect("chain");
        std::fs::write(&key_file, key).expect("key");
        let error = Identity::from_pem_files(&chain_file, &key_file).expect_err(what);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{what}: {error}");
        let named = |path: &std::path::Path, text: &str, name| text.replace(&path.display().to_string(), name);
        let said = named(&key_file, &named(&chain_file, &error.to_string(), "CHAIN"), "KEY");
        assert_eq!(said, says, "{what}");
        assert_readable(&said);
    }

    // The other way round: PEM, or something else, where DER is wanted; and in a file of roots.
    for (what, der, says) in [
        ("PEM", &chain, "not a certificate in DER: it is PEM and not DER: Certificate::from_pem takes it"),
        ("a key", &key_der, "not a certificate in DER: it is a private key"),
        (
            "an archive",
            &archive,
            "not a certificate in DER: it is a PKCS#12 archive: Identity::from_pkcs12 takes it, with its password",
        ),
    ] {
        assert_eq!(Certificate::from_der(der).expect_err(what).to_string(), says);
    }
    std::fs::write(&chain_file, &key_der).expect("roots");
    for engine in engines() {
        let roots = Context::builder().engine(engine).system_roots(false).add_roots_from(&chain_file);
        let said = roots.build().expect_err("no roots").to_string();
        assert!(said.contains("it is a private key in DER and not in PEM"), "{said}");
    }
}

/// What the library itself can't make sense of, it says without the names of its source files.
#[test]
fn what_is_broken_inside_is_told_without_the_library_s_insides() {
    let block = |tag: &str, body: &str| format!("-----BEGIN {tag}-----\n{body}\n-----END {tag}-----\n").into_bytes();
    // A sequence of a sequence of two numbers; a sequence of one number.
    let (certificate, key) = (block("CERTIFICATE", "MAgwBgIBAQIBAQ=="), block("PRIVATE KEY", "MAMCAQA="));
    let pair = &certs().ecdsa;
    for (chain, key) in [(certificate.as_slice(), pair.key.as_bytes()), (pair.chain.as_bytes(), key.as_slice())] {
        let error = Identity::from_pem(chain, key).expect_err("broken");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
        assert_readable(&error.to_string());
    }
    for engine in engines() {
        let root = Certificate::from_pem(&certificate).expect("it looks like one");
        let error = Context::builder().engine(engine).system_roots(false).add_root(root).build().expect_err("broken");
        assert!(error.to_string().starts_with("add_root: "), "{error}");
        assert_readable(&error.to_string());
    }
}

#[cfg(feature = "openssl")]
#[test]
fn archives_are_told_from_other_things_and_old_ones_from_a_wrong_password() {
    let old = include_bytes!("../common/keys/ecdsa.rc2.p12");
    match Identity::from_pkcs12(old, "secret") {
        // One that reads it.
        Ok(_) => assert!(!crate::common::has_openssl(3, 0), "OpenSSL 3 has RC2 again"),
        Err(error) => {
            let says =
                "the PKCS#12 archive is encrypted in an old way (RC2-40-CBC), which the TLS library no longer reads. \
                        Convert it: `openssl pkcs12 -legacy -in OLD.p12 -nodes -out all.pem`, then \
                        `openssl pkcs12 -export -in all.pem -out NEW.p12`";
            assert_eq!(error.to_string(), says);
        }
    }
    let wrong = "the password is not that of the PKCS#12 archive";
    let good = crate::common::pkcs12(&certs().ecdsa, "secret");
    for (what, archive, password, says) in [
        ("a wrong password", &old[..], "no", wrong),
        ("a wrong password", &good, "no", wrong),
        ("cut", &good[..good.len() / 2], "secret", "not a PKCS#12 archive: it is DER that breaks off"),
        (
            "PEM",
            certs().ecdsa.chain.as_bytes(),
            "secret",
            "not a PKCS#12 archive: it is PEM and not an archive: Identity::from_pem takes it",
        ),
    ] {
        let error = Identity::from_pkcs12(archive, password).expect_err(what);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
        assert_eq!(error.to_string(), says, "{what}");
    }
}
