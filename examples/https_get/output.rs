//! Where a body goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Seek, Write};
use std::path::{Path, PathBuf};

use crate::unfinished;

/// Where `-o` leads.
pub enum Place {
    Stdout,
    Stderr,
    /// No regular file, or one that is open under a number, as /dev/fd/3, behind whose end is written then.
    Open {
        path: PathBuf,
        append: bool,
    },
    /// A regular file, or none yet.
    Regular(PathBuf),
}

impl Place {
    pub fn of(path: Option<&Path>) -> io::Result<Place> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else { return Ok(Place::Stdout) };
        // /dev/stdout by any name: opened again, it would be written from the beginning.
        #[cfg(unix)]
        if let Some(place) = unix::standard(path) {
            return Ok(place);
        }
        let (path, append) = follow(path)?;
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if append || !found.is_file() => Ok(Place::Open { path, append }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Place::Regular(path)),
        }
    }
}

/// What a link leads to, which may not be there yet: that is written, and the link stays. And whether it is what some process
/// has open.
fn follow(path: &Path) -> io::Result<(PathBuf, bool)> {
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        let folder = folder(&path).canonicalize().unwrap_or_default();
        if folder == Path::new("/dev/fd") || folder.starts_with("/proc") && folder.ends_with("fd") {
            return Ok((path, true));
        }
        match fs::read_link(&path) {
            Ok(next) => path = self::folder(&path).join(next),
            Err(_) => return Ok((path, false)),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub enum Output {
    /// Written as it comes.
    Stream {
        to: Box<dyn Write>,
        is_terminal: bool,
    },
    Regular(Regular),
}

/// A file that is there when all of it is; until then its bytes are in another one, beside it if possible.
pub struct Regular {
    file: File,
    name: Option<PathBuf>,
    place: PathBuf,
    /// For `--continue`.
    is_kept: bool,
}

impl Output {
    pub fn create(place: Place) -> io::Result<Output> {
        let stream = |to: File| Ok(Output::Stream { is_terminal: to.is_terminal(), to: Box::new(to) });
        match place {
            // Not `io::stdout()`, which keeps what has no end of line: what has come is to be out before the end is known.
            #[cfg(unix)]
            Place::Stdout => stream(unix::duplicate(io::stdout())?),
            #[cfg(unix)]
            Place::Stderr => stream(unix::duplicate(io::stderr())?),
            #[cfg(not(unix))]
            Place::Stdout => {
                Ok(Output::Stream { is_terminal: io::stdout().is_terminal(), to: Box::new(io::stdout().lock()) })
            }
            #[cfg(not(unix))]
            Place::Stderr => Ok(Output::Stream { is_terminal: io::stderr().is_terminal(), to: Box::new(io::stderr()) }),
            Place::Open { path, append } => stream(OpenOptions::new().write(true).append(append).open(path)?),
            Place::Regular(place) => {
                let (file, name) = unfinished::begin(|| beside(&place))?;
                Ok(Output::Regular(Regular { file, name, place, is_kept: false }))
            }
        }
    }

    /// With what `--continue` keeps.
    pub fn kept_in(file: File, name: PathBuf, place: PathBuf) -> Output {
        Output::Regular(Regular { file, name: Some(name), place, is_kept: true })
    }

    pub fn kept(&self) -> Option<&Path> {
        match self {
            Output::Regular(Regular { name, is_kept: true, .. }) => name.as_deref(),
            _ => None,
        }
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self, Output::Stream { is_terminal: true, .. })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::Stream { to, .. } => to.write_all(bytes),
            Output::Regular(regular) => regular.file.write_all(bytes),
        }
    }

    /// All of it has come.
    pub fn finish(&mut self) -> io::Result<()> {
        match self {
            Output::Stream { to, .. } => to.flush().and_then(|()| unfinished::finish(|_| Ok(()))),
            Output::Regular(regular) => {
                // A machine that stops must not leave a name without what belongs under it.
                regular.file.sync_all()?;
                unfinished::finish(|removed| regular.finish(removed))
            }
        }
    }
}

/// A new file beside this one. In a folder that takes none, for one that is there: somewhere, without a name.
fn beside(place: &Path) -> io::Result<(File, Option<PathBuf>)> {
    let existing = existing(place)?;
    let mut prefix = place.file_name().unwrap_or_default().to_os_string();
    prefix.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".part");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode(existing.is_some())));
    match builder.tempfile_in(folder(place)).and_then(|file| Ok(file.keep()?)) {
        Ok((file, name)) => Ok((file, Some(name))),
        Err(_) if existing.is_some() => Ok((tempfile::tempfile()?, None)),
        Err(error) => Err(error),
    }
}

/// As for any new file: what the umask leaves of it. What is to become one that is there, which others may not be allowed to
/// read, nobody but us reads until then.
#[cfg(unix)]
pub fn mode(exists: bool) -> u32 {
    if exists {
        0o600
    } else {
        0o666
    }
}

/// Whoever may not write it may not have it replaced either.
fn existing(place: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().write(true).open(place) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Regular {
    /// Gives it its name if that changes nothing but what is in it, and copies it into the file that has the name if not.
    fn finish(&mut self, removed: &mut Option<PathBuf>) -> io::Result<()> {
        let existing = existing(&self.place)?;
        if let Some(name) = &self.name {
            if existing.as_ref().is_none_or(|existing| replaces(&self.file, existing)) {
                match fs::rename(name, &self.place) {
                    Ok(()) => {
                        *removed = None;
                        return Ok(());
                    }
                    // It may be where something is mounted.
                    Err(_) if existing.is_some() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let Some(mut existing) = existing else { return Err(io::ErrorKind::NotFound.into()) };
        let copied = self.file.rewind().and_then(|()| io::copy(&mut self.file, &mut existing));
        match (copied.and_then(|len| existing.set_len(len)).and_then(|()| existing.sync_all()), &self.name) {
            (Ok(()), name) => {
                if let (Some(name), true) = (name, self.is_kept) {
                    let _ = fs::remove_file(name);
                }
                Ok(())
            }
            (Err(error), Some(name)) => {
                // It is half of what was there, and half of what has come.
                *removed = None;
                self.is_kept = true;
                let (place, name) = (self.place.display(), name.display());
                Err(io::Error::other(format!("{place} is damaged, all that has come is in {name}: {error}")))
            }
            (Err(error), None) => Err(error),
        }
    }
}

impl Drop for Regular {
    fn drop(&mut self) {
        if !self.is_kept {
            unfinished::remove();
        }
    }
}

/// Whether `new` can take the place of `old` so that nobody sees it but by what is in it: it is made to.
#[cfg(unix)]
fn replaces(new: &File, old: &File) -> bool {
    unix::is_made_alike(new, old).unwrap_or(false)
}

/// What else belongs to a file there, only the file itself has.
#[cfg(not(unix))]
fn replaces(_new: &File, _old: &File) -> bool {
    false
}

#[cfg(unix)]
mod unix {
    use std::fs::{self, File, Metadata, Permissions};
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{fchown, MetadataExt, PermissionsExt};
    use std::path::Path;

    use super::Place;

    pub fn duplicate(descriptor: impl AsFd) -> io::Result<File> {
        Ok(descriptor.as_fd().try_clone_to_owned()?.into())
    }

    /// If it is what our standard output goes to, or our messages.
    pub fn standard(path: &Path) -> Option<Place> {
        let found = fs::metadata(path).ok()?;
        let is = |open: io::Result<File>| open.and_then(|open| open.metadata()).is_ok_and(|open| same(&open, &found));
        if is(duplicate(io::stdout())) {
            Some(Place::Stdout)
        } else if is(duplicate(io::stderr())) {
            Some(Place::Stderr)
        } else {
            None
        }
    }

    pub fn same(a: &Metadata, b: &Metadata) -> bool {
        (a.dev(), a.ino()) == (b.dev(), b.ino())
    }

    /// Mode and owner can be given to it; other names, lists of who may what, and labels can't.
    pub fn is_made_alike(new: &File, old: &File) -> io::Result<bool> {
        let (is, was) = (new.metadata()?, old.metadata()?);
        if was.nlink() > 1 {
            return Ok(false);
        }
        if (is.uid(), is.gid()) != (was.uid(), was.gid()) {
            fchown(new, Some(was.uid()), Some(was.gid()))?;
        }
        new.set_permissions(Permissions::from_mode(was.mode() & 0o7777))?;
        #[cfg(target_os = "linux")]
        if attributes(new)? != attributes(old)? {
            return Ok(false);
        }
        Ok(true)
    }

    #[cfg(target_os = "linux")]
    fn attributes(file: &File) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        use rustix::fs::{fgetxattr, flistxattr};
        use rustix::io::Errno;

        // As much as there can be (xattr(7)).
        let mut buf = vec![0; 64 * 1024];
        let len = match flistxattr(file, &mut buf[..]) {
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            len => len?,
        };
        let names: Vec<Vec<u8>> = buf[..len].split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        let mut attributes = Vec::new();
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            let len = fgetxattr(file, &*name, &mut buf[..])?;
            attributes.push((name, buf[..len].to_vec()));
        }
        attributes.sort();
        Ok(attributes)
    }
}

#[cfg(unix)]
pub use unix::same;
