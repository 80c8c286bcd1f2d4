//! What makes no sense is refused by name, and changes nothing.

use super::*;

#[test]
fn what_a_carved_pool_has_used_follows_from_its_share() {
    let run = BudgetPool::builder().tokens(100).build();
    let share = run.child().name("share").tokens(50).carved().build().unwrap();
    let before = run.snapshot_tree();
    let refused = share.set_used(tokens(7)).unwrap_err();
    assert!(matches!(&refused, BudgetError::Carved { pool, .. } if pool == "share"));
    assert_eq!(run.snapshot_tree(), before);
    let built = run.child().name("new").tokens(5).used(tokens(0)).carved().build();
    assert!(matches!(built, Err(BudgetError::Carved { pool, .. }) if pool == "new"));
    assert_eq!(run.snapshot_tree(), before);
    // An axis that is no part of the share is the pool's own.
    share.set_used(Amount::new().requests(7)).unwrap();
    let requests = Amount::new().requests(8);
    let built = run.child().tokens(5).used(requests).carved().build().unwrap();
    assert_eq!([&share, &built].map(|pool| pool.snapshot().requests.used), [7, 8]);
    check_invariants(&run);
}

#[test]
fn a_transfer_needs_a_tree_caps_and_room() {
    let run = BudgetPool::builder().name("run").tokens(100).build();
    let [a, b] = ["a", "b"].map(|name| run.child().name(name).tokens(50).carved().build().unwrap());
    let free = run.child().name("free").build();
    let foreign = BudgetPool::builder().name("foreign").tokens(50).build();
    let closed = run.child().name("closed").tokens(1).build();
    closed.close();
    a.record(tokens(45)).unwrap();
    let before = run.snapshot_tree();
    let caps = Caps::new().tokens(6);
    let refused = |from: &BudgetPool, to, caps| from.transfer(to, caps).unwrap_err();
    let kinds = [
        refused(&a, &foreign, caps),
        refused(&a, &free, caps),
        refused(&free, &a, caps),
        refused(&a, &b, caps.requests(1)),
        refused(&b, &closed, caps),
        refused(&a, &b, caps),
        refused(&b, &a, Caps::new().tokens(51)),
    ]
    .map(|refusal| (refusal.kind(), refusal.pool().to_owned()));
    let expected = [
        ("foreign_pool", "foreign"),
        ("uncapped", "free"),
        ("uncapped", "free"),
        ("uncapped", "a"),
        ("closed", "closed"),
        ("exceeded", "a"),
        ("exceeded", "b"),
    ];
    assert_eq!(kinds, expected.map(|(kind, pool)| (kind, pool.to_owned())));
    assert_eq!(run.snapshot_tree(), before);
    let most = run.child().name("most").tokens(u64::MAX - 5).build();
    assert_eq!(b.transfer(&most, caps).unwrap_err().pool(), "most");
    check_invariants(&run);
}
