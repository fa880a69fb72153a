//! Divides a request between its items (spans, data points, log records) in one walk over its bytes.
//!
//! All signals nest alike: request, resource, scope, items; a metric adds two levels. What a message
//! says besides those that it holds (a resource's attributes, a metric's name, unknown fields) is its
//! context: each part repeats that of the messages it was cut out of, verbatim, before what they hold.
//! So that the parts together grow with the request and not with its square, a part is not ended before
//! its own bytes are worth what the next one repeats.
//! Source: opentelemetry-proto, `trace.proto`, `metrics.proto`, `logs.proto` and their services.

use super::BatchLimits;
use crate::{
    deliver::sink::Batch,
    otlp::wire::{Field, Fields, put_bytes},
    trace::Signal,
};
use std::ops::Range;

/// A part of a request that is too large for the queue repeats at most four times its own bytes.
const REPEATS_IN_QUEUE: usize = 4;
/// A sink that finds a batch too large may mean a single item of it.
const REPEATS_FOR_SINK: usize = 64;
/// The most that a tag and a length add to a message.
const HEADER_MAX: usize = 6;

/// The fields that lead from a request to its items, level by level; those of the last are the items.
/// A metric's data are a gauge (5), sum (7), histogram (9), exponential histogram (10) or summary (11).
type Path = &'static [&'static [u32]];

fn path(signal: Signal) -> Path {
    match signal {
        Signal::Traces | Signal::Logs => &[&[1], &[2], &[2]],
        Signal::Metrics => &[&[1], &[2], &[2], &[5, 7, 9, 10, 11], &[1]],
    }
}

/// Gives a batch to `each` in parts within the limits, in order, made one at a time. Larger than that are
/// single items, and parts with a context that alone is about as large. Malformed bytes stay whole.
pub fn divide(batch: Batch, limits: &BatchLimits, each: &mut dyn FnMut(Batch)) {
    if batch.body.len() <= limits.bytes && batch.items <= limits.items {
        return each(batch);
    }
    match sum(&batch.body, path(batch.signal)) {
        Some(Sum { items: 1.., .. }) => {
            let most = Most { bytes: limits.bytes, own: usize::MAX, units: limits.items, repeats: REPEATS_IN_QUEUE };
            Division::new(&Piece::new(batch), most, &mut |part, _| each(part)).run();
        }
        _ => each(batch),
    }
}

/// A batch or a part of one. Many parts of a batch may wait, and what around its items each repeats may be far more than
/// the items: such a part is made when it is needed.
#[derive(Clone, Debug)]
pub struct Piece {
    whole: Batch,
    /// Items, and messages that hold none, of the whole: which of them this is; none if it is the whole.
    units: Option<Range<u64>>,
    items: u64,
}

impl Piece {
    /// All of a batch.
    pub fn new(whole: Batch) -> Piece {
        let items = whole.items;
        Piece { whole, units: None, items }
    }

    /// Spans, data points or log records in it.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// It as a batch.
    pub fn batch(&self) -> Batch {
        let mut made = self.whole.clone();
        if self.units.is_some() {
            Division::new(self, Most::ALL, &mut |part, _| made = part).run();
        }
        made
    }

    /// It in two parts, or three, each with at most half of what it holds. None if it cannot be divided.
    pub fn halves(&self) -> Option<Vec<Piece>> {
        let sum = self.sum().filter(|sum| sum.items > 0)?;
        let most = Most { own: sum.bytes.div_ceil(2), repeats: REPEATS_FOR_SINK, ..Most::ALL };
        let (mut parts, mut at) = (Vec::new(), self.units.as_ref().map_or(0, |units| units.start));
        Division::new(self, most, &mut |batch, part| {
            let units = at..at + part.units;
            at = units.end;
            parts.push(match batch.body.len() <= 2 * part.own {
                true => Piece::new(batch),
                false => Piece { whole: self.whole.clone(), units: Some(units), items: batch.items },
            });
        })
        .run();
        (parts.len() > 1).then_some(parts)
    }

    fn sum(&self) -> Option<Sum> {
        if self.units.is_none() {
            return sum(&self.whole.body, path(self.whole.signal));
        }
        let mut sum = None;
        Division::new(self, Most::ALL, &mut |_, part| sum = Some(Sum { items: part.items, bytes: part.own })).run();
        sum
    }
}

/// Spans, data points or log records in a request; None if it is malformed.
pub fn count_items(signal: Signal, body: &[u8]) -> Option<u64> {
    sum(body, path(signal)).map(|sum| sum.items)
}

/// What a message holds.
#[derive(Default)]
struct Sum {
    items: u64,
    /// Of items, and of messages that hold none.
    bytes: usize,
}

fn sum(message: &[u8], path: Path) -> Option<Sum> {
    let (level, deeper) = path.split_first().expect("a path has levels");
    let mut all = Sum::default();
    for field in Fields::new(message) {
        let field = field?;
        let Some(inner) = held(&field, level) else { continue };
        let one = if deeper.is_empty() { Sum { items: 1, bytes: 0 } } else { sum(inner, deeper)? };
        let is_whole = deeper.is_empty() || one.items == 0;
        all.items += one.items;
        all.bytes += if is_whole { field.raw.len() } else { one.bytes };
    }
    Some(all)
}

/// The message in a field that leads inwards.
fn held<'a>(field: &Field<&'a [u8]>, level: &[u32]) -> Option<&'a [u8]> {
    field.payload().filter(|_| level.contains(&field.number))
}

fn holds_items(message: &[u8], path: Path) -> bool {
    let Some((level, deeper)) = path.split_first() else { return true };
    Fields::new(message).flatten().any(|field| held(&field, level).is_some_and(|inner| holds_items(inner, deeper)))
}

/// A message that the walk is inside of.
struct OpenMessage {
    /// Its field in the message around it.
    number: u32,
    context: Vec<u8>,
    /// What goes into the part that grows, of what it holds.
    body: Vec<u8>,
    /// The part that grows has something of it.
    is_used: bool,
}

/// The part that grows, or that is whole.
#[derive(Default)]
struct GrowingPart {
    /// At least as many as it will have.
    bytes: usize,
    /// Of these, what no other part has.
    own: usize,
    /// Items, and messages that hold none: they cost a reader about as much.
    units: u64,
    items: u64,
}

/// When a part ends, unless it would repeat too much.
struct Most {
    bytes: usize,
    /// Of bytes that no other part has.
    own: usize,
    units: u64,
    /// How often its own bytes a part may repeat of others.
    repeats: usize,
}

impl Most {
    const ALL: Most = Most { bytes: usize::MAX, own: usize::MAX, units: u64::MAX, repeats: 0 };
}

struct Division<'a> {
    piece: &'a Piece,
    most: Most,
    /// Of the whole, that the walk has come by.
    units: u64,
    /// Outermost first; the first is the request.
    open: Vec<OpenMessage>,
    part: GrowingPart,
    /// The last part, which gets whatever the items do not add up to.
    ready: Option<(Vec<u8>, GrowingPart)>,
    items_left: u64,
    each: &'a mut dyn FnMut(Batch, GrowingPart),
}

impl<'a> Division<'a> {
    fn new(piece: &'a Piece, most: Most, each: &'a mut dyn FnMut(Batch, GrowingPart)) -> Division<'a> {
        let (open, part, ready) = (Vec::new(), GrowingPart::default(), None);
        Division { piece, most, units: 0, open, part, ready, items_left: piece.items, each }
    }

    fn run(mut self) {
        let whole = &self.piece.whole;
        self.enter(0, &whole.body, path(whole.signal));
        self.end_part();
        self.give_ready(true);
    }

    fn enter(&mut self, number: u32, message: &[u8], path: Path) {
        let (level, deeper) = path.split_first().expect("a path has levels");
        let fields = || Fields::new(message).flatten();
        let mut context = Vec::new();
        fields().filter(|field| held(field, level).is_none()).for_each(|field| context.extend_from_slice(field.raw));
        self.open.push(OpenMessage { number, context, body: Vec::new(), is_used: false });
        for field in fields() {
            match held(&field, level) {
                None => (),
                Some(_) if deeper.is_empty() => self.pass(field.raw, 1),
                Some(inner) if holds_items(inner, deeper) => self.enter(field.number, inner, deeper),
                Some(_) => self.pass(field.raw, 0),
            }
        }
        if self.open.len() > 1 {
            self.leave();
        }
    }

    /// Ends the innermost message.
    fn leave(&mut self) {
        let inner = self.open.pop().expect("it was entered");
        let outer = self.open.last_mut().expect("the request is the first");
        if inner.is_used {
            put_bytes(&mut outer.body, inner.number, &[inner.context, inner.body].concat());
        }
    }

    /// The next item, or message without any.
    fn pass(&mut self, raw: &[u8], items: u64) {
        if self.piece.units.as_ref().is_none_or(|units| units.contains(&self.units)) {
            self.put(raw, items);
        }
        self.units += 1;
    }

    /// Adds it as it is.
    fn put(&mut self, raw: &[u8], items: u64) {
        let context: usize = self.open.iter().map(|open| open.context.len() + HEADER_MAX).sum();
        let unused = self.open.iter().filter(|open| !open.is_used);
        let more = raw.len() + unused.map(|open| open.context.len() + HEADER_MAX).sum::<usize>();
        let is_full = self.part.bytes + more > self.most.bytes
            || self.part.own + raw.len() > self.most.own
            || self.part.units >= self.most.units;
        if is_full && self.part.units > 0 && self.part.own.saturating_mul(self.most.repeats) >= context {
            self.end_part();
            return self.put(raw, items);
        }
        self.open.iter_mut().for_each(|open| open.is_used = true);
        self.open.last_mut().expect("the request is the first").body.extend_from_slice(raw);
        self.part.bytes += more;
        self.part.own += raw.len();
        self.part.units += 1;
        self.part.items += items;
    }

    /// What follows goes into another part.
    fn end_part(&mut self) {
        if self.part.units == 0 {
            return;
        }
        let mut message = Vec::new();
        let mut number = 0;
        for open in self.open.iter_mut().rev().filter(|open| open.is_used) {
            if number > 0 {
                put_bytes(&mut open.body, number, &message);
            }
            message = [&open.context[..], &open.body].concat();
            number = open.number;
            open.body.clear();
            open.is_used = false;
        }
        self.give_ready(false);
        self.ready = Some((message, std::mem::take(&mut self.part)));
    }

    /// The sum stays exact even where the pusher counted differently.
    fn give_ready(&mut self, is_last: bool) {
        let Some((body, part)) = self.ready.take() else { return };
        let items = if is_last { self.items_left } else { part.items.min(self.items_left) };
        self.items_left -= items;
        (self.each)(Batch { signal: self.piece.whole.signal, body: body.into(), items }, part);
    }
}
