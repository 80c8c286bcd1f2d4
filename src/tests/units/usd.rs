use proptest::prelude::*;

use super::*;

#[test]
fn constructors_and_readings_agree_on_their_unit() {
    let usd =
        Usd::from_dollars(12) + Usd::from_cents(34) + Usd::from_micros(5_678) + Usd::from_nanos(9);
    assert_eq!(usd.as_nanos(), 12_345_678_009);
    assert_eq!(usd.as_micros(), 12_345_678);
    assert_eq!(usd.as_cents(), 1_234);
    assert_eq!(usd.as_dollars(), 12);
    assert_eq!(usd.as_dollars_f64(), 12.345678009);
    assert!(!usd.is_zero() && Usd::ZERO.is_zero());
}

#[test]
fn checked_and_saturating_stop_at_both_ends() {
    let one = Usd::from_nanos(1);
    assert_eq!(Usd::MAX.checked_add(one), None);
    assert_eq!(Usd::MAX.saturating_add(one), Usd::MAX);
    assert_eq!(one.checked_add(one), Some(one * 2));
    assert_eq!(Usd::ZERO.checked_sub(one), None);
    assert_eq!(Usd::ZERO.saturating_sub(one), Usd::ZERO);
    assert_eq!(Usd(7).saturating_sub(one), Usd(6));
    assert_eq!((Usd(7).saturating_add(one), Usd(7).saturating_mul(2)), (Usd(8), Usd(14)));
    assert_eq!(Usd::MAX.checked_sub(one), Some(Usd::from_nanos(u64::MAX - 1)));
    assert_eq!(Usd::MAX.checked_mul(2), None);
    assert_eq!(Usd::MAX.saturating_mul(2), Usd::MAX);
    assert_eq!(one.checked_mul(7), Some(Usd::from_nanos(7)));
    assert_eq!(one.checked_div(0), None);
    assert_eq!(Usd::from_nanos(7).checked_div(2), Some(Usd::from_nanos(3)));
}

#[test]
fn operators_do_what_the_checked_ones_do() {
    let cent = Usd::from_cents(1);
    assert_eq!(3 * cent, cent * 3);
    assert_eq!([cent, cent * 2].iter().sum::<Usd>(), cent * 3);
    assert_eq!([cent, cent * 2].into_iter().sum::<Usd>(), cent * 3);
    let mut usd = cent;
    usd += cent;
    usd *= 7;
    usd -= cent;
    usd /= 2;
    assert_eq!(usd, Usd::from_nanos(65_000_000));
    assert_eq!(Usd::from_nanos(7) / 2, Usd::from_nanos(3));
}

#[test]
fn operators_panic_where_the_checked_ones_say_none() {
    let panics = |calculate: fn() -> Usd| std::panic::catch_unwind(calculate).is_err();
    assert!(panics(|| Usd::MAX + Usd::from_nanos(1)));
    assert!(panics(|| Usd::ZERO - Usd::from_nanos(1)));
    assert!(panics(|| Usd::MAX * 2));
    assert!(panics(|| 2 * Usd::MAX));
    assert!(panics(|| Usd::MAX / 0));
    assert!(panics(|| [Usd::MAX, Usd::MAX].into_iter().sum()));
    assert!(!panics(|| [Usd::MAX, Usd::ZERO].iter().sum()));
}

#[test]
fn a_constructor_does_not_wrap() {
    type Case = (fn(u64) -> Usd, u64);
    let cases: [Case; 3] = [
        (Usd::from_dollars, 18_446_744_073),
        (Usd::from_cents, 1_844_674_407_370),
        (Usd::from_micros, 18_446_744_073_709_551),
    ];
    for (from, most) in cases {
        let _ = from(most);
        let panic = std::panic::catch_unwind(|| from(most + 1)).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"more dollars than Usd::MAX"));
    }
}

#[test]
fn text_that_is_no_amount_is_refused_with_its_reason() {
    use ParseUsdError::{Empty, NotDecimal, TooLarge, TooPrecise};
    for (text, why) in [
        ("", Empty),
        (".", Empty),
        ("NaN", NotDecimal),
        ("inf", NotDecimal),
        ("-1", NotDecimal),
        ("+1", NotDecimal),
        ("1e3", NotDecimal),
        ("1.2.3", NotDecimal),
        (" 1", NotDecimal),
        ("$1", NotDecimal),
        ("1,000", NotDecimal),
        ("٣", NotDecimal),
        ("0.0000000001", TooPrecise),
        ("18446744073.709551616", TooLarge),
        ("99999999999999999999999999", TooLarge),
    ] {
        assert_eq!(text.parse::<Usd>(), Err(why), "{text:?}");
    }
    assert_eq!("18446744073.709551615".parse(), Ok(Usd::MAX));
    assert_eq!("007.5".parse(), Ok(Usd::from_cents(750)));
    assert_eq!(".5".parse(), Ok(Usd::from_cents(50)));
    assert_eq!("5.".parse(), Ok(Usd::from_dollars(5)));
}

#[test]
fn floats_round_to_the_nearest_nano_or_are_refused() {
    use TryFromF64Error::{Negative, NotFinite, TooLarge};
    assert_eq!(Usd::try_from_dollars_f64(f64::NAN), Err(NotFinite));
    assert_eq!(Usd::try_from_dollars_f64(f64::INFINITY), Err(NotFinite));
    assert_eq!(Usd::try_from_dollars_f64(f64::NEG_INFINITY), Err(NotFinite));
    assert_eq!(Usd::try_from_dollars_f64(-1e-300), Err(Negative));
    assert_eq!(Usd::try_from_dollars_f64(-0.0), Ok(Usd::ZERO));
    assert_eq!(Usd::try_from_dollars_f64(1e300), Err(TooLarge));
    assert_eq!(Usd::try_from_dollars_f64(18_446_744_074.0), Err(TooLarge));
    assert_eq!(Usd::try_from_dollars_f64(0.1), Ok(Usd::from_cents(10)));
    assert_eq!(Usd::try_from_dollars_f64(0.4e-9), Ok(Usd::ZERO));
    assert_eq!(Usd::try_from_dollars_f64(0.6e-9), Ok(Usd::from_nanos(1)));
    assert_eq!(Usd::try_from_dollars_f64(1e10), Ok(Usd::from_dollars(10_000_000_000)));
}

#[test]
fn display_is_exact_and_pads() {
    for (nanos, plain, cents) in [
        (0, "0", "0.00"),
        (1, "0.000000001", "0.00"),
        (300_000_000, "0.3", "0.30"),
        (12_345_000_000, "12.345", "12.35"),
        (999_995_000_000, "999.995", "1000.00"),
        (u64::MAX, "18446744073.709551615", "18446744073.71"),
    ] {
        let usd = Usd::from_nanos(nanos);
        assert_eq!(usd.to_string(), plain);
        assert_eq!(format!("{usd:.2}"), cents);
    }
    let usd = Usd::from_cents(150);
    assert_eq!(
        format!("[{usd:>6}|{usd:<6}|{usd:^7}|{usd:6.1}|{usd:.0}|{usd:.11}]"),
        "[   1.5|1.5   |  1.5  |   1.5|2|1.50000000000]"
    );
    assert_eq!(format!("[{usd:08.3}|{usd:*<6}|{usd:+}]"), "[0001.500|1.5***|+1.5]");
    assert_eq!(format!("{usd:?}"), "Usd(1.5)");
}

#[test]
fn token_prices_round_up_by_less_than_a_nano() {
    assert_eq!(Usd::for_tokens(0, Usd::MAX), Usd::ZERO);
    assert_eq!(Usd::for_tokens(u64::MAX, Usd::MAX), Usd::MAX);
    assert_eq!(Usd::for_tokens(3, Usd::from_nanos(333_333)), Usd::from_nanos(1));
    assert_eq!(Usd::for_tokens(1_000_000, Usd::MAX), Usd::MAX);
}

proptest! {
    #[test]
    fn a_float_is_the_nearest_up_to_nine_million_dollars_and_no_more_than_a_step_beside_it_above(
        nanos: u64,
        shift in 0..40_u32,
    ) {
        for usd in [Usd::from_nanos(nanos >> shift), Usd::from_nanos(nanos % (1 << 53))] {
            let nearest: f64 = usd.to_string().parse().unwrap();
            let beside = usd.as_dollars_f64().to_bits().abs_diff(nearest.to_bits());
            prop_assert!(beside <= u64::from(usd > Usd::from_dollars(9_000_000)), "{usd}: {beside} steps");
        }
    }

    #[test]
    fn what_is_displayed_parses_back(nanos: u64) {
        let usd = Usd::from_nanos(nanos);
        prop_assert_eq!(usd.to_string().parse(), Ok(usd));
        prop_assert_eq!(format!("{usd:.9}").parse(), Ok(usd));
    }

    #[test]
    fn a_price_is_the_true_cost_rounded_up(n in 0..u64::MAX >> 20, per_million in 0..1_u64 << 40) {
        let cost = u128::from(Usd::for_tokens(n, Usd::from_nanos(per_million)).as_nanos());
        let exact_times_million = u128::from(n) * u128::from(per_million);
        prop_assume!(exact_times_million < u128::from(u64::MAX) * 1_000_000);
        prop_assert!(cost * 1_000_000 >= exact_times_million);
        prop_assert!(cost * 1_000_000 < exact_times_million + 1_000_000);
    }
}
