//! Things that are worth keeping over a restart, and of which nothing depends on any: a small
//! SQLite file apart from the mail, of texts that expire.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, params};

use super::{StoreError, durable};
use crate::clock::Timestamp;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;
    CREATE TABLE IF NOT EXISTS memo (
        key TEXT PRIMARY KEY, value TEXT NOT NULL, expires INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS memo_expires ON memo (expires);
";

/// A file of texts under keys. All methods block.
#[derive(Debug)]
pub struct Memo {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Memo {
    /// Opens the file, making it if there is none. One that cannot be read is begun anew: all of
    /// it can be found out again.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            durable::create_dir(folder)?;
        }
        let connection = connect(path).or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot be read and is begun anew");
            for suffix in ["", "-wal", "-shm"] {
                let mut file = path.as_os_str().to_owned();
                file.push(suffix);
                durable::remove_if_there(Path::new(&file))?;
            }
            connect(path).map_err(failure(path))
        })?;
        Ok(Self { path: path.into(), connection: Mutex::new(connection) })
    }

    /// Everything that has not expired.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn all(&self, now: Timestamp) -> Result<Vec<(String, String)>, StoreError> {
        self.with(|connection| {
            let sql = "SELECT key, value FROM memo WHERE expires > ?1 ORDER BY expires";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([millis(now)], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
    }

    /// Keeps a text under a key until it expires. What has expired makes room; where there are
    /// more than `max`, those go that would expire first.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(
        &self,
        key: &str,
        value: &str,
        expires: Timestamp,
        now: Timestamp,
        max: usize,
    ) -> Result<(), StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction()?;
            transaction.execute("DELETE FROM memo WHERE expires <= ?1", [millis(now)])?;
            let sql = "INSERT OR REPLACE INTO memo (key, value, expires) VALUES (?1, ?2, ?3)";
            transaction.execute(sql, params![key, value, millis(expires)])?;
            let sql = "DELETE FROM memo WHERE key IN (
                SELECT key FROM memo WHERE key != ?1 ORDER BY expires
                LIMIT max(0, (SELECT count(*) FROM memo) - ?2))";
            transaction.execute(sql, params![key, i64::try_from(max).unwrap_or(i64::MAX)])?;
            transaction.commit()
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        // SQLite itself undoes what a panic cut short.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut connection).map_err(failure(&self.path))
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn failure(path: &Path) -> impl FnOnce(rusqlite::Error) -> StoreError {
    let failed = StoreError::file(path);
    |error| failed(std::io::Error::other(error))
}

fn millis(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_000);

    fn keys(memo: &Memo, now: Timestamp) -> Vec<String> {
        memo.all(now).unwrap().into_iter().map(|(key, _)| key).collect()
    }

    fn after(seconds: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_put_in_is_there_after_a_restart_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache/memo.sqlite");
        let memo = Memo::open(&path).unwrap();
        memo.put("a", "1", after(10), NOW, 10).unwrap();
        memo.put("b", "2", after(20), NOW, 10).unwrap();
        memo.put("b", "3", after(30), NOW, 10).unwrap();
        drop(memo);
        let memo = Memo::open(&path).unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(memo.all(NOW).unwrap(), [pair("a", "1"), pair("b", "3")]);
        assert_eq!(memo.all(after(10)).unwrap(), [pair("b", "3")]);
    }

    #[test]
    fn there_are_never_more_than_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::open(&folder.path().join("memo.sqlite")).unwrap();
        for (key, lives) in [("a", 50), ("b", 10), ("c", 30), ("d", 40)] {
            memo.put(key, "", after(lives), NOW, 3).unwrap();
        }
        assert_eq!(keys(&memo, NOW), ["c", "d", "a"]);
        // The new one stays, be it the first to expire.
        memo.put("e", "", after(5), NOW, 3).unwrap();
        assert_eq!(keys(&memo, NOW), ["e", "d", "a"]);
        memo.put("f", "", after(60), after(45), 3).unwrap();
        assert_eq!(keys(&memo, NOW), ["a", "f"], "what has expired is gone");
    }

    #[test]
    fn a_file_that_is_no_memo_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memo.sqlite");
        std::fs::write(&path, "not a database, but longer than the header of one ".repeat(20))
            .unwrap();
        let memo = Memo::open(&path).unwrap();
        memo.put("a", "1", after(10), NOW, 10).unwrap();
        assert_eq!(keys(&memo, NOW), ["a"]);
    }

    #[test]
    fn a_place_where_no_file_can_be_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        std::fs::create_dir(&path).unwrap();
        let error = Memo::open(&path).unwrap_err();
        assert!(error.to_string().contains("folder"), "{error}");
    }
}
