//! Refusals, as HTTP and gRPC tell them.

use std::fmt::Write;

use budget_pool::{BudgetError, Limit};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Body;

use crate::body::BudgetBody;
use crate::deadline::BadDeadline;
use crate::headers::{ascii, policy_names, seconds};
use crate::layer::Rules;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

const QUOTA: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
const BLANK: &str = "about:blank";

/// With which status a request is refused that can never fit, whatever time and other requests bring:
/// for [`BudgetLayer::never`](crate::BudgetLayer::never).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum NeverStatus {
    /// 429 without `Retry-After`. The member `outlook` of the problem says `never`.
    #[default]
    TooManyRequests,
    /// 402, for clients that retry each 429.
    PaymentRequired,
}

/// Why a request is not served.
#[derive(Debug)]
pub(crate) enum Refusal {
    Budget(BudgetError),
    BadDeadline(BadDeadline),
}

/// The terms of a refusal in both protocols.
struct Terms {
    status: StatusCode,
    grpc: u8,
    kind: &'static str,
    title: &'static str,
}

impl Refusal {
    /// `grpc` is the content type of a gRPC request: its refusal is a head with a status, and no
    /// body. `limits` are those of the path of the pool.
    pub(crate) fn into_response<B: Body>(
        self,
        grpc: Option<HeaderValue>,
        limits: &[Limit],
        rules: &Rules,
    ) -> Response<BudgetBody<B>> {
        let terms = self.terms(rules);
        let is_disclosed = match &self {
            Refusal::Budget(error) => match reason(error) {
                // The deadline of a request is no pool's.
                BudgetError::DeadlineExceeded(late) if late.pool().is_none() => true,
                reason => rules.is_disclosed(reason.pool()),
            },
            Refusal::BadDeadline(_) => true,
        };
        let detail = match &self {
            // A wait in vain names the pool that was asked, too.
            Refusal::Budget(error) if is_disclosed && !rules.is_disclosed(error.pool()) => {
                reason(error).to_string()
            }
            Refusal::Budget(error) if is_disclosed => error.to_string(),
            Refusal::Budget(_) => "a limit of the service refuses".to_owned(),
            Refusal::BadDeadline(error) => error.to_string(),
        };
        let mut response = match grpc {
            Some(content_type) => {
                let mut response = Response::new(BudgetBody::refusal(String::new()));
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, content_type);
                headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(terms.grpc)));
                // Printable ASCII is what a message of gRPC is made of, with the same escapes.
                if let Ok(message) = HeaderValue::from_str(&ascii(&detail)) {
                    headers.insert(GRPC_MESSAGE, message);
                }
                response
            }
            None => {
                let policies =
                    if is_disclosed { self.violated(terms.kind, limits) } else { Vec::new() };
                let mut response = Response::new(BudgetBody::refusal(self.problem(
                    &terms,
                    &detail,
                    is_disclosed.then_some(&policies[..]),
                )));
                *response.status_mut() = terms.status;
                response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
                response
            }
        };
        if let Refusal::Budget(error) = self {
            if let Some(after) = error.retry_after() {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds(after)));
            }
            response.extensions_mut().insert(error);
        }
        response
    }

    fn terms(&self, rules: &Rules) -> Terms {
        use budget_pool::Outlook::Never;

        let quota = |status, title| Terms { status, grpc: 8, kind: QUOTA, title };
        let error = match self {
            Refusal::BadDeadline(_) => {
                let status = StatusCode::BAD_REQUEST;
                return Terms { status, grpc: 3, kind: BLANK, title: "Bad Request" };
            }
            Refusal::Budget(error) => reason(error),
        };
        match error {
            BudgetError::DeadlineExceeded(_) => {
                let status = StatusCode::GATEWAY_TIMEOUT;
                Terms { status, grpc: 4, kind: BLANK, title: "Gateway Timeout" }
            }
            BudgetError::Paused { .. } => Terms {
                status: StatusCode::SERVICE_UNAVAILABLE,
                grpc: 14,
                kind: REDUCED,
                title: "Request cannot be satisfied for now",
            },
            BudgetError::Exceeded(exceeded) if exceeded.outlook() == Never => {
                let status = match rules.never {
                    NeverStatus::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
                    NeverStatus::PaymentRequired => StatusCode::PAYMENT_REQUIRED,
                };
                quota(status, "Request can never be satisfied by the assigned quota")
            }
            BudgetError::Exceeded(_)
            | BudgetError::Queued { .. }
            | BudgetError::QueueFull { .. } => quota(
                StatusCode::TOO_MANY_REQUESTS,
                "Request cannot be satisfied as assigned quota has been exceeded",
            ),
            // Closed, and what no reservation is refused with.
            _ => Terms {
                status: StatusCode::SERVICE_UNAVAILABLE,
                grpc: 14,
                kind: BLANK,
                title: "Service Unavailable",
            },
        }
    }

    /// The names of the policies that refuse, as the headers name them.
    fn violated(&self, kind: &str, limits: &[Limit]) -> Vec<String> {
        let Refusal::Budget(error) = self else { return Vec::new() };
        if kind == BLANK {
            return Vec::new();
        }
        let (pool, axis) = (pool_of(error), error.axis());
        let is_violated =
            |limit: &Limit| limit.pool == *pool && axis.is_none_or(|axis| axis == limit.axis());
        let named = limits.iter().zip(policy_names(limits));
        let names: Vec<String> =
            named.filter(|(limit, _)| is_violated(limit)).map(|(_, name)| name).collect();
        // A pool without a cap has no policy; it refuses by a pause.
        if names.is_empty() { vec![ascii(pool)] } else { names }
    }

    fn problem(&self, terms: &Terms, detail: &str, policies: Option<&[String]>) -> String {
        let mut json = String::from("{");
        let mut member = |key: &str, value: &str| {
            if json.len() > 1 {
                json.push(',');
            }
            _ = write!(json, "\"{key}\":");
            quote(&mut json, value);
        };
        member("type", terms.kind);
        member("title", terms.title);
        member("detail", detail);
        if let Refusal::Budget(error) = self {
            member("kind", error.kind());
            member("outlook", error.outlook().as_str());
        }
        _ = write!(json, ",\"status\":{}", terms.status.as_u16());
        if terms.kind != BLANK {
            json.push_str(",\"violated-policies\":[");
            for (index, policy) in policies.unwrap_or_default().iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                quote(&mut json, policy);
            }
            json.push(']');
        }
        json.push('}');
        json
    }
}

/// The error that refused in the end: a [`BudgetError::Timeout`] carries the refusal of its
/// instant.
fn reason(error: &BudgetError) -> &BudgetError {
    match error {
        BudgetError::Timeout { refusal, .. } => reason(refusal),
        error => error,
    }
}

fn pool_of(error: &BudgetError) -> &str {
    reason(error).pool()
}

fn quote(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\0'..='\x1f' => _ = write!(json, "\\u{:04x}", u32::from(character)),
            character => json.push(character),
        }
    }
    json.push('"');
}
