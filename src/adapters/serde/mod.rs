//! The values as text and as bytes.
//!
//! The implementations are written by hand: a derive would bring its macros into every build, and
//! most of these forms are not those of the fields. An instant has no meaning outside of the
//! process, so none is serialized.

mod time;

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, Visitor};
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeStruct, Serializer};

use crate::adapters::serde::time::Time;
use crate::reservation::Receipt;
use crate::time::window::{Kind, Window};
use crate::types::amount::{Amount, Caps};
use crate::types::axis::{Axis, AxisSet, Labels, Quantity, lane};
use crate::types::error::{BudgetError, BudgetExceeded, Outlook};
use crate::types::level::{Level, Mark};
use crate::types::limit::Limit;
use crate::types::name::Name;
use crate::types::on_drop::OnDrop;
use crate::types::snapshot::{AxisSnapshot, Holder, Snapshot, TreeSnapshot, is_in_play};
use crate::types::usd::Usd;
use crate::types::want::Want;

/// Writes a struct. A text leaves out an optional field that is `None`; a binary format, whose
/// fields have no names, says so.
macro_rules! write_struct {
    ($serializer:expr, $name:literal,
        { $($key:literal: $value:expr),* $(,)? }, { $($optional:literal: $option:expr),* $(,)? }
    ) => {{
        let serializer = $serializer;
        let is_text = serializer.is_human_readable();
        let fields = <[&str]>::len(&[$($key),*]) $(+ usize::from(!is_text || $option.is_some()))*;
        let mut fields = serializer.serialize_struct($name, fields)?;
        $(fields.serialize_field($key, &$value)?;)*
        $(match &$option {
            None if is_text => fields.skip_field($optional)?,
            option => fields.serialize_field($optional, option)?,
        })*
        fields.end()
    }};
}

/// A word out of a list: a variant, or the name of a field. A binary format has its place in the
/// list.
#[derive(Clone, Copy)]
struct OneOf {
    words: &'static [&'static str],
    are_fields: bool,
}

impl OneOf {
    const fn variants(words: &'static [&'static str]) -> OneOf {
        OneOf { words, are_fields: false }
    }

    const fn fields(words: &'static [&'static str]) -> OneOf {
        OneOf { words, are_fields: true }
    }
}

/// The place of the word.
impl<'de> DeserializeSeed<'de> for OneOf {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_enum("", self.words, self)
    }
}

impl<'de> Visitor<'de> for OneOf {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", self.words.join(", "))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, data: A) -> Result<usize, A::Error> {
        let (place, variant) = data.variant_seed(Word(self))?;
        de::VariantAccess::unit_variant(variant)?;
        Ok(place)
    }
}

/// The bare word.
struct Word(OneOf);

impl<'de> DeserializeSeed<'de> for Word {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Word {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Visitor::expecting(&self.0, f)
    }

    fn visit_u64<E: de::Error>(self, place: u64) -> Result<usize, E> {
        let known = usize::try_from(place).ok().filter(|&place| place < self.0.words.len());
        known.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(place), &self))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<usize, E> {
        let OneOf { words, are_fields } = self.0;
        let unknown = if are_fields { E::unknown_field } else { E::unknown_variant };
        words.iter().position(|&known| known == word).ok_or_else(|| unknown(word, words))
    }

    fn visit_bytes<E: de::Error>(self, word: &[u8]) -> Result<usize, E> {
        self.visit_str(&String::from_utf8_lossy(word))
    }
}

fn write_word<S: Serializer>(
    serializer: S,
    of: &'static str,
    words: &[&'static str],
    place: usize,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_unit_variant(of, place as u32, words[place])
}

/// Text that holds what `expecting` says, read by `FromStr` or `From`.
struct Text<F>(&'static str, F);

impl<T, F: Fn(&str) -> Result<T, String>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }
}

/// A decimal string, as [`Display`](fmt::Display) writes it: `"10.5"`. A binary format has the
/// nano-dollars as a `u64`.
impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.as_nanos())
        }
    }
}

/// A decimal string, as [`FromStr`](std::str::FromStr) reads it: `"10.00"`. A number is refused,
/// as most readers make a float of it, which has no cents. A binary format has the nano-dollars as a
/// `u64`.
impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Usd, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Usd::from_nanos);
        }
        let hint = "dollars as text, such as \"10.00\": a number is a float to many, and not exact";
        let read = |text: &str| text.parse().map_err(|error| format!("{error}: `{text}`"));
        deserializer.deserialize_str(Text(hint, read))
    }
}

/// As text.
impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

/// Any text.
impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(Text("a name", |text: &str| Ok(Name::from(text))))
    }
}

const ON_DROP: [&str; 2] = ["release", "commit"];

/// `"release"` or `"commit"`.
impl Serialize for OnDrop {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = match self {
            OnDrop::Release => 0,
            OnDrop::Commit => 1,
        };
        write_word(serializer, "OnDrop", &ON_DROP, place)
    }
}

/// `"release"` or `"commit"`.
impl<'de> Deserialize<'de> for OnDrop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OnDrop, D::Error> {
        match OneOf::variants(&ON_DROP).deserialize(deserializer)? {
            0 => Ok(OnDrop::Release),
            _ => Ok(OnDrop::Commit),
        }
    }
}

/// The counted axes by their places, and the one that is not counted.
const AXES: [&str; Axis::COUNTED + 1] = [
    "tokens",
    "input_tokens",
    "output_tokens",
    "requests",
    "usd",
    "in_flight",
    "custom_0",
    "custom_1",
    "custom_2",
    "custom_3",
    "deadline",
];

/// [`as_str`](Axis::as_str), but `"custom_0"` to `"custom_3"` for the user's own: by the index that
/// tells them apart. The label stays with the program.
impl Serialize for Axis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = if self.is_counted() { self.lane() } else { Axis::COUNTED };
        write_word(serializer, "Axis", &AXES, place)
    }
}

/// `"tokens"`, `"usd"`, `"custom_0"`. An axis of the user's own comes without a label, and so as
/// `custom 0` in texts. It equals the program's own constant, whose label a tree of pools learns
/// from [`PoolBuilder::axis`](crate::PoolBuilder::axis).
impl<'de> Deserialize<'de> for Axis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Axis, D::Error> {
        match OneOf::variants(&AXES).deserialize(deserializer)? {
            Axis::COUNTED => Ok(Axis::Deadline),
            lane => Ok(Labels::NONE.axis(lane)),
        }
    }
}

/// The figure: money as [`Usd`] is, a number on the other axes.
impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.usd() {
            Some(usd) => usd.serialize(serializer),
            None => serializer.serialize_u64(self.units()),
        }
    }
}

fn write_quantities<S: Serializer>(
    serializer: S,
    axes: AxisSet,
    quantities: impl Iterator<Item = Quantity>,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(axes.count()))?;
    for quantity in quantities.filter(|quantity| axes.contains(quantity.axis().lane())) {
        map.serialize_entry(&quantity.axis(), &quantity)?;
    }
    map.end()
}

/// Figures by the counted axes, each axis at most once.
struct Figures<T> {
    none: T,
    with: fn(T, Axis, u64) -> T,
}

impl<'de, T> Visitor<'de> for Figures<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of figures by axis")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let (mut all, mut seen) = (self.none, AxisSet::EMPTY);
        let (counted, _) = AXES.split_at(Axis::COUNTED);
        while let Some(lane) = map.next_key_seed(OneOf::fields(counted))? {
            if seen.contains(lane) {
                return Err(de::Error::duplicate_field(AXES[lane]));
            }
            seen = seen.with(lane);
            let units = match lane {
                lane::USD => map.next_value::<Usd>()?.as_nanos(),
                _ => map.next_value()?,
            };
            all = (self.with)(all, Labels::NONE.axis(lane), units);
        }
        Ok(all)
    }
}

/// The axes that were named, as a map: `{"input_tokens": 1500, "usd": "0.012"}`. The total of tokens
/// that follows from its parts is left out, so that an amount which was made by its setters settles
/// the same when it is read back. An amount that a pool reports, or that is a difference, may have
/// less in total than its parts: it is read back with all of them.
impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_quantities(serializer, self.named(), self.iter())
    }
}

/// A map by axis, as it is serialized. An unknown axis, one that is not counted and one that comes
/// twice are errors.
impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
        deserializer.deserialize_map(Figures { none: Amount::new(), with: Amount::with })
    }
}

/// The caps as a map: `{"tokens": 1000000, "usd": "10"}`. An axis without a cap is absent.
impl Serialize for Caps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_quantities(serializer, self.quantities().axes(), self.iter())
    }
}

/// A map by axis, as it is serialized: what is absent is unlimited. An unknown axis, one that is
/// not counted and one that comes twice are errors. An axis of the user's own has no label in
/// these caps, so that a tree of pools keeps the label of the program.
impl<'de> Deserialize<'de> for Caps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Caps, D::Error> {
        let caps: Caps =
            deserializer.deserialize_map(Figures { none: Caps::new(), with: Caps::with })?;
        Ok(Caps::reported(*caps.quantities(), Labels::NONE))
    }
}

const WINDOW: [&str; 3] = ["kind", "period", "carrying_overage"];
const KINDS: [&str; 4] = ["fixed", "token_bucket", "rolling", "calendar"];

/// `{"kind": "fixed", "period": "86400s", "carrying_overage": true}`; a text leaves out a
/// `carrying_overage` that is false.
///
/// # Errors
/// A [calendar](Window::calendar), and a window that is [aligned](Window::aligned_to): their
/// instants have no meaning outside of the process.
impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = match self.kind {
            Kind::Fixed => 0,
            Kind::TokenBucket => 1,
            Kind::Rolling => 2,
            Kind::Calendar(_) => {
                return Err(S::Error::custom(
                    "a calendar window holds instants: it cannot be serialized",
                ));
            }
        };
        if self.start.is_some() {
            return Err(S::Error::custom(
                "an aligned window holds an instant: it cannot be serialized",
            ));
        }
        write_struct!(serializer, "Window",
            { "kind": KindAt(place), "period": Time(self.period) },
            { "carrying_overage": self.carries.then_some(true) })
    }
}

/// The kind at a place of [`KINDS`].
struct KindAt(usize);

impl Serialize for KindAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_word(serializer, "Kind", &KINDS, self.0)
    }
}

/// As it is serialized; null is as if the field were absent. A period has its unit: `"60s"`,
/// `"24h"`, `"7d"`, `"1.5s"`, `"250ms"`.
/// Errors are a calendar, whose instants only the program knows, an unknown field, and an overage
/// that is to be carried by a window without turns.
impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Window, D::Error> {
        deserializer.deserialize_struct("Window", &WINDOW, WindowFields)
    }
}

struct WindowFields;

impl<'de> Visitor<'de> for WindowFields {
    type Value = Window;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a window: its kind, its period, and whether it is carrying_overage")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Window, A::Error> {
        let (mut kind, mut period, mut carrying) = (None, None, None);
        while let Some(field) = map.next_key_seed(OneOf::fields(&WINDOW))? {
            let is_new = match field {
                0 => kind.replace(map.next_value_seed(OneOf::variants(&KINDS))?).is_none(),
                1 => period.replace(map.next_value()?).is_none(),
                _ => carrying.replace(map.next_value()?).is_none(),
            };
            if !is_new {
                return Err(de::Error::duplicate_field(WINDOW[field]));
            }
        }
        // A calendar without a period is told that it is a calendar.
        let kind = kind.ok_or_else(|| de::Error::missing_field(WINDOW[0]))?;
        window(kind, period.flatten(), carrying.flatten().unwrap_or_default())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut fields: A) -> Result<Window, A::Error> {
        let missing = |at| de::Error::invalid_length(at, &self);
        let kind = fields.next_element_seed(OneOf::variants(&KINDS))?.ok_or_else(|| missing(0))?;
        let period = fields.next_element()?.ok_or_else(|| missing(1))?;
        let carrying: Option<bool> = fields.next_element()?.ok_or_else(|| missing(2))?;
        window(kind, Some(period), carrying.unwrap_or_default())
    }
}

fn window<E: de::Error>(kind: usize, period: Option<Time>, carrying: bool) -> Result<Window, E> {
    let of = match kind {
        0 => Window::fixed,
        1 => Window::token_bucket,
        2 => Window::rolling,
        _ => return Err(E::custom("a calendar window holds instants: make it in the program")),
    };
    let Time(period) = period.ok_or_else(|| E::missing_field(WINDOW[1]))?;
    match (kind, carrying) {
        (0, true) => Ok(of(period).carrying_overage()),
        (_, true) => {
            Err(E::custom("a window without turns is not carrying_overage: it pays off anyway"))
        }
        (_, false) => Ok(of(period)),
    }
}

const LEVEL: [&str; 4] = ["axis", "percent", "amount", "settled"];

/// `{"axis": "usd", "percent": 80}` or `{"amount": {"tokens": 5000}}`, each with `"settled": true`
/// where it is; a text leaves out a `settled` that is false.
impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (axis, percent, amount) = match self.mark {
            Mark::Percent(axis, percent) => (Some(axis), Some(percent), None),
            Mark::Amount(amount) => (None, None, Some(amount)),
        };
        write_struct!(serializer, "Level", {},
        {
            "axis": axis,
            "percent": percent,
            "amount": amount,
            "settled": self.is_settled().then_some(true),
        })
    }
}

/// As it is serialized; null is as if the field were absent. A level is of an axis and a percentage,
/// or of an amount: an error is one that is both, or half of the first.
impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
        deserializer.deserialize_struct("Level", &LEVEL, LevelFields)
    }
}

struct LevelFields;

impl<'de> Visitor<'de> for LevelFields {
    type Value = Level;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a level: an axis and a percent, or an amount, and whether it is settled")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Level, A::Error> {
        let (mut axis, mut percent, mut amount, mut settled) = (None, None, None, None);
        while let Some(field) = map.next_key_seed(OneOf::fields(&LEVEL))? {
            let is_new = match field {
                0 => axis.replace(map.next_value()?).is_none(),
                1 => percent.replace(map.next_value()?).is_none(),
                2 => amount.replace(map.next_value()?).is_none(),
                _ => settled.replace(map.next_value()?).is_none(),
            };
            if !is_new {
                return Err(de::Error::duplicate_field(LEVEL[field]));
            }
        }
        let settled = settled.flatten().unwrap_or_default();
        level(axis.flatten(), percent.flatten(), amount.flatten(), settled)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut fields: A) -> Result<Level, A::Error> {
        let missing = |at| de::Error::invalid_length(at, &self);
        let axis = fields.next_element()?.ok_or_else(|| missing(0))?;
        let percent = fields.next_element()?.ok_or_else(|| missing(1))?;
        let amount = fields.next_element()?.ok_or_else(|| missing(2))?;
        let settled: Option<bool> = fields.next_element()?.ok_or_else(|| missing(3))?;
        level(axis, percent, amount, settled.unwrap_or_default())
    }
}

fn level<E: de::Error>(
    axis: Option<Axis>,
    percent: Option<u32>,
    amount: Option<Amount>,
    settled: bool,
) -> Result<Level, E> {
    let level = match (axis, percent, amount) {
        (Some(axis), Some(percent), None) => Level::percent(axis, percent),
        (None, None, Some(amount)) => Level::amount(amount),
        (None, Some(_), None) => return Err(E::missing_field(LEVEL[0])),
        (Some(_), None, None) => return Err(E::missing_field(LEVEL[1])),
        (None, None, None) => return Err(E::missing_field(LEVEL[2])),
        (_, _, Some(_)) => {
            return Err(E::custom("a level is an axis and a percent, or an amount, and not both"));
        }
    };
    Ok(if settled { level.settled() } else { level })
}

/// The fields. A field that is `None` is absent from a text: unlimited, or a cap that is not
/// falling.
impl<T: Serialize> Serialize for AxisSnapshot<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let AxisSnapshot { cap, used, reserved, overage, available, spent, peak, falling_to } =
            self;
        write_struct!(serializer, "AxisSnapshot",
            {
                "used": used, "reserved": reserved, "overage": overage, "spent": spent, "peak": peak,
            },
            { "cap": cap, "available": available, "falling_to": falling_to })
    }
}

/// An axis of the user's own, with its label.
struct Own {
    axis: Axis,
    snapshot: AxisSnapshot<u64>,
}

impl Serialize for Own {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let AxisSnapshot { cap, used, reserved, overage, available, spent, peak, falling_to } =
            &self.snapshot;
        write_struct!(serializer, "AxisSnapshot",
            {
                "label": self.axis.as_str(),
                "used": used, "reserved": reserved, "overage": overage, "spent": spent, "peak": peak,
            },
            { "cap": cap, "available": available, "falling_to": falling_to })
    }
}

/// The fields. `custom_0` to `custom_3` are the user's own axes, each with its `label`, and absent
/// from a text where the axis has neither a cap nor a spend. Instead of the instant of
/// `paused_until` there is `paused`.
impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut own = [None, None, None, None];
        for (axis, seen) in self.axes() {
            if let Axis::Custom(custom) = axis {
                let at = usize::from(custom.index());
                own[at] = is_in_play(&seen).then(|| Own { axis, snapshot: self.custom[at] });
            }
        }
        write_struct!(serializer, "Snapshot",
        {
            "name": self.name,
            "depth": self.depth,
            "closed": self.closed,
            "paused": self.paused_until.is_some(),
            "admitted": self.admitted,
            "refused": self.refused,
            "waiting": self.waiting,
            "reservations": self.reservations,
            "committed": self.committed,
            "released": self.released,
            "expired": self.expired,
            "tokens": self.tokens,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "requests": self.requests,
            "usd": self.usd,
            "in_flight": self.in_flight,
        },
        {
            "custom_0": own[0],
            "custom_1": own[1],
            "custom_2": own[2],
            "custom_3": own[3],
        })
    }
}

/// The pools, parents before their children, each with its depth.
impl Serialize for TreeSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// The fields, but for `since`, which is an instant. `expires_in` is in decimal seconds: `"1.5s"`.
impl Serialize for Holder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Holder { pool, label, amount, since: _, expires_in, on_drop } = self;
        write_struct!(serializer, "Holder",
            { "pool": pool, "amount": amount, "on_drop": on_drop },
            { "label": label, "expires_in": expires_in.map(Time) })
    }
}

/// The answers of its methods: `settled`, `overage`, `credited`, `is_late`.
impl Serialize for Receipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Receipt", 4)?;
        fields.serialize_field("settled", &self.settled())?;
        fields.serialize_field("overage", &self.overage())?;
        fields.serialize_field("credited", &self.credited())?;
        fields.serialize_field("is_late", &self.is_late())?;
        fields.end()
    }
}

/// The fields, and the `axis` of the cap. Times are in decimal seconds: `"1.5s"`.
impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Limit { pool, cap, free, period, more_in } = self;
        write_struct!(serializer, "Limit",
            { "pool": pool, "axis": self.axis(), "cap": cap, "free": free },
            { "period": period.map(Time), "more_in": more_in.map(Time) })
    }
}

/// The fields.
impl Serialize for Want {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Want", 2)?;
        fields.serialize_field("missing", &self.missing)?;
        fields.serialize_field("low", &self.low)?;
        fields.end()
    }
}

/// Its word: `"at"`, `"after_release"`, `"after_funding"`, `"never"`. The instant is left out; a
/// refusal has it as `retry_after`.
impl Serialize for Outlook {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = match self {
            Outlook::At(_) => 0,
            Outlook::AfterRelease => 1,
            Outlook::AfterFunding => 2,
            Outlook::Never => 3,
        };
        serializer.serialize_unit_variant("Outlook", place, self.as_str())
    }
}

/// The answers of its methods, and its text as `message`. `requested`, `available` and `cap` are
/// those of the [`BudgetExceeded`]; `retry_after` is in decimal seconds: `"1.5s"`.
impl Serialize for BudgetError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let exceeded = self.exceeded();
        write_struct!(serializer, "BudgetError",
        {
            "kind": self.kind(),
            "message": self.to_string(),
            "pool": self.pool(),
            "outlook": self.outlook(),
        },
        {
            "axis": self.axis(),
            "requested": exceeded.map(BudgetExceeded::requested),
            "available": exceeded.map(BudgetExceeded::available),
            "cap": exceeded.and_then(BudgetExceeded::cap),
            "retry_after": self.retry_after().map(Time),
        })
    }
}
