//! The body of an answer that comes from another proxy, or from a foreign peer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use crate::hop;

/// The body of an answer, by whatever is spoken on the hop.
#[derive(Debug)]
pub(crate) enum HopBody {
    /// What two proxies of this kind speak.
    Own(hop::Body),
    /// HTTP/2.
    Http2(Incoming),
}

impl HopBody {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HopError>>> {
        match self {
            Self::Own(body) => body
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(HopError::own))),
            Self::Http2(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|source| HopError::Http2 { source }))),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_over(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// Why a call, or the rest of its answer, did not come over the hop.
#[derive(Debug, Error)]
pub(crate) enum HopError {
    /// By what two proxies of this kind speak.
    #[error(transparent)]
    Own {
        /// What happened.
        source: hop::Ended,
    },
    /// Whoever the other proxy got it from ended it by HTTP/2.
    #[error("the other proxy passed a reset on")]
    Reset {
        /// With which code.
        #[source]
        source: h2::Error,
    },
    /// By HTTP/2.
    #[error(transparent)]
    Http2 {
        /// What happened.
        source: hyper::Error,
    },
    /// The head of the answer is none.
    #[error("read the head of the answer")]
    Head {
        /// What is wrong with it.
        #[source]
        source: crate::http1::head::HeadError,
    },
}

impl HopError {
    /// What happened by what two proxies of this kind speak. A code of HTTP/2 goes on to whoever reads the answer by it.
    pub(crate) fn own(ended: hop::Ended) -> Self {
        if let hop::Ended::Reset(hop::Reset::Code(code)) = ended {
            let source = h2::Reason::from(u32::from(code)).into();
            return Self::Reset { source };
        }
        Self::Own { source: ended }
    }

    /// Tells whether the other end ended this answer alone.
    pub(crate) fn is_reset(&self) -> bool {
        match self {
            Self::Own { source } => matches!(source, hop::Ended::Reset(_)),
            Self::Reset { .. } => true,
            Self::Http2 { source } => {
                let h2 = std::error::Error::source(source).and_then(|source| source.downcast_ref::<h2::Error>());
                h2.is_some_and(|error| error.is_reset() && error.is_remote())
            }
            Self::Head { .. } => false,
        }
    }
}
