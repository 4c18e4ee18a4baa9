//! The one total order over values, and equality and hashing that agree with it.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use crate::base::value::Value;

/// The whole number that a float is, if it is one and fits.
#[expect(clippy::cast_possible_truncation, clippy::float_cmp, reason = "the range is checked, the comparison is exact")]
pub(super) fn float_as_int(number: f64) -> Option<i64> {
    // −2⁶³ and 2⁶³ are exact floats; i64 holds the first and not the second.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    ((-LIMIT..LIMIT).contains(&number) && number.trunc() == number).then_some(number as i64)
}

/// Compares an integer with a float by exact value. NaN, which no record holds, sorts after everything.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn cmp_int_float(int: i64, float: f64) -> Ordering {
    if float.is_nan() || float >= 9_223_372_036_854_775_808.0 {
        return Ordering::Less;
    }
    if float < -9_223_372_036_854_775_808.0 {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    int.cmp(&(whole as i64)).then_with(|| {
        // Same whole part: the fraction decides.
        0.0_f64.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal)
    })
}

fn cmp_float(left: f64, right: f64) -> Ordering {
    // partial_cmp has −0.0 equal to 0.0; NaN equals itself and sorts last, so that the order stays total.
    left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Int(_) | Value::Float(_) => 2,
        Value::String(_) => 3,
        Value::Bytes(_) => 4,
        Value::Array(_) => 5,
        Value::Object(_) => 6,
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
            (Self::Int(left), Self::Int(right)) => left.cmp(right),
            (Self::Float(left), Self::Float(right)) => cmp_float(*left, *right),
            (Self::Int(left), Self::Float(right)) => cmp_int_float(*left, *right),
            (Self::Float(left), Self::Int(right)) => cmp_int_float(*right, *left).reverse(),
            // UTF-8 has the byte order of its scalar values.
            (Self::String(left), Self::String(right)) => left.cmp(right),
            (Self::Bytes(left), Self::Bytes(right)) => left.cmp(right),
            (Self::Array(left), Self::Array(right)) => left.cmp(right),
            (Self::Object(left), Self::Object(right)) => left.cmp(right),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(rank(self));
        match self {
            Self::Null => {}
            Self::Bool(value) => value.hash(state),
            Self::Int(value) => value.hash(state),
            // A float that equals an integer hashes as that integer; NaNs, equal to one another, hash alike.
            Self::Float(value) => match float_as_int(*value) {
                Some(int) => int.hash(state),
                None if value.is_nan() => f64::NAN.to_bits().hash(state),
                None => value.to_bits().hash(state),
            },
            Self::String(value) => value.hash(state),
            Self::Bytes(value) => value.hash(state),
            Self::Array(value) => value.hash(state),
            Self::Object(value) => value.hash(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use proptest::prelude::*;

    use super::*;

    fn hash(value: &Value) -> u64 {
        std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(value)
    }

    #[test]
    fn bk_06_integers_and_floats_compare_by_exact_value() {
        assert_eq!(Value::Int(2), Value::Float(2.0));
        assert_eq!(hash(&Value::Int(2)), hash(&Value::Float(2.0)));
        assert_ne!(Value::Int((1 << 53) + 1), Value::Float(9_007_199_254_740_992.0));
        assert!(Value::Int((1 << 53) + 1) > Value::Float(9_007_199_254_740_992.0));
        assert!(Value::Int(i64::MAX) < Value::Float(9_223_372_036_854_775_808.0));
        assert_eq!(Value::Int(i64::MIN), Value::Float(-9_223_372_036_854_775_808.0));
        assert!(Value::Int(-1) < Value::Float(-0.5) && Value::Int(0) > Value::Float(-0.5));
        assert_eq!(Value::Float(-0.0), Value::Int(0));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-3_i64..3).prop_map(Value::Int),
            any::<i64>().prop_map(Value::Int),
            (-6_i32..6).prop_map(|half| Value::Float(f64::from(half) / 2.0)),
            any::<f64>().prop_map(Value::Float),
            "[ab\u{e9}\u{1f600}]{0,2}".prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..2).prop_map(|bytes| Value::Bytes(bytes.into())),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(|items| Value::Array(items.into())),
                proptest::collection::vec(("[ab]", inner), 0..3)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_order_is_total_and_hashing_agrees(a in values(), b in values(), c in values()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
            if a == b {
                prop_assert_eq!(hash(&a), hash(&b));
            }
            prop_assert_eq!(a.cmp(&a), Ordering::Equal);
        }
    }
}
