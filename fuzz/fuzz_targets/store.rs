//! Any bytes as what is said to a page store, and as its file: a clear answer, never a panic, and no page in two places.
#![no_main]

use godwit_handoff::frame::{Frame, Run};
use godwit_handoff::store::{FILE_HEADER, Head, Index, RECORD_HEADER, Session, read_file_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (mut session, mut rest) = (Session::default(), data);
    while let Ok(Some((frame, used))) = Frame::split(rest) {
        let said = match &frame {
            Frame::Store(word) => session.hear(word).is_ok(),
            Frame::WantedPages(runs) => session.may_take(runs).is_ok(),
            _ => session.may_put().is_ok(),
        };
        if !said || used == 0 {
            break;
        }
        rest = &rest[used..];
    }
    if let Some(header) = data.first_chunk::<FILE_HEADER>() {
        let _ = read_file_header(header);
    }
    let (mut index, mut rest) = (Index::default(), data);
    while let Some((header, behind)) = rest.split_first_chunk::<RECORD_HEADER>() {
        // Whatever the checksum says: a file may have been made by somebody else.
        let Ok(head) = Head::decode(header) else { break };
        let Some(sums) = behind.get(..head.sums_length()) else { break };
        if let Ok(record) = head.complete(sums) {
            assert_eq!(record.encode()[..], rest[..RECORD_HEADER + sums.len()]);
            index.note(&record, 0, 0);
        }
        let parts = index.find(Run { owner: 1, start: 0, count: 1 << 20 });
        assert_eq!(parts.iter().map(|part| u64::from(part.run.count)).sum::<u64>(), 1 << 20);
        rest = &behind[sums.len()..];
    }
});
