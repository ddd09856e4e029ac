//! m: a file that is dropped loses nothing, keeps nothing for ever, and says nothing while its thread unwinds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{mpsc, Arc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};
use sslfile::{Backend, Engine, Role, SslFile, Version};

use crate::common::bare::{self, Bare};
use crate::common::{certs, client_context, pattern, server_context, tcp_pair, NAME};
use crate::evil::speaks;
use crate::rig::{on_each_engine, on_each_engine_and_role, pair, settle, turn_until};

/// How the system calls the socket of a file, and nobody else's.
pub fn socket_of(file: &SslFile) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())).expect("socket")
}

/// Whether this process has the socket open.
pub fn is_held(socket: &Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    open.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == socket))
}

/// Waits until the socket is closed; turns meanwhile if there is a backend.
#[track_caller]
fn until_closed(socket: &Path, backend: Option<&Backend>, limit: Duration) {
    let start = Instant::now();
    while is_held(socket) {
        assert!(start.elapsed() < limit, "the socket is still open");
        match backend {
            Some(backend) => {
                backend.turn(Some(Duration::from_millis(10))).expect("turn");
            }
            None => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Slowly, to the end: `Ok` for close_notify.
fn read_slowly(mut from: impl Read) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    let mut buf = [0; 8192];
    loop {
        thread::sleep(Duration::from_micros(500));
        match from.read(&mut buf) {
            Ok(0) => return (all, Ok(())),
            Ok(n) => all.extend_from_slice(&buf[..n]),
            Err(e) => return (all, Err(e)),
        }
    }
}

/// A server that has sent its part of the handshake and then reads nothing until it is told to. Only then it finds the
/// client's part, sends its session tickets (TLS 1.3), or says a word that nobody waits for (TLS 1.2), and reads slowly.
fn late_server(
    mut tcp: TcpStream,
    version: Version,
    go_on: mpsc::Receiver<()>,
) -> JoinHandle<(Vec<u8>, io::Result<()>)> {
    let pair = &certs().ecdsa;
    let leaf = CertificateDer::from_pem_slice(pair.chain.as_bytes()).expect("leaf");
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("key");
    let versions = if version == Version::Tls1_3 { &TLS13 } else { &TLS12 };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[versions])
        .expect("version")
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)
        .expect("certificate");
    config.send_tls13_tickets = 4;
    let mut tls = ServerConnection::new(Arc::new(config)).expect("server");
    thread::spawn(move || {
        if version == Version::Tls1_3 {
            while !tls.wants_write() {
                tls.read_tls(&mut tcp).expect("ClientHello");
                tls.process_new_packets().expect("ClientHello");
            }
            while tls.wants_write() {
                tls.write_tls(&mut tcp).expect("flight");
            }
            go_on.recv().expect("go on");
            // What comes first holds the client's Finished.
            while tls.is_handshaking() {
                tls.read_tls(&mut tcp).expect("Finished");
                tls.process_new_packets().expect("Finished");
            }
        } else {
            while tls.is_handshaking() {
                tls.complete_io(&mut tcp).expect("handshake");
            }
            go_on.recv().expect("go on");
            tls.writer().write_all(b"welcome").expect("greeting");
        }
        while tls.wants_write() {
            // Refused if the client's end is gone.
            if tls.write_tls(&mut tcp).is_err() {
                break;
            }
        }
        read_slowly(ReadOnly { tls, tcp })
    })
}

/// Reads without writing, which rustls' own stream does first.
struct ReadOnly {
    tls: ServerConnection,
    tcp: TcpStream,
}

impl Read for ReadOnly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            self.tls.read_tls(&mut self.tcp)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

/// How the data is handed over before the file is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    WriteAll,
    Flush,
    /// Not all has been handed to the system.
    Send,
}

fn write(file: &SslFile, how: How, data: &[u8]) {
    match how {
        How::WriteAll => { file }.write_all(data).expect("write"),
        How::Flush => {
            { file }.write_all(data).expect("write");
            { file }.flush().expect("flush");
        }
        How::Send => {
            file.send(data).expect("send");
            assert!(file.unsent() > 0, "the system took it all");
        }
    }
}

/// In both versions, with and without a backend that turns.
fn in_each_setting(engine: Engine, hows: &[How], test: fn(Engine, Version, How, Option<&Backend>)) {
    for version in [Version::Tls1_3, Version::Tls1_2] {
        for how in hows {
            for with_backend in [false, true] {
                println!("{version}, {how:?}, with a backend: {with_backend}");
                let backend = with_backend.then(|| Backend::new().expect("backend"));
                let run = backend.clone().map(|backend| thread::spawn(move || backend.run()));
                test(engine, version, *how, backend.as_ref());
                if let (Some(backend), Some(run)) = (backend, run) {
                    backend.stop();
                    run.join().expect("run").expect("run");
                }
            }
        }
    }
}

#[test]
fn m_a_dropped_client_loses_nothing_to_what_its_peer_sends_late() {
    on_each_engine(|engine| {
        in_each_setting(engine, &[How::WriteAll, How::Flush, How::Send], |engine, version, how, backend| {
            // What goes into the system while nobody reads; or, queued, what does not.
            let data = pattern(13, if how == How::Send { 12 << 20 } else { 256 << 10 });
            let (ours, theirs) = tcp_pair();
            let (go_on, wait) = mpsc::channel();
            let peer = late_server(theirs, version, wait);
            let options = SslFile::options().client(NAME).max_version(version);
            let file = options.open(ours, &client_context(engine)).expect("open");
            if let Some(backend) = backend {
                file.set_backend(Some(backend)).expect("set_backend");
            }
            write(&file, how, &data);
            drop(file);
            go_on.send(()).expect("go on");
            let (got, end) = peer.join().expect("peer");
            assert!(got == data, "{} of {} bytes, then {end:?}", got.len(), data.len());
            end.expect("close_notify");
        });
    });
}

/// The peer has sent something that nobody has read when the file is dropped: a server under a talkative client.
#[test]
fn m_a_dropped_server_loses_nothing_to_what_nobody_has_read() {
    on_each_engine(|engine| {
        in_each_setting(engine, &[How::Flush, How::Send], |engine, version, how, backend| {
            if !speaks(engine, Role::Server, version) {
                return;
            }
            let data = pattern(14, if how == How::Send { 12 << 20 } else { 256 << 10 });
            let (ours, theirs) = tcp_pair();
            let (has_sent, sent) = mpsc::channel();
            let (go_on, wait) = mpsc::channel();
            let peer = thread::spawn(move || {
                let mut peer = bare::client(theirs, version..=version).expect("connect");
                peer.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("write");
                has_sent.send(()).expect("sent");
                wait.recv().expect("wait");
                read_slowly(peer)
            });
            let file = SslFile::server(ours, &server_context(engine)).expect("open");
            if let Some(backend) = backend {
                file.set_backend(Some(backend)).expect("set_backend");
            }
            sent.recv().expect("sent");
            write(&file, how, &data);
            drop(file);
            go_on.send(()).expect("go on");
            let (got, end) = peer.join().expect("peer");
            assert!(got == data, "{} of {} bytes, then {end:?}", got.len(), data.len());
            end.expect("close_notify");
        });
    });
}

const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// A peer that takes nothing and never ends.
#[test]
fn m_a_dropped_file_is_gone_after_the_close_timeout() {
    on_each_engine_and_role(|engine, role| {
        for with_backend in [false, true] {
            let backend = Backend::new().expect("backend");
            let options = SslFile::options().nonblocking(true).close_timeout(CLOSE_TIMEOUT);
            let (file, _peer) = crate::rig::pair_with(engine, role, options, &backend);
            if !with_backend {
                file.set_backend(None).expect("set_backend");
            }
            let socket = socket_of(&file);
            assert!(is_held(&socket));
            file.send(&vec![0; 12 << 20]).expect("send");
            let start = Instant::now();
            drop(file);
            assert!(start.elapsed() < CLOSE_TIMEOUT, "drop has waited");
            until_closed(&socket, with_backend.then_some(&backend), 20 * CLOSE_TIMEOUT);
            assert!(backend.is_empty());
        }
    });
}

/// A peer that has read all, and answers with its own end: nothing is left to wait for.
#[test]
fn m_a_dropped_file_goes_with_its_peers_end() {
    on_each_engine_and_role(|engine, role| {
        for with_backend in [false, true] {
            let backend = Backend::new().expect("backend");
            let options = SslFile::options().nonblocking(true).close_timeout(Duration::from_secs(600));
            let (file, peer) = crate::rig::pair_with(engine, role, options, &backend);
            if !with_backend {
                file.set_backend(None).expect("set_backend");
            }
            let socket = socket_of(&file);
            file.send(&vec![0; 12 << 20]).expect("send");
            drop(file);
            let peer = thread::spawn(move || {
                let mut peer = peer;
                let end = io::copy(&mut peer, &mut io::sink());
                crate::rig::end_well(peer);
                end
            });
            until_closed(&socket, with_backend.then_some(&backend), Duration::from_secs(10));
            assert_eq!(peer.join().expect("peer").expect("close_notify"), 12 << 20);
        }
    });
}

/// What a peer reads to the end, and how that came.
fn end_of(mut peer: Bare<TcpStream>) -> (Vec<u8>, io::Result<usize>) {
    let mut all = Vec::new();
    let end = peer.read_to_end(&mut all);
    (all, end)
}

#[test]
fn m_a_file_dropped_by_a_panic_says_no_close_notify() {
    on_each_engine_and_role(|engine, role| {
        for with_backend in [false, true] {
            for panics in [false, true] {
                println!("with a backend: {with_backend}; panics: {panics}");
                let backend = Backend::new().expect("backend");
                let (file, peer) = pair(engine, role, &backend);
                if !with_backend {
                    file.set_backend(None).expect("set_backend");
                }
                let peer = thread::spawn(move || end_of(peer));
                let caught = catch_unwind(AssertUnwindSafe(move || {
                    let file = file;
                    { &file }.write_all(b"half an answer").expect("write");
                    assert!(!panics, "a test's own panic");
                }));
                assert_eq!(caught.is_err(), panics);
                turn_until(&backend, || peer.is_finished());
                settle(&backend);
                assert!(backend.is_empty());
                let (got, end) = peer.join().expect("peer");
                match panics {
                    false => assert!(got == b"half an answer" && end.is_ok(), "{got:?}, {end:?}"),
                    // What had been handed over may have arrived; it is no whole.
                    true => drop(end.expect_err("a half was taken for a whole")),
                }
            }
        }
    });
}
