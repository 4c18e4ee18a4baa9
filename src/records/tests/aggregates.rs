//! Sums, means and extremes.

use super::*;
use crate::base::value::Value;

fn of(values: impl IntoIterator<Item = Value>) -> [Bucket; 2] {
    let values: Vec<Value> = values.into_iter().collect();
    [definition(), definition().index(["a"])].map(|definition| {
        let mut bucket = Bucket::new(definition);
        for (key, value) in (0_i64..).zip(&values) {
            bucket.add(key, record! { "a": value.clone() });
        }
        bucket
    })
}

/// With its kind: Int and Float are told apart.
fn sum(bucket: &Bucket) -> String {
    format!("{:?}", bucket.view().sum("a", &Filter::all()).unwrap())
}

#[test]
fn bk_23_aggregates_count_numbers_only_and_sums_of_ints_are_exact() {
    for bucket in &of(["a".into(), Value::Null, true.into()]) {
        let view = bucket.view();
        let all = Filter::all();
        assert_eq!(sum(bucket), "Int(0)");
        assert_eq!(view.avg("a", &all).unwrap().to_bits(), 0.0_f64.to_bits());
        assert_eq!((view.min("a", &all).unwrap(), view.max("a", &all).unwrap()), (None, None));
    }
    for bucket in &of([7.into(), "0".into(), 3.into(), Value::Null, vec![99].into(), (-1).into()]) {
        let view = bucket.view();
        let all = Filter::all();
        assert_eq!(sum(bucket), "Int(9)");
        assert_eq!(view.avg("a", &all).unwrap().to_bits(), 3.0_f64.to_bits());
        assert_eq!(view.min("a", &all).unwrap(), Some(Value::Int(-1)));
        assert_eq!(view.max("a", &all).unwrap(), Some(Value::Int(7)));
        let positive = Filter::gt("a", 0);
        assert_eq!(view.min("a", &positive).unwrap(), Some(Value::Int(3)));
        assert_eq!(view.max("a", &Filter::lt("a", 7)).unwrap(), Some(Value::Int(3)));
        assert_eq!(view.sum("a", &positive).unwrap(), Value::Int(10));
        assert_eq!(view.max("id", &Filter::eq("a", 3)).unwrap(), Some(Value::Int(2)));
        assert_eq!(view.max("_version", &all).unwrap(), Some(Value::Int(1)));
    }
    // Larger than a float holds exactly, and out of range only on the way.
    assert_eq!(sum(&of([((1_i64 << 53) + 1).into(), 2.into()])[1]), "Int(9007199254740995)");
    assert_eq!(sum(&of([i64::MAX.into(), 1.into(), (-1).into()])[0]), format!("Int({})", i64::MAX));
    assert_eq!(sum(&of([i64::MAX.into(), 1.into()])[0]), "Float(9.223372036854776e18)");
    assert_eq!(sum(&of([1.into(), 0.5.into()])[0]), "Float(1.5)");
    assert_eq!(sum(&of([1.into(), 1.0.into()])[0]), "Float(2.0)");
}

#[test]
fn a_sum_of_floats_is_the_one_nearest_to_the_exact_sum_in_any_order() {
    let values = [1e100, 1.0, -1e100, 1e-30, 0.1, 0.2, -0.3, 1e16, 1.0, -1e16];
    let mut rotated = values;
    for _ in 0..values.len() {
        rotated.rotate_left(1);
        // Worked out with exact fractions: 2 + 1e-30 + (0.1 + 0.2 - 0.3 in binary, 2.8e-17).
        assert_eq!(sum(&of(rotated.map(Value::from))[0]), "Float(2.0)");
    }
    assert_eq!(sum(&of([0.1, 0.2, -0.3].map(Value::from))[0]), "Float(2.7755575615628914e-17)");
    assert_eq!(sum(&of([0.1; 10].map(Value::from))[0]), "Float(1.0)");
    let mixed = [Value::Int(1 << 53), Value::Float(1.0), Value::Float(f64::EPSILON)];
    assert_eq!(sum(&of(mixed)[0]), "Float(9007199254740994.0)");
    let negative = [Value::Int(-(1 << 53) - 1), Value::Float(0.5)];
    assert_eq!(sum(&of(negative)[0]), "Float(-9007199254740992.0)");
    assert_eq!(sum(&of([1e308, 1e308].map(Value::from))[0]), "Float(inf)");
}
