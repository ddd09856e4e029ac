//! Fails the k-th call on the stream, for every k until nothing is left to fail, in every way a stream can fail: through
//! handshake, transfer, close, clean close and STARTTLS. The far end is a `Connection` in the same thread.

use crate::common;
use crate::wire;

use std::io::{self, BufWriter, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use common::{kind_of, pattern, within, NAME};
use sslfile::{Duplex, ErrorKind, Handshake, OpenError, ReadWrite, SslFile, State, Stream};
use wire::far::{Alive, Call, Ends, Fault, Near, Script, When, Wire, BYE, GO, HELLO, QUIT, START};
use wire::{pairings, Pairing};

const LIMIT: Duration = Duration::from_secs(300);
/// A message fits a call, fills several, fills several records.
const MESSAGES: [usize; 3] = [1, 700, 20_000];
/// Many times what any step needs; more is a hang.
const PATIENCE: usize = 10_000;

/// What the session is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plot {
    Close,
    HalfClose,
    Drop,
    CloseClean,
    StartTls,
}

const PLOTS: [Plot; 5] = [Plot::Close, Plot::HalfClose, Plot::Drop, Plot::CloseClean, Plot::StartTls];

#[derive(Clone, Copy)]
struct Case {
    pairing: &'static Pairing,
    server: bool,
    nonblocking: bool,
    plot: Plot,
    fault: Fault,
    when: When,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = if self.server { "server" } else { "client" };
        let mode = if self.nonblocking { "non-blocking" } else { "blocking" };
        let name = self.pairing.name();
        write!(f, "{role}, {name}, {mode}, {:?}, {:?} {:?}", self.plot, self.fault, self.when)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Plain,
    Open,
    Handshake,
    Write,
    Flush,
    Read,
    Shutdown,
    End,
    Close,
    Release,
    PlainAgain,
}

/// What the near end did, as far as it got.
#[derive(Default)]
struct Journal {
    accepted: Vec<u8>,
    /// Given to a write that failed for good: some of it may have gone out.
    offered: Vec<u8>,
    got: Vec<u8>,
    /// Calls on the stream before the file had it.
    plain_calls: usize,
    done: bool,
}

type Outcome = Result<(), (Step, io::Error)>;

impl Case {
    fn script(&self) -> Script {
        Script {
            is_client: self.server,
            starttls: self.plot == Plot::StartTls,
            ends: match self.plot {
                Plot::CloseClean | Plot::StartTls => Ends::Tls,
                _ => Ends::Stream,
            },
            nonblocking: self.nonblocking,
            fault: self.fault,
            when: self.when,
        }
    }

    fn wire(&self) -> (Wire, [Near; 2], Alive) {
        Wire::new(self.pairing.connection(!self.server), self.script())
    }

    fn open<S: Stream>(&self, stream: S, how: Handshake) -> Result<SslFile<S>, OpenError<S>> {
        let options = SslFile::options().nonblocking(self.nonblocking).handshake(how);
        if self.server {
            options.server().open(stream, &self.pairing.server)
        } else {
            options.client(NAME).open(stream, &self.pairing.client)
        }
    }

    /// Repeats `op` after errors that pass; these must be the one that was made, or honest `WouldBlock`.
    fn persist<T>(&self, step: Step, mut op: impl FnMut() -> io::Result<T>) -> Result<T, (Step, io::Error)> {
        for _ in 0..PATIENCE {
            let error = match op() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let passing = match error.kind() {
                io::ErrorKind::WouldBlock => self.nonblocking || self.fault == Fault::WouldBlock,
                io::ErrorKind::TimedOut => self.fault == Fault::TimedOut,
                io::ErrorKind::Interrupted => self.fault == Fault::Interrupted,
                _ => false,
            };
            if !passing {
                return Err((step, error));
            }
        }
        panic!("{self}: HANG in {step:?}");
    }

    fn write_all(&self, step: Step, to: &mut impl Write, mut data: &[u8], log: &mut Vec<u8>) -> Outcome {
        while !data.is_empty() {
            let n = self.persist(step, || to.write(data))?;
            assert!(n <= data.len(), "{self}: {n} of {} bytes", data.len());
            if n == 0 {
                return Err((step, io::ErrorKind::WriteZero.into()));
            }
            log.extend_from_slice(&data[..n]);
            data = &data[n..];
        }
        Ok(())
    }

    fn read_exact(&self, step: Step, from: &mut impl Read, count: usize, log: &mut Vec<u8>) -> Outcome {
        let whole = log.len() + count;
        let mut buf = [0; 5_000];
        while log.len() < whole {
            let room = buf.len().min(whole - log.len());
            match self.persist(step, || from.read(&mut buf[..room]))? {
                0 => return Err((step, io::ErrorKind::UnexpectedEof.into())),
                n => log.extend_from_slice(&buf[..n]),
            }
        }
        Ok(())
    }

    /// Plain text.
    fn say(&self, step: Step, stream: &mut impl Write, line: &[u8]) -> Outcome {
        self.write_all(step, stream, line, &mut Vec::new())?;
        self.persist(step, || stream.flush())
    }

    /// The plain lines in front of STARTTLS.
    fn dialogue(&self, stream: &mut (impl Read + Write)) -> Outcome {
        if self.server {
            let mut heard = Vec::new();
            self.read_exact(Step::Plain, stream, START.len(), &mut heard)?;
            assert_eq!(heard, START, "{self}");
            self.say(Step::Plain, stream, GO)
        } else {
            let mut heard = Vec::new();
            self.say(Step::Plain, stream, START)?;
            self.read_exact(Step::Plain, stream, GO.len(), &mut heard)?;
            assert_eq!(heard, GO, "{self}");
            Ok(())
        }
    }

    /// Handshake and messages, each echoed; then the end, but for what differs by plot.
    fn talk<S: Stream>(&self, file: &SslFile<S>, wire: &Wire, journal: &mut Journal) -> Outcome {
        self.persist(Step::Handshake, || file.handshake())?;
        assert!(file.is_handshake_done(), "{self}");
        let data = pattern(7, MESSAGES.iter().sum());
        for len in MESSAGES {
            let from = journal.accepted.len();
            let written = self.write_all(Step::Write, &mut &*file, &data[from..from + len], &mut journal.accepted);
            if written.is_err() {
                journal.offered = data[journal.accepted.len()..from + len].to_vec();
            }
            written?;
            self.persist(Step::Flush, || (&mut &*file).flush())?;
            assert_eq!(file.unsent(), 0, "{self}: unsent after flush");
            wire.far().writes_forbidden = !self.nonblocking;
            let read = self.read_exact(Step::Read, &mut &*file, len, &mut journal.got);
            wire.far().writes_forbidden = false;
            read?;
        }
        match self.plot {
            Plot::Drop => Ok(()),
            Plot::Close => self.persist(Step::Close, || file.close()),
            Plot::HalfClose => {
                self.persist(Step::Shutdown, || file.shutdown(Shutdown::Write))?;
                self.persist(Step::Flush, || (&mut &*file).flush())?;
                let mut buf = [0; 100];
                let n = self.persist(Step::End, || (&mut &*file).read(&mut buf))?;
                assert_eq!(n, 0, "{self}: data out of nowhere");
                self.persist(Step::Close, || file.close())
            }
            Plot::CloseClean | Plot::StartTls => self.persist(Step::Close, || file.close_clean()),
        }
    }

    /// After a clean close: the stream, the bytes behind the close_notify, and plain text both ways.
    fn plain_again<S: Stream>(&self, file: SslFile<S>, unwrap: impl Fn(S) -> Box<dyn Both>) -> Outcome {
        assert_eq!(file.state(), State::Closed, "{self}");
        let (stream, mut heard) = file.release().map_err(|e| (Step::Release, e.into()))?;
        let mut stream = unwrap(stream);
        assert!(heard.len() <= HELLO.len(), "{self}: {heard:?} came back");
        let missing = HELLO.len() - heard.len();
        self.read_exact(Step::PlainAgain, &mut stream, missing, &mut heard)?;
        assert_eq!(heard, HELLO, "{self}: behind the close_notify");
        self.say(Step::PlainAgain, &mut stream, QUIT)?;
        let mut heard = Vec::new();
        self.read_exact(Step::PlainAgain, &mut stream, BYE.len(), &mut heard)?;
        assert_eq!(heard, BYE, "{self}");
        Ok(())
    }

    /// One session; says whether the fault came to pass.
    fn run<S: Stream>(&self, wrap: impl Fn([Near; 2]) -> S, unwrap: impl Fn(S) -> Box<dyn Both>) -> bool {
        let (wire, halves, alive) = self.wire();
        let mut journal = Journal::default();
        let outcome = self.play(&wire, wrap(halves), unwrap, &mut journal);
        self.judge(&wire, &journal, outcome);
        assert!(alive.is_gone_within(Duration::from_secs(10)), "{self}: the stream was not dropped");
        let fired = wire.far().fired.is_some();
        fired
    }

    fn play<S: Stream>(
        &self,
        wire: &Wire,
        stream: S,
        unwrap: impl Fn(S) -> Box<dyn Both>,
        journal: &mut Journal,
    ) -> Outcome {
        let stream = if self.plot == Plot::StartTls {
            // Plain text goes over the stream itself, as the user of a `Stream` of his own has it.
            let mut plain = unwrap(stream);
            self.dialogue(&mut plain)?;
            *plain.into_any().downcast::<S>().expect("what was put in")
        } else {
            stream
        };
        journal.plain_calls = wire.far().calls();
        let file = self.open(stream, Handshake::Lazy).map_err(|e| (Step::Open, e.into()))?;
        let outcome = self.talk(&file, wire, journal);
        if let Err((step, error)) = outcome {
            self.look_back(&file, wire, step, &error, journal);
            return Err((step, error));
        }
        match self.plot {
            Plot::CloseClean | Plot::StartTls => self.plain_again(file, unwrap)?,
            Plot::Drop => (),
            _ => self.check_closed(&file),
        }
        journal.done = true;
        Ok(())
    }

    fn check_closed<S: Stream>(&self, file: &SslFile<S>) {
        assert_eq!(file.state(), State::Closed, "{self}");
        assert!(!file.is_open(), "{self}");
        let mut buf = [0; 10];
        for error in [(&mut &*file).read(&mut buf).err(), (&mut &*file).write(b"x").err()] {
            let error = error.unwrap_or_else(|| panic!("{self}: I/O on a closed file"));
            assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{self}: {error}");
            assert_eq!(kind_of(&error), Some(ErrorKind::NotOpen), "{self}: {error}");
        }
        file.close().unwrap_or_else(|e| panic!("{self}: second close: {e}"));
    }

    /// The file after a fatal fault: its error sticks, what arrived can be read, and no verb hangs.
    fn look_back<S: Stream>(
        &self,
        file: &SslFile<S>,
        wire: &Wire,
        step: Step,
        error: &io::Error,
        journal: &mut Journal,
    ) {
        if step == Step::Read || step == Step::End {
            for _ in 0..2 {
                let again = (&mut &*file).read(&mut [0; 10]).expect_err("the end of a broken stream sticks");
                assert_eq!(again.kind(), error.kind(), "{self}: {error}, then {again}");
                assert_eq!(kind_of(&again), kind_of(error), "{self}: {error}, then {again}");
            }
        }
        if step == Step::Handshake {
            let Err(again) = file.handshake() else {
                panic!("{self}: a failed handshake is final: {error:?}, then Ok")
            };
            assert_eq!(again.kind(), error.kind(), "{self}: {error}, then {again}");
            let Err(again) = (&mut &*file).write(b"x") else { panic!("{self}: a write after {error:?}") };
            assert_eq!(again.kind(), error.kind(), "{self}: {error}, then {again}");
            // Done on our side, its last words may have been lost on the way; what the peer says to that can be read.
            let at_once = wire.far().fired == Some((Call::Read, journal.plain_calls));
            if self.server && self.fault == Fault::Eof && at_once {
                // A peer that said nothing at all is no error to read.
                assert_eq!((&mut &*file).read(&mut [0; 10]).map_err(|e| e.kind()), Ok(0), "{self}");
            } else if !file.is_handshake_done() {
                assert_eq!(file.state(), State::Failed, "{self}");
            }
            assert!(!file.is_open() || file.is_handshake_done(), "{self}");
        }
        let hit = wire.far().fired.map(|(call, _)| call);
        let reads_live = hit != Some(Call::Read) && self.fault != Fault::Reset;
        if reads_live && self.nonblocking && matches!(step, Step::Write | Step::Flush) {
            let mut buf = [0; 5_000];
            for _ in 0..PATIENCE {
                match (&mut &*file).read(&mut buf) {
                    Ok(0) => {
                        assert!(wire.far().has_closed(), "{self}: forged end after a failed write");
                        break;
                    }
                    Ok(n) => journal.got.extend_from_slice(&buf[..n]),
                    Err(_) => break,
                }
            }
            let echoed = wire.far().received.len();
            assert_eq!(journal.got.len(), echoed, "{self}: a failed write discarded what had arrived");
        }
        for _ in 0..PATIENCE {
            match file.close() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                _ => return,
            }
        }
        panic!("{self}: HANG in close after {step:?} failed");
    }

    /// Whether the outcome is what this fault leaves.
    fn judge(&self, wire: &Wire, journal: &Journal, outcome: Outcome) {
        let far = wire.far();
        let heard = &far.received;
        let said = [&journal.accepted[..], &journal.offered].concat();
        assert!(said.starts_with(heard), "{self}: the far end got what was not written");
        assert!(journal.got.len() <= heard.len(), "{self}: more came back than was echoed");
        assert_eq!(journal.got, heard[..journal.got.len()], "{self}: the near end");
        let fatal = far.fired.is_some() && !self.fault.is_passing();
        let (call, number) = match far.fired {
            Some(fired) if fatal => fired,
            _ => {
                outcome.unwrap_or_else(|(step, e)| panic!("{self}: {step:?}: {e:?}"));
                assert!(journal.done, "{self}");
                assert!(!far.starved, "{self}: a read that would have hung");
                let whole: usize = MESSAGES.iter().sum();
                assert_eq!(heard.len(), whole, "{self}: lost on the way there");
                assert_eq!(journal.got.len(), whole, "{self}: lost on the way back");
                assert!(far.error.is_none(), "{self}: the far end saw {:?}", far.error);
                return;
            }
        };
        let Err((step, error)) = outcome else {
            // Once all was sent and answered, a stream that breaks takes nothing away.
            let whole: usize = MESSAGES.iter().sum();
            assert_eq!((heard.len(), journal.got.len()), (whole, whole), "{self}: no error told of call {number}");
            let harmless = call == Call::Flush || !matches!(self.plot, Plot::CloseClean | Plot::StartTls);
            assert!(harmless, "{self}: no error told of call {number} ({call:?})");
            return;
        };
        let told = format!("{self}: {step:?} said {error:?} of a {call:?}");
        if matches!(step, Step::Plain | Step::PlainAgain) {
            return; // The test's own I/O.
        }
        match (self.fault, call) {
            (Fault::Reset, _) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{told}");
                if call == Call::Read {
                    assert_eq!(kind_of(&error), Some(ErrorKind::Truncated), "{told}");
                }
            }
            (Fault::Eof, Call::Read) => {
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{told}");
                assert_eq!(kind_of(&error), Some(ErrorKind::Truncated), "{told}");
            }
            (Fault::Eof, _) => {
                let kinds = [io::ErrorKind::WriteZero, io::ErrorKind::BrokenPipe];
                assert!(kinds.contains(&error.kind()), "{told}");
            }
            _ => {
                assert_eq!(error.kind(), io::ErrorKind::Other, "{told}");
                assert!(error.to_string().contains("the lid fell off"), "{told}: the cause is lost: {error}");
            }
        }
    }
}

/// A stream that plain text can go over, and that can be had back.
trait Both: Read + Write {
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any>;
}

/// `ReadWrite` does not itself read and write; the test's plain text uses what is inside, and puts it back.
struct Whole(Box<Near>);

impl Read for Whole {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Whole {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Both for Whole {
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        Box::new(ReadWrite::new(*self.0))
    }
}

struct Halves<W>(Near, W);

impl<W> Read for Halves<W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl<W: Write> Write for Halves<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.1.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

impl<W: Write + Send + 'static> Both for Halves<W> {
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        Box::new(Duplex::new(self.0, self.1))
    }
}

fn whole(case: &Case) -> bool {
    let wrap = |[near, _]: [Near; 2]| ReadWrite::new(near);
    case.run(wrap, |stream| Box::new(Whole(Box::new(stream.into_inner()))))
}

fn halves(case: &Case) -> bool {
    two_halves(case, |writer| writer)
}

/// The writer keeps small pieces until it is flushed.
fn buffered_halves(case: &Case) -> bool {
    two_halves(case, BufWriter::new)
}

fn two_halves<W: Write + Send + 'static>(case: &Case, make: impl Fn(Near) -> W) -> bool {
    let wrap = |[reader, writer]: [Near; 2]| Duplex::new(reader, make(writer));
    case.run(wrap, |stream| {
        let (reader, writer) = stream.into_inner();
        Box::new(Halves(reader, writer))
    })
}

/// Every k, until a run has nothing left to fail.
fn every_call(mut case: Case, run: fn(&Case) -> bool) {
    case.when = When::Never;
    assert!(!run(&case));
    for k in 0..PATIENCE {
        case.when = When::At(k);
        if !run(&case) {
            assert!(k > 5, "{case}: only {k} calls");
            return;
        }
    }
    panic!("{case}: no end of calls");
}

/// What each engine can do, on both sides of the stream.
fn cases(plots: &[Plot], faults: &[Fault], mut each: impl FnMut(Case)) {
    for pairing in pairings().iter().filter(|p| p.is_one_engine()) {
        for &plot in plots {
            for &fault in faults {
                for (server, nonblocking) in [(false, false), (false, true), (true, false), (true, true)] {
                    each(Case { pairing, server, nonblocking, plot, fault, when: When::Never });
                }
            }
        }
    }
}

const PASSING: [Fault; 4] = [Fault::Short, Fault::WouldBlock, Fault::Interrupted, Fault::TimedOut];
const FATAL: [Fault; 3] = [Fault::Reset, Fault::Other, Fault::Eof];

#[test]
fn a_passing_fault_in_any_call_on_a_read_write_costs_nothing() {
    within(LIMIT, || cases(&PLOTS, &PASSING, |case| every_call(case, whole)));
}

#[test]
fn a_fatal_fault_in_any_call_on_a_read_write_is_told_and_loses_nothing_before_it() {
    within(LIMIT, || cases(&PLOTS, &FATAL, |case| every_call(case, whole)));
}

#[test]
fn a_fault_in_any_call_on_two_halves_is_survived_or_told() {
    within(LIMIT, || cases(&[Plot::HalfClose, Plot::StartTls], &Fault::ALL, |case| every_call(case, halves)));
}

#[test]
fn a_fault_in_any_call_under_a_buffered_writer_is_survived_or_told() {
    within(LIMIT, || cases(&[Plot::Close, Plot::StartTls], &Fault::ALL, |case| every_call(case, buffered_halves)));
}

#[test]
fn passing_faults_in_half_of_all_calls_cost_nothing() {
    within(LIMIT, || {
        cases(&PLOTS, &PASSING, |mut case| {
            case.when = When::Often;
            assert!(whole(&case), "{case}");
            assert!(halves(&case), "{case}");
            assert!(buffered_halves(&case), "{case}");
        });
    });
}

/// The eager way: the error comes from `open`, and the stream with it.
#[test]
fn an_eager_handshake_that_fails_gives_the_stream_back() {
    within(LIMIT, || {
        cases(&[Plot::Close], &FATAL, |mut case| {
            if case.nonblocking {
                return;
            }
            for k in 0..PATIENCE {
                case.when = When::At(k);
                let (wire, [near, _], alive) = case.wire();
                let opened = case.open(ReadWrite::new(near), Handshake::Eager);
                let Some((call, _)) = wire.far().fired else {
                    assert!(opened.is_ok(), "{case}: {opened:?}");
                    assert!(k > 2, "{case}: only {k} calls");
                    break;
                };
                // A flush that moves no bytes cannot tell an end of file.
                let Err(refused) = opened else {
                    assert_eq!((case.fault, call), (Fault::Eof, Call::Flush), "{case}");
                    continue;
                };
                let (error, stream, _) = refused.into_parts();
                let kinds = match (case.fault, call) {
                    (Fault::Reset, _) => vec![io::ErrorKind::ConnectionReset],
                    (Fault::Other, _) => vec![io::ErrorKind::Other],
                    (_, Call::Read) => vec![io::ErrorKind::BrokenPipe],
                    _ => vec![io::ErrorKind::WriteZero, io::ErrorKind::BrokenPipe],
                };
                assert!(kinds.contains(&error.kind()), "{case}: {error:?}");
                assert!(!alive.is_gone_within(Duration::ZERO), "{case}: the stream was dropped");
                drop(stream.into_inner());
                assert!(alive.is_gone_within(Duration::from_secs(10)), "{case}: the stream was kept");
            }
        });
    });
}
