//! Work along the records of one trace, in pieces that fit under the lock.

use super::count::Fate;
use super::{Budget, Judge, Outbox, Shard, Turn};
use crate::otlp::wire::{put_bytes, put_bytes_header, varint_len};
use crate::ring::index::TraceEntry;
use crate::ring::wheel::Tick;
use crate::ring::{Loc, Ring};
use crate::scan::check::MessageType;
use crate::scan::repair;
use crate::scan::splice::{Marks, outline, splice};
use crate::scan::tracestate::Weight;
use crate::scan::{Questions, ReadAgain};
use crate::trace::{Incomplete, RuleId, SpanId, Standing, TraceId};
use std::collections::HashMap;

/// What a walk is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Copy out the records that have not been handed over, oldest first.
    Deliver,
    /// Count the records of a dropped trace.
    Count,
    /// Answer the questions in force again.
    Refresh,
}

/// A walk that may be interrupted. Records that arrive meanwhile are left to a later walk.
#[derive(Debug)]
pub(super) struct TraceWalk {
    slot: u32,
    purpose: Purpose,
    /// The trace is evicted when nothing is left of it.
    last: bool,
    /// Started, and where it stands on the way from the newest record to the oldest.
    next: Option<Loc>,
    /// Records to copy out, newest first; those set aside are `NONE`.
    gathered: Vec<Loc>,
    /// Hash of a record's bytes to its place in `gathered`.
    seen: HashMap<u64, usize>,
    /// The span that will carry the marks, and its rank: the entry, else the earliest.
    marked: Option<((bool, u64, SpanId), Loc)>,
    marks: Option<Marks>,
    /// The question set of a refresh, and whether it counts errors otherwise than an earlier one did.
    questions: u32,
    recounts_errors: bool,
}

impl TraceWalk {
    pub fn new(slot: u32, purpose: Purpose) -> TraceWalk {
        TraceWalk {
            slot,
            purpose,
            last: false,
            next: None,
            gathered: Vec::new(),
            seen: HashMap::new(),
            marked: None,
            marks: None,
            questions: 0,
            recounts_errors: false,
        }
    }

    /// A walk after which the trace is evicted.
    pub fn last(slot: u32, purpose: Purpose) -> TraceWalk {
        TraceWalk { last: true, ..TraceWalk::new(slot, purpose) }
    }

    /// A part of this trace has been counted as dropped: it is too late to keep it.
    pub fn gives_up(&self, slot: u32) -> bool {
        self.slot == slot && self.purpose == Purpose::Count
    }
}

/// Some spans of a trace, copied under one lock.
#[derive(Debug)]
pub struct SpanPage {
    /// Fields of an `ExportTraceServiceRequest`.
    pub body: Vec<u8>,
    next: Loc,
    slot: u32,
    /// When the trace's first span came: with the slot, it tells a trace from a later one of the same id.
    first: Tick,
}

impl SpanPage {
    pub fn is_last(&self) -> bool {
        self.next == Loc::NONE
    }
}

/// Spans of one scope, encoded as fields of a `ScopeSpans`.
struct ScopeGroup {
    scope: Loc,
    hash: u64,
    resource_hash: u64,
    spans: Vec<u8>,
}

impl Shard {
    /// Goes on with the walk at hand until it ends or the budget is spent.
    pub(super) fn continue_walk<J: Judge>(&mut self, turn: &Turn<'_, J>, budget: &mut Budget, out: &mut Outbox) {
        let Some(mut walk) = self.walk.take() else { return };
        let ended = match walk.purpose {
            Purpose::Deliver => self.gather(&mut walk, budget) && self.copy_out(turn, &mut walk, budget, out),
            Purpose::Count => self.count_dropped(&mut walk, budget),
            Purpose::Refresh => self.refresh(turn.questions, &mut walk, budget),
        };
        if !ended {
            self.walk = Some(walk);
            return;
        }
        let entry = self.index.entry_mut(walk.slot);
        if walk.purpose == Purpose::Deliver {
            entry.delivered = true;
        }
        // If spans came meanwhile the sweep finds the trace again.
        if walk.last && entry.undelivered == 0 {
            self.evict(turn, walk.slot);
        }
    }

    /// The next record on the way to the oldest.
    fn step(&self, walk: &mut TraceWalk, budget: &mut Budget) -> WalkStep {
        let at = walk.next.unwrap_or(self.index.entry(walk.slot).newest);
        walk.next = Some(at);
        if at == Loc::NONE {
            WalkStep::End
        } else if !budget.pay() {
            WalkStep::Pause
        } else {
            walk.next = Some(self.ring.read(at).previous);
            WalkStep::At(at)
        }
    }

    /// True at the end.
    fn count_dropped(&mut self, walk: &mut TraceWalk, budget: &mut Budget) -> bool {
        loop {
            match self.step(walk, budget) {
                WalkStep::At(loc) if self.ring.read(loc).delivered => {}
                WalkStep::At(loc) => self.account(walk.slot, loc, Fate::Dropped),
                WalkStep::Pause => return false,
                WalkStep::End => return true,
            }
        }
    }

    fn account(&mut self, slot: u32, loc: Loc, fate: Fate) {
        let service = self.ring.service_of(self.ring.read(loc).scope);
        self.ring.set_delivered(loc);
        let entry = self.index.entry_mut(slot);
        entry.undelivered -= 1;
        let rule = entry.verdict.map_or(RuleId::OTHERWISE, |verdict| verdict.rule);
        self.counts.account(service, fate, rule);
    }

    /// Collects what has not been handed over; equal records count once. True at the end.
    fn gather(&mut self, walk: &mut TraceWalk, budget: &mut Budget) -> bool {
        loop {
            let loc = match self.step(walk, budget) {
                WalkStep::At(loc) => loc,
                WalkStep::Pause => return false,
                WalkStep::End => return true,
            };
            let bytes = self.ring.bytes(loc);
            let hash = self.keyed.hash(bytes);
            let twin = walk.seen.get(&hash).copied();
            if self.ring.read(loc).delivered {
                // What is newer and equal is a repetition of what has left already.
                if let Some(place) = twin {
                    let newer = std::mem::replace(&mut walk.gathered[place], Loc::NONE);
                    walk.seen.remove(&hash);
                    walk.marked = walk.marked.filter(|(_, marked)| *marked != newer);
                    self.account(walk.slot, newer, Fate::Duplicate);
                }
            } else if twin.is_some() {
                self.account(walk.slot, loc, Fate::Duplicate);
            } else {
                self.rank(walk, loc);
                walk.seen.insert(hash, walk.gathered.len());
                walk.gathered.push(loc);
            }
        }
    }

    fn rank(&self, walk: &mut TraceWalk, loc: Loc) {
        let outline = outline(self.ring.bytes(loc));
        let is_entry = self.index.entry(walk.slot).summary.is_entry(outline.start, outline.span_id);
        let rank = (!is_entry, outline.start, outline.span_id);
        if walk.marked.is_none_or(|(best, _)| rank < best) {
            walk.marked = Some((rank, loc));
        }
    }

    /// Copies the gathered records out, oldest first. True at the end.
    fn copy_out<J: Judge>(
        &mut self,
        turn: &Turn<'_, J>,
        walk: &mut TraceWalk,
        budget: &mut Budget,
        out: &mut Outbox,
    ) -> bool {
        if walk.marks.is_none() {
            walk.marks = Some(marks_of(self.index.entry(walk.slot), turn));
        }
        let weight = weight_of(self.index.entry(walk.slot));
        let rule = self.index.entry(walk.slot).verdict.map_or(RuleId::OTHERWISE, |verdict| verdict.rule);
        let (bytes, spans) = (out.body.len(), out.spans);
        let mut groups: Vec<ScopeGroup> = Vec::new();
        let mut span = Vec::new();
        while let Some(&loc) = walk.gathered.last() {
            if loc != Loc::NONE {
                if !budget.pay() {
                    break;
                }
                let (group, context_bytes) = group_of(&mut groups, &self.ring, self.ring.read(loc).scope);
                let marks = walk.marks.as_ref().filter(|_| walk.marked.is_none_or(|(_, marked)| marked == loc));
                walk.marked = walk.marked.or(Some(((true, 0, 0), loc)));
                span.clear();
                splice(self.ring.bytes(loc), weight, marks, &mut span);
                let span = repair::texts(MessageType::Span, &span);
                put_bytes(&mut group.spans, 2, &span);
                budget.spend(span.len() + context_bytes);
                out.spans += 1;
                self.account(walk.slot, loc, Fate::Kept);
            }
            walk.gathered.pop();
        }
        write_groups(&groups, &self.ring, &mut out.body);
        out.add_part(rule, out.body.len() - bytes, out.spans - spans);
        walk.gathered.is_empty()
    }

    /// The stored spans of a trace, newest first, as many as one call may copy, from where
    /// `previous` ended. None if the trace is not in the ring, or no longer the one of `previous`.
    /// The resource that a page begins with comes on top: else a large one made a page of every span.
    pub fn page_of(&self, id: TraceId, previous: Option<&SpanPage>) -> Option<SpanPage> {
        let slot = self.index.find(self.keyed.hash(&id.0), id)?;
        let entry = self.index.entry(slot);
        let mut loc = match previous {
            None => entry.newest,
            Some(page) if page.slot == slot && page.first == entry.first => page.next,
            Some(_) => return None,
        };
        let (mut groups, mut budget) = (Vec::new(), Budget::new());
        while loc != Loc::NONE && budget.pay() {
            let record = self.ring.read(loc);
            let is_first = groups.is_empty();
            let (group, context_bytes) = group_of(&mut groups, &self.ring, record.scope);
            let context_bytes = if is_first { 0 } else { context_bytes };
            let span = repair::texts(MessageType::Span, self.ring.bytes(loc));
            put_bytes(&mut group.spans, 2, &span);
            budget.spend(span.len() + context_bytes);
            loc = record.previous;
        }
        let mut body = Vec::new();
        write_groups(&groups, &self.ring, &mut body);
        Some(SpanPage { body, next: loc, slot, first: entry.first })
    }

    /// Answers the questions in force for all stored spans of the trace. True at the end.
    fn refresh(&mut self, questions: &Questions, walk: &mut TraceWalk, budget: &mut Budget) -> bool {
        if walk.questions != questions.number {
            walk.next = None;
            walk.questions = questions.number;
            // Spans that come while the walk lasts add their own answers.
            let entry = self.index.entry_mut(walk.slot);
            // Spans that were not stored cannot be asked again: their trace keeps its errors.
            walk.recounts_errors |= questions.recounts_errors(entry.questions) && !entry.summary.limited;
            entry.questions = questions.number;
            entry.summary.forget_answers(walk.recounts_errors);
        }
        loop {
            let loc = match self.step(walk, budget) {
                WalkStep::At(loc) => loc,
                WalkStep::Pause => return false,
                WalkStep::End => return true,
            };
            let resource = self.ring.resource_of(self.ring.read(loc).scope);
            let header = (self.ring.context_hash(resource), self.ring.bytes(resource));
            let ReadAgain { mut span, bytes } =
                self.rereading.read(header, self.ring.bytes(loc), questions, &self.keyed);
            budget.spend(bytes);
            if self.ring.read(loc).is_entry {
                span.standing = Standing::Entry;
            }
            self.index.entry_mut(walk.slot).summary.observe_again(&span, &questions.masks, walk.recounts_errors);
        }
    }
}

enum WalkStep {
    At(Loc),
    Pause,
    End,
}

fn weight_of(entry: &TraceEntry) -> Weight {
    let threshold = entry.verdict.and_then(|verdict| verdict.threshold);
    let (randomness, must_be_written) = entry.summary.randomness(entry.id);
    Weight { threshold, randomness: Some(randomness).filter(|_| must_be_written && threshold.is_some()) }
}

/// `tailkeep.*` of one delivery.
fn marks_of<J: Judge>(entry: &TraceEntry, turn: &Turn<'_, J>) -> Marks {
    let mut marks = Marks::default();
    if let Some(verdict) = entry.verdict {
        marks.add("tailkeep.rule", turn.rules.name(verdict.rule));
        marks.add("tailkeep.trigger", verdict.trigger.word());
        marks.add("tailkeep.reason", turn.judge.reason(verdict.rule).word());
    }
    if let Some(why) = entry.incomplete().or(entry.delivered.then_some(Incomplete::Late)) {
        marks.add("tailkeep.incomplete", why.word());
    }
    marks
}

/// The group of a scope, and the bytes of headers that it adds to what leaves if it is new.
fn group_of<'a>(groups: &'a mut Vec<ScopeGroup>, ring: &Ring, scope: Loc) -> (&'a mut ScopeGroup, usize) {
    let hash = ring.context_hash(scope);
    if let Some(place) = groups.iter().position(|group| group.hash == hash) {
        return (&mut groups[place], 0);
    }
    let resource = ring.resource_of(scope);
    let resource_hash = ring.context_hash(resource);
    let is_known = groups.iter().any(|group| group.resource_hash == resource_hash);
    let resource_bytes = if is_known { 0 } else { ring.bytes(resource).len() };
    groups.push(ScopeGroup { scope, hash, resource_hash, spans: Vec::new() });
    (groups.last_mut().expect("it was just added"), resource_bytes + ring.bytes(scope).len())
}

/// Writes each resource once, with its scopes, each with its spans.
fn write_groups(groups: &[ScopeGroup], ring: &Ring, out: &mut Vec<u8>) {
    let full: Vec<&ScopeGroup> = groups.iter().filter(|group| !group.spans.is_empty()).collect();
    let mut written: Vec<u64> = Vec::new();
    for first in &full {
        if written.contains(&first.resource_hash) {
            continue;
        }
        written.push(first.resource_hash);
        let header = repair::texts(MessageType::ResourceSpans, ring.bytes(ring.resource_of(first.scope)));
        let members = full.iter().filter(|group| group.resource_hash == first.resource_hash);
        let members: Vec<_> = members
            .map(|group| (repair::texts(MessageType::ScopeSpans, ring.bytes(group.scope)), &group.spans))
            .collect();
        let field_len = |len: usize| 1 + varint_len(len as u64) + len;
        let scopes_len = members.iter().map(|(scope, spans)| field_len(scope.len() + spans.len())).sum::<usize>();
        put_bytes_header(out, 1, header.len() + scopes_len);
        out.extend_from_slice(&header);
        for (scope, spans) in members {
            put_bytes_header(out, 2, scope.len() + spans.len());
            out.extend_from_slice(&scope);
            out.extend_from_slice(spans);
        }
    }
}
