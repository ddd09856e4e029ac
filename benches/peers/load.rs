//! The load generator: many TLS connections in one thread, the same for every server. It asks and waits for the answer, which is
//! the echo, or as much as was asked for.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use socket2::{Domain, Socket, Type};

use crate::dial::{self, Connector, Stream};

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
    pub fn open(addr: SocketAddr, connections: usize) -> io::Result<Load> {
        let connector = Connector::new()?;
        let open = |i| Connection::open(source(i), addr, &connector);
        let connections = (0..connections).map(open).collect::<io::Result<Vec<_>>>()?;
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

    /// Version and suite of a connection.
    pub fn negotiated(&self) -> String {
        self.connections.first().map_or(String::new(), |connection| dial::negotiated(&connection.tls))
    }

    /// Connections one after the other, each with one echo of 64 bytes, and how long that took.
    pub fn visit(addr: SocketAddr, visits: u64) -> io::Result<Duration> {
        let connector = Connector::new()?;
        let start = Instant::now();
        for _ in 0..visits {
            // What comes of close_notify is not ours to know.
            dial::close(&mut Connection::open(source(0), addr, &connector)?.tls);
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

    /// Each connection asks once in a period, one after the other, in an order without neighbours, for that many periods.
    pub fn trickle(&mut self, size: usize, period: Duration, periods: u64) -> io::Result<Trickle> {
        self.echo(size);
        let n = self.connections.len();
        self.connections.iter_mut().for_each(|connection| connection.echoes = 0);
        let all = n as u64 * periods;
        let start = Instant::now();
        let due = |i: u64| start + Duration::from_secs_f64(period.as_secs_f64() * i as f64 / n as f64);
        let stride = stride(n as u64);
        let (mut next, mut under_way, mut overdue, mut latencies) = (0, 0, 0, Vec::new());
        while next < all || under_way > 0 {
            while next < all && due(next) <= Instant::now() {
                let key = (next * stride % n as u64) as usize;
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
            dial::close(&mut connection.tls);
        }
    }
}

/// Steps of this length come by all of `n` in `n` steps, and by no neighbours.
fn stride(n: u64) -> u64 {
    let divisor = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (n * 618 / 1000..n).find(|step| divisor(*step, n) == 1).unwrap_or(1)
}

/// From where the connection of this number comes: an address has ports for some 28,000 to one server.
fn source(number: usize) -> Option<Ipv4Addr> {
    const FOR_EACH: usize = 20_000;
    let more = u8::try_from(number / FOR_EACH).unwrap_or(u8::MAX);
    (more > 0).then(|| Ipv4Addr::new(127, 0, 1, more))
}

fn connect(source: Option<Ipv4Addr>, addr: SocketAddr) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(addr) };
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&addr.into())?;
    Ok(socket.into())
}

impl Connection {
    fn open(source: Option<Ipv4Addr>, addr: SocketAddr, connector: &Connector) -> io::Result<Connection> {
        let tcp = connect(source, addr)?;
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
