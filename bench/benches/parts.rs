//! Small parts that a move goes through often or with much: encoding of programs, parsing of /proc, image, page sets.
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use godwit_image::layout::{self, Checkpoint};
use godwit_image::memory::{AddressSpace, Area, Backing, Layout};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::tree::Tree;
use godwit_image::{Envelope, KindId, ObjectId};
use godwit_linux::proc::{maps, smaps};
use godwit_linux::program::Program;
use std::fmt::Write;
use std::hint::black_box;

const AREAS: u64 = 10_000;
const PAGE: u64 = 4096;
const SYS_MMAP: i64 = 9;

/// The runs of every second page.
fn every_second(first: u64, pages: u64) -> PageSet {
    let run = |index: u64| Run { start: (first + 2 * index) * PAGE, end: (first + 2 * index + 1) * PAGE };
    (0..pages).map(run).collect()
}

fn programs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("program");
    for calls in [1_u64, 64, 4000] {
        let mut program = Program::new();
        for call in 0..calls {
            program.call("mmap", SYS_MMAP, [call.into(), PAGE.into(), 3_u64.into(), 34_u64.into(), (-1_i32).into()]);
        }
        group.throughput(Throughput::Elements(calls));
        group.bench_with_input(BenchmarkId::new("encode", calls), &program, |bencher, program| {
            bencher.iter(|| black_box(program.encode(black_box(0x1000))));
        });
    }
    group.finish();
}

/// What the kernel prints about so many areas.
fn listing(areas: u64, detailed: bool) -> String {
    let mut text = String::new();
    for index in 0..areas {
        let start = 0x7f00_0000_0000 + index * 2 * PAGE;
        let letter = if index % 2 == 0 { 'w' } else { '-' };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{start:012x}-{:012x} r{letter}-p 00000000 00:00 0 ", start + 2 * PAGE);
        if detailed {
            for field in [
                "Size:                  8",
                "Rss:                   4",
                "Pss:                   4",
                "Shared_Clean:          0",
            ] {
                let _ = writeln!(text, "{field} kB");
            }
            text.push_str("VmFlags: rd wr mr mw me ac sd \n");
        }
    }
    text
}

fn proc(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("proc");
    group.throughput(Throughput::Elements(AREAS));
    let (short, long) = (listing(AREAS, false), listing(AREAS, true));
    assert_eq!(maps::parse(short.as_bytes()).map(|areas| areas.len()).ok(), Some(AREAS as usize));
    assert_eq!(smaps::parse(long.as_bytes()).map(|areas| areas.len()).ok(), Some(AREAS as usize));
    group.bench_function("maps of 10,000 areas", |bencher| bencher.iter(|| maps::parse(black_box(short.as_bytes()))));
    group.bench_function("smaps of 10,000 areas", |bencher| bencher.iter(|| smaps::parse(black_box(long.as_bytes()))));
    group.finish();
}

/// A tree of one space with many areas and many small objects; no task, which the codec does not ask for.
fn checkpoint() -> Checkpoint {
    let area = |index: u64| Area {
        start: (16 + 2 * index) * PAGE,
        end: (17 + 2 * index) * PAGE,
        protection: 3,
        flags: 0,
        protection_key: 0,
        backing: Backing::Anonymous,
        name: String::new(),
    };
    let envelope =
        |id: u32| Envelope { id: ObjectId(id), kind: KindId(8), version: 1, refs: Vec::new(), payload: vec![0x61; 40] };
    let space = AddressSpace {
        id: ObjectId(1),
        layout: Layout::default(),
        executable: ObjectId(2),
        areas: (0..AREAS).map(area).collect(),
        parent: None,
        inherited: PageSet::new(),
        guards: PageSet::new(),
        huge: PageSet::new(),
        owed: PageSet::new(),
        core_filter: None,
        dumpable: 1,
        huge_pages_disabled: false,
        deny_write_execute: 0,
        memory_merge: false,
    };
    let objects = (2..1002).map(envelope).collect();
    Checkpoint { tree: Tree { spaces: vec![space], objects, ..Tree::default() }, pages: Vec::new(), created: 0 }
}

fn image(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("image");
    let space = checkpoint().tree.spaces.remove(0);
    let bytes = godwit_image::codec::encode(&space).expect("a space can be encoded");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode a space of 10,000 areas", |bencher| {
        bencher.iter(|| godwit_image::codec::encode(black_box(&space)));
    });
    group.bench_function("decode a space of 10,000 areas", |bencher| {
        bencher.iter(|| godwit_image::codec::decode::<AddressSpace>(black_box(&bytes)));
    });
    let whole = checkpoint();
    group.bench_function("encode an image: 10,000 areas, 1,000 objects", |bencher| {
        bencher.iter(|| layout::encode(black_box(&whole)));
    });
    group.finish();
}

fn page_sets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("page set");
    group.throughput(Throughput::Elements(AREAS));
    let (even, odd) = (every_second(16, AREAS), every_second(17, AREAS));
    let whole: PageSet = [Run { start: 16 * PAGE, end: (17 + 2 * AREAS) * PAGE }].into_iter().collect();
    group
        .bench_function("insert 10,000 runs, ascending", |bencher| bencher.iter(|| every_second(16, black_box(AREAS))));
    group.bench_function("union of 10,000 and 10,000 runs", |bencher| {
        bencher.iter(|| {
            let mut all = even.clone();
            all.extend(black_box(&odd));
            all
        });
    });
    group.bench_function("one run without 10,000", |bencher| bencher.iter(|| whole.difference(black_box(&even))));
    group.bench_function("10,000 runs that one contains", |bencher| {
        bencher.iter(|| even.intersection(black_box(&whole)))
    });
    group.finish();
}

criterion_group!(parts, programs, proc, image, page_sets);
criterion_main!(parts);
