//! The Debian packages that the tests need, and how the missing ones are installed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::child;
use super::report::Report;

/// Something that the tests call or read.
struct Need {
    /// A command looked for in the path, or a file when it begins with `/`.
    what: &'static str,
    /// The Debian package that has it.
    package: &'static str,
    /// Only the real programs that are moved want it.
    is_for_programs: bool,
}

/// What the build, the links between hosts and the workloads need.
const fn always(what: &'static str, package: &'static str) -> Need {
    Need { what, package, is_for_programs: false }
}

/// A real program that is moved while it works and compared with an unmoved run.
const fn program(what: &'static str, package: &'static str) -> Need {
    Need { what, package, is_for_programs: true }
}

const NEEDS: [Need; 21] = [
    always("gcc", "gcc"),
    always("/usr/include/stdio.h", "libc6-dev"),
    always("ip", "iproute2"),
    always("tc", "iproute2"),
    always("ps", "procps"),
    always("unshare", "util-linux"),
    always("ssh", "openssh-client"),
    always("/usr/sbin/sshd", "openssh-server"),
    program("make", "make"),
    program("gzip", "gzip"),
    program("/usr/bin/python3", "python3"),
    program("perl", "perl"),
    program("sqlite3", "sqlite3"),
    program("redis-server", "redis-server"),
    program("redis-cli", "redis-tools"),
    program("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"),
    program("tmux", "tmux"),
    program("javac", "default-jdk-headless"),
    program("go", "golang-go"),
    program("node", "nodejs"),
    program("ffmpeg", "ffmpeg"),
];

/// Installs what is missing. What cannot be installed is a failure of this part; the others still run.
pub(super) fn install(report: &mut Report, has_programs: bool) {
    let wanted = NEEDS.iter().filter(|need| has_programs || !need.is_for_programs);
    let folders = search_path(&child::path());
    let mut packages: Vec<_> = wanted.filter(|need| !is_there(need.what, &folders)).map(|need| need.package).collect();
    packages.dedup();
    if packages.is_empty() {
        return report.passed(1);
    }
    report.heading(&format!("packages: apt-get install {}", packages.join(" ")));
    match try_install(&packages) {
        Ok(()) => report.passed(1),
        Err(why) => report.failed(&format!("packages: {why}; install by hand: {}", packages.join(" "))),
    }
}

fn try_install(packages: &[&str]) -> Result<(), String> {
    apt(&["update"])?;
    let _barrier = ServiceBarrier::raise(Path::new("/usr/sbin"))
        .map_err(|error| format!("services could not be kept from starting ({error})"))?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    let status = Command::new("apt-get")
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("PATH", child::path())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("apt-get could not be started ({error}); is this Debian?"))?;
    if status.success() { Ok(()) } else { Err(format!("apt-get {}: {status}", arguments[0])) }
}

fn search_path(path: &str) -> Vec<PathBuf> {
    path.split(':').filter(|one| !one.is_empty()).map(PathBuf::from).collect()
}

/// Is the command in one of `folders`, or the file where it says?
fn is_there(what: &str, folders: &[PathBuf]) -> bool {
    let is_program =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    if what.starts_with('/') {
        return Path::new(what).exists();
    }
    folders.iter().map(|folder| folder.join(what)).any(|path| is_program(&path))
}

/// While this lives, packages that are installed do not start their services: Debian asks `policy-rc.d` first, and
/// 101 means no. What was there before is put back, by the next run if this one is killed.
struct ServiceBarrier {
    policy: PathBuf,
    saved: PathBuf,
}

/// How we know our own file again.
const BARRIER: &str =
    "#!/bin/sh\n# Made by `cargo xtask test` of Godwit while it installs packages; may be deleted.\nexit 101\n";

impl ServiceBarrier {
    fn raise(folder: &Path) -> io::Result<Self> {
        let barrier = Self { policy: folder.join("policy-rc.d"), saved: folder.join("policy-rc.d.before-godwit") };
        // A run that was killed here left things as they are now.
        barrier.lower()?;
        if barrier.policy.exists() {
            fs::rename(&barrier.policy, &barrier.saved)?;
        }
        fs::write(&barrier.policy, BARRIER)?;
        fs::set_permissions(&barrier.policy, fs::Permissions::from_mode(0o755))?;
        Ok(barrier)
    }

    fn lower(&self) -> io::Result<()> {
        if fs::read_to_string(&self.policy).is_ok_and(|text| text == BARRIER) {
            fs::remove_file(&self.policy)?;
        }
        if self.saved.exists() && !self.policy.exists() {
            fs::rename(&self.saved, &self.policy)?;
        }
        Ok(())
    }
}

impl Drop for ServiceBarrier {
    fn drop(&mut self) {
        if let Err(error) = self.lower() {
            eprintln!("xtask: {} could not be put back: {error}", self.policy.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes away with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("godwit-xtask-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("a fresh folder");
            Self(path)
        }

        fn policy(&self) -> Option<String> {
            fs::read_to_string(self.0.join("policy-rc.d")).ok()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_barrier_leaves_nothing_where_nothing_was() {
        let folder = Folder::new("nothing");
        let barrier = ServiceBarrier::raise(&folder.0).expect("raised");
        assert_eq!(folder.policy().as_deref(), Some(BARRIER));
        drop(barrier);
        assert_eq!(fs::read_dir(&folder.0).expect("readable").count(), 0);
    }

    #[test]
    fn the_barrier_puts_back_what_was_there() {
        let folder = Folder::new("something");
        fs::write(folder.0.join("policy-rc.d"), "mine").expect("written");
        drop(ServiceBarrier::raise(&folder.0).expect("raised"));
        assert_eq!(folder.policy().as_deref(), Some("mine"));
        assert_eq!(fs::read_dir(&folder.0).expect("readable").count(), 1);
    }

    #[test]
    fn a_killed_run_is_healed_by_the_next() {
        let folder = Folder::new("killed");
        fs::write(folder.0.join("policy-rc.d"), "mine").expect("written");
        std::mem::forget(ServiceBarrier::raise(&folder.0).expect("raised"));
        drop(ServiceBarrier::raise(&folder.0).expect("raised again"));
        assert_eq!(folder.policy().as_deref(), Some("mine"));
    }

    #[test]
    fn commands_and_files_are_looked_for() {
        let folders = search_path("/bin::/usr/bin");
        assert!(is_there("sh", &folders) && is_there("/etc/passwd", &folders));
        assert!(!is_there("no-such-command", &folders) && !is_there("/no/such/file", &folders));
        assert!(search_path(&child::path()).contains(&PathBuf::from("/usr/sbin")));
    }
}
