//! Names of Unix sockets: what bind(2) was told, byte for byte, apart from where the file lies that it made.
use crate::failure::{About, Result};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::{socket, unix_socket};
use serde::{Deserialize, Serialize};
use std::fs::{self, Permissions};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where names begin in a sockaddr: after the family.
const FAMILY_BYTES: usize = 2;
const DIRECTORIES: [&str; 4] = ["/tmp", "/run", "/dev/shm", "/var/tmp"];

/// A name, and the file that carries it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Name {
    /// The raw sockaddr as getsockname(2) gives it; only a family for a nameless socket.
    pub raw: Vec<u8>,
    /// The file, when it is still there.
    pub file: Option<NameFile>,
}

/// The file of a socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NameFile {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
}

/// Whether a raw sockaddr has a name at all.
pub(super) fn is_named(raw: &[u8]) -> bool {
    raw.len() > FAMILY_BYTES
}

/// Whether it is a path (else abstract).
pub(super) fn is_path(raw: &[u8]) -> bool {
    raw.get(FAMILY_BYTES).is_some_and(|byte| *byte != 0)
}

/// The name as people see it: a path, or `@abstract`.
pub(super) fn shown(raw: &[u8]) -> String {
    let name = raw.get(FAMILY_BYTES..).unwrap_or_default();
    match name.first() {
        None => "without a name".to_owned(),
        Some(0) => format!("@{}", String::from_utf8_lossy(&name[1..])),
        Some(_) => String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned(),
    }
}

impl Name {
    /// Reads the name of a socket.
    ///
    /// # Errors
    /// Its file's path is not text; kernel errors.
    pub(super) fn of(file: BorrowedFd<'_>, subject: impl Fn() -> Subject) -> Result<Name> {
        let raw = socket::own_name(file).about(&subject)?;
        let carrier = if is_path(&raw) { unix_socket::bound_file(file).about(&subject)? } else { None };
        let Some(carrier) = carrier.map(fs::File::from) else { return Ok(Name { raw, file: None }) };
        let metadata = carrier.metadata().about(&subject)?;
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&carrier));
        let path = fs::read_link(link).about(&subject)?;
        // An unlinked file, or one that is hidden or was replaced, cannot be found by its path any more.
        let found = fs::symlink_metadata(&path);
        if metadata.nlink() == 0
            || !found.is_ok_and(|found| (found.dev(), found.ino()) == (metadata.dev(), metadata.ino()))
        {
            return Ok(Name { raw, file: None });
        }
        let path = path.into_os_string().into_string().map_err(|_| {
            Refusal::new(Code::UNSUPPORTED, subject(), "the path of its file is not UTF-8").choice("rename the file")
        })?;
        let owner = (metadata.uid(), metadata.gid());
        Ok(Name { raw, file: Some(NameFile { path, mode: metadata.mode() & 0o7777, owner }) })
    }
}

/// A fresh directory, gone with all that is in it when it is dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

fn fresh(parent: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    parent.join(format!(".godwit-{}-{next}", std::process::id()))
}

impl Scratch {
    fn new(parent: &Path) -> std::io::Result<Scratch> {
        let path = fresh(parent);
        fs::create_dir(&path)?;
        let scratch = Scratch(path);
        fs::set_permissions(&scratch.0, Permissions::from_mode(0o755))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is an empty directory with a telling name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A socket that has its name; where the name is a path, its file lies apart until it is put into place.
#[derive(Debug)]
pub(super) struct Named {
    raw: Vec<u8>,
    apart: Option<(Scratch, PathBuf)>,
}

impl Named {
    /// Gives a socket a name.
    ///
    /// # Errors
    /// GW1203: the name is taken; GW1201: the directory is missing.
    pub(super) fn bind(file: BorrowedFd<'_>, name: &Name, subject: impl Fn() -> Subject) -> Result<Named> {
        let raw = name.raw.clone();
        let taken = |error: godwit_linux::Errno| {
            let cause = format!("its name {} cannot be taken here: {error}", shown(&raw));
            Refusal::new(Code::DESTINATION_LACKS, subject(), cause)
        };
        if !is_path(&raw) {
            unix_socket::bind(file, &raw).map_err(taken)?;
            return Ok(Named { raw, apart: None });
        }
        let parent = name.file.as_ref().and_then(|file| Path::new(&file.path).parent());
        let scratch = match parent {
            Some(parent) => Scratch::new(parent).map_err(|error| {
                let path = parent.display().to_string();
                let cause = format!("the socket {} belongs into it: {error}", shown(&raw));
                Refusal::new(Code::FILE_DIFFERS, Subject::Path(path), cause)
            })?,
            None => {
                let made = DIRECTORIES.iter().map(|parent| Scratch::new(Path::new(parent)));
                made.reduce(std::result::Result::or)
                    .unwrap_or_else(|| Err(std::io::ErrorKind::NotFound.into()))
                    .about(&subject)?
            }
        };
        let bytes = raw.get(FAMILY_BYTES..).unwrap_or_default();
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut place = scratch.0.clone();
        let mut components = Path::new(std::ffi::OsStr::from_bytes(bytes)).components().peekable();
        while let Some(component) = components.next() {
            match component {
                Component::Normal(part) => place.push(part),
                Component::ParentDir if place != scratch.0 => {
                    place.pop();
                }
                _ => continue,
            }
            if components.peek().is_some() {
                fs::create_dir_all(&place).about(&subject)?;
            }
        }
        unix_socket::bind_below(file, &scratch.0, &raw).map_err(taken)?;
        let short = fresh(&scratch.0);
        fs::rename(&place, &short).about(&subject)?;
        fs::set_permissions(&short, Permissions::from_mode(0o777)).about(&subject)?;
        Ok(Named { raw, apart: Some((scratch, short)) })
    }

    /// The sockaddr under which it can be reached now.
    pub(super) fn reachable(&self) -> Vec<u8> {
        match &self.apart {
            None => self.raw.clone(),
            Some((_, file)) => address(file),
        }
    }

    /// Puts the file where it belongs; returns its path, and where that lies which was there before.
    ///
    /// # Errors
    /// GW1201: something else has the path.
    pub(super) fn place(self, name: &Name) -> Result<Option<(PathBuf, Option<PathBuf>)>> {
        let (Some((scratch, from)), Some(to)) = (self.apart, &name.file) else { return Ok(None) };
        let subject = || Subject::Path(to.path.clone());
        let path = PathBuf::from(&to.path);
        std::os::unix::fs::lchown(&from, Some(to.owner.0), Some(to.owner.1)).about(subject)?;
        fs::set_permissions(&from, Permissions::from_mode(to.mode)).about(subject)?;
        let aside = match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => {
                let aside = fresh(path.parent().unwrap_or(Path::new("/")));
                fs::rename(&path, &aside).about(subject)?;
                Some(aside)
            }
            Ok(_) => {
                let cause = "a socket of the tree belongs here, and something else is there";
                return Err(Refusal::new(Code::FILE_DIFFERS, subject(), cause).choice("move it away"));
            }
            Err(_) => None,
        };
        fs::rename(&from, &path).about(subject)?;
        drop(scratch);
        Ok(Some((path, aside)))
    }
}

/// The sockaddr of a path; too long ones are cut, and connecting to them fails.
pub(super) fn address(path: &Path) -> Vec<u8> {
    let mut raw = vec![1, 0];
    raw.extend(path.as_os_str().as_bytes().iter().take(107));
    raw.push(0);
    raw
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn subject() -> Subject {
        Subject::Host
    }

    #[test]
    fn a_socket_has_the_name_that_it_had_and_its_file_where_it_lay() {
        let parent = std::env::temp_dir().join(format!("godwit-name-{}", std::process::id()));
        fs::create_dir_all(&parent).unwrap();
        let path = parent.join("socket");
        let file = NameFile { path: path.to_str().unwrap().to_owned(), mode: 0o640, owner: (0, 0) };
        let name = Name { raw: address(Path::new("../relative/socket")), file: Some(file) };
        fs::write(&path, "in the way").unwrap();
        let socket = unix_socket::create(1).unwrap();
        let named = Named::bind(socket.as_fd(), &name, subject).unwrap();
        assert_eq!(named.place(&name).unwrap_err().code, Code::FILE_DIFFERS);
        fs::remove_file(&path).unwrap();
        let socket = unix_socket::create(1).unwrap();
        let named = Named::bind(socket.as_fd(), &name, subject).unwrap();
        assert_eq!(named.place(&name).unwrap(), Some((path.clone(), None)));
        assert_eq!(Name::of(socket.as_fd(), subject).unwrap(), name);
        std::fs::read_dir(&parent).unwrap().for_each(|entry| assert_eq!(entry.unwrap().path(), path));
        assert_eq!(UnixStream::connect(&path).unwrap_err().raw_os_error(), Some(111), "it does not listen yet");
        fs::remove_file(&path).unwrap();
        assert_eq!(Name::of(socket.as_fd(), subject).unwrap(), Name { file: None, ..name });
        fs::remove_dir_all(parent).unwrap();
    }
}
