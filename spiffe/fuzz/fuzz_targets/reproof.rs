//! However the bytes of a control stream are cut, the same proofs come out of them, and each is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spiffe_tls::{REPROOF_BYTES_MAX, Reproof, ReproofReader};

fn read(bytes: &[u8], piece: usize) -> (Vec<Reproof>, bool) {
    let (mut reader, mut proofs) = (ReproofReader::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        loop {
            match reader.next_proof() {
                Ok(Some(proof)) => proofs.push(proof),
                Ok(None) => break,
                Err(_refused) => return (proofs, true),
            }
        }
    }
    (proofs, false)
}

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, piece) = input;
    let whole = read(bytes, REPROOF_BYTES_MAX + bytes.len());
    let pieces = read(bytes, usize::from(piece) + 1);
    assert_eq!(whole.0, pieces.0);
    let written: Vec<u8> = whole.0.iter().flat_map(Reproof::encode).collect();
    assert!(bytes.starts_with(&written));
    if let Ok(proof) = Reproof::decode(bytes) {
        assert_eq!(proof.encode().get(4..), Some(bytes));
    }
});
