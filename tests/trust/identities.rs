//! Keys and certificates in all their wrappings, and what is said about bad ones.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sslfile::{Certificate, Context, Engine, Identity};

use super::{assert_says, shake};
#[cfg(feature = "openssl")]
use crate::common::pkcs12;
use crate::common::{certs, client_context, engines, within, Pair, LONG, NAME};
use crate::harness::{find, run, Bench};

// The keys of `certs().rsa` and `certs().ecdsa` as `openssl rsa -traditional`, `openssl ec` and `openssl pkcs8` write them,
// encrypted with the password "secret".
const PKCS1: &str = include_str!("../common/keys/rsa.pkcs1.pem");
const SEC1: &str = include_str!("../common/keys/ecdsa.sec1.pem");
const ENCRYPTED_PKCS8: &str = include_str!("../common/keys/rsa.pkcs8.encrypted.pem");
const ENCRYPTED_PKCS1: &str = include_str!("../common/keys/rsa.pkcs1.encrypted.pem");
const ENCRYPTED_SEC1: &str = include_str!("../common/keys/ecdsa.sec1.encrypted.pem");

/// As `openssl ecparam -genkey` writes it: the curve (prime256v1) in a block of its own before the key.
fn sec1_with_parameters() -> String {
    format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{SEC1}")
}

/// It serves, on every engine, and the client sees the leaf.
#[track_caller]
fn assert_serves(identity: io::Result<Identity>, pair: &Pair) {
    let identity = identity.expect("identity");
    let leaf = Certificate::from_pem(pair.chain.as_bytes()).expect("leaf");
    for engine in engines() {
        let (identity, leaf) = (identity.clone(), leaf.clone());
        within(LONG, move || {
            let server = Context::builder().engine(engine).identity(identity).build().expect("context");
            let (client, _server) = shake(&client_context(engine), NAME, &server, false).files();
            assert_eq!(client.peer_certificate(), Some(leaf));
        });
    }
}

fn from_texts(chain: &str, key: &str) -> io::Result<Identity> {
    Identity::from_pem(chain.as_bytes(), key.as_bytes())
}

#[test]
fn pkcs8_keys_serve() {
    for pair in [&certs().ecdsa, &certs().rsa] {
        assert!(pair.key.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_serves(from_texts(&pair.chain, &pair.key), pair);
    }
}

#[test]
fn pkcs1_keys_serve() {
    let pair = &certs().rsa;
    assert!(PKCS1.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    assert_serves(from_texts(&pair.chain, PKCS1), pair);
}

#[test]
fn sec1_keys_serve() {
    let pair = &certs().ecdsa;
    assert!(SEC1.starts_with("-----BEGIN EC PRIVATE KEY-----"));
    assert_serves(from_texts(&pair.chain, SEC1), pair);
    assert_serves(from_texts(&pair.chain, &sec1_with_parameters()), pair);
}

#[cfg(not(feature = "openssl"))]
#[test]
fn pkcs12_archives_are_unsupported_without_openssl() {
    let error = Identity::from_pkcs12(b"an archive", "secret").expect_err("unsupported");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_says(&error, &["PKCS#12", "openssl"]);
}

#[cfg(feature = "openssl")]
#[test]
fn pkcs12_archives_serve() {
    for pair in [&certs().ecdsa, &certs().rsa] {
        for password in ["secret", ""] {
            assert_serves(Identity::from_pkcs12(&pkcs12(pair, password), password), pair);
        }
    }
}

/// One file for both, in either order; Windows line ends; words between the blocks, as `openssl s_client` and p12 tools leave them.
#[test]
fn pem_is_taken_as_people_have_it() {
    let pair = &certs().ecdsa;
    for all in [format!("{}{}", pair.chain, pair.key), format!("{}{}", pair.key, pair.chain)] {
        assert_serves(from_texts(&all, &all), pair);
    }
    let words = |pem: &str| format!("Bag Attributes\n    friendlyName: test\n{pem}\nThe end.\n");
    assert_serves(from_texts(&words(&pair.chain), &words(&pair.key)), pair);
    let windows = |pem: &str| pem.replace("\r\n", "\n").replace('\n', "\r\n");
    assert_serves(from_texts(&windows(&pair.chain), &windows(&pair.key)), pair);
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("folder"))
    }
    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("file");
        path
    }
}

#[test]
fn files_serve_two_or_one() {
    let folder = Folder::new();
    let pair = &certs().ecdsa;
    let chain = folder.file("chain.pem", &pair.chain);
    let key = folder.file("key.pem", &pair.key);
    let both = folder.file("both.pem", &format!("{}{}", pair.chain, pair.key));
    assert_serves(Identity::from_pem_files(&chain, &key), pair);
    assert_serves(Identity::from_pem_files(&both, &both), pair);
}

/// The files in question by name, the block and the reason.
#[track_caller]
fn assert_bad(chain: &Path, key: &Path, kind: ErrorKind, words: &[&str]) {
    let error = Identity::from_pem_files(chain, key).expect_err("a bad pair");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(sslfile::Error::of(&error).is_some());
    assert_says(&error, words);
}

#[test]
fn bad_pairs_are_named_with_file_block_and_reason() {
    let folder = Folder::new();
    let pair = &certs().ecdsa;
    let chain = folder.file("chain.pem", &pair.chain);
    let key = folder.file("key.pem", &pair.key);
    let bad = ErrorKind::InvalidInput;

    let wrong = folder.file("wrong.pem", &certs().rsa.key);
    assert_bad(&chain, &wrong, bad, &["wrong.pem", "chain.pem", "PRIVATE KEY", "belong"]);
    let wrong = folder.file("same-kind.pem", &certs().client.key);
    assert_bad(&chain, &wrong, bad, &["same-kind.pem", "chain.pem", "PRIVATE KEY", "belong"]);

    // Swapped, and told so.
    assert_bad(&key, &chain, bad, &["key.pem", "CERTIFICATE", "PRIVATE KEY", "swapped"]);
    assert_bad(&chain, &chain, bad, &["chain.pem", "PRIVATE KEY", "CERTIFICATE"]);
    assert_bad(&key, &key, bad, &["key.pem", "CERTIFICATE"]);

    let empty = folder.file("empty.pem", "");
    assert_bad(&empty, &key, bad, &["empty.pem", "is empty"]);
    assert_bad(&chain, &empty, bad, &["empty.pem", "is empty"]);
    let prose = folder.file("prose.pem", "not PEM at all\n");
    assert_bad(&prose, &key, bad, &["prose.pem", "no PEM block"]);
    assert_bad(&chain, &prose, bad, &["prose.pem", "no PEM block"]);

    let nowhere = folder.0.path().join("nowhere.pem");
    assert_bad(&nowhere, &key, ErrorKind::NotFound, &["nowhere.pem"]);
    assert_bad(&chain, &nowhere, ErrorKind::NotFound, &["nowhere.pem"]);
}

#[test]
fn encrypted_keys_are_told_from_broken_ones() {
    let folder = Folder::new();
    let bad = ErrorKind::InvalidInput;
    let chain = folder.file("chain.pem", &certs().rsa.chain);
    let file = folder.file("pkcs8.pem", ENCRYPTED_PKCS8);
    assert_bad(&chain, &file, bad, &["pkcs8.pem", "ENCRYPTED PRIVATE KEY", "the key is encrypted"]);
    let file = folder.file("old.pem", ENCRYPTED_PKCS1);
    assert_bad(&chain, &file, bad, &["old.pem", "RSA PRIVATE KEY", "encrypted"]);

    let chain = folder.file("chain.pem", &certs().ecdsa.chain);
    let file = folder.file("old-ec.pem", ENCRYPTED_SEC1);
    assert_bad(&chain, &file, bad, &["old-ec.pem", "EC PRIVATE KEY", "encrypted"]);
}

/// Whether there is an OpenSSL to read keys that have its older encryption.
const HAS_OPENSSL: bool = cfg!(any(feature = "openssl", feature = "native-tls"));

#[track_caller]
fn assert_bad_text(key: &str, password: &str, kind: ErrorKind, words: &[&str]) {
    let bad = Identity::from_pem_encrypted(certs().rsa.chain.as_bytes(), key.as_bytes(), password);
    let error = bad.expect_err("a key that can't be read");
    assert_eq!(error.kind(), kind, "{error}");
    assert_says(&error, words);
    assert!(password.is_empty() || !format!("{error} {error:?}").contains(password), "{error:?}");
}

#[test]
fn encrypted_keys_serve_with_their_password() {
    let (rsa, ecdsa) = (&certs().rsa, &certs().ecdsa);
    let read = |pair: &Pair, key: &str, password| {
        Identity::from_pem_encrypted(pair.chain.as_bytes(), key.as_bytes(), password)
    };
    assert_serves(read(rsa, ENCRYPTED_PKCS8, "secret"), rsa);
    for wrong in ["", "Secret", "secret ", "sec\0ret", &"secret".repeat(500)] {
        let words = ["the key, block 1 (ENCRYPTED PRIVATE KEY)", "with this password"];
        assert_bad_text(ENCRYPTED_PKCS8, wrong, ErrorKind::InvalidInput, &words);
        if HAS_OPENSSL {
            let words = ["the key, block 1 (RSA PRIVATE KEY)", "with this password"];
            assert_bad_text(ENCRYPTED_PKCS1, wrong, ErrorKind::InvalidInput, &words);
        }
    }
    // What is not encrypted needs no password, and takes any.
    assert_serves(read(rsa, PKCS1, "secret"), rsa);
    assert_serves(read(ecdsa, &ecdsa.key, ""), ecdsa);
    for (pair, key) in [(rsa, ENCRYPTED_PKCS1), (ecdsa, ENCRYPTED_SEC1)] {
        match HAS_OPENSSL {
            true => assert_serves(read(pair, key, "secret"), pair),
            false => {
                let error = read(pair, key, "secret").expect_err("OpenSSL's own form");
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert_says(&error, &["block 1", "OpenSSL", "openssl pkcs8"]);
            }
        }
    }
}

/// Encrypts the key of `certs().rsa` with `openssl pkcs8`.
fn pkcs8(bench: &Bench, arguments: &[&str], password: &str) -> String {
    let key = bench.files.folder.path().join("plain.key");
    fs::write(&key, &certs().rsa.key).expect("write");
    let mut command = Command::new("openssl");
    command.args(["pkcs8", "-topk8", "-passout"]).arg(format!("pass:{password}")).args(arguments);
    let made = command.arg("-in").arg(&key).output().expect("openssl");
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).expect("PEM")
}

#[test]
fn each_encryption_that_openssl_makes_is_read() {
    run(find(&["openssl"]), |bench, _| {
        let pair = &certs().rsa;
        let read =
            |key: &str, password: &str| Identity::from_pem_encrypted(pair.chain.as_bytes(), key.as_bytes(), password);
        let long = "a password of more bytes than a block of the hash ".repeat(10);
        for arguments in [
            &[][..],
            &["-v2", "aes-128-cbc"],
            &["-v2", "aes-192-cbc"],
            &["-v2", "aes-256-cbc"],
            &["-v2", "des3"],
            // As OpenSSL made them before 1.1.
            &["-v2", "des3", "-v2prf", "hmacWithSHA1"],
            &["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512", "-iter", "10000"],
            &["-scrypt"],
            &["-scrypt", "-scrypt_N", "16384"],
        ] {
            let key = pkcs8(bench, arguments, "secret");
            assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{key}");
            read(&key, "secret").unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
            let words = ["the key, block 1 (ENCRYPTED PRIVATE KEY)", "with this password"];
            assert_bad_text(&key, "Secret", ErrorKind::InvalidInput, &words);
        }
        for password in ["p\u{e4}ssw\u{f6}rd", &long] {
            read(&pkcs8(bench, &[], password), password).unwrap_or_else(|e| panic!("{password}: {e}"));
        }
        // PBES1, with and without the ciphers that OpenSSL 3 has put away.
        let old = pkcs8(bench, &["-v1", "PBE-SHA1-3DES"], "secret");
        match HAS_OPENSSL {
            true => drop(read(&old, "secret").expect("OpenSSL reads it")),
            false => assert_bad_text(&old, "secret", ErrorKind::InvalidInput, &["block 1", "encryption", "-v2"]),
        }
    });
}

/// None of them may panic, nor take a machine's memory.
#[test]
fn broken_encrypted_keys_are_refused() {
    let bad = ErrorKind::InvalidInput;
    let block = pem::parse(ENCRYPTED_PKCS8).expect("a block");
    let whole = block.contents();
    let pem = |der: &[u8]| pem::encode(&pem::Pem::new("ENCRYPTED PRIVATE KEY", der));
    for length in (0..whole.len()).step_by(7) {
        assert_bad_text(&pem(&whole[..length]), "secret", bad, &["the key, block 1", "not valid DER"]);
    }
    for at in (0..120).step_by(3) {
        let mut changed = whole.to_vec();
        changed[at] ^= 0x11;
        let read = Identity::from_pem_encrypted(certs().rsa.chain.as_bytes(), pem(&changed).as_bytes(), "secret");
        if let Err(error) = read {
            assert_eq!(error.kind(), bad, "{at}: {error}");
        }
    }
    // scrypt with N = 2^40, r = 8; with N = 0; with r = 0.
    for (cost, size) in [(&[0x02, 0x06, 1, 0, 0, 0, 0, 0][..], 8), (&[0x02, 0x01, 0], 8), (&[0x02, 0x02, 64, 0], 0)] {
        assert_bad_text(&pem(&scrypt(cost, size)), "secret", bad, &["the key, block 1"]);
    }
}

/// A key "encrypted" with AES-256, under scrypt with this cost.
fn scrypt(cost: &[u8], block_size: u8) -> Vec<u8> {
    const PBES2: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
    const SCRYPT: &[u8] = &[0x06, 9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];
    const AES_256_CBC: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
    fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        [&[tag, u8::try_from(body.len()).expect("short")], body.as_slice()].concat()
    }
    let salt = element(0x04, &[&[7; 8]]);
    let parameters = element(0x30, &[&salt, cost, &element(0x02, &[&[block_size]]), &element(0x02, &[&[1]])]);
    let derivation = element(0x30, &[SCRYPT, &parameters]);
    let cipher = element(0x30, &[AES_256_CBC, &element(0x04, &[&[9; 16]])]);
    let algorithm = element(0x30, &[PBES2, &element(0x30, &[&derivation, &cipher])]);
    element(0x30, &[&algorithm, &element(0x04, &[&[5; 16]])])
}

#[test]
fn broken_blocks_are_named() {
    let folder = Folder::new();
    let bad = ErrorKind::InvalidInput;
    let pair = &certs().ecdsa;
    let chain = folder.file("chain.pem", &pair.chain);
    let key = folder.file("key.pem", &pair.key);
    let block = |tag: &str, body: &str| format!("-----BEGIN {tag}-----\n{body}\n-----END {tag}-----\n");

    // Base64 that is none, DER that is none, an end that never comes.
    for body in ["!!!!", "AAAA"] {
        for tag in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            let file = folder.file("broken-key.pem", &block(tag, body));
            assert_bad(&chain, &file, bad, &["broken-key.pem"]);
        }
        let file = folder.file("broken-chain.pem", &block("CERTIFICATE", body));
        assert_bad(&file, &key, bad, &["broken-chain.pem"]);
    }
    let cut = &pair.chain[..pair.chain.len() / 4];
    let file = folder.file("cut.pem", cut);
    assert_bad(&file, &key, bad, &["cut.pem"]);
    let file = folder.file("cut-key.pem", &pair.key[..pair.key.len() / 2]);
    assert_bad(&chain, &file, bad, &["cut-key.pem"]);
}

#[cfg(feature = "openssl")]
#[test]
fn bad_archives_are_told_apart() {
    let archive = pkcs12(&certs().ecdsa, "secret");
    for wrong in ["", "Secret", "secret ", "sec\0ret"] {
        let error = Identity::from_pkcs12(&archive, wrong).expect_err("a wrong password");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_says(&error, &["PKCS#12", "password"]);
    }
    for broken in [&b""[..], b"no archive", &archive[..archive.len() / 2]] {
        let error = Identity::from_pkcs12(broken, "secret").expect_err("a broken archive");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_says(&error, &["PKCS#12"]);
    }
}

#[test]
fn certificates_from_pem_and_der() {
    let chain = &certs().ecdsa.chain;
    let all = Certificate::stack_from_pem(chain.as_bytes()).expect("chain");
    assert_eq!(all.len(), 2);
    let first = Certificate::from_pem(chain.as_bytes()).expect("leaf");
    assert_eq!(first, all[0]);
    assert_ne!(first, all[1]);
    let again = Certificate::from_der(&first.to_der()).expect("leaf");
    assert_eq!(again, first);
    let known = CertificateDer::from_pem_slice(chain.as_bytes()).expect("leaf");
    assert_eq!(first.to_der(), known.as_ref());

    for (bad, word) in [("", "empty"), ("prose", "no PEM block"), (certs().ecdsa.key.as_str(), "CERTIFICATE")] {
        let error = Certificate::from_pem(bad.as_bytes()).expect_err("no certificate");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_says(&error, &[word]);
    }
    for bad in [&b""[..], b"\x30\x03abc", &first.to_der()[..100]] {
        let error = Certificate::from_der(bad).expect_err("no certificate");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

/// As `openssl x509 -trustout` writes them: with an alias, with uses, with rejected uses.
#[test]
fn trusted_certificates_are_certificates_unless_they_say_otherwise() {
    run(find(&["openssl"]), |bench, _| {
        let plain = &bench.files.ecdsa;
        let leaf = Certificate::from_pem(plain.pair.chain.as_bytes()).expect("leaf");
        let trusted = |arguments: &[&str]| {
            let mut command = Command::new("openssl");
            command.args(["x509", "-trustout", "-in"]).arg(&plain.chain).args(arguments);
            let made = command.output().expect("openssl");
            assert!(made.status.success(), "{made:?}");
            String::from_utf8(made.stdout).expect("PEM")
        };
        let roots = |pem: &str| {
            let file = bench.files.folder.path().join("trusted.pem");
            fs::write(&file, format!("{pem}{}", bench.files.roots_pem)).expect("write");
            Context::builder().add_roots_from(file).build().expect("context").broken_roots()
        };
        for arguments in [
            &[][..],
            &["-setalias", "My alias"],
            &["-addtrust", "serverAuth", "-setalias", "My alias"],
            &["-addtrust", "emailProtection", "-addtrust", "clientAuth"],
            &["-addtrust", "anyExtendedKeyUsage"],
        ] {
            let pem = trusted(arguments);
            assert!(pem.starts_with("-----BEGIN TRUSTED CERTIFICATE-----"), "{pem}");
            assert_eq!(Certificate::from_pem(pem.as_bytes()).expect("certificate"), leaf, "{arguments:?}");
            assert_eq!(roots(&pem), 0, "{arguments:?}");
            let rest = Certificate::stack_from_pem(plain.pair.chain.as_bytes()).expect("chain")[1].to_der();
            let chain = format!("{pem}{}", pem::encode(&pem::Pem::new("CERTIFICATE", rest)));
            assert_serves(from_texts(&chain, &plain.pair.key), &plain.pair);
        }
        for (arguments, why) in [
            (&["-addtrust", "emailProtection"][..], "not trusted for TLS"),
            (&["-addreject", "serverAuth"], "rejected"),
            (&["-addtrust", "clientAuth", "-addreject", "emailProtection", "-setalias", "My alias"], "rejected"),
        ] {
            let pem = trusted(arguments);
            let error = Certificate::from_pem(pem.as_bytes()).expect_err("not to be trusted");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert_says(&error, &["block 1 (TRUSTED CERTIFICATE)", why]);
            assert_eq!(roots(&pem), 1, "{arguments:?}");
        }
    });
}

/// Neither `Debug` nor an error shows key material.
#[test]
fn secrets_are_not_shown() {
    let pair = &certs().ecdsa;
    let shown =
        format!("{:?} {:?}", pair.identity(), Context::builder().identity(pair.identity()).build().expect("context"));
    let error = from_texts(&certs().rsa.chain, &pair.key).expect_err("a wrong key");
    let told = format!("{error} {error:?}");
    for line in pair.key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!shown.contains(line), "{shown}");
        assert!(!told.contains(line), "{told}");
    }
    let der = PrivatePkcs8KeyDer::from_pem_slice(pair.key.as_bytes()).expect("der");
    let listed = format!("{:?}", &der.secret_pkcs8_der()[..40]);
    assert!(!shown.contains(listed.trim_matches(['[', ']'])), "{shown}");
}

#[test]
fn a_key_that_rustls_does_not_read_is_told_with_those_it_takes() {
    // `openssl ec -no_public`
    const HALF: &str =
        "-----BEGIN EC PRIVATE KEY-----\nMDECAQEEII5T14byMWF/ACVqmxZW/SW3VmpXAk7U4EWR5ZT548bdoAoGCCqGSM49\n\
                        AwEH\n-----END EC PRIVATE KEY-----\n";
    let context = |engine| {
        let identity = from_texts(&certs().ecdsa.chain, HALF)?;
        Context::builder().engine(engine).identity(identity).build()
    };
    for engine in engines() {
        match engine {
            Engine::Rustls => assert_says(
                &context(engine).expect_err("half a key"),
                &["the key cannot be read by rustls", "P-384", "Ed25519", "with their public half"],
            ),
            _ => drop(context(engine).unwrap_or_else(|e| panic!("{engine:?}: {e}"))),
        }
    }
}
