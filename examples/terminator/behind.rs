//! Behind another proxy: its PROXY header comes first, then TLS.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;
use sslfile::{Backend, Callbacks, Context, PlainFile, SslFile};

use crate::log;
use crate::pair::{Gate, Pair};
use crate::proxy::Ends;

/// From the connection to the end of its header.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the acceptor looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

pub struct Behind {
    gate: Arc<Gate>,
    context: Mutex<Context>,
    stopping: AtomicBool,
}

impl Behind {
    pub fn start(
        gate: &Arc<Gate>,
        context: Context,
        port: TcpListener,
        backends: &[Backend],
    ) -> io::Result<(Arc<Behind>, JoinHandle<()>)> {
        SockRef::from(&port).set_read_timeout(Some(LOOK))?;
        let behind = Behind { gate: gate.clone(), context: Mutex::new(context), stopping: AtomicBool::new(false) };
        let (behind, backends) = (Arc::new(behind), backends.to_vec());
        let acceptor = behind.clone();
        Ok((behind, thread::spawn(move || acceptor.accept(&port, &backends))))
    }

    pub fn set_context(&self, context: &Context) {
        *self.context.lock().unwrap_or_else(PoisonError::into_inner) = context.clone();
    }

    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    fn accept(self: &Arc<Self>, port: &TcpListener, backends: &[Backend]) {
        let mut backends = backends.iter().cycle();
        loop {
            // Asked first: who is in the queue by then is taken.
            let stopping = self.stopping.load(Relaxed) && port.set_nonblocking(true).is_ok();
            match (port.accept(), stopping) {
                (Ok((tcp, addr)), _) => {
                    let (behind, Some(backend)) = (self.clone(), backends.next().cloned()) else { return };
                    // On the loop, so that nobody else has a handle on the file.
                    backend.clone().call_out(Duration::ZERO, move || {
                        let read = behind.read_header(tcp, addr, backend);
                        read.unwrap_or_else(|error| log::warn(log::about(addr, &error)));
                    });
                }
                (Err(e), true) if e.kind() == io::ErrorKind::WouldBlock => return,
                (Err(e), false) if e.kind() == io::ErrorKind::WouldBlock => {}
                (Err(e), _) => {
                    log::warn(e);
                    thread::sleep(LOOK);
                }
            }
        }
    }

    fn read_header(self: Arc<Self>, tcp: TcpStream, addr: SocketAddr, backend: Backend) -> io::Result<()> {
        // It has the port's.
        tcp.set_read_timeout(None)?;
        let own = tcp.local_addr()?;
        let plain = PlainFile::new(tcp);
        plain.set_nonblocking(true)?;
        plain.set_backend(Some(&backend))?;
        plain.set_read_deadline(Some(Instant::now() + PATIENCE))?;
        // The file is owned by its own callback, until that goes: at its end, or here.
        let (owned, mut so_far) = (plain.clone(), Vec::new());
        let on_read = move |file: &PlainFile, data: &[u8]| {
            so_far.extend_from_slice(data);
            let found = Ends::read(&so_far).inspect_err(|bad| log::warn(format_args!("{addr}: {bad}")));
            if let Ok(None) = found {
                return;
            }
            drop(file.take_callbacks());
            if let Ok(Some((length, ends))) = found {
                let (behind, plain, rest) = (self.clone(), owned.clone(), so_far.split_off(length));
                let (ends, handle) = (ends.unwrap_or(Ends { client: addr, server: own }), backend.clone());
                // The stream can't be had while a callback of its file runs.
                backend.call_out(Duration::ZERO, move || behind.begin_tls(plain, rest, ends, &handle));
            }
        };
        let on_close = move |_: &PlainFile, end: io::Result<()>| {
            let _ = end.inspect_err(|error| log::warn(log::about(addr, error)));
        };
        plain.set_callbacks(Callbacks::new().on_read(on_read).on_close(on_close));
        Ok(())
    }

    fn begin_tls(&self, plain: PlainFile, mut rest: Vec<u8>, ends: Ends, backend: &Backend) {
        let Ok((tcp, more)) = plain.into_stream() else { return };
        rest.extend(more);
        let context = self.context.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let options = SslFile::options().server().nonblocking(true).backend(backend).already_read(rest);
        match options.open(tcp, &context) {
            Ok(file) => {
                let (joins, fails, owned) = (self.gate.clone(), self.gate.clone(), file.clone());
                let on_accept = move |file: &SslFile| {
                    drop(file.take_callbacks());
                    Pair::join(&joins, owned.clone(), ends);
                };
                let on_close = move |_: &SslFile, end: io::Result<()>| {
                    let _ = end.inspect_err(|error| fails.handshake_failed(ends.client, error));
                };
                file.set_callbacks(Callbacks::new().on_accept(on_accept).on_close(on_close));
            }
            Err(error) => self.gate.handshake_failed(ends.client, error.error()),
        }
    }
}
