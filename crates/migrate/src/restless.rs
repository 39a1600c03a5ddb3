//! Files of a tree that runs are written, made and removed while two hosts compare them: what is no longer as it was seen is not
//! asked for so exactly. Capture and restore compare what there is when the tree is still.
use godwit_engine::demand::Demand;
use godwit_engine::resource::{Length, Need};
use godwit_image::{Code, Refusal};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
/// Times of files are those of the kernel's last tick.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Whether a destination has refused nothing but files.
pub(crate) fn is_about_files(refusals: &[Refusal]) -> bool {
    !refusals.is_empty() && refusals.iter().all(|refusal| refusal.code == Code::FILE_DIFFERS)
}

/// Asks less of every file that has changed on this host since it was seen: of one that is written no length, of one that is
/// gone or made anew its directory only. False where none has changed: then the answer was about files as they are.
pub(crate) fn ask_less(demand: &mut Demand, seen: SystemTime) -> bool {
    let since = seen - TICK;
    let mut changed = false;
    for (_, need) in &mut demand.needs {
        let Need::Path { path, length, file_type } = need else { continue };
        // What the user has chosen for an edge is the destination's alone.
        if *file_type == 0 {
            continue;
        }
        let metadata = std::fs::symlink_metadata(&path).ok().filter(|metadata| metadata.mode() & S_IFMT == *file_type);
        let is_new = metadata.as_ref().is_none_or(|metadata| metadata.created().is_ok_and(|time| time >= since));
        let less = match metadata {
            _ if is_new => match Path::new(&path).parent() {
                Some(parent) => Need::path(parent.to_string_lossy().into_owned(), S_IFDIR),
                None => continue,
            },
            Some(metadata) if length.differs(metadata.size()).is_some() || changed_at(&metadata) >= since => {
                Need::Path { path: path.clone(), length: Length::Any, file_type: *file_type }
            }
            _ => continue,
        };
        changed |= *need != less;
        *need = less;
    }
    changed
}

/// When a file's content, length or number of names last changed.
fn changed_at(metadata: &std::fs::Metadata) -> SystemTime {
    let (seconds, nanoseconds) = (metadata.ctime().max(0) as u64, metadata.ctime_nsec().max(0) as u64);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_image::Subject;

    const S_IFREG: u32 = 0o100_000;

    fn needs(demand: &Demand) -> Vec<Need> {
        demand.needs.iter().map(|(_, need)| need.clone()).collect()
    }

    #[test]
    fn less_is_asked_of_what_changes_and_only_of_that() {
        let directory = std::env::temp_dir().join(format!("godwit-restless-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
        for name in ["still", "written", "gone"] {
            std::fs::write(path(name), b"before").unwrap();
        }
        let file = |name: &str| Need::Path { path: path(name), length: Length::AtLeast(6), file_type: S_IFREG };
        let wanted = ["still", "written", "gone"].map(|name| (Subject::Path(path(name)), file(name)));
        let mut demand = Demand { needs: wanted.into(), ..Demand::default() };
        // Long after: the files that were made just now are old.
        let seen = SystemTime::now() + Duration::from_secs(1000);
        assert!(!ask_less(&mut demand, seen));
        std::fs::write(path("written"), b"cut").unwrap();
        std::fs::remove_file(path("gone")).unwrap();
        assert!(ask_less(&mut demand, seen));
        let of_directory = Need::path(directory.to_string_lossy().into_owned(), S_IFDIR);
        let any = Need::Path { path: path("written"), length: Length::Any, file_type: S_IFREG };
        assert_eq!(needs(&demand), [file("still"), any, of_directory.clone()]);
        assert!(!ask_less(&mut demand, seen), "it ends");
        // Seen before they were made: as if each had been made anew.
        assert!(ask_less(&mut demand, seen - Duration::from_secs(2000)));
        assert_eq!(needs(&demand)[..2], [of_directory.clone(), of_directory]);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn only_files_are_asked_again() {
        let refusal = |code| Refusal::new(code, Subject::Host, "cause");
        assert!(is_about_files(&[refusal(Code::FILE_DIFFERS)]));
        assert!(!is_about_files(&[refusal(Code::FILE_DIFFERS), refusal(Code::PID_IN_USE)]));
        assert!(!is_about_files(&[]));
    }
}
