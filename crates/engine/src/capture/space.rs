//! Address spaces: areas, their flags and backing, and which pages only this process has.
use super::{Capture, SpacePages};
use crate::failure::{About, Result, malformed};
use crate::look::{Look, Purpose};
use godwit_image::memory::{Area, AreaFlags, Backing, PAGE_BYTES};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::pagemap::Pagemap;
use godwit_linux::proc::{maps, smaps};

/// Areas that the kernel itself maps.
const KERNEL_AREAS: [&[u8]; 3] = [b"[vdso]", b"[vvar]", b"[vvar_vclock]"];
const O_RDONLY: u32 = 0;
const O_RDWR: u32 = 2;

/// The kernel's VmFlags that have a bit in the image.
const FLAGS: &[(smaps::Flags, u32)] = &[
    (smaps::Flags::LOCKED, AreaFlags::LOCKED),
    (smaps::Flags::LOCK_ON_FAULT, AreaFlags::LOCKED_ON_FAULT),
    (smaps::Flags::DO_NOT_COPY, AreaFlags::DONT_FORK),
    (smaps::Flags::WIPE_ON_FORK, AreaFlags::WIPE_ON_FORK),
    (smaps::Flags::DO_NOT_DUMP, AreaFlags::DONT_DUMP),
    (smaps::Flags::HUGE_PAGE, AreaFlags::HUGE_PAGE),
    (smaps::Flags::NO_HUGE_PAGE, AreaFlags::NO_HUGE_PAGE),
    (smaps::Flags::MERGEABLE, AreaFlags::MERGEABLE),
    (smaps::Flags::SEALED, AreaFlags::SEALED),
    (smaps::Flags::GROWS_DOWN, AreaFlags::GROWS_DOWN),
    (smaps::Flags::SEQUENTIAL, AreaFlags::SEQUENTIAL),
    (smaps::Flags::RANDOM, AreaFlags::RANDOM),
    (smaps::Flags::HUGETLB, AreaFlags::HUGE_TLB),
    (smaps::Flags::NO_RESERVE, AreaFlags::NO_RESERVE),
];

/// Reads the areas of a process.
pub(super) fn areas(tid: i32, capture: &mut Capture) -> Result<Vec<Area>> {
    let subject = || Subject::Process(tid);
    let listed = maps::read(tid).map_err(|error| malformed(subject(), error))?;
    let details = smaps::read(tid).map_err(|error| malformed(subject(), error))?;
    let mut details = details.iter().peekable();
    let mut areas = Vec::with_capacity(listed.len());
    for map in listed {
        if map.name == b"[vsyscall]" {
            continue;
        }
        while details.peek().is_some_and(|details| details.start < map.start) {
            details.next();
        }
        let of_this = details.peek().filter(|details| details.start == map.start);
        let of_this = of_this.ok_or_else(|| malformed(subject(), "maps and smaps disagree"))?;
        areas.push(area(tid, &map, of_this, capture)?);
    }
    Ok(areas)
}

fn area(tid: i32, map: &maps::Area, details: &smaps::AreaFlags, capture: &mut Capture) -> Result<Area> {
    let name = String::from_utf8_lossy(&map.name).into_owned();
    let subject = || Subject::Mapping(tid, map.start, name.clone());
    let mut flags = if map.shared { AreaFlags::SHARED } else { 0 };
    for (theirs, ours) in FLAGS {
        if details.flags.contains(*theirs) {
            flags |= ours;
        }
    }
    for (flag, what) in [
        (smaps::Flags::USERFAULT_MISSING, "the program manages this memory itself with userfaultfd"),
        (smaps::Flags::USERFAULT_WRITE_PROTECT, "the program manages this memory itself with userfaultfd"),
        (smaps::Flags::DEVICE_MEMORY, "it is mapped from a device"),
        (smaps::Flags::PAGE_FRAMES, "it is mapped from a device"),
        (smaps::Flags::SHADOW_STACK, "it is a shadow stack"),
    ] {
        let kernel_area = KERNEL_AREAS.contains(&map.name.as_slice());
        if details.flags.contains(flag) && !kernel_area {
            return Err(Refusal::new(Code::NOT_MIGRATABLE, subject(), what));
        }
    }
    if let Some(code) = details.unknown.first() {
        let cause = format!("it has the flag {}, which this build does not know", String::from_utf8_lossy(code));
        return Err(Refusal::new(Code::UNSUPPORTED, subject(), cause));
    }
    let protection_key = details.protection_key.unwrap_or(0);
    if protection_key != 0 {
        return Err(Refusal::new(Code::UNSUPPORTED, subject(), "it has a protection key"));
    }
    let backing = if KERNEL_AREAS.contains(&map.name.as_slice()) {
        Backing::Kernel
    } else if map.inode == 0 {
        Backing::Anonymous
    } else {
        let writable = map.shared && (map.write || details.flags.contains(smaps::Flags::MAY_WRITE));
        let link = format!("map_files/{:x}-{:x}", map.start, map.end);
        let purpose = Purpose::Mapping { start: map.start, writable };
        let look = Look::link(tid, &link, purpose, if writable { O_RDWR } else { O_RDONLY })?;
        Backing::File { object: capture.file(&look, writable)?, offset: map.offset }
    };
    let protection = u32::from(map.read) | u32::from(map.write) << 1 | u32::from(map.execute) << 2;
    Ok(Area { start: map.start, end: map.end, protection, flags, protection_key, backing, name })
}

/// Finds the pages of a space that only it has: they travel.
pub(super) fn pages(tid: i32, space: ObjectId, areas: &[Area]) -> Result<SpacePages> {
    let pagemap = Pagemap::open(tid).about(|| Subject::Process(tid))?;
    let mut pages = PageSet::new();
    for area in areas {
        if area.backing == Backing::Kernel || area.has(AreaFlags::SHARED) {
            continue;
        }
        pagemap
            .private_pages(area.start, area.end, |start, end| pages.insert(Run { start, end }))
            .about(|| Subject::Mapping(tid, area.start, area.name.clone()))?;
    }
    Ok(SpacePages { space, pid: tid, pages })
}

/// Finds the pages of a space that are still its parent's since the fork: the same physical page at the same address. They
/// are taken out of `pages`. Without CAP_SYS_ADMIN the kernel hides physical numbers: then nothing is found, and the pages
/// travel twice.
pub(super) fn inherited(pages: &mut SpacePages, parent: &SpacePages, parent_inherited: &PageSet) -> Result<PageSet> {
    /// Present, and the page frame number.
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    const ENTRIES: usize = 8192;
    let open = |pid: i32| Pagemap::open(pid).about(|| Subject::Process(pid));
    let (own_map, parent_map) = (open(pages.pid)?, open(parent.pid)?);
    let mut of_parent = parent.pages.clone();
    of_parent.extend(parent_inherited);
    let mut shared = PageSet::new();
    let (mut own, mut theirs) = (vec![0_u64; ENTRIES], vec![0_u64; ENTRIES]);
    for run in pages.pages.intersection(&of_parent).runs() {
        let mut start = run.start;
        while start < run.end {
            let count = ((run.end - start) / PAGE_BYTES).min(ENTRIES as u64) as usize;
            own_map.entries(start, &mut own[..count]).about(|| Subject::Process(pages.pid))?;
            parent_map.entries(start, &mut theirs[..count]).about(|| Subject::Process(parent.pid))?;
            for (index, (a, b)) in own.iter().zip(&theirs).take(count).enumerate() {
                if a & PRESENT != 0 && b & PRESENT != 0 && a & FRAME != 0 && a & FRAME == b & FRAME {
                    let page = start + index as u64 * PAGE_BYTES;
                    shared.insert(Run { start: page, end: page + PAGE_BYTES });
                }
            }
            start += count as u64 * PAGE_BYTES;
        }
    }
    pages.pages = pages.pages.difference(&shared);
    Ok(shared)
}
