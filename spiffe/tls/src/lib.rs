//! spiffe_tls
