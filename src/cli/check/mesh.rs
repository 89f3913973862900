//! What of the live mesh is on only for a time.

use ca_api::admin::{MeshSources, path};
use policy::{Mesh, Source};
use spiffe::time::Timestamp;

use super::Looks;
use crate::client::Server;

const PART: &str = "mesh";

/// Looks at the mesh that is live, where there is one.
pub(super) async fn look(server: &Server, now: Timestamp, looks: &mut Looks) {
    let Ok(live) = server.get::<MeshSources>(path::MESH).await else {
        return looks.untried(PART, "live mesh", "the CA shows none");
    };
    let sources: Vec<Source> = live
        .sources
        .into_iter()
        .map(|source| Source {
            name: source.name,
            text: source.text,
        })
        .collect();
    match policy::load(&sources) {
        Ok(mesh) => judge(&mesh, now, looks),
        Err(_diagnostics) => looks.untried(PART, "live mesh", "this version of the command cannot read it"),
    }
}

fn judge(mesh: &Mesh, now: Timestamp, looks: &mut Looks) {
    for entry in mesh.audit_only() {
        let what = format!("audit_only to {}", entry.to.join(", "));
        if now < entry.until {
            let seen = format!("on until {}: {}", entry.until, entry.reason);
            looks.note(
                PART,
                what,
                seen,
                "botmesh audit query verdict=audit lists the calls that need a rule",
            );
        } else {
            let seen = format!("ended at {}", entry.until);
            looks.note(PART, what, seen, "remove it from the mesh file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_audit_only_is_told_while_it_is_on_and_when_it_has_ended() {
        let text = "version: 1\ntrust_domain: a.b\nbots:\n\
            \x20 b: {owner: o, hosts: h, attest: {user: b}, serve: {http: 80}}\n\
            audit_only: [{to: b, until: '1970-01-01T00:01:00Z', reason: trying}]\n";
        let source = Source {
            name: "m".to_owned(),
            text: text.to_owned(),
        };
        let mesh = policy::load(&[source]).unwrap();
        for (now, seen) in [
            (59, "on until 1970-01-01T00:01:00.000Z: trying"),
            (60, "ended at 1970-01-01T00:01:00.000Z"),
        ] {
            let mut looks = Looks::default();
            judge(&mesh, Timestamp::from_unix_seconds(now), &mut looks);
            assert_eq!((looks.0.len(), looks.findings()), (1, 0));
            assert_eq!(
                (looks.0[0].what.as_str(), looks.0[0].seen.as_str()),
                ("audit_only to b", seen)
            );
        }
    }
}
