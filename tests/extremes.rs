//! Histories of figures and times at the ends of what can be counted. There is no model beside the
//! pool: nothing panics, the derived state agrees, and P1 to P3 hold in all that is seen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, Axis, BudgetPool, Caps, Lease, Level, OnDrop, PoolBuilder, Reached, Reservation,
    Usd, Wait, Wants, Window,
};

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/random.rs"]
mod random;

use invariants::check_invariants;
use random::Dice;

const AXES: [Axis; 7] = [
    Axis::Tokens,
    Axis::InputTokens,
    Axis::OutputTokens,
    Axis::Requests,
    Axis::Usd,
    Axis::InFlight,
    Axis::custom(0, "pages"),
];
const UNITS: [u64; 12] =
    [0, 0, 1, 1, 2, 10, 1 << 32, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX, u64::MAX];
const TIMES: [Duration; 9] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_nanos(59),
    Duration::from_secs(1),
    Duration::from_secs(3_600),
    Duration::from_secs(365 * 86_400),
    Duration::from_secs(300 * 365 * 86_400),
    Duration::from_secs(u64::MAX / 2),
    Duration::MAX,
];

/// The last instant that there is, or nearly so.
fn last_instant() -> Instant {
    let mut last = Instant::now();
    for power in (0..63).rev() {
        last = last.checked_add(Duration::from_secs(1 << power)).unwrap_or(last);
    }
    last
}

struct History {
    dice: Dice,
    begin: Instant,
    /// In nanoseconds since then.
    time: Arc<AtomicU64>,
    pools: Vec<BudgetPool>,
    holds: Vec<Reservation>,
    leases: Vec<Lease>,
    waits: Vec<Pin<Box<Wait>>>,
    reached: Vec<Reached>,
    wants: Vec<Wants>,
    steps: Vec<String>,
}

impl History {
    fn new(seed: u64, begin: Instant) -> History {
        let time = Arc::<AtomicU64>::default();
        let clock = {
            let time = Arc::clone(&time);
            move || begin + Duration::from_nanos(time.load(Ordering::Relaxed))
        };
        let timer =
            |_| -> Pin<Box<dyn Future<Output = ()> + Send>> { Box::pin(std::future::pending()) };
        let mut history = History {
            dice: Dice::of(seed),
            begin,
            time,
            pools: Vec::new(),
            holds: Vec::new(),
            leases: Vec::new(),
            waits: Vec::new(),
            reached: Vec::new(),
            wants: Vec::new(),
            steps: Vec::new(),
        };
        let root = history.equip(BudgetPool::builder().name("root").clock(clock).timer(timer));
        history.pools.push(root.build());
        history
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.dice.roll(of.len() as u64) as usize]
    }

    fn some(&mut self) -> Vec<(Axis, u64)> {
        let count = 1 + self.dice.roll(3);
        (0..count).map(|_| (self.one(&AXES), self.one(&UNITS))).collect()
    }

    fn amount(&mut self) -> Amount {
        self.some().into_iter().fold(Amount::new(), |all, (axis, units)| all.with(axis, units))
    }

    fn caps(&mut self) -> Caps {
        self.some().into_iter().fold(Caps::new(), |all, (axis, units)| all.with(axis, units))
    }

    fn pool(&mut self) -> BudgetPool {
        let at = self.dice.roll(self.pools.len() as u64) as usize;
        self.pools[at].clone()
    }

    fn window(&mut self) -> Window {
        let period = self.one(&TIMES);
        let begin = self.begin;
        match self.dice.roll(6) {
            0 => Window::fixed(period),
            1 => Window::fixed(period).carrying_overage(),
            2 => Window::fixed(period).aligned_to(begin),
            3 => Window::token_bucket(period),
            4 => Window::rolling(period),
            _ => {
                let turns = TIMES.iter().filter_map(|time| begin.checked_add(*time));
                Window::calendar(turns.collect::<Vec<_>>())
            }
        }
    }

    fn equip<K>(&mut self, mut builder: PoolBuilder<K>) -> PoolBuilder<K> {
        if self.dice.roll(3) > 0 {
            builder = builder.caps(self.caps());
        }
        if self.dice.roll(3) == 0 {
            builder = builder.window(self.window());
        }
        if self.dice.roll(6) == 0 {
            builder = builder.deadline(self.one(&TIMES));
        }
        if self.dice.roll(4) == 0 {
            builder = builder.ceiling(self.caps());
        }
        if self.dice.roll(6) == 0 {
            builder = builder.used(self.amount());
        }
        if self.dice.roll(4) == 0 {
            builder = builder.low(self.amount());
        }
        if self.dice.roll(4) == 0 {
            builder = builder.on_drop(OnDrop::Commit);
        }
        if self.dice.roll(4) == 0 {
            builder = builder.idempotency_keys(self.dice.roll(3) as usize, self.one(&TIMES));
        }
        builder
    }

    fn build(&mut self) {
        if self.pools.len() > 8 {
            let at = 1 + self.dice.roll(8) as usize;
            drop(self.pools.swap_remove(at));
        }
        let (pool, other) = (self.pool(), self.pool());
        match self.dice.roll(3) {
            0 => {
                let child = self.equip(pool.child());
                self.pools.push(child.build());
            }
            1 => {
                let caps = self.caps();
                self.pools.extend(pool.child().caps(caps).carved().build());
            }
            _ => {
                if let Ok(joint) = BudgetPool::joint([&pool, &other]) {
                    let joint = self.equip(joint);
                    self.pools.push(joint.build());
                }
            }
        }
    }

    fn ask(&mut self) -> Ask {
        let mut ask = Ask::new(self.amount());
        while self.dice.roll(4) == 0 {
            ask = match self.dice.roll(4) {
                0 => ask.or(self.amount()),
                1 => ask.at_least(self.amount()),
                2 => ask.ttl(self.one(&TIMES)),
                _ => ask.wait_at_most(self.one(&TIMES)),
            };
        }
        ask
    }

    fn step(&mut self) {
        let (pool, other) = (self.pool(), self.pool());
        let kind = self.dice.roll(36);
        let (amount, caps, time) = (self.amount(), self.caps(), self.one(&TIMES));
        self.steps.push(format!("{kind}: `{}`, {amount}, {caps}, {time:?}", pool.name()));
        match kind {
            0 => self.build(),
            1 => drop(pool.record(amount)),
            2 => drop(pool.peek(amount)),
            3 => {
                let receipt = pool.debit(amount);
                let [settled, overage] = [receipt.settled(), receipt.overage()];
                assert!(AXES.iter().all(|axis| overage.units(*axis) <= settled.units(*axis)));
            }
            4 => _ = pool.credit(amount),
            5 => drop(pool.set_used(amount)),
            6 => drop(pool.set_caps(caps)),
            7 => drop(pool.raise_caps(caps)),
            8 => drop(pool.lower_caps(caps)),
            9 => _ = pool.lower_caps_up_to(caps),
            10 => drop(pool.transfer(&other, caps)),
            11 => pool.set_ceiling(caps),
            12 => pool.pause(time),
            13 => pool.pause_until(self.begin.checked_add(time).unwrap_or(self.begin)),
            14 | 15 => pool.resume(),
            16 => _ = pool.reset(),
            17 => drop(pool.record_once(format!("{}", self.dice.roll(3)), amount)),
            18 => drop(pool.debit_once(format!("{}", self.dice.roll(3)), amount)),
            19 => drop(pool.record_and_snapshot(amount)),
            20..=23 => {
                let ask = self.ask();
                self.holds.extend(pool.reserve(ask));
            }
            24 => {
                let ask = self.ask();
                self.waits.push(Box::pin(pool.reserve_wait(ask)));
            }
            25 => {
                let mut lease = pool.lease(amount);
                drop(lease.record(amount));
                self.leases.push(lease);
            }
            26 => {
                if let Some(lease) = self.leases.last_mut() {
                    match self.dice.roll(3) {
                        0 => drop(lease.record(amount)),
                        1 => _ = lease.debit(amount),
                        _ => lease.settle(),
                    }
                }
            }
            27 => drop(self.leases.pop()),
            28 => {
                let level = match self.dice.roll(2) {
                    0 => Level::amount(amount),
                    _ => Level::percent(self.one(&AXES), self.one(&UNITS) as u32),
                };
                self.reached.push(pool.reached(level));
                self.wants.push(pool.wants());
            }
            29 => {
                let far = self.time.load(Ordering::Relaxed);
                let by = u64::try_from(time.as_nanos())
                    .unwrap_or(0)
                    .min(u64::MAX / 4 - far.min(u64::MAX / 4));
                // The clock of a history at the end of time stands still there.
                let fits = self.begin.checked_add(Duration::from_nanos(far.saturating_add(by)));
                if fits.is_some() {
                    self.time.fetch_add(by, Ordering::Relaxed);
                }
            }
            _ => self.hold_step(amount, time),
        }
    }

    fn hold_step(&mut self, amount: Amount, time: Duration) {
        if self.holds.is_empty() {
            return;
        }
        let at = self.dice.roll(self.holds.len() as u64) as usize;
        let hold = self.holds.swap_remove(at);
        match self.dice.roll(11) {
            0 => _ = hold.commit(amount),
            1 => _ = hold.commit_all(),
            2 => {
                if let Err(refused) = hold.try_commit(amount) {
                    self.holds.push(refused.into_reservation());
                }
            }
            3 => hold.release(),
            4 => drop(hold),
            kind => {
                match kind {
                    5 => drop(hold.record(amount)),
                    6 => _ = hold.debit(amount),
                    7 => drop(hold.grow(amount)),
                    8 => drop(hold.shrink(amount)),
                    9 => self.holds.extend(hold.split(amount)),
                    _ => drop(hold.renew(time)),
                }
                let other = self.holds.pop().filter(|_| self.dice.roll(4) == 0);
                if let Some(Err(refused)) = other.map(|other| hold.merge(other)) {
                    self.holds.push(refused.into_reservation());
                }
                self.holds.push(hold);
            }
        }
    }

    fn poll(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let mut holds = Vec::new();
        self.waits.retain_mut(|wait| {
            let poll = wait.as_mut().poll(&mut context);
            let is_pending = poll.is_pending();
            if let std::task::Poll::Ready(Ok(hold)) = poll {
                holds.push(hold);
            }
            is_pending
        });
        self.holds.extend(holds);
        self.reached.retain_mut(|reached| Pin::new(reached).poll(&mut context).is_pending());
        self.wants.retain_mut(|wants| Pin::new(wants).poll(&mut context).is_pending());
        if self.waits.len() > 6 {
            self.waits.clear();
        }
        self.reached.truncate(4);
        self.wants.truncate(4);
    }

    /// P1 to P3, in all pools that can be seen from the root.
    fn check(&self) {
        check_invariants(&self.pools[0]);
        let tree = self.pools[0].snapshot_tree();
        for pool in &tree {
            for (axis, of_axis) in pool.axes() {
                let [used, reserved, overage] = [of_axis.used, of_axis.reserved, of_axis.overage]
                    .map(|figure| u128::from(figure.units()));
                let cap = of_axis.cap.map_or(u64::MAX, |cap| cap.units());
                assert!(used + reserved <= u128::from(cap), "P1: {axis} of {pool}");
                let is_full = used + reserved == u128::from(cap);
                assert!(overage == 0 || is_full, "P2: {axis} of {pool}");
                let spent = u128::from(of_axis.spent.units());
                let owed = (used + overage).min(u64::MAX.into());
                assert!(owed <= spent, "P2: {axis} of {pool}");
            }
        }
        drop((self.pools[0].holders(), self.pools.iter().map(BudgetPool::limits).count()));
        drop(tree.to_string());
    }

    fn run(&mut self) {
        self.check();
        for _ in 0..60 {
            self.step();
            self.check();
            self.poll();
        }
        self.waits.clear();
        while let Some(hold) = self.holds.pop() {
            hold.release();
            self.check();
        }
        self.leases.clear();
        self.pools.truncate(1);
        self.reached.clear();
        self.wants.clear();
        self.check();
        let end = self.pools[0].snapshot_tree();
        assert_eq!((end.len(), end[0].reservations, end[0].waiting), (1, 0, 0), "P3: {end}");
        for (axis, of_axis) in end[0].axes() {
            assert_eq!(of_axis.reserved.units(), 0, "P3: {axis} of {end}");
        }
    }
}

fn histories(begin: Instant) {
    let runs = std::env::var("BUDGET_POOL_RUNS").map_or(200, |runs| runs.parse().unwrap());
    let first = std::env::var("BUDGET_POOL_SEED").map_or(0, |seed| seed.parse().unwrap());
    for seed in first..first + runs {
        let mut history = History::new(seed, begin);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| history.run())) {
            for step in &history.steps {
                eprintln!("  {step}");
            }
            std::mem::forget(history);
            eprintln!("with BUDGET_POOL_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn figures_at_their_ends_keep_the_promises() {
    histories(Instant::now());
}

/// A clock may read any instant: an hour before the last one there is.
#[test]
fn times_at_the_end_of_time_keep_the_promises() {
    histories(last_instant() - Duration::from_secs(3_600));
}

#[test]
fn dollars_at_their_end_are_counted_as_any_other_figure() {
    let pool = BudgetPool::builder().usd(Usd::MAX).build();
    let most = Amount::new().usd(Usd::MAX);
    let overage = || pool.debit(most).overage().units(Axis::Usd);
    assert_eq!([overage(), overage()], [0, u64::MAX]);
    assert_eq!(pool.credit(most).credited(), most);
    let usd = pool.snapshot().usd;
    assert_eq!((usd.used, usd.overage), (Usd::MAX, Usd::ZERO));
}
