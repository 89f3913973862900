//! `audit verify`: ledgers, and proofs of single records, checked with nothing but a public key.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use audit::proof::{LoggedRecord, PROOF_BYTES_MAX};
use audit::{CosignedHead, Cosigner, Notes, Quorum, Trust, VerifierKey, VerifyFailure, VerifyReport};
use serde_json::{Value, json};

use super::{line, must_be_a_ledger};
use crate::args::AuditVerify;
use crate::cli::Context;
use crate::config::read_bounded;
use crate::exit::{Exit, Failure};
use crate::output::{green, red};

/// The largest file that holds a verifier key: one line.
const KEY_BYTES_MAX: u64 = 4096;

/// The largest file of cosigned heads: of some ten thousand hosts.
const HEADS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Runs the command.
pub(super) fn run(args: &AuditVerify, context: &Context) -> Result<Exit> {
    let key = args.key.as_deref().map(key_text).transpose()?;
    let believed = Believed::read(args)?;
    let mut exit = Exit::Fine;
    for path in &args.paths {
        let intact = if path.is_file() {
            proof(path, key.as_deref(), believed.quorum(), context)?
        } else {
            ledger(path, key.as_deref(), &believed, context)?
        };
        if !intact {
            exit = Exit::Findings;
        }
    }
    Ok(exit)
}

/// Verifies one ledger.
pub(crate) fn verified(dir: &Path, key: Option<&str>) -> Result<VerifyReport, Box<VerifyFailure>> {
    audit::verify(dir, key).map_err(Box::new)
}

/// Heads that were cosigned, and who is believed to have done so.
struct Believed {
    notes: Option<(PathBuf, String)>,
    cosigner: Option<Cosigner>,
    witnesses: Vec<Cosigner>,
    require: usize,
}

impl Believed {
    fn read(args: &AuditVerify) -> Result<Self> {
        let parse = |option: &str, key: &str| {
            let key = key_text(key)?;
            Cosigner::parse(&key).map_err(|error| Failure::usage(format!("{option}: {error}")).into())
        };
        let witnesses = args.witness.iter().map(|key| parse("--witness", key));
        let witnesses: Vec<Cosigner> = witnesses.collect::<Result<_>>()?;
        for (place, witness) in witnesses.iter().enumerate() {
            // One that is named twice would be counted twice.
            if witnesses.iter().take(place).any(|before| before == witness) {
                return Err(Failure::usage(format!("--witness: {} is named twice", witness.name())).into());
            }
        }
        let require = args.require.map_or(witnesses.len(), usize::from);
        if require > witnesses.len() {
            let message = format!("--require: {require} of {} witnesses cannot be", witnesses.len());
            return Err(Failure::usage(message).into());
        }
        let notes = |file: &PathBuf| Ok::<_, anyhow::Error>((file.clone(), read_bounded(file, HEADS_BYTES_MAX)?));
        Ok(Self {
            notes: args.cosigned.as_ref().map(notes).transpose()?,
            cosigner: args
                .cosigner
                .as_deref()
                .map(|key| parse("--cosigner", key))
                .transpose()?,
            witnesses,
            require,
        })
    }

    fn quorum(&self) -> Option<Quorum<'_>> {
        let quorum = Quorum {
            witnesses: &self.witnesses,
            require: self.require,
        };
        (!self.witnesses.is_empty()).then_some(quorum)
    }

    fn trust(&self) -> Trust<'_> {
        let notes = self.notes.as_ref().map(|(file, text)| Notes {
            file,
            bytes: text.as_bytes(),
        });
        Trust {
            notes,
            cosigner: self.cosigner.as_ref(),
            quorum: self.quorum(),
        }
    }
}

fn ledger(dir: &Path, key: Option<&str>, believed: &Believed, context: &Context) -> Result<bool> {
    must_be_a_ledger(dir)?;
    let screen = &context.screen;
    let outcome = audit::verify_trusting(dir, key, believed.trust()).map_err(Box::new);
    match outcome {
        Ok(report) if screen.is_table() => screen.line(told(dir, &report))?,
        Ok(report) => screen.document(&json!({
            "dir": dir, "intact": true, "origin": report.origin, "key": report.key, "records": report.records,
            "covered": report.covered, "not_covered": report.not_covered, "torn_bytes": report.torn_bytes,
            "checkpoints": report.checkpoints, "segments": report.segments, "epoch": report.epoch,
            "cosigned": report.cosigned.map(|head| json!({ "size": head.size, "time": head.time })),
            "set_back": report.set_back, "witnessed": report.witnessed, "witnesses": witnesses(&report),
            "pruned": report.pruned, "pruned_until": report.pruned_until,
        }))?,
        Err(failure) => {
            if screen.is_table() {
                screen.line(format!("{} {}: {failure}", red("broken"), dir.display()))?;
            } else {
                screen.document(&json!({
                    "dir": dir, "intact": false, "record": failure.index, "file": failure.file,
                    "offset": failure.offset, "what": failure.what.to_string(),
                }))?;
            }
            return Ok(false);
        }
    }
    Ok(true)
}

/// Checks a proof of one record. There is no key but the one that is given: a proof brings none that could be trusted.
fn proof(path: &Path, key: Option<&str>, quorum: Option<Quorum<'_>>, context: &Context) -> Result<bool> {
    let name = path.display();
    let key = key.ok_or_else(|| {
        Failure::usage(format!("{name} is a proof, which needs `--key`"))
            .hint("the verifier key of the ledger is its file ledger.vkey; have it from somebody you trust")
    })?;
    let key = VerifierKey::parse(key).map_err(|error| Failure::usage(format!("--key: {error}")))?;
    let text = read_bounded(path, PROOF_BYTES_MAX as u64)?;
    let unreadable = |error| Failure::invalid_file(format!("{name} is no proof: {error}"));
    let logged = LoggedRecord::parse(text.as_bytes()).map_err(unreadable)?;
    let screen = &context.screen;
    let proven = logged.verify(&key).and_then(|checkpoint| {
        let times = quorum.map(|quorum| logged.witnessed(quorum)).transpose()?;
        Ok((checkpoint, times))
    });
    let (checkpoint, times) = match proven {
        Ok(proven) => proven,
        Err(why) => {
            let why = format!("{:#}", anyhow::Error::new(why));
            if screen.is_table() {
                screen.line(format!("{} {name}: {why}", red("not proven")))?;
            } else {
                screen.document(&json!({ "proof": path, "proven": false, "record": logged.index, "what": why }))?;
            }
            return Ok(false);
        }
    };
    let record: Value = serde_json::from_slice(logged.record.as_deref().unwrap_or_default())
        .with_context(|| format!("the record in {name} is not JSON"))?;
    let names = quorum.map(|quorum| quorum.witnesses).unwrap_or_default();
    let times = names.iter().zip(times.unwrap_or_default());
    let times: Vec<_> = times.map(|(witness, at)| (witness.name().to_string(), at)).collect();
    if screen.is_table() {
        let (index, size) = (logged.index, checkpoint.size);
        screen.line(format!(
            "{} {name}: record {index} of {}, under a checkpoint over {size}",
            green("proven"),
            checkpoint.origin
        ))?;
        for (witness, at) in &times {
            match at {
                Some(at) => screen.line(format!("  {witness} cosigned it at {at}"))?,
                None => screen.line(format!("  {witness} has not cosigned it"))?,
            }
        }
        screen.line(line(&record))?;
    } else {
        let times = times
            .into_iter()
            .map(|(witness, at)| json!({ "witness": witness, "time": at }));
        screen.document(&json!({
            "proof": path, "proven": true, "origin": checkpoint.origin.as_str(), "record": logged.index,
            "covered": checkpoint.size, "content": record, "witnesses": times.collect::<Vec<_>>(),
        }))?;
    }
    Ok(true)
}

/// What each witness that was asked about has cosigned.
fn witnesses(report: &VerifyReport) -> Vec<Value> {
    let head = |head: CosignedHead| json!({ "size": head.size, "time": head.time });
    let by = report.witnesses.iter();
    by.map(|by| json!({ "witness": by.witness, "head": by.head.map(head) }))
        .collect()
}

fn told(dir: &Path, report: &VerifyReport) -> String {
    let mut text = format!(
        "{} {}: {} records of {}, {} checkpoints",
        green("ok"),
        dir.display(),
        report.records,
        report.origin,
        report.checkpoints
    );
    if let Some(CosignedHead { size, time }) = report.cosigned {
        text.push_str(&match time {
            Some(time) => format!("; the first {size} were cosigned at {time}"),
            None => format!("; the first {size} are as the head beside it has them that was cosigned"),
        });
    }
    if let Some(size) = report.witnessed {
        let heads = report.witnesses.iter().filter_map(|by| Some((by, by.head?)));
        let told = heads.map(|(by, head)| match head.time {
            Some(time) => format!("{} {} at {time}", by.witness, head.size),
            None => format!("{} {}", by.witness, head.size),
        });
        let told = told.collect::<Vec<_>>().join(", ");
        text.push_str(&format!("; the first {size} are witnessed ({told})"));
    }
    if report.epoch > 1 {
        text.push_str(&format!("; in epoch {}", report.epoch));
    }
    if report.set_back > 0 {
        text.push_str(&format!(
            ", and of {} cosigned heads of epochs before not all is there",
            report.set_back
        ));
    }
    if let Some(until) = report.pruned_until {
        text.push_str(&format!("; {} were pruned, up to {until}", report.pruned));
    }
    if report.not_covered > 0 {
        text.push_str(&format!(
            "; the last {} are not under a checkpoint yet",
            report.not_covered
        ));
    }
    if report.torn_bytes > 0 {
        text.push_str(&format!(
            "; {} bytes of an unfinished record at the end",
            report.torn_bytes
        ));
    }
    text
}

/// The key as text, or as the file that holds it.
fn key_text(key: &str) -> Result<String> {
    let path = Path::new(key);
    if !path.is_file() {
        return Ok(key.to_owned());
    }
    Ok(read_bounded(path, KEY_BYTES_MAX)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_given_as_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ledger.vkey");
        std::fs::write(&file, "acme+1234+abc\n").unwrap();
        assert_eq!(key_text(&file.display().to_string()).unwrap(), "acme+1234+abc");
        assert_eq!(key_text("acme+1234+abc").unwrap(), "acme+1234+abc");
    }
}
