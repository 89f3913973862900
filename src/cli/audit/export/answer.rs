//! What a collector's answer means (OTLP specification, "OTLP/HTTP Response").

use std::time::Duration;

use http::header::{self, HeaderMap};
use prost::Message as _;
use serde::Deserialize;
use spiffe::time::Timestamp;

use super::collector::Answer;
use super::otlp::{Response, Status};
use crate::exit::Exit;
use crate::output::printable;

/// How much is shown of what a server says.
const SAID_MAX: usize = 300;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was taken, but for so many records, which are not to be sent again.
    Taken {
        rejected: u64,
        /// What the server says of it.
        said: String,
    },
    /// It is to be sent again.
    Again {
        /// Not before this.
        after: Option<Duration>,
        why: String,
    },
    /// It would be refused again.
    Refused {
        exit: Exit,
        why: String,
        hint: &'static str,
    },
}

/// A partial success in JSON. Numbers of 64 bits are texts there, or numbers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonResponse {
    partial_success: Option<JsonPartial>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct JsonPartial {
    rejected_log_records: JsonNumber,
    error_message: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsonNumber {
    Number(i64),
    Text(String),
}

impl Default for JsonNumber {
    fn default() -> Self {
        Self::Number(0)
    }
}

#[derive(Deserialize)]
struct JsonStatus {
    message: String,
}

/// Judges an answer to a request of `sent` records; of one that is too long there is no body.
pub(super) fn judge(answer: &Answer, sent: u64, now: Timestamp) -> Verdict {
    let Answer { status, headers, body } = answer;
    if matches!(status.as_u16(), 200 | 202 | 204) {
        return taken(headers, body.as_deref(), sent);
    }
    let said = said(headers, body.as_deref().unwrap_or_default());
    let why = if said.is_empty() {
        format!("it answered {status}")
    } else {
        format!("it answered {status}: {said}")
    };
    match status.as_u16() {
        429 | 502 | 503 | 504 => Verdict::Again {
            after: retry_after(headers, now),
            why,
        },
        401 | 403 => Verdict::Refused {
            exit: Exit::NotAuthorised,
            why,
            hint: "what it wants to see of you goes into --headers",
        },
        300..=399 => Verdict::Refused {
            exit: Exit::Findings,
            why,
            hint: "redirections are not followed: name the address itself with --to",
        },
        413 => Verdict::Refused {
            exit: Exit::Findings,
            why,
            hint: "ask for smaller requests with --batch-bytes",
        },
        _ => Verdict::Refused {
            exit: Exit::Findings,
            why,
            hint: "these records would be refused again, so nothing after them was sent; the cursor is where it was",
        },
    }
}

fn taken(headers: &HeaderMap, body: Option<&[u8]>, sent: u64) -> Verdict {
    let found = match (content_type(headers), body) {
        (_, None) => None,
        (_, Some([])) => Some((0, String::new())),
        ("application/x-protobuf", Some(body)) => Response::decode(body).ok().map(|response| {
            let partial = response.partial_success.unwrap_or_default();
            (partial.rejected_log_records, partial.error_message)
        }),
        ("application/json", Some(body)) => serde_json::from_slice::<JsonResponse>(body).ok().and_then(|response| {
            let partial = response.partial_success.unwrap_or_default();
            let rejected = match partial.rejected_log_records {
                JsonNumber::Number(number) => number,
                JsonNumber::Text(text) => text.parse().ok()?,
            };
            Some((rejected, partial.error_message))
        }),
        _ => None,
    };
    // A page that says welcome has taken nothing.
    let rejected = found.and_then(|(rejected, said)| Some((u64::try_from(rejected).ok()?, said)));
    let Some((rejected, said)) = rejected.filter(|(rejected, _)| *rejected <= sent) else {
        return Verdict::Refused {
            exit: Exit::Findings,
            why: "it answered with success, and with what is no answer of OTLP".to_owned(),
            hint: "is this the address of a collector, with the path of its logs (/v1/logs)?",
        };
    };
    Verdict::Taken {
        rejected,
        said: shown(&said),
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
}

/// How long the server wants to be left alone (RFC 9110 §10.2.3: seconds, or a date).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let date = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    let now = Duration::from_secs(u64::try_from(now.unix_seconds()).ok()?);
    Some(date.saturating_sub(now))
}

/// What the server says is wrong.
fn said(headers: &HeaderMap, body: &[u8]) -> String {
    let said = match content_type(headers) {
        "application/x-protobuf" => Status::decode(body).ok().map(|status| status.message),
        "application/json" => serde_json::from_slice::<JsonStatus>(body)
            .ok()
            .map(|status| status.message),
        "text/plain" => String::from_utf8(body.to_owned()).ok(),
        _ => None,
    };
    shown(said.unwrap_or_default().trim())
}

fn shown(said: &str) -> String {
    printable(&said.chars().take(SAID_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;
    use crate::cli::audit::export::otlp::PartialSuccess;

    fn judged(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Verdict {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().unwrap();
            map.insert(name, value.parse().unwrap());
        }
        let now = Timestamp::from_rfc3339("2026-11-30T10:00:00Z").unwrap();
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: Some(Bytes::copy_from_slice(body)),
        };
        judge(&answer, 10, now)
    }

    #[test]
    fn an_answer_without_end_is_none_to_a_success_and_says_nothing_else() {
        let now = Timestamp::from_unix_millis(0);
        let answer = |status| Answer {
            status,
            headers: HeaderMap::new(),
            body: None,
        };
        let verdict = judge(&answer(StatusCode::OK), 10, now);
        assert!(matches!(verdict, Verdict::Refused { .. }), "{verdict:?}");
        let verdict = judge(&answer(StatusCode::BAD_GATEWAY), 10, now);
        assert!(matches!(verdict, Verdict::Again { .. }), "{verdict:?}");
    }

    const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    fn partial(rejected: i64, said: &str) -> Vec<u8> {
        let partial_success = Some(PartialSuccess {
            rejected_log_records: rejected,
            error_message: said.to_owned(),
        });
        Response { partial_success }.encode_to_vec()
    }

    fn taken(rejected: u64, said: &str) -> Verdict {
        Verdict::Taken {
            rejected,
            said: said.to_owned(),
        }
    }

    #[test]
    fn a_success_is_told_from_a_page_that_says_welcome() {
        assert_eq!(judged(200, &[PROTOBUF], b""), taken(0, ""));
        assert_eq!(judged(204, &[], b""), taken(0, ""));
        assert_eq!(judged(200, &[JSON], b"{}"), taken(0, ""));
        assert_eq!(judged(200, &[JSON], br#"{"partialSuccess":{}}"#), taken(0, ""));
        for (headers, body) in [
            ([("content-type", "text/html")], &b"<html>welcome"[..]),
            ([("content-type", "text/plain")], b"ok"),
            ([PROTOBUF], b"\xff\xff"),
            ([JSON], b"\"ok\""),
            ([("x", "y")], b"?"),
        ] {
            let verdict = judged(200, &headers, body);
            assert!(
                matches!(
                    verdict,
                    Verdict::Refused {
                        exit: Exit::Findings,
                        ..
                    }
                ),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn what_was_rejected_is_counted_and_no_number_is_believed_that_cannot_be() {
        assert_eq!(judged(200, &[PROTOBUF], &partial(3, "too old")), taken(3, "too old"));
        assert_eq!(
            judged(200, &[PROTOBUF], &partial(0, "be\u{1b}ware")),
            taken(0, "be\\u{1b}ware")
        );
        let json = br#"{"partialSuccess":{"rejectedLogRecords":"4","errorMessage":"no"}}"#;
        assert_eq!(judged(200, &[JSON], json), taken(4, "no"));
        let json = br#"{"partialSuccess":{"rejectedLogRecords":4}}"#;
        assert_eq!(judged(200, &[JSON], json), taken(4, ""));
        for impossible in [-1, 11] {
            let verdict = judged(200, &[PROTOBUF], &partial(impossible, ""));
            assert!(matches!(verdict, Verdict::Refused { .. }), "{impossible}: {verdict:?}");
        }
    }

    #[test]
    fn only_four_statuses_are_tried_again() {
        for status in 100..600 {
            let again = matches!(judged(status, &[], b""), Verdict::Again { .. });
            assert_eq!(again, [429, 502, 503, 504].contains(&status), "{status}");
            let taken = matches!(judged(status, &[], b""), Verdict::Taken { .. });
            assert_eq!(taken, [200, 202, 204].contains(&status), "{status}");
        }
    }

    #[test]
    fn a_server_says_for_how_long_in_seconds_or_by_a_date() {
        let after = |value: &str| match judged(503, &[("retry-after", value)], b"") {
            Verdict::Again { after, .. } => after.map(|after| after.as_secs()),
            verdict @ (Verdict::Taken { .. } | Verdict::Refused { .. }) => panic!("{verdict:?}"),
        };
        assert_eq!(after("7"), Some(7));
        assert_eq!(after("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(after("Mon, 30 Nov 2026 10:00:20 GMT"), Some(20));
        assert_eq!(after("Mon, 30 Nov 2026 09:00:00 GMT"), Some(0));
        for nonsense in ["", "-1", "soon", "1.5"] {
            assert_eq!(after(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_refusal_has_the_servers_words_and_ours() {
        let status = Status {
            code: 3,
            message: "no such tenant\n".to_owned(),
        };
        for (code, exit, headers, body, wanted) in [
            (
                400,
                Exit::Findings,
                PROTOBUF,
                status.encode_to_vec(),
                "400 Bad Request: no such tenant",
            ),
            (
                401,
                Exit::NotAuthorised,
                JSON,
                br#"{"message":"who?"}"#.to_vec(),
                "who?",
            ),
            (
                403,
                Exit::NotAuthorised,
                ("content-type", "text/plain"),
                b"not you".to_vec(),
                "not you",
            ),
            (
                308,
                Exit::Findings,
                ("location", "http://elsewhere"),
                Vec::new(),
                "308 Permanent Redirect",
            ),
            (
                500,
                Exit::Findings,
                ("content-type", "text/html"),
                b"<h1>sorry".to_vec(),
                "500 Internal Server Error",
            ),
        ] {
            let Verdict::Refused { exit: found, why, .. } = judged(code, &[headers], &body) else {
                panic!("{code}")
            };
            assert_eq!(found, exit, "{code}");
            assert!(why.ends_with(wanted), "{code}: {why}");
        }
        let long = "x".repeat(10_000);
        let Verdict::Refused { why, .. } = judged(400, &[("content-type", "text/plain")], long.as_bytes()) else {
            panic!("400")
        };
        assert!(why.len() < 400, "{}", why.len());
    }
}
