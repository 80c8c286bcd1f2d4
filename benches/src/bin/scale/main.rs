//! What a large tree costs those who share its lock: the longest calls beside a thousand, ten
//! thousand, a hundred thousand and a million pools, holds, waiters and keys, and what so many
//! tenants of a `Keyed` cost, beside governor's keyed limiter: as two Markdown tables.
//!
//! With the names of Markdown files it also writes the tables there, behind `<!-- scale -->` and
//! `<!-- tenants -->`; with the names of topics it measures these alone. A file takes whole tables. It takes about a minute, and a few gigabytes.
//!
//! Each call is timed by itself, by the wall clock: it includes the time under the lock, page faults
//! and what the neighbours on the machine take. So everything is repeated, and two figures are told:
//! the longest call where each is the median over its repetitions, and the longest of all. Only the
//! second has what happened once, by chance; the first is compared with the goal. Each topic has at
//! each size a process of its own, so that none finds the heap as another has left it. On a busy
//! machine `nice -n -20` helps.

use std::env;
use std::error::Error;
use std::process::{Command, Stdio};
use std::time::Instant;

use markdown::{head, line};
use measure::Figure;
use topics::{TENANTS, TOPICS, Topic};

#[path = "../../markdown.rs"]
mod markdown;
mod measure;
mod tenants;
mod topics;

/// How many pools, holds, waiters or keys.
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Each table by its marker.
const TABLES: [(&str, &[Topic]); 2] = [("scale", TOPICS), ("tenants", TENANTS)];

/// What a figure counts.
#[derive(Clone, Copy)]
enum Unit {
    Nanoseconds,
    Bytes,
    Polls,
}

/// What is measured, and the most that it should be at each size where there is a goal.
struct Row {
    what: &'static str,
    unit: Unit,
    goals: [Option<f64>; SIZES.len()],
}

/// What this program tells itself to measure.
const AT_ONE_SIZE: &str = "--at-one-size";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [AT_ONE_SIZE, name, size] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        report(&(topic(name)?.measure)(size.parse()?));
        return Ok(());
    }
    let (files, names): (Vec<String>, Vec<String>) =
        arguments.into_iter().partition(|argument| argument.ends_with(".md"));
    for name in &names {
        topic(name)?;
    }
    for (marker, topics) in TABLES {
        let is_named =
            |topic: &&Topic| names.is_empty() || names.iter().any(|name| name == topic.name);
        let named: Vec<_> = topics.iter().filter(is_named).collect();
        if named.is_empty() {
            continue;
        }
        if !files.is_empty() && named.len() < topics.len() {
            return Err("a file takes all topics of a table".into());
        }
        let table = table(named)?;
        println!("{table}");
        for file in &files {
            markdown::fill(file, |found| (found == marker).then(|| table.clone()))?;
        }
    }
    Ok(())
}

fn topic(name: &str) -> Outcome<&'static Topic> {
    let topics = || TABLES.iter().flat_map(|(_, topics)| *topics);
    let known: Vec<_> = topics().map(|topic| topic.name).collect();
    let unknown = || format!("{name} is neither a file.md nor one of {}", known.join(", "));
    Ok(topics().find(|topic| topic.name == name).ok_or_else(unknown)?)
}

fn table(topics: impl IntoIterator<Item = &'static Topic>) -> Outcome<String> {
    let what = format!("the median / the longest of {} runs", measure::RUNS);
    let names = [what].into_iter().chain(SIZES.map(grouped));
    let mut table = head(&names.chain(["goal", "met"].map(str::to_owned)).collect::<Vec<_>>());
    for topic in topics {
        let by_size = SIZES.iter().map(|&size| in_a_process(topic, size));
        let by_size = by_size.collect::<Outcome<Vec<_>>>()?;
        for (number, row) in topic.rows.iter().enumerate() {
            let figures: Vec<Figure> = by_size.iter().map(|figures| figures[number]).collect();
            line(&mut table, cells(row, &figures));
        }
    }
    Ok(table)
}

/// Has this program measure the topic at one size, and say nothing else.
fn in_a_process(topic: &Topic, size: usize) -> Outcome<Vec<Figure>> {
    let start = Instant::now();
    let output = Command::new(env::current_exe()?)
        .args([AT_ONE_SIZE, topic.name, &size.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    eprintln!("{}, {}: {:.1?}", topic.name, grouped(size), start.elapsed());
    if !output.status.success() {
        return Err(format!("{}, {size}: {}", topic.name, output.status).into());
    }
    String::from_utf8(output.stdout)?.lines().map(reported).collect()
}

/// A line for each figure, as [`reported`] reads it.
fn report(figures: &[Figure]) {
    figures.iter().for_each(|Figure { median, longest }| println!("{median} {longest}"));
}

fn reported(line: &str) -> Outcome<Figure> {
    let (median, longest) = line.split_once(' ').ok_or("a figure is two numbers")?;
    Ok(Figure { median: median.parse()?, longest: longest.parse()? })
}

fn cells(row: &Row, figures: &[Figure]) -> Vec<String> {
    let show = |Figure { median, longest }: &Figure| {
        let [median, longest] = [median, longest].map(|figure| row.unit.show(*figure));
        if median == longest { median } else { format!("{median} / {longest}") }
    };
    let misses =
        |(figure, goal): (&Figure, Option<f64>)| goal.is_some_and(|goal| figure.median > goal);
    let met = match goal(row) {
        goal if goal.is_empty() => "",
        _ if figures.iter().zip(row.goals).any(misses) => "no",
        _ => "yes",
    };
    let what = [row.what.to_owned()].into_iter();
    what.chain(figures.iter().map(show)).chain([goal(row), met.to_owned()]).collect()
}

/// One for all sizes, or those there are.
fn goal(row: &Row) -> String {
    if let (Some(goal), true) = (row.goals[0], row.goals.windows(2).all(|two| two[0] == two[1])) {
        return row.unit.show(goal);
    }
    let each = SIZES
        .iter()
        .zip(row.goals)
        .filter_map(|(size, goal)| Some(format!("{} at {}", row.unit.show(goal?), grouped(*size))));
    each.collect::<Vec<_>>().join(", ")
}

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            Unit::Nanoseconds if figure < 999.5 => format!("{figure:.0} ns"),
            Unit::Nanoseconds if figure < 999.5e3 => format!("{} us", three(figure / 1e3)),
            Unit::Nanoseconds => format!("{} ms", three(figure / 1e6)),
            Unit::Bytes | Unit::Polls => grouped(figure.round() as usize),
        }
    }
}

/// Three digits are as many as one reads.
fn three(figure: f64) -> String {
    let digits = if figure < 9.995 { 2 } else { usize::from(figure < 99.95) };
    format!("{figure:.digits$}")
}

/// 1,000,000
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let head = digits.len() % 3;
    let (head, rest) = digits.split_at(if head == 0 { 3.min(digits.len()) } else { head });
    rest.as_bytes()
        .chunks(3)
        .fold(head.to_owned(), |grouped, three| grouped + "," + &String::from_utf8_lossy(three))
}
