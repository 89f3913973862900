//! ca_api
