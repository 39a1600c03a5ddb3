//! What is kept ready of a running tree's descriptors, so that a look at one costs less when the tree is down: the files in /proc
//! that tell about each, opened, and the names that they had. Nothing that the tree has open is held by it, and nothing is taken
//! for true but what those files and the descriptors say when the tree is frozen.
use crate::failure::{About, Result, unread};
use crate::look::Look;
use crate::procfs;
use crate::resource::unix_fact;
use godwit_image::Subject;
use godwit_linux::pidfd::PidFd;
use godwit_linux::proc::Error as ProcError;
use godwit_linux::proc::fdinfo::{self, DescriptorInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

/// Of fewer it does not pay.
const FEW: usize = 64;
/// More are not kept open: each costs the kernel some KiB.
const KEPT_MAX: usize = 4096;

/// One descriptor, as it was when the tree was running.
#[derive(Debug)]
struct Glimpse {
    /// /proc/PID/fdinfo/N: says at each reading what is there then.
    file: File,
    link: Vec<u8>,
    information: DescriptorInfo,
}

impl Glimpse {
    fn of(pid: i32, number: i32) -> Option<Glimpse> {
        // One that was closed meanwhile is found, or not, when the tree is frozen.
        let file = fdinfo::open(pid, number).ok()?;
        let information = fdinfo::read_again(&file).ok()?;
        Some(Glimpse { file, link: link(pid, number).ok()?, information })
    }

    /// The name, where what is told now allows for no other one.
    fn name(&self, now: &DescriptorInfo) -> Option<&[u8]> {
        let is_same_inode =
            now.inode.is_some() && (now.inode, now.mount) == (self.information.inode, self.information.mount);
        // The kernel makes these names out of the inode's number alone, or they are of what prints such a line.
        let of_inode = self.link.starts_with(b"pipe:[") || self.link.starts_with(b"socket:[");
        let of_counter = self.link == b"anon_inode:[eventfd]" && now.eventfd.is_some();
        (is_same_inode && (of_inode || of_counter)).then_some(&self.link)
    }
}

fn link(pid: i32, number: i32) -> std::io::Result<Vec<u8>> {
    std::fs::read_link(format!("/proc/{pid}/fd/{number}")).map(|link| link.as_os_str().as_bytes().to_vec())
}

/// Those of one table, by number.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<i32, Glimpse>);

impl Table {
    /// Looks at the descriptor of a frozen process that had been glimpsed.
    fn look(&self, process: &PidFd, number: i32) -> Result<Option<Look>> {
        let Some(glimpse) = self.0.get(&number) else { return Look::descriptor(process, number) };
        let subject = || Subject::Descriptor(process.pid(), number, String::new());
        let information = match fdinfo::read_again(&glimpse.file) {
            Ok(information) => information,
            Err(ProcError::Gone) => return Ok(None),
            Err(error) => return Err(unread(subject(), &error)),
        };
        let name = match glimpse.name(&information) {
            Some(name) => name.to_vec(),
            None => link(process.pid(), number).about(subject)?,
        };
        Look::with(process, number, name, information)
    }

    /// Looks at every descriptor of a frozen process but those that are known, in the order of their numbers. Some may have been
    /// looked at already.
    ///
    /// # Errors
    /// As [`Look::descriptor`].
    pub(crate) fn look_at_all(
        &self,
        process: &PidFd,
        known: &BTreeSet<i32>,
        looked: Vec<(i32, Look)>,
    ) -> Result<Vec<(i32, Look)>> {
        // Who became a second number of something known since it was glimpsed at is known, too.
        let mut looks = looked;
        looks.retain(|(number, _)| !known.contains(number));
        let seen: BTreeSet<i32> = looks.iter().map(|(number, _)| *number).collect();
        let is_left = |number: &i32| !known.contains(number) && !seen.contains(number);
        let glimpsed: Vec<i32> = self.0.keys().copied().filter(is_left).collect();
        looks.extend(self.look_at(process, &glimpsed)?);
        looks.sort_unstable_by_key(|(number, _)| *number);
        let found = looks.len() + known.len();
        // Where as many are open as were seen, these are all.
        if found == 0 || procfs::count_of_descriptors(process.pid()) != Some(found) {
            let others = procfs::descriptors(process.pid()).about(|| Subject::Process(process.pid()))?;
            let is_new = |number: &i32| !self.0.contains_key(number) && is_left(number);
            let others: Vec<i32> = others.into_iter().filter(is_new).collect();
            looks.extend(self.look_at(process, &others)?);
            looks.sort_unstable_by_key(|(number, _)| *number);
        }
        Ok(looks)
    }

    fn look_one_by_one(&self, process: &PidFd, numbers: &[i32]) -> Result<Vec<(i32, Look)>> {
        let look = |number: &i32| Ok(self.look(process, *number)?.map(|look| (*number, look)));
        numbers.iter().filter_map(|number| look(number).transpose()).collect()
    }

    /// Looks at descriptors: at many with a second thread, since the process is down meanwhile.
    fn look_at(&self, process: &PidFd, numbers: &[i32]) -> Result<Vec<(i32, Look)>> {
        const MANY: usize = 128;
        if numbers.len() < MANY {
            return self.look_one_by_one(process, numbers);
        }
        let closely = |numbers: &[i32]| self.look_one_by_one(process, numbers).inspect(|looks| read_ahead(looks));
        let (first, second) = numbers.split_at(numbers.len() / 2);
        std::thread::scope(|scope| {
            let other = std::thread::Builder::new().spawn_scoped(scope, || closely(second));
            let mut looks = closely(first)?;
            // Where there can be no second thread, or it failed, the first one does it all.
            let others = other.ok().and_then(|other| other.join().ok());
            looks.extend(others.unwrap_or_else(|| closely(second))?);
            Ok(looks)
        })
    }
}

fn read_ahead(looks: &[(i32, Look)]) {
    looks.iter().for_each(|(_, look)| unix_fact::read_ahead(look));
}

/// Those of a tree, by process.
#[derive(Debug, Default)]
pub(crate) struct Glimpses(BTreeMap<i32, Table>);

impl Glimpses {
    /// Glimpses at all descriptors of one process, however many it has.
    #[cfg(test)]
    pub(crate) fn of_all(pid: i32) -> Glimpses {
        let numbers = procfs::descriptors(pid).unwrap();
        let glimpses = numbers.into_iter().filter_map(|number| Some((number, Glimpse::of(pid, number)?)));
        Glimpses([(pid, Table(glimpses.collect()))].into())
    }

    /// Glimpses at the descriptors of running processes that have many.
    pub(crate) fn of(pids: impl Iterator<Item = i32>) -> Glimpses {
        let mut left = KEPT_MAX;
        let mut tables = BTreeMap::new();
        for pid in pids {
            let numbers = procfs::descriptors(pid).unwrap_or_default();
            if numbers.len() >= FEW && numbers.len() <= left {
                left -= numbers.len();
                let glimpses = numbers.into_iter().filter_map(|number| Some((number, Glimpse::of(pid, number)?)));
                tables.insert(pid, Table(glimpses.collect()));
            }
        }
        Glimpses(tables)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of whom there are some.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> {
        self.0.keys().copied()
    }

    /// Looks at a descriptor while its process runs, by what was just seen of it.
    pub(crate) fn look_early(&self, process: &PidFd, number: i32) -> Option<Look> {
        let glimpse = self.table(process.pid())?.0.get(&number)?;
        Look::with(process, number, glimpse.link.clone(), glimpse.information.clone()).ok().flatten()
    }

    /// Looks closely at those descriptors of frozen processes that are not among others, with this thread alone. What cannot be looked
    /// at is left to who looks at all.
    pub(crate) fn look_besides(&self, others: &BTreeMap<i32, BTreeSet<i32>>) -> BTreeMap<i32, Vec<(i32, Look)>> {
        let look = |(pid, table): (&i32, &Table)| {
            let is_left = |number: &i32| !others.get(pid).is_some_and(|others| others.contains(number));
            let numbers: Vec<i32> = table.0.keys().copied().filter(is_left).collect();
            let looks = table.look_one_by_one(&PidFd::open(*pid).ok()?, &numbers).ok()?;
            read_ahead(&looks);
            Some((*pid, looks))
        };
        self.0.iter().filter_map(look).collect()
    }

    /// Those of a process's table, seen through one of its threads.
    pub(crate) fn table(&self, tid: i32) -> Option<&Table> {
        self.0.get(&tid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::{eventfd, pipe};
    use std::io::Write;
    use std::os::fd::{AsFd, AsRawFd};

    fn seen(table: &Table, process: &PidFd, number: i32) -> Option<(Vec<u8>, u64)> {
        let looks = table.look_at_all(process, &BTreeSet::new(), Vec::new()).unwrap();
        let look = looks.into_iter().find(|(its, _)| *its == number)?.1;
        assert_eq!(look.number(), Some(number));
        Some((look.text().into_bytes(), look.information.eventfd.map_or(0, |counter| counter.count)))
    }

    #[test]
    fn what_is_seen_is_what_is_there_when_it_is_looked_at() {
        let process = PidFd::open(std::process::id() as i32).unwrap();
        // Numbers that no other test gets meanwhile.
        let above =
            |file: &std::os::fd::OwnedFd, number| godwit_linux::file::duplicate_above(file.as_fd(), number).unwrap();
        let own = |number| Glimpse::of(process.pid(), number).map(|glimpse| (number, glimpse));
        let mut counter = File::from(above(&eventfd::create(false).unwrap(), 700));
        let (reader, writer) = pipe::create(0).unwrap();
        let (reader, path) = (above(&reader, 701), above(&File::open("/proc/self/exe").unwrap().into(), 702));
        let numbers = [counter.as_raw_fd(), reader.as_raw_fd(), path.as_raw_fd()];
        let table = Table(numbers.into_iter().filter_map(own).collect());
        assert_eq!(table.0.len(), 3);
        counter.write_all(&7_u64.to_ne_bytes()).unwrap();
        assert_eq!(seen(&table, &process, numbers[0]), Some((b"anon_inode:[eventfd]".to_vec(), 7)));
        let name = link(process.pid(), numbers[1]).unwrap();
        assert_eq!(seen(&table, &process, numbers[1]), Some((name, 0)));
        let exe = std::env::current_exe().unwrap();
        assert_eq!(seen(&table, &process, numbers[2]), Some((exe.as_os_str().as_bytes().to_vec(), 0)));
        // Closed, and replaced by something else of the same number.
        drop(path);
        assert_eq!(seen(&table, &process, numbers[2]), None);
        drop((reader, counter));
        let again = above(&writer, numbers[0]);
        assert_eq!(again.as_raw_fd(), numbers[0]);
        let other = above(&eventfd::create(true).unwrap(), numbers[1]);
        assert_eq!(other.as_raw_fd(), numbers[1]);
        assert_eq!(seen(&table, &process, numbers[0]), Some((link(process.pid(), numbers[0]).unwrap(), 0)));
        assert_eq!(seen(&table, &process, numbers[1]), Some((b"anon_inode:[eventfd]".to_vec(), 0)));
        // One that is new.
        let new = above(&writer, 703);
        assert!(seen(&table, &process, new.as_raw_fd()).unwrap().0.starts_with(b"pipe:["));
    }
}
