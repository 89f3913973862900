//! Refusals of the admin API (RFC 9457), and the reading of requests.

use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ca_api::admin::{PROBLEM_JSON, Problem};
use serde::de::DeserializeOwned;

/// A refusal, as the operator reads it.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, code: &'static str, title: &'static str, detail: String) -> Self {
        Self {
            status,
            code,
            title,
            detail,
        }
    }

    pub(super) fn not_an_operator(detail: String) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "not_an_operator",
            "only operators may use this socket",
            detail,
        )
    }

    pub(super) fn bad_request(detail: String) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "the request cannot be read",
            detail,
        )
    }

    pub(super) fn not_found() -> Self {
        let detail = "see `botmesh help`; the command line and the CA may be of different versions".to_owned();
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "the admin API has no such path",
            detail,
        )
    }

    pub(super) fn method_not_allowed() -> Self {
        let title = "the path takes another method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "bad_request", title, String::new())
    }

    pub(super) fn no_such_revision(detail: String) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no_such_revision",
            "there is no such revision",
            detail,
        )
    }

    /// Our own fault; the operator gets this level, the log the whole chain.
    pub(crate) fn unavailable(operation: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "{operation}");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            operation,
            error.to_string(),
        )
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code.to_owned(),
        };
        let mut response = (self.status, axum::Json(problem)).into_response();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

/// A JSON body, whatever its content type says.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let detail = rejection.body_text();
            Refused::new(rejection.status(), "bad_request", "the body cannot be read", detail)
        })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Refused::bad_request(error.to_string()))
    }
}
