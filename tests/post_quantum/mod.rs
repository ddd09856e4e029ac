//! X25519MLKEM768 wherever the library has it, and first messages as large as it makes them: in two segments of TCP, in two
//! records, cut at any place.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{mpsc, Arc, Mutex};
use std::thread;

use sslfile::{Connection, Context, ContextBuilder, Engine, SslFile, SslListener, Version};

use crate::common::{
    certs, client_builder, client_context, engines, has_x25519mlkem768, server_builder, server_context, tls_pair_with,
    within, LONG, NAME,
};

const HYBRID: &str = "X25519MLKEM768";

fn knows_groups(engine: &Engine) -> bool {
    *engine != Engine::Native
}

fn agreed(client: &Context, server: &Context) -> [Option<String>; 2] {
    let (c, s) = tls_pair_with(SslFile::options(), client, SslFile::options(), server);
    [c.group(), s.group()]
}

#[test]
fn it_is_agreed_on_where_both_ends_have_it() {
    within(LONG, || {
        // Without the crate `openssl` nobody says which one is behind `Native`.
        for client in engines().into_iter().filter(|engine| knows_groups(engine) || cfg!(feature = "openssl")) {
            for server in engines().into_iter().filter(knows_groups) {
                let both = has_x25519mlkem768(client) && has_x25519mlkem768(server);
                let expected = Some(if both { HYBRID } else { "x25519" }.to_string());
                let [c, s] = agreed(&client_context(client), &server_context(server));
                assert_eq!(s, expected, "{client:?} to {server:?}");
                if knows_groups(&client) {
                    assert_eq!(c, expected, "{client:?} to {server:?}");
                }
            }
        }
    });
}

/// TLS 1.2 cannot have it, and a client that offers both versions gets on with a server that has TLS 1.2 only.
#[test]
fn a_server_of_tls_1_2_takes_what_is_behind_it() {
    within(LONG, || {
        for client in engines().into_iter().filter(knows_groups) {
            for server in engines() {
                let old = server_builder(server).max_version(Version::Tls1_2).build().expect("context");
                let [c, _] = agreed(&client_context(client), &old);
                assert_eq!(c.as_deref(), Some("x25519"), "{client:?} to {server:?}");
            }
        }
    });
}

/// As the registry of IANA has them, in any case of letters.
#[test]
fn hybrid_groups_go_by_their_names() {
    within(LONG, || {
        for engine in engines().into_iter().filter(knows_groups) {
            for name in [HYBRID, "x25519mlkem768", "SecP256r1MLKEM768", "secp256r1mlkem768"] {
                let builders = [client_builder(engine), server_builder(engine)].map(|b| b.groups(name).build());
                if !has_x25519mlkem768(engine) {
                    builders.into_iter().for_each(|b| drop(b.expect_err("a group that is not there")));
                    continue;
                }
                let [client, server] = builders.map(|b| b.expect(name));
                let [c, s] = agreed(&client, &server);
                assert!(c.as_deref().is_some_and(|c| c.eq_ignore_ascii_case(name)), "{engine:?} {name}: {c:?}");
                assert!([HYBRID, "SecP256r1MLKEM768"].contains(&c.as_deref().unwrap()), "{engine:?}: {c:?}");
                assert_eq!(c, s, "{engine:?}");
            }
        }
    });
}

/// A client whose first message does not fit into one segment, on any library, and that message.
fn talkative(engine: Engine) -> (Connection, Vec<u8>) {
    let names: Vec<String> = (0..8).map(|n| format!("{n:0200}")).collect();
    let context = client_builder(engine).alpn(names).build().expect("context");
    let mut client = Connection::client(&context, NAME).expect("client");
    client.handshake().expect_err("the server has not answered");
    let hello = client.output().to_vec();
    client.consume_output(hello.len());
    assert!(hello.len() > 1600 && 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])) == hello.len());
    (client, hello)
}

type Asked = Arc<Mutex<Vec<Option<String>>>>;

/// A server that chooses its certificate by the name, where it can, and the names that it was asked for.
fn choosing(engine: Engine) -> (ContextBuilder, Asked) {
    let asked = Asked::default();
    let note = asked.clone();
    let builder = server_builder(engine);
    let builder = match engine {
        Engine::Native => builder,
        _ => builder.choose_identity(move |hello| {
            note.lock().expect("lock").push(hello.server_name().map(str::to_string));
            Some(certs().ecdsa.identity())
        }),
    };
    (builder, asked)
}

fn names(engine: Engine) -> Vec<Option<String>> {
    match engine {
        Engine::Native => vec![],
        _ => vec![Some(NAME.to_string())],
    }
}

fn begin(context: &Context, bytes: &[u8]) -> (Connection, io::ErrorKind) {
    let mut server = Connection::server(context).expect("server");
    server.feed(bytes);
    let kind = server.handshake().expect_err("that was not all").kind();
    (server, kind)
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

#[test]
fn a_client_hello_may_be_cut_anywhere() {
    for engine in engines() {
        within(LONG, move || {
            let (_, hello) = talkative(engine);
            let (builder, asked) = choosing(engine);
            let context = builder.build().expect("context");
            for cut in 1..hello.len() {
                // Two segments: nothing is said or asked before the second.
                let (mut server, kind) = begin(&context, &hello[..cut]);
                assert_eq!(kind, io::ErrorKind::WouldBlock, "{engine:?} {cut}");
                assert!(server.output().is_empty() && asked.lock().expect("lock").is_empty(), "{engine:?} {cut}");
                if !is_of_interest(cut, hello.len()) {
                    continue;
                }
                server.feed(&hello[cut..]);
                assert_eq!(server.handshake().expect_err("half-way").kind(), io::ErrorKind::WouldBlock);
                assert_eq!(server.output()[0], HANDSHAKE, "{engine:?} {cut}");
                assert_eq!(std::mem::take(&mut *asked.lock().expect("lock")), names(engine), "{engine:?} {cut}");
            }
            // Two records.
            let body = &hello[5..];
            for cut in (1..body.len()).filter(|cut| is_of_interest(*cut, body.len())) {
                let (head, tail) = body.split_at(cut);
                let framed = |part: &[u8]| [&hello[..3], &(part.len() as u16).to_be_bytes(), part].concat();
                let (mut server, kind) = begin(&context, &framed(head));
                assert_eq!(kind, io::ErrorKind::WouldBlock, "{engine:?} {cut}");
                assert!(server.output().is_empty() && asked.lock().expect("lock").is_empty(), "{engine:?} {cut}");
                server.feed(&framed(tail));
                assert_eq!(server.handshake().expect_err("half-way").kind(), io::ErrorKind::WouldBlock);
                assert_eq!(server.output()[0], HANDSHAKE, "{engine:?} {cut}");
                assert_eq!(std::mem::take(&mut *asked.lock().expect("lock")), names(engine), "{engine:?} {cut}");
            }
            // Where the end is missing it is a cut, and no other protocol.
            let mut server = Connection::server(&context).expect("server");
            server.feed(&hello[..hello.len() - 1]);
            server.feed_eof();
            let error = server.handshake().expect_err("the end");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{engine:?}: {error}");
            assert_ne!(server.output().first(), Some(&HANDSHAKE));
            assert!(server.output().first().is_none_or(|first| *first == ALERT), "{engine:?}");
        });
    }
}

/// All places in the headers, around what a segment holds, and at the end; some of the others.
fn is_of_interest(cut: usize, len: usize) -> bool {
    cut < 50 || cut.abs_diff(1460) < 10 || len - cut < 10 || cut % 37 == 0
}

/// The same over TCP, behind a listener: the second part leaves when the server has had the first.
#[test]
fn a_listener_meets_a_client_hello_in_two_segments() {
    for engine in engines() {
        within(LONG, move || {
            let (builder, asked) = choosing(engine);
            let listener = SslListener::bind("127.0.0.1:0", &builder.build().expect("context")).expect("bind");
            let port = listener.local_addr().expect("address").port();
            for cut in [1, 2, 3, 5, 6, 9, 43, 100, 517, 1448, 1460, 1500] {
                let (go_on, wait) = mpsc::channel();
                let client = thread::spawn(move || {
                    let (mut client, hello) = talkative(engine);
                    let mut tcp = TcpStream::connect(("127.0.0.1", port)).expect("connect");
                    tcp.set_nodelay(true).expect("nodelay");
                    tcp.write_all(&hello[..cut]).expect("the first part");
                    wait.recv().expect("the server has it");
                    tcp.write_all(&hello[cut..]).expect("the rest");
                    finish(&mut client, &mut tcp);
                    client.group()
                });
                let (file, _) = listener.accept().expect("accept");
                file.set_nonblocking(true).expect("non-blocking");
                while file.traffic().bytes_received < cut as u64 {
                    let early = file.handshake().expect_err("the rest has not left");
                    assert_eq!(early.kind(), io::ErrorKind::WouldBlock, "{engine:?} {cut}: {early}");
                    thread::yield_now();
                }
                assert!(asked.lock().expect("lock").is_empty(), "{engine:?} {cut}");
                file.set_nonblocking(false).expect("blocking");
                go_on.send(()).expect("the client waits");
                let mut word = [0; 5];
                (&file).read_exact(&mut word).unwrap_or_else(|e| panic!("{engine:?} {cut}: {e}"));
                assert_eq!(&word, b"hello");
                assert_eq!(client.join().expect("client"), file.group(), "{engine:?} {cut}");
                assert_eq!(std::mem::take(&mut *asked.lock().expect("lock")), names(engine), "{engine:?} {cut}");
            }
        });
    }
}

/// The rest of the client's handshake, and a word.
fn finish(client: &mut Connection, tcp: &mut TcpStream) {
    let mut buf = [0; 4096];
    loop {
        let done = client.handshake();
        let is_done = done.is_ok();
        if is_done {
            client.write(b"hello").expect("write");
        }
        let output = client.output().to_vec();
        client.consume_output(output.len());
        tcp.write_all(&output).expect("send");
        match done {
            Ok(()) => return,
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{e}"),
        }
        let n = tcp.read(&mut buf).expect("receive");
        assert_ne!(n, 0, "the server has gone");
        client.feed(&buf[..n]);
    }
}
