//! What another library makes of some of the settings: GnuTLS. Its client leaves without a close_notify of its own.

use std::io::{Read, Write};
use std::process::Command;

use sslfile::{Context, SslFile, Version};

use super::rig::{at, context, named, serve, squeezed, write, Own, Server, VERSIONS};
use crate::authority::Authority;
use crate::common::{certs, client_builder, engines, server_builder, NAME};
use crate::harness::{find, run, Bench};

fn with_gnutls(test: impl FnOnce(&Bench) + Send + 'static) {
    run(find(&["gnutls-cli"]).and(find(&["gnutls-serv"])), move |bench, _| test(bench));
}

fn gnutls_cli(bench: &Bench, port: u16, name: &str) -> Command {
    let mut command = Command::new("gnutls-cli");
    command.args(["--logfile", "/dev/stderr", "--insecure", "--sni-hostname", name, "--x509cafile"]);
    command.arg(&bench.files.roots).arg("--port").arg(port.to_string()).arg("127.0.0.1");
    command
}

/// What the server says about the connection to whoever asks over HTTP.
fn page(file: &SslFile) -> String {
    let (mut out, mut page) = (file, String::new());
    out.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("request");
    out.read_to_string(&mut page).expect("page");
    page
}

/// One that does not end by itself.
fn gnutls_serv(port: u16, own: &Own) -> Command {
    let mut command = Command::new("gnutls-serv");
    command.args(["--http", "--disable-client-cert"]);
    command.arg("--port").arg(port.to_string());
    command.arg("--x509certfile").arg(&own.leaf).arg("--x509keyfile").arg(&own.key);
    command
}

/// Group, signature and cipher in one line.
#[test]
fn groups_signatures_and_suites_are_those_asked_for() {
    with_gnutls(|bench| {
        let own = Own::new(bench, "server", &certs().rsa);
        for engine in engines() {
            let set = |b: sslfile::ContextBuilder| at(Version::Tls1_3, b).groups("secp384r1").lenient_eof(true);
            let Some(server) = context(engine, "groups", set(server_builder(engine))) else { continue };
            let client = |port| gnutls_cli(bench, port, NAME);
            let (_, said) = serve(bench, &server, client, |_| ()).expect();
            assert!(said.contains("(ECDHE-SECP384R1)"), "{engine:?}: {said}");

            let client =
                set(client_builder(engine)).ciphersuites("TLS_CHACHA20_POLY1305_SHA256").build().expect("context");
            let server = Server::start(bench, |port| gnutls_serv(port, &own));
            let said = page(&server.open(&client, NAME).expect("handshake"));
            assert!(said.contains("(ECDHE-SECP384R1)"), "{engine:?}: {said}");
            assert!(said.contains("(CHACHA20-POLY1305)"), "{engine:?}: {said}");
        }
        for engine in engines() {
            let builder = Context::builder()
                .identity(certs().rsa.identity())
                .signature_algorithms("rsa_pss_rsae_sha512")
                .lenient_eof(true);
            let Some(server) = context(engine, "signature_algorithms", builder) else { continue };
            let client = |port| gnutls_cli(bench, port, NAME);
            let (_, said) = serve(bench, &server, client, |_| ()).expect();
            assert!(said.contains("(RSA-PSS-RSAE-SHA512)"), "{engine:?}: {said}");
        }
    });
}

#[test]
fn the_name_decides_on_the_certificate() {
    with_gnutls(|bench| {
        let one = named(&Authority::new("names"), "one.example");
        for engine in engines() {
            for version in VERSIONS {
                let builder = Context::builder().identity(certs().rsa.identity()).lenient_eof(true);
                let builder = at(version, builder.add_identity("one.example", one.identity()));
                let Some(server) = context(engine, "add_identity", builder) else { continue };
                for (name, pair) in [("one.example", &one), ("two.example", &certs().rsa)] {
                    let saved = bench.files.folder.path().join("saved.pem");
                    let client = |port| {
                        let mut command = gnutls_cli(bench, port, name);
                        command.arg("--save-cert").arg(&saved);
                        command
                    };
                    let look = |file: &SslFile| file.server_name();
                    let (asked, said) = serve(bench, &server, client, look).expect();
                    assert_eq!(asked.as_deref(), Some(name), "{engine:?} {version}");
                    let shown = super::rig::text(&saved);
                    let leaf = &pair.chain[..pair.chain.find("-----END").expect("leaf")];
                    assert!(
                        squeezed(&shown).starts_with(&squeezed(leaf)),
                        "{engine:?} {version} {name}: {shown}{said}"
                    );
                }
            }
        }
    });
}

#[test]
fn a_stapled_response_is_had() {
    with_gnutls(|bench| {
        let authority = Authority::new("ocsp");
        let pair = named(&authority, NAME);
        let expected = super::ocsp::response(bench, &authority, &pair);
        let (own, stapled) = (Own::new(bench, "server", &pair), write(bench, "stapled.der", &expected));
        for engine in engines() {
            let builder = client_builder(engine).add_root(authority.certificate()).ocsp_stapling(true);
            let Some(client) = context(engine, "ocsp_stapling", builder) else { continue };
            let server = Server::start(bench, |port| {
                let mut command = gnutls_serv(port, &own);
                command.arg(format!("--ocsp-response={}", stapled.display()));
                command
            });
            let file = server.open(&client, NAME).expect("handshake");
            assert_eq!(file.ocsp_response().as_ref(), Some(&expected), "{engine:?}: {}", page(&file));
        }
    });
}
