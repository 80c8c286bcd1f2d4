//! Each public type can be shared between threads and moved: a type that is not on the list is
//! found by `data/surface.txt`, which `.ci/surface` of the workspace records.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Ready;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::task::{Context, Poll};

use budget_pool_tower::*;
use http::{Request, Response};
use tower_service::Service;

/// The least service that a layer is put around.
struct Inner;

impl Service<Request<()>> for Inner {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        std::future::ready(Ok(Response::new(())))
    }
}

fn shared<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}

/// Closures of the user's are in them, and they may not be unwound through.
fn moved<T: Send + Sync + Unpin>() {}

macro_rules! all_are {
    ($check:ident: $($type:ty),* $(,)?) => {
        [$({ $check::<$type>(); stringify!($type) }),*]
    };
}

#[test]
fn each_public_type_can_be_shared_and_moved() {
    let listed = Vec::from(all_are!(shared: Bill, DeadlineHeader, NeverStatus, RateLimitHeaders))
        .into_iter()
        .chain(all_are!(moved: BudgetBody<()>, BudgetFuture<Inner, ()>, BudgetLayer, BudgetService<Inner>))
        .collect::<Vec<_>>();
    let name = |listed: &'static str| listed.split(['<', ' ']).next().expect("a name");
    let listed: BTreeSet<&str> = listed.into_iter().map(name).collect();
    let is_type = |line: &&str| line.contains(" struct ") || line.contains(" enum ");
    let record = include_str!("data/surface.txt").lines().filter(is_type);
    let types: BTreeSet<&str> = record.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(listed, types);
}
