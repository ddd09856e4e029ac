//! `--scan`, beside what sslscan finds, and with servers that do not play along.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sslfile::{Context, Engine, SslFile};

use crate::common::{certs, engines, server_builder};
use crate::sslcat;
use crate::tool::{is_here, Ended, Files, Tool};

/// (what, version, name) of all that is accepted.
type Accepted = BTreeSet<(&'static str, String, String)>;

fn telling() -> Vec<Engine> {
    engines().into_iter().filter(|engine| *engine != Engine::Native).collect()
}

fn scan(engine: Engine, port: &str, args: &[&str]) -> (Ended, Value) {
    let ended = sslcat(engine, &["localhost", port, "--scan", "--json"]).args(args).feed(b"").end();
    let document = serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (ended, document)
}

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// Each finding: what, of which version, its name and state.
fn findings(document: &Value) -> Vec<(&'static str, String, String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_string();
    let mut all = Vec::new();
    let mut add = |what, version: String, found: &Value| {
        all.push((what, version, text(&found["name"]), text(&found["state"])));
    };
    list(document, "versions").iter().for_each(|found| add("version", String::new(), found));
    list(document, "alpn").iter().for_each(|found| add("alpn", String::new(), found));
    for of_version in list(document, "ciphers") {
        list(of_version, "suites").iter().for_each(|found| add("suite", text(&of_version["version"]), found));
    }
    for of_version in list(document, "groups") {
        list(of_version, "groups").iter().for_each(|found| add("group", text(&of_version["version"]), found));
    }
    all
}

fn in_state(document: &Value, wanted: &str) -> Accepted {
    let all = findings(document).into_iter().filter(|(.., state)| state == wanted);
    all.map(|(what, version, name, _)| (what, version, name)).collect()
}

/// What sslscan says of it, but for ALPN, which it does not ask for.
fn sslscan(port: &str, args: &[&str]) -> Accepted {
    let address = format!("localhost:{port}");
    let ended = Tool::new(Path::new("sslscan"))
        .args(&["--xml=-", "--no-heartbleed", "--no-compression", "--no-fallback", "--no-renegotiation"])
        .args(&["--sni-name=localhost", "--ipv4", "--timeout=60"])
        .args(args)
        .args(&[&address])
        .feed(b"")
        .end();
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut accepted = Accepted::new();
    for line in ended.stdout().lines().map(str::trim) {
        let value = |name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}=\""))?;
            Some(rest.split_once('"')?.0.to_string())
        };
        if line.starts_with("<protocol type=\"tls\"") && value("enabled").as_deref() == Some("1") {
            accepted.insert(("version", String::new(), format!("TLSv{}", value("version").expect("version"))));
        } else if line.starts_with("<cipher ") {
            let name = value("cipher").expect("cipher");
            accepted.insert(("suite", value("sslversion").expect("version"), name));
        } else if line.starts_with("<group ") {
            // "secp256r1 (NIST P-256)"
            let name = value("name").expect("name").split(' ').next().expect("a word").to_string();
            accepted.insert(("group", value("sslversion").expect("version"), name));
        }
    }
    assert!(!accepted.is_empty(), "{ended:?}");
    accepted
}

/// OpenSSL's server, for any number of connections.
fn s_server(args: &[&str]) -> (Tool, String) {
    let server =
        Tool::new(Path::new("openssl")).args(&["s_server", "-accept", "127.0.0.1:0", "-www"]).args(args).open();
    let told = server.stdout.line("ACCEPT 127.0.0.1:");
    let port = told.rsplit(':').next().expect("port").to_string();
    (server, port)
}

#[test]
fn finds_what_sslscan_finds() {
    if !engines().contains(&Engine::OpenSsl) || !is_here("openssl", &["version"]) || !is_here("sslscan", &["--version"])
    {
        return;
    }
    let files = Files::new();
    let (rsa, rsa_key) = (files.write("rsa.pem", &certs().rsa.chain), files.write("rsa.key", &certs().rsa.key));
    let own = |cert: &'static str| match cert {
        "rsa" => [rsa.as_str(), &rsa_key],
        _ => [files.chain.as_str(), &files.key],
    };
    for (cert, args) in [
        ("rsa", &["-cipher", "ALL:@SECLEVEL=0"][..]),
        ("rsa", &["-cipher", "ECDHE+AESGCM:AES128-SHA", "-serverpref", "-tls1_2"]),
        ("rsa", &["-cipher", "AES128-SHA:AES256-SHA:@SECLEVEL=0", "-tls1_1"]),
        (
            "rsa",
            &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256:TLS_AES_256_GCM_SHA384", "-groups", "P-384:X448"],
        ),
        ("rsa", &["-cipher", "ALL:@SECLEVEL=0", "-groups", "P-521:X25519", "-no_tls1_3"]),
        ("ecdsa", &["-cipher", "ECDHE+AESGCM"]),
    ] {
        let [chain, key] = own(cert);
        let (_server, port) = s_server(&[&["-cert", chain, "-key", key][..], args].concat());
        let (ended, document) = scan(Engine::OpenSsl, &port, &[]);
        assert_eq!((ended.code, &document["ok"]), (0, &true.into()), "{args:?}: {ended:?}");
        let found: Accepted =
            in_state(&document, "accepted").into_iter().filter(|(what, ..)| *what != "alpn").collect();
        let mut theirs = sslscan(&port, &[]);
        // With a key on a curve sslscan takes what needs that curve beside it for refused (RFC 8422, section 5.1): one of its groups
        // of TLS 1.2 is then all it sees.
        let of_old = |(what, version, _): &(&str, String, String)| *what == "group" && version == "TLSv1.2";
        if cert == "ecdsa" {
            assert!(theirs.iter().filter(|one| of_old(one)).all(|one| found.contains(one)), "{found:?}");
            theirs.extend(found.iter().filter(|one| of_old(one)).cloned());
        }
        let (only_ours, only_theirs): (Vec<_>, Vec<_>) =
            (found.difference(&theirs).collect(), theirs.difference(&found).collect());
        assert!(only_ours.is_empty() && only_theirs.is_empty(), "{args:?}: {only_ours:?}, sslscan: {only_theirs:?}");
        let order = if args.contains(&"-serverpref") { "server" } else { "client" };
        assert!(list(&document, "ciphers").iter().any(|one| one["order"] == order), "{args:?}: {document}");
    }
}

/// A server on threads, for any number of connections; `serve` is told which one it is.
struct Many {
    port: String,
    address: std::net::SocketAddr,
    over: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Many {
    fn start(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Many {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let serve = Arc::new(serve);
        let (is_over, count) = (over.clone(), asked.clone());
        thread::spawn(move || {
            while let Ok((tcp, _)) = listener.accept() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (serve, number) = (serve.clone(), count.fetch_add(1, Ordering::SeqCst));
                thread::spawn(move || serve(tcp, number));
            }
        });
        Many { port: address.port().to_string(), address, over, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn shake(tcp: TcpStream, context: &Context) {
    if let Ok(mut file) = SslFile::server(tcp, context) {
        let _ = file.read_to_end(&mut Vec::new());
    }
}

fn plain(engine: Engine) -> Context {
    server_builder(engine).alpn(["h2"]).build().expect("context")
}

/// Whether a ClientHello offers TLS 1.3: supported_versions with two bytes for each version, 3 and 4.
fn offers_tls13(hello: &[u8]) -> bool {
    hello.windows(7).any(|part| part == [0, 43, 0, 3, 2, 3, 4])
}

#[test]
fn every_engine_that_can_be_told_finds_the_same_server() {
    for engine in telling() {
        let context = plain(engine);
        let server = Many::start(move |tcp, _| shake(tcp, &context));
        let (ended, document) = scan(engine, &server.port, &["--scan-limit", "8"]);
        assert_eq!(ended.code, 0, "{engine:?}: {ended:?}");
        let accepted = in_state(&document, "accepted");
        for (what, version, name) in [
            ("version", "", "TLSv1.2"),
            ("version", "", "TLSv1.3"),
            ("suite", "TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
            ("suite", "TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
            ("group", "TLSv1.3", "x25519"),
            ("group", "TLSv1.2", "secp256r1"),
            ("alpn", "", "h2"),
        ] {
            let wanted = (what, version.to_string(), name.to_string());
            assert!(accepted.contains(&wanted), "{engine:?}: no {wanted:?} in {accepted:?}");
        }
        let refused = in_state(&document, "refused");
        assert!(refused.contains(&("alpn", String::new(), "http/1.1".to_string())), "{engine:?}: {refused:?}");
        // It never asks for what it does not have.
        let unknown = in_state(&document, "unknown");
        let old = ("suite", "TLSv1.2".to_string(), "RC4-SHA".to_string());
        assert!(unknown.contains(&old), "{engine:?}: {unknown:?}");
        if engine == Engine::Rustls {
            assert!(unknown.contains(&("version", String::new(), "TLSv1.0".to_string())), "{unknown:?}");
        }
        let connections = document["connections"].as_u64().expect("a number");
        assert_eq!(connections, server.asked() as u64, "{engine:?}");
    }
    if engines().contains(&Engine::Native) {
        let ended = sslcat(Engine::Native, &["localhost", "1", "--scan"]).feed(b"").end();
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr().contains("--engine"), "{ended:?}");
    }
}

#[test]
fn the_table_has_what_is_accepted_and_counts_the_rest() {
    let Some(engine) = telling().into_iter().next() else { return };
    let context = plain(engine);
    let server = Many::start(move |tcp, _| shake(tcp, &context));
    let args = ["localhost", &server.port, "--scan", "--tls1.3", "--alpn", "h2,no\x1bne"];
    let ended = sslcat(engine, &args).feed(b"").end();
    assert_eq!((ended.code, ended.stderr()), (0, ""), "{ended:?}");
    for part in
        ["versions\n  TLSv1.3   accepted\n", "\n  TLS_AES_128_GCM_SHA256\n", "\n  x25519\n", "protocols (ALPN)\n  h2\n"]
    {
        assert!(ended.stdout().contains(part), "no {part:?} in {}", ended.stdout());
    }
    assert!(!ended.stdout().contains("TLSv1.2") && !ended.stdout().contains('\x1b'), "{ended:?}");
    let ended = sslcat(engine, &args).args(&["-v"]).feed(b"").end();
    assert!(ended.stdout().contains("refused: no_application_protocol"), "{ended:?}");
}

#[test]
fn a_client_certificate_that_is_demanded_hides_nothing() {
    if !engines().contains(&Engine::OpenSsl) || !is_here("openssl", &["version"]) {
        return;
    }
    let files = Files::new();
    let (_server, port) = s_server(&["-cert", &files.chain, "-key", &files.key, "-Verify", "1", "-alpn", "h2"]);
    for version in ["--tls1.2", "--tls1.3"] {
        let (ended, document) = scan(Engine::OpenSsl, &port, &[version]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let accepted = in_state(&document, "accepted");
        for what in ["version", "suite", "group", "alpn"] {
            assert!(accepted.iter().any(|(one, ..)| *one == what), "{version} {what}: {accepted:?}");
        }
    }
}

#[test]
fn it_asks_behind_starttls() {
    let Some(engine) = telling().into_iter().next() else { return };
    let context = plain(engine);
    let server = Many::start(move |tcp, _| {
        let mut lines = BufReader::new(tcp.try_clone().expect("clone"));
        let mut dialogue = || -> std::io::Result<()> {
            let mut line = String::new();
            (&tcp).write_all(b"220 here\r\n")?;
            lines.read_line(&mut line)?;
            (&tcp).write_all(b"250-here\r\n250 STARTTLS\r\n")?;
            lines.read_line(&mut line)?;
            (&tcp).write_all(b"220 go on\r\n")
        };
        if dialogue().is_ok() {
            shake(tcp, &context);
        }
    });
    let (ended, document) = scan(engine, &server.port, &["--starttls", "smtp"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(in_state(&document, "accepted").len() > 5, "{document}");
}

#[test]
fn nobody_there_is_an_error_and_no_finding() {
    let port = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port().to_string();
    for engine in telling() {
        let (ended, document) = scan(engine, &port, &[]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert_eq!((&document["ok"], &document["exit_code"]), (&false.into(), &2.into()), "{document}");
        assert!(document["error"]["text"].is_string() && findings(&document).is_empty(), "{document}");
    }
}

#[test]
fn who_does_not_answer_has_refused_nothing() {
    /// Something that is not an answer.
    type Serve = fn(TcpStream);
    let unrelated: Serve = |mut tcp| {
        let _ = tcp.read(&mut [0; 4096]);
        // access_denied
        let _ = tcp.write_all(&[21, 3, 3, 0, 2, 2, 49]);
        let _ = tcp.shutdown(Shutdown::Write);
        let _ = tcp.read_to_end(&mut Vec::new());
    };
    let silent: Serve = |mut tcp| drop(tcp.read_to_end(&mut Vec::new()));
    let dripping: Serve = |mut tcp| {
        let hello = [&[22, 3, 3, 0x20, 0][..], &[2, 0, 0x10, 0]].concat();
        for byte in hello.iter().chain(std::iter::repeat(&0)) {
            if tcp.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    let endless: Serve = |mut tcp| while tcp.write_all(&[22, 3, 3, 0, 4, 0, 0, 0, 0]).is_ok() {};
    let plain: Serve = |mut tcp| {
        let _ = tcp.write_all(b"SSH-2.0-none\r\n");
        let _ = tcp.read_to_end(&mut Vec::new());
    };
    let garbled: Serve = |mut tcp| {
        let _ = tcp.read(&mut [0; 4096]);
        let _ = tcp.write_all(&[22, 3, 3, 0, 6, 2, 0, 0, 2, 9, 9]);
        let _ = tcp.shutdown(Shutdown::Write);
        let _ = tcp.read_to_end(&mut Vec::new());
    };
    let servers: [(&str, Serve); 7] = [
        ("cut", drop),
        ("unrelated", unrelated),
        ("silent", silent),
        ("dripping", dripping),
        ("endless", endless),
        ("plain", plain),
        ("garbled", garbled),
    ];
    for engine in telling() {
        for (name, serve) in servers {
            let server = Many::start(move |tcp, _| serve(tcp));
            let begin = Instant::now();
            let (ended, document) = scan(engine, &server.port, &["-w", "1.5"]);
            assert_eq!(ended.code, 3, "{engine:?} {name}: {ended:?}");
            assert!(in_state(&document, "accepted").is_empty(), "{engine:?} {name}: {document}");
            assert!(in_state(&document, "refused").is_empty(), "{engine:?} {name}: {document}");
            assert!(!ended.stderr.is_empty() && document["error"]["text"].is_string(), "{engine:?} {name}: {ended:?}");
            // Each version is asked for, and then no more.
            assert!(server.asked() <= 12, "{engine:?} {name}: {} connections", server.asked());
            assert!(begin.elapsed() < Duration::from_secs(120), "{engine:?} {name}: {:?}", begin.elapsed());
            let is_advised = ended.stderr().contains("--starttls");
            assert_eq!(is_advised, name == "plain", "{engine:?} {name}: {ended:?}");
        }
    }
}

#[test]
fn who_refuses_everything_may_have_been_asked_for_the_wrong_name() {
    let Some(engine) = telling().into_iter().next() else { return };
    for (alert, state) in [(40, "refused"), (80, "refused"), (112, "unknown")] {
        let server = Many::start(move |mut tcp, _| {
            let _ = tcp.read(&mut [0; 4096]);
            let _ = tcp.write_all(&[21, 3, 3, 0, 2, 2, alert]);
            let _ = tcp.shutdown(Shutdown::Write);
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        let (ended, document) = scan(engine, &server.port, &[]);
        assert_eq!(ended.code, 3, "{alert}: {ended:?}");
        let in_it = in_state(&document, state);
        assert!(in_it.contains(&("version", String::new(), "TLSv1.2".to_string())), "{alert}: {document}");
        assert!(ended.stderr().contains("--sni"), "{alert}: {ended:?}");
    }
}

#[test]
fn a_choice_that_was_not_offered_is_no_answer() {
    let Some(engine) = telling().into_iter().next() else { return };
    let server = Many::start(move |mut tcp, _| {
        let _ = tcp.read(&mut [0; 4096]);
        // A ServerHello of TLS 1.2, with RC4-MD5.
        let hello = [&[2, 0, 0, 38, 3, 3][..], &[7; 32], &[0, 0, 4, 0]].concat();
        let _ = tcp.write_all(&[&[22, 3, 3, 0, 42][..], &hello].concat());
        let _ = tcp.shutdown(Shutdown::Write);
        let _ = tcp.read_to_end(&mut Vec::new());
    });
    let (ended, document) = scan(engine, &server.port, &["--tls1.2", "--alpn", "h2"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr().contains("was not offered"), "{ended:?}");
    let suites = |state| in_state(&document, state).iter().filter(|(what, ..)| *what == "suite").count();
    assert_eq!((suites("accepted"), suites("refused")), (0, 0), "{document}");
}

#[test]
fn what_is_answered_by_a_cut_is_unknown_and_the_rest_is_found() {
    let Some(engine) = telling().into_iter().next() else { return };
    let context = plain(engine);
    let server = Many::start(move |tcp, _| {
        let mut hello = [0; 4096];
        let n = tcp.peek(&mut hello).unwrap_or(0);
        if !offers_tls13(&hello[..n]) {
            shake(tcp, &context);
        }
    });
    let (ended, document) = scan(engine, &server.port, &[]);
    assert_eq!(ended.code, 3, "{ended:?}");
    let unknown = in_state(&document, "unknown");
    assert!(unknown.contains(&("version", String::new(), "TLSv1.3".to_string())), "{unknown:?}");
    let accepted = in_state(&document, "accepted");
    for what in ["version", "suite", "group", "alpn"] {
        assert!(accepted.iter().any(|(one, ..)| *one == what), "{what}: {accepted:?}");
    }
}

#[test]
fn a_server_that_goes_away_leaves_what_was_found_and_no_refusals() {
    let Some(engine) = telling().into_iter().next() else { return };
    let whole = {
        let context = plain(engine);
        let server = Many::start(move |tcp, _| shake(tcp, &context));
        scan(engine, &server.port, &["--scan-limit", "1"]).1
    };
    let refused = in_state(&whole, "refused");
    for (stays, is_silent) in [(2, false), (6, false), (9, true), (20, false)] {
        let context = plain(engine);
        let server = Many::start(move |mut tcp, number| match number < stays {
            true => shake(tcp, &context),
            false if is_silent => drop(tcp.read_to_end(&mut Vec::new())),
            false => drop(tcp),
        });
        let begin = Instant::now();
        let (ended, document) = scan(engine, &server.port, &["--scan-limit", "1", "-w", "3"]);
        assert_eq!((ended.code, &document["ok"]), (3, &false.into()), "{stays}: {ended:?}");
        assert!(
            document["error"]["text"].as_str().is_some_and(|text| text.contains("no answer")),
            "{stays}: {document}"
        );
        let all = findings(&document);
        assert!(!all.is_empty(), "{stays}: {document}");
        let wrong: Vec<_> = in_state(&document, "refused").difference(&refused).cloned().collect();
        assert!(wrong.is_empty(), "{stays}: {wrong:?}");
        // Who is gone is asked a few times, and not for everything.
        assert!(server.asked() <= stays + 8, "{stays}: {} connections", server.asked());
        assert!(begin.elapsed() < Duration::from_secs(120), "{stays}: {:?}", begin.elapsed());
        if stays >= 6 {
            assert!(!in_state(&document, "accepted").is_empty(), "{stays}: {document}");
        }
    }
}
