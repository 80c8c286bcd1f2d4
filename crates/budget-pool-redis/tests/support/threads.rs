//! A process of threads that dies, and the one that comes after it.

use std::path::PathBuf;

use budget_pool::{Amount, Axis};
use budget_pool_redis::{FleetBuilder, FleetError, blocking};

/// Spends 750 of `axis` in the wallet that `join` joins, in two processes: the journal of the first,
/// which dies, settles 350 of them when the second one joins on the same terms.
pub fn spend_750(
    terms: FleetBuilder,
    journal: PathBuf,
    axis: Axis,
    join: impl Fn(FleetBuilder) -> Result<blocking::Fleet, FleetError>,
) {
    let terms = terms.member("threads").journal(journal);
    let units = |units| Amount::of(axis, units);
    let first = join(terms.clone()).unwrap();
    let member = first.status().member;
    assert!(member.starts_with("threads-"), "{member}");
    first.record(units(300)).unwrap();
    // Its drop would tell the journal that nobody holds it any more.
    std::mem::forget(first.reserve(units(50)).unwrap());
    drop(first);

    let second = join(terms).unwrap();
    let settled = second.settled().expect("the journal has the spend of the first");
    assert_eq!((settled.member.as_str(), settled.spent), (member.as_str(), units(350)));
    second.record(units(400)).unwrap();
    second.leave().unwrap();
}
