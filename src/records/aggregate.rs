//! Sums, means and extremes of the numbers at a path.

use crate::base::error::Result;
use crate::base::value::Value;
use crate::records::filter::Filter;
use crate::records::path::{Lookup, check_path};
use crate::records::plan::Found;
use crate::records::query::{Direction, Query};
use crate::records::view::View;

impl View {
    /// The sum of the numbers at a path in the records that a filter matches; what is no number is skipped, of none it
    /// is Int 0. An exact Int while all are Int and it fits, otherwise the Float nearest to the exact sum, whatever the
    /// order of the records; ±∞ where that is out of range.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn sum(&self, path: &str, filter: &Filter) -> Result<Value> {
        let total = self.total(path, filter)?;
        Ok(match i64::try_from(total.ints) {
            Ok(sum) if !total.has_floats => Value::Int(sum),
            _ => Value::Float(total.as_f64()),
        })
    }

    /// The mean of the numbers at a path in the records that a filter matches; what is no number is skipped, of none it
    /// is 0.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    #[expect(clippy::cast_precision_loss, reason = "a count of records is exact in a float")]
    pub fn avg(&self, path: &str, filter: &Filter) -> Result<f64> {
        let total = self.total(path, filter)?;
        Ok(if total.count == 0 { 0.0 } else { total.as_f64() / total.count as f64 })
    }

    /// The least number at a path in the records that a filter matches; what is no number is skipped.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn min(&self, path: &str, filter: &Filter) -> Result<Option<Value>> {
        self.extreme(path, filter, Direction::Ascending)
    }

    /// The greatest number at a path in the records that a filter matches; what is no number is skipped.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn max(&self, path: &str, filter: &Filter) -> Result<Option<Value>> {
        self.extreme(path, filter, Direction::Descending)
    }

    fn extreme(&self, path: &str, filter: &Filter, direction: Direction) -> Result<Option<Value>> {
        filter.check()?;
        let query = Query::new(filter.clone().and_number(path)).order_by(path, direction).limit(1);
        let record = self.find(&query)?.pop();
        Ok(record.map(|record| Lookup::new(path, &self.schema.layout).value(&record)))
    }

    fn total(&self, path: &str, filter: &Filter) -> Result<Total> {
        check_path(path)?;
        filter.check()?;
        let lookup = Lookup::new(path, &self.schema.layout);
        let mut total = Total::default();
        for record in self.matching(filter, Found::best(self, filter, self.order.len())) {
            lookup.with(record, |value| match value {
                Some(Value::Int(int)) => {
                    total.count += 1;
                    total.ints += i128::from(*int);
                }
                Some(Value::Float(float)) => {
                    total.count += 1;
                    total.has_floats = true;
                    total.add(*float);
                }
                _ => {}
            });
        }
        Ok(total)
    }
}

/// A sum that forgets nothing: ints in 128 bits, floats as parts that do not overlap (J. R. Shewchuk, Adaptive Precision
/// Floating-Point Arithmetic, 1997).
#[derive(Clone, Debug, Default)]
struct Total {
    count: u64,
    ints: i128,
    has_floats: bool,
    /// Ascending by magnitude; their sum is that of the floats below [`HUGE`], exactly.
    parts: Vec<f64>,
    /// The same of the others, which are scaled down: no sum of either kind leaves the range of floats on its way.
    huge: Vec<f64>,
}

/// 2⁹⁶⁰: 2⁶³ floats below it have a finite sum.
const HUGE: f64 = f64::from_bits((960 + 1_023) << 52);
/// 2¹²⁸.
const SCALE: f64 = f64::from_bits((128 + 1_023) << 52);

/// Adds a float to parts that do not overlap.
fn grow(parts: &mut Vec<f64>, float: f64) {
    let mut high = float;
    let mut kept = 0;
    for at in 0..parts.len() {
        let other = parts[at];
        let (large, small) = if high.abs() < other.abs() { (other, high) } else { (high, other) };
        let sum = large + small;
        let error = small - (sum - large);
        if error != 0.0 {
            parts[kept] = error;
            kept += 1;
        }
        high = sum;
    }
    parts.truncate(kept);
    parts.push(high);
}

impl Total {
    fn add(&mut self, float: f64) {
        if float.abs() < HUGE {
            grow(&mut self.parts, float);
        } else {
            grow(&mut self.huge, float / SCALE);
        }
    }

    /// The float nearest to the sum.
    #[expect(clippy::cast_precision_loss, reason = "each piece of 32 bits is exact, and so is what it is scaled by")]
    fn as_f64(&self) -> f64 {
        if !self.has_floats {
            return self.ints as f64;
        }
        let mut all = self.clone();
        let (negative, mut magnitude) = (self.ints < 0, self.ints.unsigned_abs());
        let mut scale = 1.0;
        while magnitude > 0 {
            let piece = (magnitude & 0xffff_ffff) as f64 * scale;
            all.add(if negative { -piece } else { piece });
            magnitude >>= 32;
            scale *= 4_294_967_296.0;
        }
        if all.huge.iter().all(|part| *part == 0.0) {
            return Self::nearest(&all.parts);
        }
        for part in all.parts.into_iter().filter(|part| *part != 0.0) {
            // What is too small to be scaled down decides ties all the same.
            let scaled = part / SCALE;
            grow(&mut all.huge, if scaled == 0.0 { f64::MIN_POSITIVE.copysign(part) } else { scaled });
        }
        Self::nearest(&all.huge) * SCALE
    }

    fn nearest(parts: &[f64]) -> f64 {
        // Parts do not overlap, so the sum from the largest on is right until the first one that does not fit; the next
        // one decides where that is a tie.
        let mut parts = parts.iter().rev().copied();
        let mut high = parts.next().unwrap_or(0.0);
        let mut low = 0.0;
        for part in parts.by_ref() {
            let before = high;
            high = before + part;
            low = part - (high - before);
            if low != 0.0 {
                break;
            }
        }
        if let Some(next) = parts.next()
            && ((low < 0.0 && next < 0.0) || (low > 0.0 && next > 0.0))
        {
            let twice = low * 2.0;
            let rounded = high + twice;
            #[expect(clippy::float_cmp, reason = "exact: whether the rounding was a tie")]
            if twice == rounded - high {
                high = rounded;
            }
        }
        high + 0.0
    }
}
