//! Joint pools: one transition changes all pools above several parents.

use super::handles::may_be_overtaken;
use super::waiting::Waiter;
use super::*;

/// A root, and two pools of ten tokens below it.
fn two() -> (BudgetPool, BudgetPool, BudgetPool) {
    let root = BudgetPool::builder().name("run").build();
    let below = |name: &str| root.child().name(name).tokens(10).build();
    let (a, b) = (below("a"), below("b"));
    (root, a, b)
}

fn joint(parents: [&BudgetPool; 2], name: &str) -> BudgetPool {
    BudgetPool::joint(parents).unwrap().name(name).build()
}

/// P6: two wait for the same two pools, each in the other's order, and each frees what the other
/// meets last. Whoever came first is served first, and the other after it.
#[test]
fn joint_wait_against_joint_wait_over_crossed_parents() {
    explore(["one", "other"], || {
        let (root, a, b) = two();
        let (one, other) = (joint([&a, &b], "one"), joint([&b, &a], "other"));
        let (of_a, of_b) = (a.reserve(tokens(10)).unwrap(), b.reserve(tokens(10)).unwrap());
        let wait = |pool: BudgetPool, held: crate::Reservation| {
            move |_: &BudgetPool| {
                let waiter = Waiter::queued(&pool, 6);
                drop(held);
                waiter
            }
        };
        let (mut one, mut other) = both(&root, wait(one, of_a), wait(other, of_b));

        let (name, first, second) = match one.task.wakes() {
            1 => ("one", &mut one, &mut other),
            _ => ("other", &mut other, &mut one),
        };
        let hold = first.outcome().unwrap();
        assert_eq!([&a, &b].map(|pool| used_and_reserved(&pool.snapshot())), [(0, 6); 2]);
        assert!(second.poll().is_pending());
        hold.release();
        second.outcome().unwrap().release();
        assert_eq!([&a, &b].map(|pool| used_and_reserved(&pool.snapshot())), [(0, 0); 2]);
        name
    });
}

/// P1, P5: a record is charged to both parents or, where one of them was closed before, to none;
/// a look sees it in both or in none.
#[test]
fn record_of_joint_against_close_of_a_parent() {
    let (start, closed) = ((false, 0, 0), (true, 0, 0));
    let (recorded, end) = ((false, 4, 4), (true, 4, 4));
    let outcomes = [
        ("admitted", start),
        ("admitted", recorded),
        ("admitted", end),
        ("refused", start),
        ("refused", closed),
    ];
    explore(outcomes, || {
        let (root, a, b) = two();
        let pool = joint([&a, &b], "joint");
        let theirs = b.clone();
        let close = move |_: &BudgetPool| theirs.close();
        let look = |root: &BudgetPool| {
            let tree = root.snapshot_tree();
            let [a, b] = ["a", "b"].map(|name| tree.iter().find(|pool| &*pool.name == name));
            let (a, b) = (a.unwrap(), b.unwrap());
            (b.closed, a.tokens.used, b.tokens.used)
        };
        let record = move |_: &BudgetPool| pool.record(tokens(4));
        let ((), outcome, seen) = both_watched(&root, close, record, look);

        let spent = if outcome.is_ok() { 4 } else { 0 };
        assert_eq!([&a, &b].map(|pool| used_and_reserved(&pool.snapshot())), [(spent, 0); 2]);
        assert!(outcome.as_ref().err().is_none_or(|refusal| refusal.pool() == "b"));
        (if outcome.is_ok() { "admitted" } else { "refused" }, seen)
    });
}

/// P3: the last handle of a joint pool goes while that of a parent does: whichever is later frees
/// the parent, and the joint pool frees the one that only it kept.
#[test]
fn last_handle_of_joint_against_last_handle_of_a_parent() {
    explore([(2, 1), (1, 4), (1, 1)], || {
        let (root, a, b) = two();
        let pool = joint([&a, &b], "joint");
        drop(b);
        let drop_joint = move |root: &BudgetPool| {
            may_be_overtaken(root);
            drop(pool);
            pools(root)
        };
        let outcome = both(&root, drop_joint, move |root| {
            may_be_overtaken(root);
            drop(a);
            pools(root)
        });

        assert_eq!(pools(&root), 1);
        outcome
    });
}
