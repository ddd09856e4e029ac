//! Where clients come in: the certificates they are shown, the ports they come to.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use sslfile::{Backend, ClientAuth, Context, Identity, SslListener};

use crate::pair::{Gate, Pair};
use crate::proxy::Ends;
use crate::{behind, log, Args};

/// What is wrong with the files shows here, and not when a client comes.
pub fn context(args: &Args) -> io::Result<Context> {
    let identity = |cert: &Path, key: &Path| {
        Identity::from_pem_files(cert, key).map_err(|e| io::Error::new(e.kind(), log::about(cert.display(), &e)))
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
fn bind(mut addr: SocketAddr, number: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for _ in 0..number {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // The first has the port to itself before it shares it: a second start fails, and does not take half of the clients.
        socket.set_reuse_port(!listeners.is_empty())?;
        socket.bind(&addr.into()).map_err(|e| io::Error::new(e.kind(), format!("{addr}: {e}")))?;
        socket.listen(1024)?;
        socket.set_reuse_port(true)?;
        listeners.push(TcpListener::from(socket));
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
        let context = context(args)?;
        let ports = bind(args.listen, if args.accept_proxy { 1 } else { backends.len() })?;
        let addr = ports[0].local_addr()?;
        let listeners = ports.into_iter().map(|port| SslListener::from_tcp(port, &context));
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        if args.accept_proxy {
            let (listener, backends, gate) = (listeners[0].try_clone()?, backends.to_vec(), gate.clone());
            let acceptor = Some(thread::spawn(move || behind::accept(&listener, &backends, &gate)));
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

    pub fn set_context(&self, context: &Context) {
        self.listeners.iter().for_each(|listener| listener.set_context(context));
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
