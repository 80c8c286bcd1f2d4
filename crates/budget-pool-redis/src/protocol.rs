//! The messages of a member, [`Request`], and of a wallet, [`Answer`].
//!
//! A member tells totals and never differences: `spent` and `returned` since it joined, and the
//! grants that it has `seen`. The wallet keeps the maxima, so a request that comes twice, late or
//! in another order has no effect a second time.
//!
//! `script.lua` is the wallet inside Redis, and `rules.rs` the same function without a store: the
//! tests run both side by side.

/// The greatest cap and the greatest total: the script counts in doubles, exact up to `2^53`.
pub(crate) const MOST: u64 = (1 << 53) - 1;

/// The time for which the wallet remembers a member that it closed, and the key of a [`Change`], in
/// milliseconds. The wallet takes a request that comes later for that of a member it does not know,
/// and a change for a new one.
pub(crate) const REMEMBERED: u64 = 24 * 60 * 60 * 1_000;

/// The rule for the grant of a member that the store has not heard of for its
/// [`ttl`](crate::FleetBuilder::ttl).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Lost {
    /// The grant stays charged until the member comes back or an operator
    /// [resolves](crate::Admin::resolve) it. The cap of the fleet then needs no clock.
    #[default]
    Charge,
    /// The grant is free again, but for the spend that the member has told. The fleet may then go
    /// over its cap by the spend that the lost members had not told, which is at most their grants.
    Return,
}

/// The books of a wallet on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Book {
    pub(crate) founded: u64,
    pub(crate) cap: u64,
    pub(crate) charged: u64,
    pub(crate) used: u64,
}

impl Book {
    pub(crate) fn free(&self) -> u64 {
        self.cap.saturating_sub(self.charged)
    }
}

/// The totals of a member on an axis, since it joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Totals {
    pub(crate) granted: u64,
    pub(crate) returned: u64,
    pub(crate) spent: u64,
}

impl Totals {
    pub(crate) fn held(&self) -> u64 {
        self.granted.saturating_sub(self.returned)
    }
}

/// The part of a [`Request`] on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Told {
    pub(crate) spent: u64,
    pub(crate) returned: u64,
    pub(crate) seen: u64,
    /// The units that the member wants beyond `seen`, `floor` included.
    pub(crate) want: u64,
    /// The part of `want` that the member needs: the wallet grants the floors of all axes, or
    /// nothing.
    pub(crate) floor: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Exchange,
    /// The member leaves: its unspent grant is free.
    Farewell,
    /// A farewell for a member that died, by its journal. A wallet that does not know the member
    /// refuses.
    Settle,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) op: Op,
    pub(crate) member: String,
    pub(crate) ttl: u64,
    /// The time for which the member stands short if its `floor` does not fit.
    pub(crate) claim: u64,
    /// The `run_id` of the server that the connection leads to.
    pub(crate) run: String,
    pub(crate) told: Vec<Told>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Granted,
    /// The `floor` does not fit on this axis; the wallet granted nothing on any axis.
    Short(usize),
    /// The store may have lost data, and grants nothing until its members have told their totals.
    Learning,
    /// The record was closed: the wallet has booked the spend of the member, which joins anew.
    Gone,
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Answer {
    pub(crate) state: State,
    pub(crate) now: u64,
    /// The instant at which the period ends; 0 without a window.
    pub(crate) period_end: u64,
    /// The instant until which the wallet grants nothing, if that has not passed.
    pub(crate) learn_until: u64,
    /// The number of live members, this member included.
    pub(crate) members: u64,
    /// The number of other members that stand short.
    pub(crate) claims: u64,
    pub(crate) books: Vec<Book>,
    pub(crate) totals: Vec<Totals>,
}

/// A change of the caps by an operator, which the wallet makes once for each key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    pub(crate) way: Way,
    /// On each axis of the wallet; 0 leaves a cap as it is.
    pub(crate) units: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    Raise,
    Lower,
}
