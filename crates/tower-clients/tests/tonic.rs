//! The layer under a tonic server and above a tonic channel, with the service of health checks.

use std::net::SocketAddr;
use std::time::Duration;

use budget_pool::{Amount, BudgetPool};
use budget_pool_tower::{
    BudgetLayer, ENVOY_EXPECTED_RQ_TIMEOUT_MS, GRPC_TIMEOUT, RateLimitHeaders,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Layer;

fn layer(pool: &BudgetPool) -> BudgetLayer {
    let pool = pool.clone();
    // A call that failed costs nothing. One that fails at once has its status in the head.
    let failed =
        |headers: &http::HeaderMap| headers.get("grpc-status").is_some_and(|status| status != "0");
    BudgetLayer::new(move |_| Some(pool.clone()))
        .refund(move |response| failed(response.headers()))
        .settle_trailers(move |trailers| failed(trailers).then(|| Amount::new().requests(0)))
}

async fn serve(layer: BudgetLayer) -> SocketAddr {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().layer(layer).add_service(health);
    tokio::spawn(async move {
        // The reporter keeps the streams of those that watch.
        let _reporter = reporter;
        server.serve_with_incoming(TcpListenerStream::new(listener)).await
    });
    address
}

async fn channel(address: SocketAddr) -> Channel {
    Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn client(layer: BudgetLayer) -> HealthClient<Channel> {
    HealthClient::new(channel(serve(layer).await).await)
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn settled(pool: &BudgetPool) -> (u64, u64, u64, u64) {
    while pool.snapshot().reservations > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let pool = pool.snapshot();
    (pool.committed, pool.released, pool.expired, pool.requests.used)
}

fn code_and_message(result: Result<impl Sized, Status>) -> (Code, String) {
    let status = result.err().unwrap();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn a_call_is_settled_by_its_trailers() {
    let pool = BudgetPool::builder().name("rpc").requests(5).build();
    let mut client = client(layer(&pool).headers(RateLimitHeaders::Ietf)).await;
    let reply = client.check(check("")).await.unwrap();
    assert_eq!(reply.metadata().get("ratelimit").unwrap(), r#""rpc";r=4"#);
    assert_eq!(settled(&pool).await, (1, 0, 0, 1));
    let unknown = code_and_message(client.check(check("nobody")).await);
    assert_eq!(unknown.0, Code::NotFound);
    assert_eq!(settled(&pool).await, (1, 1, 0, 1));
}

#[tokio::test]
async fn refusals_are_the_codes_that_a_client_of_grpc_knows() {
    let pool = BudgetPool::builder().name("Zürich").requests(1).build();
    let headers = [GRPC_TIMEOUT, ENVOY_EXPECTED_RQ_TIMEOUT_MS];
    let mut client = client(layer(&pool).deadline_from(headers)).await;
    let with = |name: &'static str, value: &str| {
        let mut request = Request::new(check(""));
        request.metadata_mut().insert(name, value.parse().unwrap());
        request
    };
    // The channel itself would give up a call with a `grpc-timeout` of zero.
    let envoy = "x-envoy-expected-rq-timeout-ms";
    let late = code_and_message(client.check(with(envoy, "0")).await);
    assert_eq!(late, (Code::DeadlineExceeded, "deadline exceeded: no time from the start".into()));
    let (bad, why) = code_and_message(client.check(with("grpc-timeout", "soon")).await);
    assert_eq!(bad, Code::InvalidArgument);
    assert!(why.starts_with("bad header grpc-timeout: "), "{why}");

    client.check(check("")).await.unwrap();
    assert_eq!(settled(&pool).await, (1, 0, 0, 1));
    let refused = code_and_message(client.check(check("")).await);
    let message = "requests of `Zürich` exceeded: 1 requested, 0 available, cap 1, will never fit";
    assert_eq!(refused, (Code::ResourceExhausted, message.into()));
    pool.reset();
    pool.pause(Duration::from_secs(60));
    assert_eq!(code_and_message(client.check(check("")).await).0, Code::Unavailable);
    pool.close();
    let closed = code_and_message(client.check(check("")).await);
    assert_eq!(closed, (Code::Unavailable, "`Zürich` is closed".into()));
    assert_eq!(settled(&pool).await, (1, 0, 0, 0));
}

#[tokio::test]
async fn a_stream_is_held_until_its_client_hangs_up() {
    let pool = BudgetPool::builder().requests(5).in_flight(1).build();
    let mut client = client(layer(&pool)).await;
    let mut stream = client.watch(check("")).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert_eq!(pool.snapshot().reservations, 1);
    assert_eq!(code_and_message(client.check(check("")).await).0, Code::ResourceExhausted);
    drop(stream);
    assert_eq!(settled(&pool).await, (1, 0, 0, 1));
    client.check(check("")).await.unwrap();
    assert_eq!(settled(&pool).await, (2, 0, 0, 2));
}

#[tokio::test]
async fn a_client_pays_for_its_own_calls() {
    let free = BudgetPool::unlimited();
    let channel = channel(serve(layer(&free)).await).await;
    let pool = BudgetPool::builder().name("calls").requests(1).build();
    let mut client = HealthClient::new(layer(&pool).layer(channel));
    client.check(check("")).await.unwrap();
    assert_eq!(settled(&pool).await, (1, 0, 0, 1));
    assert_eq!(code_and_message(client.check(check("")).await).0, Code::ResourceExhausted);
    // What is refused is not sent.
    assert_eq!(free.snapshot().admitted, 1);
}
