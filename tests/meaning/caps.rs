//! Caps that move while the pool is used.

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

#[test]
fn a_cap_rises_to_the_last_number_and_not_beyond() {
    let pool = BudgetPool::builder().tokens(u64::MAX - 5).build();
    assert!(pool.raise_caps(Caps::new().tokens(6)).is_err());
    pool.raise_caps(Caps::new().tokens(5)).unwrap();
    assert_eq!(pool.snapshot().tokens.cap, Some(u64::MAX));
    let refused = pool.raise_caps(Caps::new().tokens(1)).unwrap_err();
    assert_eq!(refused.exceeded().map(|exceeded| exceeded.available().units()), Some(0));
}

#[test]
fn the_caps_of_a_closed_pool_stay_or_fall() {
    let pool = BudgetPool::builder().tokens(10).build();
    pool.close();
    pool.set_caps(Caps::new().tokens(10)).unwrap();
    let refused = pool.set_caps(Caps::new().tokens(11)).unwrap_err();
    assert!(matches!(refused, BudgetError::Closed { .. }), "{refused}");
    pool.set_caps(Caps::new().tokens(9)).unwrap();
    assert_eq!(pool.snapshot().tokens.cap, Some(9));
}
