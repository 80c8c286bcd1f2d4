//! What loom cannot reach: many real threads, with long random histories, on one tree of pools.
//!
//! Each thread has its own seed and keeps its own exact sum of what it has spent, from receipts and
//! from what was admitted. Another looks at the tree all the while. When all is over, nothing may
//! be held, and the pools must have booked what the threads know of. What a thread does is the same
//! in every run; how the threads meet is not.
//!
//! It takes about a second, for three runs. `BUDGET_POOL_RUNS=1000 cargo test --release --test
//! stress` makes more, and `BUDGET_POOL_SEED` says where to begin.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::yield_now;
use std::time::Duration;

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Lease, ManualClock, Receipt, Reservation,
    Snapshot, Usd, Window,
};

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/random.rs"]
mod random;
#[path = "support/seeds.rs"]
mod seeds;

use invariants::check_invariants;
use random::Dice;
use seeds::seeds;

const THREADS: usize = 8;
const STEPS: u64 = 3_000;
const PERIOD: Duration = Duration::from_millis(50);

/// In the order of `Run::pools`.
const NAMES: [&str; 3] = ["root", "child", "carved"];

const AXES: [Axis; 3] = [Axis::Tokens, Axis::Requests, Axis::Usd];

/// By `AXES`.
type Units = [u64; AXES.len()];

fn units(amount: &Amount) -> Units {
    AXES.map(|axis| amount.get(axis).map_or(0, |quantity| quantity.units()))
}

/// All tokens are input: of both as many are spent, at every instant.
fn amount([tokens, requests, usd]: Units) -> Amount {
    Amount::new().input_tokens(tokens).requests(requests).usd(Usd::from_nanos(usd))
}

fn add(sum: &mut Units, more: Units) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// The true spend of the period.
fn of_period(snapshot: &Snapshot) -> Units {
    AXES.map(|axis| {
        let seen = snapshot.axis(axis).unwrap();
        seen.used.units() + seen.overage.units()
    })
}

fn spent(snapshot: &Snapshot) -> Units {
    AXES.map(|axis| snapshot.axis(axis).unwrap().spent.units())
}

impl Dice {
    fn units(&mut self, most: u64) -> Units {
        [self.roll(most + 1), self.roll(most / 10 + 1), self.roll(most * 10 + 1)]
    }

    /// Now and then an axis is not named.
    fn amount(&mut self, most: u64) -> Amount {
        let [tokens, requests, usd] = self.units(most);
        let mut amount = Amount::new();
        if self.roll(8) > 0 {
            amount = amount.input_tokens(tokens);
        }
        if self.roll(4) > 0 {
            amount = amount.requests(requests);
        }
        if self.roll(4) > 0 {
            amount = amount.usd(Usd::from_nanos(usd));
        }
        amount
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.roll(most * 1_000 + 1))
    }
}

/// One tree, and what all threads know of it.
struct Run {
    clock: ManualClock,
    pools: [BudgetPool; NAMES.len()],
    /// What a key stands for, and one more; zero if it was not spent.
    keys: Vec<AtomicU64>,
    working: AtomicUsize,
}

impl Run {
    fn new(window: Window) -> Run {
        let clock = ManualClock::new();
        let caps =
            Caps::new().tokens(3_000).requests(300).usd(Usd::from_nanos(30_000)).in_flight(20);
        let root = BudgetPool::builder()
            .name("root")
            .caps(caps)
            .clock(clock.clone())
            .timer(|_| Box::pin(std::future::pending()))
            .window(window)
            .build();
        let child = root.child().name("child").tokens(20_000).in_flight(8).build();
        let carved = root
            .child()
            .name("carved")
            .tokens(500)
            .usd(Usd::from_nanos(5_000))
            .carved()
            .build()
            .unwrap();
        let keys = (0..STEPS).map(|_| AtomicU64::new(0)).collect();
        Run { clock, pools: [root, child, carved], keys, working: AtomicUsize::new(THREADS) }
    }
}

/// What the owner of a hold knows of it.
#[derive(Clone, Copy)]
struct Known {
    pool: usize,
    /// What it holds, if it has not expired.
    units: Units,
    /// What `record` and `debit` have settled of it.
    metered: Units,
    expires: bool,
    /// Its drop or its expiry settles it.
    commits: bool,
    /// What its expiry settled has been counted.
    counted: bool,
}

impl Known {
    fn shrink(&mut self, part: Units) {
        self.units.iter_mut().zip(part).for_each(|(held, part)| *held = held.saturating_sub(part));
    }

    fn meter(&mut self, part: Units) {
        self.shrink(part);
        add(&mut self.metered, part);
    }

    /// A total that says `more` than what the pool may have settled already. It gives nothing back:
    /// a receipt does not say what each pool of the path had left to give back in its period.
    fn total(&self, more: &Amount) -> Amount {
        let mut least = self.metered;
        if self.commits && self.expires {
            add(&mut least, self.units);
        }
        let named = [Axis::InputTokens, Axis::Requests, Axis::Usd].into_iter().zip(least);
        named.fold(Amount::new(), |total, (axis, least)| match more.get(axis) {
            Some(more) => total.with(axis, least + more.units()),
            None => total,
        })
    }
}

/// That the histories go where it is interesting.
#[derive(Debug, Default, Clone, Copy)]
struct Met {
    admitted: u64,
    refused: u64,
    late: u64,
    overdrawn: u64,
    expired: u64,
    queued: u64,
    waited: u64,
    timed_out: u64,
    once: u64,
    conflicts: u64,
    carved: u64,
    /// Spent from the share of a lease that had something left.
    leased: u64,
}

impl Met {
    fn each(&mut self) -> [&mut u64; 12] {
        let Met {
            admitted,
            refused,
            late,
            overdrawn,
            expired,
            queued,
            waited,
            timed_out,
            once,
            conflicts,
            carved,
            leased,
        } = self;
        [
            admitted, refused, late, overdrawn, expired, queued, waited, timed_out, once,
            conflicts, carved, leased,
        ]
    }
}

impl std::ops::AddAssign for Met {
    fn add_assign(&mut self, mut other: Met) {
        self.each().into_iter().zip(other.each()).for_each(|(sum, more)| *sum += *more);
    }
}

struct Worker<'a> {
    run: &'a Run,
    dice: Dice,
    held: Vec<(Reservation, Known)>,
    leases: Vec<(usize, Lease)>,
    added: Vec<(usize, Caps)>,
    spent: [Units; NAMES.len()],
    /// Of the periods that this thread has ended.
    periods: [Units; NAMES.len()],
    met: Met,
}

impl<'a> Worker<'a> {
    fn new(run: &'a Run, seed: u64) -> Worker<'a> {
        Worker {
            run,
            dice: Dice::of(seed),
            held: Vec::new(),
            leases: Vec::new(),
            added: Vec::new(),
            spent: Default::default(),
            periods: Default::default(),
            met: Met::default(),
        }
    }

    fn pool(&mut self) -> (usize, &'a BudgetPool) {
        let at = self.dice.roll(NAMES.len() as u64) as usize;
        (at, &self.run.pools[at])
    }

    /// Whether it was admitted.
    fn asked<T>(&mut self, outcome: Result<T, BudgetError>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.met.admitted += 1;
                return Some(value);
            }
            Err(BudgetError::Exceeded(_)) => self.met.refused += 1,
            Err(BudgetError::Queued { .. }) => self.met.queued += 1,
            Err(BudgetError::Expired { .. }) => self.met.expired += 1,
            Err(BudgetError::Timeout { .. }) => self.met.timed_out += 1,
            Err(other) => panic!("{other}"),
        }
        None
    }

    fn told(&mut self, pool: usize, receipt: &Receipt) {
        let (settled, overage) = (units(&receipt.settled()), units(&receipt.overage()));
        assert!(
            settled.iter().zip(overage).all(|(settled, overage)| overage <= *settled),
            "{receipt:?}"
        );
        self.met.overdrawn += u64::from(overage != Units::default());
        add(&mut self.spent[pool], settled);
    }

    fn told_of_hold(&mut self, known: &mut Known, receipt: &Receipt) {
        assert!(known.expires || !receipt.is_late());
        if receipt.is_late() {
            self.met.late += 1;
            self.count_last_bill(known);
        }
        self.told(known.pool, receipt);
    }

    /// Its drop or its expiry settles it, or has done so.
    fn count_last_bill(&mut self, known: &mut Known) {
        if known.commits && !known.counted {
            known.counted = true;
            add(&mut self.spent[known.pool], known.units);
        }
    }

    fn keep(&mut self, pool: usize, hold: Reservation, amount: &Amount, expires: bool) {
        let commits = !expires && self.dice.roll(3) == 0;
        let hold = if commits { hold.commit_on_drop() } else { hold };
        let (units, metered) = (units(amount), Units::default());
        self.held.push((hold, Known { pool, units, metered, expires, commits, counted: false }));
    }

    fn any_held(&mut self) -> Option<(Reservation, Known)> {
        let index = self.dice.roll(self.held.len().max(1) as u64) as usize;
        (!self.held.is_empty()).then(|| self.held.swap_remove(index))
    }

    fn step(&mut self, step: u64) {
        if self.dice.roll(8) == 0 {
            yield_now();
        }
        if self.dice.roll(12) == 0 {
            let by = self.dice.millis(2);
            self.run.clock.advance(by);
        }
        if self.held.len() > 3 {
            return self.end_one();
        }
        match self.dice.roll(20) {
            0 | 1 => self.record(),
            2 => self.debit(),
            3..=5 => self.reserve(),
            6..=8 => self.use_hold(),
            9 | 10 => self.end_one(),
            11 => self.wait(),
            12 => self.poll(),
            13 | 14 => self.lease(),
            15 => self.once(step),
            16 => self.move_caps(),
            17 => self.look(),
            18 => self.carve(),
            _ => self.reset(),
        }
    }

    fn record(&mut self) {
        let (at, pool) = self.pool();
        let amount = self.dice.amount(60);
        if self.asked(pool.record(amount)).is_some() {
            add(&mut self.spent[at], units(&amount));
        }
    }

    fn debit(&mut self) {
        let (at, pool) = self.pool();
        let amount = self.dice.amount(90);
        let receipt = pool.debit(amount);
        assert_eq!((receipt.settled(), receipt.is_late()), (amount, false));
        self.told(at, &receipt);
    }

    fn reserve(&mut self) {
        let (at, pool) = self.pool();
        let amount = self.dice.amount(80);
        let expires = self.dice.roll(2) == 0;
        let outcome = if expires {
            pool.reserve(Ask::new(amount).ttl(self.dice.millis(20)))
        } else {
            pool.reserve(amount)
        };
        if let Some(hold) = self.asked(outcome) {
            self.keep(at, hold, &amount, expires);
        }
    }

    fn wait(&mut self) {
        let (at, pool) = self.pool();
        let amount = self.dice.amount(80);
        let timeout = Duration::from_micros(self.dice.roll(300));
        if let Some(hold) =
            self.asked(pool.reserve_blocking(Ask::new(amount).wait_at_most(timeout)))
        {
            self.met.waited += 1;
            self.keep(at, hold, &amount, false);
        }
    }

    /// A wait that nobody wakes, and that is dropped, or collected, or dropped with what it was
    /// granted.
    fn poll(&mut self) {
        let (at, pool) = self.pool();
        let amount = self.dice.amount(80);
        let mut wait = pin!(pool.reserve_wait(amount));
        for _ in 0..self.dice.roll(4) {
            if let Poll::Ready(outcome) =
                wait.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                if let Some(hold) = self.asked(outcome) {
                    self.keep(at, hold, &amount, false);
                }
                return;
            }
            yield_now();
        }
    }

    fn use_hold(&mut self) {
        let Some((hold, mut known)) = self.any_held() else { return };
        let part = self.dice.units(30);
        match self.dice.roll(6) {
            0 => {
                let outcome = hold.record(amount(part));
                if self.asked(outcome).is_some() {
                    add(&mut self.spent[known.pool], part);
                    known.meter(part);
                }
            }
            1 => {
                let receipt = hold.debit(amount(part));
                self.told_of_hold(&mut known, &receipt);
                known.meter(part);
            }
            2 => {
                let outcome = hold.grow(amount(part));
                if self.asked(outcome).is_some() {
                    add(&mut known.units, part);
                }
            }
            3 => {
                let has = part.iter().zip(known.units).all(|(part, held)| *part <= held);
                let outcome = hold.shrink(amount(part));
                assert!(has || outcome.is_err());
                assert!(!has || outcome.is_ok() || known.expires, "it has that much");
                if self.asked(outcome).is_some() {
                    known.shrink(part);
                }
            }
            4 => {
                let outcome = hold.split(amount(part));
                if let Some(half) = self.asked(outcome) {
                    known.shrink(part);
                    let metered = Units::default();
                    self.held.push((half, Known { units: part, metered, ..known }));
                }
            }
            _ => {
                let outcome = hold.renew(self.dice.millis(20));
                known.expires |= self.asked(outcome).is_some();
            }
        }
        self.held.push((hold, known));
    }

    fn end_one(&mut self) {
        let Some((hold, mut known)) = self.any_held() else { return };
        let total = known.total(&self.dice.amount(110));
        match self.dice.roll(8) {
            0..=2 => {
                let receipt = hold.commit(total);
                self.told_of_hold(&mut known, &receipt);
            }
            3 => match hold.try_commit(total) {
                Ok(receipt) => self.told_of_hold(&mut known, &receipt),
                Err(refused) => self.held.push((refused.into_reservation(), known)),
            },
            // Whether its expiry came first would not be known.
            4 if !(known.commits && known.expires) => hold.release(),
            5 if known.expires || hold.renew(self.dice.millis(20)).is_ok() => {
                self.count_last_bill(&mut known);
                std::mem::forget(hold);
            }
            6 => {
                self.count_last_bill(&mut known);
                let task = || {
                    let _held = hold;
                    resume_unwind(Box::new("on purpose"));
                };
                assert!(catch_unwind(AssertUnwindSafe(task)).is_err());
            }
            _ => {
                self.count_last_bill(&mut known);
                drop(hold);
            }
        }
    }

    fn lease(&mut self) {
        if self.leases.len() < 2 {
            let (at, pool) = self.pool();
            let batch = self.dice.amount(60);
            self.leases.push((at, pool.lease(batch)));
        }
        let Some((at, mut lease)) = self.leases.pop() else { return };
        for _ in 0..self.dice.roll(8) {
            let amount = self.dice.amount(20);
            match self.dice.roll(8) {
                0 => {
                    let receipt = lease.debit(amount);
                    assert_eq!(receipt.settled(), amount);
                    self.told(at, &receipt);
                }
                1 => lease.settle(),
                _ => {
                    let before = units(&lease.remaining());
                    let outcome = lease.record(amount);
                    if self.asked(outcome).is_some() {
                        let left = units(&lease.remaining());
                        self.met.leased += u64::from(left.iter().zip(before).any(|(l, b)| *l < b));
                        add(&mut self.spent[at], units(&amount));
                    }
                }
            }
        }
        if self.dice.roll(3) > 0 {
            self.leases.insert(0, (at, lease));
        }
    }

    /// All threads come to the same key at about the same time.
    fn once(&mut self, step: u64) {
        let key = step / 64;
        let tokens = key % 40 + u64::from(self.dice.roll(8) == 0);
        let outcome =
            self.run.pools[0].record_once(format!("job-{key}"), Amount::new().input_tokens(tokens));
        let known = &self.run.keys[key as usize];
        match outcome {
            Err(BudgetError::KeyConflict { .. }) => self.met.conflicts += 1,
            outcome => {
                if self.asked(outcome).is_some() {
                    self.met.once += 1;
                    let before =
                        known.compare_exchange(0, tokens + 1, Ordering::Relaxed, Ordering::Relaxed);
                    assert!(before.is_ok() || before == Err(tokens + 1), "one key, one amount");
                }
            }
        }
    }

    /// Up, and later down again.
    fn move_caps(&mut self) {
        if self.added.len() < 4 {
            let (at, pool) = self.pool();
            let [tokens, requests, usd] = self.dice.units(200);
            let caps = Caps::new().tokens(tokens).requests(requests).usd(Usd::from_nanos(usd));
            let outcome = pool.raise_caps(caps);
            let added = self.asked(outcome);
            self.added.extend(added.map(|()| (at, caps)));
        } else {
            let (at, caps) = self.added.remove(0);
            let outcome = self.run.pools[at].lower_caps(caps);
            // To the carved child goes what its resets have lost; else it is tried again.
            if self.asked(outcome).is_none() && at != 2 {
                self.added.push((at, caps));
            }
        }
    }

    fn look(&mut self) {
        let (_, pool) = self.pool();
        let amount = self.dice.amount(60);
        _ = pool.peek(amount);
        assert!(pool.holders().len() <= 1_000);
        assert_eq!(pool.snapshot().name, pool.name());
        if let Some((hold, known)) = self.held.last() {
            let seen = units(&hold.amount());
            assert!(seen == known.units || (known.expires && seen == Units::default()));
        }
    }

    /// A share of a share, for a short time.
    fn carve(&mut self) {
        let (at, pool) = self.pool();
        let share = pool.child().tokens(self.dice.roll(200)).carved().build();
        let Some(share) = self.asked(share) else { return };
        self.met.carved += 1;
        let amount = self.dice.amount(60);
        let outcome = share.record(amount);
        if self.asked(outcome).is_some() {
            add(&mut self.spent[at], units(&amount));
        }
        let outcome = share.reserve(self.dice.amount(20));
        let hold = self.asked(outcome);
        yield_now();
        match self.dice.roll(3) {
            0 => share.close(),
            1 => _ = share.reset(),
            _ => {}
        }
        let receipt = hold.map(|hold| hold.commit(self.dice.amount(30)));
        receipt.iter().for_each(|receipt| self.told(at, receipt));
    }

    fn reset(&mut self) {
        if self.dice.roll(4) == 0 {
            let (at, pool) = self.pool();
            add(&mut self.periods[at], of_period(&pool.reset()));
        }
    }
}

/// Looks at the tree as long as anybody works.
fn watch(run: &Run) -> u64 {
    let mut looks = 0;
    let mut last = [Units::default(); NAMES.len()];
    while run.working.load(Ordering::Acquire) > 0 {
        // Should all of them wait.
        run.clock.advance(Duration::from_micros(20));
        let tree = run.pools[0].snapshot_tree();
        for pool in &*tree {
            p1_and_p2(pool);
        }
        let of_name = |name: &&str| tree.iter().find(|pool| pool.name == **name).unwrap();
        let now = NAMES.each_ref().map(|name| spent(of_name(name)));
        for (now, last) in now.iter().zip(&last) {
            assert!(
                now.iter().zip(last).all(|(now, last)| now >= last),
                "spent fell from {last:?} to {now:?}"
            );
        }
        // P5: at one and the same instant.
        let mut below = now[1];
        add(&mut below, now[2]);
        assert!(now[0].iter().zip(below).all(|(root, below)| *root >= below), "{tree}");
        assert_eq!(tree[0].in_flight.reserved, tree[0].reservations);
        check_invariants(&run.pools[0]);
        last = now;
        looks += 1;
        yield_now();
    }
    looks
}

fn p1_and_p2(pool: &Snapshot) {
    assert_eq!(pool.tokens.spent, pool.input_tokens.spent, "P1: on all axes or on none: {pool}");
    for (axis, seen) in pool.axes() {
        let Some(cap) = seen.cap else {
            assert_eq!(seen.overage.units(), 0, "{axis}: {pool}");
            continue;
        };
        let taken = seen.used.units() + seen.reserved.units();
        assert!(taken <= cap.units(), "P1: {axis}: {pool}");
        assert!(seen.overage.units() == 0 || taken == cap.units(), "P2: {axis}: {pool}");
    }
}

/// Whatever becomes of its thread, whoever watches goes home.
struct Working<'a>(&'a AtomicUsize);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

fn work(run: &Run, seed: u64) -> ([Units; NAMES.len()], [Units; NAMES.len()], Met) {
    let _working = Working(&run.working);
    let mut worker = Worker::new(run, seed);
    for step in 0..STEPS {
        worker.step(step);
    }
    while !worker.held.is_empty() {
        worker.end_one();
    }
    worker.leases.clear();
    (worker.spent, worker.periods, worker.met)
}

/// One history of all threads.
fn play(window: Window, seed: u64) -> Met {
    let run = Run::new(window);
    let (mut own, mut periods, mut met) =
        ([Units::default(); 3], [Units::default(); 3], Met::default());
    std::thread::scope(|scope| {
        let run = &run;
        let watching = scope.spawn(|| watch(run));
        let workers: Vec<_> = (0..THREADS as u64)
            .map(|thread| scope.spawn(move || work(run, seed << 8 | thread)))
            .collect();
        for worker in workers {
            let (spent, ended, by_one) = worker.join().unwrap_or_else(|panic| resume_unwind(panic));
            for pool in 0..NAMES.len() {
                add(&mut own[pool], spent[pool]);
                add(&mut periods[pool], ended[pool]);
            }
            met += by_one;
        }
        assert!(watching.join().unwrap_or_else(|panic| resume_unwind(panic)) > 0);
    });
    for key in &run.keys {
        own[0][0] += key.load(Ordering::Relaxed).saturating_sub(1);
    }
    let [root, child, carved] = &run.pools;
    check_invariants(root);
    run.clock.advance(Duration::from_secs(1));
    assert_eq!(root.holders(), []);
    // What is forgotten keeps its pool alive.
    carved.close();
    let [below_child, below_carved] = [own[1], own[2]];
    add(&mut own[0], below_child);
    add(&mut own[0], below_carved);
    for (at, pool) in [root, child, carved].into_iter().enumerate() {
        let end = pool.snapshot();
        p1_and_p2(&end);
        assert_eq!((end.reservations, end.waiting), (0, 0), "P3: {end}");
        assert!(end.axes().all(|(_, seen)| seen.reserved.units() == 0), "P3: {end}");
        assert_eq!(spent(&end), own[at], "P2: {end}");
        if at > 0 {
            add(&mut periods[at], of_period(&end));
            assert_eq!(periods[at], own[at], "P2, period by period: {end}");
        }
    }
    // P4: all that there is can be had again.
    run.clock.advance(PERIOD * 1_000);
    let caps = root.snapshot();
    let all =
        [caps.tokens.cap.unwrap(), caps.requests.cap.unwrap(), caps.usd.cap.unwrap().as_nanos()];
    root.record(amount(all)).unwrap();
    check_invariants(root);
    met
}

#[test]
fn p1_p2_p3_p5_hold_in_long_histories_of_many_threads() {
    for seed in seeds(3) {
        for window in [Window::fixed(PERIOD), Window::token_bucket(PERIOD)] {
            println!("seed {seed}, {window:?}");
            let mut met = play(window, seed);
            assert!(met.each().iter().all(|count| **count > 0), "{met:?}");
        }
    }
}
