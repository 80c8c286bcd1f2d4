use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use super::*;

fn units(amount: Amount, axis: Axis) -> Option<u64> {
    amount.get(axis).map(Quantity::units)
}

#[test]
fn tokens_are_the_larger_of_the_total_and_its_parts_in_any_order() {
    let total_first = Amount::new().tokens(5).input_tokens(4).output_tokens(3);
    let total_last = Amount::new().output_tokens(3).input_tokens(4).tokens(5);
    assert_eq!(units(total_first, Axis::Tokens), Some(7));
    assert_eq!(total_first, total_last);
    assert_eq!(units(Amount::new().tokens(9).input_tokens(4), Axis::Tokens), Some(9));
    assert_eq!(
        units(Amount::new().input_tokens(u64::MAX).output_tokens(1), Axis::Tokens),
        Some(u64::MAX)
    );
}

#[test]
fn setters_set() {
    let amount =
        Amount::new().input_tokens(10).input_tokens(3).tokens(9).tokens(1).requests(2).requests(1);
    assert_eq!(units(amount, Axis::Tokens), Some(3));
    assert_eq!(units(amount, Axis::Requests), Some(1));
}

#[test]
fn an_axis_is_named_by_its_setter_and_a_total_by_its_parts() {
    let named = |amount: Amount| {
        let axes = [Axis::Tokens, Axis::InputTokens, Axis::OutputTokens];
        axes.map(|axis| amount.get(axis).is_some())
    };
    assert_eq!(named(Amount::new().tokens(0)), [true, false, false]);
    assert_eq!(named(Amount::new().input_tokens(0)), [true, true, false]);
    assert_eq!(named(Amount::new().output_tokens(0)), [true, false, true]);
    assert_eq!(named(Amount::new().usd(Usd::ZERO)), [false; 3]);
    assert_ne!(Amount::new().tokens(0), Amount::new());
    for axis in [Axis::Requests, Axis::Usd, Axis::InFlight, Axis::Deadline] {
        assert_eq!(Amount::new().tokens(0).get(axis), None);
    }
}

#[test]
fn in_flight_is_named_and_never_charged() {
    let weighted = Amount::new().tokens(5).in_flight(3);
    assert_eq!((weighted.units(Axis::InFlight), Amount::new().units(Axis::InFlight)), (3, 0));
    assert_eq!(weighted.quantities(), Amount::new().tokens(5).quantities());
    assert_eq!(weighted.held().of(lane::IN_FLIGHT), 3);
    assert_eq!(Amount::new().held().of(lane::IN_FLIGHT), 1);
    assert_eq!(weighted.to_string(), "5 tokens, 3 in flight");
    assert_eq!((weighted + weighted).get(Axis::InFlight), weighted.in_flight(6).iter().last());
    assert_eq!((weighted + Amount::new()).units(Axis::InFlight), 3);
}

#[test]
fn every_axis_is_set_as_by_its_setter() {
    let by_setters = Amount::new()
        .tokens(9)
        .input_tokens(1)
        .output_tokens(2)
        .requests(3)
        .usd(Usd::from_nanos(4))
        .in_flight(5);
    let figures = [9, 1, 2, 3, 4, 5, 99];
    let pairs = Axis::ALL.iter().zip(figures);
    assert_eq!(pairs.fold(Amount::new(), |all, (&axis, n)| all.with(axis, n)), by_setters);
    assert_eq!(Amount::of(Axis::Deadline, 7), Amount::new());
    assert_eq!(Caps::of(Axis::Deadline, 7), Caps::new());
    for (&axis, n) in Axis::ALL.iter().zip(figures).take(6) {
        assert_eq!((by_setters.units(axis), Caps::of(axis, n).units(axis)), (n, Some(n)));
    }
    assert_eq!(by_setters.into_iter().collect::<Amount>(), by_setters);
    assert_eq!((by_setters.iter().len(), Amount::new().iter().len()), (6, 0));
}

#[test]
fn a_difference_names_what_either_names() {
    let (all, part) = (Amount::new().tokens(5).requests(2), Amount::new().tokens(3));
    assert_eq!(all.checked_sub(part), Some(Amount::new().tokens(2).requests(2)));
    assert_eq!(all.saturating_sub(part), Amount::new().tokens(2).requests(2));
    assert_eq!((part.checked_sub(all), part.checked_sub(part)), (None, Some(part.tokens(0))));
    assert_eq!(part.saturating_sub(all), Amount::new().tokens(0).requests(0));
    assert_eq!(part.checked_sub(Amount::new().usd(Usd::from_nanos(1))), None);
    assert_eq!(part.checked_sub(Amount::new().in_flight(1)), None);
}

#[test]
fn an_own_axis_keeps_its_label() {
    const JOBS: Axis = Axis::custom(2, "jobs");
    assert_eq!(Amount::of(JOBS, 7).to_string(), "7 jobs");
    assert_eq!((Amount::new().tokens(1) + Amount::of(JOBS, 7)).to_string(), "1 tokens, 7 jobs");
    assert_eq!(Amount::of(JOBS, 7).into_iter().collect::<Caps>().to_string(), "7 jobs");
    assert_eq!(Amount::of(JOBS, 7).get(JOBS).map(|jobs| jobs.to_string()).unwrap(), "7 jobs");
}

#[test]
fn addition_saturates_and_names_what_either_names() {
    let mut sum = Amount::new().tokens(5) + Amount::new().input_tokens(3).output_tokens(4);
    assert_eq!(units(sum, Axis::Tokens), Some(12));
    sum += Amount::new().usd(Usd::MAX);
    sum += Amount::new().usd(Usd::from_nanos(1)).requests(2);
    assert_eq!(units(sum, Axis::Usd), Some(u64::MAX));
    assert_eq!(units(sum, Axis::Requests), Some(2));
    assert_eq!([sum, sum].iter().sum::<Amount>(), sum + sum);
    assert_eq!([sum, Amount::new().requests(3)].into_iter().sum::<Amount>(), sum.requests(5));
    // Still a setter after a sum: the total is what was summed.
    assert_eq!(units(sum.tokens(0), Axis::Tokens), Some(7));
}

#[test]
fn amounts_that_differ_are_told_apart_by_their_hashes() {
    let hash = |amount: Amount| BuildHasherDefault::<DefaultHasher>::default().hash_one(amount);
    assert_ne!(hash(Amount::new().tokens(1)), hash(Amount::new().tokens(2)));
    assert_ne!(hash(Amount::new().requests(0)), hash(Amount::new()));
    assert_eq!(hash(Amount::new().tokens(5).input_tokens(5)), hash(Amount::new().input_tokens(5)));
    assert_ne!(hash(Amount::new().in_flight(0)), hash(Amount::new()));
}

#[test]
fn a_later_cap_overlays_an_earlier_one() {
    let caps = Caps::new().tokens(5).requests(1).overlaid(Caps::new().tokens(0).in_flight(2));
    assert_eq!(caps, Caps::new().tokens(0).requests(1).in_flight(2));
    assert_eq!(caps.get(Axis::InFlight), Some(Quantity::new(Axis::InFlight, 2)));
    assert_eq!((caps.get(Axis::InputTokens), caps.get(Axis::Deadline)), (None, None));
}

#[test]
fn axes_come_in_declared_order_and_zeros_that_are_named_do_too() {
    let amount = Amount::new().usd(Usd::from_nanos(5)).requests(0).output_tokens(3).input_tokens(0);
    let axes: Vec<_> = amount.iter().map(|quantity| (quantity.axis(), quantity.units())).collect();
    let named = [
        (Axis::Tokens, 3),
        (Axis::InputTokens, 0),
        (Axis::OutputTokens, 3),
        (Axis::Requests, 0),
        (Axis::Usd, 5),
    ];
    assert_eq!(axes, named);
    assert_eq!(amount.iter().collect::<Amount>(), amount);
    assert_eq!(amount.to_string(), "3 tokens, 3 output tokens, 0.000000005 USD");
    let debug = "Amount(3 tokens, 0 input tokens, 3 output tokens, 0 requests, 0.000000005 USD)";
    assert_eq!(format!("{amount:?}"), debug);
    assert!((&amount).into_iter().eq(amount));
    let caps = Caps::new().in_flight(1).usd(Usd::ZERO).tokens(0);
    let axes: Vec<_> = caps.iter().map(|cap| (cap.axis(), cap.units())).collect();
    assert_eq!(axes, [(Axis::Tokens, 0), (Axis::Usd, 0), (Axis::InFlight, 1)]);
    assert_eq!((caps.get(Axis::InputTokens), caps.get(Axis::Deadline)), (None, None));
}

#[test]
fn texts_name_their_units() {
    let amount = Amount::new().tokens(1_200).usd(Usd::from_micros(3_600));
    assert_eq!(amount.to_string(), "1200 tokens, 0.0036 USD");
    assert_eq!(format!("{amount:?}"), "Amount(1200 tokens, 0.0036 USD)");
    assert_eq!(Amount::new().to_string(), "nothing");
    let caps = Caps::new().in_flight(2).requests(3);
    assert_eq!(caps.to_string(), "3 requests, 2 in flight");
    assert_eq!(format!("{caps:?}"), "Caps(3 requests, 2 in flight)");
    assert!(Amount::new().requests(0).is_zero() && Amount::new().is_zero() && !amount.is_zero());
}
