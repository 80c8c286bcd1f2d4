//! The time of one request: how much is left, how much a call may take of it, and how it crosses a
//! process border.
//!
//! A budget is two instants and the rules that go with them. It never changes: only the clock moves
//! on.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::time::clock::SharedClock;
use crate::{Clock, DeadlineExceeded};

/// The time that one request has, from its edge to its last call.
///
/// Start it where the request comes in, hand clones down, and ask it how long each call may take.
/// It only counts: it interrupts nothing, so a call that overruns its timeout is noticed by the
/// next question. Usable without a pool.
///
/// A clone is the same budget (same start, same deadline) and copies no names. Every reading is at
/// most one clock read and takes no lock of its own; two readings are of two instants. A clock that
/// runs back before the start stands still at it.
///
/// A deadline beyond what an [`Instant`] can hold (billions of years ahead on Linux) is no
/// deadline: such a budget is [`unbounded`](DeadlineBudget::unbounded).
///
/// ```
/// use std::time::Duration;
/// use budget_pool::{Call, DeadlineBudget, ManualClock};
///
/// let clock = ManualClock::new();
/// let budget = DeadlineBudget::builder()
///     .total(Duration::from_secs(10))
///     .safety_margin(Duration::from_millis(500)) // to write the answer in
///     .call_caps([("search", Duration::from_secs(2)), ("draft", Duration::from_secs(8))])
///     .clock(clock.clone())
///     .build()?;
///
/// assert_eq!(budget.timeout_for("search")?, Duration::from_secs(2));
/// clock.advance(Duration::from_secs(4));
/// assert_eq!(budget.timeout_for("draft")?, Duration::from_millis(5_500)); // all that is left
/// assert_eq!(budget.timeout_for(Call::named("draft").reserve_for_next(Duration::from_secs(2)))?, Duration::from_millis(3_500));
///
/// clock.advance(Duration::from_secs(6));
/// assert_eq!(budget.timeout_for("draft").unwrap_err().to_string(), "deadline exceeded: 10s of 9.5s");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct DeadlineBudget {
    started: Instant,
    /// `None`: unbounded. Before `started` if it had passed by then.
    deadline: Option<Instant>,
    /// `None`: the default ones, so that a plain budget allocates nothing.
    rules: Option<Arc<Rules>>,
}

/// What clones and children share.
#[derive(Clone)]
struct Rules {
    clock: SharedClock,
    min_timeout: Duration,
    /// By name, the last one of a name counts. Some ten names: a scan, which compares lengths
    /// first, beats a map.
    call_caps: Vec<(Box<str>, Duration)>,
}

impl Rules {
    const DEFAULT: Rules = Rules {
        clock: SharedClock::SYSTEM,
        min_timeout: Duration::from_millis(100),
        call_caps: Vec::new(),
    };

    #[inline]
    fn call_cap(&self, name: &str) -> Option<Duration> {
        self.call_caps.iter().rev().find(|(known, _)| **known == *name).map(|(_, cap)| *cap)
    }
}

static DEFAULT_RULES: Rules = Rules::DEFAULT;

impl DeadlineBudget {
    /// `total` from now on.
    ///
    /// # Errors
    /// If `total` is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::DeadlineBudget;
    ///
    /// let budget = DeadlineBudget::new(Duration::from_secs(30))?;
    /// assert!(budget.remaining() <= Duration::from_secs(30));
    /// assert!(DeadlineBudget::new(Duration::ZERO).is_err());
    /// # Ok::<(), budget_pool::InvalidDeadline>(())
    /// ```
    pub fn new(total: Duration) -> Result<DeadlineBudget, InvalidDeadline> {
        nonzero(total)
            .map(|total| DeadlineBudget::starting(Instant::now(), total, SharedClock::SYSTEM))
    }

    /// Until `deadline`: its total is what is left now. A deadline that has passed is a budget that
    /// has expired, with a total of zero.
    #[must_use]
    pub fn at(deadline: Instant) -> DeadlineBudget {
        DeadlineBudget { deadline: Some(deadline), ..DeadlineBudget::unbounded() }
    }

    /// Without end: it never expires, and [`total`](DeadlineBudget::total) and
    /// [`remaining`](DeadlineBudget::remaining) are [`Duration::MAX`]. It still counts what has
    /// [`elapsed`](DeadlineBudget::elapsed).
    #[must_use]
    pub fn unbounded() -> DeadlineBudget {
        DeadlineBudget { started: Instant::now(), deadline: None, rules: None }
    }

    /// A budget with a margin, a floor, named caps or a clock of its own.
    pub fn builder() -> DeadlineBuilder {
        DeadlineBuilder { total: None, safety_margin: Duration::ZERO, rules: Rules::DEFAULT }
    }

    /// What is left; zero once late, [`Duration::MAX`] if unbounded.
    #[must_use]
    #[inline]
    pub fn remaining(&self) -> Duration {
        self.remaining_at(self.now())
    }

    /// How late it is: the time since the deadline; zero before it and if unbounded.
    #[must_use]
    #[inline]
    pub fn overrun(&self) -> Duration {
        self.deadline
            .map_or(Duration::ZERO, |deadline| self.now().saturating_duration_since(deadline))
    }

    /// The time since the start, also when late.
    #[must_use]
    #[inline]
    pub fn elapsed(&self) -> Duration {
        self.elapsed_at(self.now())
    }

    /// The whole time from the start to the deadline, the safety margin already taken off;
    /// [`Duration::MAX`] if unbounded.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.remaining_at(self.started)
    }

    /// The instant at which it expires; `None` if unbounded.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether nothing is left. The instant of the deadline itself is too late.
    #[must_use]
    #[inline]
    pub fn is_expired(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Whether there is any time left.
    ///
    /// # Errors
    /// If there is none.
    #[inline]
    pub fn check(&self) -> Result<(), DeadlineExceeded> {
        self.fits(Duration::ZERO)
    }

    /// Whether work of this length can be done in time. Ask before starting what is of no use half
    /// done.
    ///
    /// # Errors
    /// If it would end after the deadline, or if nothing is left at all (so that even no work does
    /// not fit). Ending at the deadline fits.
    #[inline]
    pub fn fits(&self, work: Duration) -> Result<(), DeadlineExceeded> {
        let now = self.now();
        let remaining = self.remaining_at(now);
        if remaining.is_zero() || work > remaining {
            return Err(self.exceeded(now, work));
        }
        Ok(())
    }

    /// The timeout to give to the next call, by name or described in full.
    ///
    /// It is what remains, less [`reserve_for_next`](Call::reserve_for_next), but at least the
    /// floor ([`min`](Call::min), or else [`min_timeout`](DeadlineBuilder::min_timeout)), and
    /// then at most the cap (the lesser of the named one and [`cap`](Call::cap), if any). A
    /// name without a cap is not an error.
    ///
    /// **The floor may exceed what remains**: 20 ms before the deadline, a floor of 100 ms gives
    /// 100 ms. It may also take from what is reserved. [`strict`](Call::strict) refuses the
    /// first.
    ///
    /// Zero is a possible answer (a cap of zero, or a floor of zero and everything reserved); many
    /// clients take a timeout of zero for none.
    ///
    /// # Errors
    /// If nothing is left; of a strict call also if the timeout would exceed what remains.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Call, DeadlineBudget, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let budget = DeadlineBudget::builder().total(Duration::from_secs(1)).clock(clock.clone()).build()?;
    ///
    /// clock.advance(Duration::from_millis(980));
    /// assert_eq!(budget.timeout_for("search")?, Duration::from_millis(100)); // the floor
    /// let error = budget.timeout_for(Call::named("search").strict()).unwrap_err();
    /// assert_eq!(error.to_string(), "deadline exceeded: 100ms needed after 980ms of 1s");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn timeout_for<'a>(&self, call: impl Into<Call<'a>>) -> Result<Duration, DeadlineExceeded> {
        let call = call.into();
        let now = self.now();
        let remaining = self.remaining_at(now);
        if remaining.is_zero() {
            return Err(self.exceeded(now, Duration::ZERO));
        }
        let timeout = call.timeout(remaining, self.rules());
        if call.strict && timeout > remaining {
            return Err(self.exceeded(now, timeout));
        }
        Ok(timeout)
    }

    /// A fair share of what remains for each of `steps` that are still to come, rounded down.
    ///
    /// Ask again before each step, with one less: what one leaves over goes to those after it. A
    /// share knows no floor. It is zero once late and for no steps at all, and
    /// [`Duration::MAX`] if unbounded.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{DeadlineBudget, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let budget = DeadlineBudget::builder().total(Duration::from_secs(9)).clock(clock.clone()).build()?;
    ///
    /// assert_eq!(budget.split(3), Duration::from_secs(3));
    /// clock.advance(Duration::from_secs(1)); // the first step was quick
    /// assert_eq!(budget.split(2), Duration::from_secs(4));
    /// # Ok::<(), budget_pool::InvalidDeadline>(())
    /// ```
    #[must_use]
    pub fn split(&self, steps: u32) -> Duration {
        match (self.remaining(), steps) {
            (_, 0) => Duration::ZERO,
            (Duration::MAX, _) => Duration::MAX,
            (remaining, _) => remaining / steps,
        }
    }

    /// A budget for a part of the request: `total` from now on, but never longer than this one
    /// lasts. It has this one's clock, floor and named caps, without copying them. A child of
    /// an expired budget has expired.
    ///
    /// Under an unbounded budget that holds a service's caps, each request is a child.
    ///
    /// # Errors
    /// If `total` is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::DeadlineBudget;
    ///
    /// let request = DeadlineBudget::new(Duration::from_secs(10))?;
    /// let lookup = request.child(Duration::from_secs(60))?;
    /// assert_eq!(lookup.deadline(), request.deadline());
    /// # Ok::<(), budget_pool::InvalidDeadline>(())
    /// ```
    pub fn child(&self, total: Duration) -> Result<DeadlineBudget, InvalidDeadline> {
        nonzero(total).map(|total| self.narrowed_to(total))
    }

    /// What is left, as the value of a `grpc-timeout` header for the next process; `None`, so no
    /// header, if unbounded.
    ///
    /// One to eight digits and a unit, the finest that fits, rounded down: it never promises time
    /// that is not there. Once late it is `0n`, which gRPC servers take as already expired;
    /// more than `99999999H` (11,400 years) is written as that. The time on the wire is not
    /// accounted for.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{DeadlineBudget, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let budget = DeadlineBudget::builder().total(Duration::from_secs(120)).clock(clock.clone()).build()?;
    ///
    /// assert_eq!(budget.to_grpc_timeout().as_deref(), Some("120000m"));
    /// clock.advance(Duration::from_millis(119_950));
    /// assert_eq!(budget.to_grpc_timeout().as_deref(), Some("50000000n"));
    /// assert_eq!(DeadlineBudget::unbounded().to_grpc_timeout(), None);
    /// # Ok::<(), budget_pool::InvalidDeadline>(())
    /// ```
    #[must_use]
    pub fn to_grpc_timeout(&self) -> Option<String> {
        self.deadline.map(|_| encode_grpc_timeout(self.remaining()))
    }

    /// From the value of a `grpc-timeout` header, counted from now. A timeout of zero is a budget
    /// that has expired, not an error: peers send it for a call that is already late. No header
    /// at all is [`unbounded`](DeadlineBudget::unbounded).
    ///
    /// # Errors
    /// If it is not one to eight ASCII digits and one of the units `H`, `M`, `S`, `m`, `u`, `n`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::DeadlineBudget;
    ///
    /// assert_eq!(DeadlineBudget::from_grpc_timeout("250m")?.total(), Duration::from_millis(250));
    /// assert!(DeadlineBudget::from_grpc_timeout("0n")?.is_expired());
    /// for bad in ["", "H", "250", "250ms", "-1S", " 1S", "123456789n"] {
    ///     assert!(DeadlineBudget::from_grpc_timeout(bad).is_err(), "{bad}");
    /// }
    /// # Ok::<(), budget_pool::ParseGrpcTimeoutError>(())
    /// ```
    pub fn from_grpc_timeout(header: &str) -> Result<DeadlineBudget, ParseGrpcTimeoutError> {
        let total = decode_grpc_timeout(header)?;
        Ok(DeadlineBudget::starting(Instant::now(), total, SharedClock::SYSTEM))
    }

    /// As [`from_grpc_timeout`](DeadlineBudget::from_grpc_timeout), but a
    /// [`child`](DeadlineBudget::child) of this budget: it has its clock, floor and named caps,
    /// and a peer cannot ask for more time than it has.
    ///
    /// # Errors
    /// As [`from_grpc_timeout`](DeadlineBudget::from_grpc_timeout).
    pub fn child_from_grpc_timeout(
        &self,
        header: &str,
    ) -> Result<DeadlineBudget, ParseGrpcTimeoutError> {
        decode_grpc_timeout(header).map(|total| self.narrowed_to(total))
    }

    /// `total` from `now` on, by the clock of the one who asks. A total of zero has expired.
    pub(crate) fn starting(now: Instant, total: Duration, clock: SharedClock) -> DeadlineBudget {
        let rules = (!clock.is_system()).then(|| Arc::new(Rules { clock, ..Rules::DEFAULT }));
        DeadlineBudget { started: now, deadline: now.checked_add(total), rules }
    }

    /// The clock that it was given.
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.rules().clock
    }

    /// The same deadline, floor and caps, read by another clock: the same start too, unless by that
    /// clock it is yet to come. Copies the caps.
    pub(crate) fn with_clock(&self, clock: SharedClock) -> DeadlineBudget {
        let started = self.started.min(clock.now());
        let rules = Rules { clock, ..self.rules().clone() };
        DeadlineBudget { started, deadline: self.deadline, rules: Some(Arc::new(rules)) }
    }

    /// The same, but over when `other` is, at the latest.
    pub(crate) fn within(self, other: &DeadlineBudget) -> DeadlineBudget {
        let deadline = self.deadline.into_iter().chain(other.deadline).min();
        DeadlineBudget { deadline, ..self }
    }

    /// As [`child`](DeadlineBudget::child), but a total of zero has expired.
    pub(crate) fn narrowed_to(&self, total: Duration) -> DeadlineBudget {
        let now = self.now();
        let deadline = [now.checked_add(total), self.deadline].into_iter().flatten().min();
        DeadlineBudget { started: now, deadline, rules: self.rules.clone() }
    }

    #[inline]
    fn rules(&self) -> &Rules {
        self.rules.as_deref().unwrap_or(&DEFAULT_RULES)
    }

    /// Not before the start, so that a clock that runs back cannot give more than the total.
    #[inline]
    fn now(&self) -> Instant {
        self.rules().clock.now().max(self.started)
    }

    #[inline]
    fn remaining_at(&self, now: Instant) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now))
    }

    #[inline]
    fn elapsed_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    #[cold]
    fn exceeded(&self, now: Instant, needed: Duration) -> DeadlineExceeded {
        DeadlineExceeded {
            scope: None,
            budget: self.total(),
            elapsed: self.elapsed_at(now),
            needed,
        }
    }
}

/// Reads no clock: two debug texts of one budget are equal.
impl fmt::Debug for DeadlineBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineBudget")
            .field("started", &self.started)
            .field("deadline", &self.deadline)
            .field("min_timeout", &self.rules().min_timeout)
            .field("call_caps", &self.rules().call_caps)
            .finish_non_exhaustive()
    }
}

/// Builds a [`DeadlineBudget`]. Without a [`total`](DeadlineBuilder::total) it is unbounded.
#[must_use = "a builder does nothing until `build`"]
pub struct DeadlineBuilder {
    total: Option<Duration>,
    safety_margin: Duration,
    rules: Rules,
}

impl DeadlineBuilder {
    /// The time there is, from [`build`](DeadlineBuilder::build) on.
    pub fn total(mut self, total: Duration) -> DeadlineBuilder {
        self.total = Some(total);
        self
    }

    /// Taken off the total, for what has to be done after the last call. None by default; an
    /// unbounded budget has no use for it.
    pub fn safety_margin(mut self, margin: Duration) -> DeadlineBuilder {
        self.safety_margin = margin;
        self
    }

    /// The floor of [`timeout_for`](DeadlineBudget::timeout_for), where the call does not name
    /// another: 100 ms by default.
    pub fn min_timeout(mut self, min: Duration) -> DeadlineBuilder {
        self.rules.min_timeout = min;
        self
    }

    /// The most that a call of this name is given. The last one counts if a name comes twice.
    pub fn call_cap(mut self, name: impl Into<Box<str>>, cap: Duration) -> DeadlineBuilder {
        self.rules.call_caps.push((name.into(), cap));
        self
    }

    /// [`call_cap`](DeadlineBuilder::call_cap) for each of these, beside those named before.
    pub fn call_caps<N: Into<Box<str>>>(
        mut self,
        caps: impl IntoIterator<Item = (N, Duration)>,
    ) -> DeadlineBuilder {
        self.rules.call_caps.extend(caps.into_iter().map(|(name, cap)| (name.into(), cap)));
        self
    }

    /// The clock to read: [`SystemClock`](crate::SystemClock) by default.
    pub fn clock(mut self, clock: impl Clock + 'static) -> DeadlineBuilder {
        self.rules.clock = SharedClock::new(clock);
        self
    }

    /// Starts the time.
    ///
    /// # Errors
    /// If the total is zero, or the safety margin leaves nothing of it.
    pub fn build(self) -> Result<DeadlineBudget, InvalidDeadline> {
        let usable = self.usable()?;
        let started = self.rules.clock.now();
        Ok(DeadlineBudget {
            started,
            deadline: usable.and_then(|usable| started.checked_add(usable)),
            rules: Some(Arc::new(self.rules)),
        })
    }

    fn usable(&self) -> Result<Option<Duration>, InvalidDeadline> {
        let Some(total) = self.total.map(nonzero).transpose()? else { return Ok(None) };
        let margin = self.safety_margin;
        if margin >= total {
            return Err(InvalidDeadline::MarginTooLarge { margin, total });
        }
        Ok(Some(total - margin))
    }
}

fn nonzero(total: Duration) -> Result<Duration, InvalidDeadline> {
    if total.is_zero() { Err(InvalidDeadline::ZeroTotal) } else { Ok(total) }
}

impl fmt::Debug for DeadlineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineBuilder")
            .field("total", &self.total)
            .field("safety_margin", &self.safety_margin)
            .field("min_timeout", &self.rules.min_timeout)
            .field("call_caps", &self.rules.call_caps)
            .finish_non_exhaustive()
    }
}

/// Why a budget of time makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDeadline {
    /// There is no time at all.
    #[error("the total of a deadline budget is zero")]
    ZeroTotal,
    /// The safety margin leaves nothing.
    #[error("a safety margin of {margin:?} leaves nothing of a total of {total:?}")]
    MarginTooLarge {
        /// The safety margin.
        margin: Duration,
        /// The total before the margin.
        total: Duration,
    },
}

/// A call that needs a timeout: see [`DeadlineBudget::timeout_for`]. A `&str` is a named call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[must_use = "a call does nothing until a budget is asked for its timeout"]
pub struct Call<'a> {
    name: Option<&'a str>,
    cap: Option<Duration>,
    min: Option<Duration>,
    reserve_for_next: Duration,
    strict: bool,
}

impl<'a> Call<'a> {
    /// A call without a name: no named cap applies.
    pub const fn new() -> Call<'a> {
        Call { name: None, cap: None, min: None, reserve_for_next: Duration::ZERO, strict: false }
    }

    /// A call under the cap that the budget has for this name, if it has one.
    pub const fn named(name: &'a str) -> Call<'a> {
        Call { name: Some(name), ..Call::new() }
    }

    /// At most this; with a named cap, at most the lesser of the two.
    pub const fn cap(mut self, cap: Duration) -> Call<'a> {
        self.cap = Some(cap);
        self
    }

    /// At least this, instead of the budget's own floor. A cap wins over it.
    pub const fn min(mut self, min: Duration) -> Call<'a> {
        self.min = Some(min);
        self
    }

    /// Leaves this much to the steps after this call, as far as the floor allows.
    pub const fn reserve_for_next(mut self, reserve: Duration) -> Call<'a> {
        self.reserve_for_next = reserve;
        self
    }

    /// Refused rather than given a timeout that exceeds what remains.
    pub const fn strict(mut self) -> Call<'a> {
        self.strict = true;
        self
    }

    /// The peer's rule: the floor wins over what remains, the cap wins over the floor.
    #[inline]
    fn timeout(&self, remaining: Duration, rules: &Rules) -> Duration {
        let floor = self.min.unwrap_or(rules.min_timeout);
        let named = self.name.and_then(|name| rules.call_cap(name)).unwrap_or(Duration::MAX);
        let cap = self.cap.unwrap_or(Duration::MAX).min(named);
        self.unreserved(remaining).max(floor).min(cap)
    }

    #[inline]
    fn unreserved(&self, remaining: Duration) -> Duration {
        match remaining {
            // Without end, less something, is without end.
            Duration::MAX => Duration::MAX,
            remaining => remaining.saturating_sub(self.reserve_for_next),
        }
    }
}

impl<'a> From<&'a str> for Call<'a> {
    fn from(name: &'a str) -> Call<'a> {
        Call::named(name)
    }
}

impl<'a> From<&'a String> for Call<'a> {
    fn from(name: &'a String) -> Call<'a> {
        Call::named(name)
    }
}

/// The units of a `grpc-timeout`, finest first.
const GRPC_UNITS: [(u8, Duration); 6] = [
    (b'n', Duration::from_nanos(1)),
    (b'u', Duration::from_micros(1)),
    (b'm', Duration::from_millis(1)),
    (b'S', Duration::from_secs(1)),
    (b'M', Duration::from_secs(60)),
    (b'H', Duration::from_secs(60 * 60)),
];
const GRPC_DIGITS: usize = 8;
const GRPC_MAX: u128 = 99_999_999;

fn encode_grpc_timeout(timeout: Duration) -> String {
    let nanos = timeout.as_nanos();
    let (value, unit) = GRPC_UNITS
        .into_iter()
        .map(|(unit, length)| (nanos / length.as_nanos(), char::from(unit)))
        .find(|(value, _)| *value <= GRPC_MAX)
        .unwrap_or((GRPC_MAX, 'H'));
    format!("{value}{unit}")
}

fn decode_grpc_timeout(header: &str) -> Result<Duration, ParseGrpcTimeoutError> {
    let (&last, digits) = header.as_bytes().split_last().ok_or(ParseGrpcTimeoutError::Empty)?;
    let (_, length) = GRPC_UNITS
        .into_iter()
        .find(|(unit, _)| *unit == last)
        .ok_or(ParseGrpcTimeoutError::UnknownUnit)?;
    if digits.is_empty() {
        return Err(ParseGrpcTimeoutError::Empty);
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(ParseGrpcTimeoutError::NotDigits);
    }
    if digits.len() > GRPC_DIGITS {
        return Err(ParseGrpcTimeoutError::TooManyDigits);
    }
    // Eight digits fit a `u32`, and so many hours fit a `Duration`.
    let value = digits.iter().fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Ok(length.saturating_mul(value))
}

/// Why a text is not the value of a `grpc-timeout` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ParseGrpcTimeoutError {
    /// There are no digits.
    #[error("no digits in a grpc-timeout")]
    Empty,
    /// It does not end in one of the six units, which are told apart by case: `M` is minutes, `m`
    /// milliseconds.
    #[error("a grpc-timeout ends in one of H, M, S, m, u, n")]
    UnknownUnit,
    /// Something other than ASCII digits before the unit: a sign, a point, a space.
    #[error("a grpc-timeout is ASCII digits and a unit")]
    NotDigits,
    /// More digits than the wire format has.
    #[error("a grpc-timeout has at most 8 digits")]
    TooManyDigits,
}

#[cfg(all(test, not(any(budget_pool_loom, budget_pool_shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::ManualClock;

    const ZERO: Duration = Duration::ZERO;
    const MAX: Duration = Duration::MAX;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn manual() -> (ManualClock, DeadlineBuilder) {
        let clock = ManualClock::new();
        (clock.clone(), DeadlineBudget::builder().clock(clock))
    }

    fn one_second() -> (ManualClock, DeadlineBudget) {
        let (clock, builder) = manual();
        (clock, builder.total(ms(1_000)).build().unwrap())
    }

    fn refusal(budget: u64, elapsed: u64, needed: u64) -> DeadlineExceeded {
        DeadlineExceeded {
            scope: None,
            budget: ms(budget),
            elapsed: ms(elapsed),
            needed: ms(needed),
        }
    }

    #[test]
    fn it_is_small_and_can_be_shared() {
        fn shared<T: Clone + Send + Sync + Unpin + fmt::Debug + 'static>() {}
        shared::<DeadlineBudget>();
        shared::<Call<'static>>();
        assert!(size_of::<DeadlineBudget>() <= 2 * size_of::<Instant>() + size_of::<usize>());
    }

    #[test]
    fn readings_agree_before_at_and_after_the_deadline() {
        let (clock, budget) = one_second();
        for (advance, elapsed, remaining, overrun) in
            [(0, 0, 1_000, 0), (999, 999, 1, 0), (1, 1_000, 0, 0), (500, 1_500, 0, 500)]
        {
            clock.advance(ms(advance));
            assert_eq!(budget.elapsed(), ms(elapsed));
            assert_eq!(budget.remaining(), ms(remaining));
            assert_eq!(budget.overrun(), ms(overrun));
            assert_eq!(budget.total(), ms(1_000));
            assert_eq!(budget.is_expired(), elapsed >= 1_000);
            assert_eq!(
                budget.check(),
                if elapsed < 1_000 { Ok(()) } else { Err(refusal(1_000, elapsed, 0)) }
            );
        }
    }

    #[test]
    fn a_margin_is_taken_off_the_total() {
        let (clock, builder) = manual();
        let budget = builder.total(ms(1_000)).safety_margin(ms(300)).build().unwrap();
        assert_eq!((budget.total(), budget.remaining()), (ms(700), ms(700)));
        assert_eq!(budget.deadline(), Some(clock.now() + ms(700)));
        clock.advance(ms(700));
        assert_eq!(budget.check(), Err(refusal(700, 700, 0)));
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        let build = |total, margin| {
            DeadlineBudget::builder().total(total).safety_margin(margin).build().err()
        };
        assert_eq!(build(ZERO, ZERO), Some(InvalidDeadline::ZeroTotal));
        assert_eq!(build(ZERO, ms(1)), Some(InvalidDeadline::ZeroTotal));
        assert_eq!(build(ms(5), ms(4)), None);
        for margin in [ms(5), ms(6), MAX] {
            assert_eq!(
                build(ms(5), margin),
                Some(InvalidDeadline::MarginTooLarge { margin, total: ms(5) })
            );
        }
        assert_eq!(DeadlineBudget::new(ZERO).err(), Some(InvalidDeadline::ZeroTotal));
        assert_eq!(DeadlineBudget::unbounded().child(ZERO).err(), Some(InvalidDeadline::ZeroTotal));

        assert_eq!(
            InvalidDeadline::ZeroTotal.to_string(),
            "the total of a deadline budget is zero"
        );
        let error = InvalidDeadline::MarginTooLarge { margin: ms(2_000), total: ms(500) };
        assert_eq!(error.to_string(), "a safety margin of 2s leaves nothing of a total of 500ms");
    }

    #[test]
    fn an_instant_that_has_passed_is_an_expired_budget() {
        let passed = Instant::now();
        std::thread::sleep(ms(2));
        let budget = DeadlineBudget::at(passed);
        assert!(budget.is_expired() && budget.overrun() >= ms(2));
        assert_eq!((budget.total(), budget.remaining()), (ZERO, ZERO));
        assert_eq!(budget.deadline(), Some(passed));
        assert_eq!(budget.check().unwrap_err().budget(), ZERO);
        assert!(budget.timeout_for("any").is_err());

        let ahead = passed + Duration::from_secs(3_600);
        let budget = DeadlineBudget::at(ahead);
        assert_eq!(budget.deadline(), Some(ahead));
        assert!(budget.check().is_ok() && budget.total() < Duration::from_secs(3_600));
        assert!(budget.total() > Duration::from_secs(3_500));
    }

    #[test]
    fn an_unbounded_budget_never_ends_but_counts() {
        let (clock, builder) = manual();
        let budget = builder.safety_margin(MAX).build().unwrap();
        clock.advance(ms(1 << 50));
        assert_eq!((budget.total(), budget.remaining(), budget.overrun()), (MAX, MAX, ZERO));
        assert_eq!(budget.elapsed(), ms(1 << 50));
        assert_eq!((budget.deadline(), budget.to_grpc_timeout()), (None, None));
        assert!(!budget.is_expired() && budget.check().is_ok() && budget.fits(MAX).is_ok());
        assert_eq!(budget.timeout_for(Call::new().strict()), Ok(MAX));
        assert_eq!(budget.timeout_for(Call::new().reserve_for_next(ms(1))), Ok(MAX));
        assert_eq!(budget.timeout_for(Call::new().cap(ms(7))), Ok(ms(7)));
        assert_eq!((budget.split(1), budget.split(3), budget.split(0)), (MAX, MAX, ZERO));
        assert_eq!(budget.child(ms(9)).unwrap().deadline(), Some(clock.now() + ms(9)));
    }

    #[test]
    fn the_longest_durations_do_not_overflow() {
        let (clock, builder) = manual();
        let budget = builder
            .total(MAX)
            .safety_margin(ms(1))
            .min_timeout(MAX)
            .call_cap("x", MAX)
            .build()
            .unwrap();
        clock.advance(MAX);
        assert_eq!(budget.deadline(), None);
        assert_eq!(budget.child(MAX).unwrap().deadline(), None);
        let call = Call::named("x").cap(MAX).min(MAX).reserve_for_next(MAX).strict();
        assert_eq!(budget.timeout_for(call), Ok(MAX));
        assert_eq!(DeadlineBudget::new(MAX).unwrap().remaining(), MAX);

        let (_, budget) = one_second();
        assert_eq!(budget.child(MAX).unwrap().remaining(), ms(1_000));
        assert_eq!(budget.timeout_for(Call::new().min(MAX)), Ok(MAX));
        assert!(budget.timeout_for(Call::new().min(MAX).strict()).is_err());
        assert_eq!(budget.timeout_for(Call::new().cap(MAX).reserve_for_next(MAX)), Ok(ms(100)));
        assert_eq!(budget.fits(MAX).unwrap_err().needed(), MAX);
        assert_eq!(budget.split(u32::MAX), ZERO); // under a nanosecond each
    }

    #[test]
    fn the_floor_wins_over_what_remains_and_the_cap_over_the_floor() {
        let (clock, builder) = manual();
        let budget =
            builder.total(ms(1_000)).call_caps([("a", ms(300)), ("b", ms(50))]).build().unwrap();
        let next = Call::new().reserve_for_next(ms(400));
        let owned = String::from("b");
        for (call, timeout) in [
            ("unknown".into(), 1_000),
            ("a".into(), 300),
            (Call::from(&owned), 50),
            (Call::named("a").cap(ms(200)), 200),
            (Call::named("a").cap(ms(400)), 300),
            (Call::new().cap(ms(700)), 700),
            (next, 600),
            (next.cap(ms(500)), 500),
            (next.min(ms(800)), 800),
            (next.min(ms(800)).cap(ms(750)), 750),
            (Call::new().min(ms(2_000)), 2_000),
            (Call::new().reserve_for_next(ms(950)), 100),
            (Call::new().reserve_for_next(ms(950)).min(ZERO), 50),
            (Call::new().reserve_for_next(ms(1_050)).min(ZERO), 0),
            (Call::new().cap(ZERO), 0),
        ] {
            assert_eq!(budget.timeout_for(call), Ok(ms(timeout)), "{call:?}");
        }
        clock.advance(ms(980));
        assert_eq!(budget.timeout_for("unknown"), Ok(ms(100)));
        assert_eq!(budget.timeout_for("b"), Ok(ms(50)));
        clock.advance(ms(20));
        assert_eq!(budget.timeout_for("b"), Err(refusal(1_000, 1_000, 0)));
    }

    #[test]
    fn a_strict_call_is_refused_only_if_it_would_exceed_what_remains() {
        let (clock, budget) = one_second();
        let strict = Call::new().strict();
        assert_eq!(budget.timeout_for(strict), Ok(ms(1_000)));
        assert_eq!(budget.timeout_for(strict.min(ms(1_000))), Ok(ms(1_000)));
        assert_eq!(budget.timeout_for(strict.min(ms(1_001))), Err(refusal(1_000, 0, 1_001)));
        assert_eq!(budget.timeout_for(strict.min(ms(1_001)).cap(ms(1_000))), Ok(ms(1_000)));
        clock.advance(ms(901));
        assert_eq!(budget.timeout_for(strict), Err(refusal(1_000, 901, 100)));
        assert_eq!(budget.timeout_for(strict.cap(ms(99))), Ok(ms(99)));
        clock.advance(ms(99));
        assert_eq!(budget.timeout_for(strict.cap(ms(99))), Err(refusal(1_000, 1_000, 0)));
    }

    #[test]
    fn the_last_cap_of_a_name_counts() {
        let budget = DeadlineBudget::builder()
            .call_cap("a", ms(1))
            .call_caps([("a".to_owned(), ms(2)), ("b".to_owned(), ms(3))])
            .call_cap("b", ms(4))
            .build()
            .unwrap();
        assert_eq!((budget.timeout_for("a"), budget.timeout_for("b")), (Ok(ms(2)), Ok(ms(4))));
        assert_eq!(budget.timeout_for("A"), Ok(MAX));
    }

    #[test]
    fn work_fits_up_to_the_deadline_and_nothing_fits_after_it() {
        let (clock, budget) = one_second();
        clock.advance(ms(400));
        assert_eq!(budget.fits(ms(600)), Ok(()));
        assert_eq!(budget.fits(ms(601)), Err(refusal(1_000, 400, 601)));
        clock.advance(ms(600));
        assert_eq!(budget.fits(ZERO), Err(refusal(1_000, 1_000, 0)));
        assert_eq!(budget.fits(ms(2)), Err(refusal(1_000, 1_000, 2)));
    }

    #[test]
    fn a_child_ends_with_its_parent_or_earlier_and_shares_its_rules() {
        let (clock, builder) = manual();
        let parent =
            builder.total(ms(1_000)).min_timeout(ms(10)).call_cap("a", ms(20)).build().unwrap();
        clock.advance(ms(400));
        let short = parent.child(ms(100)).unwrap();
        let long = parent.child(ms(601)).unwrap();
        assert_eq!((short.total(), short.elapsed()), (ms(100), ZERO));
        assert_eq!((long.total(), long.deadline()), (ms(600), parent.deadline()));
        assert_eq!(long.timeout_for("a"), Ok(ms(20)));
        clock.advance(ms(95));
        assert_eq!(short.timeout_for("b"), Ok(ms(10)));
        assert!(Arc::ptr_eq(
            parent.rules.as_ref().unwrap(),
            short.child(ms(1)).unwrap().rules.as_ref().unwrap()
        ));
        assert!(Arc::ptr_eq(
            parent.rules.as_ref().unwrap(),
            parent.clone().rules.as_ref().unwrap()
        ));

        clock.advance(ms(600));
        let late = parent.child(ms(50)).unwrap();
        assert!(late.is_expired());
        assert_eq!((late.total(), late.overrun()), (ZERO, ms(95)));
    }

    #[test]
    fn shares_are_fair() {
        let (clock, budget) = one_second();
        assert_eq!((budget.split(0), budget.split(1), budget.split(4)), (ZERO, ms(1_000), ms(250)));
        assert_eq!(budget.split(3), Duration::from_nanos(333_333_333));
        clock.advance(ms(1_000));
        assert_eq!((budget.split(0), budget.split(2)), (ZERO, ZERO));
    }

    #[test]
    fn a_question_reads_the_clock_once() {
        let reads = Arc::new(AtomicUsize::new(0));
        let (counted, start) = (reads.clone(), Instant::now());
        let late = Arc::new(AtomicUsize::new(0));
        let seconds = late.clone();
        let clock = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            start + Duration::from_secs(seconds.load(Ordering::Relaxed) as u64)
        };
        let budget = DeadlineBudget::builder().total(ms(1_000)).clock(clock).build().unwrap();
        let budget = &budget;
        let once: [(&str, &dyn Fn() -> bool); 11] = [
            ("remaining", &|| budget.remaining().is_zero()),
            ("overrun", &|| !budget.overrun().is_zero()),
            ("elapsed", &|| budget.elapsed() >= ms(1_000)),
            ("is_expired", &|| budget.is_expired()),
            ("check", &|| budget.check().is_err()),
            ("fits", &|| budget.fits(ms(1)).is_err()),
            ("timeout_for", &|| budget.timeout_for("x").is_err()),
            ("strict", &|| budget.timeout_for(Call::new().strict()).is_err()),
            ("split", &|| budget.split(3).is_zero()),
            ("child", &|| budget.child(ms(1)).unwrap().total().is_zero()),
            ("to_grpc_timeout", &|| budget.to_grpc_timeout().unwrap() == "0n"),
        ];
        for seconds in [0, 9] {
            late.store(seconds, Ordering::Relaxed);
            for (name, expired) in once {
                reads.store(0, Ordering::Relaxed);
                assert_eq!(expired(), seconds > 0, "{name}");
                assert_eq!(reads.load(Ordering::Relaxed), 1, "{name}");
            }
        }
        reads.store(0, Ordering::Relaxed);
        assert_eq!((budget.clone().total(), budget.deadline().is_some()), (ms(1_000), true));
        assert!(!format!("{budget:?}").is_empty());
        assert_eq!(reads.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_clock_that_runs_back_stands_still_at_the_start() {
        let base = Instant::now();
        let offset = Arc::new(AtomicUsize::new(100));
        let seconds = offset.clone();
        let clock = move || base + Duration::from_secs(seconds.load(Ordering::Relaxed) as u64);
        let budget = DeadlineBudget::builder().total(ms(10_000)).clock(clock).build().unwrap();
        offset.store(0, Ordering::Relaxed);
        assert_eq!((budget.remaining(), budget.elapsed()), (ms(10_000), ZERO));
        assert_eq!(budget.child(ms(60_000)).unwrap().deadline(), budget.deadline());
        assert_eq!(budget.child(ms(6_000)).unwrap().remaining(), ms(6_000));
    }

    #[test]
    fn a_pool_gives_its_own_clock() {
        let clock = ManualClock::new();
        let start = clock.now();
        let budget = DeadlineBudget::starting(start, ms(10), SharedClock::new(clock.clone()));
        assert_eq!((budget.started, budget.deadline()), (start, Some(start + ms(10))));
        assert_eq!(budget.timeout_for(Call::new().reserve_for_next(ms(10))), Ok(ms(100)));
        clock.advance(ms(11));
        assert_eq!(budget.overrun(), ms(1));
        assert!(DeadlineBudget::starting(Instant::now(), ZERO, SharedClock::SYSTEM).is_expired());

        let (_, other) = manual();
        let other = other.total(ms(500)).min_timeout(ms(1)).call_cap("a", ms(2)).build().unwrap();
        let moved = other.with_clock(SharedClock::new(clock.clone()));
        assert_eq!((moved.started, moved.deadline()), (other.started, other.deadline()));
        assert_eq!(moved.timeout_for("a"), Ok(ms(2)));
        clock.advance(ms(5_000));
        assert!(moved.is_expired() && !other.is_expired());
    }

    #[test]
    fn debug_says_what_it_is_without_its_clock() {
        let (_, builder) = manual();
        let builder = builder.total(ms(9)).min_timeout(ms(5)).call_cap("a", ms(2));
        let text = "DeadlineBuilder { total: Some(9ms), safety_margin: 0ns, min_timeout: 5ms, call_caps: [(\"a\", 2ms)], .. }";
        assert_eq!(format!("{builder:?}"), text);
        let text = format!("{:?}", builder.build().unwrap());
        assert!(text.starts_with("DeadlineBudget { started: Instant"), "{text}");
        assert!(text.ends_with("min_timeout: 5ms, call_caps: [(\"a\", 2ms)], .. }"), "{text}");
    }

    #[test]
    fn a_timeout_is_written_in_the_finest_unit_that_fits_rounded_down() {
        let secs = Duration::from_secs;
        for (timeout, header) in [
            (ZERO, "0n"),
            (Duration::from_nanos(1), "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_000), "100000u"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_nanos(99_999_999_999), "99999999u"),
            (secs(100), "100000m"),
            (Duration::from_micros(99_999_999_999), "99999999m"),
            (secs(100_000), "100000S"),
            (secs(99_999_999), "99999999S"),
            (secs(100_000_000), "1666666M"),
            (secs(99_999_999 * 60 + 59), "99999999M"),
            (secs(100_000_000 * 60), "1666666H"),
            (secs(99_999_999 * 3_600), "99999999H"),
            (secs(100_000_000 * 3_600), "99999999H"),
            (MAX, "99999999H"),
        ] {
            assert_eq!(encode_grpc_timeout(timeout), header);
        }
        let (clock, budget) = one_second();
        clock.advance(Duration::from_nanos(900_000_001));
        assert_eq!(budget.to_grpc_timeout().as_deref(), Some("99999999n"));
        clock.advance(ms(100));
        assert_eq!(budget.to_grpc_timeout().as_deref(), Some("0n"));
        clock.advance(ms(100));
        assert_eq!(budget.to_grpc_timeout().as_deref(), Some("0n"));
    }

    #[test]
    fn every_header_of_the_wire_format_is_read() {
        for (header, nanos) in [
            ("1n", 1_u128),
            ("2u", 2_000),
            ("3m", 3_000_000),
            ("4S", 4_000_000_000),
            ("5M", 300_000_000_000),
            ("6H", 21_600_000_000_000),
            ("007m", 7_000_000),
            ("00000000H", 0),
            ("99999999H", 99_999_999 * 3_600_000_000_000),
        ] {
            assert_eq!(
                decode_grpc_timeout(header).map(|timeout| timeout.as_nanos()),
                Ok(nanos),
                "{header}"
            );
        }
        let longest = DeadlineBudget::from_grpc_timeout("99999999H").unwrap();
        assert!(
            longest.check().is_ok()
                && longest.remaining() > Duration::from_secs(99_999_998 * 3_600)
        );
        let expired = DeadlineBudget::from_grpc_timeout("0n").unwrap();
        assert_eq!((expired.is_expired(), expired.total()), (true, ZERO));
    }

    #[test]
    fn an_absurd_header_is_refused_with_its_reason() {
        use ParseGrpcTimeoutError::{Empty, NotDigits, TooManyDigits, UnknownUnit};
        for (header, why) in [
            ("", Empty),
            ("n", Empty),
            ("5", UnknownUnit),
            ("5s", UnknownUnit),
            ("5h", UnknownUnit),
            ("5ms\0", UnknownUnit),
            ("5S ", UnknownUnit),
            ("5µ", UnknownUnit),
            ("5Н", UnknownUnit), // Cyrillic
            ("5ms", UnknownUnit),
            ("5us", UnknownUnit),
            ("-1S", NotDigits),
            ("+1S", NotDigits),
            (" 1S", NotDigits),
            ("1 S", NotDigits),
            ("1.5S", NotDigits),
            ("1_0S", NotDigits),
            ("0x1S", NotDigits),
            ("1e3S", NotDigits),
            ("1S1S", NotDigits),
            ("٣S", NotDigits),  // Arabic
            ("３S", NotDigits), // full width
            ("-123456789S", NotDigits),
            ("123456789n", TooManyDigits),
            ("000000001n", TooManyDigits),
            ("99999999999999999999999999H", TooManyDigits),
        ] {
            assert_eq!(DeadlineBudget::from_grpc_timeout(header).err(), Some(why), "{header:?}");
            assert_eq!(
                DeadlineBudget::unbounded().child_from_grpc_timeout(header).err(),
                Some(why),
                "{header:?}"
            );
        }
        assert_eq!(Empty.to_string(), "no digits in a grpc-timeout");
        assert_eq!(UnknownUnit.to_string(), "a grpc-timeout ends in one of H, M, S, m, u, n");
        assert_eq!(NotDigits.to_string(), "a grpc-timeout is ASCII digits and a unit");
        assert_eq!(TooManyDigits.to_string(), "a grpc-timeout has at most 8 digits");
    }

    #[test]
    fn a_header_cannot_ask_for_more_than_its_parent_has() {
        let (clock, builder) = manual();
        let service = builder.total(ms(1_000)).call_cap("a", ms(20)).build().unwrap();
        clock.advance(ms(1));
        let request = service.child_from_grpc_timeout("99999999H").unwrap();
        assert_eq!((request.deadline(), request.total()), (service.deadline(), ms(999)));
        let request = service.child_from_grpc_timeout("250m").unwrap();
        assert_eq!((request.total(), request.timeout_for("a")), (ms(250), Ok(ms(20))));
        assert!(service.child_from_grpc_timeout("0n").unwrap().is_expired());
    }

    /// Any duration, and more often than by chance one that matters: nothing, a few units, the
    /// longest.
    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(ZERO),
            Just(MAX),
            (0..5_u64).prop_map(Duration::from_nanos),
            (0..5_000_u64).prop_map(ms),
            any::<u64>().prop_map(Duration::from_nanos),
            (any::<u64>(), 0..1_000_000_000_u32)
                .prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        ]
    }

    prop_compose! {
        /// Any budget at any moment, with a cap for the call `named`.
        fn budget()(
            total in option::of(duration()),
            margin in duration(),
            min in duration(),
            cap in duration(),
            advance in duration(),
        ) -> (DeadlineBudget, Duration) {
            let (clock, builder) = manual();
            let mut builder = builder.min_timeout(min).call_cap("named", cap);
            if let Some(total) = total {
                builder = builder.total(total.max(Duration::from_nanos(1)));
            }
            let fitting = builder.total.map_or(margin, |total| margin.min(total - Duration::from_nanos(1)));
            let budget = builder.safety_margin(fitting).build().unwrap();
            clock.advance(advance);
            (budget, cap)
        }
    }

    prop_compose! {
        fn call()(
            named: bool,
            cap in option::of(duration()),
            min in option::of(duration()),
            reserve in duration(),
            strict: bool,
        ) -> Call<'static> {
            let name = named.then_some("named");
            Call { name, cap, min, reserve_for_next: reserve, strict }
        }
    }

    proptest! {
        #[test]
        fn readings_of_one_moment_agree((budget, _) in budget()) {
            prop_assert_eq!(budget.is_expired(), budget.remaining().is_zero());
            prop_assert_eq!(budget.is_expired(), budget.check().is_err());
            prop_assert!(budget.remaining() <= budget.total());
            if budget.deadline().is_some() {
                let lived = budget.elapsed() - budget.overrun();
                prop_assert_eq!(lived + budget.remaining(), budget.total());
            }
        }

        #[test]
        fn a_timeout_never_exceeds_its_caps_nor_if_strict_what_remains((budget, named_cap) in budget(), call in call()) {
            let Ok(timeout) = budget.timeout_for(call) else {
                prop_assert!(budget.is_expired() || call.strict);
                return Ok(());
            };
            prop_assert!(!budget.is_expired());
            prop_assert!(call.cap.is_none_or(|cap| timeout <= cap));
            prop_assert!(call.name.is_none() || timeout <= named_cap);
            prop_assert!(!call.strict || timeout <= budget.remaining());
        }

        #[test]
        fn a_strict_timeout_is_the_lenient_one_or_none((budget, _) in budget(), call in call()) {
            let lenient = budget.timeout_for(Call { strict: false, ..call });
            match budget.timeout_for(call.strict()) {
                Ok(timeout) => prop_assert_eq!(lenient, Ok(timeout)),
                Err(late) => prop_assert!(lenient.is_err() || late.needed() > budget.remaining()),
            }
        }

        #[test]
        fn a_child_never_outlives_its_parent((budget, _) in budget(), totals in prop::collection::vec(duration(), 1..4)) {
            let mut parent = budget;
            for total in totals {
                let Ok(child) = parent.child(total) else {
                    prop_assert!(total.is_zero());
                    return Ok(());
                };
                // Too long for an instant is unbounded.
                prop_assert!(child.total() <= total || child.deadline().is_none());
                prop_assert!(child.remaining() <= parent.remaining());
                prop_assert!(parent.deadline().is_none_or(|end| child.deadline().is_some_and(|own| own <= end)));
                parent = child;
            }
        }

        #[test]
        fn shares_add_up_to_no_more_than_what_remains((budget, _) in budget(), steps: u32, few in 0..9_u32) {
            for steps in [steps, few] {
                let (share, remaining) = (budget.split(steps), budget.remaining());
                let sum = share.saturating_mul(steps);
                prop_assert!(sum <= remaining);
                // Fair: what is lost to rounding is less than a nanosecond a step.
                prop_assert!(steps == 0 || (remaining - sum).as_nanos() < u128::from(steps));
            }
        }

        #[test]
        fn a_header_promises_no_more_than_there_is_and_loses_less_than_its_unit(timeout in duration()) {
            let header = encode_grpc_timeout(timeout);
            prop_assert!(header.len() <= 9);
            let sent = decode_grpc_timeout(&header).unwrap();
            prop_assert!(sent <= timeout);
            let (_, unit) = GRPC_UNITS.into_iter().find(|(unit, _)| header.as_bytes().last() == Some(unit)).unwrap();
            prop_assert!(timeout - sent < unit || header == "99999999H");
            prop_assert_eq!(encode_grpc_timeout(sent), header);
        }

        #[test]
        fn a_header_arrives_as_a_budget((budget, _) in budget()) {
            let Some(header) = budget.to_grpc_timeout() else {
                prop_assert_eq!(budget.deadline(), None);
                return Ok(());
            };
            let there = DeadlineBudget::from_grpc_timeout(&header).unwrap();
            prop_assert!(there.total() <= budget.remaining());
        }

        #[test]
        fn exactly_the_wire_format_is_read(header in "[0-9]{0,9}[HMSmunsh]?|\\PC{0,10}|[+ -]?[0-9٣]{1,8}[HMSmun]") {
            let format = |bytes: &[u8]| match bytes {
                [digits @ .., unit] => {
                    (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) && b"HMSmun".contains(unit)
                }
                [] => false,
            };
            prop_assert_eq!(decode_grpc_timeout(&header).is_ok(), format(header.as_bytes()));
        }
    }
}
