//! Any bytes as a checkpoint's image file, and as the payload of every kind of resource: a clear answer, never a panic, and
//! what decodes encodes to the same meaning again.
#![no_main]

use godwit_engine::resource::KINDS;
use godwit_image::{Envelope, ObjectId, codec, layout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(checkpoint) = layout::decode(data) {
        let again = layout::encode(&checkpoint).and_then(|bytes| layout::decode(&bytes));
        assert_eq!(again.as_ref(), Ok(&checkpoint));
    }
    let _ = codec::decode::<codec::Value>(data);
    let _ = codec::decode::<godwit_image::Tree>(data);
    if let Some((selector, payload)) = data.split_first() {
        let kind = KINDS[usize::from(*selector) % KINDS.len()];
        let envelope =
            Envelope { id: ObjectId(1), kind: kind.id(), version: 1, refs: Vec::new(), payload: payload.to_vec() };
        let _ = kind.needs(&envelope);
    }
});
