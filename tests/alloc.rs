//! In steady state no call on the hot paths allocates, at any depth, admitted or refused. Nor does
//! a grant to one who waits; what little a long line costs is told at the end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use budget_pool::{
    Amount, Ask, Axis, BudgetPool, Call, Caps, DeadlineBudget, Level, ManualClock, Name, Observer,
    Outlook, Reservation, Usd, Wait, Window,
};

const PLENTY: u64 = u64::MAX / 2;

fn amount() -> Amount {
    Amount::new().input_tokens(1_000).output_tokens(200).requests(1).usd(Usd::from_micros(3_600))
}

/// A chain of pools, each with caps on several axes; the last is the lowest.
fn chain(depth: usize) -> Vec<BudgetPool> {
    let nanos = Usd::from_nanos(PLENTY);
    let root = BudgetPool::builder()
        .tokens(PLENTY)
        .input_tokens(PLENTY)
        .requests(PLENTY)
        .usd(nanos)
        .build();
    let mut pools = vec![root];
    for above in 0..depth - 1 {
        pools.push(pools[above].child().tokens(PLENTY).output_tokens(PLENTY).usd(nanos).build());
    }
    pools
}

/// Neither allocates nor frees, once it has been called a few times. Far more calls are measured
/// than were made before: a place that is not given back would make an arena grow.
#[track_caller]
fn is_calm(what: &str, mut call: impl FnMut(&BudgetPool)) {
    for depth in [1, 4] {
        let pools = chain(depth);
        let pool = &pools[depth - 1];
        (0..50).for_each(|_| call(pool));
        let seen = measure(|| (0..2_000).for_each(|_| call(pool)));
        assert_eq!(seen, AllocationInfo::default(), "{what} at depth {depth}");
    }
}

#[test]
fn the_counter_counts() {
    let seen = measure(|| drop(std::hint::black_box(Box::new(1_u64))));
    assert_eq!(seen.count_total, 1);
}

#[test]
fn what_asks_allocates_nothing() {
    is_calm("record", |pool| assert!(pool.record(amount()).is_ok()));
    is_calm("peek", |pool| assert!(pool.peek(amount()).is_ok()));
}

#[test]
fn a_refusal_allocates_nothing() {
    let too_much = Amount::new().tokens(u64::MAX);
    is_calm("refused record", |pool| assert!(pool.record(too_much).is_err()));
    is_calm("refused peek", |pool| assert!(pool.peek(too_much).is_err()));
    is_calm("refused reserve", |pool| assert!(pool.reserve(too_much).is_err()));
}

#[test]
fn a_refusal_below_a_ceiling_allocates_nothing_whatever_was_spent_before() {
    let clock = ManualClock::new();
    let builder = || BudgetPool::builder().tokens(10).ceiling(Caps::new().tokens(100));
    let window = Window::fixed(Duration::from_secs(1)).carrying_overage();
    let windowed = builder().window(window).clock(clock.clone()).build();
    for (pool, spent, outlook) in [
        (builder().build(), 15, Outlook::AfterFunding),
        (builder().build(), 150, Outlook::Never),
        (windowed, 25, Outlook::AfterFunding),
    ] {
        pool.debit(Amount::new().tokens(spent));
        clock.advance(Duration::from_secs(1));
        let refuse = || {
            let refused = pool.record(Amount::new().tokens(11)).unwrap_err();
            assert_eq!(refused.outlook(), outlook);
        };
        (0..50).for_each(|_| refuse());
        assert_eq!(measure(|| (0..2_000).for_each(|_| refuse())), AllocationInfo::default());
    }
}

#[test]
fn what_tells_allocates_nothing() {
    is_calm("debit", |pool| {
        pool.debit(amount());
    });
}

#[test]
fn a_hold_allocates_nothing() {
    is_calm("reserve and drop", |pool| drop(pool.reserve(amount()).expect("it fits")));
    is_calm("reserve and commit", |pool| {
        pool.reserve(amount())
            .expect("it fits")
            .commit(Amount::new().tokens(900).usd(Usd::from_micros(2_700)));
    });
    is_calm("reserve and commit all", |pool| {
        pool.reserve(amount()).expect("it fits").commit_all();
    });
}

#[test]
fn a_hold_that_changes_allocates_nothing() {
    let part = Amount::new().tokens(100).usd(Usd::from_micros(300));
    is_calm("record and debit on a hold", |pool| {
        let hold = pool.reserve(amount()).expect("it fits");
        assert!(hold.record(part).is_ok());
        hold.debit(part);
    });
    is_calm("grow and shrink", |pool| {
        let hold = pool.reserve(amount()).expect("it fits");
        assert!(hold.grow(part).is_ok());
        assert!(hold.shrink(part).is_ok());
    });
    is_calm("split", |pool| {
        let hold = pool.reserve(amount()).expect("it fits");
        hold.split(part).expect("it is held").commit_all();
    });
}

#[test]
fn what_time_adds_allocates_nothing() {
    const TTL: Duration = Duration::from_secs(3_600);
    is_calm("reserve for a while and commit", |pool| {
        pool.reserve(Ask::new(amount()).ttl(TTL)).expect("it fits").commit_all();
    });
    is_calm("renew", |pool| {
        let hold = pool.reserve(amount()).expect("it fits");
        hold.renew(TTL).expect("it lives");
    });
    is_calm("expire", |pool| {
        drop(pool.reserve(Ask::new(amount()).ttl(Duration::ZERO)).expect("it fits"))
    });
    let second = Duration::from_secs(1);
    for window in [
        Window::fixed(second),
        Window::token_bucket(second),
        Window::rolling(second * 9 / 10),
        Window::fixed(second / 2).carrying_overage(),
    ] {
        let clock = ManualClock::new();
        let above = BudgetPool::builder().tokens(5_000).window(window.clone());
        let above = above.clock(clock.clone()).build();
        let pool = above.child().tokens(2_000).window(window.clone()).build();
        let turn = || {
            clock.advance(Duration::from_secs(1));
            assert!(pool.record(amount()).is_ok());
            assert!(pool.record(amount()).is_err());
            clock.advance(Duration::from_millis(1));
            pool.debit(Amount::new().tokens(1));
        };
        (0..50).for_each(|_| turn());
        assert_eq!(
            measure(|| (0..2_000).for_each(|_| turn())),
            AllocationInfo::default(),
            "{window:?}"
        );
    }
}

#[test]
fn a_budget_of_time_is_copied_and_asked_without_allocating() {
    let caps = [("search", Duration::from_secs(2)), ("draft", Duration::from_secs(8))];
    let budget = DeadlineBudget::builder()
        .total(Duration::from_secs(3_600))
        .call_caps(caps)
        .build()
        .unwrap();
    let seen = measure(|| {
        let part = budget.clone().child(Duration::from_secs(60));
        assert!(
            part.timeout_for("draft").is_ok()
                && part.timeout_for(Call::named("search").strict()).is_ok()
        );
        assert!(
            part.fits(Duration::from_secs(90)).is_err()
                && part.check().is_ok()
                && !part.split(3).is_zero()
        );
        assert!(!DeadlineBudget::new(Duration::from_secs(1)).is_expired());
    });
    assert_eq!(seen, AllocationInfo::default());
}

#[test]
fn a_name_of_up_to_fifteen_bytes_is_kept_in_place_and_no_copy_allocates() {
    for (text, allocations) in [("fifteen bytes..", 0), ("sixteen bytes...", 1)] {
        let mut name = Name::from("");
        assert_eq!(measure(|| name = Name::from(text)).count_total, allocations, "{text}");
        assert_eq!(measure(|| assert_eq!(name.clone(), text)), AllocationInfo::default());
    }
}

#[test]
fn what_a_tree_has_taken_goes_with_its_last_pool() {
    let seen = measure(|| {
        let clock = ManualClock::new();
        let root = BudgetPool::builder()
            .name("a name of more than fifteen bytes")
            .clock(clock.clone())
            .build();
        let mut pools = vec![root];
        for above in 0..50 {
            pools.push(
                pools[above / 2].child().window(Window::fixed(Duration::from_secs(1))).build(),
            );
        }
        for pool in &pools {
            pool.record_once("a key of more than fifteen bytes, too", amount()).unwrap();
            drop(pool.reserve(amount()).unwrap());
            let mut lease = pool.lease(amount());
            lease.record(amount()).unwrap();
            lease.debit(amount());
            let late = pool.reserve(Ask::new(amount()).ttl(Duration::ZERO)).unwrap();
            late.debit(amount());
        }
        let _share = pools[7].child().tokens(5).carved().build().unwrap();
        drop(pools);
    });
    assert!(seen.count_total > 0);
    assert_eq!((seen.count_current, seen.bytes_current), (0, 0));
}

#[test]
fn what_is_gone_leaves_its_place_to_what_comes() {
    let pools = chain(4);
    let child = || {
        let child = pools[3].child().tokens(100).build();
        child.record(Amount::new().tokens(1)).unwrap();
    };
    (0..50).for_each(|_| child());
    let seen = measure(|| (0..2_000).for_each(|_| child()));
    assert_eq!((seen.count_total, seen.count_current), (2_000, 0), "its handle alone");
}

#[test]
fn a_key_of_few_bytes_allocates_nothing_in_steady_state() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .idempotency_keys(64, Duration::from_secs(10))
        .clock(clock.clone())
        .build();
    let keys: Vec<String> = (0..4_000).map(|key| format!("job-{key}")).collect();
    let call = |key: &String| {
        clock.advance(Duration::from_secs(1));
        // The second time it is a retry.
        for _ in 0..2 {
            pool.record_once(key, amount()).expect("it fits");
        }
    };
    let (first, steady) = keys.split_at(1_000);
    first.iter().for_each(call);
    assert_eq!(measure(|| steady.iter().for_each(call)), AllocationInfo::default());
}

#[test]
fn a_lease_allocates_nothing() {
    is_calm("lease, spend, refill and drop", |pool| {
        let mut lease = pool.lease(amount());
        for is_left in [true, false, true] {
            assert!(lease.record(amount()).is_ok());
            assert_eq!(lease.remaining().is_zero(), !is_left);
        }
        lease.debit(amount() + amount());
        assert!(lease.record(Amount::new().tokens(u64::MAX)).is_err());
    });
}

struct Silent;

impl Observer for Silent {}

fn observed() -> BudgetPool {
    BudgetPool::builder().tokens(PLENTY).observer(Silent).build()
}

fn is_pending<F: Future + Unpin>(watch: &mut F) -> bool {
    Pin::new(watch).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn a_watch_that_waits_allocates_nothing_and_makes_no_call_allocate() {
    for depth in [1, 4] {
        let pools = chain(depth);
        let pool = &pools[depth - 1];
        let mut level = pool.reached(Level::percent(Axis::Tokens, 90));
        let (mut wants, mut closed) = (pool.wants(), pool.closed());
        let mut turn = || {
            assert!(is_pending(&mut level) && is_pending(&mut wants) && is_pending(&mut closed));
            assert!(pool.record(amount()).is_ok());
            assert!(pool.record(Amount::new().tokens(u64::MAX)).is_err());
            pool.reserve(amount()).expect("it fits").commit_all();
        };
        (0..50).for_each(|_| turn());
        let seen = measure(|| (0..2_000).for_each(|_| turn()));
        assert_eq!(seen, AllocationInfo::default(), "at depth {depth}");
    }
}

#[test]
fn what_a_watch_has_taken_goes_with_it() {
    let pool = BudgetPool::builder().tokens(10).low(Amount::new().tokens(5)).build();
    let watch = || {
        let mut level = pool.reached(Level::percent(Axis::Tokens, 80));
        let (mut wants, mut dropped) = (pool.wants(), pool.wants());
        assert!(is_pending(&mut level) && is_pending(&mut wants) && is_pending(&mut dropped));
        pool.record(Amount::new().tokens(9)).expect("it fits");
        assert!(!is_pending(&mut level) && !is_pending(&mut wants));
        pool.reset();
    };
    (0..50).for_each(|_| watch());
    let seen = measure(|| (0..1_000).for_each(|_| watch()));
    assert_eq!((seen.count_current, seen.bytes_current), (0, 0));
}

#[test]
fn an_observer_that_is_told_nothing_costs_no_allocation() {
    let pool = observed();
    let turn = || {
        assert!(pool.record(amount()).is_ok());
        pool.reserve(amount()).expect("it fits").commit_all();
        pool.debit(amount());
    };
    (0..50).for_each(|_| turn());
    assert_eq!(measure(|| (0..2_000).for_each(|_| turn())), AllocationInfo::default());
}

/// What brings an event about.
type Cause = fn(&BudgetPool);

#[test]
fn an_event_costs_one_allocation_which_is_gone_when_it_is_told() {
    let refused = |pool: &BudgetPool| assert!(pool.record(Amount::new().tokens(u64::MAX)).is_err());
    let dropped = |pool: &BudgetPool| drop(pool.reserve(amount()).expect("it fits"));
    let expired = |pool: &BudgetPool| {
        let ask = Ask::new(amount()).ttl(Duration::ZERO);
        pool.reserve(ask).expect("it fits").release();
    };
    let events: [(&str, Cause); 3] =
        [("refused", refused), ("dropped", dropped), ("expired", expired)];
    for (what, event) in events {
        let pool = observed();
        (0..50).for_each(|_| event(&pool));
        let seen = measure(|| (0..1_000).for_each(|_| event(&pool)));
        assert_eq!((seen.count_total, seen.count_current), (1_000, 0), "{what}");
    }
}

/// One slot, and a line of those who wait for it, each in one of the pools in turn. It is always as
/// long.
struct Line<'a> {
    pools: &'a [BudgetPool],
    held: Option<Reservation>,
    line: VecDeque<Wait>,
    joined: usize,
}

/// What each step of a turn has done to the heap, over many turns.
#[derive(Debug, Default)]
struct Turns {
    release: AllocationInfo,
    collect: AllocationInfo,
    join: AllocationInfo,
}

fn poll(wait: &mut Wait) -> Option<Reservation> {
    match Pin::new(wait).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(granted) => Some(granted.expect("it can be met")),
        Poll::Pending => None,
    }
}

impl Line<'_> {
    fn new(pools: &[BudgetPool], length: usize) -> Line<'_> {
        let held = Some(pools[0].reserve(amount()).expect("the slot is free"));
        let mut line = Line { pools, held, line: VecDeque::with_capacity(length + 1), joined: 0 };
        (0..length).for_each(|_| line.join());
        line
    }

    fn join(&mut self) {
        let mut wait = self.pools[self.joined % self.pools.len()].reserve_wait(amount());
        self.joined += 1;
        assert!(poll(&mut wait).is_none(), "the slot is taken");
        self.line.push_back(wait);
    }

    /// Releases, which grants the first; that is collected; one more joins.
    fn turn(&mut self) -> Turns {
        let mut first = self.line.pop_front().expect("the line is not empty");
        let release = measure(|| drop(self.held.take()));
        let collect = measure(|| {
            self.held = poll(&mut first);
            drop(first);
        });
        assert!(self.held.is_some(), "the first was granted what was released");
        Turns { release, collect, join: measure(|| self.join()) }
    }

    /// In steady state: as many turns as must have used every place again are not counted.
    fn turns(&mut self, turns: usize) -> Turns {
        for _ in 0..3 * self.line.len() + 100 {
            self.turn();
        }
        let mut sum = Turns::default();
        for _ in 0..turns {
            let Turns { release, collect, join } = self.turn();
            sum.release += release;
            sum.collect += collect;
            sum.join += join;
        }
        sum
    }
}

fn below_one_slot(pools: usize) -> Vec<BudgetPool> {
    let slot = BudgetPool::builder().in_flight(1).build();
    (0..pools).map(|_| slot.child().tokens(PLENTY).build()).collect()
}

const TURNS: usize = 2_000;

#[test]
fn a_short_line_allocates_nothing() {
    for depth in [1, 4] {
        for length in [1, 2, 11] {
            let pool = chain(depth).pop().expect("it is not empty").child().in_flight(1).build();
            let Turns { release, collect, join } = Line::new(&[pool], length).turns(TURNS);
            assert_eq!(
                [release, collect, join],
                [AllocationInfo::default(); 3],
                "{length} at depth {depth}"
            );
        }
    }
    // A candidate in each of some pools, and one behind it.
    let Turns { release, collect, join } = Line::new(&below_one_slot(11), 22).turns(TURNS);
    assert_eq!([release, collect, join], [AllocationInfo::default(); 3], "in 11 pools");
}

/// A grant makes nothing, however long the line is. A line of more than eleven is kept in several
/// nodes: once in a while a grant gives one back, and joining makes one. Both happen once in six
/// times; at the worst length, where the line goes to and fro between one node and three, once each
/// time.
#[test]
fn a_grant_in_a_long_line_allocates_nothing() {
    for (length, at_most) in [(12, TURNS), (13, TURNS), (100, TURNS / 4), (10_000, TURNS / 4)] {
        for depth in [1, 4] {
            let pool = chain(depth).pop().expect("it is not empty").child().in_flight(1).build();
            let Turns { release, collect, join } = Line::new(&[pool], length).turns(TURNS);
            let freed =
                usize::try_from(-release.count_current).expect("it makes nothing that it keeps");
            let what = format!("{length} at depth {depth}: {release:?}, {join:?}");
            assert_eq!(release.count_total, 0, "{what}");
            assert_eq!(collect, AllocationInfo::default(), "{what}");
            assert!(freed <= at_most, "{what}");
            assert!(join.count_total as usize <= at_most, "{what}");
        }
    }
}

/// What competes in many pools for one above them is a line there, too: of candidates, one of each
/// pool. A grant takes one out and puts the next one in, so that here it may make a node as well,
/// as seldom.
#[test]
fn a_grant_among_many_pools_allocates_seldom() {
    for (pools, at_most) in [(12, TURNS), (100, TURNS / 4)] {
        let Turns { release, collect, .. } =
            Line::new(&below_one_slot(pools), 2 * pools).turns(TURNS);
        assert!(release.count_total as usize <= at_most, "{pools}: {release:?}");
        assert!(release.count_current.unsigned_abs() <= 4, "{pools}: {release:?}");
        assert_eq!(collect, AllocationInfo::default(), "{pools}");
    }
}

/// One release that grants to a thousand: what is taken out from under the lock to be woken grows
/// by doubling.
#[test]
fn a_release_that_grants_many_allocates_a_handful_of_times() {
    let pool = BudgetPool::builder().tokens(1_000).build();
    let round = || {
        let held = pool.reserve(Amount::new().tokens(1_000)).expect("all of it is free");
        let mut waits: Vec<Wait> =
            (0..1_000).map(|_| pool.reserve_wait(Amount::new().tokens(1))).collect();
        assert!(waits.iter_mut().all(|wait| poll(wait).is_none()));
        let seen = measure(|| drop(held));
        assert!(waits.iter_mut().all(|wait| poll(wait).is_some()));
        seen.count_total
    };
    // The first makes room for as many holds.
    round();
    for _ in 0..3 {
        let seen = round();
        assert!(seen <= 10, "{seen} for a thousand");
    }
}
