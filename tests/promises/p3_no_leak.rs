//! P3: each reserved unit goes back or is booked, once.

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
    let holder =
        |pool: &str, label: Option<&str>, n| (pool.to_owned(), label.map(Name::from), tokens(n));
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
        [Axis::Tokens, Axis::InputTokens, Axis::OutputTokens].map(|axis| hold.amount().units(axis))
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
