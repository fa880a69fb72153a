//! Writing: few transactions per batch, the oldest traces deleted first where the file is full.
//!
//! A reader that stays at an old state of the file (a pager that nobody scrolls, a forgotten shell) keeps SQLite from
//! using its write-ahead log again. The log has a bound all the same: a batch is written in transactions that fit into
//! it, and what does not fit any more waits until the reader ends.

use super::{
    context::ContextRows,
    failure::StoreFailure,
    json, place,
    room::{DROP_SERVICE, evict, free_bytes, make_room, stored_among, used_pages},
    schema::{self, PAGE},
    span::{Parts, StoredSpan, TraceState, hex},
};
use crate::trace::{Incomplete, Standing, TraceId};
use rusqlite::{Connection, OptionalExtension, Statement, Transaction, TransactionBehavior, params};
use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    mem,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tracing::warn;

/// A span takes its raw bytes, about the same again as columns, and the slack of its pages.
const GROWTH: u64 = 4;
/// The same where all of it is control characters, of which each is six in JSON.
const GROWTH_MAX: u64 = 8;
/// Bytes of a row besides: of a span, a scope or a resource.
const ROW_BYTES: u64 = 256;
/// Pages that a trace changes at places of their own: in its table, in indexes by its id, and as many for an old one
/// that makes room.
const TRACE_PAGES: u64 = 8;
/// Pages that a transaction may need besides: tables, indexes, free list.
const SPARE_PAGES: u64 = 128;
/// The part of the size that is the write-ahead log's, between these bounds.
const LOG_SHARE: u64 = 4;
const LOG_MIN: u64 = 8 << 20;
const LOG_MAX: u64 = 64 << 20;
/// How long a writer whose log is full waits for readers to end.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pages given back in one transaction.
const VACUUM_STEP: u64 = 256;

/// Keeps other processes from the file: two writers would give the same numbers to their traces.
fn lock(path: &Path) -> Result<File, StoreFailure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let opened = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&name));
    let file = opened.map_err(|error| StoreFailure::Later(format!("{}: {error}", name.display())))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(StoreFailure::Later("another tailkeep writes this file: give each a `path` of its own".to_owned()))
        }
        // Some file systems have no locks.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// The one writer of a store.
pub(super) struct StoreWriter {
    db: Connection,
    path: PathBuf,
    /// Bytes of the database and its write-ahead log.
    size: u64,
    /// Of the database.
    max_pages: u64,
    /// Bytes of the log, when the database is full.
    log_max: u64,
    next_trace: i64,
    /// Held as long as this writer numbers traces.
    _lock: File,
}

impl StoreWriter {
    pub(super) fn open(path: &Path, size: u64) -> Result<StoreWriter, StoreFailure> {
        let lock = lock(path)?;
        let log_max = (size / LOG_SHARE).clamp(LOG_MIN, LOG_MAX);
        let database = size - log_max;
        let db = schema::open_write(path, database, log_max)?;
        let next_trace = db.query_row("SELECT coalesce(max(id), 0) + 1 FROM traces", [], |row| row.get(0))?;
        let (path, max_pages) = (path.to_owned(), database / PAGE);
        let mut writer = StoreWriter { db, path, size, max_pages, log_max, next_trace, _lock: lock };
        writer.shrink()?;
        Ok(writer)
    }

    /// The configured size may be smaller than it was. In steps, for all of it goes through the log.
    fn shrink(&mut self) -> Result<(), StoreFailure> {
        let excess =
            |writer: &StoreWriter| Ok::<_, StoreFailure>(writer.number("page_count")?.saturating_sub(writer.max_pages));
        if excess(self)? == 0 {
            return Ok(());
        }
        loop {
            let excess = excess(self)?;
            if excess == 0 {
                // The file itself is cut when the log is in it.
                return self.checkpoint();
            }
            self.ensure_log(self.log_max / 2)?;
            let transaction = self.db.transaction()?;
            if self.max_pages.saturating_sub(used_pages(&transaction)?) < SPARE_PAGES {
                evict(&transaction, SPARE_PAGES * PAGE)?;
            }
            transaction.commit()?;
            // Each step of this statement gives back one page.
            let mut vacuum = self.db.prepare(&format!("PRAGMA incremental_vacuum({})", excess.min(VACUUM_STEP)))?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
        }
    }

    fn number(&self, pragma: &str) -> Result<u64, StoreFailure> {
        Ok(self.db.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0))?.into())
    }

    /// Moves what the log holds into the database, before the files are left.
    pub(super) fn finish(&mut self) {
        let _ = self.db.busy_timeout(Duration::ZERO);
        let _ = self.checkpoint();
    }

    /// Moves all of the log into the database, and cuts it to nothing if no reader needs it.
    fn checkpoint(&self) -> Result<(), StoreFailure> {
        Ok(self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// Room for `need` bytes in the log, or an error: a reader holds an older state of the file.
    fn ensure_log(&self, need: u64) -> Result<(), StoreFailure> {
        // What the database does not use yet, the log may.
        let room = self.size.saturating_sub(self.number("page_count")? * PAGE).max(self.log_max);
        let needed = place::log_len(&self.path) + need;
        if needed <= self.log_max {
            return Ok(());
        }
        self.db.busy_timeout(if needed <= room { Duration::ZERO } else { PATIENCE })?;
        let outcome = self.checkpoint();
        self.db.busy_timeout(schema::BUSY)?;
        outcome?;
        let bytes = place::log_len(&self.path);
        if bytes == 0 || bytes + need <= room {
            return Ok(());
        }
        Err(StoreFailure::Later(format!(
            "somebody reads it for so long that its log cannot be used again, and at {} MiB the log is full: end the \
             program that keeps a query open",
            bytes >> 20
        )))
    }

    /// Each trace of the batch whole or not at all. Returns the number of spans that are no spans.
    pub(super) fn write(&mut self, body: &[u8]) -> Result<u64, StoreFailure> {
        let parts = Parts::of(body).ok_or(StoreFailure::Malformed)?;
        // Twice in all: what is too much for one transaction is to be split.
        let most = self.log_max.min(self.max_pages * PAGE);
        for (range, need) in portions(&parts, most / 2) {
            if need > most {
                return Err(StoreFailure::TooLarge);
            }
            self.ensure_log(need)?;
            match self.write_parts(&parts, range.clone(), need) {
                Err(StoreFailure::Full(_)) if at_worst(need) > self.max_pages * PAGE => Err(StoreFailure::TooLarge),
                // The estimate was too low (or the disk is full, and this fails again).
                Err(StoreFailure::Full(_)) => {
                    let with_slack = 2 * at_worst(need);
                    match self.write_parts(&parts, range, with_slack) {
                        Err(StoreFailure::Full(_)) if with_slack > self.max_pages * PAGE => Err(StoreFailure::TooLarge),
                        outcome => outcome,
                    }
                }
                outcome => outcome,
            }?;
        }
        Ok(parts.rejected)
    }

    fn write_parts(&mut self, parts: &Parts<'_>, traces: Range<usize>, need: u64) -> Result<(), StoreFailure> {
        let first_trace = self.next_trace;
        let outcome = self.try_write_parts(parts, traces, need);
        if outcome.is_err() {
            // What was rolled back is not there.
            self.next_trace = first_trace;
        }
        outcome
    }

    fn try_write_parts(&mut self, parts: &Parts<'_>, traces: Range<usize>, need: u64) -> Result<(), StoreFailure> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let traces = &parts.traces[traces];
        let is_full = free_bytes(&transaction, self.max_pages)? < need;
        let before = if is_full { stored_among(&transaction, traces)? } else { HashSet::new() };
        make_room(&transaction, self.max_pages, need)?;
        let left = if before.is_empty() { HashSet::new() } else { stored_among(&transaction, traces)? };
        let mut contexts = ContextRows::prepare(&transaction)?;
        let mut statements = Statements::prepare(&transaction)?;
        for (trace_id, spans) in traces {
            let is_cut = before.contains(trace_id) && !left.contains(trace_id);
            if is_cut {
                warn!(%trace_id, "the store was full: the spans that it had of a trace made room for those that follow");
            }
            statements.add(trace_id, spans, is_cut, parts, &mut contexts, &mut self.next_trace)?;
        }
        drop(statements);
        contexts.finish(parts)?;
        Ok(transaction.commit()?)
    }
}

/// The traces of a batch in runs that need at most about `most` bytes, or are one trace; with what each needs. The
/// first in which a resource or scope is brings it.
fn portions(parts: &Parts<'_>, most: u64) -> Vec<(Range<usize>, u64)> {
    let mut portions: Vec<(Range<usize>, u64)> = Vec::new();
    let mut unbrought = NewContexts::of(parts);
    for (at, (_, spans)) in parts.traces.iter().enumerate() {
        let bytes: u64 = spans.iter().map(|stored| row_bytes(stored.raw) + unbrought.bring(parts, stored.scope)).sum();
        let need = bytes + TRACE_PAGES * PAGE;
        match portions.last_mut().filter(|(_, sum)| *sum + need <= most) {
            Some((range, sum)) => (range.end, *sum) = (at + 1, *sum + need),
            None => portions.push((at..at + 1, SPARE_PAGES * PAGE + need)),
        }
    }
    portions
}

/// The bytes of a portion that needs so many, if the estimate was as wrong as can be; twice that if each row is just
/// too long for two of them to share a page.
fn at_worst(need: u64) -> u64 {
    (need - SPARE_PAGES * PAGE) * GROWTH_MAX / GROWTH + SPARE_PAGES * PAGE
}

fn row_bytes(raw: &[u8]) -> u64 {
    raw.len() as u64 * GROWTH + ROW_BYTES
}

/// What the rows of resources and scopes take that no trace before has brought; nothing for others.
struct NewContexts {
    resources: Vec<u64>,
    scopes: Vec<u64>,
}

impl NewContexts {
    fn of(parts: &Parts<'_>) -> NewContexts {
        NewContexts {
            resources: parts.resources.iter().map(|resource| row_bytes(&resource.raw)).collect(),
            scopes: parts.scopes.iter().map(|scope| row_bytes(&scope.raw)).collect(),
        }
    }

    fn bring(&mut self, parts: &Parts<'_>, scope: u32) -> u64 {
        let resource = parts.scopes[scope as usize].resource;
        mem::take(&mut self.scopes[scope as usize]) + mem::take(&mut self.resources[resource as usize])
    }
}

/// Prepared once per transaction, used for every trace and span of it.
struct Statements<'a> {
    find_trace: Statement<'a>,
    put_trace: Statement<'a>,
    put_span: Statement<'a>,
    put_service: Statement<'a>,
    drop_service: Statement<'a>,
    /// Of the span at hand, as JSON.
    attributes: String,
}

impl<'a> Statements<'a> {
    fn prepare(db: &'a Transaction<'_>) -> Result<Statements<'a>, StoreFailure> {
        Ok(Statements {
            find_trace: db.prepare(
                "SELECT id, start_ns, end_ns, duration_ns, service, name, services, error, span_count, bytes, rule, trigger,
                        reason, incomplete, threshold, entry_span_id, entry_standing, entry_start_ns, longest_entry_ns,
                        longest_span_ns
                 FROM traces WHERE trace_id = ?1",
            )?,
            put_trace: db.prepare(
                "INSERT OR REPLACE INTO traces (id, trace_id, start_ns, end_ns, duration_ns, service, name, services, error,
                        span_count, bytes, rule, trigger, reason, incomplete, threshold, entry_span_id, entry_standing,
                        entry_start_ns, longest_entry_ns, longest_span_ns)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?,
            put_span: db.prepare(
                "INSERT OR IGNORE INTO spans (trace, span_id, crc, parent_id, scope, name, kind, status, status_message,
                        start_ns, duration_ns, attributes, raw)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?,
            put_service: db.prepare(
                "INSERT INTO trace_services (service, start_ns, trace, error, duration_ns) VALUES (?, ?, ?, ?, ?)",
            )?,
            drop_service: db.prepare(DROP_SERVICE)?,
            attributes: String::new(),
        })
    }

    /// Adds spans to a new or a stored trace.
    fn add(
        &mut self,
        trace_id: &TraceId,
        spans: &[StoredSpan<'_>],
        is_cut: bool,
        parts: &Parts<'_>,
        contexts: &mut ContextRows<'_>,
        next_trace: &mut i64,
    ) -> Result<(), StoreFailure> {
        let text = trace_id.to_string();
        let stored = self.find_trace.query_row([&text], |row| Ok((row.get(0)?, read_state(row)?))).optional()?;
        let is_new = stored.is_none();
        let (trace, before) = stored.unwrap_or((*next_trace, TraceState::default()));
        let mut state = before.clone();
        if is_cut {
            state.incomplete = Some(Incomplete::Evicted.word().to_owned());
        }
        for stored in spans {
            let scope = contexts.of_scope(parts, stored.scope, trace)?;
            if self.put_span(trace, stored, scope)? {
                state.observe(stored, parts.service_of(stored.scope));
            }
        }
        if state == before {
            return Ok(());
        }
        *next_trace += i64::from(is_new);
        for service in &before.services {
            self.drop_service.execute(params![&**service, before.start, trace])?;
        }
        for service in &state.services {
            self.put_service.execute(params![&**service, state.start, trace, state.error, state.duration])?;
        }
        self.put_trace(trace, &text, &state)
    }

    /// False if the same span is there already.
    fn put_span(&mut self, trace: i64, stored: &StoredSpan<'_>, scope: i64) -> Result<bool, StoreFailure> {
        let shown = &stored.shown();
        let parent = (stored.standing != Standing::Root).then(|| hex(shown.parent_id));
        self.attributes.clear();
        json::put_attributes(&mut self.attributes, stored.raw, 9);
        let added = self.put_span.execute(params![
            trace,
            hex(shown.span_id),
            stored.crc,
            parent,
            scope,
            shown.name(),
            shown.kind().word(),
            shown.status().word(),
            shown.status_message(),
            shown.start(),
            shown.duration(),
            self.attributes,
            stored.raw,
        ])?;
        Ok(added > 0)
    }

    fn put_trace(&mut self, trace: i64, trace_id: &str, state: &TraceState) -> Result<(), StoreFailure> {
        self.put_trace.execute(params![
            trace,
            trace_id,
            state.start,
            state.end,
            state.duration,
            state.service,
            state.name,
            json::array(state.services.iter().map(|service| &**service)),
            state.error,
            state.span_count,
            state.bytes,
            state.rule,
            state.trigger,
            state.reason,
            state.incomplete,
            state.threshold,
            state.entry_span_id,
            state.entry_standing as u8,
            state.entry_start,
            state.longest_entry,
            state.longest_span,
        ])?;
        Ok(())
    }
}

fn read_state(row: &rusqlite::Row<'_>) -> rusqlite::Result<TraceState> {
    let services: Vec<String> = serde_json::from_str(row.get_ref(6)?.as_str()?).unwrap_or_default();
    Ok(TraceState {
        start: row.get(1)?,
        end: row.get(2)?,
        duration: row.get(3)?,
        service: row.get(4)?,
        name: row.get(5)?,
        services: services.into_iter().map(Arc::from).collect(),
        error: row.get(7)?,
        span_count: row.get(8)?,
        bytes: row.get(9)?,
        rule: row.get(10)?,
        trigger: row.get(11)?,
        reason: row.get(12)?,
        incomplete: row.get(13)?,
        threshold: row.get(14)?,
        entry_span_id: row.get(15)?,
        entry_standing: match row.get(16)? {
            2 => Standing::Root,
            1 => Standing::Entry,
            _ => Standing::Inner,
        },
        entry_start: row.get(17)?,
        longest_entry: row.get(18)?,
        longest_span: row.get(19)?,
    })
}
