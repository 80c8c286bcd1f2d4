//! The promises P1 to P5, P7 and P8, each by name, through the public API alone.

use std::collections::BTreeSet;
use std::iter::successors;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetExceeded, BudgetPool, Caps, ManualClock, Name, Outlook,
    Snapshot, Usd,
};

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn usd(nanos: u64) -> Amount {
    Amount::new().usd(Usd::from_nanos(nanos))
}

/// Used, reserved, overage of the tokens.
fn balance(pool: &BudgetPool) -> [u64; 3] {
    let tokens = pool.snapshot().tokens;
    [tokens.used, tokens.reserved, tokens.overage]
}

fn pool_of(cap: u64) -> BudgetPool {
    BudgetPool::builder().name("run").tokens(cap).build()
}

mod p1_cap {
    use super::*;

    #[test]
    fn one_call_spends_on_all_its_axes_or_on_none() {
        let pool = BudgetPool::builder().tokens(100).usd(Usd::from_nanos(10)).build();
        for (amount, axis) in [
            (tokens(101).usd(Usd::from_nanos(1)), Axis::Tokens),
            (tokens(1).usd(Usd::from_nanos(11)), Axis::Usd),
        ] {
            let before = pool.snapshot();
            assert_eq!(pool.record(amount).unwrap_err().axis(), Some(axis));
            assert_eq!(pool.reserve(amount).unwrap_err().axis(), Some(axis));
            let after = pool.snapshot();
            assert_eq!((after.tokens, after.usd), (before.tokens, before.usd));
        }
        pool.record(tokens(100).usd(Usd::from_nanos(10))).unwrap();
    }

    #[test]
    fn one_call_spends_in_all_the_pools_it_charges_or_in_none() {
        let root = pool_of(100);
        let child = root.child().tokens(80).build();
        let leaf = child.child().tokens(1_000).build();
        root.record(tokens(30)).unwrap();
        assert!(leaf.record(tokens(71)).is_err());
        assert_eq!(
            [balance(&root), balance(&child), balance(&leaf)],
            [[30, 0, 0], [0, 0, 0], [0, 0, 0]]
        );
        leaf.record(tokens(70)).unwrap();
        assert_eq!(
            [balance(&root), balance(&child), balance(&leaf)],
            [[100, 0, 0], [70, 0, 0], [70, 0, 0]]
        );
    }

    #[test]
    fn the_cap_holds_under_real_threads() {
        let pool = BudgetPool::builder().tokens(10_000).in_flight(3).build();
        let admitted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (pool, admitted) = (pool.clone(), &admitted);
                scope.spawn(move || {
                    for step in 0..2_000 {
                        let n = (thread * 7 + step) % 11;
                        let spent = match step % 3 {
                            0 => pool.record(tokens(n)).is_ok(),
                            1 => pool.reserve(tokens(n)).map(|hold| hold.commit(tokens(n))).is_ok(),
                            _ => {
                                drop(pool.reserve(tokens(n)));
                                false
                            }
                        };
                        admitted.fetch_add(if spent { n } else { 0 }, Ordering::Relaxed);
                        let now = pool.snapshot();
                        assert!(
                            now.tokens.used + now.tokens.reserved <= 10_000
                                && now.in_flight.reserved <= 3
                        );
                    }
                });
            }
        });
        let end = pool.snapshot();
        assert_eq!(end.tokens.used, admitted.into_inner());
        assert_eq!((end.tokens.reserved, end.reservations, end.tokens.overage), (0, 0, 0));
        assert!(end.in_flight.peak <= 3);
    }

    #[test]
    fn the_check_is_exact_at_the_cap() {
        // A pool that adds first and compares after admits this one.
        let pool = pool_of(100);
        let hold = pool.reserve(tokens(60)).unwrap();
        assert!(hold.grow(tokens(u64::MAX - 20)).is_err());
        assert!(pool.record(tokens(41)).is_err());
        hold.grow(tokens(40)).unwrap();
        assert_eq!(balance(&pool), [0, 100, 0]);
    }
}

mod p2_nothing_lost {
    use super::*;

    #[test]
    fn a_commit_beyond_its_hold_takes_what_is_free_and_the_rest_is_overage() {
        let pool = pool_of(100);
        let hold = pool.reserve(tokens(50)).unwrap();
        let receipt = hold.commit(tokens(130));
        assert_eq!((receipt.settled(), receipt.overage()), (tokens(130), tokens(30)));
        assert_eq!(balance(&pool), [100, 0, 30]);
        assert_eq!(pool.snapshot().tokens.spent, 130);
    }

    #[test]
    fn freed_and_added_capacity_pays_the_overage_first() {
        let pool = pool_of(100);
        let hold = pool.reserve(tokens(60)).unwrap();
        assert_eq!(pool.debit(tokens(70)).overage(), tokens(30));
        assert_eq!(balance(&pool), [40, 60, 30]);
        hold.shrink(tokens(10)).unwrap();
        assert_eq!(balance(&pool), [50, 50, 20]);
        pool.raise_caps(Caps::new().tokens(15)).unwrap();
        assert_eq!(balance(&pool), [65, 50, 5]);
        drop(hold);
        assert_eq!(balance(&pool), [70, 0, 0]);
        assert_eq!(pool.snapshot().tokens.available, Some(45));
    }

    #[test]
    fn a_fact_is_booked_after_the_deadline_and_on_a_closed_pool() {
        let clock = ManualClock::new();
        let late =
            BudgetPool::builder().deadline(Duration::from_secs(1)).clock(clock.clone()).build();
        let closed = BudgetPool::unlimited();
        let holds =
            [&late, &closed].map(|pool| [(); 2].map(|()| pool.reserve(tokens(10)).unwrap()));
        clock.advance(Duration::from_secs(1));
        closed.close();
        for ([hold, metered], pool) in holds.into_iter().zip([&late, &closed]) {
            assert!(pool.record(tokens(0)).is_err() && metered.record(tokens(0)).is_err());
            assert!(metered.grow(tokens(0)).is_err() && metered.split(tokens(0)).is_err());
            hold.commit(tokens(20));
            metered.debit(tokens(4));
            metered.shrink(tokens(1)).unwrap();
            metered.try_commit(tokens(4 + 5)).unwrap();
            pool.debit(tokens(3));
            assert_eq!(balance(pool), [32, 0, 0]);
        }
    }

    #[test]
    fn each_pool_on_the_path_books_for_itself() {
        let parent = pool_of(100);
        let child = parent.child().tokens(50).build();
        parent.record(tokens(90)).unwrap();
        let hold = child.reserve(tokens(10)).unwrap();
        let receipt = hold.commit(tokens(30));
        assert_eq!(receipt.overage(), tokens(20), "the greatest on the path");
        assert_eq!([balance(&parent), balance(&child)], [[100, 0, 20], [30, 0, 0]]);
    }

    #[test]
    fn spent_is_the_true_spend_of_all_periods() {
        let pool = pool_of(100);
        pool.debit(tokens(130));
        let old = pool.reset();
        assert_eq!((old.tokens.used, old.tokens.overage), (100, 30));
        pool.record(tokens(5)).unwrap();
        let new = pool.snapshot().tokens;
        assert_eq!((new.used, new.overage, new.spent, new.peak), (5, 0, 135, 5));
    }

    #[test]
    fn a_commit_that_names_only_tokens_books_the_held_money() {
        let pool = BudgetPool::unlimited();
        let held = Amount::new()
            .input_tokens(1_500)
            .output_tokens(500)
            .usd(Usd::from_cents(3))
            .requests(1);
        let receipt = pool.reserve(held).unwrap().commit(tokens(1_200));
        assert_eq!(receipt.settled().units(Axis::Tokens), 1_200);
        assert_eq!(receipt.settled().units(Axis::Usd), Usd::from_cents(3).as_nanos());
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.usd.used, snapshot.requests.used), (Usd::from_cents(3), 1));
        assert_eq!((snapshot.tokens.used, snapshot.input_tokens.used), (1_200, 1_500));

        // Naming it with zero settles zero.
        pool.reserve(held).unwrap().commit(Amount::new().usd(Usd::ZERO));
        assert_eq!(pool.snapshot().usd.used, Usd::from_cents(3));
        assert_eq!(pool.snapshot().tokens.used, 3_200);
    }

    #[test]
    fn a_total_includes_what_was_metered_and_is_exact_up_or_down() {
        let pool = pool_of(100);
        let hold = pool.reserve(tokens(50)).unwrap();
        hold.record(tokens(20)).unwrap();
        hold.debit(tokens(10));
        assert_eq!(hold.amount(), tokens(20));
        assert_eq!(hold.commit(tokens(45)).settled(), tokens(15));
        assert_eq!(balance(&pool), [45, 0, 0]);

        let hold = pool.reserve(tokens(10)).unwrap();
        hold.record(tokens(10)).unwrap();
        let receipt = hold.commit(tokens(3));
        assert_eq!((receipt.settled(), receipt.credited()), (tokens(0), tokens(7)));
        assert_eq!((balance(&pool), pool.snapshot().tokens.spent), ([48, 0, 0], 48));
    }

    #[test]
    fn ten_million_tiny_charges_add_up_exactly() {
        let pool = BudgetPool::builder().usd(Usd::from_dollars(1)).build();
        for _ in 0..10_000_000 {
            pool.record(usd(100)).unwrap();
        }
        assert_eq!(pool.snapshot().usd.used, Usd::from_dollars(1));
        assert!(pool.record(usd(1)).is_err());
    }

    #[test]
    fn three_dimes_fit_exactly_under_thirty_cents() {
        let pool = BudgetPool::builder().usd("0.3".parse().unwrap()).build();
        let dime = Amount::new().usd("0.1".parse().unwrap());
        for _ in 0..3 {
            pool.record(dime).unwrap();
        }
        assert!(pool.record(usd(1)).is_err());
    }
}

mod p3_no_leak {
    use super::*;

    /// Nothing is held any more, and all of the cap can be spent.
    fn assert_whole(pool: &BudgetPool) {
        let snapshot = pool.snapshot();
        assert_eq!(
            (snapshot.tokens.reserved, snapshot.in_flight.reserved, snapshot.reservations),
            (0, 0, 0)
        );
        assert_eq!(snapshot.tokens.available, Some(100));
    }

    #[test]
    fn drop_early_return_panic_and_a_cancelled_task_give_back() {
        let pool = pool_of(100);
        drop(pool.reserve(tokens(60)).unwrap());
        assert_whole(&pool);

        let early = |pool: &BudgetPool| -> Result<(), BudgetError> {
            let _hold = pool.reserve(tokens(60))?;
            pool.record(tokens(60))?;
            unreachable!("it does not fit");
        };
        assert!(early(&pool).is_err());
        assert_whole(&pool);

        let panicking = pool.clone();
        let thread = std::thread::spawn(move || {
            let _hold = panicking.reserve(tokens(60)).unwrap();
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(thread.join().is_err());
        assert_whole(&pool);

        let holding = pool.clone();
        let mut task = Box::pin(async move {
            let _hold = holding.reserve(tokens(60)).unwrap();
            std::future::pending::<()>().await;
        });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(task.as_mut().poll(&mut context).is_pending());
        assert_eq!(balance(&pool), [0, 60, 0]);
        drop(task);
        assert_whole(&pool);
    }

    #[test]
    fn a_refused_strict_commit_gives_the_reservation_back() {
        let pool = pool_of(100);
        let hold = pool.reserve(tokens(60)).unwrap();
        let refused = hold.try_commit(tokens(101)).unwrap_err();
        assert_eq!(refused.to_string(), "strict commit refused");
        assert!(
            std::error::Error::source(&refused)
                .is_some_and(|why| why.to_string() == refused.error().to_string())
        );
        assert_eq!(
            refused.error().to_string(),
            "tokens of `run` exceeded: 41 requested, 40 available, cap 100, may fit after a release"
        );
        assert_eq!(balance(&pool), [0, 60, 0]);
        let hold = refused.into_reservation();
        assert_eq!(hold.amount(), tokens(60));
        drop(hold.try_commit(tokens(101)));
        assert_whole(&pool);
    }

    #[test]
    fn an_error_that_keeps_a_guard_settles_it_when_it_is_dropped() {
        let pool = pool_of(100);
        let refused =
            pool.reserve(tokens(60)).unwrap().commit_on_drop().try_commit(tokens(101)).unwrap_err();
        assert_eq!(balance(&pool), [0, 60, 0]);
        drop(refused);
        assert_eq!(balance(&pool), [60, 0, 0]);
    }

    #[test]
    fn a_guard_settles_on_drop_and_releases_only_aloud() {
        let pool = pool_of(100);
        let hold = pool.reserve(tokens(60)).unwrap().commit_on_drop();
        drop(hold.split(tokens(10)).unwrap());
        drop(hold);
        assert_eq!(balance(&pool), [60, 0, 0]);
        pool.reset();
        pool.reserve(tokens(60)).unwrap().commit_on_drop().release();
        assert_whole(&pool);
    }

    #[test]
    fn resizing_moves_units_and_loses_none() {
        let pool = BudgetPool::builder().tokens(100).in_flight(2).build();
        let hold = pool.reserve(tokens(60)).unwrap().label("draft");
        let half = hold.split(tokens(25)).unwrap();
        assert_eq!((hold.amount(), half.amount()), (tokens(35), tokens(25)));
        assert_eq!(half.split(tokens(1)).unwrap_err().axis(), Some(Axis::InFlight));
        half.grow(tokens(15)).unwrap();
        half.shrink(tokens(5)).unwrap();
        assert_eq!((half.amount(), balance(&pool)), (tokens(35), [0, 70, 0]));
        half.commit_all();
        assert_eq!((balance(&pool), pool.snapshot().in_flight.reserved), ([35, 35, 0], 1));
        drop(hold);
        assert_eq!(balance(&pool), [35, 0, 0]);
    }

    #[test]
    fn a_hold_survives_its_handles_and_its_childs_end() {
        let root = pool_of(100);
        let hold = {
            let child = root.child().name("gone").tokens(50).build();
            child.record(tokens(5)).unwrap();
            child.reserve(tokens(20)).unwrap()
        };
        assert_eq!(root.snapshot_tree().len(), 2);
        assert_eq!(hold.pool().name(), "gone");
        hold.commit(tokens(7));
        assert_eq!(balance(&root), [12, 0, 0]);
        assert_eq!(root.snapshot_tree().len(), 1, "the child is freed with its last hold");
    }

    #[test]
    fn a_grandchild_keeps_its_way_up() {
        let root = pool_of(100);
        let leaf = root.child().name("middle").tokens(40).build().child().name("leaf").build();
        assert_eq!(leaf.record(tokens(41)).unwrap_err().pool(), "middle");
        leaf.record(tokens(40)).unwrap();
        drop(leaf);
        assert_eq!((root.snapshot_tree().len(), balance(&root)), (1, [40, 0, 0]));
    }

    #[test]
    fn who_holds_what_is_listed_largest_first() {
        let root = pool_of(100);
        let child = root.child().name("agent").build();
        let _small = root.reserve(tokens(10)).unwrap().label("small");
        let _large = child.reserve(tokens(30)).unwrap().label("large");
        let _unnamed = root.reserve(tokens(20)).unwrap();
        let seen = |pool: &BudgetPool| -> Vec<_> {
            pool.holders()
                .into_iter()
                .map(|holder| (holder.pool.to_string(), holder.label, holder.amount))
                .collect()
        };
        let holder = |pool: &str, label: Option<&str>, n| {
            (pool.to_owned(), label.map(Name::from), tokens(n))
        };
        let large = holder("agent", Some("large"), 30);
        let (unnamed, small) = (holder("run", None, 20), holder("run", Some("small"), 10));
        assert_eq!(seen(&root), [large.clone(), unnamed, small]);
        assert_eq!(seen(&child), [large]);
    }
    #[test]
    fn of_those_who_hold_as_much_the_other_axes_tell_in_declared_order() {
        let pool = BudgetPool::unlimited();
        let held = [
            ("least", tokens(5)),
            ("money", tokens(5).usd(Usd::from_nanos(9))),
            ("requests", tokens(5).requests(1)),
            ("output", tokens(5).output_tokens(2)),
            ("input", tokens(5).input_tokens(1)),
            ("tokens", tokens(6)),
        ];
        let _holds = held.map(|(label, amount)| pool.reserve(amount).unwrap().label(label));
        let labels: Vec<_> = pool.holders().into_iter().filter_map(|holder| holder.label).collect();
        assert_eq!(labels, ["tokens", "input", "output", "requests", "money", "least"]);
    }

    #[test]
    fn a_half_keeps_the_label_and_the_guard_and_what_was_settled_stays_with_the_whole() {
        let pool = pool_of(100);
        let hold = pool.reserve(tokens(60)).unwrap().label("draft").commit_on_drop();
        hold.record(tokens(10)).unwrap();
        let half = hold.split(tokens(20)).unwrap();
        let labels: Vec<_> =
            pool.holders().into_iter().map(|holder| (holder.label, holder.amount)).collect();
        let draft = Some(Name::from("draft"));
        assert_eq!(labels, [(draft.clone(), tokens(30)), (draft, tokens(20))]);
        let settled = half.commit(tokens(20)).settled();
        assert_eq!(settled, tokens(20), "nothing of it was settled before");
        assert_eq!(hold.commit(tokens(25)).settled(), tokens(15));
        assert_eq!(balance(&pool), [45, 0, 0]);
    }

    #[test]
    fn what_is_given_back_stands_for_itself_axis_by_axis() {
        let pool = BudgetPool::unlimited();
        let hold = pool.reserve(Amount::new().input_tokens(30).output_tokens(10)).unwrap();
        hold.shrink(tokens(15)).unwrap();
        let held = |hold: &budget_pool::Reservation| {
            [Axis::Tokens, Axis::InputTokens, Axis::OutputTokens]
                .map(|axis| hold.amount().units(axis))
        };
        assert_eq!(held(&hold), [25, 30, 10]);
        let half = hold.split(Amount::new().input_tokens(5)).unwrap();
        assert_eq!((held(&half), held(&hold)), ([5, 5, 0], [20, 25, 10]));
    }

    #[test]
    fn a_pool_lives_as_long_as_anything_of_it() {
        type Keep = fn(BudgetPool) -> Box<dyn std::any::Any>;
        let keeps: [Keep; 6] = [
            |pool| Box::new(pool.clone()),
            |pool| Box::new(pool.reserve(tokens(1)).unwrap()),
            |pool| Box::new(pool.lease(tokens(1))),
            |pool| Box::new(pool.child().build()),
            |pool| Box::new(pool.reserve_wait(tokens(1))),
            |pool| Box::new(pool.closed()),
        ];
        for keep in keeps {
            let root = BudgetPool::unlimited();
            let kept = keep(root.child().build());
            assert!(root.snapshot_tree().len() >= 2);
            drop(kept);
            assert_eq!(root.snapshot_tree().len(), 1);
        }
    }
}

mod p4_no_false_refusal {
    use super::*;

    #[test]
    fn the_last_unit_of_every_axis_can_be_spent() {
        let pool = BudgetPool::builder()
            .caps(
                Caps::new()
                    .tokens(7)
                    .input_tokens(3)
                    .output_tokens(4)
                    .requests(1)
                    .usd(Usd::from_nanos(1))
                    .in_flight(1),
            )
            .build();
        let all =
            Amount::new().input_tokens(3).output_tokens(4).requests(1).usd(Usd::from_nanos(1));
        drop(pool.reserve(all).unwrap());
        pool.peek(all).unwrap();
        pool.record(all).unwrap();
        pool.record(Amount::new()).unwrap();
        pool.reserve(Amount::new().tokens(0)).unwrap().release();
    }

    #[test]
    fn a_cap_of_zero_admits_zero() {
        let pool = pool_of(0);
        pool.record(tokens(0)).unwrap();
        pool.record(usd(5)).unwrap();
        assert!(pool.record(tokens(1)).is_err());
    }
}

mod p5_one_instant {
    use super::*;

    #[test]
    fn a_snapshot_of_a_tree_is_one_state() {
        let root = BudgetPool::unlimited();
        let children: Vec<_> = (0..4).map(|_| root.child().build()).collect();
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for child in &children {
                scope.spawn(|| {
                    for n in 0..2_000 {
                        child.reserve(tokens(n)).unwrap().commit(tokens(n / 2));
                        child.record(tokens(1)).unwrap();
                    }
                    done.fetch_add(1, Ordering::Release);
                });
            }
            while done.load(Ordering::Acquire) < 4 {
                let tree = root.snapshot_tree();
                let sum = |of: fn(&Snapshot) -> u64| tree[1..].iter().map(of).sum::<u64>();
                for of in [
                    (|pool| pool.tokens.used) as fn(&Snapshot) -> u64,
                    |pool| pool.tokens.reserved,
                    |pool| pool.admitted,
                    |pool| pool.reservations,
                ] {
                    assert_eq!(of(&tree[0]), sum(of));
                }
            }
        });
    }

    #[test]
    fn a_reset_returns_the_very_state_that_it_ends() {
        let pool = pool_of(1_000_000);
        let total = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let spender = scope.spawn(|| (0..20_000).for_each(|_| pool.record(tokens(1)).unwrap()));
            while !spender.is_finished() {
                total.fetch_add(pool.reset().tokens.used, Ordering::Relaxed);
            }
        });
        assert_eq!(total.into_inner() + pool.reset().tokens.used, 20_000);
    }

    /// The pools on the way up in a large tree, by their places.
    fn way(place: usize) -> impl Iterator<Item = usize> {
        successors(Some(place), |&place| place.checked_sub(1).map(|place| place / 3))
    }

    /// So many pools: three below each, as far as they go. Some are capped, and some are shares.
    fn large_tree(many: usize) -> Vec<BudgetPool> {
        let mut pools = vec![BudgetPool::builder().name("0").tokens(10_000).build()];
        while pools.len() < many {
            let place = pools.len();
            let child = || pools[(place - 1) / 3].child().name(place.to_string());
            let share = child().tokens(1 + place as u64 % 3).carved().build();
            pools.push(match place % 5 {
                0 => share.unwrap_or_else(|_| child().build()),
                1 => child().tokens(9_000 - place as u64).build(),
                _ => child().build(),
            });
        }
        for (place, pool) in (1..).zip(&pools) {
            pool.record(Amount::new().requests(place)).unwrap();
            drop(pool.record(tokens(1)));
        }
        pools
    }

    #[test]
    fn a_snapshot_of_a_large_tree_has_each_pool_once_and_as_it_is() {
        for many in [16, 17, 256, 257, 600] {
            let pools = large_tree(many);
            for top in 0..many {
                let tree = pools[top].snapshot_tree();
                let mut places = Vec::new();
                for seen in &tree {
                    let place: usize = seen.name.parse().unwrap();
                    let parent = way(place).nth(1).filter(|_| place != top);
                    assert!(parent.is_none_or(|parent| places.contains(&parent)), "{tree}");
                    let mut own = pools[place].snapshot();
                    own.depth = way(place).position(|above| above == top).unwrap();
                    assert_eq!(*seen, own);
                    places.push(place);
                }
                places.sort_unstable();
                places.dedup();
                assert_eq!(places.len(), tree.len(), "each pool once");
                let is_below = |&place: &usize| way(place).any(|above| above == top);
                assert!((0..many).filter(is_below).eq(places), "all that are below the top");
            }
        }
    }

    #[test]
    fn a_snapshot_of_a_tree_that_grows_meanwhile_is_one_state() {
        let root = BudgetPool::unlimited();
        let added = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| {
                let mut pools: Vec<BudgetPool> = Vec::new();
                for place in 0..5_000 {
                    let parent = if place % 3 == 0 { &root } else { &pools[place / 3] };
                    let pool = parent.child().name(place.to_string()).build();
                    pools.push(pool);
                    added.fetch_add(1, Ordering::SeqCst);
                    pools[place].record(tokens(1)).unwrap();
                }
                pools
            });
            while !adding.is_finished() {
                let least = added.load(Ordering::SeqCst);
                let tree = root.snapshot_tree();
                let most = added.load(Ordering::SeqCst) + 1;
                assert!((least..=most).contains(&(tree.len() - 1)), "{least}, {most}");
                let names: BTreeSet<&str> = tree.iter().map(|pool| &*pool.name).collect();
                assert_eq!(names.len(), tree.len(), "each pool once");
                let below = tree[1..].iter().filter(|pool| pool.depth == 1);
                let used: u64 = below.map(|pool| pool.tokens.used).sum();
                assert_eq!(tree[0].tokens.used, used);
                assert!((least..=most).contains(&(tree[0].tokens.used as usize + 1)));
            }
            assert_eq!(root.snapshot_tree().len(), 1 + adding.join().unwrap().len());
        });
    }

    #[test]
    fn what_is_available_is_a_matter_of_balances_alone() {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().tokens(100).requests(9).clock(clock.clone()).build();
        let child = root.child().tokens(200).deadline(Duration::from_secs(1)).build();
        root.record(tokens(30)).unwrap();
        let available = || {
            let child = child.snapshot();
            (child.tokens.available, child.requests.available, child.usd.available)
        };
        assert_eq!(available(), (Some(70), Some(9), None));
        clock.advance(Duration::from_secs(1));
        assert!(child.record(tokens(1)).is_err());
        assert_eq!(available(), (Some(70), Some(9), None));
        child.close();
        assert_eq!(available(), (Some(70), Some(9), None));
    }
}

mod p7_clear_refusals {
    use super::*;

    #[test]
    fn the_first_refusal_is_named_from_the_called_pool_upward_and_axes_in_order() {
        let root = BudgetPool::builder().name("tenant").tokens(100).build();
        let child = root.child().name("agent").requests(1).usd(Usd::from_nanos(1)).build();
        let all = tokens(500).requests(2).usd(Usd::from_nanos(2));
        let error = child.record(all).unwrap_err();
        assert_eq!((error.axis(), error.pool()), (Some(Axis::Requests), "agent"));
        let error = child.record(tokens(500)).unwrap_err();
        assert_eq!((error.axis(), error.pool()), (Some(Axis::Tokens), "tenant"));
        let BudgetError::Exceeded(exceeded) = error else { panic!("{error}") };
        assert_eq!(exceeded.requested().units(), 500);
        assert_eq!(exceeded.available().units(), 100);
        assert_eq!(exceeded.cap().unwrap().units(), 100);
    }

    #[test]
    fn the_outlook_is_the_worst_over_all_that_refuse() {
        let root = pool_of(100);
        let child = root.child().tokens(60).build();
        let hold = child.reserve(tokens(60)).unwrap();
        assert_eq!(child.record(tokens(60)).unwrap_err().outlook(), Outlook::AfterRelease);
        root.record(tokens(40)).unwrap();
        assert_eq!(child.record(tokens(60)).unwrap_err().outlook(), Outlook::AfterRelease);
        hold.commit(tokens(1));
        drop(child.reserve(tokens(59)).unwrap());
        // The child may fit again, the parent never: it refuses second, and its outlook counts.
        let hold = child.reserve(tokens(59)).unwrap();
        root.debit(tokens(10));
        assert_eq!(child.record(tokens(55)).unwrap_err().outlook(), Outlook::Never);
        drop(hold);
    }

    #[test]
    fn the_order_is_closed_then_deadline_then_capacity() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .name("run")
            .tokens(1)
            .deadline(Duration::from_secs(1))
            .clock(clock.clone())
            .build();
        assert!(matches!(pool.record(tokens(2)), Err(BudgetError::Exceeded(_))));
        clock.advance(Duration::from_millis(1_250));
        let error = pool.record(tokens(2)).unwrap_err();
        assert_eq!(error.to_string(), "deadline of `run` exceeded: 1.25s elapsed, budget 1s");
        assert_eq!((error.axis(), error.outlook()), (Some(Axis::Deadline), Outlook::Never));
        pool.close();
        let error = pool.record(tokens(2)).unwrap_err();
        assert_eq!(error.to_string(), "`run` is closed");
        assert_eq!((error.axis(), error.outlook(), error.pool()), (None, Outlook::Never, "run"));
    }

    #[test]
    fn texts_are_one_lowercase_line_with_units() {
        let pool =
            BudgetPool::builder().name("run-17").usd(Usd::from_cents(10)).in_flight(1).build();
        let error = pool.record(Amount::new().usd(Usd::from_cents(12))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "USD of `run-17` exceeded: 0.12 requested, 0.1 available, cap 0.1, will never fit"
        );
        let _hold = pool.reserve(Amount::new()).unwrap();
        let error = pool.reserve(Amount::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "in flight of `run-17` exceeded: 1 requested, 0 available, cap 1, may fit after a release"
        );
        pool.record(tokens(1)).unwrap();
        let error = pool.record(tokens(u64::MAX)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tokens of `run-17` exceeded: 18446744073709551615 requested, 18446744073709551614 available, will never fit"
        );
        assert_eq!(error.pool(), "run-17");
    }

    fn exceeded<T: std::fmt::Debug>(answer: Result<T, BudgetError>) -> BudgetExceeded {
        match answer.unwrap_err() {
            BudgetError::Exceeded(exceeded) => exceeded,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn attempted_is_what_used_and_reserved_would_have_been() {
        let root = BudgetPool::builder().name("root").tokens(1_000).in_flight(3).build();
        let run = root.child().name("run").tokens(100).usd(Usd::from_nanos(10)).build();
        let share = root.child().name("share").tokens(50).carved().build().unwrap();
        run.record(tokens(29).usd(Usd::from_nanos(4))).unwrap();
        let hold = run.reserve(tokens(20)).unwrap();
        let strict = run.reserve(tokens(10)).unwrap();
        let last = run.reserve(Amount::new()).unwrap();
        let mut lease = run.lease(tokens(9));
        lease.record(tokens(1)).unwrap();
        assert_eq!(lease.remaining(), tokens(5), "an eighth of 40");
        // 65 of 100 are used or reserved in `run`, 115 of 1000 in `root`, all 3 are in flight.
        let refusals = [
            ("record", exceeded(run.record(tokens(36))), 36),
            ("peek", exceeded(run.peek(tokens(36))), 36),
            ("record_once", exceeded(run.record_once("job", tokens(37))), 37),
            ("money", exceeded(run.record(usd(7))), 7),
            ("reserve", exceeded(run.reserve(tokens(38))), 38),
            ("a wait", exceeded(run.reserve_blocking(tokens(101))), 101),
            ("in flight", exceeded(run.reserve(Amount::new())), 1),
            ("a new lease's record", exceeded(run.lease(tokens(9)).record(tokens(39))), 39),
            ("a lease's record", exceeded(lease.record(tokens(5 + 40))), 40),
            ("grow", exceeded(hold.grow(tokens(41))), 41),
            ("a hold's record", exceeded(hold.record(tokens(20 + 42))), 42),
            ("split", exceeded(hold.split(tokens(1))), 1),
            ("above", exceeded(root.child().build().record(tokens(886))), 886),
            ("carve", exceeded(root.child().tokens(887).carved().build()), 887),
            ("a share that grows", exceeded(share.raise_caps(Caps::new().tokens(888))), 888),
            ("lower_caps", exceeded(run.lower_caps(Caps::new().tokens(43))), 43),
        ];
        for (call, refusal, requested) in &refusals {
            let pool = if refusal.pool() == "run" { &run } else { &root };
            let balance = pool.snapshot().axis(refusal.axis()).unwrap();
            let taken = balance.used.units() + balance.reserved.units();
            assert_eq!(refusal.requested().units(), *requested, "{call}");
            assert_eq!(refusal.attempted().units(), taken + requested, "{call}: {refusal}");
            assert_eq!(refusal.attempted().axis(), refusal.axis(), "{call}");
            assert!(refusal.attempted().units() > refusal.cap().unwrap().units(), "{call}");
        }
        let refused = exceeded(strict.try_commit(tokens(10 + 44)).map_err(|refused| {
            let error = refused.error().clone();
            refused.into_reservation().release();
            error
        }));
        assert_eq!((refused.requested().units(), refused.attempted().units()), (44, 65 + 44));
        drop((hold, last, lease));
    }

    #[test]
    fn attempted_ends_at_the_last_number() {
        let pool = BudgetPool::builder().name("run").tokens(100).build();
        pool.record(tokens(30).requests(9)).unwrap();
        let hold = pool.reserve(tokens(20)).unwrap();
        let above_it = exceeded(pool.record(tokens(u64::MAX)));
        let uncapped = exceeded(pool.record(Amount::new().requests(u64::MAX - 8)));
        let beyond_all = exceeded(pool.raise_caps(Caps::new().tokens(u64::MAX)));
        assert_eq!((uncapped.cap(), uncapped.available().units()), (None, u64::MAX - 9));
        assert_eq!(beyond_all.cap().map(|cap| cap.units()), Some(u64::MAX));
        assert_eq!(beyond_all.available().units(), u64::MAX - 100);
        for refusal in [above_it, uncapped, beyond_all] {
            assert_eq!(refusal.attempted().units(), u64::MAX, "{refusal}");
        }
        // A hold is what is available of itself, and the cap: nothing of it is taken.
        for refusal in [exceeded(hold.shrink(tokens(21))), exceeded(hold.split(tokens(21)))] {
            assert_eq!(refusal.cap().map(|cap| cap.units()), Some(20));
            assert_eq!(refusal.attempted().units(), 21, "{refusal}");
        }
    }

    #[test]
    fn a_check_answers_as_record_and_changes_nothing() {
        let pool = pool_of(100);
        let before = pool.snapshot();
        pool.peek(tokens(100)).unwrap();
        assert_eq!(pool.peek(tokens(101)).unwrap_err(), pool.record(tokens(101)).unwrap_err());
        assert_eq!(pool.snapshot().refused, before.refused + 1, "the record alone was counted");
        assert_eq!(pool.snapshot().tokens, before.tokens);
    }

    #[test]
    fn closing_closes_what_is_below_and_names_the_outermost() {
        let root = BudgetPool::builder().name("root").build();
        let child = root.child().name("child").build();
        let (leaf, sibling) =
            (child.child().name("leaf").build(), root.child().name("sibling").build());
        child.close();
        assert_eq!(leaf.record(tokens(1)).unwrap_err().pool(), "child");
        assert!(child.child().build().is_closed(), "born closed");
        sibling.record(tokens(1)).unwrap();
        root.close();
        assert_eq!(leaf.record(tokens(1)).unwrap_err().pool(), "root");
        assert!(sibling.is_closed() && root.snapshot_tree().iter().all(|pool| pool.closed));
    }
    #[test]
    fn what_a_hold_or_a_lease_has_itself_counts_as_reserved_when_it_asks_for_more() {
        let pool = pool_of(100);
        let hold = pool.reserve(tokens(60)).unwrap();
        assert_eq!(hold.grow(tokens(41)).unwrap_err().outlook(), Outlook::AfterRelease);
        assert_eq!(hold.grow(tokens(100)).unwrap_err().outlook(), Outlook::AfterRelease);
        assert_eq!(hold.grow(tokens(101)).unwrap_err().outlook(), Outlook::Never);
        drop(hold);
        let mut lease = pool.lease(tokens(12));
        lease.record(tokens(1)).unwrap();
        assert_eq!((lease.remaining(), balance(&pool)), (tokens(12), [1, 12, 0]));
        // Its own share are 12: the rest is asked of the pool, which has 87 free and has spent 1.
        assert_eq!(lease.record(tokens(12 + 88)).unwrap_err().outlook(), Outlook::AfterRelease);
        assert_eq!(lease.record(tokens(12 + 99)).unwrap_err().outlook(), Outlook::AfterRelease);
        assert_eq!(lease.record(tokens(12 + 100)).unwrap_err().outlook(), Outlook::Never);
    }

    /// How many more were admitted and refused.
    fn counted(pool: &BudgetPool, call: impl FnOnce()) -> [u64; 2] {
        let counts = || {
            let snapshot = pool.snapshot();
            [snapshot.admitted, snapshot.refused]
        };
        let before = counts();
        call();
        let after = counts();
        [after[0] - before[0], after[1] - before[1]]
    }

    #[test]
    fn what_asks_for_capacity_is_counted_as_admitted_or_refused_and_nothing_else_is() {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().name("root").tokens(1_000).clock(clock.clone()).build();
        let pool = root
            .child()
            .name("run")
            .tokens(100)
            .idempotency_keys(1, Duration::from_secs(9))
            .build();
        let (hold, too_much) = (pool.reserve(tokens(10)).unwrap(), tokens(1_000));
        let expired = pool.reserve(Ask::new(tokens(1)).ttl(Duration::ZERO)).unwrap();
        let mut lease = pool.lease(tokens(10));
        let [admitted, refused, neither] = [[1, 0], [0, 1], [0, 0]];
        let first = counted(&pool, || lease.record(tokens(1)).unwrap());
        assert_eq!((first, lease.remaining()), (admitted, tokens(10)), "its share was empty");
        type Call<'a> = Box<dyn FnOnce() + 'a>;
        let calls: Vec<([u64; 2], Call<'_>)> = vec![
            (admitted, Box::new(|| pool.record(tokens(1)).unwrap())),
            (refused, Box::new(|| _ = pool.record(too_much).unwrap_err())),
            (admitted, Box::new(|| _ = pool.record_once("key", tokens(1)).unwrap())),
            (neither, Box::new(|| _ = pool.record_once("key", tokens(1)).unwrap())),
            (neither, Box::new(|| _ = pool.record_once("key", tokens(2)).unwrap_err())),
            (refused, Box::new(|| _ = pool.record_once("another", tokens(1)).unwrap_err())),
            (admitted, Box::new(|| pool.reserve(tokens(1)).unwrap().release())),
            (refused, Box::new(|| _ = pool.reserve(too_much).unwrap_err())),
            (
                admitted,
                Box::new(|| {
                    pool.reserve(Ask::new(tokens(1)).ttl(Duration::MAX)).unwrap().release()
                }),
            ),
            (admitted, Box::new(|| pool.reserve_blocking(tokens(1)).unwrap().release())),
            (refused, Box::new(|| _ = pool.reserve_blocking(too_much).unwrap_err())),
            (neither, Box::new(|| drop(pool.reserve_wait(too_much)))),
            (neither, Box::new(|| pool.peek(tokens(1)).unwrap())),
            (neither, Box::new(|| _ = pool.peek(too_much).unwrap_err())),
            (neither, Box::new(|| _ = pool.debit(tokens(1)))),
            (neither, Box::new(|| pool.raise_caps(Caps::new().tokens(1)).unwrap())),
            (neither, Box::new(|| _ = pool.raise_caps(Caps::new().tokens(u64::MAX)).unwrap_err())),
            (neither, Box::new(|| pool.lower_caps(Caps::new().tokens(1)).unwrap())),
            (neither, Box::new(|| _ = pool.lower_caps(Caps::new().tokens(500)).unwrap_err())),
            (neither, Box::new(|| drop(expired.try_commit(tokens(1)).unwrap_err()))),
            (neither, Box::new(|| drop(pool.lease(tokens(10))))),
            (refused, Box::new(|| _ = pool.lease(tokens(10)).record(too_much).unwrap_err())),
            (neither, Box::new(|| lease.record(tokens(10)).unwrap())),
            (admitted, Box::new(|| drop(pool.child().tokens(5).carved().build().unwrap()))),
            (refused, Box::new(|| _ = pool.child().tokens(500).carved().build().unwrap_err())),
            (neither, Box::new(|| drop(pool.child().tokens(500).build()))),
        ];
        for (case, (counts, call)) in calls.into_iter().enumerate() {
            assert_eq!(counted(&pool, call), counts, "{case}");
        }
        assert_eq!(
            counted(&pool, || lease.record(tokens(1)).unwrap()),
            admitted,
            "beyond the share"
        );
        assert_eq!(counted(&pool, || _ = lease.record(too_much).unwrap_err()), refused);
        assert_eq!(counted(&pool, || hold.record(tokens(1)).unwrap()), admitted);
        assert_eq!(counted(&pool, || _ = hold.record(too_much).unwrap_err()), refused);
        assert_eq!(counted(&pool, || hold.grow(tokens(1)).unwrap()), admitted);
        assert_eq!(counted(&pool, || _ = hold.grow(too_much).unwrap_err()), refused);
        assert_eq!(counted(&pool, || drop(hold.split(tokens(1)).unwrap())), admitted);
        assert_eq!(
            counted(&pool, || _ = hold.split(too_much).unwrap_err()),
            neither,
            "more than it holds"
        );
        assert_eq!(counted(&pool, || _ = hold.shrink(too_much).unwrap_err()), neither);
        assert_eq!(counted(&pool, || hold.shrink(tokens(1)).unwrap()), neither);
        let strict = pool.reserve(tokens(1)).unwrap();
        assert_eq!(counted(&pool, || drop(strict.try_commit(too_much).unwrap_err())), neither);
        assert_eq!(counted(&pool, || _ = hold.debit(tokens(1))), neither);
        assert_eq!(counted(&pool, || _ = hold.commit_all()), neither);
        let share = pool.child().tokens(5).carved().build().unwrap();
        assert_eq!(counted(&pool, || share.raise_caps(Caps::new().tokens(1)).unwrap()), admitted);
        assert_eq!(
            counted(&pool, || _ = share.raise_caps(Caps::new().tokens(500)).unwrap_err()),
            refused
        );
        assert_eq!(
            counted(&root, || pool.record(tokens(1)).unwrap()),
            admitted,
            "on those above, too"
        );
        pool.close();
        assert_eq!(counted(&root, || _ = pool.record(tokens(1)).unwrap_err()), refused);
        assert_eq!(
            counted(&root, || _ = share.raise_caps(Caps::new().tokens(1)).unwrap_err()),
            neither,
            "it is closed"
        );
        drop(lease);
    }

    #[test]
    fn every_refusal_answers_for_its_axis_scope_outlook_and_time() {
        let pool = BudgetPool::builder().name("run").in_flight(1).build();
        let _held = pool.reserve(Amount::new()).unwrap();
        let mut wait = std::pin::pin!(pool.reserve_wait(Amount::new()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        let queued = pool.reserve(Amount::new()).unwrap_err();
        assert!(matches!(&queued, BudgetError::Queued { pool, .. } if pool == "run"));
        let alone = budget_pool::DeadlineBudget::at(Instant::now()).check().unwrap_err();
        let late = BudgetError::from(alone.clone());
        assert_eq!((alone.pool(), late.pool(), late.axis()), (None, "", Some(Axis::Deadline)));
        let given = Duration::from_millis(1);
        let timeout =
            pool.reserve_blocking(Ask::new(Amount::new()).wait_at_most(given)).unwrap_err();
        assert!(matches!(&timeout, BudgetError::Timeout { pool, waited, .. }
            if pool == "run" && *waited == given));
        pool.close();
        let closed = pool.reserve(Amount::new()).unwrap_err();
        assert!(matches!(&closed, BudgetError::Closed { pool, .. } if pool == "run"));
        for (error, outlook) in [
            (queued, Outlook::AfterRelease),
            (timeout, Outlook::AfterRelease),
            (closed, Outlook::Never),
            (late, Outlook::Never),
        ] {
            assert_eq!((error.outlook(), error.retry_after()), (outlook, None), "{error}");
            assert!(error.axis().is_none() || error.pool().is_empty(), "{error}");
        }
    }

    #[test]
    fn the_deadline_of_the_outermost_is_named_where_several_end_together() {
        let clock = ManualClock::new();
        let root = BudgetPool::builder()
            .name("root")
            .deadline(Duration::from_secs(5))
            .clock(clock.clone())
            .build();
        let leaf = root
            .child()
            .name("middle")
            .deadline(Duration::from_secs(5))
            .build()
            .child()
            .name("leaf")
            .build();
        clock.advance(Duration::from_secs(5));
        assert_eq!(leaf.record(tokens(1)).unwrap_err().pool(), "root");
    }
}

mod builders {
    use super::*;

    #[test]
    fn a_setter_that_is_called_again_replaces_what_it_set() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .name("first")
            .name("second")
            .tokens(5)
            .requests(1)
            .caps(Caps::new().tokens(7).usd(Usd::from_nanos(3)))
            .usd(Usd::from_nanos(4))
            .deadline(Duration::from_secs(1))
            .deadline(Duration::from_secs(2))
            .clock(|| unreachable!("it was replaced"))
            .clock(clock.clone())
            .build();
        let caps = pool.snapshot();
        assert_eq!((pool.name(), caps.tokens.cap, caps.requests.cap), ("second", Some(7), Some(1)));
        assert_eq!(
            (caps.usd.cap, pool.time_left()),
            (Some(Usd::from_nanos(4)), Some(Duration::from_secs(2)))
        );
    }

    #[test]
    fn a_pool_without_a_name_is_called_pool_and_names_need_not_be_unique() {
        let pool = BudgetPool::builder().tokens(1).build();
        assert_eq!((pool.name(), pool.record(tokens(2)).unwrap_err().pool()), ("pool", "pool"));
        let twins = [(); 2].map(|()| pool.child().name("twin").tokens(0).build());
        assert!(twins.iter().all(|twin| twin.record(tokens(1)).unwrap_err().pool() == "twin"));
    }

    #[test]
    fn the_clock_of_a_root_is_that_of_all_below() {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().clock(clock.clone()).build();
        let leaf = root.child().build().child().deadline(Duration::from_secs(5)).build();
        clock.advance(Duration::from_secs(4));
        assert_eq!(leaf.time_left(), Some(Duration::from_secs(1)));
    }
}

mod p8_time_only_when_asked {
    use super::*;

    fn counting() -> (Arc<AtomicU64>, impl Fn() -> Instant + Send + Sync + 'static) {
        let reads = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&reads);
        (reads, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Instant::now()
        })
    }

    fn use_everything(pool: &BudgetPool) {
        pool.record(tokens(1)).unwrap();
        pool.peek(tokens(1)).unwrap();
        let hold = pool.reserve(tokens(9)).unwrap();
        hold.grow(tokens(1)).unwrap();
        hold.record(tokens(1)).unwrap();
        drop(hold.split(tokens(1)).unwrap());
    }

    #[test]
    fn without_a_deadline_the_clock_is_never_read() {
        let (reads, clock) = counting();
        let pool = BudgetPool::builder().clock(clock).tokens(1_000).build();
        let child = pool.child().tokens(100).carved().build().unwrap();
        use_everything(&pool);
        use_everything(&child);
        pool.debit(tokens(1));
        pool.raise_caps(Caps::new().tokens(1)).unwrap();
        pool.lower_caps(Caps::new().tokens(1)).unwrap();
        assert_eq!(pool.time_left(), None);
        drop((pool.snapshot_tree(), pool.holders(), pool.reset()));
        pool.close();
        assert_eq!(reads.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn with_a_deadline_each_call_that_asks_reads_it_once() {
        let (reads, clock) = counting();
        let pool = BudgetPool::builder().clock(clock).build();
        let timed = pool.child().deadline(Duration::from_secs(3_600)).build();
        assert_eq!(
            reads.swap(0, Ordering::Relaxed),
            1,
            "the child's deadline is reckoned from its build"
        );
        let below = timed.child().build();
        assert_eq!(reads.load(Ordering::Relaxed), 0);
        use_everything(&below);
        assert_eq!(reads.swap(0, Ordering::Relaxed), 6);
        use_everything(&pool);
        below.debit(tokens(1));
        below.reserve(tokens(1)).unwrap().commit(tokens(1));
        drop((below.snapshot_tree(), below.reset()));
        assert_eq!(reads.load(Ordering::Relaxed), 1, "the reserve");
    }

    #[test]
    fn time_never_runs_back() {
        let start = Instant::now();
        let offset = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&offset);
        let clock = move || start + Duration::from_secs(read.load(Ordering::Relaxed));
        let pool = BudgetPool::builder().clock(clock).deadline(Duration::from_secs(10)).build();
        offset.store(10, Ordering::Relaxed);
        assert!(pool.record(tokens(1)).is_err());
        offset.store(5, Ordering::Relaxed);
        assert!(pool.record(tokens(1)).is_err(), "late once is late for good");
    }

    #[test]
    fn the_earliest_deadline_counts_and_is_named() {
        let clock = ManualClock::new();
        let root = BudgetPool::builder()
            .name("root")
            .deadline(Duration::from_secs(10))
            .clock(clock.clone())
            .build();
        let short = root.child().name("short").deadline(Duration::from_secs(2)).build();
        let long = root.child().name("long").deadline(Duration::from_secs(60)).build();
        let hold = long.reserve(tokens(1)).unwrap();
        assert_eq!(short.time_left(), Some(Duration::from_secs(2)));
        assert_eq!(hold.time_left(), Some(Duration::from_secs(10)));
        clock.advance(Duration::from_secs(2));
        assert_eq!(short.child().build().record(tokens(1)).unwrap_err().pool(), "short");
        long.record(tokens(1)).unwrap();
        clock.advance(Duration::from_secs(9));
        let error = long.record(tokens(1)).unwrap_err();
        assert_eq!(error.to_string(), "deadline of `root` exceeded: 11s elapsed, budget 10s");
        assert_eq!(hold.time_left(), Some(Duration::ZERO));
        let BudgetError::DeadlineExceeded(late) = error else { panic!("{error}") };
        assert_eq!(
            (late.budget(), late.elapsed()),
            (Duration::from_secs(10), Duration::from_secs(11))
        );
        assert_eq!((late.needed(), late.pool()), (Duration::ZERO, Some("root")));
    }

    #[test]
    fn a_panicking_clock_leaves_the_pool_as_it_was() {
        let armed = Arc::new(AtomicU64::new(0));
        let trigger = Arc::clone(&armed);
        let clock = move || {
            if trigger.load(Ordering::Relaxed) == 1 {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            Instant::now()
        };
        let pool = BudgetPool::builder()
            .tokens(10)
            .deadline(Duration::from_secs(3_600))
            .clock(clock)
            .build();
        armed.store(1, Ordering::Relaxed);
        assert!(std::panic::catch_unwind(|| pool.record(tokens(1))).is_err());
        armed.store(0, Ordering::Relaxed);
        pool.record(tokens(10)).unwrap();
        assert_eq!(balance(&pool), [10, 0, 0]);
    }
}

mod carved {
    use super::*;

    #[test]
    fn a_share_is_reserved_above_and_moves_to_used_as_it_is_spent() {
        let root = pool_of(100);
        let middle = root.child().name("middle").build();
        let share = middle.child().name("share").tokens(40).carved().build().unwrap();
        assert_eq!(
            [balance(&root), balance(&middle), balance(&share)],
            [[0, 40, 0], [0, 40, 0], [0, 0, 0]]
        );
        assert!(root.record(tokens(61)).is_err());
        root.record(tokens(60)).unwrap();
        share.record(tokens(10)).unwrap();
        let hold = share.reserve(tokens(30)).unwrap();
        assert_eq!(
            [balance(&root), balance(&middle), balance(&share)],
            [[70, 30, 0], [10, 30, 0], [10, 30, 0]]
        );
        hold.commit(tokens(20));
        assert_eq!(
            [balance(&root), balance(&middle), balance(&share)],
            [[90, 10, 0], [30, 10, 0], [30, 0, 0]]
        );
        assert_eq!(
            share.snapshot().tokens.available,
            Some(10),
            "of the share, whatever is free above"
        );
        drop(share);
        assert_eq!([balance(&root), balance(&middle)], [[90, 0, 0], [30, 0, 0]]);
    }

    #[test]
    fn a_fact_beyond_the_share_draws_on_what_is_free_above() {
        let root = pool_of(100);
        let share = root.child().tokens(40).carved().build().unwrap();
        assert_eq!(share.debit(tokens(70)).overage(), tokens(30));
        assert_eq!([balance(&root), balance(&share)], [[70, 0, 0], [40, 0, 30]]);
        // What is added pays the overage, which the root has booked already: it asks for the rest
        // alone.
        root.record(tokens(20)).unwrap();
        share.raise_caps(Caps::new().tokens(40)).unwrap();
        assert_eq!([balance(&root), balance(&share)], [[90, 10, 0], [70, 0, 0]]);
    }

    #[test]
    fn only_the_capped_axes_are_carved() {
        let root = BudgetPool::builder().tokens(100).requests(1).build();
        let share = root.child().tokens(40).carved().build().unwrap();
        share.record(Amount::new().requests(1)).unwrap();
        assert_eq!(
            share.record(Amount::new().requests(1)).unwrap_err().axis(),
            Some(Axis::Requests)
        );
        root.record(tokens(60)).unwrap();
        share.record(tokens(40)).unwrap();
    }

    #[test]
    fn a_share_that_does_not_fit_is_refused_and_changes_nothing() {
        let root = pool_of(100);
        root.record(tokens(61)).unwrap();
        let error = root.child().tokens(40).requests(5).carved().build().unwrap_err();
        assert_eq!((error.axis(), error.pool()), (Some(Axis::Tokens), "run"));
        assert_eq!((balance(&root), root.snapshot().requests.reserved), ([61, 0, 0], 0));
        assert_eq!(root.snapshot_tree().len(), 1);
        root.close();
        assert!(matches!(root.child().carved().build(), Err(BudgetError::Closed { .. })));
    }

    #[test]
    fn a_carved_in_flight_cap_is_a_guaranteed_slot() {
        let root = BudgetPool::builder().in_flight(3).build();
        let share = root.child().in_flight(1).carved().build().unwrap();
        let _others = [root.reserve(tokens(1)).unwrap(), root.reserve(tokens(1)).unwrap()];
        assert!(root.reserve(tokens(1)).is_err());
        let hold = share.reserve(tokens(1)).unwrap();
        assert_eq!(share.reserve(tokens(1)).unwrap_err().pool(), "pool");
        assert_eq!((root.snapshot().reservations, root.snapshot().in_flight.reserved), (3, 3));
        drop(hold);
        assert_eq!((root.snapshot().reservations, root.snapshot().in_flight.reserved), (2, 3));
        drop(share);
        assert_eq!(root.snapshot().in_flight.reserved, 2);
    }

    #[test]
    fn closing_returns_what_is_neither_used_nor_held_now_and_later() {
        let root = pool_of(100);
        let share = root.child().tokens(40).carved().build().unwrap();
        let inner = share.child().tokens(15).carved().build().unwrap();
        let (hold, inner_hold) =
            (share.reserve(tokens(10)).unwrap(), inner.reserve(tokens(5)).unwrap());
        share.record(tokens(3)).unwrap();
        root.close();
        assert_eq!(
            [balance(&root), balance(&share), balance(&inner)],
            [[3, 15, 0], [3, 15, 0], [0, 5, 0]]
        );
        hold.commit(tokens(4));
        drop(inner_hold);
        assert_eq!(
            [balance(&root), balance(&share), balance(&inner)],
            [[7, 0, 0], [7, 0, 0], [0, 0, 0]]
        );
        assert_eq!(share.debit(tokens(2)).overage(), tokens(2), "a fact on a closed share");
        assert_eq!(balance(&root), [9, 0, 0]);
    }

    #[test]
    fn add_and_remove_move_budget_between_the_share_and_its_parent() {
        let root = pool_of(100);
        let share = root.child().tokens(40).carved().build().unwrap();
        share.raise_caps(Caps::new().tokens(20).requests(9)).unwrap();
        assert_eq!((balance(&root), share.snapshot().tokens.cap), ([0, 60, 0], Some(60)));
        assert_eq!(share.snapshot().requests.cap, None, "an unlimited axis stays unlimited");
        assert_eq!(share.raise_caps(Caps::new().tokens(41)).unwrap_err().pool(), "run");
        assert_eq!((balance(&root), share.snapshot().tokens.cap), ([0, 60, 0], Some(60)));
        share.lower_caps(Caps::new().tokens(50)).unwrap();
        assert_eq!((balance(&root), share.snapshot().tokens.cap), ([0, 10, 0], Some(10)));
        root.record(tokens(90)).unwrap();
    }

    #[test]
    fn a_reset_creates_no_budget() {
        let root = pool_of(100);
        let share = root.child().tokens(40).carved().build().unwrap();
        share.record(tokens(15)).unwrap();
        let hold = share.reserve(tokens(5)).unwrap();
        share.reset();
        let snapshot = share.snapshot().tokens;
        assert_eq!(
            (snapshot.cap, snapshot.used, snapshot.available, snapshot.spent),
            (Some(25), 0, Some(20), 15)
        );
        assert_eq!(balance(&root), [15, 25, 0]);
        hold.commit(tokens(5));
        drop(share);
        assert_eq!(balance(&root), [20, 0, 0]);
    }
}

#[test]
fn p5_a_transfer_out_of_a_share_whose_cap_falls_leaves_no_peak_that_never_was() {
    let root = BudgetPool::builder().tokens(50).build();
    let carved = |parent: &BudgetPool, tokens| parent.child().tokens(tokens).carved().build();
    let above = carved(&root, 16).unwrap();
    let (from, to) = (carved(&above, 9).unwrap(), carved(&root, 14).unwrap());
    above.set_caps(Caps::new().tokens(4)).unwrap();
    root.reset();
    from.transfer(&to, Caps::new().tokens(8)).unwrap();
    let tokens = root.snapshot().tokens;
    assert_eq!((tokens.reserved, tokens.peak), (4 + 22, 4 + 22));
}
