//! The system's queue of connections, when listening is to end and nobody in it is to be lost.
//!
//! A listening socket that is shut down resets what is in its queue. Between the last `accept` and the shutdown the system
//! may put another connection there. Linux can be told not to: a packet filter drops what would begin a new connection,
//! and nothing else, so that those half made are made, and taken. A client that comes behind the filter tries again a
//! second later and is refused, or finds the next server on that port.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::sys::{self, passes, Passes};

/// What the system has begun is given so long to be done: a round trip on this machine, and in its neighbourhood.
const HALF_MADE: Duration = Duration::from_millis(1);
/// Where new connections go on coming, no more than this many are taken: as many as a queue may hold.
const MOST: usize = 4096;

/// Takes all there is: what the system still makes of connections begun before is there too.
///
/// The error is one of `accept` that leaves the queue as it is. What was taken before has been given to `take`.
pub(super) fn empty(listener: &TcpListener, mut take: impl FnMut(TcpStream, SocketAddr)) -> io::Result<()> {
    let filtered = sys::admit_no_more(listener);
    let until = Instant::now() + HALF_MADE;
    let mut taken = 0;
    while filtered || taken < MOST {
        match listener.accept() {
            Ok((stream, addr)) => {
                if filtered {
                    sys::lift(&stream);
                }
                taken += 1;
                take(stream, addr);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if !filtered || !sys::arrives(listener, until.saturating_duration_since(Instant::now())) {
                    return Ok(());
                }
            }
            Err(e) if passes(&e) == Passes::AtOnce => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_is_in_the_queue_is_taken_and_with_a_filter_nobody_comes_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.set_nonblocking(true).expect("nonblocking");
        let addr = listener.local_addr().expect("addr");
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).expect("connect")).collect();
        let mut taken = Vec::new();
        empty(&listener, |stream, addr| taken.push((stream, addr))).expect("empty");
        let expected: Vec<_> = clients.iter().map(|client| client.local_addr().expect("addr")).collect();
        assert_eq!(taken.iter().map(|(_, addr)| *addr).collect::<Vec<_>>(), expected);

        if cfg!(target_os = "linux") {
            let late = TcpStream::connect_timeout(&addr, Duration::from_millis(200)).expect_err("nobody answers");
            assert_eq!(late.kind(), io::ErrorKind::TimedOut, "{late}");
            // Established connections are as they were.
            for (mut client, (mut server, _)) in clients.into_iter().zip(taken) {
                client.write_all(b"x").expect("write");
                server.read_exact(&mut [0]).expect("read");
            }
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    /// Stops a listener whose clients connect in a loop; gives what became of the last connection of each.
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
    fn stop_under_load() -> Vec<io::Error> {
        use socket2::SockRef;
        use std::net::Shutdown;
        use std::thread;
        const CLIENTS: usize = 4;
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.set_nonblocking(true).expect("nonblocking");
        let addr = listener.local_addr().expect("addr");
        // Each waits until it has been taken: a queue that overflows is another matter.
        let connect = || loop {
            let connected = TcpStream::connect(addr);
            let refused = match connected.map(|mut stream| stream.read_exact(&mut [0])) {
                Ok(Ok(())) => continue,
                Ok(Err(e)) => return io::Error::other(format!("connected, and then {e}")),
                Err(e) => e,
            };
            return refused;
        };
        let take = |mut stream: TcpStream| stream.write_all(b"x").expect("write");
        thread::scope(|t| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| t.spawn(connect)).collect();
            let mut taken = 0;
            while taken < 200 {
                if let Ok((stream, _)) = listener.accept() {
                    take(stream);
                    taken += 1;
                }
            }
            empty(&listener, |stream, _| take(stream)).expect("empty");
            SockRef::from(&listener).shutdown(Shutdown::Both).expect("shutdown");
            clients.into_iter().map(|client| client.join().expect("client")).collect()
        })
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn a_connection_that_is_made_while_listening_ends_is_taken() {
        for _ in 0..5 {
            for e in stop_under_load() {
                assert_eq!(e.kind(), io::ErrorKind::ConnectionRefused, "{e}");
            }
        }
    }
}
