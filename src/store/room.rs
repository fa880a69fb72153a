//! Room in the file: what is used of it, and how the oldest traces make more.

use super::{failure::StoreFailure, schema::PAGE, span::StoredSpan};
use crate::trace::TraceId;
use rusqlite::{Connection, Transaction, params};
use std::collections::HashSet;
use tracing::debug;

/// Traces looked at in one step of eviction.
const EVICT_STEP: u32 = 256;
pub(super) const DROP_SERVICE: &str = "DELETE FROM trace_services WHERE service = ?1 AND start_ns = ?2 AND trace = ?3";

pub(super) fn used_pages(db: &Connection) -> Result<u64, StoreFailure> {
    let number = |name| db.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
    Ok(number("page_count")?.saturating_sub(number("freelist_count")?).into())
}

pub(super) fn free_bytes(db: &Connection, max_pages: u64) -> Result<u64, StoreFailure> {
    Ok(max_pages.saturating_sub(used_pages(db)?) * PAGE)
}

/// Those of the traces of which there are spans.
pub(super) fn stored_among(
    db: &Transaction<'_>,
    traces: &[(TraceId, Vec<StoredSpan<'_>>)],
) -> Result<HashSet<TraceId>, StoreFailure> {
    let mut find = db.prepare("SELECT 1 FROM traces WHERE trace_id = ?1")?;
    let mut found = HashSet::new();
    for (trace_id, _) in traces {
        if find.exists([trace_id.to_string()])? {
            found.insert(*trace_id);
        }
    }
    Ok(found)
}

/// Deletes the oldest traces until `need` bytes are free. Returns how many.
pub(super) fn make_room(db: &Transaction<'_>, max_pages: u64, need: u64) -> Result<u64, StoreFailure> {
    let mut evicted = 0;
    loop {
        let free = free_bytes(db, max_pages)?;
        if free >= need {
            break;
        }
        match evict(db, need - free)? {
            0 => break,
            traces => evicted += traces,
        }
    }
    if evicted > 0 {
        // A full store is the usual state, and each batch makes room: in the log where it is asked for.
        debug!(traces = evicted, "the store is full: its oldest traces were deleted");
    }
    Ok(evicted)
}

/// Deletes the oldest traces with about `bytes` of spans, at most [`EVICT_STEP`].
pub(super) fn evict(db: &Transaction<'_>, bytes: u64) -> Result<u64, StoreFailure> {
    let mut oldest = db.prepare("SELECT id, start_ns, services, bytes FROM traces ORDER BY id LIMIT ?1")?;
    let mut drop_service = db.prepare(DROP_SERVICE)?;
    let (mut last, mut freed, mut traces) = (0, 0, 0);
    let mut rows = oldest.query([EVICT_STEP])?;
    while let Some(row) = rows.next()? {
        let (start, services): (i64, String) = (row.get(1)?, row.get(2)?);
        last = row.get(0)?;
        for service in serde_json::from_str::<Vec<String>>(&services).unwrap_or_default() {
            drop_service.execute(params![service, start, last])?;
        }
        traces += 1;
        freed += row.get::<_, i64>(3)?.max(0) as u64;
        if freed >= bytes {
            break;
        }
    }
    drop(rows);
    db.execute("DELETE FROM spans WHERE trace <= ?1", [last])?;
    db.execute("DELETE FROM traces WHERE id <= ?1", [last])?;
    db.execute("DELETE FROM scopes WHERE last_trace <= ?1", [last])?;
    db.execute("DELETE FROM resources WHERE last_trace <= ?1", [last])?;
    Ok(traces)
}
