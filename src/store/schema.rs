//! The tables, and what a connection is set to. docs/store.md describes the columns.

use super::failure::StoreFailure;
use rusqlite::{Connection, OpenFlags};
use std::{path::Path, time::Duration};

/// `PRAGMA user_version` of the file.
pub const SCHEMA_VERSION: u32 = 2;
/// `PRAGMA application_id`: "tkst".
const APPLICATION: u32 = 0x746b_7374;
/// Bytes. Several spans fit into a page, and rows grow at the table's end.
pub(super) const PAGE: u64 = 8192;
/// Another process that reads delays a writer only for moments.
pub(super) const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE traces (
    id INTEGER PRIMARY KEY,
    trace_id TEXT NOT NULL UNIQUE,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    services TEXT NOT NULL,
    error INTEGER NOT NULL,
    span_count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    rule TEXT,
    trigger TEXT,
    reason TEXT,
    incomplete TEXT,
    threshold TEXT,
    entry_span_id TEXT NOT NULL,
    entry_standing INTEGER NOT NULL,
    entry_start_ns INTEGER NOT NULL,
    longest_entry_ns INTEGER NOT NULL,
    longest_span_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX traces_by_start ON traces (start_ns, error, duration_ns);

CREATE TABLE trace_services (
    service TEXT NOT NULL,
    start_ns INTEGER NOT NULL,
    trace INTEGER NOT NULL,
    error INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    PRIMARY KEY (service, start_ns, trace)
) STRICT, WITHOUT ROWID;

CREATE TABLE resources (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    last_trace INTEGER NOT NULL,
    service TEXT NOT NULL,
    attributes TEXT NOT NULL,
    raw BLOB NOT NULL
) STRICT;
CREATE INDEX resources_by_last_trace ON resources (last_trace);

CREATE TABLE scopes (
    id INTEGER PRIMARY KEY,
    resource INTEGER NOT NULL,
    digest BLOB NOT NULL,
    last_trace INTEGER NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    raw BLOB NOT NULL,
    UNIQUE (resource, digest)
) STRICT;
CREATE INDEX scopes_by_last_trace ON scopes (last_trace);

CREATE TABLE spans (
    id INTEGER PRIMARY KEY,
    trace INTEGER NOT NULL,
    span_id TEXT NOT NULL,
    crc INTEGER NOT NULL,
    parent_id TEXT,
    scope INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    status_message TEXT,
    start_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    attributes TEXT NOT NULL,
    raw BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX spans_by_trace ON spans (trace, span_id, crc);

CREATE VIEW span_list AS
    SELECT t.trace_id, s.span_id, s.parent_id, r.service, s.name, s.kind, s.status, s.status_message,
           s.start_ns, s.duration_ns, s.attributes, r.attributes AS resource, c.name AS scope, c.version AS scope_version,
           t.rule
    FROM traces t JOIN spans s ON s.trace = t.id JOIN scopes c ON c.id = s.scope JOIN resources r ON r.id = c.resource;
";

/// The one connection that writes: at most `database` bytes of a database. The log is cut to `log` bytes when it
/// begins anew.
pub(super) fn open_write(path: &Path, database: u64, log: u64) -> Result<Connection, StoreFailure> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| StoreFailure::Later(e.to_string()))?;
    }
    // Its owner is one thread at a time: SQLite need not lock.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    if file_version(&db)? == SchemaVersion::Empty {
        // The page size and the vacuum mode are fixed once the first table is there.
        db.execute_batch(&format!("PRAGMA page_size = {PAGE}; PRAGMA auto_vacuum = incremental;"))?;
        create(&mut db)?;
    }
    // A crash of the process loses nothing; of the machine, perhaps the last moments, but no consistency.
    db.execute_batch(&format!(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = normal; PRAGMA journal_size_limit = {}; PRAGMA cache_size = -4096;",
        log
    ))?;
    db.pragma_update_and_check(None, "max_page_count", (database / PAGE) as i64, |_| Ok(()))?;
    Ok(db)
}

/// A connection that only reads, also while another process writes.
pub(super) fn open_read(path: &Path) -> Result<Connection, String> {
    let shown = path.display();
    if !path.exists() {
        return Err(format!("there is no store at {shown}; `tailkeep run` creates it when the first trace is kept"));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(|e| format!("cannot open {shown}: {e}"))?;
    db.busy_timeout(BUSY).map_err(|e| format!("cannot open {shown}: {e}"))?;
    match file_version(&db) {
        Ok(SchemaVersion::Ours) => Ok(db),
        Ok(SchemaVersion::Empty) => Err(format!("the store at {shown} is empty yet")),
        Err(StoreFailure::Later(reason) | StoreFailure::Damaged(reason) | StoreFailure::Full(reason)) => {
            Err(format!("{shown}: {reason}"))
        }
        Err(StoreFailure::TooLarge | StoreFailure::Malformed) => unreachable!("only writing a batch says this"),
    }
}

#[derive(PartialEq)]
enum SchemaVersion {
    Empty,
    Ours,
}

/// Somebody else's database is left alone.
fn file_version(db: &Connection) -> Result<SchemaVersion, StoreFailure> {
    let number = |name| db.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
    let tables: u32 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let (application, version) = (number("application_id")?, number("user_version")?);
    match (application, version) {
        (APPLICATION, SCHEMA_VERSION) => Ok(SchemaVersion::Ours),
        (APPLICATION, _) => {
            let knows = format!("its schema has version {version}, this program knows {SCHEMA_VERSION}");
            Err(StoreFailure::Later(format!("{knows}: move the file away, or name another `path`")))
        }
        (0, 0) if tables == 0 => Ok(SchemaVersion::Empty),
        _ => Err(StoreFailure::Later("is a database of another program; name another path".to_owned())),
    }
}

fn create(db: &mut Connection) -> Result<(), StoreFailure> {
    let transaction = db.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    Ok(transaction.commit()?)
}
