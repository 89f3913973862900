//! Step 3: one reading of the request. What is decided on, recorded and forwarded are the same bytes.

use audit::CallId;
use bytes::Bytes;
use http::header::{self, HeaderMap};
use policy::{CanonicalPath, HttpAsk, Method, Outside, Permit, What};

use super::body::RequestBody;
use super::draft::Draft;
use super::identify::Who;
use super::refusal::Refusal;
use super::route::To;
use super::{Asked, Opening, headers, id};
use crate::config::SecretInUrl;
use crate::credentials::detect;
use crate::http1::field;
use crate::http1::head::HeadError;
use crate::metrics::Way;
use crate::reason::Reason;

/// The most names of a query that are recorded.
const QUERY_NAMES_MAX: usize = 32;

/// The most bytes of one such name.
const QUERY_NAME_BYTES_MAX: usize = 64;

/// The most bytes of a path that could not be read and is recorded as it came.
const RAW_PATH_BYTES_MAX: usize = 1024;

/// A request of which only one reading is possible.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) call: policy::Call,
    pub(super) rest: Rest,
}

/// What of a request is not decided on; `T` is who it is for, as far as that is known.
#[derive(Debug)]
pub(super) struct Rest<T = To> {
    pub(super) to: T,
    pub(super) method: http::Method,
    /// After the `?`, as it came.
    pub(super) query: Option<Bytes>,
    /// For the callee only: neither the connection's fields nor ours are in it.
    pub(super) headers: HeaderMap,
    pub(super) body: RequestBody,
}

impl Rest {
    /// The same for a callee of one kind, and who that is.
    pub(super) fn with<T>(self, callee: T) -> (To, Rest<T>) {
        let Self {
            to,
            method,
            query,
            headers,
            body,
        } = self;
        let rest = Rest {
            to: callee,
            method,
            query,
            headers,
            body,
        };
        (to, rest)
    }
}

/// Reads the request.
pub(super) fn normalize(draft: &mut Draft, who: &Who, asked: Asked) -> Result<Plain, Box<Refusal>> {
    let Asked {
        to,
        method,
        target,
        mut headers,
        body,
        upgrade,
        ..
    } = asked;
    draft.record.method = method.as_str().to_owned();
    draft.upgrade.clone_from(&upgrade);
    let (path, query) = split(&target);
    let callee = to.as_ref().ok().map(To::callee);
    draft.hidden = draft.snapshot.policy.may_hide_path(&who.id, callee.as_ref());
    // First of all, for what is noted of the request below is on its way to a record.
    may_be_written(draft, to.as_ref().ok(), &target).inspect_err(|_refused| {
        "/".clone_into(&mut draft.record.path);
        to.iter().for_each(|to| draft.meant(to));
    })?;
    let to = to.inspect_err(|_refused| note(draft, &raw(path)))?;
    draft.meant(&to);
    let word = Method::parse(method.as_str()).map_err(|error| {
        note(draft, &raw(path));
        Refusal::boxed(Reason::BadRequest, error.to_string())
    })?;
    let path = read_path(path, query.as_ref()).inspect_err(|_refused| note(draft, &raw(path)))?;
    note(draft, path.as_str());
    note_query(draft, query.as_deref());
    are_read_in_one_way(&headers)?;
    let browser = headers::is_browser_shaped(&headers);
    if draft.series.way == Way::In {
        draft.record.peer_call = peer_call(&headers);
    }
    headers::strip_request(&mut headers);
    let own_trace = headers.get(id::TRACEPARENT).cloned();
    let trace = id::trace(&mut headers);
    draft.record.trace = Some(trace.map_err(|_none| Refusal::boxed(Reason::Overloaded, "no randomness for a trace"))?);
    if matches!(to, To::Outside(_)) {
        headers::strip_for_outside(&mut headers, own_trace.as_ref());
    }
    let call = policy::Call {
        from: who.id.clone(),
        to: to.callee(),
        what: What::Http(HttpAsk {
            method: word,
            path,
            browser,
            upgrade,
        }),
    };
    Ok(Plain {
        call,
        rest: Rest {
            to,
            method,
            query,
            headers,
            body,
        },
    })
}

/// Reads what asks for a connection. There is nothing in it that two readers could read differently.
pub(super) fn opening(draft: &mut Draft, who: &Who, opening: Opening) -> Result<Plain, Box<Refusal>> {
    let Opening {
        to,
        port,
        mut headers,
        body,
    } = opening;
    let to = to?;
    draft.meant(&to);
    if draft.series.way == Way::In {
        draft.record.peer_call = peer_call(&headers);
    }
    headers::strip_request(&mut headers);
    let trace = id::trace(&mut headers);
    draft.record.trace = Some(trace.map_err(|_none| Refusal::boxed(Reason::Overloaded, "no randomness for a trace"))?);
    let call = policy::Call {
        from: who.id.clone(),
        to: to.callee(),
        what: match (&to, body.start()) {
            (To::Bot(_), _) => What::Tcp { port },
            (To::Outside(_), None) => What::Tls,
            (To::Outside(_), Some(start)) => What::Postgres {
                database: start.database.clone(),
            },
        },
    };
    // Of the fields the trace alone is for the other end.
    let kept = headers.remove(id::TRACEPARENT);
    let headers = kept.into_iter().map(|value| (id::TRACEPARENT, value)).collect();
    Ok(Plain {
        call,
        rest: Rest {
            to,
            method: http::Method::OPTIONS,
            query: None,
            headers,
            body,
        },
    })
}

/// Refuses fields that two readers could read differently.
fn are_read_in_one_way(headers: &HeaderMap) -> Result<(), Box<Refusal>> {
    // HTTP/2 lets one length be said twice; the callee, who reads HTTP/1.1, may not.
    field::one(headers, &header::CONTENT_LENGTH, HeadError::TwoLengths)
        .map_err(|error| Refusal::boxed(Reason::BadRequest, error.to_string()))?;
    if headers.keys().any(field::is_disguised) {
        return Err(Refusal::boxed(Reason::BadRequest, HeadError::Disguised.to_string()));
    }
    Ok(())
}

/// Notes a path for the record.
fn note(draft: &mut Draft, path: &str) {
    draft.record.path = match (draft.hushed, draft.hidden) {
        (true, _) => "/".to_owned(),
        (false, true) => draft.proxy().control.path_key().hash(path),
        (false, false) => path.to_owned(),
    };
}

/// Notes the names in a query. Beside a path that is not to be read they are not either: a caller can write as much in them.
fn note_query(draft: &mut Draft, query: Option<&[u8]>) {
    if !draft.hushed && !draft.hidden {
        draft.record.query = query.map(query_names).unwrap_or_default();
    }
}

/// Notes the path of a call as it is, where a rule allows the call and none that speaks of it keeps its path out of records.
pub(super) fn reveal(draft: &mut Draft, permit: &Permit, query: Option<&[u8]>) {
    let call = permit.call();
    let (Some(_rule), Some(ask)) = (permit.rule(), call.what.http()) else {
        return;
    };
    if draft.hidden && !draft.snapshot.policy.hides_path(call) {
        draft.hidden = false;
        note(draft, ask.path.as_str());
        note_query(draft, query);
    }
}

/// Refuses an address that is not to be in a record: what is behind the host of one that is a secret, and what has a key in it.
fn may_be_written(draft: &mut Draft, to: Option<&To>, target: &[u8]) -> Result<(), Box<Refusal>> {
    let outside = match to {
        Some(To::Outside(route)) => Some(&route.outside),
        Some(To::Bot(_)) | None => None,
    };
    if outside.is_some_and(|outside| outside.credential().is_some()) && target != b"/" {
        let detail = "it is called at `/` and without a query: what follows its host is a secret, which the proxy adds";
        return Err(Refusal::boxed(Reason::BadRequest, detail));
    }
    if let (Some(_), Some(live)) = (outside, draft.proxy().credentials.live())
        && detect::as_it_is_or_decoded(target, |text| live.is_in(text).then_some(())).is_some()
    {
        return Err(super::forward::secret_in_request());
    }
    no_key_in(draft, outside.map_or("", Outside::host), target)
}

/// Refuses an address in which something looks like a key, or has nothing of it noted where that is how this host is set.
fn no_key_in(draft: &mut Draft, host: &str, target: &[u8]) -> Result<(), Box<Refusal>> {
    let Some(kind) = detect::in_url(host, target) else {
        return Ok(());
    };
    if draft.proxy().secret_in_url == SecretInUrl::Flag {
        draft.hushed = true;
        draft.record.reason = Some(Reason::SecretInUrl.as_str().to_owned());
        return Ok(());
    }
    let detail = format!(
        "it looks like one of the kind {kind}, and addresses end up in logs and histories: send it in a field, or have the proxy add it"
    );
    Err(Refusal::boxed(Reason::SecretInUrl, detail))
}

/// Cuts the query off.
fn split(target: &Bytes) -> (&[u8], Option<Bytes>) {
    let Some(at) = target.iter().position(|byte| *byte == b'?') else {
        return (target, None);
    };
    let (path, query) = target.split_at_checked(at).unwrap_or((target, &[]));
    (path, query.get(1..).map(|query| target.slice_ref(query)))
}

fn read_path(path: &[u8], query: Option<&Bytes>) -> Result<CanonicalPath, Box<Refusal>> {
    let path = CanonicalPath::parse(path).map_err(|error| Refusal::boxed(Reason::BadPath, error.to_string()))?;
    // The query is passed on as it is, so it must be one to every reader (RFC 3986 §3.4): a `#` would end it for some,
    // and not every HTTP/2 peer takes quotes and angle brackets.
    let plain = |byte: &u8| (0x21..0x7f).contains(byte) && !matches!(byte, b'#' | b'"' | b'<' | b'>');
    if query.is_some_and(|query| !query.iter().all(plain)) {
        return Err(Refusal::boxed(
            Reason::BadPath,
            "the query holds a byte that no query has",
        ));
    }
    Ok(path)
}

/// The names in a query, in their order; never a value.
fn query_names(query: &[u8]) -> Vec<String> {
    let parts = query.split(|byte| *byte == b'&').filter(|part| !part.is_empty());
    let name = |part: &[u8]| {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
        String::from_utf8_lossy(name.get(..QUERY_NAME_BYTES_MAX).unwrap_or(name)).into_owned()
    };
    parts.take(QUERY_NAMES_MAX).map(name).collect()
}

/// A path as it came, bounded; the record escapes what is not text.
fn raw(path: &[u8]) -> String {
    String::from_utf8_lossy(path.get(..RAW_PATH_BYTES_MAX).unwrap_or(path)).into_owned()
}

/// The call's id at the caller's proxy, if it sent one that is one.
fn peer_call(headers: &HeaderMap) -> Option<CallId> {
    let mut values = headers.get_all(headers::BOTMESH_CALL).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => CallId::parse(value.to_str().ok()?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_cut_off_at_the_first_question_mark_and_only_its_names_are_kept() {
        let target = Bytes::from_static(b"/orders/17?page=2&token=secret&&flag&a=b=c?d");
        let (path, query) = split(&target);
        assert_eq!(path, b"/orders/17");
        let query = query.unwrap();
        assert_eq!(query, &b"page=2&token=secret&&flag&a=b=c?d"[..]);
        assert_eq!(query_names(&query), ["page", "token", "flag", "a"]);
        assert_eq!(split(&Bytes::from_static(b"/")), (&b"/"[..], None));
        assert_eq!(split(&Bytes::from_static(b"/?")).1.unwrap(), "");
        let long = "x&".repeat(100) + &"y".repeat(100);
        assert_eq!(query_names(long.as_bytes()).len(), QUERY_NAMES_MAX);
        assert_eq!(query_names("y".repeat(100).as_bytes())[0].len(), QUERY_NAME_BYTES_MAX);
    }

    #[test]
    fn a_query_that_some_would_cut_is_refused() {
        for query in ["a#b", "a b", "a\u{e9}", "\u{7f}", "a\tb", "a\"", "<a", "a>"] {
            let refused = read_path(b"/", Some(&Bytes::copy_from_slice(query.as_bytes()))).unwrap_err();
            assert_eq!(refused.reason, Reason::BadPath, "{query:?}");
        }
        read_path(b"/", Some(&Bytes::from_static(b"a=%20&b=/?;,\\{}|^`[]"))).unwrap();
    }
}
