//! Which random runs are made: the same each time, unless the environment says otherwise.

use std::ops::Range;

/// So many, from the first; `BUDGET_POOL_RUNS` from `BUDGET_POOL_SEED`, if they are set.
pub fn seeds(many: u64) -> Range<u64> {
    let set = |name, default| match std::env::var(name) {
        Ok(number) => number.parse().unwrap_or_else(|_| panic!("{name} is a number, not {number}")),
        Err(_) => default,
    };
    let first = set("BUDGET_POOL_SEED", 1);
    let seeds = first..first + set("BUDGET_POOL_RUNS", many);
    assert!(!seeds.is_empty(), "nothing would be tried");
    seeds
}
