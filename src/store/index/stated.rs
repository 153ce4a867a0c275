//! What was said of organizations, in the index.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::value::RawValue;

use super::{Index, unreadable};
use crate::clock::Timestamp;
use crate::events::Lsn;
use crate::store::StoreError;
use crate::store::stated::{Said, Stated};

impl Index {
    /// Where something was said last; zero, if nothing was.
    pub(in crate::store) fn last_stated(&self) -> Result<Lsn, StoreError> {
        let last = "SELECT lsn FROM stated ORDER BY lsn DESC LIMIT 1";
        let last: Option<i64> = self.0.query_row(last, [], |row| row.get(0)).optional()?;
        Ok(Lsn(last.unwrap_or(0).cast_unsigned()))
    }

    /// What was said last about each thing of an organization.
    pub(in crate::store) fn said(
        &self,
        organization: &str,
    ) -> Result<BTreeMap<Box<str>, Said>, StoreError> {
        // Of a group's rows SQLite takes the columns from the one with the maximum.
        let mut statement = self.0.prepare(
            "SELECT max(lsn), organization, about, format, fact FROM said
             WHERE organization = ?1 GROUP BY about",
        )?;
        let mut rows = statement.query([organization])?;
        let mut said = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let one = said_of(row)?;
            said.insert(one.about.clone(), one);
        }
        Ok(said)
    }

    /// All that was said, or all that was said of one organization, oldest first.
    pub(in crate::store) fn statements(
        &self,
        organization: Option<&str>,
    ) -> Result<BTreeMap<Lsn, Stated>, StoreError> {
        let mut statements = BTreeMap::new();
        let mut statement = self.0.prepare("SELECT lsn, at, by, command FROM stated")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let by: String = row.get(2)?;
            let stated = Stated {
                at: Timestamp::from_millis(row.get::<_, i64>(1)?.cast_unsigned()),
                by: serde_json::from_str(&by).map_err(|_| unreadable("author"))?,
                command: row.get::<_, String>(3)?.into(),
                said: Vec::new(),
            };
            statements.insert(position(row)?, stated);
        }
        let mut statement = self.0.prepare(
            "SELECT lsn, organization, about, format, fact FROM said
             WHERE ?1 IS NULL OR organization = ?1 ORDER BY lsn, number",
        )?;
        let mut rows = statement.query([organization])?;
        while let Some(row) = rows.next()? {
            let stated = statements.get_mut(&position(row)?).ok_or_else(|| unreadable("fact"))?;
            stated.said.push(said_of(row)?);
        }
        Ok(statements)
    }
}

fn position(row: &Row<'_>) -> Result<Lsn, StoreError> {
    Ok(Lsn(row.get::<_, i64>(0)?.cast_unsigned()))
}

/// Of the columns after the position.
fn said_of(row: &Row<'_>) -> Result<Said, StoreError> {
    let (organization, about): (String, String) = (row.get(1)?, row.get(2)?);
    let fact = RawValue::from_string(row.get(4)?).map_err(|_| unreadable("fact"))?;
    Ok(Said { organization: organization.into(), about: about.into(), format: row.get(3)?, fact })
}

pub(super) fn insert_stated(
    transaction: &Transaction<'_>,
    lsn: Lsn,
    stated: &Stated,
) -> Result<(), StoreError> {
    let lsn = lsn.0.cast_signed();
    let by = serde_json::json!(stated.by).to_string();
    transaction
        .prepare_cached("INSERT OR REPLACE INTO stated VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![lsn, stated.at.as_millis().cast_signed(), by, &*stated.command])?;
    for (number, said) in stated.said.iter().enumerate() {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO said VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                &*said.organization,
                &*said.about,
                lsn,
                number,
                said.format,
                said.fact.get()
            ])?;
    }
    Ok(())
}
