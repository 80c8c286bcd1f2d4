//! The same arrivals, asked of governor and of a pool, each with a clock that is set by hand.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use budget_pool::{Amount, BudgetError, BudgetPool, ManualClock, Outlook, Usd, Window};
use governor::clock::{Clock, FakeRelativeClock};
use governor::{Quota, RateLimiter};

use crate::trace::Arrival;

/// What is limited: governor's word for a unit is a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    Requests,
    Tokens,
    /// At 2.50 USD for a million input tokens, and 10 USD for a million output tokens.
    NanoDollars,
}

impl Cells {
    /// How many an arrival takes: never none, as governor knows no call that takes none.
    pub fn of(self, arrival: &Arrival) -> NonZeroU32 {
        let cells = match self {
            Cells::Requests => 1,
            Cells::Tokens => arrival.input + arrival.output,
            Cells::NanoDollars => 2_500 * arrival.input + 10_000 * arrival.output,
        };
        NonZeroU32::new(cells).expect("a call has tokens")
    }

    fn amount(self, cells: u32) -> Amount {
        match self {
            Cells::Requests => Amount::new().requests(cells.into()),
            Cells::Tokens => Amount::new().tokens(cells.into()),
            Cells::NanoDollars => Amount::new().usd(Usd::from_nanos(cells.into())),
        }
    }

    fn pool(self, cap: u32, period: Duration, clock: ManualClock) -> BudgetPool {
        let builder = BudgetPool::builder().window(Window::token_bucket(period)).clock(clock);
        match self {
            Cells::Requests => builder.requests(cap.into()),
            Cells::Tokens => builder.tokens(cap.into()),
            Cells::NanoDollars => builder.usd(Usd::from_nanos(cap.into())),
        }
        .build()
    }
}

/// So many cells per time, and so many at once.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub cells: Cells,
    pub rate: u32,
    pub per: Duration,
    pub burst: u32,
}

impl Limit {
    /// Governor's time for one cell: a whole number of nanoseconds, the rest is cut off.
    pub fn interval(&self) -> Duration {
        self.per / self.rate
    }

    /// Whether there is no rest.
    pub fn is_whole(&self) -> bool {
        self.interval() * self.rate == self.per
    }

    /// How much more than the rate governor lets through.
    pub fn beyond(&self) -> f64 {
        self.per.as_secs_f64() / (self.interval().as_secs_f64() * f64::from(self.rate)) - 1.0
    }

    /// The time in which a whole burst comes back: the period of the pool, whose cap is the burst.
    pub fn period(&self) -> Duration {
        let nanos = self.per.as_nanos() * u128::from(self.burst);
        assert_eq!(nanos % u128::from(self.rate), 0, "the period is a whole number of nanoseconds");
        Duration::from_nanos(
            u64::try_from(nanos / u128::from(self.rate)).expect("less than 584 years"),
        )
    }

    /// The same at governor's rate.
    pub fn rounded_period(&self) -> Duration {
        self.quota().burst_size_replenished_in()
    }

    fn quota(&self) -> Quota {
        let burst = NonZeroU32::new(self.burst).expect("a burst of at least one");
        Quota::with_period(self.interval())
            .expect("at least a nanosecond for each cell")
            .allow_burst(burst)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = match self.cells {
            Cells::Requests => "requests",
            Cells::Tokens => "tokens",
            Cells::NanoDollars => "n$",
        };
        let per = match self.per.as_secs() {
            1 => "s",
            60 => "min",
            _ => "h",
        };
        write!(f, "{} {cells}/{per}, burst {}", self.rate, self.burst)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Admitted,
    /// Not before this is over.
    Wait(Duration),
    /// It is more than a burst.
    Never,
}

/// An arrival on which the two differ.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub number: usize,
    pub arrival: Arrival,
    pub governor: Answer,
    pub pool: Answer,
}

#[derive(Debug, Default)]
pub struct Outcome {
    /// Admitted by each.
    pub governor: u64,
    pub pool: u64,
    /// Admitted by one of them alone.
    pub admit: u64,
    /// Refused by both, but until another instant.
    pub wait: u64,
    /// The first that was admitted by one alone; if there is none, the first of the others.
    pub first: Option<Seen>,
}

impl Outcome {
    pub fn differ(&self) -> u64 {
        self.admit + self.wait
    }

    fn add(&mut self, seen: Seen) {
        let [governor, pool] = [seen.governor, seen.pool].map(|answer| answer == Answer::Admitted);
        self.governor += u64::from(governor);
        self.pool += u64::from(pool);
        if seen.governor != seen.pool {
            if self.first.is_none() || (governor != pool && self.admit == 0) {
                self.first = Some(seen);
            }
            *(if governor == pool { &mut self.wait } else { &mut self.admit }) += 1;
        }
    }
}

/// Governor at the limit beside a pool whose cap, the burst, comes back in `period`.
pub fn both(limit: &Limit, period: Duration, arrivals: &[Arrival]) -> Outcome {
    let mut both = Both::new(limit, period);
    let mut outcome = Outcome::default();
    for (number, &arrival) in (1..).zip(arrivals) {
        let (governor, pool) = both.ask(arrival.at, limit.cells.of(&arrival));
        outcome.add(Seen { number, arrival, governor, pool });
    }
    outcome
}

type Limiter = RateLimiter<
    governor::state::NotKeyed,
    governor::state::InMemoryState,
    FakeRelativeClock,
    governor::middleware::NoOpMiddleware<governor::nanos::Nanos>,
>;

pub struct Both {
    now: Duration,
    clocks: (FakeRelativeClock, ManualClock),
    limiter: Limiter,
    pool: BudgetPool,
    cells: Cells,
}

impl Both {
    pub fn new(limit: &Limit, period: Duration) -> Both {
        let clocks = (FakeRelativeClock::default(), ManualClock::new());
        let limiter = RateLimiter::direct_with_clock(limit.quota(), clocks.0.clone());
        let pool = limit.cells.pool(limit.burst, period, clocks.1.clone());
        Both { now: Duration::ZERO, clocks, limiter, pool, cells: limit.cells }
    }

    /// Asks both, so long after they were made. Time does not run back.
    pub fn ask(&mut self, at: Duration, cells: NonZeroU32) -> (Answer, Answer) {
        let passed = at.saturating_sub(self.now);
        self.now += passed;
        self.clocks.0.advance(passed);
        self.clocks.1.advance(passed);

        let governor = match self.limiter.check_n(cells) {
            Ok(Ok(())) => Answer::Admitted,
            Ok(Err(refused)) => Answer::Wait(refused.wait_time_from(self.clocks.0.now())),
            Err(_) => Answer::Never,
        };
        let pool = match self.pool.record(self.cells.amount(cells.get())) {
            Ok(()) => Answer::Admitted,
            Err(refused) => waits(&refused),
        };
        (governor, pool)
    }
}

fn waits(refused: &BudgetError) -> Answer {
    match (refused.outlook(), refused.retry_after()) {
        (Outlook::At(_), Some(wait)) => Answer::Wait(wait),
        (Outlook::Never, None) => Answer::Never,
        other => panic!("nothing is held, and there is no deadline: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    const SECOND: Duration = Duration::from_secs(1);

    /// Any rate with a whole interval, arrivals of any size at any distance, and again and again at
    /// the very nanosecond at which the last refused one would fit, and at the one before.
    #[test]
    fn at_a_whole_interval_governor_answers_the_same() {
        let mut random = SplitMix64::new(7);
        let (mut admitted, mut waits, mut never, mut at_the_edge) = (0, 0, 0, 0);
        for _ in 0..400 {
            let digits = random.small(10);
            let interval = Duration::from_nanos(1 + random.below(10_u64.pow(1 + digits)));
            let digits = random.small(6);
            let burst = 1 + random.small(10_u64.pow(digits));
            let limit = Limit { cells: random.cells(), rate: 1, per: interval, burst };
            assert!(limit.is_whole());
            let mut both = Both::new(&limit, limit.period());
            let (mut at, mut cells) = (Duration::ZERO, NonZeroU32::MIN);
            let mut last = Answer::Admitted;
            for _ in 0..500 {
                let mut fits = None;
                match (last, random.below(4)) {
                    (Answer::Wait(wait), 0) => {
                        at += wait;
                        fits = Some(Answer::Admitted);
                        at_the_edge += 1;
                    }
                    (Answer::Wait(wait), 1) => {
                        at += wait - Duration::from_nanos(1);
                        fits = Some(Answer::Wait(Duration::from_nanos(1)));
                    }
                    _ => {
                        cells = NonZeroU32::MIN.saturating_add(random.about(burst));
                        // Whole cells of time, a quarter of what was asked at most thrice, and a
                        // part of a cell or two.
                        at += interval * random.small(3) * random.about(burst) / 4;
                        at += Duration::from_nanos(random.below(2 * interval.as_nanos() as u64));
                    }
                }
                let (governor, pool) = both.ask(at, cells);
                assert_eq!(governor, pool, "{limit:?}: {cells} at {at:?}");
                assert_eq!(pool, fits.unwrap_or(pool), "{limit:?}: {cells} at {at:?}");
                match pool {
                    Answer::Admitted => admitted += 1,
                    Answer::Wait(_) => waits += 1,
                    Answer::Never => never += 1,
                }
                last = pool;
            }
        }
        for count in [admitted, waits, never, at_the_edge] {
            assert!(count > 5_000, "not much of a test: {admitted} {waits} {never} {at_the_edge}");
        }
    }

    /// 90,000 a minute is one each 666,666.67 ns; governor takes 666,666. Asked for 1,500 each
    /// second, and then for one more: in an hour it lets 5 through that the quota does not
    /// have.
    #[test]
    fn at_a_broken_interval_the_pool_is_exact_and_governor_is_not() {
        let limit = Limit { cells: Cells::Tokens, rate: 90_000, per: 60 * SECOND, burst: 90_000 };
        assert!(!limit.is_whole());
        let mut both = Both::new(&limit, limit.period());
        let cells = |cells| NonZeroU32::new(cells).expect("not zero");
        assert_eq!(both.ask(Duration::ZERO, cells(90_000)), (Answer::Admitted, Answer::Admitted));

        let (mut by_governor, mut by_pool) = (0, 0);
        for second in 1..=3_600 {
            let at = second * SECOND;
            assert_eq!(both.ask(at, cells(1_500)), (Answer::Admitted, Answer::Admitted), "{at:?}");
            let (governor, pool) = both.ask(at, NonZeroU32::MIN);
            by_governor += u64::from(governor == Answer::Admitted);
            by_pool += u64::from(pool == Answer::Admitted);
            assert_eq!(
                pool,
                Answer::Wait(Duration::from_nanos(666_667)),
                "up to the first nanosecond at which it fits"
            );
        }
        assert_eq!((by_governor, by_pool), (3_600_000_000_000 / 666_666 - 5_400_000, 0));
        assert_eq!(by_governor, 5);
    }

    /// The rounding is all that differs: a pool that takes governor's rate answers as governor
    /// does.
    #[test]
    fn a_pool_at_the_rounded_rate_answers_as_governor() {
        let arrivals = crate::trace::sample(1, 3_000);
        let rates = [
            (Cells::Requests, 7, 7),
            (Cells::Tokens, 7_001, 14_002),
            (Cells::NanoDollars, 17_000_001, 34_000_002),
        ];
        for (cells, rate, burst) in rates {
            let limit = Limit { cells, rate, per: SECOND, burst };
            assert!(!limit.is_whole());
            let exact = both(&limit, limit.period(), &arrivals);
            let same_rate = both(&limit, limit.rounded_period(), &arrivals);
            assert!(exact.differ() > 0, "{limit}: there is nothing to explain");
            assert_eq!(same_rate.differ(), 0, "{limit}: {:?}", same_rate.first);
            assert!(same_rate.pool > 100 && same_rate.pool < 3_000, "{limit}: {}", same_rate.pool);
        }
    }

    impl SplitMix64 {
        fn below(&mut self, end: u64) -> u64 {
            self.next() % end
        }

        fn small(&mut self, end: u64) -> u32 {
            u32::try_from(self.below(end)).expect("a small end")
        }

        /// Of any size up to a burst, now and then a little more.
        fn about(&mut self, burst: u32) -> u32 {
            let digits = self.small(7);
            self.small(10_u64.pow(digits).min(u64::from(burst) + u64::from(burst) / 8 + 1))
        }

        fn cells(&mut self) -> Cells {
            [Cells::Requests, Cells::Tokens, Cells::NanoDollars][self.small(3) as usize]
        }
    }
}
