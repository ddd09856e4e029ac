//! SOCKS5 (RFC 1928), with user and password (RFC 1929).

use std::io;
use std::net::SocketAddr;

use super::talk::Talk;
use super::Target;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

pub fn connect(talk: &mut Talk, target: &Target, login: Option<&(String, String)>) -> io::Result<()> {
    let request = request(target)?;
    match login {
        Some(_) => talk.say(&[VERSION, 2, NO_LOGIN, PASSWORD])?,
        None => talk.say(&[VERSION, 1, NO_LOGIN])?,
    }
    let mut chosen = [0; 2];
    // One after another: who speaks something else may not say two bytes.
    talk.hear(&mut chosen[..1])?;
    check_version(chosen[0])?;
    talk.hear(&mut chosen[1..])?;
    match (chosen[1], login) {
        (NO_LOGIN, _) => {}
        (PASSWORD, Some((user, password))) => {
            let mut message = vec![1];
            for text in [user, password] {
                message.push(u8::try_from(text.len()).map_err(|_| too_long("the login"))?);
                message.extend(text.as_bytes());
            }
            talk.say(&message)?;
            let mut verdict = [0; 2];
            talk.hear(&mut verdict)?;
            if verdict[1] != 0 {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it does not take this login"));
            }
        }
        (NONE_ACCEPTABLE, Some(_)) => {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it does not take a user and a password"))
        }
        (NONE_ACCEPTABLE, None) => {
            let text = "it wants a login: SCHEME://USER:PASSWORD@HOST:PORT";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        (other, _) => return Err(garbled(format!("it chose method {other}, which was not offered"))),
    }

    talk.say(&request)?;
    let mut reply = [0; 4];
    talk.hear(&mut reply)?;
    check_version(reply[0])?;
    if reply[1] != 0 {
        return Err(refused(reply[1]));
    }
    // The address that the proxy speaks from, which is of no use here; behind it is the server.
    let len = match reply[3] {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let mut len = [0];
            talk.hear(&mut len)?;
            usize::from(len[0])
        }
        other => return Err(garbled(format!("it has addresses of type {other}"))),
    };
    talk.hear(&mut vec![0; len + 2])
}

fn request(target: &Target) -> io::Result<Vec<u8>> {
    let mut request = vec![VERSION, CONNECT, 0];
    let port = match target {
        Target::Addr(SocketAddr::V4(addr)) => {
            request.push(IPV4);
            request.extend(addr.ip().octets());
            addr.port()
        }
        Target::Addr(SocketAddr::V6(addr)) => {
            request.push(IPV6);
            request.extend(addr.ip().octets());
            addr.port()
        }
        Target::Name(host, port) => {
            request.extend([NAME, u8::try_from(host.len()).map_err(|_| too_long("the host's name"))?]);
            request.extend(host.as_bytes());
            *port
        }
    };
    request.extend(port.to_be_bytes());
    Ok(request)
}

fn check_version(version: u8) -> io::Result<()> {
    if version == VERSION {
        Ok(())
    } else {
        Err(garbled("it does not speak SOCKS5".to_string()))
    }
}

/// RFC 1928, section 6.
fn refused(reply: u8) -> io::Error {
    let (kind, text) = match reply {
        1 => (io::ErrorKind::Other, "it failed"),
        2 => (io::ErrorKind::PermissionDenied, "its rules do not allow that"),
        3 => (io::ErrorKind::NetworkUnreachable, "it says that the network is unreachable"),
        4 => (io::ErrorKind::HostUnreachable, "it says that the host is unreachable"),
        5 => (io::ErrorKind::ConnectionRefused, "it says that the connection was refused"),
        6 => (io::ErrorKind::TimedOut, "it says that the host did not answer"),
        7 => (io::ErrorKind::Unsupported, "it can't connect for others"),
        8 => (io::ErrorKind::Unsupported, "it does not know this type of address"),
        _ => return garbled(format!("it refuses for reason {reply}")),
    };
    io::Error::new(kind, text)
}

fn garbled(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn too_long(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} is too long for SOCKS5"))
}
