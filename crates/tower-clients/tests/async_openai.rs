//! The layer below the retries of async-openai: each try is paid by the pool.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use async_openai::middleware::retry::OpenAIRetryLayer;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, CreateChatCompletionRequestArgs,
};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use budget_pool::{Amount, Axis, BudgetPool, OnDrop};
use budget_pool_tower::{BudgetLayer, NeverStatus};
use serde_json::json;
use tokio::net::TcpListener;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

/// Answers with these statuses in turn, and then for ever with 200; counts the tries.
async fn serve(statuses: Vec<u16>) -> (SocketAddr, Arc<Mutex<u64>>) {
    let (tries, statuses) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(statuses.into_iter())));
    let counted = Arc::clone(&tries);
    let answer = async move || -> Response {
        *counted.lock().unwrap() += 1;
        match statuses.lock().unwrap().next() {
            Some(status) => {
                let status = StatusCode::from_u16(status).unwrap();
                let error = json!({ "error": { "message": "busy", "type": "rate_limit" } });
                (status, [("retry-after", "0")], Json(error)).into_response()
            }
            None => {
                let reply = json!({
                    "id": "1", "object": "chat.completion", "created": 1, "model": "m",
                    "choices": [{
                        "index": 0, "finish_reason": "stop",
                        "message": { "role": "assistant", "content": "It rains." },
                    }],
                });
                ([("x-tokens", "31")], Json(reply)).into_response()
            }
        }
    };
    let app = Router::new().route("/chat/completions", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, tries)
}

/// A client whose retries stand above the layer.
fn client(address: SocketAddr, layer: &BudgetLayer) -> Client<OpenAIConfig> {
    let http = reqwest::Client::new();
    let limited = layer.layer(service_fn(move |request: http::Request<reqwest::Body>| {
        let http = http.clone();
        async move {
            let response = http.execute(request.try_into()?).await?;
            Ok::<_, reqwest::Error>(http::Response::<reqwest::Body>::from(response))
        }
    }));
    let each_try = service_fn(move |factory: HttpRequestFactory| {
        let limited = limited.clone();
        async move {
            let request = http::Request::<reqwest::Body>::try_from(factory.build().await?)
                .map_err(OpenAIError::Reqwest)?;
            let response = limited.oneshot(request).await.map_err(OpenAIError::Reqwest)?;
            Ok::<_, OpenAIError>(reqwest::Response::from(response.map(reqwest::Body::wrap)))
        }
    });
    let service = ServiceBuilder::new().layer(OpenAIRetryLayer::new(4)).service(each_try);
    let config =
        OpenAIConfig::new().with_api_key("none").with_api_base(format!("http://{address}"));
    Client::with_config(config).with_http_service(service)
}

async fn ask(client: &Client<OpenAIConfig>) -> Result<String, OpenAIError> {
    let message = ChatCompletionRequestUserMessage::from("Does it rain?");
    let request =
        CreateChatCompletionRequestArgs::default().model("m").messages([message.into()]).build()?;
    let reply = client.chat().create(request).await?;
    Ok(reply.choices[0].message.content.clone().unwrap_or_default())
}

fn layer(pool: &BudgetPool) -> BudgetLayer {
    let pool = pool.clone();
    BudgetLayer::new(move |_| Some(pool.clone()))
        .ask(|_| Amount::new().requests(1).tokens(500))
        .settle(|response| {
            let tokens = response.headers().get("x-tokens")?.to_str().ok()?.parse().ok()?;
            Some(Amount::new().tokens(tokens))
        })
        .refund(|response| !response.status().is_success())
        .on_error(OnDrop::Release)
        .never(NeverStatus::PaymentRequired)
}

#[tokio::test]
async fn each_try_is_held_and_only_what_was_billed_is_booked() {
    let (address, tries) = serve(vec![429, 500]).await;
    // The client keeps the response of a try until the next one has its own: two slots.
    let pool = BudgetPool::builder().requests(9).tokens(1_000).in_flight(2).build();
    let client = client(address, &layer(&pool));
    assert_eq!(ask(&client).await.unwrap(), "It rains.");
    assert_eq!(*tries.lock().unwrap(), 3);
    let pool = pool.snapshot();
    assert_eq!((pool.reservations, pool.committed, pool.released, pool.expired), (0, 1, 2, 0));
    assert_eq!((pool.tokens.used, pool.requests.used), (31, 1));
}

#[tokio::test]
async fn what_can_never_fit_is_neither_sent_nor_retried() {
    let (address, tries) = serve(Vec::new()).await;
    let pool = BudgetPool::builder().tokens(499).build();
    let client = client(address, &layer(&pool));
    let refused = ask(&client).await.unwrap_err().to_string();
    assert_eq!(*tries.lock().unwrap(), 0);
    assert_eq!(pool.snapshot().refused, 1, "{refused}");
}

#[tokio::test]
async fn a_server_that_is_not_there_costs_nothing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pool = BudgetPool::builder().tokens(1_000).build();
    assert!(ask(&client(nobody, &layer(&pool))).await.is_err());
    let pool = pool.snapshot();
    assert_eq!((pool.reservations, pool.axis(Axis::Tokens).unwrap().used.units()), (0, 0));
    assert_eq!(pool.released, pool.admitted);
    assert!(pool.admitted > 0);
}
