//! A wire between two TCP streams that a test can slow down, stop and let go again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// How bytes go in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flow {
    Free,
    /// One byte at a time, with this pause after each.
    Drip(Duration),
    /// So many bytes more, and then none.
    Allow(usize),
}

/// One direction. The settings may change at any time, in the middle of a record too.
#[derive(Clone)]
pub struct Direction(Arc<(Mutex<Flow>, Condvar)>);

impl Direction {
    fn new() -> Direction {
        Direction(Arc::new((Mutex::new(Flow::Free), Condvar::new())))
    }

    pub fn set(&self, flow: Flow) {
        *self.0 .0.lock().expect("flow") = flow;
        self.0 .1.notify_all();
    }

    /// How many of `len` bytes may go now: at least one; waits while none may.
    fn allowed(&self, len: usize) -> usize {
        let mut flow = self.0 .0.lock().expect("flow");
        loop {
            match &mut *flow {
                Flow::Free => return len,
                Flow::Allow(0) => flow = self.0 .1.wait(flow).expect("flow"),
                Flow::Allow(rest) => {
                    let n = len.min(*rest);
                    *rest -= n;
                    return n;
                }
                Flow::Drip(pause) => {
                    let pause = *pause;
                    // A change of flow ends the pause.
                    flow = self.0 .1.wait_timeout(flow, pause).expect("flow").0;
                    if matches!(*flow, Flow::Drip(_)) {
                        return 1;
                    }
                }
            }
        }
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buf = [0; 16 << 10];
        loop {
            let n = match from.read(&mut buf) {
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            let mut rest = &buf[..n];
            while !rest.is_empty() {
                let n = self.allowed(rest.len());
                if to.write_all(&rest[..n]).is_err() {
                    // Nobody is left to read it; the sender must find out as well.
                    let _ = from.shutdown(Shutdown::Both);
                    return;
                }
                rest = &rest[n..];
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// Both directions. Dropping it lets everything flow.
pub struct Wire {
    pub to_client: Direction,
    pub to_server: Direction,
}

impl Wire {
    /// The client's stream, the server's, and the wire between them.
    pub fn new() -> (TcpStream, TcpStream, Wire) {
        let (client, client_side) = super::common::tcp_pair();
        let (server_side, server) = super::common::tcp_pair();
        let wire = Wire { to_client: Direction::new(), to_server: Direction::new() };
        for side in [&client_side, &server_side] {
            side.set_nodelay(true).expect("nodelay");
        }
        let ends = |a: &TcpStream, b: &TcpStream| (a.try_clone().expect("clone"), b.try_clone().expect("clone"));
        let (from, to) = ends(&client_side, &server_side);
        let direction = wire.to_server.clone();
        thread::spawn(move || direction.pump(from, to));
        let (from, to) = ends(&server_side, &client_side);
        let direction = wire.to_client.clone();
        thread::spawn(move || direction.pump(from, to));
        (client, server, wire)
    }

    pub fn set(&self, flow: Flow) {
        self.to_client.set(flow);
        self.to_server.set(flow);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.set(Flow::Free);
    }
}
