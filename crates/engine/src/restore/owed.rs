//! Spaces that are owed pages: what is missing in them is registered when nothing of ours touches them any more, so that whoever touches it
//! waits until it has come.
use super::Restorer;
use crate::failure::{About, Result, malformed};
use crate::owed::Pager;
use godwit_image::memory::{Area, AreaFlags, Backing};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::pagemap::Pagemap;
use godwit_linux::pidfd::{ForeignDescriptor, PidFd};
use godwit_linux::program::Program;
use godwit_linux::userfaultfd::{self, UserFault, feature};

const SYS_CLOSE: i64 = 3;

fn can_be_owed(area: &Area) -> bool {
    area.backing == Backing::Anonymous && !area.has(AreaFlags::SHARED | AreaFlags::HUGE_TLB | AreaFlags::DROPPABLE)
}

impl Restorer {
    fn owed(&self) -> Vec<(ObjectId, PageSet)> {
        let owing = self.tree.spaces.iter().filter(|space| !space.owed.is_empty());
        owing.map(|space| (space.id, space.owed.clone())).collect()
    }

    /// Bytes that will come when the tree runs.
    pub fn owed_bytes(&self) -> u64 {
        self.tree.spaces.iter().map(|space| space.owed.bytes()).sum()
    }

    /// As long as tasks have privileges: full descriptors, whose faults in kernel mode are told, too.
    pub(super) fn prepare_owed(&mut self) -> Result<()> {
        const WANTED: u64 = feature::EVENT_FORK | feature::EVENT_REMAP | feature::EVENT_REMOVE | feature::EVENT_UNMAP;
        for (id, owed) in self.owed() {
            let pid = self.owner_of(id)?;
            let subject = || Subject::Process(pid.0);
            let space = self.tree.space(id).ok_or_else(|| super::missing(id))?;
            let areas = space.areas.iter().filter(|area| can_be_owed(area));
            let ranges: PageSet = areas.map(|area| Run { start: area.start, end: area.end }).collect();
            if !owed.is_sound() || !owed.difference(&ranges).is_empty() || space.parent.is_some() {
                return Err(malformed(subject(), "pages are owed where none can be".to_owned()));
            }
            let mut program = Program::new();
            let step = program.try_call("userfaultfd", userfaultfd::SYS_USERFAULTFD, [userfaultfd::FULL_FLAGS.into()]);
            let number = self.run(pid, &program)?.result("userfaultfd", step).about(subject).map_err(lacks)?;
            let fetched = PidFd::open(pid.0).and_then(|process| process.duplicate(ForeignDescriptor(number as i32)));
            let mut program = Program::new();
            program.call("close", SYS_CLOSE, [number.into()]);
            self.run(pid, &program)?;
            let fault = UserFault::begin_with(fetched.about(subject)?, WANTED);
            let fault = fault.about(subject).map_err(lacks)?;
            self.faults.insert(id, fault);
        }
        Ok(())
    }

    /// Behind everything that runs in the tasks before they go on by themselves.
    pub(super) fn register_owed(&mut self) -> Result<()> {
        for (id, owed) in self.owed() {
            let pid = self.owner_of(id)?.0;
            refuse_touched(pid, &owed)?;
            let space = self.tree.space(id).ok_or_else(|| super::missing(id))?;
            let Some(fault) = self.faults.get(&id) else { continue };
            for area in space.areas.iter().filter(|area| can_be_owed(area)) {
                let whole: PageSet = [Run { start: area.start, end: area.end }].into_iter().collect();
                if !owed.intersection(&whole).is_empty() {
                    let subject = || Subject::Mapping(pid, area.start, "owed pages".to_owned());
                    fault.register(area.start, area.bytes()).about(subject)?;
                }
            }
        }
        Ok(())
    }

    /// Whoever is to serve the faults of the tree from its first instruction on; `None`: nothing is owed.
    pub fn pager(&mut self) -> Option<Pager> {
        let mut pager = Pager::default();
        for (id, owed) in self.owed() {
            pager.add(id, self.faults.remove(&id)?, &owed);
        }
        if let Some(later) = &self.tree.later {
            pager.gather(later.owner, later.bytes);
        }
        (pager.left() > 0).then_some(pager)
    }
}

/// A page that is there already would never be asked for.
fn refuse_touched(pid: i32, owed: &PageSet) -> Result<()> {
    let pagemap = Pagemap::open(pid).about(|| Subject::Process(pid))?;
    for run in owed.runs() {
        if let Some(page) = pagemap.first_page(run.start, run.end).about(|| Subject::Process(pid))? {
            let subject = Subject::Mapping(pid, page, "owed page".to_owned());
            let cause = "it was touched before it could be waited for";
            return Err(Refusal::new(Code::RESTORE_FAILED, subject, cause)
                .choice("move it with a strategy that sends everything in the down time"));
        }
    }
    Ok(())
}

fn lacks(refusal: Refusal) -> Refusal {
    let cause = format!("pages that come later need a userfaultfd with all its events: {}", refusal.cause);
    Refusal::new(Code::DESTINATION_LACKS, refusal.subject, cause)
        .choice("move it with a strategy that sends everything in the down time")
}
