//! What each call costs, by one thread and by several at once.

use std::hint::black_box;

use budget_pool::{Amount, Usd};
use criterion::Criterion;

use contenders::{Group, PLENTY, two, two_axes};

mod contenders;

/// A chain of pools, each with caps on both axes; the lowest is called.
fn depth(criterion: &mut Criterion) {
    let mut group = Group::alone(criterion, "depth");
    for depth in [1, 2, 4] {
        let mut chain = vec![two_axes()];
        for above in 0..depth - 1 {
            chain.push(chain[above].child().tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).build());
        }
        let pool = &chain[depth - 1];
        group.measure(&format!("record, {depth} deep"), || pool.record(two()).is_ok());
        group.measure(&format!("reserve + commit, {depth} deep"), || {
            let Ok(hold) = pool.reserve(two()) else { return false };
            hold.commit(
                Amount::new().tokens(black_box(900)).usd(Usd::from_nanos(black_box(2_700_000))),
            );
            true
        });
    }
}

/// What tells, what only asks, and what has its argument ready.
fn others(criterion: &mut Criterion) {
    let mut group = Group::alone(criterion, "others");
    let pool = two_axes();
    let amount = two();
    group.measure("record, amount ready", || pool.record(*black_box(&amount)).is_ok());
    group.measure("reserve + commit_all", || {
        pool.reserve(two()).is_ok_and(|hold| !hold.commit_all().is_late())
    });
    group.measure("debit", || !pool.debit(two()).is_late());
    group.measure("check", || pool.check(two()).is_ok());
}

fn main() {
    let mut criterion = contenders::criterion();
    contenders::record(Group::by_threads(&mut criterion, "record"));
    contenders::refused(Group::by_threads(&mut criterion, "refused"));
    contenders::reserve(Group::by_threads(&mut criterion, "reserve"));
    contenders::snapshot(Group::by_threads(&mut criterion, "snapshot"));
    contenders::child(Group::by_threads(&mut criterion, "child"));
    contenders::grant(Group::by_threads(&mut criterion, "grant"));
    depth(&mut criterion);
    others(&mut criterion);
    criterion.final_summary();
}
