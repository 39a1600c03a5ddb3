//! The checkpoint layout: round trip, every damage is noticed, and images of released versions stay readable.
use godwit_image::credentials::Credentials;
use godwit_image::descriptor::{FileTable, FilesystemContext, Slot};
use godwit_image::host::HostFacts;
use godwit_image::layout::{self, Checkpoint, HEADER_BYTES, Invalid, PageIndex};
use godwit_image::memory::{AddressSpace, Area, AreaFlags, Backing, Layout};
use godwit_image::page_set::Run;
use godwit_image::signal::{Action, AlternateStack, Queued};
use godwit_image::task::{Scheduling, State, Task, Thread, Wait};
use godwit_image::tree::Tree;
use godwit_image::{Envelope, KindId, ObjectId, Pid, codec};

fn thread(tid: i32) -> Thread {
    Thread {
        tid: Pid(tid),
        name: b"worker".to_vec(),
        registers: (0..27).collect(),
        extended_state: vec![7; 64],
        signal_mask: 1 << 9,
        pending: vec![Queued { information: vec![1; 128] }],
        alternate_stack: AlternateStack { address: 0x7000, flags: 0, size: 8192 },
        clear_child_tid: 0x7fff_0000,
        robust_list: (0x7fff_1000, 24),
        restartable_sequence: (0x7fff_2000, 32, 0x5305_3053, 0),
        credentials: Credentials { user: [1000; 4], group: [1000; 4], groups: vec![4, 27], ..Credentials::default() },
        files: Some(ObjectId(1)),
        filesystem: Some(ObjectId(2)),
        parent_death_signal: 0,
        timer_slack_ns: 50_000,
        personality: 0,
        scheduling: Scheduling::default(),
        affinity: vec![3],
        io_priority: 4,
        timestamp_counter_mode: 1,
        machine_check: Some(1),
        speculation: [3, 0, 0],
        user_dispatch: Some([1, 0x7000, 0, 0]),
        dead: false,
        exit_status: 0,
        wait: Some(Wait { call: 35, remaining_ns: 1_500_000_000 }),
        note: "in system call 230".to_owned(),
    }
}

fn space() -> AddressSpace {
    let area = |start: u64, backing: Backing, name: &str| Area {
        start,
        end: start + 0x2000,
        protection: 3,
        flags: AreaFlags::DONT_FORK,
        protection_key: 0,
        backing,
        name: name.to_owned(),
    };
    AddressSpace {
        id: ObjectId(3),
        layout: Layout { addresses: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], auxiliary_vector: vec![0; 32] },
        executable: ObjectId(4),
        areas: vec![
            area(0x40_0000, Backing::File { object: ObjectId(4), offset: 4096 }, "/bin/worker"),
            area(0x50_0000, Backing::Anonymous, "[heap]"),
        ],
        parent: None,
        inherited: godwit_image::page_set::PageSet::new(),
        guards: godwit_image::page_set::PageSet::new(),
        huge: godwit_image::page_set::PageSet::new(),
        owed: godwit_image::page_set::PageSet::new(),
        core_filter: Some(0x33),
        dumpable: 1,
        huge_pages_disabled: false,
        deny_write_execute: 0,
        memory_merge: false,
    }
}

fn sample() -> Checkpoint {
    let task = Task {
        pid: Pid(14),
        parent: Pid(1),
        parent_thread: Some(Pid(1)),
        group: Pid(14),
        session: Pid(14),
        exit_signal: 17,
        state: State::Running,
        untold: 0xffff,
        shares_actions: false,
        space: Some(ObjectId(3)),
        actions: vec![Action { handler: 0x40_1000, flags: 0x0400_0000, restorer: 0x40_2000, mask: 0 }; 64],
        pending: Vec::new(),
        limits: vec![(1024, 4096); 16],
        out_of_memory_adjustment: 0,
        child_subreaper: false,
        interval_timers: [(0, 0); 3],
        threads: vec![thread(14), thread(15)],
        objects: Vec::new(),
    };
    let object = |id: u32, text: &str| Envelope {
        id: ObjectId(id),
        kind: KindId(4),
        version: 1,
        refs: Vec::new(),
        payload: codec::encode(&text).expect("text is encodable"),
    };
    Checkpoint {
        tree: Tree {
            later: None,
            host: HostFacts { name: "one".to_owned(), kernel: "6.18".to_owned(), ..HostFacts::default() },
            tasks: vec![task],
            spaces: vec![space()],
            tables: vec![FileTable {
                id: ObjectId(1),
                slots: vec![Slot { descriptor: 0, close_on_exec: true, description: ObjectId(5) }],
            }],
            filesystems: vec![FilesystemContext {
                id: ObjectId(2),
                working_directory: ObjectId(6),
                root: None,
                umask: 0o22,
            }],
            objects: vec![object(4, "program"), object(5, "descriptor"), object(6, "directory")],
        },
        pages: vec![PageIndex {
            owner: ObjectId(3),
            offset: 0,
            runs: vec![Run { start: 0x50_0000, end: 0x50_1000 }],
            checksum: 0x1234_5678,
        }],
        created: 1_795_258_126,
    }
}

#[test]
fn round_trip() {
    let checkpoint = sample();
    let bytes = layout::encode(&checkpoint).expect("encodable");
    assert_eq!(layout::decode(&bytes).as_ref(), Ok(&checkpoint));
}

#[test]
fn every_truncation_and_every_damaged_byte_is_noticed() {
    let bytes = layout::encode(&sample()).expect("encodable");
    for length in 0..bytes.len() {
        assert!(layout::decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    let original = layout::decode(&bytes);
    for index in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[index] ^= 0x10;
        let decoded = layout::decode(&damaged);
        // Padding between sections carries nothing.
        assert!(decoded.is_err() || decoded == original, "byte {index}");
    }
}

#[test]
fn other_files_and_versions_are_told_apart_by_the_header() {
    assert_eq!(layout::decode(b"\x7fELF"), Err(Invalid::Magic));
    assert_eq!(layout::decode(&[0; 100]), Err(Invalid::Magic));
    let mut newer = layout::encode(&sample()).expect("encodable");
    newer[8] = 9;
    let checksum = crc32fast::hash(&newer[..60]);
    newer[60..64].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(layout::decode(&newer), Err(Invalid::Version(9)));
    assert_eq!(layout::decode(&newer[..HEADER_BYTES]), Err(Invalid::Version(9)));
}

#[test]
fn a_section_of_the_future_is_refused_by_number() {
    let mut bytes = layout::encode(&sample()).expect("encodable");
    let at = HEADER_BYTES;
    bytes[at] = 77;
    let checksum = crc32fast::hash(&bytes[at..at + 20]);
    bytes[at + 20..at + 24].copy_from_slice(&checksum.to_le_bytes());
    assert!(matches!(layout::decode(&bytes), Err(Invalid::Section(text)) if text.contains("77")));
}

/// Images written by released versions: a new version of the layout adds a file here and never changes an old one.
#[test]
fn golden_images_stay_readable() {
    let bytes = include_bytes!("golden/layout-1.image");
    assert_eq!(layout::decode(bytes), Ok(sample()));
    assert_eq!(layout::LAYOUT_VERSION, 1, "a new version needs a golden image of its own");
}
