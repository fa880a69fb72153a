//! Holds the code to ARCHITECTURE.md: which module uses which, what pure code leaves out, and how long
//! files and functions are. It reads the sources as text, so it needs nothing but them.

use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Code that an hour of traffic can be played to in a second: time and randomness are arguments.
const PURE: &[&str] = &[
    "trace",
    "otlp",
    "scan",
    "ring",
    "shard",
    "policy",
    "policy_test",
    "plan",
    "estimate",
    "suggest",
    "import",
    "processing",
    "measure",
    "fleet",
    "yaml",
    "diagnostic",
];
/// What pure code leaves out.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "tokio",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "getrandom",
    "async ",
];
/// Lines of code of a file: without blank lines, comments and tests.
const FILE_LINES_MAX: usize = 450;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// One source file.
struct Source {
    /// As in `src/deliver/queue.rs`.
    path: String,
    /// The module directly below the crate: `deliver`.
    module: String,
    /// Without its tests.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All sources, without files and modules of tests.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    files.sort();
    let files = files.iter().filter(|file| file.file_stem().is_some_and(|stem| stem != "tests"));
    files.map(|file| source(file)).collect()
}

fn source(file: &Path) -> Source {
    let path = file.strip_prefix(root()).expect("below the root").display().to_string();
    let below = path.trim_start_matches("src/");
    let module = below.split(['/', '.']).next().expect("a name").to_owned();
    let text = read(file);
    // By our own custom tests stand last in a file.
    let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default().to_owned();
    Source { path, module, code }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The modules that `use crate::…` and `crate::…` name in `code`.
fn used_modules(code: &str) -> BTreeSet<String> {
    let code: String = code.lines().filter(|line| !is_comment(line)).flat_map(|line| [line, "\n"]).collect();
    let mut used = BTreeSet::new();
    static ONE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bcrate::(\w+)").expect("valid"));
    used.extend(ONE.captures_iter(&code).map(|found| found[1].to_owned()));
    for (start, opening) in code.match_indices("crate::{") {
        used.extend(first_words(&code[start + opening.len()..]));
    }
    used
}

/// `trace::TraceId, deliver::{a, b}}` to `trace` and `deliver`.
fn first_words(list: &str) -> Vec<String> {
    let (mut depth, mut words, mut item) = (0, Vec::new(), String::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => words.push(std::mem::take(&mut item)),
            c => item.push(c),
        }
    }
    words.push(item);
    let first = |item: &String| item.trim().split("::").next().unwrap_or_default().to_owned();
    words.iter().map(first).filter(|word| !word.is_empty()).collect()
}

/// What each module uses of the others, by its code.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| !["lib", "main"].contains(&source.module.as_str())) {
        let used = arrows.entry(source.module.clone()).or_default();
        used.extend(used_modules(&source.code).into_iter().filter(|module| *module != source.module));
    }
    arrows
}

/// What each module may use of the others, by the table in ARCHITECTURE.md: `| module | uses |`.
fn allowed_arrows() -> BTreeMap<String, BTreeSet<String>> {
    let text = read(&root().join("ARCHITECTURE.md"));
    let (_, table) = text.split_once("| module | uses |").expect("ARCHITECTURE.md has the table of arrows");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').collect();
        (words(cells[1]).pop_first().expect("a module"), words(cells[2]))
    };
    rows.map(row).collect()
}

#[test]
fn modules_use_each_other_as_the_architecture_says() {
    let (real, allowed) = (arrows(), allowed_arrows());
    let mut wrong = Vec::new();
    for module in real.keys().chain(allowed.keys()).collect::<BTreeSet<_>>() {
        let (real, allowed) = (real.get(module), allowed.get(module));
        if real != allowed {
            wrong.push(format!("`{module}` uses {real:?}, ARCHITECTURE.md says {allowed:?}"));
        }
    }
    assert!(wrong.is_empty(), "change the code or the table:\n{}", wrong.join("\n"));
}

#[test]
fn the_story_has_one_direction() {
    let arrows = arrows();
    assert_eq!(arrows["trace"], BTreeSet::new(), "`trace` uses nothing of ours");
    for module in ["receive", "deliver", "scan", "measure"] {
        assert!(!arrows[module].contains("policy"), "`{module}` does not know `policy`");
    }
    for (module, uses) in &arrows {
        for (above, may) in [("pipeline", &["app"][..]), ("app", &["cli"]), ("cli", &[])] {
            let is_free = may.contains(&module.as_str()) || module == above;
            assert!(is_free || !uses.contains(above), "`{module}` must not use `{above}`");
        }
        if ["pipeline", "app", "cli"].contains(&module.as_str()) {
            continue;
        }
        let stages = ["receive", "scan", "shard", "deliver"];
        let known = stages.iter().filter(|stage| uses.contains(**stage)).count();
        assert!(known < stages.len(), "only `pipeline` and `app` know every stage, not `{module}`");
    }
}

#[test]
fn pure_code_has_no_clock_and_no_world() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| PURE.contains(&source.module.as_str())) {
        for (number, line) in source.code.lines().enumerate().filter(|(_, line)| !is_comment(line)) {
            wrong.extend(
                IMPURE.iter().filter(|word| line.contains(**word)).map(|word| {
                    format!("{}:{}: `{word}` in pure code: take it as an argument", source.path, number + 1)
                }),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_channel_is_bounded() {
    let endless = Regex::new(r"unbounded_channel|std::sync::mpsc::channel|[^:]\bmpsc::channel\(\)").expect("valid");
    for source in sources() {
        let found = endless.find(&source.code).map(|found| found.as_str());
        assert_eq!(found, None, "{}: name a capacity, and what happens beyond it", source.path);
    }
}

#[test]
fn nothing_is_left_undone() {
    let mut files = Vec::new();
    ["src", "tests", "benches", "examples"].iter().for_each(|folder| rust_files(&root().join(folder), &mut files));
    let unfinished = Regex::new(r"\b(todo|unimplemented|dbg)!|#\[ignore").expect("valid");
    for file in files.iter().filter(|file| !file.ends_with("tests/architecture.rs")) {
        let text = read(file);
        let found: Vec<&str> = unfinished.find_iter(&text).map(|found| found.as_str()).collect();
        assert!(found.is_empty(), "{}: {found:?}", file.display());
    }
}

#[test]
fn files_are_short() {
    let count = |source: &Source| source.code.lines().filter(|l| !l.trim().is_empty() && !is_comment(l)).count();
    let lengths: Vec<(String, usize)> = sources().iter().map(|source| (source.path.clone(), count(source))).collect();
    let long: Vec<_> = lengths.iter().filter(|(_, lines)| *lines > FILE_LINES_MAX).collect();
    assert!(long.is_empty(), "more than {FILE_LINES_MAX} lines of code: {long:?}");
}

#[test]
fn functions_fit_on_a_screen() {
    let mut files = Vec::new();
    ["src", "tests", "benches", "examples"].iter().for_each(|folder| rust_files(&root().join(folder), &mut files));
    let long: Vec<String> = files.iter().flat_map(|file| long_functions(file)).collect();
    assert!(long.is_empty(), "more than {FUNCTION_LINES_MAX} lines:\n{}", long.join("\n"));
}

/// rustfmt puts a function's last brace as deep as its `fn`.
fn long_functions(file: &Path) -> Vec<String> {
    let text = read(file);
    let lines: Vec<&str> = text.lines().collect();
    static HEAD: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(\s*)(?:pub(?:\([a-z]+\))? )?(?:const )?(?:async )?(?:unsafe )?fn (\w+)").expect("valid")
    });
    let mut long = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        // Most lines are no head, and the expression is slow in a debug build.
        let Some(found) = line.contains("fn ").then(|| HEAD.captures(line)).flatten().filter(|_| !line.ends_with(';'))
        else {
            continue;
        };
        let close = format!("{}}}", &found[1]);
        let length = lines[at..].iter().position(|line| *line == close).map_or(1, |end| end + 1);
        if length > FUNCTION_LINES_MAX {
            long.push(format!("{}:{}: {} has {length}", file.display(), at + 1, &found[2]));
        }
    }
    long
}

#[test]
fn every_file_that_the_architecture_names_is_there() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let path =
        Regex::new(r"`((?:src|tests|benches|examples|config|docs)/[\w./-]+|[\w-]+\.(?:md|toml))`").expect("valid");
    let missing: Vec<&str> = path.captures_iter(&text).filter_map(|found| found.get(1)).map(|m| m.as_str()).collect();
    assert!(missing.len() > 20, "the code map names files");
    let missing: Vec<&&str> = missing.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for module in arrows().keys() {
        assert!(text.contains(&format!("`src/{module}.rs`")), "the code map leaves out `src/{module}.rs`");
    }
}
