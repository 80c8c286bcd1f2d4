//! `Keyed` where all keys have one hash.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use budget_pool::{Amount, BudgetPool, Child, Keyed, ManualClock, PoolBuilder, Window};

#[derive(Clone, PartialEq, Eq)]
struct Same(usize);

impl Hash for Same {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(0);
    }
}

/// The first pool is gone when the eviction finds that time decides about the second, and looks
/// again.
#[test]
fn each_pool_that_goes_is_counted_once_though_the_clock_is_read_in_between() {
    let (clock, minute) = (ManualClock::new(), Duration::from_secs(60));
    let tenants = Keyed::new(BudgetPool::builder().clock(clock.clone()).build());
    for (key, requests) in [0, 1, 0, 1].into_iter().enumerate() {
        let build = |pool: PoolBuilder<Child>| pool.requests(1).window(Window::fixed(minute));
        let pool = tenants.get_or_build(&Same(key), build);
        pool.record(Amount::new().requests(requests)).unwrap();
    }
    assert_eq!((tenants.evict_idle(), tenants.len()), (2, 2));
    clock.advance(minute);
    assert_eq!((tenants.evict_idle(), tenants.len()), (2, 0));
}
