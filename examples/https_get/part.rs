//! What `--continue` goes on with: `FILE.part` has what came until the last transfer ended, `FILE.part.from` says of what.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use url::Url;

use crate::failure::{tell, Failure, HTTP, LOCAL};
use crate::http::{number, Framing, Response};
use crate::output::Output;

pub struct Part {
    file: File,
    name: PathBuf,
    place: PathBuf,
    /// As the user gave it. Where it redirects to may be another place each time.
    url: String,
    known: Option<Known>,
    /// Where the next byte that comes belongs, and the number of all.
    pub first: u64,
    pub whole: Option<u64>,
}

/// What it is a part of.
struct Known {
    url: String,
    /// Strong: it changes with any byte (RFC 9110, section 8.8).
    validator: String,
    whole: Option<u64>,
}

impl Part {
    pub fn open(place: PathBuf, url: &Url) -> Result<Part, Failure> {
        let name = with_suffix(&place, ".part");
        let failed = |why: &dyn std::fmt::Display| Failure::new(LOCAL, format!("{}: {why}", name.display()));
        let file = open(&name, &place).map_err(|error| failed(&error))?;
        let len = file.metadata().map_err(|error| failed(&error))?.len();
        let known = fs::read_to_string(with_suffix(&name, ".from")).ok().as_deref().and_then(Known::parse);
        let mut part = Part { file, name: name.clone(), place, url: url.to_string(), known, first: len, whole: None };
        match &part.known {
            _ if len == 0 => part.known = None,
            Some(known) if known.url != part.url => {
                return Err(failed(&format!("this is a part of {}; remove it to begin anew", known.url)));
            }
            // Nothing can be asked for behind the end. The last byte can.
            Some(Known { whole: Some(whole), .. }) if len >= *whole => part.first = whole.saturating_sub(1),
            Some(_) => {}
            None => return Err(failed(&"nothing says what this is a part of; remove it to begin anew")),
        }
        Ok(part)
    }

    /// What is to be asked for: from which byte on, and of which version.
    pub fn range(&self) -> Option<(u64, &str)> {
        self.known.as_ref().filter(|_| self.first > 0).map(|known| (self.first, &*known.validator))
    }

    /// 206: the answer must be what was asked for, and nothing else.
    pub fn goes_on(&mut self, response: &Response) -> Result<(), Failure> {
        let Some(known) = &self.known else { return Ok(()) };
        let failed = |why: String| Failure::new(HTTP, format!("{}: {why}", self.url));
        let range = response.header("content-range").unwrap_or_default();
        let (first, last, whole) = parse_range(&range)
            .ok_or_else(|| failed(format!("a part of it, and which is not said: content range {range:?}")))?;
        if first != self.first || last.checked_add(1) != Some(whole) || known.whole.is_some_and(|known| known != whole)
        {
            return Err(failed(format!("another part than from byte {} on: content range {range:?}", self.first)));
        }
        let field = if known.validator.starts_with('"') { "etag" } else { "last-modified" };
        if response.header(field).is_some_and(|now| now != known.validator) {
            return Err(failed(format!("a part of another version than {}", known.validator)));
        }
        if matches!(response.framing()?, Framing::Length(length) if length != whole - first) {
            return Err(failed(format!("content length and content range {range:?} contradict each other")));
        }
        self.whole = Some(whole);
        self.file.set_len(first).map_err(Failure::output)?;
        self.file.seek(SeekFrom::End(0)).map_err(Failure::output)?;
        Ok(())
    }

    /// 416.
    pub fn refused(&self, response: &Response) -> Failure {
        let has = response.header("content-range").map_or(String::new(), |range| format!(" (it has {range})"));
        let (url, name, first) = (&self.url, self.name.display(), self.first);
        let why = format!("{} {}: the server has nothing from byte {first} on{has}", response.status, response.reason);
        Failure::new(HTTP, format!("{url}: {why}; remove {name} to begin anew"))
    }

    /// 200: all of it comes.
    pub fn begin(&mut self, response: &Response) -> Result<(), Failure> {
        if self.range().is_some() {
            tell("begun anew: the server has another version, or sends no parts");
        }
        let whole = match response.framing()? {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        self.first = 0;
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(Failure::output)?;
        self.known = validator(response).map(|validator| Known { url: self.url.clone(), validator, whole });
        match &self.known {
            Some(known) => known.write(&with_suffix(&self.name, ".from")).map_err(Failure::output),
            None => {
                tell(
                    "the server does not say which version this is: if the transfer ends early, it cannot be continued",
                );
                Ok(())
            }
        }
    }

    /// Whether it can be gone on with.
    pub fn is_kept(&self) -> bool {
        self.known.is_some()
    }

    pub fn output(&self) -> io::Result<Output> {
        Ok(Output::kept_in(self.file.try_clone()?, self.name.clone(), self.place.clone()))
    }
}

/// Nothing is kept of what has become the file, or of nothing.
impl Drop for Part {
    fn drop(&mut self) {
        match fs::symlink_metadata(&self.name) {
            Ok(found) if found.len() > 0 => return,
            Ok(_) => drop(fs::remove_file(&self.name)),
            Err(_) => {}
        }
        let _ = fs::remove_file(with_suffix(&self.name, ".from"));
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

fn open(name: &Path, place: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Its name can be foreseen: in a folder that others write too, somebody may have put a link there.
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        options.mode(crate::output::mode(place.exists())).custom_flags(no_link);
    }
    let file = options.open(name)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    #[cfg(unix)]
    {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("somebody else is writing it"))?;
        // Who wrote it may just have given it its other name.
        if !crate::output::same(&file.metadata()?, &fs::metadata(name)?) {
            return Err(io::Error::other("somebody else has just finished it"));
        }
    }
    #[cfg(not(unix))]
    let _ = place;
    Ok(file)
}

impl Known {
    fn parse(text: &str) -> Option<Known> {
        let mut lines = text.lines();
        let mut value = |key| lines.next()?.strip_prefix(key).filter(|value| !value.contains(char::is_control));
        let (url, validator) = (value("url ")?.to_string(), value("version ")?.to_string());
        Some(Known { url, validator, whole: number(value("bytes ")?) })
    }

    fn write(&self, name: &Path) -> io::Result<()> {
        let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let whole = self.whole.map_or("unknown".to_string(), |whole| whole.to_string());
        write!(file, "url {}\nversion {}\nbytes {whole}\n", self.url, self.validator)?;
        file.persist(name)?;
        Ok(())
    }
}

/// A header that changes with any byte of what it is about.
fn validator(response: &Response) -> Option<String> {
    // Each version has as many codings as the server likes.
    if response.header("content-encoding").is_some() {
        return None;
    }
    if let Some(tag) = response.header("etag").filter(|tag| tag.starts_with('"')) {
        return Some(tag);
    }
    // A date is of whole seconds: only once that second is over there can be no other version of it.
    let (changed, now) = (response.header("last-modified")?, response.header("date")?);
    (changed != now).then_some(changed)
}

/// "bytes 5-9/10" is (5, 9, 10).
fn parse_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((number(first)?, number(last)?, number(whole)?)).filter(|(first, last, _)| first <= last)
}
