//! A provider on the loopback, with faults. It keeps a bill of its own, in plain integers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Tokens of one chunk, and the time that they take.
const CHUNK: u64 = 8;
const PACE: Duration = Duration::from_millis(2);

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 429, and a Retry-After of one second.
    TooMany,
    /// 500.
    Error,
    /// The connection is lost in the middle of the stream.
    BrokenOff,
    /// The stream ends well, and has no usage block.
    NoUsage,
    /// The stream stops in the middle, and the connection stays.
    Silent,
}

impl Fault {
    pub const ALL: [Fault; 5] =
        [Fault::TooMany, Fault::Error, Fault::BrokenOff, Fault::NoUsage, Fault::Silent];

    /// By the number of the task and of its attempt, so that every run has the same.
    fn of(task: u64, attempt: u64) -> Option<Fault> {
        // Each agent has some of each: an agent has every tenth task.
        match (attempt, (task + task / 10) % 20) {
            _ if attempt == 0 && [40, 110, 171].contains(&task) => Some(Fault::TooMany),
            (0, 3) => Some(Fault::Error),
            (0 | 1, 7) => Some(Fault::BrokenOff),
            (0, 11) => Some(Fault::NoUsage),
            (0, 15) => Some(Fault::Silent),
            _ => None,
        }
    }
}

/// One line of the bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Billed {
    pub nanos: u64,
    /// Whether the usage was told to the client.
    pub is_told: bool,
}

/// What the provider knows.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// By the identifiers of the calls.
    pub bill: BTreeMap<String, Billed>,
    /// The calls that were answered with an error, and are not billed.
    pub refused: BTreeSet<String>,
    pub faults: BTreeMap<Fault, u64>,
    pub calls: BTreeMap<String, u64>,
}

#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<Ledger>>);

impl Server {
    /// Serves until the program ends.
    pub async fn start(&self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/v1/chat/completions", post(complete));
        let router = router.with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(address)
    }

    pub fn ledger(&self) -> Ledger {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, note: impl FnOnce(&mut Ledger)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The nano-dollars of one token: of input, of cached input, of output.
fn prices(model: &str) -> [u64; 3] {
    if model == "large" { [2_500, 1_250, 10_000] } else { [150, 75, 600] }
}

async fn complete(State(server): State<Server>, Json(request): Json<Value>) -> Response {
    let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
    let (id, model) = (text("safety_identifier"), text("model"));
    let (task, attempt) = id.split_once('/').unwrap_or_default();
    let [task, attempt] = [task, attempt].map(|number| number.parse().unwrap_or(0));
    let fault = Fault::of(task, attempt);
    server.note(|ledger| {
        *ledger.calls.entry(model.clone()).or_default() += 1;
        fault.into_iter().for_each(|fault| *ledger.faults.entry(fault).or_default() += 1);
    });
    let error = match fault {
        Some(Fault::TooMany) => Some(StatusCode::TOO_MANY_REQUESTS),
        Some(Fault::Error) => Some(StatusCode::INTERNAL_SERVER_ERROR),
        _ => None,
    };
    if let Some(status) = error {
        server.note(|ledger| _ = ledger.refused.insert(id));
        return refusal(status);
    }

    // A token has about four bytes here. Of every third prompt one half is cached.
    let input = request["messages"].to_string().len() as u64 / 4;
    let cached = if task % 3 == 0 { input / 2 } else { 0 };
    let most = request["max_completion_tokens"].as_u64().unwrap_or(0);
    let whole = (20 + task * 37 % 300).min(most);
    let is_cut = matches!(fault, Some(Fault::BrokenOff | Fault::Silent));
    // What was generated is billed, whether it arrives or not.
    let output = if is_cut { whole / 2 } else { whole };
    let [of_input, of_cached, of_output] = prices(&model);
    let nanos = (input - cached) * of_input + cached * of_cached + output * of_output;
    let is_told = fault.is_none();
    server.note(|ledger| {
        ledger.bill.insert(id, Billed { nanos, is_told });
    });

    let usage = is_told.then(|| {
        json!({
            "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "prompt_tokens_details": {"cached_tokens": cached}
        })
    });
    let events = events(&model, output, usage, is_cut);
    let body: Body = match fault {
        Some(Fault::BrokenOff) => {
            let lost = stream::once(async { Err(io::Error::other("the connection is lost")) });
            Body::from_stream(events.chain(lost))
        }
        Some(Fault::Silent) => Body::from_stream(events.chain(stream::pending())),
        _ => Body::from_stream(events),
    };
    ([("content-type", "text/event-stream")], body).into_response()
}

fn refusal(status: StatusCode) -> Response {
    let error = json!({"error": {"message": status.canonical_reason(), "type": "server_error"}});
    let mut response = (status, Json(error)).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("1"));
    }
    response
}

/// The events of a stream, at their pace.
fn events(
    model: &str,
    output: u64,
    usage: Option<Value>,
    is_cut: bool,
) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let event = |choices: Value, usage: Option<Value>| {
        let chunk = json!({
            "id": "chat-1", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": choices, "usage": usage
        });
        format!("data: {chunk}\n\n")
    };
    let delta = |tokens: u64| {
        let text = "word ".repeat(usize::try_from(tokens).unwrap_or(0));
        event(json!([{"index": 0, "delta": {"content": text}}]), None)
    };
    let mut events: Vec<String> =
        (0..output).step_by(CHUNK as usize).map(|at| delta(CHUNK.min(output - at))).collect();
    events.extend(usage.map(|usage| event(json!([]), Some(usage))));
    if !is_cut {
        events.push("data: [DONE]\n\n".to_owned());
    }
    stream::iter(events).then(|event| async move {
        tokio::time::sleep(PACE).await;
        Ok(Bytes::from(event))
    })
}
