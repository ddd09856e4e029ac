//! Whom we stand in front of: all addresses of the name, looked up again when one fails, and the way to them.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use sslfile::Backend;

use crate::log;

pub struct Target {
    name: String,
    /// Those that failed stand behind the others.
    addrs: Mutex<Vec<SocketAddr>>,
    looking_up: AtomicBool,
    timeout: Duration,
}

impl Target {
    pub fn new(name: &str, timeout: Duration) -> io::Result<Arc<Target>> {
        let (name, addrs) = (name.to_string(), look_up(name)?.into());
        Ok(Arc::new(Target { name, addrs, looking_up: false.into(), timeout }))
    }

    /// Tells, from the backend, when there is a connection to one of the addresses, or can't be one. Does not wait.
    pub fn connect(self: &Arc<Self>, backend: &Backend, done: impl FnOnce(io::Result<TcpStream>) + Send + 'static) {
        let mut left = self.addrs.lock().clone();
        left.reverse();
        let (target, backend, done) = (self.clone(), backend.clone(), Box::new(done));
        Attempt { target, backend, left, done }.next(io::ErrorKind::NotFound.into());
    }

    fn failed(self: &Arc<Self>, addr: SocketAddr, error: &io::Error) {
        let mut addrs = self.addrs.lock();
        // Others that began with it have said so already.
        if addrs.len() > 1 && addrs[0] == addr {
            addrs.rotate_left(1);
            log::warn(format_args!("{}: {addr}: {error}; {} is first now", self.name, addrs[0]));
        }
        if !self.looking_up.swap(true, Relaxed) {
            let target = self.clone();
            // It waits for name servers. Without a thread the next failure tries again.
            let begun = thread::Builder::new().spawn(move || target.look_up_again());
            self.looking_up.store(begun.is_ok(), Relaxed);
        }
    }

    fn look_up_again(&self) {
        match look_up(&self.name) {
            Ok(found) => {
                let mut addrs = self.addrs.lock();
                addrs.retain(|addr| found.contains(addr));
                let new: Vec<_> = found.into_iter().filter(|addr| !addrs.contains(addr)).collect();
                addrs.extend(new);
            }
            Err(error) => log::warn(error),
        }
        // Not more often than that.
        thread::sleep(Duration::from_secs(1));
        self.looking_up.store(false, Relaxed);
    }
}

fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    name.to_socket_addrs().map(Vec::from_iter).map_err(|error| log::about(name, &error))
}

/// The way to the first of the addresses that answers.
struct Attempt {
    target: Arc<Target>,
    backend: Backend,
    /// The next one is last.
    left: Vec<SocketAddr>,
    done: Box<dyn FnOnce(io::Result<TcpStream>) + Send>,
}

impl Attempt {
    fn next(mut self, error: io::Error) {
        let Some(addr) = self.left.pop() else { return (self.done)(Err(error)) };
        match begin(addr) {
            Ok(tcp) => self.look(tcp, addr, Instant::now(), Duration::from_millis(1)),
            Err(error) => self.failed(addr, error),
        }
    }

    /// A backend tells of data and of ends, and of neither when a connection is made. To this machine it is at once; to others
    /// we look again soon.
    fn look(self, tcp: TcpStream, addr: SocketAddr, begin: Instant, again: Duration) {
        if tcp.peer_addr().is_ok() {
            return (self.done)(Ok(tcp));
        }
        match tcp.take_error() {
            Ok(Some(error)) | Err(error) => self.failed(addr, error),
            Ok(None) if begin.elapsed() >= self.target.timeout => self.failed(addr, io::ErrorKind::TimedOut.into()),
            Ok(None) => {
                let backend = self.backend.clone();
                backend.call_out(again, move || self.look(tcp, addr, begin, Duration::from_millis(16).min(again * 2)));
            }
        }
    }

    fn failed(self, addr: SocketAddr, error: io::Error) {
        self.target.failed(addr, &error);
        self.next(io::Error::new(error.kind(), format!("{addr}: {error}")));
    }
}

fn begin(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&addr.into()) {
        Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(e),
        _ => Ok(socket.into()),
    }
}
