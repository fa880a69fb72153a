use super::*;
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Mutex};

/// A folder in memory whose machine can lose power. A file's bytes are safe up to the last sync, its
/// name since the last sync of the folder; what comes after may be there, in part, or as garbage.
#[derive(Default)]
pub(super) struct Simulated(Mutex<State>);

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    /// Every change of `names` since the last sync of the folder, after the names of that moment.
    safe_names: BTreeMap<String, usize>,
    changes: Vec<BTreeMap<String, usize>>,
    /// Bytes that may still be written.
    room: Option<usize>,
    read_only: bool,
    /// Syncs and repairs fail, while appends reach the cache: a disk that is going.
    no_sync: bool,
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    safe: usize,
    unreadable: bool,
}

impl State {
    fn inode(&mut self, name: &str) -> io::Result<&mut Inode> {
        let at = *self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.inodes[at])
    }

    fn changed(&mut self) {
        self.changes.push(self.names.clone());
    }

    fn check(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn check_sync(&self) -> io::Result<()> {
        if self.no_sync { Err(io::Error::other("input/output error")) } else { self.check() }
    }
}

impl Simulated {
    /// `random` decides what of the unsafe is left: a prefix of the folder's changes, and of each file.
    fn crash(&self, mut random: u64) {
        let mut state = self.0.lock().unwrap();
        let mut below = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % (limit + 1)
        };
        let kept = below(state.changes.len());
        state.names = if kept == 0 { state.safe_names.clone() } else { state.changes[kept - 1].clone() };
        state.safe_names = state.names.clone();
        state.changes.clear();
        for inode in &mut state.inodes {
            let kept = inode.safe + below(inode.bytes.len() - inode.safe);
            inode.bytes.truncate(kept);
            // Blocks that never reached the disk read as zeros.
            let torn = inode.safe + below(kept - inode.safe);
            inode.bytes[torn..].fill(0);
            inode.safe = kept;
        }
    }

    fn flip(&self, name: &str, at: u64, mask: u8) {
        self.0.lock().unwrap().inode(name).unwrap().bytes[at as usize] ^= mask;
    }

    fn set_readable(&self, name: &str, readable: bool) {
        self.0.lock().unwrap().inode(name).unwrap().unreadable = !readable;
    }

    pub(super) fn set_room(&self, room: Option<usize>) {
        self.0.lock().unwrap().room = room;
    }
}

impl Files for Simulated {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().names.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().inode(name)?.bytes.len() as u64)
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock().unwrap();
        let inode = state.inode(name)?;
        if inode.unreadable {
            return Err(io::Error::other("input/output error"));
        }
        let bytes = &inode.bytes;
        bytes.get(offset as usize..offset as usize + len).map(<[u8]>::to_vec).ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.check()?;
        if !state.names.contains_key(name) {
            state.inodes.push(Inode::default());
            let at = state.inodes.len() - 1;
            state.names.insert(name.to_owned(), at);
            state.changed();
        }
        let written = state.room.unwrap_or(bytes.len()).min(bytes.len());
        state.room = state.room.map(|room| room - written);
        state.inode(name)?.bytes.extend_from_slice(&bytes[..written]);
        if written < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.check_sync()?;
        let inode = state.inode(name)?;
        inode.bytes.truncate(len as usize);
        inode.safe = inode.safe.min(len as usize);
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.check_sync()?;
        let inode = state.inode(name)?;
        inode.safe = inode.bytes.len();
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.check_sync()?;
        state.safe_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.check()?;
        let at = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), at);
        state.changed();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.check()?;
        let inode = state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        let freed = state.inodes[inode].bytes.len();
        state.room = state.room.map(|room| room + freed);
        state.changed();
        Ok(())
    }
}

const QUOTA: u64 = 12_000;

fn body(number: u64) -> Bytes {
    Bytes::from(number.to_le_bytes().repeat(1 + number as usize % 30))
}

/// What must be on disk, beside the spool itself.
struct Model {
    files: Arc<Simulated>,
    spool: Spool,
    next: u64,
    /// Numbers that `append` said are safe, minus those dropped or forgotten.
    safe: [BTreeMap<u64, u64>; 3],
    /// Where `append` or the last start found the safe ones.
    locations: [BTreeMap<u64, Location>; 3],
    /// Appended without success, forgotten, dropped or damaged: may or may not be there.
    doubtful: [BTreeMap<u64, u64>; 3],
    /// Appended without success: the queue offers them again.
    pending: [Vec<u64>; 3],
    cursors: Cursors,
    /// Also good, if the last `write_cursors` failed half-way.
    newer_cursors: Option<Cursors>,
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        signal: u8,
        count: u8,
    },
    EnforceQuota {
        signal: u8,
    },
    Forget {
        signal: u8,
        keep: u8,
    },
    Cursors {
        number: u64,
    },
    Full {
        room: u16,
    },
    Space,
    ReadOnly(bool),
    NoSync(bool),
    /// Of some safe record's header.
    FlipBit {
        signal: u8,
        record: u16,
        bit: u8,
    },
    /// Some segment, from a restart on.
    Unreadable {
        segment: u16,
    },
    Readable,
    Crash(u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (0..2u8, 1..8u8).prop_map(|(signal, count)| Step::Append { signal, count }),
        2 => (0..3u8).prop_map(|signal| Step::EnforceQuota { signal }),
        2 => (0..3u8, 0..20u8).prop_map(|(signal, keep)| Step::Forget { signal, keep }),
        2 => (0..50u64).prop_map(|number| Step::Cursors { number }),
        1 => (0..900u16).prop_map(|room| Step::Full { room }),
        2 => Just(Step::Space),
        1 => any::<bool>().prop_map(Step::ReadOnly),
        4 => any::<bool>().prop_map(Step::NoSync),
        2 => (0..2u8, any::<u16>(), 0..224u8).prop_map(|(signal, record, bit)| Step::FlipBit { signal, record, bit }),
        1 => any::<u16>().prop_map(|segment| Step::Unreadable { segment }),
        1 => Just(Step::Readable),
        3 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

impl Model {
    fn new() -> Model {
        let files = Arc::new(Simulated::default());
        let (spool, _) = Spool::open(files.clone(), [QUOTA; 3]).unwrap();
        let (safe, locations, doubtful, pending) = Default::default();
        let cursors = Cursors::new();
        Model { files, spool, next: 0, safe, locations, doubtful, pending, cursors, newer_cursors: None }
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Append { signal, count } => self.append(Signal::ALL[usize::from(signal)], count),
            Step::EnforceQuota { signal } => {
                let signal = Signal::ALL[usize::from(signal)];
                while let Some(last) = self.spool.over_quota(signal) {
                    let oldest = self.spool.segments[signal as usize][0].first;
                    for (number, _) in self.safe[signal as usize].range(..=last) {
                        assert_eq!(self.locations[signal as usize][number].segment, oldest, "{number} is not dropped");
                    }
                    self.gone(signal, last.saturating_add(1));
                    if self.spool.drop_oldest(signal).is_err() {
                        break;
                    }
                }
                assert!(self.files.0.lock().unwrap().read_only || self.spool.bytes(signal) <= QUOTA);
            }
            Step::Forget { signal, keep } => {
                let signal = Signal::ALL[usize::from(signal)];
                let below = self.next.saturating_sub(keep.into());
                let _ = self.spool.forget_below(signal, below);
                // Whole segments only: what is below may be there or not.
                let numbers: Vec<u64> = self.safe[signal as usize].range(..below).map(|(number, _)| *number).collect();
                for number in numbers {
                    let items = self.safe[signal as usize].remove(&number).unwrap();
                    self.doubtful[signal as usize].insert(number, items);
                }
            }
            Step::Cursors { number } => {
                let cursors = Cursors::from([("sink".to_owned(), [Some(number), None, Some(0)])]);
                match self.spool.write_cursors(&cursors) {
                    Ok(()) => (self.cursors, self.newer_cursors) = (cursors, None),
                    Err(_) => self.newer_cursors = Some(cursors),
                }
            }
            Step::Full { room } => self.files.set_room(Some(room.into())),
            Step::Space => self.files.set_room(None),
            Step::ReadOnly(read_only) => self.files.0.lock().unwrap().read_only = read_only,
            Step::NoSync(no_sync) => self.files.0.lock().unwrap().no_sync = no_sync,
            Step::FlipBit { signal, record, bit } => self.flip_bit(Signal::ALL[usize::from(signal)], record, bit),
            Step::Unreadable { segment } => {
                let names: Vec<String> = self.files.list().unwrap();
                let names: Vec<&String> = names.iter().filter(|name| name.ends_with(".spool")).collect();
                if !names.is_empty() {
                    self.files.set_readable(names[usize::from(segment) % names.len()], false);
                    self.play(Step::Restart);
                }
            }
            Step::Readable => {
                self.files.0.lock().unwrap().inodes.iter_mut().for_each(|inode| inode.unreadable = false);
                self.play(Step::Restart);
            }
            Step::Crash(random) => {
                self.mend();
                // Its memory is gone, too: only what is on disk is offered again.
                self.pending = Default::default();
                self.files.crash(random);
                self.reopen();
            }
            Step::Restart => {
                self.pending = Default::default();
                self.reopen();
            }
        }
    }

    fn mend(&self) {
        let mut state = self.files.0.lock().unwrap();
        (state.read_only, state.no_sync) = (false, false);
    }

    /// It costs that record, and no other.
    fn flip_bit(&mut self, signal: Signal, record: u16, bit: u8) {
        let safe = &mut self.safe[signal as usize];
        if safe.is_empty() {
            return;
        }
        let number = *safe.keys().nth(usize::from(record) % safe.len()).unwrap();
        let items = safe.remove(&number).unwrap();
        self.doubtful[signal as usize].insert(number, items);
        let location = self.locations[signal as usize][&number];
        let name = segment_name(signal, location.segment);
        self.files.flip(&name, location.offset + u64::from(bit / 8), 1 << (bit % 8));
    }

    fn is_unreadable(&self, signal: Signal, number: u64) -> bool {
        let name = segment_name(signal, self.locations[signal as usize][&number].segment);
        self.files.0.lock().unwrap().inode(&name).unwrap().unreadable
    }

    fn append(&mut self, signal: Signal, count: u8) {
        let mut numbers = std::mem::take(&mut self.pending[signal as usize]);
        numbers.extend(self.next..self.next + u64::from(count));
        self.next += u64::from(count);
        let entries: Vec<_> = numbers.iter().map(|&number| record(number, number % 7, body(number))).collect();
        let (locations, outcome) = self.spool.append(signal, &entries);
        assert_eq!(locations.len() == entries.len(), outcome.is_ok());
        for (at, SpoolRecord { number, items, .. }) in entries.iter().enumerate() {
            match locations.get(at) {
                Some(location) => {
                    let read = read_body(self.files.as_ref(), signal, *location);
                    assert_eq!(read.unwrap(), body(*number));
                    self.safe[signal as usize].insert(*number, *items);
                    self.locations[signal as usize].insert(*number, *location);
                }
                None => {
                    self.doubtful[signal as usize].insert(*number, *items);
                    self.pending[signal as usize].push(*number);
                }
            }
        }
    }

    fn gone(&mut self, signal: Signal, below: u64) {
        // A removed name may come back after a crash: the spool then simply has more than it must.
        let kept = self.safe[signal as usize].split_off(&below);
        let gone = std::mem::replace(&mut self.safe[signal as usize], kept);
        self.doubtful[signal as usize].extend(gone);
    }

    /// Everything that is safe is there, once, in order and readable; nothing else but what was
    /// appended is.
    fn reopen(&mut self) {
        let (spool, recovered) = Spool::open(self.files.clone(), [QUOTA; 3]).unwrap();
        self.spool = spool;
        for signal in Signal::ALL {
            let records: Vec<&Found> = recovered.records.iter().filter(|found| found.signal == signal).collect();
            assert!(records.is_sorted_by(|a, b| a.number < b.number), "{records:?}");
            for (number, items) in &self.safe[signal as usize] {
                assert!(*number < recovered.next_number, "{number} is given twice");
                if self.is_unreadable(signal, *number) {
                    continue;
                }
                let found = records.iter().find(|found| found.number == *number);
                let found = found.unwrap_or_else(|| panic!("{} {number} is lost", signal.word()));
                assert_eq!(found.items, *items);
                assert_eq!(read_body(self.files.as_ref(), signal, found.location).unwrap(), body(*number));
            }
            for found in records {
                self.locations[signal as usize].insert(found.number, found.location);
                assert!(found.number < recovered.next_number, "{found:?} is given twice");
                let known = self.safe[signal as usize].get(&found.number);
                let known = known.or_else(|| self.doubtful[signal as usize].get(&found.number));
                assert_eq!(known, Some(&found.items), "{found:?}");
                match read_body(self.files.as_ref(), signal, found.location) {
                    Ok(bytes) => assert_eq!(bytes, body(found.number)),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
                }
            }
        }
        let good = recovered.cursors == self.cursors || Some(&recovered.cursors) == self.newer_cursors.as_ref();
        assert!(good, "{:?}", recovered.cursors);
        let noted = recovered.cursors.values().flatten().flatten().max();
        assert!(noted.is_none_or(|noted| *noted <= recovered.next_number), "a sink would skip what comes next");
        self.next = recovered.next_number;
        (self.cursors, self.newer_cursors) = (recovered.cursors, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_was_synced_survives_every_crash(steps in steps()) {
        let mut model = Model::new();
        for step in steps {
            model.play(step);
        }
        model.mend();
        model.reopen();
    }
}

fn record(number: u64, items: u64, body: Bytes) -> SpoolRecord {
    SpoolRecord { number, items, route: number as u32 + 1, body }
}

fn filled(count: u64) -> (Arc<Simulated>, Vec<Location>) {
    let files = Arc::new(Simulated::default());
    let (mut spool, _) = Spool::open(files.clone(), [1 << 20; 3]).unwrap();
    let entries: Vec<_> = (0..count).map(|number| record(number, 3, body(number))).collect();
    let (locations, outcome) = spool.append(Signal::Traces, &entries);
    outcome.unwrap();
    (files, locations)
}

#[test]
fn truncation_at_every_byte_loses_only_the_cut_record() {
    let (files, locations) = filled(5);
    let name = segment_name(Signal::Traces, 0);
    let whole = files.read(&name, 0, files.len(&name).unwrap() as usize).unwrap();
    for cut in 0..whole.len() {
        let files = Arc::new(Simulated::default());
        files.append(&name, &whole[..cut]).unwrap();
        let (mut spool, recovered) = Spool::open(files.clone(), [1 << 20; 3]).unwrap();
        let expected = locations.iter().filter(|l| l.offset as usize + HEADER + l.bytes() <= cut).count();
        assert_eq!(recovered.records.len(), expected, "{cut}");
        // And it goes on.
        spool.append(Signal::Traces, &[record(9, 1, body(9))]).1.unwrap();
        let (_, recovered) = Spool::open(files, [1 << 20; 3]).unwrap();
        assert_eq!(recovered.records.len(), expected + 1, "{cut}");
    }
}

/// A folder that was emptied or mounted anew, a file that somebody else wrote to: a record behind it
/// would not be where the queue believes it to be.
#[test]
fn a_segment_that_another_hand_has_changed_is_not_written_on() {
    let name = segment_name(Signal::Traces, 0);
    type Hand = fn(&Simulated, &str);
    let hands: [Hand; 3] = [
        |files, name| files.remove(name).unwrap(),
        |files, name| files.truncate(name, 40).unwrap(),
        |files, name| files.append(name, b"x").unwrap(),
    ];
    for hand in hands {
        let files = Arc::new(Simulated::default());
        let (mut spool, _) = Spool::open(files.clone(), [1 << 20; 3]).unwrap();
        spool.append(Signal::Traces, &[record(0, 1, body(0))]).1.unwrap();
        hand(&files, &name);
        let (locations, outcome) = spool.append(Signal::Traces, &[record(1, 1, body(1))]);
        outcome.unwrap();
        assert_eq!(read_body(files.as_ref(), Signal::Traces, locations[0]).unwrap(), body(1));
        let (_, recovered) = Spool::open(files, [1 << 20; 3]).unwrap();
        assert!(recovered.records.iter().any(|record| record.number == 1));
    }
}

/// Without a record nothing of it can be used: it goes once it is counted, as soon as it can.
#[test]
fn a_segment_without_a_record_is_counted_and_goes() {
    let (files, _) = filled(0);
    let name = segment_name(Signal::Traces, 4);
    files.append(&name, &[7; 300]).unwrap();
    let open = || Spool::open(files.clone(), [1 << 20; 3]).unwrap();
    files.0.lock().unwrap().read_only = true;
    for _ in 0..2 {
        let (spool, recovered) = open();
        assert!(recovered.records.is_empty());
        assert_eq!((recovered.damaged, spool.bytes(Signal::Traces)), ([300, 0, 0], 300), "it uses the quota");
        assert_eq!(recovered.next_number, 5);
    }
    files.0.lock().unwrap().read_only = false;
    assert_eq!(open().1.damaged, [300, 0, 0]);
    assert!(files.list().unwrap().is_empty());
    assert_eq!(open().1.damaged, [0; 3]);
}

/// It may be readable again: it stays, within the quota, and nothing else gets its numbers.
#[test]
fn a_segment_that_cannot_be_read_stays_until_its_quota_or_its_readers_are_past_it() {
    let (files, _) = filled(5);
    let name = segment_name(Signal::Traces, 0);
    let len = files.len(&name).unwrap();
    files.set_readable(&name, false);
    let quota = 80_000;
    let (mut spool, recovered) = Spool::open(files.clone(), [quota; 3]).unwrap();
    assert_eq!((recovered.records.len(), recovered.damaged), (0, [len, 0, 0]));
    assert_eq!(spool.bytes(Signal::Traces), len);
    let next = recovered.next_number;
    assert!(next > 5);
    spool.append(Signal::Traces, &[record(next, 1, body(next))]).1.unwrap();
    spool.forget_below(Signal::Traces, next - 1).unwrap();

    files.set_readable(&name, true);
    let (mut spool, recovered) = Spool::open(files.clone(), [quota; 3]).unwrap();
    let numbers: Vec<u64> = recovered.records.iter().map(|record| record.number).collect();
    assert_eq!((numbers, recovered.damaged), (vec![0, 1, 2, 3, 4, next], [0; 3]));
    assert_eq!(recovered.next_number, next + 1);
    spool.forget_below(Signal::Traces, next).unwrap();
    assert!(files.len(&name).is_err(), "every sink is past it");

    let (files, _) = filled(5);
    files.set_readable(&name, false);
    let (mut spool, recovered) = Spool::open(files.clone(), [quota; 3]).unwrap();
    let first = recovered.next_number;
    for number in first..first + 700 {
        spool.append(Signal::Traces, &[record(number, 1, body(number))]).1.unwrap();
    }
    let dropped = spool.over_quota(Signal::Traces).expect("it is full");
    assert!(dropped < first, "the one that cannot be read goes first, and no entry with it");
    spool.drop_oldest(Signal::Traces).unwrap();
    assert!(files.len(&name).is_err());
}

/// Else entries that are still on disk would be told to be gone.
#[test]
fn dropping_the_oldest_segment_drops_no_number_of_the_next() {
    let (files, _) = filled(5);
    let (mut spool, _) = Spool::open(files.clone(), [1 << 20; 3]).unwrap();
    for number in 5..20 {
        spool.append(Signal::Traces, &[record(number, 1, body(number))]).1.unwrap();
    }
    for readable in [false, true] {
        files.set_readable(&segment_name(Signal::Traces, 0), readable);
        assert_eq!(Spool::open(files.clone(), [100; 3]).unwrap().0.over_quota(Signal::Traces), Some(4));
    }
    // Copies whose sync failed, and which could not be cut off either.
    let copy = SegmentHeader { len: 0, number: 5, items: 1, route: 0, body_crc: 0 };
    files.append(&segment_name(Signal::Traces, 0), &copy.write()).unwrap();
    assert_eq!(Spool::open(files, [100; 3]).unwrap().0.over_quota(Signal::Traces), Some(4));
}

/// Numbers of an earlier run, also where its records are gone and the sink has another name by now.
#[test]
fn no_number_is_given_twice() {
    let files = Arc::new(Simulated::default());
    let (spool, recovered) = Spool::open(files.clone(), [QUOTA; 3]).unwrap();
    assert_eq!(recovered.next_number, 0);
    spool.write_cursors(&Cursors::from([("renamed".to_owned(), [Some(100), Some(3), None])])).unwrap();
    let (mut spool, recovered) = Spool::open(files.clone(), [QUOTA; 3]).unwrap();
    assert_eq!(recovered.next_number, 100);
    spool.append(Signal::Logs, &[record(120, 1, body(120))]).1.unwrap();
    assert_eq!(Spool::open(files, [QUOTA; 3]).unwrap().1.next_number, 121);
}

/// A digit that turned into another would skip records, and nobody would know.
#[test]
fn damaged_cursors_are_none_at_all() {
    let (files, _) = filled(3);
    let (spool, _) = Spool::open(files.clone(), [1 << 20; 3]).unwrap();
    let cursors = Cursors::from([("arms".to_owned(), [Some(1), None, Some(7)])]);
    spool.write_cursors(&cursors).unwrap();
    let read = |files: &Arc<Simulated>| Spool::open(files.clone(), [1 << 20; 3]).unwrap().1.cursors;
    assert_eq!(read(&files), cursors);
    let whole = files.read(CURSORS, 0, files.len(CURSORS).unwrap() as usize).unwrap();
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        files.0.lock().unwrap().inode(CURSORS).unwrap().bytes[at] ^= 1 << bit;
        assert_eq!(read(&files), Cursors::new(), "bit {bit} of byte {at}");
        files.0.lock().unwrap().inode(CURSORS).unwrap().bytes[at] ^= 1 << bit;
    }
    for len in (0..whole.len()).rev() {
        files.truncate(CURSORS, len as u64).unwrap();
        assert_eq!(read(&files), Cursors::new(), "cut at {len}");
    }
}

#[test]
fn a_flipped_bit_costs_one_record_wherever_it_is() {
    let name = segment_name(Signal::Traces, 0);
    let (files, locations) = filled(4);
    for at in 0..files.len(&name).unwrap() {
        let (files, _) = filled(4);
        files.flip(&name, at, 4);
        let (_, recovered) = Spool::open(files.clone(), [1 << 20; 3]).unwrap();
        let read = |found: &&Found| read_body(files.as_ref(), Signal::Traces, found.location).is_ok();
        let good: Vec<u64> = recovered.records.iter().filter(read).map(|found| found.number).collect();
        let hit = locations.iter().rposition(|location| location.offset <= at);
        let expected: Vec<u64> = (0..4).filter(|number| hit != Some(*number as usize)).collect();
        assert_eq!(good, expected, "{at}");
        // Without a header nobody knows how many items there were; a damaged body is discarded with its items.
        let damaged = match hit {
            None => MAGIC.len(),
            Some(hit) if at < locations[hit].offset + HEADER as u64 => HEADER + locations[hit].bytes(),
            Some(_) => 0,
        };
        assert_eq!(recovered.damaged, [damaged as u64, 0, 0], "{at}");
    }
}

/// Farther than the window in which headers are looked for, and across its borders.
#[test]
fn records_behind_long_damage_are_found() {
    let header = HEADER as u64;
    for long in [WINDOW - 2 * header, WINDOW - header - 9, WINDOW - header, WINDOW - header + 1, 3 * WINDOW] {
        let files = Arc::new(Simulated::default());
        let (mut spool, _) = Spool::open(files.clone(), [1 << 30; 3]).unwrap();
        let long = Bytes::from(vec![0; long as usize]);
        let (locations, outcome) =
            spool.append(Signal::Logs, &[record(0, 1, body(0)), record(3, 1, long), record(9, 1, body(9))]);
        outcome.unwrap();
        files.flip(&segment_name(Signal::Logs, 0), locations[1].offset, 1);
        let (_, recovered) = Spool::open(files.clone(), [1 << 30; 3]).unwrap();
        let found: Vec<Location> = recovered.records.iter().map(|found| found.location).collect();
        assert_eq!(found, [locations[0], locations[2]]);
        assert_eq!(recovered.damaged[Signal::Logs as usize], (HEADER + locations[1].bytes()) as u64);
    }
}

/// The end that a crash cut off is counted by one start, damage in the middle by each until it is gone.
#[test]
fn damage_is_counted() {
    let (files, locations) = filled(4);
    let name = segment_name(Signal::Traces, 0);
    let damaged = || Spool::open(files.clone(), [1 << 20; 3]).unwrap().1.damaged[0];
    files.append(&name, &[0; 100]).unwrap();
    assert_eq!((damaged(), damaged()), (100, 0));
    files.flip(&name, locations[1].offset + 5, 1);
    let lost = (HEADER + locations[1].bytes()) as u64;
    assert_eq!((damaged(), damaged()), (lost, lost));
}
