//! Any bytes are refused, or are proofs that are written the same again, however the stream cuts them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spiffe_tls::{Reproof, ReproofReader};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(proof) = Reproof::decode(bytes) {
        assert_eq!(proof.encode().get(4..), Some(bytes));
    }
    let mut whole = ReproofReader::default();
    whole.push(bytes);
    let mut pieces = ReproofReader::default();
    let mut read = 0;
    for piece in bytes.chunks(7) {
        pieces.push(piece);
        while let Ok(Some(proof)) = pieces.next_proof() {
            assert_eq!(whole.next_proof(), Ok(Some(proof.clone())));
            let written = proof.encode();
            assert_eq!(bytes.get(read..read + written.len()), Some(written.as_slice()));
            read += written.len();
        }
    }
});
