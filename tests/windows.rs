//! Windows, kind by kind: the most that each admits, what comes back when, and what an overage
//! becomes; through the public API alone.

use std::time::{Duration, Instant};

use budget_pool::{Amount, BudgetPool, Clock, ManualClock, Outlook, Usd, Window};

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/waiter.rs"]
mod waiter;

use invariants::check_invariants;
use waiter::{Waiter, by_hand};

const NANO: Duration = Duration::from_nanos(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn usd(dollars: u64) -> Amount {
    Amount::new().usd(Usd::from_dollars(dollars))
}

fn windowed(cap: u64, window: impl FnOnce(Instant) -> Window) -> (ManualClock, BudgetPool) {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .tokens(cap)
        .window(window(clock.now()))
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    (clock, pool)
}

/// Used, reserved, overage of the tokens.
fn balance(pool: &BudgetPool) -> [u64; 3] {
    let tokens = pool.snapshot().tokens;
    [tokens.used, tokens.reserved, tokens.overage]
}

fn retry_after(pool: &BudgetPool, n: u64) -> Option<Duration> {
    pool.peek(tokens(n)).unwrap_err().retry_after()
}

fn outlook(pool: &BudgetPool, n: u64) -> Outlook {
    pool.peek(tokens(n)).unwrap_err().outlook()
}

/// A caller that spends whatever there is, every tenth of a second.
mod the_most_in_one_period {
    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    /// The most that a window of 100 per minute admits in any 60 seconds of five minutes, after a
    /// pause of 59.9 s.
    fn most(window: impl FnOnce(Instant) -> Window) -> u64 {
        let (clock, pool) = windowed(100, window);
        let start = clock.now();
        clock.advance(MINUTE - TENTH);
        let mut spends: Vec<(Duration, u64)> = Vec::new();
        while clock.now() - start < 5 * MINUTE {
            let free = pool.snapshot().tokens.available.unwrap();
            pool.record(tokens(free)).unwrap();
            spends.push((clock.now() - start, free));
            clock.advance(TENTH);
        }
        let until = |end: Duration| {
            let within = spends.iter().filter(|(at, _)| *at <= end && end - *at < MINUTE);
            within.map(|(_, units)| units).sum()
        };
        spends.iter().map(|(at, _)| until(*at)).max().unwrap()
    }

    #[test]
    fn fixed_and_calendar_admit_two_caps_around_a_turn() {
        assert_eq!(most(|_| Window::fixed(MINUTE)), 200);
        assert_eq!(most(|now| Window::calendar([now + MINUTE, now + 2 * MINUTE])), 200);
    }

    #[test]
    fn a_token_bucket_admits_one_less_than_two_caps() {
        assert_eq!(most(|_| Window::token_bucket(MINUTE)), 199);
    }

    #[test]
    fn p1_a_rolling_window_admits_one_cap() {
        assert_eq!(most(|_| Window::rolling(MINUTE)), 100);
        assert_eq!(most(|now| Window::rolling(MINUTE).aligned_to(now + TENTH * 7)), 100);
    }
}

mod rolling {
    use super::*;

    fn rolling(cap: u64, period: Duration) -> (ManualClock, BudgetPool) {
        windowed(cap, |_| Window::rolling(period))
    }

    #[test]
    fn p7_units_come_back_a_period_after_the_end_of_their_slot() {
        let (clock, pool) = rolling(100, MINUTE);
        pool.record(tokens(30)).unwrap();
        clock.advance(secs(1) - NANO);
        pool.record(tokens(10)).unwrap();
        clock.advance(NANO);
        pool.record(tokens(60)).unwrap();
        assert_eq!(retry_after(&pool, 1), Some(MINUTE));
        assert_eq!(retry_after(&pool, 40), Some(MINUTE));
        assert_eq!(retry_after(&pool, 41), Some(MINUTE + secs(1)));
        assert_eq!(outlook(&pool, 101), Outlook::Never);
        clock.advance(MINUTE - NANO);
        assert_eq!(balance(&pool), [100, 0, 0]);
        clock.advance(NANO);
        assert_eq!(balance(&pool), [60, 0, 0]);
        clock.advance(secs(1));
        assert_eq!(balance(&pool), [0, 0, 0]);
        assert_eq!(pool.snapshot().tokens.spent, 100);
    }

    #[test]
    fn what_is_taken_back_is_what_was_spent_last_in_a_later_period_too() {
        let (clock, pool) = rolling(10, MINUTE);
        clock.advance(MINUTE);
        pool.record(tokens(3)).unwrap();
        clock.advance(secs(1));
        pool.record(tokens(4)).unwrap();
        clock.advance(secs(1));
        pool.credit(tokens(4));
        clock.advance(MINUTE - secs(1) - NANO);
        assert_eq!(balance(&pool), [3, 0, 0]);
        clock.advance(NANO);
        assert_eq!(balance(&pool), [0, 0, 0]);
    }

    #[test]
    fn p2_an_overage_comes_back_with_its_slot_and_is_paid_first() {
        let (clock, pool) = rolling(10, MINUTE);
        pool.record(tokens(6)).unwrap();
        clock.advance(secs(10));
        pool.debit(tokens(9));
        assert_eq!(balance(&pool), [10, 0, 5]);
        assert_eq!(retry_after(&pool, 1), Some(secs(51)));
        assert_eq!(retry_after(&pool, 2), Some(secs(61)));
        clock.advance(secs(51));
        assert_eq!(balance(&pool), [9, 0, 0]);
        clock.advance(secs(10));
        assert_eq!(balance(&pool), [0, 0, 0]);
    }

    #[test]
    fn a_credit_takes_back_what_was_spent_last() {
        let (clock, pool) = rolling(10, MINUTE);
        pool.record(tokens(6)).unwrap();
        clock.advance(secs(10));
        pool.record(tokens(4)).unwrap();
        pool.credit(tokens(5));
        pool.record(tokens(5)).unwrap();
        // Had the new spend taken the place of the old one, six would come back.
        assert_eq!(retry_after(&pool, 5), Some(secs(51)));
        assert_eq!(retry_after(&pool, 6), Some(secs(61)));
    }

    #[test]
    fn a_commit_below_what_was_metered_is_a_credit() {
        let (clock, pool) = rolling(10, MINUTE);
        let hold = pool.reserve(tokens(8)).unwrap();
        hold.record(tokens(2)).unwrap();
        clock.advance(secs(10));
        hold.record(tokens(6)).unwrap();
        hold.commit(tokens(3));
        assert_eq!(balance(&pool), [3, 0, 0]);
        assert_eq!(retry_after(&pool, 9), Some(secs(51)));
        assert_eq!(retry_after(&pool, 10), Some(secs(61)));
    }

    #[test]
    fn what_a_hold_settles_counts_from_its_settlement() {
        let (clock, pool) = rolling(10, MINUTE);
        let hold = pool.reserve(tokens(8)).unwrap();
        assert_eq!(outlook(&pool, 3), Outlook::AfterRelease);
        clock.advance(3 * MINUTE);
        assert_eq!(balance(&pool), [0, 8, 0]);
        hold.commit_all();
        assert_eq!(retry_after(&pool, 3), Some(MINUTE + secs(1)));
    }

    #[test]
    fn a_figure_that_is_set_counts_from_then_on_and_a_reset_empties_all_slots() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .tokens(10)
            .used(tokens(4))
            .window(Window::rolling(MINUTE))
            .clock(clock.clone())
            .build();
        clock.advance(secs(10));
        pool.set_used(tokens(9)).unwrap();
        assert_eq!(retry_after(&pool, 5), Some(secs(51)));
        assert_eq!(retry_after(&pool, 6), Some(secs(61)));
        pool.set_used(tokens(3)).unwrap();
        assert_eq!(retry_after(&pool, 8), Some(secs(51)));
        pool.reset();
        assert_eq!(balance(&pool), [0, 0, 0]);
        pool.record(tokens(10)).unwrap();
        assert_eq!(retry_after(&pool, 1), Some(secs(61)));
    }

    #[test]
    fn caps_that_move_leave_what_was_spent_where_it_is() {
        let (clock, pool) = rolling(10, MINUTE);
        pool.record(tokens(4)).unwrap();
        clock.advance(secs(10));
        pool.record(tokens(6)).unwrap();
        pool.set_caps(budget_pool::Caps::new().tokens(5).requests(3)).unwrap();
        assert_eq!(balance(&pool), [5, 0, 5]);
        assert_eq!(retry_after(&pool, 1), Some(secs(61)));
        pool.record(Amount::new().requests(3)).unwrap();
        clock.advance(secs(51));
        assert_eq!(balance(&pool), [5, 0, 1]);
        let request = pool.peek(Amount::new().requests(1)).unwrap_err();
        assert_eq!(request.retry_after(), Some(secs(10)));
        clock.advance(secs(10));
        assert_eq!(balance(&pool), [0, 0, 0]);
    }

    #[test]
    fn p2_what_cannot_be_counted_under_a_lower_cap_does_not_come_back() {
        let (clock, pool) = rolling(u64::MAX, MINUTE);
        pool.debit(tokens(u64::MAX));
        pool.debit(tokens(7));
        clock.advance(secs(3));
        pool.debit(tokens(0));
        pool.set_caps(budget_pool::Caps::new().tokens(0)).unwrap();
        check_invariants(&pool);
        assert_eq!(balance(&pool), [0, 0, u64::MAX]);
        clock.advance(MINUTE);
        assert_eq!(balance(&pool), [0, 0, 0]);
    }

    #[test]
    fn p6_a_waiter_is_served_when_a_slot_comes_back() {
        let (clock, pool) = rolling(10, MINUTE);
        pool.record(tokens(4)).unwrap();
        clock.advance(secs(1));
        pool.record(tokens(6)).unwrap();
        let mut waiter = Waiter::queued(&pool, tokens(10));
        for (wait, waiting) in [(MINUTE, 1), (secs(1) - NANO, 1), (NANO, 0)] {
            clock.advance(wait);
            assert_eq!(pool.snapshot().waiting, waiting);
        }
        drop(waiter.granted());
    }

    #[test]
    fn what_is_in_flight_is_not_windowed() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().in_flight(1).window(Window::rolling(MINUTE));
        let pool = pool.clock(clock.clone()).build();
        let _hold = pool.reserve(Amount::new()).unwrap();
        clock.advance(2 * MINUTE);
        assert_eq!(pool.reserve(Amount::new()).unwrap_err().outlook(), Outlook::AfterRelease);
    }
}

mod calendar {
    use super::*;

    /// Takes all of a period, and says how long it lasts.
    fn length(clock: &ManualClock, pool: &BudgetPool) -> Option<Duration> {
        let start = clock.now();
        pool.record(tokens(100)).unwrap();
        let refused = pool.record(tokens(1)).unwrap_err();
        let after = refused.retry_after()?;
        clock.advance(after - NANO);
        assert_eq!(pool.peek(tokens(1)).unwrap_err().retry_after(), Some(NANO));
        clock.advance(NANO);
        assert_eq!(balance(pool), [0, 0, 0]);
        Some(clock.now() - start)
    }

    #[test]
    fn p7_days_begin_at_local_midnight_and_one_of_them_has_23_hours() {
        let midnights = [24, 48, 71, 95];
        let (clock, pool) =
            windowed(100, |now| Window::calendar(midnights.map(|hours| now + hours * HOUR)));
        for hours in [24, 24, 23, 24] {
            assert_eq!(length(&clock, &pool), Some(hours * HOUR));
        }
        assert_eq!(length(&clock, &pool), None, "no midnight is left");
        assert_eq!(outlook(&pool, 1), Outlook::Never);
    }

    #[test]
    fn p7_months_are_as_long_as_they_are() {
        let months = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut day = 0;
        let firsts = months.map(|days| {
            day += days;
            day
        });
        let (clock, pool) =
            windowed(100, |now| Window::calendar(firsts.map(|day| now + day * DAY)));
        for days in months {
            assert_eq!(length(&clock, &pool), Some(days * DAY));
        }
    }

    #[test]
    fn turns_are_sorted_and_each_is_one() {
        let (clock, pool) = windowed(10, |now| {
            Window::calendar([now + secs(20), now + secs(5), now - secs(9), now, now + secs(5)])
        });
        pool.record(tokens(10)).unwrap();
        assert_eq!(retry_after(&pool, 1), Some(secs(5)));
        clock.advance(secs(5));
        pool.record(tokens(10)).unwrap();
        assert_eq!(retry_after(&pool, 1), Some(secs(15)));
        clock.advance(secs(60));
        assert_eq!(balance(&pool), [0, 0, 0]);
    }

    #[test]
    fn without_turns_a_pool_is_one_without_a_window() {
        for turns in [vec![], vec![secs(1), secs(2)]] {
            let (clock, pool) =
                windowed(10, |now| Window::calendar(turns.into_iter().map(|after| now + after)));
            clock.advance(secs(3));
            pool.record(tokens(4)).unwrap();
            let hold = pool.reserve(tokens(6)).unwrap();
            clock.advance(DAY);
            assert_eq!(outlook(&pool, 1), Outlook::AfterRelease);
            assert_eq!(outlook(&pool, 7), Outlook::Never);
            drop(hold);
            assert_eq!(balance(&pool), [4, 0, 0]);
        }
    }

    #[test]
    fn p6_a_waiter_whom_the_last_turn_could_have_served_is_told_by_the_next_call() {
        let (clock, pool) = windowed(10, |now| Window::calendar([now + MINUTE]));
        pool.debit(tokens(5));
        let hold = pool.reserve(tokens(5)).unwrap();
        let mut waiter = Waiter::queued(&pool, tokens(10));
        clock.advance(MINUTE);
        pool.debit(tokens(1));
        assert_eq!(waiter.refused().outlook(), Outlook::Never);
        drop(hold);
    }

    #[test]
    fn a_calendar_has_no_other_start() {
        let now = ManualClock::new().now();
        let calendar = Window::calendar([now, now + DAY]);
        assert_eq!(calendar.clone().aligned_to(now + HOUR), calendar);
        assert_ne!(Window::fixed(DAY).aligned_to(now + HOUR), Window::fixed(DAY));
    }
}

mod carrying_overage {
    use super::*;

    fn usd_balance(pool: &BudgetPool) -> [u64; 3] {
        let usd = pool.snapshot().usd;
        [usd.used, usd.reserved, usd.overage].map(|usd| usd.as_nanos() / 1_000_000_000)
    }

    /// 500 USD committed at 23:59:59 of a day of 10 USD.
    fn spent_late(window: Window) -> (ManualClock, BudgetPool) {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .usd("10".parse().unwrap())
            .window(window)
            .clock(clock.clone())
            .build();
        let hold = pool.reserve(usd(10)).unwrap();
        clock.advance(DAY - secs(1));
        hold.commit(usd(500));
        assert_eq!(usd_balance(&pool), [10, 0, 490]);
        (clock, pool)
    }

    #[test]
    fn a_turn_forgets_what_it_is_not_told_to_carry() {
        let (clock, pool) = spent_late(Window::fixed(DAY));
        assert_eq!(pool.peek(usd(1)).unwrap_err().retry_after(), Some(secs(1)));
        clock.advance(secs(1));
        assert_eq!(usd_balance(&pool), [0, 0, 0]);
        assert_eq!(pool.snapshot().usd.spent, Usd::from_dollars(500));
    }

    #[test]
    fn p2_what_is_beyond_a_day_is_paid_off_in_the_days_to_come() {
        let (clock, pool) = spent_late(Window::fixed(DAY).carrying_overage());
        let told = pool.peek(usd(1)).unwrap_err().retry_after();
        assert_eq!(told, Some(secs(1) + 49 * DAY));
        clock.advance(secs(1));
        assert_eq!(usd_balance(&pool), [10, 0, 480], "490 are left to pay off");
        clock.advance(DAY);
        assert_eq!(usd_balance(&pool), [10, 0, 470]);
        clock.advance(48 * DAY - NANO);
        assert_eq!(usd_balance(&pool), [10, 0, 0]);
        assert_eq!(pool.peek(usd(10)).unwrap_err().retry_after(), Some(NANO));
        clock.advance(NANO);
        assert_eq!(usd_balance(&pool), [0, 0, 0]);
        assert_eq!(pool.snapshot().usd.spent, Usd::from_dollars(500));
    }

    #[test]
    fn p1_what_is_held_stays_held_and_leaves_less_for_it() {
        let (clock, pool) = windowed(10, |_| Window::fixed(MINUTE).carrying_overage());
        let hold = pool.reserve(tokens(4)).unwrap();
        pool.debit(tokens(26));
        assert_eq!(balance(&pool), [6, 4, 20]);
        // Each turn pays six: after five none is owed, and six fit beside the hold.
        assert_eq!(retry_after(&pool, 6), Some(5 * MINUTE));
        assert_eq!(retry_after(&pool, 4), Some(4 * MINUTE));
        assert_eq!(outlook(&pool, 7), Outlook::AfterRelease);
        clock.advance(MINUTE);
        assert_eq!(balance(&pool), [6, 4, 14]);
        // What is given back pays at once, and is used then.
        drop(hold);
        assert_eq!(balance(&pool), [10, 0, 10]);
        assert_eq!(retry_after(&pool, 10), Some(2 * MINUTE));
        clock.advance(2 * MINUTE);
        assert_eq!(balance(&pool), [0, 0, 0]);
    }

    #[test]
    fn a_calendar_carries_as_far_as_it_goes() {
        let (clock, pool) = windowed(10, |now| {
            Window::calendar([now + MINUTE, now + 3 * MINUTE, now + 4 * MINUTE]).carrying_overage()
        });
        pool.debit(tokens(35));
        assert_eq!(retry_after(&pool, 5), Some(4 * MINUTE));
        assert_eq!(outlook(&pool, 6), Outlook::Never, "5 are owed after the last turn");
        clock.advance(10 * MINUTE);
        assert_eq!(balance(&pool), [5, 0, 0]);
        assert_eq!(outlook(&pool, 6), Outlook::Never);
    }

    #[test]
    fn p7_what_is_paid_off_after_the_deadline_never_is() {
        let (_, pool) = windowed(10, |_| Window::fixed(MINUTE).carrying_overage());
        let late = pool.child().deadline(3 * MINUTE).build();
        pool.debit(tokens(25));
        assert_eq!(retry_after(&pool, 10), Some(3 * MINUTE));
        assert_eq!(late.peek(tokens(10)).unwrap_err().outlook(), Outlook::Never);
        assert_eq!(retry_after(&late, 5), Some(2 * MINUTE));
    }

    #[test]
    fn p6_a_turn_that_leaves_waiters_no_hope_tells_them() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .tokens(10)
            .deadline(3 * MINUTE)
            .window(Window::fixed(MINUTE).carrying_overage())
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        let hold = pool.reserve(tokens(9)).unwrap();
        pool.debit(tokens(20));
        // Were the hold given back now, two turns would pay for all.
        let mut waiters = [(); 2].map(|()| Waiter::queued(&pool, tokens(10)));
        clock.advance(MINUTE);
        pool.debit(tokens(0));
        check_invariants(&pool);
        for waiter in &mut waiters {
            assert_eq!(waiter.refused().outlook(), Outlook::Never);
        }
        drop(hold);
    }

    #[test]
    fn p6_a_waiter_is_served_at_the_turn_that_pays_for_it() {
        let (clock, pool) = windowed(10, |_| Window::fixed(MINUTE).carrying_overage());
        pool.debit(tokens(25));
        let mut waiter = Waiter::queued(&pool, tokens(6));
        for turn in 1..=3 {
            clock.advance(MINUTE);
            assert_eq!(pool.snapshot().waiting, u64::from(turn < 3), "turn {turn}");
        }
        drop(waiter.granted());
    }

    #[test]
    fn what_has_no_turns_stays_as_it_is() {
        for window in [Window::rolling(DAY), Window::token_bucket(DAY)] {
            assert_eq!(window.clone().carrying_overage(), window);
        }
        assert_ne!(Window::fixed(DAY).carrying_overage(), Window::fixed(DAY));
    }
}

/// A rolling window beside a log of all that it booked.
mod random {
    use budget_pool::{BudgetError, Caps, Reservation};
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Record(u64),
        Reserve(u64),
        /// Meters a part of a hold.
        Meter(usize, u64),
        Commit(usize, u64),
        Drop(usize),
        Debit(u64),
        Credit(u64),
        SetCap(u64),
        Reset,
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1..40_u64).prop_map(Step::Record),
            3 => (1..30_u64).prop_map(Step::Reserve),
            2 => (any::<usize>(), 1..20_u64).prop_map(|(hold, units)| Step::Meter(hold, units)),
            3 => (any::<usize>(), 0..40_u64).prop_map(|(hold, units)| Step::Commit(hold, units)),
            1 => any::<usize>().prop_map(Step::Drop),
            1 => (1..30_u64).prop_map(Step::Debit),
            1 => (1..60_u64).prop_map(Step::Credit),
            1 => (20..200_u64).prop_map(Step::SetCap),
            1 => Just(Step::Reset),
            8 => (0..250_u64).prop_map(Step::Advance),
        ]
    }

    struct Logged {
        clock: ManualClock,
        pool: BudgetPool,
        period: Duration,
        /// What was booked when; less than nothing for what was taken back.
        log: Vec<(Instant, i64)>,
        holds: Vec<Reservation>,
        was_taken_back: bool,
    }

    impl Logged {
        fn log(&mut self, units: u64, credited: u64) {
            self.was_taken_back |= credited > 0;
            self.log.push((self.clock.now(), units as i64 - credited as i64));
        }

        /// The most that was booked, less what was taken back, from some instant of the last so
        /// many nanoseconds until now.
        fn most_since(&self, length: Duration) -> i64 {
            let now = self.clock.now();
            let last = self.log.iter().rev().take_while(|(at, _)| now - *at < length);
            let mut net = 0;
            last.map(|(_, units)| {
                net += units;
                net
            })
            .fold(0, i64::max)
        }

        /// What is held, and so may be spent in this period.
        fn reserved(&self) -> i64 {
            self.pool.snapshot().tokens.reserved as i64
        }

        /// After an admission: it is within the cap whatever was spent before.
        fn is_within_cap(&self) -> Result<(), TestCaseError> {
            let cap = self.pool.snapshot().tokens.cap.unwrap() as i64;
            let most = self.most_since(self.period) + self.reserved();
            prop_assert!(most <= cap, "{most} in one period of {cap}");
            Ok(())
        }

        /// After a refusal: it is due to what is not yet a slot older than a period, and it ends at
        /// the instant that it names, and not before.
        fn is_exact(&self, refused: &BudgetError, asked: u64) -> Result<(), TestCaseError> {
            let cap = self.pool.snapshot().tokens.cap.unwrap() as i64;
            let counted = self.period + self.period.div_ceil_60();
            let most = self.most_since(counted) + self.reserved() + asked as i64;
            prop_assert!(most > cap || self.was_taken_back, "{most} of {cap} are refused");
            let Some(after) = refused.retry_after() else {
                prop_assert!(asked as i64 + self.reserved() > cap, "time would bring it");
                return Ok(());
            };
            self.clock.advance(after - NANO);
            prop_assert!(self.pool.peek(tokens(asked)).is_err(), "before {after:?}");
            self.clock.advance(NANO);
            prop_assert!(self.pool.peek(tokens(asked)).is_ok(), "at {after:?}");
            Ok(())
        }

        fn hold(&mut self, at: usize) -> Option<Reservation> {
            let at = at.checked_rem(self.holds.len())?;
            Some(self.holds.swap_remove(at))
        }

        fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
            match *step {
                Step::Record(units) => match self.pool.record(tokens(units)) {
                    Ok(()) => {
                        self.log(units, 0);
                        self.is_within_cap()?;
                    }
                    Err(refused) => self.is_exact(&refused, units)?,
                },
                Step::Reserve(units) => match self.pool.reserve(tokens(units)) {
                    Ok(hold) => {
                        self.holds.push(hold);
                        self.is_within_cap()?;
                    }
                    Err(refused) => self.is_exact(&refused, units)?,
                },
                Step::Meter(at, units) => {
                    let Some(hold) = self.hold(at) else { return Ok(()) };
                    let is_metered = hold.record(tokens(units)).is_ok();
                    self.holds.push(hold);
                    if is_metered {
                        // It may have been admitted with the hold, under a higher cap.
                        self.log(units, 0);
                    }
                }
                Step::Commit(at, units) => {
                    let Some(hold) = self.hold(at) else { return Ok(()) };
                    let receipt = hold.commit(tokens(units));
                    self.log(receipt.settled().units(budget_pool::Axis::Tokens), 0);
                    self.log(0, receipt.credited().units(budget_pool::Axis::Tokens));
                }
                Step::Drop(at) => drop(self.hold(at)),
                Step::Debit(units) => {
                    self.pool.debit(tokens(units));
                    self.log(units, 0);
                }
                Step::Credit(units) => {
                    let receipt = self.pool.credit(tokens(units));
                    self.log(0, receipt.credited().units(budget_pool::Axis::Tokens));
                }
                Step::SetCap(cap) => {
                    let reserved = self.pool.snapshot().tokens.reserved;
                    self.pool.set_caps(Caps::new().tokens(cap.max(reserved))).unwrap();
                }
                Step::Reset => {
                    self.pool.reset();
                    self.log.clear();
                }
                Step::Advance(by) => self.clock.advance(Duration::from_nanos(by)),
            }
            Ok(())
        }
    }

    trait Slot {
        /// The longest slot of a window of this period.
        fn div_ceil_60(self) -> Duration;
    }

    impl Slot for Duration {
        fn div_ceil_60(self) -> Duration {
            Duration::from_nanos(u64::try_from(self.as_nanos().div_ceil(60)).unwrap())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn p1_p7_no_period_has_more_than_the_cap_and_no_refusal_says_a_wrong_instant(
            period in prop_oneof![Just(600), Just(60), 1..2_000_u64],
            start in 0..1_000_u64,
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let period = Duration::from_nanos(period);
            let (clock, pool) = windowed(100, |now| {
                Window::rolling(period).aligned_to(now + Duration::from_nanos(start))
            });
            let (log, holds) = (Vec::new(), Vec::new());
            let mut logged =
                Logged { clock, pool, period, log, holds, was_taken_back: false };
            for step in &steps {
                logged.step(step)?;
            }
        }
    }
}

/// One waits for the turn of its own window, and a later one in another pool for what both share.
#[test]
fn p6_room_that_comes_elsewhere_passes_nobody_whose_window_has_turned() {
    let clock = ManualClock::new();
    let builder = BudgetPool::builder().tokens(2).clock(clock.clone()).timer(by_hand);
    let root = builder.build();
    let windowed = root.child().name("windowed").tokens(1).window(Window::fixed(MINUTE)).build();
    let other = root.child().name("other").build();
    windowed.record(tokens(1)).unwrap();
    let held = other.reserve(tokens(1)).unwrap();
    let mut first = Waiter::queued(&windowed, tokens(1));
    let mut second = Waiter::queued(&other, tokens(1));
    clock.advance(MINUTE);
    held.release();
    let first = first.granted();
    assert_eq!(second.wakes(), 0);
    first.release();
    second.granted().release();
}

#[test]
fn p6_a_window_turns_for_one_that_waits_at_a_call_on_any_pool() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder().clock(clock.clone()).timer(by_hand).build();
    let windowed = root.child().tokens(1).window(Window::token_bucket(MINUTE)).build();
    let other = root.child().build();
    windowed.record(tokens(1)).unwrap();
    let mut waiter = Waiter::queued(&windowed, tokens(1));
    clock.advance(MINUTE - Duration::from_nanos(1));
    other.record(tokens(1)).unwrap();
    assert_eq!(waiter.wakes(), 0);
    clock.advance(Duration::from_nanos(1));
    other.record(tokens(1)).unwrap();
    waiter.granted().release();
}
