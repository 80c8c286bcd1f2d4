//! What each call costs, by one thread and by several at once.

use std::hint::black_box;

use budget_pool::{Amount, Ask, BudgetPool, Reservation, Usd};
use criterion::Criterion;

use contenders::{Group, PLENTY, peer_context, reserve_and_commit, two, two_axes};

mod contenders;

/// A chain of pools, each with caps on both axes; the lowest is called.
fn depth(criterion: &mut Criterion) {
    let mut group = Group::alone(criterion, "depth");
    for depth in [1, 2, 4] {
        let chain = || {
            (1..depth).fold(two_axes(), |above, _| {
                above.child().tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).build()
            })
        };
        group.measure(&format!("record, {depth} deep"), || {
            let pool = chain();
            move || pool.record(two()).is_ok()
        });
        group.measure(&format!("reserve + commit, {depth} deep"), || {
            let pool = chain();
            move || reserve_and_commit(&pool)
        });
        group.measure(&format!("budget-context, reserve + commit, {depth} deep"), || {
            peer_context(depth)
        });
    }
}

/// What tells, what only asks, and what has its argument ready.
fn others(criterion: &mut Criterion) {
    let mut group = Group::alone(criterion, "others");
    group.measure("record, amount ready", || {
        let (pool, amount) = (two_axes(), two());
        move || pool.record(*black_box(&amount)).is_ok()
    });
    group.measure("reserve + commit_all", || {
        let pool = two_axes();
        move || pool.reserve(two()).is_ok_and(|hold| !hold.commit_all().is_late())
    });
    group.measure("debit", || {
        let pool = two_axes();
        move || !pool.debit(two()).is_late()
    });
    // The dear call does not fit, and the cheap one does: by two calls, and by one ask.
    group.measure("reserve, refused, then for less + commit", || {
        let pool = half();
        move || {
            let refused = pool.reserve(two());
            refused.is_err() && pool.reserve(cheap()).is_ok_and(commit_nothing)
        }
    });
    group.measure("reserve of two alternatives, the second fits + commit", || {
        let pool = half();
        move || pool.reserve(Ask::new(two()).or(cheap())).is_ok_and(commit_nothing)
    });
    group.measure("reserve of two alternatives, the first fits + commit", || {
        let pool = two_axes();
        move || pool.reserve(Ask::new(two()).or(cheap())).is_ok_and(commit_nothing)
    });
    group.measure("check", || {
        let pool = two_axes();
        move || pool.peek(two()).is_ok()
    });
}

/// Too little for [`two`], and enough for [`cheap`].
fn half() -> BudgetPool {
    BudgetPool::builder().tokens(1_000).usd(Usd::from_nanos(PLENTY)).build()
}

#[inline(always)]
fn cheap() -> Amount {
    Amount::new().tokens(black_box(600)).usd(Usd::from_nanos(black_box(360_000)))
}

/// So that the next call finds the same room.
#[inline(always)]
fn commit_nothing(hold: Reservation) -> bool {
    let nothing = Amount::new().tokens(black_box(0)).usd(Usd::from_nanos(black_box(0)));
    !hold.commit(nothing).is_late()
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
