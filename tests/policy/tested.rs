//! Cases beside a policy: `policy_tests/<case>/` has a policy, its tests, and what must be said of them.

use super::files::{listing, read, tests_folder};
use crate::expected::expect;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tailkeep::policy_test::{self, File, Tested};

fn run(folder: &Path, policy: &str, tests: &str) -> Result<Tested, String> {
    let policy = File { name: "policy.yaml", text: policy };
    let tests = File { name: "policy.tests.yaml", text: tests };
    let mut recordings = |name: &str| std::fs::read(folder.join(name)).map_err(|_| format!("cannot read {name}"));
    policy_test::test(policy, tests, &mut recordings, false)
}

fn folder(case: &str) -> PathBuf {
    tests_folder().join("policy_tests").join(case)
}

fn run_files(folder: &Path) -> Result<Tested, String> {
    run(folder, &read(&folder.join("policy.yaml")), &read(&folder.join("policy.tests.yaml")))
}

#[test]
fn every_file_of_tests_is_reported_as_expected() {
    let cases = listing(&tests_folder().join("policy_tests"));
    assert!(cases.len() >= 4, "the cases are there");
    let report = |case: &Path| run_files(case).map_or_else(|problems| problems, |tested| tested.text());
    let wrong: Vec<&PathBuf> = cases.iter().filter(|case| !expect(&case.join("expected.txt"), &report(case))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn pipelines_read_the_same() {
    let (folder, tested) = (folder("fails"), run_files(&folder("fails")).expect("the files are right"));
    assert!(expect(&folder.join("expected.xml"), &tested.junit(false)));
    let (lenient, strict) = (tested.junit(false), tested.junit(true));
    assert!(lenient.contains(r#"tests="4" failures="3""#) && strict.contains(r#"tests="6" failures="5""#), "{strict}");
    assert!(strict.contains(r#"name="reaches keep-slow (policy.yaml:13)""#), "{strict}");
    let control = "cases: [{ name: \"a \\e[2J bell\", trace: { service: shop }, expect: { keep: none } }]";
    let page = run(&folder, "version: 1\notherwise: { keep: none }\n", control).expect("valid").junit(false);
    assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page:?}");
}

#[test]
fn a_policy_that_cannot_be_used_is_not_tested() {
    let problems = run(&folder("fails"), "version: 1\n", "cases: []\n").expect_err("no policy");
    assert!(problems.contains("`otherwise:` is missing") && problems.contains("nothing was tested"), "{problems}");
    let policy = "version: 1\notherwise: { keep: none }\n";
    for (tests, told) in [
        ("", "the file is empty"),
        (policy, "this is a policy"),
        ("cases: 5\n", "`cases` must be a list"),
        ("case: []\n", "did you mean `cases`?"),
        ("cases:\n\t- x\n", "error[Y01]"),
    ] {
        let problems = run(&folder("fails"), policy, tests).expect_err(tests);
        assert!(problems.contains(told) && problems.contains(" = help: "), "{tests}: {problems}");
    }
    let tested = run(&folder("fails"), policy, "cases: []\n").expect("nothing is wrong");
    assert!(tested.failed() == 0 && !tested.covers_all(), "no case reaches `otherwise`");
}

#[test]
fn every_problem_has_a_case_and_says_what_to_write() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy_test");
    let is_code =
        |word: &&str| word.len() == 3 && word.starts_with('T') && word[1..].bytes().all(|c| c.is_ascii_digit());
    let texts: Vec<String> = listing(&sources).iter().map(|path| read(path)).collect();
    let used: BTreeSet<&str> = texts.iter().flat_map(|text| text.split('"')).filter(is_code).collect();
    let problems = run_files(&folder("mistakes")).expect_err("all is wrong");
    let shown: BTreeSet<&str> = problems.split(['[', ']']).filter(is_code).collect();
    assert_eq!(used, shown, "tests/policy_tests/mistakes shows every code");
    for problem in problems.split("\nerror[") {
        assert!(problem.contains(" = help: "), "{problem}");
    }
}
