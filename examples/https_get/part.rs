//! What `--continue` goes on with: `FILE.part` has what came until the last transfer ended, `FILE.part.from` says of what.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use url::Url;

use crate::failure::{tell, Failure, HTTP};
use crate::http::{number, Response};
use crate::output::{with_suffix, Regular};
use crate::unfinished;

pub struct Part {
    file: File,
    pub name: PathBuf,
    /// As the user gave it. Where it redirects to may be another place each time.
    url: String,
    /// Its strong ETag, which changes with any byte (RFC 9110, section 8.8). Without one it can't be gone on with.
    version: Option<String>,
    /// Where the next byte that comes belongs, and the number of all.
    pub first: u64,
    pub whole: Option<u64>,
}

impl Part {
    pub fn open(place: PathBuf, url: &Url) -> io::Result<Regular> {
        let (name, url) = (with_suffix(&place, ".part"), url.to_string());
        let failed = |why: &dyn Display| io::Error::other(format!("{}: {why}", name.display()));
        let mut unfinished = unfinished::STATE.lock();
        let file = open(&name, &place).map_err(|error| failed(&error))?;
        // The last byte again: nothing can be asked for behind the end, and all of it may be there.
        let first = file.metadata()?.len().saturating_sub(1);
        let from = fs::read_to_string(with_suffix(&name, ".from")).unwrap_or_default();
        let mut version = None;
        match from.lines().collect::<Vec<_>>()[..] {
            _ if first == 0 => *unfinished = Some(name.clone()),
            // It is sent.
            [of, known] if of == url && !known.contains(char::is_control) => version = Some(known.to_string()),
            [of, _] => return Err(failed(&format!("this is a part of {of}; remove it to begin anew"))),
            _ => return Err(failed(&"nothing says what this is a part of; remove it to begin anew")),
        }
        let part = Part { file: file.try_clone()?, name: name.clone(), url, version, first, whole: None };
        Ok(Regular { file, name: Some(name), place, part: Some(part) })
    }

    /// What is to be asked for: from which byte on, and of which version.
    pub fn range(&self) -> Option<(u64, &str)> {
        self.version.as_ref().filter(|_| self.first > 0).map(|version| (self.first, &**version))
    }

    /// 206: the answer must be what was asked for, and nothing else.
    pub fn goes_on(&mut self, response: &Response) -> Result<(), Failure> {
        let failed = |why: String| Failure::new(HTTP, format!("{}: {why}", self.url));
        let range = response.header("content-range").unwrap_or_default();
        let (first, last, whole) = parse_range(&range)
            .ok_or_else(|| failed(format!("a part of it, and which is not said: content range {range:?}")))?;
        if first != self.first || last.checked_add(1) != Some(whole) {
            return Err(failed(format!("another part than from byte {} on: content range {range:?}", self.first)));
        }
        // Which it must say in a part, too (RFC 9110, section 15.3.7).
        if response.header("etag") != self.version {
            return Err(failed("a part of another version than what is there".to_string()));
        }
        self.whole = Some(whole);
        self.file.set_len(first).and_then(|()| self.file.seek(SeekFrom::End(0))).map_err(Failure::output)?;
        Ok(())
    }

    /// 200: all of it comes.
    pub fn begin(&mut self, response: &Response) -> Result<(), Failure> {
        if self.range().is_some() {
            tell("begun anew: the server has another version, or sends no parts");
        }
        self.first = 0;
        // There are as many codings of a version as the server likes.
        let tag = response.header("etag").filter(|_| response.header("content-encoding").is_none());
        self.version = tag.filter(|tag| tag.starts_with('"'));
        self.forget();
        let begun = self.file.set_len(0).and_then(|()| self.file.rewind()).and_then(|()| match &self.version {
            Some(version) => {
                *unfinished::STATE.lock() = None;
                // It does not follow a link that somebody else puts there.
                let mut from = File::create_new(with_suffix(&self.name, ".from"))?;
                from.write_all(format!("{}\n{version}\n", self.url).as_bytes())
            }
            None => {
                *unfinished::STATE.lock() = Some(self.name.clone());
                tell("the server does not say which version this is: if it ends early, it cannot be continued");
                Ok(())
            }
        });
        begun.map_err(Failure::output)
    }

    /// What it is a part of.
    pub fn forget(&self) {
        let _ = fs::remove_file(with_suffix(&self.name, ".from"));
    }

    /// Whether it can be gone on with when the transfer ends early.
    pub fn is_kept(&self) -> bool {
        self.version.is_some()
    }
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

/// "bytes 5-9/10" is (5, 9, 10).
fn parse_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((number(first)?, number(last)?, number(whole)?)).filter(|(first, last, _)| first <= last)
}
