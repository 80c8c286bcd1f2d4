//! A [tower](https://docs.rs/tower) layer that spends from the pools of [`budget_pool`]: it asks
//! before a request is served, holds what was granted until the response has ended, and settles what
//! the request really cost.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::convert::Infallible;
//! use budget_pool::{Amount, BudgetPool, Keyed};
//! use budget_pool_tower::{BudgetLayer, RateLimitHeaders};
//! use http::{Request, Response};
//! use http_body_util::BodyExt;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! /// What the handler has counted.
//! #[derive(Clone)]
//! struct Usage {
//!     tokens: u64,
//! }
//!
//! let service = BudgetPool::builder().name("service").tokens(1_000_000).tokio().build();
//! let tenants: Keyed<String> = Keyed::new(service);
//! let pools = tenants.clone();
//! let layer = BudgetLayer::new(move |request: &Request<_>| {
//!     let tenant = request.headers().get("x-tenant")?.to_str().ok()?;
//!     Some(pools.get_or_build(tenant, |pool| pool.name(tenant).tokens(5_000)))
//! })
//! .ask(|_| Amount::new().requests(1).tokens(2_000)) // the most that it can cost
//! .settle(|response| {
//!     let usage = response.extensions().get::<Usage>()?;
//!     Some(Amount::new().tokens(usage.tokens))
//! })
//! .refund(|response| response.status().is_server_error())
//! .headers(RateLimitHeaders::Ietf);
//!
//! let handler = layer.layer(service_fn(|_: Request<String>| async {
//!     let mut response = Response::new("It rains.".to_owned());
//!     response.extensions_mut().insert(Usage { tokens: 312 });
//!     Ok::<_, Infallible>(response)
//! }));
//!
//! let request = Request::builder().header("x-tenant", "acme").body(String::new()).unwrap();
//! let response = handler.oneshot(request).await.unwrap();
//! let acme = tenants.get("acme").unwrap();
//! assert_eq!(acme.snapshot().tokens.reserved, 2_000);
//! response.into_body().collect().await.unwrap();
//! assert_eq!(acme.snapshot().tokens.used, 312);
//! # });
//! ```
//!
//! - [`BudgetLayer`]: the rules. Its [`BudgetService`] is `Clone + Send + Sync` where the inner
//!   service is, and passes `poll_ready` on.
//! - [`Bill`]: in the extensions of each admitted request, for a handler that learns the cost late.
//! - [`RateLimitHeaders`]: what a caller is told.
//!
//! # How a hold ends
//!
//! | the response | what is booked |
//! | --- | --- |
//! | ends | the total that the trailers tell, or the [`Bill`], or the head; else what is held |
//! | is [refunded](BudgetLayer::refund) | nothing, unless the trailers or the `Bill` tell a total |
//! | breaks off, or the client hangs up | a total that is known by then; else what [`BudgetLayer::on_drop`] says |
//! | is an error of the service | a total that the `Bill` knows; else what [`BudgetLayer::on_error`] says |
//!
//! A hold ends in exactly one way, which the pool's
//! [`Snapshot`](budget_pool::Snapshot) counts as committed, released or expired. A response without
//! a body has ended with its head, and so has the answer to `HEAD`. An upgraded connection is no
//! body: its hold ends with the head, too.
//!
//! # Refusals
//!
//! A refusal is a response of [problem details](https://www.rfc-editor.org/rfc/rfc9457)
//! (`application/problem+json`). To a request whose content type is that of gRPC or gRPC-Web it is a
//! head with `grpc-status` and `grpc-message`. Its extensions have the
//! [`BudgetError`](budget_pool::BudgetError), so that a layer around this one can write another text.
//!
//! | why | HTTP | gRPC | `Retry-After` |
//! | --- | --- | --- | --- |
//! | time or a release brings it back, others wait, the line is full | 429 `quota-exceeded` | `RESOURCE_EXHAUSTED` | where time alone does |
//! | it can never fit | 429, or 402: [`NeverStatus`] | `RESOURCE_EXHAUSTED` | no |
//! | the pool is paused | 503 `temporary-reduced-capacity` | `UNAVAILABLE` | the end of the pause |
//! | the pool is closed | 503 | `UNAVAILABLE` | no |
//! | the caller's deadline, or that of the pool, has passed | 504 | `DEADLINE_EXCEEDED` | no |
//! | a deadline header cannot be read | 400 | `INVALID_ARGUMENT` | no |
//!
//! The problem's `kind` and `outlook` are the words of [`BudgetError::kind`] and [`Outlook::as_str`],
//! and `violated-policies` names the policies that refuse as [`RateLimitHeaders::Ietf`] does.
//!
//! [`BudgetError::kind`]: budget_pool::BudgetError::kind
//! [`Outlook::as_str`]: budget_pool::Outlook::as_str
//!
//! # Rates
//!
//! In a [window](budget_pool::Window) a hold counts from its end on. Under 5 requests a second, each
//! request that runs takes a unit of the 5, and gives it back a second after its response has ended.
//! A refusal for the sake of requests that run has no `Retry-After`. A rate of arrivals is a
//! [`record`](budget_pool::BudgetPool::record) inside of the layer, which then asks for the rest:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use std::time::Duration;
//! use axum::body::Body;
//! use axum::extract::{Request, State};
//! use axum::http::{StatusCode, header::RETRY_AFTER};
//! use axum::middleware::{Next, from_fn_with_state};
//! use axum::response::{IntoResponse, Response};
//! use axum::{Router, routing::get};
//! use budget_pool::{Amount, BudgetPool, Window};
//! use budget_pool_tower::BudgetLayer;
//! use tower::ServiceExt;
//!
//! /// Counts a request when it comes.
//! async fn count(State(rate): State<BudgetPool>, request: Request, next: Next) -> Response {
//!     let Err(refused) = rate.record(Amount::new().requests(1)) else {
//!         return next.run(request).await;
//!     };
//!     let mut response = (StatusCode::TOO_MANY_REQUESTS, refused.to_string()).into_response();
//!     if let Some(time) = refused.retry_after() {
//!         let seconds = time.as_secs_f64().ceil() as u64;
//!         response.headers_mut().insert(RETRY_AFTER, seconds.into());
//!     }
//!     response
//! }
//!
//! let minute = Window::fixed(Duration::from_secs(60));
//! let pool = BudgetPool::builder().requests(1).in_flight(8).window(minute).build();
//! let slots = pool.clone();
//! let layer = BudgetLayer::new(move |_| Some(slots.clone())).ask(|_| Amount::new()); // a slot
//! let app = Router::new()
//!     .route("/", get(|| async { "done" }))
//!     .layer(from_fn_with_state(pool, count))
//!     .layer(layer); // around `count`
//!
//! let request = || Request::get("/").body(Body::empty()).unwrap();
//! let running = app.clone().oneshot(request()).await.unwrap(); // its body is still to be read
//! let refused = app.oneshot(request()).await.unwrap();
//! assert_eq!((running.status(), refused.status()), (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS));
//! assert_eq!(refused.headers()[RETRY_AFTER], "60");
//! # });
//! ```
//!
//! # Retries that a pool pays
//!
//! Below a client the layer limits each try. A budget of retries alone is a pool, too: a share of the
//! calls comes back as retries, and a window bounds them.
//!
//! ```
//! use std::time::Duration;
//! use budget_pool::{Amount, BudgetPool, Window};
//! use tower::retry::budget::Budget;
//!
//! struct Retries(BudgetPool);
//!
//! impl Budget for Retries {
//!     fn withdraw(&self) -> bool {
//!         self.0.record(Amount::new().requests(1)).is_ok()
//!     }
//!
//!     fn deposit(&self) {} // what a window brings back, no success has to
//! }
//!
//! let minute = Window::rolling(Duration::from_secs(60));
//! let retries = Retries(BudgetPool::builder().name("retries").requests(2).window(minute).build());
//! assert!(retries.withdraw() && retries.withdraw());
//! assert!(!retries.withdraw());
//! ```
//!
//! # What is not here
//!
//! - **A key extractor.** The function that finds the pool reads the request; the address of the peer
//!   is in the extensions that axum or hyper sets.
//! - **A timeout.** A handler that must answer by the deadline
//!   [asks how long it has](BudgetLayer::deadline_from).
//! - **A task in the background.** Idle tenants leave by
//!   [`Keyed::evict_idle`](budget_pool::Keyed::evict_idle), which a timer of the service calls.
//!
//! # Versions
//!
//! The minimum supported Rust version is 1.85; a rise is a minor release. There are no features.

#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]
// An `expect` states the invariant that makes it impossible.
#![warn(clippy::unwrap_used)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod bill;
mod body;
mod deadline;
mod headers;
mod layer;
mod refusal;
mod service;

pub use bill::Bill;
pub use body::BudgetBody;
pub use deadline::{DeadlineHeader, ENVOY_EXPECTED_RQ_TIMEOUT_MS, GRPC_TIMEOUT};
pub use headers::RateLimitHeaders;
pub use layer::BudgetLayer;
pub use refusal::NeverStatus;
pub use service::{BudgetFuture, BudgetService};

/// The README's example runs, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
