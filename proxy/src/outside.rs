//! The way out of the mesh: which address a destination may have, who answers there, and what a bot's own TLS says of
//! whom it wants.
//!
//! A name is looked up once for each connection, each address is judged, and the connection goes to an address that was
//! judged, by its number: a resolver that answers something else a moment later changes nothing (DNS rebinding).

pub mod address;
pub mod connect;
pub mod hello;
pub mod resolve;
mod tls;
