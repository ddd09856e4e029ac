//! Contexts made with the `openssl` crate itself.

use std::net::IpAddr;

use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslAcceptor, SslConnector, SslContext};

use super::{bound, expect_name, refuse_ssl3, setup_error, OpenSslSession};
use crate::context::Context;
use crate::engine::{Engine, Library, Session};
use crate::error::Error;
use crate::role::Role;
use crate::version::Bounds;

enum Foreign {
    Connector(SslConnector),
    Acceptor(SslAcceptor),
    Either(SslContext),
}

/// For clients: opening a server is `InvalidInput`. All that the connector was told holds, and it is what decides on
/// certificates; the name given when a file is opened is sent (SNI), and the certificate must be for it. What is said by
/// [`ContextBuilder`](crate::ContextBuilder) alone is at its default. Version bounds of a file replace the connector's.
impl From<SslConnector> for Context {
    fn from(connector: SslConnector) -> Context {
        Context::foreign(Engine::OpenSsl, Box::new(Foreign::Connector(connector)))
    }
}

/// For servers: opening a client is `InvalidInput`. All that the acceptor was told holds. What is said by
/// [`ContextBuilder`](crate::ContextBuilder) alone is at its default. Version bounds of a file replace the acceptor's.
impl From<SslAcceptor> for Context {
    fn from(acceptor: SslAcceptor) -> Context {
        Context::foreign(Engine::OpenSsl, Box::new(Foreign::Acceptor(acceptor)))
    }
}

/// For the roles its `SslMethod` has, which shows in the handshake. All that the context was told holds, and nothing is
/// added to it: one that was not told to verify does not. On a client the name given when a file is opened is sent (SNI),
/// and where the context verifies, the certificate must be for it. What is said by
/// [`ContextBuilder`](crate::ContextBuilder) alone is at its default. Version bounds of a file replace the context's.
///
/// No `SslMode` needs to be set: what they are for cannot arise, since OpenSSL never meets the socket here.
impl From<SslContext> for Context {
    fn from(context: SslContext) -> Context {
        Context::foreign(Engine::OpenSsl, Box::new(Foreign::Either(context)))
    }
}

impl Library for Foreign {
    fn open(&self, role: Role, server_name: &str, versions: Bounds) -> Result<Box<dyn Session>, Error> {
        refuse_ssl3(versions)?;
        let made = match (self, role) {
            (Foreign::Connector(connector), Role::Client) => {
                connector.configure().and_then(|connect| connect.into_ssl(server_name))
            }
            (Foreign::Acceptor(acceptor), Role::Server) => Ssl::new(acceptor.context()),
            (Foreign::Either(context), Role::Server) => Ssl::new(context),
            (Foreign::Either(context), Role::Client) => client(context, server_name),
            (Foreign::Connector(_), Role::Server) => {
                return Err(Error::invalid_input("a context made from an SslConnector is for clients only"))
            }
            (Foreign::Acceptor(_), Role::Client) => {
                return Err(Error::invalid_input("a context made from an SslAcceptor is for servers only"))
            }
        };
        let bounded = made.and_then(|mut ssl| {
            if versions != Bounds::default() {
                bound(&mut ssl, versions)?;
            }
            Ok(ssl)
        });
        OpenSslSession::open(bounded.map_err(|e| setup_error("OpenSSL", e))?, role, true)
    }
}

fn client(context: &SslContext, server_name: &str) -> Result<Ssl, ErrorStack> {
    let mut ssl = Ssl::new(context)?;
    if server_name.parse::<IpAddr>().is_err() {
        ssl.set_hostname(server_name)?;
    }
    // Has no effect where nothing is verified.
    expect_name(&mut ssl, server_name)?;
    Ok(ssl)
}
