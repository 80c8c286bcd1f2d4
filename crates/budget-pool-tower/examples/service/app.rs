//! The service: what a request may take of its caller's time and of its tenant's money. This is the
//! part to take home.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Extensions, Request, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{BoxError, Json, Router};
use budget_pool::{
    Amount, BudgetPool, Call, Caps, DeadlineBudget, DeadlineExceeded, Exporter, OnDrop, Usd,
};
use budget_pool_tower::{Bill, BudgetLayer, GRPC_TIMEOUT, NeverStatus, RateLimitHeaders};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use serde::Serialize;
use serde_json::json;

use crate::downstream::{Ask, Reply};
use crate::http::{self, Client};

/// The most time that any request gets, whatever it says.
pub const LONGEST: Duration = Duration::from_secs(3);
/// How long a request waits in line for what others of its tenant hold.
pub const WAIT: Duration = Duration::from_secs(1);
/// The longest question, in bytes.
const LONGEST_QUESTION: usize = 2_000;

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
    fn cost(&self, input: u64, output: u64) -> Amount {
        let input_usd = Usd::for_tokens(input, self.input_price);
        let output_usd = Usd::for_tokens(output, self.output_price);
        let usd = input_usd.saturating_add(output_usd);
        Amount::new().input_tokens(input).output_tokens(output).usd(usd)
    }
}

/// The most that a request can cost. A token is at least a byte, so the input is not underrated; what
/// is too much comes back with the bill.
fn most(question: u64) -> Amount {
    let steps = [SEARCH, DRAFT, JUDGE].iter().zip([0, 400, 800]);
    let costs = steps.map(|(step, found)| step.cost(question + found, step.max_output));
    costs.fold(Amount::new().requests(1), |sum, cost| sum + cost)
}

/// What all requests share.
pub struct Service {
    /// All tenants are below it.
    all: BudgetPool,
    /// A fixed list. Pools made for whatever name a request brings would be memory and money for
    /// the asking.
    tenants: BTreeMap<String, BudgetPool>,
    metrics: (Exporter, PrometheusRecorder),
    downstream: SocketAddr,
    client: Client,
}

impl Service {
    pub fn new(
        downstream: SocketAddr,
        tenants: impl IntoIterator<Item = (&'static str, Caps)>,
    ) -> Arc<Service> {
        let all = BudgetPool::builder().name("service").usd(Usd::from_dollars(100)).tokio().build();
        let tenant = |(name, caps)| (String::from(name), all.child().name(name).caps(caps).build());
        let tenants = tenants.into_iter().map(tenant).collect();
        let metrics = (Exporter::new(&all).depth(1), PrometheusBuilder::new().build_recorder());
        Arc::new(Service { all, tenants, metrics, downstream, client: http::client() })
    }

    pub fn router(self: Arc<Service>) -> Router {
        let caps = [SEARCH, DRAFT, JUDGE].map(|step| (step.name, step.cap));
        let time = DeadlineBudget::builder().call_caps(caps).build();
        let tenants = self.tenants.clone();
        let layer = BudgetLayer::new(move |request: &Request<_>| {
            tenants.get(request.headers().get("x-tenant")?.to_str().ok()?).cloned()
        })
        .ask(|request| {
            let length = request.headers().get(CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
            most(length.unwrap_or(LONGEST_QUESTION as u64))
        })
        // What was spent is on the bill at each moment. Without a bill, nothing was.
        .on_drop(OnDrop::Release)
        .refund(|response| !response.status().is_success())
        .wait_within(WAIT)
        .deadline_below(time.expect("without a total there is nothing wrong"))
        .deadline_at_most(LONGEST)
        .deadline_from([GRPC_TIMEOUT])
        .never(NeverStatus::PaymentRequired)
        .headers(RateLimitHeaders::Ietf)
        .discloses(|pool| pool != "service");
        Router::new()
            .route("/answer", post(answer))
            .layer(DefaultBodyLimit::max(LONGEST_QUESTION))
            .layer(layer)
            .route("/", get(Html(include_str!("page.html"))))
            .route(
                "/budgets",
                get(async |State(service): Service_| Json(service.all.snapshot_tree())),
            )
            .route("/metrics", get(async |State(service): Service_| service.metrics()))
            .with_state(self)
    }

    fn metrics(&self) -> String {
        let (exporter, recorder) = &self.metrics;
        metrics::with_local_recorder(recorder, || exporter.export());
        recorder.handle().render()
    }

    /// The pool of all tenants.
    pub fn all(&self) -> &BudgetPool {
        &self.all
    }

    pub fn tenants(&self) -> impl Iterator<Item = &BudgetPool> {
        self.tenants.values()
    }

    pub fn tenant(&self, name: &str) -> Option<&BudgetPool> {
        self.tenants.get(name)
    }

    /// One call, within the time that the request has left.
    async fn call(
        &self,
        request: &mut Spent,
        step: &Step,
        prompt: String,
    ) -> Result<String, Failure> {
        let Step { name, keep, max_output, .. } = *step;
        // Strict: with less left than the floor of 100 ms the call would be paid for, and hardly
        // end in time.
        let call = Call::named(name).reserve_for_next(keep).strict();
        let timeout = request.time.timeout_for(call)?;
        // The call's share of the request's time, because after that we no longer listen.
        let left = request.time.child(timeout).to_grpc_timeout();
        let headers = left
            .iter()
            .map(|left| ("grpc-timeout", left.as_str()))
            .chain([("content-type", "application/json")]);
        let ask = serde_json::to_vec(&Ask { prompt, max_output }).map_err(BoxError::from)?;
        let url = format!("http://{}/{name}", self.downstream);
        let asked = http::post(&self.client, &url, headers, ask);
        let late = Failure::TimedOut { call: name, timeout };
        let response = match tokio::time::timeout(timeout, asked).await {
            Err(_) => return Err(late),
            Ok(response) => response?,
        };
        match response.status() {
            StatusCode::OK => {}
            // Its clock was a little ahead of ours.
            StatusCode::GATEWAY_TIMEOUT => return Err(late),
            status => return Err(Failure::Downstream(format!("{name} answered {status}").into())),
        }
        let reply: Reply = serde_json::from_slice(response.body()).map_err(BoxError::from)?;
        request.add(step.cost(reply.input_tokens, reply.output_tokens));
        Ok(reply.text)
    }
}

type Service_ = State<Arc<Service>>;

/// What a request has spent, on its bill at each moment: cut off, it pays for the calls that it made.
struct Spent {
    time: DeadlineBudget,
    bill: Bill,
    total: Amount,
}

impl Spent {
    fn new(time: DeadlineBudget, bill: Bill) -> Spent {
        let nothing = Amount::new().input_tokens(0).output_tokens(0).usd(Usd::ZERO);
        let mut spent = Spent { time, bill, total: nothing.requests(1) };
        spent.add(nothing);
        spent
    }

    fn add(&mut self, cost: Amount) {
        self.total += cost;
        self.bill.total(self.total);
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
    known: Extensions,
    question: String,
) -> Result<Json<Answer>, Failure> {
    let (Some(bill), Some(time)) = (known.get::<Bill>(), known.get::<DeadlineBudget>()) else {
        return Err(Failure::UnknownTenant);
    };
    let request = &mut Spent::new(time.clone(), bill.clone());
    let found = service.call(request, &SEARCH, question.clone()).await?;
    let answer = service.call(request, &DRAFT, format!("{question}\n{found}")).await?;
    let verdict = service.call(request, &JUDGE, format!("{question}\n{found}\n{answer}")).await?;
    let (input, output) = (budget_pool::Axis::InputTokens, budget_pool::Axis::OutputTokens);
    let tokens = request.total.units(input) + request.total.units(output);
    let usd = Usd::from_nanos(request.total.units(budget_pool::Axis::Usd)).to_string();
    Ok(Json(Answer { answer, verdict, tokens, usd }))
}

/// Why a request that was admitted got no answer.
#[derive(Debug)]
enum Failure {
    UnknownTenant,
    Late(DeadlineExceeded),
    TimedOut { call: &'static str, timeout: Duration },
    Downstream(BoxError),
}

impl From<DeadlineExceeded> for Failure {
    fn from(late: DeadlineExceeded) -> Failure {
        Failure::Late(late)
    }
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Failure {
        Failure::Downstream(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Failure::UnknownTenant => (StatusCode::FORBIDDEN, "unknown tenant".to_owned()),
            Failure::Late(late) => (StatusCode::GATEWAY_TIMEOUT, late.to_string()),
            Failure::TimedOut { call, timeout } => {
                (StatusCode::GATEWAY_TIMEOUT, format!("no answer from {call} within {timeout:?}"))
            }
            Failure::Downstream(error) => {
                (StatusCode::BAD_GATEWAY, format!("downstream failed: {error}"))
            }
        };
        (status, Json(json!({ "detail": detail }))).into_response()
    }
}
