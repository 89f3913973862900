//! The thread that owns the connection, and the handle to it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{StoreError, schema};

/// How much work may wait; beyond it callers are told to come back.
const QUEUE_MAX: usize = 1024;

/// How many callers share one commit.
const BATCH_MAX: usize = 256;

/// A handle to the owner thread.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
}

/// The owner thread; joined after every [`Store`] is dropped.
#[derive(Debug)]
pub(crate) struct StoreThread(JoinHandle<()>);

/// Takes the connection inside its savepoint, or why there is none.
struct Job(Box<Work>);

type Work = dyn FnOnce(Result<&Connection, StoreError>) -> Outcome + Send;

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// What is left to do for a job once its batch is committed, or is not.
struct Outcome {
    keep: bool,
    answer: Answer,
}

/// Tells the caller, once it is known whether the batch was committed.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

impl Store {
    /// Opens the file, brings its schema up to date and starts the owner.
    pub(crate) fn open(path: &Path) -> Result<(Self, StoreThread), StoreError> {
        let connection = schema::open(path)?;
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || own(&connection, queue))
            .map_err(|source| StoreError::Thread {
                source: Arc::new(source),
            })?;
        Ok((Self { jobs }, StoreThread(thread)))
    }

    /// Runs `work` in a savepoint and answers after the commit. `Err` undoes it.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Job(Box::new(move |connection| {
            let result = connection.and_then(work);
            Outcome {
                keep: result.is_ok(),
                // A caller that went away does not want to know.
                answer: Box::new(move |committed| drop(reply.send(committed.and(result)))),
            }
        }));
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        answer.await.map_err(|_ended| StoreError::Closed)?
    }
}

impl StoreThread {
    /// Waits for the end of the owner; blocks.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the thread that owned the database panicked");
        }
    }
}

fn own(connection: &Connection, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX {
            let Ok(job) = queue.try_recv() else { break };
            batch.push(job);
        }
        run_batch(connection, batch);
    }
    // Leaves one file behind, without its log.
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "the database log was not folded in; the next start does it");
    }
}

fn run_batch(connection: &Connection, batch: Vec<Job>) {
    let committed = |result: rusqlite::Result<()>| {
        result.map_err(|source| StoreError::Commit {
            source: Arc::new(source),
        })
    };
    let begun = committed(connection.execute_batch("BEGIN IMMEDIATE"));
    let mut answers = Vec::with_capacity(batch.len());
    for job in batch {
        answers.push(match &begun {
            Ok(()) => run_job(connection, job),
            Err(error) => (job.0)(Err(error.clone())).answer,
        });
    }
    let ended = begun.and_then(|()| committed(connection.execute_batch("COMMIT")));
    if ended.is_err() && !connection.is_autocommit() {
        // Nobody has been answered, so undoing all of it is the truth.
        if let Err(error) = connection.execute_batch("ROLLBACK") {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }
    for answer in answers {
        answer(ended.clone());
    }
}

fn run_job(connection: &Connection, job: Job) -> Answer {
    let step = |sql: &str| connection.execute_batch(sql).map_err(super::failed("savepoint"));
    if let Err(error) = step("SAVEPOINT job") {
        return (job.0)(Err(error)).answer;
    }
    let outcome = (job.0)(Ok(connection));
    let undone = if outcome.keep { Ok(()) } else { step("ROLLBACK TO job") };
    let ended = undone.and_then(|()| step("RELEASE job"));
    Box::new(move |committed| (outcome.answer)(ended.and(committed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(db: &Connection, key: &str) -> Result<(), StoreError> {
        db.execute("INSERT INTO meta VALUES (?1, '')", [key])
            .map_err(super::super::failed("insert"))
            .map(drop)
    }

    async fn count(store: &Store) -> i64 {
        let work = |db: &Connection| {
            db.query_row("SELECT count(*) FROM meta WHERE value = ''", [], |row| row.get(0))
                .map_err(super::super::failed("count"))
        };
        store.run(work).await.unwrap()
    }

    #[tokio::test]
    async fn a_failed_job_undoes_itself_and_not_its_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        let (store, thread) = Store::open(&dir.path().join("db")).unwrap();
        let bad = store.run(|db| {
            insert(db, "half")?;
            Err::<(), _>(StoreError::NotInitialised)
        });
        let (good, bad, twice) = tokio::join!(
            store.run(|db| insert(db, "good")),
            bad,
            store.run(|db| insert(db, "good")),
        );
        assert!(good.is_ok());
        assert!(matches!(bad, Err(StoreError::NotInitialised)));
        assert!(matches!(twice, Err(StoreError::Query { .. })));
        assert_eq!(count(&store).await, 1);
        drop(store);
        thread.join();
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let (store, thread) = Store::open(&path).unwrap();
        store.run(|db| insert(db, "kept")).await.unwrap();
        drop(store);
        thread.join();
        let (store, _thread) = Store::open(&path).unwrap();
        assert_eq!(count(&store).await, 1);
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("PRAGMA user_version = 1000")
            .unwrap();
        assert!(matches!(
            Store::open(&path),
            Err(StoreError::NewerSchema { found: 1000, .. })
        ));
    }
}
