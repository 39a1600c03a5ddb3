//! Which pages may be owed. Private memory of nobody else, in areas that are worth it; and nothing that the kernel or we touch before the
//! process runs by itself.
use super::Owed;
use crate::capture::Captives;
use godwit_image::memory::{Area, AreaFlags, Backing, PAGE_BYTES};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::task::Thread;
use godwit_image::tree::Tree;

/// Fewer bytes in an area are sent: to be told of a fault costs more.
const AREA_BYTES_MIN: u64 = 256 << 10;
/// In the general registers, where the stack pointer is (struct user_regs_struct).
const STACK_POINTER: usize = 19;
const FS_BASE: usize = 21;

fn may_wait(area: &Area) -> bool {
    let unlike = AreaFlags::SHARED
        | AreaFlags::GROWS_DOWN
        | AreaFlags::LOCKED
        | AreaFlags::LOCKED_ON_FAULT
        | AreaFlags::WIPE_ON_FORK
        | AreaFlags::SEALED
        | AreaFlags::DROPPABLE
        | AreaFlags::MAYBE_GUARD
        | AreaFlags::HUGE_TLB;
    area.backing == Backing::Anonymous && !area.has(unlike)
}

/// What is touched before a thread runs its first instruction, and soon after: whatever its registers point to, its stack, and what the
/// kernel knows by address.
fn working(thread: &Thread, set: &mut PageSet) {
    let mut add = |address: u64, before: u64, pages: u64| {
        let start = (address / PAGE_BYTES).saturating_sub(before) * PAGE_BYTES;
        let end = (address / PAGE_BYTES).saturating_add(pages).saturating_mul(PAGE_BYTES);
        if start < end {
            set.insert(Run { start, end });
        }
    };
    for (number, register) in thread.registers.iter().enumerate() {
        match number {
            STACK_POINTER => add(*register, 2, 4),
            FS_BASE => add(*register, 1, 2),
            _ => add(*register, 0, 2),
        }
    }
    for address in [thread.clear_child_tid, thread.robust_list.0, thread.restartable_sequence.0] {
        add(address, 0, 2);
    }
}

/// Whether something in the tree can only be had when the source's tasks have ended: then those cannot stay to give pages.
pub fn awaits_the_end(tree: &Tree) -> bool {
    tree.objects.iter().any(crate::resource::is_lock)
}

/// Takes the pages that may be owed out of what is to be sent, and notes them in the tree.
pub fn leave_behind(captives: &mut Captives) -> Vec<Owed> {
    let mut owed = Vec::new();
    if awaits_the_end(&captives.tree) {
        return owed;
    }
    let parents: Vec<_> = captives.tree.spaces.iter().filter_map(|space| space.parent).collect();
    let tasks = &captives.tree.tasks;
    for pages in &mut captives.spaces {
        let Some(space) = captives.tree.spaces.iter_mut().find(|space| space.id == pages.space) else { continue };
        // What a child inherits is there before it is forked.
        if space.parent.is_some() || parents.contains(&space.id) {
            continue;
        }
        let mut touched = PageSet::new();
        for task in tasks.iter().filter(|task| task.space == Some(space.id)) {
            task.threads.iter().for_each(|thread| working(thread, &mut touched));
        }
        let mut left = PageSet::new();
        for area in space.areas.iter().filter(|area| may_wait(area) && area.bytes() >= AREA_BYTES_MIN) {
            let whole: PageSet = [Run { start: area.start, end: area.end }].into_iter().collect();
            // What is to be huge is made as such.
            let of_area = pages.pages.intersection(&whole).difference(&touched).difference(&space.huge);
            if of_area.bytes() >= AREA_BYTES_MIN {
                left.extend(&of_area);
            }
        }
        if !left.is_empty() {
            pages.pages = pages.pages.difference(&left);
            space.owed = left.clone();
            owed.push(Owed { pages: left, ..Owed::unknown(space.id, pages.pid) });
        }
    }
    owed
}
