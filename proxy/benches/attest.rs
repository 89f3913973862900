//! Figures of attestation.

fn main() {}
