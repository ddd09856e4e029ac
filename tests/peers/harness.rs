//! Processes that cannot outlive their test, what they say, their ports, and certificates on disk.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use crate::common::{certs, within, Pair, NAME, RSA_KEY};

/// For one step: a process that starts, a connection that opens. Generous, since the machine may be busy.
pub const STEP: Duration = Duration::from_secs(30);

/// For a whole test, which puts a tool through a dozen connections or more.
const TEST: Duration = Duration::from_secs(600);

/// Runs a test with a peer if there is one. When the test ends, in whatever way, its processes are gone.
pub fn run<T: Send + 'static>(found: Result<T, String>, test: impl FnOnce(&Bench, T) + Send + 'static) {
    let tool = match found {
        Ok(tool) => tool,
        Err(missing) => {
            assert!(env::var_os("SSLFILE_NO_SKIP").is_none_or(|v| v != "1"), "{missing}, and SSLFILE_NO_SKIP=1");
            // Not `eprintln!`, which the test runner keeps to itself when the test passes.
            let _ = writeln!(io::stderr(), "skipped: {missing}");
            return;
        }
    };
    // Held here, not on the test's own thread: that one may hang.
    let children = Children::default();
    let bench = Bench { files: Files::new(), children: Children(children.0.clone()) };
    within(TEST, move || test(&bench, tool));
}

/// The program of one of these names, from PATH.
pub fn find(names: &[&str]) -> Result<PathBuf, String> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let candidates = env::split_paths(&folders).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| format!("no {}", names[0]))
}

pub struct Bench {
    pub files: Files,
    children: Children,
}

impl Bench {
    pub fn spawn(&self, command: &mut Command) -> Peer {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Tests look for English words.
            .env("LC_ALL", "C.UTF-8")
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let said = Said::listen_to(child.stderr.take().expect("stderr is piped"));
        let child = Arc::new(Mutex::new(child));
        lock(&self.children.0).push(child.clone());
        Peer { child, stdin, stdout, said }
    }
}

/// All processes of a test. They are killed when this goes.
#[derive(Default)]
struct Children(Arc<Mutex<Vec<Arc<Mutex<Child>>>>>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in lock(&self.0).iter() {
            kill(child);
        }
    }
}

fn kill(child: &Mutex<Child>) {
    let mut child = lock(child);
    // Does nothing to a process that was waited for, so that it hits no other that got the same number.
    let _ = child.kill();
    let _ = child.wait();
}

/// A peer's process. Killed when dropped.
pub struct Peer {
    child: Arc<Mutex<Child>>,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    pub said: Arc<Said>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Peer {
    pub fn kill(&self) {
        kill(&self.child);
    }

    pub fn has_exited(&self) -> bool {
        lock(&self.child).try_wait().expect("wait for a child").is_some()
    }

    /// Waits for the end of the process.
    pub fn exit(&self) -> ExitStatus {
        let deadline = Instant::now() + STEP;
        loop {
            if let Some(status) = lock(&self.child).try_wait().expect("wait for a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the peer does not end; it said: {}", self.said.so_far());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Gives this to the peer to send.
    pub fn feed(&mut self, data: &[u8]) {
        feed(&mut self.stdin, data);
    }

    /// What the peer received, `len` bytes of it.
    pub fn hear(&mut self, len: usize) -> Vec<u8> {
        hear(&mut self.stdout, len, &self.said)
    }
}

pub fn feed(stdin: &mut Option<ChildStdin>, data: &[u8]) {
    let stdin = stdin.as_mut().expect("standard input is open");
    stdin.write_all(data).and_then(|()| stdin.flush()).expect("the peer takes its input");
}

pub fn hear(stdout: &mut Option<ChildStdout>, len: usize, said: &Said) -> Vec<u8> {
    let mut data = vec![0; len];
    if let Err(e) = stdout.as_mut().expect("standard output is open").read_exact(&mut data) {
        panic!("the peer did not receive {len} bytes ({e}); it said: {}", said.so_far());
    }
    data
}

/// What a process says on standard error.
#[derive(Default)]
pub struct Said {
    text: Mutex<(String, bool)>,
    more: Condvar,
}

impl Said {
    fn listen_to(mut stderr: impl Read + Send + 'static) -> Arc<Said> {
        let said = Arc::new(Said::default());
        let writer = said.clone();
        thread::spawn(move || {
            let mut buf = [0; 4096];
            loop {
                let n = stderr.read(&mut buf).unwrap_or(0);
                let mut text = lock(&writer.text);
                text.0.push_str(&String::from_utf8_lossy(&buf[..n]));
                text.1 = n == 0;
                writer.more.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        said
    }

    pub fn so_far(&self) -> String {
        lock(&self.text).0.clone()
    }

    /// Waits until it has said this; false if it ends without, or takes too long.
    pub fn waits_for(&self, needle: &str) -> bool {
        let (text, _) = self
            .more
            .wait_timeout_while(lock(&self.text), STEP, |(text, ended)| !text.contains(needle) && !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        text.0.contains(needle)
    }

    /// All it says until its end.
    pub fn to_the_end(&self) -> String {
        let (text, timed_out) = self
            .more
            .wait_timeout_while(lock(&self.text), STEP, |(_, ended)| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timed_out.timed_out(), "the peer does not end; it said: {}", text.0);
        text.0.clone()
    }
}

/// A port that was free a moment ago, and is given out once. Below those that Linux gives to whoever asks for any: nobody
/// else must get it before the peer does, since each would then meet the other's peer.
pub fn free_port() -> u16 {
    static OURS: Mutex<Block> = Mutex::new(Block { left: 0..0, claims: Vec::new() });
    let mut ours = lock(&OURS);
    loop {
        let port = ours.next();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Ports of this process alone, among all that run such tests: it has the first as a UDP port to the end.
struct Block {
    left: Range<u16>,
    claims: Vec<UdpSocket>,
}

impl Block {
    const PORTS: Range<u16> = 10_000..32_000;
    const SIZE: u16 = 100;

    fn next(&mut self) -> u16 {
        self.left.next().unwrap_or_else(|| {
            let mut firsts = Self::PORTS.step_by(usize::from(Self::SIZE));
            let claim =
                firsts.find_map(|first| UdpSocket::bind((Ipv4Addr::LOCALHOST, first)).ok()).expect("free ports");
            let first = claim.local_addr().expect("address").port();
            self.claims.push(claim);
            self.left = first + 1..first + Self::SIZE;
            first
        })
    }
}

/// Connects as soon as the peer listens.
pub fn connect(peer: &Peer, port: u16) -> Option<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + STEP;
    while Instant::now() < deadline {
        if let Ok(stream) = TcpStream::connect(address) {
            // Where nobody listens, a connection from the very same port may meet itself.
            if stream.local_addr().expect("address") != address {
                return Some(stream);
            }
        }
        if peer.has_exited() {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the peer does not listen; it said: {}", peer.said.so_far());
}

/// The peer's connection to us.
pub fn accept(peer: &Peer, listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("non-blocking");
    let deadline = Instant::now() + STEP;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("blocking");
                return stream;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => panic!("accept: {e}"),
        }
        let gone = peer.has_exited() || Instant::now() > deadline;
        assert!(!gone, "the peer does not connect; it said: {}", peer.said.so_far());
        thread::sleep(Duration::from_millis(5));
    }
}

/// A certificate chain and its key, on disk and in memory.
pub struct Credentials {
    pub pair: Pair,
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// The test certificates as files, in a folder that goes with this.
pub struct Files {
    pub folder: TempDir,
    /// What everyone trusts.
    pub roots: PathBuf,
    pub roots_pem: String,
    pub ecdsa: Credentials,
    /// RSA from the leaf to the root: Pike picks the cipher suite by the issuer's key.
    pub rsa: Credentials,
    pub other_name: Credentials,
    pub self_signed: Credentials,
    pub client: Credentials,
}

impl Files {
    fn new() -> Files {
        let folder = TempDir::new().expect("temporary folder");
        let (rsa, rsa_root) = rsa_certs();
        let roots_pem = format!("{}{rsa_root}", certs().ca_pem);
        let write = |name: String, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("write a certificate");
            path
        };
        let credentials = |name: &str, pair: &Pair| Credentials {
            pair: pair.clone(),
            chain: write(format!("{name}.pem"), &pair.chain),
            key: write(format!("{name}.key"), &pair.key),
        };
        Files {
            roots: write("roots.pem".to_string(), &roots_pem),
            ecdsa: credentials("ecdsa", &certs().ecdsa),
            rsa: credentials("rsa", rsa),
            other_name: credentials("other_name", &certs().other_name),
            self_signed: credentials("self_signed", &certs().self_signed),
            client: credentials("client", &certs().client),
            roots_pem,
            folder,
        }
    }
}

/// An RSA certificate and its RSA root, made once per process.
fn rsa_certs() -> &'static (Pair, String) {
    static CERTS: OnceLock<(Pair, String)> = OnceLock::new();
    CERTS.get_or_init(|| {
        let root_key = KeyPair::from_pem(include_str!("../common/keys/rsa-root.pem")).expect("rsa key");
        let mut root = CertificateParams::new(Vec::<String>::new()).expect("root");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name.push(DnType::CommonName, "sslfile test RSA root");
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root_pem = root.self_signed(&root_key).expect("root").pem();
        let issuer = Issuer::new(root, root_key);
        let key = KeyPair::from_pem(RSA_KEY).expect("rsa key");
        let mut leaf = CertificateParams::new(vec![NAME.to_string(), "127.0.0.1".to_string()]).expect("leaf");
        leaf.distinguished_name.push(DnType::CommonName, NAME);
        let leaf = leaf.signed_by(&key, &issuer).expect("leaf").pem();
        (Pair { chain: format!("{leaf}{root_pem}"), key: key.serialize_pem() }, root_pem)
    })
}

/// A thread that panicked must not hide why from the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
