//! A client for FTP over TLS (RFC 4217) that lists, fetches and stores. Each data connection resumes the session of the control
//! connection (`resume`): vsftpd and ProFTPD refuse any other, so that nobody else can take a transfer over.
//!
//! ```text
//! ftp --user me ftp.example.com list / get report.pdf report.pdf put photo.jpg in/photo.jpg
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;

use clap::Parser;
use sslfile::{Context, SslFile, SslOptions};

/// List, fetch and store files by FTP over TLS.
#[derive(Parser)]
struct Args {
    /// The server.
    #[arg(value_name = "HOST[:PORT]")]
    server: String,
    /// What to do, in this order: any number of `list FOLDER`, `get NAME FILE` and `put FILE NAME`.
    #[arg(required = true, num_args = 1..)]
    commands: Vec<String>,
    /// Who we are. The password is in the environment variable FTP_PASSWORD.
    #[arg(long, default_value = "anonymous")]
    user: String,
    /// Trust what these certificates have issued, PEM, instead of what the system trusts.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let context = match &args.ca {
        None => Context::client()?,
        Some(ca) => Context::builder().system_roots(false).add_roots_from(ca).build()?,
    };
    let (host, port) = match args.server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong(format!("{port:?} is no port")))?),
        None => (args.server.as_str(), 21),
    };
    let mut ftp = Ftp::connect(host, port, SslFile::options(), &context)?;
    ftp.log_in(&args.user, &std::env::var("FTP_PASSWORD").unwrap_or_default())?;
    let mut words = args.commands.iter().map(String::as_str);
    while let Some(command) = words.next() {
        let mut next = || words.next().ok_or_else(|| wrong(format!("{command:?} needs more words")));
        match command {
            "list" => io::stdout().write_all(&ftp.list(next()?)?)?,
            "get" => {
                let (name, file) = (next()?, next()?);
                ftp.get(name, &mut File::create(file)?)?;
            }
            "put" => {
                let (file, name) = (next()?, next()?);
                ftp.put(&mut File::open(file)?, name)?;
            }
            other => return Err(wrong(format!("{other:?} is none of list, get and put"))),
        }
    }
    ftp.quit()
}

/// A session with a server.
pub struct Ftp {
    control: BufReader<SslFile>,
    context: Context,
    server: IpAddr,
    /// How data connections are opened.
    pub data: SslOptions,
}

impl Ftp {
    /// Connects, and goes over to TLS.
    pub fn connect(host: &str, port: u16, options: SslOptions, context: &Context) -> io::Result<Ftp> {
        let addrs: Vec<_> = (host, port).to_socket_addrs()?.collect();
        let mut plain = BufReader::new(TcpStream::connect(&addrs[..])?);
        reply(&mut plain, "the greeting", '2')?;
        plain.get_ref().write_all(b"AUTH TLS\r\n")?;
        reply(&mut plain, "AUTH TLS", '2')?;
        // What came behind the answer was not said under TLS: the handshake is to fail on it.
        let too_far = plain.buffer().to_vec();
        let tcp = plain.into_inner();
        let server = tcp.peer_addr()?.ip();
        let options = options.client(host);
        let control = options.clone().already_read(too_far).open(tcp, context)?;
        let data = options.resume(&control);
        let mut ftp = Ftp { control: BufReader::new(control), context: context.clone(), server, data };
        ftp.ask("PBSZ 0", '2')?;
        ftp.ask("PROT P", '2')?;
        Ok(ftp)
    }

    pub fn log_in(&mut self, user: &str, password: &str) -> io::Result<()> {
        if self.ask(&format!("USER {user}"), '?')?.starts_with('3') {
            self.ask(&format!("PASS {password}"), '2')?;
        }
        self.ask("TYPE I", '2').map(drop)
    }

    pub fn list(&mut self, folder: &str) -> io::Result<Vec<u8>> {
        let mut list = Vec::new();
        self.transfer(&format!("LIST {folder}"), |mut data| data.read_to_end(&mut list).map(drop))?;
        Ok(list)
    }

    /// Fetches a file. A connection that was cut is an error, and not the end of the file.
    pub fn get(&mut self, name: &str, to: &mut impl Write) -> io::Result<()> {
        self.transfer(&format!("RETR {name}"), |mut data| io::copy(&mut data, to).map(drop))
    }

    /// Stores a file.
    pub fn put(&mut self, from: &mut impl Read, name: &str) -> io::Result<()> {
        self.transfer(&format!("STOR {name}"), |mut data| io::copy(from, &mut data).map(drop))
    }

    pub fn quit(mut self) -> io::Result<()> {
        self.ask("QUIT", '2')?;
        self.control.get_ref().close()
    }

    fn transfer(&mut self, command: &str, carry: impl FnOnce(&SslFile) -> io::Result<()>) -> io::Result<()> {
        let port = passive_port(&self.ask("EPSV", '2')?)?;
        let tcp = TcpStream::connect((self.server, port))?;
        self.ask(command, '1')?;
        let carried = self.data.clone().open(tcp, &self.context).map_err(io::Error::from).and_then(|data| {
            carry(&data)?;
            data.close()
        });
        // Where both failed, the server knows why.
        reply(&mut self.control, command, '2').and(carried)
    }

    /// One command, and the answer, which must begin so.
    fn ask(&mut self, command: &str, expected: char) -> io::Result<String> {
        if command.contains(['\r', '\n']) {
            return Err(wrong("a name with a line break in it".to_string()));
        }
        self.control.get_ref().write_all(format!("{command}\r\n").as_bytes())?;
        let what = if command.starts_with("PASS") { "PASS" } else { command };
        reply(&mut self.control, what, expected)
    }
}

/// The last line of an answer (RFC 959, section 4.2). `expected`: what it must begin with; "?" is anything that is no failure.
fn reply(control: &mut impl BufRead, command: &str, expected: char) -> io::Result<String> {
    const LONGEST: u64 = 8 * 1024;
    loop {
        let mut line = String::new();
        control.take(LONGEST).read_line(&mut line)?;
        match (line.as_bytes(), line.trim_end()) {
            ([b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', ..], line) => {
                let fits = match expected {
                    '?' => line.starts_with(['2', '3']),
                    expected => line.starts_with(expected),
                };
                return if fits { Ok(line.to_string()) } else { Err(io::Error::other(format!("{command}: {line}"))) };
            }
            ([], _) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{command}: no answer"))),
            _ => {}
        }
    }
}

/// RFC 2428, section 3: `229 Entering Extended Passive Mode (|||6446|)`.
fn passive_port(line: &str) -> io::Result<u16> {
    let port = line.split("(|||").nth(1).and_then(|rest| rest.split('|').next()).and_then(|port| port.parse().ok());
    port.ok_or_else(|| io::Error::other(format!("EPSV: {line}")))
}

fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
