//! From tokens to money, exactly.

use std::error::Error;
use std::fmt;
use std::iter;

use budget_pool::{Amount, Ask, OnDrop, Usd};

use crate::rate::{Rate, RateError, UNITS_PER_NANO};
use crate::usage::{Part, Usage};

/// The prices of one model: a [`Rate`] for each [`Part`] that is listed, and tiers.
///
/// A part without a rate is *not listed*, which is not the same as free. A call that has tokens of
/// such a part is [`Unpriced`]. Reasoning is the exception: without a rate of its own it costs as
/// much as `Part::Output`.
///
/// ```
/// use budget_pool::Usd;
/// use budget_pool_llm::{Price, Usage};
///
/// let dollars = |text: &str| text.parse::<Usd>();
/// // A provider whose prompts beyond 200,000 tokens cost twice as much.
/// let price = Price::new(dollars("2")?, dollars("12")?)
///     .cache_read(dollars("0.20")?)
///     .above(200_000, Price::new(dollars("4")?, dollars("18")?).cache_read(dollars("0.40")?));
///
/// assert_eq!(price.cost(&Usage::new(200_000, 1_000))?, dollars("0.412")?);
/// assert_eq!(price.cost(&Usage::new(200_001, 1_000))?, dollars("0.818004")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Price {
    base: Rates,
    /// By their thresholds, each of which is there once.
    tiers: Vec<Tier>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tier {
    above: u64,
    rates: Rates,
}

/// The [`Rate`] of each [`Part`] that is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rates([Option<Rate>; Part::COUNT]);

impl Rates {
    const NONE: Rates = Rates([None; Part::COUNT]);

    const fn with(mut self, part: Part, rate: Rate) -> Rates {
        self.0[part as usize] = Some(rate);
        self
    }

    fn listed(&self, part: Part) -> Option<Rate> {
        self.0[part as usize]
    }

    /// Its own where it lists a part, else those below.
    fn over(&self, below: &Rates) -> Rates {
        let mut rates = *below;
        for (rate, own) in rates.0.iter_mut().zip(self.0) {
            *rate = own.or(*rate);
        }
        rates
    }

    /// The [`Rate`] of a token of this part.
    fn of(&self, part: Part) -> Option<Rate> {
        match part {
            Part::Reasoning => self.listed(part).or(self.listed(Part::Output)),
            part => self.listed(part),
        }
    }

    /// The most that a generated token can cost: whether it is one of reasoning is not known before.
    fn dearest_output(&self) -> Option<Rate> {
        Some(self.of(Part::Output)?.max(self.of(Part::Reasoning)?))
    }

    fn bound(&self, input: u64, max_output: u64) -> Usd {
        let [of_input, of_output] =
            [price_of(input, self.of(Part::Input)), price_of(max_output, self.dearest_output())];
        rounded_up(of_input.zip(of_output).and_then(|(input, output)| input.checked_add(output)))
    }

    /// `None` if the input alone costs more than `units`.
    fn output_within(&self, input: u64, units: u128) -> Option<u64> {
        let left = units.checked_sub(price_of(input, self.of(Part::Input))?)?;
        let Some(rate) = self.dearest_output() else { return Some(0) };
        Some(rate.within(left).and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or(u64::MAX))
    }
}

/// In units. No tokens cost nothing, listed or not. `None` is more than [`Usd::MAX`].
fn price_of(tokens: u64, rate: Option<Rate>) -> Option<u128> {
    if tokens == 0 { Some(0) } else { rate?.times(tokens) }
}

/// Units as money, rounded up. `None` is more than [`Usd::MAX`].
fn rounded_up(units: Option<u128>) -> Usd {
    let nanos = units.and_then(|units| u64::try_from(units.div_ceil(UNITS_PER_NANO)).ok());
    nanos.map_or(Usd::MAX, Usd::from_nanos)
}

/// How it is written down.
impl Price {
    /// Dollars per million tokens of input and of output, as price pages say them.
    ///
    /// ```
    /// use budget_pool::Usd;
    /// use budget_pool_llm::{Price, Usage};
    ///
    /// const PRICE: Price = Price::new(Usd::from_cents(250), Usd::from_dollars(10));
    /// assert_eq!(PRICE.cost(&Usage::new(1_000, 100)), Ok("0.0035".parse()?));
    /// # Ok::<(), budget_pool::ParseUsdError>(())
    /// ```
    #[must_use]
    pub const fn new(input: Usd, output: Usd) -> Price {
        let rates = Rates::NONE
            .with(Part::Input, Rate::per_million(input))
            .with(Part::Output, Rate::per_million(output));
        Price { base: rates, tiers: Vec::new() }
    }

    /// Sets the price of tokens read from a cache, in dollars per million.
    ///
    /// ```
    /// use budget_pool::Usd;
    /// use budget_pool_llm::{Price, Usage};
    ///
    /// let price = Price::new(Usd::from_dollars(3), Usd::from_dollars(15)).cache_read(Usd::from_cents(30));
    /// let usage = Usage::new(1_000, 0).cache_read(1_000);
    /// assert_eq!(price.cost(&usage), Ok(Usd::from_micros(300)));
    /// ```
    #[must_use]
    pub const fn cache_read(self, per_million: Usd) -> Price {
        self.with(Part::CacheRead, per_million)
    }

    /// Sets the price of tokens written to a cache for the provider's usual time, in dollars per
    /// million. Where a provider reports writes and bills them as input, set the price of input.
    ///
    /// ```
    /// use budget_pool::Usd;
    /// use budget_pool_llm::{Price, Usage};
    ///
    /// let price = Price::new(Usd::from_dollars(3), Usd::from_dollars(15)).cache_write(Usd::from_cents(375));
    /// let usage = Usage::new(1_000, 0).cache_write(1_000);
    /// assert_eq!(price.cost(&usage), Ok(Usd::from_micros(3_750)));
    /// ```
    #[must_use]
    pub const fn cache_write(self, per_million: Usd) -> Price {
        self.with(Part::CacheWrite, per_million)
    }

    /// Sets the price of tokens written to a cache for an hour, in dollars per million.
    ///
    /// ```
    /// use budget_pool::Usd;
    /// use budget_pool_llm::{Price, Usage};
    ///
    /// let price = Price::new(Usd::from_dollars(3), Usd::from_dollars(15)).cache_write_1h(Usd::from_dollars(6));
    /// let usage = Usage::new(1_000, 0).cache_write_1h(1_000);
    /// assert_eq!(price.cost(&usage), Ok(Usd::from_micros(6_000)));
    /// ```
    #[must_use]
    pub const fn cache_write_1h(self, per_million: Usd) -> Price {
        self.with(Part::CacheWrite1h, per_million)
    }

    /// Sets the price of reasoning, in dollars per million tokens. Without it, reasoning costs as
    /// much as `Part::Output`.
    ///
    /// ```
    /// use budget_pool::Usd;
    /// use budget_pool_llm::{Price, Usage};
    ///
    /// let price = Price::new(Usd::from_dollars(1), Usd::from_dollars(4)).reasoning(Usd::from_dollars(3));
    /// let usage = Usage::new(0, 1_000).reasoning(900);
    /// assert_eq!(price.cost(&usage), Ok(Usd::from_micros(3_100)));
    /// ```
    #[must_use]
    pub const fn reasoning(self, per_million: Usd) -> Price {
        self.with(Part::Reasoning, per_million)
    }

    const fn with(mut self, part: Part, per_million: Usd) -> Price {
        self.base = self.base.with(part, Rate::per_million(per_million));
        self
    }

    /// From the figures of a price list, in dollars per token: decimal texts, or floats as a parser
    /// of JSON makes them. Each is kept exactly; a float counts as the shortest text that names it.
    /// Parts that are not given are not listed.
    ///
    /// # Errors
    /// [`PriceError`] names the part whose figure is not a price, cannot be kept exactly, or is
    /// given twice.
    ///
    /// ```
    /// use budget_pool_llm::{Part, Price, PriceError, RateError, Usage};
    ///
    /// let price = Price::per_token([(Part::Input, "3.75e-08"), (Part::Output, "1.5e-07")])?;
    /// assert_eq!(price, Price::new("0.0375".parse()?, "0.15".parse()?));
    ///
    /// let price = Price::per_token([(Part::Input, 0.00000008333333333333334), (Part::Output, 3e-7)])?;
    /// assert_eq!(price.cost(&Usage::new(12_000_000, 0))?, "1.000000001".parse()?);
    ///
    /// let error = Price::per_token([(Part::Input, -1.0)]).unwrap_err();
    /// assert_eq!(error.to_string(), "price of input: a price is not negative");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn per_token<R>(parts: impl IntoIterator<Item = (Part, R)>) -> Result<Price, PriceError>
    where
        R: TryInto<Rate, Error = RateError>,
    {
        let mut base = Rates::NONE;
        for (part, figure) in parts {
            if base.listed(part).is_some() {
                return Err(PriceError::Repeated { part });
            }
            let rate = figure.try_into().map_err(|error| PriceError::Rate { part, error })?;
            base = base.with(part, rate);
        }
        Ok(Price { base, tiers: Vec::new() })
    }

    /// Adds a tier: a call whose input is greater than `tokens` is priced by `price` as a whole, its
    /// output included. Parts that `price` does not list are priced as without the tier. Of several
    /// tiers the one with the greatest threshold below the input applies, alone. A second tier for
    /// the same threshold replaces the first.
    ///
    /// The tiers of `price` itself become tiers over `price`, for inputs that are greater than both
    /// thresholds.
    ///
    /// ```
    /// use budget_pool_llm::{Part, Price, Usage};
    ///
    /// let price = Price::per_token([(Part::Input, "1e-06"), (Part::Output, "4e-06")])?
    ///     .above(128_000, Price::per_token([(Part::Input, "2e-06")])?);
    /// // A cliff: one token more doubles the price of all of the input.
    /// assert_eq!(price.cost(&Usage::new(128_000, 0))?, "0.128".parse()?);
    /// assert_eq!(price.cost(&Usage::new(128_001, 0))?, "0.256002".parse()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn above(mut self, tokens: u64, price: Price) -> Price {
        let Price { base, tiers } = price;
        self.insert(Tier { above: tokens, rates: base });
        for Tier { above, rates } in tiers {
            self.insert(Tier { above: above.max(tokens), rates: rates.over(&base) });
        }
        self
    }

    fn insert(&mut self, tier: Tier) {
        match self.tiers.binary_search_by_key(&tier.above, |tier| tier.above) {
            Ok(at) => self.tiers[at] = tier,
            Err(at) => self.tiers.insert(at, tier),
        }
    }

    /// The [`Rate`] of a token of this part in a call with so much input, or `None` if it is not
    /// listed.
    ///
    /// ```
    /// use budget_pool_llm::{Part, Price, Rate};
    ///
    /// let price = Price::per_token([(Part::Input, 1.25e-6), (Part::Output, 2.5e-6)])?;
    /// assert_eq!(price.rate(Part::Input, 0), Some(Rate::try_from("0.00000125")?));
    /// assert_eq!(price.rate(Part::Reasoning, 0), Some(Rate::try_from("0.0000025")?));
    /// assert_eq!(price.rate(Part::CacheRead, 0), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn rate(&self, part: Part, input: u64) -> Option<Rate> {
        self.rates(input).of(part)
    }
}

/// The cost of a call.
impl Price {
    /// The tiers whose threshold is below the input, and what there is without any, in order.
    fn applicable(&self, input: u64) -> impl Iterator<Item = Rates> {
        let tiers = self.tiers.iter().take_while(move |tier| tier.above < input);
        iter::once(self.base).chain(tiers.map(|tier| tier.rates.over(&self.base)))
    }

    fn rates(&self, input: u64) -> Rates {
        self.applicable(input).last().unwrap_or(self.base)
    }

    /// The exact cost of a call, rounded up once to the next nano-dollar. More than [`Usd::MAX`] is
    /// `Usd::MAX`.
    ///
    /// # Errors
    /// [`Unpriced`] if a part has tokens and is not listed, or if the block contradicts itself.
    /// `Unpriced` never means 0: leave `usd` unnamed in the commit, and the pool books the held
    /// money.
    ///
    /// ```
    /// use budget_pool::Usd;
    /// use budget_pool_llm::{Part, Price, Unpriced, Usage};
    ///
    /// let price = Price::new(Usd::from_dollars(1), Usd::from_dollars(3));
    /// assert_eq!(price.cost(&Usage::new(1, 1)), Ok(Usd::from_micros(4)));
    ///
    /// let usage = Usage::new(9, 0).cache_read(5);
    /// let error = price.cost(&usage).unwrap_err();
    /// assert_eq!(error.to_string(), "no price for 5 tokens of cache_read");
    /// ```
    pub fn cost(&self, usage: &Usage) -> Result<Usd, Unpriced> {
        let rates = self.rates(usage.input);
        let mut sum = Some(0_u128);
        for (part, tokens) in usage.parts()? {
            let rate = rates.of(part);
            if tokens > 0 && rate.is_none() {
                return Err(Unpriced::NotListed { part, tokens });
            }
            let price = price_of(tokens, rate);
            sum = sum.zip(price).and_then(|(sum, price)| sum.checked_add(price));
        }
        Ok(rounded_up(sum))
    }

    /// The most that a call with up to `input` and `max_output` tokens can cost, if it reads and
    /// writes no cache: by the dearest tier that applies, and with the dearer of output and
    /// reasoning. It is for the hold before the call.
    ///
    /// Reads from a cache only make a call cheaper. A call that writes one may cost more: its bound
    /// is the [`cost`](Price::cost) of a usage whose input is all written. Tokens that are not
    /// listed have no bound: it is [`Usd::MAX`] then.
    ///
    /// ```
    /// use budget_pool::Usd;
    /// use budget_pool_llm::Price;
    ///
    /// let price = Price::new(Usd::from_dollars(3), Usd::from_dollars(15));
    /// assert_eq!(price.bound(10_000, 2_000), Usd::from_cents(6));
    /// ```
    #[must_use]
    pub fn bound(&self, input: u64, max_output: u64) -> Usd {
        let bounds = self.applicable(input).map(|rates| rates.bound(input, max_output));
        bounds.max().unwrap_or(Usd::MAX)
    }

    /// The `max_tokens` that this money pays: the greatest output whose [`bound`](Price::bound) is
    /// not above `money`, or `None` if the input alone costs more.
    ///
    /// ```
    /// use budget_pool::Usd;
    /// use budget_pool_llm::Price;
    ///
    /// let price = Price::new(Usd::from_dollars(3), Usd::from_dollars(15));
    /// assert_eq!(price.output_within(10_000, Usd::from_cents(6)), Some(2_000));
    /// assert_eq!(price.output_within(10_000, Usd::from_cents(3)), Some(0));
    /// assert_eq!(price.output_within(10_000, Usd::from_cents(2)), None);
    /// ```
    #[must_use]
    pub fn output_within(&self, input: u64, money: Usd) -> Option<u64> {
        if money == Usd::MAX {
            // A bound stops there, however much output it is for.
            return Some(u64::MAX);
        }
        let units = u128::from(money.as_nanos()) * UNITS_PER_NANO;
        // `None` is less than any output.
        self.applicable(input).map(|rates| rates.output_within(input, units)).min().flatten()
    }

    /// The [`Amount`] that a call books: one request, the tokens on all three axes, and the money.
    ///
    /// # Errors
    /// [`Unpriced`], as [`cost`](Price::cost).
    ///
    /// ```
    /// use budget_pool::{Amount, Usd};
    /// use budget_pool_llm::{Price, Usage};
    ///
    /// let price = Price::new(Usd::from_dollars(3), Usd::from_dollars(15));
    /// let call = Amount::new()
    ///     .requests(1)
    ///     .tokens(77)
    ///     .input_tokens(70)
    ///     .output_tokens(7)
    ///     .usd(Usd::from_micros(315));
    /// assert_eq!(price.amount(&Usage::new(70, 7)), Ok(call));
    /// ```
    pub fn amount(&self, usage: &Usage) -> Result<Amount, Unpriced> {
        let usd = self.cost(usage)?;
        Ok(Amount::new()
            .requests(1)
            .tokens(usage.total())
            .input_tokens(usage.input)
            .output_tokens(usage.output)
            .usd(usd))
    }

    /// The hold for a call, before it is made: one request, the tokens of the prompt, the most
    /// output, which is the `max_tokens` of the call, and the [`bound`](Price::bound) of both in
    /// money. It [commits on drop](OnDrop::Commit), whatever the pool's rule: a provider bills a
    /// call that is cut off, and a program that forgets to commit books too much and not too little.
    ///
    /// Settle it with [`amount`](Price::amount) or by a [`Metered`](crate::Metered) stream, and
    /// `release` it when the provider says that nothing was billed. The money of tokens that are not
    /// listed has no bound: such an ask fits under no cap of money.
    ///
    /// ```
    /// use budget_pool::{BudgetPool, Usd};
    /// use budget_pool_llm::{Price, Usage};
    ///
    /// let pool = BudgetPool::builder().usd("0.05".parse()?).build();
    /// let large = Price::new("3".parse()?, "15".parse()?);
    /// let small = Price::new("0.25".parse()?, "1.25".parse()?);
    ///
    /// // The large model if the pool has the money, else the small one.
    /// let ask = large.ask(10_000, 2_000).or(small.ask(10_000, 2_000).amount());
    /// let hold = pool.reserve(ask)?;
    /// assert_eq!(hold.choice(), 1);
    /// hold.commit(small.amount(&Usage::new(10_000, 400))?);
    /// assert_eq!(pool.snapshot().usd.used, "0.003".parse()?);
    ///
    /// drop(pool.reserve(small.ask(10_000, 2_000))?); // cut off
    /// assert_eq!(pool.snapshot().usd.used, "0.008".parse()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ask(&self, input: u64, max_output: u64) -> Ask {
        let most = Amount::new().requests(1).input_tokens(input).output_tokens(max_output);
        Ask::new(most.usd(self.bound(input, max_output))).on_drop(OnDrop::Commit)
    }
}

/// Why the figures of a price list are not a [`Price`].
///
/// ```
/// use budget_pool_llm::{Part, Price, PriceError};
///
/// let error = Price::per_token([(Part::Output, "1e-06"), (Part::Output, "2e-06")]).unwrap_err();
/// assert!(matches!(error, PriceError::Repeated { part: Part::Output, .. }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PriceError {
    /// A figure is not a price, or cannot be kept exactly.
    #[non_exhaustive]
    Rate {
        /// Whose figure it is.
        part: Part,
        /// The fault of the text.
        error: RateError,
    },
    /// A part has two figures.
    #[non_exhaustive]
    Repeated {
        /// The part.
        part: Part,
    },
}

impl fmt::Display for PriceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PriceError::Rate { part, error } => write!(f, "price of {part}: {error}"),
            PriceError::Repeated { part } => write!(f, "price of {part}: given twice"),
        }
    }
}

impl Error for PriceError {}

/// Why a call has no cost.
///
/// ```
/// use budget_pool::Usd;
/// use budget_pool_llm::{Price, Unpriced, Usage};
///
/// let price = Price::new(Usd::from_dollars(1), Usd::from_dollars(3)).cache_read(Usd::from_cents(10));
/// // A proxy that counts the cached tokens beside the prompt: say so with `cache_beside`.
/// let usage = Usage::new(86, 0).cache_read(1_920);
/// let error = price.cost(&usage).unwrap_err();
/// assert!(matches!(error, Unpriced::CachedBeyondInput { .. }));
/// assert_eq!(error.to_string(), "1920 tokens cached or written in an input of 86");
/// assert!(price.cost(&usage.cache_beside()).is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unpriced {
    /// A part has tokens and no price.
    #[non_exhaustive]
    NotListed {
        /// The part.
        part: Part,
        /// Its tokens.
        tokens: u64,
    },
    /// The prompt has fewer tokens than `cache_read` and the cache writes together. To take the
    /// difference as zero would lose the tokens of a provider that counts them
    /// [beside](Usage::cache_beside) the prompt.
    #[non_exhaustive]
    CachedBeyondInput {
        /// The block.
        usage: Usage,
    },
    /// There are more tokens of reasoning than were generated. The provider may count them beside
    /// the output: see [`Usage::reasoning_beside`].
    #[non_exhaustive]
    ReasoningBeyondOutput {
        /// The block.
        usage: Usage,
    },
}

impl fmt::Display for Unpriced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unpriced::NotListed { part, tokens } => {
                write!(f, "no price for {tokens} tokens of {part}")
            }
            Unpriced::CachedBeyondInput { usage } => {
                let parts = [usage.cache_read, usage.cache_write, usage.cache_write_1h];
                let cached: u128 = parts.into_iter().map(u128::from).sum();
                write!(f, "{cached} tokens cached or written in an input of {}", usage.input)
            }
            Unpriced::ReasoningBeyondOutput { usage } => {
                write!(
                    f,
                    "{} tokens of reasoning in an output of {}",
                    usage.reasoning, usage.output
                )
            }
        }
    }
}

impl Error for Unpriced {}
