//! `--exec`: a process whose stdin and stdout are the connection.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sslfile::SslFile;

use crate::args::Args;
use crate::exit::{self, Failure};
use crate::transfer::{read_some, CHUNK};
use crate::{chain, leftovers};

/// From one way to end a process to the next.
const GRACE: Duration = Duration::from_secs(2);
/// How long a peer may take for its end when the process has said ours.
const LAST_WORDS: Duration = Duration::from_secs(5);

enum Event {
    /// The peer has ended, or been lost.
    Heard(Result<(), Failure>),
    /// The process has closed its stdout, and all that it wrote is sent; or it can't be sent.
    Answered(Result<(), Failure>),
}

/// Until the process has ended, and the peer has all that it wrote.
pub fn converse(args: &Args, file: &SslFile, command: &str) -> Result<(), Failure> {
    let mut process = start(args, file, command)?;
    let conversed = attend(args, file, &mut process);
    if conversed.is_err() {
        // Nobody must take for a whole what is none.
        file.abort();
    }
    process.end();
    conversed
}

fn start(args: &Args, file: &SslFile, text: &str) -> Result<Process, Failure> {
    let mut command = shell(text);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    for (name, value) in facts(args, file) {
        match value {
            Some(value) => command.env(name, value.replace('\0', "?")),
            // Not what somebody else has set.
            None => command.env_remove(name),
        };
    }
    let child = leftovers::start(&mut command);
    Ok(Process(child.map_err(|error| Failure::new(exit::LOCAL, format!("--exec: {error}")))?))
}

#[cfg(unix)]
fn shell(text: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(text);
    command
}

#[cfg(windows)]
fn shell(text: &str) -> Command {
    let mut command = Command::new("cmd");
    std::os::windows::process::CommandExt::raw_arg(command.arg("/C"), text);
    command
}

/// What the process may want to know.
fn facts(args: &Args, file: &SslFile) -> [(&'static str, Option<String>); 5] {
    let (remote, local) = (file.peer_addr().ok(), file.local_addr().ok());
    let ip = |addr: std::net::SocketAddr| addr.ip().to_canonical().to_string();
    let path = args.connection.unix.as_ref().map(|path| path.display().to_string());
    let subject = chain::of(file).first().and_then(|certificate| Some(certificate.info().ok()?.subject));
    [
        ("SSLCAT_REMOTE_ADDR", remote.map(ip)),
        ("SSLCAT_REMOTE_PORT", remote.map(|addr| addr.port().to_string())),
        ("SSLCAT_LOCAL_ADDR", local.map(ip).or(path)),
        ("SSLCAT_LOCAL_PORT", local.map(|addr| addr.port().to_string())),
        ("SSLCAT_PEER_SUBJECT", subject.map(|subject| subject.replace(char::is_control, "?"))),
    ]
}

fn attend(args: &Args, file: &SslFile, process: &mut Process) -> Result<(), Failure> {
    let moved = Arc::new(AtomicU64::new(0));
    let (events, happened) = mpsc::channel();
    let heard = {
        let (file, stdin, moved, events) = (file.clone(), process.0.stdin.take(), moved.clone(), events.clone());
        move || events.send(Event::Heard(hear(&file, stdin, &moved)))
    };
    let answered = {
        let (file, stdout, moved) = (file.clone(), process.0.stdout.take(), moved.clone());
        move || events.send(Event::Answered(answer(&file, stdout, &moved)))
    };
    let no_thread = |error| Failure::new(exit::LOCAL, format!("--exec: {error}"));
    thread::Builder::new().spawn(heard).map_err(no_thread)?;
    thread::Builder::new().spawn(answered).map_err(no_thread)?;

    let mut watch = Watch { patience: args.connection.timeout, moved, seen: 0, since: Instant::now() };
    let mut peer_has_ended = false;
    loop {
        match watch.next(&happened)? {
            Event::Heard(result) => {
                result?;
                peer_has_ended = true;
            }
            Event::Answered(result) => {
                result?;
                break;
            }
        }
    }
    // As a rule it has closed its stdout by ending. How it ended decides what the peer is told.
    let mut status = process.wait(GRACE / 2)?;
    if status.is_none() {
        say_end(file)?;
        // It goes on listening.
        while status.is_none() {
            match happened.try_recv() {
                Ok(Event::Heard(result)) => {
                    result?;
                    peer_has_ended = true;
                }
                Ok(Event::Answered(_)) | Err(_) => {}
            }
            watch.check()?;
            status = process.wait(GRACE / 10)?;
        }
    }
    let verdict = status.map_or(Ok(()), judge);
    if status.is_some_and(|status| status.code().is_none()) {
        // It did not get to its own end: what it wrote may be a part.
        return verdict;
    }
    say_end(file)?;
    if !peer_has_ended {
        // What it still sends is read away, so that the system does not cut what is on its way there.
        let _ = happened.recv_timeout(args.connection.timeout.map_or(LAST_WORDS, |timeout| timeout.min(LAST_WORDS)));
    }
    let _ = file.close();
    verdict
}

fn say_end(file: &SslFile) -> Result<(), Failure> {
    let said = file.shutdown(Shutdown::Write).and_then(|()| { file }.flush());
    said.map_err(|error| Failure::tls(exit::TRANSFER, error))
}

fn judge(status: ExitStatus) -> Result<(), Failure> {
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(exit::LOCAL, format!("--exec: {status}")))
    }
}

/// From the peer to the process. Who does not listen any more does not keep the peer from going on.
fn hear(mut file: &SslFile, mut stdin: Option<ChildStdin>, moved: &AtomicU64) -> Result<(), Failure> {
    let mut buf = vec![0; CHUNK];
    loop {
        let n = file.read(&mut buf).map_err(|error| Failure::tls(exit::TRANSFER, error))?;
        if n == 0 {
            return Ok(());
        }
        if stdin.as_mut().is_some_and(|stdin| stdin.write_all(&buf[..n]).is_err()) {
            stdin = None;
        }
        moved.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// From the process to the peer.
fn answer(mut file: &SslFile, stdout: Option<ChildStdout>, moved: &AtomicU64) -> Result<(), Failure> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    let mut buf = vec![0; CHUNK];
    loop {
        let n = match read_some(&mut stdout, &mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) => return Err(Failure::local("--exec", error)),
        };
        file.write_all(&buf[..n]).map_err(|error| Failure::tls(exit::TRANSFER, error))?;
        moved.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Whether anything moves.
struct Watch {
    patience: Option<Duration>,
    moved: Arc<AtomicU64>,
    seen: u64,
    since: Instant,
}

impl Watch {
    fn next(&mut self, happened: &mpsc::Receiver<Event>) -> Result<Event, Failure> {
        loop {
            let event = match self.patience {
                Some(patience) => happened.recv_timeout(patience.saturating_sub(self.since.elapsed())),
                None => happened.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(exit::LOCAL, "--exec: its threads are gone"))
                }
            }
        }
    }

    /// Fails if nothing has moved for too long.
    fn check(&mut self) -> Result<(), Failure> {
        let before = std::mem::replace(&mut self.seen, self.moved.load(Ordering::Relaxed));
        if before != self.seen {
            self.since = Instant::now();
        }
        match self.patience {
            Some(patience) if self.since.elapsed() >= patience => {
                Err(Failure::new(exit::TRANSFER, format!("nothing has moved for {} s", patience.as_secs_f64())))
            }
            _ => Ok(()),
        }
    }
}

/// It does not survive this, nor does it stay behind as a zombie.
struct Process(Child);

impl Process {
    /// How it has ended, at most after so long.
    fn wait(&mut self, time: Duration) -> Result<Option<ExitStatus>, Failure> {
        let deadline = Instant::now() + time;
        let mut pause = Duration::from_millis(1);
        loop {
            let status = leftovers::try_wait(&mut self.0).map_err(|error| Failure::local("--exec", error))?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Its pipes are closed, or will be with its next word: most end by that. The others are asked, and then ended.
    fn end(&mut self) {
        for by_force in [false, true] {
            if !matches!(self.wait(GRACE), Ok(None)) {
                return;
            }
            leftovers::stop(&mut self.0, by_force);
        }
        let _ = self.wait(GRACE);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        leftovers::stop(&mut self.0, true);
        let _ = self.wait(GRACE);
    }
}
