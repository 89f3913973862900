//! proxy

pub mod attest;
