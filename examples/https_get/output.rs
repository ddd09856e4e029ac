//! Where a body goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Seek, Write};
use std::mem;
use std::path::{Path, PathBuf};

use url::Url;

use crate::failure::Failure;
use crate::part::Part;
use crate::unfinished;

pub enum Output {
    /// Written as it comes.
    Stream { to: Box<dyn Write>, is_terminal: bool },
    /// There when all of it is.
    Regular(Regular),
}

impl Output {
    /// Where `-o` leads, which `--continue` goes on with if there is a URL for it.
    pub fn open(path: Option<&Path>, continued: Option<&Url>) -> io::Result<Output> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else { return Ok(Output::stream(io::stdout())) };
        let found = fs::metadata(path);
        // /dev/stdout by any name: opened again, it would be written from the beginning.
        #[cfg(unix)]
        if found.as_ref().is_ok_and(|found| unix::is_open_as(found, io::stdout())) {
            return Ok(Output::stream(io::stdout()));
        }
        #[cfg(unix)]
        if found.as_ref().is_ok_and(|found| unix::is_open_as(found, io::stderr())) {
            return Ok(Output::stream(io::stderr()));
        }
        // What is open under a number, as /dev/fd/3, is written behind its end.
        let append = path.parent().is_some_and(|folder| folder.starts_with("/proc") && folder.ends_with("fd"));
        let append = append || path.starts_with("/dev/fd");
        let place = match found {
            Ok(found) if append || !found.is_file() => {
                return OpenOptions::new().write(true).append(append).open(path).map(Output::stream);
            }
            // A link stays, and what it leads to is written: also if that is not there yet.
            Ok(_) => path.canonicalize()?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => match fs::read_link(path) {
                Ok(next) => return Output::open(Some(&folder(path).join(next)), continued),
                Err(_) => path.to_path_buf(),
            },
        };
        Ok(Output::Regular(match continued {
            Some(url) => Part::open(place, url)?,
            None => Regular::beside(place)?,
        }))
    }

    fn stream(to: impl Write + IsTerminal + 'static) -> Output {
        Output::Stream { is_terminal: to.is_terminal(), to: Box::new(to) }
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self, Output::Stream { is_terminal: true, .. })
    }

    pub fn part(&mut self) -> Option<&mut Part> {
        match self {
            Output::Regular(Regular { part, .. }) => part.as_mut(),
            Output::Stream { .. } => None,
        }
    }

    /// All of it has come.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut unfinished = unfinished::STATE.lock();
        if let Output::Regular(regular) = self {
            regular.finish(&mut unfinished)?;
        }
        // Nobody else ends us now.
        mem::forget(unfinished);
        Ok(())
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

/// So that who copies to it can tell its failures from others.
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            // What has come is to be out before the end is known.
            Output::Stream { to, .. } => to.write_all(bytes).and_then(|()| to.flush()),
            Output::Regular(regular) => regular.file.write_all(bytes),
        };
        written.map_err(Failure::output)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Until all of it has come, its bytes are in another file, beside it if possible.
pub struct Regular {
    pub file: File,
    pub name: Option<PathBuf>,
    pub place: PathBuf,
    /// For `--continue`.
    pub part: Option<Part>,
}

impl Regular {
    /// In a new one. In a folder that takes none, for a file that is there: somewhere, without a name.
    pub fn beside(place: PathBuf) -> io::Result<Regular> {
        let existing = existing(&place)?;
        let prefix = with_suffix(Path::new(place.file_name().unwrap_or_default()), ".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode(existing.is_some())));
        let mut unfinished = unfinished::STATE.lock();
        let (file, name) = match builder.tempfile_in(folder(&place)).and_then(|file| Ok(file.keep()?)) {
            Ok((file, name)) => (file, Some(name)),
            Err(_) if existing.is_some() => (tempfile::tempfile()?, None),
            Err(error) => return Err(error),
        };
        unfinished.clone_from(&name);
        Ok(Regular { file, name, place, part: None })
    }

    /// Gives it its name if that changes nothing but what is in it, and copies it into the file that has the name if not.
    fn finish(&mut self, unfinished: &mut Option<PathBuf>) -> io::Result<()> {
        // A machine that stops must not leave a name without what belongs under it.
        self.file.sync_all()?;
        let renamed = |name: &Option<PathBuf>| name.as_ref().map(|name| fs::rename(name, &self.place));
        match existing(&self.place)? {
            None => renamed(&self.name).unwrap_or(Err(io::ErrorKind::NotFound.into()))?,
            // Where something is mounted it fails.
            Some(old) if is_made_alike(&self.file, &old) && renamed(&self.name).is_some_and(|done| done.is_ok()) => {}
            Some(mut old) => {
                let copied = self.file.rewind().and_then(|()| io::copy(&mut self.file, &mut old));
                let copied = copied.and_then(|len| old.set_len(len)).and_then(|()| old.sync_all());
                copied.map_err(|error| match (unfinished.take(), &self.name) {
                    // It is half of what was there, and half of what has come.
                    (_, Some(name)) => {
                        let (place, name) = (self.place.display(), name.display());
                        io::Error::other(format!("{place} is damaged, all that has come is in {name}: {error}"))
                    }
                    _ => error,
                })?;
                let _ = self.name.as_ref().map(fs::remove_file);
            }
        }
        if let Some(part) = &self.part {
            part.forget();
        }
        Ok(())
    }
}

/// Whoever may not write it may not have it replaced either.
fn existing(place: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().write(true).open(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Whether `new` can take the place of `old` so that nobody sees it but by what is in it.
#[cfg(unix)]
fn is_made_alike(new: &File, old: &File) -> bool {
    unix::make_alike(new, old).unwrap_or(false)
}

/// What else belongs to a file there, only the file itself has.
#[cfg(not(unix))]
fn is_made_alike(_new: &File, _old: &File) -> bool {
    false
}

#[cfg(unix)]
pub use unix::{mode, same};

#[cfg(unix)]
mod unix {
    use std::fs::{File, Metadata, Permissions};
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{fchown, MetadataExt, PermissionsExt};

    /// As for any new file: what the umask leaves of it. What is to become one that is there, which others may not be allowed to
    /// read, nobody but us reads until then.
    pub fn mode(exists: bool) -> u32 {
        if exists {
            0o600
        } else {
            0o666
        }
    }

    pub fn is_open_as(found: &Metadata, open: impl AsFd) -> bool {
        let open = open.as_fd().try_clone_to_owned().and_then(|open| File::from(open).metadata());
        open.is_ok_and(|open| same(&open, found))
    }

    pub fn same(a: &Metadata, b: &Metadata) -> bool {
        (a.dev(), a.ino()) == (b.dev(), b.ino())
    }

    /// Mode and owner can be given to it; other names, lists of who may what, and labels can't.
    pub fn make_alike(new: &File, old: &File) -> io::Result<bool> {
        let (is, was) = (new.metadata()?, old.metadata()?);
        if (is.uid(), is.gid()) != (was.uid(), was.gid()) {
            fchown(new, Some(was.uid()), Some(was.gid()))?;
        }
        new.set_permissions(Permissions::from_mode(was.mode() & 0o7777))?;
        #[cfg(target_os = "linux")]
        // There is room for none.
        if rustix::fs::flistxattr(old, &mut [0u8; 1][..]) != Ok(0) {
            return Ok(false);
        }
        Ok(was.nlink() == 1)
    }
}
