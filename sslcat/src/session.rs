//! `--session FILE`: the session of one run, which the next one resumes. Where one is resumed nobody looks at a certificate: it counts
//! for the same server and the same demands on its certificate only, and the file is for its owner alone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use ring::digest::{digest, SHA256};
use sslfile::{Context, Engine, Handshake, ReadWrite, SslFile, SslOptions};
use tempfile::NamedTempFile;

use crate::address::host_and_port;
use crate::args::Args;
use crate::exit::{self, Failure};
use crate::{pem, tell};

/// As OpenSSL has it: `openssl sess_id -in FILE -text` shows it.
const LABEL: &str = "SSL SESSION PARAMETERS";
const LONGEST: u64 = 256 * 1024;

pub fn offer(args: &Args, context: &Context, options: SslOptions) -> Result<SslOptions, Failure> {
    let Some(path) = &args.tls.session else { return Ok(options) };
    if context.engine() != Engine::OpenSsl {
        return Err(Failure::new(exit::USAGE, "--session is for OpenSSL only (--engine openssl)"));
    }
    match read(path, &made_for(args)?, context) {
        Ok(kept) => Ok(kept.into_iter().fold(options, |options, kept| options.session(&kept))),
        Err(why) => {
            tell(format!("--session: {}: {why}; there will be a new session", path.display()));
            Ok(options)
        }
    }
}

/// What can be resumed of it goes into the file. One that can't be written ends nothing.
pub fn keep(args: &Args, file: &SslFile) {
    let Some(path) = &args.tls.session else { return };
    let which = if file.is_resumed() == Some(true) { "the session was resumed" } else { "the session was a new one" };
    let saved = match (file.session(), made_for(args)) {
        (Some(kept), Ok(made_for)) => write(path, &format!("For: {made_for}\n{}", pem::encode(LABEL, &kept))),
        _ => Err(io::Error::other("there is nothing to be resumed")),
    };
    match saved {
        Ok(()) if args.output.verbose => tell(format!("{which}; what comes next is in {}", path.display())),
        Ok(()) => {}
        Err(error) => tell(format!("{which}; nothing was saved in {}: {error}", path.display())),
    }
}

/// Whom, and with what demands.
fn made_for(args: &Args) -> Result<String, Failure> {
    let (host, port) = host_and_port(args)?;
    let demands = format!("{host} {port} {:?} {:?} {:?}", args.connection.unix, args.certificates, args.tls.sni);
    Ok(digest(&SHA256, demands.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read(path: &Path, made_for: &str, context: &Context) -> Result<Option<Vec<u8>>, String> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(_) => {}
    }
    let kept = pem::decode(LABEL, &text).ok_or("no session is in it")?;
    if !text.lines().any(|line| line.strip_prefix("For: ") == Some(made_for)) {
        return Err("it was made with another server, or with other demands on its certificate".to_string());
    }
    // What the library does not take must not end the connection.
    let options = SslFile::options().client("localhost").session(&kept).handshake(Handshake::Lazy);
    let opened = options.open(ReadWrite::new(io::empty()), context);
    opened.map(|_| Some(kept)).map_err(|error| error.to_string())
}

/// All of it or nothing, and for nobody else to read.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
