//! Answers questions: turns conditions into look-ups by field, so that a span is walked once and
//! pays for the fields that it has, not for the rules that exist.

use super::wire::{ComparableValue, Malformed, Reader};
use crate::trace::question::{
    Condition, ENTRY_ATTRIBUTES_MAX, EntryAttribute, ErrorFacts, FACTS_MAX, Facts, Pattern, Range, Test, ValuePattern,
    ValueTest,
};
use crate::trace::{EntryValues, FactMasks, Slice, SpanKind, Status};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// How many extra metric dimensions there may be.
pub const DIMENSIONS_MAX: usize = 16;

/// Everything that policy and measure want to know of a span, compiled.
#[derive(Debug)]
pub struct Questions {
    /// Grows with every new set; facts of different sets cannot be compared.
    pub number: u32,
    pub masks: FactMasks,
    /// The tests that each condition needs.
    needs: Vec<Facts>,
    /// For each test, the conditions to look at when it holds: each condition hangs on one of its tests.
    hanging: Vec<Vec<u16>>,
    /// Tests on which some condition hangs.
    hooks: Facts,
    /// Conditions without tests.
    always: Facts,
    /// Tests that hold unless a key shows up (`exists: false`).
    pub(super) absent_attributes: Facts,
    pub(super) absent_resource: Facts,
    service: Texts,
    name: Texts,
    kind: [Facts; 6],
    status: [Facts; 3],
    status_message: Texts,
    durations: Vec<(Range<u64>, usize)>,
    pub(super) attributes: AttributeTests,
    pub(super) resource: AttributeTests,
    events: Texts,
    trace_state: Vec<(String, Texts)>,
    pub dimensions: Vec<String>,
    /// What counts as an error, if not the status alone.
    errors: Option<ErrorFacts>,
    /// Sets before this number counted errors otherwise. None if none did, since the process began.
    pub errors_since: Option<u32>,
}

/// More conditions or tests than there are bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany;

/// Alternatives for a string: found by hash, or tried one by one.
#[derive(Debug, Default)]
struct Texts {
    exact: HashMap<Box<[u8]>, Facts, RandomState>,
    patterns: Vec<(Pattern, usize)>,
}

/// Tests of attributes, found by key.
#[derive(Debug, Default)]
pub(super) struct AttributeTests {
    keys: HashMap<Box<[u8]>, KeyTests, RandomState>,
    /// Bit n: some key has n bytes (63: or more). Most attributes end here.
    lengths: u64,
}

#[derive(Debug, Default)]
struct KeyTests {
    present: Facts,
    absent: Facts,
    text: Texts,
    numbers: Vec<(NumberTest, usize)>,
    bools: [Facts; 2],
    hashed_for: HashedFor,
}

/// Who wants to know the hash of an attribute's value.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct HashedFor {
    /// The metric dimension that it is.
    pub dimension: Option<u8>,
    /// Bit k: entry attribute k of the question set.
    entry_values: u8,
}

impl HashedFor {
    pub fn store(self, hash: u64, values: &mut EntryValues) {
        for (place, value) in values.iter_mut().enumerate() {
            if self.entry_values & 1 << place != 0 {
                *value = hash as u32;
            }
        }
    }
}

#[derive(Debug)]
enum NumberTest {
    Exactly(f64),
    Within(Range<f64>),
}

impl Questions {
    /// Compiles conditions (number k is fact bit k) and the names of extra metric dimensions.
    ///
    /// # Errors
    /// When there are more distinct tests or conditions than [`FACTS_MAX`].
    pub fn compile(conditions: &[Condition], dimensions: &[String], number: u32) -> Result<Questions, TooMany> {
        let mut tests: Vec<&Test> = Vec::new();
        let mut questions = Questions::empty(conditions, dimensions, number);
        if conditions.len() > FACTS_MAX || dimensions.len() > DIMENSIONS_MAX {
            return Err(TooMany);
        }
        for (bit, condition) in conditions.iter().enumerate() {
            let mut needs = Facts::EMPTY;
            let mut hook: Option<(u8, usize)> = None;
            for test in &condition.tests {
                let test_bit = tests.iter().position(|known| *known == test).unwrap_or_else(|| {
                    tests.push(test);
                    tests.len() - 1
                });
                if test_bit >= FACTS_MAX {
                    return Err(TooMany);
                }
                needs.set(test_bit);
                hook = hook.max(Some((rarity(test), test_bit)));
            }
            questions.needs.push(needs);
            questions.hanging.resize(tests.len(), Vec::new());
            match hook {
                Some((_, test_bit)) => {
                    questions.hanging[test_bit].push(bit as u16);
                    questions.hooks.set(test_bit);
                }
                None => questions.always.set(bit),
            }
        }
        for (bit, test) in tests.iter().enumerate() {
            questions.add_test(test, bit);
        }
        for (index, key) in dimensions.iter().enumerate() {
            questions.attributes.entry(key).hashed_for.dimension = Some(index as u8);
            questions.resource.entry(key).hashed_for.dimension = Some(index as u8);
        }
        Ok(questions)
    }

    /// These questions, and what limits count by. Attributes beyond [`ENTRY_ATTRIBUTES_MAX`] are not read.
    pub fn counting_by(mut self, attributes: &[EntryAttribute]) -> Questions {
        for (place, attribute) in attributes.iter().take(ENTRY_ATTRIBUTES_MAX).enumerate() {
            let keys = if attribute.of_resource { &mut self.resource } else { &mut self.attributes };
            attribute.keys.iter().for_each(|key| keys.entry(key).hashed_for.entry_values |= 1 << place);
        }
        self
    }

    /// These questions, and what of their answers makes a span an error.
    pub fn counting_errors(mut self, errors: ErrorFacts) -> Questions {
        self.errors = (errors != ErrorFacts::default()).then_some(errors);
        self
    }

    /// Whether what was counted by the set of this number must be counted again.
    pub fn recounts_errors(&self, of_set: u32) -> bool {
        self.errors_since.is_some_and(|since| of_set < since)
    }

    /// The status that a span counts as.
    pub(super) fn counted_status(&self, own: Status, facts: Facts) -> Status {
        self.errors.as_ref().map_or(own, |errors| errors.status(own, facts))
    }

    /// Whether spans have anything to answer.
    pub fn asks_spans(&self) -> bool {
        let FactMasks { any, entry, root } = self.masks;
        !(any | entry | root).is_empty() || !self.attributes.keys.is_empty() || !self.resource.keys.is_empty()
    }

    fn empty(conditions: &[Condition], dimensions: &[String], number: u32) -> Questions {
        Questions {
            number,
            masks: FactMasks::of(conditions),
            needs: Vec::new(),
            hanging: Vec::new(),
            hooks: Facts::EMPTY,
            always: Facts::EMPTY,
            absent_attributes: Facts::EMPTY,
            absent_resource: Facts::EMPTY,
            service: Texts::default(),
            name: Texts::default(),
            kind: Default::default(),
            status: Default::default(),
            status_message: Texts::default(),
            durations: Vec::new(),
            attributes: AttributeTests::default(),
            resource: AttributeTests::default(),
            events: Texts::default(),
            trace_state: Vec::new(),
            dimensions: dimensions.to_vec(),
            errors: None,
            errors_since: None,
        }
    }

    fn add_test(&mut self, test: &Test, bit: usize) {
        match test {
            Test::Service(patterns) => self.service.add(patterns, bit),
            Test::Name(patterns) => self.name.add(patterns, bit),
            Test::SpanKind(kinds) => kinds.iter().for_each(|&kind| self.kind[kind as usize].set(bit)),
            Test::Status(statuses) => statuses.iter().for_each(|&status| self.status[status as usize].set(bit)),
            Test::StatusMessage(patterns) => self.status_message.add(patterns, bit),
            Test::Duration(range) => self.durations.push((*range, bit)),
            Test::Attribute { keys, values } => {
                if *values == ValueTest::Exists(false) {
                    self.absent_attributes.set(bit);
                }
                self.attributes.add(keys, values, bit);
            }
            Test::Resource { keys, values } => {
                if *values == ValueTest::Exists(false) {
                    self.absent_resource.set(bit);
                }
                self.resource.add(keys, values, bit);
            }
            Test::Event(patterns) => self.events.add(patterns, bit),
            Test::TraceState { key, values } => {
                let known = self.trace_state.iter().position(|(k, _)| k == key);
                let index = known.unwrap_or_else(|| {
                    self.trace_state.push((key.clone(), Texts::default()));
                    self.trace_state.len() - 1
                });
                self.trace_state[index].1.add(values, bit);
            }
        }
    }

    /// Some condition reads events.
    pub(super) fn reads_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// `message` is empty where the span has none.
    pub(super) fn status_message(&self, message: &[u8], tests: &mut Facts) {
        if !message.is_empty() && !self.status_message.is_empty() {
            self.status_message.answer(message, tests);
        }
    }

    pub(super) fn reads_trace_state(&self) -> bool {
        !self.trace_state.is_empty()
    }

    pub(super) fn service(&self, service: &[u8], tests: &mut Facts) {
        self.service.answer(service, tests);
    }

    pub(super) fn event(&self, name: &[u8], tests: &mut Facts) {
        self.events.answer(name, tests);
    }

    pub(super) fn trace_state_member(&self, key: &[u8], value: &[u8], tests: &mut Facts) {
        for (_, texts) in self.trace_state.iter().filter(|(k, _)| k.as_bytes() == key) {
            texts.answer(value, tests);
        }
    }

    /// The conditions that hold, from the tests that held on attributes, events and the resource,
    /// and the span's own fields.
    pub(super) fn conclude(
        &self,
        mut tests: Facts,
        name: &[u8],
        kind: SpanKind,
        status: Status,
        duration: u64,
    ) -> Facts {
        if self.hooks.is_empty() {
            return self.always;
        }
        self.name.answer(name, &mut tests);
        tests |= self.kind[kind as usize] | self.status[status as usize];
        for (range, bit) in &self.durations {
            if range.contains(duration) {
                tests.set(*bit);
            }
        }
        let mut facts = self.always;
        for test in (tests & self.hooks).bits() {
            for &condition in &self.hanging[test] {
                if tests.contains(&self.needs[usize::from(condition)]) {
                    facts.set(usize::from(condition));
                }
            }
        }
        facts
    }
}

/// How seldom a test holds, as a guess: conditions hang on their rarest test.
fn rarity(test: &Test) -> u8 {
    match test {
        Test::Event(_) | Test::TraceState { .. } | Test::StatusMessage(_) => 8,
        Test::Attribute { values: ValueTest::Exists(false), .. } => 0,
        Test::Resource { values: ValueTest::Exists(false), .. } => 0,
        Test::Attribute { .. } => 7,
        Test::Name(_) => 6,
        Test::Duration(_) => 5,
        Test::Status(_) => 4,
        Test::Resource { .. } => 3,
        Test::Service(_) => 2,
        Test::SpanKind(_) => 1,
    }
}

impl Texts {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }

    fn add(&mut self, patterns: &[Pattern], bit: usize) {
        for pattern in patterns {
            match pattern {
                Pattern::Exact(text) => self.exact.entry(text.as_bytes().into()).or_default().set(bit),
                other => self.patterns.push((other.clone(), bit)),
            }
        }
    }

    #[inline]
    fn answer(&self, text: &[u8], tests: &mut Facts) {
        if !self.exact.is_empty()
            && let Some(facts) = self.exact.get(text)
        {
            *tests |= *facts;
        }
        for (pattern, bit) in &self.patterns {
            if !tests.has(*bit) && pattern.matches(text) {
                tests.set(*bit);
            }
        }
    }
}

impl AttributeTests {
    fn entry(&mut self, key: &str) -> &mut KeyTests {
        self.lengths |= 1 << key.len().min(63);
        self.keys.entry(key.as_bytes().into()).or_default()
    }

    fn add(&mut self, keys: &[String], values: &ValueTest, bit: usize) {
        for key in keys {
            let tests = self.entry(key);
            match values {
                ValueTest::Exists(true) => tests.present.set(bit),
                ValueTest::Exists(false) => tests.absent.set(bit),
                ValueTest::OneOf(patterns) => patterns.iter().for_each(|pattern| tests.add(pattern, bit)),
            }
        }
    }

    fn find(&self, key: &[u8]) -> Option<&KeyTests> {
        if self.lengths & 1 << key.len().min(63) == 0 { None } else { self.keys.get(key) }
    }

    /// Answers what is asked of one attribute; returns who wants its value hashed.
    /// `message` is the `AnyValue`, none if the attribute has no value.
    #[inline]
    pub(super) fn answer(
        &self,
        body: &[u8],
        key: Slice,
        message: Option<Slice>,
        tests: &mut Facts,
        absent: &mut Facts,
    ) -> Result<Option<(HashedFor, ComparableValue)>, Malformed> {
        let Some(wanted) = self.find(key.of(body)) else { return Ok(None) };
        let value = message.map_or(Ok(ComparableValue::Other), |message| ComparableValue::read(body, message))?;
        *tests |= wanted.present;
        *absent = *absent & !wanted.absent;
        wanted.answer(body, value, tests)?;
        Ok((wanted.hashed_for != HashedFor::default()).then_some((wanted.hashed_for, value)))
    }
}

impl KeyTests {
    fn add(&mut self, pattern: &ValuePattern, bit: usize) {
        match pattern {
            ValuePattern::Text(pattern) => self.text.add(std::slice::from_ref(pattern), bit),
            ValuePattern::Number(number) => self.numbers.push((NumberTest::Exactly(*number), bit)),
            ValuePattern::Bool(value) => self.bools[usize::from(*value)].set(bit),
            ValuePattern::Range(range) => self.numbers.push((NumberTest::Within(*range), bit)),
        }
    }

    fn answer(&self, body: &[u8], value: ComparableValue, tests: &mut Facts) -> Result<(), Malformed> {
        match value {
            ComparableValue::Text(text) => self.text.answer(text.of(body), tests),
            ComparableValue::Bool(value) => *tests |= self.bools[usize::from(value)],
            ComparableValue::Int(number) => self.answer_number(number as f64, tests),
            ComparableValue::Double(number) => self.answer_number(number, tests),
            ComparableValue::Array(message) => self.answer_array(body, message, tests)?,
            ComparableValue::Other => {}
        }
        Ok(())
    }

    fn answer_number(&self, number: f64, tests: &mut Facts) {
        for (test, bit) in &self.numbers {
            let holds = match test {
                NumberTest::Exactly(wanted) => number == *wanted,
                NumberTest::Within(range) => range.contains(number),
            };
            if holds {
                tests.set(*bit);
            }
        }
    }

    /// An array matches if an element does; arrays in arrays do not.
    fn answer_array(&self, body: &[u8], message: Slice, tests: &mut Facts) -> Result<(), Malformed> {
        let mut elements = Reader::new(body, message);
        while let Some(element) = elements.next()? {
            if element.number == 1 {
                match ComparableValue::read(body, element.value.bytes()?)? {
                    ComparableValue::Array(_) => {}
                    value => self.answer(body, value, tests)?,
                }
            }
        }
        Ok(())
    }
}
