//! The example `config`, run as its user runs it.

use std::fs;

#[path = "support/example.rs"]
mod example;

#[test]
fn it_builds_the_tree_of_its_file_and_shows_a_refusal() {
    let output = example::run("config", &[]);
    let shown = String::from_utf8(output.stdout).unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*message), (Some(0), ""), "{shown}");
    let (tree, refusal) = shown.split_once("\n{").expect("a refusal is shown");
    for row in [
        "acme: 5 admitted, 0 refused, 0 reservations",
        "USD         0.08      9.98     489.94  500  10.06        0   0.08",
        "in flight      0         0         64   64      0        0      0",
        "  day: 2 admitted, 0 refused, 0 reservations",
        "  USD         0.04         0      39.96   40  0.04        0   0.04",
        "    agents: 1 admitted, 0 refused, 0 reservations",
        "    tokens      1000         0      89000  90000  1000        0   1000",
        "  evals: 1 admitted, 0 refused, 0 reservations",
        "  tool calls     1         0          2    3     1        0      1",
    ] {
        assert!(tree.lines().any(|line| line == row), "no row `{row}` in\n{shown}");
    }
    let refusal: serde_json::Value = serde_json::from_str(&format!("{{{refusal}")).unwrap();
    assert_eq!(
        refusal,
        serde_json::json!({
            "kind": "exceeded",
            "message": "tool calls of `evals` exceeded: 3 requested, 2 available, cap 3, will never fit",
            "pool": "evals",
            "outlook": "never",
            "axis": "custom_0",
            "requested": 3,
            "available": 2,
            "cap": 3
        })
    );
}

#[test]
fn a_file_that_is_wrong_is_told_where() {
    let file = std::env::temp_dir().join(format!("budget-pool-config-{}.toml", std::process::id()));
    for (wrong, told) in [
        ("caps = { usd = 10.00 }", "dollars as text, such as \"10.00\""),
        ("caps = { token = 1 }", "unknown field `token`"),
        ("window = { kind = \"fixed\", period = 60 }", "a time as text with its unit"),
        ("colour = 1", "unknown field `colour`"),
    ] {
        fs::write(&file, format!("name = \"a\"\n{wrong}\n")).unwrap();
        let output = example::run("config", &[file.to_str().unwrap()]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{wrong}");
        assert!(message.contains(told) && message.contains("line 2"), "{message}");
    }
    fs::remove_file(&file).unwrap();
}
