//! What `Certificate::info` reads, against what `openssl x509` says of the same certificate; and that no bytes make it panic.
#![cfg(all(feature = "x509", feature = "openssl"))]

use crate::common;
use crate::harness;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::{certs, engines, kind_of, tls_pair_with, within, LONG, NAME};
use harness::{find, run, Bench};
use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use rcgen::{
    date_time_ymd, BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, IsCa, KeyPair, SanType,
    SerialNumber,
};
use sslfile::{Certificate, CertificateInfo, ClientAuth, KeyType, SslFile, SubjectAltName};

fn info(certificate: &Certificate) -> CertificateInfo {
    certificate.info().unwrap_or_else(|e| panic!("{e}"))
}

/// A self-signed certificate of rcgen's.
fn made(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    Certificate::from_der(params.self_signed(key).expect("certificate").der()).expect("DER")
}

fn ec_key() -> KeyPair {
    KeyPair::generate().expect("key")
}

fn ia5(text: &str) -> rcgen::string::Ia5String {
    text.try_into().expect("ASCII")
}

/// One with everything in it.
fn rich(key: &KeyPair) -> Certificate {
    made(key, |params| {
        let name = &mut params.distinguished_name;
        name.push(DnType::CountryName, DnValue::PrintableString("DE".try_into().expect("ASCII")));
        name.push(DnType::OrganizationName, r#" #Müller, "Söhne" + <Co>; \ "#);
        name.push(DnType::OrganizationalUnitName, "#1\n2");
        name.push(DnType::LocalityName, DnValue::BmpString("Köln".try_into().expect("BMP")));
        name.push(DnType::StateOrProvinceName, DnValue::UniversalString("北 🦀".try_into().expect("UCS-4")));
        name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]), "of no known kind");
        name.push(DnType::CommonName, "a, O=Evil");
        params.subject_alt_names = vec![
            SanType::DnsName(ia5("*.example.com")),
            SanType::DnsName(ia5("xn--mller-kva.example")),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))),
            SanType::IpAddress("2001:db8::1f".parse().expect("address")),
            SanType::Rfc822Name(ia5("post@example.com")),
            SanType::URI(ia5("spiffe://example.com/a?b=c")),
        ];
        params.serial_number = Some(SerialNumber::from_slice(&[0xfe, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]));
        (params.not_before, params.not_after) = (date_time_ymd(1950, 1, 1), date_time_ymd(9999, 12, 31));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(3));
        let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 2], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions = vec![unknown];
    })
}

fn openssl(openssl: &Path, args: &[&str], files: &[&Path]) -> String {
    let output = Command::new(openssl).args(args).args(files).output().expect("openssl runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What `openssl x509` says of a certificate, and the same in our words.
fn compare(bench: &Bench, tool: &Path, certificate: &Certificate) {
    let file = bench.files.folder.path().join("certificate.der");
    std::fs::write(&file, certificate.to_der()).expect("write");
    let args = ["x509", "-inform", "DER", "-noout", "-subject", "-issuer", "-serial", "-fingerprint", "-sha256"];
    // In the form of RFC 4514, without a backslash before each byte that is not ASCII.
    let more = ["-startdate", "-enddate", "-dateopt", "iso_8601", "-nameopt", "RFC2253,-esc_msb", "-in"];
    let facts = openssl(tool, &[&args[..], &more].concat(), &[&file]);
    let text = openssl(tool, &["x509", "-inform", "DER", "-noout", "-text", "-in"], &[&file]);
    let fact = |name: &str| {
        let mut lines = facts.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        lines.next().unwrap_or_else(|| panic!("no {name} in {facts}"))
    };
    let ours = info(certificate);
    assert_eq!(ours.subject, fact("subject"), "{facts}");
    assert_eq!(ours.issuer, fact("issuer"), "{facts}");
    assert_eq!(ours.serial_hex(), fact("serial"), "{facts}");
    let fingerprint: Vec<String> = ours.fingerprint.iter().map(|b| format!("{b:02X}")).collect();
    assert_eq!(fingerprint.join(":"), fact("sha256 Fingerprint"), "{facts}");
    assert_eq!(seconds(ours.not_before), fact("notBefore").parse_date(), "{facts}");
    assert_eq!(seconds(ours.not_after), fact("notAfter").parse_date(), "{facts}");

    let after = |needle: &str| text.split_once(needle).map(|(_, rest)| rest.lines().next().unwrap_or("").trim());
    let algorithm = match ours.signature_algorithm.as_str() {
        "rsassa-pss" => "rsassaPss",
        "2.16.840.1.101.3.4.3.2" => "dsa_with_SHA256",
        name => name,
    };
    assert!(after("Signature Algorithm: ").expect("algorithm").eq_ignore_ascii_case(algorithm), "{algorithm}: {text}");
    let kind = after("Public Key Algorithm: ").expect("key");
    let expected = match &ours.key_type {
        KeyType::Rsa => "rsaEncryption",
        KeyType::RsaPss => "rsassaPss",
        KeyType::Dsa => "dsaEncryption",
        KeyType::Ec(curve) => {
            let nist = after("NIST CURVE: ").unwrap_or_else(|| match after("ASN1 OID: ") {
                Some("secp256k1") => "1.3.132.0.10",
                other => panic!("curve {other:?}"),
            });
            assert_eq!(curve, nist, "{text}");
            "id-ecPublicKey"
        }
        KeyType::Ed25519 => "ED25519",
        KeyType::Ed448 => "ED448",
        KeyType::Other(oid) => oid,
        other => panic!("{other:?}"),
    };
    assert_eq!(kind, expected, "{text}");
    // It does not say so of the Edwards curves.
    if let Some(size) = after("Public-Key: (") {
        assert_eq!(size, format!("{} bit)", ours.key_bits.expect("size")), "{text}");
    }
    assert_eq!(ours.is_ca, text.contains("CA:TRUE"), "{text}");
    let names =
        text.split_once("X509v3 Subject Alternative Name:").map(|(_, rest)| rest.lines().nth(1).unwrap().trim());
    let our_names: Vec<String> = ours.subject_alt_names.iter().map(in_openssl_words).collect();
    // The content of another kind of name stands behind two colons, and behind one since OpenSSL 3.4.
    let names = names.unwrap_or_default().replace("1.2.3.4::hi", "1.2.3.4:hi");
    assert_eq!(our_names.join(", "), names, "{text}");
    let (_, rest) = text.split_once("X509v3 extensions:\n").unwrap_or_default();
    let heads = rest.lines().take_while(|line| line.starts_with(&" ".repeat(12)));
    let heads = heads.filter(|line| !line.starts_with(&" ".repeat(13)));
    let critical: Vec<bool> = heads.map(|line| line.trim_end().ends_with(": critical")).collect();
    assert_eq!(ours.extensions.iter().map(|(_, critical)| *critical).collect::<Vec<_>>(), critical, "{text}");
    let key = X509::from_der(&certificate.to_der()).and_then(|c| c.public_key()?.public_key_to_der());
    // RSA-PSS and DSA parameters may be written in more than one way.
    if !matches!(ours.key_type, KeyType::RsaPss | KeyType::Dsa) {
        assert_eq!(ours.public_key, key.expect("key"));
    }
}

fn in_openssl_words(name: &SubjectAltName) -> String {
    match name {
        SubjectAltName::Dns(name) => format!("DNS:{name}"),
        SubjectAltName::Ip(IpAddr::V4(address)) => format!("IP Address:{address}"),
        SubjectAltName::Ip(IpAddr::V6(address)) => {
            let groups: Vec<String> = address.segments().iter().map(|g| format!("{g:X}")).collect();
            format!("IP Address:{}", groups.join(":"))
        }
        SubjectAltName::Email(mailbox) => format!("email:{mailbox}"),
        SubjectAltName::Uri(uri) => format!("URI:{uri}"),
        SubjectAltName::Directory(name) => format!("DirName:/{name}"),
        SubjectAltName::Other(0) => "othername: 1.2.3.4:hi".to_string(),
        SubjectAltName::Other(8) => "Registered ID:1.2.3".to_string(),
        other => panic!("{other:?}"),
    }
}

/// Since 1970, or before it.
fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_secs() as i64,
        Err(e) => -(e.duration().as_secs() as i64),
    }
}

trait ParseDate {
    fn parse_date(&self) -> i64;
}

impl ParseDate for str {
    /// `2026-11-28 03:08:25Z`, by OpenSSL's calendar.
    fn parse_date(&self) -> i64 {
        let digits: String = self.chars().filter(char::is_ascii_digit).collect();
        let epoch = Asn1Time::from_unix(0).expect("epoch");
        let diff = epoch.diff(&Asn1Time::from_str(&format!("{digits}Z")).expect("date")).expect("difference");
        i64::from(diff.days) * 86_400 + i64::from(diff.secs)
    }
}

#[test]
fn it_says_what_openssl_says_of_certificates_made_by_rcgen() {
    run(find(&["openssl"]), |bench, tool: PathBuf| {
        let rsa = KeyPair::from_pem(common::RSA_KEY).expect("key");
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("key");
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
        for key in [&ec_key(), &p384, &ed25519, &rsa] {
            compare(bench, &tool, &rich(key));
            compare(bench, &tool, &made(key, |_| {}));
        }
        let certs = certs();
        for pem in [&certs.ecdsa.chain, &certs.rsa.chain, &certs.client.chain] {
            for certificate in Certificate::stack_from_pem(pem.as_bytes()).expect("chain") {
                compare(bench, &tool, &certificate);
            }
        }
    });
}

#[test]
fn it_says_what_openssl_says_of_certificates_made_by_openssl() {
    const SUBJECT: &str = r#"/DC=org/OU=two+CN=in one, "quoted" #/serialNumber=12/title=Zoë/emailAddress=a@b.example"#;
    const NAMES: &str = "subjectAltName=DNS:a.example,IP:::1,dirName:dn,RID:1.2.3,otherName:1.2.3.4;UTF8:hi";
    run(find(&["openssl"]), |bench, tool: PathBuf| {
        let folder = bench.files.folder.path();
        let (config, dsa) = (folder.join("req.cnf"), folder.join("dsa.pem"));
        std::fs::write(&config, "[req]\ndistinguished_name=dn\n[dn]\nCN=directory\n").expect("write");
        openssl(&tool, &["dsaparam", "-out"], &[&dsa, Path::new("1024")]);
        let dsa = format!("dsa:{}", dsa.display());
        let keys: [(&[&str], KeyType, usize); 9] = [
            (&["rsa:2048"], KeyType::Rsa, 2048),
            // Not a multiple of eight: what is told is the size of the modulus, not of its encoding.
            (&["rsa", "-pkeyopt", "rsa_keygen_bits:1027"], KeyType::Rsa, 1027),
            (&["rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"], KeyType::RsaPss, 2048),
            (&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], KeyType::Ec("P-256".into()), 256),
            (&["ec", "-pkeyopt", "ec_paramgen_curve:P-521"], KeyType::Ec("P-521".into()), 521),
            (&["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], KeyType::Ec("1.3.132.0.10".into()), 256),
            (&["ed25519"], KeyType::Ed25519, 256),
            (&["ed448"], KeyType::Ed448, 456),
            (&[&dsa], KeyType::Dsa, 1024),
        ];
        for (key, key_type, bits) in keys {
            for serial in ["0", "1", "128", "-5", "-129", "0x00ff00000000000000000000000000000000000000"] {
                let out = folder.join("made.pem");
                let begin = ["req", "-x509", "-utf8", "-nodes", "-keyout", "/dev/null", "-set_serial", serial];
                let subject = ["-subj", SUBJECT, "-addext", NAMES, "-newkey"];
                openssl(
                    &tool,
                    &[&begin[..], &subject, key, &["-config"]].concat(),
                    &[&config, Path::new("-out"), &out],
                );
                let certificate = Certificate::from_pem(&std::fs::read(&out).expect("PEM")).expect("certificate");
                compare(bench, &tool, &certificate);
                let info = info(&certificate);
                assert_eq!((&info.key_type, info.key_bits), (&key_type, Some(bits)));
                // One of each kind of serial number is enough for keys that are slow to make.
                if matches!(key_type, KeyType::Rsa | KeyType::RsaPss | KeyType::Dsa) {
                    break;
                }
            }
        }
    });
}

#[test]
fn texts_and_names_are_as_rfc_4514_has_them() {
    let info = info(&rich(&ec_key()));
    let unknown = "1.3.6.1.4.1.99999.1=#0C106F66206E6F206B6E6F776E206B696E64";
    let company = r#"O=\ #Müller\, \"Söhne\" \+ \<Co\>\; \\\ "#;
    let expected = [r"CN=a\, O=Evil", unknown, "ST=北 🦀", "L=Köln", r"OU=\#1\0A2", company, "C=DE"];
    assert_eq!(info.subject, expected.join(","));
    assert_eq!(info.common_name.as_deref(), Some("a, O=Evil"));
    assert_eq!(info.issuer_common_name, info.common_name);
    assert!(info.is_ca);
    assert_eq!(info.serial, [0, 0xfe, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    assert_eq!(info.serial_hex(), "FE000102030405060708090A0B0C0D");
    assert_eq!(info.signature_algorithm, "ecdsa-with-SHA256");
    assert_eq!((info.key_type.to_string().as_str(), info.key_bits), ("EC P-256", Some(256)));
    assert!(info.extensions.contains(&("1.3.6.1.4.1.99999.2".to_string(), true)), "{:?}", info.extensions);
    assert!(info.extensions.contains(&("2.5.29.17".to_string(), false)), "{:?}", info.extensions);
    assert_eq!(info.subject_alt_names[0], SubjectAltName::Dns("*.example.com".to_string()));
}

#[test]
fn what_is_not_there_is_empty() {
    let info = info(&made(&ec_key(), |_| {}));
    assert_eq!((info.subject.as_str(), info.issuer.as_str()), ("", ""));
    assert_eq!((info.common_name, info.issuer_common_name), (None, None));
    assert!(!info.is_ca && info.subject_alt_names.is_empty());
}

/// Before 1970 and to the end of the calendar; the first second and the last are within.
#[test]
fn validity_has_both_its_ends() {
    let second = Duration::from_secs(1);
    for (from, to) in [(1950, 1960), (1969, 1970), (2049, 2050), (1950, 9999), (1, 10)] {
        let info = info(&made(&ec_key(), |params| {
            (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 12, 31));
        }));
        let day = |year| date_time_ymd(year, 1, 1).unix_timestamp();
        assert_eq!(seconds(info.not_before), day(from));
        assert_eq!(seconds(info.not_after), date_time_ymd(to, 12, 31).unix_timestamp());
        assert!(info.is_valid_at(info.not_before) && info.is_valid_at(info.not_after), "{info:?}");
        assert!(!info.is_valid_at(info.not_before - second) && !info.is_valid_at(info.not_after + second), "{info:?}");
    }
}

#[test]
fn both_ends_of_a_connection_can_read_the_others_certificate() {
    for engine in engines() {
        within(LONG, move || {
            let server = common::server_builder(engine);
            let asking = server.clone().client_auth(ClientAuth::Require).add_root(common::ca()).build();
            // Where servers cannot ask, only they are seen.
            let (server, asks) = match asking {
                Ok(context) => (context, true),
                Err(e) if e.kind() == ErrorKind::Unsupported => (server.build().expect("server"), false),
                Err(e) => panic!("{engine:?}: {e}"),
            };
            let client = common::client_builder(engine).identity(certs().client.identity()).build().expect("client");
            let (client, server) = tls_pair_with(SslFile::options(), &client, SslFile::options(), &server);
            let seen = info(&client.peer_certificate().expect("the server's certificate"));
            assert_eq!(seen.common_name.as_deref(), Some(NAME), "{engine:?}");
            assert_eq!(seen.issuer_common_name.as_deref(), Some("sslfile test CA"), "{engine:?}");
            assert!(seen.is_valid_at(SystemTime::now()), "{engine:?}");
            let localhost = SubjectAltName::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
            assert!(seen.subject_alt_names.contains(&localhost), "{engine:?}: {seen:?}");
            let sent = info(&Certificate::from_pem(certs().ecdsa.chain.as_bytes()).expect("leaf"));
            assert_eq!(seen.fingerprint, sent.fingerprint, "{engine:?}");
            if asks {
                let seen = info(&server.peer_certificate().expect("the client's certificate"));
                assert_eq!(seen.subject, "CN=client.example", "{engine:?}");
            }
        });
    }
}

/// A start of a certificate is never one.
#[test]
fn every_prefix_of_a_certificate_is_refused() {
    let der = rich(&ec_key()).to_der();
    for len in 0..der.len() {
        let error = Certificate::from_der(&der[..len]).expect_err("a part of a certificate");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{len}: {error}");
    }
    let mut longer = der;
    longer.push(0);
    assert_eq!(Certificate::from_der(&longer).expect_err("more than a certificate").kind(), ErrorKind::InvalidInput);
}

/// Either it can be read or it is `InvalidInput`, and what is read can be told. A small certificate has each byte set to
/// each value; one with everything in it, where that takes long, has each bit turned.
#[test]
fn every_single_byte_change_is_read_or_refused() {
    let small = made(&ec_key(), |params| params.subject_alt_names = vec![SanType::DnsName(ia5("a.example"))]);
    let bits: Vec<u8> = (0..8).map(|bit| 1 << bit).collect();
    for (certificate, changes) in [(small, (1..=255).collect()), (rich(&ec_key()), bits)] {
        within(LONG, move || {
            let der = certificate.to_der();
            let (mut read, mut refused) = (0, 0);
            for at in 0..der.len() {
                for change in &changes {
                    let mut changed = der.clone();
                    changed[at] ^= change;
                    match Certificate::from_der(&changed).and_then(|c| c.info()) {
                        Ok(info) => {
                            assert!(!format!("{info:?} {}", info.key_type).is_empty());
                            assert!(!info.serial_hex().is_empty());
                            assert!(info.is_valid_at(info.not_before) || info.not_before > info.not_after);
                            read += 1;
                        }
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::InvalidInput, "byte {at} ^ {change}: {e}");
                            assert!(kind_of(&e).is_some(), "byte {at} ^ {change}: {e}");
                            refused += 1;
                        }
                    }
                }
            }
            assert!(read > der.len() && refused > der.len(), "{read} read, {refused} refused");
        });
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let good = rich(&ec_key()).to_der();
    let broken = |find: &[u8], with: &[u8]| {
        let at = good.windows(find.len()).position(|w| w == find).expect("found");
        let mut der = good.clone();
        der[at..at + with.len()].copy_from_slice(with);
        Certificate::from_der(&der).expect("in form").info().expect_err("broken").to_string()
    };
    // A name that is not UTF-8; basic constraints that are no sequence.
    let says = broken(b"*.example.com", b"\xff");
    assert!(says.contains("subject alternative names"), "{says}");
    let says = broken(&[0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x03], &[0x31]);
    assert!(says.contains("basic constraints"), "{says}");
    let says = Certificate::from_der(&[0x30, 2, 0x30, 0]).expect("in form").info().expect_err("empty").to_string();
    assert!(says.starts_with("the certificate cannot be read"), "{says}");
}
