//! A chat server on one event loop: what one says goes to all others.
//!
//! ```text
//! chat                                   shows itself: two who talk, one who never reads; then the end
//! chat 127.0.0.1:8443                    serves until it is killed; talk with
//! openssl s_client -quiet -connect 127.0.0.1:8443
//! ```
//!
//! A reader who is slow costs the others nothing: lines for it wait in its own queue, and when that is full it is shown
//! the door.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sslfile::{Backend, Callbacks, Certificate, Context, Identity, SslFile, SslListener};

/// The longest line; who sends longer ones is cut short.
const LINE: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let listen = std::env::args().nth(1);
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).map_err(io::Error::other)?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes())?;
    let backend = Backend::new()?;
    let address = listen.as_deref().unwrap_or("127.0.0.1:0");
    let listener = SslListener::bind(address, &Context::server(identity)?)?;
    let room = Room::default();
    room.open(&listener, &backend)?;
    let addr = listener.local_addr()?;
    log(format_args!("listening on {addr}"));
    if listen.is_some() {
        return backend.run();
    }
    let root = Certificate::from_pem(chain.as_bytes())?;
    let context = Context::builder().system_roots(false).add_root(root).build()?;
    let stopper = backend.clone();
    let guests = thread::spawn(move || {
        let result = party(addr, &context);
        stopper.stop();
        result
    });
    backend.run()?;
    guests.join().unwrap_or_else(|_| Err(io::Error::other("the guests panicked")))
}

/// Who is there. Clones are handles on the same room.
#[derive(Clone, Default)]
struct Room {
    guests: Arc<Mutex<HashMap<SocketAddr, Guest>>>,
}

struct Guest {
    file: SslFile,
    /// The beginning of a line.
    line: Vec<u8>,
}

impl Room {
    fn open(&self, listener: &SslListener, backend: &Backend) -> io::Result<()> {
        let room = self.clone();
        listener.set_error_callback(|_, error| drop(writeln!(io::stderr(), "{error}")));
        listener.set_accept_callback(backend, move |file, addr| room.welcome(file, addr))
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<SocketAddr, Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn welcome(&self, file: SslFile, addr: SocketAddr) {
        let (reads, closes) = (self.clone(), self.clone());
        file.set_callbacks(Callbacks::new().on_read(move |_: &SslFile, data| reads.hear(addr, data)).on_close(
            move |_, end| {
                // The room owned the file: it goes with this.
                closes.guests().remove(&addr);
                let why = end.err().map_or(String::new(), |error| format!(": {error}"));
                closes.tell_others(addr, format!("* {addr} has left{why}\n").as_bytes());
            },
        ));
        self.guests().insert(addr, Guest { file, line: Vec::new() });
        self.tell_others(addr, format!("* {addr} has come\n").as_bytes());
    }

    fn hear(&self, addr: SocketAddr, data: &[u8]) {
        let mut lines = Vec::new();
        {
            let mut guests = self.guests();
            let Some(guest) = guests.get_mut(&addr) else { return };
            guest.line.extend_from_slice(data);
            while let Some(end) = guest.line.iter().position(|byte| *byte == b'\n') {
                lines.push(guest.line.drain(..=end).collect::<Vec<u8>>());
            }
            if guest.line.len() > LINE {
                lines.push(std::mem::take(&mut guest.line));
            }
        }
        for line in lines {
            self.tell_others(addr, &[format!("<{addr}> ").as_bytes(), &line].concat());
        }
    }

    fn tell_others(&self, from: SocketAddr, line: &[u8]) {
        let slow: Vec<(SocketAddr, SslFile)> = {
            let guests = self.guests();
            let others = guests.iter().filter(|(addr, _)| **addr != from);
            // Queued or refused, and never waited for. Other errors come to the close callback.
            let full = others.filter(|(_, guest)| {
                guest.file.send(line).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            });
            full.map(|(addr, guest)| (*addr, guest.file.clone())).collect()
        };
        for (addr, file) in slow {
            log(format_args!("{addr} reads too slowly: {} bytes wait", file.unsent()));
            self.guests().remove(&addr);
            file.clear_close_callback();
            // Sends what it will take, and gives up on the rest when nothing moves any more.
            drop(file);
        }
    }
}

/// A line of the log. Whoever reads it may have gone: `println!` would panic then, on the loop and in everybody's stead.
fn log(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Two who talk, and one who has fallen asleep.
fn party(addr: SocketAddr, context: &Context) -> io::Result<()> {
    let enter = || -> io::Result<SslFile> { Ok(SslFile::client(TcpStream::connect(addr)?, context, "localhost")?) };
    let alice = enter()?;
    let mut heard_by_alice = BufReader::new(alice.clone()).lines();
    let sleeper = enter()?;
    heard_by_alice.next().transpose()?;
    let bob = enter()?;
    heard_by_alice.next().transpose()?;
    let bobs_chatter = thread::spawn(move || -> io::Result<()> {
        let line = [&[b'z'; 999][..], b"\n"].concat();
        // More than the sleeper's window, the system's buffers and the queue take.
        for _ in 0..16_000 {
            (&bob).write_all(&line)?;
        }
        (&bob).write_all(b"Goodbye!\n")?;
        bob.close()
    });
    let (mut lines, mut words) = (0, Vec::new());
    alice.set_read_timeout(Some(Duration::from_secs(20)))?;
    for line in heard_by_alice {
        let line = line?;
        lines += 1;
        if !line.ends_with("zzz") {
            words.push(line.clone());
        }
        if line.starts_with("* ") {
            break;
        }
    }
    bobs_chatter.join().unwrap_or_else(|_| Err(io::Error::other("Bob panicked")))?;
    log(format_args!("Alice has heard {lines} lines, at last {words:?}"));
    drop(sleeper);
    match lines {
        16_002 => Ok(()),
        _ => Err(io::Error::other("lines are missing")),
    }
}
