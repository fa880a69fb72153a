//! The rows of resources and scopes: each is looked for once in a transaction and stands once in the file, however many
//! spans share it.

use super::{
    failure::StoreFailure,
    json,
    span::{Parts, Resource, Scope},
};
use foldhash::fast::RandomState;
use rusqlite::{OptionalExtension, Statement, Transaction, params};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Bytes of a digest.
const DIGEST: usize = 16;

/// Stands for bytes that are looked for: nobody can make others with the same one, so they are not compared.
fn digest(raw: &[u8]) -> [u8; DIGEST] {
    Sha256::digest(raw)[..DIGEST].try_into().expect("SHA-256 has more bytes")
}

/// A row that spans of this transaction refer to.
#[derive(Clone, Copy)]
struct Used {
    id: i64,
    newest_trace: i64,
}

/// Rows by their places in [`Parts`].
type Rows = HashMap<u32, Used, RandomState>;

/// The rows of one transaction.
pub(super) struct ContextRows<'a> {
    db: &'a Transaction<'a>,
    find_resource: Statement<'a>,
    put_resource: Statement<'a>,
    find_scope: Statement<'a>,
    put_scope: Statement<'a>,
    resources: Rows,
    scopes: Rows,
}

impl<'a> ContextRows<'a> {
    pub(super) fn prepare(db: &'a Transaction<'a>) -> Result<ContextRows<'a>, StoreFailure> {
        Ok(ContextRows {
            db,
            find_resource: db.prepare("SELECT id FROM resources WHERE digest = ?1")?,
            put_resource: db.prepare(
                "INSERT INTO resources (digest, last_trace, service, attributes, raw) VALUES (?1, 0, ?2, ?3, ?4)",
            )?,
            find_scope: db.prepare("SELECT id FROM scopes WHERE resource = ?1 AND digest = ?2")?,
            put_scope: db.prepare(
                "INSERT INTO scopes (resource, digest, last_trace, name, version, raw) VALUES (?1, ?2, 0, ?3, ?4, ?5)",
            )?,
            resources: Rows::default(),
            scopes: Rows::default(),
        })
    }

    /// The row of a scope, for a span of `trace`.
    pub(super) fn of_scope(&mut self, parts: &Parts<'_>, scope: u32, trace: i64) -> Result<i64, StoreFailure> {
        if let Some(used) = self.scopes.get_mut(&scope) {
            used.newest_trace = used.newest_trace.max(trace);
            return Ok(used.id);
        }
        let found = &parts.scopes[scope as usize];
        let resource = self.of_resource(parts, found.resource)?;
        let id = self.find_or_put_scope(found, resource)?;
        self.scopes.insert(scope, Used { id, newest_trace: trace });
        Ok(id)
    }

    fn of_resource(&mut self, parts: &Parts<'_>, resource: u32) -> Result<i64, StoreFailure> {
        if let Some(used) = self.resources.get(&resource) {
            return Ok(used.id);
        }
        let id = self.find_or_put_resource(&parts.resources[resource as usize])?;
        self.resources.insert(resource, Used { id, newest_trace: 0 });
        Ok(id)
    }

    fn find_or_put_resource(&mut self, resource: &Resource<'_>) -> Result<i64, StoreFailure> {
        let digest = digest(&resource.raw);
        if let Some(id) = self.find_resource.query_row([digest], |row| row.get(0)).optional()? {
            return Ok(id);
        }
        let mut attributes = String::new();
        json::put_attributes(&mut attributes, &resource.message(), 1);
        Ok(self.put_resource.insert(params![digest, resource.service, attributes, resource.raw])?)
    }

    fn find_or_put_scope(&mut self, scope: &Scope<'_>, resource: i64) -> Result<i64, StoreFailure> {
        let digest = digest(&scope.raw);
        if let Some(id) = self.find_scope.query_row(params![resource, digest], |row| row.get(0)).optional()? {
            return Ok(id);
        }
        let [name, version] = scope.names();
        Ok(self.put_scope.insert(params![resource, digest, name, version, scope.raw])?)
    }

    /// Writes the newest trace that refers to each row: it goes with that one.
    pub(super) fn finish(mut self, parts: &Parts<'_>) -> Result<(), StoreFailure> {
        let mut touch = self.db.prepare("UPDATE scopes SET last_trace = ?2 WHERE id = ?1 AND last_trace < ?2")?;
        for (scope, used) in &self.scopes {
            touch.execute([used.id, used.newest_trace])?;
            let resource = self.resources.get_mut(&parts.scopes[*scope as usize].resource);
            let resource = resource.expect("a scope's resource has a row before it");
            resource.newest_trace = resource.newest_trace.max(used.newest_trace);
        }
        let mut touch = self.db.prepare("UPDATE resources SET last_trace = ?2 WHERE id = ?1 AND last_trace < ?2")?;
        for used in self.resources.values() {
            touch.execute([used.id, used.newest_trace])?;
        }
        Ok(())
    }
}
