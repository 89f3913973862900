//! The node API: what hosts ask of the CA.

mod answer;
mod attest;
mod caller;
mod cosign;
mod endpoints;
mod gate;
mod issue;
mod mint;
mod refused;
mod server;
mod sync;
mod witness;

use std::net::SocketAddr;
use std::sync::Arc;

use ca_api::node::node_server::Node;
use ca_api::node::{
    AttestRequest, AttestResponse, CaMessage, CosignRequest, CosignResponse, EXPORTER_BYTES, HostMessage, IssueRequest,
    IssueResponse, JwtRequest, JwtResponse, LedgerAnswer, LedgerAnswerTaken, WitnessRequest, WitnessResponse,
};
use spiffe::id::{HostName, IdKind};
use spiffe::svid::Leaf;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::core::Core;

pub(crate) use endpoints::SLICE_BYTES_MAX;
pub(crate) use gate::Gate;
pub use server::ServeError;
pub(crate) use server::{serve, tls_config};

/// How many attestations are looked at at once; each costs a signature check.
const ATTESTING_MAX: usize = 32;

/// What the connection proves about its other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The verified client certificate, if one was shown.
    pub(crate) leaf: Option<Arc<Leaf>>,
    /// RFC 8446 §7.5: known to the two ends of this connection only.
    pub(crate) exporter: [u8; EXPORTER_BYTES],
}

impl Peer {
    /// The host that the verified certificate names.
    pub(crate) fn host(&self) -> Option<HostName> {
        match self.leaf.as_ref()?.id().kind() {
            IdKind::Host(host) => Some(host),
            IdKind::TrustDomain | IdKind::Bot(_) | IdKind::Ca(_) | IdKind::Operator(_) | IdKind::Foreign => None,
        }
    }
}

/// The service behind every connection.
#[derive(Clone, Debug)]
pub(crate) struct NodeApi {
    core: Arc<Core>,
    attesting: Arc<Semaphore>,
}

impl NodeApi {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            attesting: Arc::new(Semaphore::new(ATTESTING_MAX)),
        }
    }
}

#[tonic::async_trait]
impl Node for NodeApi {
    type SyncStream = ReceiverStream<Result<CaMessage, Status>>;

    async fn attest(&self, request: Request<AttestRequest>) -> Result<Response<AttestResponse>, Status> {
        let peer = peer(&request)?;
        let Ok(_turn) = self.attesting.try_acquire() else {
            return Err(Status::unavailable("too many attestations at once; try again"));
        };
        attest::attest(&self.core, &peer, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let caller = self.core.caller(&peer(&request)?)?;
        self.core.acted(&caller.host, caller.source);
        issue::issue(&self.core, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn mint_jwt(&self, request: Request<JwtRequest>) -> Result<Response<JwtResponse>, Status> {
        let caller = self.core.caller(&peer(&request)?)?;
        self.core.acted(&caller.host, caller.source);
        mint::mint(&self.core, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn cosign(&self, request: Request<CosignRequest>) -> Result<Response<CosignResponse>, Status> {
        let caller = self.core.caller(&peer(&request)?)?;
        self.core.acted(&caller.host, caller.source);
        cosign::cosign(&self.core, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn witness(&self, request: Request<WitnessRequest>) -> Result<Response<WitnessResponse>, Status> {
        let caller = self.core.caller(&peer(&request)?)?;
        self.core.acted(&caller.host, caller.source);
        witness::witness(&self.core, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn answer(&self, request: Request<LedgerAnswer>) -> Result<Response<LedgerAnswerTaken>, Status> {
        let caller = self.core.caller(&peer(&request)?)?;
        self.core.acted(&caller.host, caller.source);
        answer::answer(&self.core, &caller, request.into_inner()).map(Response::new)
    }

    async fn sync(&self, request: Request<Streaming<HostMessage>>) -> Result<Response<Self::SyncStream>, Status> {
        let peer = peer(&request)?;
        let caller = self.core.caller(&peer)?;
        Ok(Response::new(sync::open(&self.core, caller, request.into_inner())))
    }
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    let missing = || Status::internal("the connection was not described");
    request.extensions().get::<Peer>().cloned().ok_or_else(missing)
}
