//! The alert hook: what is told, and what the hook may do.

use std::io::{ErrorKind as IoKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use sslfile::{Alert, Context, ContextBuilder, ErrorKind, Handshake, Role, SslFile, State, Version};

use super::rig::{at, s_client, s_server_at, serve, visit, with_openssl, Own, VERSIONS};
use crate::common::{
    certs, client_builder, engines, passes_in_child, server_builder, server_context, tcp_pair, tls_pair_with, within,
    LONG, NAME,
};

type Heard = Arc<Mutex<Vec<Alert>>>;

fn hooked(builder: ContextBuilder) -> (ContextBuilder, Heard) {
    let heard = Heard::default();
    let notes = heard.clone();
    (builder.on_alert(move |alert| notes.lock().expect("lock").push(alert.clone())), heard)
}

/// Number and whether it was ours, in order.
fn told(heard: &Heard) -> Vec<(u8, bool)> {
    heard.lock().expect("lock").iter().map(|alert| (alert.number(), alert.is_ours())).collect()
}

#[test]
fn close_notify_is_told_in_both_directions() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            for version in VERSIONS {
                let (builder, heard) = hooked(server_builder(engine));
                let client = |port| {
                    let mut command = s_client(port);
                    command.arg("-tls1_2");
                    command
                };
                serve(bench, &builder.build().expect("context"), client, |_| ()).expect();
                assert_eq!(told(&heard), [(0, true), (0, false)], "{engine:?}");
                let alert = heard.lock().expect("lock")[0].clone();
                assert_eq!((alert.name(), alert.role(), alert.not_tls()), ("close_notify", Role::Server, None));
                assert!(alert.peer().starts_with("127.0.0.1:"), "{alert:?}");

                let (builder, heard) = hooked(client_builder(engine));
                let server = |port| s_server_at(port, version, &own);
                visit(bench, &builder.build().expect("context"), server, |_| ()).expect();
                assert_eq!(told(&heard), [(0, true), (0, false)], "{engine:?} {version}");
                let alert = heard.lock().expect("lock")[0].clone();
                assert_eq!(alert.role(), Role::Client);
                assert!(alert.peer().contains("localhost"), "{alert:?}");
            }
        }
    });
}

#[test]
fn a_fatal_alert_of_ours_is_told_with_its_number() {
    with_openssl(|bench| {
        let stranger = Own::new(bench, "stranger", &certs().self_signed);
        let other = Own::new(bench, "other", &certs().other_name);
        for engine in engines() {
            for version in VERSIONS {
                for (own, kind, number) in
                    [(&stranger, ErrorKind::Certificate, 48), (&other, ErrorKind::HostnameMismatch, 42)]
                {
                    let (builder, heard) = hooked(client_builder(engine));
                    let server = |port| s_server_at(port, version, own);
                    let met = visit(bench, &builder.build().expect("context"), server, |_| ());
                    met.refused(kind, &format!("alert number {number}"));
                    assert_eq!(told(&heard), [(number, true)], "{engine:?} {version}");
                }
            }
            let (builder, heard) = hooked(at(Version::Tls1_2, server_builder(engine)));
            let client = |port| {
                let mut command = s_client(port);
                command.arg("-tls1_3");
                command
            };
            let met = serve(bench, &builder.build().expect("context"), client, |_| ());
            met.refused(ErrorKind::LocalAlert(70), "alert number 70");
            assert_eq!(told(&heard), [(70, true)], "{engine:?}");
        }
    });
}

/// One that goes out encrypted, so that nobody but the library has seen it.
#[test]
fn a_client_refused_under_encryption_is_told_too() {
    with_openssl(|bench| {
        let stranger = Own::new(bench, "stranger", &certs().self_signed);
        for engine in engines().into_iter().filter(|engine| super::rig::honours(*engine, "client_auth")) {
            let builder = server_builder(engine).add_root(crate::common::ca());
            let builder = at(Version::Tls1_3, builder.client_auth(sslfile::ClientAuth::Require));
            let (builder, heard) = hooked(builder);
            let server = builder.build().expect("context");
            let client = |port| {
                let mut command = s_client(port);
                stranger.show(&mut command);
                command
            };
            let (_, said) = serve(bench, &server, client, |_| ()).expect_err();
            let number = told(&heard)[0].0;
            assert!(said.contains(&format!("alert number {number}")), "{engine:?}: {number}: {said}");
            assert_eq!(told(&heard), [(number, true)], "{engine:?}");
            heard.lock().expect("lock").clear();
            let (_, said) = serve(bench, &server, s_client, |_| ()).expect_err();
            assert!(said.contains("alert number 116"), "{engine:?}: {said}");
            assert_eq!(told(&heard), [(116, true)], "{engine:?}");
        }
    });
}

#[test]
fn a_fatal_alert_of_the_peer_is_told_with_its_number() {
    with_openssl(|bench| {
        for engine in engines() {
            let (builder, heard) = hooked(server_builder(engine));
            let client = |port| {
                let mut command = s_client(port);
                command.args(["-verify_return_error", "-no-CAfile", "-no-CApath", "-no-CAstore"]);
                command
            };
            let (error, said) = serve(bench, &builder.build().expect("context"), client, |_| ()).expect_err();
            assert_eq!(crate::common::kind_of(&error), Some(ErrorKind::PeerAlert(48)), "{engine:?}: {error}; {said}");
            assert_eq!(told(&heard), [(48, false)], "{engine:?}");
        }
    });
}

/// And the client hears nothing but what whoever takes the stream back has to say.
#[test]
fn a_client_without_tls_is_told_with_its_bytes_and_can_be_answered() {
    for engine in engines() {
        within(LONG, move || {
            let (builder, heard) = hooked(server_builder(engine));
            let (mut client, server) = tcp_pair();
            let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
            client.write_all(request).expect("write");
            let refused = SslFile::server(server, &builder.build().expect("context")).expect_err("no TLS");
            assert_eq!(refused.kind(), ErrorKind::NotTls);
            let alert = heard.lock().expect("lock")[0].clone();
            assert_eq!(told(&heard), [(10, true)], "{engine:?}");
            assert_eq!((alert.role(), alert.not_tls()), (Role::Server, Some(&request[..])), "{engine:?}");
            let (_, mut server, unread) = refused.into_parts();
            assert_eq!(unread, request);
            server.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("answer");
            drop(server);
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("answer");
            assert_eq!(answer, "HTTP/1.1 400 Bad Request\r\n\r\n", "{engine:?}");
        });
    }
}

/// Without a hook there is nobody to answer, and the client gets the alert.
#[test]
fn a_client_without_tls_hears_the_alert_where_nobody_is_told() {
    for engine in engines() {
        within(LONG, move || {
            let (mut client, server) = tcp_pair();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("write");
            let refused = SslFile::server(server, &server_builder(engine).build().expect("context"));
            drop(refused.expect_err("no TLS"));
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("answer");
            assert_eq!(answer, [21, 3, 1, 0, 2, 2, 10], "{engine:?}");
        });
    }
}

#[test]
fn the_hook_may_use_the_file() {
    for engine in engines() {
        within(LONG, move || {
            let files: Arc<Mutex<Option<SslFile>>> = Arc::default();
            let states: Arc<Mutex<Vec<State>>> = Arc::default();
            let (inner, noted) = (files.clone(), states.clone());
            let context = client_builder(engine).on_alert(move |_| {
                let file = inner.lock().expect("lock").clone().expect("the file");
                let clone = file.try_clone().expect("clone");
                let _ = (clone.peer_certificate(), clone.is_open(), clone.traffic(), clone.last_error());
                noted.lock().expect("lock").push(clone.state());
            });
            let (c, s) = tcp_pair();
            let options = SslFile::options().handshake(Handshake::Lazy);
            let client = options.client("localhost").open(c, &context.build().expect("context")).expect("lazy");
            *files.lock().expect("lock") = Some(client.clone());
            let server = std::thread::spawn(move || {
                let file = SslFile::server(s, &crate::common::server_context(engine)).expect("server");
                let mut rest = Vec::new();
                (&file).read_to_end(&mut rest).expect("read");
                file.close().expect("close");
            });
            client.shutdown(Shutdown::Write).expect("shutdown");
            let mut rest = Vec::new();
            (&client).read_to_end(&mut rest).expect("read");
            server.join().expect("server");
            // Both come in one call, after which both are told.
            assert_eq!(*states.lock().expect("lock"), [State::PeerClosed; 2], "{engine:?}");
            // A file that its own hook keeps would never go.
            files.lock().expect("lock").take();
        });
    }
}

#[test]
fn a_panic_in_the_hook_goes_no_further() {
    with_openssl(|bench| {
        for engine in engines() {
            let builder = server_builder(engine).on_alert(|_| panic!("as the test wants"));
            serve(bench, &builder.build().expect("context"), s_client, |_| ()).expect();
        }
    });
}

/// Nobody is told of what is no alert.
#[test]
fn a_cut_is_no_alert() {
    for engine in engines() {
        within(LONG, move || {
            let (builder, heard) = hooked(server_builder(engine));
            let (client, server): (TcpStream, TcpStream) = tcp_pair();
            (&client).write_all(&[22, 3, 1]).expect("write");
            drop(client);
            let refused = SslFile::server(server, &builder.build().expect("context")).expect_err("cut");
            assert_eq!(refused.error().kind(), IoKind::BrokenPipe);
            assert_eq!(told(&heard), [], "{engine:?}");
        });
    }
}

/// Calls that wait, from the hook: for the end of our own close_notify's sending, for the peer.
#[test]
fn the_hook_may_call_what_waits() {
    type Call = fn(&SslFile);
    let calls: [(&str, Call); 4] = [
        ("read", |mut file| assert_eq!(file.read(&mut [0; 1]).expect("the peer's end"), 0)),
        ("flush", |mut file| file.flush().expect("flush")),
        ("write", |mut file| assert_eq!(file.write(b"x").expect_err("shut").kind(), IoKind::BrokenPipe)),
        ("close", |file| file.close().expect("close")),
    ];
    for engine in engines() {
        for (name, call) in calls {
            println!("{engine:?} {name}");
            within(LONG, move || {
                let slot: Arc<Mutex<Option<SslFile>>> = Arc::default();
                let (inner, told) = (slot.clone(), Arc::new(Mutex::new(0)));
                let count = told.clone();
                let client = client_builder(engine).on_alert(move |alert| {
                    let file = inner.lock().expect("slot").clone();
                    if let Some(file) = file.filter(|_| alert.is_ours()) {
                        call(&file);
                        *count.lock().expect("count") += 1;
                    }
                });
                let (client, server) = (client.build().expect("context"), server_context(engine));
                let (client, server) = tls_pair_with(SslFile::options(), &client, SslFile::options(), &server);
                *slot.lock().expect("slot") = Some(client.clone());
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        std::io::copy(&mut &server, &mut std::io::sink()).expect("the client's end");
                        server.close().expect("close");
                    });
                    client.shutdown(Shutdown::Write).expect("shutdown");
                });
                slot.lock().expect("slot").take();
                assert_eq!(*told.lock().expect("count"), 1);
            });
        }
    }
}

/// What happens to the inner file happens inside calls of the outer one.
#[test]
fn the_hook_of_a_wrapped_file_may_use_its_wrapper() {
    for engine in engines() {
        within(LONG, move || {
            let outer: Arc<Mutex<Option<SslFile<SslFile>>>> = Arc::default();
            let told: Arc<Mutex<Vec<(bool, u8, bool)>>> = Arc::default();
            let hooked = |is_outer: bool| {
                let (outer, told) = (outer.clone(), told.clone());
                let hook = move |alert: &Alert| {
                    let file = outer.lock().expect("slot").clone();
                    let state = file.map(|file| (file.state(), file.pending()));
                    assert!(state.is_some());
                    told.lock().expect("told").push((is_outer, alert.number(), alert.is_ours()));
                };
                client_builder(engine).on_alert(hook).build().expect("context")
            };
            let (inner, server) = (hooked(false), server_context(engine));
            let (inner, below) = tls_pair_with(SslFile::options(), &inner, SslFile::options(), &server);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let file = SslFile::server(below, &server).expect("server");
                    std::io::copy(&mut &file, &mut std::io::sink()).expect("the client's end");
                    (&file).write_all(b"bye").expect("write");
                    file.close().expect("close");
                });
                let file = SslFile::client(inner, &hooked(true), NAME).expect("client");
                *outer.lock().expect("slot") = Some(file.clone());
                (&file).write_all(&vec![1; 1 << 20]).expect("write");
                file.shutdown(Shutdown::Write).expect("shutdown");
                let mut answer = Vec::new();
                (&file).read_to_end(&mut answer).expect("read");
                file.close().expect("close");
                assert_eq!(answer, b"bye");
            });
            outer.lock().expect("slot").take();
            let told = told.lock().expect("told");
            for alert in [(true, 0, true), (true, 0, false), (false, 0, true)] {
                assert!(told.contains(&alert), "{engine:?}: {alert:?} is not in {told:?}");
            }
        });
    }
}

/// Who connects again whenever he is refused does so for ever, and not until the stack is used up.
#[test]
fn who_is_told_may_cause_the_next_alert_any_number_of_times() {
    const MARK: &str = "SSLFILE_TEST_ALERTS_WITHOUT_END";
    const TIMES: usize = 1000;
    if std::env::var_os(MARK).is_none() {
        let name = "settings::alerts::who_is_told_may_cause_the_next_alert_any_number_of_times";
        return passes_in_child(name, &[(MARK, "1")]);
    }
    let told = Arc::new(AtomicUsize::new(0));
    let context = Arc::new(OnceLock::<Context>::new());
    // No handshake is needed for an alert.
    let meet = |context: &Context| {
        let (mut c, s) = tcp_pair();
        c.write_all(b"no TLS").expect("write");
        SslFile::server(s, context).expect_err("no TLS");
    };
    let on_alert = {
        let (told, context) = (told.clone(), context.clone());
        move |_: &Alert| {
            if told.fetch_add(1, Ordering::Relaxed) < TIMES {
                meet(context.get().expect("context"));
            }
        }
    };
    let first = server_builder(engines()[0]).on_alert(on_alert).build().expect("context");
    meet(context.get_or_init(|| first));
    assert_eq!(told.load(Ordering::Relaxed), TIMES + 1);
}
