//! `--keep`: connections for ever, beside each other. None of them can end the server, or keep others from being served.

use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use socket2::SockRef;
use sslfile::SslFile;

use crate::args::Args;
use crate::broadcast::Broadcast;
use crate::exit::{self, Failure};
use crate::listen::Listener;
use crate::{advice, exec, report, tell};

/// How many may be at their handshake. Those who say nothing are sent away by its time-out, and take no place of --max-conns.
const AT_THE_DOOR: usize = 256;

struct House {
    args: &'static Args,
    door: Places,
    rooms: Places,
    broadcast: Arc<Broadcast>,
    /// What ends the server.
    end: mpsc::Sender<Failure>,
}

pub fn serve(args: &'static Args) -> Result<(), Failure> {
    let listener = Listener::bind(args)?;
    let (end, ended) = mpsc::channel();
    let house = Arc::new(House {
        args,
        door: Places::new(AT_THE_DOOR),
        rooms: Places::new(args.listening.max_conns.into()),
        broadcast: Arc::new(Broadcast::new(args, end.clone())),
        end,
    });
    let accepting = thread::Builder::new().spawn(move || house.accept(&listener));
    accepting.map_err(|error| Failure::new(exit::LOCAL, error))?;
    ended.recv().map_or(Ok(()), Err)
}

impl House {
    fn accept(self: Arc<House>, listener: &Listener) {
        loop {
            let at_the_door = self.door.take();
            match listener.accept(self.args) {
                Ok((file, peer)) => {
                    let house = self.clone();
                    // What can't be served is cut.
                    let serving = thread::Builder::new().spawn(move || house.serve(&file, &peer, at_the_door));
                    if let Err(error) = serving {
                        tell(format!("a connection is lost: {error}"));
                    }
                }
                Err(error) => {
                    let _ = self.end.send(Failure::new(exit::CONNECT, error));
                    return;
                }
            }
        }
    }

    fn serve(&self, file: &SslFile, peer: &str, at_the_door: Place) {
        let args = self.args;
        if args.output.verbose {
            tell(format!("{peer}: connected"));
        }
        if let Err(error) = file.handshake() {
            let failure = Failure::tls(exit::HANDSHAKE, error);
            report::failed(args, &failure);
            return self.tell(peer, &failure);
        }
        // Without -w a peer that has vanished would keep its place for ever.
        let _ = SockRef::from(file.get_ref()).set_keepalive(true);
        let _room = self.rooms.take();
        drop(at_the_door);
        report::negotiated(args, file, None);
        let served = match &args.listening.exec {
            Some(command) => exec::converse(args, file, command),
            None => self.broadcast.converse(file),
        };
        match served {
            Ok(()) if args.output.verbose => tell(format!("{peer}: ended")),
            Ok(()) => {}
            Err(failure) => self.tell(peer, &failure),
        }
    }

    fn tell(&self, peer: &str, failure: &Failure) {
        // An error of TLS has the peer in it.
        let text = failure.text.strip_prefix(&format!("{peer}: ")).unwrap_or(&failure.text);
        tell(format!("{peer}: {text}"));
        for advice in advice::on(failure, self.args) {
            tell(format!("{peer}: advice: {advice}"));
        }
    }
}

/// So many, and who wants one more waits.
#[derive(Clone)]
struct Places(Arc<(Mutex<usize>, Condvar)>);

struct Place(Places);

impl Places {
    fn new(free: usize) -> Places {
        Places(Arc::new((Mutex::new(free), Condvar::new())))
    }

    fn take(&self) -> Place {
        let (free, changed) = &*self.0;
        let free = free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = changed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (free, changed) = &*self.0 .0;
        *free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        changed.notify_one();
    }
}
