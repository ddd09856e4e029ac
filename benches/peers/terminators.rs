//! The example `terminator` beside stunnel and hitch: TLS terminators with one event loop, on a processor of their own,
//! in front of the same plain server, under the same load.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{geteuid, kill_process, Pid, Signal};

use crate::certs::certs;
use crate::load::Load;
use crate::pin::{self, Pin};
use crate::process::Server;
use crate::report::{median, Table};
use crate::servers::PLAIN;

/// Connections that ask at once.
const BUSY: usize = 100;
/// For answers of a mebibyte.
const FEW: usize = 8;

pub struct Plan {
    pub rounds: usize,
    pub time: Duration,
    /// Connections made and ended for one measurement.
    pub visits: u64,
    /// Connections whose memory is looked at.
    pub idle: usize,
}

/// What was measured of one terminator, a value for each round.
#[derive(Default)]
struct Figures {
    /// Answers a second and processor seconds for each, of 64 bytes, 16 KiB and 1 MiB.
    small: Vec<(f64, f64)>,
    large: Vec<(f64, f64)>,
    huge: Vec<(f64, f64)>,
    /// Connections a second and processor seconds for each.
    visits: Vec<(f64, f64)>,
    memory: f64,
    negotiated: String,
}

pub fn run(plan: &Plan) -> io::Result<()> {
    pin::set(Pin::Apart);
    let plain = Server::start(PLAIN, 16 << 10)?;
    let dir = tempfile::tempdir()?;
    let mut all: Vec<(Terminator, Figures)> = Vec::new();
    for start in [Terminator::ours, Terminator::stunnel, Terminator::hitch] {
        match start(dir.path(), plain.addr) {
            Ok(terminator) => all.push((terminator, Figures::default())),
            Err(e) => eprintln!("left out: {e}"),
        }
    }
    for (terminator, figures) in &mut all {
        eprintln!("memory of {}", terminator.name);
        let first = Load::open(terminator.addr, 20)?;
        let before = terminator.usage()?.resident;
        let load = Load::open(terminator.addr, plan.idle)?;
        figures.memory = terminator.usage()?.resident.saturating_sub(before) as f64 / plan.idle as f64;
        figures.negotiated = load.negotiated();
        drop((first, load));
    }
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        for (terminator, figures) in &mut all {
            let sizes = [
                (64, BUSY, &mut figures.small),
                (16 << 10, BUSY, &mut figures.large),
                (1 << 20, FEW, &mut figures.huge),
            ];
            for (size, connections, to) in sizes {
                let mut load = Load::open(terminator.addr, connections)?;
                load.fetch(size, plan.time / 4)?;
                let before = terminator.usage()?.cpu;
                let flood = load.fetch(size, plan.time)?;
                let cpu = terminator.usage()?.cpu - before;
                let n = flood.requests as f64;
                to.push((n / flood.wall.as_secs_f64(), cpu.as_secs_f64() / n));
            }
            let before = terminator.usage()?.cpu;
            let wall = Load::visit(terminator.addr, plan.visits)?;
            let cpu = terminator.usage()?.cpu - before;
            let n = plan.visits as f64;
            figures.visits.push((n / wall.as_secs_f64(), cpu.as_secs_f64() / n));
        }
        all.reverse();
    }
    all.sort_by_key(|(terminator, _)| terminator.name != OURS);
    print(&all);
    Ok(())
}

const OURS: &str = "terminator";

fn print(all: &[(Terminator, Figures)]) {
    let mut table = Table::new(&[
        "terminator",
        "version",
        "TLS",
        "64 B",
        "CPU",
        "16 KiB",
        "CPU",
        "1 MiB",
        "CPU",
        "connections",
        "CPU",
        "memory for each",
    ]);
    for (terminator, figures) in all {
        let rate = |of: &[(f64, f64)]| median(of.iter().map(|(rate, _)| *rate));
        let cpu = |of: &[(f64, f64)]| format!("{:.1} µs", median(of.iter().map(|(_, cpu)| *cpu)) * 1e6);
        table.push(vec![
            terminator.name.to_string(),
            terminator.version.clone(),
            figures.negotiated.clone(),
            format!("{:.0} /s", rate(&figures.small)),
            cpu(&figures.small),
            format!("{:.0} MiB/s", rate(&figures.large) / 64.0),
            cpu(&figures.large),
            format!("{:.0} MiB/s", rate(&figures.huge)),
            cpu(&figures.huge),
            format!("{:.0} /s", rate(&figures.visits)),
            cpu(&figures.visits),
            format!("{:.1} KiB", figures.memory / 1024.0),
        ]);
    }
    table.print();
}

/// A running terminator, which ends with this.
struct Terminator {
    name: &'static str,
    version: String,
    addr: SocketAddr,
    child: Child,
}

/// Of all threads and of the worker that it may have.
struct Usage {
    cpu: Duration,
    resident: u64,
}

impl Terminator {
    fn ours(dir: &Path, target: SocketAddr) -> io::Result<Terminator> {
        let addr = free_addr()?;
        let mut command = Command::new(example()?);
        command.args([addr.to_string(), target.to_string()]).arg("--cert").arg(identity(dir)?);
        command.args(["--loops", "1", "--stats", "0"]);
        Terminator::start(OURS, "this".to_string(), addr, command)
    }

    fn stunnel(dir: &Path, target: SocketAddr) -> io::Result<Terminator> {
        let addr = free_addr()?;
        let config = dir.join("stunnel.conf");
        let text = format!(
            "foreground = yes\npid =\nsyslog = no\ndebug = crit\n\
             socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
             [bench]\naccept = {addr}\nconnect = {target}\ncert = {}\n",
            identity(dir)?.display(),
        );
        fs::write(&config, text)?;
        let version = version_of("stunnel", "-version")?;
        let mut command = Command::new("stunnel");
        command.arg(&config);
        Terminator::start("stunnel", version, addr, command)
    }

    fn hitch(dir: &Path, target: SocketAddr) -> io::Result<Terminator> {
        let addr = free_addr()?;
        let config = dir.join("hitch.conf");
        let text = format!(
            "frontend = \"[{}]:{}\"\nbackend = \"[{}]:{}\"\npem-file = \"{}\"\n\
             workers = 1\ndaemon = off\nquiet = on\nsyslog = off\nocsp-dir = \"\"\n",
            addr.ip(),
            addr.port(),
            target.ip(),
            target.port(),
            identity(dir)?.display(),
        );
        fs::write(&config, text)?;
        let version = version_of("hitch", "--version")?;
        let mut command = Command::new("hitch");
        command.arg("--config").arg(&config);
        if geteuid().is_root() {
            // It refuses to serve as root.
            command.args(["--user", "nobody"]);
        }
        Terminator::start("hitch", version, addr, command)
    }

    /// On the servers' processor, from the first moment.
    fn start(name: &'static str, version: String, addr: SocketAddr, mut command: Command) -> io::Result<Terminator> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let spawn = move || {
            pin::server();
            command.spawn()
        };
        let child = thread::spawn(spawn).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let child = child.map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))?;
        let mut terminator = Terminator { name, version, addr, child };
        let start = Instant::now();
        while TcpStream::connect(addr).is_err() {
            if let Some(status) = terminator.child.try_wait()? {
                return Err(io::Error::other(format!("{name} has ended: {status}")));
            }
            if start.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name} does not listen")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        // hitch puts its workers where it likes, beside the load generator.
        for pid in terminator.pids()? {
            pid.try_into().ok().and_then(Pid::from_raw).into_iter().for_each(pin::server_process);
        }
        Ok(terminator)
    }

    fn usage(&self) -> io::Result<Usage> {
        let mut sum = Usage { cpu: Duration::ZERO, resident: 0 };
        for pid in self.pids()? {
            // Processor time in ticks: fields 14 and 15, counted behind the name in brackets, which is the second.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
            let tick = 1.0 / clock_ticks_per_second() as f64;
            sum.cpu += Duration::from_secs_f64(ticks.sum::<u64>() as f64 * tick);
            let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
            let pages = statm.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
            sum.resident += pages.unwrap_or(0) * page_size() as u64;
        }
        Ok(sum)
    }

    fn pids(&self) -> io::Result<Vec<u32>> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(std::iter::once(pid).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect())
    }
}

impl Drop for Terminator {
    /// In a way that lets a master end its workers.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// cargo puts examples beside the folder with this program.
fn example() -> io::Result<PathBuf> {
    let bench = std::env::current_exe()?;
    let path = bench.ancestors().nth(2).map(|target| target.join("examples").join(OURS));
    path.filter(|path| path.exists()).ok_or_else(|| {
        let text = "the example is not built: cargo build --release --example terminator";
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

fn identity(dir: &Path) -> io::Result<PathBuf> {
    let path = dir.join("identity.pem");
    let mut file = fs::File::create(&path)?;
    write!(file, "{}{}", certs().key, certs().leaf)?;
    Ok(path)
}

fn free_addr() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The first word that begins with a digit.
fn version_of(program: &str, argument: &str) -> io::Result<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output();
    let output = output.map_err(|e| io::Error::new(e.kind(), format!("{program} (is it installed?): {e}")))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Ok(version.unwrap_or("unknown").to_string())
}
