//! `sslfile::SslFile`, on one engine or another.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use sslfile::{Certificate, Context, ContextBuilder, Engine, Identity, SslFile, SslOptions, Version};

use crate::certs::{certs, NAME};
use crate::peer::{End, Library, Reader, Role, Writer};
use crate::pin;

/// `busy_poll` is the option of that name, for both ends.
pub fn library(engine: Engine, busy_poll: Duration) -> io::Result<Library> {
    // As in a program that binds its threads first: it must not take the one processor for all there are.
    let options = pin::bound(|| SslFile::options().busy_poll(busy_poll));
    let role = |client, resumption| -> io::Result<Box<dyn Role>> {
        let options = if client { options.clone().client(NAME) } else { options.clone().server() };
        Ok(Box::new(Ours { context: context(engine, client, resumption)?, options }))
    };
    let resuming = match engine {
        // native-tls resumes nothing.
        Engine::Native => None,
        _ => Some((role(true, true)?, role(false, true)?)),
    };
    Ok(Library { client: role(true, false)?, server: role(false, false)?, resuming })
}

/// What a server of another kind speaks with: the suite that all are measured with.
pub fn server(engine: Engine, resumption: bool) -> io::Result<Context> {
    context(engine, false, resumption)
}

/// The same for a client that resumes nothing.
pub fn client(engine: Engine) -> io::Result<Context> {
    context(engine, true, false)
}

struct Ours {
    context: Context,
    options: SslOptions,
}

fn context(engine: Engine, client: bool, resumption: bool) -> io::Result<Context> {
    let mut builder = pin(Context::builder().engine(engine), engine);
    // A server that resumes nothing still sends tickets, as everyone's does, unless told not to.
    if engine != Engine::Native && (client || resumption) {
        builder = builder.session_resumption(resumption);
    }
    if client {
        builder = builder.system_roots(false);
        builder = builder.add_root(Certificate::from_pem(certs().ca.as_bytes())?);
    } else {
        let (leaf, key) = (certs().leaf.as_bytes(), certs().key.as_bytes());
        builder = builder.identity(Identity::from_pem(leaf, key)?);
    }
    builder.build()
}

/// The suite that all are measured with, except that native-tls has no say in it.
fn pin(builder: ContextBuilder, engine: Engine) -> ContextBuilder {
    let tls13 = |builder: ContextBuilder| builder.min_version(Version::Tls1_3).max_version(Version::Tls1_3);
    match engine {
        Engine::Native => builder,
        // It is the first that rustls offers, and the one it chooses.
        Engine::Rustls => tls13(builder),
        _ => tls13(builder).ciphersuites("TLS_AES_256_GCM_SHA384"),
    }
}

impl Ours {
    fn shake(&self, tcp: TcpStream) -> io::Result<SslFile> {
        Ok(self.options.clone().open(tcp, &self.context)?)
    }
}

impl Role for Ours {
    fn open(&self, tcp: TcpStream) -> io::Result<Box<dyn End>> {
        Ok(Box::new(self.shake(tcp)?))
    }

    fn open_both_ways(&self, tcp: TcpStream) -> io::Result<(Reader, Writer)> {
        let file = self.shake(tcp)?;
        Ok((Box::new(file.try_clone()?), Box::new(file)))
    }
}

impl End for SslFile {
    fn negotiated(&self) -> String {
        match (self.version(), self.cipher()) {
            (Some(version), Some(cipher)) => format!("{version} {cipher}"),
            _ => "not told by the library".to_string(),
        }
    }

    fn is_resumed(&self) -> Option<bool> {
        SslFile::is_resumed(self)
    }

    /// Dropping the last handle says close_notify.
    fn finish(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}
