//! Where clients come in: the certificates they are shown, the ports they come to, and another proxy that may stand before us.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use sslfile::{Backend, Callbacks, ClientAuth, Context, Identity, PlainFile, SslFile, SslListener};

use crate::pair::{Gate, Pair};
use crate::proxy::Ends;
use crate::{log, Args};

/// What is wrong with the files shows here, and not when a client comes.
fn context(args: &Args) -> io::Result<Context> {
    let identity = |cert: &Path, key: &Path| {
        Identity::from_pem_files(cert, key).map_err(|error| log::about(cert.display(), &error))
    };
    let key = args.key.as_ref().unwrap_or(&args.cert);
    let mut builder = Context::builder().identity(identity(&args.cert, key)?).alpn(&args.alpn);
    for entry in args.certs.iter().map(fs::read_dir).collect::<io::Result<Vec<_>>>()?.into_iter().flatten() {
        let path = entry?.path();
        if let (Some(name), true) = (path.file_stem(), path.extension().is_some_and(|extension| extension == "pem")) {
            builder = builder.add_identity(&name.to_string_lossy(), identity(&path, &path)?);
        }
    }
    if let Some(ca) = &args.client_ca {
        builder = builder.system_roots(false).add_roots_from(ca).client_auth(ClientAuth::Require);
    }
    builder.build()
}

/// Listeners on one port; the system spreads the connections.
fn bind(mut addr: SocketAddr, number: usize, context: &Context) -> io::Result<Vec<SslListener>> {
    let mut listeners = Vec::new();
    for _ in 0..number {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // The first has the port to itself before it shares it: a second start fails, and does not take half of the clients.
        socket.set_reuse_port(!listeners.is_empty())?;
        socket.bind(&addr.into()).map_err(|error| log::about(addr, &error))?;
        socket.listen(1024)?;
        socket.set_reuse_port(true)?;
        listeners.push(SslListener::from_tcp(socket.into(), context)?);
        // Port 0 is chosen once.
        addr = listeners[0].local_addr()?;
    }
    Ok(listeners)
}

pub struct Front {
    listeners: Vec<SslListener>,
    /// Where another proxy stands before us.
    acceptor: Option<JoinHandle<()>>,
    pub addr: SocketAddr,
}

impl Front {
    pub fn open(args: &Args, backends: &[Backend], gate: &Arc<Gate>) -> io::Result<Front> {
        let number = if args.accept_proxy { 1 } else { backends.len() };
        let listeners = bind(args.listen, number, &context(args)?)?;
        let addr = listeners[0].local_addr()?;
        if args.accept_proxy {
            let (listener, backends, gate) = (listeners[0].try_clone()?, backends.to_vec(), gate.clone());
            let acceptor = Some(thread::spawn(move || accept(&listener, &backends, &gate)));
            return Ok(Front { listeners, acceptor, addr });
        }
        for (listener, backend) in listeners.iter().zip(backends) {
            let (failed, accepted) = (gate.clone(), gate.clone());
            listener.set_error_callback(move |addr, error| failed.handshake_failed(addr, &error));
            // Without a handle on it: the backend must not hold itself.
            listener.set_accept_callback(backend, move |client, from| {
                let server = client.local_addr().unwrap_or(addr);
                Pair::join(&accepted, client, Ends { client: from, server });
            })?;
        }
        Ok(Front { listeners, acceptor: None, addr })
    }

    pub fn renew(&self, args: &Args) -> io::Result<()> {
        let context = context(args)?;
        self.listeners.iter().for_each(|listener| listener.set_context(&context));
        Ok(())
    }

    /// Takes who is in the system's queue already, and nobody else.
    pub fn finish(&self) {
        if self.acceptor.is_none() {
            return self.listeners.iter().for_each(SslListener::finish);
        }
        // Who waits in `accept` looks again when somebody comes.
        let _ = self.listeners[0].set_nonblocking(true);
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_millis(100));
    }

    /// Whether nobody comes any more, but for those of whom the backends know.
    pub fn is_finished(&self) -> bool {
        self.acceptor.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// Behind another proxy: its PROXY header comes first, then TLS. Until the listener is made non-blocking: then those who are in
/// its queue are the last.
fn accept(listener: &SslListener, backends: &[Backend], gate: &Arc<Gate>) {
    for backend in backends.iter().cycle() {
        let Ok((file, addr)) = listener.accept() else { break };
        let (context, gate, handle) = (file.context(), gate.clone(), backend.clone());
        // Of TLS nothing has been said yet.
        let Ok((tcp, _)) = file.release() else { continue };
        // On the loop, so that nobody else has a handle on the file.
        backend.call_out(Duration::ZERO, move || {
            let read = read_header(tcp, addr, &handle.clone(), move |plain, rest, ends| {
                // The stream can't be had while a callback of its file runs.
                handle.clone().call_out(Duration::ZERO, move || begin_tls(plain, rest, ends, &context, &gate, &handle));
            });
            read.unwrap_or_else(|error| log::warn(log::about(addr, &error)));
        });
    }
    listener.close();
}

fn read_header<F>(tcp: TcpStream, addr: SocketAddr, backend: &Backend, then: F) -> io::Result<()>
where
    F: FnOnce(PlainFile, Vec<u8>, Ends) + Send + 'static,
{
    let own = Ends { client: addr, server: tcp.local_addr()? };
    let plain = PlainFile::new(tcp);
    plain.set_nonblocking(true)?;
    plain.set_backend(Some(backend))?;
    // To the end of the header.
    plain.set_read_deadline(Some(Instant::now() + Duration::from_secs(5)))?;
    // The file is owned by its own callback, until that goes: at its end, or here.
    let (owned, mut then, mut so_far) = (plain.clone(), Some(then), Vec::new());
    let on_read = move |file: &PlainFile, data: &[u8]| {
        so_far.extend_from_slice(data);
        match (Ends::read(&so_far), then.take()) {
            (Ok(None), waiting) => return then = waiting,
            (Ok(Some((length, ends))), Some(then)) => {
                then(owned.clone(), so_far.split_off(length), ends.unwrap_or(own))
            }
            (bad, _) => drop(bad.inspect_err(|bad| log::warn(format_args!("{addr}: {bad}")))),
        }
        drop(file.take_callbacks());
    };
    let on_close = move |_: &PlainFile, end: io::Result<()>| {
        let _ = end.inspect_err(|error| log::warn(log::about(addr, error)));
    };
    plain.set_callbacks(Callbacks::new().on_read(on_read).on_close(on_close));
    Ok(())
}

fn begin_tls(plain: PlainFile, mut rest: Vec<u8>, ends: Ends, context: &Context, gate: &Arc<Gate>, backend: &Backend) {
    let Ok((tcp, more)) = plain.into_stream() else { return };
    rest.extend(more);
    let file =
        match SslFile::options().server().nonblocking(true).backend(backend).already_read(rest).open(tcp, context) {
            Ok(file) => file,
            Err(error) => return gate.handshake_failed(ends.client, error.error()),
        };
    let (joins, fails, owned) = (gate.clone(), gate.clone(), file.clone());
    let on_accept = move |file: &SslFile| {
        drop(file.take_callbacks());
        Pair::join(&joins, owned.clone(), ends);
    };
    let on_close = move |_: &SslFile, end: io::Result<()>| {
        let _ = end.inspect_err(|error| fails.handshake_failed(ends.client, error));
    };
    file.set_callbacks(Callbacks::new().on_accept(on_accept).on_close(on_close));
}
