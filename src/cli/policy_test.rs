//! The cases beside a policy, judged.

use super::ask::{read, read_trace};
use super::{CommandFailure, print};
use crate::policy_test::{self, File};
use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct TestArguments {
    /// The policy.
    #[arg(value_name = "POLICY", default_value = "policy.yaml")]
    policy: PathBuf,
    /// Its cases; without it those beside it, in `policy.tests.yaml` for `policy.yaml`.
    #[arg(long, value_name = "FILE")]
    tests: Option<PathBuf>,
    /// How the result is written to standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: TestFormat,
    /// Fail if there are rules that no case reaches.
    #[arg(long)]
    fail_uncovered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum TestFormat {
    Text,
    Junit,
}

pub(super) fn run(arguments: &TestArguments) -> Result<(), CommandFailure> {
    let policy_text = read(&arguments.policy)?;
    let cases = match &arguments.tests {
        Some(file) => file.clone(),
        None => beside(&arguments.policy)?,
    };
    let cases_text = read(&cases)?;
    let folder = cases.parent().unwrap_or(Path::new(""));
    let mut recordings = |name: &str| read_trace(&folder.join(name)).map_err(|failure| failure.text().to_owned());
    let (policy_name, cases_name) = (arguments.policy.display().to_string(), cases.display().to_string());
    let policy = File { name: &policy_name, text: &policy_text };
    let cases = File { name: &cases_name, text: &cases_text };
    let tested = policy_test::test(policy, cases, &mut recordings, std::io::stderr().is_terminal());
    let tested = tested.map_err(CommandFailure::Usage)?;
    print(&match arguments.format {
        TestFormat::Text => tested.text(),
        TestFormat::Junit => tested.junit(arguments.fail_uncovered),
    });
    // The report has said what failed.
    let is_fine = tested.failed() == 0 && (tested.covers_all() || !arguments.fail_uncovered);
    if is_fine { Ok(()) } else { Err(CommandFailure::Running(String::new())) }
}

/// `policy.yaml` to `policy.tests.yaml`, which must be there.
fn beside(policy: &Path) -> Result<PathBuf, CommandFailure> {
    let extension = policy.extension().unwrap_or("yaml".as_ref()).to_string_lossy();
    let file = policy.with_extension(format!("tests.{extension}"));
    if file.exists() {
        return Ok(file);
    }
    Err(CommandFailure::Usage(format!(
        "there are no cases at {}: name their file with --tests, or write it, beginning with\n\
         cases:\n  \
           - name: an error is kept\n    \
             trace: {{ service: shop, status: error }}\n    \
             expect: {{ keep: all }}",
        file.display()
    )))
}
