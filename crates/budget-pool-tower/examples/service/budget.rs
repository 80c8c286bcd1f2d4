//! All that the service has to do about budgets and deadlines. This is the part to take home.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::header::CONTENT_LENGTH;
use axum::http::{Extensions, Request};
use budget_pool::{
    Amount, BudgetPool, Call, Caps, DeadlineBudget, DeadlineExceeded, Exporter, OnDrop, Usd,
};
use budget_pool_tower::{Bill, BudgetLayer, GRPC_TIMEOUT, NeverStatus, RateLimitHeaders};
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::app::{LONGEST_QUESTION, STEPS, Step};

/// The most time that any request gets, whatever it says.
pub const LONGEST: Duration = Duration::from_secs(3);
/// How long a request waits in line for what others of its tenant hold.
pub const WAIT: Duration = Duration::from_secs(1);

/// The pool of all tenants, and theirs below it: a fixed list. Pools made for whatever name a request
/// brings would be memory and money for the asking.
pub fn pools<'a>(
    tenants: impl IntoIterator<Item = (&'a str, Caps)>,
) -> (BudgetPool, BTreeMap<String, BudgetPool>) {
    let all = BudgetPool::builder().name("service").usd(Usd::from_dollars(100)).tokio().build();
    let tenant = |(name, caps)| (String::from(name), all.child().name(name).caps(caps).build());
    let tenants = tenants.into_iter().map(tenant).collect();
    (all, tenants)
}

/// The layer of the service: what is held for a request, for how long it waits, and what it is told.
pub fn layer(tenants: BTreeMap<String, BudgetPool>) -> BudgetLayer {
    let time = DeadlineBudget::builder().call_caps(STEPS.map(|step| (step.name, step.cap))).build();
    BudgetLayer::new(move |request: &Request<_>| {
        tenants.get(request.headers().get("x-tenant")?.to_str().ok()?).cloned()
    })
    .ask(|request| {
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        most(length.unwrap_or(LONGEST_QUESTION))
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
    .discloses(|pool| pool != "service")
}

pub fn cost(step: &Step, input: u64, output: u64) -> Amount {
    let [input_usd, output_usd] = [(input, step.input_price), (output, step.output_price)]
        .map(|(tokens, price)| Usd::for_tokens(tokens, price));
    let tokens = Amount::new().input_tokens(input).output_tokens(output);
    tokens.usd(input_usd.saturating_add(output_usd))
}

/// The most that a request can cost. A token is at least a byte, so the input is not underrated; what
/// is too much comes back with the bill.
fn most(question: u64) -> Amount {
    let input = |step: &Step| question.saturating_add(step.found);
    let costs = STEPS.iter().map(|step| cost(step, input(step), step.max_output));
    costs.fold(Amount::new().requests(1), |sum, cost| sum + cost)
}

/// The bill and the time of a request of a tenant. The bill begins with the request itself, and each
/// call is added: a request that is cut off pays for the calls that it made.
pub fn begin(known: &Extensions) -> Option<(Bill, DeadlineBudget)> {
    let (bill, time) = (known.get::<Bill>()?, known.get::<DeadlineBudget>()?);
    bill.add(Amount::new().requests(1).input_tokens(0).output_tokens(0).usd(Usd::ZERO));
    Some((bill.clone(), time.clone()))
}

/// The time of a call, and the header that tells it to the server: after that nobody listens.
///
/// Strict: with less left than the floor of 100 ms the call would be paid for, and hardly end in time.
pub fn time_for(
    time: &DeadlineBudget,
    step: &Step,
) -> Result<(Duration, Option<String>), DeadlineExceeded> {
    let call = Call::named(step.name).reserve_for_next(step.keep).strict();
    let timeout = time.timeout_for(call)?;
    Ok((timeout, time.child(timeout).to_grpc_timeout()))
}

/// What Prometheus scrapes.
pub fn metrics(exporter: &Exporter, recorder: &PrometheusRecorder) -> String {
    metrics::with_local_recorder(recorder, || exporter.export());
    recorder.handle().render()
}
