//! An HTTP handler that ends in time and spends no more than it may: a deadline from the caller's
//! `grpc-timeout` header, three calls to another server within it, and a budget of tokens and
//! dollars for each request under one for its tenant.
//!
//! ```text
//! cargo run --example handler              # both servers, a burst of requests of all kinds, and what became of each
//! cargo run --example handler -- --serve   # both servers, to be asked with curl
//! ```
//!
//! `app.rs` is the part to take home: the service. `downstream.rs` is what it calls, as slow as it
//! is told to be. `burst.rs` has the requests.
//!
//! | a request that | is answered with |
//! | --- | --- |
//! | has a bad `grpc-timeout`, or no tenant | 400, and what is wrong |
//! | names a tenant that does not exist | 403 |
//! | has no time left, or whose next call got no answer in its time | 504, and nothing more is started |
//! | lacks what other requests of its tenant hold at the moment | 429 with `Retry-After` |
//! | lacks what its tenant has spent already | 429 without it: waiting does not help |
//! | asks more than any request may spend | 413 |
//!
//! A client that hangs up takes its request with it: what that held is free again, and the call
//! downstream is broken off.

mod app;
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

/// An HTTP handler with a deadline and a budget: shows what becomes of requests of all kinds.
#[derive(Debug, Parser)]
struct Options {
    /// Keep serving, to be asked with curl
    #[arg(long)]
    serve: bool,
}

fn tenants() -> [(&'static str, Caps); 4] {
    [
        ("acme", Caps::new().tokens(100_000).usd(Usd::from_dollars(1))),
        // Money for one request: no second draft fits beside what the first has spent.
        ("trial", Caps::new().tokens(10_000).usd(Usd::from_micros(9_000))),
        // One call at a time.
        ("solo", Caps::new().tokens(10_000).usd(Usd::from_cents(10)).in_flight(1)),
        ("guest", Caps::new().tokens(10_000).usd(Usd::from_cents(10))),
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
        "Words like `search=400` or `draft=5000` in a question make that call so many milliseconds long.\n".to_owned(),
        ask("an answer", "-H 'x-tenant: acme' -d 'Why is the sky blue?'"),
        ask("a draft of 5 s in 1 s", "-H 'x-tenant: acme' -H 'grpc-timeout: 1S' -d 'Why? draft=5000'"),
        ask("no time left", "-H 'x-tenant: acme' -H 'grpc-timeout: 0n' -d 'Why?'"),
        ask("not a time", "-H 'x-tenant: acme' -H 'grpc-timeout: 1 minute' -d 'Why?'"),
        ask("twice: a tenant with money for one", "-H 'x-tenant: trial' -d 'Why?'"),
        ask("in two terminals at once: a tenant with one call at a time", "-H 'x-tenant: solo' -d 'Why? draft=1500'"),
    ];
    lines.concat()
}
