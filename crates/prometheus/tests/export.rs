//! The feature `metrics`, read from the text that Prometheus reads.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::time::Duration;

use budget_pool::{Amount, Ask, Axis, BudgetPool, Exporter, ManualClock, Usd, Window};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

const TOOL_CALLS: Axis = Axis::custom(2, "tool calls");

/// A scrape: the lines by their series, and the kinds by their metric.
struct Scrape {
    series: BTreeMap<String, String>,
    kinds: BTreeMap<String, String>,
    text: String,
}

impl Scrape {
    fn of(recorder: &PrometheusRecorder) -> Scrape {
        let text = recorder.handle().render();
        let (mut series, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(series.insert(name.to_owned(), value.to_owned()), None, "{name} twice");
            }
        }
        Scrape { series, kinds, text }
    }

    #[track_caller]
    fn shows(&self, all: &[(&str, &str)]) {
        for (name, value) in all {
            let shown = self.series.get(*name).map(String::as_str);
            assert_eq!(shown, Some(*value), "{name} in\n{}", self.text);
        }
    }

    fn has(&self, part: &str) -> bool {
        self.series.keys().any(|name| name.contains(part))
    }
}

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new().build_recorder()
}

fn scrape(recorder: &PrometheusRecorder, exporter: &Exporter) -> Scrape {
    metrics::with_local_recorder(recorder, || exporter.export());
    Scrape::of(recorder)
}

#[test]
fn every_figure_of_a_pool_is_a_series() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .name("acme")
        .tokens(1_000)
        .usd(Usd::from_dollars(10))
        .cap(TOOL_CALLS, 3)
        .deadline(Duration::from_secs(60))
        .clock(clock.clone())
        .build();
    let spend = Amount::new().tokens(200).usd(Usd::from_cents(125)).with(TOOL_CALLS, 1);
    pool.record(spend).unwrap();
    pool.record(Amount::new().tokens(1_001)).unwrap_err();
    pool.debit(Amount::new().tokens(900));
    let ask = || Ask::new(Amount::new().usd(Usd::from_cents(50)));
    pool.reserve(ask()).unwrap().commit_all();
    pool.reserve(ask()).unwrap().release();
    let _expires = pool.reserve(ask().ttl(Duration::from_secs(1))).unwrap();
    clock.advance(Duration::from_millis(1_500));
    let _held = pool.reserve(ask()).unwrap();

    let recorder = recorder();
    let exporter = Exporter::new(&pool);
    metrics::with_local_recorder(&recorder, || exporter.describe());
    let scrape = scrape(&recorder, &exporter);
    scrape.shows(&[
        (r#"budget_pool_tokens{pool="acme",state="used"}"#, "1000"),
        (r#"budget_pool_tokens{pool="acme",state="reserved"}"#, "0"),
        (r#"budget_pool_tokens{pool="acme",state="overage"}"#, "100"),
        (r#"budget_pool_tokens_limit{pool="acme"}"#, "1000"),
        (r#"budget_pool_tokens_spent_total{pool="acme"}"#, "1100"),
        (r#"budget_pool_usd{pool="acme",state="used"}"#, "1.75"),
        (r#"budget_pool_usd{pool="acme",state="reserved"}"#, "0.5"),
        (r#"budget_pool_usd_limit{pool="acme"}"#, "10"),
        (r#"budget_pool_usd_spent_total{pool="acme"}"#, "1.75"),
        (r#"budget_pool_tool_calls{pool="acme",state="used"}"#, "1"),
        (r#"budget_pool_tool_calls_limit{pool="acme"}"#, "3"),
        (r#"budget_pool_tool_calls_spent_total{pool="acme"}"#, "1"),
        (r#"budget_pool_in_flight{pool="acme",state="reserved"}"#, "1"),
        (r#"budget_pool_admissions_total{pool="acme",result="admitted"}"#, "5"),
        (r#"budget_pool_admissions_total{pool="acme",result="refused"}"#, "1"),
        (r#"budget_pool_holds_ended_total{pool="acme",how="committed"}"#, "1"),
        (r#"budget_pool_holds_ended_total{pool="acme",how="released"}"#, "1"),
        (r#"budget_pool_holds_ended_total{pool="acme",how="expired"}"#, "1"),
        (r#"budget_pool_waiting{pool="acme"}"#, "0"),
        (r#"budget_pool_time_left_seconds{pool="acme"}"#, "58.5"),
    ]);
    for absent in ["requests", "input_tokens", "in_flight_limit", "in_flight_spent", "custom"] {
        assert!(!scrape.has(absent), "{absent} in\n{}", scrape.text);
    }
    for (name, kind) in [
        ("budget_pool_tokens", "gauge"),
        ("budget_pool_tokens_spent_total", "counter"),
        ("budget_pool_usd_spent_total", "gauge"),
        ("budget_pool_admissions_total", "counter"),
        ("budget_pool_waiting", "gauge"),
    ] {
        assert_eq!(scrape.kinds[name], kind, "{name}");
        assert!(scrape.text.contains(&format!("# HELP {name} ")), "{name} is described");
    }
    assert!(
        scrape
            .text
            .contains("# HELP budget_pool_tool_calls tool calls: used, reserved and overage")
    );
}

/// Notes the kind of each metric, as it is described and as it is set.
#[derive(Default)]
struct Kinds {
    described: Mutex<BTreeSet<(&'static str, String)>>,
    set: Mutex<BTreeSet<(&'static str, String)>>,
}

impl Kinds {
    fn note(of: &Mutex<BTreeSet<(&'static str, String)>>, kind: &'static str, name: &str) {
        of.lock().unwrap().insert((kind, name.to_owned()));
    }
}

impl Recorder for Kinds {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        Kinds::note(&self.described, "counter", name.as_str());
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        Kinds::note(&self.described, "gauge", name.as_str());
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        Kinds::note(&self.described, "histogram", name.as_str());
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Kinds::note(&self.set, "counter", key.name());
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Kinds::note(&self.set, "gauge", key.name());
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Kinds::note(&self.set, "histogram", key.name());
        Histogram::noop()
    }
}

#[test]
fn a_metric_is_described_as_what_it_is_and_none_that_is_never_set() {
    let capped = Axis::ALL.iter().copied().chain([TOOL_CALLS]);
    let pool = capped.fold(BudgetPool::builder(), |pool, axis| match axis {
        Axis::Deadline => pool.deadline(Duration::from_secs(60)),
        axis => pool.cap(axis, 9),
    });
    let (kinds, exporter) = (Kinds::default(), Exporter::new(&pool.build()));
    metrics::with_local_recorder(&kinds, || exporter.describe());
    metrics::with_local_recorder(&kinds, || exporter.export());
    assert_eq!(kinds.described.into_inner().unwrap(), kinds.set.into_inner().unwrap());
}

#[test]
fn the_debug_text_names_the_pool_and_the_depth() {
    let pool = BudgetPool::builder().name("acme").build();
    let text = format!("{:?}", Exporter::new(&pool).depth(2));
    assert_eq!(text, r#"Exporter { pool: "acme", depth: 2, .. }"#);
}

#[test]
fn pools_below_the_depth_have_no_label_and_are_counted_above() {
    let company = BudgetPool::builder().name("company").tokens(1_000).build();
    let team = company.child().name("team \"a\"\n").tokens(500).build();
    let agent = team.child().name("agent").build();
    agent.record(Amount::new().tokens(7)).unwrap();
    let counts = |depth| {
        let recorder = recorder();
        let scrape = scrape(&recorder, &Exporter::new(&company).depth(depth));
        scrape.shows(&[(r#"budget_pool_tokens{pool="company",state="used"}"#, "7")]);
        let team = r#"budget_pool_tokens{pool="team \"a\"\n",state="used"}"#;
        (scrape.series.get(team).cloned(), scrape.has(r#"pool="agent""#))
    };
    let seven = || Some("7".to_owned());
    assert_eq!(
        [counts(0), counts(1), counts(2)],
        [(None, false), (seven(), false), (seven(), true)]
    );
}

#[test]
fn pools_of_one_name_are_added_up() {
    let company = BudgetPool::builder().name("company").build();
    let agents = [300, 200].map(|cap| company.child().name("agent").tokens(cap).build());
    for agent in &agents {
        agent.record(Amount::new().tokens(50)).unwrap();
    }
    let recorder = recorder();
    scrape(&recorder, &Exporter::new(&company).depth(1)).shows(&[
        (r#"budget_pool_tokens{pool="agent",state="used"}"#, "100"),
        (r#"budget_pool_tokens_limit{pool="agent"}"#, "500"),
        (r#"budget_pool_admissions_total{pool="agent",result="admitted"}"#, "2"),
    ]);
}

#[test]
fn the_gauges_of_a_pool_that_is_gone_fall_to_zero_and_its_counters_stay() {
    let company = BudgetPool::builder().name("company").build();
    let agent = company.child().name("agent").tokens(100).build();
    let hold = agent.reserve(Amount::new().tokens(60)).unwrap();
    agent.record(Amount::new().tokens(40)).unwrap();
    let (recorder, exporter) = (recorder(), Exporter::new(&company).depth(1));
    let used = r#"budget_pool_tokens{pool="agent",state="used"}"#;
    let reserved = r#"budget_pool_tokens{pool="agent",state="reserved"}"#;
    let spent = r#"budget_pool_tokens_spent_total{pool="agent"}"#;
    let cap = r#"budget_pool_tokens_limit{pool="agent"}"#;
    let before = [(used, "40"), (reserved, "60"), (spent, "40"), (cap, "100")];
    scrape(&recorder, &exporter).shows(&before);
    drop((agent, hold));
    let after = [(used, "0"), (reserved, "0"), (spent, "40"), (cap, "0")];
    scrape(&recorder, &exporter).shows(&after);
    // Another one of its name is not taken for it.
    let agent = company.child().name("agent").tokens(10).build();
    agent.record(Amount::new().tokens(5)).unwrap();
    scrape(&recorder, &exporter).shows(&[(used, "5"), (cap, "10"), (spent, "40")]);
    agent.debit(Amount::new().tokens(36));
    scrape(&recorder, &exporter).shows(&[(spent, "41")]);
}

#[test]
fn the_limit_of_a_cap_that_is_gone_falls_to_zero_whoever_has_the_name_by_then() {
    let company = BudgetPool::builder().name("company").build();
    let (recorder, exporter) = (recorder(), Exporter::new(&company).depth(1));
    let agent = company.child().name("agent").tokens(5_000).build();
    agent.record(Amount::new().tokens(10)).unwrap();
    let cap = r#"budget_pool_tokens_limit{pool="agent"}"#;
    scrape(&recorder, &exporter).shows(&[(cap, "5000")]);
    drop(agent);
    // It has spent tokens again, without a cap on them.
    let agent = company.child().name("agent").requests(7).build();
    agent.record(Amount::new().tokens(3)).unwrap();
    scrape(&recorder, &exporter).shows(&[(cap, "0")]);
    drop(agent);
    let agent = company.child().name("agent").tokens(6_000).build();
    scrape(&recorder, &exporter).shows(&[(cap, "6000")]);
    drop(agent);
    let agent = company.child().name("agent").requests(7).build();
    scrape(&recorder, &exporter).shows(&[(cap, "0")]);
    drop(agent);
    scrape(&recorder, &exporter).shows(&[(cap, "0")]);
}

/// The recorder is the user's: one that panics costs that export, and no gauge for ever.
#[test]
fn a_recorder_that_panics_leaves_no_gauge_of_a_pool_that_is_gone() {
    struct Broken;
    impl Recorder for Broken {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            resume_unwind(Box::new("on purpose"))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    let company = BudgetPool::builder().name("company").build();
    let agent = company.child().name("agent").tokens(100).build();
    agent.record(Amount::new().tokens(40)).unwrap();
    let (recorder, exporter) = (recorder(), Exporter::new(&company).depth(1));
    let used = r#"budget_pool_tokens{pool="agent",state="used"}"#;
    scrape(&recorder, &exporter).shows(&[(used, "40")]);
    drop(agent);
    let export = || metrics::with_local_recorder(&Broken, || exporter.export());
    assert!(catch_unwind(AssertUnwindSafe(export)).is_err());
    company.record(Amount::new().tokens(1)).unwrap();
    scrape(&recorder, &exporter).shows(&[(used, "0")]);
    scrape(&recorder, &exporter).shows(&[(used, "0")]);
}

#[test]
fn a_new_period_starts_from_zero_and_what_was_spent_stays() {
    let clock = ManualClock::new();
    let minute = Duration::from_secs(60);
    let pool = BudgetPool::builder()
        .name("minute")
        .requests(5)
        .window(Window::fixed(minute))
        .clock(clock.clone())
        .build();
    let (recorder, exporter) = (recorder(), Exporter::new(&pool));
    pool.record(Amount::new().requests(4)).unwrap();
    let used = r#"budget_pool_requests{pool="minute",state="used"}"#;
    let spent = r#"budget_pool_requests_spent_total{pool="minute"}"#;
    scrape(&recorder, &exporter).shows(&[(used, "4"), (spent, "4")]);
    clock.advance(minute);
    scrape(&recorder, &exporter).shows(&[(used, "0"), (spent, "4")]);
    pool.record(Amount::new().requests(1)).unwrap();
    pool.credit(Amount::new().requests(1));
    scrape(&recorder, &exporter).shows(&[(used, "0"), (spent, "4")]);
}

#[test]
fn a_label_of_the_users_own_never_takes_the_name_of_another_metric() {
    for (label, name) in [
        ("größe", "budget_pool_gr__e"),
        ("tokens", "budget_pool_custom_1"),
        ("tokens limit", "budget_pool_custom_1"),
        ("waiting", "budget_pool_custom_1"),
        ("custom 0", "budget_pool_custom_1"),
        ("jobs", "budget_pool_custom_1"),
        ("JOBS", "budget_pool_JOBS"),
    ] {
        let (first, own) = (Axis::custom(0, "jobs"), Axis::custom(1, label));
        let pool = BudgetPool::builder().name("p").tokens(9).cap(first, 5).cap(own, 7).build();
        let recorder = recorder();
        let scrape = scrape(&recorder, &Exporter::new(&pool));
        let limit = |name: &str| format!("{name}_limit{{pool=\"p\"}}");
        scrape.shows(&[
            (&limit(name), "7"),
            (&limit("budget_pool_tokens"), "9"),
            (&limit("budget_pool_jobs"), "5"),
        ]);
    }
}

#[test]
fn a_name_stays_with_its_axis_whoever_spends_first() {
    let axes = [Axis::custom(0, "a-b"), Axis::custom(1, "a_b"), Axis::custom(2, "a.b")];
    let pool = BudgetPool::builder().name("p").axis(axes[0]).axis(axes[1]).build();
    let (recorder, exporter) = (recorder(), Exporter::new(&pool));
    let names = ["budget_pool_a_b", "budget_pool_custom_1", "budget_pool_custom_2"];
    let spent = names.map(|name| format!("{name}_spent_total{{pool=\"p\"}}"));
    for (spends, told) in [(1, ["", "1", ""]), (0, ["1", "1", ""]), (2, ["1", "1", "1"])] {
        pool.record(Amount::of(axes[spends], 1)).unwrap();
        let scrape = scrape(&recorder, &exporter);
        for (name, told) in spent.iter().zip(told) {
            if told.is_empty() {
                assert!(!scrape.has(name), "{name}");
            } else {
                scrape.shows(&[(name, told)]);
            }
        }
    }
}
