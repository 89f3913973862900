//! Methods of gRPC, `acme.orders.v1.Orders/Get`, as the calls that they are: `POST /acme.orders.v1.Orders/Get`.
//!
//! gRPC over HTTP/2, "Requests": the path is a slash, the name of the service, a slash and the name of the method, and
//! the method is `POST`. So nothing but the spelling is of gRPC: rules over methods are rules over paths.

use thiserror::Error;

use crate::method::Method;
use crate::path::CanonicalPath;
use crate::pattern::{PathPattern, PathPatternError};
use crate::rule::{HttpMatch, MethodMatch};

/// The word before a method of gRPC where a call is written: `grpc acme.orders.v1.Orders/Get`.
pub const WORD: &str = "grpc";

/// Says why a text names no method of gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrpcError {
    /// It is not two names with a slash between them.
    #[error("a method of gRPC is SERVICE/METHOD, such as acme.orders.v1.Orders/Get")]
    Form,
    /// One of them holds something that no such name has.
    #[error("the names of a service and a method hold letters, digits, `_`, `-` and `.` only")]
    Character,
    /// It has a wildcard where a call is meant.
    #[error("a call is of one method, without wildcards")]
    Wildcard,
    /// A wildcard stands where none can.
    #[error("`*` is a whole name, or the end of one, as in acme.orders.v1.Orders/Get*")]
    Star,
    /// It is longer than a rule may be.
    #[error("the name is too long")]
    TooLong,
}

/// Reads the method of a call: gives the path that calls it.
///
/// # Errors
/// When the text is not SERVICE/METHOD or has a wildcard.
pub fn path(text: &str) -> Result<CanonicalPath, GrpcError> {
    check(text)?;
    if text.contains('*') {
        return Err(GrpcError::Wildcard);
    }
    CanonicalPath::parse(format!("/{text}").as_bytes()).map_err(|_invalid| GrpcError::Form)
}

/// Reads an item of a rule.
pub(crate) fn item(text: &str) -> Result<HttpMatch, GrpcError> {
    check(text)?;
    let path = PathPattern::parse(&format!("/{text}")).map_err(|error| match error {
        PathPatternError::TooLong => GrpcError::TooLong,
        PathPatternError::BelowNotLast | PathPatternError::StarInside => GrpcError::Star,
        PathPatternError::NotCanonical { .. } | PathPatternError::Path(_) => GrpcError::Form,
    })?;
    // `**` would be a path of any length, and a call of gRPC has two segments.
    if path.segments().below {
        return Err(GrpcError::Star);
    }
    let method = Method::parse("POST").map_err(|_never| GrpcError::Form)?;
    Ok(HttpMatch {
        method: MethodMatch::Is(method),
        path,
    })
}

fn check(text: &str) -> Result<(), GrpcError> {
    let (service, method) = text.split_once('/').ok_or(GrpcError::Form)?;
    if service.is_empty() || method.is_empty() || method.contains('/') {
        return Err(GrpcError::Form);
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'*');
    if !service.bytes().chain(method.bytes()).all(known) {
        return Err(GrpcError::Character);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_the_post_that_calls_it() {
        for text in [
            "acme.orders.v1.Orders/Get",
            "Orders/Get_2",
            "acme.orders.v1.Orders/*",
            "acme.orders.v1.Orders/Get*",
            "acme.orders.*/Get",
            "*/*",
        ] {
            let item = item(text).unwrap();
            assert_eq!((item.to_string(), item.grpc()), (format!("POST /{text}"), text));
        }
        assert_eq!(path("a.B/Get").unwrap().as_str(), "/a.B/Get");
    }

    #[test]
    fn what_is_no_method_is_refused() {
        for (text, error) in [
            ("", GrpcError::Form),
            ("acme.orders.v1.Orders", GrpcError::Form),
            ("/acme.orders.v1.Orders/Get", GrpcError::Form),
            ("acme.orders.v1.Orders/", GrpcError::Form),
            ("a/b/c", GrpcError::Form),
            ("../a", GrpcError::Form),
            ("a/..", GrpcError::Form),
            ("a/G et", GrpcError::Character),
            ("a/%47et", GrpcError::Character),
            ("a\u{e9}/Get", GrpcError::Character),
            ("a/*Get", GrpcError::Star),
            ("a/**", GrpcError::Star),
            ("**/Get", GrpcError::Star),
        ] {
            assert_eq!(item(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(
            item(&format!("a/{}", "b".repeat(1024))).unwrap_err(),
            GrpcError::TooLong
        );
        assert_eq!(path("a/*").unwrap_err(), GrpcError::Wildcard);
        assert_eq!(path("a/**").unwrap_err(), GrpcError::Wildcard);
        assert_eq!(path("a").unwrap_err(), GrpcError::Form);
    }
}
