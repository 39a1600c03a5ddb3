//! Frames and journal records as bytes: they come back as they were, hostile bytes are refused, and nothing ever panics.

use godwit_deterministic::Random;
use godwit_handoff::delta::{Delta, Method};
use godwit_handoff::frame::{
    Frame, HEADER_LENGTH, HELD_PAGES, Header, PAGE_LIMIT, PAGES, PAYLOAD_LIMIT, RUN_LIMIT, Run, Runs, STAGE_FIRST,
    STATE, ZERO_PAGES,
};
use godwit_handoff::packed::{PACKED_LIMIT, Packed, PackedState};
use godwit_handoff::store::{Cause, Role, Word};
use godwit_handoff::{
    BootId, Capabilities, Deed, Malformed, Message, MigrationId, Opaque, Packet, Reason, Record, Side, Stage, Step,
    Totals, Value, Verdict, Versions,
};

fn bytes(random: &mut Random, most: u64) -> Vec<u8> {
    let mut bytes = vec![0; random.below(most + 1) as usize];
    random.fill(&mut bytes);
    bytes
}

fn array(random: &mut Random) -> [u8; 16] {
    let mut array = [0; 16];
    random.fill(&mut array);
    array
}

fn text(random: &mut Random) -> String {
    (0..random.below(9)).map(|_| *random.choose(&['a', 'ß', '→', '\0', '🦆']).expect("not empty")).collect()
}

fn capabilities(random: &mut Random) -> Capabilities {
    let mut map = Capabilities::default();
    for _ in 0..random.below(5) {
        let value = match random.below(5) {
            0 => Value::Flag(random.chance(1, 2)),
            1 => Value::Number(random.bits()),
            2 => Value::Text(text(random)),
            3 => Value::Bytes(bytes(random, 20)),
            _ => Value::Other(5 + random.below(251) as u8, bytes(random, 20)),
        };
        map.set(&text(random), value);
    }
    map
}

fn versions(random: &mut Random) -> Versions {
    Versions { oldest: random.bits() as u16, newest: random.bits() as u16 }
}

fn opaque(random: &mut Random) -> Opaque {
    Opaque(bytes(random, 30))
}

fn reason(random: &mut Random) -> Reason {
    let step = |random: &mut Random| Step::from_code(random.below(14) as u8).expect("the table has 14 rows");
    match random.below(9) {
        0 => Reason::Cancelled,
        1 => Reason::TimedOut(step(random)),
        2 => Reason::LinkLost,
        3 => Reason::Refused((0..random.below(4)).map(|_| opaque(random)).collect()),
        4 => {
            let deeds: Vec<Deed> = (0..=u8::MAX).filter_map(Deed::from_code).collect();
            Reason::Failed { deed: *random.choose(&deeds).expect("there are deeds"), refusal: opaque(random) }
        }
        5 => Reason::NoCommonVersion { source: versions(random), destination: versions(random) },
        6 => Reason::UnknownStrategy(text(random)),
        7 => Reason::EngineDied,
        _ => Reason::OutOfTurn(step(random)),
    }
}

fn message(random: &mut Random, code: u8) -> Message {
    match code {
        1 => Message::Hello {
            versions: versions(random),
            boot: BootId(array(random)),
            capabilities: capabilities(random),
        },
        2 => Message::HelloAnswer {
            version: random.bits() as u16,
            boot: BootId(array(random)),
            capabilities: capabilities(random),
        },
        3 => Message::Offer { dry_run: random.chance(1, 2), strategy: text(random), requirements: bytes(random, 100) },
        4 => Message::Accept { changes: (0..random.below(4)).map(|_| opaque(random)).collect() },
        5 => Message::Refuse { refusals: (0..random.below(4)).map(|_| opaque(random)).collect() },
        6 => Message::AllSent(Totals { pages: random.bits(), bytes: random.bits(), checksum: random.bits() }),
        7 => Message::Ready { root: random.bits() as u32 },
        8 => Message::Abort(reason(random)),
        9 => Message::Commit,
        10 => Message::Resumed,
        11 => Message::Query,
        12 => {
            let verdicts = [Verdict::Committed, Verdict::Aborted, Verdict::Unknown, Verdict::Lost, Verdict::Owing];
            Message::Answer(*random.choose(&verdicts).expect("not empty"))
        }
        13 => Message::Goodbye,
        14 => Message::Heartbeat,
        16 => Message::Owing,
        17 => Message::AllHeld,
        _ => Message::Lane { number: random.bits() as u16 },
    }
}

fn runs(random: &mut Random, is_checked: bool) -> Runs {
    let count = 1 + random.below(6);
    let run = |random: &mut Random| Run {
        owner: random.bits() as u32,
        start: random.below(1 << 50),
        count: 1 + random.below(900) as u32,
    };
    Runs {
        page_shift: 12,
        body_checksum: is_checked.then(|| random.bits() as u32),
        runs: (0..count).map(|_| run(random)).collect(),
    }
}

/// A frame of each type, with random contents.
fn each_frame(random: &mut Random, mut check: impl FnMut(&mut Random, &Frame<'_>)) {
    for code in 1..=17 {
        let message = message(random, code);
        assert_eq!(message.code(), code);
        let packet = Packet { migration: MigrationId(array(random)), message };
        check(random, &Frame::Packet(packet));
    }
    let state = bytes(random, 200);
    check(random, &Frame::State(&state));
    let block = [state, vec![1]].concat();
    let length = block.len() as u32 + 1 + random.below(9000) as u32;
    check(random, &Frame::PackedState(PackedState { length, block: &block }));
    let is_checked = random.chance(1, 2);
    let pages = runs(random, is_checked);
    check(random, &Frame::Pages(pages));
    let zero = runs(random, false);
    check(random, &Frame::ZeroPages(zero));
    let held = runs(random, false);
    let stage = STAGE_FIRST | random.bits() as u32;
    check(random, &Frame::HeldPages(stage, held));
    check(random, &Frame::PushOwed);
    let nothing = bytes(random, 100);
    check(random, &Frame::Probe(&nothing));
    let pages = Run { owner: random.bits() as u32, start: random.below(1 << 50), count: 1 + random.below(256) as u32 };
    let length = 1 + random.below(u64::from(pages.count) * 4096 - 1) as u32;
    let of = Runs { page_shift: 12, body_checksum: None, runs: vec![pages] };
    let checksum = random.bits() as u32;
    check(random, &Frame::PackedPages(Packed { length, checksum, runs: of.clone() }));
    let whole = of.body_length() as u32;
    for (method, length) in [(Method::Plain, whole), (Method::Lz4, length)] {
        check(random, &Frame::DeltaPages(Delta { stage, method, length, checksum, runs: of.clone() }));
    }
    for number in 0..8 {
        let word = word(random, number);
        check(random, &Frame::Store(word));
    }
    check(random, &Frame::Stored);
}

/// What is said to and by a page store.
fn word(random: &mut Random, number: u8) -> Word {
    let roles = [Role::Writer, Role::Reader];
    let causes = [Cause::Version, Cause::Unknown, Cause::OutOfTurn, Cause::Full, Cause::Storage, Cause::Busy];
    match number {
        0 => Word::Open {
            version: random.bits() as u16,
            migration: MigrationId(array(random)),
            role: *random.choose(&roles).expect("not empty"),
        },
        1 => Word::Opened { pages: random.bits() },
        2 => Word::Refused { cause: *random.choose(&causes).expect("not empty"), text: text(random) },
        3 => Word::Sync { number: random.bits() },
        4 => Word::Synced { number: random.bits() },
        5 => Word::Missing(Run { owner: 7, start: random.below(1 << 50), count: 1 + random.below(900) as u32 }),
        6 => Word::Remove,
        _ => Word::Removed,
    }
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = frame.encode(&mut bytes).expect("a sound frame is encoded");
    assert_eq!(bytes.len(), HEADER_LENGTH + header.length as usize);
    bytes
}

/// The same payload under a header that is right about it.
fn framed(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = Header { kind, flags, length: payload.len() as u32, checksum: 0 };
    let mut bytes = header.encode().to_vec();
    bytes.truncate(8);
    bytes.extend_from_slice(payload);
    header.checksum = crc32fast::hash(&bytes);
    [&header.encode()[..], payload].concat()
}

#[test]
fn every_frame_comes_back_as_it_was() {
    let mut random = Random::new(1);
    for _ in 0..300 {
        each_frame(&mut random, |random, frame| {
            let mut bytes = encoded(frame);
            let length = bytes.len();
            let more = random.below(20) as usize;
            bytes.extend(std::iter::repeat_n(0xaa, more));
            assert_eq!(Frame::split(&bytes), Ok(Some((frame.clone(), length))));
        });
    }
}

#[test]
fn a_part_of_a_frame_is_not_a_frame_and_no_bit_may_change() {
    let mut random = Random::new(2);
    for _ in 0..20 {
        each_frame(&mut random, |_, frame| {
            let bytes = encoded(frame);
            for end in 0..bytes.len() {
                assert_eq!(Frame::split(&bytes[..end]), Ok(None), "{frame:?} cut at {end}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let result = Frame::split(&damaged);
                assert!(!matches!(result, Ok(Some(_))), "{frame:?} with bit {bit}: {result:?}");
            }
        });
    }
}

/// What is hostile knows the checksum as well: behind the header every byte is tried with other values.
#[test]
fn hostile_payloads_never_panic_and_what_is_accepted_is_said_in_one_way_only() {
    let mut random = Random::new(3);
    let (mut accepted, mut refused) = (0_u32, 0_u32);
    let mut judge = |bytes: &[u8]| match Frame::split(bytes) {
        Ok(Some((frame, length))) => {
            accepted += 1;
            assert_eq!(length, bytes.len());
            let mut again = Vec::new();
            frame.encode(&mut again).expect("what was accepted can be said again");
            // The capabilities' order is the only freedom, and the map takes it away.
            if !matches!(&frame, Frame::Packet(packet) if matches!(packet.message.code(), 1 | 2)) {
                assert_eq!(again, bytes, "{frame:?}");
            }
        }
        Ok(None) => panic!("the whole payload is there"),
        Err(_) => refused += 1,
    };
    for _ in 0..100 {
        each_frame(&mut random, |random, frame| {
            let whole = encoded(frame);
            let (kind, flags) = (whole[2], whole[3]);
            for _ in 0..40 {
                let mut payload = whole[HEADER_LENGTH..].to_vec();
                match random.below(4) {
                    0 => payload.truncate(random.below(payload.len() as u64 + 1) as usize),
                    1 => payload.extend(bytes(random, 9)),
                    _ => {
                        for _ in 0..=random.below(3) {
                            let at = random.below(payload.len() as u64) as usize;
                            if let Some(byte) = payload.get_mut(at) {
                                *byte = *random.choose(&[0, 1, 0x7f, 0x80, 0xff, 2, 3]).expect("not empty");
                            }
                        }
                    }
                }
                judge(&framed(kind, flags, &payload));
            }
        });
    }
    for _ in 0..20_000 {
        let kind =
            *random.choose(&[1, 2, 3, 5, 6, 8, 12, 15, STATE, PAGES, ZERO_PAGES, HELD_PAGES]).expect("not empty");
        let payload = bytes(&mut random, 120);
        judge(&framed(kind, 0, &payload));
    }
    assert!(accepted > 1_000 && refused > 1_000, "{accepted} accepted, {refused} refused");
}

#[test]
fn arbitrary_bytes_never_panic() {
    let mut random = Random::new(4);
    for _ in 0..100_000 {
        let mut bytes = bytes(&mut random, 80);
        if random.chance(3, 4) && bytes.len() > 3 {
            bytes[..2].copy_from_slice(b"Gw");
            bytes[2] = random.below(40) as u8;
        }
        let _ = Frame::split(&bytes);
        if random.chance(3, 4) && bytes.len() > 8 {
            bytes[..7].copy_from_slice(b"GwJ\n\x01\0\x01");
        }
        let _ = (Record::decode(&bytes), Record::last(&bytes));
    }
}

#[test]
fn a_header_is_judged_before_anything_is_allocated() {
    let header = |kind, flags, length| Header { kind, flags, length, checksum: 0 }.encode();
    assert!(Header::decode(&header(1, 0, PAYLOAD_LIMIT)).is_ok());
    let too_long = Malformed::TooLong { length: u64::from(u32::MAX), limit: PAYLOAD_LIMIT.into() };
    assert_eq!(Header::decode(&header(STATE, 0, u32::MAX)), Err(too_long));
    assert_eq!(Header::decode(&header(0, 0, 0)), Err(Malformed::UnknownType(0)));
    assert_eq!(Header::decode(&header(99, 0, 0)), Err(Malformed::UnknownType(99)));
    assert_eq!(Header::decode(&header(PAGES, 2, 0)), Err(Malformed::UnknownFlags(2)));
    assert_eq!(Header::decode(&header(1, 1, 0)), Err(Malformed::UnknownFlags(1)));
    let mut other = header(1, 0, 0);
    other[0] = b'X';
    assert_eq!(Header::decode(&other), Err(Malformed::BadMagic));
    assert_eq!(Frame::split(&framed(31, 0, &[0; 16])), Err(Malformed::UnknownType(31)));
}

#[test]
fn page_runs_that_cannot_be_are_refused_on_both_sides() {
    let good = Run { owner: 1, start: 5, count: 2 };
    let with = |runs: Vec<Run>| Runs { page_shift: 12, body_checksum: None, runs };
    let refused = |frame: Frame<'_>| {
        let mut out = b"before".to_vec();
        let result = frame.encode(&mut out);
        assert_eq!(out, b"before", "nothing is left of what was not encoded");
        result.err()
    };
    assert!(Frame::Pages(with(vec![good])).encode(&mut Vec::new()).is_ok());
    assert_eq!(refused(Frame::Pages(with(vec![]))), Some(Malformed::BadValue("number of runs")));
    assert_eq!(refused(Frame::ZeroPages(with(vec![good; RUN_LIMIT + 1]))), Some(Malformed::BadValue("number of runs")));
    let run = Malformed::BadValue("run of pages");
    assert_eq!(refused(Frame::Pages(with(vec![Run { count: 0, ..good }]))), Some(run));
    assert_eq!(refused(Frame::Pages(with(vec![Run { start: u64::MAX, ..good }]))), Some(run));
    assert_eq!(refused(Frame::ZeroPages(with(vec![Run { start: 1 << 52, ..good }]))), Some(run));
    let many = Run { count: PAGE_LIMIT as u32 + 1, ..good };
    assert!(matches!(refused(Frame::Pages(with(vec![many]))), Some(Malformed::TooLong { .. })));
    assert_eq!(
        refused(Frame::Pages(Runs { page_shift: 11, ..with(vec![good]) })),
        Some(Malformed::BadValue("page size"))
    );
    let state = |length, block| refused(Frame::PackedState(PackedState { length, block }));
    assert_eq!(state(2, &[1, 2]), Some(Malformed::BadValue("packed length")));
    assert_eq!(state(2, &[]), Some(Malformed::BadValue("packed length")));
    assert!(matches!(state(PACKED_LIMIT as u32 + 1, &[1]), Some(Malformed::TooLong { .. })));
    let packed = |length, runs| refused(Frame::PackedPages(Packed { length, checksum: 0, runs: with(runs) }));
    assert_eq!(packed(0, vec![good]), Some(Malformed::BadValue("packed length")));
    assert_eq!(packed(8_192, vec![good]), Some(Malformed::BadValue("packed length")));
    let other = Run { owner: good.owner + 1, ..good };
    assert_eq!(packed(5, vec![good, other]), Some(Malformed::BadValue("owner")));
    let large = Run { count: 257, ..good };
    assert!(matches!(packed(5, vec![large]), Some(Malformed::TooLong { .. })));
    assert_eq!(with(vec![good, good]).body_length(), 4 * 4_096);
}

/// Compatibility: these bytes are out in the world. A change needs a new version, not a new constant here.
#[test]
fn the_bytes_of_version_one_do_not_change() {
    let packet = Packet { migration: MigrationId([0xab; 16]), message: Message::Answer(Verdict::Aborted) };
    let mut expected = b"Gw\x0c\x00\x11\x00\x00\x00\x00\x00\x00\x00".to_vec();
    expected.extend([0xab; 16]);
    expected.push(2);
    let mut summed = expected[..8].to_vec();
    summed.extend(&expected[12..]);
    let sum = crc32fast::hash(&summed);
    expected[8..12].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(encoded(&Frame::Packet(packet)), expected);

    let runs = Runs {
        page_shift: 12,
        body_checksum: Some(0x0403_0201),
        runs: vec![Run { owner: 0x11, start: 0x2233_4455, count: 0x66 }],
    };
    let bytes = encoded(&Frame::Pages(runs));
    assert_eq!(bytes[..8], *b"Gw\x21\x01\x18\x00\x00\x00");
    assert_eq!(bytes[12..20], [12, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(bytes[20..], [0x11, 0, 0, 0, 0x66, 0, 0, 0, 0x55, 0x44, 0x33, 0x22, 0, 0, 0, 0]);

    let mut record = Vec::new();
    let (migration, boot) = (MigrationId([1; 16]), BootId([2; 16]));
    Record { side: Side::Destination, stage: Stage::Committed, migration, boot, details: b"x".to_vec() }
        .encode(&mut record);
    assert_eq!(record[..8], *b"GwJ\n\x01\x00\x02\x04");
    assert_eq!(record[8..40], [[1; 16], [2; 16]].concat());
    assert_eq!(record[40..44], [1, 0, 0, 0]);
    assert_eq!((record[48], record.len()), (b'x', 53));
}
