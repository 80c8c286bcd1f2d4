//! What the tests share.
#![allow(dead_code)]

use std::convert::Infallible;

use budget_pool::{Amount, BudgetPool, Snapshot};
use budget_pool_tower::{BudgetBody, BudgetLayer};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};

pub fn amount() -> Amount {
    Amount::new()
}

pub fn request() -> Request<()> {
    Request::new(())
}

pub fn request_with(headers: &[(&'static str, &str)]) -> Request<()> {
    let mut request = request();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

pub type Answer = Response<BudgetBody<Full<Bytes>>>;

/// What a service with this layer answers, whose handler is this function.
pub async fn answer(
    layer: &BudgetLayer,
    request: Request<()>,
    handler: impl Fn(Request<()>) -> Response<Full<Bytes>> + Clone,
) -> Answer {
    let service = layer.layer(tower::service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response) }
    }));
    service.oneshot(request).await.unwrap()
}

pub async fn ask(layer: &BudgetLayer, request: Request<()>) -> Answer {
    answer(layer, request, |_| Response::new("fine".into())).await
}

pub async fn text(response: Answer) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub async fn problem(response: Answer) -> serde_json::Value {
    assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
    serde_json::from_str(&text(response).await).unwrap()
}

pub fn header<'a, B>(response: &'a Response<B>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// Admitted, and how holds ended: committed, released, expired. Nothing is held.
#[track_caller]
pub fn ended(pool: &BudgetPool) -> (u64, u64, u64, u64) {
    let Snapshot { admitted, reservations, committed, released, expired, .. } = pool.snapshot();
    assert_eq!(reservations, 0, "still held: {:?}", pool.holders());
    (admitted, committed, released, expired)
}

pub fn assert_service<S: Service<Request<()>> + Clone + Send + Sync + 'static>(_: &S) {}
