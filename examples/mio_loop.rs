//! TLS in an event loop of one's own, on `mio`: an echo server, and three clients to try it.
//!
//! mio tells of changes only. So each file is registered once, and each event means: go on until `WouldBlock`, in both
//! directions; there may be decrypted data of which the system knows nothing.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use sslfile::{Certificate, Context, Handshake, Identity, SslFile};

const LISTENER: Token = Token(0);
const CLIENTS: u8 = 3;

fn main() -> io::Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).map_err(io::Error::other)?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server = Context::server(Identity::from_pem(chain.as_bytes(), key.as_bytes())?)?;
    let root = Certificate::from_pem(chain.as_bytes())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let root = root.clone();
            thread::spawn(move || try_out(addr, root, number))
        })
        .collect();
    serve(listener, &server)?;
    clients.into_iter().try_for_each(|client| client.join().unwrap_or_else(|_| Err(io::Error::other("a panic"))))
}

fn serve(listener: TcpListener, context: &Context) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut echoes = HashMap::new();
    let (mut next_key, mut served) = (LISTENER.0 + 1, 0);
    let mut events = Events::with_capacity(64);
    while served < CLIENTS {
        poll.poll(&mut events, None)?;
        for event in events.iter() {
            if event.token() == LISTENER {
                while let Ok((tcp, _)) = listener.accept() {
                    let options = SslFile::options().server().nonblocking(true).handshake(Handshake::Lazy);
                    let file = options.open(TcpStream::from(OwnedFd::from(tcp)), context)?;
                    // Once for both: mio tells of changes only, and every change is looked into until nothing is left.
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut SourceFd(&file.as_raw_fd()), Token(next_key), both)?;
                    echoes.insert(next_key, Echo { file, owed: Vec::new(), peer_ended: false });
                    next_key += 1;
                }
                continue;
            }
            let Some(echo) = echoes.get_mut(&event.token().0) else { continue };
            let done = echo.go_on().unwrap_or_else(|error| {
                let _ = writeln!(io::stdout(), "server: {error}");
                true
            });
            if done {
                poll.registry().deregister(&mut SourceFd(&echo.file.as_raw_fd()))?;
                echoes.remove(&event.token().0);
                served += 1;
            }
        }
    }
    Ok(())
}

/// One connection: what was read goes back; while it can't, nothing more is read.
struct Echo {
    file: SslFile,
    owed: Vec<u8>,
    peer_ended: bool,
}

impl Echo {
    /// All that can be done without waiting. True: it is over.
    fn go_on(&mut self) -> io::Result<bool> {
        let mut buf = [0; 16 * 1024];
        loop {
            while !self.owed.is_empty() {
                match self.file.write(&self.owed) {
                    Ok(n) => drop(self.owed.drain(..n)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(e) => return Err(e),
                }
            }
            if self.peer_ended {
                return match self.file.close() {
                    Ok(()) => Ok(true),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
                    Err(e) => Err(e),
                };
            }
            match self.file.read(&mut buf) {
                Ok(0) => self.peer_ended = true,
                Ok(n) => self.owed.extend_from_slice(&buf[..n]),
                // Nothing is pending now: it is right to wait.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }
}

fn try_out(addr: SocketAddr, root: Certificate, number: u8) -> io::Result<()> {
    let context = Context::builder().system_roots(false).add_root(root).build()?;
    let file = SslFile::client(TcpStream::connect(addr)?, &context, "localhost")?;
    let sent = vec![b'a' + number; 1 << 20];
    let mut got = Vec::new();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (&file).write_all(&sent)?;
            file.shutdown(Shutdown::Write)
        });
        (&file).read_to_end(&mut got)?;
        writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    })?;
    let verdict = if got == sent { "the same" } else { "CHANGED" };
    let _ = writeln!(io::stdout(), "client {number}: {} bytes came back, {verdict}", got.len());
    if got == sent {
        Ok(())
    } else {
        Err(io::Error::other("the echo differs"))
    }
}
