//! Which processes of a running tree share memory, descriptors or directories, and whether births can give them that: a
//! process shares with the one that forks it, or with nobody.
use crate::failure::{About, Result};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::kcmp::{self, Object};
use std::cmp::Ordering;

const WHAT: [(Object, &str); 3] =
    [(Object::Memory, "memory"), (Object::Files, "file table"), (Object::Filesystem, "working directory")];

/// The refusals for processes (number, parent) that share with one that does not fork them.
///
/// # Errors
/// kcmp fails, and not because a process has ended.
pub(crate) fn judge(members: &[(i32, i32)]) -> Result<Vec<Refusal>> {
    let mut refusals = Vec::new();
    for (object, what) in WHAT {
        // Groups of equals: each a list of numbers in the tree's order.
        let mut groups: Vec<Vec<i32>> = Vec::new();
        for &(pid, parent) in members {
            match place(&groups, pid, object)? {
                Some(Ok(index)) => {
                    if !groups[index].contains(&parent) {
                        let cause = format!("it shares its {what} with a process that is not the one that forks it");
                        refusals.push(Refusal::new(Code::UNSUPPORTED, Subject::Process(pid), cause));
                    }
                    groups[index].push(pid);
                }
                Some(Err(index)) => groups.insert(index, vec![pid]),
                None => {}
            }
        }
    }
    Ok(refusals)
}

/// Where a process belongs among groups that are in the kernel's order; nothing when it has ended.
fn place(groups: &[Vec<i32>], pid: i32, object: Object) -> Result<Option<std::result::Result<usize, usize>>> {
    let (mut low, mut high) = (0, groups.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        match kcmp::kcmp(groups[middle][0], pid, object) {
            Ok(Ordering::Equal) => return Ok(Some(Ok(middle))),
            Ok(Ordering::Less) => low = middle + 1,
            Ok(Ordering::Greater) => high = middle,
            Err(error) if error.is_gone() => return Ok(None),
            Err(error) => return Err(error).about(|| Subject::Process(pid)),
        }
    }
    Ok(Some(Err(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharing_with_anybody_but_the_parent_is_refused() {
        let own = std::process::id() as i32;
        // This process twice: as if a second one shared everything with it.
        let found = judge(&[(own, 1), (own, 7)]).unwrap();
        assert_eq!(found.len(), WHAT.len());
        assert!(found[0].cause.contains("memory"));
        assert_eq!(judge(&[(own, 1), (own, own)]).unwrap(), []);
        assert_eq!(judge(&[(own, 1), (i32::MAX, own)]).unwrap(), []);
    }
}
