//! One question to the server: a connection that offers this much and no more, up to what answers it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sslfile::{Certificate, Connection, Context, Engine, Error, ErrorKind, Version};

use super::wire::{self, Heard, Offered};
use crate::args::Args;
use crate::exit;
use crate::{connect, settings};

/// What to offer. What is empty is as the library has it, but for its suites: those are all it has.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    pub version: Option<Version>,
    pub suites: Vec<&'static str>,
    pub groups: Vec<&'static str>,
    pub alpn: Option<String>,
    /// Up to the end of the handshake, not only to the server's choice.
    pub to_the_end: bool,
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    Accepted(Choice),
    /// In so many words.
    Refused(String),
    /// Nobody knows.
    Unanswered(Silence),
    /// It was not asked: the library can't.
    Impossible(String),
}

#[derive(Debug, Default)]
pub struct Choice {
    pub suite: u16,
    pub group: Option<u16>,
    /// None: not known.
    pub alpn: Option<Option<Vec<u8>>>,
    pub certificate: Option<Certificate>,
}

#[derive(Clone, Debug)]
pub struct Silence {
    pub text: String,
    pub code: u8,
    pub kind: Option<ErrorKind>,
    /// The time was over. Who is asked again might take as long again.
    pub is_timeout: bool,
    /// An alert that may be about what was offered, or not.
    pub alert: Option<u8>,
}

impl Silence {
    fn new(code: u8, text: impl ToString) -> Silence {
        Silence { text: text.to_string(), code, kind: None, is_timeout: false, alert: None }
    }
}

/// Whom we ask, and how.
pub struct Server<'a> {
    pub args: &'a Args,
    pub host: String,
    pub port: u16,
}

impl Server<'_> {
    pub fn ask(&self, offer: &Offer) -> Answer {
        let mut tls = match self.begin(offer) {
            Ok(tls) => tls,
            Err(error) => return Answer::Impossible(error.to_string()),
        };
        let timeout = self.args.connection.timeout;
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let reached = connect::reach(self.args, &self.host, self.port);
        let (tcp, ahead) = match reached {
            Ok(reached) => reached,
            Err(failure) => {
                let is_timeout = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                return Answer::Unanswered(Silence { is_timeout, ..Silence::new(failure.code, failure.text) });
            }
        };
        let mut said = ahead;
        tls.feed(&said);
        let end = drive(&mut tls, &tcp, &mut said, deadline, offer.to_the_end);
        judge(&tls, offer, &wire::heard(&said), end)
    }

    /// What it would ask. Nobody is connected to.
    pub fn offered(&self, offer: &Offer) -> Option<Offered> {
        wire::offered(self.begin(offer).ok()?.output())
    }

    /// A connection that has said its first words, to nobody yet.
    fn begin(&self, offer: &Offer) -> io::Result<Connection> {
        let name = settings::server_name(self.args, &self.host);
        let mut tls = Connection::client(&self.context(offer)?, name)?;
        match tls.handshake() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ if tls.output().is_empty() => Err(io::Error::other("the library says nothing")),
            _ => Ok(tls),
        }
    }

    /// Nobody is trusted, and nobody's secrets are told: it is not about who the server is.
    fn context(&self, offer: &Offer) -> io::Result<Context> {
        let engine = settings::engine(self.args);
        let mut builder = Context::builder().engine(engine).system_roots(false);
        builder = builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
        builder = builder.sni(!self.args.tls.no_sni).session_resumption(false);
        if let Some(version) = offer.version {
            builder = builder.min_version(version).max_version(version);
        }
        let (new, old): (Vec<_>, Vec<_>) = offer.suites.iter().copied().partition(|name| name.starts_with("TLS_"));
        if !new.is_empty() {
            builder = builder.ciphersuites(&new.join(":"));
        }
        if engine == Engine::OpenSsl {
            // Its lowest level, which lets everything pass.
            let list = if old.is_empty() { "ALL:COMPLEMENTOFALL".to_string() } else { old.join(":") };
            builder = builder.cipher_list(&(list + ":@SECLEVEL=0"));
        } else if !old.is_empty() {
            builder = builder.cipher_list(&old.join(":"));
        }
        if !offer.groups.is_empty() {
            builder = builder.groups(&offer.groups.join(":"));
        }
        builder.alpn(&offer.alpn).build()
    }
}

/// Why no more came.
enum End {
    Enough,
    /// The server's doing, or the library's.
    Failed(String, Option<ErrorKind>),
    Cut(String),
    TimedOut,
}

fn drive(tls: &mut Connection, mut tcp: &TcpStream, said: &mut Vec<u8>, at: Option<Instant>, to_the_end: bool) -> End {
    // A handshake is shorter, whatever certificates it has.
    const MOST: usize = 256 * 1024;
    let mut buf = [0; 16 * 1024];
    loop {
        let outcome = tls.handshake();
        let left = at.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return End::TimedOut;
        }
        let left = left.map(|left| left.max(Duration::from_millis(1)));
        let sent = tcp.set_write_timeout(left).and_then(|()| tcp.write_all(tls.output()));
        tls.consume_output(tls.output().len());
        match outcome {
            Ok(()) => return End::Enough,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return End::Failed(error.to_string(), Error::of(&error).map(Error::kind))
            }
            Err(_) if !to_the_end && wire::heard(said).hello.is_some() => return End::Enough,
            Err(_) => {}
        }
        // What the server said before it hung up may still be there.
        match tcp.set_read_timeout(left).and_then(|()| tcp.read(&mut buf)) {
            Ok(0) => return End::Cut(sent.err().map_or("the server hung up".to_string(), |error| error.to_string())),
            Ok(_) if said.len() > MOST => return End::Failed("the server talks without end".to_string(), None),
            Ok(n) => {
                said.extend_from_slice(&buf[..n]);
                tls.feed(&buf[..n]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return End::TimedOut;
            }
            Err(error) => return End::Cut(error.to_string()),
        }
    }
}

const NO_APPLICATION_PROTOCOL: u8 = 120;

/// On the wire.
fn number(version: Version) -> u16 {
    match version {
        Version::Tls1_3 => 0x0304,
        Version::Tls1_2 => 0x0303,
        Version::Tls1_1 => 0x0302,
        Version::Tls1_0 => 0x0301,
        _ => 0x0300,
    }
}

fn judge(tls: &Connection, offer: &Offer, heard: &Heard, end: End) -> Answer {
    if let Some(hello) = &heard.hello {
        // Who does not have the version that is asked for answers with the highest below it (RFC 5246, appendix E.1).
        if offer.version.is_some_and(|version| number(version) != hello.version) {
            return Answer::Refused("the server answers with another version".to_string());
        }
        // In TLS 1.3 it may come behind the ServerHello, encrypted.
        if matches!(end, End::Failed(_, Some(ErrorKind::PeerAlert(NO_APPLICATION_PROTOCOL)))) {
            return Answer::Refused("no_application_protocol".to_string());
        }
        let alpn = match tls.is_handshake_done() {
            true => Some(tls.alpn()),
            // Up to TLS 1.2 it stands here.
            false if hello.version < number(Version::Tls1_3) => Some(hello.alpn.clone()),
            false => None,
        };
        let group = hello.group.or(heard.key_exchange);
        return Answer::Accepted(Choice { suite: hello.suite, group, alpn, certificate: tls.peer_certificate() });
    }
    if heard.is_other {
        let silence = Silence::new(exit::HANDSHAKE, "the server does not speak TLS");
        return Answer::Unanswered(Silence { kind: Some(ErrorKind::NotTls), ..silence });
    }
    if let Some(alert) = heard.alert {
        return match refusal(alert) {
            Some(name) => Answer::Refused(name.to_string()),
            None => {
                let text = match alert {
                    112 => "the server does not know the name that it is asked for (--sni)".to_string(),
                    _ => format!("the server's alert {alert}"),
                };
                Answer::Unanswered(Silence { alert: Some(alert), ..Silence::new(exit::HANDSHAKE, text) })
            }
        };
    }
    Answer::Unanswered(match end {
        End::TimedOut => {
            Silence { is_timeout: true, ..Silence::new(exit::HANDSHAKE, "the server did not answer in time") }
        }
        End::Cut(why) | End::Failed(why, _) => Silence::new(exit::HANDSHAKE, why),
        End::Enough => Silence::new(exit::HANDSHAKE, "the server's answer makes no sense"),
    })
}

/// Alerts that are about what was offered (RFC 8446, section 6.2). Others, such as unrecognized_name, are about something else.
fn refusal(alert: u8) -> Option<&'static str> {
    Some(match alert {
        40 => "handshake_failure",
        47 => "illegal_parameter",
        70 => "protocol_version",
        71 => "insufficient_security",
        109 => "missing_extension",
        NO_APPLICATION_PROTOCOL => "no_application_protocol",
        _ => return None,
    })
}
