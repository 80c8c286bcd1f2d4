//! What a member and a wallet say to each other.
//!
//! A member tells totals and never differences: what it has spent and returned since it joined, and
//! how much of its grants it has seen. The wallet keeps the maxima, so a request that comes twice,
//! late or in another order has no effect a second time.
//!
//! `script.lua` is the wallet inside Redis, and `rules.rs` the same function without a store: the
//! tests run both side by side.

/// The greatest cap and the greatest total: the script counts in doubles, exact up to here.
pub(crate) const MOST: u64 = (1 << 53) - 1;

/// What becomes of the grant of a member that was not heard of for its TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lost {
    /// It stays charged until the member comes back or an operator
    /// [resolves](crate::Admin::resolve) it. The cap of the fleet then needs no clock.
    #[default]
    Charge,
    /// What the member has not told as spent is free again. The fleet may then go over its cap by
    /// the spend that the lost members had not told, which is at most what they were granted.
    Return,
}

/// One axis of a wallet.
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

/// One axis of a member: totals since it joined.
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

/// One axis of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Told {
    pub(crate) spent: u64,
    pub(crate) returned: u64,
    pub(crate) seen: u64,
    /// How much more is wanted than was seen, the floor included.
    pub(crate) want: u64,
    /// How much of that is needed, all axes together or nothing.
    pub(crate) floor: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Exchange,
    /// The member leaves: what it has not spent is free.
    Farewell,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) op: Op,
    pub(crate) member: String,
    pub(crate) ttl: u64,
    /// How long the member stands short if its floor does not fit.
    pub(crate) claim: u64,
    /// The run id of the server that the connection leads to.
    pub(crate) run: String,
    pub(crate) told: Vec<Told>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Granted,
    /// The floor does not fit on this axis; nothing was granted on any.
    Short(usize),
    /// The store may have lost data, and grants nothing until its members have told what they hold.
    Learning,
    /// The record was closed: what the member spent is booked, and it joins anew.
    Gone,
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Answer {
    pub(crate) state: State,
    pub(crate) now: u64,
    /// When the period ends; 0 without a window.
    pub(crate) period_end: u64,
    /// Until when nothing is granted, if that has not passed.
    pub(crate) learn_until: u64,
    /// How many members are live, this one included.
    pub(crate) members: u64,
    /// How many others stand short.
    pub(crate) claims: u64,
    pub(crate) books: Vec<Book>,
    pub(crate) totals: Vec<Totals>,
}
