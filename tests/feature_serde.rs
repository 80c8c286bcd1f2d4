//! The feature `serde`: the values as text, and as bytes.

use std::time::Duration;

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Clock, Level, ManualClock, Name, OnDrop,
    Outlook, Usd, Window,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const TOOL_CALLS: Axis = Axis::custom(1, "tool calls");
const MINUTE: Duration = Duration::from_secs(60);

fn text(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn read<T: DeserializeOwned>(json: Value) -> Result<T, String> {
    // By the text: a tree of values has no duplicate fields, and other ways through the visitors.
    let from_tree = serde_json::from_value(json.clone()).map_err(|error| error.to_string());
    let from_text: Result<T, _> = serde_json::from_str(&json.to_string());
    assert_eq!(from_text.is_ok(), from_tree.is_ok(), "{json}");
    from_tree
}

fn refusal<T: DeserializeOwned>(json: Value) -> String {
    read::<T>(json).map(drop).unwrap_err()
}

/// Through JSON, through bytes in the order of the fields, and through bytes with their names.
fn round_trip<T: Serialize + DeserializeOwned>(value: &T) -> [T; 3] {
    let json = serde_json::from_value(text(value)).unwrap();
    let bytes = postcard::from_bytes(&postcard::to_stdvec(value).unwrap()).unwrap();
    let mut named = Vec::new();
    ciborium::into_writer(value, &mut named).unwrap();
    [json, bytes, ciborium::from_reader(&named[..]).unwrap()]
}

#[test]
fn money_is_a_decimal_text_and_no_number() {
    for (usd, shown) in [
        (Usd::ZERO, "0"),
        (Usd::from_cents(1_050), "10.5"),
        (Usd::from_nanos(1), "0.000000001"),
        (Usd::MAX, "18446744073.709551615"),
    ] {
        assert_eq!(text(usd), json!(shown));
        assert_eq!(round_trip(&usd), [usd; 3]);
        assert_eq!(postcard::to_stdvec(&usd), postcard::to_stdvec(&usd.as_nanos()));
    }
    assert_eq!(read(json!("10.00")), Ok(Usd::from_dollars(10)));

    let hint =
        "expected dollars as text, such as \"10.00\": a number is a float to many, and not exact";
    for number in [json!(10), json!(10.5), json!(-1), json!(null)] {
        let told = refusal::<Usd>(number);
        assert!(told.starts_with("invalid type: ") && told.ends_with(hint), "{told}");
    }
    let told = refusal::<Usd>(json!("$10"));
    assert_eq!(told, "an amount of dollars is digits and at most one point: `$10`");
}

#[test]
fn an_amount_names_what_it_named() {
    let amount = Amount::new()
        .input_tokens(1_500)
        .output_tokens(0)
        .requests(1)
        .usd(Usd::from_micros(12_500))
        .in_flight(0)
        .with(TOOL_CALLS, 2);
    assert_eq!(
        text(amount),
        json!({
            "input_tokens": 1500, "output_tokens": 0, "requests": 1, "usd": "0.0125", "in_flight": 0,
            "custom_1": 2
        })
    );
    assert_eq!(round_trip(&amount), [amount; 3]);
    assert_eq!(text(Amount::new()), json!({}));
    assert_eq!(round_trip(&Amount::new()), [Amount::new(); 3]);
}

#[test]
fn an_amount_that_was_read_settles_as_the_one_that_was_written() {
    // The total is not named: it is 400 + 0 as settled, and the output that was held goes back.
    let part = Amount::new().input_tokens(400);
    for total in [part, part.tokens(400), part.output_tokens(0)] {
        let settled = |total| {
            let pool = BudgetPool::unlimited();
            let hold = pool.reserve(Amount::new().input_tokens(500).output_tokens(100)).unwrap();
            hold.commit(total);
            let snapshot = pool.snapshot();
            (snapshot.tokens.used, snapshot.input_tokens.used, snapshot.output_tokens.used)
        };
        for read in round_trip(&total) {
            assert_eq!(settled(read), settled(total), "{total:?}");
        }
    }
    assert_eq!(text(part), json!({"input_tokens": 400}));
}

#[test]
fn caps_are_absent_where_there_is_no_limit() {
    let caps = Caps::new().tokens(1_000_000).usd(Usd::from_dollars(10)).with(TOOL_CALLS, 3);
    assert_eq!(text(caps), json!({"tokens": 1_000_000, "usd": "10", "custom_1": 3}));
    assert_eq!(round_trip(&caps), [caps; 3]);
    assert_eq!(read::<Caps>(json!({})), Ok(Caps::new()));
    let most = Caps::new().tokens(u64::MAX).in_flight(0);
    assert_eq!(round_trip(&most), [most; 3]);
}

#[test]
fn a_tree_keeps_its_own_label_beside_caps_that_were_read() {
    let caps: Caps = read(json!({"custom_1": 3})).unwrap();
    let pool = BudgetPool::builder().caps(caps).axis(TOOL_CALLS).build();
    let refused = pool.record(Amount::of(TOOL_CALLS, 4)).unwrap_err();
    assert!(refused.to_string().starts_with("tool calls of `pool` exceeded"), "{refused}");
    let unlabelled = BudgetPool::builder().caps(caps).build();
    let refused = unlabelled.record(Amount::of(TOOL_CALLS, 4)).unwrap_err();
    assert!(refused.to_string().starts_with("custom 1 of `pool` exceeded"), "{refused}");
}

#[test]
fn what_is_no_amount_is_refused() {
    for (wrong, told) in [
        (json!({"token": 1}), "unknown field `token`, expected one of `tokens`, `input_tokens`"),
        (json!({"deadline": 1}), "unknown field `deadline`, expected one of"),
        (json!({"tool calls": 1}), "unknown field `tool calls`"),
        (json!({"custom_4": 1}), "unknown field `custom_4`"),
        (json!({"tokens": -1}), "invalid value: integer `-1`, expected u64"),
        (json!({"tokens": 1.5}), "invalid type: floating point `1.5`, expected u64"),
        (json!({"tokens": null}), "invalid type: null, expected u64"),
        (json!({"usd": 10}), "invalid type: integer `10`, expected dollars as text"),
        (json!([1]), "expected a map of figures by axis"),
    ] {
        for refusal in [refusal::<Amount>(wrong.clone()), refusal::<Caps>(wrong.clone())] {
            assert!(refusal.contains(told), "{wrong}: {refusal}");
        }
    }
    let twice = serde_json::from_str::<Amount>(r#"{"tokens": 1, "tokens": 2}"#).unwrap_err();
    assert!(twice.to_string().starts_with("duplicate field `tokens`"), "{twice}");
    // Ten counted axes: there is no place 10.
    assert!(postcard::from_bytes::<Amount>(&[1, 10, 0]).is_err());
    assert_eq!(postcard::from_bytes(&[1, 9, 7]), Ok(Amount::of(Axis::custom(3, "the last"), 7)));
}

#[test]
fn an_axis_is_its_name_and_an_own_one_its_index() {
    for &axis in Axis::ALL {
        assert_eq!(text(axis), json!(axis.as_str()));
        assert_eq!(round_trip(&axis), [axis; 3]);
    }
    assert_eq!(text(TOOL_CALLS), json!("custom_1"));
    for axis in round_trip(&TOOL_CALLS) {
        assert_eq!((axis, axis.as_str()), (TOOL_CALLS, "custom 1"));
    }
    assert!(refusal::<Axis>(json!("tool calls")).starts_with("unknown variant `tool calls`"));
    assert!(refusal::<Axis>(json!(1)).contains("invalid type"));
}

#[test]
fn a_window_has_its_kind_and_a_period_with_its_unit() {
    for (window, shown) in [
        (Window::fixed(24 * 60 * MINUTE), json!({"kind": "fixed", "period": "86400s"})),
        (
            Window::fixed(MINUTE).carrying_overage(),
            json!({"kind": "fixed", "period": "60s", "carrying_overage": true}),
        ),
        (
            Window::token_bucket(Duration::from_millis(1_500)),
            json!({"kind": "token_bucket", "period": "1.5s"}),
        ),
        (Window::rolling(MINUTE), json!({"kind": "rolling", "period": "60s"})),
        (
            Window::rolling(Duration::MAX),
            json!({"kind": "rolling", "period": "18446744073709551615.999999999s"}),
        ),
    ] {
        assert_eq!(text(&window), shown);
        assert_eq!(round_trip(&window), [(); 3].map(|()| window.clone()));
    }
    for (period, read_as) in
        [("24h", 24 * 60 * MINUTE), ("90m", 90 * MINUTE), ("7d", 7 * 24 * 60 * MINUTE)]
    {
        for carrying in [json!(false), json!(null)] {
            let json = json!({"period": period, "kind": "fixed", "carrying_overage": carrying});
            assert_eq!(read(json), Ok(Window::fixed(read_as)));
        }
    }
}

#[test]
fn a_window_that_holds_an_instant_cannot_be_written() {
    let now = ManualClock::new().now();
    for (window, told) in [
        (Window::calendar([now]), "a calendar window holds instants: it cannot be serialized"),
        (
            Window::fixed(MINUTE).aligned_to(now),
            "an aligned window holds an instant: it cannot be serialized",
        ),
    ] {
        assert_eq!(serde_json::to_string(&window).unwrap_err().to_string(), told);
        assert!(postcard::to_stdvec(&window).is_err());
    }
}

#[test]
fn what_is_no_window_is_refused() {
    for (wrong, told) in [
        (json!({"kind": "calendar"}), "a calendar window holds instants: make it in the program"),
        (
            json!({"kind": "sliding", "period": "1s"}),
            "unknown variant `sliding`, expected one of `fixed`",
        ),
        (json!({"kind": "fixed"}), "missing field `period`"),
        (json!({"period": "1s"}), "missing field `kind`"),
        (json!({"kind": "fixed", "period": "1s", "start": 1}), "unknown field `start`"),
        (
            json!({"kind": "fixed", "period": 60}),
            "expected a time as text with its unit (ns, us, ms, s, m, h, d)",
        ),
        (
            json!({"kind": "fixed", "period": "60"}),
            "invalid value: string \"60\", expected a time as text",
        ),
        (json!({"kind": "fixed", "period": "0.1ns"}), "a time is a whole number of nanoseconds"),
        (
            json!({"kind": "fixed", "period": "99999999999999999999d"}),
            "a time of more seconds than a u64 counts",
        ),
        (
            json!({"kind": "rolling", "period": "1s", "carrying_overage": true}),
            "a window without turns is not carrying_overage",
        ),
        (json!("fixed"), "expected a window"),
    ] {
        let refusal = refusal::<Window>(wrong.clone());
        assert!(refusal.contains(told), "{wrong}: {refusal}");
    }
    let twice = r#"{"kind": "fixed", "kind": "fixed", "period": "1s"}"#;
    let twice = serde_json::from_str::<Window>(twice).unwrap_err();
    assert!(twice.to_string().starts_with("duplicate field `kind`"), "{twice}");
}

#[test]
fn a_level_is_a_percentage_of_a_cap_or_an_amount() {
    let five = Amount::new().usd(Usd::from_dollars(5)).with(TOOL_CALLS, 2);
    for (level, shown) in [
        (Level::percent(Axis::Usd, 80), json!({"axis": "usd", "percent": 80})),
        (
            Level::percent(TOOL_CALLS, u32::MAX).settled(),
            json!({"axis": "custom_1", "percent": u32::MAX, "settled": true}),
        ),
        (Level::amount(five), json!({"amount": {"usd": "5", "custom_1": 2}})),
        (Level::amount(Amount::new()).settled(), json!({"amount": {}, "settled": true})),
    ] {
        assert_eq!(text(level), shown);
        assert_eq!(round_trip(&level), [level; 3]);
    }
    for json in [
        json!({"settled": false, "percent": 95, "axis": "deadline"}),
        json!({"settled": null, "percent": 95, "axis": "deadline", "amount": null}),
    ] {
        assert_eq!(read(json), Ok(Level::percent(Axis::Deadline, 95)));
    }

    for (wrong, told) in [
        (json!({"percent": 80}), "missing field `axis`"),
        (json!({"percent": 80, "axis": null}), "missing field `axis`"),
        (json!({"axis": "usd"}), "missing field `percent`"),
        (json!({"settled": true}), "missing field `amount`"),
        (
            json!({"axis": "usd", "percent": 80, "amount": {}}),
            "a level is an axis and a percent, or an amount, and not both",
        ),
        (json!({"percent": 80, "amount": {}}), "and not both"),
        (json!({"axis": "money", "percent": 80}), "unknown variant `money`"),
        (json!({"axis": "usd", "percent": -1}), "invalid value: integer `-1`, expected u32"),
        (json!({"axis": "usd", "percent": 0.8}), "invalid type: floating point `0.8`"),
        (json!({"axis": "usd", "percent": 80, "at": 1}), "unknown field `at`"),
        (json!({"amount": {"usd": 5}}), "expected dollars as text"),
        (json!("80 %"), "expected a level"),
    ] {
        let refusal = refusal::<Level>(wrong.clone());
        assert!(refusal.contains(told), "{wrong}: {refusal}");
    }
    let twice = serde_json::from_str::<Level>(r#"{"axis": "usd", "axis": "usd", "percent": 1}"#);
    assert!(twice.unwrap_err().to_string().starts_with("duplicate field `axis`"));
}

#[test]
fn names_and_what_a_drop_does_are_words() {
    let name = Name::from("run-17");
    assert_eq!((text(&name), round_trip(&name)), (json!("run-17"), [(); 3].map(|()| name.clone())));
    for (on_drop, word) in [(OnDrop::Release, "release"), (OnDrop::Commit, "commit")] {
        assert_eq!((text(on_drop), round_trip(&on_drop)), (json!(word), [on_drop; 3]));
    }
    assert!(refusal::<OnDrop>(json!("keep")).starts_with("unknown variant `keep`"));
}

/// Formats write a word as text, as bytes or by its place.
#[test]
fn a_word_is_read_in_each_form_and_what_is_no_word_is_told_which_there_are() {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, MapAccessDeserializer, MapDeserializer, U64Deserializer};

    fn on_drop<'a>(word: impl IntoDeserializer<'a, Error>) -> Result<OnDrop, String> {
        let words = MapDeserializer::<_, Error>::new([(word, ())].into_iter());
        let word = MapAccessDeserializer::new(words);
        serde::Deserialize::deserialize(word).map_err(|error| error.to_string())
    }
    for (place, word, is) in [(0_u64, "release", OnDrop::Release), (1, "commit", OnDrop::Commit)] {
        assert_eq!(on_drop(word), Ok(is));
        assert_eq!(on_drop(word.as_bytes()), Ok(is));
        assert_eq!(on_drop(place), Ok(is));
    }
    assert!(on_drop(&b"keep"[..]).unwrap_err().starts_with("unknown variant `keep`"));
    let expected = "expected one of release, commit";
    assert_eq!(on_drop(2_u64).unwrap_err(), format!("invalid value: integer `2`, {expected}"));
    assert_eq!(on_drop(true).unwrap_err(), format!("invalid type: boolean `true`, {expected}"));
    let alone: U64Deserializer<Error> = 5_u64.into_deserializer();
    let told = <OnDrop as serde::Deserialize>::deserialize(alone).unwrap_err();
    assert_eq!(told.to_string(), format!("invalid type: integer `5`, {expected}"));
}

#[test]
fn a_snapshot_shows_the_balances_and_no_instant() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .name("run")
        .tokens(1_000)
        .cap(TOOL_CALLS, 3)
        .clock(clock.clone())
        .build();
    let child = pool.child().name("agent").build();
    child.record(Amount::new().tokens(200).usd(Usd::from_cents(5)).with(TOOL_CALLS, 1)).unwrap();
    let hold =
        child.reserve(Ask::new(Amount::new().tokens(300)).ttl(MINUTE).label("call")).unwrap();
    pool.pause(MINUTE);

    let tree = text(pool.snapshot_tree());
    let free = json!({"used": 0, "reserved": 0, "overage": 0, "spent": 0, "peak": 0});
    assert_eq!(
        tree[0],
        json!({
            "name": "run", "depth": 0, "closed": false, "paused": true,
            "admitted": 2, "refused": 0, "waiting": 0,
            "reservations": 1, "committed": 0, "released": 0, "expired": 0,
            "tokens": {
                "used": 200, "reserved": 300, "overage": 0, "spent": 200, "peak": 500,
                "cap": 1000, "available": 500
            },
            "input_tokens": free, "output_tokens": free, "requests": free,
            "usd": {"used": "0.05", "reserved": "0", "overage": "0", "spent": "0.05", "peak": "0.05"},
            "in_flight": {"used": 0, "reserved": 1, "overage": 0, "spent": 0, "peak": 1},
            "custom_1": {
                "label": "tool calls",
                "used": 1, "reserved": 0, "overage": 0, "spent": 1, "peak": 1,
                "cap": 3, "available": 2
            }
        })
    );
    assert_eq!((&tree[1]["name"], &tree[1]["depth"]), (&json!("agent"), &json!(1)));
    assert_eq!(tree[1]["tokens"].get("cap"), None);
    assert_eq!(tree.as_array().map(Vec::len), Some(2));

    let usd = child.snapshot().axis(Axis::Usd).unwrap();
    assert_eq!(text(usd), text(child.snapshot().usd));

    clock.advance(Duration::from_millis(1_500));
    assert_eq!(
        text(pool.holders()),
        json!([{
            "pool": "agent", "label": "call", "expires_in": "58.5s",
            "amount": {"tokens": 300}, "on_drop": "release"
        }])
    );
    pool.set_caps(Caps::new().tokens(200)).unwrap();
    assert_eq!(text(pool.snapshot().tokens)["falling_to"], json!(200));
    drop(hold);
}

#[test]
fn a_snapshot_as_bytes_has_every_field() {
    // Fields of bytes have no names: they are as many whatever is unlimited.
    let bytes = |pool: &BudgetPool| postcard::to_stdvec(&pool.snapshot()).unwrap().len();
    let (free, capped) = (BudgetPool::unlimited(), BudgetPool::builder().tokens(7).build());
    // One byte each for the cap and for what is available.
    assert_eq!(bytes(&capped), bytes(&free) + 2);
}

#[test]
fn a_limit_and_a_want_show_what_is_left_and_what_is_missing() {
    let clock = ManualClock::new();
    let window = Window::fixed(MINUTE);
    let day = BudgetPool::builder().name("day").tokens(10).window(window).clock(clock.clone());
    let day = day.build();
    let run = day.child().name("run").usd(Usd::from_dollars(2)).build();
    run.record(Amount::new().tokens(4)).unwrap();
    clock.advance(Duration::from_millis(500));
    let shown = json!([
        {"pool": "run", "axis": "usd", "cap": "2", "free": "2"},
        {
            "pool": "day", "axis": "tokens", "cap": 10, "free": 6,
            "period": "60s", "more_in": "59.5s"
        }
    ]);
    assert_eq!(text(run.limits()), shown);

    let pool = BudgetPool::builder().tokens(10).low(Amount::new().tokens(8)).build();
    let wants = pool.wants();
    pool.record(Amount::new().tokens(4)).unwrap();
    assert_eq!(text(wants.block()), json!({"missing": {"tokens": 2}, "low": true}));
}

#[test]
fn a_receipt_shows_what_was_booked() {
    let pool = BudgetPool::builder().tokens(100).build();
    let receipt = pool.debit(Amount::new().tokens(120));
    assert_eq!(
        text(receipt),
        json!({
            "settled": {"tokens": 120}, "overage": {"tokens": 20}, "credited": {}, "is_late": false
        })
    );
}

#[test]
fn a_refusal_shows_what_its_methods_say() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .name("day")
        .usd(Usd::from_dollars(10))
        .window(Window::fixed(MINUTE))
        .clock(clock.clone())
        .build();
    let dollars = |dollars| Amount::new().usd(Usd::from_dollars(dollars));
    pool.record(dollars(9)).unwrap();
    clock.advance(Duration::from_millis(500));
    let refused = pool.record(dollars(2)).unwrap_err();
    let shown = json!({
        "kind": "exceeded",
        "message": "USD of `day` exceeded: 2 requested, 1 available, cap 10, will fit in 59.5s",
        "pool": "day", "outlook": "at", "axis": "usd",
        "requested": "2", "available": "1", "cap": "10", "retry_after": "59.5s"
    });
    assert_eq!(text(&refused), shown);

    let timeout = pool.reserve_blocking(Ask::new(dollars(2)).wait_at_most(Duration::ZERO));
    let timeout = timeout.unwrap_err();
    let figures = |error: &BudgetError| {
        let error = text(error);
        ["axis", "requested", "available", "cap", "retry_after"].map(|field| error[field].clone())
    };
    assert_eq!(figures(&timeout), figures(&refused), "{timeout}");

    let full = BudgetPool::builder().name("run").tokens(9).build();
    let _held = full.reserve(Amount::new().tokens(8)).unwrap();
    let ask = Ask::new(Amount::new().tokens(2)).wait_at_most(Duration::ZERO);
    let shown = text(full.reserve_blocking(ask).unwrap_err());
    let fields = ["kind", "pool", "outlook", "axis", "requested", "available", "cap"];
    let told = json!(["timeout", "run", "after_release", "tokens", 2, 1, 9]);
    assert_eq!(json!(fields.map(|field| &shown[field])), told);

    pool.close();
    let closed = pool.record(dollars(1)).unwrap_err();
    assert_eq!(
        text(&closed),
        json!({
            "kind": "closed", "message": "`day` is closed", "pool": "day", "outlook": "never"
        })
    );
    assert!(postcard::to_stdvec(&closed).is_ok());
    let now = clock.now();
    let outlooks = [Outlook::At(now), Outlook::AfterRelease, Outlook::AfterFunding, Outlook::Never];
    for outlook in outlooks {
        assert_eq!(text(outlook), json!(outlook.as_str()));
    }
}

#[test]
fn toml_reads_the_same() {
    #[derive(serde::Deserialize)]
    struct File {
        caps: Caps,
        window: Window,
        axes: Vec<Axis>,
    }
    let File { caps, window, axes } = toml::from_str(
        r#"
        caps = { tokens = 90_000, usd = "10.00", custom_1 = 3 }
        window = { kind = "rolling", period = "1.5m" }
        axes = ["usd", "custom_1"]
        "#,
    )
    .unwrap();
    let ten = Caps::new().tokens(90_000).usd(Usd::from_dollars(10)).with(TOOL_CALLS, 3);
    assert_eq!((caps, window), (ten, Window::rolling(Duration::from_secs(90))));
    assert_eq!(axes, [Axis::Usd, TOOL_CALLS]);
}

/// serde keeps what it reads under `flatten` or a tag, and gives it on as text.
#[test]
fn flattened_values_are_read_from_text_formats_alone() {
    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Run {
        name: String,
        #[serde(flatten)]
        caps: Caps,
    }
    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    #[serde(tag = "kind")]
    enum Rate {
        Windowed { window: Window },
    }
    let run = Run { name: "run".to_owned(), caps: Caps::new().tokens(5).usd(Usd::from_cents(1)) };
    let rate = Rate::Windowed { window: Window::fixed(MINUTE) };
    assert_eq!(toml::from_str::<Run>("name = 'run'\ntokens = 5\nusd = '0.01'"), Ok(run));
    assert_eq!(read::<Rate>(text(&rate)), Ok(rate));

    let mut bytes = Vec::new();
    let run: Run = read(json!({"name": "run", "tokens": 5, "usd": "0.01"})).unwrap();
    ciborium::into_writer(&run, &mut bytes).unwrap();
    ciborium::from_reader::<Run, _>(&bytes[..]).unwrap_err();
}
