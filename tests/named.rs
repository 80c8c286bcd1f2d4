//! The documents against the project: every promise has tests under its number, and the README is
//! true.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use budget_pool::{Amount, BudgetPool, Usd};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(file: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"));
    // As git may check it out on Windows.
    text.replace("\r\n", "\n")
}

/// The sources below a folder.
fn sources(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap().map(Result::unwrap) {
        let path = format!("{folder}/{}", entry.file_name().to_str().expect("our names are ASCII"));
        if entry.path().is_dir() {
            files.extend(sources(&path));
        } else if path.ends_with(".rs") {
            files.push(path);
        }
    }
    files.sort_unstable();
    files
}

/// The name after a keyword, if the line begins with that.
fn named_by<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(keyword)?;
    Some(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

/// The test functions of a formatted source that are run, with the modules around them.
fn tests_of(source: &str) -> Vec<String> {
    let mut tests = Vec::new();
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
            if is_test && !is_ignored {
                let around = modules.iter().map(|(_, module)| format!("{module}::"));
                tests.push(around.collect::<String>() + name);
            }
            (is_test, is_ignored) = (false, false);
        }
    }
    tests
}

#[test]
fn each_promise_has_tests_under_its_number() {
    let files = sources("tests").into_iter().chain(sources("src"));
    // A file is a module, too.
    let tests_in = |file: String| {
        let stem = Path::new(&file).file_stem().expect("it has a name").to_owned();
        let module = stem.into_string().expect("our names are ASCII");
        tests_of(&text(&file)).into_iter().map(move |test| format!("{module}::{test}"))
    };
    let tests: Vec<String> = files.flat_map(tests_in).collect();
    for promise in 1..=8 {
        let filter = format!("p{promise}_");
        let found = tests.iter().filter(|test| test.contains(&filter)).count();
        assert!(found >= 5, "`cargo test {filter}` finds {found}");
    }
}

#[test]
fn what_the_documents_tell_to_run_is_there() {
    let documents = ["README.md", "CONTRIBUTING.md", "examples/README.md", "tests/README.md"];
    let (told, mut count) = (documents.map(text).concat(), 0);
    let root = Path::new(ROOT);
    // A package has no packages beside it.
    let beside = fs::read_dir(root.join("crates")).ok();
    let has_others = beside.is_some();
    let mut roots = vec![root.to_owned()];
    roots.extend(beside.into_iter().flatten().flatten().map(|package| package.path()));
    for (option, folder) in [("--test ", "tests"), ("--example ", "examples")] {
        for name in
            told.split(option).skip(1).filter_map(|rest| rest.split([' ', '`', '\n']).next())
        {
            let is_in = |root: &PathBuf| {
                let path = root.join(folder);
                path.join(format!("{name}.rs")).exists() || path.join(name).join("main.rs").exists()
            };
            let is_left_out = folder == "examples" && !has_others;
            assert!(roots.iter().any(is_in) || is_left_out, "{option}{name}");
            count += 1;
        }
    }
    assert!(count > 10, "only {count} are told");
}

#[test]
fn what_the_documents_link_to_is_there() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = text(document);
        let links: Vec<_> =
            text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(links.len() >= 5, "{document}: only {} links", links.len());
        for link in links {
            // A package has neither the benchmarks nor the packages beside it.
            let is_beside = |folder: &str| !Path::new(ROOT).join(folder).exists();
            let is_left_out =
                link.contains("BENCH") || (link.starts_with("crates/") && is_beside("crates"));
            let is_there = Path::new(ROOT).join(link).exists() || is_left_out;
            assert!(link.starts_with("https://") || is_there, "{document}: {link}");
        }
    }
}

/// Its table of lines to find: a function that has moved or gone is told here.
#[test]
fn what_the_architecture_leads_to_is_there() {
    let architecture = text("ARCHITECTURE.md");
    let rows = architecture.lines().filter_map(|line| {
        let mut cells = line.split(" | ").skip(1);
        let function = cells.next()?.strip_prefix('`')?.strip_suffix('`')?.split_once("::")?.1;
        let file = cells.next()?.split_once("](")?.1.split_once(')')?.0;
        Some((function, file))
    });
    let mut count = 0;
    for (function, file) in rows {
        let is_there =
            ["(", "<"].iter().any(|next| text(file).contains(&format!("fn {function}{next}")));
        assert!(is_there, "{file} has no `fn {function}`");
        count += 1;
    }
    assert!(count >= 15, "only {count} lines are told");
}

/// A page that grows is read by nobody.
#[test]
fn the_first_pages_are_short() {
    let readme = text("README.md");
    assert!(readme.lines().count() <= 150, "the README has {} lines", readme.lines().count());
    assert!(!readme.contains("<!--"), "the README has a hidden comment");
    let docs = text("src/lib.rs");
    let words: usize = docs
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| line.split_whitespace().count())
        .sum();
    assert!((200..=900).contains(&words), "the landing page has {words} words");
}

/// The same calls as in its first example, which is run with the docs; by a name and in a table of
/// its own.
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
    // Wherever their lines break.
    let words =
        |text: String| text.replace("//!", "").split_whitespace().collect::<Vec<_>>().join(" ");
    let (readme, docs) = (words(text("README.md")), words(text("src/lib.rs")));
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(
        readme.contains(&format!("Rust {rust} or later"))
            && docs.contains(&format!("Rust version is {rust};"))
    );
    let version =
        format!("{}.{}", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    assert!(readme.contains(&format!("budget-pool = \"{version}\"")));
    let manifest = text("Cargo.toml");
    let (_, features) = manifest.split_once("[features]").expect("there are some");
    let features = features.lines().take_while(|line| !line.starts_with('['));
    let features = features.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    for feature in features.filter(|name| !name.starts_with('#')) {
        assert!(docs.contains(&format!("| `{feature}` |")), "{feature}");
    }
}

/// The gate counts them by `cargo tree`.
#[test]
fn the_documents_count_the_dependencies_as_the_manifest_does() {
    let manifest = text("Cargo.toml");
    // Cargo writes a table for each dependency into the manifest of a package.
    let Some((_, dependencies)) = manifest.split_once("\n[dependencies]\n") else { return };
    let lines = dependencies.lines().take_while(|line| !line.starts_with('['));
    let count = lines
        .filter(|line| !line.starts_with('#') && line.contains(" = "))
        .filter(|line| !line.contains("optional = true"))
        .count();
    let word = ["no", "one", "two", "three", "four", "five"][count];
    for (document, says) in [
        ("Cargo.toml", format!("with {word} small dependencies")),
        ("CONTRIBUTING.md", format!("The core has {word} dependencies")),
        ("src/guide/questions.md", format!("the library has {word} direct dependencies")),
    ] {
        let words = text(document).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&says), "{document} does not say: {says}");
    }
}
