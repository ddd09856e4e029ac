//! A write to a peer that has gone is an error and no SIGPIPE. Rust's runtime ignores that signal; a program which is not
//! started by it, and uses the crate, would die.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use common::{client_builder, tls_pair};
use socket2::{Domain, Socket, Type};
use sslfile::{Backend, PlainFile, Polled, SslListener, SslSocket};

const CHILD: &str = "SSLFILE_TEST_SIGPIPE";
const HERE: &str = "streams::gone::a_write_to_a_peer_that_has_gone_raises_no_signal";

/// In a process of its own, as a signal is the process's.
#[test]
fn a_write_to_a_peer_that_has_gone_raises_no_signal() {
    if std::env::var_os(CHILD).is_none() {
        return common::passes_in_child(HERE, &[(CHILD, "1")]);
    }
    let raised = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGPIPE, raised.clone()).expect("handler");
    let (near, far) = UnixStream::pair().expect("pair");
    drop(far);
    assert!(rustix::io::write(&near, b"x").is_err());
    assert!(raised.swap(false, Ordering::SeqCst), "a bare write raises it, or this test proves nothing");

    let unix = || UnixStream::pair().expect("pair").0;
    let tcp = || tcp_pair().0;
    let silent = |what: &str, broken: &mut dyn FnMut()| {
        broken();
        assert!(!raised.load(Ordering::SeqCst), "{what}");
    };
    silent("TcpStream", &mut || breaks(PlainFile::new(tcp())));
    silent("UnixStream", &mut || breaks(PlainFile::new(unix())));
    silent("Socket over TCP", &mut || breaks(PlainFile::new(Socket::from(tcp()))));
    silent("Socket over Unix", &mut || {
        let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("pair");
        drop(far);
        breaks(PlainFile::new(near));
    });
    silent("a file in a file", &mut || breaks(PlainFile::new(PlainFile::new(unix()))));
    silent("halves: TcpStream", &mut || {
        let tcp = tcp();
        breaks(PlainFile::new(Duplex::new(tcp.try_clone().expect("clone"), tcp)));
    });
    silent("halves: UnixStream", &mut || breaks(PlainFile::new(Duplex::new(unix(), unix()))));
    silent("halves: Socket", &mut || breaks(PlainFile::new(Duplex::new(unix(), Socket::from(tcp())))));
    silent("halves: one without a descriptor", &mut || breaks(PlainFile::new(Duplex::new(io::empty(), unix()))));
    silent("ReadWrite", &mut || breaks(PlainFile::new(ReadWrite::new(unix()))));
    silent("Polled", &mut || breaks(PlainFile::new(Polled::new(unix()))));
    silent("Polled Socket", &mut || breaks(PlainFile::new(Polled::new(Socket::from(tcp())))));
    silent("ReadWrite of a Socket", &mut || breaks(PlainFile::new(ReadWrite::new(Socket::from(tcp())))));

    let engine = engines()[0];
    silent("TLS", &mut || {
        let (client, server) = tls_pair(engine);
        server.abort();
        breaks(client);
        let (client, server) = tls_pair(engine);
        client.abort();
        breaks(server);
    });
    silent("connected, and accepted by a listener", &mut || {
        for peer_is_server in [true, false] {
            let (client, server) = connected(engine);
            let (near, far) = if peer_is_server { (client, server) } else { (server, client) };
            far.abort();
            breaks(near);
        }
    });
    silent("SslSocket", &mut || {
        let backend = Backend::new().expect("backend");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let socket = SslSocket::new(&backend);
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        socket.on_closed(move |_, _| end.store(true, Ordering::SeqCst));
        socket.connect("127.0.0.1", listener.local_addr().expect("address").port()).expect("connect");
        listener.set_nonblocking(true).expect("non-blocking");
        let begun = Instant::now();
        while !ended.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < LONG, "it never breaks");
            drop(listener.accept());
            let _ = socket.write(&[7; 1 << 10]);
            backend.turn(Some(Duration::from_millis(1))).expect("turn");
        }
    });
}

/// Until that fails.
fn breaks<W>(file: W)
where
    for<'a> &'a W: Write,
{
    let begun = Instant::now();
    while (&file).write_all(&[7; 1 << 10]).and_then(|()| (&file).flush()).is_ok() {
        assert!(begun.elapsed() < LONG, "it never breaks");
    }
}

fn connected(engine: Engine) -> (SslFile, SslFile) {
    let listener = SslListener::bind("127.0.0.1:0", &server_context(engine)).expect("bind");
    let addr: SocketAddr = listener.local_addr().expect("address");
    thread::scope(|t| {
        let server = t.spawn(|| {
            let (file, _) = listener.accept().expect("accept");
            file.handshake().expect("handshake");
            file
        });
        let context = client_builder(engine).build().expect("context");
        let client = SslFile::options().client(NAME).connect(addr, &context).expect("connect");
        (client, server.join().expect("server"))
    })
}
