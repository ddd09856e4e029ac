//! Transfers of FTP, whose servers want each data connection to resume the session of its control connection.

use std::fs;
use std::io;

use sslfile::{Context, Engine, SslFile, SslOptions, Version};

use super::ftp_server::{self, Kind, Program, Server};
use super::harness::{run, Bench};
use crate::common::{client_builder, engines, pattern, NAME};

#[allow(dead_code)]
#[path = "../../examples/ftp.rs"]
mod client;

use client::Ftp;

/// More than the tickets a server gives to the control connection.
const TRANSFERS: usize = 6;

fn each(test: impl Fn(&Bench, &Program, &Context, Version) + Send + 'static) {
    run(ftp_server::both(), move |bench, programs| {
        for program in programs {
            for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
                // What the context keeps by itself is of no use: nothing.
                let context = client_builder(engine).session_resumption(false).build().expect("context");
                for version in [Version::Tls1_2, Version::Tls1_3] {
                    println!("{program:?} {engine:?} {version}");
                    test(bench, &program, &context, version);
                }
            }
        }
    });
}

fn options(version: Version) -> SslOptions {
    SslFile::options().min_version(version).max_version(version)
}

fn log_in(server: &Server, context: &Context, version: Version) -> io::Result<Ftp> {
    let mut ftp = Ftp::connect(NAME, server.port, options(version), context)?;
    ftp.log_in(server.user, &server.password)?;
    Ok(ftp)
}

fn put(ftp: &mut Ftp, server: &Server, name: &str, data: &[u8]) {
    ftp.put(&mut &data[..], name).unwrap_or_else(|e| panic!("put {name}: {e}"));
    assert!(fs::read(server.files.join(name)).expect("the file") == data, "{name} has arrived");
}

fn get(ftp: &mut Ftp, name: &str, data: &[u8]) {
    let mut got = Vec::new();
    ftp.get(name, &mut got).unwrap_or_else(|e| panic!("get {name}: {e}"));
    assert!(got == data, "{name} has come");
}

#[test]
fn any_number_of_transfers_resume_their_control_connection() {
    each(|bench, program, context, version| {
        let server = program.start(bench);
        let mut ftp = log_in(&server, context, version).expect("log in");
        let (small, big) = (pattern(1, 100), pattern(2, 3_000_000));
        for nth in 0..TRANSFERS {
            put(&mut ftp, &server, &format!("small{nth}"), &small);
        }
        for nth in 0..TRANSFERS {
            get(&mut ftp, &format!("small{nth}"), &small);
        }
        for nth in 0..TRANSFERS {
            put(&mut ftp, &server, &format!("big{nth}"), &big);
            get(&mut ftp, &format!("big{nth}"), &big);
            put(&mut ftp, &server, "nothing", b"");
        }
        let list = ftp.list("").expect("list");
        assert_eq!(String::from_utf8_lossy(&list).lines().count(), 2 * TRANSFERS + 1);
        ftp.quit().expect("quit");
    });
}

/// One of the context's store. ProFTPD compares session ids, and rustls has a new one for each resumption in TLS 1.2.
#[test]
fn a_control_connection_may_have_resumed_a_session_itself() {
    run(ftp_server::both(), |bench, programs| {
        for program in programs {
            for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
                for version in [Version::Tls1_2, Version::Tls1_3] {
                    let what = format!("{program:?} {engine:?} {version}");
                    let context = client_builder(engine).session_resumption(true).build().expect("context");
                    let server = program.start(bench);
                    let data = pattern(4, 10_000);
                    let mut first = log_in(&server, &context, version).expect("log in");
                    put(&mut first, &server, "file", &data);
                    let mut second = log_in(&server, &context, version).expect("log in");
                    let outcome = second.put(&mut &data[..], "file");
                    if program.kind == Kind::ProFtpd && engine == Engine::Rustls && version == Version::Tls1_2 {
                        // As the documentation of `resume` says.
                        assert!(outcome.expect_err(&what).to_string().starts_with("STOR file: 425"), "{what}");
                        continue;
                    }
                    outcome.unwrap_or_else(|e| panic!("{what}: {e}"));
                    get(&mut second, "file", &data);
                }
            }
        }
    });
}

/// Or the other tests would show nothing.
#[test]
fn a_data_connection_with_a_session_of_its_own_is_refused() {
    each(|bench, program, context, version| {
        let server = program.start(bench);
        let mut ftp = log_in(&server, context, version).expect("log in");
        ftp.data = options(version).client(NAME);
        let error = ftp.put(&mut &b"data"[..], "file").expect_err("refused").to_string();
        assert!(error.starts_with("STOR file: 5") || error.starts_with("STOR file: 4"), "{error}");
        assert!(error.contains("session reuse required") || error.contains("not permitted"), "{error}");
    });
}

#[test]
fn control_connections_of_one_context_are_told_apart() {
    each(|bench, program, context, version| {
        let server = program.start(bench);
        let data = pattern(3, 10_000);
        let mut both = [(), ()].map(|()| log_in(&server, context, version).expect("log in"));
        for nth in 0..TRANSFERS {
            for (which, ftp) in both.iter_mut().enumerate() {
                put(ftp, &server, &format!("file{which}"), &data[nth..]);
                get(ftp, &format!("file{which}"), &data[nth..]);
            }
        }
        for ftp in both {
            ftp.quit().expect("quit");
        }
    });
}
