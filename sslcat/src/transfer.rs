//! The two directions, at the same time, and how they end.

use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;

use sslfile::{Engine, SslFile};

use crate::args::Args;
use crate::crlf::Crlf;
use crate::exit::{self, Failure};
use crate::progress::{Direction, Progress};
#[cfg(all(unix, feature = "line-editing"))]
use crate::terminal;

pub const CHUNK: usize = 64 * 1024;

/// Whatever signals come.
pub fn read_some(from: &mut (impl Read + ?Sized), buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

type Input = Box<dyn Read + Send>;
type Output = Box<dyn Write>;

fn stdin_and_stdout(_args: &Args) -> (Input, Output) {
    #[cfg(all(unix, feature = "line-editing"))]
    if let Some((lines, screen)) = terminal::open(_args) {
        return (Box::new(lines), Box::new(screen));
    }
    (Box::new(io::stdin()), Box::new(io::stdout()))
}

/// Full duplex: stdin to the peer in a thread, the peer to stdout in this one.
pub fn converse(args: &Args, file: &SslFile) -> Result<(), Failure> {
    // As no time-out of the file was set before, these are for the transfer alone.
    let timeout = args.connection.timeout;
    let set = file.set_read_timeout(timeout).and_then(|()| file.set_write_timeout(timeout));
    set.map_err(|error| Failure::tls(exit::TRANSFER, error))?;

    let progress = Arc::new(Progress::new());
    let (done, sent) = mpsc::channel();
    let sender = file.try_clone().map_err(|error| Failure::new(exit::TRANSFER, error))?;
    let (mut input, mut output) = stdin_and_stdout(args);
    {
        let (progress, crlf, shutdown) = (progress.clone(), args.transfer.crlf, !args.transfer.no_shutdown);
        thread::spawn(move || done.send(send(&sender, &mut input, Crlf::new(crlf), &progress, shutdown)));
    }

    let received = receive(file, &mut output, &progress);
    let sent = match &received {
        Ok(()) => rest_of_stdin(&sent, &progress),
        // The connection is gone, and the sender either knows or waits for stdin.
        Err(_) => sent.try_recv().unwrap_or(Ok(())),
    };
    progress.bar.abandon();
    drop(output);
    match (received, sent) {
        (Ok(()), Ok(())) => {
            // All was handed over, both ways: what could fail from here on matters to nobody.
            let _ = file.close();
            Ok(())
        }
        // It cut the connection, so that the receiver failed too.
        (_, Err(failure)) if failure.code == exit::LOCAL => Err(failure),
        (received, sent) => received.and(sent),
    }
}

/// The peer has said its last word. It may still listen, so what stdin has to give is sent; for how long, see --help.
fn rest_of_stdin(sent: &mpsc::Receiver<Result<(), Failure>>, progress: &Progress) -> Result<(), Failure> {
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        if io::stdin().is_terminal() && !progress.is_sending() {
            return Ok(());
        }
        let before = progress.bytes();
        match sent.recv_timeout(PAUSE) {
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(exit::LOCAL, "the sending thread is gone"))
            }
            Err(mpsc::RecvTimeoutError::Timeout) if progress.bytes() != before || progress.is_sending() => {}
            Err(mpsc::RecvTimeoutError::Timeout) => return Ok(()),
        }
    }
}

fn send(
    mut file: &SslFile,
    input: &mut Input,
    mut crlf: Crlf,
    progress: &Progress,
    shutdown: bool,
) -> Result<(), Failure> {
    let mut buf = vec![0; CHUNK];
    loop {
        let n = match read_some(input, &mut buf) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) => {
                // Not all was sent. A close_notify would say so; the peer shall see a cut.
                let _ = file.get_ref().shutdown(Shutdown::Both);
                return Err(Failure::local("stdin", error));
            }
        };
        progress.sending.store(true, Ordering::Relaxed);
        file.write_all(&crlf.ends(&buf[..n])).map_err(|error| Failure::tls(exit::TRANSFER, error))?;
        progress.sending.store(false, Ordering::Relaxed);
        progress.add(Direction::Sent, n);
    }
    if shutdown {
        progress.stdin_ended.store(true, Ordering::Relaxed);
        // Ends our direction only, and does not wait; `flush` does.
        let ended = file.shutdown(Shutdown::Write).and_then(|()| file.flush());
        ended.map_err(|error| Failure::tls(exit::TRANSFER, error))?;
    }
    Ok(())
}

/// `native-tls` above OpenSSL reads nothing more once we have said our end: it would take an answer for none.
fn hears_behind_its_end(file: &SslFile) -> bool {
    file.context().engine() != Engine::Native || cfg!(any(windows, target_vendor = "apple"))
}

/// The stream has ended, in whatever way, and not TLS.
fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn receive(mut file: &SslFile, output: &mut Output, progress: &Progress) -> Result<(), Failure> {
    let terminal = io::stdout().is_terminal();
    let mut buf = vec![0; CHUNK];
    loop {
        let before = progress.bytes();
        let n = match file.read(&mut buf) {
            // The peer's close_notify: an end that nobody can forge.
            Ok(0) => return Ok(()),
            Ok(n) => n,
            // Nothing came, but something went.
            Err(error) if error.kind() == io::ErrorKind::TimedOut && progress.bytes() != before => continue,
            // Neither had anything to say, and our end was said: many servers just cut then.
            Err(error) if progress.is_silent_end() && is_cut(&error) && hears_behind_its_end(file) => return Ok(()),
            Err(error) => return Err(Failure::tls(exit::TRANSFER, error)),
        };
        let mut write = || output.write_all(&buf[..n]).and_then(|()| output.flush());
        // On a terminal, text and bar must not run into each other.
        let written = if terminal { progress.bar.suspend(write) } else { write() };
        written.map_err(|error| Failure::local("stdout", error))?;
        progress.add(Direction::Received, n);
    }
}
