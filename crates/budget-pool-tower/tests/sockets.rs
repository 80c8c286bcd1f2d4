//! The layer under axum and hyper, over real sockets.

mod support;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body as AxumBody;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use budget_pool::{Amount, BudgetPool, Keyed, OnDrop, Snapshot, Window};
use budget_pool_tower::{
    Bill, BudgetLayer, ENVOY_EXPECTED_RQ_TIMEOUT_MS, GRPC_TIMEOUT, RateLimitHeaders,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A connection, and the task that drives it: aborted, it hangs up.
async fn connect(
    address: SocketAddr,
) -> (http1::SendRequest<Empty<Bytes>>, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(async move { _ = connection.await }))
}

async fn fetch(address: SocketAddr, headers: &[(&str, &str)]) -> Response<Incoming> {
    let (mut sender, _) = connect(address).await;
    sender.send_request(get_request(headers)).await.unwrap()
}

fn get_request(headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
    let request = Request::get("http://localhost/").header("host", "localhost");
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Empty::new()).unwrap()
}

/// Looks at the pool until it is so.
async fn until(pool: &BudgetPool, what: &str, so: impl Fn(&Snapshot) -> bool) {
    let looks = async {
        while !so(&pool.snapshot()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks)
        .await
        .unwrap_or_else(|_| panic!("{what}: {}", pool.snapshot()));
}

/// A body of the frames that come through a channel.
struct Channel(mpsc::Receiver<Frame<Bytes>>);

impl futures_core::Stream for Channel {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

fn channel() -> (mpsc::Sender<Frame<Bytes>>, AxumBody) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, AxumBody::new(StreamBody::new(Channel(receiver))))
}

fn layer(pool: &BudgetPool) -> BudgetLayer {
    let pool = pool.clone();
    BudgetLayer::new(move |_| Some(pool.clone())).ask(|_| Amount::new().requests(1).tokens(40))
}

fn pool() -> BudgetPool {
    BudgetPool::builder().name("acme").requests(100).tokens(1_000).tokio().build()
}

#[tokio::test]
async fn an_answer_is_settled_when_the_client_has_read_it() {
    let pool = pool();
    let app = Router::new().route(
        "/",
        get(async |Extension(bill): Extension<Bill>| {
            bill.total(Amount::new().tokens(7));
            "fine"
        }),
    );
    let address = serve(app.layer(layer(&pool).headers(RateLimitHeaders::Ietf))).await;
    let response = fetch(address, &[]).await;
    assert_eq!(
        header(&response, "ratelimit"),
        Some(r#""acme:tokens";r=960, "acme:requests";r=99"#)
    );
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "fine");
    assert_eq!((ended(&pool), pool.snapshot().tokens.used), ((1, 1, 0, 0), 7));

    pool.record(Amount::new().tokens(990)).unwrap();
    let refused = fetch(address, &[]).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (429, None));
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["violated-policies"], serde_json::json!(["acme:tokens"]));
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_ends_the_hold_by_the_rule_of_the_layer() {
    for (on_drop, used, ends) in
        [(OnDrop::Commit, 40, (1, 1, 0, 0)), (OnDrop::Release, 0, (1, 0, 1, 0))]
    {
        let pool = pool();
        let (frames, body) = channel();
        let body = Arc::new(Mutex::new(Some(body)));
        let app = Router::new().route("/", get(async move || body.lock().unwrap().take().unwrap()));
        let address = serve(app.layer(layer(&pool).on_drop(on_drop))).await;
        let (mut sender, connection) = connect(address).await;
        let response = sender.send_request(get_request(&[])).await.unwrap();
        let mut body = response.into_body();
        frames.send(Frame::data("one".into())).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        assert_eq!(pool.snapshot().tokens.reserved, 40);

        connection.abort();
        drop((sender, body));
        until(&pool, "the end of the hold", |pool| pool.reservations == 0).await;
        assert_eq!((ended(&pool), pool.snapshot().tokens.used), (ends, used), "{on_drop:?}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_head_ends_the_hold_too() {
    let pool = pool();
    let app = Router::new().route("/", get(std::future::pending::<()>));
    let address = serve(app.layer(layer(&pool))).await;
    let (mut sender, connection) = connect(address).await;
    let asked = tokio::spawn(async move { sender.send_request(get_request(&[])).await.is_err() });
    until(&pool, "the hold", |pool| pool.reservations == 1).await;
    connection.abort();
    assert!(asked.await.unwrap());
    until(&pool, "the end of the hold", |pool| pool.reservations == 0).await;
    assert_eq!((ended(&pool), pool.snapshot().tokens.used), ((1, 1, 0, 0), 40));
}

#[tokio::test]
async fn a_body_that_is_never_read_is_held_until_the_client_is_gone() {
    let pool = pool();
    // More than the buffers of both sides take.
    let app = Router::new().route(
        "/",
        get(async || {
            let (frames, body) = channel();
            tokio::spawn(async move {
                while frames.send(Frame::data(Bytes::from(vec![0; 1 << 20]))).await.is_ok() {}
            });
            body
        }),
    );
    let address = serve(app.layer(layer(&pool))).await;
    let (mut sender, connection) = connect(address).await;
    let response = sender.send_request(get_request(&[])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(pool.snapshot().reservations, 1);
    connection.abort();
    drop((sender, response));
    until(&pool, "the end of the hold", |pool| pool.reservations == 0).await;
    assert_eq!((ended(&pool), pool.snapshot().tokens.used), ((1, 1, 0, 0), 40));
}

#[tokio::test]
async fn trailers_settle_whether_or_not_the_client_wants_them() {
    let pool = pool();
    let app = Router::new().route(
        "/",
        get(async || {
            let (frames, body) = channel();
            tokio::spawn(async move {
                frames.send(Frame::data("text".into())).await.unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("x-tokens", "12".parse().unwrap());
                frames.send(Frame::trailers(trailers)).await.unwrap();
            });
            ([("trailer", "x-tokens")], body).into_response()
        }),
    );
    let layer = layer(&pool).on_drop(OnDrop::Release).settle_trailers(|trailers| {
        Some(Amount::new().tokens(trailers.get("x-tokens")?.to_str().ok()?.parse().ok()?))
    });
    let address = serve(app.layer(layer)).await;
    for (index, wants) in [&[("te", "trailers")][..], &[]].into_iter().enumerate() {
        let body = fetch(address, wants).await.into_body().collect().await.unwrap();
        let told = body.trailers().and_then(|trailers| trailers.get("x-tokens"));
        assert_eq!(told.is_some(), !wants.is_empty());
        assert_eq!(body.to_bytes(), "text");
        until(&pool, "the end of the hold", |pool| pool.reservations == 0).await;
        let settled = index as u64 + 1;
        assert_eq!(ended(&pool), (settled, settled, 0, 0));
        assert_eq!(pool.snapshot().tokens.used, 12 * settled);
    }
}

#[tokio::test]
async fn a_body_that_the_header_alone_measures_has_ended_when_so_much_is_read() {
    // The whole of it; or less, which has ended by its own word: the server cuts the client off.
    for (chunks, is_whole) in
        [(&["te", "xt"][..], true), (&["text"], true), (&["", "text", ""], true), (&["te"], false)]
    {
        let pool = pool();
        let app = Router::new().route(
            "/",
            get(async move || {
                let (frames, body) = channel();
                tokio::spawn(async move {
                    for chunk in chunks {
                        _ = frames.send(Frame::data((*chunk).into())).await;
                    }
                    if is_whole {
                        // It does not say that nothing follows.
                        frames.closed().await;
                    }
                });
                ([("content-length", "4")], body).into_response()
            }),
        );
        let address = serve(app.layer(layer(&pool).on_drop(OnDrop::Release))).await;
        let read = fetch(address, &[]).await.into_body().collect().await;
        assert_eq!(read.ok().map(|read| read.to_bytes()), is_whole.then(|| "text".into()));
        until(&pool, "the end of the hold", |pool| pool.reservations == 0).await;
        assert_eq!((ended(&pool), pool.snapshot().tokens.used), ((1, 1, 0, 0), 40), "{chunks:?}");
    }
}

#[tokio::test]
async fn hyper_serves_it_without_axum() {
    let pool = pool();
    let service = tower::Layer::layer(
        &layer(&pool),
        tower::service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new("fine".to_owned()))
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(service);
        let connection = hyper::server::conn::http1::Builder::new();
        connection.serve_connection(TokioIo::new(stream), service).await
    });
    let body = fetch(address, &[]).await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((&body[..], ended(&pool)), (&b"fine"[..], (1, 1, 0, 0)));
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A few requests as no honest client would send them, one behind the other, cut somewhere.
fn hostile(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(3) {
        let method = random.pick(&["GET", "GET", "HEAD", "POST", "CONNECT", "PRI", "\0"]);
        let path = random.pick(&["/", "/", "/stream", "/length", "*", "/%ff"]);
        let version = random.pick(&["1.1", "1.1", "1.0", "2.0"]);
        bytes.extend(format!("{method} {path} HTTP/{version}\r\nhost: a\r\n").bytes());
        for _ in 0..random.below(4) {
            let header: &[u8] = random.pick(&[
                b"x-tenant: b".as_slice(),
                b"x-tenant: \xff\xfe",
                b"grpc-timeout: 1\xff",
                b"grpc-timeout: 99999999H",
                b"grpc-timeout: 1n",
                b"grpc-timeout: 20m",
                b"x-envoy-expected-rq-timeout-ms: -1",
                b"content-type: application/grpc",
                b"content-length: 5",
                b"content-length: 18446744073709551613",
                b"transfer-encoding: chunked",
                b"expect: 100-continue",
                b"connection: upgrade\r\nupgrade: nothing",
                b"connection: close",
                b"te: trailers",
                b"broken",
            ]);
            bytes.extend_from_slice(header);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"\r\n");
        bytes.extend(
            random.pick(&["", "", "hello", "5\r\nhello\r\n0\r\n\r\n", "ffffffff\r\n"]).bytes(),
        );
    }
    if random.below(3) == 0 {
        bytes.truncate(random.below(bytes.len()));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_break_no_cap_and_leave_nothing_held() {
    const CLIENTS: u64 = 600;
    let all = BudgetPool::builder().name("all").in_flight(4).tokio().build();
    let tenants: Keyed<String> = Keyed::new(all.clone());
    let pools = tenants.clone();
    let layer = BudgetLayer::new(move |request| {
        let tenant = request.headers().get("x-tenant").map_or(&b"none"[..], |name| name.as_bytes());
        let tenant = String::from_utf8_lossy(tenant);
        Some(pools.get_or_build(&*tenant, |pool| pool.name(&*tenant).in_flight(3)))
    })
    .ask(|_| Amount::new().requests(1).tokens(3))
    .wait_within(Duration::from_millis(20))
    .deadline_from([GRPC_TIMEOUT, ENVOY_EXPECTED_RQ_TIMEOUT_MS])
    .settle_trailers(|_| Some(Amount::new().tokens(2)))
    .refund(|response| response.status().is_client_error())
    .headers(RateLimitHeaders::Ietf);
    let stream = async |Extension(bill): Extension<Bill>| {
        let (frames, body) = channel();
        tokio::spawn(async move {
            for _ in 0..3 {
                bill.add(Amount::new().tokens(1));
                if frames.send(Frame::data(Bytes::from(vec![b'x'; 2 << 20]))).await.is_err() {
                    return;
                }
            }
            _ = frames.send(Frame::trailers(HeaderMap::new())).await;
        });
        body
    };
    let length = async || {
        let (frames, body) = channel();
        tokio::spawn(async move {
            _ = frames.send(Frame::data("text".into())).await;
            frames.closed().await;
        });
        ([("content-length", "4")], body).into_response()
    };
    let app = Router::new()
        .route("/", axum::routing::any(async |body: Bytes| body))
        .route("/stream", axum::routing::any(stream))
        .route("/length", axum::routing::any(length))
        .layer(layer);
    let address = serve(app).await;
    let mut clients = tokio::task::JoinSet::new();
    for number in 1..=CLIENTS {
        clients.spawn(async move {
            let mut random = Random(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let mut stream = TcpStream::connect(address).await.unwrap();
            for part in hostile(&mut random).chunks(1 + random.below(200)) {
                _ = stream.write_all(part).await;
            }
            if random.below(3) == 0 {
                _ = stream.shutdown().await;
            }
            let mut read = vec![0; random.pick(&[0, 1, 300, 100_000])];
            let reads = stream.read_exact(&mut read);
            let patience = Duration::from_millis(random.below(60) as u64);
            _ = tokio::time::timeout(patience, reads).await;
            // Where something is left unread, the drop is a reset.
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    until(&all, "the end of all holds", |all| all.reservations + all.waiting == 0).await;
    for pool in &all.snapshot_tree() {
        let Snapshot { admitted, committed, released, expired, in_flight, .. } = pool;
        assert_eq!(*admitted, committed + released + expired, "{pool}");
        assert!(in_flight.cap.is_some_and(|cap| in_flight.peak <= cap), "{pool}");
    }
    let all = all.snapshot();
    assert!(all.admitted > 50 && all.committed > 0 && all.released > 0, "{all}");
}

/// What the handlers of the crowd have seen.
#[derive(Default)]
struct Seen {
    /// By tenant: served now, and the most at once.
    flights: Mutex<HashMap<String, (u64, u64)>>,
    billed: AtomicU64,
    /// How many ended before they had told their bill.
    unbilled: AtomicU64,
}

const TENANTS: usize = 100;
const SLOTS: u64 = 3;
const TOKENS: u64 = 60;

/// A flight that is counted until the body is dropped.
struct Flight {
    seen: Arc<Seen>,
    tenant: String,
    left: u32,
    bill: Option<Bill>,
    /// What the bill says at the end.
    tokens: u64,
}

impl Flight {
    fn start(seen: &Arc<Seen>, tenant: &str, bill: Bill, tokens: u64) -> Flight {
        let mut flights = seen.flights.lock().unwrap();
        let (now, most) = flights.entry(tenant.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        let (seen, tenant) = (Arc::clone(seen), tenant.to_owned());
        Flight { seen, tenant, left: 2, bill: Some(bill), tokens }
    }
}

impl futures_core::Stream for Flight {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        if self.left == 0 {
            // Between the two frames others come to their turn.
            let (waker, tokens) = (context.waker().clone(), self.tokens);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(tokens % 5)).await;
                waker.wake();
            });
            if let Some(bill) = self.bill.take() {
                self.left += 1;
                bill.total(Amount::new().requests(1).tokens(tokens));
                self.seen.billed.fetch_add(tokens, Ordering::Relaxed);
                return Poll::Pending;
            }
        }
        Poll::Ready(Some(Ok(Frame::data("x".into()))))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.seen.flights.lock().unwrap();
        flights.get_mut(&self.tenant).unwrap().0 -= 1;
        self.seen.unbilled.fetch_add(u64::from(self.bill.is_some()), Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_over_a_hundred_tenants_keep_the_caps_and_the_books() {
    let service = BudgetPool::builder().name("service").tokio().build();
    let tenants: Keyed<String> = Keyed::new(service.clone());
    let pools = tenants.clone();
    let layer = BudgetLayer::new(move |request| {
        let tenant = request.headers().get("x-tenant")?.to_str().ok()?;
        Some(pools.get_or_build(tenant, |pool| {
            let window = Window::fixed(Duration::from_millis(20));
            pool.name(tenant).in_flight(SLOTS).tokens(TOKENS).window(window)
        }))
    })
    .ask(|_| Amount::new().requests(1).tokens(20))
    .wait_within(PATIENCE)
    .headers(RateLimitHeaders::Ietf);
    let seen: Arc<Seen> = Arc::default();
    let app = Router::new()
        .route(
            "/",
            get(
                async |State(seen): State<Arc<Seen>>,
                       Extension(bill): Extension<Bill>,
                       headers: HeaderMap| {
                    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
                    let tokens = text("x-tokens").parse().unwrap();
                    let flight = Flight::start(&seen, &text("x-tenant"), bill, tokens);
                    AxumBody::new(StreamBody::new(flight))
                },
            ),
        )
        .with_state(Arc::clone(&seen))
        .layer(layer);
    let address = serve(app).await;

    // Beside them, idle tenants are evicted all the time, and no cap is broken at any look.
    let stop = Arc::new(AtomicBool::new(false));
    let beside = std::thread::spawn({
        let (tenants, stop, service) = (tenants.clone(), Arc::clone(&stop), service.clone());
        move || {
            let mut evicted = 0;
            while !stop.load(Ordering::Relaxed) {
                evicted += tenants.evict_idle();
                for tenant in service.snapshot_tree().iter().filter(|pool| pool.depth == 1) {
                    let held = tenant.tokens.used + tenant.tokens.reserved;
                    assert!(held <= TOKENS && tenant.in_flight.reserved <= SLOTS, "{tenant}");
                }
                std::thread::yield_now();
            }
            evicted
        }
    });

    // Ten connections, a hundred requests on each at the same time.
    let mut requests = Vec::new();
    for connection in 0..10 {
        let stream = TcpStream::connect(address).await.unwrap();
        let io = TokioIo::new(stream);
        let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(driver);
        for request in 0..100 {
            let mut sender = sender.clone();
            requests.push(tokio::spawn(async move {
                let number = connection * 100 + request;
                let tenant = format!("tenant {}", number % TENANTS);
                let tokens = (number * 7 % 20).to_string();
                let request = get_request(&[("x-tenant", &tenant), ("x-tokens", &tokens)]);
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), 200, "{:?}", response.headers());
                // One in ten hangs up after the head.
                if number % 10 == 3 {
                    return;
                }
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "xx");
            }));
        }
    }
    for request in requests {
        request.await.unwrap();
    }
    until(&service, "the end of all holds", |service| service.reservations == 0).await;
    stop.store(true, Ordering::Relaxed);
    let evicted = beside.join().unwrap();

    let service = service.snapshot();
    assert_eq!((service.admitted, service.waiting), (1_000, 0));
    assert_eq!(service.committed + service.released + service.expired, 1_000, "{service}");
    assert_eq!(service.requests.spent, 1_000);
    // Those that hung up before the bill are booked with what they held.
    let unbilled = 20 * seen.unbilled.load(Ordering::Relaxed);
    let billed = seen.billed.load(Ordering::Relaxed);
    assert_eq!(service.tokens.spent, billed + unbilled, "{service}");
    let flights = std::mem::take(&mut *seen.flights.lock().unwrap());
    assert_eq!(flights.len(), TENANTS);
    assert!(flights.values().all(|&(now, most)| now == 0 && most <= SLOTS), "{flights:?}");
    assert!(flights.values().any(|&(_, most)| most > 1), "they ran side by side");

    // Each tenant was evicted, now that its window has turned or while others were served.
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert!(evicted + tenants.evict_idle() >= TENANTS);
    assert!(tenants.is_empty());
}
