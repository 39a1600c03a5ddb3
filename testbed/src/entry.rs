//! The hidden entries: what this executable becomes when a host starts it as its first process, or to start others.
//!
//! A host's first process and a detached program's starter are this same executable, so that a host needs no other file.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, process, thread};

use godwit_linux::mount::{self, Restriction};
use godwit_linux::namespace::{self, Placement, User};
use godwit_linux::netlink::RouteSocket;

/// First argument that makes this executable the first process of a host.
pub(crate) const INIT: &str = "__godwit-host-init";
/// First argument that makes this executable start a program that the host's first process adopts.
pub(crate) const DETACH: &str = "__godwit-host-detach";
/// What the first process says when its host stands.
pub(crate) const READY: &str = "ready";
/// What its maker writes to let the host stand after the maker has ended.
pub(crate) const KEEP: u8 = b'k';

/// Directories that every host has to itself, and the mode of their roots.
const PRIVATE: [(&str, &str); 3] = [("/tmp", "mode=1777"), ("/dev/shm", "mode=1777"), ("/run", "mode=755")];

/// Returns at once unless this process was started by the testbed as a part of a host; then it never returns.
/// Call it first in `main` of any binary that makes hosts.
pub fn entry() {
    let mut arguments = env::args_os().skip(1);
    let run: fn(Vec<OsString>) -> io::Result<()> = match arguments.next() {
        Some(first) if first == INIT => host_init,
        Some(first) if first == DETACH => detach,
        _ => return,
    };
    let code = match run(arguments.collect()) {
        Ok(()) => 0,
        Err(error) => {
            // The maker reads the reason from this pipe; if it is gone, nobody wants to know.
            let _ = writeln!(io::stdout(), "{error}");
            1
        }
    };
    process::exit(code);
}

/// The first process of a host: builds what can only be built from inside, then collects orphans until its maker ends.
/// Arguments: host name, then the directories that stay visible.
fn host_init(arguments: Vec<OsString>) -> io::Result<()> {
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_default();
    let shared: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    namespace::collect_children_silently()?;
    env::set_current_dir("/")?;
    named("name the host", namespace::set_host_name(&name.to_string_lossy()))?;
    named("make mounts private", mount::make_private(Path::new("/")))?;
    mount_private_directories(&shared)?;
    named("mount /proc", mount::mount_new("proc", Path::new("/proc"), Restriction::DataOnly, ""))?;
    let terminals = Path::new("/dev/pts");
    let options = "newinstance,ptmxmode=666,mode=620,gid=5";
    named("mount /dev/pts", mount::mount_new("devpts", terminals, Restriction::DevicesOnly, options))?;
    mount_queues()?;
    named("set the loopback device up", RouteSocket::open().and_then(|mut socket| socket.set_up("lo", true)))?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    wait_for_the_maker()
}

/// POSIX queues are optional in a kernel; a host without them is still a host.
fn mount_queues() -> io::Result<()> {
    let target = Path::new("/dev/mqueue");
    if fs::create_dir_all(target).is_err() {
        return Ok(());
    }
    match mount::mount_new("mqueue", target, Restriction::DataOnly, "") {
        Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(()),
        other => named("mount /dev/mqueue", other),
    }
}

/// "No such device": mount's answer for a filesystem that the kernel does not have.
const ENODEV: i32 = 19;

/// Covers the private directories, and shows the shared ones again where they lie below one of them.
fn mount_private_directories(shared: &[PathBuf]) -> io::Result<()> {
    let mut kept = Vec::new();
    for path in shared {
        if PRIVATE.iter().any(|(private, _)| path.starts_with(private)) {
            kept.push((path, File::open(path)?));
        }
    }
    for (path, options) in PRIVATE {
        let mounted = mount::mount_new("tmpfs", Path::new(path), Restriction::NoPrivilege, options);
        named(&format!("mount {path}"), mounted)?;
    }
    for (path, directory) in kept {
        fs::create_dir_all(path)?;
        // The machine's /proc, still: it knows this process by its id there.
        let seen = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        named(&format!("show {}", path.display()), mount::bind(&seen, path))?;
    }
    Ok(())
}

/// The standard input is a pipe that the maker holds: its end means that the maker has ended, however it ended.
fn wait_for_the_maker() -> io::Result<()> {
    let mut word = [0];
    loop {
        match io::stdin().read(&mut word) {
            Ok(0) => return Ok(()),
            Ok(_) if word[0] == KEEP => loop {
                thread::park();
            },
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn named<T>(doing: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("cannot {doing}: {error}")))
}

/// Starts a program in a session of its own, with nothing on its standard streams, says its id, and ends, so that the
/// host's first process adopts it. Arguments: `-` or `user:group:group,…`; program; its arguments.
fn detach(arguments: Vec<OsString>) -> io::Result<()> {
    let mut arguments = arguments.into_iter();
    let user = arguments.next().unwrap_or_default();
    let user = parse_user(&user.to_string_lossy())?;
    let program = arguments.next().ok_or(io::ErrorKind::InvalidInput)?;
    // What this program's own starter left open would be an edge of the detached program's tree.
    godwit_linux::descriptor::close_on_exec_from(3)?;
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let placement = Placement { new_session: true, user: user.as_ref(), ..Placement::default() };
    let child = named(&format!("run {}", program.to_string_lossy()), namespace::spawn_placed(command, &placement))?;
    writeln!(io::stdout(), "{}", child.id())
}

/// Writes a user as one argument.
pub(crate) fn user_argument(user: Option<&User>) -> String {
    user.map_or_else(
        || "-".to_owned(),
        |user| {
            let groups: Vec<String> = user.supplementary.iter().map(u32::to_string).collect();
            format!("{}:{}:{}", user.user, user.group, groups.join(","))
        },
    )
}

fn parse_user(text: &str) -> io::Result<Option<User>> {
    if text == "-" {
        return Ok(None);
    }
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut parts = text.splitn(3, ':');
    let mut next = || parts.next().unwrap_or_default();
    let user = next().parse().map_err(wrong)?;
    let group = next().parse().map_err(wrong)?;
    let groups = next().split(',').filter(|part| !part.is_empty());
    let supplementary = groups.map(str::parse).collect::<Result<_, _>>().map_err(wrong)?;
    Ok(Some(User { user, group, supplementary }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_survives_being_an_argument() {
        for supplementary in [vec![], vec![4], vec![4, 20]] {
            let user = User { user: 1000, group: 1001, supplementary };
            assert_eq!(parse_user(&user_argument(Some(&user))).unwrap(), Some(user));
        }
        assert_eq!(parse_user(&user_argument(None)).unwrap(), None);
        assert!(parse_user("1000").is_err());
        assert!(parse_user("1000:x:").is_err());
    }
}
