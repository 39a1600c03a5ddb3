//! The captured process tree: the spine and all envelopes.
use crate::descriptor::{FileTable, FilesystemContext};
use crate::envelope::Envelope;
use crate::host::HostFacts;
use crate::id::{ObjectId, Pid};
use crate::memory::AddressSpace;
use crate::task::Task;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Everything but the pages.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tree {
    /// Where it was captured.
    pub host: HostFacts,
    /// Root first, parents before children, then by number.
    pub tasks: Vec<Task>,
    /// Parents' spaces before their children's.
    pub spaces: Vec<AddressSpace>,
    /// File tables.
    pub tables: Vec<FileTable>,
    /// Working directories.
    pub filesystems: Vec<FilesystemContext>,
    /// Every other object.
    pub objects: Vec<Envelope>,
    /// What follows when the tree runs already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later: Option<Later>,
}

/// What of some objects is not in their envelopes, but follows as bytes that are fetched like pages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Later {
    /// Under which id: none of an object.
    pub owner: ObjectId,
    /// How many bytes.
    pub bytes: u64,
    /// The objects: pipes and sockets with something unread in them. Until it is there nobody may touch them.
    pub objects: Vec<ObjectId>,
    /// Other objects that are needed to put it back.
    pub needs: Vec<ObjectId>,
}

/// Some of a tree, as it is written: read back it is a [`Tree`] that lacks the rest. See [`Tree::append`].
#[derive(Debug, Serialize)]
pub struct Part<'a> {
    /// Where it was captured.
    pub host: &'a HostFacts,
    /// As in [`Tree`].
    pub tasks: &'a [Task],
    /// As in [`Tree`].
    pub spaces: &'a [AddressSpace],
    /// As in [`Tree`].
    pub tables: &'a [FileTable],
    /// As in [`Tree`].
    pub filesystems: &'a [FilesystemContext],
    /// As in [`Tree`].
    pub objects: Vec<&'a Envelope>,
    /// As in [`Tree`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub later: Option<&'a Later>,
}

impl Tree {
    /// Puts a later part behind what is here. What it says of the host is what counts; the objects' order is not.
    pub fn append(&mut self, mut later: Tree) {
        self.host = later.host;
        self.tasks.append(&mut later.tasks);
        self.spaces.append(&mut later.spaces);
        self.tables.append(&mut later.tables);
        self.filesystems.append(&mut later.filesystems);
        self.objects.append(&mut later.objects);
        self.later = later.later.or(self.later.take());
    }

    /// The root of the tree.
    pub fn root(&self) -> Option<&Task> {
        self.tasks.first()
    }

    /// An object by id.
    pub fn object(&self, id: ObjectId) -> Option<&Envelope> {
        // They are written in this order, which nothing demands of who reads them.
        match self.objects.binary_search_by_key(&id, |envelope| envelope.id) {
            Ok(index) => self.objects.get(index),
            Err(_) => self.objects.iter().find(|envelope| envelope.id == id),
        }
    }

    /// A space by id.
    pub fn space(&self, id: ObjectId) -> Option<&AddressSpace> {
        self.spaces.iter().find(|space| space.id == id)
    }

    /// Checks what the rest of the program relies on: at least one task, unique ids and numbers, every reference
    /// resolves, areas ascend and are page-aligned, register sets have their length.
    ///
    /// # Errors
    /// The first violation, in words.
    pub fn validate(&self) -> Result<(), String> {
        if self.tasks.is_empty() {
            return Err(String::from("no tasks"));
        }
        let mut ids = BTreeSet::new();
        let mut unique = |id: ObjectId| {
            if id.0 == 0 || !ids.insert(id) { Err(format!("object {id} is not unique")) } else { Ok(()) }
        };
        for space in &self.spaces {
            unique(space.id)?;
        }
        for table in &self.tables {
            unique(table.id)?;
        }
        for filesystem in &self.filesystems {
            unique(filesystem.id)?;
        }
        for envelope in &self.objects {
            unique(envelope.id)?;
        }
        let objects: BTreeMap<ObjectId, usize> =
            self.objects.iter().enumerate().map(|(index, envelope)| (envelope.id, index)).collect();
        let known = |id: &ObjectId| {
            if objects.contains_key(id) { Ok(()) } else { Err(format!("object {id} is referred to and not there")) }
        };
        for envelope in &self.objects {
            envelope.refs.iter().try_for_each(known)?;
        }
        if let Some(later) = &self.later {
            unique(later.owner)?;
            later.objects.iter().chain(&later.needs).try_for_each(known)?;
        }
        for space in &self.spaces {
            self.validate_space(space, &known)?;
        }
        for table in &self.tables {
            if !table.slots.windows(2).all(|pair| pair[0].descriptor < pair[1].descriptor)
                || table.slots.iter().any(|slot| slot.descriptor < 0)
            {
                return Err(format!("file table {} is not ascending", table.id));
            }
            table.slots.iter().map(|slot| &slot.description).try_for_each(known)?;
        }
        for filesystem in &self.filesystems {
            known(&filesystem.working_directory)?;
            filesystem.root.iter().try_for_each(known)?;
        }
        self.validate_tasks()
    }

    fn validate_space(
        &self,
        space: &AddressSpace,
        known: &impl Fn(&ObjectId) -> Result<(), String>,
    ) -> Result<(), String> {
        known(&space.executable)?;
        let before = |parent: ObjectId| {
            self.spaces.iter().take_while(|other| other.id != space.id).any(|other| other.id == parent)
        };
        if space.parent.is_some_and(|parent| !before(parent)) || (space.parent.is_none() && !space.inherited.is_empty())
        {
            return Err(format!("space {} inherits from none before it", space.id));
        }
        if !space.inherited.is_sound() || !space.guards.is_sound() || !space.huge.is_sound() {
            return Err(format!("inherited, guard or huge pages of space {} are out of order", space.id));
        }
        let mut previous = 0;
        for area in &space.areas {
            if area.start < previous
                || area.end <= area.start
                || (area.start | area.end) % crate::memory::PAGE_BYTES != 0
            {
                return Err(format!("area {:#x}-{:#x} is out of order", area.start, area.end));
            }
            previous = area.end;
            if let crate::memory::Backing::File { object, .. } = &area.backing {
                known(object)?;
            }
        }
        Ok(())
    }

    fn validate_tasks(&self) -> Result<(), String> {
        let mut numbers: BTreeSet<Pid> = BTreeSet::new();
        for (index, task) in self.tasks.iter().enumerate() {
            if index > 0 && !self.tasks[..index].iter().any(|parent| parent.pid == task.parent) {
                return Err(format!("process {} comes before its parent {}", task.pid, task.parent));
            }
            if task.threads.first().map(|thread| thread.tid) != Some(task.pid) {
                return Err(format!("process {} has no leader", task.pid));
            }
            for thread in &task.threads {
                if thread.tid.0 <= 0 || !numbers.insert(thread.tid) {
                    return Err(format!("number {} is not unique", thread.tid));
                }
                let zombie = matches!(task.state, crate::task::State::Zombie(_)) || thread.dead;
                if !zombie && thread.registers.len() != 27 {
                    return Err(format!("thread {} has {} registers", thread.tid, thread.registers.len()));
                }
                if thread.files.is_some_and(|id| !self.tables.iter().any(|table| table.id == id))
                    || thread.filesystem.is_some_and(|id| !self.filesystems.iter().any(|context| context.id == id))
                {
                    return Err(format!("thread {} refers to a table that is not there", thread.tid));
                }
            }
            if task.space.is_some_and(|id| self.space(id).is_none()) {
                return Err(format!("process {} has no address space", task.pid));
            }
            for id in &task.objects {
                if self.object(*id).is_none() {
                    return Err(format!("object {id} is referred to and not there"));
                }
            }
        }
        Ok(())
    }
}
