//! Markdown tables, and the files that they are written into: a module of the programs that make
//! some.

use std::fmt::Write;
use std::fs;
use std::io;

/// The head of a table; in all columns but the first are figures.
pub fn head(names: &[impl AsRef<str>]) -> String {
    let mut table = String::new();
    line(&mut table, names.iter().map(|name| name.as_ref().to_owned()));
    let below = |column| if column == 0 { "---" } else { "---:" }.to_owned();
    line(&mut table, (0..names.len()).map(below));
    table
}

/// One more line of a table.
pub fn line(table: &mut String, cells: impl IntoIterator<Item = String>) {
    for cell in cells {
        let _ = write!(table, "| {cell} ");
    }
    *table += "|\n";
}

/// Writes a new table behind each marker of the file, `<!-- name -->`, that `table` knows.
pub fn fill(file: &str, table: impl Fn(&str) -> Option<String>) -> io::Result<()> {
    fs::write(file, filled(&fs::read_to_string(file)?, table))
}

fn filled(text: &str, table: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        filled += line;
        filled += "\n";
        let marker = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"));
        if let Some(new) = marker.and_then(&table) {
            filled += "\n";
            filled += &new;
            while lines.next_if(|line| line.is_empty() || line.starts_with('|')).is_some() {}
            if lines.peek().is_some() {
                filled += "\n";
            }
        }
    }
    filled
}
