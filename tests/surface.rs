//! The public surface: each method is exercised, and each type is what a user may expect of it.
//!
//! `data/surface.txt` is the record of the surface: `.ci/surface` writes it by the compiler, and the
//! gate compares both. `data/exercised.txt` names for each method an operation of the one language,
//! or `look` if all steps compare it, or a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;

use budget_pool::*;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(file: &str) -> String {
    let path = Path::new(ROOT).join(file);
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.replace("\r\n", "\n")
}

/// The sources below a folder, if it is there.
fn sources(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut texts = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            texts.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(&path).unwrap().replace("\r\n", "\n"));
        }
    }
    texts
}

/// One line of a record: what it is called, what it is, and what is said of it.
struct Line<'a> {
    name: &'a str,
    kind: &'a str,
    more: Vec<&'a str>,
}

fn lines(record: &str) -> Vec<Line<'_>> {
    let line = |line| {
        let mut words = str::split_whitespace(line);
        let name = words.next().expect("a name");
        Line { name, kind: words.next().expect("a kind"), more: words.collect() }
    };
    record.lines().map(line).collect()
}

/// Whether a source has a call of a method, a path to it, or a method of that name of its own.
fn mentions(source: &str, method: &str) -> bool {
    let is_whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let follows = |before: &str| {
        source.split(before).skip(1).any(|rest| rest.strip_prefix(method).is_some_and(is_whole))
    };
    [".", "::", "fn "].into_iter().any(follows)
}

/// The tests of a formatted source, each with its lines, and all that is no test. Beside tests in a
/// file of the library that is not the library itself, which mentions all of its methods.
fn tests_of(source: &str) -> (BTreeMap<&str, String>, String) {
    let source =
        source.split_once("#[cfg(test)]\nmod tests {\n").map_or(source, |(_, tests)| tests);
    let (mut tests, mut others) = (BTreeMap::new(), String::new());
    let (mut is_test, mut is_ignored) = (false, false);
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        is_test |= code.starts_with("#[test]") || code.starts_with("#[tokio::test");
        is_ignored |= code.starts_with("#[ignore");
        let name = code.strip_prefix("fn ").or_else(|| code.strip_prefix("async fn "));
        let Some(name) = name.filter(|_| is_test) else {
            others += line;
            others.push('\n');
            continue;
        };
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let body = lines
            .by_ref()
            .take_while(|line| *line != end)
            .fold(String::new(), |all, line| all + line + "\n");
        if !is_ignored {
            tests.insert(name.split('(').next().expect("a name"), body);
        }
        (is_test, is_ignored) = (false, false);
    }
    (tests, others)
}

#[test]
fn a_mention_is_of_the_whole_name() {
    assert!(mentions("pool.record(amount)", "record"));
    assert!(mentions("all.map(Reservation::amount)", "amount"));
    assert!(mentions("fn dropped(&self)", "dropped"));
    assert!(!mentions("pool.record_once(key)", "record") && !mentions("a record(1)", "record"));
    let source =
        "fn help() {}\n\n#[test]\nfn one() {\n    a.b();\n}\n#[test]\n#[ignore]\nfn two() {\n}\n";
    let (tests, others) = tests_of(source);
    assert_eq!(tests, BTreeMap::from([("one", "    a.b();\n".to_owned())]));
    assert!(others.contains("fn help()") && !others.contains("a.b()"));
    let (_, others) = tests_of("fn c() {}\n\n#[cfg(test)]\nmod tests {\n    fn help() {}\n}\n");
    assert!(others.contains("fn help()") && !others.contains("fn c()"));
}

/// A method that nothing exercises is found here, and so is a line for a method that is gone.
#[test]
fn each_public_method_is_an_operation_or_has_a_test() {
    let (record, table) = (text("tests/data/surface.txt"), text("tests/data/exercised.txt"));
    let methods: BTreeSet<&str> =
        lines(&record).iter().filter(|line| line.kind == "fn").map(|line| line.name).collect();
    assert!(methods.len() > 200, "only {} methods are recorded", methods.len());
    let table = lines(&table);
    let named: BTreeSet<&str> = table.iter().map(|line| line.name).collect();
    assert_eq!(named.len(), table.len(), "a method has two lines");
    let missing: Vec<_> = methods.difference(&named).collect();
    let gone: Vec<_> = named.difference(&methods).collect();
    assert!(missing.is_empty(), "not exercised: {missing:?}");
    assert!(gone.is_empty(), "no methods any more: {gone:?}");

    let language = text("tests/support/language.rs");
    let operations: BTreeSet<&str> = language
        .lines()
        .skip_while(|line| !line.starts_with("pub enum Op {"))
        .take_while(|line| *line != "}")
        .filter_map(|line| line.strip_prefix("    "))
        .filter_map(|line| line.split([' ', ',']).next())
        .collect();
    let support = sources(&Path::new(ROOT).join("tests/support")).concat();
    let looks = text("tests/support/checks.rs");
    let folders = ["tests", "src", "crates/prometheus/tests"];
    let all: Vec<String> =
        folders.iter().flat_map(|folder| sources(&Path::new(ROOT).join(folder))).collect();
    let all: Vec<_> = all.iter().map(|source| tests_of(source)).collect();
    // A package has no packages beside it.
    let has_others = Path::new(ROOT).join("crates").exists();
    for Line { name, kind, more } in table {
        let method = name.rsplit("::").next().expect("a name");
        match (kind, &*more) {
            ("op", [operation]) => {
                assert!(operations.contains(operation), "{name}: no operation {operation}");
                assert!(mentions(&support, method), "{name}: {operation} does not call it");
            }
            ("look", []) => assert!(mentions(&looks, method), "{name}: nothing looks at it"),
            ("test", [test]) => {
                let mut found = all.iter().filter(|(tests, _)| tests.contains_key(test)).peekable();
                let is_left_out = name.starts_with("Exporter::") && !has_others;
                assert!(is_left_out || found.peek().is_some(), "{name}: no test {test}");
                let is_exercised =
                    found.any(|(tests, others)| mentions(&(tests[test].clone() + others), method));
                assert!(is_left_out || is_exercised, "{name}: {test} does not mention it");
            }
            _ => panic!("{name}: an operation, a look or a test, and no {kind:?} {more:?}"),
        }
    }
}

fn shared<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}

macro_rules! all_are {
    ($check:ident: $($type:ty),* $(,)?) => {
        [$({ $check::<$type>(); stringify!($type) }),*]
    };
}

/// A public type that is not on the list is found by the record.
#[test]
fn each_public_type_can_be_shared_moved_and_unwound_through() {
    #[allow(unused_mut, reason = "without the features nothing is added")]
    let mut listed = Vec::from(all_are!(
        shared: Amount, Ask, Axis, AxisSnapshot<Usd>, BudgetError, BudgetExceeded, BudgetPool,
        Call<'static>, Caps, Carved, Child, Closed, CommitRefused, CustomAxis, DeadlineBudget,
        DeadlineBuilder, DeadlineExceeded, Holder, InvalidDeadline, Joint, Keyed<String>, Lease,
        Level, Limit, ManualClock, MergeRefused, Name, OnDrop, Once, Outlook, ParseAxisError,
        ParseGrpcTimeoutError, ParseUsdError, PoolBuilder<Root>, PoolDeadline, Quantity,
        QuantityIter, Reached, Receipt, RecordWait, Reservation, Root, Snapshot, SystemClock,
        TreeSnapshot, TryFromF64Error, Usd, Wait, Want, Wants, WeakPool, Window,
    ));
    #[cfg(feature = "metrics")]
    listed.extend(all_are!(shared: Exporter));
    #[cfg(feature = "tracing")]
    listed.extend(all_are!(shared: TracingObserver));
    let name = |listed: &'static str| listed.split(['<', ' ']).next().expect("a name");
    let listed: BTreeSet<&str> = listed.into_iter().map(name).collect();
    let record = text("tests/data/surface.txt");
    let is_off = |name: &str| {
        (name == "Exporter" && cfg!(not(feature = "metrics")))
            || (name == "TracingObserver" && cfg!(not(feature = "tracing")))
    };
    let types = lines(&record).into_iter().filter(|line| ["struct", "enum"].contains(&line.kind));
    let types: BTreeSet<&str> = types.map(|line| line.name).filter(|name| !is_off(name)).collect();
    assert_eq!(listed, types);
}

/// The records of the core and, where they are, of the packages beside it.
fn records() -> Vec<(String, String)> {
    let mut files = vec!["tests/data/surface.txt".to_owned()];
    for name in ["budget-pool-llm", "budget-pool-tower", "budget-pool-redis"] {
        let folder = format!("crates/{name}");
        if Path::new(ROOT).join(&folder).exists() {
            files.push(format!("{folder}/tests/data/surface.txt"));
        }
    }
    files.into_iter().map(|file| (text(&file), file)).collect()
}

/// What is public can grow without breaking anybody: an enum and a struct of public fields are
/// marked so, and the variants of several fields, too.
#[test]
fn what_is_public_can_grow() {
    // Each is one of two, as its name says.
    const WHOLE: [&str; 2] = ["OnDrop", "Once"];
    // Users write these out. They have the arguments of commands of the server.
    const WRITTEN: [&str; 2] = ["Confirm::Aof", "Confirm::Replicas"];
    for (record, file) in records() {
        let lines = lines(&record);
        let has_fields = |name: &str| {
            let of_type = |line: &Line<'_>| {
                line.kind == "field"
                    && line.name.rsplit_once("::").is_some_and(|(of, _)| of == name)
            };
            lines.iter().any(of_type)
        };
        for Line { name, kind, more } in &lines {
            let grows = match *kind {
                "enum" => WHOLE.contains(name),
                "struct" => !has_fields(name),
                kind => kind != "variant:struct" || WRITTEN.contains(name),
            };
            assert!(grows || more.contains(&"non_exhaustive"), "{file}: {name} cannot grow");
        }
    }
}

#[test]
fn common_traits_are_there() {
    for (record, file) in records() {
        for Line { name, kind, more } in lines(&record) {
            if !["struct", "enum"].contains(&kind) {
                continue;
            }
            let has = |of_trait: &str| more.contains(&of_trait);
            assert!(has("Debug"), "{file}: {name} is not Debug");
            assert!(has("Send") && has("Sync") && has("Unpin"), "{file}: {name} cannot be shared");
            assert!(!has("Error") || has("Display"), "{file}: {name} has no text");
            assert!(!has("PartialEq") || has("Eq"), "{file}: {name} is not Eq");
            assert!(!has("PartialEq") || has("Clone"), "{file}: {name} is a value without Clone");
            assert!(!has("Eq") || has("Hash"), "{file}: {name} is not Hash");
        }
    }
}
