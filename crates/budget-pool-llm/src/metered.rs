//! A stream of chunks that settles its hold, however it ends.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use budget_pool::{Amount, Axis, OnDrop, Receipt, Reservation, Usd};
use futures_core::{FusedStream, Stream};

use crate::price::{Price, Unpriced};
use crate::usage::Usage;

/// The news of one chunk of a stream about the tokens of its call. The meter of a [`Metered`]
/// stream says it of each.
///
/// ```
/// use budget_pool_llm::{Chunk, Usage};
///
/// /// What a client's stream yields.
/// struct Delta {
///     text: String,
///     usage: Option<Usage>,
/// }
///
/// fn meter(item: &Result<Delta, std::io::Error>) -> Chunk {
///     match item {
///         Ok(Delta { usage: Some(usage), .. }) => Chunk::Usage(*usage),
///         Ok(Delta { text, .. }) => Chunk::Output(text.split_whitespace().count() as u64),
///         Err(_) => Chunk::Nothing,
///     }
/// }
/// # assert_eq!(meter(&Ok(Delta { text: "a b".into(), usage: None })), Chunk::Output(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Chunk {
    /// Nothing that `Metered` counts: a role, a ping, an error that does not say whether the
    /// provider billed.
    Nothing,
    /// This number of tokens was generated with the chunk, by a count of the caller's own.
    Output(u64),
    /// The provider tells the input, and the output is still to come, as Anthropic's
    /// `message_start` does. Only the parts of the input are read. A `Prompt` is not a bill.
    ///
    /// Anthropic's `message_delta` then tells the output, and may leave out the input. A
    /// [`Chunk::Usage`] is of the whole call: the meter keeps the input of the `Prompt` for it.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// use budget_pool_llm::{Chunk, Metered, Price, Usage};
    /// # use futures_lite::{StreamExt, future, stream};
    ///
    /// enum Event {
    ///     MessageStart { usage: Usage },
    ///     ContentBlockDelta,
    ///     MessageDelta { output_tokens: u64 },
    /// }
    ///
    /// let mut known = Usage::default();
    /// let meter = |event: &Event| match event {
    ///     Event::MessageStart { usage } => {
    ///         known = *usage;
    ///         Chunk::Prompt(known)
    ///     }
    ///     Event::ContentBlockDelta => Chunk::Nothing,
    ///     Event::MessageDelta { output_tokens } => {
    ///         known.output = *output_tokens;
    ///         Chunk::Usage(known)
    ///     }
    /// };
    /// # let price = Price::new("3".parse()?, "15".parse()?);
    /// # let pool = BudgetPool::unlimited();
    /// # let hold = pool.reserve(price.ask(20_100, 500))?;
    /// # let start = Event::MessageStart { usage: Usage::new(20_000, 1).cache_beside() };
    /// # let end = Event::MessageDelta { output_tokens: 15 };
    /// # let events = stream::iter([start, Event::ContentBlockDelta, end]);
    /// let mut reply = Metered::new(events, hold, &price, meter);
    /// # future::block_on(async { while reply.next().await.is_some() {} });
    /// assert_eq!(reply.usage(), Usage::new(20_000, 15));
    /// # assert_eq!(pool.snapshot().usd.used, "0.060225".parse()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Prompt(Usage),
    /// The provider tells the usage **so far**, of the whole call: the only block of a stream, or
    /// one of several that grow. Each block replaces the one before it, so that the last `Usage`
    /// counts.
    Usage(Usage),
    /// The provider says that nothing of this call is billed, as with a 429. It holds until a later
    /// chunk tells otherwise.
    Unbilled,
}

/// A stream of chunks with a [hold](Reservation): meters each chunk, and settles the hold when the
/// stream ends, breaks off or is dropped.
///
/// The *meter* is a function of the caller's that turns each item into a [`Chunk`]. The tokens that
/// the meter tells are booked at once, in the metered part of the hold ([`Reservation::debit`]), so
/// that snapshots show them while the stream runs: at most 2^48 tokens of the input and of the
/// output, and 2^52 nano-dollars. All beyond that and the rest of the hold are settled at the end,
/// whichever comes first: the inner stream ends, or `Metered` is dropped. A panic of the meter or
/// of the inner stream is a drop. After each of these `reserved` is zero.
///
/// | the meter has told | what is booked |
/// | --- | --- |
/// | a usage block | its figures, to the nano-dollar, and what the meter counted after it; up or down |
/// | no block, but a count of its own | that count, and of the rest of the hold what [`OnDrop`] says |
/// | nothing | what `OnDrop` says of the hold |
/// | that nothing is billed | nothing |
///
/// The hold's rule thus decides how a call ends for which the provider never said a figure. With
/// `OnDrop::Commit` the whole hold is booked: the provider may have generated more than arrived.
/// With `OnDrop::Release` the hold books exactly the count, and all of its `usd` where the count
/// [has no price](Unpriced).
///
/// A count of the meter's own is priced with the input that the provider told in a
/// [`Prompt`](Chunk::Prompt), or else with the input tokens that the hold named. The first count
/// books the input, too, and the request, if the hold has one. A `Prompt` after it can raise the
/// booked input, and not lower it.
///
/// The figures of a `Usage` are tokens and money. Requests, and axes of the caller's own, settle at
/// the held units. Where a block [has no price](Unpriced), its tokens are booked, and the money
/// settles at the held `usd`: [`unpriced`](Metered::unpriced) tells why. A hold that has expired is
/// settled late, as [`Reservation::commit`] does.
///
/// A retry is another call, which the provider bills by itself: it takes a hold and a `Metered` of
/// its own.
///
/// ```
/// use budget_pool::{Amount, BudgetPool, OnDrop, Usd};
/// use budget_pool_llm::{Chunk, Metered, Price, Usage};
/// use futures_lite::{StreamExt, future, stream};
///
/// let price = Price::new(Usd::from_dollars(3), Usd::from_dollars(15));
/// let pool = BudgetPool::builder().usd(Usd::from_dollars(1)).on_drop(OnDrop::Commit).build();
/// let hold = pool.reserve(
///     Amount::new().requests(1).input_tokens(20).output_tokens(500).usd(price.bound(20, 500)),
/// )?;
///
/// // In place of the client's stream: texts, and the usage block at the end.
/// let chunks = [("It ", None), ("rains.", None), ("", Some(Usage::new(18, 3)))];
/// let mut reply = Metered::new(stream::iter(chunks), hold, &price, |(_, usage)| {
///     usage.map_or(Chunk::Nothing, Chunk::Usage)
/// });
/// future::block_on(async {
///     while let Some((text, _)) = reply.next().await {
///         print!("{text}");
///     }
/// });
/// assert_eq!(reply.receipt().unwrap().settled().units(budget_pool::Axis::Tokens), 0);
/// assert_eq!(pool.snapshot().usd.used, Usd::from_micros(99));
/// assert_eq!(pool.snapshot().usd.reserved, Usd::ZERO);
/// # Ok::<(), budget_pool::BudgetError>(())
/// ```
///
/// # Fused
///
/// After the inner stream has ended, it is not polled again: `Metered` yields `None` for ever, and
/// [`FusedStream::is_terminated`] says so.
///
/// # Cancel safety
///
/// A poll that returns `Pending` has taken nothing from the inner stream. A future such as `next()`
/// may be dropped: no chunk is lost, and none is metered twice.
#[must_use = "streams do nothing unless polled, and a drop settles the hold"]
pub struct Metered<S, M> {
    // The hold is settled before the inner stream is dropped, which may panic.
    account: Account,
    stream: S,
    meter: M,
}

/// Nothing in it is pinned but the inner stream, which says by itself that it does not mind.
impl<S: Unpin, M> Unpin for Metered<S, M> {}

impl<S, M> Metered<S, M>
where
    S: Stream + Unpin,
    M: FnMut(&S::Item) -> Chunk,
{
    /// Meters `stream` by `meter`, and settles `hold` by `price`.
    ///
    /// A stream that is not [`Unpin`] is given as `Box::pin(stream)`, or pinned by the caller.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool, Usd};
    /// use budget_pool_llm::{Chunk, Metered, Price};
    /// use futures_lite::stream;
    ///
    /// let price = Price::new(Usd::from_dollars(1), Usd::from_dollars(4));
    /// let pool = BudgetPool::unlimited();
    /// let hold = pool.reserve(Amount::new().input_tokens(70).usd(price.bound(70, 100)))?;
    /// let words = Box::pin(stream::iter(["one", "two"]));
    /// let metered = Metered::new(words, hold, &price, |_| Chunk::Output(1));
    /// assert_eq!(metered.usage().input, 70);
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    pub fn new(stream: S, hold: Reservation, price: &Price, meter: M) -> Metered<S, M> {
        Metered { account: Account::new(hold, price.clone()), stream, meter }
    }
}

impl<S, M> Metered<S, M> {
    /// The [`Usage`] as it is known: the provider's last block, and the `Chunk::Output` counts
    /// since. Before any block, the input is the `input_tokens` of the hold.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// # use budget_pool_llm::{Chunk, Metered, Price, Usage};
    /// # use futures_lite::{StreamExt, future, stream};
    /// # let price = Price::new("1".parse()?, "4".parse()?);
    /// # let hold = BudgetPool::unlimited().reserve(budget_pool::Amount::new().input_tokens(70))?;
    /// let mut metered = Metered::new(stream::iter([3, 4]), hold, &price, |n| Chunk::Output(*n));
    /// future::block_on(metered.next());
    /// assert_eq!(metered.usage(), Usage::new(70, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.account.usage
    }

    /// Whether a usage block of the provider has come: then the end of the stream settles its
    /// figures.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// # use budget_pool_llm::{Chunk, Metered, Price, Usage};
    /// # use futures_lite::{StreamExt, future, stream};
    /// # let price = Price::new("1".parse()?, "4".parse()?);
    /// # let hold = BudgetPool::unlimited().reserve(budget_pool::Amount::new())?;
    /// let blocks = stream::iter([Usage::new(70, 7)]);
    /// let mut metered = Metered::new(blocks, hold, &price, |usage| Chunk::Usage(*usage));
    /// assert!(!metered.is_billed());
    /// future::block_on(metered.next());
    /// assert!(metered.is_billed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_billed(&self) -> bool {
        self.account.source == Source::Bill
    }

    /// The [`Receipt`] of the settlement at the end of the stream, beside the tokens that were
    /// metered before. `None` before the end, and where the hold went by its `OnDrop`.
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis, BudgetPool};
    /// # use budget_pool_llm::{Chunk, Metered, Price, Usage};
    /// # use futures_lite::{StreamExt, future, stream};
    /// # let price = Price::new("1".parse()?, "4".parse()?);
    /// # let hold = BudgetPool::builder().tokens(50).build().reserve(Amount::new().tokens(50))?;
    /// let blocks = stream::iter([Usage::new(70, 7)]);
    /// let mut metered = Metered::new(blocks, hold, &price, |usage| Chunk::Usage(*usage));
    /// future::block_on(async { while metered.next().await.is_some() {} });
    /// assert!(metered.receipt().is_some_and(|receipt| !receipt.is_late()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.account.receipt.as_ref()
    }

    /// Why the usage as it is known has no price, if that is so. The money then settles at the held
    /// `usd`.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool, Usd};
    /// # use budget_pool_llm::{Chunk, Metered, Price, Usage};
    /// # use futures_lite::{StreamExt, future, stream};
    /// # let price = Price::new("1".parse()?, "4".parse()?);
    /// # let pool = BudgetPool::unlimited();
    /// let hold = pool.reserve(Amount::new().usd(Usd::from_cents(1)))?;
    /// // The price lists none for a read from a cache.
    /// let blocks = stream::iter([Usage::new(70, 0).cache_read(64)]);
    /// let mut metered = Metered::new(blocks, hold, &price, |usage| Chunk::Usage(*usage));
    /// future::block_on(async { while metered.next().await.is_some() {} });
    /// assert_eq!(metered.unpriced().unwrap().to_string(), "no price for 64 tokens of cache_read");
    /// assert_eq!(pool.snapshot().usd.used, Usd::from_cents(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn unpriced(&self) -> Option<Unpriced> {
        self.account.price.cost(&self.account.usage).err()
    }

    /// The inner stream.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// # use budget_pool_llm::{Chunk, Metered, Price};
    /// # use futures_lite::{Stream, stream};
    /// # let price = Price::new("1".parse()?, "4".parse()?);
    /// # let hold = BudgetPool::unlimited().reserve(budget_pool::Amount::new())?;
    /// let metered = Metered::new(stream::iter([1, 2]), hold, &price, |_| Chunk::Nothing);
    /// assert_eq!(metered.get_ref().size_hint(), (2, Some(2)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S, M> Stream for Metered<S, M>
where
    S: Stream + Unpin,
    M: FnMut(&S::Item) -> Chunk,
{
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let Metered { account, stream, meter } = self.get_mut();
        if account.has_ended {
            return Poll::Ready(None);
        }
        let item = ready!(Pin::new(stream).poll_next(context));
        match &item {
            Some(item) => account.tell(meter(item)),
            None => {
                account.has_ended = true;
                account.settle();
            }
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.account.has_ended { (0, Some(0)) } else { self.stream.size_hint() }
    }
}

impl<S, M> FusedStream for Metered<S, M>
where
    S: Stream + Unpin,
    M: FnMut(&S::Item) -> Chunk,
{
    fn is_terminated(&self) -> bool {
        self.account.has_ended
    }
}

impl<S: fmt::Debug, M> fmt::Debug for Metered<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered")
            .field("usage", &self.usage())
            .field("is_billed", &self.is_billed())
            .field("hold", &self.account.hold)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// The most that is booked before the end, far beyond any call. Of several calls whose figures are
/// absurd, the sum would be more than a pool counts; a later block that corrects one of them would
/// take back what others have spent.
const MOST_TOKENS: u64 = 1 << 48;
const MOST_MONEY: Usd = Usd::from_nanos(1 << 52);

/// Where the usage that is known comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Nobody has told anything yet.
    Nobody,
    /// A count of the caller's, for which the provider told the input at most.
    Count,
    /// A block of the provider, and perhaps a count after it.
    Bill,
    /// The provider bills nothing.
    Unbilled,
}

/// The hold of a stream, and what is known of its call.
struct Account {
    /// Until it is settled.
    hold: Option<Reservation>,
    price: Price,
    usage: Usage,
    source: Source,
    /// The sums booked so far by the hold's meter: input, output and money, each the most that was
    /// known.
    metered: (u64, u64, Usd),
    /// Whether anything was booked so far: the first count books the `requests` of the hold.
    is_metered: bool,
    /// The amount of the hold. One that has expired tells it no more.
    held: Amount,
    receipt: Option<Receipt>,
    has_ended: bool,
}

impl Account {
    fn new(hold: Reservation, price: Price) -> Account {
        let held = hold.amount();
        Account {
            hold: Some(hold),
            price,
            usage: Usage::new(held.units(Axis::InputTokens), 0),
            source: Source::Nobody,
            metered: (0, 0, Usd::ZERO),
            is_metered: false,
            held,
            receipt: None,
            has_ended: false,
        }
    }

    fn tell(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Nothing => return,
            Chunk::Output(tokens) => {
                self.usage.output = self.usage.output.saturating_add(tokens);
                // What is counted after a block is added to its figures.
                if self.source != Source::Bill {
                    self.source = Source::Count;
                }
            }
            Chunk::Prompt(usage) => {
                let Usage { output, reasoning, .. } = self.usage;
                self.usage = Usage { output, reasoning, ..usage };
                if self.source != Source::Bill {
                    self.source = Source::Count;
                }
            }
            Chunk::Usage(usage) => {
                self.usage = usage;
                self.source = Source::Bill;
            }
            Chunk::Unbilled => {
                self.source = Source::Unbilled;
                return;
            }
        }
        self.meter(MOST_TOKENS, MOST_MONEY);
    }

    /// Books the known usage beyond the booked one, up to so much in all. The settlement at the end
    /// takes back a count that was too high.
    fn meter(&mut self, tokens: u64, money: Usd) {
        let Some(hold) = &self.hold else { return };
        let (input, output, usd) = self.metered;
        let now = (
            input.max(self.usage.input.min(tokens)),
            output.max(self.usage.output.min(tokens)),
            // Money without a price stays held.
            self.price.cost(&self.usage).map_or(usd, |cost| cost.min(money).max(usd)),
        );
        let requests = if self.is_metered { 0 } else { self.held.units(Axis::Requests) };
        if now == self.metered && requests == 0 {
            return;
        }
        hold.debit(
            Amount::new()
                .requests(requests)
                .input_tokens(now.0 - input)
                .output_tokens(now.1 - output)
                .usd(now.2 - usd),
        );
        self.metered = now;
        self.is_metered = true;
    }

    fn settle(&mut self) {
        if self.source == Source::Count {
            self.meter(u64::MAX, Usd::MAX);
        }
        let Some(hold) = self.hold.take() else { return };
        match self.source {
            // By its `OnDrop`; what was metered stays.
            Source::Nobody => drop(hold),
            Source::Count => {
                if self.price.cost(&self.usage).is_err() {
                    // Tokens without a price are never free, whatever a drop would do.
                    let (.., booked) = self.metered;
                    let held = Usd::from_nanos(self.held.units(Axis::Usd));
                    hold.debit(Amount::new().usd(held.saturating_sub(booked)));
                }
                drop(hold);
            }
            Source::Bill => {
                let Usage { input, output, .. } = self.usage;
                let tokens = Amount::new().input_tokens(input).output_tokens(output);
                let cost = self.price.cost(&self.usage);
                let total = cost.map_or(tokens, |cost| tokens.usd(cost));
                self.receipt = Some(hold.commit(total));
            }
            Source::Unbilled => {
                // Should it expire only now, nothing is booked.
                let hold = hold.on_drop(OnDrop::Release);
                if !self.is_metered && !hold.is_expired() {
                    return hold.release();
                }
                // A release would leave what was metered, or settled by the expiry.
                let metered = Amount::new().requests(0).tokens(0).usd(Usd::ZERO);
                let metered = metered.input_tokens(0).output_tokens(0);
                let held = self.held.iter();
                let nothing = held.fold(metered, |total, held| total.with(held.axis(), 0));
                self.receipt = Some(hold.commit(nothing));
            }
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle();
    }
}
