//! The suite: the real binary, real sockets, real certificates. Each module is one subject.
#![forbid(unsafe_code)]

mod layout;
