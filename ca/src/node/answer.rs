//! Answers of hosts about their own ledgers.

use std::sync::Arc;

use ca_api::node::{LEDGER_ANSWER_BYTES_MAX, LEDGER_ROWS_MAX, LedgerAnswer, LedgerAnswerTaken};
use tokio::time::Instant;
use tonic::Status;

use super::caller::Caller;
use crate::core::Core;
use crate::refusals::HostRefusal;

/// What an answer is charged, in messages.
const COST: u64 = 16;

/// The longest reason for which there is no answer.
const ERROR_BYTES_MAX: usize = 1024;

pub(super) fn answer(core: &Arc<Core>, caller: &Caller, answer: LedgerAnswer) -> Result<LedgerAnswerTaken, Status> {
    let refuse = |refusal, what: &str| core.host_refused(&caller.host, caller.source, refusal, what);
    if !core.messages.take(&caller.host, COST, Instant::now()) {
        refuse(HostRefusal::TooManyMessages, "");
        return Err(Status::resource_exhausted(
            "more than a host has to tell; try again later",
        ));
    }
    let bytes = answer.rows.iter().map(String::len).fold(0, usize::saturating_add);
    if answer.rows.len() > LEDGER_ROWS_MAX || bytes > LEDGER_ANSWER_BYTES_MAX || answer.error.len() > ERROR_BYTES_MAX {
        refuse(HostRefusal::AnswerTooLong, "");
        return Err(Status::invalid_argument("more than an answer holds"));
    }
    let id = answer.id;
    if core.questions.answered(&caller.host, answer) {
        return Ok(LedgerAnswerTaken {});
    }
    // One that comes too late is nobody's fault.
    if !core.questions.was_asked(id) {
        refuse(HostRefusal::AnswerNotAsked, "");
    }
    Err(Status::not_found("nobody waits for this answer"))
}
