//! The service: three calls to another server for each question, and what is shown of the budgets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Extensions, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{BoxError, Json, Router};
use budget_pool::{
    Amount, Axis, BudgetPool, Caps, DeadlineBudget, DeadlineExceeded, Exporter, Usd,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use serde::Serialize;
use serde_json::json;

use crate::budget;
use crate::downstream::{Ask, Reply};
use crate::http::{self, Client};

/// The longest question, in bytes.
pub const LONGEST_QUESTION: u64 = 2_000;

/// One of the calls that a request makes.
pub struct Step {
    pub name: &'static str,
    /// The most time that it gets.
    pub cap: Duration,
    /// The time that it leaves to what comes after it.
    pub keep: Duration,
    /// How many tokens of its prompt come from the calls before it, at most.
    pub found: u64,
    pub max_output: u64,
    /// Dollars for a million tokens.
    pub input_price: Usd,
    pub output_price: Usd,
}

pub const STEPS: [Step; 3] = [SEARCH, DRAFT, JUDGE];

const SEARCH: Step = Step {
    name: "search",
    cap: Duration::from_millis(500),
    keep: Duration::from_millis(300),
    found: 0,
    max_output: 100,
    input_price: Usd::from_cents(10),
    output_price: Usd::from_cents(40),
};
const DRAFT: Step = Step {
    name: "draft",
    cap: Duration::from_millis(2_500),
    keep: Duration::from_millis(150),
    found: 400,
    max_output: 400,
    input_price: Usd::from_dollars(3),
    output_price: Usd::from_dollars(15),
};
const JUDGE: Step = Step {
    name: "judge",
    cap: Duration::from_millis(500),
    keep: Duration::from_millis(20),
    found: 800,
    max_output: 100,
    input_price: Usd::from_dollars(1),
    output_price: Usd::from_dollars(5),
};

/// What all requests share.
pub struct Service {
    /// All tenants are below it.
    all: BudgetPool,
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
        let (all, tenants) = budget::pools(tenants);
        let metrics = (Exporter::new(&all).depth(1), PrometheusBuilder::new().build_recorder());
        Arc::new(Service { all, tenants, metrics, downstream, client: http::client() })
    }

    pub fn router(self: Arc<Service>) -> Router {
        Router::new()
            .route("/answer", post(answer))
            .layer(DefaultBodyLimit::max(LONGEST_QUESTION as usize))
            .layer(budget::layer(self.tenants.clone()))
            .route("/", get(Html(include_str!("page.html"))))
            .route(
                "/budgets",
                get(async |State(service): Service_| Json(service.all.snapshot_tree())),
            )
            .route(
                "/metrics",
                get(async |State(service): Service_| {
                    let (exporter, recorder) = &service.metrics;
                    budget::metrics(exporter, recorder)
                }),
            )
            .with_state(self)
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

    /// One call, within the time that the request has left: its text, and its cost.
    async fn call(
        &self,
        time: &DeadlineBudget,
        step: &Step,
        prompt: String,
    ) -> Result<(String, Amount), Failure> {
        let (name, max_output) = (step.name, step.max_output);
        let (timeout, left) = budget::time_for(time, step)?;
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
        Ok((reply.text, budget::cost(step, reply.input_tokens, reply.output_tokens)))
    }
}

type Service_ = State<Arc<Service>>;

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
    let Some((bill, time)) = budget::begin(&known) else { return Err(Failure::UnknownTenant) };
    let mut total = Amount::new();
    let mut call = async |step, prompt| {
        let (text, cost) = service.call(&time, step, prompt).await?;
        bill.add(cost);
        total += cost;
        Ok::<String, Failure>(text)
    };
    let found = call(&SEARCH, question.clone()).await?;
    let answer = call(&DRAFT, format!("{question}\n{found}")).await?;
    let verdict = call(&JUDGE, format!("{question}\n{found}\n{answer}")).await?;
    let usd = Usd::from_nanos(total.units(Axis::Usd)).to_string();
    Ok(Json(Answer { answer, verdict, tokens: total.units(Axis::Tokens), usd }))
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
