//! Asks: the language of them, and what the model makes of one.
//!
//! An ask is a list of ranges, from a most to a least. Of each range the model reckons the best
//! grant from what is free; the first range whose best, or whose least, passes nobody is granted.
//! All that a call or a wait does beside, it does by its least: that of the last range.

use std::time::Duration;

use budget_pool::{Ask, OnDrop};

use super::language::{
    Figures, INPUT, LANES, MAX, OUTPUT, TOKENS, Units, Want, each, on_drop_of, ttl_of,
    without_in_flight,
};
use super::oracle::{Deadline, HoldId, Model, Nanos, PoolId, Refusal, When};

pub(super) const LABELS: [&str; 3] = ["draft", "review", "answer"];

/// What a call asks for beside an amount, in the figures of the language.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub struct Asked {
    pub first: Choice,
    pub others: [Option<Choice>; 2],
    pub ttl: Option<u8>,
    pub label: Option<u8>,
    /// Whether it commits when it is dropped, if it says so.
    pub on_drop: Option<bool>,
    pub at_most: Option<u8>,
}

/// An amount, and around it what would be enough.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub struct Choice {
    pub most: Figures,
    pub least: Option<Figures>,
}

/// The same in the words of the contract.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    choices: Vec<(Want, Option<Want>)>,
    pub(super) ttl: Option<Duration>,
    pub(super) label: Option<&'static str>,
    on_drop: Option<OnDrop>,
    pub(super) at_most: Option<Duration>,
}

impl Wish {
    pub(super) fn new(asked: &Asked, near: &Units) -> Wish {
        let choice = |Choice { most, least }: &Choice| {
            let most = Want::asked(most, near);
            (most, least.map(|least| Want::asked(&least, &most.held())))
        };
        let label = |label| LABELS[usize::from(label) % LABELS.len()];
        let all = std::iter::once(&asked.first).chain(asked.others.iter().flatten());
        Wish {
            choices: all.map(choice).collect(),
            ttl: asked.ttl.map(ttl_of),
            label: asked.label.map(label),
            on_drop: asked.on_drop.map(on_drop_of),
            at_most: asked.at_most.map(ttl_of),
        }
    }

    /// The same for the real pool.
    pub(super) fn ask(&self) -> Ask {
        let mut ask = None;
        for (most, least) in &self.choices {
            let next = match ask {
                None => Ask::new(most.amount()),
                Some(ask) => Ask::or(ask, most.amount()),
            };
            ask = Some(match least {
                Some(least) => next.at_least(least.amount()),
                None => next,
            });
        }
        let mut ask = ask.expect("there is a first");
        if let Some(ttl) = self.ttl {
            ask = ask.ttl(ttl);
        }
        if let Some(label) = self.label {
            ask = ask.label(label);
        }
        if let Some(on_drop) = self.on_drop {
            ask = ask.on_drop(on_drop);
        }
        match self.at_most {
            Some(time) => ask.wait_at_most(time),
            None => ask,
        }
    }

    pub(super) fn text(&self) -> String {
        let Wish { choices, ttl, label, on_drop, at_most } = self;
        let choice = |(most, least): &(Want, Option<Want>)| match least {
            Some(least) => format!("{} at least {}", most.amount(), least.amount()),
            None => most.amount().to_string(),
        };
        let choices: Vec<String> = choices.iter().map(choice).collect();
        format!("{}, {ttl:?}, {label:?}, {on_drop:?}, at most {at_most:?}", choices.join(" or "))
    }

    /// Whether it takes as much as there is.
    fn has_a_choice(&self) -> bool {
        self.choices.len() > 1 || self.choices[0].1.is_some()
    }

    fn ranges(&self) -> Vec<Range> {
        self.choices.iter().map(|(most, least)| Range::new(most, least.as_ref())).collect()
    }

    /// What a waiter waits for.
    pub(super) fn least(&self) -> Units {
        self.ranges().last().expect("there is a first").least
    }
}

/// What a hold may hold.
#[derive(Debug)]
struct Range {
    most: Units,
    least: Units,
}

impl Range {
    /// What the least does not name is not cut; and a total is not less than its parts.
    fn new(most: &Want, least: Option<&Want>) -> Range {
        let most = most.held();
        let Some(named) = least else { return Range { most, least: most } };
        let enough = named.with_slots();
        let cut = |axis| if named.names(axis) { enough[axis].min(most[axis]) } else { most[axis] };
        let mut least = each(cut);
        least[TOKENS] = least[TOKENS].max(least[INPUT] + least[OUTPUT]).min(most[TOKENS]);
        Range { most, least }
    }

    /// As much as there is, if that is enough. The input is to be sent, so that it has all but the
    /// least of the output, and the output has the rest. What the total had beyond its parts it
    /// has still, as far as it goes.
    fn best(&self, free: &Units) -> Option<Units> {
        let Range { most, least } = self;
        if (0..LANES).any(|axis| least[axis] > free[axis]) {
            return None;
        }
        let mut best = each(|axis| most[axis].min(free[axis]));
        // No more than that can be counted: then parts may add up to more.
        if best[TOKENS] < MAX {
            best[INPUT] = best[INPUT].min(best[TOKENS] - least[OUTPUT]);
            best[OUTPUT] = best[OUTPUT].min(best[TOKENS] - best[INPUT]);
        }
        let beyond = most[TOKENS].saturating_sub(most[INPUT] + most[OUTPUT]);
        let total = best[INPUT] + best[OUTPUT] + beyond;
        best[TOKENS] = best[TOKENS].min(total.max(least[TOKENS]));
        Some(best)
    }
}

/// What is granted of an ask, and by which choice.
pub(super) struct Pick {
    pub(super) choice: usize,
    pub(super) held: Units,
}

impl Model {
    /// The best of a wish that fits, and that passes nobody.
    pub(super) fn pick(
        &mut self,
        at: PoolId,
        wish: &Wish,
        passes_nobody: impl Fn(&Model, &Units) -> bool,
    ) -> Option<Pick> {
        let free = self.least_free(at);
        for (choice, range) in wish.ranges().into_iter().enumerate() {
            let Some(best) = range.best(&free) else { continue };
            let room = each(|axis| range.most[axis].min(free[axis]));
            if best[INPUT] < room[INPUT] || best[OUTPUT] < room[OUTPUT] {
                self.meet("a total cuts the parts of an ask");
            }
            for held in [best, range.least] {
                if passes_nobody(self, &held) {
                    for (what, happens) in [
                        ("an ask is granted its second choice", choice == 1),
                        ("an ask is cut", held != range.most),
                        ("an ask is cut in part", held != range.most && held != range.least),
                        ("an ask leaves its best to others", held != best),
                    ] {
                        if happens {
                            self.meet(what);
                        }
                    }
                    return Some(Pick { choice, held });
                }
            }
        }
        None
    }

    /// What a call is granted at once.
    pub(super) fn pick_now(&mut self, at: PoolId, wish: &Wish) -> Option<Pick> {
        let is_open = self.open(at).and_then(|()| self.in_time(at)).is_ok();
        if !is_open || self.paused(at).is_some() {
            return None;
        }
        self.pick(at, wish, |model, units| model.in_turn(at, units).is_ok())
    }

    pub(super) fn begin_pick(&mut self, at: PoolId, pick: Pick) -> HoldId {
        self.count(at, true);
        let id = self.begin(at, pick.held);
        self.hold(id).choice = pick.choice;
        id
    }

    pub(super) fn reserve_on(&mut self, at: PoolId, wish: &Wish) -> Result<HoldId, Refusal> {
        let Some(pick) = self.pick_now(at, wish) else {
            self.count(at, false);
            let least = wish.least();
            let refusal = self.ask_in_turn(at, &least);
            let refusal = refusal.expect_err("what is not granted is refused");
            self.note_lacks(at, &least, &refusal);
            return Err(refusal);
        };
        let id = self.begin_pick(at, pick);
        self.agree(id, wish);
        Ok(id)
    }

    /// A hold is handed over: its time begins.
    pub(super) fn agree(&mut self, id: HoldId, wish: &Wish) {
        let expiry = wish.ttl.and_then(|ttl| self.later(ttl));
        let hold = self.hold(id);
        hold.label = wish.label;
        hold.on_drop = wish.on_drop.unwrap_or(hold.on_drop);
        hold.expiry = expiry;
        self.serve();
    }

    /// Whether neither time nor a release can meet a wait up to an instant.
    pub(super) fn cannot_be_met_by(&self, at: PoolId, asked: &Units, until: Nanos) -> bool {
        if self.paused(at).is_some_and(|(_, end)| end > until) {
            return true;
        }
        let end = Some((at, Deadline::just_after(until)));
        let balances = self.balances();
        self.asked_on_path(at, asked).into_iter().any(|(pool, asked)| {
            let short = self.short(&balances[&pool], pool, &asked, end);
            short.iter().any(|refusal| refusal.outlook == When::Never)
        })
    }

    /// One that takes as much as there is takes it at the latest instant seen, though what serves it
    /// may have come earlier: what is due by then is done first. Returns whether anything was.
    pub(super) fn bring_up(&mut self, home: PoolId, wish: &Wish) -> bool {
        if !wish.has_a_choice() {
            return false;
        }
        if self.happen_next() {
            return true;
        }
        let is_behind = self.is_behind(home, self.now);
        if is_behind {
            self.turn_to_present(&self.path(home));
        }
        is_behind
    }

    /// What a refusal of a wish may be retried with.
    pub(super) fn retried(wish: &Wish) -> Option<Want> {
        Want::exactly(&without_in_flight(wish.least()))
    }
}
