//! Neighbouring areas of anonymous memory that differ in nothing but their protection: they are mapped and filled as one, and
//! parted when their bytes are there. A page of an area of its own costs several times what one more page of an area does.
use godwit_image::memory::{Area, AreaFlags, Backing};
use godwit_image::page_set::Run;

const WRITE: u32 = 2;
/// Protection as long as they are one: reading and writing.
pub(super) const PROTECTION: u32 = 3;
/// Bytes of an area that may not be written, to be taken along: while it can be written the kernel counts it as memory that
/// may be needed.
const PROTECTED_BYTES_MAX: u64 = 64 << 10;

/// Areas that are one for a while.
#[derive(Debug)]
pub(super) struct Joined {
    /// From the first to the last.
    pub(super) range: Run,
    /// Ranges with a protection of their own, ascending.
    pub(super) parts: Vec<(Run, u32)>,
}

fn may_join(area: &Area) -> bool {
    let unlike = AreaFlags::SHARED
        | AreaFlags::GROWS_DOWN
        | AreaFlags::HUGE_TLB
        | AreaFlags::NO_RESERVE
        | AreaFlags::DROPPABLE
        | AreaFlags::MAYBE_GUARD;
    let plain = area.backing == Backing::Anonymous && !area.has(unlike) && area.protection_key == 0;
    plain && (area.protection & WRITE != 0 || area.bytes() <= PROTECTED_BYTES_MAX)
}

/// Finds the groups among areas in ascending order: of several areas each, at least one of which may be written.
pub(super) fn find(areas: &[Area]) -> Vec<Joined> {
    let follows = |one: &Area, next: &Area| {
        may_join(one) && may_join(next) && one.end == next.start && one.flags == next.flags && one.name == next.name
    };
    let several = areas.chunk_by(follows).filter(|group| group.len() > 1);
    let writable = several.filter(|group| group.iter().any(|area| area.protection & WRITE != 0));
    writable
        .map(|group| {
            let run = |area: &Area| Run { start: area.start, end: area.end };
            let own = group.iter().filter(|area| area.protection != PROTECTION);
            let range = Run { start: group[0].start, end: group[group.len() - 1].end };
            Joined { range, parts: own.map(|area| (run(area), area.protection)).collect() }
        })
        .collect()
}

/// The group that an area belongs to.
pub(super) fn of<'a>(groups: &'a [Joined], area: &Area) -> Option<&'a Joined> {
    let group = groups.get(groups.partition_point(|group| group.range.end <= area.start))?;
    (group.range.start <= area.start).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(start: u64, end: u64, protection: u32, flags: u32) -> Area {
        let backing = Backing::Anonymous;
        Area { start: start << 12, end: end << 12, protection, flags, protection_key: 0, backing, name: String::new() }
    }

    #[test]
    fn neighbours_alike_are_one_and_parted_again() {
        let large = 1 + (PROTECTED_BYTES_MAX >> 12);
        let areas = [
            area(1, 2, 0, 0),
            area(2, 9, 3, 0),
            area(9, 10, 1, 0),
            // A hole before it; alone.
            area(11, 12, 3, 0),
            // Other flags; nothing of the group may be written.
            area(12, 13, 1, AreaFlags::DONT_DUMP),
            area(13, 14, 0, AreaFlags::DONT_DUMP),
            // Too large to be counted as writable.
            area(20, 21, 3, 0),
            area(21, 21 + large, 0, 0),
        ];
        let groups = find(&areas);
        let run = |start: u64, end: u64| Run { start: start << 12, end: end << 12 };
        assert_eq!(groups.len(), 1);
        assert_eq!((groups[0].range, &groups[0].parts[..]), (run(1, 10), &[(run(1, 2), 0), (run(9, 10), 1)][..]));
        let grouped: Vec<bool> = areas.iter().map(|area| of(&groups, area).is_some()).collect();
        assert_eq!(grouped, [true, true, true, false, false, false, false, false]);
    }
}
