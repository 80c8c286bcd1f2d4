//! The layer behind TLS and above it, over real sockets: HTTP/1.1 and HTTP/2, by what both sides
//! agree on in the handshake.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::routing::get;
use axum::{BoxError, Extension, Router};
use budget_pool::{Amount, BudgetPool, OnDrop, Snapshot};
use budget_pool_tower::{Bill, BudgetLayer, RateLimitHeaders};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_stream::wrappers::ReceiverStream;
use tower::{Layer, ServiceExt, service_fn};

const PATIENCE: Duration = Duration::from_secs(20);

/// Both ends agree on one of these.
const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// A listener of axum that shakes hands before it hands a connection over.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = server::TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            // A client that does not finish the handshake is nobody's.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Where the server is, and the certificate that it has signed itself.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
}

async fn serve(app: Router) -> Server {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = signed.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
    tokio::spawn(async move { axum::serve(tls, app).await });
    Server { address, certificate }
}

impl Server {
    /// A connection of a client that speaks this protocol and trusts the server's certificate.
    async fn shake_hands(&self, protocol: &[u8]) -> client::TlsStream<TcpStream> {
        let mut trusted = RootCertStore::empty();
        trusted.add(self.certificate.clone()).unwrap();
        let stream = self.shake_hands_of(trusted, protocol).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }

    async fn shake_hands_of(
        &self,
        trusted: RootCertStore,
        protocol: &[u8],
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let mut config =
            ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn connect(&self, protocol: &[u8]) -> Connection {
        let stream = TokioIo::new(self.shake_hands(protocol).await);
        if protocol == HTTP_2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            let driver = tokio::spawn(async move { _ = driver.await });
            return Connection { sender: Sender::Two(sender), driver };
        }
        let (sender, driver) = http1::handshake(stream).await.unwrap();
        Connection {
            sender: Sender::One(sender),
            driver: tokio::spawn(async move { _ = driver.await }),
        }
    }
}

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

/// A connection, and the task that drives it.
struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
}

impl Connection {
    async fn get(&mut self, path: &str) -> Response<Incoming> {
        let request = Request::get(format!("https://localhost{path}")).header("host", "localhost");
        let request = request.body(Body::empty()).unwrap();
        match &mut self.sender {
            Sender::One(sender) => sender.send_request(request).await.unwrap(),
            Sender::Two(sender) => sender.send_request(request).await.unwrap(),
        }
    }

    /// Without a word of HTTP or of TLS: the socket is closed.
    fn cut(self) {
        self.driver.abort();
    }
}

/// Answers with so many tokens on the bill: at once, or with a first word and then never again.
fn app(pool: &BudgetPool, on_drop: OnDrop) -> Router {
    let pool = pool.clone();
    let layer = BudgetLayer::new(move |_| Some(pool.clone()))
        .ask(|_| Amount::new().requests(1).tokens(40))
        .on_drop(on_drop)
        .headers(RateLimitHeaders::Ietf);
    let spends = async |Path(tokens): Path<u64>, Extension(bill): Extension<Bill>| {
        bill.total(Amount::new().tokens(tokens));
        format!("{tokens} tokens")
    };
    let streams = async || {
        let (words, body) = mpsc::channel::<Result<Bytes, Infallible>>(1);
        tokio::spawn(async move {
            words.send(Ok("one".into())).await.unwrap();
            words.closed().await;
        });
        Body::from_stream(ReceiverStream::new(body))
    };
    Router::new().route("/spend/{tokens}", get(spends)).route("/stream", get(streams)).layer(layer)
}

fn pool() -> BudgetPool {
    BudgetPool::builder().name("acme").requests(100).tokens(100).in_flight(2).build()
}

async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// When nothing is held any more: how holds have ended (committed, released, expired), and tokens
/// that are used.
async fn settled(pool: &BudgetPool) -> (u64, u64, u64, u64) {
    let settles = async {
        while pool.snapshot().reservations > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let settles = tokio::time::timeout(PATIENCE, settles).await;
    settles.unwrap_or_else(|_| panic!("still held: {:?}", pool.holders()));
    let Snapshot { committed, released, expired, admitted, tokens, in_flight, .. } =
        pool.snapshot();
    assert_eq!(committed + released + expired, admitted, "each hold ends in one way");
    assert_eq!((tokens.reserved, in_flight.reserved), (0, 0));
    (committed, released, expired, tokens.used)
}

#[tokio::test]
async fn a_client_spends_and_is_refused_over_both_protocols() {
    for protocol in [HTTP_1, HTTP_2] {
        let pool = pool();
        let server = serve(app(&pool, OnDrop::Commit)).await;
        let mut client = server.connect(protocol).await;
        let answer = client.get("/spend/61").await;
        assert_eq!(answer.status(), StatusCode::OK);
        let left = r#""acme:tokens";r=60, "acme:requests";r=99, "acme:in_flight";r=1"#;
        assert_eq!(answer.headers()["ratelimit"], left);
        assert_eq!(text(answer).await, "61 tokens");
        // A client that has read the answer finds the books closed.
        assert_eq!(pool.snapshot().tokens.used, 61);
        assert_eq!(settled(&pool).await, (1, 0, 0, 61));

        let refused = client.get("/spend/1").await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        let problem: serde_json::Value = serde_json::from_str(&text(refused).await).unwrap();
        assert_eq!(problem["violated-policies"], serde_json::json!(["acme:tokens"]));
        assert_eq!(settled(&pool).await, (1, 0, 0, 61));
        assert_eq!((pool.snapshot().refused, pool.snapshot().tokens.overage), (1, 0));
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_ends_the_hold_by_the_rule_of_the_layer() {
    for (on_drop, ends) in [(OnDrop::Commit, (1, 0, 0, 40)), (OnDrop::Release, (0, 1, 0, 0))] {
        for protocol in [HTTP_1, HTTP_2] {
            let pool = pool();
            let server = serve(app(&pool, on_drop)).await;
            let mut client = server.connect(protocol).await;
            let mut body = client.get("/stream").await.into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
            assert_eq!(pool.snapshot().tokens.reserved, 40);
            client.cut();
            drop(body);
            assert_eq!(settled(&pool).await, ends, "{on_drop:?}");
        }

        // By the word of TLS that nothing follows.
        let pool = pool();
        let server = serve(app(&pool, on_drop)).await;
        let mut stream = server.shake_hands(HTTP_1).await;
        stream.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 16);
        assert_eq!(pool.snapshot().tokens.reserved, 40);
        stream.shutdown().await.unwrap();
        drop(stream);
        assert_eq!(settled(&pool).await, ends, "{on_drop:?}");

        // Of one stream among others: the connection goes on.
        let pool = self::pool();
        let server = serve(app(&pool, on_drop)).await;
        let mut client = server.connect(HTTP_2).await;
        let mut body = client.get("/stream").await.into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(settled(&pool).await, ends, "{on_drop:?}");
        assert_eq!(text(client.get("/spend/5").await).await, "5 tokens");
        assert_eq!(settled(&pool).await.3, ends.3 + 5);
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_end_of_the_handshake_is_never_asked_for() {
    let pool = pool();
    let server = serve(app(&pool, OnDrop::Commit)).await;
    for garbage in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 2, 0, 1]] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
    }
    // A certificate that the client does not know.
    let refused = server.shake_hands_of(RootCertStore::empty(), HTTP_1).await.unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    assert_eq!(pool.snapshot().admitted, 0);
    assert_eq!(text(server.connect(HTTP_2).await.get("/spend/5").await).await, "5 tokens");
    assert_eq!(settled(&pool).await, (1, 0, 0, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_over_tls_breaks_no_cap_and_leaves_nothing_held() {
    let pool = BudgetPool::builder().tokens(2_000).in_flight(3).build();
    let server = serve(app(&pool, OnDrop::Commit)).await;
    let mut crowd = JoinSet::new();
    for number in 0..120_u64 {
        let server = server.clone();
        crowd.spawn(async move {
            let protocol = if number % 2 == 0 { HTTP_1 } else { HTTP_2 };
            let mut client = server.connect(protocol).await;
            let hangs_up = number % 3 == 0;
            let path =
                if hangs_up { "/stream".to_owned() } else { format!("/spend/{}", number % 40) };
            let mut answer = client.get(&path).await;
            match (answer.status(), hangs_up) {
                (StatusCode::TOO_MANY_REQUESTS, _) => [0, 0, 1],
                (_, true) => {
                    answer.body_mut().frame().await.unwrap().unwrap();
                    client.cut();
                    [1, 40, 0]
                }
                (_, false) => {
                    assert_eq!(text(answer).await, format!("{} tokens", number % 40));
                    [1, number % 40, 0]
                }
            }
        });
    }
    let mut seen = [0; 3];
    while let Some(one) = crowd.join_next().await {
        let one = one.unwrap();
        seen = [seen[0] + one[0], seen[1] + one[1], seen[2] + one[2]];
    }
    let [served, tokens, refused] = seen;
    assert_eq!(settled(&pool).await, (served, 0, 0, tokens));
    let pool = pool.snapshot();
    assert_eq!((pool.admitted, pool.refused, served + refused), (served, refused, 120));
    assert!(served > 3 && pool.in_flight.peak <= 3, "{pool}");
    assert_eq!(pool.tokens.overage, 0, "{pool}");
}

#[tokio::test]
async fn a_client_pays_for_its_own_calls_and_not_for_those_that_tls_refuses() {
    let free = BudgetPool::unlimited();
    let server = serve(app(&free, OnDrop::Commit)).await;
    for (is_trusted, ends) in [(true, (1, 0, 0, 7)), (false, (0, 1, 0, 0))] {
        let pool = BudgetPool::builder().name("calls").requests(1).tokens(100).build();
        let (calls, server) = (pool.clone(), server.clone());
        let layer = BudgetLayer::new(move |_| Some(calls.clone()))
            .ask(|_| Amount::new().requests(1).tokens(40))
            .settle(|_| Some(Amount::new().tokens(7)))
            .on_error(OnDrop::Release);
        let service = layer.layer(service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let mut trusted = RootCertStore::empty();
                if is_trusted {
                    trusted.add(server.certificate.clone())?;
                }
                let stream = server.shake_hands_of(trusted, HTTP_2).await?;
                let (mut sender, driver) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(driver);
                Ok::<_, BoxError>(sender.send_request(request).await?)
            }
        }));
        let request = || Request::get("https://localhost/spend/9").body(Body::empty()).unwrap();
        match service.clone().oneshot(request()).await {
            Ok(answer) => {
                assert!(is_trusted);
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "9 tokens");
                let refused = service.oneshot(request()).await.unwrap();
                assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
            }
            Err(error) => assert!(!is_trusted && error.to_string().contains("UnknownIssuer")),
        }
        assert_eq!(settled(&pool).await, ends);
    }
    // What is refused is not sent.
    assert_eq!(free.snapshot().admitted, 1);
}
