//! The system's part: streams in memory, what a poller knows of them, and waiting for descriptors that are real.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, Timespec};

use super::sync::{now, Condvar, Mutex, MutexGuard};
use crate::backend::Happened;
use crate::machine::Going;
use crate::stream::{Inherited, Stream, Transport};
use crate::sys::{Descriptor, Doorbell, Ready, Woken, SLICE};

/// What one direction of a stream holds at most.
const ROOM: usize = 4;

#[derive(Default)]
pub(crate) struct Net {
    state: Mutex<State>,
    /// Any stream.
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    /// Into the end of this number; the other end has the number with its last bit changed.
    ways: Vec<Way>,
    /// Threads in `wait`.
    waiting: Vec<(usize, Ready, Arc<Doorbell>)>,
    /// What pollers watch: which, what, by which key.
    pub watched: Vec<(usize, usize, usize, Happened)>,
    pub pollers: usize,
}

#[derive(Default)]
struct Way {
    data: VecDeque<u8>,
    /// Nothing more will come.
    ended: bool,
    /// Nobody is there to receive.
    gone: bool,
}

impl State {
    pub fn ready(&self, end: usize) -> Ready {
        let (from, to) = (&self.ways[end], &self.ways[end ^ 1]);
        Ready { readable: !from.data.is_empty() || from.ended, writable: to.data.len() < ROOM || to.gone }
    }

    pub fn has_hung_up(&self, end: usize) -> bool {
        self.ways[end].ended && self.ways[end ^ 1].gone
    }
}

std::thread_local! {
    static NET: RefCell<Arc<Net>> = RefCell::default();
}

/// A new schedule.
pub(super) fn begin() {
    NET.set(Arc::default());
}

pub(crate) fn net() -> Arc<Net> {
    NET.with_borrow(Arc::clone)
}

impl Net {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// False: the time has come.
    pub fn wait(&self, state: &mut MutexGuard<'_, State>, until: Option<Instant>) -> bool {
        match until {
            None => self.changed.wait(state),
            Some(until) if now() >= until => return false,
            Some(until) => self.changed.wait_until(state, until),
        }
        true
    }

    /// Wakes whom the change concerns.
    pub fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = f(&mut state);
        let woken: Vec<_> = state
            .waiting
            .iter()
            .filter(|(end, wanted, _)| is_any(state.ready(*end), *wanted))
            .map(|(_, _, bell)| bell.clone())
            .collect();
        drop(state);
        self.changed.system_notifies();
        woken.iter().for_each(|bell| bell.ring());
        result
    }
}

fn is_any(ready: Ready, wanted: Ready) -> bool {
    (ready.readable && wanted.readable) || (ready.writable && wanted.writable)
}

/// A descriptor of the system's has become ready.
pub(crate) fn touched() {
    net().change(|_| ());
}

/// The system's, which holds up none of the other threads.
pub(crate) fn poll(fds: &mut [PollFd<'_>], time: Option<&Timespec>) -> Result<usize, rustix::io::Errno> {
    let duration = |time: &Timespec| std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
    let until = time.map(|time| now() + duration(time));
    let net = net();
    let mut state = net.lock();
    loop {
        let ready = rustix::event::poll(fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        if ready > 0 || !net.wait(&mut state, until) {
            return Ok(ready);
        }
    }
}

/// One end of a stream.
pub(super) struct End {
    net: Arc<Net>,
    number: usize,
}

pub(super) fn pair() -> (End, End) {
    let net = net();
    let mut state = net.lock();
    let number = state.ways.len();
    state.ways.extend([Way::default(), Way::default()]);
    drop(state);
    (End { net: net.clone(), number }, End { net, number: number + 1 })
}

/// The peer's calls, which wait.
impl End {
    fn wait_for(&self, wanted: Ready) {
        let mut state = self.net.lock();
        while !is_any(state.ready(self.number), wanted) {
            self.net.wait(&mut state, None);
        }
    }

    /// Until there are so many, or the end.
    pub fn receive(&self, n: usize) -> Vec<u8> {
        let mut all = vec![0; n];
        let mut got = 0;
        while got < n {
            match self.try_recv(&mut all[got..]) {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(_) => self.wait_for(Ready::READABLE),
            }
        }
        all.truncate(got);
        all
    }

    /// False: the other end has gone.
    pub fn send(&self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            match self.try_send(data, Going::AsSet) {
                Ok(n) => data = &data[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait_for(Ready::WRITABLE),
                Err(_) => return false,
            }
        }
        true
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if shuttle::thread::panicking() {
            return;
        }
        self.net.change(|state| {
            let watched = state.watched.iter().any(|(_, end, _, _)| *end == self.number);
            assert!(!watched, "a descriptor is closed that a poller watches");
            (state.ways[self.number ^ 1].ended, state.ways[self.number].gone) = (true, true);
        });
    }
}

impl Stream for End {}

impl Transport for End {
    fn is_polled(&self) -> bool {
        true
    }

    fn take_over(&self) -> io::Result<Inherited> {
        Ok(Inherited::default())
    }

    fn give_back(&self, _: &Inherited, unread: Vec<u8>) -> Vec<u8> {
        unread
    }

    fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.net.change(|state| {
            let way = &mut state.ways[self.number];
            match way.data.len().min(buf.len()) {
                0 if !way.ended => Err(io::ErrorKind::WouldBlock.into()),
                n => {
                    way.data.drain(..n).zip(buf).for_each(|(byte, to)| *to = byte);
                    Ok(n)
                }
            }
        })
    }

    /// The ring of a bell does not end it.
    fn recv_for_slice(&self, buf: &mut [u8]) -> io::Result<usize> {
        let until = now() + SLICE;
        let mut state = self.net.lock();
        while !state.ready(self.number).readable && self.net.wait(&mut state, Some(until)) {}
        drop(state);
        self.try_recv(buf)
    }

    fn try_send(&self, buf: &[u8], _: Going) -> io::Result<usize> {
        self.net.change(|state| {
            let way = &mut state.ways[self.number ^ 1];
            if way.gone || way.ended {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match buf.len().min(ROOM - way.data.len()) {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                n => {
                    way.data.extend(&buf[..n]);
                    Ok(n)
                }
            }
        })
    }

    fn half_close(&self) {
        self.net.change(|state| state.ways[self.number ^ 1].ended = true);
    }

    fn end(&self) {
        self.net.change(|state| {
            (state.ways[self.number ^ 1].ended, state.ways[self.number].ended) = (true, true);
            state.ways[self.number].gone = true;
        });
    }

    /// The real one is in the doorbell's model. Here the bell is rung for what the stream has to tell.
    fn wait(&self, wanted: Ready, _: &Doorbell, until: Option<Instant>) -> Woken {
        let bell = Doorbell::current();
        let entry = (self.number, wanted, bell.clone());
        let ready = |state: &State| {
            let ready = state.ready(self.number);
            Ready { readable: ready.readable && wanted.readable, writable: ready.writable && wanted.writable }
        };
        let mut state = self.net.lock();
        if !ready(&state).is_empty() {
            return Woken::Ready(ready(&state));
        }
        state.waiting.push(entry);
        drop(state);
        let woken = bell.sleep(until);
        let mut state = self.net.lock();
        let at = state.waiting.iter().position(|(_, _, other)| Arc::ptr_eq(other, &bell));
        state.waiting.swap_remove(at.expect("this thread waits"));
        match ready(&state) {
            nothing if nothing.is_empty() => woken,
            ready => Woken::Ready(ready),
        }
    }

    fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
        Some((self.number as Descriptor, self.number as Descriptor))
    }

    fn unacknowledged(&self) -> usize {
        self.net.lock().ways[self.number ^ 1].data.len()
    }
}
