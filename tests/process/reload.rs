//! A changed policy is put in force as a whole, under load, or not at all.

use super::collector::{POLICY, Setup, Tailkeep, eventually};
use super::grpc::Grpc;
use super::sink::Sink;
use super::traffic::{Placed, Trace, assert_same};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tailkeep::trace::Signal;

/// A change of the file is noticed by its folder's events, well before anybody looks without being told.
const SOON: Duration = Duration::from_secs(5);

/// A version of the policy whose rules carry its number.
fn version(number: u32) -> String {
    POLICY.replace("keep-errors", &format!("keep-errors-{number}")).replace("keep-slow", &format!("keep-slow-{number}"))
}

/// Failed traces, one after the other, each in three requests.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Trace>>,
}

impl Load {
    fn start(address: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut grpc = Grpc::connect(address);
            let mut sent = Vec::new();
            while !stopped.load(Relaxed) {
                let trace = Trace::failed();
                for request in &trace.requests {
                    assert_eq!(grpc.export(Signal::Traces, &request.encode_to_vec()).code, 0);
                }
                sent.push(trace);
                std::thread::sleep(Duration::from_millis(3));
            }
            sent
        });
        Load { stop, thread }
    }

    fn finish(self) -> Vec<Trace> {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("every request was taken")
    }
}

fn number_in_force(tailkeep: &Tailkeep) -> u64 {
    tailkeep.ask("/policy").json()["number"].as_u64().expect("a number")
}

fn wait_for_policy(tailkeep: &Tailkeep, number: u64) {
    let asked = Instant::now();
    eventually("the new policy is in force", || (number_in_force(tailkeep) == number).then_some(()));
    assert!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
}

/// As kubelet does it: a fresh folder with a date, and a symlink that is swapped.
fn swap_config_map(folder: &Path, date: u32, text: &str) {
    let name = format!("..2026_11_24_10_00_{date:02}.4242");
    fs::create_dir(folder.join(&name)).unwrap();
    fs::write(folder.join(&name).join("policy.yaml"), text).unwrap();
    let before = fs::read_link(folder.join("..data")).ok();
    symlink(&name, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if let Some(before) = before {
        fs::remove_dir_all(folder.join(before)).unwrap();
    }
}

#[test]
fn sighup_does_not_end_a_process_with_the_built_in_policy() {
    let tailkeep = Setup::new().builtin_policy().start();
    tailkeep.signal("HUP");
    tailkeep.wait_for_log("there is nothing to reload");
    tailkeep.stop();
}

#[test]
fn a_policy_with_a_rule_that_cannot_match_is_said_to_be_so() {
    let policy = POLICY.replace(
        "otherwise:",
        "  - name: never\n    when: { error: true, duration: { at_least: 2s } }\n    keep: all\notherwise:",
    );
    let tailkeep = Setup::new().policy(&policy).start();
    let warning = tailkeep.wait_for_log("has doubts");
    assert!(warning["problem"].as_str().unwrap().contains("never"), "{warning}");
    tailkeep.stop();
}

#[test]
fn twenty_reloads_under_load_lose_no_span() {
    let sink = Sink::start();
    let tailkeep = Setup::new().policy(&version(1)).otlp("stub", &sink).start();
    let file = tailkeep.path().join("policy.yaml");
    let load = Load::start(tailkeep.ports.grpc);
    for number in 2..=21 {
        match number % 3 {
            0 => fs::write(&file, version(number)).unwrap(),
            1 => {
                // As editors do it.
                fs::write(file.with_extension("new"), version(number)).unwrap();
                fs::rename(file.with_extension("new"), &file).unwrap();
            }
            _ => {
                fs::write(&file, version(number)).unwrap();
                tailkeep.signal("HUP");
            }
        }
        wait_for_policy(&tailkeep, number.into());
    }
    let sent = load.finish();
    assert_eq!(tailkeep.logged("new policy in force"), 20);
    let accounts = tailkeep.accounts();
    assert_eq!(accounts.sum("tailkeep_policy_refused_total", &[]), 0.0);
    tailkeep.stop();
    assert_same(&sink.spans(), &sent.iter().flat_map(Trace::placed).collect::<Vec<_>>());
    let mut versions = BTreeSet::new();
    for (id, spans) in sink.traces() {
        let rules: BTreeSet<&str> = spans.iter().filter_map(|span| span.marks().get("rule").copied()).collect();
        assert_eq!(rules.len(), 1, "{id} was kept by {rules:?}");
        versions.extend(rules.into_iter().map(str::to_owned));
    }
    let known = |rule: &String| rule.strip_prefix("keep-errors-").is_some_and(|n| (1..=21).any(|m| m.to_string() == n));
    assert!(versions.iter().all(known), "{versions:?}");
    assert!(versions.len() > 10, "the load met {versions:?} only");
}

#[test]
fn the_symlink_swap_of_a_config_map_is_a_change() {
    let sink = Sink::start();
    let setup = Setup::new().otlp("stub", &sink);
    let folder = setup.path().join("mounted");
    fs::create_dir(&folder).unwrap();
    swap_config_map(&folder, 1, &version(1));
    symlink("..data/policy.yaml", folder.join("policy.yaml")).unwrap();
    let link = setup.path().join("policy.yaml");
    let tailkeep = setup.policy_file(&folder.join("policy.yaml")).start();
    fs::remove_file(link).unwrap();
    let load = Load::start(tailkeep.ports.grpc);
    for number in 2..=5 {
        swap_config_map(&folder, number, &version(number));
        wait_for_policy(&tailkeep, number.into());
    }
    let sent = load.finish();
    tailkeep.stop();
    assert_same(&sink.spans(), &sent.iter().flat_map(Trace::placed).collect::<Vec<_>>());
}

#[test]
fn a_bad_file_leaves_the_old_policy_in_force_and_says_where_it_is_wrong() {
    let sink = Sink::start();
    let tailkeep = Setup::new().policy(&version(1)).otlp("stub", &sink).start();
    let file = tailkeep.path().join("policy.yaml");
    let refused = |accounts: &super::accounts::Accounts| accounts.sum("tailkeep_policy_refused_total", &[]);
    let bad = version(2).replace("error: true", "eror: true");
    fs::write(&file, &bad).unwrap();
    tailkeep.wait_for("the refusal is counted", |accounts| refused(accounts) == 1.0);
    let said = tailkeep.wait_for_log("policy reload refused");
    let first = said["first"].as_str().unwrap();
    assert!(first.starts_with("6:13 ") && first.contains("`eror`"), "{first}");
    assert!(said["file"].as_str().unwrap().ends_with("policy.yaml"), "{said}");
    assert_eq!(said["errors"], 1);

    // It stays as it is, and is not said again.
    let trace = Trace::failed();
    tailkeep.send(&trace);
    let why = tailkeep.wait_for_verdict(&trace, "kept");
    assert_eq!((why["rule"].as_str(), why["policy"].as_u64()), (Some("keep-errors-1"), Some(1)));
    let policy = tailkeep.ask("/policy").json();
    assert_eq!((policy["number"].as_u64(), policy["refused_reloads"].as_u64()), (Some(1), Some(1)));
    assert_eq!(policy["text"], version(1));
    // Whoever sends SIGHUP hears it again.
    tailkeep.signal("HUP");
    tailkeep.wait_for("the refusal is counted", |accounts| refused(accounts) == 2.0);

    // A file that is away, and back with another text.
    fs::remove_file(&file).unwrap();
    tailkeep.wait_for_log("the policy file cannot be read");
    assert_eq!(number_in_force(&tailkeep), 1);
    tailkeep.wait_for("that is counted", |accounts| refused(accounts) == 3.0);
    fs::write(&file, "").unwrap();
    tailkeep.wait_for("an empty file is refused as well", |accounts| refused(accounts) == 4.0);
    fs::write(&file, version(3)).unwrap();
    wait_for_policy(&tailkeep, 2);
    let said = tailkeep.wait_for_log("new policy in force");
    assert_eq!((said["number"].as_u64(), said["rules"].as_u64()), (Some(2), Some(2)));
    let later = Trace::slow();
    tailkeep.send(&later);
    assert_eq!(tailkeep.wait_for_verdict(&later, "kept")["rule"], "keep-slow-3");
    tailkeep.stop();
}

#[test]
fn the_number_of_rules_that_is_said_is_that_of_the_new_policy() {
    let tailkeep = Setup::new().store().start();
    let shorter = "version: 1\nrules:\n  - { name: all, keep: all }\notherwise: { keep: none }\n";
    fs::write(tailkeep.path().join("policy.yaml"), shorter).unwrap();
    assert_eq!(tailkeep.wait_for_log("new policy in force")["rules"], 1);
    tailkeep.stop();
}

#[test]
fn a_trace_is_judged_by_the_policy_in_force_when_it_is_due() {
    let sink = Sink::start();
    let slow_to_judge =
        version(1).replace("after_root: 200ms, idle: 400ms, longest: 1s", "after_root: 2s, idle: 2s, longest: 2s");
    let tailkeep = Setup::new().policy(&slow_to_judge).otlp("stub", &sink).start();
    // Half of each trace arrives under the first version; the second asks what the first never did.
    let [of_payment, of_others] = [Trace::ok(), Trace::ok()];
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    let mut send = |request: &_| {
        let status = grpc.export(Signal::Traces, &prost::Message::encode_to_vec(request));
        assert_eq!(status.code, 0);
    };
    let rule =
        "  - name: keep-payments\n    when: { any_span: { name: \"POST /pay\", kind: server } }\n    keep: all\n";
    of_payment.requests.iter().for_each(&mut send);
    of_others.requests[..2].iter().for_each(&mut send);
    fs::write(tailkeep.path().join("policy.yaml"), version(2).replace("otherwise", &format!("{rule}otherwise")))
        .unwrap();
    wait_for_policy(&tailkeep, 2);
    let why = tailkeep.wait_for_verdict(&of_payment, "kept");
    assert_eq!((why["rule"].as_str(), why["policy"].as_u64()), (Some("keep-payments"), Some(2)));
    tailkeep.wait_for_verdict(&of_others, "dropped");
    tailkeep.stop();
    let out: BTreeMap<String, Vec<Placed>> = sink.traces();
    assert_eq!(out.keys().collect::<Vec<_>>(), [&of_payment.hex()]);
    assert_same(&sink.spans(), &of_payment.placed());
}

/// A disk that hangs is the same: a read that never ends must not keep the process.
#[test]
fn a_policy_file_that_cannot_be_read_to_its_end_does_not_hold_up_the_end() {
    let sink = Sink::start();
    let tailkeep = Setup::new().otlp("stub", &sink).settings("drain: { accept: 0s, deadline: 4s }").start();
    let file = tailkeep.path().join("policy.yaml");
    fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    const NONBLOCK: i32 = 0o4000;
    // A pipe can be opened so once somebody reads.
    let _pipe =
        eventually("the pipe is read", || OpenOptions::new().write(true).custom_flags(NONBLOCK).open(&file).ok());
    tailkeep.signal("TERM");
    let ended = tailkeep.wait(Instant::now());
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.after < Duration::from_secs(4), "it took {:?}", ended.after);
}

/// Valid, and a disaster.
const KEEP_EVERYTHING: &str = "version: 1\nrules: []\notherwise: { keep: all }\n";

fn tailkeep_policy(tailkeep: &Tailkeep, arguments: &[&str]) -> (i32, String) {
    let admin = format!("http://{}", tailkeep.ports.admin);
    let output = super::collector::program().arg("policy").args(arguments).args(["--admin", &admin]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().expect("it ends by itself"), String::from_utf8(said).unwrap())
}

fn is_set_aside(tailkeep: &Tailkeep) -> bool {
    tailkeep.accounts().sum("tailkeep_policy_set_aside", &[]) == 1.0
}

#[test]
fn a_policy_that_keeps_everything_is_a_warning_and_one_command_brings_the_old_one_back() {
    let tailkeep = Setup::new().store().start();
    let file = tailkeep.path().join("policy.yaml");
    assert_eq!(tailkeep_policy(&tailkeep, &["show"]), (0, POLICY.to_owned()));
    for arguments in [&["restore"][..], &["show", "--previous"]] {
        let (code, said) = tailkeep_policy(&tailkeep, arguments);
        assert!(code == 1 && said.contains("no policy was in force before"), "{said}");
    }

    fs::write(&file, KEEP_EVERYTHING).unwrap();
    let said = tailkeep.wait_for_log("new policy in force");
    assert_eq!(tailkeep.logged("\"WARN\",\"fields\":{\"message\":\"new policy in force"), 1);
    assert_eq!((said["kept"].as_str(), said["of"].as_str()), (Some("much more"), Some("other traces: all, was none")));
    assert_eq!(
        (said["gone"].as_str(), said["changed"].as_str()),
        (Some("keep-errors; keep-slow"), Some("otherwise: all, was none; wait"))
    );
    assert!(said["message"].as_str().unwrap().contains("`tailkeep policy restore`"), "{said}");
    assert_eq!(tailkeep_policy(&tailkeep, &["show", "--previous"]), (0, POLICY.to_owned()));
    assert!(!is_set_aside(&tailkeep));

    let (code, said) = tailkeep_policy(&tailkeep, &["restore"]);
    assert!(code == 0 && said.contains("number 3") && said.contains("policy.yaml"), "{said}");
    tailkeep.wait_for_log("a former policy is in force again");
    let trace = Trace::failed();
    tailkeep.send(&trace);
    assert_eq!(tailkeep.wait_for_verdict(&trace, "kept")["rule"], "keep-errors");
    let policy = tailkeep.ask("/policy").json();
    assert_eq!((&policy["text"], &policy["number"], &policy["set_aside"]), (&POLICY.into(), &3.into(), &true.into()));
    assert!(is_set_aside(&tailkeep));

    // The same text in a file that looks new is not taken; SIGHUP takes it.
    fs::write(&file, KEEP_EVERYTHING).unwrap();
    tailkeep.wait_for_log("the policy file still has the policy that was set aside");
    assert_eq!(number_in_force(&tailkeep), 3);
    tailkeep.signal("HUP");
    wait_for_policy(&tailkeep, 4);
    assert!(!is_set_aside(&tailkeep));

    // What comes into the file next is taken at once.
    assert_eq!(tailkeep_policy(&tailkeep, &["restore"]).0, 0);
    fs::write(&file, version(2)).unwrap();
    wait_for_policy(&tailkeep, 6);
    let said = tailkeep.ask("/policy").json();
    assert_eq!((&said["text"], &said["set_aside"]), (&version(2).into(), &false.into()));
    tailkeep.stop();
}

#[test]
fn which_policy_is_in_force_is_seen_by_its_hash() {
    let tailkeep = Setup::new().store().start();
    let file = tailkeep.path().join("policy.yaml");
    let merged = tailkeep.path().join("merged.yaml");
    let name = merged.to_str().unwrap();
    let in_force = |hash: &str| tailkeep.accounts().sum("tailkeep_policy_info", &[&format!("hash=\"{hash}\"")]);
    let mut former = "none".to_owned();
    for (number, text) in [(1, POLICY.to_owned()), (2, version(2))] {
        fs::write(&merged, &text).unwrap();
        if number > 1 {
            let (code, said) = tailkeep_policy(&tailkeep, &["hash", name]);
            assert!(code == 1 && said.contains(&format!("hash {former}")), "the old one is in force yet: {said}");
            fs::write(&file, &text).unwrap();
            wait_for_policy(&tailkeep, number);
        }
        let (code, hash) = tailkeep_policy(&tailkeep, &["hash", name]);
        let hash = hash.trim_end().to_owned();
        assert_eq!((code, hash.len()), (0, 16), "{hash}");
        assert_eq!(tailkeep.ask("/policy").json()["hash"], hash.as_str());
        assert_eq!((in_force(&hash), in_force(&former)), (1.0, 0.0));
        former = hash;
    }
    fs::write(&merged, "version: 2\n").unwrap();
    let (code, said) = tailkeep_policy(&tailkeep, &["hash", name]);
    assert!(code == 2 && said.contains("merged.yaml:1:10"), "{said}");
    tailkeep.stop();
}

#[test]
fn two_mistakes_are_two_steps_back_and_a_mended_file_ends_it() {
    let tailkeep = Setup::new().store().start();
    let file = tailkeep.path().join("policy.yaml");
    let restore = || super::http::request(tailkeep.ports.admin, "POST", "/policy/restore", &[], &[]).unwrap();
    for (number, text) in [(2, KEEP_EVERYTHING), (3, &KEEP_EVERYTHING.replace("all", "none"))] {
        fs::write(&file, text).unwrap();
        wait_for_policy(&tailkeep, number);
    }
    for text in [KEEP_EVERYTHING, POLICY] {
        assert_eq!(restore().json()["text"], text);
    }
    assert_eq!(restore().status, 404);
    assert!(is_set_aside(&tailkeep));
    fs::write(&file, POLICY).unwrap();
    eventually("the file has what is in force", || (!is_set_aside(&tailkeep)).then_some(()));
    assert_eq!(number_in_force(&tailkeep), 5);
    // A page in somebody's browser may not do it.
    let of_a_page = [("origin", "http://shop.example")];
    for path in ["/policy/restore", "/keep/4bf92f3577b34da6a3ce929d0e0e4736"] {
        let refused = super::http::request(tailkeep.ports.admin, "POST", path, &of_a_page, &[]).unwrap();
        assert_eq!(refused.status, 403, "{path}");
    }
    assert_eq!(super::http::get(tailkeep.ports.admin, "/policy/restore").unwrap().status, 405);
    assert_eq!(tailkeep.ask("/policy/other").status, 404);
    tailkeep.stop();
}
