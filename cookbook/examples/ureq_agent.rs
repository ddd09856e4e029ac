//! `ureq` with TLS by `sslfile`: with its pool, its time-outs, and through a proxy (CONNECT).
//!
//! Where ureq would open a TCP connection, this does it itself, so that each of ureq's time-outs bounds a whole call, and the
//! handshake as a whole. Where it has a connection already, to what is behind a proxy, TLS goes over that.
//!
//! ```text
//! cargo run -p sslfile-cookbook --example ureq_agent
//! cargo run -p sslfile-cookbook --example ureq_agent -- https://www.rust-lang.org/
//! ```

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sslfile::{Context, ReadWrite, SslFile, Stream};
use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, ShutdownHandle,
    TcpConnector, Transport, TransportAdapter,
};
use ureq::{http, Agent, Error};

/// An agent whose TLS is done with this context.
pub fn agent(config: Config, context: &Context) -> Agent {
    let connector = ()
        .chain(ConnectProxyConnector::default()) // if the config has one
        .chain(Tls(context.clone())) // TCP, and TLS over it
        .chain(TcpConnector::default()) // TCP for http://
        .chain(TlsOver(context.clone())); // TLS over what the proxy has connected
    Agent::with_parts(config, connector, DefaultResolver::default())
}

#[derive(Debug)]
struct Tls(Context);

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, TlsTransport<TcpStream>>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if chained.is_some() || !details.needs_tls() {
            return Ok(chained.map(Either::A));
        }
        let until = details.timeout.not_zero().map(|timeout| Instant::now() + *timeout);
        let left = || until.map(|until| until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        let told = |error| told(error, details.timeout);
        let mut last = Error::HostNotFound;
        for addr in &*details.addrs {
            let tcp = match left() {
                Some(left) => TcpStream::connect_timeout(addr, left),
                None => TcpStream::connect(addr),
            };
            match tcp {
                Ok(tcp) => {
                    tcp.set_nodelay(details.config.no_delay())?;
                    let options = SslFile::options().client(host(details.uri)).handshake_timeout(left());
                    let file = options.open(tcp, &self.0).map_err(|error| told(error.into()))?;
                    let stop: Arc<dyn ShutdownHandle> = Arc::new(Stop(file.clone()));
                    (details.register_shutdown)(Arc::downgrade(&stop))?;
                    return Ok(Some(Either::B(TlsTransport::new(file, None, Some(stop), details.config))));
                }
                Err(error) => last = told(error),
            }
        }
        Err(last)
    }
}

/// `Agent::shutdown` ends what other threads are waiting for.
struct Stop(SslFile);

impl ShutdownHandle for Stop {
    fn shutdown(&self) {
        let _ = self.0.get_ref().shutdown(Shutdown::Both);
    }
}

#[derive(Debug)]
struct TlsOver(Context);

impl<In: Transport> Connector<In> for TlsOver {
    type Out = Either<In, TlsTransport<ReadWrite<Below>>>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let mut below = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        below.set_timeout(details.timeout);
        let below = Below(Arc::new(Mutex::new(below)));
        let file = SslFile::client(ReadWrite::new(below.clone()), &self.0, host(details.uri));
        let file = file.map_err(|error| told(error.into(), details.timeout))?;
        Ok(Some(Either::B(TlsTransport::new(file, Some(below), None, details.config))))
    }
}

/// The connection below, which has ureq's time-outs itself.
#[derive(Clone)]
struct Below(Arc<Mutex<TransportAdapter>>);

impl Below {
    fn lock(&self) -> MutexGuard<'_, TransportAdapter> {
        self.0.lock().unwrap()
    }
}

impl Read for Below {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buf).map_err(passing)
    }
}

impl Write for Below {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.lock().write(buf).map_err(passing)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().flush().map_err(passing)
    }
}

/// ureq's time-outs are of the kind `Other`, which would be the end of the connection. As `TimedOut` they end a call.
fn passing(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(Error::Timeout(_)) => io::Error::new(io::ErrorKind::TimedOut, error),
        _ => error,
    }
}

/// In ureq's words.
fn told(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut => match error.downcast::<io::Error>() {
            Ok(passed) => passed.into(),
            Err(_) => Error::Timeout(timeout.reason),
        },
        _ => error.into(),
    }
}

fn host(uri: &http::Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

struct TlsTransport<S: Stream> {
    file: SslFile<S>,
    below: Option<Below>,
    _stop: Option<Arc<dyn ShutdownHandle>>,
    buffers: LazyBuffers,
}

impl<S: Stream> TlsTransport<S> {
    fn new(file: SslFile<S>, below: Option<Below>, stop: Option<Arc<dyn ShutdownHandle>>, config: &Config) -> Self {
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        TlsTransport { file, below, _stop: stop, buffers }
    }

    /// For what is to be done now, by one of `SslFile`'s methods.
    fn bound(
        &self,
        timeout: NextTimeout,
        set: impl Fn(&SslFile<S>, Option<Duration>) -> io::Result<()>,
    ) -> Result<(), Error> {
        match &self.below {
            Some(below) => below.lock().set_timeout(timeout),
            None if timeout.after.is_zero() => return Err(Error::Timeout(timeout.reason)),
            None => set(&self.file, timeout.not_zero().map(|timeout| *timeout))?,
        }
        Ok(())
    }
}

impl<S: Stream> fmt::Debug for TlsTransport<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl<S: Stream> Transport for TlsTransport<S> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // What is below caps it itself.
        let timeout = if self.below.is_some() { timeout } else { timeout.for_write() };
        self.bound(timeout, SslFile::set_write_timeout)?;
        self.file.write_all(&self.buffers.output()[..amount]).map_err(|error| told(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = if self.below.is_some() { timeout } else { timeout.for_read() };
        self.bound(timeout, SslFile::set_read_timeout)?;
        let n = self.file.read(self.buffers.input_append_buf()).map_err(|error| told(error, timeout))?;
        self.buffers.input_appended(n);
        Ok(n > 0)
    }

    /// Whether the pool may use it again: not if the server has ended it, or has said what nobody asked for.
    fn is_open(&mut self) -> bool {
        let below_is = self.below.as_ref().is_none_or(|below| below.lock().get_mut().is_open());
        below_is && self.file.is_open() && self.file.pending() == 0
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// What is at this address; or, without one, at that of a server of our own.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).build();
    if let Some(url) = std::env::args().nth(1) {
        let mut answer = agent(config, &Context::client()?).get(&url).call()?;
        println!("{}", answer.body_mut().read_to_string()?);
        return Ok(());
    }

    let made = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = sslfile::Identity::from_pem(chain.as_bytes(), key.as_bytes())?;
    let root = sslfile::Certificate::from_pem(chain.as_bytes())?;
    let listener = sslfile::SslListener::bind("127.0.0.1:0", &Context::server(identity)?)?;
    let url = format!("https://localhost:{}/", listener.local_addr()?.port());
    // One connection, and so as many requests as it is asked over that.
    let serving = std::thread::spawn(move || -> io::Result<()> {
        let (file, _) = listener.accept()?;
        for line in io::BufRead::lines(io::BufReader::new(&file)) {
            if line?.is_empty() {
                (&file).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")?;
            }
        }
        Ok(())
    });
    let agent = agent(config, &Context::builder().system_roots(false).add_root(root).build()?);
    for _ in 0..3 {
        print!("{}", agent.get(&url).call()?.body_mut().read_to_string()?);
    }
    drop(agent);
    serving.join().expect("the server does not panic")?;
    Ok(())
}
