//! The rules beside a naive sum of facts, in integers without a bound that matters.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::histories::{Step, steps};
use crate::protocol::{Answer, Change, Lost, MOST, REMEMBERED, Request, State, Told, Way};
use crate::rules::{Refusal, Wallet};

/// The facts about a member, added up anew each time.
#[derive(Debug, Default, Clone)]
struct Facts {
    told: Vec<Vec<Told>>,
    /// Grants of the store, and overage, as each [`Answer`] says.
    granted: Vec<u128>,
    is_closed: bool,
    expires: u64,
}

impl Facts {
    fn most(&self, axis: usize, part: impl Fn(&Told) -> u64) -> u128 {
        self.told.iter().map(|told| u128::from(part(&told[axis]))).max().unwrap_or(0)
    }

    fn spent(&self, axis: usize) -> u128 {
        self.most(axis, |told| told.spent)
    }

    fn held(&self, axis: usize) -> u128 {
        if self.is_closed {
            return self.spent(axis);
        }
        let granted = self.granted[axis].max(self.most(axis, |told| told.seen));
        let left = granted.saturating_sub(self.most(axis, |told| told.returned));
        left.max(self.spent(axis))
    }
}

#[derive(Debug)]
struct Naive {
    members: BTreeMap<String, Facts>,
    /// The units that earlier periods used.
    settled: [u128; 2],
    period_end: u64,
    caps: Vec<CapFact>,
}

/// A call of an operator about the caps that was not refused, in the order of the calls.
#[derive(Debug, Clone)]
enum CapFact {
    Set { axis: usize, cap: u64 },
    Changed { key: String, change: Change, at: u64 },
}

const FOUNDED: [u64; 2] = [100, 60];

impl Naive {
    /// The changes of `caps` that were the first of their keys, each with its instant: a key that is
    /// remembered stands for the change that it came with.
    fn cap(&self, axis: usize) -> i128 {
        let (mut cap, mut first) = (i128::from(FOUNDED[axis]), BTreeMap::new());
        for fact in &self.caps {
            match fact {
                CapFact::Set { axis: set, cap: to } if *set == axis => cap = (*to).into(),
                CapFact::Set { .. } => {}
                CapFact::Changed { key, change, at } => {
                    let is_known = first.get(key).is_some_and(|first| at - first < REMEMBERED);
                    if !is_known {
                        first.insert(key, *at);
                        cap += difference(change, axis);
                    }
                }
            }
        }
        cap
    }

    /// The last change of this key that was no repetition, if that is remembered.
    fn remembered(&self, key: &str, now: u64) -> Option<&Change> {
        let mut first: Option<(u64, &Change)> = None;
        for fact in &self.caps {
            if let CapFact::Changed { key: of, change, at } = fact
                && of == key
                && first.is_none_or(|(first, _)| at - first >= REMEMBERED)
            {
                first = Some((*at, change));
            }
        }
        first.filter(|(first, _)| now - first < REMEMBERED).map(|(_, change)| change)
    }

    /// Whether the facts let a `change` be refused so.
    fn refuses(&self, now: u64, key: &str, change: &Change, refusal: Refusal) -> bool {
        let mut after = (0..2).map(|axis| self.cap(axis) + difference(change, axis));
        let remembered = self.remembered(key, now);
        match refusal {
            Refusal::Axes => change.units.len() != 2,
            Refusal::Range if change.units.iter().any(|units| *units > MOST) => true,
            Refusal::Range => remembered.is_none() && after.any(|cap| cap > MOST.into()),
            Refusal::BelowZero { requested, cap } => {
                let is_axis =
                    |axis| self.cap(axis) == cap.into() && change.units[axis] == requested;
                remembered.is_none() && requested > cap && (0..2).any(is_axis)
            }
            Refusal::KeyConflict => remembered.is_some_and(|known| known != change),
            Refusal::NoMember | Refusal::KeysFull { .. } => false,
        }
    }

    fn turn(&mut self, now: u64, period: u64) {
        if period == 0 || now < self.period_end {
            return;
        }
        while self.period_end <= now {
            self.period_end += period;
        }
        for (axis, settled) in self.settled.iter_mut().enumerate() {
            *settled = self.members.values().map(|facts| facts.spent(axis)).sum();
        }
    }

    fn sum(&self, axis: usize, part: impl Fn(&Facts, usize) -> u128) -> u128 {
        self.members.values().map(|facts| part(facts, axis)).sum::<u128>() - self.settled[axis]
    }

    /// Takes in an `answer`, whose changes must follow from the facts.
    fn learn(&mut self, now: u64, request: &Request, answer: &Answer) {
        let facts = self.members.entry(request.member.clone()).or_default();
        facts.granted.resize(2, 0);
        facts.told.push(request.told.clone());
        facts.expires = now + request.ttl;
        match answer.state {
            State::Closed => facts.is_closed = true,
            State::Gone => assert!(facts.is_closed),
            _ => {
                for axis in 0..2 {
                    // A grant comes on top of what is held, and of what was returned.
                    let covered = facts.held(axis) + facts.most(axis, |told| told.returned);
                    let granted = u128::from(answer.totals[axis].granted);
                    assert!(granted >= covered, "{granted} < {covered}");
                    facts.granted[axis] = granted;
                }
            }
        }
    }
}

fn difference(change: &Change, axis: usize) -> i128 {
    let units = change.units.get(axis).copied().unwrap_or(0).into();
    if change.way == Way::Raise { units } else { -units }
}

fn check(wallet: &Wallet, naive: &Naive) {
    for (axis, book) in wallet.books.iter().enumerate() {
        assert_eq!(i128::from(book.cap), naive.cap(axis), "cap");
        assert_eq!(u128::from(book.charged), naive.sum(axis, Facts::held), "charged");
        assert_eq!(u128::from(book.used), naive.sum(axis, Facts::spent), "used");
    }
    for (id, record) in &wallet.members {
        assert!(record.totals.iter().all(|totals| totals.spent <= totals.held()), "{id}");
    }
}

/// Checks an exchange beyond its accounting: it granted each `floor`, on all axes, or nothing.
fn check_grant(before: &Wallet, now: u64, request: &Request, answer: &Answer) -> bool {
    let mut plain = request.clone();
    plain.told.iter_mut().for_each(|told| (told.want, told.floor) = (0, 0));
    let mut without = before.clone();
    let told = without.exchange(now, &plain).unwrap();
    let grants = answer.books.iter().zip(&told.books);
    let grants: Vec<u64> = grants.map(|(after, told)| after.charged - told.charged).collect();
    for (axis, grant) in grants.iter().enumerate() {
        let (book, totals) = (&answer.books[axis], &answer.totals[axis]);
        assert!(*grant == 0 || book.charged <= book.cap, "a grant above the cap");
        let Told { seen, want, floor, .. } = request.told[axis];
        let unseen = told.totals[axis].granted.saturating_sub(seen);
        assert!(*grant <= want.saturating_sub(unseen), "more than was wanted");
        match answer.state {
            State::Granted if now >= answer.learn_until => {
                assert!(totals.granted - seen >= floor, "less than the floor");
            }
            State::Short(at) => {
                let needed = request.told[at].floor
                    - told.totals[at].granted.saturating_sub(request.told[at].seen);
                assert!(
                    needed > told.books[at].free().min(MOST - told.totals[at].granted),
                    "a false refusal"
                );
                assert_eq!(*grant, 0);
            }
            _ => assert_eq!(*grant, 0),
        }
        if answer.claims > 0 {
            assert!(*grant <= floor.saturating_sub(unseen), "prefetch past one who stands short");
        }
    }
    grants.iter().any(|grant| *grant > 0)
}

fn run(lost: Lost, period: u64, steps: &[Step]) -> usize {
    let mut now = 1_000;
    let mut wallet = Wallet::found(&FOUNDED, lost, period, "run 1", now);
    let period_end = wallet.period_end;
    let mut naive =
        Naive { members: BTreeMap::new(), settled: [0; 2], period_end, caps: Vec::new() };
    // The time by which the keys are older than they look.
    let mut aged = 0;
    let mut grants = 0;
    for step in steps {
        let before = wallet.clone();
        match step {
            Step::Wait(time) => now += time,
            Step::SetCap { axis, cap } => {
                wallet.books[*axis].cap = *cap;
                naive.caps.push(CapFact::Set { axis: *axis, cap: *cap });
            }
            Step::AgeKeys => {
                wallet.age_keys();
                aged += REMEMBERED / 2;
            }
            Step::Change { key, change } => match wallet.change(now, key, change) {
                Err(refusal) => {
                    assert_eq!(wallet, before, "a refusal changes nothing");
                    assert!(naive.refuses(now + aged, key, change, refusal), "{refusal:?}");
                }
                Ok(()) => {
                    naive.turn(now, period);
                    let known = naive.remembered(key, now + aged);
                    assert!(known.is_none_or(|known| known == change), "another change is made");
                    let (key, change) = (key.clone(), change.clone());
                    naive.caps.push(CapFact::Changed { key, change, at: now + aged });
                }
            },
            Step::Resolve { member, spent } => {
                if wallet.resolve(now, member, spent.as_deref()).is_err() {
                    assert_eq!(wallet, before, "a refusal changes nothing");
                    continue;
                }
                naive.turn(now, period);
                let facts = naive.members.get_mut(member).unwrap();
                let told = |axis| {
                    let all = u64::try_from(facts.held(axis)).unwrap();
                    let spent = spent.as_ref().map_or(all, |spent| spent[axis]);
                    Told { spent, ..Told::default() }
                };
                let told = (0..2).map(told).collect();
                facts.told.push(told);
                facts.is_closed = true;
            }
            Step::Exchange(request) => {
                let Ok(answer) = wallet.exchange(now, request) else {
                    assert_eq!(wallet, before, "a refusal changes nothing");
                    continue;
                };
                naive.turn(now, period);
                for (id, facts) in &mut naive.members {
                    let is_lost = lost == Lost::Return && !facts.is_closed && facts.expires <= now;
                    // At most eight a call, and there are four.
                    if is_lost && *id != request.member && now >= wallet.learn_until {
                        facts.is_closed = true;
                    }
                }
                naive.learn(now, request, &answer);
                grants += usize::from(check_grant(&before, now, request, &answer));
            }
        }
        check(&wallet, &naive);
    }
    grants
}

proptest! {
    #[test]
    fn f2_what_is_charged_and_used_is_the_sum_of_the_facts(
        lost in prop_oneof![Just(Lost::Charge), Just(Lost::Return)],
        period in prop_oneof![Just(0), 1..60_u64],
        steps in steps(40),
    ) {
        run(lost, period, &steps);
    }
}

/// The histories are worth something only if the store grants in them, and refuses.
#[test]
fn histories_come_to_grants() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let grants: usize = (0..200)
        .map(|_| run(Lost::Return, 30, &steps(40).new_tree(&mut runner).unwrap().current()))
        .sum();
    assert!(grants > 400, "{grants}");
}
