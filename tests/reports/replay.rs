//! Plays a case to one shard under simulated time.

use super::outcome::Departure;
use super::traffic::Traffic;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use tailkeep::pipeline::active_policy::{ActivePolicy, PolicyJudge};
use tailkeep::policy::{Limits, Policy};
use tailkeep::ring::wheel::{TICK_MS, Tick};
use tailkeep::scan::{Keyed, Scan, SpanBounds};
use tailkeep::shard::count::Spans;
use tailkeep::shard::{DrainPass, Outbox, Progress, Shard, Turn};
use tailkeep::trace::RuleNames;

/// What a case left behind.
pub struct Replayed {
    pub departures: Vec<Departure>,
    pub spans: Spans,
    /// Age of the oldest record at the end.
    pub ring_seconds: f64,
}

/// Plays all of `traffic` by the policies in the folder `case`; checks the accounts at every step.
pub fn replay(case: &Path, traffic: &Traffic) -> Replayed {
    let mut player = Player::new(case, traffic);
    let mut arrivals = traffic.arrivals().into_iter().peekable();
    let mut reloads = traffic.reloads.iter().peekable();
    // What happens within a tick comes before what is due at it.
    for now in (0..=traffic.until).step_by(TICK_MS as usize) {
        while let Some(reload) = reloads.next_if(|reload| reload.at <= now) {
            player.load(&case.join(&reload.policy));
        }
        while let Some(arrival) = arrivals.next_if(|arrival| arrival.at <= now) {
            player.send(arrival.at, &arrival.request);
        }
        player.pass(now);
        if traffic.drain.is_some_and(|drain| drain <= now) {
            player.drain(now);
            break;
        }
    }
    player.finish()
}

struct Player {
    shard: Shard,
    scan: Scan,
    active_policy: ActivePolicy,
    limits: Mutex<Limits>,
    departures: Vec<Departure>,
    now: Tick,
}

impl Player {
    fn new(case: &Path, traffic: &Traffic) -> Player {
        let keyed = Keyed::new(7);
        Player {
            shard: Shard::new(traffic.ring_bytes(), keyed.clone()),
            scan: Scan::new(keyed),
            active_policy: compile(&case.join("policy.yaml"), 1, RuleNames::default()),
            limits: Mutex::new(Limits::new(1000)),
            departures: Vec::new(),
            now: 1,
        }
    }

    fn load(&mut self, file: &Path) {
        self.active_policy = compile(file, self.active_policy.policy.number + 1, self.active_policy.rules.clone());
    }

    fn send(&mut self, at: u64, request: &ExportTraceServiceRequest) {
        let body = request.encode_to_vec();
        self.scan
            .read(&body, &self.active_policy.questions, SpanBounds::of_bytes(self.shard.span_bytes_max()))
            .expect("a well-formed request");
        assert_eq!(self.scan.rejected.total(), 0);
        let all: Vec<u32> = (0..self.scan.spans.len() as u32).collect();
        let mut rest = all.as_slice();
        self.now = tick(at);
        while !rest.is_empty() {
            let taken = self.with(at, |shard, turn, scan, out| shard.append(turn, scan, &body, rest, out));
            rest = &rest[taken..];
        }
    }

    fn pass(&mut self, now: u64) {
        self.now = tick(now);
        while self.with(now, |shard, turn, _, out| shard.tick(turn, true, out)) == Progress::More {}
    }

    fn drain(&mut self, now: u64) {
        for pass in [DrainPass::Kept, DrainPass::Rest] {
            while self.with(now, |shard, turn, _, out| shard.drain(turn, pass, out)) == Progress::More {}
        }
    }

    /// One call on the shard. What leaves is noted, and the accounts must balance.
    fn with<R>(
        &mut self,
        at: u64,
        act: impl FnOnce(&mut Shard, &Turn<'_, PolicyJudge<'_>>, &Scan, &mut Outbox) -> R,
    ) -> R {
        let ActivePolicy { questions, rules, .. } = &self.active_policy;
        let judge = PolicyJudge { active_policy: &self.active_policy, limits: &self.limits };
        let turn = Turn { now: self.now, judge: &judge, questions, rules };
        let mut out = Outbox::default();
        let result = act(&mut self.shard, &turn, &self.scan, &mut out);
        assert!(self.shard.counts.services.iter().all(Spans::is_balanced));
        if out.spans > 0 {
            let request = ExportTraceServiceRequest::decode(out.body.as_slice()).expect("what leaves is OTLP");
            self.departures.push(Departure { at, request });
        }
        result
    }

    fn finish(self) -> Replayed {
        let mut spans = Spans::default();
        self.shard.counts.services.iter().for_each(|service| spans.add(service));
        let ring_seconds = f64::from(self.shard.age(self.now)) * TICK_MS as f64 / 1000.0;
        Replayed { departures: self.departures, spans, ring_seconds }
    }
}

/// Tick 0 is before everything.
fn tick(milliseconds: u64) -> Tick {
    (milliseconds / TICK_MS + 1) as Tick
}

fn compile(file: &Path, number: u32, mut names: RuleNames) -> ActivePolicy {
    let text = std::fs::read_to_string(file).expect("the policy is there");
    let (policy, problems) = Policy::compile(&file.display().to_string(), &text, number, &mut names);
    let policy = policy.unwrap_or_else(|| panic!("{}: {problems:?}", file.display()));
    ActivePolicy::new(policy, &[], names).expect("as many questions as a policy may ask")
}

impl Replayed {
    /// The counters by the names of `expected.json`.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let s = &self.spans;
        BTreeMap::from([
            ("accepted", s.accepted),
            ("kept", s.kept),
            ("dropped", s.dropped),
            ("over_limit", s.over_limit),
            ("duplicate", s.duplicate),
            ("held", s.held),
        ])
    }
}
