//! What takes the place of the poller under a backend: the same interface, over the streams of `net`.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::Happened;
use crate::schedules::net::net;
use crate::sync::{now, thread, AtomicBool, Ordering};

pub(super) struct Waiter {
    number: usize,
    rung: AtomicBool,
}

#[derive(Default)]
pub(super) struct Arrivals {
    pub list: Vec<(usize, Happened)>,
}

impl Waiter {
    pub fn new() -> io::Result<Waiter> {
        let net = net();
        let mut state = net.lock();
        state.pollers += 1;
        Ok(Waiter { number: state.pollers, rung: AtomicBool::new(false) })
    }

    /// As the system's, what is told wrongly is found.
    pub fn change(&self, fd: RawFd, key: usize, old: Happened, new: Happened) -> io::Result<()> {
        let watches = |h: Happened| h.readable || h.writable || h.hung_up;
        net().change(|state| {
            let end = fd as usize;
            let at = state.watched.iter().position(|(poller, of, _, _)| (*poller, *of) == (self.number, end));
            assert_eq!(at.is_some(), watches(old), "what the poller watches");
            at.map(|at| state.watched.swap_remove(at));
            if watches(new) {
                state.watched.push((self.number, end, key, new));
            }
        });
        Ok(())
    }

    pub fn wait(&self, arrivals: &mut Arrivals, timeout: Option<Duration>) -> io::Result<()> {
        // What is told again may be on its way out in another thread, which has its turn.
        if !std::mem::take(&mut arrivals.list).is_empty() {
            thread::yield_now();
        }
        let until = timeout.map(|timeout| now() + timeout);
        let net = net();
        let mut state = net.lock();
        loop {
            let rung = self.rung.swap(false, Ordering::SeqCst);
            for (_, end, key, wanted) in state.watched.iter().filter(|watch| watch.0 == self.number) {
                let (ready, hung_up) = (state.ready(*end), state.has_hung_up(*end));
                let readable = (ready.readable && wanted.readable) || hung_up;
                let writable = (ready.writable && wanted.writable) || hung_up;
                if readable || writable {
                    arrivals.list.push((*key, Happened { readable, writable, hung_up, disarmed: false }));
                }
            }
            if rung || !arrivals.list.is_empty() || !net.wait(&mut state, until) {
                return Ok(());
            }
        }
    }

    pub fn notify(&self) {
        net().change(|_| self.rung.store(true, Ordering::SeqCst));
    }
}
