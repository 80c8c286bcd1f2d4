//! A metered stream beside the bill of its server: broken off anywhere, in every way.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use budget_pool::{Amount, Ask, Axis, BudgetPool, ManualClock, OnDrop, Reservation, Usd};
use budget_pool_llm::{Chunk, Metered, Part, Price, Unpriced, Usage};
use futures_core::{FusedStream, Stream};
use futures_lite::{StreamExt, future, stream};

const CALLS: Axis = Axis::custom(0, "tool calls");

/// Prices whose cost of most calls is no whole number of nano-dollars.
fn price() -> Price {
    let parts = [
        (Part::Input, "3.3331e-07"),
        (Part::CacheRead, "3.3337e-08"),
        (Part::CacheWrite, "4.1239e-07"),
        (Part::Output, "1.6503e-06"),
    ];
    Price::per_token(parts).unwrap()
}

/// The same by hand: prices of a token in 1e-12 dollars.
fn bill(usage: Usage) -> Usd {
    let Usage { input, cache_read, cache_write, output, .. } = usage;
    let fresh = input - cache_read - cache_write;
    let sum = fresh * 333_310 + cache_read * 33_337 + cache_write * 412_390 + output * 1_650_300;
    Usd::from_nanos(sum.div_ceil(1_000))
}

/// How a provider tells what a call uses.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Provider {
    /// One block, at the end, as OpenAI; the meter counts for itself until then.
    BlockAtTheEnd,
    /// A block with each chunk, of all so far, as Gemini.
    BlockWithEach,
    /// The input at the start and a block at the end, as Anthropic.
    InputAtTheStart,
    /// No block; the meter counts for itself.
    Counted,
    /// No block and no count.
    Silent,
}

impl Provider {
    const ALL: [Provider; 5] = [
        Provider::BlockAtTheEnd,
        Provider::BlockWithEach,
        Provider::InputAtTheStart,
        Provider::Counted,
        Provider::Silent,
    ];
}

/// Tokens of each chunk.
const CHUNKS: [u64; 5] = [3, 1, 0, 40, 16];
const PROMPT: Usage = prompt(0);
const MAX_OUTPUT: u64 = 500;

const fn prompt(output: u64) -> Usage {
    Usage::new(1_003, output).cache_read(700).cache_write(101)
}

#[derive(Clone, Debug)]
struct Event {
    /// What it tells the meter.
    tells: Chunk,
    /// What the server bills if this is the last one that it sends.
    billed: Usage,
}

fn events(provider: Provider) -> Vec<Event> {
    let mut billed = PROMPT;
    let mut events = Vec::new();
    let nothing = |billed| Event { tells: Chunk::Nothing, billed };
    events.push(match provider {
        Provider::InputAtTheStart => Event { tells: Chunk::Prompt(prompt(1)), billed },
        _ => nothing(billed),
    });
    for tokens in CHUNKS {
        billed.output += tokens;
        let tells = match provider {
            Provider::BlockWithEach => Chunk::Usage(billed),
            Provider::Silent => Chunk::Nothing,
            _ => Chunk::Output(tokens),
        };
        events.push(Event { tells, billed });
    }
    if matches!(provider, Provider::BlockAtTheEnd | Provider::InputAtTheStart) {
        events.push(Event { tells: Chunk::Usage(billed), billed });
    }
    events.push(nothing(billed));
    events
}

type Item = Result<Event, &'static str>;

fn meter(item: &Item) -> Chunk {
    item.as_ref().map_or(Chunk::Nothing, |event| event.tells)
}

/// How a stream ends after some of its events.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// The connection is lost: the stream ends.
    Ends,
    /// The server says an error, and the stream ends.
    Fails,
    /// The server says an error, and the caller drops the stream.
    FailsAndIsDropped,
    /// The caller stops listening.
    Dropped,
    /// The caller stops listening while it waits for the next chunk.
    DroppedWhileItWaits,
    /// The inner stream panics.
    Panics,
    /// The meter panics.
    MeterPanics,
    /// The task of the caller panics.
    TaskPanics,
}

impl Ending {
    const ALL: [Ending; 8] = [
        Ending::Ends,
        Ending::Fails,
        Ending::FailsAndIsDropped,
        Ending::Dropped,
        Ending::DroppedWhileItWaits,
        Ending::Panics,
        Ending::MeterPanics,
        Ending::TaskPanics,
    ];
}

fn most() -> Amount {
    Amount::new()
        .requests(1)
        .input_tokens(PROMPT.input)
        .output_tokens(MAX_OUTPUT)
        .usd(price().bound(PROMPT.input, MAX_OUTPUT))
        .with(CALLS, 2)
}

/// Streams some events with a hold, and ends so.
fn stream_of(events: &[Event], ending: Ending, hold: Reservation) {
    let items = events.iter().cloned().map(Ok);
    let after: Pin<Box<dyn Stream<Item = Item>>> = match ending {
        Ending::Ends => Box::pin(stream::empty()),
        Ending::Fails | Ending::FailsAndIsDropped | Ending::MeterPanics => {
            Box::pin(stream::once(Err("overloaded")))
        }
        Ending::Panics => Box::pin(stream::poll_fn(|_| panic!("a bug of the client"))),
        _ => Box::pin(stream::pending()),
    };
    let meter = |item: &Item| match item {
        Err(_) if ending == Ending::MeterPanics => panic!("a bug of the meter"),
        item => meter(item),
    };
    let mut metered = Metered::new(stream::iter(items).chain(after), hold, &price(), meter);
    let streaming = catch_unwind(AssertUnwindSafe(|| {
        future::block_on(async {
            for _ in events {
                assert!(metered.next().await.is_some_and(|item| item.is_ok()));
            }
            match ending {
                Ending::Ends => assert!(metered.next().await.is_none()),
                Ending::Fails => {
                    assert!(metered.next().await.is_some_and(|item| item.is_err()));
                    assert!(metered.next().await.is_none());
                }
                Ending::FailsAndIsDropped => assert!(metered.next().await.is_some()),
                Ending::Dropped => {}
                Ending::DroppedWhileItWaits => {
                    assert!(future::poll_once(metered.next()).await.is_none());
                }
                Ending::Panics | Ending::MeterPanics => {
                    let _ = metered.next().await;
                }
                Ending::TaskPanics => {
                    let _metered = metered;
                    panic!("a bug of the caller")
                }
            }
        });
    }));
    let panics = matches!(ending, Ending::Panics | Ending::MeterPanics | Ending::TaskPanics);
    assert_eq!(streaming.is_err(), panics, "{ending:?}");
}

/// Nothing is held on any axis, and each hold has ended in one of three ways.
fn assert_nothing_held(pool: &BudgetPool, about: &str) {
    let snapshot = pool.snapshot();
    for (axis, of) in snapshot.axes() {
        assert_eq!(of.reserved.units(), 0, "{axis} {about}");
    }
    assert_eq!(pool.holders(), [], "{about}");
    #[cfg(debug_assertions)]
    pool.check_invariants();
}

/// What is used of money, input, output, all tokens, requests and tool calls.
fn books(pool: &BudgetPool) -> (Usd, [u64; 5]) {
    let snapshot = pool.snapshot();
    let used = |axis| snapshot.axis(axis).map_or(0, |of| of.used.units());
    let axes = [Axis::InputTokens, Axis::OutputTokens, Axis::Tokens, Axis::Requests, CALLS];
    (snapshot.usd.used, axes.map(used))
}

#[test]
fn broken_off_at_every_chunk_in_every_way_the_books_are_the_bill_and_nothing_is_held() {
    let mut count = 0;
    for provider in Provider::ALL {
        let all = events(provider);
        for sent in 0..=all.len() {
            for ending in Ending::ALL {
                for on_drop in [OnDrop::Release, OnDrop::Commit] {
                    let about = format!("{provider:?}, {ending:?} after {sent}, {on_drop:?}");
                    let pool = BudgetPool::builder().on_drop(on_drop).axis(CALLS).build();
                    stream_of(&all[..sent], ending, pool.reserve(most()).unwrap());
                    assert_nothing_held(&pool, &about);

                    let told = |chunk: fn(&Chunk) -> bool| {
                        all[..sent].iter().any(|event| chunk(&event.tells))
                    };
                    let has_block = told(|chunk| matches!(chunk, Chunk::Usage(_)));
                    let has_input = told(|chunk| matches!(chunk, Chunk::Prompt(_)));
                    let has_count = has_input || told(|chunk| matches!(chunk, Chunk::Output(_)));
                    let Some(last) = all[..sent].last().filter(|_| has_block || has_count) else {
                        // Nothing is known: the rule of the hold alone.
                        let whole = (most().units(Axis::Usd), [1_003, 500, 1_503, 1, 2]);
                        let (usd, others) =
                            if on_drop == OnDrop::Commit { whole } else { (0, [0; 5]) };
                        assert_eq!(books(&pool), (Usd::from_nanos(usd), others), "{about}");
                        continue;
                    };
                    let Usage { input, output, .. } = last.billed;
                    let books = books(&pool);
                    if has_block {
                        let tokens = [input, output, input + output, 1, 2];
                        assert_eq!(books, (bill(last.billed), tokens), "{about}");
                    } else if on_drop == OnDrop::Release {
                        // Without a block, what is cached is known by the provider's word alone.
                        let counted =
                            if has_input { last.billed } else { Usage::new(input, output) };
                        let tokens = [input, output, input + output, 1, 0];
                        assert_eq!(books, (bill(counted), tokens), "{about}");
                    } else {
                        let whole =
                            (Usd::from_nanos(most().units(Axis::Usd)), [1_003, 500, 1_503, 1, 2]);
                        assert_eq!(books, whole, "{about}");
                    }
                    count += 1;
                }
            }
        }
    }
    assert!(count > 300, "{count} endings of which something is known");
}

#[test]
fn a_retry_after_a_stream_that_broke_off_is_billed_beside_it() {
    for provider in [Provider::BlockWithEach, Provider::Counted] {
        let all = events(provider);
        for sent in 2..all.len() {
            let pool = BudgetPool::builder().usd(Usd::from_dollars(1)).in_flight(1).build();
            let mut billed = Usd::ZERO;
            for (events, ending) in [(&all[..sent], Ending::Fails), (&all[..], Ending::Ends)] {
                // The one slot is free again, or the retry would be refused.
                stream_of(events, ending, pool.reserve(most()).unwrap());
                let last = events.last().unwrap().billed;
                let counted = Usage::new(last.input, last.output);
                billed += bill(if provider == Provider::Counted { counted } else { last });
            }
            assert_nothing_held(&pool, "after the retry");
            assert_eq!((pool.snapshot().usd.used, pool.snapshot().requests.used), (billed, 2));
        }
    }
}

#[test]
fn a_retry_after_an_error_that_says_that_nothing_is_billed_is_billed_alone() {
    let mut count = 0;
    for provider in Provider::ALL {
        let all = events(provider);
        for sent in 0..=all.len() {
            let about = format!("{provider:?}, an error after {sent}");
            let pool = BudgetPool::builder().axis(CALLS).in_flight(1).build();
            let failed = all[..sent].iter().map(|event| event.tells).chain([Chunk::Unbilled]);
            let hold = pool.reserve(Ask::new(most()).on_drop(OnDrop::Commit)).unwrap();
            let failed = stream::iter(failed.collect::<Vec<_>>());
            let failed = Metered::new(failed, hold, &price(), |chunk| *chunk);
            assert_eq!(future::block_on(failed.count()), sent + 1);
            assert_eq!(books(&pool), (Usd::ZERO, [0; 5]), "{about}");
            assert_nothing_held(&pool, &about);

            stream_of(&all, Ending::Ends, pool.reserve(most()).unwrap());
            let Usage { input, output, .. } = all.last().unwrap().billed;
            let (billed, tokens) = match provider {
                Provider::Silent => (Usd::ZERO, [0; 5]),
                Provider::Counted => {
                    (bill(Usage::new(input, output)), [input, output, input + output, 1, 0])
                }
                _ => (bill(all.last().unwrap().billed), [input, output, input + output, 1, 2]),
            };
            assert_eq!(books(&pool), (billed, tokens), "{about}");
            assert_nothing_held(&pool, &about);
            count += 1;
        }
    }
    assert!(count > 35, "{count} retries");
}

#[test]
fn absurd_usage_blocks_are_booked_as_far_as_they_make_sense_and_nothing_is_held() {
    // A block, and what is booked of money, input, output and all tokens. Money that cannot be known
    // is that of the hold.
    let held = Usd::from_nanos(most().units(Axis::Usd));
    let cached = |input, cache_read| Usage::new(input, 60).cache_read(cache_read);
    let cases: [(&str, Usage, Usd, [u64; 3]); 8] = [
        ("more cached than the prompt", cached(86, 1_920), held, [86, 60, 146]),
        ("cached without a prompt", cached(0, 1), held, [0, 60, 60]),
        ("parts beyond a u64", cached(9, u64::MAX).cache_write(u64::MAX), held, [9, 60, 69]),
        ("more reasoning than output", Usage::new(70, 60).reasoning(61), held, [70, 60, 130]),
        (
            "a total below its parts",
            Usage::new(70, 60).total_at_least(9),
            bill(Usage::new(70, 60)),
            [70, 60, 130],
        ),
        (
            "a total alone",
            Usage::default().total_at_least(90),
            bill(Usage::new(0, 90)),
            [0, 90, 90],
        ),
        ("a block of zeros", Usage::default(), Usd::ZERO, [0, 0, 0]),
        (
            "the largest count of 32 bits",
            Usage::new(u64::from(u32::MAX), 0),
            bill(Usage::new(u64::from(u32::MAX), 0)),
            [u64::from(u32::MAX), 0, u64::from(u32::MAX)],
        ),
    ];
    for on_drop in [OnDrop::Release, OnDrop::Commit] {
        for (about, usage, money, tokens) in cases {
            let pool = BudgetPool::builder().on_drop(on_drop).axis(CALLS).build();
            run(&pool, most(), &price(), &[Chunk::Output(5), Chunk::Usage(usage)]);
            let (usd, [input, output, all, requests, calls]) = books(&pool);
            assert_eq!((usd, [input, output, all]), (money, tokens), "{about}");
            assert_eq!((requests, calls), (1, 2), "{about}");
        }
    }
}

/// Meters these chunks to their end.
fn run(pool: &BudgetPool, hold: Amount, price: &Price, chunks: &[Chunk]) {
    let chunks = stream::iter(chunks.to_vec());
    let metered = Metered::new(chunks, pool.reserve(hold).unwrap(), price, |chunk| *chunk);
    let _ = future::block_on(metered.count());
    assert_nothing_held(pool, "at the end");
}

fn dollars_a_million(input: u64, output: u64) -> Price {
    Price::new(Usd::from_dollars(input), Usd::from_dollars(output))
}

#[test]
fn m1_the_provider_s_total_replaces_what_was_metered() {
    // Metered by a tokenizer: 1,200 tokens and 0.012 USD. The provider: 1,000 and 0.010.
    let (pool, price) = (BudgetPool::unlimited(), dollars_a_million(10, 10));
    let metered = Cell::new(None);
    let chunks = stream::iter([Chunk::Output(1_200), Chunk::Usage(Usage::new(0, 1_000))]);
    let hold = pool.reserve(Amount::new().tokens(2_000).usd(Usd::from_cents(2))).unwrap();
    let mut stream = Metered::new(chunks, hold, &price, |chunk| {
        metered.set(Some(pool.snapshot()));
        *chunk
    });
    future::block_on(async { while stream.next().await.is_some() {} });
    let metered = metered.take().unwrap();
    assert_eq!((metered.tokens.used, metered.usd.used), (1_200, Usd::from_micros(12_000)));
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.tokens.used, snapshot.tokens.spent), (1_000, 1_000));
    assert_eq!((snapshot.usd.used, snapshot.usd.spent), (Usd::from_cents(1), Usd::from_cents(1)));
    let receipt = stream.receipt().unwrap();
    assert_eq!(receipt.credited().units(Axis::Tokens), 200);
}

#[test]
fn m2_totals_so_far_are_not_added_up() {
    let (pool, price) = (BudgetPool::unlimited(), dollars_a_million(1, 1));
    let blocks = [10, 36, 50, 60].map(|total| Chunk::Usage(Usage::new(0, total)));
    run(&pool, Amount::new().tokens(100), &price, &blocks);
    assert_eq!((pool.snapshot().tokens.used, pool.snapshot().tokens.spent), (60, 60));
    assert_eq!(pool.snapshot().usd.used, Usd::from_micros(60));
}

#[test]
fn a_block_may_take_back_what_an_earlier_one_said() {
    let (pool, price) = (BudgetPool::unlimited(), dollars_a_million(1, 1));
    let blocks = [Usage::new(70, 50), Usage::new(70, 7), Usage::new(60, 7)].map(Chunk::Usage);
    run(&pool, Amount::new().input_tokens(70).usd(Usd::from_cents(1)), &price, &blocks);
    let (usd, [input, output, tokens, ..]) = books(&pool);
    assert_eq!((usd, input, output, tokens), (Usd::from_micros(67), 60, 7, 67));
}

#[test]
fn what_is_counted_after_a_block_is_added_to_it() {
    let price = dollars_a_million(1, 1);
    // The first count was too high, and comes down all the same.
    let chunks = [Chunk::Output(9), Chunk::Usage(Usage::new(70, 7)), Chunk::Output(1)];
    for on_drop in [OnDrop::Release, OnDrop::Commit] {
        let pool = BudgetPool::builder().on_drop(on_drop).build();
        run(&pool, Amount::new().input_tokens(70).output_tokens(100), &price, &chunks);
        assert_eq!(books(&pool).1[..3], [70, 8, 78]);
    }
}

#[test]
fn a_prompt_tells_the_input_alone_and_leaves_a_bill_a_bill() {
    let pool = BudgetPool::builder().on_drop(OnDrop::Commit).build();
    let price = dollars_a_million(1, 1);
    let hold = pool.reserve(Amount::new().input_tokens(60).output_tokens(100)).unwrap();
    let block = |input, output, reasoning| Usage::new(input, output).reasoning(reasoning);
    let prompt = block(80, 1, 1).cache_read(20);
    let chunks = [
        Chunk::Prompt(block(65, 2, 2)),
        Chunk::Output(5),
        Chunk::Usage(block(70, 7, 3)),
        Chunk::Prompt(prompt),
    ];
    let mut metered = Metered::new(stream::iter(chunks), hold, &price, |chunk| *chunk);
    let mut next = || {
        let usage = (metered.usage(), metered.is_billed());
        future::block_on(metered.next()).map(|_| usage)
    };
    assert_eq!(next(), Some((Usage::new(60, 0), false)), "the input that is held");
    assert_eq!(next(), Some((block(65, 0, 0), false)));
    assert_eq!(next(), Some((block(65, 5, 0), false)));
    assert_eq!(next(), Some((block(70, 7, 3), true)));
    assert_eq!(next(), None);
    let told = block(80, 7, 3).cache_read(20);
    assert_eq!((metered.usage(), metered.is_billed()), (told, true));
    assert_eq!(books(&pool).1[..3], [80, 7, 87], "a count would have booked the whole hold");
}

#[test]
fn an_input_that_is_told_after_the_first_count_raises_what_is_booked_and_does_not_lower_it() {
    let price = dollars_a_million(1, 1);
    for (told, booked) in [(50, 70), (70, 70), (90, 90)] {
        for is_first in [true, false] {
            let pool = BudgetPool::builder().on_drop(OnDrop::Release).build();
            let (count, prompt) = (Chunk::Output(7), Chunk::Prompt(Usage::new(told, 0)));
            let chunks = if is_first { [prompt, count] } else { [count, prompt] };
            run(&pool, Amount::new().input_tokens(70).output_tokens(100), &price, &chunks);
            let booked = if is_first { told } else { booked };
            let (usd, [input, output, ..]) = books(&pool);
            assert_eq!((usd, input, output), (Usd::from_micros(booked + 7), booked, 7));
        }
    }
}

#[test]
fn m7_a_cost_that_cannot_be_known_books_the_money_that_was_held() {
    let price = dollars_a_million(1, 1);
    for on_drop in [OnDrop::Release, OnDrop::Commit] {
        let pool = BudgetPool::builder().on_drop(on_drop).build();
        let usage = Usage::new(70, 7).cache_read(64);
        let hold = pool.reserve(Amount::new().tokens(100).usd(Usd::from_cents(1))).unwrap();
        let mut stream =
            Metered::new(stream::iter([Chunk::Usage(usage)]), hold, &price, |chunk| *chunk);
        assert_eq!(stream.unpriced(), None);
        future::block_on(async { while stream.next().await.is_some() {} });
        assert!(matches!(
            stream.unpriced(),
            Some(Unpriced::NotListed { part: Part::CacheRead, .. })
        ));
        // The provider's tokens are booked all the same.
        let (usd, [input, output, tokens, ..]) = books(&pool);
        assert_eq!((usd, input, output, tokens), (Usd::from_cents(1), 70, 7, 77));
    }
}

#[test]
fn m7_a_count_that_has_no_price_books_the_money_that_was_held() {
    let price = dollars_a_million(1, 1);
    for on_drop in [OnDrop::Release, OnDrop::Commit] {
        let pool = BudgetPool::builder().on_drop(on_drop).build();
        // The stream breaks off after the provider told the input.
        let prompt = Chunk::Prompt(Usage::new(70, 0).cache_read(64));
        let hold = Amount::new().tokens(100).usd(Usd::from_cents(1));
        run(&pool, hold, &price, &[prompt, Chunk::Output(7)]);
        let (usd, [input, output, ..]) = books(&pool);
        assert_eq!((usd, input, output), (Usd::from_cents(1), 70, 7), "{on_drop:?}");
    }
    // What was priced before is a part of it; the expiry of the hold changes nothing.
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().clock(clock.clone()).build();
    let most = Amount::new().input_tokens(70).usd(Usd::from_cents(1));
    let hold = pool.reserve(Ask::new(most).ttl(Duration::from_secs(60))).unwrap();
    let prompt = Chunk::Prompt(Usage::new(70, 0).cache_read(64));
    let chunks = stream::iter([Chunk::Output(7), prompt]);
    let mut stream = Metered::new(chunks, hold, &price, |chunk| *chunk);
    let _ = future::block_on(stream.next());
    assert_eq!(pool.snapshot().usd.used, Usd::from_micros(77));
    clock.advance(Duration::from_secs(61));
    let _ = future::block_on(stream.next());
    drop(stream);
    assert_eq!(pool.snapshot().usd.used, Usd::from_cents(1));
}

#[test]
fn a_call_that_is_not_billed_gives_everything_back() {
    let price = dollars_a_million(1, 1);
    let hold = Amount::new().requests(1).input_tokens(70).usd(Usd::from_cents(1)).with(CALLS, 2);
    for (chunks, counted) in [
        (vec![Chunk::Unbilled], (0, 1)),
        (vec![Chunk::Nothing, Chunk::Unbilled, Chunk::Nothing], (0, 1)),
        // What was metered before is not billed, either.
        (vec![Chunk::Output(7), Chunk::Unbilled], (1, 0)),
        (vec![Chunk::Usage(Usage::new(90, 7)), Chunk::Unbilled], (1, 0)),
    ] {
        let pool = BudgetPool::builder().on_drop(OnDrop::Commit).axis(CALLS).build();
        run(&pool, hold, &price, &chunks);
        assert_eq!(books(&pool), (Usd::ZERO, [0; 5]), "{chunks:?}");
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.committed, snapshot.released), counted, "{chunks:?}");
        assert_eq!(snapshot.tokens.spent, 0);
    }
    // A later chunk knows better.
    let pool = BudgetPool::builder().axis(CALLS).build();
    run(&pool, hold, &price, &[Chunk::Unbilled, Chunk::Usage(Usage::new(70, 7))]);
    assert_eq!(books(&pool), (Usd::from_micros(77), [70, 7, 77, 1, 2]));
    let pool = BudgetPool::builder().axis(CALLS).build();
    run(&pool, hold, &price, &[Chunk::Unbilled, Chunk::Output(7)]);
    assert_eq!(books(&pool), (Usd::from_micros(77), [70, 7, 77, 1, 0]));
}

#[test]
fn a_request_that_a_count_of_nothing_has_booked_is_not_billed_either() {
    // The first chunk has a role and no text, and the hold names no input.
    let price = dollars_a_million(1, 1);
    for first in [Chunk::Output(0), Chunk::Prompt(Usage::default())] {
        let pool = BudgetPool::unlimited();
        let hold = Amount::new().requests(1).tokens(100).usd(Usd::from_cents(1));
        run(&pool, hold, &price, &[first, Chunk::Unbilled]);
        assert_eq!(books(&pool), (Usd::ZERO, [0; 5]), "{first:?}");
    }
}

#[test]
fn the_first_count_books_the_request_even_if_it_counts_nothing() {
    let price = dollars_a_million(1, 1);
    for first in [Chunk::Output(0), Chunk::Prompt(Usage::default())] {
        let pool = BudgetPool::unlimited();
        let hold = pool.reserve(Amount::new().requests(1).tokens(100)).unwrap();
        let mut stream = Metered::new(stream::iter([first]), hold, &price, |chunk| *chunk);
        let _ = future::block_on(stream.next());
        assert_eq!(books(&pool), (Usd::ZERO, [0, 0, 0, 1, 0]), "{first:?}");
        let requests = pool.snapshot().requests;
        assert_eq!((requests.used, requests.reserved), (1, 0), "{first:?}");
    }
}

#[test]
fn a_call_that_is_not_billed_costs_nothing_although_its_hold_has_expired() {
    let price = dollars_a_million(1, 1);
    let most = Amount::new().requests(1).input_tokens(70).usd(Usd::from_cents(1)).with(CALLS, 2);
    for on_drop in [OnDrop::Release, OnDrop::Commit] {
        for metered in [Chunk::Nothing, Chunk::Output(7)] {
            let clock = ManualClock::new();
            let pool = BudgetPool::builder().clock(clock.clone()).on_drop(on_drop).axis(CALLS);
            let pool = pool.build();
            let hold = pool.reserve(Ask::new(most).ttl(Duration::from_secs(60))).unwrap();
            let chunks = stream::iter([metered, Chunk::Unbilled]);
            let mut stream = Metered::new(chunks, hold, &price, |chunk| *chunk);
            let _ = future::block_on(stream.next());
            clock.advance(Duration::from_secs(61));
            let calls = if on_drop == OnDrop::Commit { 2 } else { 0 };
            assert_eq!(pool.snapshot().axis(CALLS).unwrap().used.units(), calls);
            future::block_on(async { while stream.next().await.is_some() {} });
            assert_eq!(books(&pool), (Usd::ZERO, [0; 5]), "{on_drop:?} {metered:?}");
            assert_nothing_held(&pool, "after the late word");
        }
    }
}

#[test]
fn what_is_beyond_the_hold_is_booked_as_overage() {
    let price = dollars_a_million(1, 1);
    let pool = BudgetPool::builder().tokens(100).usd(Usd::from_micros(100)).build();
    let hold = Amount::new().input_tokens(70).output_tokens(7).usd(Usd::from_micros(77));
    run(&pool, hold, &price, &[Chunk::Output(50), Chunk::Usage(Usage::new(70, 60))]);
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.tokens.used, snapshot.tokens.overage), (100, 30));
    assert_eq!(
        (snapshot.usd.used, snapshot.usd.overage),
        (Usd::from_micros(100), Usd::from_micros(30))
    );
}

#[test]
fn a_hold_without_requests_books_none() {
    // The request was recorded when it began; the hold is for the rest.
    let (pool, price) = (BudgetPool::unlimited(), dollars_a_million(1, 1));
    pool.record(Amount::new().requests(1)).unwrap();
    let chunks = [Chunk::Output(7), Chunk::Usage(Usage::new(70, 7))];
    run(&pool, Amount::new().input_tokens(70), &price, &chunks);
    assert_eq!(pool.snapshot().requests.used, 1);
}

#[test]
fn a_hold_that_expired_is_settled_late_and_exactly() {
    let price = dollars_a_million(1, 1);
    for on_drop in [OnDrop::Release, OnDrop::Commit] {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().clock(clock.clone()).on_drop(on_drop).build();
        let most = Amount::new().input_tokens(70).output_tokens(100).usd(Usd::from_cents(1));
        let hold = pool.reserve(Ask::new(most).ttl(Duration::from_secs(60))).unwrap();
        let chunks = stream::iter([Chunk::Output(3), Chunk::Usage(Usage::new(68, 9))]);
        let mut stream = Metered::new(chunks, hold, &price, |chunk| *chunk);
        let _ = future::block_on(stream.next());
        clock.advance(Duration::from_secs(61));
        future::block_on(async { while stream.next().await.is_some() {} });
        assert!(stream.receipt().unwrap().is_late());
        let (usd, [input, output, tokens, ..]) = books(&pool);
        assert_eq!((usd, input, output, tokens), (Usd::from_micros(77), 68, 9, 77), "{on_drop:?}");
        assert_nothing_held(&pool, "after the late commit");
    }
}

#[test]
fn absurd_counts_saturate() {
    let (pool, price) = (BudgetPool::unlimited(), dollars_a_million(1, 1));
    let most = u64::MAX;
    let chunks = [Chunk::Output(most), Chunk::Output(most), Chunk::Prompt(Usage::new(most, most))];
    run(&pool, Amount::new().input_tokens(1), &price, &chunks);
    assert_eq!(books(&pool).1[..3], [most; 3]);
}

/// A -1 that was read as a `u64`, in the blocks of two streams at once, and then the right figures.
#[test]
fn what_absurd_blocks_say_is_taken_back_and_nothing_else() {
    let price = dollars_a_million(1, 1);
    let most = Usage::new(u64::MAX, u64::MAX);
    let absurd = [Chunk::Usage(most), Chunk::Prompt(most), Chunk::Output(u64::MAX)];
    for (absurd, is_capped) in absurd.into_iter().flat_map(|chunk| [(chunk, false), (chunk, true)])
    {
        let builder = BudgetPool::builder();
        let pool = match is_capped {
            true => builder.tokens(1_000).usd(Usd::from_cents(1)).build(),
            false => builder.build(),
        };
        let others = Amount::new().input_tokens(10).usd(Usd::from_micros(10));
        pool.record(others).unwrap();
        let hold = || pool.reserve(Amount::new().input_tokens(70).output_tokens(9)).unwrap();
        let [mut one, mut two] = [[absurd, Chunk::Usage(Usage::new(70, 7))]; 2]
            .map(|chunks| Metered::new(stream::iter(chunks), hold(), &price, |chunk| *chunk));
        future::block_on(async {
            one.next().await.unwrap();
            two.next().await.unwrap();
            assert!(pool.snapshot().tokens.spent >= 1 << 49, "{absurd:?}");
            while one.next().await.is_some() {}
            while two.next().await.is_some() {}
        });
        let (usd, [input, output, tokens, ..]) = books(&pool);
        assert_eq!((usd, input, output, tokens), (Usd::from_micros(164), 150, 14, 164));
        assert_nothing_held(&pool, "after the right blocks");
    }
    // What nothing corrects is booked as it came, and so is the cost of a price that is absurd.
    let dear = Price::new(Usd::from_dollars(10_000_000_000), Usd::from_dollars(10_000_000_000));
    for (price, output) in [(&price, u64::MAX), (&dear, 1_000_000)] {
        for chunk in [Chunk::Usage(Usage::new(0, output)), Chunk::Output(output)] {
            let pool = BudgetPool::builder().on_drop(OnDrop::Release).build();
            run(&pool, Amount::new(), price, &[chunk]);
            let cost = price.cost(&Usage::new(0, output)).unwrap();
            assert!(cost > Usd::from_dollars(5_000_000));
            assert_eq!((books(&pool).0, books(&pool).1[1]), (cost, output), "{chunk:?}");
        }
    }
    // Before the end, not more of that cost than 2^52 nano-dollars.
    let pool = BudgetPool::unlimited();
    let hold = pool.reserve(Amount::new()).unwrap();
    let bill = stream::iter([Chunk::Usage(Usage::new(0, 1_000_000))]);
    let mut metered = Metered::new(bill, hold, &dear, |chunk| *chunk);
    assert!(future::block_on(metered.next()).is_some());
    assert_eq!(pool.snapshot().usd.spent, Usd::from_nanos(1 << 52));
}

#[test]
fn it_is_fused_and_passes_hints_on() {
    /// Yields once, ends, and would yield again.
    struct NotFused(Rc<Cell<u32>>);
    impl Stream for NotFused {
        type Item = u64;
        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
            self.0.set(self.0.get() + 1);
            Poll::Ready((self.0.get() != 2).then_some(1))
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (3, Some(5))
        }
    }
    let (pool, polls) = (BudgetPool::unlimited(), Rc::new(Cell::new(0)));
    let hold = pool.reserve(Amount::new()).unwrap();
    let price = dollars_a_million(1, 1);
    let mut metered = Metered::new(NotFused(polls.clone()), hold, &price, |n| Chunk::Output(*n));
    let mut next = || {
        let mut context = Context::from_waker(Waker::noop());
        let hint = metered.size_hint();
        (Pin::new(&mut metered).poll_next(&mut context), hint, metered.is_terminated())
    };
    assert_eq!(next(), (Poll::Ready(Some(1)), (3, Some(5)), false));
    assert_eq!(next(), (Poll::Ready(None), (3, Some(5)), true));
    assert_eq!(next(), (Poll::Ready(None), (0, Some(0)), true));
    assert_eq!(polls.get(), 2);
    assert_eq!(pool.snapshot().output_tokens.used, 1);
}

#[test]
fn a_poll_that_is_pending_meters_nothing() {
    let pool = BudgetPool::unlimited();
    let polls = Cell::new(0);
    let chunks = stream::poll_fn(|_| {
        polls.set(polls.get() + 1);
        // Every other poll is too early.
        if polls.get() % 2 == 1 { Poll::Pending } else { Poll::Ready(Some(5)) }
    });
    let hold = pool.reserve(Amount::new()).unwrap();
    let price = dollars_a_million(1, 1);
    let mut metered = Metered::new(chunks, hold, &price, |n| Chunk::Output(*n));
    for round in 0..3 {
        // The first future is dropped; the second one gets the chunk.
        assert_eq!(future::block_on(future::poll_once(metered.next())), None);
        assert_eq!(pool.snapshot().output_tokens.used, 5 * round);
        assert_eq!(future::block_on(metered.next()), Some(5));
    }
    assert_eq!(pool.snapshot().output_tokens.used, 15);
}

#[test]
fn the_hold_is_settled_before_the_inner_stream_is_dropped() {
    struct PanicsInDrop(BudgetPool);
    impl Stream for PanicsInDrop {
        type Item = u64;
        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
            Poll::Ready(Some(1))
        }
    }
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("{} still held", self.0.snapshot().tokens.reserved);
        }
    }
    let pool = BudgetPool::unlimited();
    let hold = pool.reserve(Amount::new().tokens(9)).unwrap();
    let price = dollars_a_million(1, 1);
    let metered = Metered::new(PanicsInDrop(pool.clone()), hold, &price, |n| Chunk::Output(*n));
    let panic = catch_unwind(AssertUnwindSafe(|| drop(metered))).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some("0 still held"));
    assert_nothing_held(&pool, "after the panic");
}

#[test]
fn it_goes_where_its_parts_go() {
    fn goes<T: Send + Sync + Unpin + 'static>(_: &T) {}
    let hold = BudgetPool::unlimited().reserve(Amount::new()).unwrap();
    let price = dollars_a_million(1, 1);
    // A closure that may not move is not pinned by it.
    let stays = std::marker::PhantomPinned;
    let metered = Metered::new(stream::iter([1]), hold, &price, move |n| {
        let _ = &stays;
        Chunk::Output(*n)
    });
    goes(&metered);
    let text = format!("{metered:?}");
    assert!(text.starts_with("Metered { usage: Usage { input: 0,"), "{text}");
}
