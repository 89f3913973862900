//! `audit heads`: the heads of hosts' ledgers that the CA has cosigned, and what witnesses outside have cosigned of all ledgers.

use anyhow::{Context as _, Result, anyhow};
use audit::note::Note;
use ca_api::admin::{LedgerHead, LedgerHeads, WitnessedHead, path};
use spiffe::id::HostName;

use crate::args::AuditHeads;
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure};
use crate::output::{Screen, printable, red};

/// Runs the command.
pub(super) async fn run(args: AuditHeads, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
    let question = match &args.host {
        Some(host) => {
            let host = HostName::parse(host).map_err(|error| Failure::usage(format!("{host:?}: {error}")))?;
            format!("{}?host={host}", path::HEADS)
        }
        None => path::HEADS.to_owned(),
    };
    let found: LedgerHeads = server.get(&question).await?;
    let screen = &context.screen;
    if found.heads.is_empty() && args.host.is_some() {
        return Err(anyhow!(Failure::new(
            Exit::Findings,
            "no head of this host's ledger was cosigned yet: a host tells one within a minute"
        )));
    }
    if args.notes {
        for note in notes(&found)? {
            screen.line(note)?;
        }
    } else if screen.is_table() {
        let row = |head: &LedgerHead| {
            vec![
                head.host.to_string(),
                head.epoch.to_string(),
                head.size.to_string(),
                head.cosigned.to_string(),
                head.vkey.clone(),
            ]
        };
        screen.list(&found.heads, &["HOST", "EPOCH", "RECORDS", "COSIGNED", "KEY"], row)?;
        witnessed(&found, screen)?;
    } else {
        screen.document(&found)?;
    }
    screen.note(format!("the cosigner's key is {}", found.cosigner));
    Ok(Exit::Fine)
}

/// Shows what witnesses outside have cosigned, and which of them are away; nothing where there are none.
fn witnessed(found: &LedgerHeads, screen: &Screen) -> Result<()> {
    if found.witnesses.is_empty() && found.witnessed.is_empty() {
        return Ok(());
    }
    let row = |head: &WitnessedHead| {
        vec![
            printable(&head.ledger),
            head.epoch.to_string(),
            head.size.to_string(),
            head.cosigned.to_string(),
            printable(name(&head.witness)),
        ]
    };
    screen.line("")?;
    screen.list(
        &found.witnessed,
        &["LEDGER", "EPOCH", "RECORDS", "WITNESSED", "BY"],
        row,
    )?;
    for witness in &found.witnesses {
        let (key, url) = (printable(&witness.vkey), printable(&witness.url));
        screen.line(format!("witness {key} at {url}"))?;
        if let Some(since) = witness.away_since {
            let why = printable(witness.why.as_deref().unwrap_or_default());
            screen.line(format!("  {} since {since}: {why}", red("away")))?;
        }
    }
    Ok(())
}

/// The name in a verifier key.
fn name(vkey: &str) -> &str {
    vkey.split('+').next().unwrap_or(vkey)
}

/// All notes, each with every cosignature that there is of its text.
fn notes(found: &LedgerHeads) -> Result<Vec<String>> {
    let of_the_ca = found.heads.iter().map(|head| &head.note);
    let mut notes: Vec<Note> = Vec::new();
    for text in of_the_ca.chain(found.witnessed.iter().map(|head| &head.note)) {
        let note = Note::parse(text.as_bytes()).context("the CA answers with what is no note")?;
        match notes.iter_mut().find(|known| known.text() == note.text()) {
            Some(known) => known.merge(&note),
            None => notes.push(note),
        }
    }
    Ok(notes.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use audit::key::{KeyName, SignerKey};
    use audit::{Checkpoint, CosignerKey, hash::Hash};
    use spiffe::time::Timestamp;

    use super::*;

    #[test]
    fn a_note_has_all_cosignatures_of_its_text_and_other_texts_have_their_own() {
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        let key = SignerKey::generate(KeyName::parse("acme.internal/host/web-1").unwrap()).unwrap();
        let [ca, one, two] =
            ["ca", "w1", "w2"].map(|name| CosignerKey::generate(KeyName::parse(name).unwrap()).unwrap());
        let note = |size| {
            let checkpoint = Checkpoint {
                origin: key.verifier().name().clone(),
                size,
                root: Hash::leaf(b"root"),
            };
            Note::parse(checkpoint.sign(&key).unwrap().as_bytes()).unwrap()
        };
        let by_ca = ca.cosign(&note(7), now).unwrap();
        let head = LedgerHead {
            host: HostName::parse("web-1").unwrap(),
            epoch: 1,
            current: true,
            vkey: key.verifier().to_string(),
            size: 7,
            cosigned: now,
            note: by_ca.to_string(),
        };
        let by = |witness: &CosignerKey, note: &Note, size| WitnessedHead {
            host: None,
            ledger: "acme.internal/host/web-1".to_owned(),
            epoch: 1,
            witness: witness.verifier().to_string(),
            size,
            cosigned: now,
            note: witness.cosign(note, now).unwrap().to_string(),
        };
        let found = LedgerHeads {
            cosigner: ca.verifier().to_string(),
            heads: vec![head],
            witnesses: Vec::new(),
            witnessed: vec![by(&one, &by_ca, 7), by(&two, &note(5), 5)],
        };
        let notes = notes(&found).unwrap();
        assert_eq!(notes.len(), 2);
        let both = Note::parse(notes[0].as_bytes()).unwrap();
        assert_eq!(both.signatures(), 3);
        ca.verifier().cosigned(&both).unwrap();
        one.verifier().cosigned(&both).unwrap();
        two.verifier()
            .cosigned(&Note::parse(notes[1].as_bytes()).unwrap())
            .unwrap();
        assert_eq!(name(&one.verifier().to_string()), "w1");
    }
}
