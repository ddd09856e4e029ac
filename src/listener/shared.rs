//! What is done for a listener: accepting, shaking hands, telling.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::callbacks::ListenerCallbacks;
use super::passing;
use super::queue;
use super::settings::{Pending, Phase, Settings, FAIR_SHARE, REST, SILENCE};
use crate::backend::{Backend, Happened, Place, Source};
use crate::context::Context;
use crate::error::{Error, ErrorKind};
use crate::file::{Handshake, SslFile, SslOptions};
use crate::sys::{self, descriptor, passes, AsFd, Descriptor, Doorbell, Passes, Ready, SHUTDOWN_WAKES};

pub(super) struct Shared {
    pub listener: TcpListener,
    /// What it accepts has nothing set on it.
    pub accepts_fresh: bool,
    /// Held from a look into the system's queue until what was found there is in ours: who finds the queue empty must not
    /// overlook that. Taken before the settings.
    accepting: Mutex<()>,
    /// Taken before a file's lock, and before the callbacks. No file is dropped, and no backend's handle, while it is held.
    pub settings: Mutex<Settings>,
    /// The listener has been closed.
    closed: Condvar,
    /// Where `SHUTDOWN_WAKES` is not so the socket never blocks: whether the user wants that, and who waits in `accept`.
    nonblocking: AtomicBool,
    sleepers: Mutex<Vec<Arc<Doorbell>>>,
    /// Taken last.
    pub callbacks: Mutex<ListenerCallbacks>,
}

impl Shared {
    pub fn new(listener: TcpListener, accepts_fresh: bool, context: &Context) -> Shared {
        Shared {
            listener,
            accepts_fresh,
            accepting: Mutex::default(),
            settings: Mutex::new(Settings::new(context)),
            closed: Condvar::new(),
            nonblocking: AtomicBool::new(false),
            sleepers: Mutex::default(),
            callbacks: Mutex::default(),
        }
    }

    pub fn check_open(&self) -> io::Result<()> {
        match self.settings.lock().phase {
            Phase::Listening => Ok(()),
            _ => Err(Error::new(ErrorKind::NotOpen, "the listener has been closed").into()),
        }
    }

    /// As std's, past errors that pass.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = passing::accept(
            &self.listener,
            || self.check_open(),
            || self.is_nonblocking(),
            || self.sleep(),
            |_e| {
                #[cfg(feature = "log")]
                self.log_error(None, _e);
                let mut settings = self.settings.lock();
                if settings.phase == Phase::Listening {
                    self.closed.wait_for(&mut settings, REST);
                }
            },
        );
        #[cfg(feature = "log")]
        if let Err(e) = accepted.as_ref() {
            if e.kind() != io::ErrorKind::WouldBlock {
                self.log_error(None, e);
            }
        }
        accepted
    }

    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match SHUTDOWN_WAKES {
            true => self.listener.set_nonblocking(nonblocking),
            false => {
                self.nonblocking.store(nonblocking, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn is_nonblocking(&self) -> io::Result<bool> {
        match SHUTDOWN_WAKES {
            true => sys::is_nonblocking(self.listener.as_fd()),
            false => Ok(self.nonblocking.load(Ordering::Relaxed)),
        }
    }

    /// Until a client comes, or the listener is closed.
    fn sleep(&self) {
        let bell = Doorbell::current();
        self.sleepers.lock().push(bell.clone());
        // Whoever ends the listener says so first, then rings.
        if self.check_open().is_ok() {
            sys::wait(&[(self.listener.as_fd(), Ready::READABLE)], &bell, None);
        }
        self.sleepers.lock().retain(|sleeper| !Arc::ptr_eq(sleeper, &bell));
    }

    /// Those who wait in `accept` look again.
    fn wake_all(&self) {
        self.closed.notify_all();
        self.sleepers.lock().iter().for_each(|sleeper| sleeper.ring());
    }

    /// A file that shakes hands later, with the settings of the moment.
    pub fn open(
        &self,
        stream: TcpStream,
        addr: SocketAddr,
        more: impl FnOnce(SslOptions) -> SslOptions,
    ) -> io::Result<SslFile> {
        let settings = self.settings.lock();
        let options = settings.options.clone().server().handshake(Handshake::Lazy);
        let options = options.peer(addr).fresh(self.accepts_fresh);
        let context = settings.context.clone();
        drop(settings);
        Ok(more(options).open(stream, &context)?)
    }

    pub fn enter(self: &Arc<Self>, backend: &Backend) -> io::Result<()> {
        let old = self.settings.lock().place.clone();
        if let Some(old) = old {
            if old.backend().as_ref() == Some(backend) {
                return Ok(());
            }
            self.settings.lock().place.take_if(|place| place.is(&old));
            old.leave(true);
        }
        let mut settings = self.settings.lock();
        if settings.phase != Phase::Listening {
            drop(settings);
            return self.check_open();
        }
        (settings.watched, settings.alarm) = (false, None);
        let other = settings.place.replace(backend.add(self.clone())?);
        drop(settings);
        // Of a thread that did the same.
        other.inspect(|place| place.leave(false));
        Ok(())
    }

    pub fn close(&self) {
        let mut settings = self.settings.lock();
        settings.phase = Phase::Closed;
        let place = settings.place.take();
        let dropped = settings.abandon();
        drop(settings);
        if let Some(place) = place {
            place.leave(false);
        }
        drop(dropped);
        let unwanted = self.callbacks.lock().take();
        drop(unwanted);
        sys::stop_listening(&self.listener);
        self.wake_all();
    }

    pub fn finish(self: &Arc<Self>) {
        let mut settings = self.settings.lock();
        if settings.phase != Phase::Listening {
            return;
        }
        if settings.place.is_none() {
            drop(settings);
            return self.close();
        }
        settings.phase = Phase::Emptying;
        drop(settings);
        self.wake_all();
        self.empty_queue();
        self.begin_waiting();
        self.leave_if_done();
        // For what is to be told.
        self.make_ready();
        #[cfg(feature = "log")]
        crate::drive::alert_queue::tell_if_outside();
    }

    /// Has the backend look at what has changed.
    pub fn make_ready(&self) {
        self.tell_backend();
        let place = self.settings.lock().place.clone();
        place.inspect(Place::make_ready);
    }

    pub fn pending(&self) -> usize {
        let settings = self.settings.lock();
        // Those that wait wait for these; between two there may be none for a moment.
        settings.under_way().max(usize::from(!settings.waiting.is_empty()))
    }

    /// Takes the system's queue over, then stops listening. If the system can't go on, it is tried again later.
    fn empty_queue(&self) {
        let _accepting = self.accepting.lock();
        if self.settings.lock().phase != Phase::Emptying {
            return;
        }
        let emptied = queue::empty(&self.listener, |stream, addr| self.settings.lock().take(stream, addr));
        let mut settings = self.settings.lock();
        match emptied {
            _ if settings.phase != Phase::Emptying => {}
            Ok(()) => {
                settings.phase = Phase::Finishing;
                sys::stop_listening(&self.listener);
            }
            Err(e) => {
                settings.rest();
                drop(settings);
                self.report_own(e);
            }
        }
    }

    /// Takes what is in the system's queue, up to the limits.
    fn accept_some(self: &Arc<Self>) {
        // No more than are likely there: a look at the empty queue is a call for nothing.
        let limit = self.settings.lock().burst.clamp(1, FAIR_SHARE);
        self.settings.lock().burst = limit * 2;
        for accepted in 0..limit {
            let accepting = self.accepting.lock();
            if !self.settings.lock().takes_more() {
                return;
            }
            match self.listener.accept() {
                Ok((stream, addr)) => {
                    self.settings.lock().take(stream, addr);
                    drop(accepting);
                    self.begin_waiting();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.settings.lock().burst = accepted;
                    return;
                }
                Err(e) if passes(&e) == Passes::AtOnce => {}
                Err(e) => {
                    self.settings.lock().rest();
                    return self.report_own(e);
                }
            }
        }
    }

    /// Begins the handshakes for which there is room.
    fn begin_waiting(self: &Arc<Self>) {
        let place = self.settings.lock().place.clone();
        let Some(backend) = place.and_then(|place| place.backend()) else { return };
        loop {
            let mut settings = self.settings.lock();
            if settings.waiting.is_empty() {
                return;
            }
            if settings.is_full() {
                drop(settings);
                if !self.drop_silent() {
                    return;
                }
                continue;
            }
            let Some((stream, addr)) = settings.waiting.pop_front() else { return };
            settings.starting += 1;
            drop(settings);
            self.begin(stream, addr, &backend);
        }
    }

    fn begin(self: &Arc<Self>, stream: TcpStream, addr: SocketAddr, backend: &Backend) {
        let opened = self.open(stream, addr, |options| options.nonblocking(true).backend(backend));
        let mut settings = self.settings.lock();
        settings.starting -= 1;
        let file = match opened {
            Ok(file) if settings.phase != Phase::Closed => file,
            unwanted => {
                drop(settings);
                return unwanted.map_or_else(|e| self.report(addr, e), drop);
            }
        };
        let id = settings.next_pending;
        settings.next_pending += 1;
        settings.pending.insert(id, Pending { file: file.clone(), addr, since: Instant::now() });
        settings.silent.insert(id);
        drop(settings);
        let listener = Arc::downgrade(self);
        file.set_opened(move |result| {
            if let Some(listener) = listener.upgrade() {
                listener.opened(id, result);
            }
        });
    }

    /// A handshake is over.
    fn opened(self: &Arc<Self>, id: u64, result: io::Result<()>) {
        let mut settings = self.settings.lock();
        // Closed, or given up, meanwhile.
        let Some(Pending { file, addr, .. }) = settings.remove(id) else { return };
        // Still under the lock: who sees that nothing is under way must see this.
        let mut callbacks = self.callbacks.lock();
        let dropped = match result {
            Ok(()) => {
                callbacks.accepted.push_back((file, addr));
                None
            }
            // It ended before its first byte.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Some(file),
            Err(e) => {
                callbacks.failed.push_back((addr, e));
                Some(file)
            }
        };
        drop(callbacks);
        drop(settings);
        drop(dropped);
        self.go_on();
    }

    /// After a change, in a turn: begins, waits for, tells and ends what is due. Says how many callbacks were called.
    fn go_on(self: &Arc<Self>) -> usize {
        /// Also when a callback panics.
        struct Leaving<'a>(&'a Shared);
        impl Drop for Leaving<'_> {
            fn drop(&mut self) {
                self.0.leave_if_done();
            }
        }
        self.begin_waiting();
        self.tell_backend();
        #[cfg(feature = "log")]
        crate::drive::alert_queue::tell_if_outside();
        let _leaving = Leaving(self);
        ListenerCallbacks::tell(&self.callbacks)
    }

    /// After `finish`, when the last handshake is over and told.
    fn leave_if_done(&self) {
        let mut settings = self.settings.lock();
        let is_idle = settings.under_way() == 0 && settings.waiting.is_empty();
        if settings.phase != Phase::Finishing || !is_idle || self.callbacks.lock().has_more() {
            return;
        }
        settings.phase = Phase::Closed;
        let place = settings.place.take();
        drop(settings);
        if let Some(place) = place {
            place.leave(false);
        }
        let unwanted = self.callbacks.lock().take();
        drop(unwanted);
    }

    /// Gives up the oldest handshake of which nothing has come for too long, if there is one.
    fn drop_silent(&self) -> bool {
        let mut settings = self.settings.lock();
        let under_way = settings.under_way();
        let Some(Pending { file, addr, .. }) = settings.take_silent() else { return false };
        drop(settings);
        drop(file);
        let what = format!("{addr}: nothing has come for {SILENCE:?}");
        let text = format!("{what}, and {under_way} handshakes leave no room for others");
        self.report(addr, Error::new(ErrorKind::TimedOut, text).into());
        true
    }

    /// What the backend should wait for has changed.
    fn tell_backend(&self) {
        let mut settings = self.settings.lock();
        let Some(place) = settings.place.clone() else { return };
        let wanted = settings.takes_more();
        let watched = match std::mem::replace(&mut settings.watched, wanted) == wanted {
            true => Ok(()),
            false => place.watch(Happened { readable: wanted, ..Happened::default() }),
        };
        if watched.is_err() {
            settings.watched = false;
            settings.rest();
        }
        let alarm = settings.next_look();
        if std::mem::replace(&mut settings.alarm, alarm) != alarm {
            place.set_alarm(alarm);
        }
        drop(settings);
        if let Err(e) = watched {
            self.report_own(e);
        }
    }

    /// For the error callback, which is called in a turn.
    fn report(&self, addr: SocketAddr, e: io::Error) {
        #[cfg(feature = "log")]
        self.log_error(Some(addr), &e);
        self.callbacks.lock().failed.push_back((addr, e));
    }

    /// `client`: whom it concerns, or the listener itself.
    #[cfg(feature = "log")]
    fn log_error(&self, client: Option<SocketAddr>, e: &io::Error) {
        use crate::drive::alert_queue::{log, tell_if_outside};
        let own = self.listener.local_addr().ok();
        let listener = || own.map_or_else(|| "listener".to_string(), |addr| format!("listener on {addr}"));
        log(::log::Level::Debug, || match client.filter(|client| Some(*client) != own) {
            Some(client) => format!("{}, client {client}: {e}", listener()),
            None => format!("{}: {e}", listener()),
        });
        // Otherwise when the turn ends, or the call.
        if client.is_none() {
            tell_if_outside();
        }
    }

    fn report_own(&self, e: io::Error) {
        if let Ok(addr) = self.listener.local_addr() {
            self.report(addr, e);
        }
    }
}

impl Source for Shared {
    fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
        let fd = descriptor(&self.listener);
        Some((fd, fd))
    }

    fn run(self: Arc<Self>, at: &Place, happened: Happened, _: &mut [u8]) -> usize {
        let mut settings = self.settings.lock();
        if !settings.place.as_ref().is_some_and(|place| place.is(at)) {
            return 0;
        }
        settings.watched &= !happened.disarmed;
        settings.expire(Instant::now());
        let is_emptying = settings.phase == Phase::Emptying && settings.resting.is_none();
        drop(settings);
        match is_emptying {
            true => self.empty_queue(),
            false if happened.readable => self.accept_some(),
            false => {}
        }
        self.go_on()
    }

    fn orphaned(self: Arc<Self>, at: &Place) {
        let mut settings = self.settings.lock();
        if !settings.place.as_ref().is_some_and(|place| place.is(at)) {
            return;
        }
        settings.place = None;
        let dropped = settings.abandon();
        let is_finishing = settings.phase != Phase::Listening;
        drop(settings);
        drop(dropped);
        if is_finishing {
            // Nobody will finish it.
            self.close();
        }
    }
}
