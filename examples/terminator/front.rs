//! Where clients come in: the certificates they are shown, the ports they come to.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use socket2::{Domain, Socket, Type};
use sslfile::{Backend, ClientAuth, Context, Identity, SslListener};

use crate::behind::Behind;
use crate::pair::{Gate, Pair};
use crate::proxy::Ends;
use crate::{log, Args};

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

pub enum Front {
    Tls(Vec<SslListener>),
    Behind(Arc<Behind>, JoinHandle<()>),
}

impl Front {
    pub fn open(args: &Args, backends: &[Backend], gate: &Arc<Gate>) -> io::Result<(Front, SocketAddr)> {
        let context = context(args)?;
        let number = if args.accept_proxy { 1 } else { backends.len() };
        let mut ports = bind(args.listen, number)?;
        let addr = ports[0].local_addr()?;
        if args.accept_proxy {
            let (behind, acceptor) = Behind::start(gate, context, ports.remove(0), backends)?;
            return Ok((Front::Behind(behind, acceptor), addr));
        }
        let listeners = ports.into_iter().zip(backends).map(|(port, backend)| {
            let listener = SslListener::from_tcp(port, &context)?;
            let (failed, accepted) = (gate.clone(), gate.clone());
            listener.set_error_callback(move |addr, error| failed.handshake_failed(addr, &error));
            // Without a handle on it: the backend must not hold itself.
            listener.set_accept_callback(backend, move |client, from| {
                let server = client.local_addr().unwrap_or(addr);
                Pair::join(&accepted, client, Ends { client: from, server });
            })?;
            Ok(listener)
        });
        Ok((Front::Tls(listeners.collect::<io::Result<_>>()?), addr))
    }

    pub fn set_context(&self, context: &Context) {
        match self {
            Front::Tls(listeners) => listeners.iter().for_each(|listener| listener.set_context(context)),
            Front::Behind(behind, _) => behind.set_context(context),
        }
    }

    /// Takes who is in the system's queue already, and nobody else.
    pub fn finish(&self) {
        match self {
            Front::Tls(listeners) => listeners.iter().for_each(SslListener::finish),
            Front::Behind(behind, _) => behind.stop(),
        }
    }

    /// Whether nobody comes any more, but for those of whom the backends know.
    pub fn is_finished(&self) -> bool {
        match self {
            // They stay in their backends until they have handed out the last one.
            Front::Tls(_) => true,
            Front::Behind(_, acceptor) => acceptor.is_finished(),
        }
    }
}
