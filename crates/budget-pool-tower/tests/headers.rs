//! The RateLimit headers, read back by a parser of structured fields.

mod support;

use std::time::Duration;

use budget_pool::{Amount, Axis, BudgetPool, Clock, ManualClock, Usd, Window};
use budget_pool_tower::{BudgetLayer, RateLimitHeaders};
use sfv::{BareItem, List, ListEntry, Parser};
use support::*;

const BYTES: Axis = Axis::custom(0, "content-bytes");
const CALLS: Axis = Axis::custom(1, "tool calls é");
const MOST: u64 = 999_999_999_999_999;

fn layer(pool: &BudgetPool) -> BudgetLayer {
    let pool = pool.clone();
    BudgetLayer::new(move |_| Some(pool.clone())).headers(RateLimitHeaders::Ietf)
}

/// Each item: its name, and its parameters as `key=value`, in their order.
fn items(answer: &Answer, name: &str) -> Vec<(String, Vec<String>)> {
    let mut items = Vec::new();
    for field in answer.headers().get_all(name) {
        let list = Parser::new(field.as_bytes()).parse::<List>().unwrap();
        for entry in list {
            let ListEntry::Item(item) = entry else { panic!("{entry:?}") };
            let value = |value: &BareItem| match value {
                BareItem::String(text) => text.as_str().to_owned(),
                BareItem::Integer(number) => number.to_string(),
                other => panic!("{other:?}"),
            };
            let BareItem::String(name) = &item.bare_item else { panic!("{item:?}") };
            let parameters = item.params.iter();
            let parameters = parameters.map(|(key, of)| format!("{}={}", key.as_str(), value(of)));
            items.push((name.as_str().to_owned(), parameters.collect()));
        }
    }
    items
}

fn item(name: &str, parameters: &[&str]) -> (String, Vec<String>) {
    (name.to_owned(), parameters.iter().map(|&parameter| parameter.to_owned()).collect())
}

#[tokio::test]
async fn each_limit_of_the_path_is_a_policy_and_the_text_is_that_of_the_draft() {
    let clock = ManualClock::new();
    let seconds = Duration::from_secs;
    let day =
        BudgetPool::builder().name("day").tokens(40_000).window(Window::fixed(seconds(86_400)));
    let day = day.clock(clock.clone()).build();
    let minute = day.child().name("minute").requests(60).window(Window::token_bucket(seconds(60)));
    let minute = minute.build();
    minute.record(Amount::new().requests(6).tokens(38_800)).unwrap();
    clock.advance(Duration::from_millis(86_369_500));
    minute.record(Amount::new().requests(6)).unwrap();

    let response = ask(&layer(&minute), request()).await;
    assert_eq!(
        header(&response, "ratelimit-policy"),
        Some(
            r#""minute";q=60;qu="requests";w=60, "day";q=40000;budget-pool-unit="tokens";w=86400"#
        )
    );
    // Of the day 30.5 s are left. The request itself holds one of the minute.
    assert_eq!(header(&response, "ratelimit"), Some(r#""minute";r=53;t=1, "day";r=1200;t=31"#));
    assert_eq!(
        items(&response, "ratelimit-policy"),
        [
            item("minute", &["q=60", "qu=requests", "w=60"]),
            item("day", &["q=40000", "budget-pool-unit=tokens", "w=86400"]),
        ]
    );
    let r_and_t = [item("minute", &["r=53", "t=1"]), item("day", &["r=1200", "t=31"])];
    assert_eq!(items(&response, "ratelimit"), r_and_t);
}

#[tokio::test]
async fn a_refusal_tells_what_is_left_and_names_the_policy_as_the_headers_do() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().name("Zürich \"50%\"\\").requests(2).tokens(9);
    let pool = pool.window(Window::fixed(Duration::from_millis(90_500))).clock(clock).build();
    pool.record(Amount::new().requests(2)).unwrap();
    let refused = ask(&layer(&pool), request()).await;
    let name = "Z%C3%BCrich \"50%25\"\\:requests";
    let limits = items(&refused, "ratelimit");
    assert_eq!(limits[1], item(name, &["r=0", "t=91"]));
    assert_eq!(items(&refused, "ratelimit-policy")[1], item(name, &["q=2", "qu=requests", "w=91"]));
    assert_eq!(header(&refused, "retry-after"), Some("91"));
    assert_eq!(problem(refused).await["violated-policies"], serde_json::json!([name]));
}

#[tokio::test]
async fn units_are_registered_ones_or_told_by_a_parameter_of_our_own() {
    let pool = BudgetPool::builder().name("all").tokens(1).input_tokens(2).output_tokens(3);
    let pool = pool.requests(4).usd(Usd::from_nanos(5_678_901)).in_flight(6);
    let pool = pool.cap(BYTES, 7).cap(CALLS, 8).build();
    let response = ask(&layer(&pool).ask(|_| Amount::new()), request()).await;
    let own = |unit: &str| format!("budget-pool-unit={unit}");
    assert_eq!(
        items(&response, "ratelimit-policy"),
        [
            item("all:tokens", &["q=1", &own("tokens")]),
            item("all:input_tokens", &["q=2", &own("input_tokens")]),
            item("all:output_tokens", &["q=3", &own("output_tokens")]),
            item("all:requests", &["q=4", "qu=requests"]),
            // Micros, rounded down.
            item("all:usd", &["q=5678", &own("usd-micros")]),
            item("all:in_flight", &["q=6", "qu=concurrent-requests"]),
            item("all:content-bytes", &["q=7", "qu=content-bytes"]),
            item("all:tool calls %C3%A9", &["q=8", &own("tool calls %C3%A9")]),
        ]
    );
    let left = items(&response, "ratelimit");
    assert_eq!(left[4], item("all:usd", &["r=5678"]));
    // Only a release helps: no time.
    assert_eq!(left[5], item("all:in_flight", &["r=5"]));
}

#[tokio::test]
async fn integers_end_where_those_of_a_structured_field_do() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().name("vast").tokens(u64::MAX).usd(Usd::MAX);
    let pool = pool.requests(MOST + 1).window(Window::fixed(Duration::MAX)).clock(clock).build();
    pool.record(Amount::new().requests(1)).unwrap();
    let response = ask(&layer(&pool).ask(|_| Amount::new()), request()).await;
    let most = |key: &str, unit: &str| {
        // 584 years, in seconds.
        vec![format!("{key}={MOST}"), unit.to_owned(), "w=18446744074".to_owned()]
    };
    assert_eq!(
        items(&response, "ratelimit-policy"),
        [
            ("vast:tokens".to_owned(), most("q", "budget-pool-unit=tokens")),
            ("vast:requests".to_owned(), most("q", "qu=requests")),
            item(
                "vast:usd",
                &["q=999999999999999", "budget-pool-unit=usd-micros", "w=18446744074"]
            ),
        ]
    );
    assert_eq!(
        items(&response, "ratelimit")[1],
        item("vast:requests", &[&format!("r={MOST}"), "t=18446744074",])
    );
}

#[tokio::test]
async fn a_window_that_no_number_of_seconds_tells_is_not_told() {
    let clock = ManualClock::new();
    let turn = clock.now() + Duration::from_millis(1_500);
    for (window, w, t) in [
        (Window::fixed(Duration::from_millis(999)), None, Some("t=1")),
        (Window::fixed(Duration::from_millis(1_000)), Some("w=1"), Some("t=1")),
        (Window::fixed(Duration::from_millis(1_001)), Some("w=2"), Some("t=2")),
        (Window::calendar([turn]), None, Some("t=2")),
        (Window::calendar([]), None, None),
    ] {
        let pool = BudgetPool::builder().name("p").requests(9).window(window.clone());
        let pool = pool.clock(clock.clone()).build();
        let first = ask(&layer(&pool), request()).await;
        let policy = ["q=9", "qu=requests"].into_iter().chain(w).collect::<Vec<_>>();
        assert_eq!(items(&first, "ratelimit-policy"), [item("p", &policy)], "{window:?}");
        // What is held does not come back in time.
        assert_eq!(items(&first, "ratelimit"), [item("p", &["r=8"])], "{window:?}");
        text(first).await;
        let second = ask(&layer(&pool), request()).await;
        let left = ["r=7"].into_iter().chain(t).collect::<Vec<_>>();
        assert_eq!(items(&second, "ratelimit"), [item("p", &left)], "{window:?}");
    }
}

#[tokio::test]
async fn there_are_no_headers_unless_asked_for_nor_for_what_has_no_limit() {
    let pool = BudgetPool::builder().name("p").requests(9).build();
    let free = BudgetPool::unlimited();
    let silent = layer(&pool).headers(RateLimitHeaders::None);
    let nobody = BudgetLayer::new(|_| None).headers(RateLimitHeaders::Ietf);
    let secret = layer(&pool).discloses(|_| false);
    for layer in [silent, layer(&free), nobody, secret] {
        let response = ask(&layer, request()).await;
        assert_eq!(response.headers().len(), 0);
    }
}

#[tokio::test]
async fn what_is_not_disclosed_is_in_no_header_and_an_inner_layer_keeps_its_own() {
    let service = BudgetPool::builder().name("service").requests(100).build();
    let tenant = service.child().name("tenant").requests(9).build();
    let user = BudgetPool::builder().name("user").requests(3).build();
    let outer = layer(&tenant).discloses(|pool| pool != "service");
    let inner = tower::ServiceBuilder::new().layer(outer).layer(layer(&user)).service_fn(
        |_: http::Request<()>| async {
            let body = http_body_util::Full::<bytes::Bytes>::from("fine");
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        },
    );
    let response = tower::ServiceExt::oneshot(inner, request()).await.unwrap();
    let fields = response.headers().get_all("ratelimit").iter();
    let fields: Vec<&str> = fields.map(|field| field.to_str().unwrap()).collect();
    assert_eq!(fields, [r#""user";r=2"#, r#""tenant";r=8"#]);
}

#[tokio::test]
async fn no_two_policies_of_a_path_have_one_name() {
    let unnamed = BudgetPool::builder().requests(100).build();
    let same = unnamed.child().requests(50).build();
    let named = same.child().name("pool#2").requests(30).build();
    let lowest = named.child().name("pool").requests(9).tokens(900).build();
    let names = ["pool:tokens", "pool:requests", "pool#2", "pool:requests#2", "pool:requests#3"];
    let response = ask(&layer(&lowest), request()).await;
    for header in ["ratelimit-policy", "ratelimit"] {
        let told: Vec<String> =
            items(&response, header).into_iter().map(|(name, _)| name).collect();
        assert_eq!(told, names, "{header}");
    }
    // A pool that has the name of a numbered one is numbered itself.
    let top = BudgetPool::builder().name("a#2").requests(100).build();
    let [middle, lowest] =
        [top.child().name("a").requests(9).build(), top.child().name("a").tokens(9).build()];
    let joint = BudgetPool::joint([&lowest, &middle]).unwrap().name("a:requests").requests(5);
    let response = ask(&layer(&joint.build()), request()).await;
    let told: Vec<String> =
        items(&response, "ratelimit").into_iter().map(|(name, _)| name).collect();
    assert_eq!(told, ["a:requests", "a:tokens", "a:requests#2", "a#2"]);

    // A refusal names all that its pool may be: an error has the name of a pool, and no number.
    let small = BudgetPool::builder().requests(1).build();
    let below = small.child().requests(5).build();
    small.record(Amount::new().requests(1)).unwrap();
    let refused = ask(&layer(&below), request()).await;
    let both = serde_json::json!(["pool:requests", "pool:requests#2"]);
    assert_eq!(problem(refused).await["violated-policies"], both);
}

#[tokio::test]
async fn every_name_is_read_back() {
    let decoded = |name: &str| {
        let mut bytes = Vec::new();
        let mut rest = name.as_bytes();
        while let [first, after @ ..] = rest {
            let (byte, after) = match (first, after) {
                (b'%', [high, low, after @ ..]) => {
                    let digits = [*high, *low];
                    let digits = std::str::from_utf8(&digits).unwrap();
                    (u8::from_str_radix(digits, 16).unwrap(), after)
                }
                _ => (*first, after),
            };
            bytes.push(byte);
            rest = after;
        }
        String::from_utf8(bytes).unwrap()
    };
    let odd = ('\0'..='\u{17f}').chain(['\u{2028}', '\u{feff}', '\u{1f980}', char::MAX]);
    let names = odd.map(|character| format!("a{character}%41")).chain([String::new()]);
    for name in names {
        let pool = BudgetPool::builder().name(&name).requests(9).build();
        let response = ask(&layer(&pool), request()).await;
        for header in ["ratelimit-policy", "ratelimit"] {
            let [(told, _)] = &items(&response, header)[..] else { panic!("{name:?}") };
            assert_eq!(decoded(told), name);
        }
    }
}
