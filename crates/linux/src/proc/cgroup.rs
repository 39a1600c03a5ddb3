//! /proc/PID/task/TID/cgroup: where a task is in each hierarchy of control groups.

use super::cursor::Lines;
use super::{Error, Malformed, read_task};

/// The place in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Number of the hierarchy; 0 for version 2.
    pub hierarchy: u32,
    /// Controllers of a version 1 hierarchy, or `name=NAME`; empty for version 2.
    pub controllers: Vec<Vec<u8>>,
    /// Path from the root of the reader's cgroup namespace; ` (deleted)` behind it when the group was removed.
    pub path: Vec<u8>,
}

const FILE: &str = "cgroup";

/// Parses the text of cgroup.
pub fn parse(text: &[u8]) -> Result<Vec<Membership>, Malformed> {
    let mut memberships = Vec::new();
    for mut line in Lines::new(FILE, text)? {
        let hierarchy = line.decimal("number of the hierarchy")?;
        line.expect(b":", "no : behind the hierarchy")?;
        let controllers = line.before(b':').ok_or_else(|| line.malformed("no : behind the controllers"))?;
        if !line.rest().starts_with(b"/") {
            return Err(line.malformed("the path is not absolute"));
        }
        let controllers = match controllers {
            b"" => Vec::new(),
            some => some.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect(),
        };
        memberships.push(Membership { hierarchy, controllers, path: line.rest().to_vec() });
    }
    Ok(memberships)
}

/// The groups of one thread.
pub fn read(pid: i32, tid: i32) -> Result<Vec<Membership>, Error> {
    read_task(pid, tid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] =
        b"9:name=systemd:/\n4:memory:/process_api/b5e6d063b7738259\n2:cpu,cpuacct:/a:b (deleted)\n0::/\n";

    #[test]
    fn both_versions() {
        let groups = parse(GOLDEN).unwrap();
        assert_eq!((groups[1].hierarchy, groups[1].path.as_slice()), (4, &b"/process_api/b5e6d063b7738259"[..]));
        assert_eq!(groups[2].controllers, [b"cpu".to_vec(), b"cpuacct".to_vec()]);
        assert_eq!(groups[2].path, b"/a:b (deleted)");
        assert_eq!((groups[3].hierarchy, groups[3].controllers.len()), (0, 0));
        parse(b"0:/\n").unwrap_err();
        parse(b"0::x\n").unwrap_err();
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
    }

    #[test]
    fn own_groups_are_read() {
        let pid = std::process::id() as i32;
        read(pid, pid).unwrap();
        assert!(matches!(read(i32::MAX, i32::MAX), Err(Error::Gone)));
    }
}
