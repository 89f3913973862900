//! Applied states of the mesh, kept whole.

use rusqlite::{OptionalExtension as _, Row, params};
use spiffe::time::Timestamp;

use super::{Store, StoreError, failed};

/// How many revisions a list holds.
const LIST_MAX: u32 = 1000;

/// One applied state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevisionRow {
    pub(crate) summary: RevisionSummary,
    /// The JSON of its sources.
    pub(crate) sources: String,
}

/// One applied state without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevisionSummary {
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
    /// SHA-256 of the sources, lower hexadecimal.
    pub(crate) sha256: String,
    pub(crate) applied_at: Timestamp,
    pub(crate) actor: String,
}

impl Store {
    /// Writes a revision; its number must be new.
    pub(crate) async fn insert_revision(&self, row: RevisionRow) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute(
                "INSERT INTO revisions (epoch, revision, sources, sha256, applied_at, actor)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    row.summary.epoch.cast_signed(),
                    row.summary.revision.cast_signed(),
                    row.sources,
                    row.summary.sha256,
                    row.summary.applied_at.unix_millis(),
                    row.summary.actor,
                ],
            )
            .map_err(failed("write a revision"))?;
            Ok(())
        })
        .await
    }

    /// Reads the newest revision.
    pub(crate) async fn newest_revision(&self) -> Result<Option<RevisionRow>, StoreError> {
        self.run(|db| {
            db.query_row(
                &format!("{SELECT} ORDER BY epoch DESC, revision DESC LIMIT 1"),
                [],
                read,
            )
            .optional()
            .map_err(failed("read the newest revision"))
        })
        .await
    }

    /// Reads one revision.
    pub(crate) async fn revision(&self, epoch: u64, revision: u64) -> Result<Option<RevisionRow>, StoreError> {
        self.run(move |db| {
            let number = params![epoch.cast_signed(), revision.cast_signed()];
            db.query_row(&format!("{SELECT} WHERE epoch = ?1 AND revision = ?2"), number, read)
                .optional()
                .map_err(failed("read a revision"))
        })
        .await
    }

    /// Lists the newest revisions, newest first.
    pub(crate) async fn revisions(&self) -> Result<Vec<RevisionSummary>, StoreError> {
        const OPERATION: &str = "list the revisions";
        self.run(|db| {
            let mut statement = db
                .prepare_cached(
                    "SELECT epoch, revision, '', sha256, applied_at, actor FROM revisions
                     ORDER BY epoch DESC, revision DESC LIMIT ?1",
                )
                .map_err(failed(OPERATION))?;
            let rows = statement.query_map([LIST_MAX], read).map_err(failed(OPERATION))?;
            rows.map(|row| row.map(|row| row.summary))
                .collect::<Result<_, _>>()
                .map_err(failed(OPERATION))
        })
        .await
    }
}

const SELECT: &str = "SELECT epoch, revision, sources, sha256, applied_at, actor FROM revisions";

fn read(row: &Row<'_>) -> rusqlite::Result<RevisionRow> {
    let summary = RevisionSummary {
        epoch: row.get::<_, i64>(0)?.cast_unsigned(),
        revision: row.get::<_, i64>(1)?.cast_unsigned(),
        sha256: row.get(3)?,
        applied_at: Timestamp::from_unix_millis(row.get(4)?),
        actor: row.get(5)?,
    };
    Ok(RevisionRow {
        summary,
        sources: row.get(2)?,
    })
}
