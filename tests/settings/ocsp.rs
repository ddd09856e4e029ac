//! Stapled OCSP responses (RFC 6066, section 8), as `openssl s_server` has them.

use std::process::Command;

use super::rig::{context, flag, named, s_server, visit, with_openssl, write, Own, VERSIONS};
use crate::authority::Authority;
use crate::common::{client_builder, engines, Pair, NAME};
use crate::harness::Bench;

/// What the authority answers about this certificate, in DER.
pub fn response(bench: &Bench, authority: &Authority, pair: &Pair) -> Vec<u8> {
    let (ca, key) = (write(bench, "ca.pem", &authority.pem), write(bench, "ca.key", authority.key_pem()));
    let leaf = write(bench, "leaf.pem", &pair.chain);
    let told =
        Command::new("openssl").args(["x509", "-serial", "-noout", "-in"]).arg(&leaf).output().expect("openssl x509");
    let told = String::from_utf8(told.stdout).expect("text");
    let serial = told.trim().strip_prefix("serial=").expect("serial");
    let index = write(bench, "index.txt", format!("V\t401231235959Z\t\t{serial}\tunknown\t/CN={NAME}\n"));
    let (asked, answered) = (write(bench, "request.der", ""), write(bench, "response.der", ""));
    let mut request = Command::new("openssl");
    request.arg("ocsp").arg("-issuer").arg(&ca).arg("-cert").arg(&leaf).arg("-reqout").arg(&asked);
    let mut answer = Command::new("openssl");
    answer.arg("ocsp").arg("-index").arg(&index).arg("-CA").arg(&ca).arg("-rsigner").arg(&ca).arg("-rkey").arg(&key);
    answer.args(["-ndays", "1", "-reqin"]).arg(&asked).arg("-respout").arg(&answered);
    for mut command in [request, answer] {
        let output = command.output().expect("openssl ocsp");
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
    let response = std::fs::read(&answered).expect("response");
    assert!(!response.is_empty());
    response
}

#[test]
fn a_stapled_response_is_there_when_it_was_asked_for() {
    with_openssl(|bench| {
        let authority = Authority::new("ocsp");
        let pair = named(&authority, NAME);
        let expected = response(bench, &authority, &pair);
        let (own, stapled) = (Own::new(bench, "server", &pair), write(bench, "stapled.der", &expected));
        for engine in engines() {
            let builder = client_builder(engine).add_root(authority.certificate());
            let Some(client) = context(engine, "ocsp_stapling", builder.clone().ocsp_stapling(true)) else {
                continue;
            };
            for version in VERSIONS {
                let server = |port| {
                    let mut command = s_server(port, 1, &own);
                    command.args([flag(version), "-status_file"]).arg(&stapled);
                    command
                };
                let (seen, said) = visit(bench, &client, server, |file| file.ocsp_response()).expect();
                assert_eq!(seen.as_ref(), Some(&expected), "{engine:?} {version}: {said}");
                let silent = |port| {
                    let mut command = s_server(port, 1, &own);
                    command.arg(flag(version));
                    command
                };
                let (seen, _) = visit(bench, &client, silent, |file| file.ocsp_response()).expect();
                assert_eq!(seen, None, "{engine:?} {version}");
                if engine != sslfile::Engine::Rustls {
                    // (It always asks.)
                    let quiet = builder.clone().build().expect("context");
                    let (seen, said) = visit(bench, &quiet, server, |file| file.ocsp_response()).expect();
                    assert_eq!(seen, None, "{engine:?} {version}: {said}");
                }
            }
        }
    });
}
