//! Says *may*: reads the mesh file, compiles it to a [`Policy`], and decides calls.
//!
//! The same compiled [`Policy::decide`] serves the proxies, `policy test` and `policy explain`: there is no second
//! checker. Only `decide` makes a [`Permit`], and a `Permit` owns the canonical request it allowed.
//!
//! Everything here is a pure function of its arguments. What is not allowed is refused, what cannot be read in one way
//! is an error, and a key that this version does not enforce is refused (`BM0190`), never accepted and ignored.
//!
//! Deliberately absent: files, sockets, the clock (`now` is an argument), randomness, logging, regular expressions,
//! an expression language, and any way to make a `Permit` without deciding.
//!
//! - [`load`] reads sources into a [`Mesh`], or gives [`Diagnostics`] with places, carets and codes.
//! - [`Mesh`] is a valid mesh file: who exists and who may call what. It can be written again, whole or as the slice
//!   that one host needs, and it runs its own tests.
//! - [`Policy`] is the compiled form; [`Call`], [`Permit`] and [`Denial`] are its question and its two answers.
//! - [`CanonicalPath`] and [`Method`] are the one reading of what a caller sent.

#![forbid(unsafe_code)]

mod address;
mod audit_only;
mod bits;
mod call;
mod canonical;
mod code;
mod credential;
mod database;
mod decision;
mod destination;
mod diagnostics;
mod endpoint;
mod exchange;
mod explain;
pub mod feature;
mod federate;
mod generation;
pub mod grpc;
pub mod import;
mod limit;
mod lint;
mod mesh;
mod method;
mod outside;
mod overlap;
mod path;
mod pattern;
mod policy;
mod read;
mod resolve;
mod roster;
mod rule;
mod schema;
mod source;
mod suggest;
mod tests_of_mesh;
mod upgrade;
mod yaml;

pub use address::AddressRange;
pub use audit_only::AuditOnlyAbout;
pub use call::{Call, Callee, CalleeError, HttpAsk, What};
pub use code::{Code, explain_code};
pub use credential::{Credential, CredentialName, Hmac, HmacEncoding, HmacHash, Injection, Probe};
pub use database::Database;
pub use decision::{Attribute, Audit, Denial, DenyReason, Difference, Nearest, Permit};
pub use destination::{Destination, OutsideDestination};
pub use diagnostics::{DIAGNOSTICS_MAX, Diag, Diagnostics, Severity};
pub use endpoint::{Endpoint, EndpointError};
pub use exchange::{ClientAuth, GithubApp, Grant, OAuth, TokenUrl, TokenUrlError};
pub use explain::{Candidate, Explainer, Explanation, Tick, Verdict};
pub use federate::{Encoding, Federate, SvidExchange, SvidGrant, TokenType};
pub use generation::Generation;
pub use limit::{Allowance, Bucket, LimitAbout, Rate, Spent};
pub use mesh::{Bot, Mesh, RuleAbout, RulesAbout, Serve, ServeKind, Target, TcpServe};
pub use method::{METHOD_BYTES_MAX, Method, MethodError};
pub use outside::{Outside, OutsideError, Scheme};
pub use overlap::{Indistinct, Likeness};
pub use path::{CanonicalPath, PATH_BYTES_MAX, PathError};
pub use policy::Policy;
pub use read::{BOTS_MAX, MESH_BYTES_MAX, MESH_DEPTH_MAX, RULES_MAX, load};
pub use rule::RuleId;
pub use schema::json_schema;
pub use source::{Place, Source};
pub use tests_of_mesh::{TestOutcome, TestReport};
pub use upgrade::Protocol;
