//! The layer, and the rules that its services share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use budget_pool::{Amount, Ask, BudgetPool, DeadlineBudget, OnDrop};
use http::{HeaderMap, Request, Response};
use tower_layer::Layer;

use crate::deadline::{DeadlineHeader, Deadlines};
use crate::headers::RateLimitHeaders;
use crate::refusal::NeverStatus;
use crate::service::BudgetService;

type PoolOf = dyn Fn(&Request<()>) -> Option<BudgetPool> + Send + Sync;
type AskOf = dyn Fn(&Request<()>) -> Ask + Send + Sync;
type TotalOf = dyn Fn(&Response<()>) -> Option<Amount> + Send + Sync;
type TrailersOf = dyn Fn(&HeaderMap) -> Option<Amount> + Send + Sync;
type Refunded = dyn Fn(&Response<()>) -> bool + Send + Sync;
type Disclosed = dyn Fn(&str) -> bool + Send + Sync;

/// Asks a [`BudgetPool`] for each request before the request is served, holds what was granted until
/// the response has ended, and settles what the request really cost.
///
/// The functions that it takes see the head of a request or of a response, as a
/// `&Request<()>` or a `&Response<()>`; so the layer goes with every type of body.
///
/// ```
/// use std::time::Duration;
/// use budget_pool::{Amount, BudgetPool, Keyed};
/// use budget_pool_tower::{BudgetLayer, RateLimitHeaders};
/// use http::Request;
///
/// let tenants: Keyed<String> = Keyed::new(BudgetPool::builder().name("service").tokio().build());
/// let layer = BudgetLayer::new(move |request: &Request<_>| {
///     let tenant = request.headers().get("x-tenant")?.to_str().ok()?;
///     Some(tenants.get_or_build(tenant, |pool| pool.name(tenant).requests(100).in_flight(4)))
/// })
/// .refund(|response| response.status().is_server_error())
/// .wait_within(Duration::from_secs(2))
/// .headers(RateLimitHeaders::Ietf);
/// # let _ = layer;
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing until it is added to a service"]
pub struct BudgetLayer {
    rules: Rules,
}

#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) pool: Arc<PoolOf>,
    pub(crate) ask: Option<Arc<AskOf>>,
    pub(crate) settle: Option<Arc<TotalOf>>,
    pub(crate) trailers: Option<Arc<TrailersOf>>,
    pub(crate) refund: Option<Arc<Refunded>>,
    pub(crate) discloses: Option<Arc<Disclosed>>,
    pub(crate) wait: Option<Duration>,
    pub(crate) deadlines: Deadlines,
    pub(crate) headers: RateLimitHeaders,
    pub(crate) never: NeverStatus,
    pub(crate) on_drop: OnDrop,
    pub(crate) on_error: OnDrop,
}

impl BudgetLayer {
    /// A layer that spends from the pool that `pool` finds for a request. A single reservation on
    /// that pool decides for all limits on its way up, or for none of them.
    ///
    /// `None` is a request that is not limited: the service serves it as without the layer, and it
    /// has no [`Bill`](crate::Bill). A request without a tenant thus passes, unless the function
    /// finds a pool for it, too: one of all strangers, or a closed one.
    ///
    /// A function that builds a pool for each name a request brings lets any stranger make pools,
    /// each with a budget of its own. Let it see names that are known: those of a list, or those that
    /// an authentication before the layer has put into the extensions.
    pub fn new(
        pool: impl Fn(&Request<()>) -> Option<BudgetPool> + Send + Sync + 'static,
    ) -> BudgetLayer {
        BudgetLayer {
            rules: Rules {
                pool: Arc::new(pool),
                ask: None,
                settle: None,
                trailers: None,
                refund: None,
                discloses: None,
                wait: None,
                deadlines: Deadlines::default(),
                headers: RateLimitHeaders::default(),
                never: NeverStatus::default(),
                on_drop: OnDrop::Commit,
                on_error: OnDrop::Commit,
            },
        }
    }

    /// Sets the [`Ask`] of a request to its pool. Unless this is set, a request asks for one unit
    /// of [`Requests`](budget_pool::Axis::Requests). Every hold also takes a slot in flight, unless
    /// its amount names another figure. Under a window it counts from the response's end: see
    /// [Rates](crate#rates).
    ///
    /// A client that reads slowly keeps its slot as long as it likes. [`Ask::ttl`] bounds that: the
    /// hold of a response that has not ended by then expires, and its cost is booked late.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    /// use budget_pool_tower::BudgetLayer;
    ///
    /// let pool = BudgetPool::builder().tokens(100_000).build();
    /// let layer = BudgetLayer::new(move |_| Some(pool.clone())).ask(|request| {
    ///     // A token is at least a byte.
    ///     let length = request.headers().get("content-length");
    ///     let bytes = length.and_then(|length| length.to_str().ok()?.parse().ok());
    ///     Amount::new().requests(1).tokens(bytes.unwrap_or(4_000))
    /// });
    /// # let _ = layer;
    /// ```
    pub fn ask<A: Into<Ask>>(
        mut self,
        ask: impl Fn(&Request<()>) -> A + Send + Sync + 'static,
    ) -> BudgetLayer {
        self.rules.ask = Some(Arc::new(move |request| ask(request).into()));
        self
    }

    /// Reads the cost of a request from the head of its response: from a header, or from an extension
    /// that the handler has set. `None` settles what is held.
    ///
    /// The amount is the total of the request. An axis that the amount does not name settles at its
    /// held units. A [`Bill`](crate::Bill) and [trailers](BudgetLayer::settle_trailers) go before
    /// it.
    pub fn settle(
        mut self,
        total: impl Fn(&Response<()>) -> Option<Amount> + Send + Sync + 'static,
    ) -> BudgetLayer {
        self.rules.settle = Some(Arc::new(total));
        self
    }

    /// Reads the cost of a request from the trailers of its response. The trailers are the last
    /// word: their amount goes before a [`Bill`](crate::Bill) and the [head](BudgetLayer::settle).
    pub fn settle_trailers(
        mut self,
        total: impl Fn(&HeaderMap) -> Option<Amount> + Send + Sync + 'static,
    ) -> BudgetLayer {
        self.rules.trailers = Some(Arc::new(total));
        self
    }

    /// Sets the rule that says whether a response costs nothing. The layer then releases the hold
    /// when the response has ended, also where the client hangs up before. The rule goes before
    /// [`settle`](BudgetLayer::settle); a [`Bill`](crate::Bill) and
    /// [trailers](BudgetLayer::settle_trailers) that tell a total go before the rule.
    pub fn refund(
        mut self,
        refunded: impl Fn(&Response<()>) -> bool + Send + Sync + 'static,
    ) -> BudgetLayer {
        self.rules.refund = Some(Arc::new(refunded));
        self
    }

    /// Lets a request that does not fit wait in line for as long as this, and no longer than until
    /// its deadline. Without it such a request is refused at once.
    ///
    /// The time stands in place of [`Ask::wait_at_most`].
    ///
    /// A pool whose root has no [timer](budget_pool::PoolBuilder::timer) cannot wait for time: where
    /// a wait would need the timer, the request is refused at once, too. A request that waits keeps
    /// the service that [`poll_ready`](tower_service::Service::poll_ready) has made ready for it.
    pub fn wait_within(mut self, time: Duration) -> BudgetLayer {
        self.rules.wait = Some(time);
        self
    }

    /// Reads the time that the caller still has from these headers: the earliest of all that a
    /// request has counts. A [`DeadlineBudget`] in the request's extensions tells the rest of it to
    /// the handler, and to the function that finds the pool.
    ///
    /// A request that is late from the start is refused with 504. A header that cannot be read is
    /// refused with 400, as a caller that cares for its deadline has to know. A request that has none
    /// of the headers has no `DeadlineBudget` either, unless
    /// [`deadline_at_most`](BudgetLayer::deadline_at_most) or
    /// [`deadline_below`](BudgetLayer::deadline_below) sets one.
    ///
    /// The layer does not cut the service off at the deadline. A handler answers its caller within
    /// [`remaining`](DeadlineBudget::remaining). The timeout of a single call, by
    /// [`timeout_for`](DeadlineBudget::timeout_for), has a floor of 100 ms, also where less is left.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use std::future::pending;
    /// use std::time::Duration;
    /// use axum::{Extension, Router, body::Body, http::StatusCode, routing::get};
    /// use budget_pool::{BudgetPool, DeadlineBudget};
    /// use budget_pool_tower::{BudgetLayer, DeadlineHeader, GRPC_TIMEOUT};
    /// use http::Request;
    /// use tokio::time::timeout;
    /// use tower::ServiceExt;
    ///
    /// async fn answer(Extension(time): Extension<DeadlineBudget>) -> Result<String, StatusCode> {
    ///     let work = pending::<String>(); // too long
    ///     timeout(time.remaining(), work).await.map_err(|_late| StatusCode::GATEWAY_TIMEOUT)
    /// }
    ///
    /// let pool = BudgetPool::builder().in_flight(100).build();
    /// let layer = BudgetLayer::new(move |_| Some(pool.clone()))
    ///     .deadline_from([GRPC_TIMEOUT, DeadlineHeader::millis("x-timeout-ms")])
    ///     .deadline_at_most(Duration::from_secs(10)); // so that each request has a deadline
    /// let app = Router::new().route("/", get(answer)).layer(layer);
    ///
    /// let request = Request::get("/").header("x-timeout-ms", "20").body(Body::empty()).unwrap();
    /// let response = app.oneshot(request).await.unwrap();
    /// assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    /// # });
    /// ```
    pub fn deadline_from(
        mut self,
        headers: impl IntoIterator<Item = DeadlineHeader>,
    ) -> BudgetLayer {
        self.rules.deadlines.headers = headers.into_iter().collect();
        self
    }

    /// The most time that a request gets, whatever its headers say, and what a request gets that says
    /// nothing.
    pub fn deadline_at_most(mut self, longest: Duration) -> BudgetLayer {
        self.rules.deadlines.longest = Some(longest);
        self
    }

    /// Makes the deadline of each request a [child](DeadlineBudget::child) of this one, which has its
    /// clock, its floor and its named caps. A [`DeadlineBudget`] that the request's extensions have
    /// already goes before it.
    pub fn deadline_below(mut self, service: DeadlineBudget) -> BudgetLayer {
        self.rules.deadlines.below = Some(service);
        self
    }

    /// Sets the [`RateLimitHeaders`] that tell a caller what is left. The layer sends none, unless
    /// this is set.
    pub fn headers(mut self, headers: RateLimitHeaders) -> BudgetLayer {
        self.rules.headers = headers;
        self
    }

    /// Of which pools, by name, callers may learn the figures. All of them, unless this is set.
    ///
    /// The limits of other pools count as ever. They are in no header, and a refusal by one of them
    /// names neither pool nor figures. Its `Retry-After` is told all the same.
    ///
    /// ```
    /// use budget_pool::BudgetPool;
    /// use budget_pool_tower::{BudgetLayer, RateLimitHeaders};
    ///
    /// let pool = BudgetPool::builder().name("service").requests(1_000_000).build();
    /// let layer = BudgetLayer::new(move |_| Some(pool.clone()))
    ///     .headers(RateLimitHeaders::Ietf)
    ///     .discloses(|pool| pool != "service");
    /// # let _ = layer;
    /// ```
    pub fn discloses(
        mut self,
        disclosed: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> BudgetLayer {
        self.rules.discloses = Some(Arc::new(disclosed));
        self
    }

    /// With which status a request is refused that can never fit.
    pub fn never(mut self, status: NeverStatus) -> BudgetLayer {
        self.rules.never = status;
        self
    }

    /// The rule for a hold whose response does not end, as the client hangs up or the body breaks off,
    /// and whose figure nobody has told. The default is [`OnDrop::Commit`], as the work was
    /// begun. It stands in place of the [`Ask`]'s own rule.
    pub fn on_drop(mut self, on_drop: OnDrop) -> BudgetLayer {
        self.rules.on_drop = on_drop;
        self
    }

    /// The rule for a hold whose service fails without a response. The default is
    /// [`OnDrop::Commit`]. [`OnDrop::Release`] suits a client whose calls fail before they are sent.
    pub fn on_error(mut self, on_error: OnDrop) -> BudgetLayer {
        self.rules.on_error = on_error;
        self
    }
}

impl Rules {
    pub(crate) fn ask_of(&self, request: &Request<()>) -> Ask {
        let ask = match &self.ask {
            Some(ask) => ask(request),
            None => Ask::new(Amount::new().requests(1)),
        };
        ask.on_drop(self.on_drop)
    }

    pub(crate) fn is_disclosed(&self, pool: &str) -> bool {
        self.discloses.as_ref().is_none_or(|discloses| discloses(pool))
    }
}

impl<S> Layer<S> for BudgetLayer {
    type Service = BudgetService<S>;

    fn layer(&self, inner: S) -> BudgetService<S> {
        BudgetService::new(inner, Arc::new(self.rules.clone()))
    }
}

impl fmt::Debug for BudgetLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.fmt(f)
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetLayer")
            .field("wait", &self.wait)
            .field("deadlines", &self.deadlines)
            .field("headers", &self.headers)
            .field("never", &self.never)
            .field("on_drop", &self.on_drop)
            .field("on_error", &self.on_error)
            .finish_non_exhaustive()
    }
}
