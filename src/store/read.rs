//! Reading, for the command line and the admin interface.

use super::{schema, span::hex};
use crate::{
    otlp::wire::put_bytes,
    trace::{TraceId, label::shortened},
};
use rusqlite::{Connection, OptionalExtension, Row, Statement, named_params, params};
use std::{collections::HashSet, path::Path, time::Duration};

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

/// A stored trace, to be asked for its spans.
#[derive(Clone, Debug)]
pub struct StoredTrace {
    pub row: TraceRow,
    /// From the first start to the last end.
    pub envelope: Duration,
    /// Spans with status error.
    pub errors: u64,
    /// `traces.id`
    number: i64,
}

/// Some spans of a stored trace.
#[derive(Debug)]
pub struct StoredPage {
    /// Fields of an `ExportTraceServiceRequest`: every span as it was received, by resource and scope.
    pub body: Vec<u8>,
    last: SpanKey,
}

/// `spans.span_id` and `spans.crc`: a trace's spans in the order of an index.
type SpanKey = (String, i64);

/// A span of a page, before its bytes are fetched.
struct Listed {
    id: i64,
    resource: i64,
    scope: i64,
    start: i64,
}

/// A store that is only read; another process may write it meanwhile.
pub struct Store {
    db: Connection,
}

/// Traces of a page of [`Store::each`].
const PAGE_TRACES: i64 = 1024;
/// A page ends with the span that reaches one of these.
const PAGE_SPANS: i64 = 4096;
const PAGE_BYTES: i64 = 1 << 20;
/// Bytes of resources: more than one has, so that a large one is not repeated for each span.
const PAGE_RESOURCES: i64 = 2 << 20;

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
        let rows = match filter.service.as_deref().map(|service| shortened(service.into())) {
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

    /// Shows every trace that began at `since` or later, in order of arrival. Each page is a short look at the file.
    pub fn each(&self, since: u64, mut show: impl FnMut(TraceRow)) -> Result<(), String> {
        let sql =
            format!("SELECT {COLUMNS}, t.id FROM traces t WHERE t.id > ?1 AND t.start_ns >= ?2 ORDER BY t.id LIMIT ?3");
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        let page = |after: i64| -> rusqlite::Result<Vec<(i64, TraceRow)>> {
            let mut statement = self.db.prepare(&sql)?;
            statement.query_map([after, since, PAGE_TRACES], |row| Ok((row.get(14)?, read_row(row)?)))?.collect()
        };
        let mut last = i64::MIN;
        loop {
            let rows = page(last).map_err(|e| format!("cannot read the store: {e}"))?;
            let Some((newest, _)) = rows.last() else { return Ok(()) };
            last = *newest;
            rows.into_iter().for_each(|(_, row)| show(row));
        }
    }

    /// Services with a stored trace, in order.
    pub fn services(&self) -> Result<Vec<String>, String> {
        self.list_services().map_err(|e| format!("cannot read the store: {e}"))
    }

    /// From one to the next along the index: rows are many, services few.
    fn list_services(&self) -> rusqlite::Result<Vec<String>> {
        let mut next = self.db.prepare("SELECT min(service) FROM trace_services WHERE service > ?1")?;
        let mut services: Vec<String> = self
            .db
            .query_row("SELECT min(service) FROM trace_services", [], |row| row.get::<_, Option<String>>(0))?
            .into_iter()
            .collect();
        while let Some(last) = services.last()
            && let Some(service) = next.query_row([last], |row| row.get::<_, Option<String>>(0))?
        {
            services.push(service);
        }
        Ok(services)
    }

    /// One trace, without its spans.
    pub fn trace(&self, id: TraceId) -> Result<Option<StoredTrace>, String> {
        self.read_trace(id).map_err(|e| format!("cannot read the store: {e}"))
    }

    fn read_trace(&self, id: TraceId) -> rusqlite::Result<Option<StoredTrace>> {
        let sql = format!(
            "SELECT {COLUMNS}, t.id, t.end_ns,
                    (SELECT count(*) FROM spans s WHERE s.trace = t.id AND s.status = 'error')
             FROM traces t WHERE t.trace_id = ?1"
        );
        let read = |row: &Row<'_>| {
            let (start, end): (i64, i64) = (row.get(1)?, row.get(15)?);
            let envelope = Duration::from_nanos(end.saturating_sub(start).max(0) as u64);
            let errors = row.get::<_, i64>(16)?.max(0) as u64;
            Ok(StoredTrace { row: read_row(row)?, envelope, errors, number: row.get(14)? })
        };
        self.db.query_row(&sql, [hex(&id.0)], read).optional()
    }

    /// The spans of a trace behind those of `after`; none if there are no more. Each page is a short look at the file,
    /// so that whoever takes his time between two holds up nobody. A trace that is deleted meanwhile just ends.
    pub fn spans(&self, trace: &StoredTrace, after: Option<&StoredPage>) -> Result<Option<StoredPage>, String> {
        let first = (String::new(), -1);
        let after = after.map_or(&first, |page| &page.last);
        self.read_spans(trace.number, after).map_err(|e| format!("cannot read the store: {e}"))
    }

    fn read_spans(&self, trace: i64, after: &SpanKey) -> rusqlite::Result<Option<StoredPage>> {
        // All statements see one state of the file, also while another process writes.
        let snapshot = self.db.unchecked_transaction()?;
        let Some((mut listed, last)) = list(&snapshot, trace, after)? else { return Ok(None) };
        listed.sort_unstable_by_key(|span| (span.resource, span.scope, span.start, span.id));
        let find = |table| snapshot.prepare(&format!("SELECT raw FROM {table} WHERE id = ?1"));
        let (mut resources, mut scopes, mut spans) = (find("resources")?, find("scopes")?, find("spans")?);
        let raw = |find: &mut Statement<'_>, id: i64| find.query_row([id], |row| row.get::<_, Vec<u8>>(0));
        let mut body = Vec::new();
        for of_resource in listed.chunk_by(|a, b| a.resource == b.resource) {
            let mut resource = raw(&mut resources, of_resource[0].resource)?;
            for of_scope in of_resource.chunk_by(|a, b| a.scope == b.scope) {
                let mut scope = raw(&mut scopes, of_scope[0].scope)?;
                for span in of_scope {
                    put_bytes(&mut scope, 2, &raw(&mut spans, span.id)?);
                }
                put_bytes(&mut resource, 2, &scope);
            }
            put_bytes(&mut body, 1, &resource);
        }
        Ok(Some(StoredPage { body, last }))
    }
}

/// The next spans by the index, and where they end.
fn list(db: &Connection, trace: i64, after: &SpanKey) -> rusqlite::Result<Option<(Vec<Listed>, SpanKey)>> {
    let mut statement = db.prepare(
        "SELECT s.id, s.scope, s.start_ns, length(s.raw), s.span_id, s.crc, c.resource, length(c.raw), length(r.raw)
         FROM spans s JOIN scopes c ON c.id = s.scope JOIN resources r ON r.id = c.resource
         WHERE s.trace = ?1 AND (s.span_id, s.crc) > (?2, ?3) ORDER BY s.span_id, s.crc LIMIT ?4",
    )?;
    let mut rows = statement.query(params![trace, after.0, after.1, PAGE_SPANS])?;
    let (mut resources, mut scopes) = (HashSet::new(), HashSet::new());
    let (mut listed, mut own, mut shared, mut last) = (Vec::new(), 0, 0, None);
    while let Some(row) = rows.next()? {
        let span = Listed { id: row.get(0)?, resource: row.get(6)?, scope: row.get(1)?, start: row.get(2)? };
        own += row.get::<_, i64>(3)?;
        if scopes.insert(span.scope) {
            own += row.get::<_, i64>(7)?;
        }
        if resources.insert(span.resource) {
            shared += row.get::<_, i64>(8)?;
        }
        listed.push(span);
        last = Some((row.get(4)?, row.get(5)?));
        if own >= PAGE_BYTES || shared >= PAGE_RESOURCES {
            break;
        }
    }
    Ok(last.map(|last| (listed, last)))
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
