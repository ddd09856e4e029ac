//! `--keep` without `--exec`: what comes from stdin goes to all who are connected then, and what comes from them to stdout.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use sslfile::SslFile;

use crate::args::Args;
use crate::crlf::Crlf;
use crate::exit::{self, Failure};
use crate::transfer::{read_some, CHUNK};

/// How many chunks a peer may be behind the others before they wait for it.
const BEHIND: usize = 16;

/// For all of them.
type Chunk = Arc<[u8]>;

pub struct Broadcast {
    args: &'static Args,
    peers: Mutex<Peers>,
    came: Condvar,
    end: mpsc::Sender<Failure>,
}

#[derive(Default)]
struct Peers {
    queues: HashMap<u64, SyncSender<Chunk>>,
    last: u64,
    stdin: Stdin,
}

#[derive(Default, PartialEq)]
enum Stdin {
    /// Nobody is there yet to whom it could be sent.
    #[default]
    Unread,
    Read,
    Ended,
}

impl Broadcast {
    pub fn new(args: &'static Args, end: mpsc::Sender<Failure>) -> Broadcast {
        Broadcast { args, peers: Mutex::default(), came: Condvar::new(), end }
    }

    /// Until the peer has ended, and has what was sent up to then.
    pub fn converse(self: &Arc<Self>, file: &SslFile) -> Result<(), Failure> {
        let connection = &self.args.connection;
        // Who takes nothing for so long does not keep the others waiting: half of it, or they would be out of time as well.
        let set = file
            .set_read_timeout(connection.timeout)
            .and_then(|()| file.set_write_timeout(Some(connection.patience() / 2)));
        set.map_err(|error| Failure::tls(exit::TRANSFER, error))?;

        let (number, queue) = self.enter()?;
        let sent = Arc::new(AtomicU64::new(0));
        let sender = {
            let (args, file, sent) = (self.args, file.clone(), sent.clone());
            thread::Builder::new().spawn(move || send(args, &file, &queue, &sent))
        };
        let received = match &sender {
            Ok(_) => self.receive(file, &sent),
            Err(error) => Err(Failure::new(exit::LOCAL, error)),
        };
        self.lock().queues.remove(&number);
        let sender_was_first = sender.as_ref().is_ok_and(thread::JoinHandle::is_finished);
        if received.is_err() {
            file.abort();
        }
        let sent = match sender.map(thread::JoinHandle::join) {
            Ok(Ok(sent)) => sent,
            Ok(Err(_)) | Err(_) => Err(Failure::new(exit::LOCAL, "the sending thread is gone")),
        };
        match (received, sent) {
            (Ok(()), Ok(())) => {
                let _ = file.close();
                Ok(())
            }
            (Err(_), Err(failure)) if sender_was_first => Err(failure),
            (received, sent) => received.and(sent),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue has ended already if stdin has.
    fn enter(self: &Arc<Self>) -> Result<(u64, Receiver<Chunk>), Failure> {
        let (queue, wanted) = mpsc::sync_channel(BEHIND);
        let mut peers = self.lock();
        if peers.stdin == Stdin::Unread {
            let broadcast = self.clone();
            let reading = thread::Builder::new().spawn(move || broadcast.read_stdin());
            reading.map_err(|error| Failure::new(exit::LOCAL, error))?;
            peers.stdin = Stdin::Read;
        }
        peers.last += 1;
        let number = peers.last;
        if peers.stdin != Stdin::Ended {
            peers.queues.insert(number, queue);
        }
        self.came.notify_all();
        Ok((number, wanted))
    }

    fn read_stdin(&self) {
        let mut input = io::stdin().lock();
        let mut crlf = Crlf::new(self.args.transfer.crlf);
        let mut buf = vec![0; CHUNK];
        loop {
            let n = match read_some(&mut input, &mut buf) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => {
                    let _ = self.end.send(Failure::local("stdin", error));
                    return;
                }
            };
            let chunk: Chunk = crlf.ends(&buf[..n]).into();
            // It is lost on nobody: if all have gone meanwhile, it is for the next.
            let peers = self.came.wait_while(self.lock(), |peers| peers.queues.is_empty());
            let queues: Vec<_> = peers.unwrap_or_else(PoisonError::into_inner).queues.values().cloned().collect();
            for queue in queues {
                // One that has gone does not want it.
                let _ = queue.send(chunk.clone());
            }
        }
        let mut peers = self.lock();
        peers.stdin = Stdin::Ended;
        peers.queues.clear();
    }

    fn receive(&self, mut file: &SslFile, sent: &AtomicU64) -> Result<(), Failure> {
        let mut buf = vec![0; CHUNK];
        loop {
            let before = sent.load(Ordering::Relaxed);
            let n = match file.read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                // Nothing came, but something went.
                Err(error) if error.kind() == io::ErrorKind::TimedOut && sent.load(Ordering::Relaxed) != before => {
                    continue
                }
                Err(error) => return Err(Failure::tls(exit::TRANSFER, error)),
            };
            let mut output = io::stdout().lock();
            if let Err(error) = output.write_all(&buf[..n]).and_then(|()| output.flush()) {
                // Nobody would see what others send.
                let _ = self.end.send(Failure::local("stdout", error));
                return Err(Failure::new(exit::LOCAL, "stdout is closed"));
            }
        }
    }
}

/// Until there is nothing more to send: the end of stdin, or of this connection.
fn send(args: &Args, mut file: &SslFile, queue: &Receiver<Chunk>, sent: &AtomicU64) -> Result<(), Failure> {
    let mut send = || -> io::Result<()> {
        for chunk in queue {
            file.write_all(&chunk)?;
            sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        if args.transfer.no_shutdown {
            return Ok(());
        }
        file.shutdown(Shutdown::Write)?;
        file.flush()
    };
    send().map_err(|error| {
        // Its peer would wait for the rest, and we for its peer.
        file.abort();
        Failure::tls(exit::TRANSFER, error)
    })
}
