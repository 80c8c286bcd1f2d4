//! Handles: a pool lives as long as anything that can reach it, and gives back once.

use super::*;

/// Lets the other threads go first. Loom switches threads at its own operations, and the handles of
/// a pool are counted by the standard library: without this, a thread that begins with the drop of
/// a handle is always the first to drop one.
pub(super) fn may_be_overtaken(pool: &BudgetPool) {
    _ = pool.is_closed();
}

/// P3: the last handle of a pool goes while its reservation does: whichever is later frees it, and
/// the pool above it that only it kept.
#[test]
fn last_handle_against_reservation() {
    explore([(1, 3), (3, 1), (1, 1)], || {
        let root = pool(10);
        let leaf = root.child().build().child().build();
        let hold = leaf.reserve(tokens(4)).unwrap();
        let release = move |root: &BudgetPool| {
            drop(hold);
            pools(root)
        };
        let outcome = both(&root, release, move |root| {
            may_be_overtaken(root);
            drop(leaf);
            pools(root)
        });

        assert_eq!((pools(&root), used_and_reserved(&root.snapshot())), (1, (0, 0)));
        outcome
    });
}

/// P3: the share of a carved pool comes back with the later of its last handle and its reservation.
#[test]
fn last_handle_of_carved_against_reservation() {
    let (held, committed, end) = ((0, 6), (3, 3), (3, 0));
    explore([(end, held), (end, committed), (end, end), (committed, end)], move || {
        let parent = pool(10);
        let share = parent.child().tokens(6).carved().build().unwrap();
        let hold = share.reserve(tokens(4)).unwrap();
        let commit = move |parent: &BudgetPool| {
            hold.commit(tokens(3));
            used_and_reserved(&parent.snapshot())
        };
        let outcome = both(&parent, commit, move |parent| {
            may_be_overtaken(parent);
            drop(share);
            used_and_reserved(&parent.snapshot())
        });

        assert_eq!((pools(&parent), used_and_reserved(&parent.snapshot())), (1, end));
        outcome
    });
}

/// P3: handles of a pool and of the one above it go at once: whichever is later frees what is left
/// of the way up.
#[test]
fn last_handle_against_last_handle() {
    explore([(2, 1), (1, 3), (1, 1)], || {
        let root = pool(10);
        let middle = root.child().build();
        let leaf = middle.child().build();
        let drop_leaf = move |root: &BudgetPool| {
            drop(leaf);
            pools(root)
        };
        let outcome = both(&root, drop_leaf, move |root| {
            drop(middle);
            pools(root)
        });

        assert_eq!(pools(&root), 1);
        outcome
    });
}

/// P3: whoever has only a weak handle takes the last one's place, and the pool works as before; or
/// there is no pool any more, although its share may yet be about to go back. In either case it
/// goes back once.
#[test]
fn upgrade_against_last_drop() {
    let (start, recorded, end) = ((0, 6), (2, 4), (2, 0));
    let outcomes = [
        ("upgraded", start),
        ("upgraded", recorded),
        ("upgraded", end),
        ("none", start),
        ("none", (0, 0)),
    ];
    explore(outcomes, move || {
        let parent = pool(10);
        let share = parent.child().tokens(6).carved().build().unwrap();
        let weak = share.downgrade();
        let theirs = weak.clone();
        let upgrade = move |parent: &BudgetPool| {
            may_be_overtaken(parent);
            let Some(share) = theirs.upgrade() else { return "none" };
            share.record(tokens(2)).unwrap();
            "upgraded"
        };
        let last_drop = move |parent: &BudgetPool| {
            may_be_overtaken(parent);
            drop(share);
        };
        let look = |parent: &BudgetPool| used_and_reserved(&parent.snapshot());
        let (outcome, (), seen) = both_watched(&parent, upgrade, last_drop, look);

        assert!(weak.upgrade().is_none());
        let end = if outcome == "upgraded" { end } else { (0, 0) };
        assert_eq!((pools(&parent), look(&parent)), (1, end));
        (outcome, seen)
    });
}

/// P3: a hold alone keeps its pool for a weak handle, until it has ended: who is upgraded meanwhile
/// is the last, and gives the share back.
#[test]
fn upgrade_against_last_hold() {
    let (held, committed, end) = ((0, 6), (3, 3), (3, 0));
    let outcomes = [
        ("held", held),
        ("held", committed),
        ("held", end),
        ("committed", held),
        ("committed", committed),
        ("committed", end),
        ("none", held),
        ("none", committed),
        ("none", end),
    ];
    explore(outcomes, move || {
        let parent = pool(10);
        let share = parent.child().tokens(6).carved().build().unwrap();
        let hold = share.reserve(tokens(4)).unwrap();
        let weak = share.downgrade();
        drop(share);
        let upgrade = move |parent: &BudgetPool| {
            may_be_overtaken(parent);
            match weak.upgrade().map(|share| used_and_reserved(&share.snapshot())) {
                Some((0, 4)) => "held",
                Some((3, 0)) => "committed",
                Some(other) => panic!("{other:?}"),
                None => "none",
            }
        };
        let commit = move |_: &BudgetPool| hold.commit(tokens(3));
        let look = |parent: &BudgetPool| used_and_reserved(&parent.snapshot());
        let (outcome, _, seen) = both_watched(&parent, upgrade, commit, look);

        assert_eq!((pools(&parent), look(&parent)), (1, end));
        (outcome, seen)
    });
}

/// P3: a weak handle is made of one that is dropped at once, while the other one is dropped: it
/// refers to the pool as long as there is one, and does not keep it.
#[test]
fn downgrade_against_drop() {
    explore(["alive", "gone"], || {
        let parent = pool(10);
        let share = parent.child().tokens(6).carved().build().unwrap();
        let other = share.clone();
        let downgrade = move |parent: &BudgetPool| {
            may_be_overtaken(parent);
            let weak = other.downgrade();
            drop(other);
            may_be_overtaken(parent);
            let found = weak.upgrade().map(|share| share.record(tokens(2)));
            (weak, found)
        };
        let ((weak, found), ()) = both(&parent, downgrade, move |parent| {
            may_be_overtaken(parent);
            drop(share);
        });

        assert!(weak.upgrade().is_none());
        let (outcome, spent) = match found {
            Some(recorded) => {
                recorded.unwrap();
                ("alive", 2)
            }
            None => ("gone", 0),
        };
        assert_eq!((pools(&parent), used_and_reserved(&parent.snapshot())), (1, (spent, 0)));
        outcome
    });
}
