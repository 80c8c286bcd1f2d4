//! What a request is told that is not served, by HTTP and by gRPC.

mod support;

use std::time::Duration;

use budget_pool::{Amount, BudgetError, BudgetPool, DeadlineBudget, ManualClock, Window};
use budget_pool_tower::{
    BudgetLayer, DeadlineHeader, ENVOY_EXPECTED_RQ_TIMEOUT_MS, GRPC_TIMEOUT, NeverStatus,
};
use http::{HeaderValue, Response};
use http_body::Body;
use serde_json::json;
use support::*;

const QUOTA: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

fn layer(pool: &BudgetPool) -> BudgetLayer {
    let pool = pool.clone();
    BudgetLayer::new(move |_| Some(pool.clone()))
}

fn minute(clock: &ManualClock) -> BudgetPool {
    let minute = Window::fixed(Duration::from_secs(60));
    let pool = BudgetPool::builder().name("minute").requests(10).window(minute);
    pool.clock(clock.clone()).build()
}

/// What a request is told over gRPC: `grpc-status` and `grpc-message`, in the head of the response.
async fn grpc(layer: &BudgetLayer) -> (String, String) {
    let request = request_with(&[("content-type", "application/grpc+proto")]);
    let refused = ask(layer, request).await;
    assert_eq!(refused.status(), 200);
    assert_eq!(header(&refused, "content-type"), Some("application/grpc+proto"));
    assert!(refused.body().is_end_stream());
    let told = |name| header(&refused, name).unwrap().to_owned();
    let told = (told("grpc-status"), told("grpc-message"));
    assert_eq!(text(refused).await, "");
    told
}

/// A media type has no case, and a longer name is another type.
#[tokio::test]
async fn a_request_is_grpc_by_its_media_type() {
    let pool = BudgetPool::builder().requests(0).build();
    for (content_type, is_grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc ; charset=utf-8", true),
        ("application/grpc\t;charset=utf-8", true),
        ("application/grpc-web", true),
        ("application/grpc-web+proto", true),
        ("application/grpc-web-text", true),
        ("application/grpc-web-text+json;charset=utf-8", true),
        ("Application/gRPC", true),
        ("APPLICATION/GRPC+PROTO", true),
        ("application/gRPC-Web-Text", true),
        ("application/grpcish", false),
        ("application/grpc-webby", false),
        ("application/grpc-", false),
        ("application/grpc.v2", false),
        ("application/grp", false),
        ("application/json; of=application/grpc", false),
        ("xapplication/grpc", false),
        ("", false),
    ] {
        let refused = ask(&layer(&pool), request_with(&[("content-type", content_type)])).await;
        let told = (refused.status().as_u16(), header(&refused, "grpc-status"));
        let status = if is_grpc { (200, Some("8")) } else { (429, None) };
        assert_eq!(told, status, "{content_type:?}");
        let answers = if is_grpc { content_type } else { "application/problem+json" };
        assert_eq!(header(&refused, "content-type"), Some(answers));
    }
    // A value that is no text is no gRPC.
    let mut request = request();
    let value = HeaderValue::from_bytes(b"application/grpc\xff").unwrap();
    request.headers_mut().insert("content-type", value);
    assert_eq!(ask(&layer(&pool), request).await.status(), 429);
}

#[tokio::test]
async fn a_quota_that_time_brings_back_is_429_with_the_time() {
    let clock = ManualClock::new();
    let pool = minute(&clock);
    pool.record(Amount::new().requests(10)).unwrap();
    clock.advance(Duration::from_millis(17_001));
    let refused = ask(&layer(&pool), request()).await;
    assert_eq!(refused.status(), 429);
    // 42.999 s, rounded up.
    assert_eq!(header(&refused, "retry-after"), Some("43"));
    let error = refused.extensions().get::<BudgetError>().unwrap();
    assert_eq!((error.kind(), error.pool()), ("exceeded", "minute"));
    let length = refused.body().size_hint().exact().unwrap();
    let body = text(refused).await;
    assert_eq!(body.len() as u64, length);
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        problem,
        json!({
            "type": QUOTA,
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "detail": "requests of `minute` exceeded: 1 requested, 0 available, cap 10, will fit in 43s",
            "kind": "exceeded",
            "outlook": "at",
            "status": 429,
            "violated-policies": ["minute"],
        })
    );
    let message = problem["detail"].as_str().unwrap().to_owned();
    assert_eq!(grpc(&layer(&pool)).await, ("8".into(), message));
}

#[tokio::test]
async fn what_only_a_release_can_meet_has_no_time() {
    let pool = BudgetPool::builder().name("slots").in_flight(1).build();
    let _held = ask(&layer(&pool), request()).await;
    let refused = ask(&layer(&pool), request()).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (429, None));
    let problem = problem(refused).await;
    assert_eq!((&problem["outlook"], &problem["type"]), (&json!("after_release"), &json!(QUOTA)));
}

#[tokio::test]
async fn what_can_never_fit_is_429_or_402_by_choice() {
    let pool = BudgetPool::builder().name("small").tokens(10).requests(10).build();
    let layer = layer(&pool).ask(|_| Amount::new().tokens(11));
    let payment = layer.clone().never(NeverStatus::PaymentRequired);
    for (layer, status) in [(&layer, 429), (&payment, 402)] {
        let refused = ask(layer, request()).await;
        assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (status, None));
        let problem = problem(refused).await;
        assert_eq!(problem["status"], status);
        assert_eq!((&problem["outlook"], &problem["type"]), (&json!("never"), &json!(QUOTA)));
        assert_eq!(problem["violated-policies"], json!(["small:tokens"]));
        assert_eq!(grpc(layer).await.0, "8");
    }
    // Only what can never fit asks for money.
    pool.record(Amount::new().requests(10)).unwrap();
    let _held = pool.reserve(Amount::new().tokens(10)).unwrap();
    let soon = payment.ask(|_| Amount::new().tokens(1));
    assert_eq!(ask(&soon, request()).await.status(), 429);
}

#[tokio::test]
async fn a_pause_is_503_with_its_end_and_a_closed_pool_503_without() {
    let clock = ManualClock::new();
    let pool = minute(&clock);
    pool.pause(Duration::from_millis(4_200));
    let refused = ask(&layer(&pool), request()).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (503, Some("5")));
    let paused = problem(refused).await;
    assert_eq!((&paused["type"], &paused["kind"]), (&json!(REDUCED), &json!("paused")));
    assert_eq!(paused["violated-policies"], json!(["minute"]));
    assert_eq!(grpc(&layer(&pool)).await.0, "14");

    pool.close();
    let refused = ask(&layer(&pool), request()).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (503, None));
    let closed = problem(refused).await;
    assert_eq!((&closed["type"], &closed["kind"]), (&json!("about:blank"), &json!("closed")));
    assert_eq!(closed.get("violated-policies"), None);
    assert_eq!(grpc(&layer(&pool)).await, ("14".into(), "`minute` is closed".into()));
}

#[tokio::test]
async fn those_who_wait_go_before_a_request_that_does_not() {
    let pool = BudgetPool::builder().name("line").in_flight(1).most_waiting(1).tokio().build();
    let waits = layer(&pool).wait_within(Duration::from_secs(9));
    let held = ask(&waits, request()).await;
    let (first, other) = (waits.clone(), waits.clone());
    let first = tokio::spawn(async move { ask(&first, request()).await.status() });
    while pool.snapshot().waiting == 0 {
        tokio::task::yield_now().await;
    }
    let full = ask(&other, request()).await;
    assert_eq!((full.status().as_u16(), header(&full, "retry-after")), (429, None));
    let full = problem(full).await;
    assert_eq!(
        (&full["kind"], &full["violated-policies"]),
        (&json!("queue_full"), &json!(["line"]))
    );
    assert_eq!(problem(ask(&layer(&pool), request()).await).await["kind"], "queued");
    drop(held);
    assert_eq!(first.await.unwrap(), 200);
}

#[tokio::test]
async fn a_name_of_any_characters_is_told_and_breaks_nothing() {
    let pool = BudgetPool::builder().name("Zürich \"50%\"\\\r\nx: 1").requests(0).build();
    let refused = ask(&layer(&pool), request()).await;
    let problem = problem(refused).await;
    let policy = "Z%C3%BCrich \"50%25\"\\%0D%0Ax: 1";
    assert_eq!(problem["violated-policies"], json!([policy]));
    assert!(problem["detail"].as_str().unwrap().starts_with("requests of `Zürich \"50%\""));
    let (status, message) = grpc(&layer(&pool)).await;
    assert_eq!(status, "8");
    assert!(message.starts_with("requests of `Z%C3%BCrich \"50%25\""), "{message}");
}

#[tokio::test]
async fn a_pool_that_is_not_disclosed_refuses_without_its_name() {
    let service = BudgetPool::builder().name("secret").requests(1).build();
    let tenant = service.child().name("tenant").requests(5).build();
    let layer = layer(&tenant).discloses(|pool| pool != "secret");
    assert_eq!(ask(&layer, request()).await.status(), 200);
    let refused = ask(&layer, request()).await;
    assert_eq!(refused.status(), 429);
    let problem = problem(refused).await;
    assert_eq!(problem["detail"], "a limit of the service refuses");
    assert_eq!(problem["violated-policies"], json!([]));
    assert_eq!(grpc(&layer).await.1, "a limit of the service refuses");
}

/// No request waits for what comes after its time: it is told at once when that is.
#[tokio::test(start_paused = true)]
async fn what_comes_later_than_a_request_may_wait_refuses_it_at_once() {
    let second = Duration::from_secs(1);
    let bucket = Window::token_bucket(30 * second);
    let rate = BudgetPool::builder().requests(1).window(bucket).tokio().build();
    rate.record(Amount::new().requests(1)).unwrap();
    let paused = BudgetPool::builder().requests(1).tokio().build();
    paused.pause(20 * second);
    for (pool, status, seconds) in [(paused, 503, 20), (rate, 429, 10)] {
        let start = tokio::time::Instant::now();
        let refused = ask(&layer(&pool).wait_within(2 * second), request()).await;
        let after = seconds.to_string();
        assert_eq!(
            (refused.status().as_u16(), header(&refused, "retry-after")),
            (status, Some(&after[..]))
        );
        assert_eq!((start.elapsed(), pool.snapshot().waiting), (Duration::ZERO, 0));
        let served = ask(&layer(&pool).wait_within(60 * second), request()).await;
        assert_eq!((served.status().as_u16(), start.elapsed()), (200, seconds * second));
    }
}

/// A wait in vain names the pool that was asked beside the one that refused.
#[tokio::test(start_paused = true)]
async fn a_wait_in_vain_names_no_pool_that_is_not_disclosed() {
    let service = BudgetPool::builder().name("service").in_flight(1).tokio().build();
    let tenant = service.child().name("secret").build();
    let layer = layer(&tenant).wait_within(Duration::from_secs(2));
    let held = ask(&layer, request()).await;
    let told = [
        (layer.clone(), "waited in vain in `secret` for 2s: "),
        (layer.discloses(|pool| pool != "secret"), ""),
    ];
    for (layer, waited) in told {
        let refused = problem(ask(&layer, request()).await).await;
        let refusal = "in flight of `service` exceeded: 1 requested, 0 available, cap 1, may fit after a release";
        assert_eq!(refused["detail"], format!("{waited}{refusal}"));
        assert_eq!(refused["violated-policies"], json!(["service"]));
    }
    drop(held);
}

/// The deadline of a request is no pool's.
#[tokio::test]
async fn a_late_request_is_told_so_whatever_pools_are_disclosed() {
    let pool = BudgetPool::builder().name("pool").requests(5).build();
    let layer = layer(&pool).deadline_from([GRPC_TIMEOUT]).discloses(|pool| pool == "pool");
    let late = ask(&layer, request_with(&[("grpc-timeout", "0n")])).await;
    assert_eq!(problem(late).await["detail"], "deadline exceeded: no time from the start");
}

#[tokio::test]
async fn a_deadline_of_the_caller_is_known_to_the_handler_and_to_the_pool() {
    let clock = ManualClock::new();
    let service = DeadlineBudget::builder().clock(clock.clone()).build().unwrap();
    let pool = BudgetPool::builder().clock(clock.clone()).build();
    let layer = BudgetLayer::new(move |request| {
        let deadline = request.extensions().get::<DeadlineBudget>()?;
        Some(pool.child().name("request").deadline(deadline.clone()).build())
    })
    .deadline_below(service)
    .deadline_at_most(Duration::from_secs(3))
    .deadline_from([
        GRPC_TIMEOUT,
        ENVOY_EXPECTED_RQ_TIMEOUT_MS,
        DeadlineHeader::millis("x-ms"),
    ]);
    let grpc = "grpc-timeout";
    let envoy = "x-envoy-expected-rq-timeout-ms";
    let all: [(&[_], u64); 8] = [
        (&[], 3_000),
        (&[(grpc, "250m")], 250),
        (&[(envoy, "1200")], 1_200),
        (&[(grpc, "2S"), (envoy, "1200"), ("x-ms", "1100")], 1_100),
        (&[(grpc, "2S"), (envoy, "1200"), ("x-ms", "1300")], 1_200),
        (&[(grpc, "2S"), (grpc, "1S")], 1_000),
        (&[(grpc, "99999999H")], 3_000),
        (&[(envoy, "18446744073709551615")], 3_000),
    ];
    for (headers, millis) in all {
        let response = answer(&layer, request_with(headers), |request| {
            let deadline = request.extensions().get::<DeadlineBudget>().unwrap();
            Response::new(deadline.remaining().as_millis().to_string().into())
        });
        assert_eq!(text(response.await).await, millis.to_string(), "{headers:?}");
    }
}

#[tokio::test]
async fn a_header_is_found_in_any_case_and_a_name_that_none_can_have_is_refused() {
    let pool = BudgetPool::unlimited();
    let layer = BudgetLayer::new(move |_| Some(pool.clone()))
        .deadline_from([DeadlineHeader::millis("X-Timeout-Ms"), DeadlineHeader::grpc("X~!")]);
    assert_eq!(ask(&layer, request_with(&[("x-timeout-ms", "0")])).await.status(), 504);
    assert_eq!(ask(&layer, request_with(&[("x~!", "0n")])).await.status(), 504);
    // A token of RFC 9110. An old `http` takes a quote, too.
    for byte in 0..=u8::MAX {
        let name: &'static str = String::from_utf8_lossy(&[b'x', byte]).into_owned().leak();
        let can_be = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(!can_be || http::HeaderName::from_bytes(name.as_bytes()).is_ok(), "{name:?}");
        for make in [DeadlineHeader::millis, DeadlineHeader::grpc] {
            assert_eq!(std::panic::catch_unwind(|| make(name)).is_ok(), can_be, "{name:?}");
        }
    }
    assert!(std::panic::catch_unwind(|| DeadlineHeader::millis("")).is_err());
}

#[tokio::test]
async fn a_request_that_is_late_is_504() {
    let pool = BudgetPool::builder().requests(5).build();
    let layer = layer(&pool).deadline_from([GRPC_TIMEOUT, ENVOY_EXPECTED_RQ_TIMEOUT_MS]);
    for late in [("grpc-timeout", "0n"), ("x-envoy-expected-rq-timeout-ms", "0")] {
        let refused = ask(&layer, request_with(&[late])).await;
        assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (504, None));
        assert_eq!(problem(refused).await["kind"], "deadline_exceeded");
        let refused =
            ask(&layer, request_with(&[late, ("content-type", "application/grpc")])).await;
        assert_eq!(header(&refused, "grpc-status"), Some("4"));
    }
    assert_eq!(pool.snapshot().admitted, 0);

    let late = BudgetPool::builder().deadline(Duration::ZERO).build();
    let layer = BudgetLayer::new(move |_| Some(late.clone()));
    assert_eq!(ask(&layer, request()).await.status(), 504);
    assert_eq!(grpc(&layer).await.0, "4");
}

#[tokio::test]
async fn a_deadline_that_cannot_be_read_is_400() {
    let pool = BudgetPool::builder().requests(5).build();
    let layer = layer(&pool).deadline_from([ENVOY_EXPECTED_RQ_TIMEOUT_MS, GRPC_TIMEOUT]);
    let envoy = "x-envoy-expected-rq-timeout-ms";
    let is_millis = "a time in milliseconds is ASCII digits, at most u64::MAX";
    for (name, value, why) in [
        ("grpc-timeout", &b""[..], "no digits in a grpc-timeout"),
        ("grpc-timeout", b"5 minutes", "a grpc-timeout ends in one of H, M, S, m, u, n"),
        ("grpc-timeout", b"-1S", "a grpc-timeout is ASCII digits and a unit"),
        ("grpc-timeout", b"123456789n", "a grpc-timeout has at most 8 digits"),
        ("grpc-timeout", b"1\xff", "a grpc-timeout ends in one of H, M, S, m, u, n"),
        (envoy, b"", is_millis),
        (envoy, b"+5", is_millis),
        (envoy, b"1.5", is_millis),
        (envoy, b" 5 ", is_millis),
        (envoy, b"18446744073709551616", is_millis),
        (envoy, b"\xd9\xa3", is_millis),
    ] {
        let mut request = request();
        request.headers_mut().insert(name, HeaderValue::from_bytes(value).unwrap());
        let refused = ask(&layer, request).await;
        assert_eq!(refused.status(), 400, "{value:?}");
        assert_eq!(problem(refused).await["detail"], format!("bad header {name}: {why}"));
    }
    let bad = [("content-type", "application/grpc"), ("grpc-timeout", "soon")];
    let refused = ask(&layer, request_with(&bad)).await;
    assert_eq!(header(&refused, "grpc-status"), Some("3"));
    // The last of several counts, too.
    let refused = ask(&layer, request_with(&[("grpc-timeout", "1S"), ("grpc-timeout", "soon")]));
    assert_eq!(refused.await.status(), 400);
    assert_eq!(pool.snapshot().admitted, 0);
    // A layer that reads no deadline has nothing against it.
    let pool = BudgetPool::unlimited();
    let layer = BudgetLayer::new(move |_| Some(pool.clone()));
    assert_eq!(ask(&layer, request_with(&[("grpc-timeout", "soon")])).await.status(), 200);
}
