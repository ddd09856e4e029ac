//! Contexts from what was set up with a TLS library itself.

use super::Context;

/// For clients: opening a server is `InvalidInput`. All that the connector was told holds; the name given when a file is
/// opened is the one it verifies. What is said by [`ContextBuilder`](crate::ContextBuilder) alone is at its default.
/// Version bounds of a file are `Unsupported`.
#[cfg(feature = "native-tls")]
impl From<native_tls::TlsConnector> for Context {
    fn from(connector: native_tls::TlsConnector) -> Context {
        Context::foreign(connector)
    }
}

/// For servers: opening a client is `InvalidInput`. All that the acceptor was told holds. What is said by
/// [`ContextBuilder`](crate::ContextBuilder) alone is at its default. Version bounds of a file are `Unsupported`.
#[cfg(feature = "native-tls")]
impl From<native_tls::TlsAcceptor> for Context {
    fn from(acceptor: native_tls::TlsAcceptor) -> Context {
        Context::foreign(acceptor)
    }
}

/// For clients: opening a server is `InvalidInput`. All that the connector was told holds, and it is what decides on
/// certificates; the name given when a file is opened is sent (SNI), and the certificate must be for it. What is said by
/// [`ContextBuilder`](crate::ContextBuilder) alone is at its default. Version bounds of a file replace the connector's.
#[cfg(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))]
impl From<openssl::ssl::SslConnector> for Context {
    fn from(connector: openssl::ssl::SslConnector) -> Context {
        Context::foreign(connector)
    }
}

/// For servers: opening a client is `InvalidInput`. All that the acceptor was told holds. What is said by
/// [`ContextBuilder`](crate::ContextBuilder) alone is at its default. Version bounds of a file replace the acceptor's.
#[cfg(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))]
impl From<openssl::ssl::SslAcceptor> for Context {
    fn from(acceptor: openssl::ssl::SslAcceptor) -> Context {
        Context::foreign(acceptor)
    }
}

/// For the roles its `SslMethod` has, which shows in the handshake. All that the context was told holds, and nothing is
/// added to it: one that was not told to verify does not. On a client the name given when a file is opened is sent (SNI),
/// and where the context verifies, the certificate must be for it. What is said by
/// [`ContextBuilder`](crate::ContextBuilder) alone is at its default. Version bounds of a file replace the context's.
///
/// No `SslMode` needs to be set: what they are for cannot arise, since OpenSSL never meets the socket here.
#[cfg(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))]
impl From<openssl::ssl::SslContext> for Context {
    fn from(context: openssl::ssl::SslContext) -> Context {
        Context::foreign(context)
    }
}

/// For clients, with [`Engine::Rustls`](crate::Engine::Rustls). The configuration decides on trust, versions and all else;
/// the name that is given when a file is opened is the one it checks. Bounds of versions for single files, and
/// [`verified_chain`](crate::SslFile::verified_chain), are not to be had.
#[cfg(feature = "rustls")]
impl From<std::sync::Arc<rustls::ClientConfig>> for Context {
    fn from(config: std::sync::Arc<rustls::ClientConfig>) -> Context {
        Context::foreign(config)
    }
}

/// For servers, with [`Engine::Rustls`](crate::Engine::Rustls). As for clients.
#[cfg(feature = "rustls")]
impl From<std::sync::Arc<rustls::ServerConfig>> for Context {
    fn from(config: std::sync::Arc<rustls::ServerConfig>) -> Context {
        Context::foreign(config)
    }
}
