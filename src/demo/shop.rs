//! A small shop of seven services, as a model: which requests come, which calls they make, how long
//! those take and how often they fail. Pure: time and the seed of its randomness are arguments.

mod attributes;
mod menu;

use crate::trace::{SpanId, SpanKind, TraceId};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use std::f64::consts::TAU;
use std::time::Duration;

/// The services, in the order in which they take turns to be in trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Service {
    Frontend,
    Cart,
    Checkout,
    Inventory,
    Payment,
    Search,
    EmailWorker,
}

impl Service {
    pub const ALL: [Service; 7] = [
        Service::Payment,
        Service::Search,
        Service::Inventory,
        Service::Cart,
        Service::Checkout,
        Service::EmailWorker,
        Service::Frontend,
    ];

    /// `service.name`.
    pub fn name(self) -> &'static str {
        match self {
            Service::Frontend => "frontend",
            Service::Cart => "cart",
            Service::Checkout => "checkout",
            Service::Inventory => "inventory",
            Service::Payment => "payment",
            Service::Search => "search",
            Service::EmailWorker => "email-worker",
        }
    }

    /// `telemetry.sdk.language`.
    pub fn language(self) -> &'static str {
        match self {
            Service::Frontend => "nodejs",
            Service::Cart | Service::Checkout | Service::Inventory => "go",
            Service::Payment | Service::Search | Service::EmailWorker => "python",
        }
    }

    /// The resource under which it sends its spans.
    pub fn resource(self) -> Resource {
        attributes::resource(self)
    }
}

/// What a span stands for; gives its name, kind and attributes.
#[derive(Clone, Copy, Debug)]
enum Work {
    Serve { method: &'static str, route: &'static str },
    Call { method: &'static str, host: &'static str, route: &'static str },
    Query { system: &'static str, operation: &'static str, target: &'static str },
    Publish { topic: &'static str },
    Consume { topic: &'static str },
    Compute { name: &'static str },
}

impl Work {
    fn kind(self) -> SpanKind {
        match self {
            Work::Serve { .. } => SpanKind::Server,
            Work::Call { .. } | Work::Query { .. } => SpanKind::Client,
            Work::Publish { .. } => SpanKind::Producer,
            Work::Consume { .. } => SpanKind::Consumer,
            Work::Compute { .. } => SpanKind::Internal,
        }
    }
}

/// What a step's failure does to its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Need {
    /// The caller gives up and fails too.
    Required,
    /// The caller does without.
    Optional,
}

/// One span of a request and the steps that it takes, one after the other.
#[derive(Clone, Copy, Debug)]
struct ShopStep {
    service: Service,
    work: Work,
    /// Median of its own time, without that of `steps`.
    millis: f64,
    /// Probability that it fails of itself.
    fails: f64,
    need: Need,
    steps: &'static [ShopStep],
}

/// How busy the shop is, and which service is in trouble, at some time after its start.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weather {
    pub traces_per_second: f64,
    /// This service is slow and often fails.
    pub trouble: Option<Service>,
}

impl Weather {
    /// The rate rises and falls every two and a half minutes; the last third of every minute
    /// brings trouble to one service.
    pub fn at(since_start: Duration) -> Weather {
        let seconds = since_start.as_secs_f64();
        let minute = (since_start.as_secs() / 60) as usize;
        let trouble = since_start.as_secs() % 60 >= 40;
        Weather {
            traces_per_second: 320.0 + 110.0 * (seconds * TAU / 150.0).sin(),
            trouble: trouble.then(|| Service::ALL[minute % Service::ALL.len()]),
        }
    }
}

/// Makes requests. Equal seeds give equal requests, ids included.
pub struct Shop {
    dice: Dice,
}

/// A trace while it grows.
struct Growth {
    trace_id: TraceId,
    weather: Weather,
    spans: Vec<(Service, Span)>,
}

/// How a step went.
#[derive(Clone, Copy)]
struct StepOutcome {
    end: u64,
    failed: bool,
}

/// Times in trouble are longer by this factor.
const TROUBLE_SLOWS: f64 = 6.0;
/// Probability of failure that trouble adds to each step of the service.
const TROUBLE_FAILS: f64 = 0.06;
/// Now and then a step waits for a lock or a cold cache: how often, and by which factor it is longer.
const STRAGGLERS: f64 = 0.005;
const STRAGGLER_SLOWS: f64 = 80.0;
/// Median time from sending a message to handling it.
const QUEUE_MILLIS: f64 = 900.0;

impl Shop {
    pub fn new(seed: u64) -> Shop {
        Shop { dice: Dice(seed) }
    }

    /// The spans of one request that begins at `start` (Unix nanoseconds), each with the service
    /// that sends it. The first is the root.
    pub fn request(&mut self, start: u64, weather: Weather) -> Vec<(Service, Span)> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.dice.number().to_be_bytes());
        id[8..].copy_from_slice(&self.dice.number().to_be_bytes());
        let mut growth = Growth { trace_id: TraceId(id), weather, spans: Vec::new() };
        let root = menu::pick(self.dice.fraction());
        self.take(&mut growth, root, None, start);
        growth.spans
    }

    /// Grows the span of `step` and those below it.
    fn take(
        &mut self,
        growth: &mut Growth,
        step: &ShopStep,
        parent: Option<(SpanId, Service)>,
        start: u64,
    ) -> StepOutcome {
        let troubled = growth.weather.trouble == Some(step.service);
        let own = self.own_time(step, troubled);
        let id = self.dice.number();
        let place = growth.spans.len();
        growth.spans.push((step.service, Span::default()));

        let broken = self.dice.chance(step.fails + if troubled { TROUBLE_FAILS } else { 0.0 });
        let mut outcome = StepOutcome { end: start + own / 2, failed: broken };
        // What is broken fails before it makes any call.
        let steps = if broken { &[] } else { step.steps };
        for next in steps {
            if next.work.kind() == SpanKind::Consumer {
                let wait = self.dice.time(QUEUE_MILLIS);
                self.take(growth, next, Some((id, step.service)), outcome.end + wait);
                continue;
            }
            let below = self.take(growth, next, Some((id, step.service)), outcome.end);
            outcome.end = below.end;
            if below.failed && next.need == Need::Required {
                outcome.failed = true;
                break;
            }
        }
        outcome.end += own - own / 2;

        let remote = parent.is_some_and(|(_, service)| service != step.service);
        let mut span = Span {
            trace_id: growth.trace_id.0.to_vec(),
            span_id: id.to_be_bytes().to_vec(),
            parent_span_id: parent.map(|(id, _)| id.to_be_bytes().to_vec()).unwrap_or_default(),
            // Sampled; whether the parent is remote is known; it is remote.
            flags: 0x101 | if remote { 0x200 } else { 0 },
            start_time_unix_nano: start,
            end_time_unix_nano: outcome.end,
            ..Span::default()
        };
        attributes::describe(&mut span, step, self.dice.number());
        if outcome.failed {
            attributes::fail(&mut span, step, broken);
        }
        growth.spans[place].1 = span;
        outcome
    }

    /// Nanoseconds that a step takes of itself.
    fn own_time(&mut self, step: &ShopStep, troubled: bool) -> u64 {
        let trouble = if troubled { TROUBLE_SLOWS } else { 1.0 };
        let straggles = if self.dice.chance(STRAGGLERS) { STRAGGLER_SLOWS } else { 1.0 };
        self.dice.time(step.millis * trouble * straggles)
    }
}

/// SplitMix64: small, seeded, good enough to draw latencies and ids from.
struct Dice(u64);

impl Dice {
    /// Never zero, so that it can be an id.
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31).max(1)
    }

    /// In 0..1.
    fn fraction(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// Nanoseconds with a median of `millis`, spread as latencies are: many near it, a long tail.
    fn time(&mut self, millis: f64) -> u64 {
        // Twelve uniform numbers add up to a nearly normal one with a deviation of 1.
        let normal = (0..12).map(|_| self.fraction()).sum::<f64>() - 6.0;
        (millis * 1e6 * (0.4 * normal).exp()) as u64
    }
}
