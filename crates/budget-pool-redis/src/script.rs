//! The words of `script.lua`: its [`Keys`], the arguments of a [`Call`], and the [`Words`] of an
//! answer.

use std::time::Duration;

use budget_pool::{Amount, Axis};
use redis::{RedisError, Value};

use crate::error::FleetError;
use crate::protocol::{Answer, Book, Change, Lost, Op, Request, State, Totals, Way};

pub(crate) const SOURCE: &str = include_str!("script.lua");

/// The version of the keys and of the arguments.
pub(crate) const PROTOCOL: &str = "1";

/// The keys of a wallet: one slot of a cluster, and none with a TTL.
#[derive(Debug, Clone)]
pub(crate) struct Keys(Vec<String>);

impl Keys {
    /// # Errors
    /// [`Name`](FleetError::Name): a cluster takes the slot of a key from the text between its first `{`
    /// and the `}` after it, or from the whole key where that text is empty.
    pub(crate) fn new(wallet: &str) -> Result<Keys, FleetError> {
        if wallet.is_empty() || wallet.starts_with('}') {
            return Err(FleetError::Name { wallet: wallet.to_owned() });
        }
        let key = |part| format!("bp1:{{{wallet}}}:{part}");
        Ok(Keys(["w", "m", "x", "t", "y", "s", "k"].map(key).into()))
    }

    /// The keys of a wallet whose free units lie in the `state` of EscrowMint under `prefix`.
    pub(crate) fn in_escrow(wallet: &str, prefix: &str) -> Result<Keys, FleetError> {
        let mut keys = Keys::new(wallet)?;
        keys.0.push(format!("{prefix}:{{{wallet}}}:state"));
        Ok(keys)
    }

    pub(crate) fn all(&self) -> &[String] {
        &self.0
    }
}

/// The arguments of a call of the script, without its [`Keys`].
#[derive(Debug, Clone)]
pub(crate) struct Call(pub(crate) Vec<String>);

impl Call {
    fn new(op: &str) -> Call {
        Call(vec![PROTOCOL.to_owned(), op.to_owned()])
    }

    fn with(mut self, arguments: impl IntoIterator<Item = String>) -> Call {
        self.0.extend(arguments);
        self
    }

    pub(crate) fn found(axes: &Axes, caps: &[u64], lost: Lost, period: u64, run: &str) -> Call {
        let head = [lost_word(lost).to_owned(), period.to_string(), run.to_owned(), axes.words()];
        Call::new("found").with(head).with(caps.iter().map(u64::to_string))
    }

    pub(crate) fn look() -> Call {
        Call::new("look")
    }

    pub(crate) fn members() -> Call {
        Call::new("members")
    }

    /// Sets each of `caps` that is `Some`.
    pub(crate) fn caps(axes: &Axes, caps: &[Option<u64>]) -> Call {
        Call::new("caps").with([axes.words()]).with(caps.iter().map(optional))
    }

    /// Makes `change` once for each `key`.
    pub(crate) fn change(axes: &Axes, key: &str, change: &Change) -> Call {
        let op = match change.way {
            Way::Raise => "raise",
            Way::Lower => "lower",
        };
        let units = change.units.iter().map(u64::to_string);
        Call::new(op).with([key.to_owned(), axes.words()]).with(units)
    }

    /// Closes the record of `member` with its `spent`; `None` stands for all units that it holds.
    pub(crate) fn resolve(axes: &Axes, member: &str, spent: &[Option<u64>]) -> Call {
        let head = [member.to_owned(), axes.words()];
        Call::new("resolve").with(head).with(spent.iter().map(optional))
    }

    /// Removes the keys of the wallet; unless it `may_be_in_use`, only without live members.
    pub(crate) fn remove(may_be_in_use: bool) -> Call {
        let word = if may_be_in_use { "in use" } else { "-" };
        Call::new("remove").with([word.to_owned()])
    }

    pub(crate) fn exchange(axes: &Axes, request: &Request) -> Call {
        let op = match request.op {
            Op::Exchange => "exchange",
            Op::Farewell => "farewell",
            Op::Settle => "settle",
        };
        let Request { member, ttl, claim, run, told, .. } = request;
        let head = [member.clone(), ttl.to_string(), claim.to_string(), run.clone(), axes.words()];
        let told = told
            .iter()
            .flat_map(|told| [told.spent, told.returned, told.seen, told.want, told.floor])
            .map(|units| units.to_string());
        Call::new(op).with(head).with(told)
    }
}

fn optional(units: &Option<u64>) -> String {
    units.map_or_else(|| "-".to_owned(), |units| units.to_string())
}

fn lost_word(lost: Lost) -> &'static str {
    match lost {
        Lost::Charge => "charge",
        Lost::Return => "return",
    }
}

/// The axes of a wallet, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Axes(pub(crate) Vec<Axis>);

impl Axes {
    pub(crate) fn words(&self) -> String {
        self.0.iter().map(|&axis| word(axis)).collect::<Vec<_>>().join(" ")
    }

    /// Whether these are all axes that `amount` names. An amount of input or output tokens names their
    /// sum as well: a wallet of the parts alone counts all of it.
    pub(crate) fn cover(&self, amount: &Amount) -> bool {
        let parts = [Axis::InputTokens, Axis::OutputTokens];
        let named = parts.iter().filter_map(|&part| amount.get(part));
        let sum = named.map(|part| part.units()).reduce(u64::saturating_add);
        let is_sum = |axis| axis == Axis::Tokens && sum == Some(amount.units(axis));
        let mut axes = amount.iter().map(|quantity| quantity.axis());
        axes.all(|axis| self.0.contains(&axis) || is_sum(axis))
    }

    /// The labels of a user's own axes come from `known`, the axes of the caps that this process
    /// gave.
    fn read(words: &str, known: &[Axis]) -> Option<Axes> {
        let axis = |text: &str| match text.strip_prefix("custom") {
            None => text.parse().ok().filter(|axis: &Axis| axis.is_counted()),
            Some(index) => {
                let index = index.parse().ok().filter(|index| *index < 4)?;
                let is_it =
                    |axis: &&Axis| matches!(axis, Axis::Custom(axis) if axis.index() == index);
                let label = ["custom 0", "custom 1", "custom 2", "custom 3"];
                let unnamed = || Axis::custom(index, label[usize::from(index)]);
                Some(known.iter().find(is_it).copied().unwrap_or_else(unnamed))
            }
        };
        words.split_whitespace().map(axis).collect::<Option<_>>().map(Axes)
    }
}

fn word(axis: Axis) -> String {
    match axis {
        Axis::Custom(custom) => format!("custom{}", custom.index()),
        axis => axis.as_str().to_owned(),
    }
}

/// The name of a member, the instant at which it expires, and its [`Totals`] on each axis.
pub(crate) type Listed = (String, u64, Vec<Totals>);

/// The state of a wallet without its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) now: u64,
    pub(crate) period_end: u64,
    pub(crate) lost: Lost,
    pub(crate) period: u64,
    pub(crate) axes: Axes,
    pub(crate) books: Vec<Book>,
}

/// The words of an answer that is no refusal.
pub(crate) struct Words {
    wallet: String,
    words: Vec<String>,
}

impl Words {
    /// # Errors
    /// The refusals of the script, and a reply that no script of this package gives.
    pub(crate) fn read(
        wallet: &str,
        reply: Result<Value, RedisError>,
    ) -> Result<Words, FleetError> {
        let wallet = wallet.to_owned();
        let words: Vec<String> = match reply.and_then(|reply| Ok(redis::from_redis_value(reply)?)) {
            Ok(words) => words,
            Err(error) => return Err(FleetError::store(wallet, error)),
        };
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        let second = word(1);
        match word(0) {
            "no_wallet" => Err(FleetError::NoWallet { wallet }),
            "other_founding" => Err(FleetError::OtherFounding { wallet }),
            "no_member" => Err(FleetError::NoMember { wallet }),
            "in_use" => {
                Err(FleetError::InUse { wallet, members: second.parse().unwrap_or(u64::MAX) })
            }
            "axes" => Err(FleetError::OtherAxes { wallet }),
            "range" => Err(FleetError::Range { wallet }),
            "key_conflict" => Err(FleetError::KeyConflict { wallet, key: second.to_owned() }),
            "keys_full" => {
                let retry_after = Duration::from_millis(second.parse().unwrap_or(u64::MAX));
                Err(FleetError::KeysFull { wallet, retry_after })
            }
            "below_zero" => {
                let axis = Axes::read(second, &[]).and_then(|axes| axes.0.first().copied());
                match (axis, word(2).parse(), word(3).parse()) {
                    (Some(axis), Ok(requested), Ok(cap)) => {
                        Err(FleetError::BelowZero { wallet, axis, requested, cap })
                    }
                    _ => Err(Words { wallet, words }.garbage()),
                }
            }
            "version" => Err(FleetError::Version { wallet, found: second.to_owned() }),
            "damaged" => {
                Err(FleetError::Damaged { wallet, what: format!("of {second} some is missing") })
            }
            _ => Ok(Words { wallet, words }),
        }
    }

    fn garbage(&self) -> FleetError {
        let what = "the answer is none of this script".to_owned();
        FleetError::Damaged { wallet: self.wallet.clone(), what }
    }

    fn number(&self, at: usize) -> Result<u64, FleetError> {
        let number = self.words.get(at).and_then(|word| word.parse().ok());
        number.ok_or_else(|| self.garbage())
    }

    fn book(&self, at: usize) -> Result<Book, FleetError> {
        let [founded, cap, charged, used] =
            [self.number(at)?, self.number(at + 1)?, self.number(at + 2)?, self.number(at + 3)?];
        Ok(Book { founded, cap, charged, used })
    }

    pub(crate) fn look(&self, known: &[Axis]) -> Result<Look, FleetError> {
        let word = |at: usize| self.words.get(at).map_or("", String::as_str);
        let lost = match (word(0), word(3)) {
            ("wallet", "charge") => Lost::Charge,
            ("wallet", "return") => Lost::Return,
            _ => return Err(self.garbage()),
        };
        let axes = Axes::read(word(5), known).ok_or_else(|| self.garbage())?;
        let books = (0..axes.0.len()).map(|axis| self.book(6 + 4 * axis));
        Ok(Look {
            now: self.number(1)?,
            period_end: self.number(2)?,
            lost,
            period: self.number(4)?,
            books: books.collect::<Result<_, _>>()?,
            axes,
        })
    }

    pub(crate) fn answer(&self, axes: usize) -> Result<Answer, FleetError> {
        let first = self.words.first().map_or("", String::as_str);
        let state = match first {
            "granted" => State::Granted,
            "learning" => State::Learning,
            "gone" => State::Gone,
            "closed" => State::Closed,
            other => {
                let at = other.strip_prefix("short ").and_then(|at| at.parse().ok());
                State::Short(at.filter(|at| *at < axes).ok_or_else(|| self.garbage())?)
            }
        };
        let totals = |at: usize| -> Result<Totals, FleetError> {
            let [granted, returned, spent] =
                [self.number(at)?, self.number(at + 1)?, self.number(at + 2)?];
            Ok(Totals { granted, returned, spent })
        };
        let each = |axis: usize| 6 + 7 * axis;
        Ok(Answer {
            state,
            now: self.number(1)?,
            period_end: self.number(2)?,
            learn_until: self.number(3)?,
            members: self.number(4)?,
            claims: self.number(5)?,
            books: (0..axes).map(|axis| self.book(each(axis))).collect::<Result<_, _>>()?,
            totals: (0..axes).map(|axis| totals(each(axis) + 4)).collect::<Result<_, _>>()?,
        })
    }

    /// Reads the instant of the store, and each member as [`Listed`].
    pub(crate) fn members(&self, axes: usize) -> Result<(u64, Vec<Listed>), FleetError> {
        if self.words.first().map(String::as_str) != Some("members") {
            return Err(self.garbage());
        }
        let mut members = Vec::new();
        for pair in self.words.get(2..).unwrap_or_default().chunks(2) {
            let [id, packed] = pair else { return Err(self.garbage()) };
            let numbers: Result<Vec<u64>, _> = packed.split(' ').map(str::parse).collect();
            let numbers = numbers.map_err(|_| self.garbage())?;
            if numbers.len() != 1 + 3 * axes {
                return Err(self.garbage());
            }
            let totals =
                |part: &[u64]| Totals { granted: part[0], returned: part[1], spent: part[2] };
            members.push((id.clone(), numbers[0], numbers[1..].chunks(3).map(totals).collect()));
        }
        Ok((self.number(1)?, members))
    }
}

/// The [`Refusal`](crate::rules::Refusal) by the rules that the `error` of the script stands for.
#[cfg(test)]
pub(crate) fn refusal(error: &FleetError) -> Option<crate::rules::Refusal> {
    use crate::rules::Refusal;
    match *error {
        FleetError::OtherAxes { .. } => Some(Refusal::Axes),
        FleetError::Range { .. } => Some(Refusal::Range),
        FleetError::NoMember { .. } => Some(Refusal::NoMember),
        FleetError::KeyConflict { .. } => Some(Refusal::KeyConflict),
        FleetError::KeysFull { retry_after, .. } => {
            let retry_after = u64::try_from(retry_after.as_millis()).ok()?;
            Some(Refusal::KeysFull { retry_after })
        }
        FleetError::BelowZero { requested, cap, .. } => Some(Refusal::BelowZero { requested, cap }),
        _ => None,
    }
}
