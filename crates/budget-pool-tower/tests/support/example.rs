//! The examples as their users run them. Shared by their tests.

use std::path::Path;
use std::process::{Command, Output};

/// Runs an example. Cargo builds the examples for `cargo test`; they lie beside the tests' own
/// folder. With one test named, as in `cargo test --test replay`, it builds that test alone.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    let test = std::env::current_exe().expect("a test has a path");
    let profile =
        test.parent().and_then(Path::parent).expect("tests are in `target/<profile>/deps`");
    let example = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        example.exists(),
        "{} is missing, run `cargo build --example {name}`",
        example.display()
    );
    Command::new(example).args(arguments).output().expect("what was built can be run")
}
