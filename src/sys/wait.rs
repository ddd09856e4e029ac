use std::time::{Duration, Instant};

#[cfg(not(all(test, shuttle)))]
use rustix::event::poll;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::{AsFd, Bell, BorrowedFd, Doorbell, Ready, Woken, BROKEN, SLICE};
#[cfg(all(test, shuttle))]
use crate::schedules::net::poll;
use crate::sync::now;

/// A stream has at most two descriptors.
const MOST: usize = 2;
/// Some systems count in an `int` of milliseconds.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Where a half-close is told as long as it lasts, so often is looked whether there is room.
const SHORT: Duration = Duration::from_millis(1);
const ENDED: PollFlags = PollFlags::HUP.union(PollFlags::ERR);

/// Waits until a descriptor is as wanted, the bell is rung, or the time has come. For the bell's owner.
///
/// A ring that comes together with `Ready` is kept for the next wait.
pub(crate) fn wait(wanted: &[(BorrowedFd<'_>, Ready)], bell: &Doorbell, until: Option<Instant>) -> Woken {
    debug_assert!(wanted.len() <= MOST);
    let all = wanted.iter().fold(Ready::default(), |all, (_, one)| all.or(*one));
    if all.is_empty() {
        return bell.sleep(until);
    }
    loop {
        let own = bell.bell();
        if own.is_some() {
            bell.will_poll();
        }
        if bell.take_ring() {
            bell.got_up();
            return Woken::Rung;
        }
        // What can't be woken looks now and then.
        let left = until.map(|until| until.saturating_duration_since(now()).min(DAY));
        let left = if own.is_some() { left } else { Some(left.map_or(SLICE, |left| left.min(SLICE))) };
        let polled = poll_for(wanted, own.as_deref(), left);
        bell.got_up();
        match polled {
            Polled::Ready(ready) => return Woken::Ready(ready),
            Polled::Rung => {
                bell.take_ring();
                return Woken::Rung;
            }
            Polled::Nothing if bell.take_ring() => return Woken::Rung,
            Polled::Nothing => {}
            Polled::HalfClosed => {
                let short = now() + SHORT;
                if bell.sleep(Some(until.map_or(short, |until| until.min(short)))) == Woken::Rung {
                    return Woken::Rung;
                }
            }
            // Nobody knows whether there is something to do, so the caller tries, but not without a pause.
            Polled::Failed => {
                let slice = now() + SLICE;
                match bell.sleep(Some(until.map_or(slice, |until| until.min(slice)))) {
                    Woken::TimedOut if until.is_none_or(|until| now() < until) => return Woken::Ready(all),
                    woken => return woken,
                }
            }
        }
        if until.is_some_and(|until| now() >= until) {
            return Woken::TimedOut;
        }
    }
}

enum Polled {
    Ready(Ready),
    /// The bell, or a signal.
    Rung,
    Nothing,
    /// By the peer, and nothing else is so yet.
    HalfClosed,
    Failed,
}

fn poll_for(wanted: &[(BorrowedFd<'_>, Ready)], bell: Option<&Bell>, time: Option<Duration>) -> Polled {
    // The rest of the array is not polled.
    let Some((first, _)) = wanted.first() else { return Polled::Nothing };
    let mut fds: [PollFd<'_>; MOST + 1] = std::array::from_fn(|_| PollFd::from_borrowed_fd(*first, PollFlags::empty()));
    let mut wants = [Ready::default(); MOST];
    let mut count = 0;
    // An end is told of a descriptor of which nothing is wanted, too.
    for (fd, want) in wanted.iter().filter(|(_, want)| !want.is_empty()).take(MOST) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, want.readable);
        flags.set(PollFlags::OUT, want.writable);
        fds[count] = PollFd::from_borrowed_fd(*fd, flags);
        wants[count] = *want;
        count += 1;
    }
    let streams = count;
    if let Some(bell) = bell {
        fds[count] = PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN);
        count += 1;
    }
    let time = time.map(|time| Timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ });
    match poll(&mut fds[..count], time.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Polled::Rung,
        Err(_) => return Polled::Failed,
    }
    let mut rung = false;
    for fd in &fds[streams..count] {
        if let (false, Some(bell)) = (fd.revents().is_empty(), bell) {
            bell.drain();
            rung = true;
        }
    }
    let (mut ready, mut ended) = (Ready::default(), false);
    for (fd, want) in fds[..streams].iter().zip(wants) {
        let happened = fd.revents();
        if happened.contains(PollFlags::NVAL) {
            // A kind that this system's poll does not know.
            return Polled::Failed;
        }
        ready = ready.or(Ready {
            readable: want.readable && happened.intersects(ENDED | PollFlags::IN),
            writable: want.writable && happened.intersects(BROKEN | PollFlags::OUT),
        });
        ended |= BROKEN != ENDED && happened.intersects(ENDED);
    }
    match (ready.is_empty(), rung) {
        (false, _) => Polled::Ready(ready),
        (true, true) => Polled::Rung,
        (true, false) if ended => Polled::HalfClosed,
        (true, false) => Polled::Nothing,
    }
}
