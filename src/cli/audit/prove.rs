//! `audit prove`: one record, with all that proves that it is in the ledger, as a text of C2SP tlog-proof.

use std::path::Path;

use anyhow::{Context as _, Result};
use audit::{CallId, Start};
use serde::Deserialize;

use super::{must_be_a_ledger, server_ledger};
use crate::args::AuditProve;
use crate::cli::Context;
use crate::exit::{Exit, Failure};

/// Runs the command.
pub(super) async fn run(args: AuditProve, context: &Context) -> Result<Exit> {
    let wanted = Wanted::parse(&args.record, args.end)?;
    let dir = match args.dir {
        Some(dir) => dir,
        None => server_ledger(context).await?,
    };
    must_be_a_ledger(&dir)?;
    let index = wanted.find(&dir)?;
    let proof =
        audit::proof::prove(&dir, index).with_context(|| format!("prove record {index} of {}", dir.display()))?;
    let text = proof.to_string();
    context.screen.line(text.strip_suffix('\n').unwrap_or(&text))?;
    context.screen.note(format!(
        "record {index}; check it with `botmesh audit verify FILE --key VKEY`"
    ));
    Ok(Exit::Fine)
}

/// Which record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Index(u64),
    Call(CallId),
    End(CallId),
}

/// What is looked at to find it.
#[derive(Deserialize)]
struct Head {
    kind: String,
    #[serde(default)]
    id: Option<String>,
}

impl Wanted {
    fn parse(text: &str, end: bool) -> Result<Self, Failure> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if let Ok(index) = text.parse()
            && digits
        {
            let of_a_call = Failure::usage("`--end` goes with the id of a call");
            return if end { Err(of_a_call) } else { Ok(Self::Index(index)) };
        }
        let id = CallId::parse(text).map_err(|_neither| {
            Failure::usage(format!(
                "{text:?} is neither the number of a record nor the id of a call"
            ))
            .hint("an answer has the id in `botmesh-call`; `audit query` and `audit tail` print it")
        })?;
        Ok(if end { Self::End(id) } else { Self::Call(id) })
    }

    fn find(self, dir: &Path) -> Result<u64> {
        let (id, kind) = match self {
            Self::Index(index) => return Ok(index),
            Self::Call(id) => (id, "call"),
            Self::End(id) => (id, "end"),
        };
        let text = id.to_string();
        for entry in audit::tail(dir, Start::First).context("read the ledger")? {
            let entry = entry.context("read the ledger")?;
            // Most lines are of other calls, and are not looked at further.
            let is_near = entry.line.windows(text.len()).any(|part| part == text.as_bytes());
            let head = is_near
                .then(|| serde_json::from_slice::<Head>(&entry.line).ok())
                .flatten();
            if head.is_some_and(|head| head.kind == kind && head.id.as_deref() == Some(&text)) {
                return Ok(entry.index);
            }
        }
        let message = format!("{} has no record `{kind}` of the call {id}", dir.display());
        Err(Failure::new(Exit::Findings, message).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_named_by_its_number_or_its_call() {
        let id = "0193f1f0-0000-7000-8000-000000000001";
        let call = CallId::parse(id).unwrap();
        assert_eq!(Wanted::parse("17", false).unwrap(), Wanted::Index(17));
        assert_eq!(Wanted::parse(id, false).unwrap(), Wanted::Call(call));
        assert_eq!(Wanted::parse(id, true).unwrap(), Wanted::End(call));
        for (text, end) in [
            ("17", true),
            ("", false),
            ("+17", false),
            ("x", false),
            ("99999999999999999999", false),
        ] {
            assert_eq!(Wanted::parse(text, end).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }
}
