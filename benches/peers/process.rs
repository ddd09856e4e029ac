//! A server's process: this program again, with `--serve`.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::pin::{self, Pin};
use crate::servers::Kind;

/// Ends with this.
pub struct Server {
    pub addr: SocketAddr,
    child: Child,
}

/// What a server has used up to now.
#[derive(Clone, Copy)]
pub struct Usage {
    /// Processor time of the serving thread, in the kernel and outside.
    pub cpu: Duration,
    /// How often that thread went to sleep.
    pub sleeps: u64,
    /// Memory of the process, in bytes.
    pub resident: u64,
}

impl Server {
    /// What the parameter means is the kind's affair.
    pub fn start(kind: &Kind, parameter: usize) -> io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", kind.name, "--parameter", &parameter.to_string()]);
        let mut child = pin::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(addr) => Ok(Server { addr, child }),
            Err(_) => {
                child.wait()?;
                Err(io::Error::other(format!("{} did not start", kind.name)))
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn usage(&self) -> io::Result<Usage> {
        usage(self.pid())
    }

    /// The same for all its threads.
    pub fn usage_of_all(&self) -> io::Result<Usage> {
        let mut sum = Usage { cpu: Duration::ZERO, sleeps: 0, ..self.usage()? };
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let path = thread?.path();
            sum.cpu += Duration::from_nanos(field(&fs::read_to_string(path.join("schedstat"))?, "")?);
            sum.sleeps += field(&fs::read_to_string(path.join("status"))?, "voluntary_ctxt_switches:")?;
        }
        Ok(sum)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of a process whose main thread does the work. Linux tells.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let schedule = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat"))?;
    let thread = fs::read_to_string(format!("/proc/{pid}/task/{pid}/status"))?;
    let process = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(Usage {
        cpu: Duration::from_nanos(field(&schedule, "")?),
        sleeps: field(&thread, "voluntary_ctxt_switches:")?,
        resident: field(&process, "VmRSS:")? * 1024,
    })
}

fn field(text: &str, name: &str) -> io::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("/proc does not tell {name:?}")))
}

/// The server's process: says where it listens, and ends when its standard input does.
pub fn serve(kind: &Kind, parameter: usize) -> io::Result<()> {
    pin::set(Pin::Apart);
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    pin::server();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    kind.serve(listener, parameter)
}
