//! Contexts for each engine, the certificate as files, and programs of the system.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use sslfile::{Certificate, Context, Engine, Identity, SslFile, SslListener};
use tempfile::TempDir;

pub struct Rig {
    pub engine: Engine,
    pub client: Context,
    pub server: Context,
}

struct Certs {
    chain: String,
    key: String,
}

fn certs() -> &'static Certs {
    static CERTS: OnceLock<Certs> = OnceLock::new();
    CERTS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).expect("certificate");
        Certs { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
    })
}

/// One for each engine.
pub fn rigs() -> impl Iterator<Item = Rig> {
    let root = Certificate::from_pem(certs().chain.as_bytes()).expect("root");
    Engine::available().into_iter().map(move |engine| {
        let client = Context::builder().engine(engine).system_roots(false).add_root(root.clone());
        let identity = Identity::from_pem(certs().chain.as_bytes(), certs().key.as_bytes()).expect("identity");
        let server = Context::builder().engine(engine).identity(identity);
        Rig { engine, client: client.build().expect("client"), server: server.build().expect("server") }
    })
}

impl Rig {
    pub fn listen(&self) -> (SslListener, u16) {
        let listener = SslListener::bind("127.0.0.1:0", &self.server).expect("bind");
        let port = listener.local_addr().expect("address").port();
        (listener, port)
    }

    pub fn connect(&self, port: u16) -> SslFile {
        let options = SslFile::options().client("localhost");
        options.connect(("127.0.0.1", port), &self.client).expect("connect")
    }
}

/// A folder with `chain.pem` and `key.pem`.
pub fn files() -> TempDir {
    let folder = TempDir::new().expect("folder");
    std::fs::write(folder.path().join("chain.pem"), &certs().chain).expect("write");
    std::fs::write(folder.path().join("key.pem"), &certs().key).expect("write");
    folder
}

/// For programs that can't be told to choose: free a moment ago, below those that Linux gives to whoever asks for any, and ours
/// among all who run tests, while the UDP socket lives. The tests of sslfile claim theirs in the same way.
pub fn free_port() -> (u16, UdpSocket) {
    let claims = (10_000..32_000)
        .step_by(100)
        .filter_map(|first| Some((first + 1, UdpSocket::bind(("127.0.0.1", first)).ok()?)));
    let mut free = claims.filter(|(port, _)| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port")
}

/// Whether a program is here. Where it is missing, the tests that need it say so and pass; with `SSLFILE_NO_SKIP=1` they fail.
pub fn is_here(program: &str, args: &[&str]) -> bool {
    let here =
        Command::new(program).args(args).stdin(Stdio::null()).output().is_ok_and(|output| output.status.success());
    if !here {
        assert!(std::env::var_os("SSLFILE_NO_SKIP").is_none_or(|value| value != "1"), "{program} {args:?} is missing");
        eprintln!("skipped: {program} {args:?} is missing");
    }
    here
}

/// Debian's, for which `.ci/install` has brought the modules.
pub const PYTHON: &str = "/usr/bin/python3";

/// Runs to its end.
pub fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().expect("start");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {}, {stdout}, {stderr}", output.status);
    stdout.into_owned()
}

/// A program that serves until the test is over.
pub struct Peer(Child);

impl Peer {
    /// It has said its port in a line when this returns.
    pub fn python(script: &str, args: &[&str]) -> (Peer, u16) {
        let mut command = Command::new(PYTHON);
        let mut child = command.args(["-u", "-c", script]).args(args).stdout(Stdio::piped()).spawn().expect("start");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("its port");
        (Peer(child), line.trim().parse().unwrap_or_else(|_| panic!("no port but {line:?}")))
    }

    pub fn start(command: &mut Command) -> Peer {
        Peer(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("start"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
