//! Proofs over the ledger's tree: that a record is in it (RFC 6962 §2.1.1), and that one tree is the beginning of another
//! (RFC 6962 §2.1.2). Making them and checking them share no code but the hash.

mod logged;

use crate::hash::Hash;

pub use logged::{LoggedRecord, NotProven, PROOF_BYTES_MAX, ProofFormError, ProveError, prove};

/// Most hashes in a proof: an index has 64 bits, and each is one step up the tree. C2SP tlog-witness takes 63, which is
/// as many as a ledger of fewer than 2^63 records needs.
pub const PROOF_HASHES_MAX: usize = 63;

/// A subtree of 2 to the power of `level` leaves, the `index`th of its size from the left. Its hash never changes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subtree {
    /// The height, 0 for a leaf.
    pub level: u32,
    /// The place among those of its height.
    pub index: u64,
}

/// Makes the proof that the record `index` is in the tree of `size` records, from the leaf's sibling up. There is none for
/// a record that is not in it. `read` gives the hash of a subtree.
///
/// # Errors
///
/// What `read` returns.
pub fn inclusion<E>(
    index: u64,
    size: u64,
    mut read: impl FnMut(Subtree) -> Result<Hash, E>,
) -> Result<Option<Vec<Hash>>, E> {
    if index >= size {
        return Ok(None);
    }
    let (mut begin, mut end) = (0, size);
    let mut beside = Vec::new();
    while let Some(middle) = middle(begin, end) {
        if index < middle {
            beside.push((middle, end));
            end = middle;
        } else {
            beside.push((begin, middle));
            begin = middle;
        }
    }
    let hashes = beside.into_iter().rev().map(|range| hash_of(range, &mut read));
    hashes.collect::<Result<_, _>>().map(Some)
}

/// Makes the proof that the tree of `old` records is the beginning of the one of `new` records. There is none where it is
/// the larger one; it is empty where the old tree is, and where both are one.
///
/// # Errors
///
/// What `read` returns.
pub fn consistency<E>(
    old: u64,
    new: u64,
    mut read: impl FnMut(Subtree) -> Result<Hash, E>,
) -> Result<Option<Vec<Hash>>, E> {
    if old > new {
        return Ok(None);
    }
    if old == 0 || old == new {
        return Ok(Some(Vec::new()));
    }
    let (mut begin, mut end) = (0, new);
    let mut beside = Vec::new();
    // SUBPROOF of RFC 6962 §2.1.2, from the root down to the subtree in which the old tree ends.
    while end != old {
        let Some(middle) = middle(begin, end) else { break };
        if old <= middle {
            beside.push((middle, end));
            end = middle;
        } else {
            beside.push((begin, middle));
            begin = middle;
        }
    }
    // Where that is all of the old tree, whoever checks knows its hash.
    if begin > 0 {
        beside.push((begin, end));
    }
    let hashes = beside.into_iter().rev().map(|range| hash_of(range, &mut read));
    hashes.collect::<Result<_, _>>().map(Some)
}

/// Says whether `proof` shows that `leaf` is the record `index` of the tree of `size` records with this root (RFC 9162
/// §2.1.3.2).
#[must_use]
pub fn includes(root: &Hash, size: u64, index: u64, leaf: &Hash, proof: &[Hash]) -> bool {
    let Some(mut last) = size.checked_sub(1).filter(|last| index <= *last) else {
        return false;
    };
    let (mut at, mut hash) = (index, *leaf);
    for beside in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = Hash::node(beside, &hash);
            skip_lone(&mut at, &mut last);
        } else {
            hash = Hash::node(&hash, beside);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Says whether `proof` shows that the tree of the size and root `old` is the beginning of that of `new` (RFC 9162
/// §2.1.4.2).
#[must_use]
pub fn extends(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == new_size {
        return proof.is_empty() && old_root == new_root;
    }
    if old_size == 0 {
        return proof.is_empty() && *old_root == Hash::of_empty_tree();
    }
    if old_size > new_size {
        return false;
    }
    // A whole subtree is its own proof.
    let whole = old_size.is_power_of_two().then_some(old_root);
    let mut path = whole.into_iter().chain(proof);
    let Some(first) = path.next() else { return false };
    let (mut at, mut last) = (old_size.saturating_sub(1), new_size.saturating_sub(1));
    let same = at.trailing_ones();
    at = at.checked_shr(same).unwrap_or(0);
    last = last.checked_shr(same).unwrap_or(0);
    let (mut old_hash, mut new_hash) = (*first, *first);
    for beside in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = Hash::node(beside, &old_hash);
            new_hash = Hash::node(beside, &new_hash);
            skip_lone(&mut at, &mut last);
        } else {
            new_hash = Hash::node(&new_hash, beside);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// Goes up while the node is the last one of its row and has no sibling there.
fn skip_lone(at: &mut u64, last: &mut u64) {
    while *at & 1 == 0 && *at != 0 {
        *at >>= 1;
        *last >>= 1;
    }
}

/// Where a tree is split: at the largest power of two below its size. A leaf is not.
fn middle(begin: u64, end: u64) -> Option<u64> {
    let last = end.checked_sub(begin)?.checked_sub(1)?;
    Some(begin.saturating_add(1 << last.checked_ilog2()?))
}

/// Gives the hash over the records from `begin` to before `end`, a range that [`middle`] split off.
fn hash_of<E>((begin, end): (u64, u64), read: &mut impl FnMut(Subtree) -> Result<Hash, E>) -> Result<Hash, E> {
    let mut perfect = Vec::new();
    let mut at = begin;
    while let Some(level) = end.saturating_sub(at).checked_ilog2() {
        let index = at >> level;
        perfect.push(read(Subtree { level, index })?);
        at = at.saturating_add(1 << level);
    }
    let folded = perfect
        .into_iter()
        .rev()
        .reduce(|right, left| Hash::node(&left, &right));
    Ok(folded.unwrap_or_else(Hash::of_empty_tree))
}

#[cfg(test)]
mod tests;
