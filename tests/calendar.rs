//! The example `calendar`, run as its user runs it.

#[path = "support/example.rs"]
mod example;

#[test]
fn it_shows_a_day_of_23_hours_and_months_as_long_as_they_are() {
    let output = example::run("calendar", &[]);
    let shown = String::from_utf8(output.stdout).unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*message), (Some(0), ""), "{shown}");
    for row in [
        "Sun 2025-03-30 00:00 UTC+01:00         23 h    Mon 03-31 00:00    1 h late",
        "Sat 2025-02-01 00:00 UTC-05:00         28 d    Sat 03-01 00:00    3 d late",
        "Sat 2025-03-01 00:00 UTC-05:00    30 d 23 h    Tue 04-01 00:00    3 d 1 h late",
    ] {
        assert!(shown.lines().any(|line| line == row), "no row `{row}` in\n{shown}");
    }
}
