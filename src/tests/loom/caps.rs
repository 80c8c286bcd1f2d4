//! Caps that move: a fall that waits for holds, a transfer, and the hope of waiters for more. Each
//! move is one transition: nobody finds in between what moves.

use super::waiting::{FIRST_POLL, Waiter, against_first_poll, waiting};
use super::*;
use crate::AxisSnapshot;

fn caps(tokens: u64) -> Caps {
    Caps::new().tokens(tokens)
}

fn cap(snapshot: &Snapshot) -> u64 {
    snapshot.tokens.cap.unwrap()
}

/// The cap in force, towards which it falls, and what is used, owed and reserved.
type Falling = (u64, Option<u64>, u64, u64, u64);

fn falling(pool: &BudgetPool) -> Falling {
    let AxisSnapshot { cap, falling_to, used, overage, reserved, .. } = pool.snapshot().tokens;
    (cap.unwrap(), falling_to, used, overage, reserved)
}

/// P1, P2, P5: a cap is set below what is reserved while a hold ends. It falls as far as it may,
/// and as far as it was told with the hold, in the transition that ends it. What was used under the
/// old cap is owed as long as it does not fit.
#[test]
fn set_caps_against_release() {
    let (start, set) = ((11, None, 1, 0, 9), (9, Some(5), 0, 1, 9));
    let (released, end) = ((11, None, 1, 0, 3), (5, None, 1, 0, 3));
    explore([start, set, released, end], move || {
        let pool = pool(11);
        pool.record(tokens(1)).unwrap();
        let (hold, kept) = (pool.reserve(tokens(6)).unwrap(), pool.reserve(tokens(3)).unwrap());
        let (set, (), seen) =
            both_watched(&pool, |pool| pool.set_caps(caps(5)), move |_| drop(hold), falling);

        assert_eq!((set, falling(&pool)), (Ok(()), end));
        drop(kept);
        seen
    });
}

/// P1, P4: while a cap falls nothing is free. A hold that is admitted before is in its way; one
/// that comes after is refused, until the cap has fallen.
#[test]
fn set_caps_against_reserve() {
    let (start, set) = ((10, None, 0, 0, 6), (6, Some(5), 0, 0, 6));
    let (reserved, end) = ((10, None, 0, 0, 9), (9, Some(5), 0, 0, 9));
    let outcomes = [
        ("reserved", start),
        ("reserved", reserved),
        ("reserved", end),
        ("refused", start),
        ("refused", set),
    ];
    explore(outcomes, move || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(6)).unwrap();
        let (set, asked, seen) = both_watched(
            &pool,
            |pool| pool.set_caps(caps(5)),
            |pool| pool.reserve(tokens(3)),
            falling,
        );

        assert_eq!(set, Ok(()));
        drop(hold);
        let outcome = match asked {
            Ok(hold) => {
                assert_eq!(falling(&pool), (5, None, 0, 0, 3));
                drop(hold);
                "reserved"
            }
            refused => {
                assert_eq!(exceeded(refused), (0, Outlook::AfterRelease));
                "refused"
            }
        };
        assert_eq!(falling(&pool), (5, None, 0, 0, 0));
        pool.record(tokens(5)).unwrap();
        (outcome, seen)
    });
}

/// P3, P5: the share of a carved pool falls with its cap, and the parent has the rest in the same
/// instant: what is reserved above is what the pool has of its cap.
#[test]
fn set_caps_of_carved_against_release() {
    let (start, set) = ((8, 8, 6), (6, 6, 6));
    let (released, end) = ((8, 8, 0), (5, 5, 0));
    explore([start, set, released, end], move || {
        let parent = pool(10);
        let share = parent.child().tokens(8).carved().build().unwrap();
        let hold = share.reserve(tokens(6)).unwrap();
        let look = |parent: &BudgetPool| {
            let tree = parent.snapshot_tree();
            (tree[0].tokens.reserved, cap(&tree[1]), tree[1].tokens.reserved)
        };
        let theirs = share.clone();
        let (set, (), seen) =
            both_watched(&parent, move |_| theirs.set_caps(caps(5)), move |_| drop(hold), look);

        assert_eq!((set, look(&parent)), (Ok(()), end));
        seen
    });
}

/// P1, P5: the cap of a carved pool is set to more, which moves there from the parent in one
/// transition, or is refused as a whole.
#[test]
fn set_caps_of_carved_against_record() {
    let (start, set, recorded) = ((0, 2, 2), (0, 8, 8), (6, 2, 2));
    let outcomes = [("set", start), ("set", set), ("record", start), ("record", recorded)];
    explore(outcomes, || {
        let parent = pool(10);
        let share = parent.child().tokens(2).carved().build().unwrap();
        let look = |parent: &BudgetPool| {
            let tree = parent.snapshot_tree();
            (tree[0].tokens.used, tree[0].tokens.reserved, cap(&tree[1]))
        };
        let theirs = share.clone();
        let (set, recorded, seen) = both_watched(
            &parent,
            move |_| theirs.set_caps(caps(8)),
            |parent| parent.record(tokens(6)),
            look,
        );

        (winner(("set", set), ("record", recorded)), seen)
    });
}

/// P1, P4: a cap is lowered by what is free at one instant: all of it, or what a record has left.
#[test]
fn lower_caps_up_to_against_record() {
    let (start, lowered, recorded, end) = ((10, 0), (4, 0), (10, 6), (6, 6));
    let outcomes = [
        (6, "refused", start),
        (6, "refused", lowered),
        (4, "admitted", start),
        (4, "admitted", recorded),
        (4, "admitted", end),
    ];
    explore(outcomes, move || {
        let pool = pool(10);
        let look = |pool: &BudgetPool| {
            let snapshot = pool.snapshot();
            (cap(&snapshot), snapshot.tokens.used)
        };
        let (less, recorded, seen) = both_watched(
            &pool,
            |pool| pool.lower_caps_up_to(caps(6)),
            |pool| pool.record(tokens(6)),
            look,
        );

        let less = less.units(Axis::Tokens).unwrap();
        let outcome = if recorded.is_ok() { "admitted" } else { "refused" };
        assert_eq!(look(&pool), if recorded.is_ok() { end } else { lowered });
        (less, outcome, seen)
    });
}

/// P6: a cap is set while a release would serve a waiter: it is granted, or told that it can never
/// be, once.
#[test]
fn set_caps_against_release_that_serves() {
    let (start, granted, end) = ((10, 6, 1), (10, 8, 0), (8, 8, 0));
    let (refused, released) = ((6, 6, 0), (5, 0, 0));
    let outcomes = [
        ("granted", start),
        ("granted", granted),
        ("granted", end),
        ("refused", start),
        ("refused", refused),
        ("refused", released),
    ];
    explore(outcomes, move || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(6)).unwrap();
        let mut waiter = Waiter::queued(&pool, 8);
        let look = |pool: &BudgetPool| {
            let snapshot = pool.snapshot();
            (cap(&snapshot), snapshot.tokens.reserved, snapshot.waiting)
        };
        let (set, (), seen) =
            both_watched(&pool, |pool| pool.set_caps(caps(5)), move |_| drop(hold), look);

        assert_eq!(set, Ok(()));
        let outcome = match waiter.outcome() {
            Ok(granted) => {
                assert_eq!(look(&pool), end);
                drop(granted);
                "granted"
            }
            refused => {
                assert_eq!(exceeded(refused), (0, Outlook::Never));
                "refused"
            }
        };
        assert_eq!(look(&pool), released);
        (outcome, seen)
    });
}

/// P6: a wait for more than the cap hopes for the ceiling. A raise that comes before it asks,
/// between its asking and its leaving a waker, or after it, grants it.
#[test]
fn first_poll_against_raise_under_ceiling() {
    explore(FIRST_POLL, || {
        let pool = capped(5).ceiling(caps(20)).build();
        let raise = |pool: &BudgetPool| pool.raise_caps(caps(5)).unwrap();
        let (seen, (), granted) = against_first_poll(&pool, 8, raise);

        assert_eq!(granted.unwrap().amount(), tokens(8));
        assert_eq!((used_and_reserved(&pool.snapshot()), cap(&pool.snapshot())), ((0, 0), 10));
        seen
    });
}

/// P6: so does a cap that is set, even beyond the ceiling.
#[test]
fn first_poll_against_set_caps_under_ceiling() {
    explore(FIRST_POLL, || {
        let pool = capped(5).ceiling(caps(20)).build();
        let set = |pool: &BudgetPool| pool.set_caps(caps(30)).unwrap();
        let (seen, (), granted) = against_first_poll(&pool, 8, set);

        assert_eq!(granted.unwrap().amount(), tokens(8));
        assert_eq!((used_and_reserved(&pool.snapshot()), cap(&pool.snapshot())), ((0, 0), 30));
        seen
    });
}

/// P6: a ceiling that is lowered leaves no hope, and that is told.
#[test]
fn first_poll_against_lowered_ceiling() {
    explore(FIRST_POLL, || {
        let pool = capped(5).ceiling(caps(20)).build();
        let lower = |pool: &BudgetPool| pool.set_ceiling(caps(7));
        let (seen, (), told) = against_first_poll(&pool, 8, lower);

        assert_eq!(exceeded(told), (5, Outlook::Never));
        seen
    });
}

/// P6: a wait in a pool without a cap, for what is held above it: a cap that it gets and that is
/// too low leaves no hope, and that is told.
#[test]
fn first_poll_against_new_cap() {
    explore(FIRST_POLL, || {
        let parent = pool(10);
        let child = parent.child().build();
        let hold = parent.reserve(tokens(6)).unwrap();
        let set = |child: &BudgetPool| child.set_caps(caps(7)).unwrap();
        let (seen, (), told) = against_first_poll(&child, 8, set);

        assert!(told.as_ref().is_err_and(|refusal| refusal.pool() == "pool"), "{told:?}");
        assert_eq!(exceeded(told), (7, Outlook::Never));
        drop(hold);
        assert_eq!(used_and_reserved(&parent.snapshot()), (0, 0));
        seen
    });
}

/// P6: nobody waits for a ceiling that is not there yet; whoever asks after it is, waits.
#[test]
fn first_poll_against_first_ceiling() {
    explore(["told", "waits"], || {
        let pool = pool(5);
        let mut waiter = Waiter::new(&pool, 8);
        let ((), first) = both(&pool, |pool| pool.set_ceiling(caps(8)), |_| waiter.poll());

        let outcome = match first {
            std::task::Poll::Ready(told) => {
                assert_eq!(exceeded(told), (5, Outlook::Never));
                "told"
            }
            std::task::Poll::Pending => {
                pool.raise_caps(caps(3)).unwrap();
                drop(waiter.outcome().unwrap());
                "waits"
            }
        };
        assert_eq!((used_and_reserved(&pool.snapshot()), waiting(&pool)), ((0, 0), 0));
        outcome
    });
}

/// P6: a thread that waits under a ceiling never sleeps for ever, whether it asks before the two
/// raises that it needs, between them, or after.
#[test]
fn blocking_against_raises_under_ceiling() {
    explore([(0, 0), (0, 1), (1, 1)], || {
        let pool = capped(5).ceiling(caps(20)).build();
        let wait = |pool: &BudgetPool| pool.reserve_blocking(tokens(8)).unwrap().amount();
        let (granted, seen) = both(&pool, wait, |pool| {
            let before = waiting(pool);
            pool.raise_caps(caps(2)).unwrap();
            let between = waiting(pool);
            pool.set_caps(caps(9)).unwrap();
            (before, between)
        });

        assert_eq!(granted, tokens(8));
        assert_eq!((used_and_reserved(&pool.snapshot()), waiting(&pool)), ((0, 0), 0));
        seen
    });
}

/// A pool and two that are carved from it.
pub(super) struct Siblings {
    pub(super) parent: BudgetPool,
    pub(super) a: BudgetPool,
    pub(super) b: BudgetPool,
}

impl Siblings {
    fn new(of_parent: u64, of_a: u64, of_b: u64) -> Siblings {
        Siblings::below(pool(of_parent), of_a, of_b)
    }

    pub(super) fn below(parent: BudgetPool, of_a: u64, of_b: u64) -> Siblings {
        let carve = |name: &str, tokens| {
            parent.child().name(name.to_owned()).tokens(tokens).carved().build().unwrap()
        };
        let (a, b) = (carve("a", of_a), carve("b", of_b));
        Siblings { parent, a, b }
    }

    /// Moves so much from `a` to `b`.
    pub(super) fn transfer(
        &self,
        units: u64,
    ) -> impl FnOnce(&BudgetPool) -> Result<(), BudgetError> + use<> {
        let (a, b) = (self.a.clone(), self.b.clone());
        move |_| a.transfer(&b, caps(units))
    }
}

/// The caps of `a` and `b`.
fn caps_of(parent: &BudgetPool) -> (u64, u64) {
    let [_, a, b] = tree_of(parent);
    (cap(&a), cap(&b))
}

/// The parent, `a` and `b` at one instant.
pub(super) fn tree_of(parent: &BudgetPool) -> [Snapshot; 3] {
    let tree = parent.snapshot_tree();
    let named = |name: &str| tree.iter().find(|pool| *pool.name == *name).unwrap().clone();
    ["run", "a", "b"].map(named)
}

/// P1, P3, P5, P6: what moves between siblings is never free in their parent: no record, no hold, no
/// waiter there finds it, and it pays no overage.
#[test]
fn transfer_against_parent() {
    let (start, moved) = ((6, 2), (2, 6));
    explore([start, moved], move || {
        let siblings = Siblings::new(10, 6, 2);
        let parent = &siblings.parent;
        parent.debit(tokens(5));
        let books = |parent: &BudgetPool| {
            let parent = parent.snapshot();
            (used_and_reserved(&parent), parent.tokens.overage)
        };
        let ask = move |parent: &BudgetPool| {
            assert_eq!(exceeded(parent.record(tokens(1))), (0, Outlook::AfterRelease));
            assert_eq!(exceeded(parent.reserve(tokens(1))), (0, Outlook::AfterRelease));
            assert_eq!(books(parent), ((2, 8), 3));
        };
        let (transferred, (), seen) = both_watched(parent, siblings.transfer(4), ask, caps_of);

        assert_eq!((transferred, caps_of(parent), books(parent)), (Ok(()), moved, ((2, 8), 3)));
        seen
    });
}

/// P6: nor is it handed to one that waits there.
#[test]
fn transfer_against_first_poll_above() {
    explore(["at the start", "moved"], || {
        let siblings = Siblings::new(10, 6, 2);
        let parent = &siblings.parent;
        let mut waiter = Waiter::new(parent, 3);
        let (transferred, (first, seen)) =
            both(parent, siblings.transfer(4), |parent| (waiter.poll(), caps_of(parent)));

        assert!(transferred.is_ok() && first.is_pending());
        assert_eq!((waiter.task.wakes(), waiting(parent)), (0, 1));
        assert_eq!(parent.snapshot().tokens.reserved, 8);
        siblings.b.close();
        assert_eq!(waiter.outcome().unwrap().amount(), tokens(3));
        if seen == (6, 2) { "at the start" } else { "moved" }
    });
}

/// P1, P4: a transfer competes with a record of the pool that gives, for what is free there.
#[test]
fn transfer_against_record_of_giver() {
    let (start, moved, recorded) = ((6, 2, 0), (2, 6, 0), (6, 2, 3));
    let outcomes =
        [("transfer", start), ("transfer", moved), ("record", start), ("record", recorded)];
    explore(outcomes, || {
        let siblings = Siblings::new(10, 6, 2);
        let look = |parent: &BudgetPool| {
            let [parent, a, b] = tree_of(parent);
            assert_eq!(parent.tokens.used + parent.tokens.reserved, 8);
            (cap(&a), cap(&b), a.tokens.used)
        };
        let giver = siblings.a.clone();
        let record = move |_: &BudgetPool| giver.record(tokens(3));
        let (transferred, recorded, seen) =
            both_watched(&siblings.parent, siblings.transfer(4), record, look);

        let winner = winner(("transfer", transferred.clone()), ("record", recorded.clone()));
        match winner {
            "transfer" => assert_eq!(exceeded(recorded), (2, Outlook::Never)),
            _ => assert_eq!(exceeded(transferred), (3, Outlook::Never)),
        }
        (winner, seen)
    });
}

/// P1, P5: two transfers at once in opposite directions, of which one needs what the other brings.
/// Both are made, or the one that comes too early is refused, and the sum is as it was.
#[test]
fn transfer_against_transfer_back() {
    let (start, moved) = ((6, 2), (2, 6));
    let outcomes = [("back", start), ("back", moved), ("too early", start), ("too early", moved)];
    explore(outcomes, move || {
        let siblings = Siblings::new(8, 6, 2);
        let (a, b) = (siblings.a.clone(), siblings.b.clone());
        let back = move |_: &BudgetPool| b.transfer(&a, caps(4));
        let (there, back, seen) =
            both_watched(&siblings.parent, siblings.transfer(4), back, caps_of);

        assert_eq!(there, Ok(()));
        let outcome = if back.is_ok() { "back" } else { "too early" };
        let end = if back.is_ok() { start } else { moved };
        assert_eq!(
            (caps_of(&siblings.parent), siblings.parent.snapshot().tokens.reserved),
            (end, 8)
        );
        (outcome, seen)
    });
}

/// P3: caps are transferred to a pool that is being closed: refused, they stay; or they go back to
/// the parent with the rest.
#[test]
fn transfer_against_close_of_receiver() {
    let (start, moved, closed, refused) = ((6, 2, 8), (2, 6, 8), (2, 0, 2), (6, 0, 6));
    let outcomes = [
        ("moved", start),
        ("moved", moved),
        ("moved", closed),
        ("refused", start),
        ("refused", refused),
    ];
    explore(outcomes, move || {
        let siblings = Siblings::new(10, 6, 2);
        let look = |parent: &BudgetPool| {
            let [parent, a, b] = tree_of(parent);
            (cap(&a), cap(&b), parent.tokens.reserved)
        };
        let receiver = siblings.b.clone();
        let close = move |_: &BudgetPool| receiver.close();
        let (transferred, (), seen) =
            both_watched(&siblings.parent, siblings.transfer(4), close, look);

        let outcome = match transferred {
            Ok(()) => "moved",
            Err(refusal) => {
                assert_eq!(refusal, BudgetError::Closed { pool: "b".into() });
                "refused"
            }
        };
        assert_eq!(look(&siblings.parent), if outcome == "moved" { closed } else { refused });
        (outcome, seen)
    });
}
