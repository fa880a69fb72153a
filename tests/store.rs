//! What the documents say of the store is true: its tables and columns are those of the file, and their SQL runs, with
//! the bundled SQLite and with the `sqlite3` of the system, which may be years older.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};
use prost::Message;
use rusqlite::Connection;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};
use tailkeep::store::{SIZE_MIN, StoreFile};
use tempfile::TempDir;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a document")
}

/// The trace that the documents ask about, in the file that they name.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(TempDir::new().expect("a folder"));
        let mut file = StoreFile::new(home.store(), SIZE_MIN);
        assert_eq!(file.write(&failed_trace()).expect("it is stored"), 0);
        file.close();
        home
    }

    fn store(&self) -> PathBuf {
        self.0.path().join(".local/share/tailkeep/tailkeep.db")
    }
}

fn failed_trace() -> Vec<u8> {
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..Default::default()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let span = Span {
        trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736u128.to_be_bytes().to_vec(),
        span_id: vec![2; 8],
        name: "GET /cart".into(),
        kind: 2,
        start_time_unix_nano: now - 700_000_000,
        end_time_unix_nano: now,
        attributes: vec![attribute("http.route", "/cart"), attribute("tailkeep.rule", "keep-errors")],
        status: Some(Status { code: 2, message: "out of stock".into() }),
        ..Default::default()
    };
    let resource = Resource {
        attributes: vec![attribute("service.name", "shop"), attribute("k8s.pod.name", "shop-0")],
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// The statements of the blocks of SQL in docs/store.md.
fn statements() -> Vec<String> {
    let text = read("docs/store.md");
    let blocks: Vec<&str> =
        text.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap_or_default()).collect();
    let statements = blocks.concat().split(";\n").map(|statement| statement.trim().to_owned()).collect::<Vec<_>>();
    statements.into_iter().filter(|statement| !statement.is_empty()).collect()
}

/// The lines in README.md that start the `sqlite3` of the system.
fn command_lines() -> Vec<String> {
    read("README.md").lines().filter(|line| line.starts_with("sqlite3 ")).map(str::to_owned).collect()
}

#[test]
fn the_sql_of_the_document_finds_and_shows_a_trace() {
    let home = Home::new();
    let store = Connection::open(home.store()).expect("a store");
    let statements = statements();
    assert!(statements.len() >= 5, "{statements:?}");
    for sql in statements {
        let mut statement = store.prepare(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let row =
            rows.next().unwrap_or_else(|e| panic!("{sql}: {e}")).unwrap_or_else(|| panic!("{sql}: finds nothing"));
        for at in 0..columns {
            let value = row.get_ref(at).expect("a column");
            assert_ne!(value, rusqlite::types::ValueRef::Null, "{sql}: column {at} shows nothing");
        }
    }
}

/// As its user's shell runs it. Where everything must be proven (`.ci/run`) the program has to be there.
#[test]
fn the_sql_of_the_documents_runs_with_the_system_s_own_sqlite() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        assert!(std::env::var_os("TAILKEEP_CI").is_none(), "there is no sqlite3 here: install it");
        eprintln!("skipped: there is no sqlite3 here");
        return;
    }
    let home = Home::new();
    let shell = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).env("HOME", home.0.path()).output().expect("a shell");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{line}: {out}{err}");
        out.into_owned()
    };
    let lines = command_lines();
    assert_eq!(lines.len(), 2);
    assert!(shell(&lines[0]).ends_with("|GET /cart|700.0|keep-errors\n"), "{}", shell(&lines[0]));
    assert_eq!(shell(&lines[1]), "shop|GET /cart|/cart\n");
    for sql in statements() {
        // As one argument it may not begin with a comment.
        let output = Command::new("sqlite3").arg(home.store()).arg(format!("\n{sql}")).output().expect("it runs");
        let shown = String::from_utf8_lossy(&output.stdout);
        let cells: Vec<&str> = shown.lines().next().unwrap_or_default().split('|').collect();
        assert!(output.status.success() && cells.iter().all(|cell| !cell.is_empty()), "{sql}: {output:?}");
    }
}

/// Tables and views with their columns, as docs/store.md has them.
fn documented() -> BTreeMap<String, Vec<String>> {
    let text = read("docs/store.md");
    let (_, table) = text.split_once("| table | column | |").expect("the document has the table");
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let (mut tables, mut name) = (BTreeMap::<String, Vec<String>>::new(), String::new());
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').collect();
        name = words(cells[1]).pop().unwrap_or(name);
        tables.entry(name.clone()).or_default().extend(words(cells[2]));
    }
    tables.values_mut().for_each(|columns| columns.sort());
    tables
}

#[test]
fn the_document_names_every_table_view_and_column_and_no_other() {
    let home = Home::new();
    let store = Connection::open(home.store()).expect("a store");
    let names = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'";
    let mut statement = store.prepare(names).expect("SQL");
    let names = statement.query_map([], |row| row.get::<_, String>(0)).expect("names");
    let mut real = BTreeMap::new();
    for name in names.map(Result::unwrap) {
        let mut statement = store.prepare(&format!("SELECT * FROM {name}")).expect("SQL");
        statement.query([]).expect("it can be read").next().expect("so can its rows");
        let mut columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        columns.sort();
        real.insert(name, columns);
    }
    assert_eq!(documented(), real);
    let version: u32 = store.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
    assert!(read("docs/store.md").contains(&format!("is the schema's version, {version}.")));
}
