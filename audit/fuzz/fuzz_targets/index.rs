//! No bytes on disk are an index that harms who reads it, and what is one is read again as it was written. Both sums are made
//! right, or nothing behind them would ever be read.

#![no_main]

use aws_lc_rs::digest::{SHA256, digest};

/// Bytes of the head before its sum.
const HEAD: usize = 120;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (head, rest) = bytes.split_at(HEAD.min(bytes.len()));
    let mut sealed = b"botmesh index 1\n".to_vec();
    sealed.extend_from_slice(head.get(16..).unwrap_or_default());
    sealed.extend_from_slice(digest(&SHA256, &sealed).as_ref());
    sealed.extend_from_slice(rest);
    sealed.extend_from_slice(digest(&SHA256, &sealed).as_ref());
    if let Some(again) = audit::query::index_again(&sealed) {
        assert_eq!(audit::query::index_again(&again), Some(again.clone()));
    }
});
