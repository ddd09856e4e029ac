//! The load generator: many TLS connections in one thread, the same for every server. It asks and waits for the answer, which is
//! the echo, or as much as was asked for.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use tls::{Connector, Stream};

pub struct Load {
    connections: Vec<Connection>,
    poll: Poll,
    events: Events,
    message: Vec<u8>,
    /// What comes back for it.
    answer: usize,
    buffer: Vec<u8>,
}

struct Connection {
    tls: Stream,
    /// The echo is not there yet.
    waits: bool,
    sent: usize,
    received: usize,
    asked: Instant,
    echoes: u64,
}

/// What came of a flood.
pub struct Flood {
    pub requests: u64,
    pub wall: Duration,
}

/// What came of asking now and then.
pub struct Trickle {
    pub latencies: Vec<Duration>,
    /// Echoes of the connection that had fewest, and of the one that had most.
    pub fewest: u64,
    pub most: u64,
    /// How often a connection was to ask and still waited for the echo before.
    pub overdue: u64,
}

/// The size of a request for an answer of another size: it begins with that, in digits.
pub const REQUEST: usize = 64;
/// How long an echo may take before the server counts as stuck.
const PATIENCE: Duration = Duration::from_secs(20);

impl Load {
    /// All connections, one after the other, each warmed up by one echo of 64 bytes.
    ///
    /// What native-tls accepts decides for all: TLS 1.2, ECDHE-ECDSA-AES256-GCM-SHA384.
    pub fn open(addr: SocketAddr, connections: usize) -> io::Result<Load> {
        let connector = Connector::new()?;
        let connections =
            (0..connections).map(|_| Connection::open(addr, &connector)).collect::<io::Result<Vec<_>>>()?;
        let poll = Poll::new()?;
        for (key, connection) in connections.iter().enumerate() {
            let fd = connection.tls.get_ref().as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), Token(key), Interest::READABLE | Interest::WRITABLE)?;
        }
        Ok(Load {
            connections,
            poll,
            events: Events::with_capacity(1024),
            message: Vec::new(),
            answer: 0,
            buffer: vec![0; 64 << 10],
        })
    }

    /// Connections one after the other, each with one echo of 64 bytes, and how long that took.
    pub fn visit(addr: SocketAddr, visits: u64) -> io::Result<Duration> {
        let connector = Connector::new()?;
        let start = Instant::now();
        for _ in 0..visits {
            // What comes of close_notify is not ours to know.
            tls::close(&mut Connection::open(addr, &connector)?.tls);
        }
        Ok(start.elapsed())
    }

    /// Each connection asks again as soon as it has its echo, for that long, and then until each has its last one.
    pub fn flood(&mut self, size: usize, time: Duration) -> io::Result<Flood> {
        self.echo(size);
        self.ask_all(time)
    }

    /// As `flood`, with small requests for answers of `size`, of a server that understands them.
    pub fn fetch(&mut self, size: usize, time: Duration) -> io::Result<Flood> {
        self.message = format!("{size} ").into_bytes();
        self.message.resize(REQUEST, b'x');
        self.answer = size;
        self.ask_all(time)
    }

    fn echo(&mut self, size: usize) {
        self.message = vec![b'x'; size];
        self.answer = size;
    }

    fn ask_all(&mut self, time: Duration) -> io::Result<Flood> {
        let start = Instant::now();
        let (mut requests, mut under_way) = (0, 0);
        for key in 0..self.connections.len() {
            self.ask(key)?;
            under_way += 1;
        }
        while under_way > 0 {
            for key in self.wait(PATIENCE)? {
                while self.go_on(key)? {
                    requests += 1;
                    if start.elapsed() >= time {
                        under_way -= 1;
                        break;
                    }
                    self.ask(key)?;
                }
            }
        }
        Ok(Flood { requests, wall: start.elapsed() })
    }

    /// Each connection asks once in a period, one after the other, for that many periods.
    pub fn trickle(&mut self, size: usize, period: Duration, periods: u64) -> io::Result<Trickle> {
        self.echo(size);
        let n = self.connections.len();
        self.connections.iter_mut().for_each(|connection| connection.echoes = 0);
        let all = n as u64 * periods;
        let start = Instant::now();
        let due = |i: u64| start + Duration::from_secs_f64(period.as_secs_f64() * i as f64 / n as f64);
        let (mut next, mut under_way, mut overdue, mut latencies) = (0, 0, 0, Vec::new());
        while next < all || under_way > 0 {
            while next < all && due(next) <= Instant::now() {
                let key = (next % n as u64) as usize;
                if self.connections[key].waits {
                    overdue += 1;
                } else {
                    self.ask(key)?;
                    under_way += 1;
                }
                next += 1;
            }
            let limit = if next < all { due(next).saturating_duration_since(Instant::now()) } else { PATIENCE };
            for key in self.wait(limit)? {
                if self.go_on(key)? {
                    latencies.push(self.connections[key].asked.elapsed());
                    under_way -= 1;
                }
            }
        }
        let echoes = || self.connections.iter().map(|connection| connection.echoes);
        Ok(Trickle { latencies, fewest: echoes().min().unwrap_or(0), most: echoes().max().unwrap_or(0), overdue })
    }

    /// The connections something has happened to.
    fn wait(&mut self, limit: Duration) -> io::Result<Vec<usize>> {
        self.poll.poll(&mut self.events, Some(limit))?;
        if self.events.is_empty() && limit == PATIENCE {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no echo in {PATIENCE:?}")));
        }
        Ok(self.events.iter().map(|event| event.token().0).collect())
    }

    fn ask(&mut self, key: usize) -> io::Result<()> {
        let connection = &mut self.connections[key];
        (connection.waits, connection.sent, connection.received) = (true, 0, 0);
        connection.asked = Instant::now();
        connection.send(&self.message)
    }

    /// Whether the echo is there, for the first time.
    fn go_on(&mut self, key: usize) -> io::Result<bool> {
        let size = self.answer;
        let connection = &mut self.connections[key];
        if !connection.waits {
            return Ok(false);
        }
        connection.send(&self.message)?;
        while connection.received < size {
            let room = self.buffer.len().min(size - connection.received);
            match connection.tls.read(&mut self.buffer[..room]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => connection.received += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        connection.waits = false;
        connection.echoes += 1;
        Ok(true)
    }
}

impl Drop for Load {
    /// With close_notify, so that no server has a failure to report.
    fn drop(&mut self) {
        for connection in &mut self.connections {
            tls::close(&mut connection.tls);
        }
    }
}

impl Connection {
    fn open(addr: SocketAddr, connector: &Connector) -> io::Result<Connection> {
        let tcp = TcpStream::connect(addr)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let mut tls = connector.connect(tcp)?;
        tls.write_all(&[b'w'; REQUEST])?;
        tls.read_exact(&mut [0; REQUEST])?;
        tls.get_ref().set_nonblocking(true)?;
        Ok(Connection { tls, waits: false, sent: 0, received: 0, asked: Instant::now(), echoes: 0 })
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        while self.sent < message.len() {
            match self.tls.write(&message[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Each server has a certificate of its own, which is not what is measured.
#[cfg(feature = "openssl")]
mod tls {
    use std::io;
    use std::net::TcpStream;

    use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode, SslVersion};

    use crate::certs::NAME;

    pub type Stream = SslStream<TcpStream>;

    pub struct Connector(SslConnector);

    impl Connector {
        pub fn new() -> io::Result<Connector> {
            let mut builder = SslConnector::builder(SslMethod::tls_client())?;
            builder.set_verify(SslVerifyMode::NONE);
            builder.set_max_proto_version(Some(SslVersion::TLS1_2))?;
            builder.set_cipher_list("ECDHE-ECDSA-AES256-GCM-SHA384")?;
            // One call for a record, not two.
            builder.set_read_ahead(true);
            Ok(Connector(builder.build()))
        }

        pub fn connect(&self, tcp: TcpStream) -> io::Result<Stream> {
            self.0.connect(NAME, tcp).map_err(|e| io::Error::other(e.to_string()))
        }
    }

    pub fn close(stream: &mut Stream) {
        let _ = stream.shutdown();
    }
}

/// The same where OpenSSL is not to be had.
#[cfg(not(feature = "openssl"))]
mod tls {
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
                cipher_suites: vec![ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384],
                ..ring::default_provider()
            };
            let config = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[&rustls::version::TLS12])
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
