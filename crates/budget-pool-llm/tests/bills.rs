//! Bills at the prices of a public list, to the nano-dollar: those of `tests/data`, or those of the
//! folder that the environment variable `BILLS_DIR` names, from the root of the workspace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use budget_pool::Usd;
use budget_pool_llm::{Part, Price, Usage};
use serde_json::Value;

fn read(file: &str) -> Value {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = match env::var_os("BILLS_DIR").map(PathBuf::from) {
        // Cargo runs tests in the folder of their package, and a user names a folder from the root.
        Some(folder) if folder.is_relative() => package.join("../..").join(folder),
        Some(folder) => folder,
        None => package.join("tests/data"),
    };
    let path = folder.join(file);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The parts that an entry of the list names.
fn listed(entry: &Value) -> Price {
    let figures = Part::ALL.iter().filter_map(|part| {
        let figure = entry.get(part.as_str()).filter(|figure| !figure.is_null())?;
        let text = figure.as_str().map_or_else(|| figure.to_string(), str::to_owned);
        Some((*part, text))
    });
    let figures: Vec<_> = figures.collect();
    let figures = figures.iter().map(|(part, text)| (*part, text.as_str()));
    Price::per_token(figures).unwrap_or_else(|error| panic!("{entry}: {error}"))
}

fn prices() -> BTreeMap<String, Price> {
    let list = read("prices.json");
    let entries = list.as_object().expect("models by name").iter();
    let price = |entry: &Value| {
        let tiers = entry["above"].as_array().expect("a list of tiers").iter();
        tiers.fold(listed(&entry["base"]), |price, tier| {
            price.above(tier["tokens"].as_u64().expect("a threshold"), listed(tier))
        })
    };
    entries.map(|(model, entry)| (model.clone(), price(entry))).collect()
}

fn usage(of: &Value) -> Usage {
    let count = |part: &str| of[part].as_u64().unwrap_or_else(|| panic!("{part} of {of}"));
    Usage::new(count("input"), count("output"))
        .cache_read(count("cache_read"))
        .cache_write(count("cache_write"))
        .cache_write_1h(count("cache_write_1h"))
        .reasoning(count("reasoning"))
}

#[test]
fn each_bill_is_exact_to_the_nano_dollar() {
    let (prices, bills) = (prices(), read("bills.json"));
    let bills = bills.as_array().expect("a list of bills");
    let mut priced = 0;
    for bill in bills {
        let model = bill["model"].as_str().expect("a model");
        let price = prices.get(model).unwrap_or_else(|| panic!("no price of {model}"));
        let cost = price.cost(&usage(&bill["usage"])).ok();
        assert_eq!(cost, bill["nano_usd"].as_u64().map(Usd::from_nanos), "{bill}");
        priced += usize::from(cost.is_some());
    }
    println!("{} bills at {} prices, {priced} of them priced", bills.len(), prices.len());
    if env::var_os("BILLS_DIR").is_none() {
        assert_eq!((bills.len(), priced), (600, 363));
    }
    // A folder without bills would be green, too.
    assert!(priced > 0, "no bill has a price");
}

#[test]
fn each_bill_without_cached_tokens_is_within_its_bound_and_its_money_pays_its_output() {
    let (prices, bills) = (prices(), read("bills.json"));
    let mut count = 0;
    for bill in bills.as_array().expect("a list of bills") {
        let price = &prices[bill["model"].as_str().expect("a model")];
        let usage = usage(&bill["usage"]);
        let Ok(cost) = price.cost(&usage) else { continue };
        if usage.uncached() == Some(usage.input) {
            assert!(price.bound(usage.input, usage.output) >= cost, "{bill}");
            let bound = price.bound(usage.input, usage.output);
            assert!(price.output_within(usage.input, bound) >= Some(usage.output), "{bill}");
            count += 1;
        }
    }
    if env::var_os("BILLS_DIR").is_none() {
        assert_eq!(count, 180);
    }
}
