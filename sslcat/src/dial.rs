//! TCP to a host that may have several addresses, of which some may be dead (RFC 8305, "happy eyeballs").

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// For how long an address is alone (RFC 8305, section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// The first address that answers; all within the deadline, finding the addresses included.
pub fn dial(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    race(by_turns(resolve(host, port, deadline)?), deadline)
}

pub fn resolve(host: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    let host = host.to_string();
    in_time(deadline, move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))
}

/// For what can't be told when to give up. It goes on in its thread, and nobody hears of it.
pub fn in_time<T: Send + 'static>(
    deadline: Instant,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = mpsc::channel();
    thread::Builder::new().spawn(move || done.send(work()))?;
    match result.recv_timeout(left(deadline)) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("its thread is gone")),
    }
}

/// Never zero, which a socket takes for a mistake.
pub fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// IPv6 and IPv4 by turns, in the system's order otherwise: where one of them leads nowhere, the next attempt does not.
fn by_turns(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (mut these, mut those): (Vec<_>, Vec<_>) = addrs.into_iter().partition(|addr| addr.is_ipv6() == first_is_v6);
    these.reverse();
    those.reverse();
    let mut ordered = Vec::new();
    while let Some(addr) = these.pop().or_else(|| those.pop()) {
        if !ordered.contains(&addr) {
            ordered.push(addr);
        }
        std::mem::swap(&mut these, &mut those);
    }
    ordered
}

/// The next address gets its attempt when the last one has had its head start, or one has failed.
fn race(addrs: Vec<SocketAddr>, deadline: Instant) -> io::Result<TcpStream> {
    let (done, results) = mpsc::channel();
    let mut addrs = addrs.into_iter().enumerate().peekable();
    let mut attempts = Vec::new();
    let mut running = 0;
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let won = loop {
        if let Some((number, addr)) = addrs.next() {
            match attempt(number, addr, deadline, done.clone()) {
                Ok(socket) => {
                    attempts.push((number, socket));
                    running += 1;
                }
                Err(error) => {
                    failed = error;
                    continue;
                }
            }
        } else if running == 0 {
            break Err(failed);
        }
        let patience = if addrs.peek().is_some() { HEAD_START.min(left(deadline)) } else { left(deadline) };
        match results.recv_timeout(patience) {
            Ok((number, Ok(socket))) => break Ok((number, socket)),
            Ok((_, Err(error))) => {
                running -= 1;
                failed = error;
            }
            Err(_) if Instant::now() >= deadline => break Err(io::ErrorKind::TimedOut.into()),
            Err(_) => {}
        }
    };
    // The others give up at once, where a system can do that; elsewhere when they have come to something.
    let winner = won.as_ref().ok().map(|(number, _)| *number);
    for (_, socket) in attempts.iter().filter(|(number, _)| Some(*number) != winner) {
        let _ = socket.shutdown(Shutdown::Both);
    }
    won.map(|(_, socket)| socket.into())
}

type Attempted = (usize, io::Result<Socket>);

/// In a thread of its own; another handle on its socket is returned.
fn attempt(number: usize, addr: SocketAddr, deadline: Instant, done: mpsc::Sender<Attempted>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    let handle = socket.try_clone()?;
    thread::Builder::new().spawn(move || {
        let connected = socket.connect_timeout(&addr.into(), left(deadline));
        // Who comes too late is closed with this.
        done.send((number, connected.map(|()| socket)))
    })?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let given = addrs(&["[::1]:1", "[::2]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        assert_eq!(by_turns(given), addrs(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]));
        assert_eq!(by_turns(addrs(&["1.0.0.1:1", "[::1]:1"])), addrs(&["1.0.0.1:1", "[::1]:1"]));
        assert_eq!(by_turns(Vec::new()), Vec::new());
    }

    /// A listener whose queue is full: it answers nobody, as a host behind a broken route.
    #[cfg(target_os = "linux")]
    struct BlackHole(SocketAddr, #[allow(dead_code)] Vec<Socket>);

    #[cfg(target_os = "linux")]
    impl BlackHole {
        fn new() -> BlackHole {
            let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let listener = socket();
            listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            listener.listen(0).unwrap();
            let addr = listener.local_addr().unwrap();
            let mut sockets = vec![listener];
            for _ in 0..4 {
                let filler = socket();
                filler.set_nonblocking(true).unwrap();
                let _ = filler.connect(&addr);
                sockets.push(filler);
            }
            BlackHole(addr.as_socket().unwrap(), sockets)
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_dead_first_address_costs_its_head_start() {
        let dead = BlackHole::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        let start = Instant::now();
        let tcp = race(vec![dead.0, alive], start + Duration::from_secs(20)).unwrap();
        let took = start.elapsed();
        assert_eq!(tcp.peer_addr().unwrap(), alive);
        assert!(took >= HEAD_START && took < Duration::from_secs(5), "{took:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_refusal_does_not_wait_and_the_dead_end_with_the_deadline() {
        let dead = BlackHole::new();
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let start = Instant::now();
        race(vec![refusing, listener.local_addr().unwrap()], start + Duration::from_secs(20)).unwrap();
        assert!(start.elapsed() < HEAD_START, "{:?}", start.elapsed());

        let start = Instant::now();
        let error = race(vec![dead.0, refusing], start + Duration::from_millis(600)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The system counts in milliseconds.
        assert!(start.elapsed() >= Duration::from_millis(590));
        let error = race(vec![refusing, refusing], start + Duration::from_secs(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
