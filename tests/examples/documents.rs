//! The documents as text: their code blocks, links and headings.

use regex::Regex;
use std::path::{Path, PathBuf};

/// A file below the root of the repository.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub struct Document {
    /// `docs/policy.md`.
    pub name: String,
    text: String,
}

/// A fenced block.
pub struct Block {
    /// `docs/policy.md:12`.
    pub place: String,
    pub text: String,
}

/// What users read, in the order in which they do.
pub fn documents() -> Vec<Document> {
    let mut names: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "tests/README.md"].map(String::from).into();
    let docs = std::fs::read_dir(path("docs")).expect("a folder");
    let mut docs: Vec<String> = docs
        .map(|entry| entry.expect("readable").file_name().into_string().expect("a name"))
        .map(|name| format!("docs/{name}"))
        .collect();
    docs.sort();
    names.extend(docs);
    names.iter().map(|name| Document::read(name)).collect()
}

impl Document {
    pub fn read(name: &str) -> Document {
        Document { name: name.to_owned(), text: read(name) }
    }

    /// The fenced blocks of one language.
    pub fn blocks(&self, language: &str) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(Block, bool)> = None;
        for (number, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(info)) => {
                    let place = format!("{}:{}", self.name, number + 2);
                    open = Some((Block { place, text: String::new() }, info == language));
                }
                (Some(_), Some("")) => {
                    blocks.extend(open.take().and_then(|(block, wanted)| wanted.then_some(block)));
                }
                (Some((block, _)), _) => block.text.extend([line, "\n"]),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.name);
        blocks
    }

    /// Links into this repository.
    pub fn links(&self) -> Vec<String> {
        let link = Regex::new(r"\]\(([^)\s]+)\)").expect("valid");
        let links = link.captures_iter(&self.text).map(|found| found[1].to_owned());
        links.filter(|link| !link.contains("://")).collect()
    }

    /// The file that a link of this document names, below the root.
    pub fn resolve(&self, link: &str) -> String {
        if link.is_empty() {
            return self.name.clone();
        }
        let folder = Path::new(&self.name).parent().expect("a file is in a folder");
        let mut parts: Vec<&str> = folder.iter().map(|part| part.to_str().expect("text")).collect();
        for part in link.split('/') {
            match part {
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    }

    /// Headings as links name them.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.text.lines().filter_map(|line| line.strip_prefix('#'));
        let word = |c: char| (c.is_alphanumeric() || c == '-' || c == ' ').then(|| if c == ' ' { '-' } else { c });
        headings
            .map(|line| line.trim_start_matches('#').trim().to_lowercase().chars().filter_map(word).collect())
            .collect()
    }

    /// The words in backquotes of the first cells of all table rows.
    pub fn first_cells(&self) -> Vec<String> {
        let rows = self.text.lines().filter(|line| line.starts_with("| "));
        let cells = rows.filter_map(|line| line.split('|').nth(1));
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
    }
}
