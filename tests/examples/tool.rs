//! A program under test, its peers, and the files it is given.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::{certs, LONG};

/// A process. Its output is gathered while it runs; it is killed with the test that started it.
pub struct Tool {
    pub command: Command,
    pub stdout: Gathered,
    pub stderr: Gathered,
    /// Close the reading end of its stdout, as a `head` that has seen enough.
    pub discard_stdout: bool,
    child: Option<Child>,
    stdin: Option<ChildStdin>,
}

impl Tool {
    pub fn new(program: &Path) -> Tool {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Tests look for English words.
        command.env("LC_ALL", "C.UTF-8");
        let (stdout, stderr) = (Gathered::default(), Gathered::default());
        Tool { command, stdout, stderr, discard_stdout: false, child: None, stdin: None }
    }

    pub fn args(mut self, args: &[&str]) -> Tool {
        self.command.args(args);
        self
    }

    /// Starts it, with its stdin open if that is a pipe.
    pub fn open(mut self) -> Tool {
        #[cfg(unix)]
        end_by_signals();
        let mut child = self.command.spawn().expect("start the program");
        if self.discard_stdout {
            child.stdout.take();
        }
        self.stdout.gather(child.stdout.take());
        self.stderr.gather(child.stderr.take());
        self.stdin = child.stdin.take();
        self.child = Some(child);
        self
    }

    /// Starts it, and gives it this and no more on stdin.
    pub fn feed(self, bytes: &[u8]) -> Tool {
        let mut tool = self.open();
        let mut stdin = tool.stdin.take().expect("a pipe");
        let bytes = bytes.to_vec();
        // A program that ends early does not read it all.
        thread::spawn(move || stdin.write_all(&bytes));
        tool
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("an open pipe").write_all(bytes).expect("write to the program");
    }

    pub fn end_stdin(mut self) -> Tool {
        self.stdin = None;
        self
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("a started program").id()
    }

    /// Waits for its end; stdin stays as it is.
    pub fn end(mut self) -> Ended {
        let mut child = self.child.take().expect("a started program");
        let deadline = Instant::now() + LONG;
        let status = loop {
            match child.try_wait().expect("wait for the program") {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    let _ = child.kill();
                    panic!("HANG: {:?}, stderr: {}", self.command, self.stderr.wait_for(""));
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        };
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        Ended { code: code(status), stdout, stderr }
    }
}

fn code(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return -signal;
    }
    status.code().expect("an exit code")
}

/// Who started the tests may ignore signals, as shells do for what they run in the background, and a child would inherit that. What
/// is not ignored here, is not there.
#[cfg(unix)]
fn end_by_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    use std::sync::atomic::AtomicBool;
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            let as_by_default = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_default(signal, as_by_default).expect("a handler");
        }
    });
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What has come out of a pipe so far.
#[derive(Clone, Default)]
pub struct Gathered(Arc<(Mutex<Pipe>, Condvar)>);

#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    ended: bool,
}

impl Gathered {
    fn gather(&self, pipe: Option<impl Read + Send + 'static>) {
        let gathered = self.clone();
        let Some(mut pipe) = pipe else {
            gathered.add(&[], true);
            return;
        };
        thread::spawn(move || {
            let mut buf = [0; 16 * 1024];
            while let Ok(n @ 1..) = pipe.read(&mut buf) {
                gathered.add(&buf[..n], false);
            }
            gathered.add(&[], true);
        });
    }

    fn add(&self, bytes: &[u8], end: bool) {
        let (gathered, changed) = &*self.0;
        let mut gathered = gathered.lock().unwrap();
        gathered.bytes.extend_from_slice(bytes);
        gathered.ended |= end;
        changed.notify_all();
    }

    fn wait_until<T>(&self, what: &str, found: impl Fn(&[u8], bool) -> Option<T>) -> T {
        let (gathered, changed) = &*self.0;
        let deadline = Instant::now() + LONG;
        let mut gathered = gathered.lock().unwrap();
        loop {
            if let Some(found) = found(&gathered.bytes, gathered.ended) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let text = String::from_utf8_lossy(&gathered.bytes);
            assert!(!left.is_zero() && !gathered.ended, "no {what:?} in {text:?}");
            gathered = changed.wait_timeout(gathered, left).unwrap().0;
        }
    }

    /// All that has come, when `text` has.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_for_what(text, |all| all.contains(text))
    }

    /// All that has come, when it is `what` is waited for.
    pub fn wait_for_what(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        self.wait_until(what, |bytes, _| {
            let all = String::from_utf8_lossy(bytes);
            is_it(&all).then(|| all.to_string())
        })
    }

    /// The first whole line with `text` in it.
    pub fn line(&self, text: &str) -> String {
        self.wait_until(text, |bytes, _| {
            let all = String::from_utf8_lossy(bytes);
            let mut lines = all.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            lines.find(|line| line.contains(text)).map(|line| line.trim_end().to_string())
        })
    }

    fn all(&self) -> Vec<u8> {
        self.wait_until("end", |bytes, end| end.then(|| bytes.to_vec()))
    }
}

/// How a process ended.
pub struct Ended {
    /// Below zero: by this signal.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Ended {
    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("stdout in UTF-8")
    }

    pub fn stderr(&self) -> &str {
        std::str::from_utf8(&self.stderr).expect("stderr in UTF-8")
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).to_string();
        write!(f, "exit code {}, stdout {:?}, stderr {:?}", self.code, start(&self.stdout), start(&self.stderr))
    }
}

/// A server on a thread, for one connection.
pub struct Server<T> {
    pub port: String,
    result: mpsc::Receiver<thread::Result<T>>,
}

impl<T: Send + 'static> Server<T> {
    pub fn start(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> Server<T> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port().to_string();
        let (done, result) = mpsc::channel();
        thread::spawn(move || {
            let (tcp, _) = listener.accept().expect("accept");
            let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(tcp)));
            let _ = done.send(served);
        });
        Server { port, result }
    }

    pub fn join(self) -> T {
        match self.result.recv_timeout(LONG) {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => panic!("HANG: the server is not done"),
        }
    }
}

/// The test certificates as files: the CA, and the pair it signed for localhost.
pub struct Files {
    pub dir: TempDir,
    pub ca: String,
    pub chain: String,
    pub key: String,
}

impl Files {
    pub fn new() -> Files {
        let mut files =
            Files { dir: TempDir::new().expect("folder"), ca: String::new(), chain: String::new(), key: String::new() };
        files.ca = files.write("ca.pem", &certs().ca_pem);
        files.chain = files.write("chain.pem", &certs().ecdsa.chain);
        files.key = files.write("key.pem", &certs().ecdsa.key);
        files
    }

    /// Its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("write a file");
        path.to_str().expect("path in UTF-8").to_string()
    }
}

/// Whether a tool of the system is here. Where it is missing, the tests that need it say so and pass; with `SSLFILE_NO_SKIP=1`
/// they fail.
pub fn is_here(tool: &str, args: &[&str]) -> bool {
    let here = Command::new(tool).args(args).stdin(Stdio::null()).output().is_ok_and(|output| output.status.success());
    if !here {
        assert!(std::env::var_os("SSLFILE_NO_SKIP").is_none_or(|value| value != "1"), "{tool} is not installed");
        let _ = writeln!(std::io::stderr(), "skipped: {tool} is not installed");
    }
    here
}

/// A command line of the shell, with a terminal as its stdin, stdout and stderr. What it shows comes on stdout.
pub fn on_a_terminal(line: &str) -> Tool {
    let mut script = Tool::new(Path::new("script"));
    // One that can move its cursor, whatever we were started on.
    script.command.env("TERM", "xterm");
    script.args(&["--quiet", "--return", "--command", line, "/dev/null"])
}
