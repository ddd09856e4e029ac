//! What is told of the peer, for people and for programs: `-v`, `--check`, `--show-certs`, `--json`, and advice.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use sslfile::{Certificate, ClientAuth, Context, Engine, Identity, SslFile};

use crate::common::{self, certs, engines, server_builder, server_context, Pair};
use crate::tool::{is_here, Ended, Files, Server, Tool};
use crate::{sslcat, tool_alone, SSLCAT};

/// Shakes hands, reads to the end, and cuts, as many servers do.
pub fn rude(context: Context) -> Server<()> {
    Server::start(move |tcp| {
        let Ok(mut file) = SslFile::server(tcp, &context) else { return };
        let _ = file.read_to_end(&mut Vec::new());
        file.abort();
    })
}

/// One that shows this pair.
fn showing(engine: Engine, pair: &Pair) -> Server<()> {
    rude(Context::builder().engine(engine).identity(pair.identity()).build().expect("context"))
}

/// A leaf below an intermediate below a root: the leaf alone with its key, and the root.
fn below_an_intermediate() -> (Pair, String, String) {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let keys = [(); 3].map(|()| KeyPair::generate().expect("key"));
    let [root_key, middle_key, key] = keys;
    let root = authority("The Root").self_signed(&root_key).expect("root");
    let root_issuer = Issuer::new(authority("The Root"), root_key);
    let middle = authority("The Intermediate").signed_by(&middle_key, &root_issuer).expect("intermediate");
    let middle_issuer = Issuer::new(authority("The Intermediate"), middle_key);
    let mut leaf = CertificateParams::new(vec!["localhost".to_string()]).expect("params");
    leaf.distinguished_name.push(DnType::CommonName, "the leaf");
    let leaf = leaf.signed_by(&key, &middle_issuer).expect("leaf");
    (Pair { chain: leaf.pem(), key: key.serialize_pem() }, middle.pem(), root.pem())
}

/// A certificate of openssl's for localhost, valid for so many days.
fn made_by_openssl(files: &Files, days: &str) -> (String, String) {
    let path = |name: &str| files.dir.path().join(name).to_str().expect("UTF-8").to_string();
    let (cert, key) = (path("dated.pem"), path("dated.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/O=Example/CN=localhost", "-days", days])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", &key, "-out", &cert])
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{made:?}");
    (cert, key)
}

/// What openssl says of it.
fn told_by_openssl(cert: &str, what: &str) -> String {
    let told =
        Command::new("openssl").args(["x509", "-noout", what, "-sha256", "-in", cert]).output().expect("openssl");
    let told = String::from_utf8(told.stdout).expect("UTF-8");
    told.split_once('=').expect("a value").1.trim().to_string()
}

#[test]
fn who_is_refused_is_shown_as_openssl_has_it() {
    if !is_here("openssl", &["version"]) {
        return;
    }
    let files = Files::new();
    let (cert, key) = made_by_openssl(&files, "10");
    let fingerprint = told_by_openssl(&cert, "-fingerprint");
    for engine in engines() {
        // In TLS 1.3 native-tls does not show whom it refuses.
        let version = if engine == Engine::Native { "--tls1.2" } else { "--tls1.3" };
        let server = Tool::new(Path::new("openssl")).args(&["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"]);
        let server = server.args(&["-cert", &cert, "-key", &key]).open();
        let told = server.stdout.line("ACCEPT 127.0.0.1:");
        let port = told.rsplit(':').next().expect("port");
        let ended = sslcat(engine, &["localhost", port, "--ca", &files.ca, version, "--show-certs"]).feed(b"").end();
        assert_eq!((ended.code, ended.stdout()), (4, ""), "{engine:?}: {ended:?}");
        for part in [
            "certificate 0: CN=localhost,O=Example\n",
            "  names    localhost, 127.0.0.1\n",
            "  issuer   CN=localhost,O=Example\n",
            " days left\n",
            "  key      RSA, 2048 bits; signed with sha256WithRSAEncryption\n",
            &format!("  SHA-256  {fingerprint}\n"),
            &std::fs::read_to_string(&cert).expect("PEM"),
            "self-signed",
            "advice: --ca FILE trusts it",
        ] {
            assert!(ended.stderr().contains(part), "{engine:?}: no {part:?} in {}", ended.stderr());
        }
        server.end();
    }
}

#[test]
fn the_whole_chain_is_shown_as_it_came() {
    let (leaf, middle, root) = below_an_intermediate();
    let files = Files::new();
    let root = files.write("root.pem", &root);
    let pair = Pair { chain: leaf.chain.clone() + &middle, key: leaf.key.clone() };
    let sent = Certificate::stack_from_pem(pair.chain.as_bytes()).expect("chain");
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
        for (ca, code) in [(&root, 0), (&files.ca, 4)] {
            for check in [true, false] {
                let server = showing(engine, &pair);
                let mut tool = sslcat(engine, &["localhost", &server.port, "--ca", ca, "--show-certs"]);
                if check {
                    tool = tool.args(&["--check"]);
                }
                let ended = tool.feed(b"").end();
                assert_eq!(ended.code, code, "{engine:?}: {ended:?}");
                let (report, other) = match check {
                    true => (ended.stdout(), ended.stderr()),
                    false => (ended.stderr(), ended.stdout()),
                };
                assert!(
                    report.contains("certificate 0: CN=the leaf") && report.contains("certificate 1: CN=The Inter")
                );
                assert_eq!(Certificate::stack_from_pem(report.as_bytes()).expect("PEM"), sent, "{engine:?}");
                assert!(!other.contains("-----BEGIN"), "{other}");
                server.join();
            }
        }
    }
}

#[test]
fn a_check_ends_with_0_though_the_server_cuts() {
    let files = Files::new();
    for engine in engines() {
        let server = rude(server_context(engine));
        let ended = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca, "--check"]).open().end();
        assert_eq!((ended.code, ended.stderr()), (0, ""), "{engine:?}: {ended:?}");
        assert!(ended.stdout().contains(&format!("{engine:?} engine")), "{ended:?}");
        assert!(ended.stdout().contains("certificate trusted\ncertificate 0: CN=localhost\n"), "{ended:?}");
        server.join();
    }
}

#[test]
fn an_end_of_ours_that_is_answered_with_a_cut_is_none_where_nothing_was_said() {
    let files = Files::new();
    for engine in engines() {
        // It hears nothing behind its own end, and so can't tell.
        let code = if engine == Engine::Native { 5 } else { 0 };
        let server = rude(server_context(engine));
        let ended = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca]).feed(b"").end();
        assert_eq!(ended.code, code, "{engine:?}: {ended:?}");
        server.join();

        let context = server_context(engine);
        let server = Server::start(move |tcp| {
            let mut file = SslFile::server(tcp, &context).expect("handshake");
            let _ = file.read_to_end(&mut Vec::new());
            // A reset is what becomes of it.
            file.set_linger(Some(Duration::ZERO)).expect("set_linger");
            file.abort();
        });
        let ended = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca]).feed(b"").end();
        assert_eq!(ended.code, code, "{engine:?}: {ended:?}");
        server.join();

        // Something was sent, and who knows what became of it.
        let server = rude(server_context(engine));
        let ended = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca]).feed(b"a question").end();
        assert_eq!(ended.code, 5, "{engine:?}: {ended:?}");
        server.join();

        // Something came, and may not be all.
        let context = server_context(engine);
        let server = Server::start(move |tcp| {
            let mut file = SslFile::server(tcp, &context).expect("handshake");
            file.write_all(b"half").expect("write");
            let _ = file.read_to_end(&mut Vec::new());
            file.get_ref().shutdown(Shutdown::Both)
        });
        let ended = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca]).feed(b"").end();
        assert_eq!(ended.code, 5, "{engine:?}: {ended:?}");
        let _ = server.join();
    }
}

#[test]
fn a_check_says_in_time_what_will_expire() {
    if !is_here("openssl", &["version"]) {
        return;
    }
    let files = Files::new();
    let (cert, key) = made_by_openssl(&files, "10");
    let identity = || Identity::from_pem_files(&cert, &key).expect("identity");
    for engine in engines() {
        for (span, code) in [("9d", 0), ("1w", 0), ("11d", 4), ("2w", 4), ("241h", 4)] {
            let server = rude(Context::builder().engine(engine).identity(identity()).build().expect("context"));
            let args = ["localhost", &server.port, "--ca", &cert, "--check", "--expires-in", span];
            let ended = sslcat(engine, &args).feed(b"").end();
            assert_eq!(ended.code, code, "{engine:?} {span}: {ended:?}");
            // Ten, in the second in which it was made.
            let told = ["9", "10"].iter().any(|days| ended.stderr().contains(&format!("has {days} days left: it exp")));
            assert_eq!(told, code == 4, "{engine:?} {span}: {ended:?}");
            server.join();
        }
    }
}

#[test]
fn a_check_hears_that_a_server_wants_a_certificate() {
    // On OpenSSL native-tls can't ask for one, and does not hear what comes behind its own end.
    let files = Files::new();
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
        let demanding = server_builder(engine).client_auth(ClientAuth::Require).add_root(common::ca());
        let server = rude(demanding.system_roots(false).build().expect("context"));
        let args = ["localhost", &server.port, "--ca", &files.ca, "--check", "--tls1.3"];
        let ended = sslcat(engine, &args).feed(b"").end();
        assert_eq!(ended.code, 4, "{engine:?}: {ended:?}");
        assert!(ended.stderr().contains("advice: the server wants a certificate of ours: --cert FILE"), "{ended:?}");
        server.join();
    }
}

/// Of the document that `--check --json` prints.
fn document(ended: &Ended) -> Value {
    serde_json::from_str(ended.stdout()).unwrap_or_else(|error| panic!("{error} in {ended:?}"))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The names that README.md lists: programs rely on them.
fn assert_has_the_listed_names(value: &Value) {
    let listed = |heading: &str| -> Vec<&str> {
        let (_, table) = include_str!("../../README.md").split_once(heading).expect("the table");
        let rows = table.lines().skip_while(|line| !line.starts_with("|--")).skip(1);
        let rows = rows.take_while(|line| line.starts_with('|'));
        let names = rows.flat_map(|row| row.split('|').nth(1).expect("a cell").split('`').skip(1).step_by(2));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    };
    assert_eq!(keys(value), listed("### The document"));
    for certificate in value["certificates"].as_array().expect("an array") {
        let mut names = listed("### A certificate");
        names.retain(|name| *name != "pem" || certificate.get("pem").is_some());
        assert_eq!(keys(certificate), names);
        assert_eq!(keys(&certificate["key"]), ["bits", "type"]);
    }
    if !value["error"].is_null() {
        assert_eq!(keys(&value["error"]), listed("### An error"));
    }
}

#[test]
fn json_has_the_same_names_however_it_ends() {
    let files = Files::new();
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
        let server = rude(server_context(engine));
        let args = ["localhost", &server.port, "--ca", &files.ca, "--check", "--json", "--show-certs"];
        let ended = sslcat(engine, &args).feed(b"").end();
        let good = document(&ended);
        assert_eq!((ended.code, ended.stderr()), (0, ""), "{ended:?}");
        assert_has_the_listed_names(&good);
        assert_eq!((&good["ok"], &good["exit_code"], &good["trusted"]), (&true.into(), &0.into(), &true.into()));
        assert_eq!((&good["host"], &good["version"]), (&"localhost".into(), &"TLSv1.3".into()), "{good}");
        assert_eq!(good["port"].to_string(), server.port);
        let leaf = &good["certificates"][0];
        assert_eq!(leaf["names"][0], serde_json::json!({ "type": "dns", "value": "localhost" }));
        let pem = Certificate::from_pem(leaf["pem"].as_str().expect("PEM").as_bytes()).expect("PEM");
        assert_eq!(pem, Certificate::from_pem(certs().ecdsa.chain.as_bytes()).expect("PEM"));
        server.join();

        let server = rude(server_context(engine));
        let args = ["localhost", &server.port, "--ca", &files.ca, "--check", "--json", "--name", "other.example"];
        let ended = sslcat(engine, &args).feed(b"").end();
        let refused = document(&ended);
        assert_eq!(ended.code, 4, "{ended:?}");
        assert_has_the_listed_names(&refused);
        assert_eq!((&refused["ok"], &refused["exit_code"]), (&false.into(), &4.into()));
        assert_eq!((&refused["trusted"], &refused["error"]["kind"]), (&false.into(), &"hostname_mismatch".into()));
        assert_eq!(refused["certificates"].as_array().map(Vec::len), Some(2), "{refused}");
        assert!(refused["error"]["advice"][0].as_str().is_some_and(|advice| advice.contains("--name localhost")));
        server.join();

        // Beside a transfer it is a line of stderr.
        let server = rude(server_context(engine));
        let ended = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca, "--json"]).feed(b"").end();
        assert_eq!((ended.code, ended.stdout()), (0, ""), "{ended:?}");
        assert_has_the_listed_names(&serde_json::from_str(ended.stderr()).expect("one document"));
        server.join();
    }
    let server = Server::start(drop);
    let port = server.port.clone();
    let ended = tool_alone().args(&["127.0.0.1", &port, "--check", "--json"]).feed(b"").end();
    server.join();
    assert_has_the_listed_names(&document(&ended));
    assert_eq!((ended.code, &document(&ended)["error"]["kind"]), (3, &"truncated".into()), "{ended:?}");
    let ended = tool_alone().args(&["127.0.0.1", &port, "--check", "--json"]).feed(b"").end();
    assert_has_the_listed_names(&document(&ended));
    assert_eq!((ended.code, &document(&ended)["exit_code"]), (2, &2.into()), "{ended:?}");
    assert_eq!(document(&ended)["server_name"], "127.0.0.1", "{ended:?}");
}

#[test]
fn advice_says_what_would_help() {
    let files = Files::new();
    let (leaf, middle, root) = below_an_intermediate();
    let middle_pem = files.write("middle.pem", &middle);
    let root = files.write("root.pem", &root);
    let whole = Pair { chain: leaf.chain.clone() + &middle, key: leaf.key.clone() };
    let cases: [(&Pair, &[&str], Option<&str>); 5] = [
        (&certs().ecdsa, &["--ca", &files.ca, "--name", "a.example"], Some("--name localhost expects the name it has")),
        (&certs().self_signed, &["--ca", &files.ca], Some("--ca FILE trusts it, with the PEM that --show-certs gives")),
        (&leaf, &["--ca", &root], Some("the server sent no intermediate: if CN=The Intermediate is one, its conf")),
        // What it advises helps.
        (&leaf, &["--ca", &middle_pem], None),
        (&whole, &["--ca", &files.ca], Some("--ca FILE, with CN=The Root in it, trusts it")),
    ];
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
        for (pair, args, advice) in &cases {
            let server = showing(engine, pair);
            let ended = sslcat(engine, &["localhost", &server.port, "--check"]).args(args).feed(b"").end();
            assert_eq!(ended.code, if advice.is_some() { 4 } else { 0 }, "{engine:?} {args:?}: {ended:?}");
            assert!(
                ended.stderr().contains(&advice.map_or(String::new(), |text| format!("advice: {text}"))),
                "{ended:?}"
            );
            server.join();
        }
        let server = Server::start(|mut tcp: TcpStream| {
            let _ = tcp.write_all(b"220 mail.example ESMTP\r\n");
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        let ended = sslcat(engine, &["localhost", &server.port]).feed(b"").end();
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!(ended.stderr().contains("advice: a server that begins in plain text"), "{ended:?}");
        server.join();
        let server = Server::start(|mut tcp: TcpStream| {
            let _ = tcp.read(&mut [0; 4096]);
            // unrecognized_name
            let _ = tcp.write_all(&[21, 3, 3, 0, 2, 2, 112]);
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        let ended = sslcat(engine, &["localhost", &server.port]).feed(b"").end();
        assert!(ended.stderr().contains("--sni NAME asks for another"), "{engine:?}: {ended:?}");
        server.join();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_check_no_roots_are_loaded() {
    if !is_here("strace", &["--version"]) {
        return;
    }
    // `native-tls` has loaded them before it hears that nobody wants them.
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
        let opened = |args: &[&str]| {
            let server = rude(server_context(engine));
            let library = format!("{engine:?}").to_lowercase();
            let tool =
                Tool::new(Path::new("strace")).args(&["-f", "-qq", "-e", "trace=openat", SSLCAT, "--engine", &library]);
            let ended = tool.args(&["localhost", &server.port]).args(args).feed(b"").end();
            server.join();
            (ended.code, ended.stderr().contains("/certs/") || ended.stderr().contains("ca-certificates.crt"))
        };
        assert_eq!(opened(&["-k"]), (0, false), "{engine:?}");
        assert_eq!(opened(&[]).0, 4, "{engine:?}");
        assert!(opened(&[]).1, "{engine:?}: this test looks for the wrong files");
    }
}
