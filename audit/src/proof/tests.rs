use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

fn leaf(index: u64) -> Hash {
    Hash::leaf(format!("record {index}").as_bytes())
}

/// RFC 6962 §2.1, written down as the text has it.
fn reference(begin: u64, end: u64) -> Hash {
    match end - begin {
        0 => Hash::of_empty_tree(),
        1 => leaf(begin),
        size => {
            let mut k = 1;
            while k * 2 < size {
                k *= 2;
            }
            Hash::node(&reference(begin, begin + k), &reference(begin + k, end))
        }
    }
}

fn read(subtree: Subtree) -> Result<Hash, Infallible> {
    let first = subtree.index << subtree.level;
    Ok(reference(first, first + (1 << subtree.level)))
}

fn inclusion_of(index: u64, size: u64) -> Vec<Hash> {
    inclusion(index, size, read).unwrap().unwrap()
}

fn consistency_of(old: u64, new: u64) -> Vec<Hash> {
    consistency(old, new, read).unwrap().unwrap()
}

#[test]
fn every_record_of_every_small_tree_is_proven_and_no_other() {
    for size in 1..70 {
        let root = reference(0, size);
        for index in 0..size {
            let proof = inclusion_of(index, size);
            assert!(includes(&root, size, index, &leaf(index), &proof), "{index} of {size}");
            for other in 0..=size {
                let says = includes(&root, size, other, &leaf(index), &proof);
                assert_eq!(says, other == index, "{index} as {other} of {size}");
                let says = includes(&root, size, index, &leaf(other), &proof);
                assert_eq!(says, other == index, "{other} for {index} of {size}");
            }
        }
    }
}

#[test]
fn every_small_tree_is_the_beginning_of_each_larger_one_and_of_no_smaller() {
    for new in 0..70 {
        let new_root = reference(0, new);
        for old in 0..=new {
            let old_root = reference(0, old);
            let proof = consistency_of(old, new);
            assert!(extends((old, &old_root), (new, &new_root), &proof), "{old} in {new}");
            assert!(proof.len() <= PROOF_HASHES_MAX);
            if old != new {
                assert!(!extends((new, &new_root), (old, &old_root), &proof), "{new} in {old}");
            }
            if old > 0 {
                let forged = Hash::leaf(b"forged");
                assert!(!extends((old, &forged), (new, &new_root), &proof), "{old} in {new}");
                assert!(!extends((old, &old_root), (new, &forged), &proof), "{old} in {new}");
            }
        }
    }
}

#[test]
fn what_is_not_in_a_tree_has_no_proof() {
    assert_eq!(inclusion(5, 5, read).unwrap(), None);
    assert_eq!(inclusion(0, 0, read).unwrap(), None);
    assert_eq!(consistency(6, 5, read).unwrap(), None);
    let root = reference(0, 1);
    assert!(!includes(&root, 0, 0, &leaf(0), &[]));
    assert!(includes(&root, 1, 0, &leaf(0), &[]));
    assert!(!includes(&root, 1, 1, &leaf(0), &[]));
}

#[test]
fn a_proof_with_a_hash_more_or_less_is_none() {
    let (size, index) = (37, 21);
    let root = reference(0, size);
    let good = inclusion_of(index, size);
    let less = &good[..good.len() - 1];
    assert!(!includes(&root, size, index, &leaf(index), less));
    assert!(!includes(
        &root,
        size,
        index,
        &leaf(index),
        &[&good[..], &[root]].concat()
    ));
    let (old, old_root) = (22, reference(0, 22));
    let good = consistency_of(old, size);
    assert!(!extends((old, &old_root), (size, &root), &good[..good.len() - 1]));
    assert!(!extends((old, &old_root), (size, &root), &good[1..]));
    assert!(!extends(
        (old, &old_root),
        (size, &root),
        &[&good[..], &[root]].concat()
    ));
    assert!(!extends((old, &old_root), (size, &root), &[]));
}

#[test]
fn nothing_is_added_to_a_proof_of_the_same_tree_or_of_the_empty_one() {
    let root = reference(0, 8);
    assert!(extends((8, &root), (8, &root), &[]));
    assert!(!extends((8, &root), (8, &root), &[root]));
    assert!(!extends((8, &root), (8, &reference(0, 7)), &[]));
    let empty = Hash::of_empty_tree();
    assert!(extends((0, &empty), (8, &root), &[]));
    assert!(!extends((0, &empty), (8, &root), &[root]));
    assert!(!extends((0, &root), (8, &root), &[]), "only one tree is empty");
}

proptest! {
    #[test]
    fn a_changed_hash_is_found(size in 2_u64..600, index: u64, place: prop::sample::Index, bit in 0_usize..256) {
        let index = index % size;
        let mut proof = inclusion_of(index, size);
        let at = place.index(proof.len());
        let mut bytes = *proof[at].as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        proof[at] = Hash::from_bytes(bytes);
        prop_assert!(!includes(&reference(0, size), size, index, &leaf(index), &proof));
    }

    #[test]
    fn a_changed_hash_between_two_trees_is_found(new in 2_u64..600, old: u64, place: prop::sample::Index) {
        let old = old % (new - 1) + 1;
        let mut proof = consistency_of(old, new);
        let at = place.index(proof.len());
        proof[at] = Hash::node(&proof[at], &proof[at]);
        prop_assert!(!extends((old, &reference(0, old)), (new, &reference(0, new)), &proof));
    }

    #[test]
    fn no_proof_and_no_size_panics(sizes: [u64; 3], hashes in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
        let [old, new, index] = sizes;
        let hashes: Vec<Hash> = hashes.into_iter().map(Hash::from_bytes).collect();
        let root = Hash::of_empty_tree();
        prop_assert!(!extends((old, &root), (new, &root), &hashes) || old == new || old == 0);
        prop_assert!(!includes(&root, new, index, &root, &hashes) || (new, index) == (1, 0));
    }

    #[test]
    fn the_largest_trees_have_proofs(old: u64, new: u64, index: u64) {
        let any = |_: Subtree| Ok::<_, Infallible>(Hash::of_empty_tree());
        let (old, new) = (old.min(new), old.max(new));
        let proof = consistency(old, new, any).unwrap().unwrap();
        prop_assert!(proof.len() <= 65);
        let index = index.checked_rem(new).unwrap_or(0);
        let proof = inclusion(index, new, any).unwrap();
        prop_assert_eq!(proof.is_some(), new > 0);
    }
}
