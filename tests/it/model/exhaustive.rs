//! The protocol as a small state machine of its own, searched exhaustively: one chunk that a writer would like to
//! reuse, two pruners or a pruner and a forgetter, every interleaving of their reads and writes, and every outcome
//! of a read that the delay Δ allows.
//!
//! It shares no code with the program, so it also says what the protocol *is*: each step below is a step of
//! `docs/concurrency.md`. Objects are bits. A write is `pending` until some actor's wait of Δ that began after it is
//! over; until then each read sees either the old or the new state.

use std::collections::HashSet;

use super::sim::Mutant;

/// Packs that can hold the chunk: the one there at first, two of the writer's, one copy of each pruner's.
const OLD: u16 = 1;
const STORED: [u16; 2] = [1 << 1, 1 << 2];
const COPIES: [u16; 2] = [1 << 3, 1 << 4];
const PACKS: u16 = 0b1_1111;
const TOMBSTONES: [u16; 2] = [1 << 5, 1 << 6];
const BOTH: u16 = TOMBSTONES[0] | TOMBSTONES[1];
const MANIFEST: u16 = 1 << 7;
const CONFIRM: u16 = 1 << 8;
const MARK: u16 = 1 << 9;

const WRITER: usize = 0;
const FORGETTER: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    exists: u16,
    pending: u16,
    /// What each actor's wait, when it ends, makes visible.
    due: [u16; 4],
    step: [u8; 4],
    /// What an actor saw in the listing before the one it is about to make.
    saw: [u16; 4],
    /// What each tombstone names.
    named: [u16; 2],
    stored: u8,
    committed: bool,
    released: bool,
}

/// Ended, well or not.
const END: u8 = 255;

#[derive(Clone, Copy, Debug)]
struct Setup {
    pruners: usize,
    forgetter: bool,
    mutant: Option<Mutant>,
}

impl State {
    fn start(setup: Setup) -> Self {
        let mut step = [0; 4];
        if setup.pruners < 2 {
            step[2] = END;
        }
        if !setup.forgetter {
            step[FORGETTER] = END;
        }
        Self {
            exists: OLD,
            pending: 0,
            due: [0; 4],
            step,
            saw: [0; 4],
            named: [0; 2],
            stored: 0,
            committed: false,
            released: false,
        }
    }

    fn write(&mut self, object: u16, exists: bool) {
        if exists {
            self.exists |= object
        } else {
            self.exists &= !object
        }
        self.pending |= object;
        self.due.iter_mut().for_each(|due| *due &= !object);
    }

    /// Every way a read of `objects` can come out now.
    fn read(&self, objects: u16) -> Vec<u16> {
        let (sure, unsure) = (self.exists & objects & !self.pending, self.pending & objects);
        let mut outcomes = Vec::new();
        let mut part = unsure;
        loop {
            outcomes.push(sure | part);
            if part == 0 {
                return outcomes;
            }
            part = (part - 1) & unsure;
        }
    }

    fn condemned(&self, tombstones: u16) -> u16 {
        let of = |n: usize| if tombstones & TOMBSTONES[n] != 0 { self.named[n] } else { 0 };
        of(0) | of(1)
    }

    fn to(mut self, actor: usize, step: u8) -> Self {
        self.step[actor] = step;
        self
    }

    /// Begins a wait of Δ; the step after ends it.
    fn begin_wait(mut self, actor: usize) -> Self {
        self.due[actor] = self.pending;
        self.step[actor] += 1;
        self
    }

    fn end_wait(mut self, actor: usize, then: u8) -> Self {
        self.pending &= !self.due[actor];
        self.due[actor] = 0;
        self.saw[actor] = 0;
        self.to(actor, then)
    }

    /// I1 and I4.
    fn is_sound(&self) -> bool {
        !self.committed || self.released || (self.exists & MANIFEST != 0 && self.exists & PACKS != 0)
    }

    fn next(&self, actor: usize, setup: Setup) -> Vec<Self> {
        match actor {
            _ if self.step[actor] == END => Vec::new(),
            WRITER => self.writer(setup),
            FORGETTER => self.forgetter(),
            pruner => self.pruner(pruner - 1, setup),
        }
    }

    /// Tombstones as the writer reads them: what they condemn. The resurrecting mutant takes them away instead.
    fn writer_condemned(&self, setup: Setup) -> Vec<(Self, u16)> {
        self.read(BOTH)
            .into_iter()
            .map(|seen| {
                let mut state = *self;
                if setup.mutant == Some(Mutant::ResurrectTombstone) {
                    TOMBSTONES.into_iter().filter(|t| seen & t != 0).for_each(|t| state.write(t, false));
                    return (state, 0);
                }
                (state, self.condemned(seen))
            })
            .collect()
    }

    fn store_again(mut self, then: u8) -> Self {
        let Some(pack) = STORED.get(usize::from(self.stored)) else { return self.to(WRITER, END) };
        self.stored += 1;
        self.write(*pack, true);
        self.to(WRITER, then)
    }

    fn writer(&self, setup: Setup) -> Vec<Self> {
        let before_put = setup.mutant == Some(Mutant::CheckBeforePut);
        let after_sync = if before_put { 4 } else { 3 };
        let after_check = if before_put { 3 } else { 8 };
        let after_put = if before_put { 8 } else { 4 };
        let look_at_packs = |then_good: u8, then_bad: u8| {
            let judge = |seen: u16| {
                let good = seen & !self.saw[WRITER] != 0;
                if good { self.to(WRITER, then_good) } else { self.store_again(then_bad) }
            };
            self.read(PACKS).into_iter().map(judge).collect::<Vec<_>>()
        };
        let look_at_tombstones = |then: u8| {
            let note = |(mut state, condemned): (Self, u16)| {
                state.saw[WRITER] = condemned;
                state.to(WRITER, then)
            };
            self.writer_condemned(setup).into_iter().map(note).collect::<Vec<_>>()
        };
        match self.step[WRITER] {
            1 => look_at_tombstones(2),
            2 => look_at_packs(after_sync, after_sync),
            3 => {
                let mut state = *self;
                state.write(MANIFEST, true);
                vec![state.to(WRITER, after_put)]
            }
            4 => vec![self.begin_wait(WRITER)],
            5 => vec![self.end_wait(WRITER, 6)],
            6 if setup.mutant == Some(Mutant::PacksBeforeTombstones) => {
                let note = |seen| {
                    let mut state = *self;
                    state.saw[WRITER] = seen;
                    state.to(WRITER, 7)
                };
                self.read(PACKS).into_iter().map(note).collect()
            }
            7 if setup.mutant == Some(Mutant::PacksBeforeTombstones) => {
                let judge = |(state, condemned): (Self, u16)| {
                    let good = self.saw[WRITER] & !condemned != 0;
                    if good { state.to(WRITER, after_check) } else { state.store_again(4) }
                };
                self.writer_condemned(setup).into_iter().map(judge).collect()
            }
            6 => look_at_tombstones(7),
            7 => look_at_packs(after_check, 4),
            8 => {
                let mut state = *self;
                state.write(CONFIRM, true);
                vec![state.to(WRITER, 9)]
            }
            9 => vec![self.begin_wait(WRITER)],
            10 => vec![self.end_wait(WRITER, 11)],
            11 if setup.mutant == Some(Mutant::NoForgottenCheck) => vec![self.to(WRITER, 12)],
            11 => {
                self.read(MARK).into_iter().map(|m| self.to(WRITER, if m == 0 { 12 } else { END })).collect()
            }
            12 => {
                let judge = |seen| {
                    let mut state = self.to(WRITER, END);
                    state.committed = seen != 0;
                    state
                };
                self.read(MANIFEST).into_iter().map(judge).collect()
            }
            _ => vec![self.to(WRITER, 1)],
        }
    }

    /// Reads manifests, tombstones and packs in three steps from `first` on; `then` gets (live, condemned, packs).
    fn look(&self, n: usize, first: u8, then: impl Fn(Self, bool, u16, u16) -> Self) -> Vec<Self> {
        let actor = n + 1;
        let note = |seen: u16| {
            let mut state = *self;
            state.saw[actor] |= seen;
            state.to(actor, self.step[actor] + 1)
        };
        match self.step[actor] - first {
            0 => self.read(MANIFEST).into_iter().map(note).collect(),
            1 => self.read(BOTH).into_iter().map(|seen| note(self.condemned(seen))).collect(),
            _ => {
                let saw = self.saw[actor];
                let then = |packs| then(*self, saw & MANIFEST != 0, saw & PACKS, packs);
                self.read(PACKS).into_iter().map(then).collect()
            }
        }
    }

    fn pruner(&self, n: usize, setup: Setup) -> Vec<Self> {
        let actor = n + 1;
        match self.step[actor] {
            0..=2 => self.look(n, 0, |mut state, live, condemned, packs| {
                let free = packs & !condemned;
                // Needed: one pack stays, whichever comes first. Not needed: none does.
                let keep = if live { free & free.wrapping_neg() } else { 0 };
                state.named[n] = free & !keep;
                state.to(actor, if state.named[n] == 0 { END } else { 3 })
            }),
            3 => {
                let mut state = *self;
                state.write(TOMBSTONES[n], true);
                vec![state.to(actor, 4)]
            }
            4 => vec![self.begin_wait(actor)],
            5 => vec![self.end_wait(actor, 6)],
            6..=8 => self.look(n, 6, |state, live, condemned, packs| {
                let step = match (live, packs & !condemned != 0, packs & state.named[n] != 0) {
                    (false, ..) | (true, true, _) => 12,
                    (true, false, true) => 9,
                    // Neither a free copy nor one of the own: fail closed, the tombstone stays.
                    (true, false, false) if packs & condemned != 0 => 12,
                    _ => END,
                };
                state.to(actor, step)
            }),
            9 if self.exists & self.named[n] == 0 => vec![self.to(actor, END)],
            9 => {
                let mut state = *self;
                state.write(COPIES[n], true);
                vec![state.to(actor, 10)]
            }
            10 => vec![self.begin_wait(actor)],
            11 => vec![self.end_wait(actor, 12)],
            12 => {
                let mut next = Vec::new();
                for bit in (0..5).map(|bit| 1 << bit).filter(|bit| self.named[n] & self.exists & bit != 0) {
                    let mut state = *self;
                    state.write(bit, false);
                    next.push(state);
                }
                if next.is_empty() {
                    next.push(self.to(actor, 13));
                }
                next
            }
            13 => vec![self.begin_wait(actor)],
            14 => vec![self.end_wait(actor, 15)],
            _ => {
                let mut state = *self;
                state.write(TOMBSTONES[n], false);
                if setup.mutant == Some(Mutant::RemoveOthers) {
                    state.write(TOMBSTONES[1 - n], false);
                }
                vec![state.to(actor, END)]
            }
        }
    }

    fn forgetter(&self) -> Vec<Self> {
        match self.step[FORGETTER] {
            0 => {
                let mut next = Vec::new();
                for seen in self.read(MANIFEST | CONFIRM).into_iter().filter(|seen| seen & MANIFEST != 0) {
                    let mut state = *self;
                    state.released |= seen & CONFIRM != 0;
                    next.push(state.to(FORGETTER, 1));
                }
                next
            }
            1 => {
                let mut state = *self;
                state.write(MARK, true);
                vec![state.to(FORGETTER, if self.released { 5 } else { 2 })]
            }
            2 => vec![self.begin_wait(FORGETTER)],
            3 => vec![self.end_wait(FORGETTER, 4)],
            4 => {
                let judge = |seen: u16| self.to(FORGETTER, if seen == 0 { 5 } else { END });
                self.read(CONFIRM).into_iter().map(judge).collect()
            }
            _ => {
                let mut state = *self;
                state.write(MANIFEST, false);
                vec![state.to(FORGETTER, END)]
            }
        }
    }
}

/// Visits every reachable state. A crash needs no step of its own: an actor that is never scheduled again is one.
/// Returns how many states there are, or the first that is unsound.
fn search(setup: Setup) -> Result<usize, State> {
    let start = State::start(setup);
    let mut visited = HashSet::from([start]);
    let mut open = vec![start];
    while let Some(state) = open.pop() {
        if !state.is_sound() {
            return Err(state);
        }
        for next in (0..4).flat_map(|actor| state.next(actor, setup)) {
            if visited.insert(next) {
                open.push(next);
            }
        }
    }
    Ok(visited.len())
}

const TWO_PRUNERS: Setup = Setup { pruners: 2, forgetter: false, mutant: None };
const WITH_FORGETTER: Setup = Setup { pruners: 1, forgetter: true, mutant: None };

#[test]
fn no_state_of_the_small_protocol_loses_a_committed_snapshot() {
    for setup in [TWO_PRUNERS, WITH_FORGETTER] {
        match search(setup) {
            Ok(states) => println!("{setup:?}: {states} states"),
            Err(state) => panic!("{setup:?}: {state:?}"),
        }
    }
}

#[test]
fn every_mutant_of_the_small_protocol_loses_one() {
    for (setup, mutant) in [
        (TWO_PRUNERS, Mutant::CheckBeforePut),
        (TWO_PRUNERS, Mutant::PacksBeforeTombstones),
        (TWO_PRUNERS, Mutant::ResurrectTombstone),
        (TWO_PRUNERS, Mutant::RemoveOthers),
        (WITH_FORGETTER, Mutant::NoForgottenCheck),
    ] {
        let result = search(Setup { mutant: Some(mutant), ..setup });
        assert!(result.is_err(), "{mutant:?} was not caught in {result:?} states");
    }
}
