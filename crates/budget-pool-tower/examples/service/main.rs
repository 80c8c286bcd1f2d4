//! An HTTP service under `BudgetLayer`: the deadline of its caller, three calls to another server
//! within it, a budget of tokens and dollars for each tenant, and a page that shows the budgets.
//!
//! ```text
//! cargo run -p budget-pool-tower --example service              # both servers, a load of requests of all kinds, and what became of each
//! cargo run -p budget-pool-tower --example service -- --serve   # both servers, for a browser and curl
//! ```
//!
//! `budget.rs` is the part to take home: all that the service has to do about budgets and deadlines,
//! in at most 60 lines of code. `app.rs` is the service, `downstream.rs` what it calls, as slow as it
//! is told to be, and `burst.rs` the requests.
//!
//! | path | |
//! | --- | --- |
//! | `/answer` | the service, under the layer |
//! | `/` | the budgets as bars, refreshed each second |
//! | `/budgets` | the same as JSON |
//! | `/metrics` | the same for Prometheus |
//!
//! | a request that | is answered with |
//! | --- | --- |
//! | has a bad `grpc-timeout` | 400, and what is wrong |
//! | names no tenant that exists | 403 |
//! | has no time left, or whose next call got no answer in its time | 504, and nothing more is started |
//! | waits in vain for what other requests of its tenant hold | 429 |
//! | lacks what its tenant has spent already | 402: waiting does not help |
//! | is too long | 413 |
//!
//! A client that hangs up takes its request with it: what that has not spent is free again, and the
//! call downstream is broken off.

mod app;
mod budget;
mod burst;
mod downstream;
mod http;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::BoxError;
use budget_pool::{Caps, Usd};
use clap::Parser;

use app::Service;
use burst::Log;
use downstream::Event;

/// An HTTP service with deadlines and budgets: shows what becomes of requests of all kinds.
#[derive(Debug, Parser)]
struct Options {
    /// Keep serving, for a browser and curl
    #[arg(long)]
    serve: bool,
}

fn tenants() -> [(&'static str, Caps); 5] {
    [
        ("acme", Caps::new().tokens(100_000).usd(Usd::from_dollars(1))),
        // Money for one request: no second draft fits beside what the first has spent.
        ("trial", Caps::new().tokens(10_000).usd(Usd::from_micros(9_000))),
        // One request at a time.
        ("solo", Caps::new().tokens(10_000).usd(Usd::from_cents(10)).in_flight(1)),
        ("guest", Caps::new().tokens(10_000).usd(Usd::from_cents(10))),
        ("crowd", Caps::new().tokens(1_000_000).usd(Usd::from_dollars(10)).in_flight(8)),
    ]
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let done = if options.serve { serve().await } else { show().await };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn show() -> Result<ExitCode, BoxError> {
    let log = Arc::new(Log::default());
    let observe = Arc::clone(&log);
    let downstream = http::serve(downstream::router(move |event| observe.note(event))).await?;
    let service = Service::new(downstream, tenants());
    let address = http::serve(Arc::clone(&service).router()).await?;

    let (report, settled) = burst::run(&service, address, &log).await;
    match writeln!(std::io::stdout(), "{report}") {
        // Whoever reads has read enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(if settled { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    }
}

async fn serve() -> Result<ExitCode, BoxError> {
    let downstream = http::serve(downstream::router(|event| {
        if let Event::Asked { call, grpc_timeout, .. } = event {
            // Whether anybody reads that or not, serving goes on.
            _ = writeln!(
                std::io::stdout(),
                "downstream: {call}, grpc-timeout {}",
                grpc_timeout.unwrap_or("none")
            );
        }
    }));
    let service = Service::new(downstream.await?, tenants());
    let address = http::serve(Arc::clone(&service).router()).await?;
    writeln!(std::io::stdout(), "{}", curl(address))?;
    std::future::pending().await
}

fn curl(address: SocketAddr) -> String {
    let ask = |what: &str, arguments: &str| {
        format!("\n# {what}\ncurl -i http://{address}/answer {arguments}\n")
    };
    let lines = [
        format!("The budgets: http://{address}/\n\n"),
        "Words like `search=400` or `draft=5000` in a question make that call so many milliseconds long.\n".to_owned(),
        ask("an answer", "-H 'x-tenant: acme' -d 'Why is the sky blue?'"),
        ask("a draft of 5 s in 1 s", "-H 'x-tenant: acme' -H 'grpc-timeout: 1S' -d 'Why? draft=5000'"),
        ask("no time left", "-H 'x-tenant: acme' -H 'grpc-timeout: 0n' -d 'Why?'"),
        ask("not a time", "-H 'x-tenant: acme' -H 'grpc-timeout: 1 minute' -d 'Why?'"),
        ask("twice: a tenant with money for one", "-H 'x-tenant: trial' -d 'Why?'"),
        ask("in two terminals at once: a tenant with one request at a time", "-H 'x-tenant: solo' -d 'Why? draft=1500'"),
    ];
    lines.concat()
}
