//! A WebSocket over TLS on two threads, with `tungstenite`: one is blocked in `read`, the other sends when it likes.
//!
//! A `WebSocket` reads and writes by `&mut`, and its `read` answers pings and closes by itself. So there are two of them on one
//! file: one that only reads, and sends nothing but such answers, and one that only writes. What one call writes to an `SslFile` is in one
//! piece at the peer, and what is sent beside a long write goes behind it without waiting: no lock is needed, and no frame ends up
//! inside another.
//!
//! ```text
//! cargo run -p sslfile-cookbook --example websocket
//! ```

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;

use sslfile::{Certificate, Context, Identity, SslFile, SslListener};
use tungstenite::error::Error;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Message, WebSocket};

/// What the one that reads has of the file, and the one that writes. The file must have no write time-out: half a frame is none.
pub struct Reader(Arc<Shared>);
pub struct Writer(Arc<Shared>);

struct Shared {
    file: SslFile,
    /// We have said goodbye, and must say nothing after it (RFC 6455, section 5.5.1).
    closing: AtomicBool,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.0.file).read(buf)
    }
}

impl Write for Reader {
    /// Never waits. What is not taken, as the peer reads nothing, tungstenite keeps and tries again.
    fn write(&mut self, answer: &[u8]) -> io::Result<usize> {
        if !self.0.closing.load(Ordering::Relaxed) {
            self.0.file.send(answer)?;
        }
        Ok(answer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Writer {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Write for Writer {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        (&self.0.file).write(frames)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.0.file).flush()
    }
}

impl Writer {
    /// With a frame that says so, which the peer answers: the one that reads goes on until it has that.
    pub fn close(socket: &mut WebSocket<Writer>) -> Result<(), Error> {
        socket.get_ref().0.closing.store(true, Ordering::Relaxed);
        socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))?;
        socket.flush()
    }
}

pub type Halves = (WebSocket<Reader>, WebSocket<Writer>);

/// The WebSocket's handshake, as the client. What comes right behind the server's answer stays with the one that reads.
pub fn client(file: SslFile, url: &str) -> Result<Halves, Error> {
    let shared = Arc::new(Shared { file, closing: AtomicBool::new(false) });
    let (reader, _response) = tungstenite::client(url, Reader(shared.clone())).map_err(failure)?;
    Ok((reader, WebSocket::from_raw_socket(Writer(shared), Role::Client, None)))
}

/// The same, as the server.
pub fn accept(file: SslFile) -> Result<Halves, Error> {
    let shared = Arc::new(Shared { file, closing: AtomicBool::new(false) });
    let reader = tungstenite::accept(Reader(shared.clone())).map_err(failure)?;
    Ok((reader, WebSocket::from_raw_socket(Writer(shared), Role::Server, None)))
}

fn failure<H: tungstenite::handshake::HandshakeRole>(error: HandshakeError<H>) -> Error {
    match error {
        HandshakeError::Failure(error) => error,
        // Only on a file that does not block.
        HandshakeError::Interrupted(_) => Error::Io(io::ErrorKind::WouldBlock.into()),
    }
}

/// Sends back each message, and says "tick" when it has not had to for a while.
pub fn serve(file: SslFile, tick: Duration) -> Result<(), Error> {
    let (mut reader, mut writer) = accept(file.clone())?;
    // A client that does not read is not read from, once so many messages wait for it.
    let (say, to_say) = mpsc::sync_channel::<Message>(4);
    let speaking = thread::spawn(move || -> Result<(), Error> {
        loop {
            match to_say.recv_timeout(tick) {
                Ok(message) => writer.send(message)?,
                Err(mpsc::RecvTimeoutError::Timeout) => writer.send("tick".into())?,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    });
    let end = loop {
        match reader.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                if say.send(message).is_err() {
                    break Ok(()); // why it can't speak, the other thread says
                }
            }
            Ok(_) => {} // has been answered
            Err(Error::ConnectionClosed) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if end.is_err() {
        file.abort(); // the other thread may be in the middle of a long message
    }
    drop(say);
    let spoken = speaking.join().expect("the writer does not panic");
    end?;
    match spoken {
        // The client has said goodbye before it was told this.
        Ok(()) | Err(Error::Io(_)) => Ok(file.close()?),
        Err(error) => Err(error),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server = Context::server(Identity::from_pem(chain.as_bytes(), key.as_bytes())?)?;
    let root = Certificate::from_pem(chain.as_bytes())?;
    let context = Context::builder().system_roots(false).add_root(root).build()?;

    let listener = SslListener::bind("127.0.0.1:0", &server)?;
    let addr = listener.local_addr()?;
    let serving = thread::spawn(move || serve(listener.accept()?.0, Duration::from_millis(100)));

    let file = SslFile::options().client("localhost").connect(addr, &context)?;
    let (mut reader, mut writer) = client(file, "wss://localhost/")?;
    let speaking = thread::spawn(move || -> Result<(), Error> {
        for word in ["one", "two", "three"] {
            thread::sleep(Duration::from_millis(250));
            writer.send(word.into())?;
        }
        thread::sleep(Duration::from_millis(250));
        Writer::close(&mut writer)
    });
    loop {
        match reader.read() {
            Ok(message) => println!("{message:?}"),
            Err(Error::ConnectionClosed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    speaking.join().expect("the writer does not panic")?;
    serving.join().expect("the server does not panic")?;
    Ok(())
}
