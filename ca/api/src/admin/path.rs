//! The paths of the admin API.

/// `POST` an [`ApplyRequest`](super::ApplyRequest) → [`ApplyResponse`](super::ApplyResponse).
pub const APPLY: &str = "/v1/apply";
/// `GET ?epoch=&revision=&wait_seconds=` → [`GenerationStatus`](super::GenerationStatus).
/// Without a number: the live one. `wait_seconds` (at most 30) waits until it is live everywhere.
pub const GENERATION: &str = "/v1/generation";
/// `GET` → [`RevisionList`](super::RevisionList).
pub const REVISIONS: &str = "/v1/revisions";
/// `POST` a [`RollbackRequest`](super::RollbackRequest) → [`ApplyResponse`](super::ApplyResponse).
pub const ROLLBACK: &str = "/v1/rollback";
/// `POST` a [`TokenRequest`](super::TokenRequest) → [`TokenResponse`](super::TokenResponse).
pub const HOST_TOKEN: &str = "/v1/host/token";
/// `GET` → [`HostList`](super::HostList).
pub const HOSTS: &str = "/v1/hosts";
/// `POST` an [`EvictRequest`](super::EvictRequest) → [`EvictResponse`](super::EvictResponse).
pub const HOST_EVICT: &str = "/v1/host/evict";
/// `POST` a [`QuarantineRequest`](super::QuarantineRequest) → [`QuarantineStatus`](super::QuarantineStatus).
pub const QUARANTINE: &str = "/v1/quarantine";
/// `POST` a [`ReleaseRequest`](super::ReleaseRequest) → [`QuarantineStatus`](super::QuarantineStatus).
pub const RELEASE: &str = "/v1/release";
/// `GET ?epoch=&revision=&wait_seconds=` → [`QuarantineStatus`](super::QuarantineStatus).
/// Without a number: the newest list. `wait_seconds` (at most 30) waits until every connected host enforces it.
pub const QUARANTINES: &str = "/v1/quarantines";
/// `GET ?name=` → [`FleetCredentials`](super::FleetCredentials): all of the mesh, or one.
pub const CREDENTIALS: &str = "/v1/credentials";
/// `POST` a [`RotateRequest`](super::RotateRequest) → [`FleetCredential`](super::FleetCredential).
pub const CREDENTIAL_ROTATE: &str = "/v1/credential/rotate";
/// `POST` an [`AdvanceRequest`](super::AdvanceRequest) → [`FleetCredential`](super::FleetCredential).
pub const CREDENTIAL_ADVANCE: &str = "/v1/credential/advance";
/// `GET ?host=` → [`LedgerHeads`](super::LedgerHeads): of all hosts' ledgers, or of one's.
pub const HEADS: &str = "/v1/heads";
/// `POST` [`LedgersQuestion`](super::LedgersQuestion) → [`LedgersAnswer`](super::LedgersAnswer).
pub const LEDGERS: &str = "/v1/ledgers";
/// `POST` [`HoldRequest`](crate::proxy_admin::HoldRequest) → [`LedgerHold`](crate::proxy_admin::LedgerHold): nothing of the CA's
/// own ledger is pruned.
pub const LEDGER_HOLD: &str = "/v1/ledger/hold";
/// `POST` → [`LedgerHold`](crate::proxy_admin::LedgerHold): what is past its time is pruned again.
pub const LEDGER_RELEASE: &str = "/v1/ledger/release";
/// `GET` → [`BotList`](super::BotList).
pub const BOTS: &str = "/v1/bots";
/// `GET` → [`CaStatus`](super::CaStatus).
pub const STATUS: &str = "/v1/status";
/// `GET` → [`MeshSources`](super::MeshSources).
pub const MESH: &str = "/v1/mesh";
/// `GET ?bot=&minutes=` → [`EdgeList`](super::EdgeList): who called whom in the last minutes, at most 60.
pub const EDGES: &str = "/v1/edges";
/// `GET ?bot=` → [`EventList`](super::EventList): the newest refused calls and alerts.
pub const EVENTS: &str = "/v1/events";
/// `GET ?after=&wait_seconds=` → [`WatchAlerts`](super::WatchAlerts): what is unlike the days before, with numbers above
/// `after`. `wait_seconds` (at most 30) waits for one.
pub const ALERTS: &str = "/v1/alerts";
/// `GET ?after=` → the same as `text/event-stream`, without end: each event has its number as `id`, its kind as `event` and a
/// [`WatchAlert`](super::WatchAlert) as `data`. `Last-Event-ID` is as good as `after`.
pub const ALERTS_STREAM: &str = "/v1/alerts/stream";
/// `GET` → [`BundleDocuments`](super::BundleDocuments): what relying parties read, for those who cannot fetch it.
pub const BUNDLE: &str = "/v1/bundle";
