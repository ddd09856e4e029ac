//! Walks the table of what each call gives in each state (`machine/calls.md`), which is a part of `SslFile`'s page: each cell
//! with a machine that has been taken there.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::beginning;
use super::session::{record, Plan, ALERT, DATA, FINISHED, HANDSHAKE, PROTECTED, SERVER_HELLO};
use crate::engine::Buffer;
use crate::error::{Error, ErrorKind};
use crate::machine::{After, Patience};
use crate::machine::{Call, Going, Job, Kind, Machine, Manner, Received, Sent, Setup, Step, Tries, CLOSE_TIMEOUT};
use crate::role::Role;

const TABLE: &str = include_str!("../calls.md");
const TIMEOUT: Duration = Duration::from_secs(3);

/// A machine, and what its stream has for it.
struct Bench {
    machine: Machine,
    inbox: VecDeque<Came>,
    refuses: bool,
    now: Instant,
}

enum Came {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// What a call has given.
#[derive(Debug, PartialEq)]
enum Gave {
    Ok(usize),
    Failed(io::ErrorKind, ErrorKind),
    WouldBlock,
    Waits,
}

fn bytes(kind: u8, first: Option<u8>, body: &[u8]) -> Came {
    let mut out = Vec::new();
    record(kind, first, body, &mut out);
    Came::Bytes(out)
}

fn reset() -> Error {
    Error::new(ErrorKind::Truncated, "reset").with_io_kind(io::ErrorKind::ConnectionReset)
}

impl Bench {
    fn new(nonblocking: bool) -> Bench {
        let plan = Plan { level: 0, role: Role::Client, is_tls13: true, fragment: 1000, tickets: 0 };
        let setup = Setup {
            manner: Manner::Polled,
            over_file: false,
            nonblocking,
            read_timeout: None,
            write_timeout: None,
            close_timeout: CLOSE_TIMEOUT,
            handshake_timeout: None,
            deadlines: Default::default(),
            tells_would_block: false,
            half_closes: true,
            send_limit: 1000,
        };
        let machine = Machine::new(plan.connection(), &setup);
        Bench { machine, inbox: VecDeque::new(), refuses: false, now: beginning() }
    }

    fn clock(&self) -> Instant {
        self.now
    }

    fn comes(&mut self, came: impl IntoIterator<Item = Came>) {
        self.inbox.extend(came);
    }

    /// Says whether it came to something.
    fn perform(&mut self, job: Job) -> bool {
        let clock = self.clock();
        match job {
            Job::Receive(lease) => {
                let came = self.inbox.pop_front();
                let nothing = came.is_none();
                let received = match came {
                    Some(Came::Bytes(bytes)) => {
                        let mut buffer = Buffer::default();
                        buffer.append(&bytes);
                        Received::Bytes(buffer)
                    }
                    Some(Came::End) => Received::End,
                    Some(Came::Reset) => Received::Failed(reset()),
                    None => Received::Nothing,
                };
                self.machine.received(lease, received, &clock);
                return !nothing;
            }
            Job::Send(lease, flight, _) if self.refuses => {
                self.machine.sent(lease, flight, Sent::Failed(reset()), &clock);
            }
            Job::Send(lease, _, going) => {
                self.machine.sent(lease, Buffer::default(), Sent::Took(After::Nothing), &clock);
                if going == Going::Last {
                    let job = self.machine.job(Tries { send: true, ..Tries::default() });
                    assert!(job.is_some_and(|job| self.perform(job)), "a half-close");
                }
            }
            Job::HalfClose(lease, _) => self.machine.half_closed(lease, &clock),
            Job::GiveBack(receive, send, unread) => self.machine.given_back(receive, send, unread),
            Job::Flush(lease) | Job::Push(lease) => {
                self.machine.sent(lease, Buffer::default(), Sent::Took(After::Nothing), &clock);
            }
            Job::End => {}
        }
        true
    }

    /// As a thread's driver.
    fn drive<T>(
        &mut self,
        mut call: Call,
        mut poll: impl FnMut(&mut Machine, &mut Call, &Instant) -> Step<T>,
    ) -> (Gave, Call)
    where
        T: Into<Option<usize>>,
    {
        let mut dry = false;
        loop {
            let clock = self.clock();
            let gave = match poll(&mut self.machine, &mut call, &clock) {
                Step::Done(Ok(n)) => Gave::Ok(n.into().unwrap_or(0)),
                Step::Done(Err(error)) => Gave::Failed(error.io_kind(), error.kind()),
                Step::WouldBlock => Gave::WouldBlock,
                Step::Wait(waits) => {
                    dry &= !waits.afresh;
                    let tries = Tries { receive: waits.readable && !dry, send: waits.writable, offer: false };
                    match self.machine.job(tries) {
                        Some(job) => dry = !self.perform(job),
                        None if call.patience == Patience::Never || call.is_hasty() => call.exhausted = true,
                        None => return (Gave::Waits, call),
                    }
                    continue;
                }
            };
            assert_eq!(self.machine.broken_invariant(), None);
            return (gave, call);
        }
    }

    fn call(&mut self, which: &str) -> (Gave, Call) {
        let kind = match which {
            "read" | "peek" => Kind::Read,
            "write" => Kind::Write,
            "flush" => Kind::Flush,
            "handshake" => Kind::Handshake,
            "close" => Kind::Close,
            "close_clean" => Kind::CloseClean,
            other => panic!("what is {other}?"),
        };
        let call = self.machine.begin(kind, false, Some(TIMEOUT), &self.clock());
        self.go_on(which, call)
    }

    fn go_on(&mut self, which: &str, call: Call) -> (Gave, Call) {
        let mut buf = [0; 100];
        match which {
            "read" => self.drive(call, |machine, call, clock| {
                machine.poll_read(call, |tls| tls.read(&mut buf).unwrap_or(0), clock).map(Some)
            }),
            "peek" => self.drive(call, |machine, call, clock| {
                machine.poll_read(call, |tls| tls.peek(&mut buf).unwrap_or(0), clock).map(Some)
            }),
            "write" => self.drive(call, |machine, call, clock| machine.poll_write(call, b"12345", clock).map(Some)),
            _ => self.drive(call, |machine, call, clock| machine.poll(call, clock).map(|()| None)),
        }
    }

    fn send(&mut self) -> Gave {
        match self.machine.queue(b"12345", &self.now) {
            Ok(()) => Gave::Ok(5),
            Err(error) if error.io_kind() == io::ErrorKind::WouldBlock => Gave::WouldBlock,
            Err(error) => Gave::Failed(error.io_kind(), error.kind()),
        }
    }
}

impl<T> Step<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Step::Done(result) => Step::Done(result.map(f)),
            Step::WouldBlock => Step::WouldBlock,
            Step::Wait(waits) => Step::Wait(waits),
        }
    }
}

const LEFT: &[u8] = b"left";

/// Takes a machine into the state of that name.
fn bench_in(state: &str, nonblocking: bool) -> Bench {
    let mut bench = Bench::new(nonblocking);
    match state {
        "handshaking" => return bench,
        "the handshake has failed" => {
            bench.comes([bytes(HANDSHAKE, Some(FINISHED), &[0; 40])]);
            let gave = bench.call("handshake").0;
            assert_eq!(gave, Gave::Failed(io::ErrorKind::InvalidData, ErrorKind::LocalAlert(10)));
            return bench;
        }
        _ => {}
    }
    bench.comes([bytes(HANDSHAKE, Some(SERVER_HELLO), &[0; 900])]);
    assert_eq!(bench.call("handshake").0, Gave::Ok(0));
    let left = || bytes(PROTECTED, Some(DATA), LEFT);
    let bye = || bytes(ALERT, None, &[1, 0]);
    match state {
        "open" => {}
        "the peer has said close_notify" => bench.comes([left(), bye()]),
        "cut" => bench.comes([left(), Came::End]),
        "reset" => bench.comes([left(), Came::Reset]),
        "the peer has broken the protocol" => bench.comes([left(), bytes(PROTECTED, Some(0), &[])]),
        "after `shutdown(Read)`" => bench.machine.shut(false, true),
        "after `shutdown(Write)`" => bench.machine.shut(true, false),
        "`close_clean` under way" => {
            bench.call("close_clean");
        }
        "`close_clean` has succeeded" => {
            bench.comes([left(), bye()]);
            assert_eq!(bench.call("close_clean").0, Gave::Ok(0));
        }
        "`close` under way, or over" => {
            // Both what has come before and what comes now.
            bench.comes([left()]);
            assert_eq!(bench.call("peek").0, Gave::Ok(LEFT.len()));
            bench.comes([left()]);
            bench.call("close");
        }
        "after `abort`" => bench.machine.abort(),
        "another file wraps this one" => bench.machine.lend().expect("lent"),
        other => panic!("no way to {other}"),
    }
    // What is there has come, and is known.
    if !state.starts_with('`') {
        let tries = Tries { receive: true, ..Tries::default() };
        while let Some(job) = (!bench.inbox.is_empty()).then(|| bench.machine.job(tries)).flatten() {
            bench.perform(job);
        }
        bench.machine.tls.read_ahead(usize::MAX);
    }
    bench
}

fn kind(word: &str) -> io::ErrorKind {
    let word = word.trim().trim_matches('`');
    use io::ErrorKind::*;
    let all = [BrokenPipe, ConnectionReset, InvalidData, NotConnected, ResourceBusy, WouldBlock, TimedOut, Other];
    all.into_iter().find(|kind| format!("{kind:?}") == word).unwrap_or_else(|| panic!("what is {word}?"))
}

fn is_failure(gave: &Gave, of: io::ErrorKind) -> bool {
    matches!(gave, Gave::Failed(kind, _) if *kind == of)
}

/// All that waiting can come to.
fn assert_waits(state: &str, which: &str) {
    assert_eq!(bench_in(state, true).call(which).0, Gave::WouldBlock, "{state}: {which}, non-blocking");
    let mut bench = bench_in(state, false);
    let (gave, call) = bench.call(which);
    assert_eq!(gave, Gave::Waits, "{state}: {which}");
    bench.machine.interrupt();
    assert_eq!(
        bench.go_on(which, call).0,
        Gave::Failed(io::ErrorKind::Other, ErrorKind::Interrupted),
        "{state}: {which}"
    );
    let (gave, call) = bench.call(which);
    assert_eq!(gave, Gave::Waits, "{state}: {which}, again");
    bench.now += TIMEOUT;
    let gave = bench.go_on(which, call).0;
    assert_eq!(gave, Gave::Failed(io::ErrorKind::TimedOut, ErrorKind::TimedOut), "{state}: {which}, late");
}

fn assert_gives(state: &str, which: &str, cell: &str) {
    let what = format!("{state}: {which} gives {cell}");
    for nonblocking in [false, true] {
        let bench = &mut bench_in(state, nonblocking);
        let mut give = || match which {
            "send" => bench.send(),
            _ => bench.call(which).0,
        };
        let is_reading = matches!(which, "read" | "peek");
        match cell {
            "waits; `send` queues" if which == "send" => assert_eq!(give(), Gave::Ok(5), "{what}"),
            "waits" | "waits; `send` queues" => assert_waits(state, which),
            "data, or waits" => {
                assert_waits(state, which);
                bench.comes([bytes(PROTECTED, Some(DATA), LEFT)]);
                assert_eq!(bench.call(which).0, Gave::Ok(LEFT.len()), "{what}");
            }
            "accepts" => assert_eq!(give(), Gave::Ok(5), "{what}"),
            "accepts, until the stream refuses" => {
                assert_eq!(give(), Gave::Ok(5), "{what}");
                bench.refuses = true;
                let refused = [bench.call("write").0, bench.call("write").0];
                assert!(is_failure(&refused[1], io::ErrorKind::ConnectionReset), "{what}: {refused:?}");
            }
            "`Ok`" | "`Ok(0)`" => assert_eq!(give(), Gave::Ok(0), "{what}"),
            _ => {
                let then = match cell.split_once(", then ") {
                    Some(("what is left" | "what had been decrypted", then)) => {
                        assert!(is_reading, "{what}");
                        for _ in 0..if which == "peek" { 2 } else { 1 } {
                            assert_eq!(give(), Gave::Ok(LEFT.len()), "{what}");
                        }
                        if which == "peek" {
                            assert_eq!(bench.call("read").0, Gave::Ok(LEFT.len()), "{what}");
                        }
                        then
                    }
                    _ => cell,
                };
                // It stays so.
                for _ in 0..3 {
                    let gave = if which == "send" { bench.send() } else { bench.call(which).0 };
                    match then {
                        "`Ok(0)`" => assert_eq!(gave, Gave::Ok(0), "{what}"),
                        _ => assert!(is_failure(&gave, kind(then)), "{what}: {gave:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn close_may_be_called_in_each_of_them() {
    for line in TABLE.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let state = line.trim_matches('|').split('|').next().expect("a state").trim();
        let mut bench = bench_in(state, false);
        let gave = bench.call("close").0;
        let is_wrapped = state == "another file wraps this one";
        assert_eq!(is_failure(&gave, io::ErrorKind::ResourceBusy), is_wrapped, "{state}: {gave:?}");
        assert!(matches!(gave, Gave::Ok(_) | Gave::Waits) || is_wrapped, "{state}: {gave:?}");
        bench.now += TIMEOUT;
        assert_eq!(bench.call("close").0 == Gave::Ok(0), !is_wrapped, "{state}");
    }
}

#[test]
fn each_call_gives_in_each_state_what_the_table_says() {
    let rows = TABLE.lines().filter(|line| line.starts_with('|'));
    let mut rows = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let calls = rows.next().expect("a head");
    let mut states = 0;
    for row in rows.skip(1) {
        assert_eq!(row.len(), calls.len(), "{row:?}");
        for (which, cell) in calls.iter().zip(&row).skip(1) {
            for which in which.split(',') {
                assert_gives(row[0], which.trim().trim_matches('`'), cell);
            }
        }
        states += 1;
    }
    assert_eq!(states, 14);
}
