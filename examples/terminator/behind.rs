//! Behind another proxy: its PROXY header comes first, then TLS.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sslfile::{Backend, Callbacks, Context, PlainFile, SslFile, SslListener};

use crate::log;
use crate::pair::{Gate, Pair};
use crate::proxy::Ends;

/// From the connection to the end of its header.
const PATIENCE: Duration = Duration::from_secs(5);

/// Until the listener is made non-blocking: then those who are in its queue are the last.
pub fn accept(listener: &SslListener, backends: &[Backend], gate: &Arc<Gate>) {
    for backend in backends.iter().cycle() {
        let Ok((file, addr)) = listener.accept() else { break };
        let (context, gate, backend) = (file.context(), gate.clone(), backend.clone());
        // Of TLS nothing has been said yet.
        let Ok((tcp, _)) = file.release() else { continue };
        // On the loop, so that nobody else has a handle on the file.
        backend.clone().call_out(Duration::ZERO, move || {
            let read = read_header(tcp, addr, context, gate, backend);
            read.unwrap_or_else(|error| log::warn(log::about(addr, &error)));
        });
    }
    listener.close();
}

fn read_header(
    tcp: TcpStream,
    addr: SocketAddr,
    context: Context,
    gate: Arc<Gate>,
    backend: Backend,
) -> io::Result<()> {
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
            let (plain, rest) = (owned.clone(), so_far.split_off(length));
            let ends = ends.unwrap_or(Ends { client: addr, server: own });
            let (context, gate, handle) = (context.clone(), gate.clone(), backend.clone());
            // The stream can't be had while a callback of its file runs.
            backend.call_out(Duration::ZERO, move || begin_tls(plain, rest, ends, &context, &gate, &handle));
        }
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
