//! What the promises are shown over: sockets, a child's pipes, memory, any `Read + Write`, and TLS itself.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(unix)]
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use sslfile::{Duplex, Engine, ReadWrite, SslFile, Stream};

use crate::common;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Blocking,
    Nonblocking,
}

/// The two directions of one end, for whoever speaks on it without our crate. Always blocking when it comes from `Wire::raw`.
pub struct Raw {
    pub reader: Box<dyn Read + Send>,
    pub writer: Box<dyn Write + Send>,
}

pub trait Wire: 'static {
    type End: Stream;
    const NAME: &'static str;
    /// There is a descriptor: time-outs, and switching between blocking and not.
    const DESCRIPTOR: bool;
    /// A read that blocks leaves the other direction alone.
    const DUPLEX: bool;

    /// Two ends for two `SslFile`s. Where there is no descriptor, `mode` is what the ends themselves do.
    fn pair(engine: Engine, mode: Mode) -> (Self::End, Self::End);
    /// One end for an `SslFile`, and the bare other end.
    fn raw(engine: Engine, mode: Mode) -> (Self::End, Raw);
    /// An end that came back, to be used bare.
    fn halves(end: Self::End) -> Raw;
}

pub struct Tcp;

impl Wire for Tcp {
    type End = TcpStream;
    const NAME: &'static str = "TcpStream";
    const DESCRIPTOR: bool = true;
    const DUPLEX: bool = true;

    fn pair(_: Engine, _: Mode) -> (TcpStream, TcpStream) {
        common::tcp_pair()
    }
    fn raw(engine: Engine, mode: Mode) -> (TcpStream, Raw) {
        let (end, other) = Self::pair(engine, mode);
        (end, Self::halves(other))
    }
    fn halves(end: TcpStream) -> Raw {
        Raw { reader: Box::new(end.try_clone().expect("clone")), writer: Box::new(end) }
    }
}

#[cfg(unix)]
pub struct Unix;

#[cfg(unix)]
impl Wire for Unix {
    type End = UnixStream;
    const NAME: &'static str = "UnixStream";
    const DESCRIPTOR: bool = true;
    const DUPLEX: bool = true;

    fn pair(_: Engine, _: Mode) -> (UnixStream, UnixStream) {
        UnixStream::pair().expect("socket pair")
    }
    fn raw(engine: Engine, mode: Mode) -> (UnixStream, Raw) {
        let (end, other) = Self::pair(engine, mode);
        (end, Self::halves(other))
    }
    fn halves(end: UnixStream) -> Raw {
        Raw { reader: Box::new(end.try_clone().expect("clone")), writer: Box::new(end) }
    }
}

/// Two `cat` processes, one per direction: each end is the output of one and the input of the other.
#[cfg(unix)]
pub struct Pipes;

#[cfg(unix)]
fn cat() -> (ChildStdin, ChildStdout) {
    let mut child: Child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
    let ends = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    // It ends with its pipes; somebody has to fetch what is left of it.
    std::thread::spawn(move || child.wait());
    ends
}

#[cfg(unix)]
impl Wire for Pipes {
    type End = Duplex<ChildStdout, ChildStdin>;
    const NAME: &'static str = "Duplex<ChildStdout, ChildStdin>";
    const DESCRIPTOR: bool = true;
    const DUPLEX: bool = true;

    fn pair(_: Engine, _: Mode) -> (Self::End, Self::End) {
        let (there_in, there_out) = cat();
        let (back_in, back_out) = cat();
        (Duplex::new(back_out, there_in), Duplex::new(there_out, back_in))
    }
    fn raw(engine: Engine, mode: Mode) -> (Self::End, Raw) {
        let (end, other) = Self::pair(engine, mode);
        (end, Self::halves(other))
    }
    fn halves(end: Self::End) -> Raw {
        let (reader, writer) = end.into_inner();
        Raw { reader: Box::new(reader), writer: Box::new(writer) }
    }
}

/// Two bounded pipes in memory: no descriptor anywhere.
pub struct Memory;

/// More than one write of the tests, so that they get going before they are stuck.
const PIPE: usize = 256 << 10;

#[derive(Default)]
struct PipeState {
    bytes: VecDeque<u8>,
    no_reader: bool,
    no_writer: bool,
}

type Shared = Arc<(Mutex<PipeState>, Condvar)>;

pub struct MemoryReader(Shared, Mode);
pub struct MemoryWriter(Shared, Mode);

fn memory_pipe(reader: Mode, writer: Mode) -> (MemoryReader, MemoryWriter) {
    let pipe = Shared::default();
    (MemoryReader(pipe.clone(), reader), MemoryWriter(pipe, writer))
}

impl Read for MemoryReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (state, changed) = &*self.0;
        let mut state = state.lock().expect("pipe");
        while state.bytes.is_empty() {
            if state.no_writer {
                return Ok(0);
            }
            if self.1 == Mode::Nonblocking {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            state = changed.wait(state).expect("pipe");
        }
        let n = state.bytes.read(buf)?;
        changed.notify_all();
        Ok(n)
    }
}

impl Write for MemoryWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let (state, changed) = &*self.0;
        let mut state = state.lock().expect("pipe");
        loop {
            if state.no_reader {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let room = PIPE - state.bytes.len();
            if room > 0 || buf.is_empty() {
                let n = room.min(buf.len());
                state.bytes.extend(&buf[..n]);
                changed.notify_all();
                return Ok(n);
            }
            if self.1 == Mode::Nonblocking {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            state = changed.wait(state).expect("pipe");
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        self.0 .0.lock().expect("pipe").no_reader = true;
        self.0 .1.notify_all();
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        self.0 .0.lock().expect("pipe").no_writer = true;
        self.0 .1.notify_all();
    }
}

fn memory(one: Mode, other: Mode) -> (<Memory as Wire>::End, <Memory as Wire>::End) {
    let (there_out, there_in) = memory_pipe(other, one);
    let (back_out, back_in) = memory_pipe(one, other);
    (Duplex::new(back_out, there_in), Duplex::new(there_out, back_in))
}

impl Wire for Memory {
    type End = Duplex<MemoryReader, MemoryWriter>;
    const NAME: &'static str = "Duplex over memory";
    const DESCRIPTOR: bool = false;
    const DUPLEX: bool = true;

    fn pair(_: Engine, mode: Mode) -> (Self::End, Self::End) {
        memory(mode, mode)
    }
    fn raw(_: Engine, mode: Mode) -> (Self::End, Raw) {
        let (end, other) = memory(mode, Mode::Blocking);
        (end, Self::halves(other))
    }
    fn halves(end: Self::End) -> Raw {
        let (reader, writer) = end.into_inner();
        Raw { reader: Box::new(reader), writer: Box::new(writer) }
    }
}

/// A `TcpStream` that the crate knows as a mere `Read + Write`: one lock, no descriptor.
pub struct AnyReadWrite;

impl AnyReadWrite {
    fn end(stream: TcpStream, mode: Mode) -> ReadWrite<TcpStream> {
        stream.set_nonblocking(mode == Mode::Nonblocking).expect("mode");
        ReadWrite::new(stream)
    }
}

impl Wire for AnyReadWrite {
    type End = ReadWrite<TcpStream>;
    const NAME: &'static str = "ReadWrite<TcpStream>";
    const DESCRIPTOR: bool = false;
    const DUPLEX: bool = false;

    fn pair(_: Engine, mode: Mode) -> (Self::End, Self::End) {
        let (one, other) = common::tcp_pair();
        (Self::end(one, mode), Self::end(other, mode))
    }
    fn raw(_: Engine, mode: Mode) -> (Self::End, Raw) {
        let (one, other) = common::tcp_pair();
        (Self::end(one, mode), Tcp::halves(other))
    }
    fn halves(end: Self::End) -> Raw {
        Tcp::halves(end.into_inner())
    }
}

/// TLS in TLS: the ends are themselves `SslFile`s over TCP.
pub struct Nested;

impl Wire for Nested {
    type End = SslFile;
    const NAME: &'static str = "SslFile<TcpStream>";
    const DESCRIPTOR: bool = true;
    const DUPLEX: bool = true;

    fn pair(engine: Engine, _: Mode) -> (SslFile, SslFile) {
        common::tls_pair(engine)
    }
    fn raw(engine: Engine, mode: Mode) -> (SslFile, Raw) {
        let (end, other) = Self::pair(engine, mode);
        (end, Self::halves(other))
    }
    fn halves(end: SslFile) -> Raw {
        Raw { reader: Box::new(end.clone()), writer: Box::new(end) }
    }
}
