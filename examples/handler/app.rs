//! The service: what a request may take of its caller's time and of its tenant's money. This is the
//! part to take home.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::header::RETRY_AFTER;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{BoxError, Json, Router};
use budget_pool::{
    Amount, BudgetError, BudgetPool, Call, Caps, DeadlineBudget, Outlook, ParseGrpcTimeoutError,
    Usd,
};
use serde::Serialize;
use serde_json::json;

use crate::downstream::{Ask, Reply};
use crate::http::{self, Client};

/// The time of a request that does not say how much it has.
const USUAL: Duration = Duration::from_secs(2);
/// The most that any request gets, whatever it says.
pub const LONGEST: Duration = Duration::from_secs(3);

/// What one request may spend in all its calls.
const PER_REQUEST: Caps = Caps::new().tokens(3_000).usd(Usd::from_cents(1));
/// The name of its pool, by which refusals tell it from the tenant's.
const REQUEST: &str = "this request";

/// One of the calls that a request makes.
struct Step {
    name: &'static str,
    /// The most time that it gets.
    cap: Duration,
    /// The time that it leaves to what comes after it.
    keep: Duration,
    max_output: u64,
    /// Dollars for a million tokens.
    input_price: Usd,
    output_price: Usd,
}

const SEARCH: Step = Step {
    name: "search",
    cap: Duration::from_millis(500),
    keep: Duration::from_millis(300),
    max_output: 100,
    input_price: Usd::from_cents(10),
    output_price: Usd::from_cents(40),
};
const DRAFT: Step = Step {
    name: "draft",
    cap: Duration::from_millis(2_500),
    keep: Duration::from_millis(150),
    max_output: 400,
    input_price: Usd::from_dollars(3),
    output_price: Usd::from_dollars(15),
};
const JUDGE: Step = Step {
    name: "judge",
    cap: Duration::from_millis(500),
    keep: Duration::from_millis(20),
    max_output: 100,
    input_price: Usd::from_dollars(1),
    output_price: Usd::from_dollars(5),
};

impl Step {
    /// The most that the call can cost. A token is at least a byte, so the input is not underrated;
    /// what is too much comes back with the commit.
    fn estimate(&self, prompt: &str) -> Amount {
        self.amount(prompt.len() as u64, self.max_output)
    }

    fn bill(&self, reply: &Reply) -> Amount {
        self.amount(reply.input_tokens, reply.output_tokens)
    }

    fn amount(&self, input: u64, output: u64) -> Amount {
        let (input_usd, output_usd) =
            (Usd::for_tokens(input, self.input_price), Usd::for_tokens(output, self.output_price));
        Amount::new()
            .input_tokens(input)
            .output_tokens(output)
            .usd(input_usd.saturating_add(output_usd))
    }
}

/// What all requests share.
pub struct Service {
    /// Unbounded: it holds the caps of the named calls for the requests, whose times are children
    /// of it.
    time: DeadlineBudget,
    /// A fixed list. Pools made for whatever name a request brings would be memory and money for
    /// the asking.
    tenants: BTreeMap<String, BudgetPool>,
    downstream: SocketAddr,
    client: Client,
}

impl Service {
    pub fn new(
        downstream: SocketAddr,
        tenants: impl IntoIterator<Item = (&'static str, Caps)>,
    ) -> Arc<Service> {
        let caps = [SEARCH, DRAFT, JUDGE].map(|step| (step.name, step.cap));
        let time = DeadlineBudget::builder()
            .call_caps(caps)
            .build()
            .expect("without a total there is nothing wrong");
        // Pools that stand alone, so tenants do not even share a lock.
        let pool = |(name, caps): (&str, _)| {
            (name.to_owned(), BudgetPool::builder().name(name).caps(caps).build())
        };
        Arc::new(Service {
            time,
            tenants: tenants.into_iter().map(pool).collect(),
            downstream,
            client: http::client(),
        })
    }

    pub fn router(self: Arc<Service>) -> Router {
        Router::new().route("/answer", post(answer)).with_state(self)
    }

    pub fn tenants(&self) -> impl Iterator<Item = &BudgetPool> {
        self.tenants.values()
    }

    pub fn tenant(&self, name: &str) -> Option<&BudgetPool> {
        self.tenants.get(name)
    }

    /// The request's own budget, of time, tokens and money, under its tenant's.
    fn budget(&self, headers: &HeaderMap) -> Result<BudgetPool, Failure> {
        let time = self.time(headers)?;
        let tenant = headers.get("x-tenant").ok_or(Failure::NoTenant)?;
        let tenant = tenant
            .to_str()
            .ok()
            .and_then(|name| self.tenant(name))
            .ok_or(Failure::UnknownTenant)?;
        Ok(tenant.child().name(REQUEST).caps(PER_REQUEST).deadline(time).build())
    }

    fn time(&self, headers: &HeaderMap) -> Result<DeadlineBudget, Failure> {
        let longest = self.time.child(LONGEST);
        match headers.get("grpc-timeout") {
            None => Ok(longest.child(USUAL)),
            // Whatever is not text becomes text that does not parse.
            Some(value) => {
                Ok(longest.child_from_grpc_timeout(&String::from_utf8_lossy(value.as_bytes()))?)
            }
        }
    }

    /// One call, within the time and the money that `request` has left.
    async fn call(
        &self,
        request: &BudgetPool,
        step: &Step,
        prompt: String,
    ) -> Result<String, Failure> {
        let Step { name, keep, .. } = *step;
        let time = request.deadline().expect("every request has one");
        // Strict: with less left than the floor of 100 ms the call would be paid for, and hardly
        // end in time.
        let timeout = time
            .timeout_for(Call::named(name).reserve_for_next(keep).strict())
            .map_err(BudgetError::from)?;
        let hold = request.reserve(step.estimate(&prompt))?.label(name);

        let url = format!("http://{}/{name}", self.downstream);
        // The call's share of the request's time, because after that we no longer listen.
        let left = time.child(timeout).to_grpc_timeout();
        let headers = left
            .iter()
            .map(|left| ("grpc-timeout", left.as_str()))
            .chain([("content-type", "application/json")]);
        let ask = serde_json::to_vec(&Ask { prompt, max_output: step.max_output })
            .map_err(BoxError::from)?;
        let asked = http::post(&self.client, &url, headers, ask);

        // Every way out before the commit gives the hold back: a timeout, a `?`, or the client
        // hanging up, upon which axum drops this future. If your provider bills also what
        // you no longer listen to, add `.commit_on_drop()` to the hold.
        let late = Failure::TimedOut { call: name, timeout };
        let response = match tokio::time::timeout(timeout, asked).await {
            Err(_) => return Err(late),
            Ok(response) => response?,
        };
        match response.status() {
            StatusCode::OK => {}
            StatusCode::GATEWAY_TIMEOUT => return Err(late), /* its clock was a little ahead of */
            // ours
            status => return Err(Failure::Downstream(format!("{name} answered {status}").into())),
        }
        let reply: Reply = serde_json::from_slice(response.body()).map_err(BoxError::from)?;
        hold.commit(step.bill(&reply));
        Ok(reply.text)
    }
}

/// Taken from the head of a request, so that its time runs while its body is still being read.
struct Budget(BudgetPool);

impl FromRequestParts<Arc<Service>> for Budget {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<Service>,
    ) -> Result<Budget, Failure> {
        service.budget(&parts.headers).map(Budget)
    }
}

#[derive(Serialize)]
struct Answer {
    answer: String,
    verdict: String,
    tokens: u64,
    usd: String,
}

async fn answer(
    State(service): State<Arc<Service>>,
    Budget(request): Budget,
    question: String,
) -> Result<Json<Answer>, Failure> {
    let found = service.call(&request, &SEARCH, question.clone()).await?;
    let answer = service.call(&request, &DRAFT, format!("{question}\n{found}")).await?;
    let verdict = service.call(&request, &JUDGE, format!("{question}\n{found}\n{answer}")).await?;
    let bill = request.snapshot();
    Ok(Json(Answer { answer, verdict, tokens: bill.tokens.spent, usd: bill.usd.spent.to_string() }))
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("bad grpc-timeout header: {0}")]
    BadTimeout(#[from] ParseGrpcTimeoutError),
    #[error("no x-tenant header")]
    NoTenant,
    #[error("unknown tenant")]
    UnknownTenant,
    #[error(transparent)]
    Refused(#[from] BudgetError),
    #[error("no answer from {call} within {timeout:?}")]
    TimedOut { call: &'static str, timeout: Duration },
    #[error("downstream failed: {0}")]
    Downstream(#[from] BoxError),
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Failure::BadTimeout(_) | Failure::NoTenant => StatusCode::BAD_REQUEST,
            Failure::UnknownTenant => StatusCode::FORBIDDEN,
            Failure::TimedOut { .. } | Failure::Refused(BudgetError::DeadlineExceeded(_)) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            // More than any request may spend: it is this one that is too large, whatever its
            // tenant has. As no call costs more than its estimate, only the length of
            // the question decides that.
            Failure::Refused(BudgetError::Exceeded(refusal)) if refusal.pool() == REQUEST => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            // Also if it will never fit; then without Retry-After, and the text says so. Clients
            // that retry any 429 are better served by 402 there.
            Failure::Refused(BudgetError::Exceeded(_)) => StatusCode::TOO_MANY_REQUESTS,
            // Closed, say.
            Failure::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Downstream(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// When to come again, in seconds, if that can help at all.
    ///
    /// What is missing is held by the tenant's other requests, and no hold outlives its request:
    /// after the longest time that a request can have, all that stand in the way now are gone.
    /// More cannot be said. They may end much earlier, what they really spend does not come
    /// back, and others may have come by then.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Failure::Refused(refusal) if refusal.outlook() == Outlook::AfterRelease => {
                Some(LONGEST.as_secs())
            }
            _ => None,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after().map(|seconds| [(RETRY_AFTER, seconds.to_string())]);
        (self.status(), retry_after, Json(json!({ "error": self.to_string() }))).into_response()
    }
}
