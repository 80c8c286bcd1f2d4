//! Admission, the hold in the response, and how it is settled.

mod support;

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use budget_pool::{Amount, Ask, Axis, BudgetPool, Keyed, OnDrop, Snapshot, Usd, Window};
use budget_pool_tower::{Bill, BudgetLayer, BudgetService, GRPC_TIMEOUT};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use support::*;
use tower::{Layer, Service, ServiceExt, service_fn};

fn layer(pool: &BudgetPool) -> BudgetLayer {
    let pool = pool.clone();
    BudgetLayer::new(move |_| Some(pool.clone()))
}

/// A body of these frames, which ends or breaks off after them.
fn frames(
    frames: Vec<Result<Frame<Bytes>, io::Error>>,
) -> impl Body<Data = Bytes, Error = io::Error> {
    let mut frames = frames.into_iter();
    StreamBody::new(Frames(Box::new(move || frames.next())))
}

struct Frames(Box<dyn FnMut() -> Option<Result<Frame<Bytes>, io::Error>> + Send>);

impl futures_core::Stream for Frames {
    type Item = Result<Frame<Bytes>, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready((self.0)())
    }
}

fn data(text: &'static str) -> Result<Frame<Bytes>, io::Error> {
    Ok(Frame::data(text.into()))
}

fn trailers(name: &'static str, value: &str) -> Result<Frame<Bytes>, io::Error> {
    let mut trailers = HeaderMap::new();
    trailers.insert(name, value.parse().unwrap());
    Ok(Frame::trailers(trailers))
}

#[tokio::test]
async fn a_request_is_held_until_its_response_has_ended() {
    let pool = BudgetPool::builder().requests(10).tokens(100).build();
    let layer = layer(&pool).ask(|_| Amount::new().requests(1).tokens(40));
    let response = ask(&layer, request()).await;
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.tokens.reserved, snapshot.in_flight.reserved), (40, 1));
    assert_eq!(snapshot.tokens.used, 0);
    assert_eq!(text(response).await, "fine");
    assert_eq!(ended(&pool), (1, 1, 0, 0));
    assert_eq!((pool.snapshot().tokens.used, pool.snapshot().requests.used), (40, 1));
}

#[tokio::test]
async fn unless_told_otherwise_a_request_asks_for_one_request() {
    let pool = BudgetPool::builder().requests(2).build();
    for _ in 0..2 {
        assert_eq!(ask(&layer(&pool), request()).await.status(), StatusCode::OK);
    }
    assert_eq!(ask(&layer(&pool), request()).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(pool.snapshot().requests.used, 2);
}

#[tokio::test]
async fn a_request_for_which_there_is_no_pool_is_not_limited() {
    let tenants: Keyed<String> = Keyed::new(BudgetPool::unlimited());
    let of = tenants.clone();
    let layer = BudgetLayer::new(move |request| {
        let tenant = request.headers().get("x-tenant")?.to_str().ok()?;
        Some(of.get_or_build(tenant, |pool| pool.requests(0)))
    });
    let strange = || {
        let mut request = request();
        let value = http::HeaderValue::from_bytes(b"\xff").unwrap();
        request.headers_mut().insert("x-tenant", value);
        request
    };
    for request in [request(), strange()] {
        let response = answer(&layer, request, |request| {
            assert!(request.extensions().get::<Bill>().is_none());
            Response::new("fine".into())
        });
        assert_eq!(text(response.await).await, "fine");
    }
    assert!(tenants.is_empty());
    let response = ask(&layer, request_with(&[("x-tenant", "acme")])).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn one_decision_counts_for_all_limits_of_the_path() {
    let month = BudgetPool::builder().name("month").usd(Usd::from_cents(1)).build();
    let minute = month.child().name("minute").requests(5).build();
    let layer = layer(&minute).ask(|_| Amount::new().requests(1).usd(Usd::from_cents(2)));
    let refused = ask(&layer, request()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    // The earlier limit keeps nothing of a request that the later one refuses.
    assert_eq!(minute.snapshot().requests.used, 0);
    assert_eq!(minute.snapshot().requests.available, Some(5));
}

#[tokio::test]
async fn the_last_word_on_the_cost_is_the_trailers_then_the_bill_then_the_head() {
    let total = |tokens: u64| Amount::new().tokens(tokens);
    for (trailer, bill, head, settled) in [
        (Some("7"), Some(6), Some(5), 7),
        (None, Some(6), Some(5), 6),
        (None, None, Some(5), 5),
        (None, None, None, 40),
        (Some("none"), None, Some(5), 5),
        (Some("90"), None, None, 90),
        (None, Some(0), Some(5), 0),
    ] {
        let pool = BudgetPool::builder().tokens(100).build();
        let layer = layer(&pool)
            .ask(|_| Amount::new().tokens(40))
            .settle(|response| response.extensions().get::<Amount>().copied())
            .settle_trailers(|trailers| {
                let tokens = trailers.get("x-tokens")?.to_str().ok()?.parse().ok()?;
                Some(Amount::new().tokens(tokens))
            });
        let service = layer.layer(service_fn(move |request: Request<()>| async move {
            if let Some(tokens) = bill {
                request.extensions().get::<Bill>().unwrap().total(total(tokens));
            }
            let all = trailer.map(|value| trailers("x-tokens", value));
            let mut response = Response::new(frames([data("a")].into_iter().chain(all).collect()));
            if let Some(tokens) = head {
                response.extensions_mut().insert(total(tokens));
            }
            Ok::<_, Infallible>(response)
        }));
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(pool.snapshot().tokens.used, 0);
        response.into_body().collect().await.unwrap();
        assert_eq!(ended(&pool), (1, 1, 0, 0));
        assert_eq!(pool.snapshot().tokens.used, settled, "{trailer:?} {bill:?} {head:?}");
    }
}

#[tokio::test]
async fn a_bill_may_come_while_the_body_streams() {
    let pool = BudgetPool::builder().tokens(100).build();
    let layer = layer(&pool).ask(|_| Amount::new().tokens(40));
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let bill = request.extensions().get::<Bill>().unwrap().clone();
        let mut words = ["one", "two"].into_iter();
        let stream = Frames(Box::new(move || {
            let word = words.next();
            if word.is_none() {
                bill.total(Amount::new().tokens(2));
            }
            word.map(data)
        }));
        Ok::<_, Infallible>(Response::new(StreamBody::new(stream)))
    }));
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "onetwo");
    assert_eq!(pool.snapshot().tokens.used, 2);
    assert_eq!(ended(&pool), (1, 1, 0, 0));
}

#[tokio::test]
async fn a_bill_adds_up_what_the_calls_of_a_request_cost() {
    type Tells = fn(&Bill, Amount);
    let cost = |tokens: u64| Amount::new().tokens(tokens);
    let tells: [(Tells, u64); 6] = [
        (|bill, five| bill.add(five), 5),
        (|bill, five| (bill.add(five), bill.add(five)).1, 10),
        (|bill, five| (bill.total(five), bill.add(five)).1, 10),
        (|bill, five| (bill.add(five), bill.total(five)).1, 5),
        (|bill, five| (bill.add(five), bill.refund(), bill.add(five)).2, 5),
        (|bill, five| (bill.add(five), bill.refund()).1, 0),
    ];
    for (index, (tell, used)) in tells.into_iter().enumerate() {
        for reads in [true, false] {
            let pool = BudgetPool::builder().tokens(100).build();
            let layer =
                layer(&pool).on_drop(OnDrop::Release).ask(|_| Amount::new().tokens(40).requests(1));
            let kept = Arc::new(std::sync::Mutex::new(None));
            let keeps = Arc::clone(&kept);
            let response = answer(&layer, request(), move |request| {
                let bill = request.extensions().get::<Bill>().unwrap();
                tell(bill, cost(5));
                *keeps.lock().unwrap() = Some(bill.clone());
                Response::new("fine".into())
            })
            .await;
            if reads {
                text(response).await;
            } else {
                drop(response);
            }
            // Too late.
            kept.lock().unwrap().take().unwrap().add(cost(90));
            assert_eq!(pool.snapshot().tokens.used, used, "{index}");
            // What a total does not name settles at what is held.
            assert_eq!(pool.snapshot().requests.used, u64::from(used > 0), "{index}");
            assert_eq!(ended(&pool).0, 1);
        }
    }
    // A sum that cannot be counted is the most that can.
    let pool = BudgetPool::builder().tokens(100).build();
    let layer = layer(&pool);
    let response = answer(&layer, request(), move |request| {
        let bill = request.extensions().get::<Bill>().unwrap();
        bill.add(cost(u64::MAX));
        bill.add(cost(5));
        Response::new("fine".into())
    });
    text(response.await).await;
    assert_eq!(pool.snapshot().tokens.spent, u64::MAX);
}

#[tokio::test]
async fn of_two_layers_the_inner_one_has_the_bill() {
    let pools = [(); 2].map(|()| BudgetPool::builder().tokens(100).build());
    let [outer, inner] = pools.each_ref().map(|pool| layer(pool).ask(|_| amount().tokens(40)));
    let free = BudgetLayer::new(|_| None);
    let handler = service_fn(|request: Request<()>| async move {
        request.extensions().get::<Bill>().unwrap().total(amount().tokens(7));
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("fine")))
    });
    let both = outer.layer(inner.layer(handler));
    let response = both.oneshot(request()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "fine");
    assert_eq!(pools.each_ref().map(|pool| pool.snapshot().tokens.used), [40, 7]);
    // A layer that does not limit a request has no bill of its own.
    let response = outer.layer(free.layer(handler)).oneshot(request()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "fine");
    assert_eq!(pools[0].snapshot().tokens.used, 47);
    assert_eq!((ended(&pools[0]), ended(&pools[1])), ((2, 2, 0, 0), (1, 1, 0, 0)));
}

#[tokio::test]
async fn a_refund_costs_nothing_however_the_response_ends() {
    for reads in [true, false] {
        let pool = BudgetPool::builder().requests(5).build();
        let layer = layer(&pool)
            .refund(|response| response.status().is_server_error())
            .settle(|_| Some(Amount::new().requests(3)));
        let response = answer(&layer, request(), |_| {
            Response::builder().status(500).body("broken".into()).unwrap()
        })
        .await;
        assert_eq!(pool.snapshot().in_flight.reserved, 1, "held until the end");
        if reads {
            assert_eq!(text(response).await, "broken");
        } else {
            drop(response);
        }
        assert_eq!(ended(&pool), (1, 0, 1, 0));
        assert_eq!(pool.snapshot().requests.used, 0);
    }
}

#[tokio::test]
async fn a_bill_and_trailers_go_before_the_rule_for_refunds() {
    for (trailer, bill, used) in
        [(None, None, 0), (None, Some(5), 5), (Some("7"), None, 7), (Some("7"), Some(5), 7)]
    {
        let pool = BudgetPool::builder().tokens(100).build();
        let layer = layer(&pool)
            .ask(|_| Amount::new().tokens(40))
            .refund(|response| response.status().is_server_error())
            .settle_trailers(|trailers| {
                let tokens = trailers.get("x-tokens")?.to_str().ok()?.parse().ok()?;
                Some(Amount::new().tokens(tokens))
            });
        let service = layer.layer(service_fn(move |request: Request<()>| async move {
            if let Some(tokens) = bill {
                request.extensions().get::<Bill>().unwrap().add(Amount::new().tokens(tokens));
            }
            let all = trailer.map(|value| trailers("x-tokens", value));
            let mut response = Response::new(frames([data("a")].into_iter().chain(all).collect()));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Ok::<_, Infallible>(response)
        }));
        let response = service.oneshot(request()).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(pool.snapshot().tokens.used, used, "{trailer:?} {bill:?}");
    }
}

#[tokio::test]
async fn a_response_that_does_not_end_goes_by_the_rule_of_the_layer() {
    let breaks = || vec![data("a"), Err(io::Error::other("broken"))];
    for (on_drop, used, ends) in
        [(OnDrop::Commit, 40, (1, 1, 0, 0)), (OnDrop::Release, 0, (1, 0, 1, 0))]
    {
        for polls in 0..3 {
            let pool = BudgetPool::builder().tokens(100).build();
            // The layer's rule stands in place of the ask's.
            let layer = layer(&pool)
                .on_drop(on_drop)
                .ask(|_| Ask::new(Amount::new().tokens(40)).on_drop(OnDrop::Release));
            let service = layer.layer(service_fn(move |_: Request<()>| async move {
                Ok::<_, Infallible>(Response::new(frames(breaks())))
            }));
            let mut body = pin!(service.oneshot(request()).await.unwrap().into_body());
            for _ in 0..polls {
                _ = body.frame().await.unwrap();
            }
            assert_eq!(pool.snapshot().reservations, u64::from(polls < 2));
            body.set(budget_body_that_ended());
            assert_eq!(ended(&pool), ends);
            assert_eq!(pool.snapshot().tokens.used, used, "{on_drop:?} after {polls} frames");
        }
    }

    fn budget_body_that_ended<B: Body>() -> budget_pool_tower::BudgetBody<B>
    where
        B::Data: From<Vec<u8>>,
    {
        let layer = BudgetLayer::new(|_| {
            let closed = BudgetPool::unlimited();
            closed.close();
            Some(closed)
        });
        let never = |_: Request<()>| pending::<Result<Response<B>, Infallible>>();
        let mut refused = pin!(layer.layer(service_fn(never)).call(request()));
        match refused.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(response)) => response.into_body(),
            _ => panic!("refused at once"),
        }
    }
}

#[tokio::test]
async fn a_bill_counts_also_if_the_client_hangs_up() {
    let pool = BudgetPool::builder().tokens(100).build();
    let layer = layer(&pool).on_drop(OnDrop::Release).ask(|_| Amount::new().tokens(40));
    let response = answer(&layer, request(), |request| {
        request.extensions().get::<Bill>().unwrap().total(Amount::new().tokens(12));
        Response::new("fine".into())
    });
    drop(response.await);
    assert_eq!((pool.snapshot().tokens.used, ended(&pool)), (12, (1, 1, 0, 0)));
    let response = answer(&layer, request(), |request| {
        request.extensions().get::<Bill>().unwrap().refund();
        Response::new("fine".into())
    });
    assert_eq!(text(response.await).await, "fine");
    assert_eq!((pool.snapshot().tokens.used, ended(&pool)), (12, (2, 1, 1, 0)));
}

#[tokio::test]
async fn a_request_that_is_dropped_while_it_is_served_goes_by_the_rule_of_the_layer() {
    for (on_drop, used) in [(OnDrop::Commit, 1), (OnDrop::Release, 0)] {
        let pool = BudgetPool::builder().requests(5).build();
        let service = layer(&pool).on_drop(on_drop).layer(service_fn(|_: Request<()>| {
            pending::<Result<Response<Full<Bytes>>, Infallible>>()
        }));
        {
            let mut response = pin!(service.oneshot(request()));
            poll_fn(|context| {
                assert!(response.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(pool.snapshot().reservations, 1);
        }
        let ends = (1, used, 1 - used, 0);
        assert_eq!((ended(&pool), pool.snapshot().requests.used), (ends, used), "{on_drop:?}");
    }
}

#[tokio::test]
async fn an_error_of_the_service_goes_by_a_rule_of_its_own() {
    for (on_drop, on_error, used) in [
        (OnDrop::Commit, OnDrop::Commit, 1),
        (OnDrop::Commit, OnDrop::Release, 0),
        (OnDrop::Release, OnDrop::Commit, 1),
        (OnDrop::Release, OnDrop::Release, 0),
    ] {
        for told in [None, Some(3)] {
            let pool = BudgetPool::builder().requests(10).build();
            let layer = layer(&pool).on_drop(on_drop).on_error(on_error);
            let service = layer.layer(service_fn(move |request: Request<()>| async move {
                let bill = request.extensions().get::<Bill>().unwrap();
                told.inspect(|&requests| bill.total(amount().requests(requests)));
                Err::<Response<Full<Bytes>>, _>(io::Error::other("no route"))
            }));
            let error = service.oneshot(request()).await.unwrap_err();
            assert_eq!(error.to_string(), "no route");
            // A total that the bill knows goes before the rule.
            let used = told.unwrap_or(used);
            assert_eq!(pool.snapshot().requests.used, used, "{on_drop:?} {on_error:?} {told:?}");
            let committed = u64::from(used > 0);
            assert_eq!(ended(&pool), (1, committed, 1 - committed, 0));
        }
    }
    // Unless told otherwise, an error is paid for, whatever a response costs that does not end.
    let pool = BudgetPool::builder().requests(10).build();
    let fails = service_fn(|_: Request<()>| async { Err::<Response<Full<Bytes>>, _>(()) });
    layer(&pool).on_drop(OnDrop::Release).layer(fails).oneshot(request()).await.unwrap_err();
    assert_eq!(pool.snapshot().requests.used, 1);
}

/// The hold of a slow service has expired before it fails: its expiry went by the other rule.
#[tokio::test(start_paused = true)]
async fn an_error_goes_by_its_rule_although_the_hold_has_expired() {
    let second = Duration::from_secs(1);
    for (on_drop, expired) in [(OnDrop::Commit, 1), (OnDrop::Release, 0)] {
        for (on_error, used) in [(OnDrop::Commit, 1), (OnDrop::Release, 0)] {
            let pool = BudgetPool::builder().requests(10).tokio().build();
            let layer = layer(&pool)
                .on_drop(on_drop)
                .on_error(on_error)
                .ask(move |_| Ask::new(amount().requests(1)).ttl(30 * second));
            let seen = pool.clone();
            let service = layer.layer(service_fn(move |_: Request<()>| {
                let seen = seen.clone();
                async move {
                    tokio::time::advance(30 * second).await;
                    assert_eq!(seen.snapshot().requests.used, expired, "{on_drop:?}");
                    Err::<Response<Full<Bytes>>, _>(())
                }
            }));
            service.oneshot(request()).await.unwrap_err();
            assert_eq!(pool.snapshot().requests.used, used, "{on_drop:?} {on_error:?}");
            assert_eq!(ended(&pool), (1, 0, 0, 1));
        }
    }
}

#[tokio::test]
async fn a_response_that_nobody_reads_has_ended_with_its_head() {
    let pool = BudgetPool::builder().requests(9).build();
    let layer = layer(&pool).on_drop(OnDrop::Release);
    let mut head = request();
    *head.method_mut() = Method::HEAD;
    let response = ask(&layer, head).await;
    assert_eq!(pool.snapshot().reservations, 0);
    drop(response);
    for status in [204, 304, 101] {
        let respond = move |_| Response::builder().status(status).body("?".into()).unwrap();
        drop(answer(&layer, request(), respond).await);
    }
    let mut tunnel = request();
    *tunnel.method_mut() = Method::CONNECT;
    drop(ask(&layer, tunnel).await);
    let empty = service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    drop(layer.layer(empty).oneshot(request()).await);
    assert_eq!((ended(&pool), pool.snapshot().requests.used), ((6, 6, 0, 0), 6));
}

#[tokio::test]
async fn a_length_in_the_head_tells_the_end_unless_it_cannot_be_read() {
    for (lengths, frames_read, is_whole) in [
        (&["3"][..], 2, false),
        (&["3"], 3, true),
        (&["2"], 3, true),
        (&["0"], 0, true),
        (&["4"], 3, false),
        (&["+3"], 3, false),
        (&["3", "3"], 3, false),
        (&["99999999999999999999"], 3, false),
        (&[], 3, false),
    ] {
        let pool = BudgetPool::builder().requests(9).build();
        let service =
            layer(&pool).on_drop(OnDrop::Release).layer(service_fn(|_: Request<()>| async {
                let mut response = Response::new(frames(vec![data("a"), data("b"), data("c")]));
                for length in lengths {
                    response.headers_mut().append("content-length", length.parse().unwrap());
                }
                Ok::<_, Infallible>(response)
            }));
        let mut body = service.oneshot(request()).await.unwrap().into_body();
        for _ in 0..frames_read {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        let whole = u64::from(is_whole);
        assert_eq!(ended(&pool), (1, whole, 1 - whole, 0), "{lengths:?} after {frames_read}");
    }
}

#[tokio::test]
async fn a_body_of_a_known_size_has_ended_when_all_of_it_is_read() {
    let pool = BudgetPool::builder().requests(9).build();
    let layer = layer(&pool).on_drop(OnDrop::Release);
    let mut body = ask(&layer, request()).await.into_body();
    assert_eq!(body.size_hint().exact(), Some(4));
    body.frame().await.unwrap().unwrap();
    assert!(body.is_end_stream());
    // A server reads no further.
    assert_eq!((ended(&pool), pool.snapshot().requests.used), ((1, 1, 0, 0), 1));
}

/// A server drops a body that has yielded trailers, and does not ask whether more comes.
#[tokio::test]
async fn a_response_has_ended_with_its_trailers() {
    // A letter for each frame: data, trailers, an error.
    let frame = |kind| match kind {
        'd' => data("a"),
        't' => trailers("x-tokens", "7"),
        _ => Err(io::Error::other("broken")),
    };
    for (on_drop, dropped) in [(OnDrop::Commit, 40), (OnDrop::Release, 0)] {
        for (all, frames_read, held, told) in [
            ("dt", 1, dropped, dropped),
            ("dt", 2, 40, 7),
            ("t", 1, 40, 7),
            // Nothing that follows opens the books again.
            ("dte", 3, 40, 7),
            ("dtdt", 4, 40, 7),
        ] {
            for (reads, used) in [(false, held), (true, told)] {
                let pool = BudgetPool::builder().tokens(100).build();
                let layer = layer(&pool).on_drop(on_drop).ask(|_| amount().tokens(40));
                let layer = layer.settle_trailers(move |trailers| {
                    let tokens = trailers.get("x-tokens").filter(|_| reads)?.to_str().ok()?;
                    Some(amount().tokens(tokens.parse().ok()?))
                });
                let service = layer.layer(service_fn(move |_: Request<()>| async move {
                    Ok::<_, Infallible>(Response::new(frames(all.chars().map(frame).collect())))
                }));
                let mut body = service.oneshot(request()).await.unwrap().into_body();
                for _ in 0..frames_read {
                    _ = body.frame().await.unwrap();
                }
                drop(body);
                let case = format!("{frames_read} of {all}, {on_drop:?}, read: {reads}");
                assert_eq!(pool.snapshot().tokens.used, used, "{case}");
                assert_eq!(ended(&pool).0, 1);
            }
        }
    }
}

/// A server of HTTP/1 sends a body of size zero without a look at it. One of HTTP/2 reads its
/// trailers.
#[tokio::test]
async fn a_body_whose_size_is_zero_has_ended_although_trailers_may_come() {
    for (polls, used) in [(0, 40), (1, 7)] {
        let pool = BudgetPool::builder().tokens(100).build();
        let layer = layer(&pool).on_drop(OnDrop::Release).ask(|_| amount().tokens(40));
        let layer = layer.settle_trailers(|_| Some(amount().tokens(7)));
        let service = layer.layer(service_fn(|_: Request<()>| async {
            let last = std::future::ready(Some(Ok(HeaderMap::new())));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new().with_trailers(last)))
        }));
        let mut body = service.oneshot(request()).await.unwrap().into_body();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), false));
        for _ in 0..polls {
            assert!(body.frame().await.unwrap().unwrap().is_trailers());
        }
        drop(body);
        assert_eq!((pool.snapshot().tokens.used, ended(&pool)), (used, (1, 1, 0, 0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_in_line_as_long_as_it_may() {
    let pool = BudgetPool::builder().requests(100).in_flight(1).tokio().build();
    let layer = layer(&pool).wait_within(Duration::from_secs(2));
    let first = ask(&layer, request()).await;
    let start = tokio::time::Instant::now();
    let second = ask(&layer, request());
    let reads = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        text(first).await
    };
    let (second, _) = tokio::join!(second, reads);
    assert_eq!((second.status(), start.elapsed()), (StatusCode::OK, Duration::from_secs(1)));

    let start = tokio::time::Instant::now();
    let third = ask(&layer, request()).await;
    assert_eq!(third.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert_eq!(problem(third).await["kind"], "timeout");
    assert_eq!(pool.snapshot().waiting, 0);

    // One that hangs up gives up its place.
    let fourth = tokio::time::timeout(Duration::from_secs(1), ask(&layer, request())).await;
    assert!(fourth.is_err());
    assert_eq!(pool.snapshot().waiting, 0);
    drop(second);
    assert_eq!(ended(&pool), (2, 2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_the_layer_stands_in_place_of_that_of_the_ask() {
    let second = Duration::from_secs(1);
    for (layers, asks) in [(2 * second, second), (2 * second, 9 * second)] {
        let pool = BudgetPool::builder().in_flight(1).tokio().build();
        let layer = layer(&pool)
            .wait_within(layers)
            .ask(move |_| Ask::new(Amount::new().requests(1)).wait_at_most(asks));
        let _held = ask(&layer, request()).await;
        let start = tokio::time::Instant::now();
        assert_eq!(ask(&layer, request()).await.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(start.elapsed(), layers);
    }
    // No time is too long, and none is no wait.
    let pool = BudgetPool::builder().in_flight(1).tokio().build();
    let held = ask(&layer(&pool), request()).await;
    let at_once = layer(&pool).wait_within(Duration::ZERO);
    assert_eq!(ask(&at_once, request()).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let for_ever = layer(&pool).wait_within(Duration::MAX);
    let (waits, ()) = tokio::join!(ask(&for_ever, request()), async {
        tokio::time::sleep(1_000 * second).await;
        drop(held);
    });
    assert_eq!(waits.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_for_ever_keeps_its_slot_for_the_time_of_the_ask() {
    let second = Duration::from_secs(1);
    for (on_drop, expired) in [(OnDrop::Commit, 40), (OnDrop::Release, 0)] {
        for total in [None, Some(7), Some(90)] {
            let pool = BudgetPool::builder().tokens(200).in_flight(1).tokio().build();
            let layer = layer(&pool)
                .on_drop(on_drop)
                .ask(move |_| Ask::new(Amount::new().tokens(40)).ttl(30 * second));
            let slow = answer(&layer, request(), move |request| {
                let bill = request.extensions().get::<Bill>().unwrap();
                total.inspect(|&tokens| bill.total(Amount::new().tokens(tokens)));
                Response::new("fine".into())
            })
            .await;
            tokio::time::advance(29 * second).await;
            assert_eq!(ask(&layer, request()).await.status(), StatusCode::TOO_MANY_REQUESTS);
            tokio::time::advance(second).await;
            assert_eq!(pool.snapshot().tokens.used, expired, "{on_drop:?}");
            // The slot is free for another, and what the slow one has cost is booked late.
            let another = ask(&layer, request()).await;
            assert_eq!(another.status(), StatusCode::OK);
            drop(another);
            let others = if on_drop == OnDrop::Commit { 40 } else { 0 };
            assert_eq!(text(slow).await, "fine");
            let late = total.unwrap_or(40);
            assert_eq!(pool.snapshot().tokens.used, late + others, "{on_drop:?} {total:?}");
            let Snapshot { committed, released, expired, .. } = pool.snapshot();
            assert_eq!((committed + released, expired), (1, 1));
            ended(&pool);
        }
    }
}

/// The hold of a slow response has expired before it ends: a refund is told late, and costs nothing.
#[tokio::test(start_paused = true)]
async fn a_refund_costs_nothing_although_the_hold_has_expired() {
    let second = Duration::from_secs(1);
    for (on_drop, expired) in [(OnDrop::Commit, 40), (OnDrop::Release, 0)] {
        for by_the_bill in [true, false] {
            let pool = BudgetPool::builder().tokens(200).requests(5).tokio().build();
            let layer = layer(&pool)
                .on_drop(on_drop)
                .refund(|response| response.status().is_server_error())
                .ask(move |_| Ask::new(Amount::new().requests(1).tokens(40)).ttl(30 * second));
            let slow = answer(&layer, request(), move |request| {
                let bill = request.extensions().get::<Bill>().unwrap();
                let status = if by_the_bill { 200 } else { 500 };
                by_the_bill.then(|| bill.refund());
                Response::builder().status(status).body("broken".into()).unwrap()
            })
            .await;
            tokio::time::advance(30 * second).await;
            assert_eq!(pool.snapshot().tokens.used, expired, "{on_drop:?}");
            assert_eq!(text(slow).await, "broken");
            let Snapshot { tokens, requests, .. } = pool.snapshot();
            assert_eq!((tokens.used, requests.used), (0, 0), "{on_drop:?} {by_the_bill}");
            assert_eq!((tokens.spent, tokens.available), (0, Some(200)));
            assert_eq!(ended(&pool), (1, 0, 0, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_deadline_of_the_caller() {
    let pool = BudgetPool::builder().in_flight(1).tokio().build();
    let layer = layer(&pool).wait_within(Duration::from_secs(2)).deadline_from([GRPC_TIMEOUT]);
    let clock = BudgetPool::builder().tokio().deadline(Duration::from_secs(600)).build();
    let layer = layer.deadline_below(clock.deadline().unwrap());
    let held = ask(&layer, request()).await;
    let start = tokio::time::Instant::now();
    let late = ask(&layer, request_with(&[("grpc-timeout", "500m")])).await;
    assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(start.elapsed(), Duration::from_millis(500));
    drop(held);
}

/// The time of a wait counts from its first poll, which may be long after the call.
#[tokio::test(start_paused = true)]
async fn what_is_granted_after_the_deadline_is_not_served() {
    let pool = BudgetPool::builder().in_flight(1).tokio().build();
    let layer = layer(&pool).wait_within(Duration::from_secs(2)).deadline_from([GRPC_TIMEOUT]);
    let clock = BudgetPool::builder().tokio().deadline(Duration::from_secs(600)).build();
    let layer = layer.deadline_below(clock.deadline().unwrap());
    let held = ask(&layer, request()).await;
    let mut late = layer.layer(service_fn(|_: Request<()>| async {
        panic!("nobody listens");
        #[allow(unreachable_code)]
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let late = late.call(request_with(&[("grpc-timeout", "500m")]));
    tokio::time::advance(Duration::from_millis(400)).await;
    let (late, ()) = tokio::join!(late, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(held);
    });
    assert_eq!(late.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(pool.snapshot().in_flight.reserved, 0);
}

#[tokio::test]
async fn a_pool_without_a_timer_is_asked_once_instead_of_waiting() {
    let minute = Window::fixed(Duration::from_secs(60));
    let pool = BudgetPool::builder().requests(1).window(minute).build();
    let layer = layer(&pool).wait_within(Duration::from_secs(120));
    assert_eq!(ask(&layer, request()).await.status(), StatusCode::OK);
    let refused = ask(&layer, request()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(["59", "60"].contains(&header(&refused, "retry-after").unwrap()));
    assert_eq!(problem(refused).await["kind"], "exceeded");
}

#[tokio::test]
async fn a_handler_learns_what_was_granted() {
    let pool = BudgetPool::builder().tokens(100).build();
    let layer = layer(&pool).ask(|_| {
        Ask::new(Amount::new().tokens(400))
            .or(Amount::new().tokens(300))
            .at_least(amount().tokens(50))
    });
    let response = answer(&layer, request(), |request| {
        let bill = request.extensions().get::<Bill>().unwrap();
        assert_eq!((bill.granted().units(Axis::Tokens), bill.choice()), (100, 1));
        Response::new("fine".into())
    });
    assert_eq!(response.await.status(), StatusCode::OK);
}

#[tokio::test]
async fn poll_ready_is_passed_through_and_the_ready_service_serves() {
    /// Ready once after each `poll_ready`, and never when cloned.
    struct Fussy {
        ready: bool,
        polls: Arc<AtomicU32>,
    }

    impl Clone for Fussy {
        fn clone(&self) -> Fussy {
            Fussy { ready: false, polls: Arc::clone(&self.polls) }
        }
    }

    impl Service<Request<()>> for Fussy {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.polls.fetch_add(1, Ordering::Relaxed);
            self.ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            assert!(std::mem::take(&mut self.ready), "called without being ready");
            std::future::ready(Ok(Response::new("fine".into())))
        }
    }

    let pool = BudgetPool::builder().in_flight(1).tokio().build();
    let polls = Arc::new(AtomicU32::new(0));
    let fussy = Fussy { ready: false, polls: Arc::clone(&polls) };
    let mut service = layer(&pool).wait_within(Duration::from_secs(9)).layer(fussy);
    assert_service(&service);
    let first = service.ready().await.unwrap().call(request());
    let second = service.ready().await.unwrap().call(request());
    assert_eq!(polls.load(Ordering::Relaxed), 2);
    let first = first.await.unwrap();
    let (second, ()) = tokio::join!(second, async { drop(first) });
    assert_eq!(second.unwrap().status(), StatusCode::OK);

    // A service that is not ready, or fails, says so.
    struct Broken;
    impl Service<Request<()>> for Broken {
        type Response = Response<Full<Bytes>>;
        type Error = &'static str;
        type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Err("broken"))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            pending_response()
        }
    }
    fn pending_response() -> std::future::Pending<Result<Response<Full<Bytes>>, &'static str>> {
        pending()
    }
    impl Clone for Broken {
        fn clone(&self) -> Broken {
            Broken
        }
    }
    let mut broken: BudgetService<Broken> = layer(&pool).layer(Broken);
    assert_eq!(poll_fn(|context| broken.poll_ready(context)).await, Err("broken"));
}

#[tokio::test]
async fn a_function_of_the_users_that_panics_leaves_nothing_held() {
    let pool = BudgetPool::builder().requests(9).build();
    let layer = layer(&pool).settle(|_| panic!("in settle"));
    let task = tokio::spawn(async move { ask(&layer, request()).await });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(ended(&pool), (1, 1, 0, 0));
}

#[tokio::test]
async fn every_body_type_goes_with_the_layer() {
    let pool = BudgetPool::builder().requests(9).build();
    let layer = layer(&pool);
    let upper = layer.layer(service_fn(|request: Request<String>| async move {
        Ok::<_, Infallible>(Response::new(request.into_body().to_uppercase()))
    }));
    let response = upper.oneshot(Request::new("abc".to_owned())).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ABC");
    let debug = format!("{layer:?}");
    assert!(debug.starts_with("BudgetLayer { wait: None, "), "{debug}");
}

#[test]
fn what_is_sent_between_threads_may_be() {
    fn may<T: Send + Sync + Unpin + 'static>() {}
    fn clones<T: Clone>() {}
    type Served = std::future::Ready<Result<Response<Full<Bytes>>, Infallible>>;
    type Inner = tower::util::ServiceFn<fn(Request<()>) -> Served>;
    may::<BudgetLayer>();
    may::<BudgetService<Inner>>();
    may::<budget_pool_tower::BudgetFuture<Inner, ()>>();
    may::<budget_pool_tower::BudgetBody<Full<Bytes>>>();
    may::<Bill>();
    clones::<BudgetLayer>();
    clones::<BudgetService<Inner>>();
    clones::<Bill>();
}
