//! What was set up with the `openssl` crate itself.

use std::net::IpAddr;

use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslAcceptor, SslConnector, SslContext};

use super::resumption::Client;
use super::{bound, expect_name, refuse_ssl3, setup_error, OpenSslSession};
use crate::engine::{Engine, Foreign, Library, Resumable, Session};
use crate::error::Error;
use crate::role::Role;
use crate::version::Bounds;

enum Made {
    Connector(SslConnector),
    Acceptor(SslAcceptor),
    Either(SslContext),
}

impl Foreign for SslConnector {
    const ENGINE: Engine = Engine::OpenSsl;

    fn into_library(self) -> Box<dyn Library> {
        Box::new(Made::Connector(self))
    }
}

impl Foreign for SslAcceptor {
    const ENGINE: Engine = Engine::OpenSsl;

    fn into_library(self) -> Box<dyn Library> {
        Box::new(Made::Acceptor(self))
    }
}

impl Foreign for SslContext {
    const ENGINE: Engine = Engine::OpenSsl;

    fn into_library(self) -> Box<dyn Library> {
        Box::new(Made::Either(self))
    }
}

impl Library for Made {
    fn open(
        &self,
        role: Role,
        server_name: &str,
        versions: Bounds,
        resume: Option<&Resumable>,
    ) -> Result<Box<dyn Session>, Error> {
        refuse_ssl3(versions)?;
        let made = match (self, role) {
            (Made::Connector(connector), Role::Client) => {
                connector.configure().and_then(|connect| connect.into_ssl(server_name))
            }
            (Made::Acceptor(acceptor), Role::Server) => Ssl::new(acceptor.context()),
            (Made::Either(context), Role::Server) => Ssl::new(context),
            (Made::Either(context), Role::Client) => client(context, server_name),
            (Made::Connector(_), Role::Server) => {
                return Err(Error::invalid_input("a context made from an SslConnector is for clients only"))
            }
            (Made::Acceptor(_), Role::Client) => {
                return Err(Error::invalid_input("a context made from an SslAcceptor is for servers only"))
            }
        };
        let bounded = made.and_then(|mut ssl| {
            if versions != Bounds::default() {
                bound(&mut ssl, versions)?;
            }
            let client = match resume {
                Some(shared) => Client::resume(&mut ssl, shared)?,
                None => Client::default(),
            };
            Ok((ssl, client))
        });
        let (ssl, client) = bounded.map_err(|e| setup_error("OpenSSL", e))?;
        OpenSslSession::open(ssl, role, server_name, true, client)
    }

    fn resumable_from(&self, kept: &[u8]) -> Option<Result<Resumable, Error>> {
        Some(Client::resumable_from(kept))
    }
}

fn client(context: &SslContext, server_name: &str) -> Result<Ssl, ErrorStack> {
    let mut ssl = Ssl::new(context)?;
    if server_name.parse::<IpAddr>().is_err() {
        ssl.set_hostname(server_name)?;
    }
    // Has no effect where nothing is verified.
    expect_name(&mut ssl, server_name, false)?;
    Ok(ssl)
}
