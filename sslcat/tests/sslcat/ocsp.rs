//! Stapled OCSP responses: what OpenSSL makes of a responder's data, and what others make up.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sslfile::Engine;

use crate::common::engines;
use crate::sslcat;
use crate::tool::{is_here, Ended, Files, Tool};

/// An authority with OpenSSL's commands: who is revoked stands in a text file.
struct Authority {
    files: Files,
}

impl Authority {
    /// `kind`: as `openssl req -newkey` has it.
    fn new(kind: &[&str]) -> Authority {
        let authority = Authority { files: Files::new() };
        let new = ["req", "-x509", "-nodes", "-days", "30", "-addext", "basicConstraints=critical,CA:TRUE"];
        for (name, subject) in [("root", "/CN=The Root"), ("other", "/CN=The Root")] {
            let out = ["-subj", subject, "-keyout", &authority.path(name, "key"), "-out", &authority.path(name, "pem")];
            openssl(&[&new[..], kind, &out].concat());
        }
        authority.sign("leaf", "01", "subjectAltName=DNS:localhost", kind);
        authority.sign("second", "02", "subjectAltName=DNS:localhost", kind);
        authority.sign("delegate", "03", "extendedKeyUsage=OCSPSigning", kind);
        authority.sign("impostor", "04", "extendedKeyUsage=serverAuth", kind);
        authority
    }

    fn path(&self, name: &str, kind: &str) -> String {
        self.files.dir.path().join(format!("{name}.{kind}")).to_str().expect("UTF-8").to_string()
    }

    fn sign(&self, name: &str, serial: &str, extension: &str, kind: &[&str]) {
        let (request, key) = (self.path(name, "csr"), self.path(name, "key"));
        let (root, root_key) = (self.path("root", "pem"), self.path("root", "key"));
        let subject = format!("/CN={name}");
        openssl(&[&["req", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &request][..], kind].concat());
        let extensions = self.files.write("extensions", extension);
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &root,
            "-CAkey",
            &root_key,
            "-set_serial",
            &format!("0x{serial}"),
            "-days",
            "20",
            "-extfile",
            &extensions,
            "-out",
            &self.path(name, "pem"),
        ]);
    }

    /// A response about `about`, of this status ("V", "R", or "" for one that is not known), signed by `signer`.
    fn response(&self, about: &str, status: &str, signer: &str, extra: &[&str]) -> String {
        let line = |serial: &str| match status {
            "V" => format!("V\t401231235959Z\t\t{serial}\tunknown\t/CN={serial}\n"),
            "R" => format!("R\t401231235959Z\t260102030405Z\t{serial}\tunknown\t/CN={serial}\n"),
            _ => String::new(),
        };
        let index = self.files.write("index", &(line("01") + &line("02")));
        let (root, out) = (self.path("root", "pem"), self.path("response", "der"));
        let (signer, key, about) = (self.path(signer, "pem"), self.path(signer, "key"), self.path(about, "pem"));
        let made = [
            "ocsp",
            "-index",
            &index,
            "-CA",
            &root,
            "-rsigner",
            &signer,
            "-rkey",
            &key,
            "-issuer",
            &root,
            "-cert",
            &about,
            "-respout",
            &out,
            "-noverify",
        ];
        openssl(&[&made[..], extra].concat());
        out
    }

    /// What `sslcat --check --json` makes of it.
    fn check(&self, engine: Engine, response: Option<&str>, args: &[&str]) -> (Ended, Value) {
        let mut server = Tool::new(Path::new("openssl")).args(&["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"]);
        server = server.args(&["-cert", &self.path("leaf", "pem"), "-key", &self.path("leaf", "key")]);
        if let Some(response) = response {
            server = server.args(&["-status_file", response]);
        }
        let server = server.open();
        let told = server.stdout.line("ACCEPT 127.0.0.1:");
        let port = told.rsplit(':').next().expect("port");
        let tool = sslcat(engine, &["localhost", port, "--ca", &self.path("root", "pem"), "--json"]).args(args);
        let ended = tool.feed(b"").end();
        let document = if args.contains(&"--check") { &ended.stdout } else { &ended.stderr };
        let document = document.split_inclusive(|byte| *byte == b'\n');
        let whole: Vec<u8> = match args.contains(&"--check") {
            true => document.flatten().copied().collect(),
            false => document.take(1).flatten().copied().collect(),
        };
        let document = serde_json::from_slice(&whole).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        (ended, document)
    }
}

fn openssl(args: &[&str]) {
    let made = Command::new("openssl").args(args).output().expect("openssl");
    assert!(made.status.success(), "{args:?}: {made:?}");
}

const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn telling() -> Vec<Engine> {
    engines().into_iter().filter(|engine| *engine != Engine::Native).collect()
}

#[test]
fn a_good_response_is_shown_and_satisfies_who_demands_one() {
    if !is_here("openssl", &["version"]) {
        return;
    }
    for kind in [&EC[..], &["-newkey", "rsa:2048"]] {
        let authority = Authority::new(kind);
        for engine in telling() {
            for signer in ["root", "delegate"] {
                let response = authority.response("leaf", "V", signer, &["-ndays", "3"]);
                for args in [&["--check", "--ocsp"][..], &["--check"], &["--ocsp"], &[]] {
                    let (ended, document) = authority.check(engine, Some(&response), args);
                    assert_eq!(ended.code, 0, "{engine:?} {signer} {args:?}: {ended:?}");
                    // A transfer without a word about it does as others do.
                    let ocsp = &document["ocsp"];
                    assert_eq!(
                        (&ocsp["status"], &ocsp["fault"]),
                        (&"good".into(), &Value::Null),
                        "{engine:?}: {document}"
                    );
                    assert!(ocsp["next_update"].is_string(), "{document}");
                }
            }
        }
    }
}

#[test]
fn who_is_revoked_is_refused() {
    if !is_here("openssl", &["version"]) {
        return;
    }
    let authority = Authority::new(&EC);
    let response = authority.response("leaf", "R", "root", &["-ndays", "3"]);
    for engine in telling() {
        for (args, code) in [(&["--check"][..], 4), (&["--check", "--ocsp"], 4), (&["--ocsp"], 4), (&[], 0)] {
            let (ended, document) = authority.check(engine, Some(&response), args);
            assert_eq!(ended.code, code, "{engine:?} {args:?}: {ended:?}");
            assert_eq!(document["exit_code"], code, "{engine:?} {args:?}: {document}");
            assert_eq!(document["ocsp"]["revoked_at"], "2026-01-02T03:04:05Z", "{engine:?} {args:?}: {document}");
            assert!(code == 0 || ended.stderr().contains("REVOKED since 2026-01-02"), "{ended:?}");
        }
    }
}

#[test]
fn what_proves_nothing_satisfies_nobody_who_demands_one() {
    if !is_here("openssl", &["version"]) {
        return;
    }
    let authority = Authority::new(&EC);
    let good = fs::read(authority.response("leaf", "V", "root", &["-ndays", "3"])).expect("response");
    let with = |name: &str, bytes: &[u8]| {
        let path = authority.path(name, "der");
        fs::write(&path, bytes).expect("write");
        path
    };
    let keep = |name: &str, path: String| with(name, &fs::read(path).expect("response"));
    // The last of the moments in it is that until which it holds.
    let mut old = good.clone();
    let at = old.windows(2).rposition(|part| part == [0x18, 15]).expect("a date") + 2;
    old[at..at + 4].copy_from_slice(b"2020");
    let mut prolonged = good.clone();
    prolonged[at..at + 4].copy_from_slice(b"2099");
    for engine in telling() {
        for (response, fault) in [
            (None, "no OCSP response"),
            (Some(keep("impostor's", authority.response("leaf", "V", "impostor", &["-ndays", "3"]))), "its signature"),
            (Some(keep("other's", authority.response("leaf", "V", "other", &["-ndays", "3"]))), "its signature"),
            (
                Some(keep("second's", authority.response("second", "V", "root", &["-ndays", "3"]))),
                "about other certificates",
            ),
            (Some(keep("unknown", authority.response("leaf", "", "root", &["-ndays", "3"]))), "does not know"),
            (Some(with("old", &old)), "past its date"),
            (Some(with("prolonged", &prolonged)), "its signature"),
            (Some(with("try later", &[0x30, 3, 0x0a, 1, 3])), "status 3"),
        ] {
            let (ended, document) = authority.check(engine, response.as_deref(), &["--check", "--ocsp"]);
            assert_eq!(ended.code, 4, "{engine:?} {fault}: {ended:?}");
            assert!(ended.stderr().contains(fault), "{engine:?} {fault}: {ended:?}");
            assert!(response.is_some() || document["ocsp"].is_null(), "{document}");
            // Nobody else is troubled by it.
            let (ended, _) = authority.check(engine, response.as_deref(), &["--check"]);
            assert_eq!(ended.code, 0, "{engine:?} {fault}: {ended:?}");
        }
    }
    let ended = sslcat(Engine::Native, &["localhost", "1", "--ocsp"]).feed(b"").end();
    assert_eq!(ended.code, 1, "{ended:?}");
    for other in ["-k", "-l"] {
        let ended = sslcat(engines()[0], &["localhost", "1", "--ocsp", other]).feed(b"").end();
        assert_eq!(ended.code, 1, "{other}: {ended:?}");
    }
}
