//! What cases are made of: the two ends of a connection, their threads, and what they say to each other.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{self, Scope, ScopedJoinHandle};

use crate::peer::End;
use crate::pin;

pub fn tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    tcp_pairs(1)?.pop().ok_or_else(|| io::Error::other("no pair"))
}

pub fn tcp_pairs(n: usize) -> io::Result<Vec<(TcpStream, TcpStream)>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let pair = |_| {
        let client = TcpStream::connect(addr)?;
        let (server, _) = listener.accept()?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        Ok((client, server))
    };
    (0..n).map(pair).collect()
}

/// Writes `bytes` in writes of the size of `data`.
pub fn give(to: &mut impl Write, data: &[u8], bytes: u64) -> io::Result<()> {
    for _ in 0..bytes / data.len() as u64 {
        to.write_all(data)?;
    }
    to.flush()
}

/// Reads `bytes` and no more.
pub fn take(from: &mut impl Read, buf: &mut [u8], bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let most = left.min(buf.len() as u64) as usize;
        match from.read(&mut buf[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => left -= n as u64,
        }
    }
    Ok(())
}

pub fn say(end: &mut Box<dyn End>, message: &[u8]) -> io::Result<()> {
    end.write_all(message)?;
    end.flush()
}

pub fn hear(end: &mut Box<dyn End>, expected: &[u8; 1]) -> io::Result<()> {
    let mut got = [0];
    end.read_exact(&mut got)?;
    match got == *expected {
        true => Ok(()),
        false => Err(io::Error::other("not what the peer said")),
    }
}

/// Reads to the peer's close_notify, and then ends too. By then the peer may be gone altogether.
pub fn hear_end(mut end: Box<dyn End>, buf: &mut [u8]) -> io::Result<()> {
    match end.read(buf)? {
        0 => {
            let _ = end.finish();
            Ok(())
        }
        _ => Err(io::Error::other("data where the end should be")),
    }
}

/// Threads have names, so that profilers tell the ends apart.
pub fn on_client<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    f: impl FnOnce() -> io::Result<T> + Send + 's,
) -> ScopedJoinHandle<'s, io::Result<T>> {
    let work = move || {
        pin::client();
        f()
    };
    thread::Builder::new().name("client".to_string()).spawn_scoped(scope, work).expect("a thread")
}

pub fn on_server<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    f: impl FnOnce() -> io::Result<T> + Send + 's,
) -> ScopedJoinHandle<'s, io::Result<T>> {
    let work = move || {
        pin::server();
        f()
    };
    thread::Builder::new().name("server".to_string()).spawn_scoped(scope, work).expect("a thread")
}

pub fn join<T>(thread: ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// When one end fails the other one sees no more than a broken connection: both are told.
pub fn both<A, B>(server: io::Result<A>, client: io::Result<B>) -> io::Result<(A, B)> {
    match (server, client) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(e), Ok(_)) => Err(io::Error::new(e.kind(), format!("server: {e}"))),
        (Ok(_), Err(e)) => Err(io::Error::new(e.kind(), format!("client: {e}"))),
        (Err(s), Err(c)) => Err(io::Error::new(c.kind(), format!("client: {c}; server: {s}"))),
    }
}
