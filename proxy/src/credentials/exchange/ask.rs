//! Asks a token endpoint: one request on one connection, bounded in time and in bytes.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use policy::{OutsideDestination, TokenUrl};
use zeroize::Zeroizing;

use super::answer::{ANSWER_BYTES_MAX, Answer, NoToken};
use super::{ExchangeError, TokenRequest};
use crate::outside::WayOut;
use crate::outside::connect::{OutsideFault, SetUpError, Stream};

/// How long all of it may take, from the look-up of the name on. With the `request_timeout` of a destination it is less.
const WITHIN: Duration = Duration::from_secs(10);

/// The most fields of an answer, and the most bytes of its head.
const FIELDS_MAX: usize = 100;
const HEAD_BYTES_MAX: usize = 16 * 1024;

pub(super) async fn ask(
    way_out: &WayOut,
    url: &TokenUrl,
    said: &OutsideDestination,
    request: TokenRequest,
) -> Result<Answer, ExchangeError> {
    let asking = Box::pin(exchange(way_out, url, said, request));
    let within = said.waits.request_timeout.unwrap_or(WITHIN).min(WITHIN);
    let slow = |_elapsed| ExchangeError::Slow {
        url: url.clone(),
        within,
    };
    tokio::time::timeout(within, asking).await.map_err(slow)?
}

async fn exchange(
    way_out: &WayOut,
    url: &TokenUrl,
    said: &OutsideDestination,
    request: TokenRequest,
) -> Result<Answer, ExchangeError> {
    let unreached = |source| ExchangeError::Reach {
        url: url.clone(),
        source,
    };
    let connected = way_out.connect(url.outside(), said).await.map_err(unreached)?;
    let Stream::Tls(stream) = connected.stream else {
        // An address of tokens is https:// by its type.
        return Err(unreached(OutsideFault::SetUp { source: SetUpError::Ca }));
    };
    let failed = |source| ExchangeError::Http {
        url: url.clone(),
        source,
    };
    let mut client = http1::Builder::new();
    client.max_headers(FIELDS_MAX).max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let asking = async {
        let answer = sender.send_request(self::request(url, request)).await.map_err(failed)?;
        read(url, answer).await
    };
    let (mut asking, mut connection) = (std::pin::pin!(asking), std::pin::pin!(connection));
    // A connection that has ended may have left the whole answer behind, or why there is none.
    tokio::select! {
        biased;
        answered = &mut asking => answered,
        _ended = &mut connection => asking.await,
    }
}

fn request(url: &TokenUrl, request: TokenRequest) -> Request<Full<Bytes>> {
    let outside = url.outside();
    let host = match outside.port() {
        port if port == outside.scheme().default_port() => outside.host().to_owned(),
        port => format!("{}:{port}", outside.host()),
    };
    let mut out = Request::new(Full::new(Bytes::from_owner(request.body)));
    *out.method_mut() = Method::POST;
    // Its letters were looked at when it was read.
    *out.uri_mut() = url.path().parse().unwrap_or_default();
    let fields = out.headers_mut();
    fields.insert(
        HOST,
        HeaderValue::from_str(&host).unwrap_or(HeaderValue::from_static("")),
    );
    fields.insert(ACCEPT, HeaderValue::from_static(request.accept));
    fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(request.content_type));
    fields.insert(USER_AGENT, HeaderValue::from_static("botmesh"));
    if let Some(authorization) = request.authorization {
        fields.insert(AUTHORIZATION, authorization);
    }
    out
}

async fn read(url: &TokenUrl, answer: Response<Incoming>) -> Result<Answer, ExchangeError> {
    let (head, mut body) = answer.into_parts();
    // Room for all of it, so that no copy of a part is left behind by growing.
    let mut whole = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| ExchangeError::Http {
            url: url.clone(),
            source,
        })?;
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(ExchangeError::NoToken {
                url: url.clone(),
                source: NoToken::Long,
            });
        }
        whole.extend_from_slice(data);
    }
    Ok(Answer {
        status: head.status,
        content_type: head.headers.get(CONTENT_TYPE).cloned(),
        body: whole,
    })
}
