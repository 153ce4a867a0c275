//! Passwords and personal access tokens, as far as they are kept: their hashes, which this room
//! takes as they come. A SQLite file of its own, because the log has none of it. Commands change
//! it beside a running daemon, which looks at every login and so sees it at the next.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use serde::Serialize;

use super::mailbox::MailboxOwner;
use super::{StoreError, durable};
use crate::clock::Timestamp;
use crate::id;

/// The file's name below the data folder.
pub const CREDENTIALS_FILE: &str = "credentials.sqlite";
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS password (
        organization TEXT NOT NULL, entity TEXT NOT NULL,
        hash TEXT NOT NULL, set_at INTEGER NOT NULL,
        PRIMARY KEY (organization, entity)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS token (
        id TEXT PRIMARY KEY, organization TEXT NOT NULL, entity TEXT NOT NULL,
        hash BLOB NOT NULL UNIQUE, name TEXT NOT NULL, scopes TEXT NOT NULL,
        created_at INTEGER NOT NULL, expires_at INTEGER, last_used_at INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS token_owner ON token (organization, entity, created_at);
    PRAGMA user_version = 2;
";
/// Raised with every change of the schema.
const VERSION: i64 = 2;
/// How long one process waits for another that writes.
const BUSY: Duration = Duration::from_secs(5);
/// A token's last use is told to the hour, so that not every login writes.
const USE_TOLD_AFTER: Duration = Duration::from_secs(3600);
/// What a token is for: the whole mailbox, as with a password.
const FULL_SCOPE: &str = "mailbox";

/// A personal access token, without what could stand for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Names it in listings and audit logs.
    pub id: String,
    /// What its user calls it.
    pub name: String,
    /// What it is for.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is of no use; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When somebody last logged in with it, to the hour; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
}

/// A token to be kept.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// The token's SHA-256.
    pub hash: [u8; 32],
    /// What its user calls it.
    pub name: &'a str,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is of no use.
    pub expires_at: Option<Timestamp>,
}

/// What a check found in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CredentialCounts {
    /// Users with a password.
    pub passwords: u64,
    /// Personal access tokens, expired ones among them.
    pub tokens: u64,
}

/// What a user can log in with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserCredentials {
    /// When the password was set; absent: there is none.
    pub password_set_at: Option<Timestamp>,
    /// Personal access tokens, expired ones among them.
    pub tokens: u64,
    /// When one of them was last used, to the hour; absent: never.
    pub token_used_at: Option<Timestamp>,
}

/// The passwords and tokens of all organizations.
#[derive(Debug)]
pub struct CredentialStore {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl CredentialStore {
    /// Opens the file of a data folder, making both if they are not there.
    ///
    /// # Errors
    /// Those of the file system; [`StoreError::Credentials`] for a file that is none of ours.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join(CREDENTIALS_FILE);
        if !durable::is_there(&path)? {
            durable::create_dir(data_dir)?;
            // Made here, so that it is for its owner alone; SQLite takes an empty file.
            match durable::create_file(&path, &[]) {
                // Another process was first.
                Err(_) if path.exists() => {}
                made => drop(made?),
            }
        }
        let connection = connect(&path)
            .map_err(|source| StoreError::Credentials { path: path.clone(), source })?;
        Ok(Self { path, connection: Mutex::new(connection) })
    }

    /// The same, unless there is no such file.
    ///
    /// # Errors
    /// Those of [`CredentialStore::open`].
    pub fn open_if_there(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let is_there = durable::is_there(&data_dir.join(CREDENTIALS_FILE))?;
        is_there.then(|| Self::open(data_dir)).transpose()
    }

    /// Counts the passwords and tokens, if there is such a file, and changes nothing: neither its form
    /// nor, where the disk has room for it at all, more than what SQLite needs to read beside a daemon.
    ///
    /// # Errors
    /// It is damaged, or none of ours.
    pub(super) fn check_if_there(data_dir: &Path) -> Result<Option<CredentialCounts>, StoreError> {
        let path = data_dir.join(CREDENTIALS_FILE);
        if !durable::is_there(&path)? {
            return Ok(None);
        }
        let known = |connection| Self { path: path.clone(), connection: Mutex::new(connection) };
        let opened = connect_to_read(&path, false)
            .map_err(|source| StoreError::Credentials { path: path.clone(), source });
        match opened.and_then(|connection| known(connection).check()) {
            // What stands in the file itself can be read without another one beside it.
            Err(error) if error.is_out_of_space() => {
                let connection = connect_to_read(&path, true)
                    .map_err(|source| StoreError::Credentials { path: path.clone(), source })?;
                known(connection).check().map(Some)
            }
            checked => checked.map(Some),
        }
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        // SQLite undoes what a panic interrupts.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut connection)
            .map_err(|source| StoreError::Credentials { path: self.path.clone(), source })
    }

    /// Gives a user a password in place of any earlier one; durable on return.
    ///
    /// # Errors
    /// [`StoreError::Credentials`]
    pub fn set_password(
        &self,
        user: &MailboxOwner,
        hash: &str,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.with(|connection| {
            connection.execute(
                "INSERT INTO password (organization, entity, hash, set_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (organization, entity)
                 DO UPDATE SET hash = excluded.hash, set_at = excluded.set_at",
                params![user.organization, user.entity.to_string(), hash, millis(at)],
            )
        })
        .map(drop)
    }

    /// The hash of a user's password, if the user has one.
    ///
    /// # Errors
    /// [`StoreError::Credentials`]
    pub fn password_hash(&self, user: &MailboxOwner) -> Result<Option<String>, StoreError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT hash FROM password WHERE organization = ?1 AND entity = ?2",
                )?
                .query_row(params![user.organization, user.entity.to_string()], |row| row.get(0))
                .optional()
        })
    }

    /// What all users can log in with; who has nothing is not there.
    ///
    /// # Errors
    /// [`StoreError::Credentials`]
    pub fn users(&self) -> Result<HashMap<MailboxOwner, UserCredentials>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT organization, entity, max(set_at), sum(tokens), max(used_at) FROM (
                     SELECT organization, entity, set_at, 0 AS tokens, NULL AS used_at
                     FROM password
                     UNION ALL
                     SELECT organization, entity, NULL, 1, last_used_at FROM token
                 ) GROUP BY organization, entity",
            )?;
            let moment = |millis: i64| Timestamp::from_millis(millis.cast_unsigned());
            let users = statement.query_map([], |row| {
                let owner = owner_of(row, 0)?;
                let known = UserCredentials {
                    password_set_at: row.get::<_, Option<i64>>(2)?.map(moment),
                    tokens: row.get::<_, i64>(3)?.cast_unsigned(),
                    token_used_at: row.get::<_, Option<i64>>(4)?.map(moment),
                };
                Ok((owner, known))
            })?;
            users.collect()
        })
    }

    /// Keeps a token; durable on return.
    ///
    /// # Errors
    /// [`StoreError::Credentials`]
    pub fn add_token(&self, user: &MailboxOwner, new: NewToken<'_>) -> Result<Token, StoreError> {
        let token = Token {
            id: id::new_token_id(),
            name: new.name.to_owned(),
            scopes: vec![FULL_SCOPE.to_owned()],
            created_at: new.created_at,
            expires_at: new.expires_at,
            last_used_at: None,
        };
        self.with(|connection| {
            connection.execute(
                "INSERT INTO token
                     (id, organization, entity, hash, name, scopes, created_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    token.id,
                    user.organization,
                    user.entity.to_string(),
                    new.hash,
                    token.name,
                    token.scopes.join(" "),
                    millis(token.created_at),
                    token.expires_at.map(millis),
                ],
            )
        })?;
        Ok(token)
    }

    /// A user's tokens, oldest first, expired ones among them.
    ///
    /// # Errors
    /// [`StoreError::Credentials`]
    pub fn tokens(&self, user: &MailboxOwner) -> Result<Vec<Token>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {TOKEN_COLUMNS} FROM token WHERE organization = ?1 AND entity = ?2
                 ORDER BY created_at, id"
            ))?;
            statement
                .query_map(params![user.organization, user.entity.to_string()], token_of)?
                .collect()
        })
    }

    /// The token with this hash and whose it is.
    ///
    /// # Errors
    /// [`StoreError::Credentials`]
    pub fn find_token(&self, hash: &[u8; 32]) -> Result<Option<(MailboxOwner, Token)>, StoreError> {
        self.with(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {TOKEN_COLUMNS}, organization, entity FROM token WHERE hash = ?1"
                ))?
                .query_row([hash], |row| Ok((owner_of(row, 6)?, token_of(row)?)))
                .optional()
        })
    }

    /// Remembers that a token was used, unless that was told within the hour.
    ///
    /// # Errors
    /// [`StoreError::Credentials`]
    pub fn token_used(&self, token: &Token, at: Timestamp) -> Result<(), StoreError> {
        if token.last_used_at.is_some_and(|last| at < last.plus(USE_TOLD_AFTER)) {
            return Ok(());
        }
        self.with(|connection| {
            connection
                .prepare_cached("UPDATE token SET last_used_at = ?2 WHERE id = ?1")?
                .execute(params![token.id, millis(at)])
        })
        .map(drop)
    }

    /// Removes all that somebody can log in with and that was set before a moment, durably. Says
    /// whether there was anything.
    ///
    /// # Errors
    /// [`StoreError::Credentials`]
    pub fn remove_earlier(
        &self,
        user: &MailboxOwner,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        self.with(|connection| {
            let owner = params![user.organization, user.entity.to_string(), millis(before)];
            let change = connection.transaction()?;
            let mut removed = 0;
            for (table, set_at) in [("password", "set_at"), ("token", "created_at")] {
                let removal = format!(
                    "DELETE FROM {table} WHERE organization = ?1 AND entity = ?2 AND {set_at} < ?3"
                );
                removed += change.execute(&removal, owner)?;
            }
            change.commit()?;
            Ok(removed > 0)
        })
    }

    /// Removes a user's token, durably; the token it was, `None` if the user has none of that id.
    ///
    /// # Errors
    /// [`StoreError::Credentials`]
    pub fn remove_token(&self, user: &MailboxOwner, id: &str) -> Result<Option<Token>, StoreError> {
        self.with(|connection| {
            connection
                .query_row(
                    &format!(
                        "DELETE FROM token WHERE organization = ?1 AND entity = ?2 AND id = ?3
                         RETURNING {TOKEN_COLUMNS}"
                    ),
                    params![user.organization, user.entity.to_string(), id],
                    token_of,
                )
                .optional()
        })
    }

    /// Copies the file as it is at this moment into a new or empty one, durably.
    pub(super) fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        self.with(|connection| connection.execute("VACUUM INTO ?1", [path.to_string_lossy()]))?;
        durable::sync_if_there(path)
    }

    /// Reads all of the file, and counts what is in it.
    pub(super) fn check(&self) -> Result<CredentialCounts, StoreError> {
        let (found, passwords, tokens): (String, i64, i64) = self.with(|connection| {
            let found = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
            let count = |table: &str| {
                let sql = format!("SELECT count(*) FROM {table}");
                connection.query_row(&sql, [], |row| row.get(0))
            };
            Ok((found, count("password")?, count("token")?))
        })?;
        if found != "ok" {
            return Err(super::damaged(&self.path, 0, &found));
        }
        let (passwords, tokens) = (passwords.cast_unsigned(), tokens.cast_unsigned());
        Ok(CredentialCounts { passwords, tokens })
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // What is on its way into the file is on disk before a command says that it is done, and
    // what is deleted from it is overwritten.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;",
    )?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(SCHEMA)?;
        transaction.commit()?;
    } else {
        check_version(version)?;
    }
    Ok(connection)
}

/// `alone` says that nothing but the file itself is looked at.
fn connect_to_read(path: &Path, alone: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = if alone {
        let escaped =
            path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let uri = format!("file:{escaped}?immutable=1");
        Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_READ_ONLY)?
    } else {
        let connection =
            Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch("PRAGMA query_only = ON;")?;
        connection
    };
    connection.busy_timeout(BUSY)?;
    check_version(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)?;
    Ok(connection)
}

fn check_version(version: i64) -> rusqlite::Result<()> {
    if version == VERSION {
        return Ok(());
    }
    let message = match version < VERSION {
        true => format!("it has version {version}, which this mailweir does not read any more"),
        false => format!("it has version {version}, a later mailweir made it"),
    };
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
    Err(rusqlite::Error::SqliteFailure(code, Some(message)))
}

const TOKEN_COLUMNS: &str = "id, name, scopes, created_at, expires_at, last_used_at";

fn token_of(row: &Row<'_>) -> rusqlite::Result<Token> {
    let moment = |millis: i64| Timestamp::from_millis(millis.cast_unsigned());
    let scopes: String = row.get(2)?;
    Ok(Token {
        id: row.get(0)?,
        name: row.get(1)?,
        scopes: scopes.split_whitespace().map(str::to_owned).collect(),
        created_at: moment(row.get(3)?),
        expires_at: row.get::<_, Option<i64>>(4)?.map(moment),
        last_used_at: row.get::<_, Option<i64>>(5)?.map(moment),
    })
}

/// Whose something is, from two columns.
fn owner_of(row: &Row<'_>, at: usize) -> rusqlite::Result<MailboxOwner> {
    let organization: String = row.get(at)?;
    let entity: String = row.get(at + 1)?;
    let unreadable = |error| {
        rusqlite::Error::FromSqlConversionFailure(
            at + 1,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    };
    let entity = entity.parse().map_err(unreadable)?;
    Ok(MailboxOwner { organization: organization.into(), entity })
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::id::{EntityId, EntityKind};

    fn name(user: &str) -> MailboxOwner {
        let entity = EntityId::of_first(EntityKind::User, "m-1", user);
        MailboxOwner { organization: "m-1".into(), entity }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn new(hash: u8, label: &str) -> NewToken<'_> {
        NewToken { hash: [hash; 32], name: label, created_at: at(1), expires_at: Some(at(9)) }
    }

    #[test]
    fn a_password_is_seen_by_others_at_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let daemon = CredentialStore::open(dir.path()).expect("opens");
        let command = CredentialStore::open(dir.path()).expect("opens beside the first");
        assert_eq!(daemon.password_hash(&name("alice")).expect("reads"), None);
        for hash in ["first", "second"] {
            command.set_password(&name("alice"), hash, at(1)).expect("writes");
            let seen = daemon.password_hash(&name("alice")).expect("reads");
            assert_eq!(seen.as_deref(), Some(hash));
        }
        assert_eq!(daemon.password_hash(&name("bob")).expect("reads"), None);
        let elsewhere = MailboxOwner { organization: "m-2".into(), ..name("alice") };
        assert_eq!(daemon.password_hash(&elsewhere).expect("reads"), None);
    }

    #[test]
    fn only_the_owner_reads_the_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = CredentialStore::open(&dir.path().join("data")).expect("opens");
        store.set_password(&name("alice"), "hash", at(1)).expect("writes");
        for entry in std::fs::read_dir(dir.path().join("data")).expect("lists") {
            let entry = entry.expect("an entry");
            let mode = entry.metadata().expect("stats").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
        }
    }

    #[test]
    fn tokens_are_found_by_their_hash_listed_and_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = CredentialStore::open(dir.path()).expect("opens");
        let one = store.add_token(&name("alice"), new(1, "phone")).expect("adds");
        let other = store.add_token(&name("alice"), new(2, "printer")).expect("adds");
        store.add_token(&name("bob"), new(3, "phone")).expect("adds");
        assert!(store.add_token(&name("bob"), new(3, "again")).is_err(), "a hash has one owner");
        let found = store.find_token(&[1; 32]).expect("reads");
        assert_eq!(found, Some((name("alice"), one.clone())));
        assert_eq!(store.find_token(&[9; 32]).expect("reads"), None);
        let ids = |store: &CredentialStore| -> Vec<String> {
            let tokens = store.tokens(&name("alice")).expect("reads");
            tokens.into_iter().map(|token| token.id).collect()
        };
        assert_eq!(ids(&store), [one.id.clone(), other.id.clone()]);
        assert_eq!(store.remove_token(&name("bob"), &one.id).expect("reads"), None, "not his");
        assert_eq!(store.remove_token(&name("alice"), &one.id).expect("removes"), Some(one));
        assert_eq!(store.find_token(&[1; 32]).expect("reads"), None);
        assert_eq!(ids(&store), [other.id]);
    }

    #[test]
    fn the_last_use_is_told_to_the_hour() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = CredentialStore::open(dir.path()).expect("opens");
        store.add_token(&name("alice"), new(1, "phone")).expect("adds");
        for (used, told) in [(10, 10), (3609, 10), (3610, 3610)] {
            let (_, token) = store.find_token(&[1; 32]).expect("reads").expect("is there");
            store.token_used(&token, at(used)).expect("writes");
            let (_, token) = store.find_token(&[1; 32]).expect("reads").expect("is there");
            assert_eq!(token.last_used_at, Some(at(told)));
        }
    }

    #[test]
    fn what_is_no_credentials_file_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(CredentialStore::open_if_there(dir.path()).expect("nothing to read").is_none());
        std::fs::write(
            dir.path().join(CREDENTIALS_FILE),
            "not a database, but long enough for one\n".repeat(9),
        )
        .expect("writes");
        let told = CredentialStore::open(dir.path()).expect_err("rubbish").to_string();
        assert!(told.contains(CREDENTIALS_FILE) && told.contains("not a database"), "{told}");
        std::fs::remove_file(dir.path().join(CREDENTIALS_FILE)).expect("removes");
        let store = CredentialStore::open(dir.path()).expect("opens");
        store.with(|it| it.pragma_update(None, "user_version", 7)).expect("writes");
        let told = CredentialStore::open(dir.path()).expect_err("too new").to_string();
        assert!(told.ends_with("it has version 7, a later mailweir made it"), "{told}");
    }
}
