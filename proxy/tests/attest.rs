//! Attestation against real processes.
