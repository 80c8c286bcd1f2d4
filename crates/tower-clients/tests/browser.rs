//! The page of the example `service` in a real browser: its bars say what the snapshot says.

#![allow(dead_code, reason = "the example has more than its page")]

use std::process::{Command, Output};
use std::sync::Arc;

use budget_pool::{Amount, Caps, Snapshot, TreeSnapshot, Usd};

#[path = "../../budget-pool-tower/examples/service/app.rs"]
mod app;
#[path = "../../budget-pool-tower/examples/service/budget.rs"]
mod budget;
#[path = "../../budget-pool-tower/examples/service/downstream.rs"]
mod downstream;
#[path = "../../budget-pool-tower/examples/service/http.rs"]
mod http;

/// The page as the browser has it after its scripts have run.
fn dom(url: &str) -> String {
    let mut browser = Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    let profile = std::env::temp_dir().join(format!("budget-pool-browser-{}", std::process::id()));
    browser.arg(format!("--user-data-dir={}", profile.display()));
    // Two seconds of the page's own time: it has refreshed itself since.
    browser.args(["--virtual-time-budget=2500", "--dump-dom", url]);
    let Output { status, stdout, stderr } = browser.output().unwrap();
    _ = std::fs::remove_dir_all(profile);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// The texts of these elements, in their order.
fn texts(dom: &str, element: &str) -> Vec<String> {
    let (start, end) = (format!("<{element}>"), format!("</{element}>"));
    let parts = dom.split(&start).skip(1);
    parts.filter_map(|part| part.split(&end).next()).map(unescaped).collect()
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// What the page is to say, without a look at how it does.
fn bars(tree: &TreeSnapshot) -> Vec<String> {
    let mut bars = Vec::new();
    for Snapshot { tokens, usd, in_flight, .. } in tree {
        let mut bar = |axis: &str, used: String, held: String, cap: Option<String>| {
            bars.extend(cap.map(|cap| format!("{axis}: {used} used, {held} held of {cap}")));
        };
        let cap = |cap: Option<u64>| cap.map(|cap| cap.to_string());
        bar("tokens", tokens.used.to_string(), tokens.reserved.to_string(), cap(tokens.cap));
        let text = |usd: Usd| usd.to_string();
        bar("usd", text(usd.used), text(usd.reserved), usd.cap.map(text));
        let (used, held) = (in_flight.used.to_string(), in_flight.reserved.to_string());
        bar("in_flight", used, held, cap(in_flight.cap));
    }
    bars
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bars_of_the_page_say_what_the_snapshot_says() {
    let has_browser = Command::new("chromium").arg("--version").output().is_ok();
    assert!(has_browser, "chromium is missing: `apt-get install chromium` brings it");
    let downstream = http::serve(downstream::router(|_| {})).await.unwrap();
    let caps = Caps::new().tokens(50_000).usd(Usd::from_dollars(1));
    let tenants = [("acme", caps.in_flight(4)), ("<b>R&D</b> \"é\"", caps)];
    let service = app::Service::new(downstream, tenants);
    let address = http::serve(Arc::clone(&service).router()).await.unwrap();

    let (client, url) = (http::client(), format!("http://{address}/answer"));
    let asked = http::post(&client, &url, [("x-tenant", "acme")], "Why is the sky blue?").await;
    assert_eq!(asked.unwrap().status(), 200);
    let acme = service.tenant("acme").unwrap();
    let most = Amount::new().tokens(1_234).usd(Usd::from_micros(56_789));
    let _held = acme.reserve(most).unwrap();

    let tree = service.all().snapshot_tree();
    let dom = tokio::task::spawn_blocking(move || dom(&format!("http://{address}/")));
    let dom = dom.await.unwrap();
    let shown = texts(&dom, "span");
    assert_eq!(shown, bars(&tree), "{dom}");
    assert!(shown.iter().any(|bar| bar.ends_with("1234 held of 50000")), "{shown:?}");
    let heads: Vec<String> = texts(&dom, "h2");
    let names: Vec<&str> = heads.iter().filter_map(|head| head.split(": ").next()).collect();
    let pools: Vec<&str> = tree.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, pools, "{dom}");
    assert!(dom.contains("Refreshed each second."), "{dom}");
    service.all().close();
}
