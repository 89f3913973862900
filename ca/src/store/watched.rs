//! What was learned of calls.

use rusqlite::params;

use super::{Store, StoreError, failed};
use crate::watch::{Row, RowKey};

impl Store {
    /// Reads all of it.
    pub(crate) async fn watched(&self) -> Result<Vec<Row>, StoreError> {
        const READ: &str = "read what was learned of calls";
        self.run(|db| {
            // The bots before their routes.
            let mut statement = db
                .prepare("SELECT kind, bot, callee, rule, state FROM watched ORDER BY kind, bot, callee, rule")
                .map_err(failed(READ))?;
            let rows = statement.query_map([], |row| {
                Ok(Row {
                    key: RowKey {
                        kind: row.get(0)?,
                        bot: row.get(1)?,
                        callee: row.get(2)?,
                        rule: row.get(3)?,
                    },
                    state: row.get(4)?,
                })
            });
            rows.and_then(Iterator::collect).map_err(failed(READ))
        })
        .await
    }

    /// Writes what has changed, and forgets what is gone.
    pub(crate) async fn write_watched(&self, rows: Vec<Row>, gone: Vec<RowKey>) -> Result<(), StoreError> {
        const WRITE: &str = "write what was learned of calls";
        self.run(move |db| {
            let mut delete = db
                .prepare_cached("DELETE FROM watched WHERE kind = ?1 AND bot = ?2 AND callee = ?3 AND rule = ?4")
                .map_err(failed(WRITE))?;
            for RowKey {
                kind,
                bot,
                callee,
                rule,
            } in gone
            {
                delete.execute([kind, bot, callee, rule]).map_err(failed(WRITE))?;
            }
            let mut write = db
                .prepare_cached(
                    "INSERT INTO watched (kind, bot, callee, rule, state) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (kind, bot, callee, rule) DO UPDATE SET state = excluded.state",
                )
                .map_err(failed(WRITE))?;
            for Row { key, state } in rows {
                let row = params![key.kind, key.bot, key.callee, key.rule, state];
                write.execute(row).map_err(failed(WRITE))?;
            }
            Ok(())
        })
        .await
    }
}
