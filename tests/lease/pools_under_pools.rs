//! Leases of child pools.

use super::*;

#[test]
fn a_share_of_a_child_is_charged_to_the_whole_path() {
    let root = BudgetPool::builder().name("root").tokens(200).build();
    let child = root.child().name("child").tokens(100).build();
    let leaf = child.child().build();
    let all = || [&root, &child, &leaf].map(balance);
    let mut lease = leaf.lease(tokens(10));
    assert_eq!(all(), [[0, 0, 0]; 3]);
    lease.record(tokens(1)).unwrap();
    assert_eq!(all(), [[1, 10, 0]; 3]);
    lease.record(tokens(4)).unwrap();
    lease.record(tokens(8)).unwrap();
    assert_eq!((all(), lease.remaining()), ([[13, 10, 0]; 3], tokens(10)));
    // The least that is free on the way decides what a refill takes, and who refuses.
    root.record(tokens(143)).unwrap();
    lease.record(tokens(20)).unwrap();
    assert_eq!((all(), lease.remaining()), ([[176, 3, 0], [33, 3, 0], [33, 3, 0]], tokens(3)));
    assert_eq!(lease.record(tokens(25)).unwrap_err().pool(), "root");
    assert_eq!(lease.remaining(), tokens(3));
    assert_eq!(lease.debit(tokens(25)).overage(), tokens(1), "the greatest on the path");
    drop(lease);
    assert_eq!(all(), [[200, 0, 1], [58, 0, 0], [58, 0, 0]]);
}

#[test]
fn a_lease_of_a_carved_child_takes_from_its_share_alone() {
    let root = BudgetPool::builder().name("root").tokens(200).requests(200).build();
    let carved = root.child().name("carved").tokens(80).carved().build().unwrap();
    root.record(tokens(120)).unwrap();
    let mut lease = filled(&carved, both(9, 10));
    assert_eq!([&root, &carved].map(balance), [[121, 79, 0], [1, 9, 0]]);
    assert_eq!(root.snapshot().requests.reserved, 10, "not carved: asked above");
    lease.record(both(14, 14)).unwrap();
    // 65 are free in the share, 186 above it.
    assert_eq!(lease.remaining(), both(8, 10));
    assert_eq!([&root, &carved].map(balance), [[135, 65, 0], [15, 8, 0]]);
    assert_eq!(root.snapshot().requests.used, 14);
    lease.record(tokens(3)).unwrap();
    carved.close();
    assert_eq!(
        [&root, &carved].map(balance),
        [[135, 8, 0], [15, 8, 0]],
        "what is left of the lease stays"
    );
    drop(lease);
    assert_eq!([&root, &carved].map(balance), [[138, 0, 0], [18, 0, 0]]);
    assert_eq!(root.snapshot().tokens.available, Some(62));
}

#[test]
fn a_close_above_reaches_a_lease_below() {
    let root = BudgetPool::builder().name("root").tokens(200).build();
    let child = root.child().build();
    let (mut lease, mut new) = (filled(&child, tokens(10)), child.lease(tokens(10)));
    root.close();
    lease.record(tokens(10)).unwrap();
    for lease in [&mut lease, &mut new, &mut child.lease(tokens(10))] {
        let refused = lease.record(tokens(1)).unwrap_err();
        assert!(matches!(refused, BudgetError::Closed { pool, .. } if pool == "root"));
    }
}
