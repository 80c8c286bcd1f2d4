//! How much an example has to do about its budget. Shared by the tests of the examples.

/// The lines of code of a source: without empty ones, comments and imports.
pub fn lines(source: &str) -> usize {
    let is_code = |line: &&str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with("//") && !line.starts_with("use ")
    };
    source.lines().filter(is_code).count()
}
