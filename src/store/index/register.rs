//! The register's part of the index: who is who.

use std::sync::Arc;

use rusqlite::{Row, Transaction, params};

use super::{Index, VERSION, unreadable};
use crate::clock::Timestamp;
use crate::id::{EntityId, EntityKind};
use crate::store::StoreError;
use crate::store::register::{Fact, Register};

impl Index {
    /// Whether this version has made it; one of another is built again.
    pub(in crate::store) fn is_of_this_version(&self) -> Result<bool, StoreError> {
        let version: i64 = self.0.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok(version == VERSION)
    }

    /// Who is who.
    pub(in crate::store) fn register(&self) -> Result<Register, StoreError> {
        let mut register = Register::default();
        let mut statement = self.0.prepare("SELECT id, alias, at FROM organization")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, alias): (String, String) = (row.get(0)?, row.get(1)?);
            let at = moment(row.get(2)?);
            register.apply(&Fact::Organization { id: id.into(), alias: alias.into(), at });
        }
        // Whoever is gone comes first, so that a name is whose it is now.
        for which in ["IS NOT NULL", "IS NULL"] {
            let mut statement = self.0.prepare(&format!(
                "SELECT organization, id, kind, name, at, gone_at FROM entity WHERE gone_at {which}"
            ))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                take_entity(&mut register, row)?;
            }
        }
        Ok(register)
    }
}

fn take_entity(register: &mut Register, row: &Row<'_>) -> Result<(), StoreError> {
    let (organization, id): (String, String) = (row.get(0)?, row.get(1)?);
    let organization: Arc<str> = organization.into();
    let id: EntityId = id.parse().map_err(|_| unreadable("user id"))?;
    let kind: usize = row.get(2)?;
    let kind = *EntityKind::ALL.get(kind).ok_or_else(|| unreadable("kind of user"))?;
    let name: String = row.get(3)?;
    let (name, at) = (name.into(), moment(row.get(4)?));
    let (whose, who) = (Arc::clone(&organization), id.clone());
    register.apply(&Fact::Entity { organization: whose, id: who, kind, name, at });
    let gone_at: Option<i64> = row.get(5)?;
    if let Some(at) = gone_at.map(moment) {
        register.apply(&Fact::Gone { organization, id, at });
    }
    Ok(())
}

fn moment(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis.cast_unsigned())
}

pub(super) fn insert_facts(
    transaction: &Transaction<'_>,
    facts: &[Fact],
) -> Result<(), StoreError> {
    for fact in facts {
        insert_fact(transaction, fact)?;
    }
    Ok(())
}

fn insert_fact(transaction: &Transaction<'_>, fact: &Fact) -> Result<(), StoreError> {
    let millis = |at: &Timestamp| at.as_millis().cast_signed();
    match fact {
        Fact::Organization { id, alias, at } => transaction
            .prepare_cached("INSERT OR REPLACE INTO organization VALUES (?1, ?2, ?3)")?
            .execute(params![&**id, &**alias, millis(at)])?,
        Fact::Entity { organization, id, kind, name, at } => transaction
            .prepare_cached("INSERT OR REPLACE INTO entity VALUES (?1, ?2, ?3, ?4, ?5, NULL)")?
            .execute(params![
                &**organization,
                id.to_string(),
                *kind as usize,
                &**name,
                millis(at)
            ])?,
        Fact::Gone { organization, id, at } => transaction
            .prepare_cached("UPDATE entity SET gone_at = ?3 WHERE organization = ?1 AND id = ?2")?
            .execute(params![&**organization, id.to_string(), millis(at)])?,
    };
    Ok(())
}
