//! Any bytes as frames and as journal records: a clear answer, never a panic, and what decodes encodes to the same bytes'
//! meaning again.
#![no_main]

use godwit_handoff::delta::Memory;
use godwit_handoff::frame::Frame;
use godwit_handoff::journal::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (mut rest, mut memory) = (data, Memory::default());
    while let Ok(Some((frame, used))) = Frame::split(rest) {
        let mut out = Vec::new();
        if frame.encode(&mut out).is_ok() {
            assert!(matches!(Frame::split(&out), Ok(Some((again, _))) if again == frame));
        }
        if let Frame::PackedPages(packed) = &frame {
            // Any bytes behind it: an answer within the room of the pages.
            let behind = &rest[used..];
            let body = &behind[..behind.len().min(packed.length as usize)];
            let _ = packed.unpack(body, &mut vec![0; packed.runs.body_length() as usize]);
        }
        if let Frame::PackedState(packed) = &frame {
            let _ = packed.unpack(&mut Vec::new());
        }
        if let Frame::DeltaPages(delta) = &frame {
            let behind = &rest[used..];
            let body = &behind[..behind.len().min(delta.length as usize)];
            let _ = delta.unpack(&mut memory, body, &mut vec![0; delta.runs.body_length() as usize]);
        }
        if used == 0 {
            break;
        }
        rest = &rest[used..];
    }
    if let Ok((record, _)) = Record::decode(data) {
        let mut out = Vec::new();
        record.encode(&mut out);
        assert!(matches!(Record::decode(&out), Ok((again, _)) if again == record));
    }
    let _ = Record::last(data);
});
