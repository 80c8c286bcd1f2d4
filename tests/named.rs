//! The docs against the tests. A sentence that promises something has, beside it, the names of tests that would fail if
//! it were not true: `// Tests: tests/time.rs ttl::one, ttl::another; src/usd.rs tests::third` (in the README as a
//! comment of its own kind). Here it is asked whether those exist, and whether what promises names any.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use budget_pool::{Amount, BudgetPool, Usd};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(file: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    // As git may check it out on Windows.
    text.replace("\r\n", "\n")
}

/// The files of a folder, `folder/name.rs`.
fn sources(folder: &str) -> Vec<String> {
    let names = fs::read_dir(Path::new(ROOT).join(folder)).unwrap().map(|file| file.unwrap().file_name());
    let names = names.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".rs"));
    let mut files: Vec<_> = names.map(|name| format!("{folder}/{name}")).collect();
    files.sort_unstable();
    files
}

/// The name after a keyword, if the line begins with that.
fn named_by<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(keyword)?;
    Some(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

/// The test functions of a formatted source, with the modules around them; and whether each is ignored.
fn tests_of(source: &str) -> BTreeMap<String, bool> {
    let mut tests = BTreeMap::new();
    let mut modules: Vec<(usize, &str)> = Vec::new();
    let (mut is_test, mut is_ignored) = (false, false);
    for line in source.lines() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        if !code.is_empty() {
            modules.retain(|(around, _)| *around < indent);
        }
        if let Some(module) = named_by(code, "mod ").filter(|_| code.ends_with('{')) {
            modules.push((indent, module));
        }
        is_test |= code.starts_with("#[test]") || code.starts_with("#[tokio::test");
        is_ignored |= code.starts_with("#[ignore");
        if let Some(name) = named_by(code, "fn ").or_else(|| named_by(code, "async fn ")) {
            if is_test {
                let around = modules.iter().map(|(_, module)| format!("{module}::")).collect::<String>();
                tests.insert(around + name, is_ignored);
            }
            (is_test, is_ignored) = (false, false);
        }
    }
    tests
}

/// What a source says of its tests: the number of the first line, and `file name, name; file name`.
fn mentions(source: &str) -> Vec<(usize, String)> {
    let mut mentions: Vec<(usize, String)> = Vec::new();
    let mut goes_on = None;
    for (number, line) in source.lines().enumerate() {
        let code = line.trim();
        let (begins, comment) = match code.split_once("Tests: ") {
            Some(("// " | "<!-- ", names)) => (true, names),
            _ => (false, code.strip_prefix("// ").unwrap_or(code)),
        };
        if begins {
            mentions.push((number + 1, String::new()));
            goes_on = Some(code.starts_with("<!-- "));
        } else if goes_on == Some(false) && !code.starts_with("// ") {
            goes_on = None;
        }
        if let (Some(is_html), Some((_, names))) = (goes_on, mentions.last_mut()) {
            *names += comment.trim_end_matches("-->").trim();
            *names += " ";
            if is_html && comment.ends_with("-->") {
                goes_on = None;
            }
        }
    }
    mentions
}

fn documents() -> Vec<String> {
    sources("src").into_iter().chain(["README.md".to_owned()]).collect()
}

#[test]
fn every_test_that_is_named_exists_and_is_run() {
    let mut known: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    let (mut faults, mut count) = (Vec::new(), 0);
    for document in documents() {
        for (line, names) in mentions(&text(&document)) {
            for of_one_file in names.split(';') {
                let Some((file, names)) = of_one_file.trim().split_once(' ') else {
                    faults.push(format!("{document}:{line}: `{of_one_file}` names no test"));
                    continue;
                };
                let tests = known.entry(file.to_owned()).or_insert_with(|| tests_of(&text(file)));
                for name in names.split(',').map(str::trim) {
                    count += 1;
                    match tests.get(name) {
                        Some(false) => {}
                        Some(true) => faults.push(format!("{document}:{line}: {file} {name} is ignored")),
                        None => faults.push(format!("{document}:{line}: {file} has no test `{name}`")),
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 300, "only {count} are named: are they still read?");
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|found| found == word)
}

/// As far as can be told by simple means.
fn promises(docs: &str) -> bool {
    let words = ["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "Errors", "Panics", "exact", "exactly"];
    words.iter().any(|word| has_word(docs, word))
        || ["never", "Never", "always", "Always", "nothing", "Nothing"].iter().any(|word| has_word(docs, word))
}

#[test]
fn whatever_promises_names_its_tests() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for file in sources("src") {
        let source = text(&file);
        let (mut docs, mut is_named) = (String::new(), false);
        for (number, line) in source.lines().enumerate() {
            let code = line.trim();
            if let Some(doc) = code.strip_prefix("///") {
                docs += doc;
                docs += "\n";
            } else if code.starts_with("//") {
                is_named |= code.starts_with("// Tests: ");
            } else if !code.starts_with("#[") {
                if code.starts_with("pub ") && promises(&docs) {
                    count += 1;
                    if !is_named {
                        faults.push(format!("{file}:{}: {code}", number + 1));
                    }
                }
                (docs, is_named) = (String::new(), false);
            }
        }
    }
    assert!(faults.is_empty(), "no tests are named beside\n{}", faults.join("\n"));
    assert!(count > 60, "only {count} promise: are they still found?");
}

#[test]
fn each_section_of_the_crates_docs_names_its_tests() {
    let source = text("src/lib.rs");
    let lines: Vec<_> = source.lines().collect();
    for promise in 1..=8 {
        let row = lines.iter().position(|line| line.starts_with(&format!("//! | **P{promise}** |"))).unwrap();
        assert!(lines[row + 1].starts_with("// Tests: "), "P{promise}");
    }
    // An example's hidden lines look like titles.
    let text_alone: String = source.split("//! ```").step_by(2).collect();
    let sections: BTreeMap<&str, bool> = text_alone
        .split("\n//! # ")
        .skip(1)
        .map(|section| (section.lines().next().unwrap_or_default(), section.contains("\n// Tests: ")))
        .collect();
    let unnamed: Vec<_> = sections.iter().filter(|(_, is_named)| !**is_named).map(|(title, _)| *title).collect();
    assert_eq!(unnamed, ["The words", "What does not compile", "What is not here"]);
    assert!(sections.len() >= 11, "{sections:?}");
}

#[test]
fn each_promise_has_tests_under_its_number() {
    let files = sources("tests").into_iter().chain(sources("src"));
    let tests: Vec<String> = files.flat_map(|file| tests_of(&text(&file)).into_keys()).collect();
    for promise in 1..=8 {
        let filter = format!("p{promise}_");
        let found = tests.iter().filter(|test| test.contains(&filter)).count();
        assert!(found >= 5, "`cargo test {filter}` finds {found}");
    }
}

#[test]
fn what_the_readme_tells_to_run_is_there() {
    let (readme, mut count) = (text("README.md"), 0);
    for (option, folder) in [("--test ", "tests"), ("--example ", "examples")] {
        for name in readme.split(option).skip(1).filter_map(|rest| rest.split([' ', '`', '\n']).next()) {
            let path = Path::new(ROOT).join(folder);
            let is_there = path.join(format!("{name}.rs")).exists() || path.join(name).join("main.rs").exists();
            assert!(is_there, "{option}{name}");
            count += 1;
        }
    }
    assert!(count > 10, "only {count} are told");
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        // What a checkout lacks, a package may lack, too.
        assert!(
            link.starts_with("https://") || Path::new(ROOT).join(link).exists() || link.contains("BENCH"),
            "{link}"
        );
    }
}

/// The same calls as in its first example, which is run with the docs; by a name and in a table of its own.
#[test]
fn the_readme_shows_what_its_first_example_prints() {
    let pool = BudgetPool::builder().name("run-17").tokens(1_000_000).usd(Usd::from_dollars(10));
    let pool = pool.deadline(Duration::from_secs(3_600)).build();
    pool.record(Amount::new().tokens(1_200).usd(Usd::from_micros(3_600))).unwrap();
    let estimate = Amount::new().input_tokens(1_500).output_tokens(500).usd(Usd::from_cents(1));
    let hold = pool.reserve(estimate).unwrap();
    hold.commit(Amount::new().input_tokens(1_480).output_tokens(212).usd(Usd::from_micros(7_620)));
    let shown = pool.snapshot().to_string();
    assert!(text("README.md").contains(&format!("```text\n{shown}```")), "{shown}");
}

#[test]
fn versions_are_those_of_the_manifest() {
    let (readme, docs) = (text("README.md"), text("src/lib.rs"));
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(readme.contains(&format!("Rust {rust} or later")) && docs.contains(&format!("Rust version is {rust};")));
    let version = format!("{}.{}", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    assert!(readme.contains(&format!("budget-pool = \"{version}\"")));
    assert!(!text("Cargo.toml").contains("[features]"), "the docs say that there are none");
}
