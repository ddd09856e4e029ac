//! Our end of a connection with a tool, and what the tool said of it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rcgen::{CertificateParams, DnType};
use sslfile::{Context, ContextBuilder, Engine, ErrorKind, SslFile, SslOptions, Version};

use crate::authority::Authority;
use crate::common::{kind_of, Pair, NAME};
use crate::harness::{accept, connect, find, free_port, run, Bench, Peer};
pub use crate::table::honours;

pub const VERSIONS: [Version; 2] = [Version::Tls1_2, Version::Tls1_3];

/// This version only.
pub fn at(version: Version, builder: ContextBuilder) -> ContextBuilder {
    builder.min_version(version).max_version(version)
}

/// The context, unless the engine must refuse this option, and does.
#[track_caller]
pub fn context(engine: Engine, option: &str, builder: ContextBuilder) -> Option<Context> {
    let built = builder.engine(engine).build();
    if honours(engine, option) {
        return Some(built.unwrap_or_else(|e| panic!("{engine:?}, {option}: {e}")));
    }
    assert_unsupported(&built.expect_err("it cannot do this"), option, engine);
    None
}

#[track_caller]
pub fn assert_unsupported(error: &io::Error, option: &str, engine: Engine) {
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
    assert_eq!(kind_of(error), Some(ErrorKind::Unsupported));
    let text = error.to_string();
    assert!(text.contains(option) && text.contains(&format!("{engine:?}")), "{option} and {engine:?}: {text}");
}

/// Runs a test if there is the `openssl` command.
pub fn with_openssl(test: impl FnOnce(&Bench) + Send + 'static) {
    run(find(&["openssl"]), move |bench, _| test(bench));
}

pub fn s_client(port: u16) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-nocommands", "-connect"]).arg(format!("127.0.0.1:{port}"));
    command
}

/// One that asks for a server of this name.
pub fn asking(port: u16, name: Option<&str>) -> Command {
    let mut command = s_client(port);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    command
}

/// One that takes so many connections.
pub fn s_server(port: u16, connections: usize, own: &Own) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept"]).arg(format!("127.0.0.1:{port}"));
    command.arg("-naccept").arg(connections.to_string());
    own.show(&mut command);
    command
}

/// One that takes one connection, of this version.
pub fn s_server_at(port: u16, version: Version, own: &Own) -> Command {
    let mut command = s_server(port, 1, own);
    command.arg(flag(version));
    command
}

pub fn flag(version: Version) -> &'static str {
    match version {
        Version::Tls1_2 => "-tls1_2",
        _ => "-tls1_3",
    }
}

/// A chain and its key on disk.
pub struct Own {
    pub leaf: PathBuf,
    pub key: PathBuf,
    /// The rest of the chain, if there is one.
    rest: Option<PathBuf>,
}

impl Own {
    pub fn new(bench: &Bench, name: &str, pair: &Pair) -> Own {
        let end = "-----END CERTIFICATE-----";
        let (leaf, rest) = pair.chain.split_at(pair.chain.find(end).expect("leaf") + end.len());
        Own {
            leaf: write(bench, &format!("{name}.leaf.pem"), leaf),
            key: write(bench, &format!("{name}.key"), &pair.key),
            rest: rest.contains("BEGIN").then(|| write(bench, &format!("{name}.pem"), rest)),
        }
    }

    /// Gives it to `openssl s_client` or `s_server` to show.
    pub fn show(&self, command: &mut Command) {
        command.arg("-cert").arg(&self.leaf).arg("-key").arg(&self.key);
        if let Some(rest) = &self.rest {
            command.arg("-cert_chain").arg(rest);
        }
    }
}

pub fn write(bench: &Bench, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = bench.files.folder.path().join(name);
    fs::write(&path, content).expect("write a file");
    path
}

/// A certificate of this authority for one name.
pub fn named(authority: &Authority, name: &str) -> Pair {
    let mut params = CertificateParams::new([name.to_string()]).expect("name");
    params.distinguished_name.push(DnType::CommonName, name);
    authority.sign(params)
}

/// The same text without white space, which tools put where they like.
pub fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

/// A connection that is over.
pub struct Met<T> {
    /// What we saw, or how it failed.
    pub ours: io::Result<T>,
    /// What the tool said on standard output and standard error.
    pub said: String,
}

impl<T> Met<T> {
    #[track_caller]
    pub fn expect(self) -> (T, String) {
        match self.ours {
            Ok(seen) => (seen, self.said),
            Err(e) => panic!("{e}; the peer said: {}", self.said),
        }
    }

    #[track_caller]
    pub fn expect_err(self) -> (io::Error, String) {
        match self.ours {
            Ok(_) => panic!("it was accepted; the peer said: {}", self.said),
            Err(e) => (e, self.said),
        }
    }

    /// How we refused the peer, or were refused by it, and that it says so.
    #[track_caller]
    pub fn refused(self, kind: ErrorKind, alert: &str) -> String {
        let (error, said) = self.expect_err();
        assert_eq!(kind_of(&error), Some(kind), "{error}; the peer said: {said}");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(said.contains(alert), "{error}; no {alert:?} in what the peer said: {said}");
        error.to_string()
    }
}

/// A word, our close_notify, and all that the peer has to say. (In TLS 1.3 a client hears of its refusal only then.)
pub fn converse(file: &SslFile) -> io::Result<()> {
    let mut out = file;
    out.write_all(b"hello\n")?;
    file.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    let mut input = file;
    input.read_to_end(&mut rest).map(drop)
}

fn talk<T>(opened: io::Result<SslFile>, look: impl FnOnce(&SslFile) -> T) -> io::Result<T> {
    let file = opened?;
    converse(&file)?;
    Ok(look(&file))
}

/// We are the server.
pub fn serve<T>(
    bench: &Bench,
    context: &Context,
    client: impl FnOnce(u16) -> Command,
    look: impl FnOnce(&SslFile) -> T,
) -> Met<T> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let peer = bench.spawn(&mut client(listener.local_addr().expect("address").port()));
    let stream = accept(&peer, &listener);
    let ours = talk(SslFile::server(stream, context).map_err(io::Error::from), look);
    Met { ours, said: all_said(peer) }
}

/// A tool that is a server, for several connections.
pub struct Server {
    pub port: u16,
    peer: Peer,
}

impl Server {
    pub fn start(bench: &Bench, server: impl FnOnce(u16) -> Command) -> Server {
        let port = free_port();
        Server { port, peer: bench.spawn(&mut server(port)) }
    }

    pub fn visit<T>(&self, context: &Context, name: &str, look: impl FnOnce(&SslFile) -> T) -> io::Result<T> {
        talk(self.open(context, name), look)
    }

    pub fn open(&self, context: &Context, name: &str) -> io::Result<SslFile> {
        self.open_with(SslFile::options().client(name), context)
    }

    pub fn open_with(&self, options: SslOptions, context: &Context) -> io::Result<SslFile> {
        let stream = connect(&self.peer, self.port).expect("it listens");
        Ok(options.open(stream, context)?)
    }

    pub fn said(self) -> String {
        all_said(self.peer)
    }
}

/// We are a client, for one connection.
pub fn visit<T>(
    bench: &Bench,
    context: &Context,
    server: impl FnOnce(u16) -> Command,
    look: impl FnOnce(&SslFile) -> T,
) -> Met<T> {
    let server = Server::start(bench, server);
    let ours = server.visit(context, NAME, look);
    Met { ours, said: server.said() }
}

/// All that a tool says until its end.
pub fn all_said(mut peer: Peer) -> String {
    let mut out = Vec::new();
    peer.stdout.take().expect("stdout").read_to_end(&mut out).expect("read");
    peer.exit();
    format!("{}{}", String::from_utf8_lossy(&out), peer.said.to_the_end())
}

/// Between two ends: takes one connection to its port on to another, and keeps what has gone each way.
pub struct Relay {
    pub port: u16,
    pumps: JoinHandle<()>,
    seen: Seen,
}

/// What has passed, in order: to the target, or back from it.
type Seen = Arc<Mutex<Vec<(Way, Vec<u8>)>>>;

#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    There,
    Back,
}

impl Relay {
    pub fn to(target: u16) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let seen = Seen::default();
        let (there, back) = (seen.clone(), seen.clone());
        let pumps = thread::spawn(move || {
            let (near, _) = listener.accept().expect("accept");
            let far = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).expect("connect");
            let clone = |stream: &TcpStream| stream.try_clone().expect("clone");
            let (from, to) = (clone(&near), clone(&far));
            let there = thread::spawn(move || pump(Way::There, from, to, &there));
            pump(Way::Back, far, near, &back);
            there.join().expect("pump");
        });
        Relay { port, pumps, seen }
    }

    /// What went to the target, and what came back, when both have ended.
    pub fn seen(self) -> [Vec<u8>; 2] {
        let in_order = self.in_order();
        [Way::There, Way::Back].map(|way| {
            let that_way = in_order.iter().filter(|(gone, _)| *gone == way);
            that_way.flat_map(|(_, bytes)| bytes.iter().copied()).collect()
        })
    }

    pub fn in_order(self) -> Vec<(Way, Vec<u8>)> {
        self.pumps.join().expect("relay");
        std::mem::take(&mut self.seen.lock().expect("lock"))
    }
}

fn pump(way: Way, mut from: TcpStream, mut to: TcpStream, seen: &Seen) {
    let mut buf = [0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        // Before the answer to it can pass.
        seen.lock().expect("lock").push((way, buf[..n].to_vec()));
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// The records in a stream of bytes: type, and length of the body.
pub fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        assert!(rest.len() >= length, "half a record");
        records.push((*kind, length));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "half a header");
    records
}

pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
