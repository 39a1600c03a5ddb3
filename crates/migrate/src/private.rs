//! Files that hold the memory of processes, keys and passwords among it: only their owner may read them.
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Read and written by the owner only.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Makes a directory and those above it where they are missing; one that is there stays as it is.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// A new file in the place of whatever has its name: who may write into the directory must not choose what is written over.
pub(crate) fn replace(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// A file to be read and written, made if it is not there.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn nobody_else_reads_and_what_a_link_points_to_stays_as_it_is() {
        let above = std::env::temp_dir().join(format!("godwit-private-{}", std::process::id()));
        let inner = above.join("inner");
        directory(&inner).unwrap();
        let (other, link, made) = (inner.join("other"), inner.join("link"), inner.join("made"));
        std::fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        drop(replace(&link).unwrap());
        drop(open(&made).unwrap());
        drop(replace(&made).unwrap());
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode();
        let modes = [mode(&inner) & 0o77, mode(&link) & 0o77, mode(&made) & 0o77];
        let (is_file, text) = (link.symlink_metadata().unwrap().is_file(), std::fs::read_to_string(&other).unwrap());
        std::fs::remove_dir_all(&above).unwrap();
        assert_eq!((modes, is_file, text.as_str()), ([0; 3], true, "kept"));
    }
}
