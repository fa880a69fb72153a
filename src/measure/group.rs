//! Puts the spans of a request together by series, so that each series is looked up and locked once.
//!
//! It counts instead of sorting: a small table numbers the series in order of appearance, then the
//! durations are laid out group by group. Nothing is allocated once the vectors have grown.

/// Spans beyond this many go to a second turn: bounds what a thread keeps, to about 70 KB.
pub const GROUP_MAX: usize = 1024;

/// Twice as many places as there can be series, so that probing ends soon.
const PLACES_BITS: u32 = GROUP_MAX.ilog2() + 1;
const EMPTY: u32 = u32::MAX;

/// Spans of one series.
struct Group {
    /// The first of them: its place among the spans of the request.
    span: u32,
    /// Where the table has its series.
    place: u32,
    /// While gathering how many there are, then where their durations end.
    count: u32,
}

/// Reused from request to request.
pub struct Groups {
    /// Series by hash, with the number of its group.
    places: Box<[(u64, u32)]>,
    groups: Vec<Group>,
    /// Group and duration of each span, in order of arrival.
    arrivals: Vec<(u32, u64)>,
    durations: Vec<u64>,
}

impl Groups {
    pub fn new() -> Groups {
        let places = vec![(0, EMPTY); 1 << PLACES_BITS].into();
        Groups { places, groups: Vec::new(), arrivals: Vec::new(), durations: Vec::new() }
    }

    pub fn clear(&mut self) {
        for group in self.groups.drain(..) {
            self.places[group.place as usize].1 = EMPTY;
        }
        self.arrivals.clear();
    }

    pub fn spans(&self) -> usize {
        self.arrivals.len()
    }

    /// Adds a span: `span` is its place in the request, `nanos` its duration. At most [`GROUP_MAX`] times
    /// between [`Groups::clear`] and [`Groups::laid_out`].
    pub fn add(&mut self, series: u64, span: u32, nanos: u64) {
        let number = self.number_of(series, span);
        self.groups[number as usize].count += 1;
        self.arrivals.push((number, nanos));
    }

    fn number_of(&mut self, series: u64, span: u32) -> u32 {
        // The multiplication brings all bits of the hash to the top.
        let mut place = (series.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES_BITS)) as usize;
        loop {
            match self.places[place] {
                (_, EMPTY) => break,
                (known, number) if known == series => return number,
                _ => place = (place + 1) % self.places.len(),
            }
        }
        let number = self.groups.len() as u32;
        self.places[place] = (series, number);
        self.groups.push(Group { span, place: place as u32, count: 0 });
        number
    }

    /// Ends the gathering. For each series the first of its spans, and the durations of all of them in nanoseconds.
    pub fn laid_out(&mut self) -> impl Iterator<Item = (u32, &[u64])> {
        let mut start = 0;
        for group in &mut self.groups {
            start += std::mem::replace(&mut group.count, start);
        }
        self.durations.resize(self.arrivals.len(), 0);
        for &(number, nanos) in &self.arrivals {
            let end = &mut self.groups[number as usize].count;
            self.durations[*end as usize] = nanos;
            *end += 1;
        }
        let mut rest = self.durations.as_slice();
        let mut start = 0;
        self.groups.iter().map(move |group| {
            let durations = rest.split_off(..(group.count - start) as usize).expect("the counts add up");
            start = group.count;
            (group.span, durations)
        })
    }
}

impl Default for Groups {
    fn default() -> Groups {
        Groups::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn every_duration_is_in_the_group_of_its_series(
            requests in prop::collection::vec(prop::collection::vec((0u64..40, any::<u64>()), 0..GROUP_MAX), 1..4),
        ) {
            let mut groups = Groups::new();
            for request in requests {
                groups.clear();
                let mut naive = BTreeMap::<u64, (u32, Vec<u64>)>::new();
                for (place, &(series, nanos)) in request.iter().enumerate() {
                    groups.add(series, place as u32, nanos);
                    naive.entry(series).or_insert((place as u32, Vec::new())).1.push(nanos);
                }
                prop_assert_eq!(groups.spans(), request.len());
                let drained: BTreeMap<_, _> =
                    groups.laid_out().map(|(span, nanos)| (request[span as usize].0, (span, nanos.to_vec()))).collect();
                prop_assert_eq!(drained, naive);
            }
        }
    }

    #[test]
    fn a_request_of_as_many_series_as_fit_is_grouped() {
        let mut groups = Groups::new();
        (0..GROUP_MAX as u64).for_each(|n| groups.add(n, n as u32, n));
        let singles = groups.laid_out().filter(|(span, nanos)| *nanos == [u64::from(*span)]).count();
        assert_eq!(singles, GROUP_MAX);
    }
}
