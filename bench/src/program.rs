//! The small C programs that are moved, and the one that measures the link: compiled where the benches run.
use crate::error::{Doing, Error, program};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The sources, in the binary, so that it needs no repository.
const SOURCES: [(&str, &str); 10] = [
    ("board.h", include_str!("../programs/board.h")),
    ("getpid.c", include_str!("../programs/getpid.c")),
    ("memory.c", include_str!("../programs/memory.c")),
    ("threads.c", include_str!("../programs/threads.c")),
    ("sharing.c", include_str!("../programs/sharing.c")),
    ("descriptors.c", include_str!("../programs/descriptors.c")),
    ("mappings.c", include_str!("../programs/mappings.c")),
    ("writer.c", include_str!("../programs/writer.c")),
    ("toucher.c", include_str!("../programs/toucher.c")),
    ("stream.c", include_str!("../programs/stream.c")),
];

/// A directory with the sources, where programs are compiled as they are asked for.
#[derive(Debug)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Writes the sources.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn new(directory: &Path) -> Result<Programs, Error> {
        for (name, text) in SOURCES {
            std::fs::write(directory.join(name), text).doing(format!("write {name}"))?;
        }
        Ok(Programs { directory: directory.to_owned() })
    }

    /// Compiles a program, once.
    ///
    /// # Errors
    /// There is no C compiler, or it refuses.
    pub fn compile(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.directory.join(name);
        if path.exists() {
            return Ok(path);
        }
        let source = path.with_extension("c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-pthread", "-o"]).arg(&path).arg(source);
        let output = compiler.output().map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => program("cc", "the benches need a C compiler: install the package gcc"),
            _ => Error::Step { doing: "run cc".to_owned(), cause },
        })?;
        if output.status.success() {
            Ok(path)
        } else {
            Err(program(format!("cc {name}.c"), String::from_utf8_lossy(&output.stderr)))
        }
    }
}
