//! TLS for crates that take nothing but a socket: here `tiny_http`, and with it `rouille`, as a server.
//!
//! The crate gets a plain `UnixStream`, whose other end is joined to an `SslFile` by two threads. A Unix socket can say "that was
//! all", but not "the rest is missing": who needs to know looks at what `join` has returned, or speaks a protocol that says how much is to
//! come, as HTTP does.
//!
//! ```text
//! cargo run -p sslfile-cookbook --example unix_bridge
//! ```

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    unix::main()
}

#[cfg(unix)]
pub mod unix {
    use std::io::{self, Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant};

    use sslfile::{Certificate, Context, Identity, SslFile, SslListener};

    /// When the crate has said its last, the peer has so long for what it still has to say.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A plain socket in place of the file, and how the connection ended, when it has.
    pub fn bridge(file: SslFile) -> io::Result<(UnixStream, JoinHandle<io::Result<()>>)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((theirs, thread::spawn(move || join(&file, &ours))))
    }

    /// Carries bytes both ways until both directions have ended. Each waits for its own receiver, and not for the other.
    pub fn join(file: &SslFile, socket: &UnixStream) -> io::Result<()> {
        file.handshake()?;
        thread::scope(|scope| {
            let inward = scope.spawn(|| {
                let copied = copy(file, socket);
                let _ = socket.shutdown(Shutdown::Write);
                copied
            });
            // A socket that was closed with unread input gives an error, and the peer must not take what it has for all.
            let outward = copy(socket, file);
            match &outward {
                Ok(()) => file.shutdown(Shutdown::Write)?,
                Err(_) => file.abort(),
            }
            // There is no telling whether the crate still reads. The other thread waits already, and a deadline is for that one, too.
            file.set_read_deadline(Some(Instant::now() + PATIENCE))?;
            let inward = inward.join().expect("copying does not panic");
            outward?;
            match inward {
                // Nobody was there any more to take it.
                Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::TimedOut) && file.is_open() => {
                }
                other => other?,
            }
            file.close()
        })
    }

    fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
        let mut buf = [0; 64 * 1024];
        loop {
            match from.read(&mut buf)? {
                0 => return Ok(()),
                n => to.write_all(&buf[..n])?,
            }
        }
    }

    /// Serves TLS by whoever listens at this path.
    pub fn forward(listener: &SslListener, path: &Path) -> io::Result<()> {
        for file in listener.incoming() {
            let (file, path) = (file?, path.to_owned());
            thread::spawn(move || {
                if let Err(error) = UnixStream::connect(&path).and_then(|socket| join(&file, &socket)) {
                    let _ = writeln!(io::stderr(), "{error}");
                }
            });
        }
        Ok(())
    }

    /// In a folder that nobody else can enter. What takes only an address can listen on 127.0.0.1 instead, as `rouille` must; then whoever is
    /// on the machine can come without TLS.
    pub fn start_http(path: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let server = tiny_http::Server::from_listener(UnixListener::bind(path)?, None)?;
        thread::spawn(move || {
            for mut request in server.incoming_requests() {
                let mut body = format!("You asked for {}\n", request.url()).into_bytes();
                let answered = match request.as_reader().read_to_end(&mut body) {
                    Ok(_) => request.respond(tiny_http::Response::from_data(body)),
                    Err(error) => Err(error),
                };
                if let Err(error) = answered {
                    let _ = writeln!(io::stderr(), "{error}");
                }
            }
        });
        Ok(())
    }

    pub fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let server = Context::server(Identity::from_pem(chain.as_bytes(), key.as_bytes())?)?;
        let root = Certificate::from_pem(chain.as_bytes())?;
        let context = Context::builder().system_roots(false).add_root(root).build()?;

        let folder = tempfile::tempdir()?;
        let path = folder.path().join("http");
        start_http(&path)?;
        let listener = SslListener::bind("127.0.0.1:0", &server)?;
        let addr = listener.local_addr()?;
        thread::spawn(move || forward(&listener, &path));

        // The client's side of it: something that speaks to a `UnixStream` only.
        let (mut socket, ended) = bridge(SslFile::options().client("localhost").connect(addr, &context)?)?;
        socket.write_all(
            b"POST /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        println!("{answer}");
        drop(socket);
        ended.join().expect("the bridge does not panic")?;
        Ok(())
    }
}
