//! Address spaces: areas, their flags and backing, and which pages only this process has.
use super::{Capture, SpacePages};
use crate::failure::{About, Result};
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
    (smaps::Flags::DROPPABLE, AreaFlags::DROPPABLE),
    (smaps::Flags::MAYBE_GUARD, AreaFlags::MAYBE_GUARD),
];

/// The areas of a process as the image has them.
pub(super) fn areas(tid: i32, listed: &[smaps::AreaFlags], capture: &mut Capture) -> Result<Vec<Area>> {
    let mut areas = Vec::with_capacity(listed.len());
    for details in listed {
        if details.area.name != b"[vsyscall]" {
            areas.push(area(tid, details, capture)?);
        }
    }
    Ok(areas)
}

/// Takes away what the kernel says of areas only because we track them. Who manages memory itself has a descriptor for it, which is refused.
pub(super) fn leave_out_tracking(listed: &mut [smaps::AreaFlags], tracked: &PageSet) {
    let is_tracked = |area: &maps::Area| {
        let at = tracked.runs().partition_point(|run| run.end <= area.start);
        tracked.runs().get(at).is_some_and(|run| run.start < area.end)
    };
    for details in listed.iter_mut().filter(|details| is_tracked(&details.area)) {
        details.flags = details.flags.without(smaps::Flags::USERFAULT_WRITE_PROTECT);
    }
}

/// Why an area cannot be carried exactly, as far as its flags and its name tell.
pub(crate) fn refusal(tid: i32, details: &smaps::AreaFlags) -> Option<Refusal> {
    let map = &details.area;
    if KERNEL_AREAS.contains(&map.name.as_slice()) {
        return None;
    }
    if let Some(refusal) = crate::resource::refused::mapping(tid, map.start, &map.name) {
        return Some(refusal);
    }
    let subject = || Subject::Mapping(tid, map.start, String::from_utf8_lossy(&map.name).into_owned());
    let unable = [
        (smaps::Flags::USERFAULT_MISSING, "the program manages this memory itself with userfaultfd"),
        (smaps::Flags::USERFAULT_WRITE_PROTECT, "the program manages this memory itself with userfaultfd"),
        (smaps::Flags::USERFAULT_MINOR, "the program manages this memory itself with userfaultfd"),
        (smaps::Flags::DEVICE_MEMORY, "it is mapped from a device"),
        (smaps::Flags::PAGE_FRAMES, "it is mapped from a device"),
        (smaps::Flags::MIXED, "it is mapped from a device"),
        (smaps::Flags::SYNCHRONOUS_FAULT, "it is mapped synchronously from persistent memory (MAP_SYNC)"),
        (smaps::Flags::SHADOW_STACK, "it is a shadow stack"),
    ];
    if let Some((_, what)) = unable.iter().find(|(flag, _)| details.flags.contains(*flag)) {
        return Some(Refusal::new(Code::NOT_MIGRATABLE, subject(), *what));
    }
    if let Some(code) = details.unknown.first() {
        let cause = format!("it has the flag {}, which this build does not know", String::from_utf8_lossy(code));
        return Some(Refusal::new(Code::UNSUPPORTED, subject(), cause));
    }
    let keyed = details.protection_key.is_some_and(|key| key != 0);
    keyed.then(|| Refusal::new(Code::UNSUPPORTED, subject(), "it has a protection key"))
}

fn flags(details: &smaps::AreaFlags) -> u32 {
    let mut flags = if details.area.shared { AreaFlags::SHARED } else { 0 };
    for (theirs, ours) in FLAGS {
        if details.flags.contains(*theirs) {
            flags |= ours;
        }
    }
    flags
}

fn protection(map: &maps::Area) -> u32 {
    u32::from(map.read) | u32::from(map.write) << 1 | u32::from(map.execute) << 2
}

/// Whether an area is memory of no file, and not the kernel's own.
pub(crate) fn is_anonymous(map: &maps::Area) -> bool {
    map.inode == 0 && !map.name.starts_with(b"/") && !KERNEL_AREAS.contains(&map.name.as_slice())
}

/// An area as the image will have it, if it is anonymous memory that can be carried.
pub(crate) fn anonymous(details: &smaps::AreaFlags) -> Option<Area> {
    let map = &details.area;
    let is_kept = is_anonymous(map) && map.name != b"[vsyscall]" && refusal(0, details).is_none();
    is_kept.then(|| Area {
        start: map.start,
        end: map.end,
        protection: protection(map),
        flags: flags(details),
        protection_key: details.protection_key.unwrap_or(0),
        backing: Backing::Anonymous,
        name: String::from_utf8_lossy(&map.name).into_owned(),
    })
}

fn area(tid: i32, details: &smaps::AreaFlags, capture: &mut Capture) -> Result<Area> {
    let map = &details.area;
    let name = String::from_utf8_lossy(&map.name).into_owned();
    let flags = flags(details);
    if let Some(refusal) = refusal(tid, details) {
        return Err(refusal);
    }
    let protection_key = details.protection_key.unwrap_or(0);
    let backing = if KERNEL_AREAS.contains(&map.name.as_slice()) {
        Backing::Kernel
    } else if is_anonymous(map) {
        Backing::Anonymous
    } else {
        let writable = map.shared && (map.write || details.flags.contains(smaps::Flags::MAY_WRITE));
        Backing::File { object: file(tid, map, writable, capture)?, offset: map.offset }
    };
    let protection = protection(map);
    Ok(Area { start: map.start, end: map.end, protection, flags, protection_key, backing, name })
}

/// A file as a list of areas names it: device, inode, name; and whether it is mapped writable.
pub(super) type Listed = ((u32, u32), u64, Vec<u8>, bool);

/// The object of a mapped file. A program maps the same few files again and again: each is opened once, where the list of areas
/// says as much as the file itself (some file systems have devices of their own for parts of them).
fn file(tid: i32, map: &maps::Area, writable: bool, capture: &mut Capture) -> Result<ObjectId> {
    let listed = ((map.device_major, map.device_minor), map.inode, map.name.clone(), writable);
    if let Some(object) = capture.listed.get(&listed) {
        return Ok(*object);
    }
    let link = format!("map_files/{:x}-{:x}", map.start, map.end);
    let purpose = Purpose::Mapping { start: map.start, writable };
    let look = Look::link(tid, &link, purpose, if writable { O_RDWR } else { O_RDONLY })?;
    let object = capture.file(&look, writable)?;
    if device(look.device) == listed.0 && look.inode == map.inode {
        capture.listed.insert(listed, object);
    }
    Ok(object)
}

/// Major and minor number of a device as stat(2) has it.
fn device(device: u64) -> (u32, u32) {
    ((device >> 8 & 0xfff | device >> 32 & !0xfff) as u32, (device & 0xff | device >> 12 & !0xff) as u32)
}

/// Anonymous memory without a hole is looked through by itself from this size on.
const LARGE_BYTES: u64 = 4 << 20;

/// Whether it may take a while to find the pages.
pub(super) fn is_large(areas: &[maps::Area]) -> bool {
    areas.iter().any(|area| area.end - area.start >= LARGE_BYTES && is_anonymous(area) && !area.shared)
}

/// Finds the pages of a space that only it has: they travel. Scans over everything: pages of shared mappings and
/// unmodified file pages count as pages of files, the kernel's own areas as nothing. The second set are those of them that
/// lie in transparent huge pages.
pub(super) fn pages(tid: i32, space: ObjectId, areas: &[maps::Area]) -> Result<(SpacePages, PageSet)> {
    let pagemap = Pagemap::open(tid).about(|| Subject::Process(tid))?;
    let (mut pages, mut huge) = (PageSet::new(), PageSet::new());
    let mut found = |start: u64, end: u64, of_huge: bool| {
        pages.insert(Run { start, end });
        if of_huge {
            huge.insert(Run { start, end });
        }
    };
    let areas = || areas.iter().filter(|area| area.name != b"[vsyscall]");
    // Large anonymous memory by itself, and in one go what lies between.
    let anonymous = areas().filter(|area| is_anonymous(area) && !area.shared);
    let anonymous: PageSet = anonymous.map(|area| Run { start: area.start, end: area.end }).collect();
    if let (Some(first), Some(last)) = (areas().next(), areas().next_back()) {
        let mut next = first.start;
        for large in anonymous.runs().iter().filter(|run| run.bytes() >= LARGE_BYTES) {
            pagemap.private_pages(next, large.start, &mut found).about(|| Subject::Process(tid))?;
            pagemap.many_mapped_pages(large.start, large.end, &mut found).about(|| Subject::Process(tid))?;
            next = large.end;
        }
        pagemap.private_pages(next, last.end, &mut found).about(|| Subject::Process(tid))?;
    }
    for area in areas().filter(|area| area.shared || KERNEL_AREAS.contains(&area.name.as_slice())) {
        let run = Run { start: area.start, end: area.end };
        if pages.contains(area.start) || !pages.intersection(&[run].into_iter().collect()).is_empty() {
            pages = pages.difference(&[run].into_iter().collect());
        }
    }
    let huge = huge.intersection(&pages);
    Ok((SpacePages { space, pid: tid, pages, alone: PageSet::new() }, huge))
}

/// The areas of memory of which no page is in another process, too, since a fork.
pub(super) fn alone(listed: &[smaps::AreaFlags]) -> PageSet {
    let alone = listed.iter().filter(|details| details.shared_bytes == 0 && is_anonymous(&details.area));
    alone.map(|details| Run { start: details.area.start, end: details.area.end }).collect()
}

/// Finds the guard pages (MADV_GUARD_INSTALL, Linux 6.13) of the areas that may have some.
pub(super) fn guards(tid: i32, areas: &[Area]) -> Result<PageSet> {
    let mut guards = PageSet::new();
    let candidates: Vec<&Area> = areas.iter().filter(|area| area.has(AreaFlags::MAYBE_GUARD)).collect();
    if candidates.is_empty() {
        return Ok(guards);
    }
    let pagemap = Pagemap::open(tid).about(|| Subject::Process(tid))?;
    for area in candidates {
        let mut entries = vec![0_u64; (area.bytes() / PAGE_BYTES) as usize];
        pagemap.entries(area.start, &mut entries).about(|| Subject::Mapping(tid, area.start, area.name.clone()))?;
        for (index, _) in entries.iter().enumerate().filter(|(_, entry)| *entry & GUARD != 0) {
            let start = area.start + index as u64 * PAGE_BYTES;
            guards.insert(Run { start, end: start + PAGE_BYTES });
        }
    }
    Ok(guards)
}

/// Bit of a pagemap entry: the page is a guard (Linux 6.15).
const GUARD: u64 = 1 << 58;

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
