//! What the pool books is what happened: cases in which somebody's budget was hurt, each with its
//! figures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use budget_pool::{
    Amount, Ask, Axis, AxisSnapshot, BudgetError, BudgetPool, Caps, ManualClock, OnDrop, Once,
    Outlook, Reservation, Usd, Window,
};

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/waiter.rs"]
mod waiter;

use invariants::check_invariants;
use waiter::Waiter;

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

/// Used, reserved, overage, spent.
fn books(axis: AxisSnapshot<u64>) -> [u64; 4] {
    [axis.used, axis.reserved, axis.overage, axis.spent]
}

fn token_books(pool: &BudgetPool) -> [u64; 4] {
    books(pool.snapshot().tokens)
}

/// Which figure an axis settles at.
mod settlement {
    use super::*;

    #[test]
    fn p2_the_providers_total_corrects_an_own_tokenizer_downward() {
        let pool = BudgetPool::builder().tokens(5_000).usd(usd("1")).build();
        let hold = pool.reserve(tokens(1_500).usd(usd("0.02"))).unwrap();
        hold.debit(tokens(700).usd(usd("0.007")));
        hold.record(tokens(500).usd(usd("0.005"))).unwrap();
        let receipt = hold.commit(tokens(1_000).usd(usd("0.010")));

        let snapshot = pool.snapshot();
        assert_eq!(books(snapshot.tokens), [1_000, 0, 0, 1_000]);
        assert_eq!((snapshot.usd.used, snapshot.usd.spent), (usd("0.01"), usd("0.01")));
        assert_eq!(receipt.credited(), tokens(200).usd(usd("0.002")));
        assert_eq!(receipt.settled(), tokens(0).usd(Usd::ZERO));
        assert!(receipt.overage().is_zero() && !receipt.is_late());
    }

    #[test]
    fn p2_usage_blocks_that_are_totals_so_far_end_at_the_last() {
        let pool = BudgetPool::unlimited();
        let hold = pool.reserve(tokens(100)).unwrap();
        let mut so_far = 0;
        for block in [12, 30, 54, 60] {
            hold.debit(tokens(block - so_far));
            so_far = block;
        }
        hold.commit(tokens(so_far));
        assert_eq!(token_books(&pool), [60, 0, 0, 60]);
    }

    #[test]
    fn p2_a_total_alone_leaves_the_parts_at_what_is_held() {
        let held = Amount::new().input_tokens(70).output_tokens(7);
        let settled = |total: Amount| {
            let pool = BudgetPool::unlimited();
            pool.reserve(held).unwrap().commit(total);
            let snapshot = pool.snapshot();
            [snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens].map(|axis| axis.used)
        };
        assert_eq!(settled(tokens(90)), [90, 70, 7]);
        assert_eq!(settled(tokens(0)), [0, 70, 7]);
        assert_eq!(settled(Amount::new()), [77, 70, 7]);
        // A part without the other: the sum of both, as they are settled.
        assert_eq!(settled(Amount::new().input_tokens(50)), [57, 50, 7]);
        assert_eq!(settled(Amount::new().output_tokens(20)), [90, 70, 20]);
        assert_eq!(settled(Amount::new().input_tokens(0).output_tokens(0)), [0, 0, 0]);
        // A total beside a part is what it says, unless both parts are more as they are settled.
        assert_eq!(settled(tokens(60).input_tokens(50)), [60, 50, 7]);
        assert_eq!(settled(tokens(60).input_tokens(65)), [72, 65, 7]);
    }

    /// However it was made.
    #[test]
    fn p2_equal_amounts_settle_the_same() {
        let set = Amount::new().input_tokens(60);
        let mut added = Amount::new();
        added += set;
        let collected: Amount = set.iter().collect();
        let with_zero = set.requests(0).iter().collect::<Amount>();
        assert_eq!(with_zero, set.requests(0));
        for (amount, requests) in [(set, 2), (added, 2), (collected, 2), (with_zero, 0)] {
            let pool = BudgetPool::unlimited();
            let held = Amount::new().input_tokens(70).output_tokens(50).requests(2);
            pool.reserve(held).unwrap().commit(amount);
            let snapshot = pool.snapshot();
            let tokens = [snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens];
            assert_eq!(tokens.map(|axis| axis.used), [110, 60, 50]);
            assert_eq!(snapshot.requests.used, requests);
        }
    }

    #[test]
    fn p2_what_is_held_stands_beside_what_was_metered() {
        let settled = |total: Amount| {
            let pool = BudgetPool::unlimited();
            let held = Amount::new().input_tokens(70).output_tokens(30).requests(1);
            let hold = pool.reserve(held).unwrap();
            hold.debit(Amount::new().output_tokens(10));
            hold.commit(total);
            let snapshot = pool.snapshot();
            let tokens = [snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens];
            (tokens.map(|axis| axis.used), snapshot.requests.used)
        };
        assert_eq!(settled(Amount::new()), ([100, 70, 30], 1));
        assert_eq!(settled(Amount::new().output_tokens(4)), ([74, 70, 4], 1));
        assert_eq!(settled(Amount::new().input_tokens(60)), ([90, 60, 30], 1));
        assert_eq!(settled(tokens(5).requests(0)), ([5, 70, 30], 0));
    }

    #[test]
    fn p2_commit_all_is_exact_in_addition_to_what_was_metered() {
        let pool = BudgetPool::unlimited();
        let hold = pool.reserve(tokens(100)).unwrap();
        hold.debit(tokens(130));
        assert_eq!(hold.commit_all().settled(), tokens(0));
        assert_eq!(token_books(&pool), [130, 0, 0, 130]);
    }

    #[test]
    fn p2_a_commit_of_what_was_metered_gives_nothing_back() {
        let pool = BudgetPool::unlimited();
        let hold = pool.reserve(tokens(100)).unwrap();
        hold.debit(tokens(130));
        let receipt = hold.commit(tokens(130));
        assert_eq!((receipt.settled(), receipt.credited()), (tokens(0), Amount::new()));
        assert_eq!(token_books(&pool), [130, 0, 0, 130]);
    }

    #[test]
    fn p2_a_strict_commit_is_the_total_too() {
        let pool = BudgetPool::builder().tokens(100).build();
        let hold = pool.reserve(tokens(50)).unwrap();
        hold.record(tokens(30)).unwrap();
        let refused = hold.try_commit(tokens(101)).unwrap_err();
        let BudgetError::Exceeded(exceeded) = refused.error() else { panic!("{refused:?}") };
        assert_eq!((exceeded.requested().units(), exceeded.available().units()), (51, 50));
        let receipt = refused.into_reservation().try_commit(tokens(20)).unwrap();
        assert_eq!((receipt.credited(), token_books(&pool)), (tokens(10), [20, 0, 0, 20]));
    }

    #[test]
    fn p1_a_downward_commit_serves_those_who_wait_and_breaks_no_cap() {
        let pool = BudgetPool::builder().tokens(100).build();
        let hold = pool.reserve(tokens(60)).unwrap();
        hold.debit(tokens(30));
        let _other = pool.reserve(tokens(20)).unwrap();
        let mut waiter = Waiter::queued(&pool, tokens(65));
        hold.commit(tokens(10));
        waiter.granted().commit_all();
        assert_eq!(token_books(&pool), [75, 20, 0, 75]);
    }
}

/// What is given back.
mod credit {
    use super::*;

    #[test]
    fn p2_a_refund_leaves_the_cap_and_lowers_what_was_spent() {
        let pool = BudgetPool::builder().usd(usd("10")).build();
        pool.record(Amount::new().usd(usd("4.00"))).unwrap();
        let receipt = pool.credit(Amount::new().usd(usd("1.50")));
        let money = pool.snapshot().usd;
        assert_eq!(money.cap, Some(usd("10")));
        assert_eq!((money.used, money.spent), (usd("2.5"), usd("2.5")));
        assert_eq!(receipt.credited(), Amount::new().usd(usd("1.50")));
        assert!(receipt.settled().is_zero());
    }

    #[test]
    fn p2_it_pays_the_overage_first_and_gives_back_no_more_than_was_booked() {
        let pool = BudgetPool::builder().tokens(100).build();
        pool.debit(tokens(130));
        assert_eq!(pool.credit(tokens(20)).credited(), tokens(20));
        assert_eq!(token_books(&pool), [100, 0, 10, 110]);
        assert_eq!(pool.credit(tokens(30)).credited(), tokens(30));
        assert_eq!(token_books(&pool), [80, 0, 0, 80]);
        assert_eq!(pool.credit(tokens(u64::MAX)).credited(), tokens(80));
        assert_eq!(token_books(&pool), [0, 0, 0, 0]);
        assert_eq!(pool.credit(tokens(1)).credited(), tokens(0));
    }

    #[test]
    fn p2_it_gives_back_nothing_of_a_period_that_is_over() {
        let clock = ManualClock::new();
        let month = BudgetPool::builder().tokens(1_000).clock(clock.clone()).build();
        let day = month.child().tokens(100).window(Window::fixed(Duration::from_secs(60))).build();
        day.record(tokens(80)).unwrap();
        clock.advance(Duration::from_secs(60));
        day.record(tokens(5)).unwrap();
        let receipt = day.credit(tokens(30));
        assert_eq!((token_books(&day), token_books(&month)), ([0, 0, 0, 80], [55, 0, 0, 55]));
        assert_eq!(receipt.credited(), tokens(30), "the greatest on the path");
    }

    #[test]
    fn p1_a_carved_share_is_whole_again_and_pays_no_overage_above() {
        let run = BudgetPool::builder().tokens(100).build();
        let share = run.child().tokens(50).carved().build().unwrap();
        share.debit(tokens(60));
        run.debit(tokens(60));
        assert_eq!(token_books(&run), [100, 0, 20, 120]);

        // 10 of overage, and 20 that the share has again. The run reserves those, though it owes.
        share.credit(tokens(30));
        assert_eq!(token_books(&share), [30, 0, 0, 30]);
        assert_eq!(token_books(&run), [80, 20, 10, 90]);
        share.record(tokens(20)).unwrap();
        assert_eq!((token_books(&share), token_books(&run)), ([50, 0, 0, 50], [100, 0, 10, 110]));
    }

    #[test]
    fn p1_a_carved_share_regains_no_more_than_the_pools_above_have_used() {
        let run = BudgetPool::builder().tokens(100).build();
        let team = run.child().tokens(80).carved().build().unwrap();
        let agent = team.child().tokens(50).carved().build().unwrap();
        agent.record(tokens(40)).unwrap();
        run.reset();
        run.record(tokens(15)).unwrap();
        let receipt = agent.credit(tokens(40));
        assert_eq!(receipt.credited(), tokens(15), "the run has used no more in its period");
        assert_eq!(token_books(&agent), [25, 0, 0, 25]);
        assert_eq!(token_books(&team), [25, 25, 0, 25]);
        assert_eq!(token_books(&run), [0, 55, 0, 40]);
        check_invariants(&run);
    }

    #[test]
    fn p3_a_closed_carved_pool_gives_what_is_credited_to_the_pools_above() {
        let run = BudgetPool::builder().tokens(100).build();
        let share = run.child().tokens(50).carved().build().unwrap();
        share.record(tokens(30)).unwrap();
        share.close();
        share.credit(tokens(10));
        assert_eq!((token_books(&share), token_books(&run)), ([20, 0, 0, 20], [20, 0, 0, 20]));
        run.record(tokens(80)).unwrap();
        check_invariants(&run);
    }

    #[test]
    fn a_bucket_that_is_full_by_a_credit_keeps_no_part_of_a_unit() {
        let clock = ManualClock::new();
        let second = Duration::from_secs(1);
        let window = Window::token_bucket(second * 10);
        let pool = BudgetPool::builder().tokens(1).window(window).clock(clock.clone()).build();
        pool.record(tokens(1)).unwrap();
        clock.advance(second * 9);
        pool.credit(tokens(1));
        pool.record(tokens(1)).unwrap();
        assert_eq!(pool.peek(tokens(1)).unwrap_err().retry_after(), Some(second * 10));
        clock.advance(second * 9);
        pool.set_used(tokens(0)).unwrap();
        pool.record(tokens(1)).unwrap();
        assert_eq!(pool.peek(tokens(1)).unwrap_err().retry_after(), Some(second * 10));
    }
}

/// Events that come twice.
mod once {
    use super::*;

    #[test]
    fn p2_an_event_that_is_delivered_twice_is_booked_once_also_above_the_cap() {
        let pool = BudgetPool::builder().tokens(100).used(tokens(90)).build();
        let first = pool.debit_once("event", tokens(30)).unwrap();
        let second = pool.debit_once("event", tokens(30)).unwrap();
        assert_eq!(token_books(&pool), [100, 0, 20, 120]);
        assert_eq!((first.settled(), first.overage()), (tokens(30), tokens(20)));
        assert_eq!(second.settled(), Amount::new());
        let other = pool.debit_once("event", tokens(31)).unwrap_err();
        assert!(matches!(other, BudgetError::KeyConflict { .. }), "{other}");
        assert_eq!(token_books(&pool), [100, 0, 20, 120]);
    }

    #[test]
    fn p2_a_full_store_books_a_debit_as_new() {
        let pool =
            BudgetPool::builder().tokens(9).idempotency_keys(1, Duration::from_secs(60)).build();
        pool.debit_once("one", tokens(1)).unwrap();
        assert!(matches!(pool.record_once("two", tokens(1)), Err(BudgetError::KeysFull { .. })));
        pool.debit_once("two", tokens(1)).unwrap();
        pool.debit_once("two", tokens(1)).unwrap();
        pool.debit_once("one", tokens(1)).unwrap();
        assert_eq!(token_books(&pool)[3], 3);
    }

    #[test]
    fn a_key_stands_for_what_is_charged_and_not_for_how_it_was_named() {
        let pool = BudgetPool::unlimited();
        pool.record_once("key", tokens(1)).unwrap();
        for same in [tokens(1).in_flight(2), tokens(1).requests(0)] {
            assert_eq!(pool.record_once("key", same), Ok(Once::Before));
        }
        assert!(pool.record_once("key", tokens(1).requests(1)).is_err());
    }

    #[test]
    fn both_kinds_of_calls_share_their_keys_and_say_whether_they_counted() {
        let pool = BudgetPool::builder().tokens(100).build();
        assert_eq!(pool.record_once("job", tokens(5)), Ok(Once::Now));
        assert_eq!(pool.record_once("job", tokens(5)), Ok(Once::Before));
        assert_eq!(pool.debit_once("job", tokens(5)).unwrap().settled(), Amount::new());
        pool.close();
        pool.debit_once("bill", tokens(7)).unwrap();
        assert_eq!(pool.record_once("bill", tokens(7)), Ok(Once::Before));
        assert_eq!(token_books(&pool)[3], 12);
    }

    #[test]
    fn unless_set_20_new_keys_a_second_are_never_refused() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().clock(clock.clone()).build();
        let one = Amount::new().requests(1);
        // Two hours: after the first as many are forgotten as come.
        for second in 0..2 * 3_600 {
            for call in 0..20 {
                pool.record_once(format!("{second}.{call}"), one).unwrap();
            }
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(pool.snapshot().requests.spent, 2 * 3_600 * 20);
    }
}

/// A call that is cut off.
mod on_drop {
    use super::*;

    fn priced(text: &str) -> Result<Amount, Box<dyn std::error::Error>> {
        Ok(tokens(400).usd(Usd::try_from_dollars_f64(text.parse()?)?))
    }

    /// What a program does that was written as the documentation shows.
    fn call(pool: &BudgetPool, cost: &str) -> Result<(), Box<dyn std::error::Error>> {
        let hold = pool.reserve(tokens(500).usd(usd("0.01")))?;
        hold.commit(priced(cost)?);
        Ok(())
    }

    #[test]
    fn p2_a_cost_that_cannot_be_read_leaves_the_hold_booked() {
        let pool = BudgetPool::builder().tokens(5_000).on_drop(OnDrop::Commit).build();
        call(&pool, "NaN").unwrap_err();
        assert_eq!(token_books(&pool), [500, 0, 0, 500]);
        assert_eq!(pool.snapshot().usd.used, usd("0.01"));
        call(&pool, "0.004").unwrap();
        assert_eq!(token_books(&pool), [900, 0, 0, 900]);
    }

    #[test]
    fn the_nearest_pool_that_says_so_decides_and_the_hold_has_the_last_word() {
        let root = BudgetPool::builder().on_drop(OnDrop::Commit).build();
        let inherits = root.child().build().child().tokens(9).carved().build().unwrap();
        let releases = root.child().on_drop(OnDrop::Release).build();
        let below = releases.child().build();
        let used_by_a_drop = |pool: &BudgetPool, change: fn(Reservation) -> Reservation| {
            let before = token_books(pool)[0];
            drop(change(pool.reserve(tokens(1)).unwrap()));
            token_books(pool)[0] - before
        };
        for (pool, used) in [(&root, 1), (&inherits, 1), (&releases, 0), (&below, 0)] {
            assert_eq!(used_by_a_drop(pool, |hold| hold), used);
            assert_eq!(used_by_a_drop(pool, Reservation::commit_on_drop), 1);
            assert_eq!(used_by_a_drop(pool, |hold| hold.on_drop(OnDrop::Release)), 0);
            assert_eq!(
                used_by_a_drop(pool, |hold| hold.commit_on_drop().on_drop(OnDrop::Release)),
                0
            );
        }
        let granted = BudgetPool::builder().in_flight(1).on_drop(OnDrop::Commit).build();
        let first = granted.reserve(Amount::new()).unwrap();
        let mut waiter = Waiter::queued(&granted, tokens(3));
        first.release();
        drop(waiter.granted());
        assert_eq!(token_books(&granted)[0], 3, "a hold that was waited for, too");
    }

    #[test]
    fn each_hold_ends_in_one_of_three_ways_and_is_counted_above_too() {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().clock(clock.clone()).name("run").build();
        let pool = root.child().build();
        let hold = || pool.reserve(tokens(1)).unwrap();
        let ended = |pool: &BudgetPool| {
            let snapshot = pool.snapshot();
            [snapshot.committed, snapshot.released, snapshot.expired, snapshot.reservations]
        };
        hold().commit(tokens(1));
        hold().commit_all();
        hold().try_commit(tokens(1)).unwrap();
        drop(hold().commit_on_drop());
        assert_eq!(ended(&pool), [4, 0, 0, 0]);
        drop(hold());
        hold().commit_on_drop().release();
        assert_eq!(ended(&pool), [4, 2, 0, 0]);

        let second = Duration::from_secs(1);
        let late = [(); 3].map(|()| pool.reserve(Ask::new(tokens(1)).ttl(second)).unwrap());
        clock.advance(second);
        assert_eq!(ended(&pool), [4, 2, 3, 0]);
        let [committed, dropped, released] = late;
        committed.commit_all();
        drop(dropped);
        released.release();
        assert_eq!((ended(&pool), ended(&root)), ([4, 2, 3, 0], [4, 2, 3, 0]));
    }

    #[test]
    fn a_thousand_forgotten_commits_are_seen_at_a_glance() {
        let pool = BudgetPool::builder().name("run").tokens(100_000).build();
        (0..1_000).for_each(|_| drop(pool.reserve(tokens(100)).unwrap()));
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.admitted, snapshot.committed, snapshot.released), (1_000, 0, 1_000));
        let text = snapshot.to_string();
        assert!(
            text.starts_with("run: 1000 admitted, 0 refused, 0 reservations, 1000 released\n"),
            "{text}"
        );
    }
}

/// Caps that move while the pool is used.
mod caps {
    use super::*;

    #[test]
    fn p1_a_cap_below_what_is_used_leaves_overage_and_refuses_who_can_never_be_met() {
        let pool = BudgetPool::builder().tokens(100).build();
        pool.record(tokens(60)).unwrap();
        let hold = pool.reserve(tokens(40)).unwrap();
        let mut waiter = Waiter::queued(&pool, tokens(1));
        pool.set_caps(Caps::new().tokens(50)).unwrap();
        assert_eq!(waiter.refused().outlook(), Outlook::Never);
        assert_eq!(token_books(&pool), [10, 40, 50, 60]);
        drop(hold);
        assert_eq!(token_books(&pool), [50, 0, 10, 60]);
        assert_eq!(pool.snapshot().tokens.cap, Some(50));
    }

    #[test]
    fn p1_a_cap_falls_with_each_release_and_nothing_is_admitted_until_it_has() {
        let pool = BudgetPool::builder().in_flight(8).build();
        let mut holds: Vec<_> = (0..8).map(|_| pool.reserve(tokens(1)).unwrap()).collect();
        pool.set_caps(Caps::new().in_flight(4)).unwrap();
        for left in (4..8).rev() {
            let slots = pool.snapshot().in_flight;
            assert_eq!((slots.cap, slots.falling_to), (Some(left + 1), Some(4)));
            assert_eq!(slots.available, Some(0));
            holds.pop().unwrap().commit_all();
        }
        let slots = pool.snapshot().in_flight;
        assert_eq!((slots.cap, slots.falling_to, slots.reserved), (Some(4), None, 4));
        assert!(pool.reserve(tokens(1)).is_err());
        holds.pop();
        let _fourth = pool.reserve(tokens(1)).unwrap();
        assert!(pool.reserve(tokens(1)).is_err());
    }

    #[test]
    fn p2_what_is_committed_while_a_cap_falls_is_booked() {
        let pool = BudgetPool::builder().name("run").tokens(100).build();
        let [a, b] = [60, 40].map(|n| pool.reserve(tokens(n)).unwrap());
        pool.set_caps(Caps::new().tokens(30)).unwrap();
        let text = pool.snapshot().to_string();
        assert!(text.contains("100 to 30"), "{text}");
        a.commit_all();
        assert_eq!(token_books(&pool), [0, 40, 60, 60]);
        assert_eq!(pool.snapshot().tokens.falling_to, Some(30));
        b.commit(tokens(10));
        assert_eq!(token_books(&pool), [30, 0, 40, 70]);
        assert_eq!((pool.snapshot().tokens.falling_to, pool.snapshot().tokens.peak), (None, 100));
    }

    #[test]
    fn a_cap_that_falls_can_be_set_raised_and_not_lowered() {
        let falling = || {
            let pool = BudgetPool::builder().tokens(100).build();
            let hold = pool.reserve(tokens(80)).unwrap();
            pool.set_caps(Caps::new().tokens(50)).unwrap();
            (pool, hold)
        };
        let (pool, _hold) = falling();
        pool.raise_caps(Caps::new().tokens(10)).unwrap();
        assert_eq!(pool.snapshot().tokens.falling_to, Some(60));
        pool.raise_caps(Caps::new().tokens(30)).unwrap();
        let now = pool.snapshot().tokens;
        assert_eq!((now.cap, now.falling_to, now.available), (Some(90), None, Some(10)));
        let (pool, _hold) = falling();
        assert!(pool.lower_caps(Caps::new().tokens(1)).is_err());
        assert_eq!(pool.lower_caps_up_to(Caps::new().tokens(9)), Caps::new().tokens(0));
        pool.set_caps(Caps::new().tokens(80)).unwrap();
        assert_eq!(pool.snapshot().tokens.falling_to, None);
    }

    #[test]
    fn p7_the_outlook_of_a_cap_that_falls_is_that_of_its_goal() {
        let pool = BudgetPool::builder().tokens(100).build();
        let hold = pool.reserve(tokens(80)).unwrap();
        pool.record(tokens(10)).unwrap();
        pool.set_caps(Caps::new().tokens(50)).unwrap();
        let outlook = |n| pool.peek(tokens(n)).unwrap_err().outlook();
        assert_eq!([outlook(1), outlook(40)], [Outlook::AfterRelease; 2]);
        assert_eq!(outlook(41), Outlook::Never);
        let mut waiter = Waiter::queued(&pool, tokens(40));
        hold.release();
        waiter.granted().commit_all();
        assert_eq!(token_books(&pool), [50, 0, 0, 50]);
    }

    #[test]
    fn a_figure_from_elsewhere_replaces_what_was_counted() {
        let pool = BudgetPool::builder().tokens(90_000).build();
        pool.debit(tokens(40_000));
        pool.set_used(tokens(85_000)).unwrap();
        assert_eq!(token_books(&pool), [85_000, 0, 0, 85_000]);
        pool.set_used(tokens(40_000)).unwrap();
        assert_eq!(token_books(&pool), [40_000, 0, 0, 40_000]);
        let _hold = pool.reserve(tokens(10_000)).unwrap();
        pool.set_used(tokens(95_000)).unwrap();
        assert_eq!(token_books(&pool), [80_000, 10_000, 15_000, 95_000]);
        assert_eq!(pool.snapshot().tokens.cap, Some(90_000));
    }

    #[test]
    fn a_cap_for_a_live_pool_that_had_none_counts_what_was_used() {
        let pool = BudgetPool::unlimited();
        pool.debit(Amount::new().usd(usd("3")));
        pool.raise_caps(Caps::new().usd(usd("10"))).unwrap();
        assert_eq!(pool.snapshot().usd.cap, None, "there is nothing to raise");
        pool.set_caps(Caps::new().usd(usd("10"))).unwrap();
        let money = pool.snapshot().usd;
        assert_eq!(
            (money.cap, money.used, money.available),
            (Some(usd("10")), usd("3"), Some(usd("7")))
        );
        assert!(pool.record(Amount::new().usd(usd("7.000000001"))).is_err());
    }

    #[test]
    fn after_a_restart_each_pool_is_told_its_own_figure() {
        let run = BudgetPool::builder().tokens(10).used(tokens(5)).build();
        let agent = run.child().tokens(6).used(tokens(4)).build();
        assert_eq!((token_books(&run), token_books(&agent)), ([5, 0, 0, 5], [4, 0, 0, 4]));
        let over = BudgetPool::builder().tokens(10).used(tokens(15)).build();
        assert_eq!(token_books(&over), [10, 0, 5, 15]);
        // Both parts of tokens bring their sum along.
        let parts = Amount::new().input_tokens(3).output_tokens(4);
        assert_eq!(token_books(&BudgetPool::builder().used(parts).build()), [7, 0, 0, 7]);
    }

    #[test]
    fn p1_a_share_moves_in_one_step_and_no_other_finds_it_in_between() {
        const TRANSFERS: u64 = 2_000;
        let team = BudgetPool::builder().tokens(10).build();
        let [a, b] = [(); 2].map(|()| team.child().tokens(5).carved().build().unwrap());
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            let thieves: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut found = 0;
                        while !is_done.load(Ordering::Relaxed) {
                            found += u64::from(team.record(tokens(1)).is_ok());
                        }
                        found
                    })
                })
                .collect();
            for _ in 0..TRANSFERS / 2 {
                a.transfer(&b, Caps::new().tokens(5)).unwrap();
                b.transfer(&a, Caps::new().tokens(5)).unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
            assert_eq!(thieves.into_iter().map(|thief| thief.join().unwrap()).sum::<u64>(), 0);
        });
        assert_eq!(token_books(&team), [0, 10, 0, 0]);
    }

    #[test]
    fn p2_a_transfer_pays_no_overage_on_its_way() {
        let team = BudgetPool::builder().tokens(10).build();
        let [a, b] = [(); 2].map(|()| team.child().tokens(5).carved().build().unwrap());
        team.debit(tokens(7));
        b.debit(tokens(6));
        a.transfer(&b, Caps::new().tokens(4)).unwrap();
        // One of the four pays what `b` owes. It was booked above when it was spent.
        assert_eq!(token_books(&b), [6, 0, 0, 6]);
        assert_eq!(b.snapshot().tokens.available, Some(3));
        assert_eq!(token_books(&team), [6, 4, 7, 13]);
        check_invariants(&team);
    }

    #[test]
    fn a_transfer_goes_between_any_two_pools_of_a_tree() {
        let root = BudgetPool::builder().name("root").tokens(100).build();
        let team = root.child().name("team").tokens(60).carved().build().unwrap();
        let agent = team.child().name("agent").tokens(20).carved().build().unwrap();
        let plain = root.child().name("plain").tokens(7).build();
        let cap = |pool: &BudgetPool| pool.snapshot().tokens.cap.unwrap();
        let caps = || [&root, &team, &agent, &plain].map(cap);
        agent.transfer(&team, Caps::new().tokens(5)).unwrap();
        assert_eq!(caps(), [100, 65, 15, 7]);
        team.transfer(&agent, Caps::new().tokens(10)).unwrap();
        assert_eq!(caps(), [100, 55, 25, 7]);
        agent.transfer(&plain, Caps::new().tokens(3)).unwrap();
        assert_eq!(caps(), [100, 55, 22, 10]);
        plain.transfer(&team, Caps::new().tokens(10)).unwrap();
        assert_eq!(caps(), [100, 65, 22, 0]);
        root.transfer(&root, Caps::new().tokens(35)).unwrap();
        assert_eq!(caps(), [100, 65, 22, 0]);
        check_invariants(&root);
        assert_eq!(token_books(&root), [0, 65, 0, 0]);
        let refused = root.transfer(&agent, Caps::new().tokens(36)).unwrap_err();
        assert_eq!((refused.pool(), caps()), ("root", [100, 65, 22, 0]));
    }

    #[test]
    fn p1_a_transfer_that_does_not_fit_above_changes_nothing() {
        let root = BudgetPool::builder().name("root").tokens(100).build();
        let a = root.child().name("a").tokens(40).build();
        let team = root.child().name("team").tokens(60).carved().build().unwrap();
        let b = team.child().name("b").tokens(60).carved().build().unwrap();
        let before = root.snapshot_tree();
        // `b` needs what `team` has not.
        let refused = a.transfer(&b, Caps::new().tokens(1)).unwrap_err();
        assert_eq!((refused.pool(), root.snapshot_tree()), ("team", before));
        check_invariants(&root);
    }

    #[test]
    fn set_caps_on_a_carved_pool_moves_its_share() {
        let run = BudgetPool::builder().name("run").tokens(100).build();
        let share = run.child().name("share").tokens(50).carved().build().unwrap();
        share.record(tokens(20)).unwrap();
        let hold = share.reserve(tokens(10)).unwrap();
        run.record(tokens(30)).unwrap();
        let refused = share.set_caps(Caps::new().tokens(71)).unwrap_err();
        assert_eq!((refused.pool(), token_books(&run)), ("run", [50, 30, 0, 50]));
        share.set_caps(Caps::new().tokens(70)).unwrap();
        assert_eq!(token_books(&run), [50, 50, 0, 50]);
        share.set_caps(Caps::new().tokens(5)).unwrap();
        assert_eq!(token_books(&share), [0, 10, 20, 20]);
        assert_eq!(token_books(&run), [50, 10, 0, 50]);
        hold.release();
        assert_eq!(token_books(&share), [5, 0, 15, 20]);
        assert_eq!(token_books(&run), [50, 0, 0, 50]);
        check_invariants(&run);
        share.close();
        let before = run.snapshot_tree();
        let refused = share.set_caps(Caps::new().tokens(90)).unwrap_err();
        assert!(matches!(refused, BudgetError::Closed { pool, .. } if pool == "share"));
        assert_eq!(run.snapshot_tree(), before);
        share.set_caps(Caps::new().tokens(3)).unwrap();
        assert_eq!(token_books(&share), [3, 0, 17, 20]);
        assert_eq!(token_books(&run), [50, 0, 0, 50], "a closed pool keeps no share");
        check_invariants(&run);
    }

    #[test]
    fn p6_a_new_cap_on_the_way_of_those_who_wait_keeps_their_turn() {
        let root = BudgetPool::builder().tokens(10).build();
        let team = root.child().name("team").build();
        let [a, b] = [(); 2].map(|()| team.child().build());
        let hold = root.reserve(tokens(10)).unwrap();
        let mut first = Waiter::queued(&a, tokens(5).requests(3));
        team.set_caps(Caps::new().requests(3)).unwrap();
        check_invariants(&root);
        let queued = b.reserve(Amount::new().requests(3)).unwrap_err();
        assert!(matches!(queued, BudgetError::Queued { pool, .. } if pool == "team"));
        drop(hold);
        first.granted().commit_all();
        check_invariants(&root);
    }

    #[test]
    fn p7_a_refused_transfer_speaks_of_the_state_that_there_is() {
        let run = BudgetPool::builder().name("run").tokens(100).build();
        let share = run.child().name("share").tokens(0).carved().build().unwrap();
        let refused = run.transfer(&share, Caps::new().tokens(60)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "tokens of `run` exceeded: 120 requested, 100 available, cap 100, will never fit"
        );
        run.transfer(&share, Caps::new().tokens(50)).unwrap();
        assert_eq!((run.snapshot().tokens.cap, token_books(&run)[1]), (Some(50), 50));
    }

    #[test]
    fn p7_a_transfer_that_another_pool_refuses_speaks_of_that_pool() {
        let root = BudgetPool::unlimited();
        let giver = root.child().tokens(10).build();
        let team = root.child().name("team").tokens(8).build();
        let share = team.child().tokens(6).carved().build().unwrap();
        let refused = giver.transfer(&share, Caps::new().tokens(5)).unwrap_err();
        let text = "tokens of `team` exceeded: 5 requested, 2 available, cap 8";
        assert!(refused.to_string().starts_with(text), "{refused}");
        check_invariants(&root);
    }

    #[test]
    fn p4_what_pays_overage_on_its_way_to_the_share_above_it_need_not_be_free_at_the_root() {
        let root = BudgetPool::builder().tokens(20).build();
        let team = root.child().tokens(20).carved().build().unwrap();
        let agent = team.child().tokens(10).carved().build().unwrap();
        team.debit(tokens(15));
        assert_eq!(token_books(&team), [10, 10, 5, 15]);
        agent.transfer(&team, Caps::new().tokens(4)).unwrap();
        assert_eq!(token_books(&team)[1..], [6, 0, 15]);
        check_invariants(&root);
    }

    #[test]
    fn p7_a_refusal_under_a_cap_that_falls_names_the_one_that_was_set() {
        let pool = BudgetPool::builder().in_flight(8).build();
        let _holds: Vec<_> = (0..8).map(|_| pool.reserve(tokens(1)).unwrap()).collect();
        pool.set_caps(Caps::new().in_flight(4)).unwrap();
        let refused = pool.reserve(Amount::new().in_flight(5)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "in flight of `pool` exceeded: 5 requested, 0 available, cap 4, will never fit"
        );
    }

    #[test]
    fn p7_what_a_funded_bucket_would_bring_back_is_for_lack_of_funding() {
        let pool = BudgetPool::builder()
            .tokens(0)
            .ceiling(Caps::new().tokens(10))
            .window(Window::token_bucket(Duration::from_secs(60)))
            .clock(ManualClock::new())
            .build();
        pool.debit(tokens(5));
        let outlook = |n| pool.peek(tokens(n)).unwrap_err().outlook();
        assert_eq!([outlook(8), outlook(11)], [Outlook::AfterFunding, Outlook::Never]);
    }

    #[test]
    fn p7_below_a_ceiling_a_refusal_is_for_lack_of_funding() {
        let pool = BudgetPool::builder().tokens(10).ceiling(Caps::new().tokens(50)).build();
        pool.record(tokens(8)).unwrap();
        let outlook = |n| pool.peek(tokens(n)).unwrap_err().outlook();
        assert_eq!([outlook(3), outlook(42)], [Outlook::AfterFunding; 2]);
        assert_eq!(outlook(43), Outlook::Never);
        let mut waiter = Waiter::queued(&pool, tokens(20));
        let mut hopeless = Waiter::queued(&pool, tokens(40));
        pool.raise_caps(Caps::new().tokens(18)).unwrap();
        waiter.granted().commit_all();
        assert_eq!(hopeless.refused().outlook(), Outlook::Never, "28 are used of 50");
        let mut waiter = Waiter::queued(&pool, tokens(20));
        pool.set_ceiling(Caps::new().tokens(47));
        assert_eq!(waiter.refused().outlook(), Outlook::Never);
    }

    #[test]
    fn p7_what_a_window_brings_back_counts_towards_the_ceiling() {
        let clock = ManualClock::new();
        let window = Window::fixed(Duration::from_secs(60));
        let pool = BudgetPool::builder()
            .tokens(10)
            .ceiling(Caps::new().tokens(50))
            .window(window)
            .clock(clock)
            .build();
        pool.record(tokens(10)).unwrap();
        let outlook = |n| pool.peek(tokens(n)).unwrap_err().outlook();
        assert!(matches!(outlook(10), Outlook::At(_)));
        assert_eq!(
            [outlook(11), outlook(50), outlook(51)],
            [Outlook::AfterFunding, Outlook::AfterFunding, Outlook::Never]
        );
    }
}

/// Slots in flight, own axes, holds that become one.
mod holds {
    use super::*;

    const TOOL_CALLS: Axis = Axis::custom(0, "tool calls");
    const BYTES: Axis = Axis::custom(3, "bytes");

    #[test]
    fn a_call_inside_a_request_takes_no_slot() {
        let pool = BudgetPool::builder().in_flight(2).build();
        let requests: Vec<_> = (0..2)
            .map(|_| {
                let request = pool.reserve(Amount::new()).unwrap();
                (request, pool.reserve(tokens(5).in_flight(0)).unwrap())
            })
            .collect();
        let slots = pool.snapshot().in_flight;
        assert_eq!((slots.reserved, pool.snapshot().reservations), (2, 4));
        assert!(pool.reserve(Amount::new()).is_err());
        drop(requests);
        let heavy = pool.reserve(Amount::new().in_flight(2)).unwrap();
        assert_eq!(heavy.amount(), Amount::new().in_flight(2));
        assert!(pool.reserve(Amount::new()).is_err());
        heavy.shrink(Amount::new().in_flight(1)).unwrap();
        let light = pool.reserve(Amount::new()).unwrap();
        assert_eq!(
            heavy.grow(Amount::new().in_flight(1)).unwrap_err().axis(),
            Some(Axis::InFlight)
        );
        drop(light);
        heavy.grow(Amount::new().in_flight(1)).unwrap();
        assert_eq!(pool.snapshot().in_flight.reserved, 2);
    }

    #[test]
    fn what_is_no_hold_ignores_in_flight() {
        let pool = BudgetPool::builder().in_flight(1).build();
        let weighted = tokens(1).in_flight(9);
        pool.record(weighted).unwrap();
        pool.peek(weighted).unwrap();
        pool.debit(weighted);
        pool.record_once("key", weighted).unwrap();
        pool.lease(weighted).record(weighted).unwrap();
        pool.set_used(weighted).unwrap();
        let hold = pool.reserve(tokens(3)).unwrap();
        hold.record(weighted).unwrap();
        hold.debit(weighted);
        hold.commit(weighted);
        let slots = pool.snapshot().in_flight;
        assert_eq!((slots.used, slots.reserved, slots.spent), (0, 0, 0));
    }

    #[test]
    fn a_split_asks_for_a_slot_or_moves_those_it_names() {
        let pool = BudgetPool::builder().in_flight(3).build();
        let hold = pool.reserve(tokens(10).in_flight(2)).unwrap();
        let half = hold.split(tokens(4)).unwrap();
        assert_eq!((half.amount(), pool.snapshot().in_flight.reserved), (tokens(4), 3));
        assert!(hold.split(tokens(1)).is_err(), "all slots are taken");
        let moved = hold.split(tokens(1).in_flight(1)).unwrap();
        assert_eq!((hold.amount(), moved.amount()), (tokens(5), tokens(1)));
        let inner = hold.split(tokens(1).in_flight(0)).unwrap();
        assert_eq!(inner.amount(), tokens(1).in_flight(0));
        assert_eq!(
            hold.split(Amount::new().in_flight(2)).unwrap_err().axis(),
            Some(Axis::InFlight)
        );
        assert_eq!(pool.snapshot().in_flight.reserved, 3);
        check_invariants(&pool);
    }

    #[test]
    fn p3_two_holds_become_one_and_nothing_is_asked() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().tokens(10).clock(clock.clone()).build();
        let ttl = Duration::from_secs(9);
        let first = pool.reserve(tokens(4)).unwrap().label("first").commit_on_drop();
        let second =
            pool.reserve(Ask::new(tokens(6).requests(1)).ttl(ttl)).unwrap().label("second");
        first.debit(tokens(1));
        second.debit(tokens(2));
        let before = pool.snapshot();
        first.merge(second).unwrap();
        let after = pool.snapshot();
        assert_eq!((before.reservations, after.reservations), (2, 1));
        assert_eq!([after.committed, after.released, after.expired], [0; 3]);
        assert_eq!(books(before.tokens), books(after.tokens));
        assert_eq!(first.amount(), tokens(7).requests(1).in_flight(2));
        clock.advance(ttl);
        assert!(!first.is_expired(), "the time of the other went with it");
        assert_eq!(pool.holders()[0].label.as_deref(), Some("first"));
        // What both metered counts in the total.
        let receipt = first.commit(tokens(1));
        assert_eq!((receipt.credited(), token_books(&pool)), (tokens(2), [1, 0, 0, 1]));
        assert_eq!(pool.snapshot().in_flight.reserved, 0);
        check_invariants(&pool);
    }

    #[test]
    fn p2_what_one_of_two_would_book_by_a_drop_is_booked_after_they_merged() {
        let pool = BudgetPool::unlimited();
        for committing in 0..2 {
            let [first, second] = [0, 1].map(|place| {
                let hold = pool.reserve(Ask::new(tokens(5)).ttl(Duration::from_secs(60))).unwrap();
                if place == committing { hold.commit_on_drop() } else { hold }
            });
            first.merge(second).unwrap();
            check_invariants(&pool);
        }
        assert_eq!(token_books(&pool), [20, 0, 0, 20]);
    }

    #[test]
    fn a_merge_that_cannot_be_gives_the_other_back() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().clock(clock.clone()).name("one").build();
        let other = pool.child().name("other").build();
        let hold = pool.reserve(tokens(1)).unwrap();
        let refused = hold.merge(other.reserve(tokens(2)).unwrap()).unwrap_err();
        assert!(
            matches!(refused.error(), BudgetError::ForeignPool { pool, .. } if pool == "other")
        );
        assert_eq!(refused.into_reservation().amount(), tokens(2));
        for is_first in [false, true] {
            let brief = pool.reserve(Ask::new(tokens(3)).ttl(Duration::from_secs(1))).unwrap();
            let long = pool.reserve(tokens(4)).unwrap();
            clock.advance(Duration::from_secs(1));
            let (first, second) = if is_first { (brief, long) } else { (long, brief) };
            let refused = first.merge(second).unwrap_err();
            assert!(matches!(refused.error(), BudgetError::Expired { .. }), "{refused:?}");
            assert_eq!(first.is_expired(), is_first);
            assert_eq!(refused.into_reservation().is_expired(), !is_first);
        }
        check_invariants(&pool);
    }

    #[test]
    fn own_axes_are_capped_named_and_counted_as_any_other() {
        let root = BudgetPool::builder().name("run").axis(BYTES).cap(TOOL_CALLS, 3).build();
        let tool = root.child().name("search").cap(Axis::custom(0, "other label"), 2).build();
        tool.record(Amount::of(TOOL_CALLS, 2).with(BYTES, 700)).unwrap();
        let refused = tool.record(Amount::of(TOOL_CALLS, 1)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "tool calls of `search` exceeded: 1 requested, 0 available, cap 2, will never fit"
        );
        assert_eq!(refused.axis(), Some(TOOL_CALLS));
        assert!(root.reserve(Amount::of(TOOL_CALLS, 2)).is_err());
        let hold = root.reserve(Amount::of(TOOL_CALLS, 1).with(BYTES, 9)).unwrap().label("agent");
        assert_eq!(root.holders()[0].amount.to_string(), "1 tool calls, 9 bytes");
        assert_eq!(hold.amount().to_string(), "1 tool calls, 9 bytes");
        let calls = root.snapshot().axis(TOOL_CALLS).unwrap();
        assert_eq!((calls.used.units(), calls.reserved.to_string()), (2, "1 tool calls".into()));
        let text = root.snapshot().to_string();
        assert!(text.contains("tool calls") && text.contains("bytes"), "{text}");
        assert!(!text.contains("custom"), "{text}");
        let unknown = BudgetPool::unlimited();
        unknown.record(Amount::of(BYTES, 1)).unwrap();
        assert!(unknown.snapshot().to_string().contains("custom 3"));
    }

    #[test]
    fn a_label_of_an_axis_stays_in_its_line() {
        let axis = Axis::custom(2, "tool\ncalls\u{1b}[31m");
        let pool = BudgetPool::builder().cap(axis, 0).build();
        let refused = pool.record(Amount::of(axis, 1)).unwrap_err().to_string();
        let uncapped = pool.child().build();
        let refusals =
            [refused, uncapped.transfer(&pool, Caps::of(axis, 0)).unwrap_err().to_string()];
        for text in refusals.into_iter().chain([Amount::of(axis, 1).to_string()]) {
            assert!(!text.contains(char::is_control) && text.contains("tool\\ncalls"), "{text}");
        }
        assert_eq!(pool.snapshot().to_string().lines().count(), 3);
    }

    #[test]
    fn a_holder_has_its_own_label_and_says_since_when() {
        let clock = ManualClock::new();
        let pool =
            BudgetPool::builder().clock(clock.clone()).deadline(Duration::from_secs(99)).build();
        let second = Duration::from_secs(1);
        let holds: Vec<_> = (0..3)
            .map(|agent| {
                clock.advance(second);
                pool.reserve(Ask::new(tokens(3 - agent)).ttl(second * 10))
                    .unwrap()
                    .label(format!("agent {agent}"))
            })
            .collect();
        clock.advance(second);
        let holders = pool.holders();
        let seen: Vec<_> = holders
            .iter()
            .map(|holder| (holder.label.as_deref(), holder.expires_in.unwrap().as_secs()))
            .collect();
        assert_eq!(seen, [(Some("agent 0"), 7), (Some("agent 1"), 8), (Some("agent 2"), 9)]);
        let since: Vec<_> = holders.iter().map(|holder| holder.since.unwrap()).collect();
        assert_eq!([since[1] - since[0], since[2] - since[1]], [second; 2]);
        drop(holds);
        let untimed = BudgetPool::unlimited();
        let _hold = untimed.reserve(tokens(1)).unwrap();
        let holder = &untimed.holders()[0];
        assert_eq!((&holder.label, holder.since, holder.expires_in), (&None, None, None));
    }

    #[test]
    fn p5_a_spend_and_its_balance_are_one_instant() {
        let pool = BudgetPool::builder().requests(1_000).build();
        thread::scope(|scope| {
            let seen: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| -> Vec<u64> {
                        let one = Amount::new().requests(1);
                        let spend = || pool.record_and_snapshot(one).ok();
                        std::iter::from_fn(spend).map(|snapshot| snapshot.requests.used).collect()
                    })
                })
                .collect();
            let mut all: Vec<_> = seen.into_iter().flat_map(|seen| seen.join().unwrap()).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(1..=1_000), "each spend has a balance of its own");
        });
    }

    #[test]
    fn a_weak_handle_does_not_keep_its_pool() {
        let root = BudgetPool::builder().tokens(10).build();
        let pool = root.child().tokens(5).carved().build().unwrap();
        let weak = pool.downgrade();
        let again = weak.upgrade().unwrap();
        assert!(again.ptr_eq(&pool) && !again.ptr_eq(&root));
        assert!(weak.ptr_eq(&again.downgrade()) && !weak.ptr_eq(&root.downgrade()));
        drop(again);
        let hold = pool.reserve(tokens(1)).unwrap();
        drop(pool);
        assert!(weak.upgrade().is_some(), "the hold keeps it");
        drop(hold);
        assert!(weak.upgrade().is_none());
        assert_eq!(token_books(&root), [0, 0, 0, 0], "its share has come back");
        assert!(budget_pool::WeakPool::dangling().upgrade().is_none());
    }
}

/// What makes no sense is refused by name, and changes nothing.
mod refusals {
    use super::*;

    #[test]
    fn what_a_carved_pool_has_used_follows_from_its_share() {
        let run = BudgetPool::builder().tokens(100).build();
        let share = run.child().name("share").tokens(50).carved().build().unwrap();
        let before = run.snapshot_tree();
        let refused = share.set_used(tokens(7)).unwrap_err();
        assert!(matches!(&refused, BudgetError::Carved { pool, .. } if pool == "share"));
        assert_eq!(run.snapshot_tree(), before);
        let built = run.child().name("new").tokens(5).used(tokens(0)).carved().build();
        assert!(matches!(built, Err(BudgetError::Carved { pool, .. }) if pool == "new"));
        assert_eq!(run.snapshot_tree(), before);
        // An axis that is no part of the share is the pool's own.
        share.set_used(Amount::new().requests(7)).unwrap();
        let requests = Amount::new().requests(8);
        let built = run.child().tokens(5).used(requests).carved().build().unwrap();
        assert_eq!([&share, &built].map(|pool| pool.snapshot().requests.used), [7, 8]);
        check_invariants(&run);
    }

    #[test]
    fn a_transfer_needs_a_tree_caps_and_room() {
        let run = BudgetPool::builder().name("run").tokens(100).build();
        let [a, b] =
            ["a", "b"].map(|name| run.child().name(name).tokens(50).carved().build().unwrap());
        let free = run.child().name("free").build();
        let foreign = BudgetPool::builder().name("foreign").tokens(50).build();
        let closed = run.child().name("closed").tokens(1).build();
        closed.close();
        a.record(tokens(45)).unwrap();
        let before = run.snapshot_tree();
        let caps = Caps::new().tokens(6);
        let refused = |from: &BudgetPool, to, caps| from.transfer(to, caps).unwrap_err();
        let kinds = [
            refused(&a, &foreign, caps),
            refused(&a, &free, caps),
            refused(&free, &a, caps),
            refused(&a, &b, caps.requests(1)),
            refused(&b, &closed, caps),
            refused(&a, &b, caps),
            refused(&b, &a, Caps::new().tokens(51)),
        ]
        .map(|refusal| (refusal.kind(), refusal.pool().to_owned()));
        let expected = [
            ("foreign_pool", "foreign"),
            ("uncapped", "free"),
            ("uncapped", "free"),
            ("uncapped", "a"),
            ("closed", "closed"),
            ("exceeded", "a"),
            ("exceeded", "b"),
        ];
        assert_eq!(kinds, expected.map(|(kind, pool)| (kind, pool.to_owned())));
        assert_eq!(run.snapshot_tree(), before);
        let most = run.child().name("most").tokens(u64::MAX - 5).build();
        assert_eq!(b.transfer(&most, caps).unwrap_err().pool(), "most");
        check_invariants(&run);
    }
}
