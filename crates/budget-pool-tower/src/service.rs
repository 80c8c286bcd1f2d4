//! The service: admission before the call, and the hold in its response.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use budget_pool::{Ask, BudgetError, BudgetPool, DeadlineBudget, OnDrop, Reservation, Wait};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::bill::{OpenHold, Said};
use crate::body::BudgetBody;
use crate::deadline::digits;
use crate::headers::{self, RateLimitHeaders};
use crate::layer::Rules;
use crate::refusal::Refusal;

/// A service that asks a pool before each request: see [`BudgetLayer`](crate::BudgetLayer).
///
/// `poll_ready` is that of the inner service. A request is admitted or refused in `call`, or waits in
/// the future that `call` returns. A refusal is a response, and no error.
#[derive(Clone)]
pub struct BudgetService<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S> BudgetService<S> {
    pub(crate) fn new(inner: S, rules: Arc<Rules>) -> BudgetService<S> {
        BudgetService { inner, rules }
    }

    /// The inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: fmt::Debug> fmt::Debug for BudgetService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetService")
            .field("inner", &self.inner)
            .field("rules", &self.rules)
            .finish()
    }
}

impl<S, B, R> Service<Request<B>> for BudgetService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Body,
    R::Data: From<Vec<u8>>,
{
    type Response = Response<BudgetBody<R>>;
    type Error = S::Error;
    type Future = BudgetFuture<S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> BudgetFuture<S, B> {
        // The clone is not ready: the service that is goes with the request.
        let next = self.inner.clone();
        let ready = mem::replace(&mut self.inner, next);
        BudgetFuture::new(ready, request, Arc::clone(&self.rules))
    }
}

pin_project! {
    /// The response to come of a [`BudgetService`]. It waits in line first, if the layer lets it.
    ///
    /// Dropped while the request waits, it gives up the place. Dropped while the request is served,
    /// it drops the service's future, and then the hold, which ends as
    /// [`BudgetLayer::on_drop`](crate::BudgetLayer::on_drop) says.
    #[must_use = "a future does nothing unless it is polled"]
    pub struct BudgetFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
        seen: Seen,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Waiting { wait: Wait, ask: Ask, call: Option<(S, Request<B>)> },
        // The service's future goes before the hold.
        Calling { #[pin] future: S::Future, hold: Option<OpenHold> },
        Refused { refusal: Option<Refusal> },
        Ended,
    }
}

/// A panic of a caller that polls on.
const AFTER_ITS_END: &str = "a future is not polled after its end";

/// The media types of gRPC, before a suffix and parameters.
const GRPC: [&str; 3] = ["application/grpc", "application/grpc-web", "application/grpc-web-text"];

/// Whether a content type is one of gRPC. A client of another type would take a refusal by
/// `grpc-status` for a success.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let ends = |byte: &u8| matches!(byte, b'+' | b';' | b' ' | b'\t');
    let name = content_type.as_bytes().split(ends).next().unwrap_or_default();
    // A media type has no case.
    GRPC.iter().any(|grpc| name.eq_ignore_ascii_case(grpc.as_bytes()))
}

/// The known facts about a request whose head has gone to the service.
struct Seen {
    rules: Arc<Rules>,
    pool: Option<BudgetPool>,
    deadline: Option<DeadlineBudget>,
    method: Method,
    /// The content type of a gRPC request.
    grpc: Option<HeaderValue>,
}

impl<S, B> BudgetFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn new(service: S, request: Request<B>, rules: Arc<Rules>) -> BudgetFuture<S, B> {
        let (mut parts, body) = request.into_parts();
        let mut seen = Seen {
            pool: None,
            deadline: None,
            method: parts.method.clone(),
            grpc: parts.headers.get(CONTENT_TYPE).filter(|named| is_grpc(named)).cloned(),
            rules,
        };
        let refused =
            |refusal, seen| BudgetFuture { state: State::Refused { refusal: Some(refusal) }, seen };
        match seen.rules.deadlines.find(&parts.headers, &mut parts.extensions) {
            Ok(deadline) => seen.deadline = deadline,
            Err(error) => return refused(Refusal::BadDeadline(error), seen),
        }
        let head = Request::from_parts(parts, ());
        seen.pool = (seen.rules.pool)(&head);
        let asked = seen.pool.clone().map(|pool| (pool, seen.rules.ask_of(&head)));
        if let Some(Err(late)) = seen.deadline.as_ref().map(DeadlineBudget::check) {
            return refused(Refusal::Budget(late.into()), seen);
        }
        let request = Request::from_parts(head.into_parts().0, body);
        let Some((pool, ask)) = asked else {
            return BudgetFuture { state: State::call(service, request, None), seen };
        };
        if let Some(time) = seen.rules.wait {
            let left = seen.deadline.as_ref().map(DeadlineBudget::remaining);
            let time = left.map_or(time, |left| time.min(left));
            let wait = pool.reserve_wait(ask.clone().wait_at_most(time));
            let state = State::Waiting { wait, ask, call: Some((service, request)) };
            return BudgetFuture { state, seen };
        }
        match pool.reserve(ask) {
            Ok(hold) => BudgetFuture { state: State::call(service, request, Some(hold)), seen },
            Err(error) => refused(Refusal::Budget(error), seen),
        }
    }
}

impl<S, B> State<S, B>
where
    S: Service<Request<B>>,
{
    fn call(mut service: S, mut request: Request<B>, hold: Option<Reservation>) -> State<S, B> {
        let hold = hold.map(OpenHold::new);
        if let Some(hold) = &hold {
            request.extensions_mut().insert(hold.bill());
        }
        let future = service.call(request);
        // As with the future: its drop may panic, and the hold is not to be leaked then.
        drop(service);
        State::Calling { future, hold }
    }
}

impl<S, B, R> Future for BudgetFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
    R::Data: From<Vec<u8>>,
{
    type Output = Result<Response<BudgetBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Waiting { wait, ask, call } => {
                    let granted = ready!(Pin::new(wait).poll(context));
                    let granted = granted
                        .or_else(|error| this.seen.instead_of(error, ask))
                        .and_then(|hold| this.seen.in_time(hold));
                    let (service, request) = call.take().expect("a wait is over once");
                    match granted {
                        Ok(hold) => State::call(service, request, Some(hold)),
                        Err(error) => State::Refused { refusal: Some(Refusal::Budget(error)) },
                    }
                }
                StateProj::Calling { future, hold } => {
                    let result = ready!(future.poll(context));
                    let hold = hold.take();
                    // Here and not after the end: where the drop of a future panics, what the future
                    // has returned is leaked by its caller, and with it the hold.
                    this.state.set(State::Ended);
                    return Poll::Ready(match result {
                        Ok(response) => Ok(this.seen.response(response, hold)),
                        Err(error) => {
                            this.seen.failed(hold);
                            Err(error)
                        }
                    });
                }
                StateProj::Refused { refusal } => {
                    let refusal = refusal.take().expect(AFTER_ITS_END);
                    return Poll::Ready(Ok(this.seen.refusal(refusal)));
                }
                StateProj::Ended => panic!("{AFTER_ITS_END}"),
            };
            this.state.set(next);
        }
    }
}

impl Seen {
    /// The outcome that stands in for a wait that has failed.
    fn instead_of(&self, error: BudgetError, ask: &Ask) -> Result<Reservation, BudgetError> {
        match (error, &self.pool) {
            // Without a timer the request is asked as if it could not wait.
            (BudgetError::NoTimer { .. }, Some(pool)) => pool.reserve(ask.clone()),
            (error @ BudgetError::Timeout { .. }, _) => {
                // The deadline was what ended the wait.
                let late = self.deadline.as_ref().and_then(|deadline| deadline.check().err());
                Err(late.map_or(error, BudgetError::from))
            }
            (error, _) => Err(error),
        }
    }

    /// The hold, unless the deadline came before the look at the grant: nobody listens any more.
    fn in_time(&self, hold: Reservation) -> Result<Reservation, BudgetError> {
        match self.deadline.as_ref().map_or(Ok(()), DeadlineBudget::check) {
            Ok(()) => Ok(hold),
            Err(late) => {
                hold.release();
                Err(late.into())
            }
        }
    }

    fn response<R: Body>(
        &self,
        response: Response<R>,
        hold: Option<OpenHold>,
    ) -> Response<BudgetBody<R>> {
        let Some(mut hold) = hold else { return response.map(BudgetBody::free) };
        let rules = &self.rules;
        let (parts, body) = response.into_parts();
        let head = Response::from_parts(parts, ());
        if rules.refund.as_ref().is_some_and(|refunds| refunds(&head)) {
            hold.head_says(Said::Refund);
        } else if let Some(total) = rules.settle.as_ref().and_then(|settle| settle(&head)) {
            hold.head_says(Said::Total(total));
        }
        let length = self.length_of(&head);
        let (mut parts, ()) = head.into_parts();
        self.write_headers(&mut parts.headers);
        let body = BudgetBody::holding(body, length, hold, Arc::clone(rules));
        Response::from_parts(parts, body)
    }

    /// The length of a body as its head tells it: zero where HTTP has none.
    fn length_of(&self, head: &Response<()>) -> Option<u64> {
        let status = head.status();
        let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || status.is_informational()
            || self.method == Method::HEAD
            || (self.method == Method::CONNECT && status.is_success());
        if has_none {
            return Some(0);
        }
        let mut lengths = head.headers().get_all(CONTENT_LENGTH).iter();
        let length = digits(lengths.next()?.to_str().ok()?);
        // Of two lengths nobody knows which counts.
        length.filter(|_| lengths.next().is_none())
    }

    fn failed(&self, hold: Option<OpenHold>) {
        let Some(mut hold) = hold else { return };
        if self.rules.on_error == OnDrop::Release {
            hold.head_says(Said::Refund);
        }
        // A drop would go by `on_drop`.
        hold.finish();
    }

    fn refusal<R: Body>(&self, refusal: Refusal) -> Response<BudgetBody<R>> {
        let limits = self.pool.as_ref().map(BudgetPool::limits).unwrap_or_default();
        let mut response = refusal.into_response(self.grpc.clone(), &limits, &self.rules);
        self.write_headers(response.headers_mut());
        response
    }

    fn write_headers(&self, headers: &mut http::HeaderMap) {
        if let (RateLimitHeaders::Ietf, Some(pool)) = (self.rules.headers, &self.pool) {
            headers::write(headers, &pool.limits(), |pool| self.rules.is_disclosed(pool));
        }
    }
}

impl<S, B> fmt::Debug for BudgetFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "waiting",
            State::Calling { .. } => "calling",
            State::Refused { .. } => "refused",
            State::Ended => "ended",
        };
        f.debug_struct("BudgetFuture").field("state", &state).finish_non_exhaustive()
    }
}
