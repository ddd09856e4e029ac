//! Our end: contexts, opening, and input and output that reads the same in blocking and in non-blocking mode.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use sslfile::{Certificate, Context, ContextBuilder, Engine, Role, SslFile, SslOptions, Version};

use super::harness::{accept, connect, free_port, Bench, Credentials, Peer, STEP};
use super::tools::{AfterOurEnd, Setup, Tool};
use crate::common::{engines, NAME};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Blocking,
    NonBlocking,
}

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub engine: Engine,
    pub version: Version,
    pub mode: Mode,
}

/// Every engine, version and mode that can meet this tool.
pub fn cases(tool: &Tool) -> Vec<Case> {
    let mut cases = Vec::new();
    for engine in engines() {
        for &version in tool.versions {
            // native-tls' acceptor stops there on OpenSSL.
            if our_role(tool) == Role::Server && engine == Engine::Native && version > Version::Tls1_2 {
                continue;
            }
            cases.extend([Mode::Blocking, Mode::NonBlocking].map(|mode| Case { engine, version, mode }));
        }
    }
    cases
}

pub fn our_role(tool: &Tool) -> Role {
    match tool.role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

/// Our settings against this tool. The server's certificate is `server`, whoever the server is.
pub fn context(bench: &Bench, tool: &Tool, engine: Engine, server: &Credentials) -> ContextBuilder {
    let builder = trusting(bench, engine);
    match our_role(tool) {
        Role::Client => builder,
        Role::Server => builder.identity(server.pair.identity()),
    }
}

pub fn trusting(bench: &Bench, engine: Engine) -> ContextBuilder {
    let roots = Certificate::stack_from_pem(bench.files.roots_pem.as_bytes()).expect("roots");
    let builder = Context::builder().engine(engine).system_roots(false);
    roots.into_iter().fold(builder, ContextBuilder::add_root)
}

/// What to start a tool with: the server's certificate if it is the server, no more.
pub fn setup<'a>(bench: &'a Bench, tool: &Tool, case: Case, server: &'a Credentials) -> Setup<'a> {
    let own = (tool.role == Role::Server).then_some(server);
    Setup { files: &bench.files, port: 0, version: case.version, own, demands: false, alpn: None }
}

/// Starts the tool and shakes hands with it.
pub fn open(bench: &Bench, tool: &Tool, case: Case, setup: Setup, context: &Context) -> (Peer, io::Result<SslFile>) {
    let (peer, stream) = meet(bench, tool, setup);
    let options = match tool.after_our_end {
        // One that gets no time on a loaded machine has not stopped taking what we send. Others would have us wait in vain.
        AfterOurEnd::GoesOn => SslFile::options().close_timeout(STEP),
        _ => SslFile::options(),
    };
    let file = shake_hands_with(options, our_role(tool), case.mode, stream, context);
    (peer, file)
}

/// The same where nothing should go wrong.
pub fn opened(bench: &Bench, tool: &Tool, case: Case, setup: Setup, context: &Context) -> (Peer, SslFile) {
    let (peer, file) = open(bench, tool, case, setup, context);
    match file {
        Ok(file) => (peer, file),
        Err(e) => panic!("{case:?}: handshake with {}: {e}; it said: {}", tool.name, peer.said.so_far()),
    }
}

pub fn meet(bench: &Bench, tool: &Tool, mut setup: Setup) -> (Peer, TcpStream) {
    let spawn = |setup: &Setup| {
        let mut command = Command::new(&tool.program);
        (tool.arguments)(&mut command, setup);
        bench.spawn(&mut command)
    };
    if tool.role == Role::Client {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        setup.port = listener.local_addr().expect("address").port();
        let peer = spawn(&setup);
        let stream = accept(&peer, &listener);
        return (peer, stream);
    }
    if tool.picks_port {
        let peer = spawn(&setup);
        assert!(peer.said.waits_for("port "), "{} said: {}", tool.name, peer.said.so_far());
        assert!(peer.said.waits_for("\n"));
        let said = peer.said.so_far();
        let port = said.lines().find_map(|line| line.strip_prefix("port ")).and_then(|port| port.parse().ok());
        let stream = connect(&peer, port.unwrap_or_else(|| panic!("no port in: {said}")));
        return (peer, stream.expect("it listens"));
    }
    // Someone may take the port before the tool does.
    for _ in 0..5 {
        setup.port = free_port();
        let peer = spawn(&setup);
        if let Some(stream) = connect(&peer, setup.port) {
            return (peer, stream);
        }
        let said = peer.said.to_the_end();
        assert!(said.to_lowercase().contains("in use"), "{} ended; it said: {said}", tool.name);
    }
    panic!("no port for {}", tool.name);
}

pub fn shake_hands(role: Role, mode: Mode, stream: TcpStream, context: &Context) -> io::Result<SslFile> {
    shake_hands_with(SslFile::options(), role, mode, stream, context)
}

fn shake_hands_with(
    options: SslOptions,
    role: Role,
    mode: Mode,
    stream: TcpStream,
    context: &Context,
) -> io::Result<SslFile> {
    let options = options.nonblocking(mode == Mode::NonBlocking);
    let options = match role {
        Role::Client => options.client(NAME),
        Role::Server => options.server(),
    };
    let file = options.open(stream, context)?;
    retry(&file, || file.handshake())?;
    assert!(file.is_handshake_done());
    Ok(file)
}

/// Calls until it would no longer block. A blocking file never would.
pub fn retry<T>(file: &SslFile, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && file.is_nonblocking() => wait(file),
            done => return done,
        }
    }
}

/// Waits for what the file asks for.
fn wait(file: &SslFile) {
    let interest = file.interest();
    let mut events = PollFlags::empty();
    events.set(PollFlags::IN, interest.readable);
    events.set(PollFlags::OUT, interest.writable);
    assert!(!events.is_empty(), "it would block, and waits for nothing");
    let limit = Timespec { tv_sec: STEP.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(file, events)], Some(&limit)).expect("poll");
    assert!(ready > 0, "it waits for {interest:?}, in state {:?}, and nothing comes", file.state());
}

/// Sends `ours` while it receives `expected` bytes.
pub fn exchange(file: &SslFile, ours: &[u8], expected: usize) -> io::Result<Vec<u8>> {
    let mut received = vec![0; expected];
    if !file.is_nonblocking() {
        return thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut file = file;
                file.write_all(ours)?;
                file.flush()
            });
            let mut reader = file;
            reader.read_exact(&mut received)?;
            writer.join().expect("writer")?;
            Ok(received)
        });
    }
    let mut file = file;
    let (mut sent, mut got, mut flushed) = (0, 0, false);
    while got < expected || !flushed {
        let mut stuck = true;
        if sent < ours.len() {
            if let Some(n) = unless_blocked(file.write(&ours[sent..]))? {
                (sent, stuck) = (sent + n, false);
            }
        } else if !flushed && unless_blocked(file.flush())?.is_some() {
            (flushed, stuck) = (true, false);
        }
        if got < expected {
            match unless_blocked(file.read(&mut received[got..]))? {
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(n) => (got, stuck) = (got + n, false),
                None => {}
            }
        }
        if stuck {
            wait(file);
        }
    }
    Ok(received)
}

fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        other => other.map(Some),
    }
}

pub fn send(file: &SslFile, data: &[u8]) -> io::Result<()> {
    exchange(file, data, 0).map(drop)
}

/// Everything up to the end, and which end it was.
pub fn rest(file: &SslFile) -> (Vec<u8>, io::Result<()>) {
    let mut file = file;
    let (mut data, mut buf) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match retry(file, || file.read(&mut buf)) {
            Ok(0) => return (data, Ok(())),
            Ok(n) => data.extend_from_slice(&buf[..n]),
            Err(e) => return (data, Err(e)),
        }
    }
}
