//! Questions of operators about the ledgers of hosts: what is open, who was asked, and who has answered.
//!
//! A question waits here as every state of a stream does: a stream that has room takes the newest ones. An answer is taken
//! once, from a host that was asked, while somebody waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ca_api::node::{LedgerAnswer, LedgerQuestion};
use spiffe::id::HostName;
use spiffe::time::Timestamp;
use tokio::sync::{mpsc, watch};

/// Questions that are open at once; each makes every host look through its ledger.
const OPEN_MAX: usize = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Questions {
    /// The number of the newest question. Numbers are not used again after a restart, when answers to old ones may come.
    newest: watch::Sender<u64>,
    open: Mutex<BTreeMap<u64, Open>>,
}

#[derive(Debug)]
struct Open {
    question: LedgerQuestion,
    /// Hosts that have not answered.
    waiting: BTreeSet<HostName>,
    answers: mpsc::UnboundedSender<(HostName, LedgerAnswer)>,
}

/// A question that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct Asked {
    questions: Arc<Questions>,
    id: u64,
    answers: mpsc::UnboundedReceiver<(HostName, LedgerAnswer)>,
}

/// As many questions are open as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{OPEN_MAX} questions are being answered; ask again in a moment")]
pub(crate) struct TooMany;

impl Questions {
    pub(crate) fn new(now: Timestamp) -> Self {
        let first = u64::try_from(now.unix_millis()).unwrap_or_default();
        Self {
            newest: watch::Sender::new(first.saturating_mul(1024)),
            open: Mutex::default(),
        }
    }

    /// Opens a question to these hosts.
    pub(crate) fn ask(
        self: &Arc<Self>,
        mut question: LedgerQuestion,
        hosts: BTreeSet<HostName>,
    ) -> Result<Asked, TooMany> {
        let mut open = self.open();
        if open.len() >= OPEN_MAX {
            return Err(TooMany);
        }
        let id = self.newest.borrow().saturating_add(1);
        question.id = id;
        // As many answers come as hosts were asked.
        let (answers, receiver) = mpsc::unbounded_channel();
        open.insert(
            id,
            Open {
                question,
                waiting: hosts,
                answers,
            },
        );
        drop(open);
        self.newest.send_replace(id);
        Ok(Asked {
            questions: Arc::clone(self),
            id,
            answers: receiver,
        })
    }

    /// Says when there is a new one, and its number.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Returns the next question to a host after one.
    pub(crate) fn next(&self, host: &HostName, after: u64) -> Option<LedgerQuestion> {
        let open = self.open();
        let mut later = open.range(after.checked_add(1)?..).map(|(_, open)| open);
        later
            .find(|open| open.waiting.contains(host))
            .map(|open| open.question.clone())
    }

    /// Takes an answer; says whether the host was asked and had not answered.
    pub(crate) fn answered(&self, host: &HostName, answer: LedgerAnswer) -> bool {
        let mut open = self.open();
        let Some(open) = open.get_mut(&answer.id) else {
            return false;
        };
        open.waiting.remove(host) && open.answers.send((host.clone(), answer)).is_ok()
    }

    /// Says whether an answer may still come that was asked for before, and too late.
    pub(crate) fn was_asked(&self, id: u64) -> bool {
        id <= *self.newest.borrow()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// Waits for the next answer. Cancel safe: an answer that is not taken stays.
    pub(crate) async fn next(&mut self) -> Option<(HostName, LedgerAnswer)> {
        self.answers.recv().await
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.questions.open().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn answer(id: u64) -> LedgerAnswer {
        LedgerAnswer {
            id,
            ..LedgerAnswer::default()
        }
    }

    #[test]
    fn an_answer_is_taken_once_from_a_host_that_was_asked_while_somebody_waits() {
        let questions = Arc::new(Questions::new(Timestamp::from_unix_millis(0)));
        let mut asked = questions
            .ask(LedgerQuestion::default(), BTreeSet::from([host("web-1")]))
            .unwrap();
        let question = questions.next(&host("web-1"), 0).unwrap();
        assert_eq!(questions.next(&host("web-1"), question.id), None, "each once");
        assert_eq!(questions.next(&host("web-2"), 0), None);
        assert!(!questions.answered(&host("web-2"), answer(question.id)));
        assert!(!questions.answered(&host("web-1"), answer(question.id + 1)));
        assert!(questions.answered(&host("web-1"), answer(question.id)));
        assert!(!questions.answered(&host("web-1"), answer(question.id)));
        assert_eq!(asked.answers.try_recv().unwrap().0, host("web-1"));
        drop(asked);
        assert_eq!(questions.next(&host("web-1"), 0), None);
        assert!(questions.open().is_empty());
    }

    #[test]
    fn no_more_questions_are_open_than_may_be() {
        let questions = Arc::new(Questions::new(Timestamp::from_unix_millis(5)));
        let ask = || questions.ask(LedgerQuestion::default(), BTreeSet::new());
        let open = [ask().unwrap(), ask().unwrap()];
        assert_eq!(ask().unwrap_err(), TooMany);
        drop(open);
        assert!(ask().unwrap().id > 5 * 1024 + 2, "no number comes again");
    }
}
