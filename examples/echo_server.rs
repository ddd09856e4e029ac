//! An echo server on one event loop, with callbacks.
//!
//! ```text
//! echo_server                                            shows itself: three clients, then the end
//! echo_server 127.0.0.1:8443 --cert server.pem           serves until it is killed
//! openssl s_client -quiet -connect 127.0.0.1:8443        a client for it
//! ```

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;

use clap::{Parser, ValueEnum};
use sslfile::{Backend, Callbacks, Certificate, Context, Engine, Identity, SslFile, SslListener};

/// What a client may leave unread before we read no more from it.
const HIGH_WATER: usize = 64 * 1024;

/// Send back what comes, over TLS.
#[derive(Parser)]
struct Args {
    /// Where to listen. Without it: serves three clients of its own, and ends.
    #[arg(value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Our certificate chain and, unless --key is given, the private key, PEM. Without it one is made on the spot.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The private key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The TLS library.
    #[arg(long)]
    engine: Option<Library>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Library {
    Native,
    Openssl,
    Rustls,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let (identity, root) = match &args.cert {
        Some(cert) => (Identity::from_pem_files(cert, args.key.as_ref().unwrap_or(cert))?, None),
        None => {
            let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).map_err(io::Error::other)?;
            let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            let root = Certificate::from_pem(chain.as_bytes())?;
            (Identity::from_pem(chain.as_bytes(), key.as_bytes())?, Some(root))
        }
    };
    let listen = args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut context = Context::builder().identity(identity);
    if let Some(library) = args.engine {
        context = context.engine(match library {
            Library::Native => Engine::Native,
            Library::Openssl => Engine::OpenSsl,
            Library::Rustls => Engine::Rustls,
        });
    }
    let listener = SslListener::bind(listen, &context.build()?)?;
    let backend = Backend::new()?;
    serve(&listener, &backend)?;
    let addr = listener.local_addr()?;
    log(format_args!("listening on {addr}"));

    let (None, Some(root)) = (args.listen, root) else { return backend.run() };
    let stopper = backend.clone();
    let clients = thread::spawn(move || {
        let result = (0..3).try_for_each(|number| try_out(addr, &root, number));
        stopper.stop();
        result
    });
    backend.run()?;
    clients.join().unwrap_or_else(|_| Err(io::Error::other("the clients panicked")))
}

/// All there is to the server.
fn serve(listener: &SslListener, backend: &Backend) -> io::Result<()> {
    listener.set_error_callback(|_, error| drop(writeln!(io::stderr(), "{error}")));
    listener.set_accept_callback(backend, |file, addr| {
        log(format_args!("{addr}: connected, {}", file.cipher().unwrap_or_default()));
        file.set_callbacks(
            Callbacks::new()
                .on_read(|file: &SslFile, data| match file.send(data) {
                    // Whoever does not read is not read from, so that nothing piles up here.
                    Ok(()) => file.pause_reading(file.unsent() > HIGH_WATER),
                    // The close callback tells why.
                    Err(_) => drop(file.close()),
                })
                .on_write(|file| file.pause_reading(false))
                .on_close(move |_, end| match end {
                    Ok(()) => log(format_args!("{addr}: closed")),
                    Err(error) => log(error),
                }),
        );
        // From here on the backend owns it.
        file.keep();
    })
}

/// A line of the log. Whoever reads it may have gone: `println!` would panic then, on the loop and in everybody's stead.
fn log(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A client that sends a megabyte and wants it back.
fn try_out(addr: SocketAddr, root: &Certificate, number: u8) -> io::Result<()> {
    let context = Context::builder().system_roots(false).add_root(root.clone()).build()?;
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
    log(format_args!("client {number}: {} bytes came back, {verdict}", got.len()));
    if got == sent {
        Ok(())
    } else {
        Err(io::Error::other("the echo differs"))
    }
}
