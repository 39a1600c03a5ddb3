//! /proc/PID/mountinfo: the mounts that a process can reach from its root.

use super::cursor::{Line, Lines, unescape};
use super::{Error, Malformed, read_process, read_task};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount id, as in fdinfo's `mnt_id`.
    pub id: i32,
    /// Id of the mount that it is mounted on; its own or an unlisted one at the root.
    pub parent: i32,
    /// Device of the file system, st_dev.
    pub device_major: u32,
    /// Device of the file system, st_dev.
    pub device_minor: u32,
    /// The directory of the file system that is its root here.
    pub root: Vec<u8>,
    /// Where it is mounted, from the process's root; ends in `//deleted` when that directory was removed.
    pub point: Vec<u8>,
    /// Options of the mount, joined by commas, with the kernel's escapes (see [`options`]).
    pub options: Vec<u8>,
    /// Propagation: `shared:N`, `master:N`, `propagate_from:N`, `unbindable`.
    pub tags: Vec<Vec<u8>>,
    /// Type of the file system, with its subtype (`fuse.sshfs`).
    pub kind: Vec<u8>,
    /// What is mounted, in the file system's own words; may be empty.
    pub source: Vec<u8>,
    /// Options of the file system, joined by commas, with the kernel's escapes (see [`options`]).
    pub super_options: Vec<u8>,
}

const FILE: &str = "mountinfo";

/// Parses the text of mountinfo.
pub fn parse(text: &[u8]) -> Result<Vec<Mount>, Malformed> {
    Lines::new(FILE, text)?.map(parse_line).collect()
}

fn parse_line(mut line: Line<'_>) -> Result<Mount, Malformed> {
    let id = line.decimal("id")?;
    line.expect(b" ", "no space behind the id")?;
    let parent = line.decimal("parent")?;
    line.expect(b" ", "no space behind the parent")?;
    let device_major = line.decimal("major device number")?;
    line.expect(b":", "no : in the device")?;
    let device_minor = line.decimal("minor device number")?;
    line.expect(b" ", "no space behind the device")?;
    let root = unescape(field(&mut line)?, |_| true);
    let point = unescape(field(&mut line)?, |_| true);
    let options = field(&mut line)?.to_vec();
    let mut tags = Vec::new();
    loop {
        match field(&mut line)? {
            b"-" => break,
            tag => tags.push(tag.to_vec()),
        }
    }
    let kind = unescape(field(&mut line)?, |_| true);
    // An empty source leaves two spaces.
    let source = unescape(field(&mut line)?, |_| true);
    let super_options = line.rest().to_vec();
    Ok(Mount { id, parent, device_major, device_minor, root, point, options, tags, kind, source, super_options })
}

fn field<'a>(line: &mut Line<'a>) -> Result<&'a [u8], Malformed> {
    line.before(b' ').ok_or_else(|| line.malformed("a field is missing"))
}

/// The single options of `options` or `super_options`, without escapes. The kernel escapes commas inside of one.
pub fn options(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    text.split(|byte| *byte == b',').map(|option| unescape(option, |_| true))
}

/// The mounts of process `pid`. A zombie has none: `Io` of `InvalidInput`.
pub fn read(pid: i32) -> Result<Vec<Mount>, Error> {
    read_process(pid, FILE, parse)
}

/// The mounts of one thread, which may have a root and a mount namespace of its own.
pub fn read_of_task(pid: i32, tid: i32) -> Result<Vec<Mount>, Error> {
    read_task(pid, tid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"43 42 254:0 / / rw,relatime - ext4 /dev/vda rw,discard,resv_strict,resuid=65534\n\
        44 43 0:25 / /mnt/sandboxing/v1/python ro,nosuid,nodev,relatime - tmpfs model_tools_unavailable ro,size=4k\n\
        56 47 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:7 master:2 - cgroup cgroup rw,name=systemd\n\
        64 43 0:40 /sub\\040dir /tmp/a\\040b\\134c\\012d rw - tmpfs  rw\n\
        65 43 0:41 / /o rw - overlay overlay rw,lowerdir=/a\\054b:/c,upperdir=/u\n";

    #[test]
    fn mounts_of_a_process() {
        let mounts = parse(GOLDEN).unwrap();
        assert_eq!((mounts[0].id, mounts[0].parent), (43, 42));
        assert_eq!((mounts[0].device_major, mounts[0].device_minor), (254, 0));
        assert_eq!((mounts[0].kind.as_slice(), mounts[0].source.as_slice()), (&b"ext4"[..], &b"/dev/vda"[..]));
        assert_eq!(mounts[1].options, b"ro,nosuid,nodev,relatime");
        assert_eq!(mounts[2].tags, [b"shared:7".to_vec(), b"master:2".to_vec()]);
        assert_eq!((mounts[3].root.as_slice(), mounts[3].point.as_slice()), (&b"/sub dir"[..], &b"/tmp/a b\\c\nd"[..]));
        assert_eq!((mounts[3].source.as_slice(), mounts[3].super_options.as_slice()), (&b""[..], &b"rw"[..]));
        assert_eq!(
            options(&mounts[4].super_options).collect::<Vec<_>>(),
            [b"rw".to_vec(), b"lowerdir=/a,b:/c".to_vec(), b"upperdir=/u".to_vec()]
        );
    }

    #[test]
    fn wrong_lines_are_refused() {
        parse(b"43 42 254:0 / / rw,relatime ext4 /dev/vda rw\n").unwrap_err();
        parse(b"43 42 254 / / rw,relatime - ext4 /dev/vda rw\n").unwrap_err();
        parse(b"43 42 254:0 / / rw,relatime - ext4 /dev/vda\n").unwrap_err();
    }

    #[test]
    fn no_mutation_panics() {
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
    }

    #[test]
    fn own_mounts_are_read() {
        let pid = std::process::id() as i32;
        let mounts = read(pid).unwrap();
        assert!(mounts.iter().any(|mount| mount.point == b"/proc" && mount.kind == b"proc"));
        assert_eq!(read_of_task(pid, pid).unwrap(), mounts);
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
    }
}
