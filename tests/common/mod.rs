//! What the tests share beside `basis`: connected streams, what the library beneath can.
#![allow(dead_code)]

#[cfg_attr(feature = "openssl", path = "bare_openssl.rs")]
#[cfg_attr(not(feature = "openssl"), path = "bare_rustls.rs")]
pub mod bare;
mod basis;
pub mod rustls_configs;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use sslfile::{Context, Engine, SslFile, SslOptions};

pub use basis::*;
/// What a stream must have to be polled, in bounds.
#[cfg(unix)]
pub use std::os::fd::AsFd;
#[cfg(windows)]
pub use std::os::windows::io::AsSocket as AsFd;

/// A PKCS#12 archive.
#[cfg(feature = "openssl")]
pub fn pkcs12(pair: &Pair, password: &str) -> Vec<u8> {
    use openssl::pkcs12::Pkcs12;
    use openssl::pkey::PKey;
    use openssl::stack::Stack;
    use openssl::x509::X509;
    let key = PKey::private_key_from_pem(pair.key.as_bytes()).expect("key");
    let chain = X509::stack_from_pem(pair.chain.as_bytes()).expect("chain");
    let mut rest = Stack::new().expect("stack");
    for certificate in &chain[1..] {
        rest.push(certificate.clone()).expect("stack");
    }
    let mut builder = Pkcs12::builder();
    builder.name("test").pkey(&key).cert(&chain[0]).ca(rest);
    builder.build2(password).expect("archive").to_der().expect("archive")
}

/// Whether the library is OpenSSL of this version or a later one, as far as that can be asked.
pub fn has_openssl(_major: i64, _minor: i64) -> bool {
    #[cfg(feature = "openssl")]
    return openssl::version::number() >= _major << 28 | _minor << 20;
    #[cfg(not(feature = "openssl"))]
    false
}

/// Whether the library has X25519MLKEM768.
pub fn has_x25519mlkem768(engine: Engine) -> bool {
    match engine {
        Engine::Rustls => cfg!(feature = "aws-lc-rs"),
        _ => has_openssl(3, 5),
    }
}

/// Whether the engine tells a server the group in TLS 1.2.
pub fn servers_know_group_in_tls_1_2(engine: Engine) -> bool {
    match engine {
        Engine::OpenSsl => has_openssl(3, 2),
        other => other == Engine::Rustls,
    }
}

/// The addresses of this machine itself: of IPv4 and, unless it has been switched off, of IPv6.
pub fn loopbacks() -> Vec<IpAddr> {
    let all = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    all.into_iter().filter(|ip| ip.is_ipv4() || has_ipv6()).collect()
}

pub fn has_ipv6() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        if !has {
            // Not `eprintln!`, which the test runner keeps to itself when the test passes.
            let _ = writeln!(io::stderr(), "skipped: what takes IPv6, which this system has not");
        }
        has
    })
}

/// A connected pair of TCP streams over IPv4 loopback: (client, server).
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    tcp_pair_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

pub fn tcp_pair_on(addr: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(addr).expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    (client, server)
}

/// A connected pair of another kind: Unix streams where there are any.
#[cfg(unix)]
pub fn stream_pair() -> (std::os::unix::net::UnixStream, std::os::unix::net::UnixStream) {
    std::os::unix::net::UnixStream::pair().expect("pair")
}
#[cfg(windows)]
pub fn stream_pair() -> (socket2::Socket, socket2::Socket) {
    let (client, server) = tcp_pair();
    (client.into(), server.into())
}

/// Nobody listens there any more.
#[track_caller]
pub fn assert_refused(addr: SocketAddr) {
    // wine has no SO_PAUSE_ACCEPT: there a listener goes on until it is dropped.
    if std::env::var_os("SSLFILE_WINE").is_none() {
        let e = TcpStream::connect(addr).expect_err("connected");
        assert_eq!(e.kind(), io::ErrorKind::ConnectionRefused, "{e}");
    }
}

/// A connected pair of TLS files on one engine, handshake done: (client, server).
pub fn tls_pair(engine: Engine) -> (SslFile, SslFile) {
    tls_pair_with(SslFile::options(), &client_context(engine), SslFile::options(), &server_context(engine))
}

pub fn tls_pair_with(
    client: SslOptions,
    client_context: &Context,
    server: SslOptions,
    server_context: &Context,
) -> (SslFile, SslFile) {
    let (c, s) = tcp_pair();
    thread::scope(|t| {
        let server = t.spawn(move || server.server().open(s, server_context).expect("server handshake"));
        let client = client.client(NAME).open(c, client_context).expect("client handshake");
        (client, server.join().expect("server thread"))
    })
}

/// The kind inside an `io::Error` that the crate made.
pub fn kind_of(error: &io::Error) -> Option<sslfile::ErrorKind> {
    sslfile::Error::of(error).map(|e| e.kind())
}

/// Waits until the stream of a non-blocking file is ready for what the file said it needs.
pub fn wait_for<S: sslfile::Stream + AsFd>(file: &SslFile<S>) {
    use rustix::event::{poll, PollFd, PollFlags, Timespec};
    let interest = file.interest();
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.readable);
    flags.set(PollFlags::OUT, interest.writable);
    assert!(!flags.is_empty(), "WouldBlock, and no interest in anything: {file:?}");
    let limit = Timespec { tv_sec: LONG.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(file, flags)], Some(&limit)).expect("poll");
    assert_ne!(ready, 0, "waited in vain for {interest:?}: {file:?}");
}

/// Repeats a call on a non-blocking file, waiting for what it needs, until it gives something else than `WouldBlock`.
pub fn until_ready<S, T>(file: &SslFile<S>, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T>
where
    S: sslfile::Stream + AsFd,
{
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait_for(file),
            other => return other,
        }
    }
}

/// Returns when some thread waits inside a call on the file.
pub fn until_busy<S: sslfile::Stream>(file: &SslFile<S>) {
    while !file.is_busy() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns when some thread waits inside a call on the file and the count of what was accepted stands still.
pub fn until_stuck<S: sslfile::Stream>(file: &SslFile<S>, accepted: &std::sync::atomic::AtomicUsize) {
    let count = || accepted.load(std::sync::atomic::Ordering::SeqCst);
    let mut before = usize::MAX;
    while before != count() || !file.is_busy() {
        before = count();
        thread::sleep(Duration::from_millis(200));
    }
}

/// The test of that name alone, in a process of its own with these variables set: for what a process has only one of.
pub fn passes_in_child(name: &str, variables: &[(&str, &str)]) {
    let mut child = test_in_child(name, variables);
    let child = within(LONG, move || child.output().expect("child"));
    let said = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

/// The same, for who listens to it.
pub fn test_in_child(name: &str, variables: &[(&str, &str)]) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().expect("current_exe"));
    command.args(["--exact", name, "--nocapture"]);
    command.envs(variables.iter().copied());
    command
}
