//! The bound of the units that leases keep from others.

use proptest::prelude::*;

use super::*;

fn pairs() -> impl Strategy<Value = [u64; 2]> {
    [0..=30_u64, 0..=12]
}

proptest! {
    /// After each call, on each axis: what the leases have left, what is free and what was spent are the cap. After
    /// each refusal: of what was asked, the own share is counted, and what is missing is more than what is free.
    /// After each refill: a share has its batch, or what was left of it and an eighth of what was free.
    #[test]
    fn what_is_missing_at_a_refusal_is_in_other_shares_and_what_a_refill_takes_is_bounded(
        caps in [0..=400_u64, 0..=150],
        batches in prop::collection::vec(pairs(), 1..6),
        calls in prop::collection::vec((any::<prop::sample::Index>(), pairs()), 1..120),
    ) {
        let pool = BudgetPool::builder().tokens(caps[0]).requests(caps[1]).build();
        let mut leases: Vec<(Lease, [u64; 2])> = Vec::new();
        for batch in batches {
            leases.push((pool.lease(amount(batch)), batch));
        }
        let mut spent = [0; 2];
        let free = || {
            let snapshot = pool.snapshot();
            [snapshot.tokens.available.unwrap(), snapshot.requests.available.unwrap()]
        };
        for (pick, asked) in calls {
            let at = pick.index(leases.len());
            let (lease, batch) = &mut leases[at];
            let (before, free_before) = (units(lease.remaining()), free());
            let outcome = lease.record(amount(asked));
            let after = units(lease.remaining());
            match outcome {
                Ok(()) => {
                    spent = [spent[0] + asked[0], spent[1] + asked[1]];
                    let is_refill = asked[0] > before[0] || asked[1] > before[1];
                    for axis in 0..2 {
                        let left = before[axis].saturating_sub(asked[axis]);
                        let missing = asked[axis].saturating_sub(before[axis]);
                        let eighth = (free_before[axis] - missing) / 8;
                        let refilled = if is_refill { eighth.min(batch[axis] - left) } else { 0 };
                        prop_assert_eq!(after[axis], left + refilled);
                        prop_assert_eq!(free()[axis], free_before[axis] - missing - refilled);
                    }
                }
                Err(BudgetError::Exceeded(refusal)) => {
                    prop_assert_eq!(after, before);
                    let axis = PAIR.iter().position(|&axis| axis == refusal.axis()).unwrap();
                    prop_assert_eq!(refusal.requested().units(), asked[axis] - before[axis]);
                    prop_assert_eq!(refusal.available().units(), free()[axis]);
                    prop_assert!(asked[axis] - before[axis] > free()[axis]);
                    let others = leases.iter().enumerate().filter(|(other, _)| *other != at);
                    let stranded: u64 = others.map(|(_, (lease, _))| units(lease.remaining())[axis]).sum();
                    prop_assert_eq!(caps[axis] - spent[axis], before[axis] + free()[axis] + stranded);
                }
                Err(other) => panic!("{other}"),
            }
            for axis in 0..2 {
                let left: u64 = leases.iter().map(|(lease, _)| units(lease.remaining())[axis]).sum();
                prop_assert_eq!(spent[axis] + left + free()[axis], caps[axis]);
            }
        }
        drop(leases);
        let rest = [caps[0] - spent[0], caps[1] - spent[1]];
        prop_assert_eq!(free(), rest);
        pool.record(amount(rest)).unwrap();
    }
}
