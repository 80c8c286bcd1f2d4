//! A tree of pools from a file.
//!
//! ```text
//! cargo run --example config --features serde
//! cargo run --example config --features serde -- FILE.toml
//! ```
//!
//! [`Settings`] and [`build`] are the part to take home. The caps, the windows and what a drop does
//! are read by the library; the shape of the file is the program's own. The program shows the tree
//! as it stands, spends a little of each pool, and shows a refusal as JSON.

use std::error::Error;
use std::process::ExitCode;

use budget_pool::{Amount, Axis, BudgetError, BudgetPool, Caps, OnDrop, PoolBuilder, Usd, Window};
use serde::Deserialize;

/// The file calls it `custom_0`, and the pools by its label.
const TOOL_CALLS: Axis = Axis::custom(0, "tool calls");

/// One pool, and those below it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    name: String,
    #[serde(default)]
    caps: Caps,
    window: Option<Window>,
    on_drop: Option<OnDrop>,
    #[serde(default)]
    carved: bool,
    #[serde(default)]
    pools: Vec<Settings>,
}

impl Settings {
    fn apply<Kind>(&self, mut builder: PoolBuilder<Kind>) -> PoolBuilder<Kind> {
        builder = builder.name(&self.name).axis(TOOL_CALLS).caps(self.caps);
        if let Some(window) = &self.window {
            builder = builder.window(window.clone());
        }
        if let Some(on_drop) = self.on_drop {
            builder = builder.on_drop(on_drop);
        }
        builder
    }
}

/// The root, and all pools below it, each after its parent. A pool lives as long as its handle.
fn build(settings: &Settings) -> Result<Vec<BudgetPool>, BudgetError> {
    let mut pools = vec![settings.apply(BudgetPool::builder()).build()];
    add_below(0, settings, &mut pools)?;
    Ok(pools)
}

fn add_below(
    parent: usize,
    settings: &Settings,
    pools: &mut Vec<BudgetPool>,
) -> Result<(), BudgetError> {
    for below in &settings.pools {
        let child = below.apply(pools[parent].child());
        let pool = if below.carved { child.carved().build()? } else { child.build() };
        pools.push(pool);
        add_below(pools.len() - 1, below, pools)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its `Display` shows the line of the file.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let text = match std::env::args().nth(1) {
        Some(file) => std::fs::read_to_string(file)?,
        None => include_str!("budgets.toml").to_owned(),
    };
    let pools = build(&toml::from_str(&text)?)?;

    let little =
        Amount::new().tokens(1_000).requests(1).usd(Usd::from_cents(2)).with(TOOL_CALLS, 1);
    for pool in &pools {
        pool.record(little)?;
    }
    print!("{}", pools[0].snapshot_tree());

    let last = pools.last().expect("there is a root");
    if let Err(refused) = last.record(Amount::of(TOOL_CALLS, 3)) {
        println!("\n{}", serde_json::to_string_pretty(&refused)?);
    }
    Ok(())
}
