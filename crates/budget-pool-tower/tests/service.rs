//! The example `service` over real sockets: nothing outlives its deadline, nothing stays held, and
//! every refusal says what its client can do.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::Response;
use budget_pool::{Caps, DeadlineBudget, Snapshot, Usd};
use serde_json::Value;

#[path = "../examples/service/app.rs"]
mod app;
#[path = "../examples/service/budget.rs"]
mod budget;
#[path = "../examples/service/downstream.rs"]
mod downstream;
#[path = "support/example.rs"]
mod example;
#[path = "support/glue.rs"]
mod glue;
#[path = "../examples/service/http.rs"]
mod http;

use app::Service;
use budget::{LONGEST, WAIT};
use downstream::Event;

/// What tests wait for comes in milliseconds. This is for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// What downstream has seen of one call.
#[derive(Debug, Clone)]
struct Asked {
    call: String,
    prompt: String,
    time: Duration,
}

#[derive(Default)]
struct Seen {
    asked: Vec<Asked>,
    billed: u64,
}

/// Both servers and a client.
struct World {
    service: Arc<Service>,
    address: SocketAddr,
    downstream: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    client: http::Client,
}

impl World {
    async fn start() -> World {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let log = Arc::clone(&seen);
        let downstream = downstream::router(move |event| {
            let mut seen = log.lock().unwrap();
            match event {
                Event::Asked { call, prompt, grpc_timeout } => {
                    let time =
                        DeadlineBudget::from_grpc_timeout(grpc_timeout.unwrap()).unwrap().total();
                    seen.asked.push(Asked {
                        call: call.to_owned(),
                        prompt: prompt.to_owned(),
                        time,
                    });
                }
                Event::Billed { tokens } => seen.billed += tokens,
            }
        });
        let downstream = http::serve(downstream).await.unwrap();
        World::calling(downstream, seen).await
    }

    async fn calling(downstream: SocketAddr, seen: Arc<Mutex<Seen>>) -> World {
        let caps = Caps::new().tokens(100_000).usd(Usd::from_dollars(1));
        let tenants = [
            ("acme", caps),
            ("one-answer", caps.usd(Usd::from_micros(9_000))),
            ("solo", caps.in_flight(1)),
        ];
        let service = Service::new(downstream, tenants);
        let address = http::serve(Arc::clone(&service).router()).await.unwrap();
        World { service, address, downstream, seen, client: http::client() }
    }

    async fn ask(&self, headers: &[(&str, &str)], question: &str) -> Reply {
        let url = format!("http://{}/answer", self.address);
        let start = Instant::now();
        let response = http::post(&self.client, &url, headers.iter().copied(), question.to_owned())
            .await
            .unwrap();
        Reply { response, took: start.elapsed() }
    }

    fn snapshot(&self, tenant: &str) -> Snapshot {
        self.service.tenant(tenant).unwrap().snapshot()
    }

    fn asked(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().asked.clone()
    }

    fn calls(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.call).collect()
    }

    async fn until(&self, what: &str, so: impl Fn(&World) -> bool) {
        let start = Instant::now();
        while !so(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: still not");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Nothing is held, and what downstream has billed is what tenants have spent.
    #[track_caller]
    fn assert_settled(&self) {
        let snapshots: Vec<Snapshot> =
            self.service.tenants().map(|tenant| tenant.snapshot()).collect();
        for tenant in &snapshots {
            assert_eq!(
                (tenant.reservations, tenant.tokens.reserved, tenant.usd.reserved),
                (0, 0, Usd::ZERO),
                "{tenant}"
            );
            assert_eq!(tenant.tokens.overage, 0, "{tenant}");
        }
        let spent: u64 = snapshots.iter().map(|tenant| tenant.tokens.spent).sum();
        assert_eq!(spent, self.seen.lock().unwrap().billed);
    }
}

#[derive(Debug)]
struct Reply {
    response: Response<Bytes>,
    took: Duration,
}

impl Reply {
    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn retry_after(&self) -> Option<&str> {
        self.response.headers().get("retry-after").map(|value| value.to_str().unwrap())
    }

    fn body(&self) -> Value {
        serde_json::from_slice(self.response.body()).unwrap()
    }

    fn error(&self) -> String {
        self.body()["detail"].as_str().unwrap().to_owned()
    }
}

const ACME: (&str, &str) = ("x-tenant", "acme");
const ONE_ANSWER: (&str, &str) = ("x-tenant", "one-answer");
const SOLO: (&str, &str) = ("x-tenant", "solo");

#[tokio::test]
async fn an_answer_costs_its_tenant_what_downstream_has_billed() {
    let world = World::start().await;
    let reply = world.ask(&[ACME], "Why is the sky blue?").await;
    assert_eq!(reply.status(), 200, "{reply:?}");
    assert_eq!(world.calls(), ["search", "draft", "judge"]);
    assert!(world.asked().iter().all(|asked| asked.prompt.starts_with("Why is the sky blue?")));
    let acme = world.snapshot("acme");
    assert_eq!(reply.body()["tokens"], acme.tokens.used);
    assert_eq!(reply.body()["usd"], acme.usd.used.to_string());
    assert_eq!(world.snapshot("solo").tokens.spent, 0);
    world.assert_settled();
}

#[tokio::test]
async fn the_time_that_is_left_is_sent_on() {
    let world = World::start().await;
    let ms = Duration::from_millis;
    // However much is asked for, the server has no more than LONGEST.
    for (header, total) in [("2500m", ms(2_500)), ("99999999H", LONGEST)] {
        world.seen.lock().unwrap().asked.clear();
        let reply = world.ask(&[ACME, ("grpc-timeout", header)], "Why? search=100").await;
        assert_eq!(reply.status(), 200, "{reply:?}");
        let times: Vec<Duration> = world.asked().iter().map(|asked| asked.time).collect();
        let [search, draft, judge] = times[..] else { panic!("{times:?}") };
        assert!(search <= ms(500), "its cap: {times:?}");
        assert!(draft <= total - ms(100), "the search took that long: {times:?}");
        assert!(judge <= ms(500), "its cap: {times:?}");
    }
    world.assert_settled();
}

#[tokio::test]
async fn a_slow_call_is_left_at_its_own_timeout_and_holds_nothing_then() {
    let world = World::start().await;
    let reply = world.ask(&[ACME, ("grpc-timeout", "3S")], "Why? search=60000").await;
    assert_eq!((reply.status(), reply.retry_after()), (504, None), "{reply:?}");
    assert!(reply.error().starts_with("no answer from search within "), "{reply:?}");
    assert!(reply.took >= Duration::from_millis(490), "{reply:?}");
    assert!(reply.took < Duration::from_secs(3), "long before the deadline: {reply:?}");
    assert_eq!(world.calls(), ["search"]);
    assert_eq!(world.snapshot("acme").admitted, 1);
    world.assert_settled();
}

#[tokio::test]
async fn a_slow_call_ends_with_what_the_request_has_left_and_what_came_before_it_stays_spent() {
    let world = World::start().await;
    let reply = world.ask(&[ACME, ("grpc-timeout", "1S")], "Why? draft=60000").await;
    assert_eq!(reply.status(), 504, "{reply:?}");
    assert_eq!(world.calls(), ["search", "draft"]);
    assert!(world.asked()[1].time < Duration::from_millis(850), "it leaves some for the judge");
    assert!(reply.took < Duration::from_secs(3), "{reply:?}");
    assert!(world.snapshot("acme").tokens.used > 0);
    world.assert_settled();
}

#[tokio::test]
async fn a_downstream_that_never_answers_is_left_as_well() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // connections wait for ever to be accepted
    let world = World::calling(mute.local_addr().unwrap(), Arc::default()).await;
    let reply = world.ask(&[ACME, ("grpc-timeout", "3S")], "Why?").await;
    assert_eq!(reply.status(), 504, "{reply:?}");
    assert!(reply.took < Duration::from_secs(3), "{reply:?}");
    assert_eq!(world.snapshot("acme").admitted, 1);
    world.assert_settled();
}

#[tokio::test]
async fn a_request_that_is_late_or_as_good_as_late_starts_nothing() {
    let world = World::start().await;
    for (header, begin, end) in [
        ("0n", "deadline exceeded: ", "no time from the start"),
        ("1n", "deadline exceeded: ", "s elapsed, budget 1ns"),
        ("50m", "deadline exceeded: 100ms needed, ", "s remaining, budget 50ms"),
    ] {
        let reply = world.ask(&[ACME, ("grpc-timeout", header)], "Why? search=60000").await;
        assert_eq!((reply.status(), reply.retry_after()), (504, None), "{reply:?}");
        let error = reply.error();
        assert!(error.starts_with(begin) && error.ends_with(end), "{reply:?}");
        assert!(reply.took < LONGEST, "{reply:?}");
    }
    assert_eq!(world.calls(), [""; 0]);
    // Only the last had any time left, in which no call fits.
    assert_eq!(world.snapshot("acme").admitted, 1);
    world.assert_settled();
}

#[tokio::test]
async fn a_tenant_that_has_spent_its_budget_is_told_so_and_the_others_are_not_affected() {
    let world = World::start().await;
    let first = world.ask(&[ONE_ANSWER], "Why?").await;
    assert_eq!(first.status(), 200);
    // What is left is known to the client; what all tenants have together is not.
    let left = first.response.headers()["ratelimit"].to_str().unwrap();
    assert!(left.starts_with(r#""one-answer:tokens";r="#) && !left.contains("service"), "{left}");
    let reply = world.ask(&[ONE_ANSWER], "Why?").await;
    assert_eq!((reply.status(), reply.retry_after()), (402, None), "no wait will help: {reply:?}");
    let error = reply.error();
    assert!(
        error.starts_with("USD of `one-answer` exceeded: ") && error.ends_with(", will never fit"),
        "{error}"
    );
    assert_eq!(reply.body()["violated-policies"], serde_json::json!(["one-answer:usd"]));
    assert_eq!(world.ask(&[ACME], "Why?").await.status(), 200);
    world.assert_settled();
}

#[tokio::test]
async fn what_others_hold_is_worth_waiting_for() {
    let world = World::start().await;
    let first = async { world.ask(&[SOLO, ("grpc-timeout", "3S")], "Why? draft=1600").await };
    let third = async {
        world.until("the first", |world| world.snapshot("solo").admitted == 1).await;
        world.ask(&[SOLO], "Why?").await
    };
    let (first, late) = tokio::join!(first, third);
    assert_eq!(first.status(), 200, "{first:?}");
    assert_eq!((late.status(), late.retry_after()), (429, None), "{late:?}");
    assert!(late.took >= WAIT, "{late:?}");
    assert!(late.error().ends_with("may fit after a release"), "{late:?}");

    let first = async { world.ask(&[SOLO], "Why? draft=300").await };
    let second = async {
        world.until("the first", |world| world.snapshot("solo").reservations == 1).await;
        world.ask(&[SOLO], "Why?").await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status(), second.status()), (200, 200), "{second:?}");
    world.assert_settled();
}

#[tokio::test]
async fn a_client_that_hangs_up_gives_back_what_its_request_held() {
    let world = World::start().await;
    {
        // No call here ends by itself before the test has given up.
        let asked = world.ask(&[ACME, ("grpc-timeout", "3S")], "Why? draft=60000");
        let drafting = world.until("the draft", |world| world.calls() == ["search", "draft"]);
        tokio::select! {
            reply = asked => panic!("{reply:?}"),
            () = drafting => {}
        }
        assert!(world.snapshot("acme").tokens.reserved > 0);
    }
    let hung_up = Instant::now();
    world.until("the release", |world| world.snapshot("acme").reservations == 0).await;
    assert!(
        hung_up.elapsed() < Duration::from_millis(1_500),
        "well before the draft's timeout of some 2.5 s"
    );
    assert_eq!(world.calls(), ["search", "draft"]);
    world.assert_settled();
}

#[tokio::test]
async fn a_bad_head_is_refused_with_what_is_wrong() {
    let world = World::start().await;
    for (header, why) in [
        ("", "no digits in a grpc-timeout"),
        ("S", "no digits in a grpc-timeout"),
        ("5 minutes", "a grpc-timeout ends in one of H, M, S, m, u, n"),
        ("-1S", "a grpc-timeout is ASCII digits and a unit"),
        ("123456789n", "a grpc-timeout has at most 8 digits"),
    ] {
        let reply = world.ask(&[ACME, ("grpc-timeout", header)], "Why?").await;
        assert_eq!(
            (reply.status(), reply.error()),
            (400, format!("bad header grpc-timeout: {why}"))
        );
    }
    for tenant in [&[][..], &[("x-tenant", "nobody")]] {
        let reply = world.ask(tenant, "Why?").await;
        assert_eq!((reply.status(), reply.error()), (403, "unknown tenant".to_owned()));
    }

    // What no honest client would send.
    for (head, status) in [
        (b"x-tenant: acme\r\ngrpc-timeout: 1\xff".as_slice(), "400"),
        (b"x-tenant: acme\r\ngrpc-timeout: \xd9\xa3S", "400"),
        (b"x-tenant: \xff", "403"),
    ] {
        let (address, head) = (world.address, head.to_vec());
        let answer = tokio::task::spawn_blocking(move || raw(address, &head)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert_eq!(world.calls(), [""; 0]);
    world.assert_settled();
}

#[tokio::test]
async fn a_length_that_no_body_has_is_held_by_no_tenant() {
    let world = World::start().await;
    // The most that hyper takes for a length, and what is beyond every number.
    for length in ["18446744073709551613", "9223372036854775808", "100000"] {
        let head = format!("x-tenant: acme\r\ncontent-length: {length}");
        let address = world.address;
        let answer = tokio::task::spawn_blocking(move || of_length(address, head.as_bytes()));
        let answer = answer.await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 402 ") && answer.contains("will never fit"),
            "{answer}"
        );
    }
    assert_eq!((world.snapshot("acme").admitted, world.snapshot("acme").refused), (0, 3));
    world.assert_settled();
}

fn raw(address: SocketAddr, head: &[u8]) -> String {
    of_length(address, &[b"content-length: 0\r\n", head].concat())
}

fn of_length(address: SocketAddr, head: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"POST /answer HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n").unwrap();
    stream.write_all(head).unwrap();
    stream.write_all(b"\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn a_question_too_long_and_a_closed_tenant_cost_nothing() {
    let world = World::start().await;
    let reply = world.ask(&[ACME], &"Why? ".repeat(600)).await;
    assert_eq!((reply.status(), reply.retry_after()), (413, None), "{reply:?}");
    world.service.tenant("acme").unwrap().close();
    let reply = world.ask(&[ACME], "Why?").await;
    assert_eq!((reply.status(), reply.error()), (503, "`acme` is closed".to_owned()));
    assert_eq!(world.calls(), [""; 0]);
    world.assert_settled();
}

#[tokio::test]
async fn what_is_shown_is_the_snapshot() {
    let world = World::start().await;
    assert_eq!(world.ask(&[ACME], "Why is the sky blue?").await.status(), 200);
    let get = async |path: &str| {
        let uri = format!("http://{}{path}", world.address).parse().unwrap();
        let body = world.client.get(uri).await.unwrap().into_body();
        let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let snapshot = serde_json::to_value(world.service.all().snapshot_tree()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&get("/budgets").await).unwrap(), snapshot);
    let used = world.snapshot("acme").tokens.used;
    let series = format!("budget_pool_tokens{{pool=\"acme\",state=\"used\"}} {used}\n");
    let metrics = get("/metrics").await;
    assert!(metrics.contains(&series), "{metrics}");
    assert!(get("/").await.contains("fetch(\"/budgets\")"));
}

#[tokio::test]
async fn a_downstream_that_is_not_there_costs_nothing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::calling(nobody, Arc::default()).await;
    let reply = world.ask(&[ACME], "Why?").await;
    assert_eq!(reply.status(), 502, "{reply:?}");
    assert_eq!(world.snapshot("acme").admitted, 1);
    world.assert_settled();
}

#[tokio::test]
async fn downstream_keeps_to_the_time_that_it_is_given() {
    let world = World::start().await;
    let url = format!("http://{}/draft", world.downstream);
    let headers = [("content-type", "application/json"), ("grpc-timeout", "50m")];
    let body = r#"{"prompt": "Why? draft=60000", "max_output": 10}"#;
    let start = Instant::now();
    let response = http::post(&world.client, &url, headers, body).await.unwrap();
    assert_eq!(response.status(), 504);
    assert!((Duration::from_millis(50)..PATIENCE).contains(&start.elapsed()));
    assert_eq!(world.seen.lock().unwrap().billed, 0);
}

#[test]
fn the_example_shows_every_kind_of_outcome_and_leaves_nothing_held() {
    let output = example::run("service", &[]);
    let (report, message) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), message.as_str()), (Some(0), ""), "{report}");
    for told in [
        "no answer from search within 500ms",
        "no answer from draft within ",
        "deadline exceeded: ",
        "bad header grpc-timeout: ",
        "unknown tenant",
        "USD of `trial` exceeded: ",
        "what was held is free again",
        "200 asked at once for `crowd`, and never more than 8 were served: ",
        "Nothing is reserved.",
    ] {
        assert!(report.contains(told), "no `{told}` in {report}");
    }
}

#[test]
fn the_glue_is_at_most_sixty_lines() {
    let lines = glue::lines(include_str!("../examples/service/budget.rs"));
    assert!((20..=60).contains(&lines), "{lines} lines of glue");
    // What the service itself has to do with budgets is what `budget.rs` brings.
    let app = include_str!("../examples/service/app.rs");
    for theirs in ["BudgetLayer", ".reserve", ".commit", "timeout_for", "builder()"] {
        assert!(!app.contains(theirs), "{theirs} is glue");
    }
}
