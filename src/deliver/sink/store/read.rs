//! Reading, for the command line and the admin interface.

use super::{
    schema,
    span::{Context, hex},
};
use crate::{deliver::batch::put_bytes, trace::TraceId};
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use std::{path::Path, time::Duration};

/// Which traces to list. The default is all.
#[derive(Clone, Debug, Default)]
pub struct TraceFilter {
    /// A service that takes part, not only the entry's.
    pub service: Option<String>,
    /// Only traces with a failed span.
    pub errors: bool,
    /// Only traces that take at least this long.
    pub slower: Option<Duration>,
    /// Only traces that began then or later, Unix nanoseconds.
    pub since: Option<u64>,
    pub limit: usize,
}

/// A stored trace without its spans.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceRow {
    pub trace_id: TraceId,
    /// Unix nanoseconds.
    pub start: i64,
    pub duration: Duration,
    /// Of the entry span.
    pub service: String,
    pub name: String,
    pub services: Vec<String>,
    pub error: bool,
    pub span_count: u64,
    /// Of protobuf.
    pub bytes: u64,
    pub rule: Option<String>,
    pub trigger: Option<String>,
    pub reason: Option<String>,
    pub incomplete: Option<String>,
    /// `th` of the tracestate.
    pub threshold: Option<String>,
}

/// A stored trace with its spans.
#[derive(Clone, Debug)]
pub struct StoredTrace {
    pub row: TraceRow,
    /// Protobuf of an `ExportTraceServiceRequest`: every span as it was received, by resource and scope.
    pub body: Vec<u8>,
}

/// A store that is only read; another process may write it meanwhile.
pub struct Store {
    db: Connection,
}

const COLUMNS: &str =
    "t.trace_id, t.start_ns, t.duration_ns, t.service, t.name, t.services, t.error, t.span_count, t.bytes,
    t.rule, t.trigger, t.reason, t.incomplete, t.threshold";

impl Store {
    /// The error says what is wrong with the file, and names it.
    pub fn open_read(path: &Path) -> Result<Store, String> {
        schema::open_read(path).map(|db| Store { db })
    }

    /// The newest traces that match, newest first.
    pub fn traces(&self, filter: &TraceFilter) -> Result<Vec<TraceRow>, String> {
        self.find(filter).map_err(|e| format!("cannot read the store: {e}"))
    }

    fn find(&self, filter: &TraceFilter) -> rusqlite::Result<Vec<TraceRow>> {
        let mut statement = self.db.prepare(&query(filter))?;
        let slower = filter.slower.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
        let since = filter.since.map_or(i64::MIN, |since| i64::try_from(since).unwrap_or(i64::MAX));
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        let rows = match &filter.service {
            Some(service) => statement.query_map(
                named_params! {":service": service, ":slower": slower, ":since": since, ":limit": limit},
                read_row,
            )?,
            None => {
                statement.query_map(named_params! {":slower": slower, ":since": since, ":limit": limit}, read_row)?
            }
        };
        rows.collect()
    }

    /// One trace with all spans that are stored of it.
    pub fn trace(&self, id: TraceId) -> Result<Option<StoredTrace>, String> {
        self.read_trace(id).map_err(|e| format!("cannot read the store: {e}"))
    }

    fn read_trace(&self, id: TraceId) -> rusqlite::Result<Option<StoredTrace>> {
        // Both statements see one state of the file, also while another process writes.
        let snapshot = self.db.unchecked_transaction()?;
        let sql = format!("SELECT {COLUMNS}, t.id FROM traces t WHERE t.trace_id = ?1");
        let find = |row: &Row<'_>| Ok((read_row(row)?, row.get::<_, i64>(14)?));
        let Some((row, trace)) = snapshot.query_row(&sql, [hex(&id.0)], find).optional()? else { return Ok(None) };
        let mut statement = snapshot.prepare(
            "SELECT s.context, s.raw, c.raw_resource, c.raw_scope FROM spans s JOIN contexts c ON c.id = s.context
             WHERE s.trace = ?1 ORDER BY s.context, s.start_ns",
        )?;
        let mut spans = statement.query([trace])?;
        let mut groups: Vec<(i64, Context, Vec<u8>)> = Vec::new();
        while let Some(span) = spans.next()? {
            let context: i64 = span.get(0)?;
            if groups.last().is_none_or(|(last, ..)| *last != context) {
                let bytes = Context { raw_resource: span.get(2)?, raw_scope: span.get(3)? };
                groups.push((context, bytes, Vec::new()));
            }
            let (_, _, spans) = groups.last_mut().expect("one was pushed");
            put_bytes(spans, 2, span.get_ref(1)?.as_blob()?);
        }
        Ok(Some(StoredTrace { row, body: request(groups) }))
    }
}

/// One `ResourceSpans` per group.
fn request(groups: Vec<(i64, Context, Vec<u8>)>) -> Vec<u8> {
    let mut body = Vec::new();
    for (_, context, spans) in groups {
        let scope = [context.raw_scope, spans].concat();
        let mut resource = context.raw_resource;
        put_bytes(&mut resource, 2, &scope);
        put_bytes(&mut body, 1, &resource);
    }
    body
}

/// Each shape of this query walks one index from its newest end and looks up only rows that match.
fn query(filter: &TraceFilter) -> String {
    let (from, table) = match filter.service {
        Some(_) => ("trace_services s JOIN traces t ON t.id = s.trace WHERE s.service = :service AND", "s"),
        None => ("traces t WHERE", "t"),
    };
    let errors = if filter.errors { format!("AND {table}.error = 1") } else { String::new() };
    format!(
        "SELECT {COLUMNS} FROM {from} {table}.start_ns >= :since {errors} AND {table}.duration_ns >= :slower
         ORDER BY {table}.start_ns DESC LIMIT :limit"
    )
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<TraceRow> {
    let (trace_id, services): (String, String) = (row.get(0)?, row.get(5)?);
    Ok(TraceRow {
        trace_id: TraceId::parse(&trace_id).unwrap_or_default(),
        start: row.get(1)?,
        duration: Duration::from_nanos(row.get::<_, i64>(2)?.max(0) as u64),
        service: row.get(3)?,
        name: row.get(4)?,
        services: serde_json::from_str(&services).unwrap_or_default(),
        error: row.get(6)?,
        span_count: row.get::<_, i64>(7)?.max(0) as u64,
        bytes: row.get::<_, i64>(8)?.max(0) as u64,
        rule: row.get(9)?,
        trigger: row.get(10)?,
        reason: row.get(11)?,
        incomplete: row.get(12)?,
        threshold: row.get(13)?,
    })
}

/// The plan that SQLite makes for a filter, for a test.
#[cfg(test)]
pub(super) fn plan(store: &Store, filter: &TraceFilter) -> String {
    let mut statement = store.db.prepare(&format!("EXPLAIN QUERY PLAN {}", query(filter))).unwrap();
    // Parameters stay unbound: NULL changes no plan.
    let steps = statement.raw_query();
    steps.mapped(|row| row.get::<_, String>(3)).map(Result::unwrap).collect::<Vec<_>>().join("; ")
}
