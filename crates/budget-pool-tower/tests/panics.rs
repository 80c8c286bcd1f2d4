//! What is the user's and panics: functions of the layer, services and bodies. The pool stays usable
//! and balanced, and each hold has ended.

mod support;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use budget_pool::{Amount, BudgetPool, OnDrop};
use budget_pool_tower::{Bill, BudgetLayer, RateLimitHeaders};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use support::*;
use tower::{Layer, Service, ServiceExt};

/// Where the user's code panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Nowhere,
    PoolOf,
    AskOf,
    Settle,
    Refund,
    Trailers,
    Discloses,
    CloneOfTheService,
    PollReady,
    Call,
    DropOfTheService,
    PollOfTheFuture,
    DropOfTheFuture,
    PollOfTheBody,
    SecondPollOfTheBody,
    EndOfTheBody,
    HintOfTheBody,
    DropOfTheBody,
}

const PLACES: [Place; 17] = [
    Place::PoolOf,
    Place::AskOf,
    Place::Settle,
    Place::Refund,
    Place::Trailers,
    Place::Discloses,
    Place::CloneOfTheService,
    Place::PollReady,
    Place::Call,
    Place::DropOfTheService,
    Place::PollOfTheFuture,
    Place::DropOfTheFuture,
    Place::PollOfTheBody,
    Place::SecondPollOfTheBody,
    Place::EndOfTheBody,
    Place::HintOfTheBody,
    Place::DropOfTheBody,
];

impl Place {
    #[track_caller]
    fn meet(self, here: Place) {
        assert!(self != here || std::thread::panicking(), "a bug of the user's");
    }

    /// Whether a hold was there before.
    fn has_hold(self) -> bool {
        !matches!(self, Place::PoolOf | Place::AskOf | Place::CloneOfTheService | Place::PollReady)
    }
}

struct Fragile {
    place: Place,
    bills: bool,
}

impl Clone for Fragile {
    fn clone(&self) -> Fragile {
        self.place.meet(Place::CloneOfTheService);
        Fragile { ..*self }
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        self.place.meet(Place::DropOfTheService);
    }
}

impl Service<Request<()>> for Fragile {
    type Response = Response<FragileBody>;
    type Error = Infallible;
    type Future = FragileFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.place.meet(Place::PollReady);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> FragileFuture {
        self.place.meet(Place::Call);
        if self.bills {
            request.extensions().get::<Bill>().unwrap().total(Amount::new().tokens(7));
        }
        FragileFuture(self.place)
    }
}

struct FragileFuture(Place);

impl Future for FragileFuture {
    type Output = Result<Response<FragileBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.meet(Place::PollOfTheFuture);
        Poll::Ready(Ok(Response::new(FragileBody { place: self.0, frames: 0 })))
    }
}

impl Drop for FragileFuture {
    fn drop(&mut self) {
        self.0.meet(Place::DropOfTheFuture);
    }
}

/// Two frames of data, and trailers.
struct FragileBody {
    place: Place,
    frames: u32,
}

impl Body for FragileBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.place.meet(Place::PollOfTheBody);
        if self.frames > 0 {
            self.place.meet(Place::SecondPollOfTheBody);
        }
        self.frames += 1;
        Poll::Ready(match self.frames {
            1 | 2 => Some(Ok(Frame::data("x".into()))),
            3 => Some(Ok(Frame::trailers(HeaderMap::new()))),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        if self.frames > 0 {
            self.place.meet(Place::EndOfTheBody);
        }
        false
    }

    fn size_hint(&self) -> SizeHint {
        if self.frames > 0 {
            self.place.meet(Place::HintOfTheBody);
        }
        SizeHint::default()
    }
}

impl Drop for FragileBody {
    fn drop(&mut self) {
        self.place.meet(Place::DropOfTheBody);
    }
}

fn fragile(place: Place, pool: &BudgetPool, on_drop: OnDrop, waits: bool) -> BudgetLayer {
    let pool = pool.clone();
    let layer = BudgetLayer::new(move |_| {
        place.meet(Place::PoolOf);
        Some(pool.clone())
    })
    .ask(move |_| {
        place.meet(Place::AskOf);
        Amount::new().requests(1).tokens(40)
    })
    .settle(move |_| {
        place.meet(Place::Settle);
        None
    })
    .refund(move |_| {
        place.meet(Place::Refund);
        false
    })
    .settle_trailers(move |_| {
        place.meet(Place::Trailers);
        None
    })
    .discloses(move |_| {
        place.meet(Place::Discloses);
        true
    })
    .on_drop(on_drop)
    .headers(RateLimitHeaders::Ietf);
    if waits { layer.wait_within(Duration::from_secs(9)) } else { layer }
}

/// The number of frames that came, or `None` after a panic.
async fn serve(layer: &BudgetLayer, place: Place, bills: bool) -> Option<usize> {
    let layer = layer.clone();
    let task = tokio::spawn(async move {
        let mut service = layer.layer(Fragile { place, bills });
        let mut body = service.ready().await.unwrap().call(request()).await.unwrap().into_body();
        let mut frames = 0;
        while body.frame().await.is_some() {
            frames += 1;
        }
        frames
    });
    match task.await {
        Ok(frames) => Some(frames),
        Err(error) => {
            let panic = error.into_panic();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"a bug of the user's"), "{place:?}");
            None
        }
    }
}

#[tokio::test]
async fn what_panics_leaves_the_pool_usable_and_balanced() {
    for place in PLACES {
        for on_drop in [OnDrop::Commit, OnDrop::Release] {
            for (bills, waits) in [(false, false), (true, false), (false, true)] {
                let about = format!("{place:?}, {on_drop:?}, {bills}, {waits}");
                // One slot, so that what is left held would refuse the next.
                let pool = BudgetPool::builder().requests(9).tokens(100).in_flight(1);
                let pool = pool.tokio().build();
                let layer = fragile(place, &pool, on_drop, waits);
                assert_eq!(serve(&layer, place, bills).await, None, "{about}");

                let is_known = bills && place != Place::Call;
                // The drop comes after the end.
                let is_whole = on_drop == OnDrop::Commit || place == Place::DropOfTheBody;
                let used = match (place.has_hold(), is_known, is_whole) {
                    (false, ..) => 0,
                    (true, true, _) => 7,
                    (true, false, true) => 40,
                    (true, false, false) => 0,
                };
                let ends = (
                    u64::from(place.has_hold()),
                    u64::from(used > 0),
                    u64::from(place.has_hold() && used == 0),
                    0,
                );
                assert_eq!((ended(&pool), pool.snapshot().tokens.used), (ends, used), "{about}");
                #[cfg(debug_assertions)]
                pool.check_invariants();

                let sound = fragile(Place::Nowhere, &pool, on_drop, waits);
                assert_eq!(serve(&sound, Place::Nowhere, true).await, Some(3), "{about}");
                assert_eq!(pool.snapshot().tokens.used, used + 7, "{about}");
                assert_eq!(pool.snapshot().reservations, 0, "{about}");
            }
        }
    }
}
