//! What relying parties read, for operators who bring it to those that cannot fetch it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use ca_api::admin::BundleDocuments;
use serde_json::Value;

use super::problem::Refused;
use crate::core::Core;

pub(super) async fn bundle(State(core): State<Arc<Core>>) -> Result<Json<BundleDocuments>, Refused> {
    let federated = core.federation.as_ref().map(|federation| federation.bundle());
    let bundle = federated.as_ref().unwrap_or(&core.bundle);
    Ok(Json(BundleDocuments {
        bundle: read(&bundle.to_jwks())?,
        jwks: federated
            .as_ref()
            .map(|bundle| read(&bundle.to_oidc_jwks()))
            .transpose()?,
    }))
}

/// Reads back what we wrote.
fn read(json: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(json).map_err(|error| Refused::unavailable("write the bundle", &error))
}
