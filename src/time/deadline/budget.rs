//! A budget of time: two instants and the rules that go with them. It never changes: only the clock
//! moves on.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::time::clock::SharedClock;
use crate::time::deadline::builder::DeadlineBuilder;
use crate::time::deadline::call::Call;
use crate::time::deadline::grpc::{self, ParseGrpcTimeoutError};
use crate::time::deadline::rules::{DEFAULT_RULES, Rules};
use crate::types::error::DeadlineExceeded;

/// The time that one request has, from its edge to its last call.
///
/// Start it where the request comes in, hand clones down, and ask it how long each call may take.
/// It only counts: it interrupts nothing, so a call that overruns its timeout is noticed by the
/// next question. A `DeadlineBudget` needs no pool.
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
/// assert_eq!(budget.timeout_for("draft").unwrap_err().to_string(), "deadline exceeded: 10s elapsed, budget 9.5s");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct DeadlineBudget {
    pub(super) started: Instant,
    /// `None`: unbounded. Before `started` if it had passed by then.
    pub(super) deadline: Option<Instant>,
    /// `None`: the default ones, so that a plain budget allocates nothing.
    pub(super) rules: Option<Arc<Rules>>,
}

impl DeadlineBudget {
    /// `total` from now on. A total of zero is a budget that has expired: a request that comes too
    /// late is no mistake of the service.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::DeadlineBudget;
    ///
    /// let budget = DeadlineBudget::new(Duration::from_secs(30));
    /// assert!(budget.remaining() <= Duration::from_secs(30));
    ///
    /// let late = DeadlineBudget::new(Duration::ZERO).check().unwrap_err();
    /// assert_eq!(late.to_string(), "deadline exceeded: no time from the start");
    /// ```
    #[must_use]
    pub fn new(total: Duration) -> DeadlineBudget {
        DeadlineBudget::starting(Instant::now(), total, SharedClock::SYSTEM)
    }

    /// Until `deadline`: its total is what is left now. A deadline that has passed is a budget that
    /// has expired, with a total of zero.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// let budget = DeadlineBudget::at(std::time::Instant::now() + Duration::from_secs(5));
    /// assert!(budget.remaining() <= Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn at(deadline: Instant) -> DeadlineBudget {
        DeadlineBudget { deadline: Some(deadline), ..DeadlineBudget::unbounded() }
    }

    /// Without end: it never expires, and [`total`](DeadlineBudget::total) and
    /// [`remaining`](DeadlineBudget::remaining) are [`Duration::MAX`]. It still counts the
    /// [`elapsed`](DeadlineBudget::elapsed) time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// let budget = DeadlineBudget::unbounded();
    /// assert_eq!(budget.remaining(), Duration::MAX);
    /// ```
    #[must_use]
    pub fn unbounded() -> DeadlineBudget {
        DeadlineBudget { started: Instant::now(), deadline: None, rules: None }
    }

    /// A budget with a margin, a floor, named caps or a clock of its own.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// let budget = DeadlineBudget::builder().total(Duration::from_secs(5)).build()?;
    /// assert_eq!(budget.total(), Duration::from_secs(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> DeadlineBuilder {
        DeadlineBuilder::new()
    }

    /// The time that is left; zero once late, [`Duration::MAX`] if unbounded.
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
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// assert!(DeadlineBudget::unbounded().check().is_ok());
    /// assert!(DeadlineBudget::new(Duration::ZERO).check().is_err());
    /// ```
    ///
    /// # Errors
    /// [`DeadlineExceeded`], if there is none.
    #[inline]
    pub fn check(&self) -> Result<(), DeadlineExceeded> {
        self.fits(Duration::ZERO)
    }

    /// Whether work of this length can be done in time. Ask before work that is of no use half
    /// done.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// let budget = DeadlineBudget::new(Duration::from_secs(60));
    /// assert!(budget.fits(Duration::from_secs(5)).is_ok());
    /// assert!(budget.fits(Duration::from_secs(61)).is_err());
    /// ```
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
    /// The timeout is [`remaining`](DeadlineBudget::remaining), less
    /// [`reserve_for_next`](Call::reserve_for_next), but at least the floor, and then at most the
    /// cap. The floor is [`min`](Call::min), or else [`min_timeout`](DeadlineBuilder::min_timeout).
    /// The cap is the lesser of the named one and [`cap`](Call::cap). A name without a cap is not
    /// an error.
    ///
    /// **The floor may exceed [`remaining`](DeadlineBudget::remaining)**: 20 ms before the
    /// deadline, a floor of 100 ms gives 100 ms. The floor may also take from
    /// [`reserve_for_next`](Call::reserve_for_next). [`strict`](Call::strict) refuses the first.
    ///
    /// Zero is a possible answer (a cap of zero, or a floor of zero and everything reserved); many
    /// clients take a timeout of zero for none.
    ///
    /// # Errors
    /// The error comes if nothing is left; of a [`strict`](Call::strict) call also if the timeout
    /// would exceed [`remaining`](DeadlineBudget::remaining).
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
    /// assert_eq!(error.to_string(), "deadline exceeded: 100ms needed, 20ms remaining, budget 1s");
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
        if call.is_strict() && timeout > remaining {
            return Err(self.exceeded(now, timeout));
        }
        Ok(timeout)
    }

    /// A fair share of [`remaining`](DeadlineBudget::remaining) for each of `steps` that are still
    /// to come, rounded down.
    ///
    /// Call `split` again before each step, with one step less: the time that a step leaves over
    /// goes to those after it. A share knows no floor. It is zero once late and for no steps at
    /// all, and [`Duration::MAX`] if unbounded.
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

    /// A budget for a part of the request: `total` from now on, but never longer than this budget
    /// lasts. The child has this budget's clock, floor and named caps, without copying them. A
    /// child of an expired budget has expired, and so has a child with a total of zero.
    ///
    /// Under an unbounded budget that holds a service's caps, each request is a child.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::DeadlineBudget;
    ///
    /// let request = DeadlineBudget::new(Duration::from_secs(10));
    /// let lookup = request.child(Duration::from_secs(60));
    /// assert_eq!(lookup.deadline(), request.deadline());
    /// ```
    #[must_use]
    pub fn child(&self, total: Duration) -> DeadlineBudget {
        let now = self.now();
        let deadline = [now.checked_add(total), self.deadline].into_iter().flatten().min();
        DeadlineBudget { started: now, deadline, rules: self.rules.clone() }
    }

    /// The [`remaining`](DeadlineBudget::remaining) time as the value of a `grpc-timeout` header
    /// for the next process; `None`, so no header, if unbounded.
    ///
    /// The text is one to eight digits and a unit, the finest that fits, rounded down: it never
    /// promises time that is not there. Once late it is `0n`, which gRPC servers take as already
    /// expired; more than `99999999H` (11,400 years) is written as that. The time on the wire is
    /// not accounted for.
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
        self.deadline.map(|_| grpc::encode(self.remaining()))
    }

    /// From the value of a `grpc-timeout` header, counted from now. A timeout of zero is a budget
    /// that has expired: peers send it for a call that is already late. No header at all is [`unbounded`](DeadlineBudget::unbounded).
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
        let total = grpc::decode(header)?;
        Ok(DeadlineBudget::starting(Instant::now(), total, SharedClock::SYSTEM))
    }

    /// As [`from_grpc_timeout`](DeadlineBudget::from_grpc_timeout), but a
    /// [`child`](DeadlineBudget::child) of this budget: it has its clock, floor and named caps,
    /// and a peer cannot ask for more time than it has.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// let longest = DeadlineBudget::new(Duration::from_secs(3));
    /// let request = longest.child_from_grpc_timeout("10S")?;
    /// assert!(request.remaining() <= Duration::from_secs(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`from_grpc_timeout`](DeadlineBudget::from_grpc_timeout).
    pub fn child_from_grpc_timeout(
        &self,
        header: &str,
    ) -> Result<DeadlineBudget, ParseGrpcTimeoutError> {
        grpc::decode(header).map(|total| self.child(total))
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
        DeadlineExceeded { pool: None, budget: self.total(), elapsed: self.elapsed_at(now), needed }
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

#[cfg(all(test, not(any(budget_pool_loom, budget_pool_shuttle))))]
#[path = "../../tests/units/budget.rs"]
mod tests;
