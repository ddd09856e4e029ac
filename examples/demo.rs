//! What `sslfile` promises, shown on loopback: `cargo run --release --example demo`.
//!
//! A server and its clients in one process, with a certificate made on the spot. For each TLS library that was built:
//! what was negotiated, one connection flooded both ways at once, a time-out that fires on time and harms nothing, and a
//! cut that is not taken for an end. The exit code is 1 if anything is not as promised.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::process::{exit, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{
    Certificate, Context, Duplex, Engine, Error, ErrorKind, Handshake, Identity, SslFile, SslListener, Version,
};

/// The name in the certificate, which the client insists on.
const NAME: &str = "localhost";

fn main() -> ExitCode {
    // It takes a few seconds. To hang would be a broken promise as well.
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(60));
        show("  FAILED: not done after a minute");
        exit(1);
    });
    for engine in Engine::available() {
        show(format_args!("{engine:?} engine"));
        if let Err(error) = demonstrate(engine) {
            show(format_args!("  FAILED: {error}"));
            return ExitCode::FAILURE;
        }
    }
    show("All as promised.");
    ExitCode::SUCCESS
}

fn demonstrate(engine: Engine) -> io::Result<()> {
    let lab = Lab::new(engine)?;
    negotiate(&lab)?;
    flood(&lab)?;
    time_out(&lab)?;
    truncate(&lab)
}

/// A server on loopback, and what a client needs to trust it.
struct Lab {
    certificate: Certificate,
    server: Context,
    client: Context,
    listener: SslListener,
}

impl Lab {
    fn new(engine: Engine) -> io::Result<Lab> {
        let made = rcgen::generate_simple_self_signed([NAME.to_string()]).map_err(io::Error::other)?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let certificate = Certificate::from_pem(chain.as_bytes())?;

        // Contexts are made once and shared by any number of connections.
        let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes())?;
        let server = Context::builder().engine(engine).identity(identity).build()?;
        let client = Context::builder().engine(engine).system_roots(false).add_root(certificate.clone()).build()?;
        let listener = SslListener::bind("127.0.0.1:0", &server)?;
        Ok(Lab { certificate, server, client, listener })
    }

    /// Both ends of a new connection: the client's and the server's. The handshake is left to their first use; that is why one
    /// thread can make both.
    fn connection(&self) -> io::Result<(SslFile, SslFile)> {
        let options = SslFile::options().client(NAME).handshake(Handshake::Lazy);
        let client = options.connect(self.listener.local_addr()?, &self.client)?;
        let (server, _) = self.listener.accept()?;
        Ok((client, server))
    }
}

fn negotiate(lab: &Lab) -> io::Result<()> {
    let (client, server) = lab.connection()?;
    together(|| client.handshake(), || server.handshake())?;

    promise(client.peer_certificate().as_ref() == Some(&lab.certificate), "the certificate is the one we made")?;
    // `None` where the library does not tell: native-tls has neither the version nor the cipher.
    let version = client.version();
    promise(version.is_none_or(|v| v >= Version::Tls1_2), "TLS 1.2 at least")?;
    let spoken = match (version, client.cipher()) {
        (Some(version), Some(cipher)) => format!("{version}, {cipher}"),
        _ => "TLS, the library does not tell which".to_string(),
    };
    say("negotiated", format!("{spoken}; certificate trusted, and for {NAME:?}"));
    Ok(())
}

/// Each end writes in one thread and reads in another, for a second, on one connection.
fn flood(lab: &Lab) -> io::Result<()> {
    const FOR: Duration = Duration::from_secs(1);
    const BLOCK: usize = 64 * 1024;
    // Twice the block, so that a block's worth of expected bytes can start anywhere in the first half.
    let pattern: Vec<u8> = (0..2 * BLOCK).map(|i| (i % BLOCK % 251) as u8).collect();

    // Reading and writing take `&SslFile`: the threads share it, and neither waits for the other.
    let send = |mut file: &SslFile| -> io::Result<u64> {
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < FOR {
            file.write_all(&pattern[..BLOCK])?;
            sent += BLOCK as u64;
        }
        // Says close_notify. Our reading goes on, as the peer's writing does.
        file.shutdown(Shutdown::Write)?;
        file.flush()?;
        Ok(sent)
    };
    let receive = |mut file: &SslFile| -> io::Result<(u64, Duration)> {
        let start = Instant::now();
        let mut received = 0;
        let mut buf = vec![0; BLOCK];
        loop {
            let n = file.read(&mut buf)?;
            if n == 0 {
                // The peer's close_notify: it has said all it had to say, and nobody can forge that.
                return Ok((received, start.elapsed()));
            }
            let at = received as usize % BLOCK;
            promise(buf[..n] == pattern[at..at + n], "bytes arrive as they were sent")?;
            received += n as u64;
        }
    };

    let (client, server) = lab.connection()?;
    let ((up_sent, (down_received, down_time)), (down_sent, (up_received, up_time))) = together(
        || together(|| send(&client), || receive(&client)),
        || together(|| send(&server), || receive(&server)),
    )?;

    promise(up_received == up_sent && down_received == down_sent, "every byte arrives, once")?;
    let rate = |bytes: u64, time: Duration| bytes as f64 / time.as_secs_f64() / f64::from(1 << 20);
    say(
        "both ways",
        format!(
            "{:.0} MiB/s up and {:.0} MiB/s down at once on one connection; {} MiB, all of it right",
            rate(up_received, up_time),
            rate(down_received, down_time),
            (up_received + down_received) >> 20,
        ),
    );
    Ok(())
}

/// The server's bytes come in drips. A time-out of the socket would start anew with each; ours bounds the whole call.
fn time_out(lab: &Lab) -> io::Result<()> {
    const DRIP: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_millis(350);
    const MESSAGE: &[u8] = b"late but whole";

    /// The writing half of a stream which, while `slow` is set, takes one byte at a time.
    struct Dripping {
        tcp: TcpStream,
        slow: Arc<AtomicBool>,
    }
    impl Write for Dripping {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if !self.slow.load(Ordering::Relaxed) || buf.is_empty() {
                return self.tcp.write(buf);
            }
            thread::sleep(DRIP);
            self.tcp.write(&buf[..1])
        }
        fn flush(&mut self) -> io::Result<()> {
            self.tcp.flush()
        }
    }

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let options = SslFile::options().client(NAME).handshake(Handshake::Lazy);
    let mut client = options.connect(listener.local_addr()?, &lab.client)?;
    let (tcp, _) = listener.accept()?;
    let slow = Arc::new(AtomicBool::new(false));
    // Any two halves make a stream that can be wrapped.
    let stream = Duplex::new(tcp.try_clone()?, Dripping { tcp, slow: slow.clone() });

    let serve = || -> io::Result<()> {
        let mut server = SslFile::server(stream, &lab.server)?;
        server.write_all(b"!")?;
        slow.store(true, Ordering::Relaxed);
        server.write_all(MESSAGE)?;
        server.close()
    };
    let read = || -> io::Result<(io::Result<usize>, Duration, Vec<u8>)> {
        client.read_exact(&mut [0])?;
        client.set_read_timeout(Some(PATIENCE))?;
        let start = Instant::now();
        let result = client.read(&mut [0; MESSAGE.len()]);
        let waited = start.elapsed();

        // The call has ended in the middle of a record. The connection has not: the rest comes, and nothing was lost.
        slow.store(false, Ordering::Relaxed);
        client.set_read_timeout(None)?;
        let mut message = Vec::new();
        client.read_to_end(&mut message)?;
        client.close()?;
        Ok((result, waited, message))
    };
    let ((), (result, waited, message)) = together(serve, read)?;

    let timed_out = matches!(&result, Err(error) if error.kind() == io::ErrorKind::TimedOut);
    promise(timed_out, "a read that gets no whole record times out")?;
    promise(waited >= PATIENCE, "a time-out is never early")?;
    promise(message == MESSAGE, "after a time-out the connection works on")?;
    say(
        "time-out",
        format!(
            "given {} ms, a read gave up after {} ms, though a byte came every {} ms; the next read {:?}",
            PATIENCE.as_millis(),
            waited.as_millis(),
            DRIP.as_millis(),
            String::from_utf8_lossy(&message)
        ),
    );
    Ok(())
}

/// Somebody ends the TCP connection in mid-conversation. That is no end of TLS, and must not look like one.
fn truncate(lab: &Lab) -> io::Result<()> {
    const SENT: usize = 1000;
    let (mut client, mut server) = lab.connection()?;
    let cut = || -> io::Result<()> {
        server.write_all(&[b'x'; SENT])?;
        server.get_ref().shutdown(Shutdown::Write)
    };
    let mut data = Vec::new();
    let ((), result) = together(cut, || Ok(client.read_to_end(&mut data)))?;

    promise(data.len() == SENT, "what arrived before the cut is delivered")?;
    let Err(error) = result else { return promise(false, "a cut is not an end") };
    promise(error.kind() == io::ErrorKind::BrokenPipe, "a cut is a broken pipe")?;
    let kind = Error::of(&error).map(Error::kind);
    promise(kind == Some(ErrorKind::Truncated), "its cause says truncated")?;
    say(
        "truncation",
        format!("{SENT} bytes, then {:?} ({kind:?}): {error}", error.kind(), kind = ErrorKind::Truncated),
    );
    Ok(())
}

/// Runs `a` and `b` at the same time, each in a thread.
fn together<A: Send, B: Send>(
    a: impl FnOnce() -> io::Result<A> + Send,
    b: impl FnOnce() -> io::Result<B> + Send,
) -> io::Result<(A, B)> {
    thread::scope(|scope| {
        let (a, b) = (scope.spawn(a), scope.spawn(b));
        let a = a.join().unwrap_or_else(|panic| resume_unwind(panic));
        let b = b.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((a?, b?))
    })
}

fn promise(kept: bool, what: &str) -> io::Result<()> {
    if kept {
        return Ok(());
    }
    Err(io::Error::other(format!("promise not kept: {what}")))
}

fn say(what: &str, text: String) {
    show(format_args!("  {what:<12}{text}"));
}

/// Whoever reads it may have gone: `println!` would panic then.
fn show(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
