//! nginx beside the servers of `http`, and wrk before all of them.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certs::certs;
use crate::dial::Connector;
use crate::http::{self, ANSWER};
use crate::pin::{self, Pin};
use crate::process::{self, Server, Usage};
use crate::samples::{Named, Sample, Samples};
use crate::servers::chosen;

pub struct Plan<'a> {
    /// Empty for all.
    pub servers: &'a [String],
    pub connections: usize,
    pub rounds: usize,
    /// Whole seconds: wrk knows no less.
    pub seconds: u64,
    pub csv: Option<&'a Path>,
}

const NGINX: &str = "nginx";

pub fn run(plan: &Plan) -> io::Result<()> {
    pin::set(Pin::Apart);
    let mut servers = start(plan.servers)?;
    for ((name, _), server) in &servers {
        check(server.addr()).map_err(|e| io::Error::other(format!("{name}: {e}")))?;
    }
    let all: Vec<Named> = servers.iter().map(|((name, raw), _)| (*name, *raw)).collect();
    let mut samples = Samples::new("requests", &[("p50", " µs"), ("p99", " µs")]);
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        for ((name, _), server) in &mut servers {
            let before = server.usage()?;
            let Some(load) = wrk(server.addr(), plan.connections, plan.seconds)? else {
                println!("left out: wrk is not installed");
                return Ok(());
            };
            let sample = Sample::new(name, (load.requests, load.wall), before, server.usage()?);
            let case = format!("http-{}", plan.connections);
            samples.list.push(Sample { round, case, more: vec![load.median, load.p99], ..sample });
        }
        servers.reverse();
    }
    samples.print(&all, &[NGINX]);
    samples.write(plan.csv)
}

/// One of them, running.
enum Running {
    Own(Server),
    Nginx(Nginx),
}

impl Running {
    fn addr(&self) -> SocketAddr {
        match self {
            Running::Own(server) => server.addr,
            Running::Nginx(nginx) => nginx.addr,
        }
    }

    fn usage(&self) -> io::Result<Usage> {
        match self {
            Running::Own(server) => server.usage(),
            Running::Nginx(nginx) => process::usage(nginx.child.id()),
        }
    }
}

/// All that are wanted and can be had.
fn start(names: &[String]) -> io::Result<Vec<(Named, Running)>> {
    let mut running = Vec::new();
    if names.is_empty() || names.iter().any(|name| name == NGINX) {
        match Nginx::start() {
            Ok(nginx) => running.push(((NGINX, None), Running::Nginx(nginx))),
            Err(e) => println!("left out: {e}"),
        }
    }
    let others: Vec<String> = names.iter().filter(|name| *name != NGINX).cloned().collect();
    if !others.is_empty() || names.is_empty() {
        for kind in chosen(http::kinds(), &others)? {
            running.push(((kind.name, kind.raw), Running::Own(Server::start(kind, 0)?)));
        }
    }
    Ok(running)
}

/// One process, which is master and worker. Ends with this.
struct Nginx {
    addr: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Nginx {
    fn start() -> io::Result<Nginx> {
        let folder = tempfile::tempdir()?;
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("leaf.pem"), &certs().leaf)?;
        fs::write(path("key.pem"), &certs().key)?;
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary.iter().map(|name| format!("{name}_temp_path {};\n", path(name))).collect();
        let config = format!(
            "daemon off;\nmaster_process off;\nworker_processes 1;\npid {pid};\nerror_log stderr crit;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\naccess_log off;\ndefault_type text/plain;\nkeepalive_requests 1000000000;\n{temporary}\
             server {{\nlisten {addr} ssl;\nserver_name localhost;\n\
             ssl_certificate {leaf};\nssl_certificate_key {key};\n\
             ssl_protocols TLSv1.3;\nssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;\nssl_ecdh_curve X25519;\n\
             location / {{ return 200 \"{answer}\"; }}\n}}\n}}\n",
            pid = path("pid"),
            leaf = path("leaf.pem"),
            key = path("key.pem"),
            answer = String::from_utf8_lossy(ANSWER),
        );
        fs::write(path("nginx.conf"), config)?;
        let mut command = Command::new(NGINX);
        command.args(["-p", &path(""), "-c", &path("nginx.conf"), "-e", "stderr"]).stdin(Stdio::null());
        let spawn = move || {
            pin::server();
            command.spawn()
        };
        let child = thread::spawn(spawn).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let child = child.map_err(|e| io::Error::new(e.kind(), format!("nginx (is it installed?): {e}")))?;
        let mut nginx = Nginx { addr, child, _folder: folder };
        let start = Instant::now();
        while TcpStream::connect(addr).is_err() {
            if let Some(status) = nginx.child.try_wait()? {
                return Err(io::Error::other(format!("nginx has ended: {status}")));
            }
            if start.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nginx does not listen"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Load {
    requests: u64,
    wall: Duration,
    /// Microseconds.
    median: f64,
    p99: f64,
}

/// One thread of it, where clients run. `None`: it is not installed.
fn wrk(addr: SocketAddr, connections: usize, seconds: u64) -> io::Result<Option<Load>> {
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--latency", "--connections", &connections.to_string()]);
    command.args(["--duration", &format!("{seconds}s"), &format!("https://{addr}/")]);
    // The calling thread is a client, and what it starts runs where it does.
    let output = match command.stdin(Stdio::null()).output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = text.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    if let (false, _) | (_, Some(_)) = (output.status.success(), complaint) {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("wrk: {}{told}", complaint.unwrap_or(&text))));
    }
    let load = parse(&text).ok_or_else(|| io::Error::other(format!("wrk says something else: {text}")));
    load.map(Some)
}

fn parse(text: &str) -> Option<Load> {
    let words = |name: &str| {
        let line = text.lines().map(str::trim).find(|line| line.contains(name))?;
        Some(line.split_whitespace().collect::<Vec<_>>())
    };
    let total = words(" requests in ")?;
    Some(Load {
        requests: total.first()?.parse().ok()?,
        wall: Duration::from_secs_f64(microseconds(total.get(3)?.trim_end_matches(','))? / 1e6),
        median: microseconds(words("50%")?.get(1)?)?,
        p99: microseconds(words("99%")?.get(1)?)?,
    })
}

/// Of "1.23ms" and the like.
fn microseconds(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|c: char| c.is_alphabetic());
    let factor = match &text[number.len()..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// Two requests on one connection, the second with the first byte of a third: what is compared must be the same.
fn check(addr: SocketAddr) -> io::Result<()> {
    let tcp = TcpStream::connect(addr)?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut tls = Connector::new()?.connect(tcp)?;
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    tls.write_all(&[REQUEST, &REQUEST[..1]].concat())?;
    expect_answer(&mut tls)?;
    tls.write_all(&REQUEST[1..])?;
    expect_answer(&mut tls)?;
    tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    expect_answer(&mut tls)?;
    match tls.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("more than was asked for")),
    }
}

fn expect_answer(from: &mut impl Read) -> io::Result<()> {
    let mut got = Vec::new();
    while !got.ends_with(ANSWER) {
        let mut piece = [0; 4096];
        match from.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => got.extend_from_slice(&piece[..n]),
        }
    }
    let head = String::from_utf8_lossy(&got[..got.len() - ANSWER.len()]).to_ascii_lowercase();
    let is_right = head.starts_with("http/1.1 200 ok\r\n")
        && ["content-length: 1024\r\n", "date: ", "content-type: text/plain"].iter().all(|line| head.contains(line))
        && head.ends_with("\r\n\r\n");
    match is_right {
        true => Ok(()),
        false => Err(io::Error::other(format!("another answer than was expected: {head}"))),
    }
}

/// Every server once; with wrk for a second, if it is there.
pub fn smoke() -> io::Result<()> {
    pin::set(Pin::Apart);
    for ((name, _), server) in start(&[])? {
        check(server.addr()).map_err(|e| io::Error::other(format!("{name}: {e}")))?;
        println!("http with {name}: ok");
    }
    Ok(())
}
