//! Events that are no calls.

use audit::{EventKind, EventRecord};
use serde_json::{Value, json};

use super::super::otlp::is_refusal;
use super::{API, Activity, DETECTION, EVENT_LOG, Item, LIFECYCLE, OTHER, Origin, Severity, Told, fields, log};

/// What an event is in the schema.
pub(super) fn event(record: &EventRecord, item: &Item, origin: &Origin) -> Told {
    let activity = activity(record.kind);
    let refused = is_refusal(record.kind);
    let mut told = match activity.class {
        DETECTION => fields(json!({
            "finding_info": { "uid": item.uid, "title": title(record) },
            "is_alert": true,
        })),
        LIFECYCLE => fields(json!({ "app": { "name": service(origin), "vendor_name": "botmesh" } })),
        EVENT_LOG => log(&origin.ledger),
        _ => fields(json!({
            "actor": actor(&record.actor),
            "api": { "operation": record.kind.as_str(), "service": { "name": service(origin) } },
            "src_endpoint": { "name": record.actor },
            "resources": [{ "name": record.subject }],
        })),
    };
    if refused {
        told.extend(fields(json!({
            "status_id": 2, "status": "Failure",
            "action_id": 2, "action": "Denied", "disposition_id": 2, "disposition": "Blocked",
        })));
    }
    let is_alert = activity.class == DETECTION;
    Told {
        activity,
        severity: match (is_alert, refused) {
            (true, _) => Severity::High,
            (false, true) => Severity::Low,
            (false, false) => Severity::Informational,
        },
        message: format!("{}: {} by {}", record.kind, record.subject, record.actor),
        correlation: None,
        profiles: if is_alert || refused {
            &["security_control"]
        } else {
            &[]
        },
        fields: told,
    }
}

/// The class of each kind, and what is done.
fn activity(kind: EventKind) -> Activity {
    use EventKind as Kind;
    let (create, update, delete) = (
        API.activity(1, "Create"),
        API.activity(3, "Update"),
        API.activity(4, "Delete"),
    );
    match kind {
        Kind::Started => LIFECYCLE.activity(3, "Start"),
        Kind::Stopped => LIFECYCLE.activity(4, "Stop"),
        Kind::EpochBegun => EVENT_LOG.activity(6, "Start"),
        Kind::Repaired => EVENT_LOG.activity(OTHER, "Repair"),
        Kind::Pruned | Kind::AsideRemoved => EVENT_LOG.activity(2, "Delete"),
        Kind::Held => EVENT_LOG.activity(OTHER, "Hold"),
        Kind::HoldReleased => EVENT_LOG.activity(OTHER, "Release"),
        Kind::CheckpointCosigned => EVENT_LOG.activity(OTHER, "Cosign"),
        Kind::CheckpointRefused => EVENT_LOG.activity(OTHER, "Refuse"),
        Kind::Alert => DETECTION.activity(1, "Create"),
        Kind::Issued
        | Kind::JwtIssued
        | Kind::IssueRefused
        | Kind::HostJoined
        | Kind::TokenCreated
        | Kind::PolicyApplied
        | Kind::PolicyRefused
        | Kind::KeyPrepared
        | Kind::Quarantined
        | Kind::CredentialPut
        | Kind::CredentialToken
        | Kind::CredentialLease
        | Kind::Granted
        | Kind::RunBound => create,
        Kind::SvidRenewed
        | Kind::Attested
        | Kind::Rollback
        | Kind::BundleChanged
        | Kind::KeyActivated
        | Kind::KeyTainted
        | Kind::CredentialRotated => update,
        Kind::HostEvicted
        | Kind::KeyRetired
        | Kind::KeyRevoked
        | Kind::Released
        | Kind::GrantEnded
        | Kind::DatabaseCancel => delete,
        Kind::HostConnected | Kind::HostDisconnected | Kind::HostRefused | Kind::TokenRefused | Kind::Operator => {
            API.activity(OTHER, "Other")
        }
    }
}

/// What an alert is about.
fn title(record: &EventRecord) -> String {
    let word = record.detail.get("alert").and_then(Value::as_str);
    word.unwrap_or(record.kind.as_str()).to_owned()
}

fn actor(actor: &str) -> Value {
    match actor.strip_prefix("operator:") {
        Some(name) if !name.is_empty() => json!({ "user": { "name": name, "type_id": 2, "type": "Admin" } }),
        _ => json!({ "app_name": actor }),
    }
}

fn service(origin: &Origin) -> String {
    match origin.role {
        "" => "botmesh".to_owned(),
        role => format!("botmesh {role}"),
    }
}
