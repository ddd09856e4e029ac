//! Web sites: of scripted answers, and nginx.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{SslFile, SslListener};

use crate::common::{engines, server_context, LONG};
use crate::tool::{is_here, Files, Tool};

/// How the server ends the connection behind its answer.
#[derive(Clone, Copy)]
pub enum End {
    Close,
    /// TCP's end, and none of TLS.
    Cut,
}
pub use End::{Close, Cut};

pub type Answers = &'static [(&'static str, &'static str, End)];

#[derive(Clone, Debug)]
pub struct Request {
    /// With the query.
    pub path: String,
    pub lines: Vec<String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.lines.iter().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn read(file: &SslFile) -> Option<Request> {
        let mut lines = BufReader::new(file).lines().map_while(Result::ok);
        let lines: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let path = lines.first()?.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")?.to_string();
        Some(Request { path, lines })
    }
}

/// Lasts until the test ends.
pub struct Site {
    /// "localhost:1234"
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Site {
    pub fn start(serve: impl Fn(&Request, &SslFile) -> io::Result<()> + Send + Sync + 'static) -> Site {
        let listener = SslListener::bind("127.0.0.1:0", &server_context(engines()[0])).expect("bind");
        let address = format!("localhost:{}", listener.local_addr().expect("address").port());
        let (requests, serve) = (Arc::new(Mutex::new(Vec::new())), Arc::new(serve));
        let seen = requests.clone();
        thread::spawn(move || {
            for file in listener.incoming().flatten() {
                let (seen, serve) = (seen.clone(), serve.clone());
                thread::spawn(move || {
                    let Some(request) = Request::read(&file) else { return };
                    seen.lock().unwrap().push(request.clone());
                    // What is wrong with it shows at the other end.
                    let _ = serve(&request, &file);
                });
            }
        });
        Site { address, requests }
    }

    /// These answers, by path.
    pub fn of(answers: Answers) -> Site {
        Site::start(move |request, file| {
            assert!(request.header("host").is_some_and(|host| host.starts_with("localhost:")), "{request:?}");
            let (_, text, end) = answers.iter().find(|(path, _, _)| *path == request.path).expect("a known path");
            answer(file, text, *end)
        })
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// The requests since this was called last.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

pub fn answer(mut file: &SslFile, text: impl AsRef<[u8]>, end: End) -> io::Result<()> {
    file.write_all(text.as_ref())?;
    match end {
        Close => file.close(),
        Cut => file.get_ref().shutdown(Shutdown::Write),
    }
}

pub fn https_get(files: &Files, url: &str) -> Tool {
    let mut tool = Tool::example("https_get").args(&["--ca", &files.ca, url]);
    for name in ["https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY"] {
        tool.command.env_remove(name);
    }
    tool
}

/// What is in the folder of the test's files.
pub fn listing(files: &Files) -> BTreeSet<PathBuf> {
    fs::read_dir(files.dir.path()).expect("the folder").map(|entry| entry.expect("an entry").path()).collect()
}

#[cfg(unix)]
pub fn fifo(files: &Files) -> PathBuf {
    let path = files.dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    path
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port()
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A server of the system, once it listens.
pub fn serving(program: &str, args: &[&str], port: u16) -> Tool {
    let tool = Tool::new(Path::new(program)).args(args).open();
    wait_until(program, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    tool
}

/// nginx, with what is in the folder "www" of the test's files, and this in its `server` block.
pub fn nginx(files: &Files, settings: &str) -> Option<(Tool, u16)> {
    // Where `.ci/install` unpacks it; where Debian has it, which is not in everybody's PATH.
    let places = ["/usr/local/lib/web-server/usr/sbin/nginx", "/usr/sbin/nginx"];
    let program = places.into_iter().find(|place| Path::new(place).exists()).unwrap_or("nginx");
    if !is_here(program, &["-v"]) {
        return None;
    }
    let (port, folder) = (free_port(), files.dir.path().display());
    let kept: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/nginx-{what};"))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr; events {{}}
        http {{ access_log off; {kept} server {{
            listen 127.0.0.1:{port} ssl; root {folder}/www; ssl_certificate {}; ssl_certificate_key {}; {settings}
        }} }}",
        files.chain, files.key
    );
    let config = files.write("nginx.conf", &text);
    Some((serving(program, &["-e", "stderr", "-c", &config], port), port))
}
