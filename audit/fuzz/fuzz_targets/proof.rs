//! A proof that is read is written the same, and no bytes and no sizes panic: proofs of records, and between two trees.

#![no_main]

use audit::hash::Hash;
use audit::proof::{LoggedRecord, extends, includes};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(proof) = LoggedRecord::parse(bytes) {
        assert_eq!(proof.to_string().as_bytes(), bytes);
    }
    let Some((sizes, rest)) = bytes.split_first_chunk::<24>() else {
        return;
    };
    let number = |at: usize| u64::from_le_bytes(sizes[at..at + 8].try_into().expect("eight bytes"));
    let (old, new, index) = (number(0), number(8), number(16));
    let hashes: Vec<Hash> = rest
        .as_chunks::<32>()
        .0
        .iter()
        .map(|hash| Hash::from_bytes(*hash))
        .collect();
    let root = Hash::of_empty_tree();
    assert!(!extends((old, &root), (new, &root), &hashes) || old == new || old == 0);
    assert!(!includes(&root, new, index, &root, &hashes) || (new, index) == (1, 0));
});
