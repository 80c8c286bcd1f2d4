//! Carved pools: shares that nobody else can touch.

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
    assert_eq!(share.snapshot().tokens.available, Some(10), "of the share, whatever is free above");
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
    assert_eq!(share.record(Amount::new().requests(1)).unwrap_err().axis(), Some(Axis::Requests));
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

/// The pool below has room for it, and one above has none.
#[test]
fn what_a_pool_above_refuses_is_counted_below_as_refused_alone() {
    let root = BudgetPool::builder().tokens(100).requests(1).build();
    let share = root.child().tokens(50).carved().build().unwrap();
    root.record(Amount::new().requests(1)).unwrap();
    for below in [root.child().build(), share.child().build(), share] {
        let _held = below.reserve(tokens(1)).unwrap();
        let before = below.snapshot();
        assert!(below.reserve(tokens(5).requests(1)).is_err());
        assert!(below.record(tokens(5).requests(1)).is_err());
        let after = below.snapshot();
        assert_eq!((after.admitted, after.reservations), (before.admitted, before.reservations));
        assert_eq!((after.refused, after.tokens), (before.refused + 2, before.tokens));
    }
}
