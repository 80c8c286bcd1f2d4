//! A load of requests of all kinds, and what became of each.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::BoxError;
use axum::body::Bytes;
use axum::http::Response;
use axum::http::header::RETRY_AFTER;
use budget_pool::{BudgetPool, DeadlineBudget, Snapshot};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::app::Service;
use crate::downstream::Event;
use crate::http::{self, Client};

/// How often a pool is looked at by what waits for it, and how long at most.
const TICK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// What the downstream server has seen.
#[derive(Default)]
pub struct Log {
    /// The first line of the prompt, which is the question that the client has sent, and the time
    /// that came with it.
    asked: Mutex<Vec<(String, String)>>,
    billed: AtomicU64,
}

impl Log {
    pub fn note(&self, event: Event<'_>) {
        match event {
            Event::Asked { prompt, grpc_timeout, .. } => {
                let question = prompt.lines().next().unwrap_or_default().to_owned();
                self.lock().push((question, time(grpc_timeout)));
            }
            Event::Billed { tokens } => {
                self.billed.fetch_add(tokens, Ordering::Relaxed);
            }
        }
    }

    /// The times of the calls that this question has led to.
    fn times(&self, question: &str) -> String {
        let asked = self.lock();
        let times = asked.iter().filter(|(of, _)| of == question).map(|(_, time)| time.as_str());
        times.collect::<Vec<&str>>().join(", ")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, String)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value of a `grpc-timeout` header, to be read.
fn time(header: Option<&str>) -> String {
    match header.map(DeadlineBudget::from_grpc_timeout) {
        None => "unbounded".to_owned(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(time)) => millis(time.total()),
    }
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// One request. The questions differ, so that the log can tell them apart.
struct Case {
    what: &'static str,
    tenant: &'static str,
    grpc_timeout: Option<&'static str>,
    question: String,
    /// Sent as soon as the tenant's pool looks like this.
    when: fn(&Snapshot) -> bool,
    /// The client hangs up as soon as the tenant's pool looks like this.
    until: fn(&Snapshot) -> bool,
}

impl Case {
    fn new(what: &'static str, tenant: &'static str, question: impl Into<String>) -> Case {
        Case {
            what,
            tenant,
            grpc_timeout: None,
            question: question.into(),
            when: |_| true,
            until: |_| false,
        }
    }

    fn within(self, grpc_timeout: &'static str) -> Case {
        Case { grpc_timeout: Some(grpc_timeout), ..self }
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case::new("all is well", "acme", "Why is the sky blue?"),
        Case::new("little time, but enough", "acme", "Why is the sea blue?").within("900m"),
        Case::new("asks for a day, gets 3 s", "acme", "Why is ice blue? search=200").within("24H"),
        Case::new("a search beyond its cap", "acme", "What is blue? search=30000"),
        Case::new("a draft beyond what is left", "acme", "Is it blue? draft=30000").within("800m"),
        Case::new("late from the start", "acme", "Was it blue?").within("0n"),
        Case::new("a bad header", "acme", "Will it be blue?").within("5 minutes"),
        Case::new("nobody's", "nobody", "Who is blue?"),
        Case::new("a question too long", "acme", "And this? ".repeat(300)),
        Case::new("one at a time: the first", "solo", "Am I blue? draft=600"),
        Case {
            when: |pool| pool.admitted == 1,
            ..Case::new("one at a time: waits in line", "solo", "Are you blue?")
        },
        Case {
            when: |pool| pool.waiting == 1,
            ..Case::new("one at a time: no time to wait", "solo", "Is she blue?").within("200m")
        },
        Case::new("money for one: the first", "trial", "How blue is it?"),
        Case {
            when: |pool| pool.admitted == 1 && pool.reservations == 0,
            ..Case::new("money for one: another", "trial", "And how green?")
        },
        Case {
            until: |pool| pool.admitted == 1,
            ..Case::new("hangs up", "guest", "Where is it blue? search=30000")
        },
    ]
}

/// So many ask at once on behalf of one tenant, which has few slots.
const CROWD: usize = 200;

/// What became of a case, a column each but for the last, which has a line of its own.
struct Row([String; 7], String);

/// The report, and whether nothing is held by anybody at its end, and all that was billed is booked.
pub async fn run(service: &Arc<Service>, address: SocketAddr, log: &Arc<Log>) -> (String, bool) {
    let (url, client) = (format!("http://{address}/answer"), http::client());
    let mut tasks = JoinSet::new();
    let cases = cases();
    let all = cases.len() + CROWD;
    for (index, case) in cases.into_iter().enumerate() {
        let (service, log) = (Arc::clone(service), Arc::clone(log));
        let (url, client) = (url.clone(), client.clone());
        tasks.spawn(
            async move { Done::Case(index, row(&case, &service, &log, &client, &url).await) },
        );
    }
    let (mut rows, mut crowd) = (Vec::new(), BTreeMap::<u16, u64>::new());
    while let Some(done) = tasks.join_next().await {
        match done.expect("no request panics") {
            Done::Case(index, row) => rows.push((index, row)),
            Done::Crowd(status) => *crowd.entry(status).or_default() += 1,
        }
        // The crowd comes after the cases, whose times it would disturb.
        if tasks.is_empty() && crowd.is_empty() {
            for number in 0..CROWD {
                let (url, client) = (url.clone(), client.clone());
                tasks.spawn(async move {
                    let question = format!("Why {number}?");
                    let asked = http::post(&client, &url, [("x-tenant", "crowd")], question);
                    Done::Crowd(asked.await.map_or(0, |response| response.status().as_u16()))
                });
            }
        }
        progress(rows.len() + crowd.values().sum::<u64>() as usize, all);
    }
    rows.sort_by_key(|(index, _)| *index);
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();

    let mut settled = true;
    for tenant in service.tenants() {
        settled &= reaches(tenant, |pool| pool.reservations == 0).await;
    }
    // One instant of all of them.
    let tree = service.all().snapshot_tree();
    let booked = tree[0].tokens.spent;
    let billed = log.billed.load(Ordering::Relaxed);
    let most = service.tenant("crowd").map_or(0, |crowd| crowd.snapshot().in_flight.peak);
    let crowd: Vec<String> =
        crowd.iter().map(|(status, count)| format!("{count} of them got {status}")).collect();
    let summary = format!(
        "{CROWD} asked at once for `crowd`, and never more than {most} were served: {}.\n\
         {} is reserved. Downstream has billed {billed} tokens, and {booked} are booked.",
        crowd.join(", "),
        if settled { "Nothing" } else { "Something" }
    );
    ([table(&rows), tree.to_string(), summary].join("\n"), settled && billed == booked)
}

enum Done {
    Case(usize, Row),
    /// With this status.
    Crowd(u16),
}

/// One line that changes, for a person who waits.
fn progress(done: usize, all: usize) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let end = if done == all { "\n\n" } else { "" };
        // Whether anybody reads that or not, the load goes on.
        _ = write!(stderr, "\r{done} of {all} requests are done{end}");
    }
}

async fn row(case: &Case, service: &Service, log: &Log, client: &Client, url: &str) -> Row {
    if let Some(tenant) = service.tenant(case.tenant) {
        reaches(tenant, case.when).await;
    }
    let start = Instant::now();
    let headers = case
        .grpc_timeout
        .iter()
        .map(|time| ("grpc-timeout", *time))
        .chain([("x-tenant", case.tenant)]);
    let response = http::post(client, url, headers, case.question.clone());
    let hung_up = async {
        match service.tenant(case.tenant) {
            Some(tenant) if reaches(tenant, case.until).await => tenant,
            _ => std::future::pending().await,
        }
    };
    let (status, retry_after, said) = tokio::select! {
        response = response => outcome(response),
        // This branch drops the other, and with it the connection.
        tenant = hung_up => (String::new(), String::new(), given_back(tenant).await),
    };
    let took = millis(start.elapsed());
    let cells = [
        case.what.to_owned(),
        case.tenant.to_owned(),
        case.grpc_timeout.unwrap_or_default().to_owned(),
        log.times(&case.question),
        took,
        status,
        retry_after,
    ];
    Row(cells, said)
}

/// Status, `Retry-After`, and what the client is told.
fn outcome(response: Result<Response<Bytes>, BoxError>) -> (String, String, String) {
    let response = match response {
        Ok(response) => response,
        Err(error) => return (String::new(), String::new(), error.to_string()),
    };
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let said = match body["detail"].as_str() {
        Some(detail) => detail.to_owned(),
        None if body.is_null() => String::from_utf8_lossy(response.body()).into_owned(),
        None => format!(
            "an answer for {} tokens, ${}",
            body["tokens"],
            body["usd"].as_str().unwrap_or_default()
        ),
    };
    (response.status().as_str().to_owned(), retry_after.to_owned(), said)
}

async fn given_back(tenant: &BudgetPool) -> String {
    let hung_up = Instant::now();
    match reaches(tenant, |pool| pool.reservations == 0).await {
        true => {
            format!("(hung up; what was held is free again after {})", millis(hung_up.elapsed()))
        }
        false => "(hung up; what was held is still held)".to_owned(),
    }
}

/// Whether the pool comes to look so, in a time that is long for what goes on here.
async fn reaches(pool: &BudgetPool, so: fn(&Snapshot) -> bool) -> bool {
    let start = Instant::now();
    loop {
        if so(&pool.snapshot()) {
            return true;
        }
        if start.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(TICK).await;
    }
}

fn table(rows: &[Row]) -> String {
    let head = [
        "request",
        "tenant",
        "grpc-timeout",
        "search, draft, judge were given",
        "took",
        "status",
        "Retry-After",
    ];
    let width = |column: usize| {
        rows.iter().map(|Row(cells, _)| cells[column].len()).chain([head[column].len()]).max()
    };
    let widths: Vec<usize> = (0..head.len()).filter_map(width).collect();
    let line = |cells: &[String]| {
        let cells: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = line(&head.map(str::to_owned));
    text += &format!("{}\n", "-".repeat(text.len() - 1));
    for Row(cells, said) in rows {
        text += &line(cells);
        text += &format!("    {said}\n");
    }
    text
}
