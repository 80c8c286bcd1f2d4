//! The server that the service calls: a stand-in for three models, as slow as the prompt says.
//!
//! A word like `draft=1500` in a prompt makes the call of that name take 1500 ms.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use budget_pool::DeadlineBudget;
use serde::{Deserialize, Serialize};

/// The time of a call whose prompt says nothing of it.
const QUICK: Duration = Duration::from_millis(20);

#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    pub prompt: String,
    pub max_output: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    pub text: String,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// What goes on here, for whoever wants to see it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A call has come in.
    Asked { call: &'a str, prompt: &'a str, grpc_timeout: Option<&'a str> },
    /// A call has been answered, and this is what it costs.
    Billed { tokens: u64 },
}

type Observer = Arc<dyn Fn(Event<'_>) + Send + Sync>;

pub fn router(observe: impl Fn(Event<'_>) + Send + Sync + 'static) -> Router {
    let observe: Observer = Arc::new(observe);
    Router::new().route("/{call}", post(answer)).with_state(observe)
}

async fn answer(
    State(observe): State<Observer>,
    Path(call): Path<String>,
    headers: HeaderMap,
    Json(ask): Json<Ask>,
) -> Result<Json<Reply>, StatusCode> {
    let grpc_timeout = headers.get("grpc-timeout").and_then(|value| value.to_str().ok());
    observe(Event::Asked { call: &call, prompt: &ask.prompt, grpc_timeout });

    // The caller's time, as it came. It has shrunk on every hop, so nobody works for one who no
    // longer listens.
    let time =
        grpc_timeout.map_or(Ok(DeadlineBudget::unbounded()), DeadlineBudget::from_grpc_timeout);
    let time = time.map_err(|_| StatusCode::BAD_REQUEST)?;
    let work = tokio::time::sleep(latency(&call, &ask.prompt));
    tokio::time::timeout(time.remaining(), work).await.map_err(|_| StatusCode::GATEWAY_TIMEOUT)?;

    let (text, output_tokens) = match call.as_str() {
        "search" => {
            ("Three passages were found that bear on the question. The second one settles it.", 40)
        }
        "draft" => ("Yes, for the reason that the second passage gives.", 320), /* most of it */
        // thought
        _ => ("The draft says what the passages say.", 20),
    };
    let input_tokens = ask.prompt.len().div_ceil(4) as u64; // about right for English
    let reply = Reply {
        text: text.to_owned(),
        input_tokens,
        output_tokens: ask.max_output.min(output_tokens),
    };
    observe(Event::Billed { tokens: reply.input_tokens + reply.output_tokens });
    Ok(Json(reply))
}

fn latency(call: &str, prompt: &str) -> Duration {
    let millis = |word: &str| word.strip_prefix(call)?.strip_prefix('=')?.parse().ok();
    prompt.split_whitespace().find_map(millis).map_or(QUICK, Duration::from_millis)
}
