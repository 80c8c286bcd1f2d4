//! Rates and prices: what is read, what is refused, and the arithmetic beside integers without a
//! bound.

use budget_pool::{Amount, Ask, Axis, BudgetPool, OnDrop, Outlook, Usd};
use budget_pool_llm::{Part, Price, PriceError, Rate, RateError, Unpriced, Usage};
use num_bigint::BigUint;
use proptest::prelude::*;

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

fn rate(text: &str) -> Rate {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn m16_prices_of_price_lists_are_exact_per_million_or_an_error() {
    // bifrost#1306, pi#5634: figures that rounded to 0.037 or to 0 a million.
    assert_eq!(Rate::try_from(0.0000000375).unwrap().to_per_million(), Some(usd("0.0375")));
    assert_eq!(rate("0.0000000375").to_per_million(), Some(usd("0.0375")));
    assert_eq!(rate("1.5e-07").to_per_million(), Some(usd("0.15")));
    // pi#8875: finer than a nano-dollar a million, and all the same exact.
    let fine = Rate::try_from(0.00000008333333333333334).unwrap();
    assert_eq!(fine, rate("8.333333333333334e-08"));
    assert_eq!(
        (fine.to_string().as_str(), fine.to_per_million()),
        ("0.00000008333333333333334", None)
    );
    let price = Price::per_token([(Part::Input, 0.00000008333333333333334)]).unwrap();
    assert_eq!(price.cost(&Usage::new(1_000_000, 0)), Ok(usd("0.083333334")));
    assert_eq!(price.cost(&Usage::new(3_000_000_000_000_000, 0)), Ok(usd("250000000.00000002")));
    for figure in [-1.0, -3.75e-8, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = Price::per_token([(Part::Input, figure)]).unwrap_err();
        assert!(matches!(error, PriceError::Rate { part: Part::Input, .. }), "{figure}: {error}");
    }
}

#[test]
fn a_rate_reads_decimals_and_exponents_and_nothing_else() {
    for (text, as_displayed) in [
        ("0", "0"),
        ("0.0", "0"),
        ("-0", "0"),
        ("-0.0e5", "0"),
        ("0e99999999999999999999999", "0"),
        ("3e-06", "0.000003"),
        ("3E-6", "0.000003"),
        ("30.0e-7", "0.000003"),
        (".5", "0.5"),
        ("5.", "5"),
        ("007", "7"),
        ("1e3", "1000"),
        ("1e+3", "1000"),
        ("0.000000000000000000000000001", "0.000000000000000000000000001"),
        ("1e-27", "0.000000000000000000000000001"),
        ("1000e-30", "0.000000000000000000000000001"),
        ("0.0000000375000000000000000000000000000000000000", "0.0000000375"),
        ("0.1234567890123456789012345", "0.1234567890123456789012345"),
        ("340282366920.938463463374607431768211455", "340282366920.938463463374607431768211455"),
    ] {
        assert_eq!(rate(text).to_string(), as_displayed, "{text}");
    }
    use RateError::{Empty, Negative, NotDecimal, TooLarge, TooPrecise};
    for (text, why) in [
        ("", Empty),
        (".", Empty),
        ("-", Empty),
        ("e5", Empty),
        ("-1", Negative),
        ("-1e-27", Negative),
        ("-x", NotDecimal),
        ("--1", NotDecimal),
        ("+1", NotDecimal),
        ("NaN", NotDecimal),
        ("inf", NotDecimal),
        ("1e", NotDecimal),
        ("1e-", NotDecimal),
        ("1e1e1", NotDecimal),
        ("1e1.5", NotDecimal),
        ("1.2.3", NotDecimal),
        ("1_000", NotDecimal),
        ("1,5", NotDecimal),
        (" 1", NotDecimal),
        ("$1", NotDecimal),
        ("٣", NotDecimal),
        ("1e-28", TooPrecise),
        ("-1e-28", TooPrecise),
        ("1e-99999999999999999999999", TooPrecise),
        ("0.0000000000000000000000000001", TooPrecise),
        ("340282366920.938463463374607431768211456", TooLarge),
        ("1e12", TooLarge),
        ("1e99999999999999999999999", TooLarge),
        ("99999999999999999999999999999999999999999999999", TooLarge),
    ] {
        assert_eq!(text.parse::<Rate>(), Err(why), "{text:?}");
    }
}

#[test]
fn a_float_is_the_shortest_text_that_names_it() {
    for (float, text) in [
        (0.0, "0"),
        (-0.0, "0"),
        (3.75e-8, "3.75e-08"),
        (0.1, "0.1"),
        // A product of floats, as a program that made a list wrote it down.
        (3e-7 * 1.25, "3.75e-07"),
        (0.1 + 0.2, "0.30000000000000004"),
        (8.333333333333334e-8, "8.333333333333334e-08"),
    ] {
        assert_eq!(Rate::try_from(float), Ok(rate(text)), "{float}");
    }
    assert_eq!(Rate::try_from(f64::NAN), Err(RateError::NotFinite));
    assert_eq!(Rate::try_from(f64::INFINITY), Err(RateError::NotFinite));
    assert_eq!(Rate::try_from(-1.0), Err(RateError::Negative));
    assert_eq!(Rate::try_from(f64::MIN_POSITIVE), Err(RateError::TooPrecise));
    assert_eq!(Rate::try_from(1.2345678901234567e-12), Err(RateError::TooPrecise));
    assert_eq!(Rate::try_from(f64::MAX), Err(RateError::TooLarge));
}

#[test]
fn a_part_that_is_not_listed_is_never_free() {
    let price = Price::per_token([(Part::Input, "1e-06"), (Part::CacheRead, "0")]).unwrap();
    let not_listed = |usage: Usage| match price.cost(&usage) {
        Err(Unpriced::NotListed { part, tokens, .. }) => (part, tokens),
        other => panic!("{usage:?}: {other:?}"),
    };
    let none = Usage::default();
    assert_eq!(price.cost(&none), Ok(Usd::ZERO));
    assert_eq!(price.cost(&Usage::new(5, 0).cache_read(5)), Ok(Usd::ZERO));
    assert_eq!(not_listed(Usage::new(0, 7)), (Part::Output, 7));
    assert_eq!(not_listed(Usage::new(0, 7).reasoning(7)), (Part::Reasoning, 7));
    assert_eq!(not_listed(Usage::new(5, 0).cache_write(1)), (Part::CacheWrite, 1));
    assert_eq!(not_listed(Usage::new(5, 0).cache_write_1h(2)), (Part::CacheWrite1h, 2));
    // Nor is a hold for them.
    assert_eq!(price.bound(1, 1), Usd::MAX);
    assert_eq!(price.bound(1, 0), Usd::from_micros(1));
    assert_eq!(price.output_within(1, usd("5")), Some(0));
    let nothing = Price::per_token::<&str>([]).unwrap();
    assert_eq!((nothing.bound(0, 0), nothing.bound(1, 0)), (Usd::ZERO, Usd::MAX));
    assert_eq!(nothing.output_within(1, usd("5")), None);
}

#[test]
fn a_block_that_contradicts_itself_has_no_cost() {
    let price = Price::new(usd("3"), usd("15")).cache_read(usd("0.3")).cache_write(usd("3.75"));
    let cached = Usage::new(9, 0).cache_read(6).cache_write(4);
    assert!(matches!(price.cost(&cached), Err(Unpriced::CachedBeyondInput { .. })));
    assert!(matches!(price.amount(&cached), Err(Unpriced::CachedBeyondInput { .. })));
    let reasoning = Usage::new(0, 9).reasoning(10);
    assert!(matches!(price.cost(&reasoning), Err(Unpriced::ReasoningBeyondOutput { .. })));
    let most = u64::MAX;
    let absurd = cached.cache_read(most).cache_write(most).cache_write_1h(most);
    let text = price.cost(&absurd).unwrap_err().to_string();
    assert_eq!(text, "55340232221128654845 tokens cached or written in an input of 9");
    assert_eq!(absurd.cache_beside().input, u64::MAX);
}

#[test]
fn of_several_tiers_the_highest_below_the_input_applies_alone() {
    let tier = |input: &str| Price::per_token([(Part::Input, input)]).unwrap();
    let price = Price::new(usd("1"), usd("4"))
        .above(200, tier("3e-06").cache_read(usd("0.5")))
        .above(100, tier("2e-06").reasoning(usd("8")));
    let input = |n| price.rate(Part::Input, n).unwrap().to_per_million().unwrap();
    assert_eq!([0, 100, 101, 200, 201].map(input), ["1", "1", "2", "2", "3"].map(usd));
    // The tier at 100 has no part in what is above 200.
    let reasoning = |n| price.rate(Part::Reasoning, n).unwrap().to_per_million().unwrap();
    assert_eq!([100, 200, 201].map(reasoning), ["4", "8", "4"].map(usd));
    assert_eq!(price.rate(Part::CacheRead, 200), None);
    assert_eq!(price.rate(Part::CacheRead, 201), Some(rate("5e-07")));
    // The bound is by the dearest, though the highest applies.
    assert_eq!(price.bound(201, 1_000), Usd::from_nanos(2 * 201_000 + 8 * 1_000_000));
    assert_eq!(price.cost(&Usage::new(201, 1_000)), Ok(Usd::from_nanos(3 * 201_000 + 4_000_000)));
}

#[test]
fn tiers_of_a_tier_stand_over_it_and_the_same_threshold_is_replaced() {
    let tier = |input: &str| Price::per_token([(Part::Input, input)]).unwrap();
    let nested = Price::new(usd("1"), usd("4")).above(
        100,
        tier("2e-06").cache_read(usd("0.5")).above(200, tier("3e-06")).above(50, tier("9e-06")),
    );
    let flat = Price::new(usd("1"), usd("4"))
        .above(100, tier("9e-06").cache_read(usd("0.5")))
        .above(200, tier("3e-06").cache_read(usd("0.5")));
    assert_eq!(nested, flat);
    assert_eq!(flat.clone().above(200, tier("5e-06")).rate(Part::Input, 201), Some(rate("5e-06")));
}

#[test]
fn sums_beyond_all_money_are_all_the_money() {
    let dearest =
        Price::per_token([(Part::Input, "340282366920"), (Part::Output, "3e11")]).unwrap();
    assert_eq!(dearest.cost(&Usage::new(u64::MAX, u64::MAX)), Ok(Usd::MAX));
    assert_eq!(dearest.cost(&Usage::new(1, 1)), Ok(Usd::MAX));
    assert_eq!(dearest.bound(u64::MAX, u64::MAX), Usd::MAX);
    assert_eq!(dearest.output_within(0, Usd::MAX), Some(u64::MAX));
    assert_eq!(dearest.output_within(0, Usd::from_nanos(u64::MAX - 1)), Some(0));
    assert_eq!(dearest.output_within(1, Usd::from_nanos(u64::MAX - 1)), None);
    let free = Price::new(Usd::ZERO, Usd::ZERO);
    assert_eq!(free.output_within(u64::MAX, Usd::ZERO), Some(u64::MAX));
    let usage = Usage::new(u64::MAX, u64::MAX);
    assert_eq!(free.amount(&usage).unwrap().units(Axis::Tokens), u64::MAX);
}

#[test]
fn s2_tokens_that_the_provider_does_not_count_are_left_out_of_its_axis_not_of_the_money() {
    const COUNTED: Axis = Axis::custom(0, "counted tokens");
    let price = Price::new(usd("3"), usd("15")).cache_read(usd("0.3"));
    let minute = BudgetPool::builder().cap(COUNTED, 10_000).usd(usd("1")).build();
    let usage = Usage::new(10_000, 0).cache_read(8_000);
    let call = price.amount(&usage).unwrap().with(COUNTED, usage.uncached().unwrap());
    let admitted = (0..10).take_while(|_| minute.record(call).is_ok()).count();
    assert_eq!(admitted, 5);
    assert_eq!(minute.snapshot().usd.used, price.cost(&usage).unwrap() * 5);
}

#[test]
fn s5_what_the_money_pays_is_the_max_tokens_of_the_call() {
    // "requested 64,000 output tokens, can only afford 29,891"
    let (price, input) = (Price::new(usd("3"), usd("15")), 1_000);
    let pool = BudgetPool::builder().usd(usd("0.451365")).build();
    let left = pool.snapshot().usd.available.unwrap();
    let max_tokens = price.output_within(input, left).unwrap().min(64_000);
    assert_eq!(max_tokens, 29_891);
    let hold = |output| pool.reserve(Amount::new().usd(price.bound(input, output)));
    assert!(hold(max_tokens + 1).is_err());
    assert!(hold(max_tokens).is_ok());
}

#[test]
fn errors_are_one_lowercase_line() {
    let rate_errors = [
        (RateError::Empty, "no digits in a price"),
        (RateError::NotDecimal, "a price is digits, at most one point and an exponent"),
        (RateError::NotFinite, "a price is finite"),
        (RateError::Negative, "a price is not negative"),
        (RateError::TooPrecise, "a price has at most 27 decimals of a dollar a token"),
        (RateError::TooLarge, "a price is at most 340282366920 dollars a token"),
    ];
    for (error, text) in rate_errors {
        assert_eq!(error.to_string(), text);
    }
    let price_error = |parts: &[(Part, &'static str)]| {
        Price::per_token(parts.iter().copied()).unwrap_err().to_string()
    };
    assert_eq!(
        price_error(&[(Part::CacheRead, "-1")]),
        "price of cache_read: a price is not negative"
    );
    let twice = [(Part::Output, "1"), (Part::Output, "1")];
    assert_eq!(price_error(&twice), "price of output: given twice");
    let unpriced = |usage| Price::new(usd("1"), usd("1")).cost(&usage).unwrap_err().to_string();
    let usage = Usage::new(9, 0).cache_read(5);
    assert_eq!(unpriced(usage), "no price for 5 tokens of cache_read");
    let usage = Usage::new(1, 0).cache_read(5);
    assert_eq!(unpriced(usage), "5 tokens cached or written in an input of 1");
    let usage = Usage::new(0, 1).reasoning(2);
    assert_eq!(unpriced(usage), "2 tokens of reasoning in an output of 1");
}

#[test]
fn texts_of_parts_and_rates_are_padded() {
    let names: Vec<_> = Part::ALL.iter().map(|part| part.as_str()).collect();
    let fields = ["input", "cache_read", "cache_write", "cache_write_1h", "output", "reasoning"];
    assert_eq!(names, fields);
    assert_eq!(format!("[{:>8}|{:<8}]", Part::Input, Part::Output), "[   input|output  ]");
    assert_eq!(format!("[{:>6}]", rate("0.5")), "[   0.5]");
    assert_eq!(format!("{:?}", rate("3e-06")), "Rate(0.000003)");
}

#[test]
fn a_precision_rounds_a_rate_and_cuts_no_digit_before_the_point() {
    let most = "340282366920.938463463374607431768211455";
    for (text, whole, cents, longer) in [
        ("0", "0", "0.00", format!("0.{:0<30}", "")),
        ("100.5", "101", "100.50", format!("100.5{:0<29}", "")),
        ("12345", "12345", "12345.00", format!("12345.{:0<30}", "")),
        ("0.004999999999999999999999999", "0", "0.00", "0.004999999999999999999999999000".into()),
        ("0.005", "0", "0.01", format!("0.005{:0<27}", "")),
        ("9.995", "10", "10.00", format!("9.995{:0<27}", "")),
        ("1e-27", "0", "0.00", "0.000000000000000000000000001000".into()),
        (most, "340282366921", "340282366920.94", format!("{most}000")),
    ] {
        let rate = rate(text);
        assert_eq!(format!("{rate:.0}|{rate:.2}|{rate:.30}"), format!("{whole}|{cents}|{longer}"));
    }
    let rate = rate("1.5");
    assert_eq!(
        format!("[{rate:6}|{rate:<6}|{rate:^7}|{rate:6.1}|{rate:*<6.2}|{rate:08.3}|{rate:+}]"),
        "[   1.5|1.5   |  1.5  |   1.5|1.50**|0001.500|+1.5]"
    );
    // A precision of the outer text is none of the rate's.
    assert_eq!(format!("{rate:.0?}"), "Rate(1.5)");
}

/// A figure of a price list: digits and how many of them are decimals.
#[derive(Clone, Copy, Debug)]
struct Figure {
    digits: u64,
    decimals: u32,
    has_exponent: bool,
}

impl Figure {
    fn any() -> impl Strategy<Value = Figure> {
        let digits = prop_oneof![0..1_000_u64, 0..10_u64.pow(17), any::<u64>()];
        (digits, 8..=27_u32, any::<bool>()).prop_map(|(digits, decimals, has_exponent)| Figure {
            digits,
            decimals,
            has_exponent,
        })
    }

    fn text(self) -> String {
        let Figure { digits, decimals, .. } = self;
        if self.has_exponent {
            return format!("{digits}e-{decimals}");
        }
        let padded = format!("{digits:0>width$}", width = decimals as usize + 1);
        let (whole, fraction) = padded.split_at(padded.len() - decimals as usize);
        format!("{whole}.{fraction}")
    }

    /// In 1e-30 dollars a token.
    fn value(self) -> BigUint {
        BigUint::from(self.digits) * BigUint::from(10_u8).pow(30 - self.decimals)
    }
}

/// An entry of a price list, as it stands there.
type Entry = [Option<Figure>; 6];

fn entry() -> impl Strategy<Value = Entry> {
    prop::array::uniform6(prop::option::weighted(0.8, Figure::any()))
}

fn listed(entry: &Entry) -> Price {
    let texts: Vec<_> = Part::ALL
        .iter()
        .zip(entry)
        .filter_map(|(part, figure)| Some((*part, (*figure)?.text())))
        .collect();
    Price::per_token(texts.iter().map(|(part, text)| (*part, text.as_str()))).unwrap()
}

#[derive(Clone, Debug)]
struct List {
    base: Entry,
    tiers: Vec<(u64, Entry)>,
}

impl List {
    fn any() -> impl Strategy<Value = List> {
        let tiers = prop::collection::vec((0..2_000_u64, entry()), 0..4);
        (entry(), tiers).prop_map(|(base, mut tiers)| {
            tiers.sort_by_key(|(above, _)| *above);
            tiers.dedup_by_key(|(above, _)| *above);
            List { base, tiers }
        })
    }

    fn price(&self) -> Price {
        self.tiers
            .iter()
            .fold(listed(&self.base), |price, (above, tier)| price.above(*above, listed(tier)))
    }

    /// The nano-dollars of a call by the rules as they stand in the documentation.
    fn slowly(&self, usage: &Usage) -> Option<BigUint> {
        let tier = self
            .tiers
            .iter()
            .filter(|(above, _)| usage.input > *above)
            .max_by_key(|(above, _)| *above);
        let figure = |part: usize| tier.and_then(|(_, entry)| entry[part]).or(self.base[part]);
        let cached = usage.cache_read + usage.cache_write + usage.cache_write_1h;
        let tokens = [
            usage.input.checked_sub(cached)?,
            usage.cache_read,
            usage.cache_write,
            usage.cache_write_1h,
            usage.output.checked_sub(usage.reasoning)?,
            usage.reasoning,
        ];
        let mut sum = BigUint::default();
        for (part, tokens) in tokens.into_iter().enumerate() {
            let own = figure(part);
            let figure = if part == 5 { own.or(figure(4)) } else { own };
            if tokens > 0 {
                sum += figure?.value() * tokens;
            }
        }
        let nano = BigUint::from(10_u8).pow(21);
        Some((sum + &nano - 1_u8) / nano)
    }
}

fn usage() -> impl Strategy<Value = Usage> {
    let tokens = || prop_oneof![Just(0), 0..3_000_u64, 0..1_u64 << 40];
    let parts = (tokens(), tokens(), tokens(), tokens(), tokens(), tokens());
    // Now and then the whole is less than its parts.
    (parts, 0..20_u64).prop_map(|((input, read, write, hour, output, reasoning), short)| {
        let usage = Usage::new(input, output)
            .cache_read(read)
            .cache_write(write)
            .cache_write_1h(hour)
            .reasoning(reasoning);
        if short == 0 { usage } else { usage.cache_beside().reasoning_beside() }
    })
}

proptest! {
    // A failure prints its whole case.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cost_is_that_of_integers_without_a_bound(list in List::any(), usage in usage()) {
        let cost = list.price().cost(&usage).ok().map(|cost| BigUint::from(cost.as_nanos()));
        let slowly = list.slowly(&usage).map(|nanos| nanos.min(BigUint::from(u64::MAX)));
        prop_assert_eq!(cost, slowly);
    }

    #[test]
    fn what_the_money_pays_is_the_inverse_of_the_bound(
        list in List::any(),
        input in prop_oneof![0..3_000_u64, any::<u64>()],
        output in prop_oneof![0..3_000_u64, any::<u64>()],
        beside in 0..3_u64,
        nanos: u64,
    ) {
        let price = list.price();
        let bound = price.bound(input, output).as_nanos();
        for nanos in [nanos, bound.saturating_add(1).saturating_sub(beside)] {
            let money = Usd::from_nanos(nanos);
            match price.output_within(input, money) {
                None => prop_assert!(price.bound(input, 0) > money),
                Some(most) => {
                    prop_assert!(price.bound(input, most) <= money, "{most} costs more than {money}");
                    let more = most.checked_add(1).map(|more| price.bound(input, more));
                    prop_assert!(more.is_none_or(|more| more > money), "{money} pays more than {most}");
                }
            }
        }
    }

    #[test]
    fn no_uncached_call_costs_more_than_its_bound(
        list in List::any(),
        input in 0..3_000_u64,
        output in 0..3_000_u64,
        shares in prop::array::uniform3(0..=100_u64),
    ) {
        let price = list.price();
        let output_of = output * shares[1] / 100;
        let usage = Usage::new(input * shares[0] / 100, output_of).reasoning(output_of * shares[2] / 100);
        if let Ok(cost) = price.cost(&usage) {
            prop_assert!(cost <= price.bound(input, output));
        }
    }

    #[test]
    fn a_rate_reads_back_as_it_is_displayed(figure in Figure::any(), nanos: u64, float: f64, decimals in 0_usize..9) {
        let read = rate(&figure.text());
        prop_assert_eq!(rate(&read.to_string()), read);
        prop_assert_eq!(rate(&format!("{read:.27}")), read);
        let per_million = Rate::per_million(Usd::from_nanos(nanos));
        prop_assert_eq!(rate(&per_million.to_string()), per_million);
        prop_assert_eq!(per_million.to_per_million(), Some(Usd::from_nanos(nanos)));
        // Money rounds alike.
        let dollars = Usd::from_nanos(nanos);
        let each = rate(&dollars.to_string());
        prop_assert_eq!(format!("{each:.decimals$}"), format!("{dollars:.decimals$}"));
        for float in [float, figure.text().parse().unwrap()] {
            if let Ok(read) = Rate::try_from(float) {
                // The text is that of the float, and of no other.
                prop_assert_eq!(read.to_string().parse(), Ok(float));
                prop_assert_eq!(format!("{float:e}").parse(), Ok(read));
            }
        }
    }

    #[test]
    fn any_text_is_a_rate_or_an_error(text in "[-+.eE0-9 _NaN]{0,40}") {
        if let Ok(read) = text.parse::<Rate>() {
            let float: f64 = text.parse().unwrap();
            let back: f64 = read.to_string().parse().unwrap();
            prop_assert_eq!(back.abs(), float.abs());
        }
    }
}

#[test]
fn an_ask_holds_the_most_that_a_call_can_cost_and_commits_on_drop() {
    let dear = Price::new(usd("6"), usd("20"));
    let price = Price::new(usd("3"), usd("15")).above(200, dear);
    for (input, max_output) in [(0, 0), (200, 50), (201, 50), (7, u64::MAX)] {
        let most = Amount::new()
            .requests(1)
            .input_tokens(input)
            .output_tokens(max_output)
            .usd(price.bound(input, max_output));
        let ask = price.ask(input, max_output);
        assert_eq!(ask.amount(), most);
        assert_eq!(ask, Ask::new(most).on_drop(OnDrop::Commit));
    }

    // Whatever the pool says.
    let pool = BudgetPool::builder().on_drop(OnDrop::Release).build();
    drop(pool.reserve(price.ask(201, 50)).unwrap());
    let used = pool.snapshot();
    assert_eq!((used.usd.used, used.requests.used), (price.bound(201, 50), 1));
    assert_eq!((used.tokens.used, used.output_tokens.used, used.in_flight.reserved), (251, 50, 0));

    // A usage within the bound gives the rest back.
    let hold = pool.reserve(price.ask(201, 50)).unwrap();
    hold.commit(price.amount(&Usage::new(201, 20)).unwrap());
    let spent = price.bound(201, 50) + price.cost(&Usage::new(201, 20)).unwrap();
    assert_eq!((pool.snapshot().usd.used, pool.snapshot().usd.reserved), (spent, Usd::ZERO));
}

#[test]
fn an_ask_of_tokens_without_a_price_fits_under_no_cap_of_money() {
    let price = Price::per_token([(Part::Input, "3e-06")]).unwrap();
    let pool = BudgetPool::builder().usd(Usd::from_dollars(1_000_000)).build();
    let refused = pool.reserve(price.ask(10, 1)).unwrap_err();
    assert_eq!((refused.axis(), refused.outlook()), (Some(Axis::Usd), Outlook::Never));
    assert!(pool.reserve(price.ask(10, 0)).is_ok());
}
