//! The load generator's TLS, with OpenSSL, or with rustls where that is not to be had.
//!
//! It offers TLS 1.3 with AES-256-GCM and X25519, and for native-tls, whose servers accept nothing newer, TLS 1.2 with
//! ECDHE-ECDSA-AES256-GCM-SHA384. Each server has a certificate of its own, which is not what is measured.

#[cfg(feature = "openssl")]
pub use with_openssl::*;
#[cfg(not(feature = "openssl"))]
pub use with_rustls::*;

#[cfg(feature = "openssl")]
mod with_openssl {
    use std::io;
    use std::net::TcpStream;

    use openssl::ssl::{
        SslConnector, SslConnectorBuilder, SslContext, SslMethod, SslSession, SslSessionCacheMode, SslStream,
        SslVerifyMode, SslVersion,
    };

    use openssl::x509::store::X509StoreBuilder;

    use crate::certs::NAME;

    pub type Stream = SslStream<TcpStream>;

    pub struct Connector(SslConnector);

    impl Connector {
        pub fn new() -> io::Result<Connector> {
            Ok(Connector(Connector::builder()?.build()))
        }

        /// For those who bring their own connections: each session that can be resumed is handed out.
        pub fn with_sessions(store: impl Fn(SslSession) + Send + Sync + 'static) -> io::Result<SslContext> {
            let mut builder = Connector::builder()?;
            builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
            builder.set_new_session_callback(move |_, session| store(session));
            Ok(builder.build().into_context())
        }

        fn builder() -> io::Result<SslConnectorBuilder> {
            let mut builder = SslConnector::builder(SslMethod::tls_client())?;
            builder.set_verify(SslVerifyMode::NONE);
            // A chain is looked for all the same: in files, for half a millisecond, unless there is nothing to look in.
            builder.set_cert_store(X509StoreBuilder::new()?.build());
            builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
            builder.set_cipher_list("ECDHE-ECDSA-AES256-GCM-SHA384")?;
            builder.set_ciphersuites("TLS_AES_256_GCM_SHA384")?;
            builder.set_groups_list("X25519:P-256")?;
            // One call for a record, not two.
            builder.set_read_ahead(true);
            Ok(builder)
        }

        pub fn connect(&self, tcp: TcpStream) -> io::Result<Stream> {
            self.0.connect(NAME, tcp).map_err(|e| io::Error::other(e.to_string()))
        }
    }

    pub fn negotiated(stream: &Stream) -> String {
        let suite = stream.ssl().current_cipher().map_or("no suite", |suite| suite.name());
        format!("{} {suite}", stream.ssl().version_str())
    }

    pub fn close(stream: &mut Stream) {
        let _ = stream.shutdown();
    }
}

#[cfg(not(feature = "openssl"))]
mod with_rustls {
    use std::io;
    use std::net::TcpStream;
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{ring, CryptoProvider};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};

    use crate::certs::NAME;

    pub type Stream = StreamOwned<ClientConnection, TcpStream>;

    pub struct Connector(Arc<ClientConfig>);

    impl Connector {
        pub fn new() -> io::Result<Connector> {
            let provider = CryptoProvider {
                cipher_suites: vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384],
                kx_groups: vec![ring::kx_group::X25519],
                ..ring::default_provider()
            };
            let config = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(io::Error::other)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unchecked))
                .with_no_client_auth();
            Ok(Connector(Arc::new(config)))
        }

        pub fn connect(&self, mut tcp: TcpStream) -> io::Result<Stream> {
            let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
            let mut tls = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
            while tls.is_handshaking() {
                tls.complete_io(&mut tcp)?;
            }
            Ok(StreamOwned::new(tls, tcp))
        }
    }

    pub fn negotiated(stream: &Stream) -> String {
        let (version, suite) = (stream.conn.protocol_version(), stream.conn.negotiated_cipher_suite());
        format!("{:?} {:?}", version, suite.map(|suite| suite.suite()))
    }

    pub fn close(stream: &mut Stream) {
        stream.conn.send_close_notify();
        let _ = stream.conn.write_tls(&mut stream.sock);
    }

    #[derive(Debug)]
    struct Unchecked;

    impl ServerCertVerifier for Unchecked {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
}
