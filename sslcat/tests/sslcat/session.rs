//! `--session`: saved, resumed, and passed over where it should not count.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use serde_json::Value;
use sslfile::{Context, Engine, SslFile, Version};

use crate::common::{engines, server_builder};
use crate::sslcat;
use crate::tool::{is_here, Ended, Files};

/// Its port. It says a word, behind which the tickets of TLS 1.3 have come, and ends as it is told.
fn serve(context: Context) -> String {
    const CONNECTIONS: usize = 16;
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port().to_string();
    thread::spawn(move || {
        for tcp in listener.incoming().take(CONNECTIONS).flatten() {
            let Ok(mut file) = SslFile::server(tcp, &context) else { continue };
            let _ = file.write_all(b"x");
            let _ = file.read_to_end(&mut Vec::new());
            let _ = file.close();
        }
    });
    port
}

struct Bench {
    files: Files,
    session: String,
    port: String,
}

impl Bench {
    fn new(version: Version) -> Option<Bench> {
        if !engines().contains(&Engine::OpenSsl) {
            return None;
        }
        let context = server_builder(Engine::OpenSsl).min_version(version).max_version(version);
        let files = Files::new();
        let session = files.dir.path().join("kept session").to_str().expect("UTF-8").to_string();
        Some(Bench { files, session, port: serve(context.build().expect("context")) })
    }

    fn run(&self, args: &[&str]) -> (Ended, Value) {
        let tool = sslcat(Engine::OpenSsl, &["localhost", &self.port, "--check", "--json"]);
        let tool = tool.args(&["--session", &self.session]).args(args);
        let ended = tool.feed(b"").end();
        let document = serde_json::from_slice(&ended.stdout).unwrap_or(Value::Null);
        (ended, document["resumed"].clone())
    }

    fn trusting<'a>(&'a self, args: &[&'a str]) -> (Ended, Value) {
        self.run(&[&["--ca", &*self.files.ca], args].concat())
    }
}

#[test]
fn what_one_run_saves_the_next_one_resumes() {
    for version in [Version::Tls1_2, Version::Tls1_3] {
        let Some(bench) = Bench::new(version) else { return };
        for resumed in [false, true, true] {
            let (ended, told) = bench.trusting(&["-v"]);
            assert_eq!((ended.code, told), (0, resumed.into()), "{version}: {ended:?}");
            let which = if resumed { "the session was resumed" } else { "the session was a new one" };
            assert!(ended.stderr().contains(which), "{ended:?}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&bench.session).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "for its owner alone");
        }
        if is_here("openssl", &["version"]) {
            let shown = Command::new("openssl").args(["sess_id", "-noout", "-text", "-in", &bench.session]).output();
            let shown = String::from_utf8_lossy(&shown.expect("openssl").stdout).into_owned();
            assert!(shown.contains("Master-Key") || shown.contains("Resumption PSK"), "{shown}");
        }
    }
}

#[test]
fn a_transfer_saves_and_resumes_too() {
    let Some(bench) = Bench::new(Version::Tls1_3) else { return };
    for which in ["the session was a new one", "the session was resumed"] {
        let args = ["localhost", &bench.port, "--ca", &bench.files.ca, "-v", "--session", &bench.session];
        let ended = sslcat(Engine::OpenSsl, &args).feed(b"hello").end();
        assert_eq!((ended.code, &*ended.stdout), (0, &b"x"[..]), "{ended:?}");
        assert!(ended.stderr().contains(which), "{ended:?}");
    }
}

/// Nobody's certificate is looked at when a session is resumed.
#[test]
fn a_session_made_with_other_demands_does_not_count() {
    let Some(bench) = Bench::new(Version::Tls1_3) else { return };
    let (ended, told) = bench.run(&["-k"]);
    assert_eq!((ended.code, told), (0, false.into()), "{ended:?}");
    let (ended, _) = bench.run(&[]);
    assert_eq!(ended.code, 4, "it was made with -k: {ended:?}");
    let (ended, told) = bench.run(&["-k"]);
    assert_eq!((ended.code, told), (0, true.into()), "{ended:?}");
    let (ended, told) = bench.trusting(&["--name", "127.0.0.1"]);
    assert_eq!((ended.code, told), (0, false.into()), "{ended:?}");
    assert!(ended.stderr().contains("other demands"), "{ended:?}");
}

#[test]
fn what_is_no_session_is_told_of_and_ends_nothing() {
    let Some(bench) = Bench::new(Version::Tls1_2) else { return };
    let (ended, _) = bench.trusting(&[]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let good = fs::read_to_string(&bench.session).expect("it is there");
    let broken = good.replacen("-----\n", "-----\nAAAA", 1);
    for text in ["", "nothing of the kind", &broken, &good[..good.len() / 2]] {
        fs::write(&bench.session, text).expect("write");
        let (ended, told) = bench.trusting(&[]);
        assert_eq!((ended.code, told), (0, false.into()), "{text:?}: {ended:?}");
        assert!(ended.stderr().contains("there will be a new session"), "{ended:?}");
    }
    // A folder that is not there: it is told, and that is all.
    let nowhere = bench.files.dir.path().join("no/such").to_str().expect("UTF-8").to_string();
    let args = ["localhost", &bench.port, "--ca", &bench.files.ca, "--check", "--session", &nowhere];
    let ended = sslcat(Engine::OpenSsl, &args).feed(b"").end();
    assert!(ended.code == 0 && ended.stderr().contains("nothing was saved"), "{ended:?}");
}

#[test]
fn other_libraries_have_no_session_to_give() {
    let Some(bench) = Bench::new(Version::Tls1_2) else { return };
    for engine in engines().into_iter().filter(|engine| *engine != Engine::OpenSsl) {
        let args = ["localhost", &bench.port, "--ca", &bench.files.ca, "--session", &bench.session];
        let ended = sslcat(engine, &args).feed(b"").end();
        assert_eq!(ended.code, 1, "{engine:?}: {ended:?}");
    }
}
