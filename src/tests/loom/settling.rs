//! Corrections: what was booked too high is taken back, and what was told once is booked once. Each
//! is one transition, on the whole way up, whoever asks, waits or looks meanwhile.

use super::waiting::{FIRST_POLL, against_first_poll};
use super::*;

/// What a pool has used, has reserved, and has ever spent.
fn books(pool: &BudgetPool) -> (u64, u64, u64) {
    let snapshot = pool.snapshot();
    let (used, reserved) = used_and_reserved(&snapshot);
    (used, reserved, snapshot.tokens.spent)
}

/// What a parent has used and reserved, and its one child has used, at one instant.
fn used_in_tree(parent: &BudgetPool) -> ((u64, u64), u64) {
    let tree = parent.snapshot_tree();
    ((tree[0].tokens.used, tree[0].tokens.reserved), tree[1].tokens.used)
}

/// P2, P4, P5: a commit to less than was metered lets go of what is held and takes back what was
/// metered too much, in one instant. A hold that fits only then is admitted after it, and refused
/// before it.
#[test]
fn downward_commit_against_reserve() {
    let (start, corrected, end) = ((8, 1, 8), (3, 0, 3), (3, 6, 3));
    let outcomes = [
        ("refused", start),
        ("refused", corrected),
        ("reserved", start),
        ("reserved", corrected),
        ("reserved", end),
    ];
    explore(outcomes, move || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(9)).unwrap();
        hold.record(tokens(8)).unwrap();
        let commit = move |_: &BudgetPool| hold.commit(tokens(3));
        let reserve = |pool: &BudgetPool| pool.reserve(tokens(6));
        let (receipt, reserved, seen) = both_watched(&pool, commit, reserve, books);

        assert_eq!((receipt.settled(), receipt.credited()), (tokens(0), tokens(5)));
        let outcome = match reserved {
            Ok(hold) => {
                assert_eq!(books(&pool), end);
                hold.release();
                "reserved"
            }
            refused => {
                assert_eq!(exceeded(refused), (1, Outlook::Never));
                "refused"
            }
        };
        assert_eq!(books(&pool), corrected);
        (outcome, seen)
    });
}

/// P2, P6: what such a commit lets go of and what it takes back together serve a waiter for whom
/// neither would be enough.
#[test]
fn first_poll_against_downward_commit() {
    explore(FIRST_POLL, || {
        let pool = pool(20);
        let _beside = pool.reserve(tokens(8)).unwrap();
        let hold = pool.reserve(tokens(10)).unwrap();
        hold.record(tokens(7)).unwrap();
        let commit = |_: &BudgetPool| hold.commit(tokens(1)).credited();
        let (seen, credited, granted) = against_first_poll(&pool, 11, commit);

        let granted = granted.unwrap();
        assert_eq!((credited, granted.amount()), (tokens(6), tokens(11)));
        assert_eq!(books(&pool), (1, 19, 1));
        granted.commit_all();
        seen
    });
}

/// P2, P3: what a carved pool takes back is its share again while it is open, and the parent's once
/// it is closed.
#[test]
fn downward_commit_against_close_of_carved() {
    let (start, corrected, end) = ((6, 2), (2, 6), (2, 0));
    let outcomes = [(false, start), (false, corrected), (true, start), (true, end)];
    explore(outcomes, move || {
        let parent = pool(10);
        let share = parent.child().tokens(8).carved().build().unwrap();
        let hold = share.reserve(tokens(8)).unwrap();
        hold.record(tokens(6)).unwrap();
        let commit = move |_: &BudgetPool| hold.commit(tokens(2)).credited();
        let theirs = share.clone();
        let close = move |_: &BudgetPool| theirs.close();
        let look = |parent: &BudgetPool| {
            let tree = parent.snapshot_tree();
            (tree[1].closed, (tree[0].tokens.used, tree[0].tokens.reserved))
        };
        let (credited, (), seen) = both_watched(&parent, commit, close, look);

        assert_eq!(credited, tokens(4));
        assert_eq!((look(&parent), share.snapshot().tokens.used), ((true, end), 2));
        seen
    });
}

/// P6: a credit serves a waiter that hoped for a release.
#[test]
fn first_poll_against_credit() {
    explore(FIRST_POLL, || {
        let pool = pool(10);
        pool.debit(tokens(7));
        let _hold = pool.reserve(tokens(3)).unwrap();
        pool.debit(tokens(1));
        let credit = |pool: &BudgetPool| pool.credit(tokens(3)).credited();
        let (seen, credited, granted) = against_first_poll(&pool, 2, credit);

        let granted = granted.unwrap();
        assert_eq!((credited, granted.amount()), (tokens(3), tokens(2)));
        assert_eq!(books(&pool), (5, 5, 5));
        granted.release();
        seen
    });
}

/// P6: so does a figure from elsewhere that is less than what was booked.
#[test]
fn first_poll_against_set_used_to_less() {
    explore(FIRST_POLL, || {
        let pool = pool(10);
        let _hold = pool.reserve(tokens(3)).unwrap();
        pool.record(tokens(6)).unwrap();
        let set = |pool: &BudgetPool| pool.set_used(tokens(3)).unwrap();
        let (seen, (), granted) = against_first_poll(&pool, 4, set);

        let granted = granted.unwrap();
        assert_eq!((granted.amount(), books(&pool)), (tokens(4), (3, 7, 3)));
        granted.release();
        seen
    });
}

/// P6: one that is more leaves no hope, and that is told.
#[test]
fn first_poll_against_set_used_to_more() {
    explore(FIRST_POLL, || {
        let pool = pool(10);
        let _hold = pool.reserve(tokens(3)).unwrap();
        pool.record(tokens(6)).unwrap();
        let set = |pool: &BudgetPool| pool.set_used(tokens(8)).unwrap();
        let (seen, (), told) = against_first_poll(&pool, 4, set);

        assert_eq!(exceeded(told), (0, Outlook::Never));
        assert_eq!((books(&pool), pool.snapshot().tokens.overage), ((7, 3, 8), 1));
        seen
    });
}

/// P2, P4, P5: what is credited to a carved pool is its share again, above it and in it at one
/// instant. A record there that fits only then is admitted after it; on the parent, nobody finds
/// any of it.
#[test]
fn credit_against_record_on_carved() {
    let (start, credited, end) = (((6, 4), 6), ((1, 9), 1), ((8, 2), 8));
    let outcomes = [
        ("refused", start),
        ("refused", credited),
        ("admitted", start),
        ("admitted", credited),
        ("admitted", end),
    ];
    explore(outcomes, move || {
        let parent = pool(10);
        let share = parent.child().tokens(10).carved().build().unwrap();
        share.record(tokens(6)).unwrap();
        let (crediting, recording) = (share.clone(), share.clone());
        let credit = move |_: &BudgetPool| crediting.credit(tokens(5)).credited();
        let record = move |parent: &BudgetPool| {
            let above = exceeded(parent.record(tokens(1))).0;
            (recording.record(tokens(7)), above)
        };
        let (taken_back, (recorded, above), seen) =
            both_watched(&parent, credit, record, used_in_tree);

        assert_eq!((taken_back, above), (tokens(5), 0));
        let outcome = match recorded {
            Ok(()) => "admitted",
            refused => {
                assert_eq!(exceeded(refused), (4, Outlook::Never));
                "refused"
            }
        };
        assert_eq!(used_in_tree(&parent), if outcome == "admitted" { end } else { credited });
        (outcome, seen)
    });
}

/// P2, P3: a carved pool has again no more of its share than the pools above have used. Two credits
/// that compete for that give it back once.
#[test]
fn credit_of_carved_against_credit_above() {
    let start = ((6, 2), 6);
    let (above, below, end) = (((0, 2), 6), ((1, 7), 1), ((0, 7), 1));
    let outcomes =
        [((6, 0), start), ((6, 0), above), ((1, 5), start), ((1, 5), below), ((1, 5), end)];
    explore(outcomes, move || {
        let parent = pool(10);
        let share = parent.child().tokens(8).carved().build().unwrap();
        share.record(tokens(6)).unwrap();
        let theirs = share.clone();
        let credited = |pool: &BudgetPool, units| {
            let receipt = pool.credit(tokens(units));
            receipt.credited().units(Axis::Tokens)
        };
        let (in_parent, in_share, seen) = both_watched(
            &parent,
            move |parent| credited(parent, 6),
            move |_| credited(&theirs, 5),
            used_in_tree,
        );

        assert_eq!(used_in_tree(&parent), if in_share == 0 { above } else { end });
        ((in_parent, in_share), seen)
    });
}

/// P5: the snapshot that comes with a record is of the very instant of the spend: it has its own,
/// and none that came later.
#[test]
fn record_and_snapshot_against_record_and_snapshot() {
    explore([((6, 1), (9, 2)), ((9, 2), (3, 1))], || {
        let pool = pool(10);
        let record = |tokens| {
            move |pool: &BudgetPool| {
                let snapshot = pool.record_and_snapshot(super::tokens(tokens)).unwrap();
                (snapshot.tokens.used, snapshot.admitted)
            }
        };
        both(&pool, record(6), record(3))
    });
}

/// P1, P5: nor does it have the refusal of one that came too late. Refused itself, it tells of
/// nothing.
#[test]
fn record_and_snapshot_against_record() {
    explore([("snapshot", 0), ("snapshot", 6), ("record", 0), ("record", 5)], || {
        let pool = pool(10);
        let snapshot = |pool: &BudgetPool| {
            let snapshot = pool.record_and_snapshot(tokens(6))?;
            Ok((snapshot.tokens.used, snapshot.admitted, snapshot.refused))
        };
        let (a, b, seen) = both_watched(
            &pool,
            snapshot,
            |pool| pool.record(tokens(5)),
            |pool| pool.snapshot().tokens.used,
        );

        assert!(a.as_ref().is_err() || a == Ok((6, 1, 0)), "{a:?}");
        (winner(("snapshot", a), ("record", b)), seen)
    });
}
